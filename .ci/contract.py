"""Holds the results of a real model against the contract: all 22 fields are numbers, and memory is what it has to be."""

import json
import os
import re
import sys

FIELDS = """avg_ttft_ms p50_ttft_ms p95_ttft_ms p99_ttft_ms avg_tbt_ms avg_tpot_ms avg_throughput_tps peak_mem_mb avg_mem_mb
error_rate total_requests successful_requests failed_requests kv_used_tokens kv_used_bytes prefix_hit_rate evict_count evict_ms
spec_accept_rate total_time_s start_time end_time""".split()

results, model = sys.argv[1:]
report = open(os.path.join(results, "REPORT.md")).read()
pool = int(re.search(r"KV cache \| \d+ tokens, (\d+) MiB", report)[1])
weights = int(re.search(r"Computed as \| \S+, (\d+) MiB", report)[1])
# Weights, keys and values, and 100 MiB for everything else.
most = 1.15 * (weights + pool + 100)
for workload in ["short_input", "long_input", "stress_test"]:
    with open(os.path.join(results, f"{workload}_metrics.json")) as file:
        metrics = json.load(file)
    missing = [field for field in FIELDS if not isinstance(metrics[field], (int, float))]
    assert not missing, f"{workload}: {missing} {metrics['unavailable']}"
    assert metrics["failed_requests"] == 0, f"{workload}: {metrics['errors']}"
    assert metrics["peak_mem_mb"] <= most, f"{workload}: {metrics['peak_mem_mb']} MiB, and {most:.0f} were expected"
    print(
        f"{workload}: TTFT {metrics['avg_ttft_ms']:.1f} ms, TBT {metrics['avg_tbt_ms']:.1f} ms, "
        f"{metrics['output_throughput_tps']:.1f} tok/s, {metrics['peak_mem_mb']} MiB, {metrics['evict_count']} evictions, "
        f"{metrics['preempt_count']} preemptions, {metrics['spec_accept_rate']:.2f} of the drafts accepted"
    )

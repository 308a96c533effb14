"""Reads latency logs with another implementation of HdrHistogram, and holds their percentiles against the run's own."""

import glob
import json
import os
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

results = sys.argv[1]
merged = {}
reader = HistogramLogReader(os.path.join(results, "latency.hlog"), HdrHistogram(1, 3_600_000_000, 3))
while histogram := reader.get_next_interval_histogram():
    tag = histogram.get_tag()
    if tag in merged:
        merged[tag].add(histogram)
    else:
        merged[tag] = histogram
assert merged, "the log has no histogram"

for path in glob.glob(os.path.join(results, "*_metrics.json")):
    with open(path) as file:
        metrics = json.load(file)
    for metric in ["ttft", "tpot", "e2e", "tbt"]:
        histogram = merged[f"{metrics['workload']}/{metrics['backend']}/{metric}"]
        for percent in [50, 95, 99]:
            ours, theirs = metrics[f"p{percent}_{metric}_ms"] * 1e3, histogram.get_value_at_percentile(percent)
            assert abs(theirs - ours) <= 2e-3 * ours + 1, f"{path}: p{percent} of {metric}: {ours} us, {theirs} us read"
print(f"{len(merged)} histograms read, and their percentiles are the run's")

//! `report --dialect`: a run in the words of other tools.

use serde_json::Value;

use crate::common::{json, run};

fn value(translation: &Value, cell: usize, name: &str) -> f64 {
    let lines = translation["cells"][cell]["lines"].as_array().unwrap();
    lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("{name}"))["value"]
        .as_f64()
        .unwrap()
}

#[test]
fn the_first_year_in_the_words_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert_eq!(run(dir, ["apply", "year1", "--quiet"]).code, Some(0));
    let told = |dialect: &str| -> Value {
        let said = run(dir, ["report", "benchmark_results", "--dialect", dialect, "--format", "json"]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        serde_json::from_str(&said.out).unwrap()
    };
    // 128 tokens, the first after 10 ms, the others 5 ms apart; five requests one after the other.
    let (ttft, e2e) = (10.0, 10.0 + 127.0 * 5.0);
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    close(value(&told("vllm"), 0, "mean_ttft_ms"), ttft);
    close(value(&told("vllm"), 0, "mean_itl_ms"), 5.0);
    close(value(&told("vllm"), 0, "duration"), 5.0 * e2e / 1e3);
    close(value(&told("guidellm"), 0, "time_per_output_token_ms mean"), e2e / 128.0);
    close(value(&told("aiperf"), 0, "inter_token_latency avg"), 5.0);
    close(value(&told("mlperf"), 0, "99.00 percentile first token latency"), 1e6 * ttft);
    // One token an event: the seed's numbers are ours.
    let ours = json(dir.join("benchmark_results/short_input_metrics.json"));
    for name in ["avg_ttft_ms", "avg_tbt_ms", "avg_tpot_ms", "avg_throughput_tps", "kv_used_tokens"] {
        close(value(&told("seed"), 0, name), ours[name].as_f64().unwrap());
    }
    let table = run(dir, ["report", "benchmark_results", "--dialect", "guidellm"]);
    assert!(table.out.contains("(last − sent) / tokens, TTFT included"), "{}", table.out);
    let markdown =
        run(dir, ["report", "benchmark_results/run.json", "--dialect", "vllm", "--format", "markdown"]);
    assert!(markdown.out.contains("| `mean_ttft_ms` | 10 ms | opened − sent |"), "{}", markdown.out);
}

#[test]
fn what_has_no_requests_has_no_dialect() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("summary.json"), r#"{"workloads": {"a": {"avg_ttft_ms": 1}}}"#).unwrap();
    let said = run(dir, ["report", "summary.json", "--dialect", "vllm"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("a dialect is computed from the requests one by one"), "{}", said.err);
    assert_eq!(run(dir, ["apply", "year1", "--quiet"]).code, Some(0));
    let log = dir.join("benchmark_results/requests.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.lines().skip(1).collect::<Vec<_>>().join("\n")).unwrap();
    let said = run(dir, ["report", "benchmark_results", "--dialect", "vllm"]);
    assert!(said.err.contains("holds 4 of the 5 requests of `short_input`"), "{}", said.err);
    let said = run(dir, ["report", "benchmark_results", "--dialect", "vllm", "--format", "html"]);
    assert_eq!(said.code, Some(2), "{}", said.out);
}

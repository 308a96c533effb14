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

#[test]
fn gaps_between_chunks_are_told_from_the_times_of_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let scenario = "
version: 1
backends: { mock: { kind: mock, mode: batched, preset: rtx4090-8b, kv: { tokens: 65536 } } }
workloads:
  chat: { prompt: { kind: synthetic, tokens: 256 }, output: { tokens: 16 }, load: { kind: open, rate: 20/s, requests: 20 } }
records: tokens
";
    std::fs::write(dir.join("s.yaml"), scenario).unwrap();
    assert_eq!(run(dir, ["apply", "s.yaml", "--quiet"]).code, Some(0));
    let told = || run(dir, ["report", "benchmark_results", "--dialect", "vllm", "--format", "json"]);
    let of = |said: &str, name: &str| {
        let told: Value = serde_json::from_str(said).unwrap();
        let lines = told["cells"][0]["lines"].as_array().unwrap();
        lines.iter().find(|line| line["name"] == name).unwrap()["value"].as_f64()
    };
    let results = dir.join("benchmark_results");
    let mut gaps: Vec<f64> = super::records::tokens(&results)
        .iter()
        .flat_map(|row| serde_json::from_value::<Vec<(u64, usize)>>(row["gaps_ns"].clone()).unwrap())
        .flat_map(|(gap, count)| std::iter::repeat_n(gap as f64 / 1e6, count))
        .collect();
    gaps.sort_by(f64::total_cmp);
    assert_eq!(gaps.len(), 20 * 15);
    // Quantile q of n values lies at (n − 1)·q between its neighbours.
    let linear = |q: f64| {
        let at = (gaps.len() - 1) as f64 * q;
        let low = gaps[at as usize];
        low + (at - at.floor()) * (gaps[at as usize + 1] - low)
    };
    for (name, q) in [("median_itl_ms", 0.5), ("p90_itl_ms", 0.9), ("p99_itl_ms", 0.99)] {
        let found = of(&told().out, name).unwrap();
        assert!((found - linear(q)).abs() < 1e-6, "{name}: {found} {}", linear(q));
    }
    let log = results.join("tokens.jsonl.gz");
    std::fs::write(&log, "no gzip").unwrap();
    let said = told();
    assert_eq!(said.code, Some(2), "{}", said.out);
    assert!(said.err.contains("tokens.jsonl.gz:1: can not be read: "), "{}", said.err);
    std::fs::remove_file(&log).unwrap();
    assert_eq!(of(&told().out, "p99_itl_ms"), None);
}

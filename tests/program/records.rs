//! What is kept of each token, and what other tools read.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use crate::common::{json, run};

const SCENARIO: &str = "
version: 1
seed: 3
backends:
  one: { kind: mock, mode: batched, preset: rtx4090-8b, kv: { tokens: 4096 }, speculative: { tokens: 2, accept: 60% } }
  two: { kind: mock, ttft: 10ms, tbt: 5ms, faults: [ { match: { index: 3 }, action: { kind: disconnect, after_tokens: 2 } } ] }
backend: [one, two]
workloads:
  chat:
    prompt: { kind: synthetic, tokens: 256 }
    output: { tokens: 32 }
    load: { kind: closed, concurrency: 8, requests: 30 }
    warmup: { requests: 4 }
    repeats: 2
records: tokens
reports: [ { export: hlog, out: out/latency.hlog } ]
gates: { rules: [ error_rate <= 50% ] }
";

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The token log of a results folder.
pub fn tokens(results: &Path) -> Vec<Value> {
    let mut text = String::new();
    let bytes = fs::read(results.join("tokens.jsonl.gz")).unwrap();
    flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
    rows(&text)
}

#[test]
fn every_token_has_its_time() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.yaml"), SCENARIO).unwrap();
    let said = run(dir.path(), ["apply", "s.yaml", "-q"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let results = dir.path().join("benchmark_results");
    let key = |row: &Value| ["workload", "backend", "repeat", "index"].map(|name| row[name].to_string());
    let logged: BTreeMap<_, _> = tokens(&results).into_iter().map(|row| (key(&row), row)).collect();
    let requests = rows(&fs::read_to_string(results.join("requests.jsonl")).unwrap());
    assert_eq!((requests.len(), logged.len()), (120, 120));
    for request in &requests {
        let row = &logged[&key(request)];
        let first = row["first_ns"].as_u64().unwrap();
        let gaps: Vec<(u64, u64)> = serde_json::from_value(row["gaps_ns"].clone()).unwrap();
        let end = first + gaps.iter().map(|(gap, count)| gap * count).sum::<u64>();
        let count =
            row["first_event_tokens"].as_u64().unwrap() + gaps.iter().map(|(_, count)| count).sum::<u64>();
        let ms = |ns: u64| ns as f64 / 1e6;
        assert!((ms(first) - request["first_ms"].as_f64().unwrap()).abs() < 1e-5, "{row} {request}");
        assert!((ms(end) - request["end_ms"].as_f64().unwrap()).abs() < 1e-5, "{row} {request}");
        assert_eq!(Some(count), request["output_tokens"].as_u64(), "{row} {request}");
    }
    let cut: Vec<_> = requests.iter().filter(|row| row["outcome"] == "disconnected").collect();
    assert_eq!(cut.len(), 2, "a request that fails after two tokens has their times");
    let bytes = fs::metadata(results.join("tokens.jsonl.gz")).unwrap().len();
    assert!(bytes < 2 * 120 * 32, "{bytes} bytes for {} tokens", 120 * 32);

    let log = fs::read_to_string(results.join("out/latency.hlog")).unwrap();
    let tags = log.lines().filter_map(|line| line.strip_prefix("Tag=")?.split(',').next());
    let mut counts = BTreeMap::new();
    for tag in tags {
        *counts.entry(tag).or_insert(0) += 1;
    }
    let expected: BTreeMap<&str, i32> = [
        "chat/one/ttft",
        "chat/one/tpot",
        "chat/one/e2e",
        "chat/one/tbt",
        "chat/two/ttft",
        "chat/two/tpot",
        "chat/two/e2e",
        "chat/two/tbt",
    ]
    .map(|tag| (tag, 2))
    .into();
    assert_eq!(counts, expected, "a histogram for each metric and repeat");
    let files = &json(results.join("run.json"))["files"];
    for name in ["tokens.jsonl.gz", "out/latency.hlog"] {
        assert!(files.as_array().unwrap().contains(&name.into()), "{files}");
    }
}

#[test]
fn keeping_token_times_changes_no_number() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.yaml"), SCENARIO).unwrap();
    let metrics = |args: &[&str]| {
        let said = run(dir.path(), ["apply", "s.yaml", "-q"].iter().chain(args));
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        let results = dir.path().join("benchmark_results");
        (json(results.join("one/chat_metrics.json")), results.join("tokens.jsonl.gz").exists())
    };
    let (with, without) = (metrics(&[]), metrics(&["--set", "records=requests"]));
    assert_eq!(with.0, without.0);
    assert_eq!((with.1, without.1), (true, false));
}

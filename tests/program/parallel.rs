//! Workloads that run at once: their timeline, what is known of each and of all, and how such a run ends.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Said, json, run, sagebench};

/// Every answer takes 10 ms and 5 ms for each further token: `chat` 20 ms, `batch` 30 ms.
fn scenario(backend: &str, parallel: &str, more: &str) -> String {
    format!(
        "
version: 1
seed: 3
backends:
  mock: {{ kind: mock, {backend} }}
workloads:
  alone:
    prompt: {{ kind: synthetic, tokens: 16 }}
    output: {{ tokens: 3 }}
    load: {{ kind: closed, concurrency: 1, requests: 2 }}
  chat:
    prompt: {{ kind: synthetic, tokens: 16 }}
    output: {{ tokens: 3 }}
    load: {{ kind: closed, concurrency: 2, requests: 10 }}
  batch:
    prompt: {{ kind: synthetic, tokens: 32 }}
    output: {{ tokens: 5 }}
    load: {{ kind: closed, concurrency: 1 }}
parallel:
  mixed: {{ {parallel} }}
{more}"
    )
}

const FIXED: &str = "ttft: 10ms, tbt: 5ms";
const CHAT_LEADS: &str = "chat: {}, batch: { start: 15ms, until: chat }";

fn apply(dir: &Path, text: &str, args: &[&str]) -> Said {
    fs::write(dir.join("s.yaml"), text).unwrap();
    run(dir, ["apply", "s.yaml", "-q"].iter().chain(args))
}

fn report(dir: &Path) -> Value {
    json(dir.join("benchmark_results/run.json"))
}

fn cell<'a>(report: &'a Value, workload: &str) -> &'a Value {
    let cells = report["cells"].as_array().unwrap();
    cells.iter().find(|cell| cell["workload"] == workload).unwrap_or_else(|| panic!("no cell {workload}"))
}

fn requests(dir: &Path, workload: &str) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("benchmark_results/requests.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row["workload"] == workload).collect()
}

#[test]
fn one_timeline_apart_and_pooled() {
    let dir = tempfile::tempdir().unwrap();
    let said = apply(dir.path(), &scenario(FIXED, CHAT_LEADS, ""), &[]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let report = report(dir.path());
    let names: Vec<&str> =
        report["cells"].as_array().unwrap().iter().map(|c| c["workload"].as_str().unwrap()).collect();
    assert_eq!(names, ["alone", "chat", "batch", "mixed"]);
    // Two users with five turns of 20 ms each. The batch begins at 15 ms and sends nothing at or after 100 ms: at 15, 45 and 75.
    let sent = |workload| -> Vec<f64> {
        requests(dir.path(), workload).iter().map(|row| row["sent_ms"].as_f64().unwrap()).collect()
    };
    assert_eq!(sent("chat"), [0.0, 0.0, 20.0, 20.0, 40.0, 40.0, 60.0, 60.0, 80.0, 80.0]);
    assert_eq!(sent("batch"), [15.0, 45.0, 75.0]);
    assert_eq!(requests(dir.path(), "mixed"), Vec::<Value>::new(), "a request stands once in the file");
    let number = |workload: &str, metric: &str| cell(&report, workload)["metrics"][metric].as_f64().unwrap();
    let total = |workload| number(workload, "total_requests");
    assert_eq!((total("chat"), total("batch"), total("mixed")), (10.0, 3.0, 13.0));
    let time = |workload| number(workload, "total_time_s");
    assert_eq!((time("chat"), time("batch"), time("mixed")), (0.1, 0.09, 0.105));
    let metric = |workload: &str, metric: &str| cell(&report, workload)["metrics"][metric].clone();
    assert_eq!(metric("mixed", "max_in_flight"), 3);
    assert_eq!((number("chat", "max_in_flight"), number("batch", "max_in_flight")), (2.0, 1.0));
    assert_eq!(metric("mixed", "avg_tbt_ms"), 5.0);
    let rate = (10.0 * 3.0 + 3.0 * 5.0) / 0.105;
    assert!((number("mixed", "output_throughput_tps") - rate).abs() < 1e-3);
    assert_eq!(report["overall"]["total_requests"], 15);
    assert_eq!(report["overall"]["total_workloads"], 3);
    // They begin together, and what comes after begins when all of them are over.
    assert_eq!(metric("chat", "start_time"), metric("mixed", "start_time"));
    assert_eq!(cell(&report, "mixed")["members"], serde_json::json!(["chat", "batch"]));
    assert_eq!(cell(&report, "chat")["group"], "mixed");
    assert!(said.out.contains("mixed"), "{}", said.out);
}

#[test]
fn the_engine_is_shared_and_counts_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let backend = "mode: batched, cost: { base_ms: 10, weights_ms: 0, token_us: 0, knee: 1, sequence_us: 1000 }, kv: { tokens: 4096 }";
    let said = apply(dir.path(), &scenario(backend, CHAT_LEADS, ""), &[]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let report = report(dir.path());
    let metrics = |workload: &str| cell(&report, workload)["metrics"].clone();
    assert_eq!(metrics("mixed")["max_batch_size"], 3);
    assert_eq!(metrics("chat")["max_batch_size"], Value::Null);
    let why = metrics("chat")["unavailable"]["max_batch_size"].to_string();
    assert!(why.contains("share the engine"), "{why}");
    // Beside the batch a step of the chat has one sequence more: interference.
    let [alone, beside] =
        ["alone", "chat"].map(|workload| metrics(workload)["avg_tpot_ms"].as_f64().unwrap());
    assert!(beside > alone, "{alone} {beside}");
}

#[test]
fn the_same_scenario_gives_the_same_bytes() {
    let files = |order: &str| {
        let dir = tempfile::tempdir().unwrap();
        let text = scenario(FIXED, CHAT_LEADS, order);
        assert_eq!(apply(dir.path(), &text, &["--clock", "virtual"]).code, Some(0));
        fs::read(dir.path().join("benchmark_results/requests.jsonl")).unwrap()
    };
    assert_eq!(files(""), files("# the same\n"));
}

#[test]
fn rules_are_about_workloads_groups_and_others() {
    let dir = tempfile::tempdir().unwrap();
    let gates = "
gates:
  rules:
    - { rule: p50(ttft) <= alone + 1%, workloads: [chat] }
    - { rule: total_requests == 13, workloads: [mixed] }
    - { rule: p99(e2e) <= 25ms, workloads: [mixed] }
    - error_rate == 0
";
    let said = apply(dir.path(), &scenario(FIXED, CHAT_LEADS, gates), &[]);
    assert_eq!(said.code, Some(99), "{}{}", said.out, said.err);
    let report = report(dir.path());
    let verdicts = report["judgements"].as_array().unwrap().iter();
    let verdicts: Vec<String> = verdicts
        .map(|one| {
            format!(
                "{} {} {}",
                one["workload"].as_str().unwrap(),
                one["rule"].as_str().unwrap(),
                one["verdict"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        verdicts,
        [
            "chat p50(ttft) <= alone + 1% PASS",
            "mixed total_requests == 13 PASS",
            "mixed p99(e2e) <= 25ms FAIL",
            "alone error_rate == 0 PASS",
            "chat error_rate == 0 PASS",
            "batch error_rate == 0 PASS",
        ]
    );
}

#[test]
fn a_rule_about_the_group_stops_it() {
    let dir = tempfile::tempdir().unwrap();
    let gates = "gates: { rules: [ { rule: max(e2e) <= 25ms, workloads: [mixed], abort_on_fail: true } ] }\n";
    let said = apply(dir.path(), &scenario(FIXED, CHAT_LEADS, gates), &[]);
    assert_eq!(said.code, Some(99), "{}{}", said.out, said.err);
    // The first answer of the batch ends at 45 ms.
    let outcomes: Vec<Value> =
        requests(dir.path(), "batch").iter().map(|row| row["outcome"].clone()).collect();
    assert_eq!(outcomes, ["success", "interrupted"]);
    assert!(requests(dir.path(), "chat").len() < 10);
    assert!(said.out.contains("stopped"), "{}", said.out);
}

#[test]
fn faults_warm_ups_and_limits_are_each_workloads_own() {
    let dir = tempfile::tempdir().unwrap();
    let backend = "ttft: 10ms, tbt: 5ms, faults: [ { match: { workload: batch, index: 1 }, action: { kind: http_status, code: 503 } } ]";
    let text = scenario(backend, CHAT_LEADS, "gates: { rules: [ error_rate <= 50% ] }\n")
        .replace("requests: 10 }", "requests: 10 }\n    warmup: { requests: 2 }")
        .replace(
            "load: { kind: closed, concurrency: 1 }",
            "load: { kind: closed, concurrency: 1 }\n    total_timeout: 70ms",
        );
    let said = apply(dir.path(), &text, &[]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let report = report(dir.path());
    let errors = |workload: &str| cell(&report, workload)["metrics"]["errors"].clone();
    // From 15 ms on: 30 ms, a refusal at once, 30 ms, and the next one is cut off at 85 ms.
    assert_eq!(errors("batch"), serde_json::json!({ "http_503": 1, "timed_out": 1 }));
    assert_eq!(errors("chat"), serde_json::json!({}));
    assert_eq!(errors("mixed"), errors("batch"));
    assert_eq!(cell(&report, "chat")["metrics"]["total_requests"], 10);
}

#[test]
fn a_plan_shows_its_groups_and_is_played_again() {
    let dir = tempfile::tempdir().unwrap();
    let text = scenario(FIXED, CHAT_LEADS, "").replace("concurrency: 1 }", "concurrency: 1, requests: 50 }");
    fs::write(dir.path().join("s.yaml"), text).unwrap();
    let said = run(dir.path(), ["plan", "s.yaml", "--out", "plan.jsonl"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let said = run(dir.path(), ["apply", "s.yaml", "--dry-run"]);
    assert!(said.out.contains("at once: chat, batch from 15ms until chat is over"), "{}", said.out);
    assert_eq!(run(dir.path(), ["apply", "s.yaml", "-q", "-o", "first"]).code, Some(0));
    let said = run(dir.path(), ["apply", "--plan", "plan.jsonl", "-q", "-o", "second"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let rows = |folder: &str| fs::read(dir.path().join(folder).join("requests.jsonl")).unwrap();
    assert_eq!(rows("first"), rows("second"));
    // One of them alone is no group.
    let said = run(dir.path(), ["apply", "s.yaml", "--only", "chat", "-q", "-o", "third"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let said = run(dir.path(), ["apply", "s.yaml", "--only", "batch", "-q", "-o", "fourth"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("lasts until `chat`"), "{}", said.err);
}

#[test]
fn an_interrupted_group_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let text = scenario(
        "clock: real, ttft: 4ms, tbt: 1ms",
        "chat: {}, batch: { until: chat }",
        "validity: { lag: off, busy: off }\ngates: { confidence: none }\n",
    )
    .replace("requests: 10 }", "requests: 400 }");
    fs::write(dir.path().join("s.yaml"), &text).unwrap();
    let child = sagebench(dir.path()).args(["apply", "s.yaml", "-q"]).spawn().unwrap();
    crate::interruption::wait_for_journal(dir.path(), 12_000);
    crate::interruption::signal(&child, "INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    let partial = report(dir.path());
    let total = |report: &Value, workload: &str| {
        cell(report, workload)["metrics"]["total_requests"].as_u64().unwrap()
    };
    assert!((1..400).contains(&total(&partial, "chat")), "{}", total(&partial, "chat"));
    let said = run(dir.path(), ["apply", "s.yaml", "--resume", "-q"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let full = report(dir.path());
    assert_eq!(total(&full, "chat"), 400);
    assert!(total(&full, "batch") > total(&partial, "batch"));
    assert_eq!(total(&full, "mixed"), total(&full, "chat") + total(&full, "batch"));
    let indexes: std::collections::BTreeSet<u64> =
        requests(dir.path(), "batch").iter().map(|row| row["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes.len() as u64, total(&full, "batch"), "each request once");
}

/// What is known of the workloads of a group and of the group itself on a backend that takes real time.
fn whole_group(dir: &Path, said: &Said) {
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let report = report(dir);
    let metrics = |workload: &str| cell(&report, workload)["metrics"].clone();
    let count = |workload: &str, metric: &str| metrics(workload)[metric].as_u64().unwrap();
    assert_eq!((count("chat", "successful_requests"), count("chat", "total_output_tokens")), (10, 30));
    let batch = count("batch", "successful_requests");
    assert!(batch >= 1 && count("batch", "total_output_tokens") == 5 * batch, "{}", metrics("batch"));
    assert_eq!((count("mixed", "successful_requests"), count("mixed", "failed_requests")), (10 + batch, 0));
    let time = |workload: &str| metrics(workload)["total_time_s"].as_f64().unwrap();
    assert!(time("mixed") >= time("chat"));
    let (chat, rows) = (requests(dir, "chat"), requests(dir, "batch"));
    assert_eq!((chat.len(), rows.len()), (10, batch as usize));
    // One timeline: the batch begins 15 ms behind the chat, and sends nothing once the chat is over.
    let over = chat.iter().map(|row| row["end_ms"].as_f64().unwrap()).fold(0.0, f64::max);
    let due = |row: &Value| row["due_ms"].as_f64().unwrap();
    assert!(rows.iter().all(|row| (15.0..=over).contains(&due(row))), "{rows:?}");
}

#[test]
fn a_group_shares_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _said, address) = crate::serve::start(&dir, &["--backend", "other"]);
    let text = scenario("X", CHAT_LEADS, "validity: { lag: off, busy: off }\n")
        .replace("kind: mock, X", &format!("kind: vllm, base_url: \"http://{address}/v1\""));
    let said = apply(dir.path(), &text, &[]);
    crate::interruption::signal(&child, "TERM");
    child.wait().unwrap();
    whole_group(dir.path(), &said);
    // What the server counts is about all of them.
    let report = report(dir.path());
    let of = |workload: &str| cell(&report, workload)["metrics"]["unavailable"]["kv_used_tokens"].to_string();
    assert!(of("chat").contains("share the engine"), "{}", of("chat"));
}

#[cfg(feature = "candle")]
#[test]
fn a_group_shares_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let said = run(dir.path(), ["model", "random", "--like", "gpt2", "--tiny", "--out", "tiny"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let text = scenario("X", CHAT_LEADS, "validity: { lag: off, busy: off }\n")
        .replace("kind: mock, X", "kind: candle, model: ./tiny, kv: { tokens: 1024 }");
    let said = apply(dir.path(), &text, &[]);
    whole_group(dir.path(), &said);
    let report = report(dir.path());
    let mixed = &cell(&report, "mixed")["metrics"];
    assert!(mixed["kv_used_tokens"].as_u64().unwrap() >= 32 + 5, "the group's engine is known: {mixed}");
    assert_eq!(cell(&report, "chat")["metrics"]["kv_used_tokens"], Value::Null);
}

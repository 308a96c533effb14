//! Requests that are sent again, as a user sees them.

use std::fs;

use serde_json::Value;

use crate::common::{json, run, sagebench};

fn scenario(clock: &str) -> String {
    format!(
        "
version: 1
seed: 3
backends:
  mock:
    kind: mock
    clock: {clock}
    ttft: 10ms
    tbt: 1ms
    faults:
      - {{ match: {{ index: [1, 2], attempts: 1 }}, action: {{ kind: http_status, code: 503 }} }}
      - {{ match: {{ index: 3 }}, action: {{ kind: http_status, code: 429 }} }}
workloads:
  chat:
    prompt: {{ kind: synthetic, tokens: 16 }}
    output: {{ tokens: 3 }}
    load: {{ kind: closed, concurrency: 8, requests: 8 }}
    retries: 1
gates: {{ confidence: none, rules: [ error_rate <= 20%, failed_requests == 1, retried_requests == 3, retried_requests == 2 where ttft >= 100ms ] }}
validity: {{ lag: off, busy: off }}
"
    )
}

#[test]
fn nothing_is_hidden() {
    for clock in ["virtual", "real"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("s.yaml"), scenario(clock)).unwrap();
        let said = run(dir.path(), ["apply", "s.yaml"]);
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        let results = dir.path().join("benchmark_results");
        let cell = json(results.join("run.json"))["cells"][0].clone();
        let metrics = &cell["metrics"];
        assert_eq!((&metrics["failed_requests"], &metrics["retried_requests"]), (&1.into(), &3.into()));
        assert_eq!(metrics["errors"], serde_json::json!({ "http_429": 1 }));
        assert!(metrics["max_ttft_ms"].as_f64().unwrap() > 375.0, "from the first attempt");
        let told = "3 requests were sent again after a failure, 3 times in all";
        assert!(metrics["warnings"].to_string().contains(told), "{}", metrics["warnings"]);
        let report = fs::read_to_string(results.join("REPORT.md")).unwrap();
        assert!(report.contains(told), "{report}");
        let text = fs::read_to_string(results.join("requests.jsonl")).unwrap();
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let row = |index: u64| rows.iter().find(|row| row["index"] == index).unwrap();
        assert_eq!(row(0)["retried"], Value::Null);
        assert_eq!(row(1)["retried"][0]["outcome"], "http_503");
        assert!(row(1)["last_sent_ms"].as_f64().unwrap() > row(1)["sent_ms"].as_f64().unwrap() + 300.0);
        assert_eq!(
            (&row(3)["outcome"], &row(3)["retried"][0]["outcome"]),
            (&"http_429".into(), &"http_429".into())
        );
    }
}

#[test]
fn what_was_sent_again_before_an_interruption_is_told_when_the_run_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    // Every fifth request fails once; one of them fails for good.
    let often: Vec<String> = (0..400).step_by(5).map(|index| index.to_string()).collect();
    let text = scenario("real")
        .replace("index: [1, 2]", &format!("index: [{}]", often.join(", ")))
        .replace("requests: 8 }", "requests: 400 }");
    let text = text.split("gates:").next().unwrap().to_owned()
        + "gates: { confidence: none }\nvalidity: { lag: off, busy: off }\n";
    fs::write(dir.path().join("s.yaml"), text).unwrap();
    let child = sagebench(dir.path()).args(["apply", "s.yaml", "-q"]).spawn().unwrap();
    crate::interruption::wait_for_journal(dir.path(), 8000);
    crate::interruption::signal(&child, "INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    let results = dir.path().join("benchmark_results");
    let counts = || {
        let metrics = json(results.join("run.json"))["cells"][0]["metrics"].clone();
        ["total_requests", "failed_requests", "retried_requests"].map(|name| metrics[name].as_u64().unwrap())
    };
    let partial = counts();
    assert!(partial[0] < 400 && partial[2] > 0, "{partial:?}");
    let said = run(dir.path(), ["apply", "s.yaml", "--resume", "-q"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert_eq!(counts(), [400, 1, 81]);
    let text = fs::read_to_string(results.join("requests.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for row in &rows {
        let index = row["index"].as_u64().unwrap();
        let attempts = row["retried"].as_array().map_or(0, Vec::len);
        assert_eq!(attempts, usize::from(index.is_multiple_of(5) || index == 3), "{row}");
    }
}

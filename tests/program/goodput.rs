//! Goodput and the share of requests within the SLO stand wherever a scenario has one.

use std::fs;

use crate::common::{json, run};

/// Two users on a server that takes 10 ms for the first token and holds 32 tokens: the second one waits.
const SWEEP: &str = "version: 1
name: sweep
backends: { mock: { kind: mock, ttft: 10ms, tbt: 5ms, kv: { tokens: 32, block_tokens: 16 } } }
workloads:
  chat:
    prompt: { kind: synthetic, tokens: 16 }
    output: { tokens: 16 }
    load: { kind: closed, concurrency: 1, requests: 8 }
    matrix:
      - { load.concurrency: [1, 2] }
slo: [ttft <= 20ms]
";

#[test]
fn every_table_has_them_when_there_is_an_slo() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("sweep.yaml"), SWEEP).unwrap();
    let said = run(dir, ["apply", "sweep.yaml", "--output", "out"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let alone = json(dir.join("out/chat_concurrency-1_metrics.json"));
    assert_eq!((&alone["slo_share"], &alone["goodput_rps"]), (&1.0.into(), &alone["request_rate_rps"]));
    let pair = json(dir.join("out/chat_concurrency-2_metrics.json"));
    let share = pair["slo_share"].as_f64().unwrap();
    assert!(share > 0.0 && share < 1.0, "{share}");
    assert!(
        (pair["goodput_rps"].as_f64().unwrap() - share * pair["request_rate_rps"].as_f64().unwrap()).abs()
            < 1e-4
    );
    assert!(said.out.contains("of requests met the SLO"), "{}", said.out);
    let goodput = pair["goodput_rps"].to_string();
    let csv = fs::read_to_string(dir.join("out/sweep.csv")).unwrap();
    assert!(
        csv.contains(",goodput_rps,slo_share,") && csv.contains(&format!(",{goodput},{share},")),
        "{csv}"
    );
    for (format, expected) in [
        ("table", "goodput req/s"),
        ("markdown", "| goodput req/s | SLO share |"),
        ("html", "<th class=\"n\">Goodput req/s</th><th class=\"n\">SLO share</th>"),
    ] {
        let told = run(dir, ["report", "out", "--format", format]);
        assert!(told.out.contains(expected), "{format}: {}", told.out);
    }
    let compared = run(dir, ["compare", "out", "out"]);
    assert!(compared.out.contains("goodput_rps") && compared.out.contains("slo_share"), "{}", compared.out);
    // Without an SLO nobody is told that there is none, line by line.
    fs::write(dir.join("plain.yaml"), SWEEP.replace("slo: [ttft <= 20ms]\n", "")).unwrap();
    let plain = run(dir, ["apply", "plain.yaml", "--output", "plain"]);
    assert!(!plain.out.contains("met the SLO"), "{}", plain.out);
    assert!(!run(dir, ["report", "plain"]).out.contains("goodput"));
}

#[test]
fn quick_takes_limits() {
    let dir = tempfile::tempdir().unwrap();
    let said =
        run(dir.path(), ["quick", "http://127.0.0.1:1/v1", "--slo", "tfft <= 20ms", "--duration", "1s"]);
    assert!(said.code == Some(2) && said.err.contains("did you mean `ttft`?"), "{}{}", said.out, said.err);
}

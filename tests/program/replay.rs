//! Real traces through the whole program: every request has a record, and is sent when the trace says.

use std::fs;

use crate::common::run;
use crate::real::folder;
use serde_json::Value;

/// Plays a trace on the mock and returns (due, sent, prompt tokens, output tokens) of every request, in order.
fn replay(file: &str, format: &str, extra: &str) -> Option<Vec<(f64, f64, u64, u64)>> {
    let path = folder("a replay")?.join(file).canonicalize().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let scenario = format!(
        "version: 1
backends: {{ mock: {{ kind: mock, ttft: 100ms, tbt: 10ms{extra} }} }}
workloads:
  replay:
    prompt: {{ kind: trace, path: '{}', format: {format} }}
    load: {{ kind: replay }}
",
        path.display()
    );
    fs::write(dir.path().join("s.yaml"), scenario).unwrap();
    let said = run(dir.path(), ["apply", "s.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let rows = fs::read_to_string(dir.path().join("benchmark_results/requests.jsonl")).unwrap();
    let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    Some(
        rows.map(|row| {
            let tokens = |name: &str| row[name].as_u64().unwrap();
            assert_eq!(row["outcome"], "success");
            (
                row["due_ms"].as_f64().unwrap(),
                row["sent_ms"].as_f64().unwrap(),
                tokens("prompt_tokens"),
                tokens("output_tokens"),
            )
        })
        .collect(),
    )
}

#[test]
fn mooncake_is_sent_as_recorded() {
    for file in ["conversation_1000.jsonl", "synthetic_1000.jsonl"] {
        let Some(played) = replay(&format!("mooncake/{file}"), "mooncake", ", kv: { tokens: 4000000 }")
        else {
            return;
        };
        let text = fs::read_to_string(folder("a replay").unwrap().join("mooncake").join(file)).unwrap();
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((played.len(), rows.len()), (1000, 1000));
        let first = rows[0]["timestamp"].as_f64().unwrap();
        for (got, row) in played.iter().zip(&rows) {
            let due = row["timestamp"].as_f64().unwrap() - first;
            let tokens = |name: &str| row[name].as_u64().unwrap();
            assert_eq!(*got, (due, due, tokens("input_length"), tokens("output_length")));
        }
    }
}

#[test]
fn azure_is_sent_as_recorded() {
    for name in ["conv", "code"] {
        let file = format!("AzureLLMInferenceTrace_{name}_2000.csv");
        let Some(played) = replay(&format!("azure/{file}"), "azure", "") else { return };
        let text = fs::read_to_string(folder("a replay").unwrap().join("azure").join(file)).unwrap();
        // `2023-11-16 18:17:03.9799600`: tenths of a microsecond within the day.
        let tenths = |line: &str| -> u64 {
            let (time, _) = line.split_once(',').unwrap();
            let (_, clock) = time.split_once(' ').unwrap();
            let (whole, fraction) = clock.split_once('.').unwrap();
            let seconds = whole.split(':').fold(0, |sum, part| sum * 60 + part.parse::<u64>().unwrap());
            seconds * 10_000_000 + format!("{fraction:0<7}").parse::<u64>().unwrap()
        };
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!((played.len(), lines.len()), (2000, 2000));
        for (got, line) in played.iter().zip(&lines) {
            let due = (tenths(line) - tenths(lines[0])) as f64 / 1e4;
            let mut fields = line.split(',').skip(1).map(|field| field.parse::<u64>().unwrap());
            assert!((got.0 - due).abs() < 1e-6 && got.0.to_bits() == got.1.to_bits(), "{got:?} {line}");
            assert_eq!((Some(got.2), Some(got.3)), (fields.next(), fields.next()));
        }
    }
}

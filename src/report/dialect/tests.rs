//! Every number of every dialect by hand, over three answers and a failure. Times are in milliseconds:
//!
//! | request | due | sent | opened | first | last | last chunk | closed | tokens | events | chunks | prompt |
//! |---|---|---|---|---|---|---|---|---|---|---|---|
//! | 0 | 0 | 0 | 8 | 10 | 40 | 41 | 42 | 4 | 3 | 5 | 100 |
//! | 1 | 10 | 12 | 30 | 32 | 92 | 92 | 93 | 7 | 7 | 8 | 50 |
//! | 2, without a stream | 20 | 20 | | 25 | 25 | | | 1 | 1 | | 10 |
//! | 3, failed | 30 | 30 | | | 50 | | | | | | |

use serde_json::json;

use super::*;
use crate::measure::fixture::{failed, request};
use crate::record::{GapRun, Record, Stream};
use crate::units::{MILLISECOND, Ns};

fn at(ms: u64) -> Ns {
    ms * MILLISECOND
}

fn records() -> Vec<Record> {
    let record = |index, due, sent, first, end, tokens, events, prompt, stream| Record {
        due: at(due),
        sent: Some(at(sent)),
        first: Some(at(first)),
        end: at(end),
        prompt_tokens: prompt,
        events,
        stream,
        token_source: TokenSource::Usage,
        ..request(index, 0, tokens, 0).0
    };
    let stream = |chunks, opened, last, closed| {
        Some(Box::new(Stream { chunks, opened: at(opened), last: at(last), closed: at(closed) }))
    };
    vec![
        record(0, 0, 0, 10, 40, 4, 3, 100, stream(5, 8, 41, 42)),
        record(1, 10, 12, 32, 92, 7, 7, 50, stream(8, 30, 92, 93)),
        record(2, 20, 20, 25, 25, 1, 1, 10, None),
        failed(3, at(30), at(20), Outcome::HttpStatus(503), None),
    ]
}

fn logged(records: Vec<Record>) -> LoggedCell {
    LoggedCell { workload: "w".into(), backend: "b".into(), repeat: 0, records, gaps: None }
}

/// Holds a dialect against the numbers that are known by hand.
fn expect(dialect: Dialect, known: &[(&str, f64)]) {
    let cell = CellReport {
        metrics: [("kv_used_tokens".to_owned(), json!(7)), ("error_rate".to_owned(), json!(0.25))].into(),
        ..CellReport::default()
    };
    let lines = dialect.lines(&[&logged(records())], &cell);
    for (name, value) in known {
        let line = lines.iter().find(|line| line.name == *name);
        let found = line.unwrap_or_else(|| panic!("{name}")).value.unwrap_or_else(|| panic!("{name}"));
        assert!((found - value).abs() <= 1e-6 * value.abs().max(1.0), "{name} is {found}, by hand {value}");
    }
    for line in &lines {
        assert!(!line.formula.is_empty() && line.value.is_none() == line.unavailable.is_some(), "{line:?}");
    }
}

#[test]
fn vllm() {
    let known = [
        ("duration", 0.093),
        ("completed", 3.0),
        ("failed", 1.0),
        ("total_input_tokens", 160.0),
        ("total_output_tokens", 12.0),
        ("request_throughput", 3.0 / 0.093),
        ("output_throughput", 12.0 / 0.093),
        ("total_token_throughput", 172.0 / 0.093),
        // 8, 18 and 5.
        ("mean_ttft_ms", 31.0 / 3.0),
        ("median_ttft_ms", 8.0),
        ("std_ttft_ms", 5.557_777),
        ("p90_ttft_ms", 16.0),
        ("p95_ttft_ms", 17.0),
        ("p99_ttft_ms", 17.8),
        // 34 / 3 and 63 / 6.
        ("mean_tpot_ms", 10.916_667),
        ("median_tpot_ms", 10.916_667),
        ("p99_tpot_ms", 10.5 + 0.99 * (34.0 / 3.0 - 10.5)),
        ("mean_itl_ms", 95.0 / 11.0),
        // 42, 81 and 5.
        ("mean_e2el_ms", 128.0 / 3.0),
        ("median_e2el_ms", 42.0),
        ("p99_e2el_ms", 80.22),
    ];
    expect(Dialect::Vllm, &known);
}

#[test]
fn guidellm() {
    let known = [
        ("requests successful", 3.0),
        ("requests errored", 1.0),
        ("requests_per_second mean", 3.0 / 0.093),
        ("request_concurrency mean", 128.0 / 93.0),
        ("request_latency mean", 0.128 / 3.0),
        ("request_latency p99", 0.081),
        ("time_to_first_token_ms mean", 35.0 / 3.0),
        ("time_to_first_token_ms median", 10.0),
        ("time_to_first_token_ms p90", 20.0),
        // 40 / 4, 80 / 7 and 5 / 1, weighted by 4, 7 and 1.
        ("time_per_output_token_ms mean", 125.0 / 12.0),
        ("time_per_output_token_ms median", 80.0 / 7.0),
        ("inter_token_latency_ms mean", 10.0),
        ("prompt_token_count mean", 160.0 / 3.0),
        ("output_token_count mean", 4.0),
        ("output_tokens_per_second mean", 12.0 / 0.093),
        ("tokens_per_second mean", 172.0 / 0.093),
    ];
    expect(Dialect::Guidellm, &known);
}

#[test]
fn aiperf() {
    let known = [
        ("time_to_first_token avg", 35.0 / 3.0),
        ("time_to_first_token min", 5.0),
        ("time_to_first_token max", 20.0),
        ("time_to_first_token p50", 10.0),
        ("time_to_first_token p90", 18.0),
        // 40, 80 and 5.
        ("request_latency avg", 125.0 / 3.0),
        ("request_latency p99", 79.2),
        ("inter_token_latency avg", 10.0),
        ("output_token_throughput_per_user avg", 100.0),
        ("inter_chunk_latency avg", 11.25),
        ("output_sequence_length avg", 4.0),
        ("input_sequence_length avg", 160.0 / 3.0),
        ("benchmark_duration", 0.093),
        ("output_token_throughput", 12.0 / 0.093),
        ("request_throughput", 3.0 / 0.093),
        ("request_count", 3.0),
        ("error_request_count", 1.0),
    ];
    expect(Dialect::Aiperf, &known);
}

#[test]
fn mlperf() {
    let known = [
        ("Scheduled samples per second", 2.0 / 0.020),
        ("Completed samples per second", 2.0 / 0.092),
        ("Completed tokens per second", 12.0 / 0.092),
        // 40, 82 and 5 ms: position ⌊1.5⌋ = 1 and ⌊2.97⌋ = 2.
        ("Mean latency", 127e6 / 3.0),
        ("50.00 percentile latency", 40e6),
        ("99.00 percentile latency", 82e6),
        ("Min first token latency", 5e6),
        ("Max first token latency", 22e6),
        ("Mean time to output token", 10e6),
        ("failed", 1.0),
    ];
    expect(Dialect::Mlperf, &known);
}

#[test]
fn seed() {
    let known = [
        ("avg_ttft_ms", 35.0 / 3.0),
        ("p50_ttft_ms", 10.0),
        ("p99_ttft_ms", 20.0),
        ("avg_tbt_ms", 11.25),
        ("avg_tpot_ms", 12.5),
        ("avg_throughput_tps", (75.0 + 87.5 + 200.0) / 3.0),
        ("error_rate", 0.25),
        ("kv_used_tokens", 7.0),
    ];
    expect(Dialect::Seed, &known);
    let lines = Dialect::Seed.lines(&[&logged(records())], &CellReport::default());
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let contract: Vec<&str> = crate::measure::CONTRACT.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, contract);
}

#[test]
fn repeats_are_pooled_and_their_durations_add_up() {
    let twice = [&logged(records()), &logged(records())];
    let both = Dialect::Vllm.lines(&twice, &CellReport::default());
    let value = |name: &str| both.iter().find(|line| line.name == name).unwrap().value.unwrap();
    assert!((value("duration") - 0.186).abs() < 1e-9);
    assert!((value("request_throughput") - 6.0 / 0.186).abs() < 1e-9);
    let both = Dialect::Mlperf.lines(&twice, &CellReport::default());
    let completed = both.iter().find(|line| line.name == "Completed samples per second").unwrap();
    assert!((completed.value.unwrap() - 4.0 / 0.184).abs() < 1e-9);
}

#[test]
fn without_an_answer_every_latency_says_why() {
    let none = logged(vec![failed(0, 0, 9, Outcome::TimedOut, None)]);
    for dialect in [Dialect::Vllm, Dialect::Guidellm, Dialect::Aiperf, Dialect::Mlperf, Dialect::Seed] {
        let lines = dialect.lines(&[&none], &CellReport::default());
        assert!(lines.iter().all(|line| line.value.is_some() != line.unavailable.is_some()));
        assert!(lines.iter().filter(|line| line.value.is_none()).count() > 5, "{dialect:?}");
    }
}

#[test]
fn gaps_that_were_kept_have_quantiles() {
    let value = |cell: &LoggedCell, dialect: Dialect, name: &str| {
        let lines = dialect.lines(&[cell], &CellReport::default());
        lines.into_iter().find(|line| line.name == name).unwrap_or_else(|| panic!("{name}")).value
    };
    let run = |ms, count| GapRun { gap: at(ms), count };
    // Request 1 has a chunk before its events, none behind; request 2 has one event and no stream.
    let mut cell = logged(records()[1..3].to_vec());
    assert_eq!(value(&cell, Dialect::Vllm, "median_itl_ms"), None);
    cell.gaps = Some([(1, vec![run(5, 4), run(20, 2)]), (2, Vec::new())].into_iter().collect());
    // 2, 5, 5, 5, 5, 20, 20: the first one is from the role to the first token.
    assert_eq!(value(&cell, Dialect::Vllm, "median_itl_ms"), Some(5.0));
    assert!((value(&cell, Dialect::Vllm, "p90_itl_ms").unwrap() - 20.0).abs() < 1e-9);
    assert!((value(&cell, Dialect::Vllm, "std_itl_ms").unwrap() - 7.119_963).abs() < 1e-3);
    assert_eq!(value(&cell, Dialect::Aiperf, "inter_chunk_latency p50"), Some(5.0));
    // Request 0 has four tokens in three events: its gaps between tokens are not those between chunks.
    let mut cell = logged(records()[..1].to_vec());
    cell.gaps = Some([(0, vec![run(10, 3)])].into_iter().collect());
    assert_eq!(value(&cell, Dialect::Vllm, "median_itl_ms"), None);
    assert_eq!(value(&cell, Dialect::Aiperf, "inter_chunk_latency p50"), None);
}

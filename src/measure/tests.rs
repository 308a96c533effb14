//! Metrics of hand-made records, held against numbers worked out by hand.

use serde_json::{Value, json};

use super::fixture::{cell, failed, played, request, stress};
use super::*;
use crate::backend::EngineStats;
use crate::metric::Metric;
use crate::plan::config::Tags;
use crate::record::{Basis, Outcome, Phase, Record};
use crate::rule::{Condition, On, Op};
use crate::run::{Ending, Played};
use crate::units::{MILLISECOND, SECOND};

fn measured(samples: &Samples, played: &[Played]) -> Metrics {
    metrics(&cell("w", samples, played, &Validity::default(), &Tags::new()))
}

#[track_caller]
fn expect(metrics: &Metrics, expected: &Value) {
    for (name, value) in expected.as_object().expect("a map") {
        assert_eq!(metrics.values.get(name), Some(value), "{name}");
    }
}

#[test]
fn the_contracts_stress_test() {
    let (samples, played) = stress();
    let metrics = measured(&samples, &[played]);
    // Gaps: 2550 in all, 2548 of 5 ms, one of 325, one of 565: 13630 ms. E2E: 8 × 1285, 1605, 1845 ms.
    expect(
        &metrics,
        &json!({
            "avg_ttft_ms": 10.0, "p50_ttft_ms": 10.0, "p95_ttft_ms": 10.0, "p99_ttft_ms": 10.0,
            "avg_tbt_ms": 5.345_098, "p99_tbt_ms": 5.0, "max_tbt_ms": 565.0, "avg_tpot_ms": 5.345_098,
            "max_itl_ms": 565.0, "tbt_sample_count": 2550,
            // 565 + 254 × 5 over 255 tokens after the first.
            "max_tpot_ms": 7.196_078,
            "avg_e2e_ms": 1373.0, "p50_e2e_ms": 1285.0, "p90_e2e_ms": 1605.0, "p95_e2e_ms": 1845.0,
            // (8 × 256 / 1.285 + 256 / 1.605 + 256 / 1.845) / 10
            "avg_throughput_tps": 189.202_926,
            "peak_mem_mb": 128, "avg_mem_mb": 100.0, "error_rate": 0.0,
            "total_requests": 10, "successful_requests": 10, "failed_requests": 0,
            "kv_used_tokens": 4088, "kv_used_bytes": 133_955_584, "prefix_hit_rate": 0.0,
            "evict_count": 115, "evict_ms": null, "spec_accept_rate": null,
            "total_time_s": 1.845, "start_time": 0.0, "end_time": 1.845,
            "output_throughput_tps": 1_387.533_875, "request_rate_rps": 5.420_054,
            "offered_rate_rps": null, "max_in_flight": 10, "preempt_count": 2,
            "ttft_ci95_ms": [10.0, 10.0], "slo_share": null, "sample_count": 10, "clock": "virtual",
        }),
    );
    assert_eq!(metrics.unavailable["evict_ms"], "the scenario sets no cost of an eviction");
    assert_eq!(metrics.unavailable["offered_rate_rps"], "all requests were due at the same time");
    insta::assert_snapshot!(metrics.warnings.join("\n"), @"10 requests succeeded, so p95 and p99 are the largest value; p95 needs 20 requests, p99 needs 100 to be more than that");
}

/// Three successes of 4 tokens at 0, 100 and 200 ms, a 503 and a time-out, one cancelled, one warm-up.
fn mixed() -> Samples {
    let mut samples = Samples::new(Basis::Due);
    let (warm, gaps) = request(0, 0, 4, SECOND);
    samples.push(Record { phase: Phase::Warmup, ..warm }, &gaps);
    for index in 0..3 {
        let (record, gaps) = request(index, index * 100 * MILLISECOND, 4, 5 * MILLISECOND);
        // The second leaves 7 ms late, and everything after it is as late.
        let late = if index == 1 { 7 * MILLISECOND } else { 0 };
        let record = Record {
            sent: record.sent.map(|at| at + late),
            first: record.first.map(|at| at + late),
            end: record.end + late,
            asked_tokens: if index == 2 { 5 } else { 4 },
            ..record
        };
        samples.push(record, &gaps);
    }
    let at = 300 * MILLISECOND;
    samples.push(failed(3, at, 10 * MILLISECOND, Outcome::HttpStatus(503), Some("overloaded")), &[]);
    samples.push(failed(4, at + 100 * MILLISECOND, SECOND, Outcome::TimedOut, None), &[]);
    samples.push(failed(5, at + 200 * MILLISECOND, MILLISECOND, Outcome::Cancelled, None), &[]);
    samples
}

#[test]
fn failures_count_apart_and_open_loops_count_from_due() {
    let samples = mixed();
    let condition = |name, limit| Condition {
        on: On::Metric(Metric::named(name).expect("it is in the table"), limit),
        op: Op::Le,
        at: 0..0,
    };
    let slo = [condition("ttft", 15.0), condition("tpot", 5.0)];
    let (valid, tags) = (Validity::default(), Tags::new());
    let played = [played(0, 2 * SECOND, 2, EngineStats::default())];
    let metrics = metrics(&CellInput { slo: &slo, ..cell("w", &samples, &played, &valid, &tags) });
    expect(
        &metrics,
        &json!({
            "total_requests": 5, "successful_requests": 3, "failed_requests": 2, "error_rate": 0.4,
            "cancelled_requests": 1, "warmup_requests": 1, "errors": { "http_503": 1, "timed_out": 1 },
            // TTFT from due: 10, 17, 10.
            "avg_ttft_ms": 12.333_333, "p50_ttft_ms": 10.0, "max_ttft_ms": 17.0,
            "avg_tpot_ms": 5.0, "avg_tbt_ms": 5.0, "tbt_sample_count": 9,
            // 25, 32 and 25 ms for 4 tokens: 160, 125, 160 tok/s.
            "avg_throughput_tps": 148.333_333,
            // 0, 7, 0 and two failures that left in time.
            "avg_queue_delay_ms": 1.4, "max_queue_delay_ms": 7.0,
            "output_throughput_tps": 6.0, "input_throughput_tps": 6.0, "total_throughput_tps": 12.0,
            "request_rate_rps": 1.5, "slo_share": 0.4, "goodput_rps": 1.0,
            // Six due times over 500 ms.
            "offered_rate_rps": 10.0,
            "total_output_tokens": 12, "avg_output_tokens": 4.0, "avg_asked_tokens": 4.333_333, "length_mismatches": 1,
            "ttft_ci95_ms": null, "kv_used_tokens": null, "prefix_hit_rate": null,
        }),
    );
    assert_eq!(metrics.unavailable["kv_used_tokens"], "the backend does not report it");
    insta::assert_snapshot!(metrics.warnings.join("\n"), @r"
    3 requests succeeded, so p95 and p99 are the largest value; p95 needs 20 requests, p99 needs 100 to be more than that
    1 of 3 successful requests came out longer or shorter than the length they were forced to
    ");
    let errors = errors(&samples);
    assert_eq!((errors[0].kind.as_str(), errors[0].message.as_deref()), ("http_503", Some("overloaded")));
}

#[test]
fn repeats_are_pooled() {
    let (mut samples, first) = stress();
    let (again, second) = stress();
    samples.merge(&again);
    let mut second = second;
    second.stats.kv_used_tokens = Some(1000);
    second.stats.avg_mem_bytes = Some(f64::from(40 << 20));
    second.measure_end = 3 * first.measure_end;
    let metrics = measured(&samples, &[first, second]);
    expect(
        &metrics,
        &json!({
            "repeats": 2, "total_requests": 20, "evict_count": 230, "preempt_count": 4, "kv_used_tokens": 4088,
            "total_time_s": 7.38, "avg_mem_mb": 55.0, "avg_tbt_ms": 5.345_098, "tbt_sample_count": 5100,
        }),
    );
}

#[test]
fn nothing_measured_is_null_and_never_zero_or_nan() {
    let metrics = measured(&Samples::new(Basis::Sent), &[]);
    expect(
        &metrics,
        &json!({
            "avg_ttft_ms": null, "avg_tbt_ms": null, "error_rate": null, "output_throughput_tps": null,
            "total_requests": 0, "total_time_s": 0.0, "peak_mem_mb": null,
        }),
    );
    for field in fields() {
        let value = &metrics.flat()[&field.name];
        assert_eq!(value.is_null(), metrics.unavailable.contains_key(&field.name), "{}", field.name);
    }
}

#[test]
fn the_flat_object_has_exactly_the_fields_in_order() {
    let (samples, played) = stress();
    let flat = measured(&samples, &[played]).flat();
    let names: Vec<_> = fields().iter().map(|field| field.name.clone()).collect();
    assert_eq!(flat.keys().cloned().collect::<Vec<_>>(), names);
}

#[test]
fn an_ending_before_the_end_is_a_warning() {
    let (samples, mut played) = stress();
    played.ending = Ending::Interrupted(2);
    let metrics = measured(&samples, &[played]);
    assert!(metrics.warnings.iter().any(|text| text.contains("signal 2")), "{:?}", metrics.warnings);
}

#[test]
fn conditions_on_tags_and_on_what_a_request_lacks() {
    let (record, _) = request(0, 0, 1, 0);
    let tags = Tags::from_iter([("tier".to_owned(), "gold".to_owned())]);
    let tag = |op, word: &str| Condition { on: On::Tag("tier".into(), word.into()), op, at: 0..0 };
    let tpot = Condition { on: On::Metric(Metric::named("tpot").expect("known"), 0.0), op: Op::Lt, at: 0..0 };
    let holds = |condition| meets(&record, Basis::Sent, &tags, &[condition]);
    assert!(holds(tag(Op::Eq, "gold")) && !holds(tag(Op::Eq, "free")));
    assert!(holds(tag(Op::Ne, "free")) && !holds(tag(Op::Ne, "gold")));
    assert!(holds(tpot), "one token has no time per further token");
}

/// Requests of four tokens, one a second.
fn evenly(requests: u64) -> Samples {
    let mut samples = Samples::new(Basis::Sent);
    for index in 0..requests {
        let (record, gaps) = request(index, index * SECOND, 4, 5 * MILLISECOND);
        samples.push(record, &gaps);
    }
    samples
}

#[test]
fn curves_end_at_the_extremes_and_timelines_are_bounded() {
    let (samples, _) = stress();
    let drawn = curves(&samples);
    assert_eq!(drawn.ttft.len(), 10);
    assert_eq!(drawn.tbt.last(), Some(&[1.0, 565.0]));
    assert!(drawn.tbt.len() <= 60);
    let many = timeline(&evenly(300));
    assert_eq!((many.requests, many.bars.len(), many.bars[1].index), (300, 200, 1));
}

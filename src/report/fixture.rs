//! A small report for tests: the stress test, a workload with failures, and a sweep whose second point is too slow.

use indexmap::IndexMap;
use serde_json::json;

use super::*;
use crate::backend::EngineStats;
use crate::backend::config::Clock;
use crate::gate::config::Severity;
use crate::gate::{Judgement, Place, Verdict};
use crate::measure::fixture::{cell, failed, played, request, stress};
use crate::measure::{Samples, Validity, curves, errors, metrics, timeline};
use crate::plan::config::Tags;
use crate::record::{Basis, Outcome};
use crate::run::Played;
use crate::units::{MILLISECOND, SECOND};

fn cell_report(workload: &str, load: &str, samples: &Samples, run: Played) -> CellReport {
    let (valid, tags) = (Validity::default(), Tags::new());
    CellReport {
        workload: workload.into(),
        family: workload.split('@').next().unwrap_or_default().into(),
        backend: Some("mock".into()),
        load: Some(load.into()),
        metrics: metrics(&cell(workload, samples, &[run], &valid, &tags)).flat(),
        validity: Some(valid),
        errors: errors(samples),
        curves: curves(samples),
        timeline: timeline(samples),
        ..CellReport::default()
    }
}

/// An open loop of 30 requests of which three fail, with a message that every format has to escape.
fn faulty() -> (Samples, Played) {
    let mut samples = Samples::new(Basis::Due);
    for index in 0..30 {
        let at = index * 40 * MILLISECOND;
        if index % 10 == 9 {
            let message = "<b>a|b</b> & \"no\u{1b} room\"\nretry_later";
            samples.push(failed(index, at, 12 * MILLISECOND, Outcome::HttpStatus(503), Some(message)), &[]);
        } else {
            let (mut record, gaps) = request(index, at, 20, (5 + index) * MILLISECOND);
            record.first = record.first.map(|first| first + index * MILLISECOND / 2);
            record.sent = record.sent.map(|sent| sent + (index % 4) * MILLISECOND);
            record.end += index * MILLISECOND / 2;
            samples.push(record, &gaps);
        }
    }
    (samples, played(0, 2 * SECOND, 4, EngineStats::default()))
}

fn point(concurrency: u64, verdict: Verdict, value: f64) -> (CellReport, Judgement) {
    let mut samples = Samples::new(Basis::Sent);
    for index in 0..concurrency * 4 {
        let (record, gaps) = request(index, index / concurrency * SECOND / 4, 32, 5 * MILLISECOND);
        samples.push(record, &gaps);
    }
    let name = format!("chat@concurrency={concurrency}");
    let load = format!("closed, concurrency {concurrency}, {} requests", concurrency * 4);
    let mut cell =
        cell_report(&name, &load, &samples, played(0, SECOND, concurrency as u32, EngineStats::default()));
    cell.point = IndexMap::from([("concurrency".to_owned(), json!(concurrency))]);
    (cell, judgement("p95(tpot) <= 6ms", &name, verdict, Some(value), 6.0, "ms"))
}

fn judgement(
    rule: &str,
    workload: &str,
    verdict: Verdict,
    value: Option<f64>,
    limit: f64,
    unit: &str,
) -> Judgement {
    Judgement {
        rule: rule.into(),
        workload: workload.into(),
        backend: "mock".into(),
        verdict,
        decides: true,
        severity: Severity::Fail,
        value,
        limit: Some(limit),
        unit: unit.into(),
        interval: None,
        interval_level: None,
        samples: Some(10),
        effective_samples: None,
        method: "exact".into(),
        reason: None,
        implicit: false,
        against: None,
        suspended: false,
        place: Some(Place { file: "year1.yaml".into(), line: 30, column: 7 }),
    }
}

pub(super) fn report() -> RunReport {
    let mut report = RunReport::new();
    // A version bump must not change every snapshot.
    report.generator = Some("sagebench 0.0.0".into());
    report.name = Some("fixture".into());
    report.description = Some("A stress test, a workload with failures, and a sweep.".into());
    report.clock = Some(Clock::Virtual);
    report.simulated = Some(true);
    report.complete = Some(true);
    report.seed = Some(42);
    report.schedule_digest = Some("5c0ffee5c0ffee".into());
    report.content_digest = Some("c0ffeec0ffee".into());
    report.backends = vec![BackendReport {
        name: "mock".into(),
        kind: "mock".into(),
        model: "mock".into(),
        server: None,
        details: IndexMap::default(),
    }];
    let (samples, run) = stress();
    let mut cells = vec![cell_report("stress_test", "closed, concurrency 10, 10 requests", &samples, run)];
    let (samples, run) = faulty();
    let mut broken = cell_report("faulty", "open, 25/s constant, 30 requests", &samples, run);
    broken.faults = (0..3)
        .map(|k| FaultEntry { repeat: 0, index: Some(k * 10 + 9), action: "http_status".into(), at_ms: 12.0 })
        .collect();
    cells.push(broken);
    let (one, one_judged) = point(1, Verdict::Pass, 5.0);
    let (four, four_judged) = point(4, Verdict::Fail, 9.0);
    cells.extend([one, four]);
    report.cells = cells;
    report.judgements = vec![
        judgement("avg(ttft) <= 100ms", "stress_test", Verdict::Pass, Some(10.0), 100.0, "ms"),
        Judgement {
            severity: Severity::Warn,
            decides: false,
            ..judgement("max(tbt) <= 100ms", "stress_test", Verdict::Fail, Some(565.0), 100.0, "ms")
        },
        Judgement {
            samples: None,
            reason: Some("the mock drafts no tokens".into()),
            ..judgement("spec_accept_rate >= 60%", "stress_test", Verdict::NoData, None, 0.6, "%")
        },
        Judgement {
            implicit: true,
            place: None,
            ..judgement("error_rate <= 1%", "faulty", Verdict::Fail, Some(0.1), 0.01, "%")
        },
        Judgement {
            interval: Some([0.8, 0.97]),
            samples: Some(30),
            method: "binomial test at 95%".into(),
            reason: Some("59 samples can tell, there are 30".into()),
            ..judgement("share(ttft <= 20ms) >= 90%", "faulty", Verdict::Inconclusive, Some(0.9), 0.9, "%")
        },
        one_judged,
        four_judged,
    ];
    report.warnings = vec!["the sweep's points share one engine".into()];
    report.conclude(RunVerdict::Fail, 99);
    report
}

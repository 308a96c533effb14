//! What a template sees: the report as in `run.json`, and what is derived from it for printing.
//!
//! Beside the report's own fields there are: `headline` (the run in a line), `conclusion` (sentences), `gates` (counts
//! by verdict), `has_slo` (whether goodput is known of a workload), `suites` (of tests, one per workload); in each cell
//! `verdict` (a word or null), `judgements`, `findings` (sentences), `slug`, in each probe of a search its `number` and its level
//! in words (`at`), and every field of the flat metrics, null where a summary does not have it; in each judgement `word` (its
//! verdict), `note` (how it was judged, and why not).

use serde_json::{Value, json};

use super::analysis::{conclusion, findings, headline};
use super::{CellReport, RunReport, RunVerdict, slug};
use crate::gate::config::Severity;
use crate::gate::{Judgement, Verdict};
use crate::measure::{Type, fields};
use crate::units::human;

pub(super) fn context(report: &RunReport) -> Value {
    let mut root = json!(report);
    root["headline"] = json!(headline(report));
    root["conclusion"] = json!(conclusion(report));
    root["judgements"] = report.judgements.iter().map(|own| judgement(own, report)).collect();
    root["suites"] = suites(report);
    root["gates"] = gates(report);
    root["has_slo"] = json!(report.cells.iter().any(|cell| cell.number("slo_share").is_some()));
    if let Some(cells) = root["cells"].as_array_mut() {
        for (value, own) in cells.iter_mut().zip(&report.cells) {
            derive(value, report, own);
        }
    }
    root
}

/// Adds to a cell what is derived from it.
fn derive(value: &mut Value, report: &RunReport, cell: &CellReport) {
    let metrics = &mut value["metrics"];
    for field in fields() {
        if metrics.get(&field.name).is_none() {
            metrics[&field.name] = match field.of {
                Type::Counts | Type::Reasons | Type::Ratios | Type::Recorded => json!({}),
                Type::Texts => json!([]),
                _ => Value::Null,
            };
        }
    }
    value["verdict"] = json!(cell.verdict(&report.judgements));
    value["judgements"] = report.judged(cell).map(|own| judgement(own, report)).collect();
    value["findings"] = json!(findings(report, cell));
    value["slug"] = json!(slug(&cell.workload));
    for (at, search) in cell.searches.iter().enumerate() {
        value["searches"][at]["repeat"] = json!((cell.searches.len() > 1).then_some(at + 1));
        for (number, probe) in search.probes.iter().enumerate() {
            let shown = &mut value["searches"][at]["probes"][number];
            shown["number"] = json!(number + 1);
            shown["at"] = json!(search.variable.level(probe.level));
        }
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "PASS",
        Verdict::Fail => "FAIL",
        Verdict::Inconclusive => "INCONCLUSIVE",
        Verdict::NoData => "NO_DATA",
    }
}

fn judgement(own: &Judgement, report: &RunReport) -> Value {
    let mut value = json!(own);
    // With one backend its name says nothing.
    let many = report.backends.len() > 1;
    value["who"] =
        if many { format!("{} on {}", own.workload, own.backend).into() } else { json!(own.workload) };
    value["word"] = json!(word(own.verdict));
    value["note"] = json!(note(own));
    value
}

/// How it was judged, in a few words.
fn note(own: &Judgement) -> String {
    let mut parts = vec![own.method.clone()];
    if let Some(samples) = own.samples {
        parts.push(format!("n = {samples}"));
    }
    if let Some([low, high]) = own.interval {
        parts.push(format!("interval {} to {}", human(low, &own.unit), human(high, &own.unit)));
    }
    if own.implicit {
        parts.push("implicit".into());
    }
    if own.severity == Severity::Warn {
        parts.push("warns only".into());
    }
    if own.suspended {
        parts.push("not judged: the workload is INVALID".into());
    }
    parts.extend(own.reason.clone());
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}

fn gates(report: &RunReport) -> Value {
    let count = |wanted: Verdict| report.judgements.iter().filter(|own| own.verdict == wanted).count();
    json!({
        "total": report.judgements.len(),
        "pass": count(Verdict::Pass),
        "fail": count(Verdict::Fail),
        "inconclusive": count(Verdict::Inconclusive),
        "no_data": count(Verdict::NoData),
    })
}

/// One test case.
struct Case {
    name: String,
    status: &'static str,
    message: String,
}

/// The run as test suites: one per workload (and backend), a case per rule; what went wrong beside rules is an error.
fn suites(report: &RunReport) -> Value {
    let mut suites: Vec<Value> = report.cells.iter().map(|cell| cell_suite(report, cell)).collect();
    let pooled: Vec<Case> = report
        .judgements
        .iter()
        .filter(|own| !report.cells.iter().any(|cell| cell.is_of(own)))
        .map(rule_case)
        .collect();
    if !pooled.is_empty() {
        suites.push(suite("all workloads", "all", 0.0, &pooled));
    }
    if report.complete == Some(false) {
        let message = report.interruption.clone().unwrap_or_else(|| "the run is incomplete".into());
        suites.push(suite("run", "run", 0.0, &[Case { name: "complete".into(), status: "error", message }]));
    }
    Value::Array(suites)
}

fn cell_suite(report: &RunReport, cell: &CellReport) -> Value {
    let mut cases = Vec::new();
    if let Some(validity) = cell.validity.as_ref().filter(|validity| !validity.valid) {
        let message =
            validity.reasons.iter().map(|reason| reason.text.as_str()).collect::<Vec<_>>().join("; ");
        cases.push(Case { name: "validity".into(), status: "error", message });
    }
    if cell.verdict(&report.judgements) == Some(RunVerdict::Error) {
        let said = cell.errors.first().map(|error| {
            let message = error.message.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
            format!("; {} × {}{message}", error.kind, error.count)
        });
        let message = format!("not one request succeeded{}", said.unwrap_or_default());
        cases.push(Case { name: "run".into(), status: "error", message });
    }
    cases.extend(report.judged(cell).map(rule_case));
    if cases.is_empty() {
        cases.push(Case { name: "run".into(), status: "passed", message: String::new() });
    }
    let backend = cell.backend.as_deref().unwrap_or("unknown");
    let name = if report.backends.len() > 1 {
        format!("{} on {backend}", cell.workload)
    } else {
        cell.workload.clone()
    };
    suite(&name, &format!("{backend}.{}", cell.workload), cell.number("total_time_s").unwrap_or(0.0), &cases)
}

fn suite(name: &str, class: &str, time: f64, cases: &[Case]) -> Value {
    let count = |status: &str| cases.iter().filter(|case| case.status == status).count();
    let list: Vec<Value> = cases
        .iter()
        .map(|case| json!({ "name": case.name, "status": case.status, "message": case.message }))
        .collect();
    json!({
        "name": name,
        "class": class,
        "time_s": time,
        "tests": cases.len(),
        "failures": count("failure"),
        "errors": count("error"),
        "skipped": count("skipped"),
        "cases": list,
    })
}

fn rule_case(own: &Judgement) -> Case {
    let measured = match own.value.zip(own.limit) {
        Some((value, limit)) => {
            format!("{} (limit {})", human(value, &own.unit), human(limit, &own.unit))
        }
        None => "no data".to_owned(),
    };
    let message = format!("{}: {measured}; {}", word(own.verdict), note(own));
    let status = match own.verdict {
        _ if own.suspended => "skipped",
        Verdict::Pass => "passed",
        Verdict::Inconclusive => "skipped",
        Verdict::Fail | Verdict::NoData if own.decides => "failure",
        // A violated rule that only warns: the case passes, and system-out says so.
        Verdict::Fail | Verdict::NoData => "warning",
    };
    Case { name: own.rule.clone(), status, message }
}

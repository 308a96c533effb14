//! What stands out, in sentences that are computed facts.

use indexmap::IndexMap;

use super::format::{duration, number, percent};
use super::{CellReport, RunReport, RunVerdict};
use crate::gate::config::Severity;
use crate::gate::{Judgement, Verdict};
use crate::units::human;

/// KV use from which the cache counts as nearly full.
const NEARLY_FULL: f64 = 0.9;
/// How many times the median a tail must be to be worth a sentence.
const LONG_TAIL: f64 = 3.0;

/// What stands out in one cell. Empty when nothing does.
pub(super) fn findings(report: &RunReport, cell: &CellReport) -> Vec<String> {
    let mut findings: Vec<String> = Vec::new();
    if let Some(validity) = &cell.validity {
        findings.extend(validity.reasons.iter().map(|reason| format!("INVALID: {}.", reason.text)));
    }
    findings.extend(report.judged(cell).filter_map(violation));
    findings.extend(failures(cell));
    findings.extend(faults(cell));
    findings.extend(cache(cell));
    findings.extend(tails(cell));
    findings
}

/// How far a violated rule is from its limit.
fn violation(judgement: &Judgement) -> Option<String> {
    let would = if judgement.suspended { "would have been" } else { "is" };
    match judgement.verdict {
        Verdict::Pass => None,
        Verdict::Fail => {
            let value = judgement.value?;
            let limit = judgement.limit?;
            let measured = human(value, &judgement.unit);
            let by = if limit == 0.0 {
                format!("against a limit of {}", human(limit, &judgement.unit))
            } else {
                let off = (value - limit) / limit.abs();
                let side = if off > 0.0 { "above" } else { "below" };
                format!("{} {side} the limit of {}", percent(off.abs()), human(limit, &judgement.unit))
            };
            let note = if judgement.severity == Severity::Warn { " (a warning only)" } else { "" };
            Some(format!("The rule {} {would} violated: {measured}, {by}{note}.", judgement.rule))
        }
        Verdict::Inconclusive | Verdict::NoData => {
            let what = if judgement.verdict == Verdict::NoData { "has no data" } else { "can not be told" };
            let why = judgement.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            Some(format!("The rule {} {what}{why}.", judgement.rule))
        }
    }
}

fn failures(cell: &CellReport) -> Option<String> {
    let (failed, total) = (cell.number("failed_requests")?, cell.number("total_requests")?);
    if failed == 0.0 {
        return None;
    }
    let kinds: Vec<String> =
        cell.errors.iter().map(|error| format!("{} × {}", error.kind, error.count)).collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(": {}", kinds.join(", ")) };
    Some(format!("{} of {} requests failed{kinds}.", number(failed), number(total)))
}

/// Faults that were injected, by action in the order they first struck.
fn faults(cell: &CellReport) -> Option<String> {
    let mut actions: IndexMap<&str, usize> = IndexMap::new();
    for fault in &cell.faults {
        *actions.entry(&fault.action).or_default() += 1;
    }
    let list: Vec<String> = actions.iter().map(|(action, count)| format!("{action} × {count}")).collect();
    (!list.is_empty()).then(|| format!("Faults were injected on purpose: {}.", list.join(", ")))
}

/// Pressure on the KV cache, and what it cost.
fn cache(cell: &CellReport) -> Vec<String> {
    let mut found = Vec::new();
    if let Some((used, capacity)) = cell.number("kv_used_tokens").zip(cell.number("kv_capacity_tokens"))
        && capacity > 0.0
        && used / capacity >= NEARLY_FULL
    {
        found.push(format!(
            "The KV cache was nearly full: {} of {} tokens at its peak ({}).",
            number(used),
            number(capacity),
            percent(used / capacity)
        ));
    }
    if let Some(count) = cell.number("preempt_count").filter(|count| *count > 0.0) {
        let gap = cell
            .number("max_tbt_ms")
            .map(|gap| format!("; the longest gap between two tokens is {} ms", number(gap)));
        let times = if count > 1.0 { "times" } else { "time" };
        found.push(format!(
            "A running request was preempted {} {times} for lack of KV blocks and had to be computed again{}.",
            number(count),
            gap.unwrap_or_default()
        ));
    }
    if let Some(count) = cell.number("evict_count").filter(|count| *count > 0.0) {
        let blocks = if count > 1.0 { "blocks were" } else { "block was" };
        found.push(format!("{} cached {blocks} dropped for reuse.", number(count)));
    }
    if let Some(rate) = cell.number("prefix_hit_rate").filter(|rate| *rate > 0.0) {
        found.push(format!("{} of the prompt tokens came from the prefix cache.", percent(rate)));
    }
    found
}

/// Waiting and uneven latency.
fn tails(cell: &CellReport) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(delay) = cell.number("p99_queue_delay_ms").filter(|delay| *delay >= 1.0) {
        let half = cell
            .number("p50_queue_delay_ms")
            .map(|half| format!(", half of them {} ms or more", number(half)));
        found.push(format!(
            "Requests waited in the client before they were sent: p99 {} ms{}.",
            number(delay),
            half.unwrap_or_default()
        ));
    }
    for (name, tail, label) in [("ttft", "p99", "TTFT"), ("tbt", "max", "TBT")] {
        let pair = cell.number(&format!("p50_{name}_ms")).zip(cell.number(&format!("{tail}_{name}_ms")));
        if let Some((median, high)) =
            pair.filter(|(median, high)| *median > 0.0 && high / median >= LONG_TAIL)
        {
            found.push(format!(
                "{label} has a long tail: {tail} {} ms is {} times the median of {} ms.",
                number(high),
                number(high / median),
                number(median)
            ));
        }
    }
    if let Some((offered, achieved)) = cell.number("offered_rate_rps").zip(cell.number("request_rate_rps"))
        && cell.load.as_deref().is_some_and(|load| !load.starts_with("closed"))
        && achieved < 0.9 * offered
    {
        found.push(format!(
            "Requests were due at {} per second and answered at {}: the backend did not keep up, or the run is short against one answer.",
            number(offered),
            number(achieved)
        ));
    }
    found
}

/// The run in one line: its verdict and why.
pub(super) fn headline(report: &RunReport) -> String {
    let word = report.verdict.map_or("no verdict", RunVerdict::word);
    let judged: Vec<&Judgement> = report.judgements.iter().filter(|j| !j.suspended).collect();
    let deciding: Vec<&&Judgement> = judged.iter().filter(|j| j.decides).collect();
    let violated = deciding.iter().filter(|j| matches!(j.verdict, Verdict::Fail | Verdict::NoData)).count();
    let open = judged.iter().filter(|j| j.verdict == Verdict::Inconclusive).count();
    let held = judged.iter().filter(|j| j.verdict == Verdict::Pass).count();
    let mut parts = Vec::new();
    if let Some(reason) = &report.interruption {
        parts.push(reason.clone());
    }
    if judged.is_empty() {
        parts.push("no gates were judged".into());
    } else if violated > 0 {
        parts.push(format!("{violated} of {} {} violated", count(judged.len(), "gate"), is_or_are(violated)));
    } else {
        parts.push(format!("{held} of {} passed", count(judged.len(), "gate")));
    }
    if open > 0 {
        parts.push(format!("{open} inconclusive"));
    }
    let overall = &report.overall;
    if let Some((total, failed)) = overall.total_requests.zip(overall.failed_requests) {
        parts.push(format!("{}, {failed} failed", count(total as usize, "request")));
    }
    if let Some(time) = overall.total_time_s {
        parts.push(format!("{} measured", duration(time)));
    }
    format!("{word}: {}", parts.join(", "))
}

fn is_or_are(n: usize) -> &'static str {
    if n == 1 { "is" } else { "are" }
}

fn count(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// What the run comes to, in a few sentences.
pub(super) fn conclusion(report: &RunReport) -> Vec<String> {
    let mut sentences = vec![format!("{}.", headline(report))];
    for sweep in &report.sweeps {
        sentences.push(match &sweep.best {
            Some(best) => format!("The best point of {} that passes is {best}.", sweep.workload),
            None => format!("No point of {} passes.", sweep.workload),
        });
    }
    let named = |wanted: RunVerdict| {
        let cells = report.cells.iter().filter(|cell| cell.verdict(&report.judgements) == Some(wanted));
        cells.map(|cell| cell.workload.as_str()).collect::<Vec<_>>().join(", ")
    };
    for (verdict, text) in [
        (RunVerdict::Fail, "Violates its gates"),
        (RunVerdict::Invalid, "Can not be trusted"),
        (RunVerdict::Error, "Had not one successful request"),
    ] {
        let names = named(verdict);
        if !names.is_empty() {
            sentences.push(format!("{text}: {names}."));
        }
    }
    if report.complete == Some(false) {
        sentences.push("The run is incomplete: these numbers cover what was measured until it ended.".into());
    }
    sentences
}

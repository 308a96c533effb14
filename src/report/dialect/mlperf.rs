//! `MLPerf` `LoadGen`, server scenario with token latencies: `loadgen/results.cc`.

use super::sheet::{Answered, Request, Sheet, Values};
use crate::units::seconds;

pub(super) const ABOUT: &str = "latency counts from when a query was scheduled, so waiting in the client is part of it; rates \
     count one query less, since the last one opens an interval that is never closed; percentiles are position ⌊q·n⌋ from 0";

const PERCENTILES: [(&str, f64); 6] =
    [("50.00", 0.5), ("90.00", 0.9), ("95.00", 0.95), ("97.00", 0.97), ("99.00", 0.99), ("99.90", 0.999)];

pub(super) fn fill(sheet: &mut Sheet, answered: &Answered) {
    let requests = &answered.requests;
    let scheduled = answered.spans.iter().map(|(scheduled, _)| scheduled).sum();
    let done = answered.spans.iter().map(|(_, done)| done).sum();
    let intervals = (requests.len() - answered.spans.len()) as f64;
    let over = |time, amount: f64| (time > 0).then(|| amount / seconds(time));
    let tokens = answered.sum(|request| request.tokens.into()) as f64;
    sheet.add(
        "Scheduled samples per second",
        "req/s",
        over(scheduled, intervals),
        "(n − 1) / (last due − first due)",
    );
    sheet.add(
        "Completed samples per second",
        "req/s",
        over(done, intervals),
        "(n − 1) / (last answer − first due)",
    );
    sheet.add(
        "Completed tokens per second",
        "tok/s",
        over(done, tokens),
        "Σ tokens / (last answer − first due)",
    );
    latency(sheet, "latency", &answered.each(|request| Some(since(request, request.last))), "last − due");
    let first = answered.each(|request| Some(since(request, request.first)));
    latency(sheet, "first token latency", &first, "first − due");
    let tpot = answered.each(|request| {
        let later = request.tokens.checked_sub(1).filter(|later| *later > 0)?;
        // LoadGen divides whole nanoseconds.
        Some((request.last.saturating_sub(request.first) / u64::from(later)) as f64)
    });
    latency(
        sheet,
        "time to output token",
        &tpot,
        "(last − first) / (tokens − 1), requests of 2 tokens or more",
    );
    let reason = "failed requests, which LoadGen does not know; they are in none of these numbers";
    sheet.count("failed", answered.failed, reason);
}

fn since(request: &Request, moment: u64) -> f64 {
    moment.saturating_sub(request.due) as f64
}

fn latency(sheet: &mut Sheet, name: &str, values: &Values, formula: &'static str) {
    sheet.add(format!("Min {name}"), "ns", values.min(), formula);
    sheet.add(format!("Max {name}"), "ns", values.max(), formula);
    sheet.add(format!("Mean {name}"), "ns", values.mean(), formula);
    for (word, q) in PERCENTILES {
        sheet.add(format!("{word} percentile {name}"), "ns", values.floored(q), formula);
    }
}

//! The contract's 22 fields as the program that first wrote them counted: an event is a token, and latency counts from the
//! send.

use super::sheet::{Answered, Request, Sheet, span_ms};
use crate::measure::CONTRACT;
use crate::report::CellReport;

pub(super) const ABOUT: &str = "an event counts as one token however many it carries; latency counts from the send also in an \
     open loop; what the engine counts is told as it is counted here, never derived from the request";

pub(super) fn fill(sheet: &mut Sheet, answered: &Answered, cell: &CellReport) {
    let ttft = answered.each(|request| Some(request.ttft_ms()));
    for (name, q) in [("p50_ttft_ms", 0.5), ("p95_ttft_ms", 0.95), ("p99_ttft_ms", 0.99)] {
        if q < 0.9 {
            sheet.add("avg_ttft_ms", "ms", ttft.mean(), "mean of first − sent");
        }
        sheet.add(name, "ms", ttft.nearest_rank(q), "nearest rank of first − sent");
    }
    let gaps = answered.sum(|request| u64::from(request.events.saturating_sub(1)));
    let decoding = answered.requests.iter().filter(|request| request.events > 1);
    let decoding: f64 = decoding.map(|request| span_ms(request.first, request.last)).sum();
    let pooled = (gaps > 0).then(|| decoding / gaps as f64);
    sheet.add("avg_tbt_ms", "ms", pooled, "Σ (last − first) / Σ (events − 1)");
    let tpot = answered.each(|request| {
        let later = request.events.checked_sub(1).filter(|later| *later > 0)?;
        Some(span_ms(request.first, request.last) / f64::from(later))
    });
    sheet.add("avg_tpot_ms", "ms", tpot.mean(), "mean of (last − first) / (events − 1)");
    let rate = |request: &Request| {
        let ms = span_ms(request.sent, request.last);
        (ms > 0.0).then(|| f64::from(request.events) * 1e3 / ms)
    };
    let throughput = answered.each(rate);
    sheet.add("avg_throughput_tps", "tok/s", throughput.mean(), "mean of events / (last − sent)");
    for (name, _) in CONTRACT.iter().skip(7) {
        let formula = match *name {
            "error_rate" => "failed_requests / total_requests",
            "total_requests" => "successful_requests + failed_requests",
            _ => "as the run counted it",
        };
        match cell.number(name) {
            Some(value) => sheet.add(*name, unit(name), Some(value), formula),
            None => sheet.lacks(name, unit(name), formula, &why(cell, name)),
        }
    }
}

fn unit(name: &str) -> &'static str {
    match name {
        "peak_mem_mb" | "avg_mem_mb" => "MiB",
        "error_rate" | "prefix_hit_rate" | "spec_accept_rate" => "%",
        "evict_ms" => "ms",
        "total_time_s" | "start_time" | "end_time" => "s",
        _ => "",
    }
}

fn why(cell: &CellReport, name: &str) -> String {
    let reason = cell.metrics.get("unavailable").and_then(|reasons| reasons.get(name)?.as_str());
    reason.unwrap_or("the run does not say").to_owned()
}

//! `inference-perf` of the Kubernetes project: `per_request_lifecycle_metrics.json` with every request, and the statistics of
//! a run or a stage in `*_lifecycle_metrics.json`. Times are in seconds.

use indexmap::IndexMap;

use super::requests::{Chunks, Failure, Found, requests};
use super::summary::{INTERPOLATED, Summary};
use super::text::Document;
use super::value::At;
use super::{ImportedCell, Measured};
use crate::record::Basis;
use crate::sample::FileError;

pub(super) fn cells(document: &Document) -> Result<Vec<ImportedCell>, FileError> {
    if document.has("successes") {
        return document.values().map(|report| statistics(&report)).collect();
    }
    let found = document.values().map(|row| one(&row)).collect::<Result<Vec<_>, _>>()?;
    Ok(vec![cell(Measured::Requests(requests(found, Basis::Sent, None, IndexMap::new())), None)])
}

fn cell(measured: Measured, load: Option<String>) -> ImportedCell {
    let (name, point, notes) = (String::new(), IndexMap::new(), Vec::new());
    ImportedCell { name, point, model: None, load, start_time: None, measured, notes }
}

fn one(row: &At<'_>) -> Result<Found, FileError> {
    let sent = row.need("start_time")?.number()?;
    let end = row.need("end_time")?.number()?;
    let first_of = |ways: &[&[&str]]| ways.iter().find_map(|way| row.way(way));
    let tokens = |at: Option<At<'_>>| at.map(|at| at.tokens()).transpose();
    let prompt = first_of(&[&["info", "request_metrics", "text", "input_tokens"], &["info", "input_tokens"]]);
    let output = first_of(&[
        &["info", "response_metrics", "server_usage", "completion_tokens"],
        &["info", "response_metrics", "output_tokens"],
        &["info", "output_tokens"],
    ]);
    let times =
        first_of(&[&["info", "response_metrics", "output_token_times"], &["info", "output_token_times"]]);
    let times = match times {
        Some(at) => {
            at.items()?.iter().map(|at| Ok(at.number()? - sent)).collect::<Result<Vec<f64>, FileError>>()?
        }
        None => Vec::new(),
    };
    let failure = row.get("error").map(|error| {
        let text = |keys: &[&str]| error.any(keys).and_then(|at| at.text()).unwrap_or_default();
        let (kind, message) = (text(&["error_type"]), text(&["error_msg", "message"]));
        let status = kind.strip_prefix("HTTP Error ").and_then(|code| code.trim().parse().ok());
        Failure::told(status, kind, message)
    });
    Ok(Found {
        sent: Some(sent),
        due: row.get("scheduled_time").map(|at| at.number()).transpose()?,
        chunks: if times.is_empty() { Chunks::None } else { Chunks::All(times) },
        ended: Some(end - sent),
        prompt_tokens: tokens(prompt)?,
        output_tokens: tokens(output)?,
        failure,
        ..Found::default()
    })
}

fn statistics(report: &At<'_>) -> Result<ImportedCell, FileError> {
    let (successes, failures) = (report.need("successes")?, report.need("failures")?);
    let mut summary = Summary::new(INTERPOLATED);
    summary.requests(successes.need("count")?.count()?, Some(failures.need("count")?.count()?));
    let latency = |name: &str| successes.way(&["latency", name]);
    for (ours, theirs) in [
        ("ttft", "time_to_first_token"),
        ("tpot", "time_per_output_token"),
        ("tbt", "inter_token_latency"),
        ("e2e", "request_latency"),
    ] {
        summary.take_statistics(ours, "_ms", latency(theirs).as_ref(), 1e3)?;
    }
    let lengths = |keys: &[&str]| successes.any(keys);
    summary.take_statistics("prompt_tokens", "", lengths(&["prompt_tokens", "prompt_len"]).as_ref(), 1.0)?;
    summary.take_statistics("output_tokens", "", lengths(&["output_tokens", "output_len"]).as_ref(), 1.0)?;
    for (ours, theirs) in [
        ("request_rate_rps", "requests_per_sec"),
        ("output_throughput_tps", "output_tokens_per_sec"),
        ("input_throughput_tps", "input_tokens_per_sec"),
        ("total_throughput_tps", "total_tokens_per_sec"),
    ] {
        summary.take(ours, successes.way(&["throughput", theirs]), 1.0)?;
    }
    summary.take("total_time_s", report.get("benchmark_time_seconds"), 1.0)?;
    let rate = report.way(&["load_summary", "requested_rate"]).map(|at| at.amount()).transpose()?;
    let load = rate.map(|rate| format!("open, {rate} requests/s"));
    Ok(cell(Measured::Summary(summary), load))
}

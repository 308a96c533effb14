//! NVIDIA `AIPerf`: `profile_export.jsonl` with one request in each line, and the statistics in `profile_export_aiperf.json`.
//! Each number carries its unit.

use indexmap::IndexMap;

use super::requests::{Chunks, Failure, Found, requests};
use super::summary::{INTERPOLATED, Summary};
use super::text::Document;
use super::value::At;
use super::{ImportedCell, Measured};
use crate::record::{Basis, Outcome};
use crate::sample::FileError;

pub(super) fn cells(document: &Document) -> Result<Vec<ImportedCell>, FileError> {
    if document.has("metadata") {
        return Ok(vec![rows(document)?]);
    }
    document.values().map(|export| statistics(&export)).collect()
}

/// How many of the wanted unit one of the written unit is.
fn scale(at: &At<'_>, wanted: &str) -> Result<f64, FileError> {
    let nanoseconds = |unit: &str| match unit {
        "ns" | "nanoseconds" => Some(1.0),
        "us" | "microseconds" => Some(1e3),
        "ms" | "milliseconds" => Some(1e6),
        "s" | "sec" | "seconds" => Some(1e9),
        _ => None,
    };
    let unit = at.need("unit")?;
    let written = unit.text().and_then(nanoseconds);
    let written = written.ok_or_else(|| unit.problem(format!("is no unit of time: {}", unit.value)))?;
    Ok(written / nanoseconds(wanted).unwrap_or(1.0))
}

/// A time of a request in seconds.
fn seconds(metrics: &At<'_>, name: &str) -> Result<Option<f64>, FileError> {
    let Some(at) = metrics.get(name) else { return Ok(None) };
    Ok(Some(at.need("value")?.amount()? * scale(&at, "s")?))
}

fn rows(document: &Document) -> Result<ImportedCell, FileError> {
    let mut found = Vec::new();
    let (mut start, mut end) = (f64::INFINITY, f64::NEG_INFINITY);
    for row in document.values() {
        let one = one(&row)?;
        if !one.warmup {
            let sent = one.sent.unwrap_or(f64::INFINITY);
            start = start.min(sent);
            end = end.max(sent + one.ended.unwrap_or(0.0));
        }
        found.push(one);
    }
    if found.iter().all(|one| one.turn.is_none_or(|(_, turn)| turn == 0)) {
        for one in &mut found {
            one.turn = None;
        }
    }
    let duration = (end > start).then_some(end - start);
    Ok(ImportedCell {
        name: String::new(),
        point: IndexMap::new(),
        model: None,
        load: None,
        start_time: start.is_finite().then_some(start),
        measured: Measured::Requests(requests(found, Basis::Sent, duration, IndexMap::new())),
        notes: Vec::new(),
    })
}

fn one(row: &At<'_>) -> Result<Found, FileError> {
    let (metadata, metrics) = (row.need("metadata")?, row.need("metrics")?);
    let stamp = |key: &str| metadata.get(key).map(|at| Ok::<_, FileError>(at.number()? / 1e9)).transpose();
    let sent = Some(metadata.need("request_start_ns")?.number()? / 1e9);
    let first = seconds(&metrics, "time_to_first_token")?;
    let latency = seconds(&metrics, "request_latency")?;
    let gaps = match metrics.get("inter_chunk_latency") {
        Some(at) => {
            let scale = scale(&at, "s")?;
            let gaps = at.need("value")?.items()?;
            Some(gaps.iter().map(|gap| Ok(gap.amount()? * scale)).collect::<Result<Vec<_>, FileError>>()?)
        }
        None => None,
    };
    let tokens = |keys: &[&str]| -> Result<Option<u32>, FileError> {
        metrics.any(keys).map(|at| at.need("value")?.tokens()).transpose()
    };
    let output_tokens = tokens(&["output_sequence_length", "output_token_count"])?;
    let chunks = match (first, gaps, latency) {
        (Some(first), Some(gaps), _) => {
            let later = gaps.iter().scan(first, |time, gap| {
                *time += gap;
                Some(*time)
            });
            Chunks::All(std::iter::once(first).chain(later).collect())
        }
        // A single chunk has no gap to the next.
        (Some(first), None, _) if output_tokens == Some(1) => Chunks::All(vec![first]),
        (Some(first), None, Some(latency)) => Chunks::Ends(first, latency, None),
        _ => Chunks::None,
    };
    let is_cancelled = metadata.get("was_cancelled").is_some_and(|at| at.value == true);
    let session = metadata.get("session_num").map(|at| at.count()).transpose()?;
    let turn = metadata.get("turn_index").map(|at| at.tokens()).transpose()?;
    Ok(Found {
        warmup: metadata.get("benchmark_phase").is_some_and(|at| at.text() == Some("warmup")),
        turn: session.zip(turn),
        sent,
        chunks,
        ended: latency.or(stamp("request_end_ns")?.zip(sent).map(|(end, sent)| end - sent)),
        prompt_tokens: tokens(&["input_sequence_length", "error_isl"])?,
        output_tokens,
        failure: failure(row, is_cancelled)?,
        ..Found::default()
    })
}

fn failure(row: &At<'_>, is_cancelled: bool) -> Result<Option<Failure>, FileError> {
    let Some(error) = row.get("error") else { return Ok(None) };
    let text = |key: &str| error.get(key).and_then(|at| at.text()).unwrap_or_default();
    if is_cancelled {
        return Ok(Some(Failure { outcome: Outcome::Cancelled, message: text("message").to_owned() }));
    }
    let code = error.get("code").map(|at| at.count()).transpose()?;
    Ok(Some(Failure::told(code, text("type"), text("message"))))
}

fn statistics(export: &At<'_>) -> Result<ImportedCell, FileError> {
    let mut summary = Summary::new(INTERPOLATED);
    for (ours, theirs) in
        [("ttft", "time_to_first_token"), ("e2e", "request_latency"), ("tpot", "inter_token_latency")]
    {
        if let Some(at) = export.get(theirs) {
            summary.take_statistics(ours, "_ms", Some(&at), scale(&at, "ms")?)?;
        }
    }
    for (ours, theirs) in
        [("output_tokens", "output_sequence_length"), ("prompt_tokens", "input_sequence_length")]
    {
        summary.take_statistics(ours, "", export.get(theirs).as_ref(), 1.0)?;
    }
    let one = |name: &str| export.way(&[name, "avg"]);
    for (ours, theirs) in [
        ("request_rate_rps", "request_throughput"),
        ("output_throughput_tps", "output_token_throughput"),
        ("total_throughput_tps", "total_token_throughput"),
    ] {
        summary.take(ours, one(theirs), 1.0)?;
    }
    if let Some(at) = export.get("benchmark_duration") {
        let scale = scale(&at, "s")?;
        summary.take("total_time_s", at.get("avg"), scale)?;
    }
    for (ours, theirs) in [("total_prompt_tokens", ["total_isl"]), ("total_output_tokens", ["total_osl"])] {
        if let Some(at) = theirs.iter().find_map(|name| one(name)) {
            summary.set_count(ours, at.count()?);
        }
    }
    let successful = one("request_count").ok_or_else(|| export.problem("lacks `request_count`"))?.count()?;
    // Without a failure the tool leaves the count of them out.
    let failed = one("error_request_count").map(|at| at.count()).transpose()?;
    let is_clean = export.get("error_summary").is_none_or(|at| at.value.as_array().is_none_or(Vec::is_empty));
    summary.requests(successful, failed.or(is_clean.then_some(0)));
    summary.lacks(
        "tbt",
        "_ms",
        "AIPerf's inter-token latency is one mean for each request, which stands as TPOT here",
    );
    summary.lacks_number("goodput_rps", "the tool's goodput is under limits of its own");
    let stamp = export.get("start_time").and_then(|at| at.text()?.parse::<jiff::Timestamp>().ok());
    let model = export.way(&["input_config", "endpoint", "model_names"]);
    let model = model.and_then(|at| Some(at.value.get(0)?.as_str()?.to_owned()));
    Ok(ImportedCell {
        name: String::new(),
        point: IndexMap::new(),
        model,
        load: None,
        start_time: stamp.map(|stamp| stamp.as_millisecond() as f64 / 1e3),
        measured: Measured::Summary(summary),
        notes: Vec::new(),
    })
}

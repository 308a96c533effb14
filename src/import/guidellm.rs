//! `guidellm benchmark`: `benchmarks.json`, a list of benchmarks, each with its metrics and its requests by how they ended.

use indexmap::IndexMap;
use serde_json::Value;

use super::requests::{Chunks, Failure, Found, requests};
use super::summary::Summary;
use super::text::Document;
use super::value::{At, short};
use super::{ImportedCell, Measured};
use crate::record::{Basis, Outcome};
use crate::sample::FileError;

pub(super) fn cells(document: &Document) -> Result<Vec<ImportedCell>, FileError> {
    let mut cells = Vec::new();
    for report in document.values() {
        for benchmark in report.need("benchmarks")?.items()? {
            cells.push(cell(&report, &benchmark)?);
        }
    }
    Ok(cells)
}

/// How requests were sent: what tells it from others, in words, and whether by the clock.
struct Strategy {
    point: IndexMap<String, Value>,
    words: Option<String>,
    basis: Basis,
}

fn strategy(benchmark: &At<'_>) -> Strategy {
    let at = benchmark.way(&["config", "strategy"]).or_else(|| benchmark.way(&["args", "strategy"]));
    let text = |at: &At<'_>, keys: &[&str]| at.any(keys).and_then(|at| at.text().map(str::to_owned));
    let number = |keys: &[&str]| at.as_ref()?.any(keys)?.value.as_f64();
    let kind = at.as_ref().and_then(|at| text(at, &["type_", "type", "kind"])).unwrap_or_default();
    let streams = number(&["streams", "max_concurrency"]);
    let rate = number(&["rate"]);
    let (more, words, basis) = match (kind.as_str(), streams, rate) {
        ("constant" | "poisson", _, Some(rate)) => {
            (Some(("rate", rate)), format!("open, {rate} requests/s, {kind}"), Basis::Due)
        }
        ("concurrent", Some(streams), _) => {
            (Some(("concurrency", streams)), format!("closed, concurrency {streams}"), Basis::Sent)
        }
        ("synchronous", ..) => (None, "closed, concurrency 1".to_owned(), Basis::Sent),
        (other, ..) => (None, other.to_owned(), Basis::Sent),
    };
    let mut point = IndexMap::from([("strategy".to_owned(), Value::from(kind))]);
    point.extend(more.map(|(key, number)| (key.to_owned(), short(number))));
    Strategy { point, words: Some(words).filter(|words| !words.is_empty()), basis }
}

fn cell(report: &At<'_>, benchmark: &At<'_>) -> Result<ImportedCell, FileError> {
    let strategy = strategy(benchmark);
    let metrics = benchmark.need("metrics")?;
    let total = |status: &str| metrics.way(&["request_totals", status]).map(|at| at.count()).transpose();
    let (successful, failed) = (total("successful")?, total("errored")?);
    let time = |key: &str| benchmark.get(key).map(|at| at.number()).transpose();
    let (start, end) = (time("start_time")?, time("end_time")?);
    let duration = match time("duration")? {
        Some(duration) => Some(duration),
        None => start.zip(end).map(|(start, end)| end - start),
    };
    let mut notes = Vec::new();
    let found = found(benchmark)?;
    let seen = |failed: bool| {
        let is = |one: &&Found| match &one.failure {
            None => !failed,
            Some(failure) => failed && failure.outcome != Outcome::Interrupted,
        };
        found.iter().filter(is).count() as u64
    };
    let is_whole = successful.is_none_or(|n| n == seen(false)) && failed.is_none_or(|n| n == seen(true));
    let measured = if is_whole && !found.is_empty() {
        Measured::Requests(requests(found, strategy.basis, duration, IndexMap::new()))
    } else {
        if !found.is_empty() {
            let all = successful.unwrap_or(0) + failed.unwrap_or(0);
            notes.push(format!(
                "the file holds a sample of {} of {all} requests; the tool's statistics over all of them are used",
                seen(false) + seen(true)
            ));
        }
        Measured::Summary(summary(&metrics, successful, failed, duration, start)?)
    };
    let model = [report.way(&["config", "backend", "model"]), benchmark.way(&["config", "backend", "model"])];
    let mut model = model.into_iter().flatten().chain(report.way(&["args", "model"]));
    Ok(ImportedCell {
        name: String::new(),
        point: strategy.point,
        model: model.find_map(|at| at.text().map(str::to_owned)),
        load: strategy.words,
        start_time: start,
        measured,
        notes,
    })
}

fn found(benchmark: &At<'_>) -> Result<Vec<Found>, FileError> {
    let Some(requests) = benchmark.get("requests") else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for status in ["successful", "errored", "incomplete"] {
        let Some(list) = requests.get(status) else { continue };
        for request in list.items()? {
            found.push(one(&request, status)?);
        }
    }
    Ok(found)
}

fn one(request: &At<'_>, status: &str) -> Result<Found, FileError> {
    let timing = |key: &str| request.way(&["info", "timings", key]);
    let time = |at: Option<At<'_>>| at.map(|at| at.number()).transpose();
    let sent = time(request.any(&["request_start_time", "start_time"]).or_else(|| timing("request_start")))?;
    let end = time(request.any(&["request_end_time", "end_time"]).or_else(|| timing("request_end")))?;
    let first = time(timing("first_token_iteration").or_else(|| request.get("first_token_time")))?;
    let first = match (first, request.get("time_to_first_token_ms"), sent) {
        (Some(first), _, Some(sent)) => Some(first - sent),
        (_, Some(ttft), _) => Some(ttft.number()? / 1e3).filter(|ttft| *ttft > 0.0),
        _ => None,
    };
    let last = time(timing("last_token_iteration").or_else(|| request.get("last_token_time")))?;
    let tokens = |keys: &[&str]| request.any(keys).map(|at| at.tokens()).transpose();
    let output_tokens = tokens(&["output_tokens"])?;
    let last = match (last, sent, first, request.get("inter_token_latency_ms"), output_tokens) {
        (Some(last), Some(sent), ..) => Some(last - sent),
        // Their mean gap is over one token less than there are.
        (_, _, Some(first), Some(gap), Some(tokens)) => {
            Some(first + gap.number()? / 1e3 * f64::from(tokens.saturating_sub(1)))
        }
        _ => None,
    };
    let events = timing("token_iterations").map(|at| at.tokens()).transpose()?.filter(|events| *events > 0);
    let message = request.way(&["info", "error"]).or_else(|| request.get("error"));
    let message = message.and_then(|at| at.text().map(str::to_owned)).unwrap_or_default();
    Ok(Found {
        due: time(timing("targeted_start"))?,
        sent,
        chunks: match (first, last) {
            (Some(first), Some(last)) => Chunks::Ends(first, last, events),
            _ => Chunks::None,
        },
        ended: sent.zip(end).map(|(sent, end)| end - sent),
        prompt_tokens: tokens(&["prompt_tokens"])?,
        output_tokens,
        failure: match status {
            "successful" => None,
            "errored" => Some(Failure::told(None, "the request failed", &message)),
            _ => Some(Failure {
                outcome: Outcome::Interrupted,
                message: "in flight when the tool stopped".into(),
            }),
        },
        ..Found::default()
    })
}

fn summary(
    metrics: &At<'_>,
    successful: Option<u64>,
    failed: Option<u64>,
    duration: Option<f64>,
    start: Option<f64>,
) -> Result<Summary, FileError> {
    let mut summary = Summary::new("as the tool took it: nearest rank");
    let Some(successful) = successful else {
        return Err(metrics.problem("has no `request_totals`, so how many requests there were is not known"));
    };
    summary.requests(successful, failed);
    let good = |name: &str| metrics.way(&[name, "successful"]);
    for (ours, suffix, theirs, scale) in [
        ("ttft", "_ms", "time_to_first_token_ms", 1.0),
        ("e2e", "_ms", "request_latency", 1e3),
        ("prompt_tokens", "", "prompt_token_count", 1.0),
        ("output_tokens", "", "output_token_count", 1.0),
    ] {
        summary.take_statistics(ours, suffix, good(theirs).as_ref(), scale)?;
    }
    for (ours, theirs) in [
        ("request_rate_rps", "requests_per_second"),
        ("output_throughput_tps", "output_tokens_per_second"),
        ("input_throughput_tps", "prompt_tokens_per_second"),
        ("total_throughput_tps", "tokens_per_second"),
    ] {
        summary.take(ours, good(theirs).and_then(|at| at.get("mean")), 1.0)?;
    }
    let weighted = "GuideLLM weighs each request's mean by its tokens, which is neither our TPOT nor our TBT; \
         all requests one by one would tell both";
    summary.lacks("tpot", "_ms", weighted);
    summary.lacks("tbt", "_ms", weighted);
    if let Some(duration) = duration {
        summary.set("total_time_s", duration);
    }
    if let Some(start) = start {
        summary.set("start_time", start);
    }
    Ok(summary)
}

//! `vllm bench serve` and `SGLang`'s `bench_serving`, which have the same root and nearly the same files.
//!
//! A file is one JSON object, or with appended runs one in each line. With `--save-detailed` (`--output-details`) it holds
//! lists with an entry for each request. Times are in seconds; `itls` are the gaps between the chunks of an answer.

use indexmap::IndexMap;

use super::requests::{Chunks, Failure, Found, requests};
use super::summary::{INTERPOLATED, Summary};
use super::text::Document;
use super::value::{At, short};
use super::{ImportedCell, Measured, Tool};
use crate::record::Basis;
use crate::sample::FileError;

pub(super) fn cells(document: &Document, tool: Tool) -> Result<Vec<ImportedCell>, FileError> {
    document.values().map(|run| cell(&run, tool)).collect()
}

fn cell(run: &At<'_>, tool: Tool) -> Result<ImportedCell, FileError> {
    let duration = run.need("duration")?.amount()?;
    let completed = run.need("completed")?.count()?;
    let concurrency = run.get("max_concurrency").map(|at| at.count()).transpose()?;
    let rate = run.get("request_rate").and_then(|at| at.value.as_f64());
    let load = match (rate, concurrency) {
        (Some(rate), None) => format!("open, {rate} requests/s"),
        (Some(rate), Some(cap)) => format!("open, {rate} requests/s, at most {cap} at once"),
        (None, Some(cap)) => format!("closed, concurrency {cap}"),
        (None, None) => "all requests at once".to_owned(),
    };
    let mut point = IndexMap::new();
    point.extend(rate.map(|rate| ("rate".to_owned(), short(rate))));
    point.extend(concurrency.map(|concurrency| ("concurrency".to_owned(), concurrency.into())));
    let mut notes = Vec::new();
    let is_detailed = ["ttfts", "itls", "input_lens"].iter().all(|key| run.get(key).is_some());
    let measured = if is_detailed {
        let found = found(run)?;
        let seen = found.iter().filter(|one| one.failure.is_none()).count() as u64;
        if seen != completed {
            notes.push(format!(
                "the file says that {completed} requests were completed; its lists hold {seen}"
            ));
        }
        if rate.is_some() {
            notes.push(
                "latency counts from the send, as the tool has it: waiting in the client is not in it".into(),
            );
        }
        Measured::Requests(requests(found, Basis::Sent, Some(duration), IndexMap::new()))
    } else {
        notes.push(
            "the tool's ITL stands as TBT: the gaps between chunks, however many tokens they carry".into(),
        );
        Measured::Summary(summary(run, tool, duration, completed)?)
    };
    let model = run.any(&["model_id", "model", "model_name"]);
    Ok(ImportedCell {
        name: String::new(),
        point,
        model: model.and_then(|at| at.text().map(str::to_owned)),
        load: Some(load),
        start_time: None,
        measured,
        notes,
    })
}

/// The requests of the lists.
fn found(run: &At<'_>) -> Result<Vec<Found>, FileError> {
    let ttfts = run.need("ttfts")?.items()?;
    let list = |key: &str| -> Result<Option<Vec<At<'_>>>, FileError> {
        let Some(at) = run.get(key) else { return Ok(None) };
        let items = at.items()?;
        if items.len() == ttfts.len() {
            return Ok(Some(items));
        }
        Err(at.problem(format!(
            "has {} entries, `ttfts` has {}; each needs one for each request",
            items.len(),
            ttfts.len()
        )))
    };
    let (itls, prompts) = (list("itls")?.unwrap_or_default(), list("input_lens")?.unwrap_or_default());
    let (outputs, errors, starts) = (list("output_lens")?, list("errors")?, list("start_times")?);
    let one = |at: usize| -> Result<Found, FileError> {
        let ttft = ttfts[at].amount()?;
        let error = errors.as_ref().and_then(|errors| errors[at].text()).unwrap_or_default();
        let failure =
            (!error.is_empty() || ttft == 0.0).then(|| Failure::told(None, "no first token came", error));
        let chunks = if failure.is_some() {
            Chunks::None
        } else {
            let mut time = ttft;
            let mut chunks = vec![time];
            for gap in itls[at].items()? {
                time += gap.amount()?;
                chunks.push(time);
            }
            Chunks::All(chunks)
        };
        Ok(Found {
            sent: starts.as_ref().map(|starts| starts[at].number()).transpose()?,
            chunks,
            prompt_tokens: Some(prompts[at].tokens()?),
            output_tokens: outputs.as_ref().map(|outputs| outputs[at].tokens()).transpose()?,
            failure,
            ..Found::default()
        })
    };
    (0..ttfts.len()).map(one).collect()
}

fn summary(run: &At<'_>, tool: Tool, duration: f64, completed: u64) -> Result<Summary, FileError> {
    let mut summary = Summary::new(INTERPOLATED);
    let failed = match run.get("failed") {
        Some(at) => Some(at.count()?),
        // Every prompt was sent once; those that were not completed failed.
        None => run
            .get("num_prompts")
            .map(|at| at.count())
            .transpose()?
            .and_then(|all| all.checked_sub(completed)),
    };
    summary.requests(completed, failed);
    if failed.is_none() {
        for name in ["failed_requests", "total_requests", "error_rate"] {
            summary.lacks_number(
                name,
                "the file says how many requests were completed, and not how many were sent",
            );
        }
    }
    summary.set("total_time_s", duration);
    for (ours, theirs) in [("ttft", "ttft"), ("tpot", "tpot"), ("tbt", "itl")] {
        summary.take_flat(ours, theirs, run)?;
    }
    let e2e = if tool == Tool::Sglang { "e2e_latency" } else { "e2el" };
    summary.take_flat("e2e", e2e, run)?;
    for (ours, theirs) in [
        ("request_rate_rps", "request_throughput"),
        ("output_throughput_tps", "output_throughput"),
        ("input_throughput_tps", "input_throughput"),
        ("total_throughput_tps", "total_token_throughput"),
    ] {
        summary.take(ours, run.get(theirs), 1.0)?;
    }
    for (ours, theirs) in
        [("total_prompt_tokens", "total_input_tokens"), ("total_output_tokens", "total_output_tokens")]
    {
        if let Some(at) = run.get(theirs) {
            summary.set_count(ours, at.count()?);
        }
    }
    Ok(summary)
}

//! Reads what other tools measured: their result files become requests and numbers under our names.
//!
//! A file that has its requests one by one gives [`Requests`], from which everything is computed by our definitions. A file
//! of statistics gives a [`Summary`]: the numbers that mean the same as ours, under our names. What a file does not say is
//! left out with the reason; nothing is filled in.

mod aiperf;
pub mod command;
mod contract;
mod guidellm;
mod inference_perf;
mod requests;
mod serving;
mod summary;
#[cfg(test)]
mod tests;
mod text;
mod value;

use std::path::Path;

use indexmap::IndexMap;
use serde_json::Value;

pub use self::requests::Requests;
pub use self::summary::Summary;
use self::text::Document;
use crate::nearest::nearest;
use crate::sample::FileError;

/// A tool whose result files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `vllm bench serve --save-result`, with or without `--save-detailed`, appended or not.
    Vllm,
    /// `python -m sglang.bench_serving --output-file`, with or without `--output-details`.
    Sglang,
    /// `guidellm benchmark`, `benchmarks.json`.
    Guidellm,
    /// `aiperf profile`: `profile_export.jsonl`, or `profile_export_aiperf.json`.
    Aiperf,
    /// `inference-perf`: `per_request_lifecycle_metrics.json`, or a summary or stage of it.
    InferencePerf,
    /// The contract's `benchmark_summary.json` and `<workload>_metrics.json`.
    Contract,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The tool that wrote it.
    pub tool: Tool,
    /// What it measured, in the order of the file.
    pub cells: Vec<ImportedCell>,
}

/// One load that was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedCell {
    /// The workload's name where the file has one, else empty.
    pub name: String,
    /// What tells it from others that the tool measured in the same way, such as `concurrency: 4`.
    pub point: IndexMap<String, Value>,
    /// The model that was asked.
    pub model: Option<String>,
    /// The load in a few words.
    pub load: Option<String>,
    /// When measuring started, in Unix seconds.
    pub start_time: Option<f64>,
    /// What is known.
    pub measured: Measured,
    /// What to know before trusting its numbers.
    pub notes: Vec<String>,
}

/// What is known of a load.
#[derive(Debug, Clone, PartialEq)]
pub enum Measured {
    /// Its requests, one by one.
    Requests(Requests),
    /// Statistics over them.
    Summary(Summary),
}

impl Tool {
    /// Every tool.
    pub const ALL: [Self; 6] =
        [Self::Vllm, Self::Sglang, Self::Guidellm, Self::Aiperf, Self::InferencePerf, Self::Contract];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Guidellm => "guidellm",
            Self::Aiperf => "aiperf",
            Self::InferencePerf => "inference-perf",
            Self::Contract => "contract",
        }
    }

    /// The tool of this name.
    ///
    /// # Errors
    /// None has it.
    pub fn named(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|tool| tool.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            let near = nearest(name, names.iter().copied());
            let hint = near.map(|near| format!("; is `{near}` meant?")).unwrap_or_default();
            format!("`{name}` is no format that can be imported{hint}; there are {}", names.join(", "))
        })
    }

    /// Whether a document looks like one of this tool's.
    fn is_of(self, document: &Document) -> bool {
        let has = |keys: &[&str]| keys.iter().all(|key| document.has(key));
        match self {
            Self::Guidellm => has(&["benchmarks"]),
            Self::Aiperf => {
                has(&["metrics", "metadata"])
                    || ["request_latency", "request_throughput", "request_count"]
                        .iter()
                        .any(|key| document.first().is_some_and(|value| value[*key]["unit"].is_string()))
            }
            Self::InferencePerf => {
                has(&["successes", "failures"]) || has(&["start_time", "end_time", "info"])
            }
            Self::Sglang => has(&["duration", "completed", "total_output_tokens_retokenized"]),
            Self::Vllm => {
                has(&["duration", "completed", "total_input_tokens"]) && !Self::Sglang.is_of(document)
            }
            Self::Contract => has(&["workloads"]) || has(&["avg_ttft_ms", "total_requests"]),
        }
    }
}

/// Reads a result file. Its format is that of `tool`, or else told by its content.
///
/// # Errors
/// It can not be read, is empty, cut off or no JSON, is of no format that is known, or lacks what its format has; at the
/// line, or at the path inside the document.
pub fn import(path: &Path, tool: Option<Tool>) -> Result<Imported, FileError> {
    let document = Document::read(path)?;
    let Some(tool) = tool.or_else(|| Tool::ALL.into_iter().find(|tool| tool.is_of(&document))) else {
        return Err(document.foreign());
    };
    let cells = match tool {
        Tool::Vllm | Tool::Sglang => serving::cells(&document, tool),
        Tool::Guidellm => guidellm::cells(&document),
        Tool::Aiperf => aiperf::cells(&document),
        Tool::InferencePerf => inference_perf::cells(&document),
        Tool::Contract => contract::cells(&document),
    }?;
    if cells.is_empty() {
        return Err(document.problem(None, "holds no measured load"));
    }
    Ok(Imported { tool, cells })
}

//! The requests of a run under the definitions of other tools.
//!
//! Tools give different things the same name. A dialect computes a tool's own numbers from our records: its names, its
//! units, its definitions, each with its formula. What its formula needs and no record holds is left out with a reason.
//!
//! In the formulas `sent` is just before the first byte of a request is written, `first` and `last` are the first and the
//! last event with content, `opened` is the first chunk of the response whether it has content or not, `closed` its last
//! event with the usage included, `tokens` the output tokens, and Σ runs over the successful requests.

mod aiperf;
mod guidellm;
mod mlperf;
mod seed;
mod sheet;
#[cfg(test)]
mod tests;
mod vllm;

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use self::sheet::{Answered, Sheet};
use super::templates::{RenderError, Template, render_value};
use super::{CellReport, LoggedCell, RunReport, read_requests};
use crate::record::{Outcome, TokenSource};
use crate::sample::FileError;
use crate::units::human;

/// A tool whose definitions are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `vllm bench serve`.
    Vllm,
    /// `guidellm benchmark`.
    Guidellm,
    /// NVIDIA `aiperf profile`.
    Aiperf,
    /// `MLPerf` `LoadGen`, server scenario with token latencies.
    Mlperf,
    /// The 22 fields of the contract, as the program that first wrote them counted.
    Seed,
}

/// A run in a dialect.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Translation {
    /// The tool.
    pub dialect: &'static str,
    /// What sets its definitions apart.
    pub about: &'static str,
    /// The workloads, in the order of the run.
    pub cells: Vec<TranslatedCell>,
}

/// One workload on one backend, its repeats pooled.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct TranslatedCell {
    /// The workload's full name.
    pub workload: String,
    /// The backend's name.
    pub backend: String,
    /// The numbers.
    pub lines: Vec<Line>,
    /// What to know of them.
    pub notes: Vec<String>,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Line {
    /// The tool's name for it.
    pub name: String,
    /// Its value; `None` where it can not be told.
    pub value: Option<f64>,
    /// Its unit; empty for a plain number.
    pub unit: &'static str,
    /// How it is computed.
    pub formula: &'static str,
    /// Why there is no value.
    pub unavailable: Option<String>,
}

/// Why a run can not be told in a dialect.
#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    /// The run has no requests, or they can not be read.
    #[error("{0}; a dialect is computed from the requests one by one")]
    Requests(#[from] FileError),
    /// Too many requests for the log.
    #[error("{path} holds {held} of the {all} requests of `{workload}`; a dialect needs all of them")]
    Partial {
        /// The log.
        path: String,
        /// The workload.
        workload: String,
        /// How many it holds.
        held: u64,
        /// How many there were.
        all: u64,
    },
}

impl Dialect {
    fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Guidellm => "guidellm",
            Self::Aiperf => "aiperf",
            Self::Mlperf => "mlperf",
            Self::Seed => "seed",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Vllm => vllm::ABOUT,
            Self::Guidellm => guidellm::ABOUT,
            Self::Aiperf => aiperf::ABOUT,
            Self::Mlperf => mlperf::ABOUT,
            Self::Seed => seed::ABOUT,
        }
    }

    /// Tells a run in the dialect. `folder` holds its `requests.jsonl`.
    pub fn translate(self, run: &RunReport, folder: &Path) -> Result<Translation, TranslateError> {
        let logged = read_requests(folder)?;
        let cells = run.cells.iter().map(|cell| {
            let backend = cell.backend.as_deref().unwrap_or_default();
            let is_own = |own: &&LoggedCell| own.workload == cell.workload && own.backend == backend;
            let repeats: Vec<&LoggedCell> = logged.iter().filter(is_own).collect();
            let counted =
                repeats.iter().flat_map(|own| &own.records).filter(|record| record.outcome.is_counted());
            let (held, all) = (counted.count() as u64, cell.number("total_requests").unwrap_or(0.0) as u64);
            if held < all {
                return Err(TranslateError::Partial {
                    path: folder.join("requests.jsonl").display().to_string(),
                    workload: cell.workload.clone(),
                    held,
                    all,
                });
            }
            Ok(TranslatedCell {
                workload: cell.workload.clone(),
                backend: backend.to_owned(),
                lines: self.lines(&repeats, cell),
                notes: notes(&repeats),
            })
        });
        let cells = cells.collect::<Result<_, _>>()?;
        Ok(Translation { dialect: self.name(), about: self.about(), cells })
    }

    /// The numbers of one workload, from the requests of each repeat.
    fn lines(self, repeats: &[&LoggedCell], cell: &CellReport) -> Vec<Line> {
        let answered = Answered::of(repeats);
        let mut sheet = Sheet::default();
        match self {
            Self::Vllm => vllm::fill(&mut sheet, &answered),
            Self::Guidellm => guidellm::fill(&mut sheet, &answered),
            Self::Aiperf => aiperf::fill(&mut sheet, &answered),
            Self::Mlperf => mlperf::fill(&mut sheet, &answered),
            Self::Seed => seed::fill(&mut sheet, &answered, cell),
        }
        sheet.lines
    }
}

fn notes(repeats: &[&LoggedCell]) -> Vec<String> {
    let successes =
        || repeats.iter().flat_map(|own| &own.records).filter(|record| record.outcome == Outcome::Success);
    let mut sources: Vec<TokenSource> = successes().map(|record| record.token_source).collect();
    sources.sort_unstable();
    sources.dedup();
    let words = sources.iter().map(|source| match source {
        TokenSource::Engine => "by the engine",
        TokenSource::Usage => "by the server (usage)",
        TokenSource::TokenIds => "by the server (token ids)",
        TokenSource::Tokenizer => "by this client's tokenizer",
        TokenSource::Events => "as one for each event",
        TokenSource::Imported => "by the tool that measured it",
    });
    let words: Vec<&str> = words.collect();
    let mut notes = Vec::new();
    if !words.is_empty() {
        notes.push(format!("tokens were counted {}", words.join(" and ")));
    }
    if repeats.len() > 1 {
        notes.push(format!("{} repeats are pooled; their durations add up", repeats.len()));
    }
    notes
}

/// Renders a translation with an embedded template.
pub fn render_translation(translation: &Translation, template: &Template) -> Result<String, RenderError> {
    let mut root = serde_json::json!(translation);
    for (value, cell) in root["cells"].as_array_mut().into_iter().flatten().zip(&translation.cells) {
        for (value, line) in value["lines"].as_array_mut().into_iter().flatten().zip(&cell.lines) {
            let shown = line.value.map_or_else(|| "n/a".to_owned(), |number| human(number, line.unit));
            value["shown"] = shown.into();
            value["how"] = match &line.unavailable {
                Some(reason) => format!("{} [{reason}]", line.formula),
                None => line.formula.to_owned(),
            }
            .into();
        }
    }
    render_value(root, template)
}

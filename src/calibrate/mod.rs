//! Fits the cost model of the batched mock to what a server did, and says how well it fits and what the data can not tell.
//!
//! The recorded requests are played again on the mock with candidate parameters, at the times at which they reached the
//! server. Parameters are fitted on every second request (from the first one on), by the times to the first token and from
//! there to the last one, and scored on the others, which the fit has not seen.

mod fit;
mod margin;
mod read;
mod simulate;
mod text;

use std::path::Path;
use std::sync::Arc;

pub use self::fit::{Fit, Fitted, PARAMETERS, Parameter};
pub use self::read::{Fields, Unit};
use self::simulate::{Outcomes, simulate};
use crate::backend::config::{EngineLimits, MockBackend, Mode, Preset, StepCost};
use crate::backend::mock::MockError;
use crate::sample::FileError;
use crate::units::Ns;

/// One recorded request. Times are nanoseconds since its run's first arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When it reached the server.
    pub arrival: Ns,
    /// Its first token.
    pub first: Ns,
    /// Its last token.
    pub last: Ns,
    /// Tokens of its prompt.
    pub prompt: u32,
    /// Tokens of its answer.
    pub output: u32,
    /// The blocks of its prompt, where they were recorded; equal leading ids are an equal prefix.
    pub blocks: Arc<[u64]>,
}

/// What was recorded: runs that began with an idle server, each with its requests by arrival.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The runs.
    pub runs: Vec<Vec<Request>>,
    /// Requests that did not succeed. They are left out, although they may have loaded the server.
    pub left_out: u64,
    /// Tokens in one of the requests' blocks.
    pub block_tokens: u32,
}

/// What to fit.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The mock to start from: its engine, cache and drafts are kept, its cost is where the search begins. Without one,
    /// the engine's limits are the defaults, the cache never fills, and the search begins at a scaled preset.
    pub start: Option<MockBackend>,
    /// The parameters to fit; the others keep their value. Empty fits all.
    pub fit: Vec<Parameter>,
}

/// Why nothing can be fitted.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// The file can not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It holds several backends.
    #[error("the run has requests of several backends: {}; choose one with --backend", .0.join(", "))]
    Backends(Vec<String>),
    /// Too little.
    #[error(
        "{0} requests succeeded with a time of their first token; at least 8 are needed, four to fit and four to score"
    )]
    TooFew(usize),
    /// The mock can not be built.
    #[error("the mock to start from: {0}")]
    Mock(#[from] MockError),
    /// It is of the wrong kind.
    #[error("the mock to start from is not `mode: batched`; only that one has a cost model")]
    NotBatched,
    /// It can not hold what was served.
    #[error("the mock to start from refuses a request that the server answered: {0}")]
    Refused(String),
}

/// Reads recorded requests. `path` is a results folder or a file of JSON lines.
///
/// # Errors
/// When it can not be read, a row lacks a value, or several backends are in it and none is named.
pub fn read(path: &Path, fields: &Fields) -> Result<Recorded, CalibrateError> {
    read::read(path, fields)
}

/// Fits, scores and describes.
///
/// # Errors
/// When there are too few requests, or the mock to start from can not serve them.
pub fn calibrate(recorded: &Recorded, settings: &Settings) -> Result<Fitted, CalibrateError> {
    let count = recorded.runs.iter().map(Vec::len).sum();
    if count < 8 {
        return Err(CalibrateError::TooFew(count));
    }
    let mut mock = match &settings.start {
        Some(mock) if mock.mode != Mode::Batched => return Err(CalibrateError::NotBatched),
        Some(mock) => mock.clone(),
        None => unknown_server(recorded),
    };
    let cost = match (mock.preset.take(), mock.cost) {
        (Some(preset), _) => {
            let (cost, bytes_per_token) = preset.parameters();
            if let Some(kv) = &mut mock.kv {
                kv.bytes_per_token.get_or_insert(bytes_per_token);
            }
            cost
        }
        (None, Some(cost)) => cost,
        (None, None) => scaled_preset(recorded),
    };
    mock.faults.clear();
    mock.cost = Some(cost);
    let parameters = if settings.fit.is_empty() { PARAMETERS.to_vec() } else { settings.fit.clone() };
    Fit { recorded, mock, parameters }.run(settings.start.is_some())
}

/// A server of which nothing but its times is known.
fn unknown_server(recorded: &Recorded) -> MockBackend {
    let tokens = recorded
        .runs
        .iter()
        .map(|run| run.iter().map(|r| u64::from(r.prompt) + u64::from(r.output) + 16).sum());
    let tokens: u64 = tokens.max().unwrap_or(0);
    // One token per sequence and step: more blocks than this are never held at once.
    let blocks = u32::try_from(tokens.div_ceil(16)).unwrap_or(u32::MAX).min(1 << 22);
    let value = serde_json::json!({
        "mode": "batched",
        "engine": EngineLimits::default(),
        "kv": { "blocks": blocks, "prefix_cache": recorded.runs.iter().flatten().any(|r| !r.blocks.is_empty()) },
    });
    serde_json::from_value(value)
        .unwrap_or_else(|error| unreachable!("a mock of constants is valid: {error}"))
}

/// The checked preset, made as fast or slow as the fastest tenth of the recorded answers.
fn scaled_preset(recorded: &Recorded) -> StepCost {
    let (cost, _) = Preset::Rtx4090Of8b.parameters();
    let gap = |r: &Request| (r.output > 1).then(|| (r.last - r.first) as f64 / f64::from(r.output - 1));
    let mut gaps: Vec<f64> = recorded.runs.iter().flatten().filter_map(gap).collect();
    gaps.sort_by(f64::total_cmp);
    let Some(fast) = gaps.get(gaps.len() / 10).filter(|gap| **gap > 0.0) else { return cost };
    let scale = fast / ((cost.base_ms + cost.weights_ms) * 1e6);
    StepCost {
        base_ms: cost.base_ms * scale,
        weights_ms: cost.weights_ms * scale,
        token_us: cost.token_us * scale,
        sequence_us: cost.sequence_us * scale,
        kv_token_ns: cost.kv_token_ns * scale,
        prefill_pair_ps: cost.prefill_pair_ps * scale,
        ..cost
    }
}

#[cfg(test)]
mod tests;

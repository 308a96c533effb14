//! What happened to one request. A failed request is data: an [`Outcome`] on its record, never an error.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::units::Ns;

/// Whether a request counts in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Sent to bring the backend into its steady state; in no metric.
    Warmup,
    /// Counts.
    Measured,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered completely.
    Success,
    /// The backend refused it before it ran (too long for the pool, too many requests).
    Refused,
    /// An HTTP status other than 2xx.
    HttpStatus(u16),
    /// It did not finish within its timeout.
    TimedOut,
    /// The connection ended in the middle of the response.
    Disconnected,
    /// The response ended without saying that it was finished, or shorter than a forced length.
    Truncated,
    /// The response could not be read.
    Malformed,
    /// The response carried an error in its body.
    InBandError,
    /// The server cancelled it.
    CancelledByServer,
    /// Our side cancelled it, as the scenario asked (`cancel`). Not a failure.
    Cancelled,
    /// A hook failed on it: before it was sent (then nothing was), or on its response.
    HookFailed,
    /// Never sent, because the request it follows failed, or because the load ended (or `total_timeout` cut it off) while
    /// it waited under `max_in_flight`. Not in the totals.
    Skipped,
    /// The run was interrupted while it was in flight. Not in the totals.
    Interrupted,
}

impl Outcome {
    /// Whether it counts as failed in `error_rate`.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Success | Self::Cancelled | Self::Skipped | Self::Interrupted)
    }

    /// Whether it counts in `total_requests` (successful or failed).
    pub fn is_counted(self) -> bool {
        self == Self::Success || self.is_failure()
    }

    /// The name under which errors are counted: `timed_out`, `http_503`.
    pub fn label(self) -> String {
        match self {
            Self::HttpStatus(code) => format!("http_{code}"),
            Self::Success => "success".into(),
            Self::Refused => "refused".into(),
            Self::TimedOut => "timed_out".into(),
            Self::Disconnected => "disconnected".into(),
            Self::Truncated => "truncated".into(),
            Self::Malformed => "malformed".into(),
            Self::InBandError => "in_band_error".into(),
            Self::CancelledByServer => "cancelled_by_server".into(),
            Self::Cancelled => "cancelled".into(),
            Self::HookFailed => "hook_failed".into(),
            Self::Skipped => "skipped".into(),
            Self::Interrupted => "interrupted".into(),
        }
    }
}

/// What a response says. Backends keep it only where somebody looks at it: a workload with checks or hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The generated text, whole.
    pub text: String,
    /// Why generation ended, in the words of `OpenAI`'s API: `stop`, `length`, `tool_calls`, `content_filter`; `None` where
    /// the backend does not say.
    pub finish_reason: Option<Cow<'static, str>>,
}

/// Where a token count comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// The engine in this process counted them.
    Engine,
}

/// One request, from the moment it was due. Times are nanoseconds since its cell's T0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Position in its phase's plan; equal to `Recipe::index`.
    pub index: u64,
    /// Warm-up or measured.
    pub phase: Phase,
    /// When the load law wanted it sent.
    pub due: Ns,
    /// Just before it was handed to the backend.
    pub sent: Option<Ns>,
    /// The first event that carries content.
    pub first: Option<Ns>,
    /// The last event that carries content; for a request without one, when its outcome was known.
    pub end: Ns,
    /// How long it waited under `max_in_flight`.
    pub cap_wait: Ns,
    /// The longest gap between two successive tokens.
    pub longest_gap: Ns,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Output tokens that were asked for.
    pub asked_tokens: u32,
    /// Whether that length was forced.
    pub forced: bool,
    /// Output tokens that came.
    pub output_tokens: u32,
    /// Output tokens in the first event.
    pub first_event_tokens: u32,
    /// Times the engine preempted it, where known.
    pub preemptions: u32,
    /// Who counted the tokens.
    pub token_source: TokenSource,
    /// How it ended.
    pub outcome: Outcome,
    /// What the backend said about a failure.
    pub message: Option<Box<str>>,
}

/// `count` successive gaps between tokens, each `gap` nanoseconds long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRun {
    /// Length of each gap.
    pub gap: Ns,
    /// How many.
    pub count: u32,
}

/// From which moment a request's latency counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Closed loop: from `sent`.
    Sent,
    /// Open loop: from `due`, so that waiting in the client counts (no coordinated omission).
    Due,
}

impl Record {
    /// The moment its latency counts from; `None` when it was never sent and the basis is `sent`.
    pub fn start(&self, basis: Basis) -> Option<Ns> {
        match basis {
            Basis::Sent => self.sent,
            Basis::Due => Some(self.due),
        }
    }

    /// Time to first token.
    pub fn ttft(&self, basis: Basis) -> Option<Ns> {
        Some(self.first?.saturating_sub(self.start(basis)?))
    }

    /// From the start to the last content.
    pub fn e2e(&self, basis: Basis) -> Option<Ns> {
        Some(self.end.saturating_sub(self.start(basis)?))
    }

    /// Time per output token after the first event, in nanoseconds; `None` when nothing came after it.
    pub fn tpot(&self) -> Option<f64> {
        let tokens = self.output_tokens.checked_sub(self.first_event_tokens).filter(|n| *n > 0)?;
        Some(self.end.saturating_sub(self.first?) as f64 / f64::from(tokens))
    }
}

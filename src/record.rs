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

/// Which turn of which session a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// The session's number within its phase, from 0.
    pub session: u64,
    /// Its place in the session, from 1.
    pub turn: u32,
    /// How many turns the session has.
    pub turns: u32,
}

impl Turn {
    /// Whether another one follows.
    pub fn has_next(self) -> bool {
        self.turn < self.turns
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered completely.
    Success,
    /// The backend refused it before it ran (too long for the pool, too many requests).
    Refused,
    /// No connection to the server could be opened.
    Unreachable,
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
    /// It failed, and how is not known: so says the file of another tool that it was imported from.
    Unexplained,
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

    /// Whether another attempt may end otherwise, whatever the request: the server was not there, had too much to do, or had
    /// a fault of its own.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Unreachable | Self::Disconnected | Self::HttpStatus(408 | 429 | 500..=599))
    }

    /// Whether what follows the request is sent.
    pub fn releases(self) -> bool {
        matches!(self, Self::Success | Self::Cancelled)
    }

    /// Whether it counts in `total_requests` (successful or failed).
    pub fn is_counted(self) -> bool {
        self == Self::Success || self.is_failure()
    }

    /// The outcome of this [`label`](Self::label).
    pub fn named(label: &str) -> Option<Self> {
        let status = label.strip_prefix("http_").and_then(|code| code.parse().ok()).map(Self::HttpStatus);
        let others = [
            Self::Success,
            Self::Refused,
            Self::Unreachable,
            Self::TimedOut,
            Self::Disconnected,
            Self::Truncated,
            Self::Malformed,
            Self::InBandError,
            Self::CancelledByServer,
            Self::Cancelled,
            Self::Unexplained,
            Self::HookFailed,
            Self::Skipped,
            Self::Interrupted,
        ];
        status.or_else(|| others.into_iter().find(|outcome| outcome.label() == label))
    }

    /// The name under which errors are counted: `timed_out`, `http_503`.
    pub fn label(self) -> String {
        match self {
            Self::HttpStatus(code) => format!("http_{code}"),
            Self::Success => "success".into(),
            Self::Refused => "refused".into(),
            Self::Unreachable => "unreachable".into(),
            Self::TimedOut => "timed_out".into(),
            Self::Disconnected => "disconnected".into(),
            Self::Truncated => "truncated".into(),
            Self::Malformed => "malformed".into(),
            Self::InBandError => "in_band_error".into(),
            Self::CancelledByServer => "cancelled_by_server".into(),
            Self::Cancelled => "cancelled".into(),
            Self::Unexplained => "failed".into(),
            Self::HookFailed => "hook_failed".into(),
            Self::Skipped => "skipped".into(),
            Self::Interrupted => "interrupted".into(),
        }
    }
}

/// What a response says. Backends keep it only where somebody looks at it: a workload with checks or hooks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// The generated text, whole.
    pub text: String,
    /// Why generation ended, in the words of `OpenAI`'s API: `stop`, `length`, `tool_calls`, `content_filter`; `None` where
    /// the backend does not say.
    pub finish_reason: Option<Cow<'static, str>>,
}

/// Where a token count comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// The engine in this process counted them.
    Engine,
    /// The server's usage says so.
    Usage,
    /// The server sent the ids of the tokens.
    TokenIds,
    /// The client's tokenizer, over the joined text.
    Tokenizer,
    /// Nobody counted: the events that carry content stand for tokens.
    Events,
    /// Another tool, whose file it was imported from.
    Imported,
}

/// One request, from the moment it was due. Times are nanoseconds since its cell's T0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Position in its phase's plan; equal to `Recipe::index`.
    pub index: u64,
    /// Warm-up or measured.
    pub phase: Phase,
    /// Which turn of which session it is; `None` for a request that stands alone.
    pub session: Option<Turn>,
    /// When the load law wanted it sent.
    pub due: Ns,
    /// Just before it was handed to the backend.
    pub sent: Option<Ns>,
    /// How long opening the connection took that it was sent on; 0 on one that was open. Ends where `sent` is.
    pub connect: Ns,
    /// When the engine scheduled it first; `None` where the backend does not tell.
    pub scheduled: Option<Ns>,
    /// The first event that carries content.
    pub first: Option<Ns>,
    /// The first content that is no reasoning, where reasoning came before it.
    pub first_answer: Option<Ns>,
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
    /// Events that carried content.
    pub events: u32,
    /// The response as a stream of chunks, empty ones included; `None` where an engine hands its tokens over without one.
    pub stream: Option<Box<Stream>>,
    /// Times the engine preempted it, where known.
    pub preemptions: u32,
    /// Who counted the tokens.
    pub token_source: TokenSource,
    /// How it ended.
    pub outcome: Outcome,
    /// What the backend said about a failure.
    pub message: Option<Box<str>>,
    /// What checks and hooks found in the response of a success, where the workload has some.
    pub checked: Option<Box<Checked>>,
    /// The attempts before the last one, of a request that was sent more than once. `sent` is then that of the first attempt,
    /// and everything that came is that of the last.
    pub retried: Option<Box<Retried>>,
}

/// The attempts at a request before the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    /// Those that failed, in order.
    pub attempts: Vec<Attempt>,
    /// When the last one was sent.
    pub sent: Ns,
}

/// An attempt that failed and was followed by another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it was sent.
    pub sent: Ns,
    /// When it had failed.
    pub end: Ns,
    /// How.
    pub outcome: Outcome,
}

/// A streamed response by its chunks. A chunk is an event with a choice in it, whether that has content or not: the first
/// one may only name a role, the last one may only say why the answer ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// How many there were.
    pub chunks: u32,
    /// The first one.
    pub opened: Ns,
    /// The last one.
    pub last: Ns,
    /// The last event before the end of the stream, be it a chunk or the usage.
    pub closed: Ns,
}

/// What the checks and hooks of a workload found in one response.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// Bit i is set where the workload's i-th check failed.
    pub failed: u64,
    /// What hooks recorded: a metric's position among those that the scenario declares, and its value.
    pub recorded: Vec<(u16, f64)>,
    /// The failures that are kept with their texts: the first few of each check.
    pub failures: Vec<CheckFailure>,
}

/// A check that a response did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckFailure {
    /// The check's position.
    pub check: u8,
    /// Why.
    pub reason: String,
    /// The start of the response.
    pub text: String,
}

/// `count` successive gaps between tokens, each `gap` nanoseconds long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRun {
    /// Length of each gap.
    pub gap: Ns,
    /// How many.
    pub count: u32,
}

/// When the tokens of one answer came, event by event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenTimes {
    /// The first event.
    pub first: Option<Ns>,
    /// The last event.
    pub last: Ns,
    /// Tokens so far.
    pub tokens: u32,
    /// Tokens in the first event.
    pub first_event_tokens: u32,
    /// Events so far.
    pub events: u32,
    /// The chunks of the response, where it is a stream of them.
    pub stream: Option<Stream>,
    /// The longest gap between two successive tokens.
    pub longest_gap: Ns,
    /// The gaps, equal neighbours joined.
    pub gaps: Vec<GapRun>,
}

impl TokenTimes {
    /// No token yet. `gaps` is empty; only its memory is used.
    pub fn new(gaps: Vec<GapRun>) -> Self {
        Self { gaps, ..Self::default() }
    }

    /// `count` tokens: one event at `at`, or with a `gap` one event each.
    pub fn on_tokens(&mut self, at: Ns, gap: Ns, count: u32) {
        match (count, gap) {
            (0, _) => {}
            (_, 0) => self.on_event(at, count),
            (_, gap) => {
                self.on_event(at, 1);
                self.add_gaps(gap, count - 1);
                self.tokens += count - 1;
                self.events += count - 1;
                self.last = at.saturating_add(gap.saturating_mul(Ns::from(count - 1)));
            }
        }
    }

    /// An event with `count` tokens, at least one. It ends as many gaps, each an equal part of the time since the event
    /// before; the nanoseconds that do not divide go to the last one.
    fn on_event(&mut self, at: Ns, count: u32) {
        if self.first.is_none() {
            self.first = Some(at);
            self.first_event_tokens = count;
        } else {
            let time = at.saturating_sub(self.last);
            let part = time / Ns::from(count);
            self.add_gaps(part, count - 1);
            self.add_gaps(time - part * Ns::from(count - 1), 1);
        }
        self.tokens += count;
        self.events += 1;
        self.last = at;
    }

    fn add_gaps(&mut self, gap: Ns, count: u32) {
        if count == 0 {
            return;
        }
        self.longest_gap = self.longest_gap.max(gap);
        match self.gaps.last_mut() {
            Some(run) if run.gap == gap => run.count += count,
            _ => self.gaps.push(GapRun { gap, count }),
        }
    }
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

impl Checked {
    /// Whether the response passed the workload's i-th check.
    pub fn passes(&self, check: usize) -> bool {
        self.failed & (1 << check) == 0
    }

    /// What was recorded to the metric at this position.
    pub fn value(&self, metric: u16) -> Option<f64> {
        self.recorded.iter().find(|(known, _)| *known == metric).map(|(_, value)| *value)
    }
}

impl Record {
    /// Whether its response was looked at and passed the workload's i-th check.
    pub fn passes(&self, check: usize) -> bool {
        self.checked.as_ref().is_some_and(|checked| checked.passes(check))
    }

    /// The moment its latency counts from; `None` when it was never sent and the basis is `sent`.
    pub fn start(&self, basis: Basis) -> Option<Ns> {
        match basis {
            Basis::Sent => self.sent,
            Basis::Due => Some(self.due),
        }
    }

    /// How long it was in the engine's queue: from being sent (for the last time) to being scheduled first.
    pub fn queue_time(&self) -> Option<Ns> {
        let sent = self.retried.as_ref().map_or(self.sent?, |retried| retried.sent);
        Some(self.scheduled?.saturating_sub(sent))
    }

    /// How often it was sent.
    pub fn attempts(&self) -> u32 {
        let earlier = self.retried.as_ref().map_or(0, |retried| retried.attempts.len() as u32);
        earlier + u32::from(self.sent.is_some())
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

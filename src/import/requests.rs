//! Requests as a file tells them, one by one.

use indexmap::IndexMap;

use crate::metric::Metric;
use crate::record::{Basis, GapRun, Outcome, Phase, Record, Stream, TokenSource, TokenTimes, Turn};
use crate::units::{Ns, SECOND};

/// The requests of a load.
#[derive(Debug, Clone, PartialEq)]
pub struct Requests {
    /// The requests with the gaps between their tokens. Times count from the first of them.
    pub records: Vec<(Record, Vec<GapRun>)>,
    /// From which moment latency counts.
    pub basis: Basis,
    /// How long the measurement took, where the file says so; else it ends with the last request.
    pub duration: Option<Ns>,
    /// Metrics that the file does not tell of each request, and why.
    pub unknown: IndexMap<&'static str, String>,
}

/// One request as it is found. Seconds on any clock.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    pub(super) warmup: bool,
    /// Its session and the turn in it, from 0.
    pub(super) turn: Option<(u64, u32)>,
    pub(super) due: Option<f64>,
    pub(super) sent: Option<f64>,
    /// The moments of its chunks from the send, or only the first and the last of them.
    pub(super) chunks: Chunks,
    /// From the send to its end, where it had no chunk.
    pub(super) ended: Option<f64>,
    pub(super) prompt_tokens: Option<u32>,
    pub(super) output_tokens: Option<u32>,
    /// Why it failed.
    pub(super) failure: Option<Failure>,
}

/// When the parts of an answer came, in seconds since the request was sent.
#[derive(Debug, Clone, Default)]
pub(super) enum Chunks {
    /// Not known.
    #[default]
    None,
    /// Each of them.
    All(Vec<f64>),
    /// The first and the last, and how many there were, where that is known.
    Ends(f64, f64, Option<u32>),
}

/// How a request failed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) outcome: Outcome,
    pub(super) message: String,
}

impl Failure {
    /// From what a tool says: its status where it has one, else its words.
    pub(super) fn told(status: Option<u64>, kind: &str, message: &str) -> Self {
        let words = format!("{kind} {message}").to_lowercase();
        let status =
            status.and_then(|status| u16::try_from(status).ok()).filter(|code| (400..600).contains(code));
        let outcome = match status {
            Some(code) => Outcome::HttpStatus(code),
            None if words.contains("timeout") || words.contains("timed out") => Outcome::TimedOut,
            None if words.contains("refused") || words.contains("cannot connect") => Outcome::Unreachable,
            None if words.contains("disconnect") || words.contains("reset by peer") => Outcome::Disconnected,
            None => Outcome::Unexplained,
        };
        // The end of a traceback says what happened.
        let last = message.trim().lines().next_back().unwrap_or_default();
        let message = if last.is_empty() { kind } else { last };
        Self { outcome, message: message.to_owned() }
    }
}

fn ns(seconds: f64) -> Ns {
    libm::round(seconds.max(0.0) * SECOND as f64) as Ns
}

/// Requests from what was found of them.
///
/// `unknown` says which metrics the format never tells; what single requests lack is added to it.
pub(super) fn requests(
    found: Vec<Found>,
    basis: Basis,
    duration: Option<f64>,
    mut unknown: IndexMap<&'static str, String>,
) -> Requests {
    let starts = || found.iter().filter(|one| !one.warmup).flat_map(|one| [one.due, one.sent]).flatten();
    let origin = starts().fold(f64::INFINITY, f64::min);
    let is_timed = found.iter().all(|one| one.sent.is_some());
    if !is_timed {
        let why = "the file does not say when each request was sent";
        for name in ["offered_rate", "queue_delay", "max_in_flight"] {
            unknown.entry(name).or_insert_with(|| why.to_owned());
        }
    } else if found.iter().any(|one| one.due.is_none()) {
        let why = "the file does not say when each request was due";
        for name in ["offered_rate", "queue_delay"] {
            unknown.entry(name).or_insert_with(|| why.to_owned());
        }
    }
    let good = || found.iter().filter(|one| !one.warmup && one.failure.is_none());
    let mut lacking = |names: &[&'static str], what: &str, is_there: &dyn Fn(&Found) -> bool| {
        let lacks = good().filter(|one| !is_there(one)).count();
        if lacks > 0 {
            let why = format!("the file lacks {what} of {lacks} of {} answers", good().count());
            for name in names {
                unknown.entry(*name).or_insert_with(|| why.clone());
            }
        }
    };
    let counted = |one: &Found| one.output_tokens.is_some();
    let per_token = ["tpot", "throughput", "output_tokens", "tbt", "output_throughput", "total_throughput"];
    lacking(&per_token, "the number of output tokens", &counted);
    let prompted = |one: &Found| one.prompt_tokens.is_some();
    lacking(
        &["prompt_tokens", "input_throughput", "total_throughput"],
        "the number of prompt tokens",
        &prompted,
    );
    let streamed = |one: &Found| !matches!(one.chunks, Chunks::None);
    lacking(&["ttft", "tpot", "tbt"], "the time of the first token", &streamed);
    let ended = |one: &Found| streamed(one) || one.ended.is_some();
    lacking(&["e2e", "throughput"], "the end", &ended);
    lacking(&["tbt"], "the time of each token", &|one| matches!(one.chunks, Chunks::All(_)));
    let records = (0..).zip(found).map(|(index, one)| record(index, one, origin)).collect();
    Requests { records, basis, duration: duration.map(ns), unknown }
}

fn record(index: u64, found: Found, origin: f64) -> (Record, Vec<GapRun>) {
    let sent = found.sent.map_or(0, |sent| ns(sent - origin));
    let outcome = found.failure.as_ref().map_or(Outcome::Success, |failure| failure.outcome);
    let tokens = found.output_tokens.unwrap_or(0);
    let (mut times, mut end) = (TokenTimes::default(), sent + ns(found.ended.unwrap_or(0.0)));
    match &found.chunks {
        Chunks::None => {}
        Chunks::All(chunks) => times = spread(chunks, sent, tokens),
        Chunks::Ends(first, last, count) => {
            // Of what came between only the number is known.
            times.first = Some(sent + ns(*first));
            times.last = sent + ns(first.max(*last));
            (times.tokens, times.first_event_tokens) = (tokens, tokens.min(1));
            times.events = count.unwrap_or(0);
        }
    }
    if times.first.is_some() {
        end = times.last;
    }
    let closed = times.last.max(sent + ns(found.ended.unwrap_or(0.0)));
    let stream = times
        .first
        .filter(|_| times.events > 0)
        .map(|opened| Box::new(Stream { chunks: times.events, opened, last: times.last, closed }));
    let record = Record {
        index,
        phase: if found.warmup { Phase::Warmup } else { Phase::Measured },
        session: found.turn.map(|(session, turn)| Turn { session, turn: turn + 1, turns: turn + 1 }),
        due: found.due.map_or(sent, |due| ns(due - origin)),
        sent: Some(sent),
        connect: 0,
        scheduled: None,
        first: times.first,
        first_answer: None,
        end,
        cap_wait: 0,
        longest_gap: times.longest_gap,
        prompt_tokens: found.prompt_tokens.unwrap_or(0),
        asked_tokens: 0,
        forced: false,
        output_tokens: tokens,
        first_event_tokens: times.first_event_tokens,
        events: times.events,
        stream,
        preemptions: 0,
        token_source: TokenSource::Imported,
        outcome,
        message: found.failure.map(|failure| failure.message.into()),
        checked: None,
        retried: None,
    };
    (record, times.gaps)
}

/// Gives each chunk its tokens: one each, and what is over evenly. Where there are fewer tokens than chunks, the gaps are
/// those between the chunks.
fn spread(chunks: &[f64], sent: Ns, tokens: u32) -> TokenTimes {
    let mut times = TokenTimes::default();
    let count = chunks.len() as u64;
    let spare = u64::from(tokens).saturating_sub(count);
    let mut given = 0;
    for (index, chunk) in (1..).zip(chunks) {
        let by_now = index + spare * index / count;
        times.on_tokens(sent + ns(*chunk), 0, (by_now - given) as u32);
        given = by_now;
    }
    (times.tokens, times.first_event_tokens) = (tokens, times.first_event_tokens.min(tokens));
    times
}

impl Requests {
    /// Why a metric is not known of each request, if it is not.
    pub fn unknown(&self, metric: &Metric) -> Option<&str> {
        self.unknown.get(metric.name).map(String::as_str)
    }
}

//! What dialects compute with: the requests that were answered, and the statistics that other tools use.

use super::Line;
use crate::record::{GapRun, Outcome, Record, Stream};
use crate::report::LoggedCell;
use crate::stats;
use crate::units::{Ns, seconds};

/// The requests of a cell as a tool sees them.
pub(super) struct Answered {
    /// Answered completely, in the order they were due, repeat after repeat.
    pub(super) requests: Vec<Request>,
    /// Requests that failed.
    pub(super) failed: u64,
    /// From the first request sent to the last event of the last response, added up over the repeats.
    pub(super) duration: Ns,
    /// Of each repeat: from when its first request was due until its last one was due, and until the last one ended.
    pub(super) spans: Vec<(Ns, Ns)>,
}

/// A successful request. Times are nanoseconds since T0.
pub(super) struct Request {
    pub(super) due: Ns,
    pub(super) sent: Ns,
    pub(super) first: Ns,
    pub(super) last: Ns,
    pub(super) prompt: u32,
    pub(super) tokens: u32,
    pub(super) events: u32,
    /// The chunks of the response; for an engine without a stream, its events.
    pub(super) stream: Stream,
    /// The gaps between its events with content, in milliseconds, where they are known.
    gaps: Option<Vec<stats::Run>>,
}

impl Answered {
    pub(super) fn of(repeats: &[&LoggedCell]) -> Self {
        let request = |record: &Record, gaps: Option<&Vec<GapRun>>| {
            let first = record.first?;
            let alone = Stream { chunks: record.events, opened: first, last: record.end, closed: record.end };
            Some(Request {
                due: record.due,
                sent: record.sent?,
                first,
                last: record.end,
                prompt: record.prompt_tokens,
                tokens: record.output_tokens,
                events: record.events,
                stream: record.stream.as_deref().copied().unwrap_or(alone),
                // Where an event has several tokens, the gaps between tokens are parts of those between events.
                gaps: gaps
                    .filter(|_| record.events == record.output_tokens)
                    .map(|gaps| gaps.iter().map(|run| (run.gap as f64 / 1e6, run.count.into())).collect()),
            })
        };
        let (mut requests, mut spans) = (Vec::new(), Vec::new());
        let (mut failed, mut duration) = (0, 0);
        for LoggedCell { records, gaps, .. } in repeats {
            let gaps_of = |record: &Record| gaps.as_ref()?.get(&record.index);
            failed += records.iter().filter(|record| record.outcome.is_failure()).count() as u64;
            let closed = |record: &Record| record.stream.as_ref().map_or(record.end, |stream| stream.closed);
            let sent = records.iter().filter(|record| record.sent.is_some());
            let start = sent.clone().filter_map(|record| record.sent).min().unwrap_or(0);
            duration += sent.map(closed).max().unwrap_or(0).saturating_sub(start);
            let successes = || records.iter().filter(|record| record.outcome == Outcome::Success);
            let mut own: Vec<Request> =
                successes().filter_map(|record| request(record, gaps_of(record))).collect();
            own.sort_by_key(|request| request.due);
            if let (Some(from), Some(to)) = (own.first(), own.last()) {
                let done = own.iter().map(|request| request.last).max().unwrap_or(to.due);
                spans.push((to.due - from.due, done.saturating_sub(from.due)));
            }
            requests.append(&mut own);
        }
        Self { requests, failed, duration, spans }
    }

    /// One value for each request that has one, and its weight.
    pub(super) fn weighted(&self, value: impl Fn(&Request) -> Option<(f64, u64)>) -> Values {
        Values(stats::sorted(&self.requests.iter().filter_map(value).collect::<Vec<_>>()))
    }

    /// One value for each request that has one.
    pub(super) fn each(&self, value: impl Fn(&Request) -> Option<f64>) -> Values {
        self.weighted(|request| Some((value(request)?, 1)))
    }

    pub(super) fn sum(&self, count: impl Fn(&Request) -> u64) -> u64 {
        self.requests.iter().map(count).sum()
    }

    /// The gaps between the events with content of all requests, in milliseconds; `None` where they were not kept.
    pub(super) fn event_gaps(&self) -> Option<Values> {
        let gaps: Option<Vec<&Vec<stats::Run>>> =
            self.requests.iter().map(|request| request.gaps.as_ref()).collect();
        Some(Values(stats::sorted(&gaps?.into_iter().flatten().copied().collect::<Vec<_>>())))
    }

    /// The gaps between the chunks of all requests, in milliseconds; `None` where they were not kept.
    pub(super) fn chunk_gaps(&self) -> Option<Values> {
        let mut all = Vec::new();
        for request in &self.requests {
            let stream = request.stream;
            // Beside the events there may be a chunk before them and one behind.
            let around = [(stream.opened, request.first), (request.last, stream.last)];
            let around = around.into_iter().filter(|(from, to)| from < to);
            if request.events + around.clone().count() as u32 != stream.chunks {
                return None;
            }
            all.extend(around.map(|(from, to)| (span_ms(from, to), 1)));
            all.extend(request.gaps.as_ref()?);
        }
        Some(Values(stats::sorted(&all)))
    }

    /// An amount per second of the duration.
    pub(super) fn per_second(&self, amount: u64) -> Option<f64> {
        (self.duration > 0).then(|| amount as f64 / seconds(self.duration))
    }
}

impl Request {
    /// Time to first token from the send, in milliseconds.
    pub(super) fn ttft_ms(&self) -> f64 {
        span_ms(self.sent, self.first)
    }
}

/// From one moment to another, in milliseconds.
pub(super) fn span_ms(from: Ns, to: Ns) -> f64 {
    to.saturating_sub(from) as f64 / 1e6
}

/// Values in ascending order, each with its weight.
pub(super) struct Values(Vec<stats::Run>);

impl Values {
    pub(super) fn mean(&self) -> Option<f64> {
        stats::mean(&self.0)
    }

    pub(super) fn min(&self) -> Option<f64> {
        self.0.first().map(|(value, _)| *value)
    }

    pub(super) fn max(&self) -> Option<f64> {
        self.0.last().map(|(value, _)| *value)
    }

    /// The standard deviation of the values as they are (divisor n), which is numpy's.
    pub(super) fn population_std(&self) -> Option<f64> {
        let n = stats::total(&self.0);
        match n {
            0 => None,
            1 => Some(0.0),
            _ => stats::stddev(&self.0).map(|std| std * libm::sqrt((n - 1) as f64 / n as f64)),
        }
    }

    /// Between the two values around rank 1 + q·(n − 1), which is numpy's default.
    pub(super) fn linear(&self, q: f64) -> Option<f64> {
        let n = stats::total(&self.0);
        let place = q * n.checked_sub(1)? as f64;
        let below = libm::floor(place);
        let low = stats::at_rank(&self.0, below as u64 + 1)?;
        let high = stats::at_rank(&self.0, (below as u64 + 2).min(n))?;
        Some(low + (high - low) * (place - below))
    }

    /// The smallest value whose cumulated weight reaches the share q.
    pub(super) fn nearest_rank(&self, q: f64) -> Option<f64> {
        stats::nearest_rank(&self.0, q)
    }

    /// The value at position ⌊q·n⌋ from 0.
    pub(super) fn floored(&self, q: f64) -> Option<f64> {
        let n = stats::total(&self.0);
        // 0.29 · 100 is 28.999…: what the product means is a whole number.
        let place = libm::floor(q * n as f64 + 1e-9) as u64;
        stats::at_rank(&self.0, place.min(n.checked_sub(1)?) + 1)
    }
}

/// Lines as they are added.
#[derive(Default)]
pub(super) struct Sheet {
    pub(super) lines: Vec<Line>,
}

impl Sheet {
    /// A number; without one, what nothing was measured for.
    pub(super) fn add(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        value: Option<f64>,
        formula: &'static str,
    ) {
        let value = value.filter(|value| value.is_finite());
        let unavailable = value.is_none().then(|| "no request has a value".to_owned());
        self.lines.push(Line { name: name.into(), value, unit, formula, unavailable });
    }

    /// A count.
    pub(super) fn count(&mut self, name: &str, value: u64, formula: &'static str) {
        self.add(name, "", Some(value as f64), formula);
    }

    /// A number that no record can tell.
    pub(super) fn lacks(&mut self, name: &str, unit: &'static str, formula: &'static str, why: &str) {
        let unavailable = Some(why.to_owned());
        self.lines.push(Line { name: name.into(), value: None, unit, formula, unavailable });
    }
}

/// Why quantiles of the gaps between chunks are not told.
pub(super) const NO_GAPS: &str =
    "needs the time of every chunk, of one token each: `records: tokens` keeps them";

//! One cell: a workload on a backend, in one repeat.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use rustc_hash::FxHashMap;

use super::prepare::Prepared;
use crate::backend::EngineStats;
use crate::gate::Fired;
use crate::measure::Samples;
use crate::metric::METRICS;
use crate::record::{GapRun, Outcome, Phase, Record};
use crate::report::config::Records;
use crate::report::{SearchReport, TokenLog};
use crate::run::{CellKey, Ending, Played};
use crate::units::Ns;

/// What playing a cell came to.
#[derive(Debug)]
pub struct Cell {
    /// Which cell.
    pub key: CellKey,
    /// Its requests.
    pub taken: Taken,
    /// How playing it went.
    pub played: Played,
    /// When measuring started: Unix seconds on the real clock, seconds since the run's start on the virtual one.
    pub start_time: f64,
    /// When it ended, on the same axis.
    pub end_time: f64,
    /// The rule that stopped it, if one did.
    pub fired: Option<Fired>,
    /// Its search, where it searches; the rest is the probe that stands for it.
    pub searched: Option<Searched>,
}

impl Cell {
    /// Whether a signal cut it off.
    pub fn is_interrupted(&self) -> bool {
        let cut = matches!(self.played.ending, Ending::Interrupted(_));
        cut || self.searched.as_ref().is_some_and(|searched| searched.interrupted)
    }
}

/// What a search came to.
#[derive(Debug, Clone)]
pub struct Searched {
    /// How it went.
    pub report: SearchReport,
    /// The level that was found and confirmed, or why there is none.
    pub found: Result<f64, String>,
    /// Whether a signal cut it off.
    pub interrupted: bool,
}

/// The requests of a cell, as they are taken.
#[derive(Debug)]
pub struct Taken {
    /// What metrics are made of.
    pub samples: Samples,
    /// When their tokens came, where somebody asked for it.
    pub tokens: Option<TokenLog>,
}

impl Taken {
    /// None yet.
    pub fn new(prepared: &Prepared, key: CellKey) -> Self {
        let plan = prepared.plan.at(key.workload);
        let backend = &prepared.backends[key.backend as usize].name;
        let log = || TokenLog::new(&plan.name, backend, key.repeat);
        let tokens = (prepared.scenario.records == Records::Tokens).then(log);
        let samples = Samples::new(plan.load.basis()).expecting(plan.requests.unwrap_or(0));
        Self { samples, tokens }
    }

    /// Takes one record and its gaps.
    pub fn push(&mut self, record: &Record, gaps: &[GapRun]) {
        if let Some(tokens) = &mut self.tokens {
            tokens.push(record, gaps);
        }
        self.samples.push(record.clone(), gaps);
    }
}

/// What is about to be played, for whoever shows progress.
#[derive(Debug, Clone, Copy)]
pub struct CellStart<'a> {
    /// The workload's full name.
    pub workload: &'a str,
    /// The backend's name, where more than one runs.
    pub backend: Option<&'a str>,
    /// Which repeat, from 1, of how many.
    pub repeat: (u32, u32),
    /// How many requests there will be, warm-up included, where that is known.
    pub requests: Option<u64>,
    /// Of a search, the probe that is played.
    pub probe: Option<&'a str>,
    /// Whether it is played on the virtual clock.
    pub is_virtual: bool,
}

impl fmt::Display for CellStart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.workload)?;
        if let Some(backend) = self.backend {
            write!(f, " on {backend}")?;
        }
        if let Some(probe) = self.probe {
            write!(f, " at {probe}")?;
        }
        match self.repeat {
            (_, 1) => Ok(()),
            (repeat, repeats) => write!(f, " ({repeat} of {repeats})"),
        }
    }
}

/// Hears how a run goes on.
pub trait Progress {
    /// A cell starts.
    fn started(&mut self, cell: &CellStart<'_>);
    /// A server is waited for.
    fn waiting(&mut self, _what: &str) {}
    /// A request got its record.
    fn recorded(&mut self);
    /// The cell ended after so many seconds of its own clock.
    fn finished(&mut self, cell: &CellStart<'_>, seconds: f64);
}

/// A record with its gaps, as a journal keeps it.
pub type Kept = (Record, Vec<GapRun>);

/// The records of a journal that stand: of a request that was played again the last one, and of a session that was played
/// again from its start only what came since.
pub fn standing_records(entries: &[Kept]) -> Vec<&Kept> {
    let mut last: IndexMap<(Phase, u64), &Kept> = IndexMap::new();
    let mut begun: FxHashMap<(Phase, u64), usize> = FxHashMap::default();
    for (at, (record, _)) in entries.iter().enumerate() {
        if let Some(session) = record.session.filter(|session| session.turn == 1) {
            begun.insert((record.phase, session.session), at);
        }
    }
    for (at, entry) in entries.iter().enumerate() {
        let session = entry.0.session.and_then(|session| begun.get(&(entry.0.phase, session.session)));
        if session.is_none_or(|begun| *begun <= at) {
            last.insert((entry.0.phase, entry.0.index), entry);
        }
    }
    last.into_values().collect()
}

/// Those of them that are not played again. What an interruption cut off is, and a session that is not whole starts anew.
pub fn final_records(entries: &[Kept]) -> Vec<&Kept> {
    let mut records = standing_records(entries);
    records.retain(|(record, _)| record.outcome != Outcome::Interrupted);
    let mut turns: FxHashMap<(Phase, u64), u32> = FxHashMap::default();
    for (record, _) in &records {
        if let Some(session) = record.session {
            *turns.entry((record.phase, session.session)).or_default() += 1;
        }
    }
    let is_whole = |record: &Record| {
        record.session.is_none_or(|session| turns[&(record.phase, session.session)] >= session.turns)
    };
    records.retain(|(record, _)| is_whole(record));
    records
}

/// The time that a cell's earlier segments measured: from the first request due to the last one ended.
pub fn earlier_time(samples: &Samples) -> Ns {
    let measured = || samples.records().iter().filter(|record| record.phase == Phase::Measured);
    let start = measured().map(|record| record.due).min().unwrap_or(0);
    measured().map(|record| record.end).max().unwrap_or(start).saturating_sub(start)
}

/// Everything that an engine knows of itself, and why it is not known.
pub fn engine_unavailable(reason: &str) -> Vec<(Cow<'static, str>, String)> {
    let own =
        ["kv_", "prefix_", "evict_", "preempt_", "spec_", "peak_mem", "avg_mem", "avg_batch", "max_batch"];
    let names = METRICS.iter().filter(|metric| own.iter().any(|start| metric.name.starts_with(start)));
    names.map(|metric| (Cow::Owned(metric.flat()), reason.to_owned())).collect()
}

/// What a resumed cell came to: the measured times add up, and the engine's counters, which began again with a cold
/// cache, are not known for the whole.
pub fn joined(earlier: Ns, last: Played) -> Played {
    let reason = "the run was resumed, and an engine's counters cover only its own segment";
    let stats = EngineStats {
        unavailable: engine_unavailable(reason),
        faults: last.stats.faults.clone(),
        ..EngineStats::default()
    };
    let length = last.measure_end.saturating_sub(last.measure_start);
    Played { measure_start: 0, measure_end: earlier.saturating_add(length), stats, ..last }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{TokenSource, Turn};

    fn kept(index: u64, session: Option<(u64, u32, u32)>, outcome: Outcome, end: Ns) -> Kept {
        let record = Record {
            index,
            phase: Phase::Measured,
            session: session.map(|(session, turn, turns)| Turn { session, turn, turns }),
            due: 0,
            sent: Some(0),
            connect: 0,
            scheduled: None,
            first: None,
            first_answer: None,
            checked: None,
            retried: None,
            end,
            cap_wait: 0,
            longest_gap: 0,
            prompt_tokens: 1,
            asked_tokens: 1,
            forced: true,
            output_tokens: 1,
            first_event_tokens: 1,
            events: 1,
            stream: None,
            preemptions: 0,
            token_source: TokenSource::Engine,
            outcome,
            message: None,
        };
        (record, Vec::new())
    }

    fn ends(records: &[&Kept]) -> Vec<Ns> {
        records.iter().map(|(record, _)| record.end).collect()
    }

    #[test]
    fn a_session_that_is_not_whole_starts_anew() {
        use Outcome::{Interrupted, Skipped, Success, TimedOut};
        let first = vec![
            kept(0, Some((0, 1, 2)), Success, 1),
            kept(1, Some((0, 2, 2)), Success, 2),
            kept(2, Some((1, 1, 3)), Success, 3),
            kept(3, Some((1, 2, 3)), Interrupted, 4),
            kept(5, Some((2, 1, 2)), TimedOut, 5),
            kept(6, Some((2, 2, 2)), Skipped, 6),
            kept(7, None, Success, 7),
            kept(8, None, Interrupted, 8),
        ];
        assert_eq!(ends(&final_records(&first)), [1, 2, 5, 6, 7]);
        // Played again: the session's time is over after its first turn.
        let mut both = first;
        both.extend([kept(8, None, Success, 9), kept(2, Some((1, 1, 3)), Success, 10)]);
        assert_eq!(ends(&standing_records(&both)), [1, 2, 5, 6, 7, 9, 10]);
    }
}

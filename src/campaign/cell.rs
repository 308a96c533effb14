//! One cell: a workload on a backend, in one repeat.

use std::fmt;

use crate::backend::EngineStats;
use crate::gate::Fired;
use crate::measure::Samples;
use crate::metric::METRICS;
use crate::record::Phase;
use crate::run::{CellKey, Played};
use crate::units::Ns;

/// What playing a cell came to.
#[derive(Debug)]
pub struct Cell {
    /// Which cell.
    pub key: CellKey,
    /// Its requests.
    pub samples: Samples,
    /// How playing it went.
    pub played: Played,
    /// When measuring started: Unix seconds on the real clock, seconds since the run's start on the virtual one.
    pub start_time: f64,
    /// When it ended, on the same axis.
    pub end_time: f64,
    /// The rule that stopped it, if one did.
    pub fired: Option<Fired>,
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
    /// Whether it is played on the virtual clock.
    pub is_virtual: bool,
}

impl fmt::Display for CellStart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.workload)?;
        if let Some(backend) = self.backend {
            write!(f, " on {backend}")?;
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

/// The time that a cell's earlier segments measured: from the first request due to the last one ended.
pub fn earlier_time(samples: &Samples) -> Ns {
    let measured = || samples.records().iter().filter(|record| record.phase == Phase::Measured);
    let start = measured().map(|record| record.due).min().unwrap_or(0);
    measured().map(|record| record.end).max().unwrap_or(start).saturating_sub(start)
}

/// What a resumed cell came to: the measured times add up, and the engine's counters, which began again with a cold
/// cache, are not known for the whole.
pub fn joined(earlier: Ns, last: Played) -> Played {
    let reason = "the run was resumed, and an engine's counters cover only its own segment";
    let own =
        ["kv_", "prefix_", "evict_", "preempt_", "spec_", "peak_mem", "avg_mem", "avg_batch", "max_batch"];
    let unavailable = METRICS
        .iter()
        .filter(|metric| own.iter().any(|start| metric.name.starts_with(start)))
        .map(|metric| (metric.flat().into(), reason.to_owned()));
    let stats = EngineStats {
        unavailable: unavailable.collect(),
        faults: last.stats.faults.clone(),
        ..EngineStats::default()
    };
    let length = last.measure_end.saturating_sub(last.measure_start);
    Played { measure_start: 0, measure_end: earlier.saturating_add(length), stats, ..last }
}

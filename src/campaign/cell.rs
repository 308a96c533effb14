//! One cell: a workload on a backend, in one repeat.

use std::fmt;

use crate::backend::EngineStats;
use crate::measure::Samples;
use crate::run::Played;
use crate::units::Ns;

/// Names a cell by its positions in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellKey {
    /// Position in the plan's workloads.
    pub workload: usize,
    /// Position in the chosen backends.
    pub backend: usize,
    /// Which repeat, from 0.
    pub repeat: u32,
}

/// What playing a cell came to. A resumed cell has several segments, each with times of its own.
#[derive(Debug)]
pub struct Cell {
    /// Which cell.
    pub key: CellKey,
    /// Its requests.
    pub samples: Samples,
    /// One entry per segment.
    pub played: Vec<Played>,
    /// When measuring started: Unix seconds on the real clock, seconds since the run's start on the virtual one.
    pub start_time: f64,
    /// When it ended, on the same axis.
    pub end_time: f64,
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
    /// A request got its record.
    fn recorded(&mut self);
    /// The cell ended after so many seconds of its own clock.
    fn finished(&mut self, cell: &CellStart<'_>, seconds: f64);
}

/// What is known of a segment that was killed: the time its records span, and none of its engine's counters.
pub fn killed_segment(samples: &Samples) -> Played {
    let dues = samples.records().iter().map(|record| record.due);
    let start: Ns = dues.min().unwrap_or(0);
    let end = samples.records().iter().map(|record| record.end).max().unwrap_or(start);
    let reason = "an earlier segment of this run was killed before its counters were read";
    let unavailable = crate::metric::METRICS
        .iter()
        .filter(|metric| {
            matches!(
                metric.name,
                "kv_used_tokens"
                    | "kv_used_bytes"
                    | "kv_capacity_tokens"
                    | "kv_total_tokens"
                    | "prefix_hit_rate"
                    | "evict_count"
                    | "evict_ms"
                    | "preempt_count"
                    | "peak_mem"
                    | "avg_mem"
            )
        })
        .map(|metric| (metric.flat(), reason.to_owned()))
        .collect();
    Played {
        measure_start: start,
        measure_end: end,
        max_in_flight: in_flight(samples),
        stats: EngineStats { unavailable, ..EngineStats::default() },
        ending: crate::run::Ending::Killed,
    }
}

/// The most requests whose times overlap.
fn in_flight(samples: &Samples) -> u32 {
    let mut changes: Vec<(Ns, i32)> = samples
        .records()
        .iter()
        .filter_map(|record| Some([(record.sent?, 1), (record.end, -1)]))
        .flatten()
        .collect();
    changes.sort_unstable();
    let mut now = 0;
    changes.into_iter().map(|(_, change)| { now += change; now }).max().unwrap_or(0).unsigned_abs()
}

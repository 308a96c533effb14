//! Plays a plan's workload on a backend and hands over one record per request that was due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::record::{GapRun, Record};
use crate::units::Ns;

/// Hears each record as its request ends, in order of ending.
pub trait Observer {
    /// `gaps` are the record's gaps between tokens, in order, equal neighbours joined.
    fn on_record(&mut self, record: &Record, gaps: &[GapRun]) -> Flow;
}

/// What an observer wants to happen next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Start nothing new, cut off what is in flight, and say why.
    Abort(String),
}

/// Asks a run to stop. Shared with signal handlers.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    /// Asks for a stop because of a signal (its number, such as 2 for SIGINT).
    pub fn request(&self, signal: u8) {
        self.0.store(signal, Ordering::Relaxed);
    }

    /// The signal that asked for a stop, if one did.
    pub fn requested(&self) -> Option<u8> {
        Some(self.0.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }
}

/// What playing one cell came to, beside its records.
#[derive(Debug, Clone, PartialEq)]
pub struct Played {
    /// From T0 to the start of measuring.
    pub measure_start: Ns,
    /// From T0 to the end of the last measured request (or the end of the load's duration, whichever is later).
    pub measure_end: Ns,
    /// The most measured requests in flight at once.
    pub max_in_flight: u32,
    /// What the engine counted.
    pub stats: crate::backend::EngineStats,
    /// How it ended.
    pub ending: Ending,
}

/// How playing a cell ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Everything that was due has its record.
    Complete,
    /// `total_timeout` cut it off.
    TimedOut,
    /// An observer asked for it.
    Aborted(String),
    /// A signal asked for it.
    Interrupted(u8),
}

//! Plays a plan's workload on a backend and hands over one record per request that was due.
//!
//! [`Load`] decides when requests are sent; [`play()`] drives it and a backend, on the virtual or the real clock. It knows
//! nothing of metrics, gates and reports: they listen as [`Observer`].

mod chain;
mod checker;
mod clock;
mod conversation;
mod flight;
pub mod journal;
mod lane;
mod live;
mod load;
mod play;
mod processor;
mod retry;
mod steps;
#[cfg(test)]
mod tests;
mod users;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

pub use self::clock::{Pace, timer_lateness};
pub use self::journal::CellKey;
pub use self::lane::{GroupPlayed, Part};
pub use self::live::{play_group_live, play_live};
pub use self::load::{Load, Start, Unsent};
pub use self::play::{play, play_group};
pub use self::processor::{ProcessorUse, watch_processor};
use crate::plan::{Recipe, RecipeStream};
use crate::record::{GapRun, Phase, Record};
use crate::units::{Duration, Ns};

/// Where a load takes its recipes from: the warm-up's first, then the measured ones, each phase in the order of index.
/// Recipes that follow another stand behind it, best directly.
pub trait Recipes: Iterator<Item = Recipe> {
    /// Ends the warm-up: the next recipe is a measured one. Called once, when a warm-up of fixed length is over.
    fn start_measuring(&mut self);
}

impl Recipes for RecipeStream {
    fn start_measuring(&mut self) {
        RecipeStream::start_measuring(self);
    }
}

/// What was done in an earlier part of the same run.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    /// The requests that have their final record. They are passed over. In an open load, arrivals and the end move back,
    /// so that the first request that is left is due at T0; what follows a finished request counts from T0.
    pub finished: HashSet<(Phase, u64)>,
    /// How much of a closed load's `duration` was played; that much less is left.
    pub elapsed: Ns,
}

/// Why a run could not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The backend has an event that never happens.
    #[error(
        "the backend stands still at {at}: it says that something is due and does nothing; this is a bug in the backend"
    )]
    StandsStill {
        /// Since when, from T0.
        at: Duration,
    },
    /// A thread that talks to a server died.
    #[error("{0}")]
    ClientDied(String),
}

/// Hears each record as its request ends, in order of ending.
pub trait Observer {
    /// `gaps` are the record's gaps between tokens, in order, equal neighbours joined; without those that
    /// [`Self::on_step`] was told of.
    fn on_record(&mut self, record: &Record, gaps: &[GapRun]) -> Flow;

    /// Whether it may be told of gaps by the step, because it pools them and does not ask whose they are.
    fn pools_gaps(&self) -> bool {
        false
    }

    /// `requests` measured requests, each of which has its record now or later, had a gap of this length between two
    /// tokens. Called only where [`Self::pools_gaps`] says so.
    fn on_step(&mut self, gap: Ns, requests: u32) {
        let _ = (gap, requests);
    }
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
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Asks for a stop because of a signal (its number, such as 2 for SIGINT).
    pub fn request(&self, signal: u8) {
        self.0.store(usize::from(signal), Ordering::Relaxed);
    }

    /// Where a signal handler leaves its number.
    pub fn flag(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.0)
    }

    /// The signal that asked for a stop, if one did.
    pub fn requested(&self) -> Option<u8> {
        u8::try_from(self.0.load(Ordering::Relaxed)).ok().filter(|signal| *signal != 0)
    }
}

/// What playing one cell came to, beside its records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Played {
    /// From T0 to the start of measuring.
    pub measure_start: Ns,
    /// From T0 to the end of the last measured request (or the end of the load's duration, whichever is later).
    pub measure_end: Ns,
    /// The most measured requests in flight at once.
    pub max_in_flight: u32,
    /// What the engine counted.
    pub stats: crate::backend::EngineStats,
    /// What the threads that send and stamp got of the machine; `None` on the virtual clock, and where the system does not
    /// tell.
    pub processor: Option<ProcessorUse>,
    /// How it ended.
    pub ending: Ending,
}

/// How playing a cell ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

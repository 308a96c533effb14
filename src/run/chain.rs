//! Requests that follow others.

use rustc_hash::FxHashMap;

use crate::plan::{After, Recipe};
use crate::record::Phase;
use crate::units::Ns;

/// Which requests have ended, and what waits for the others.
#[derive(Debug)]
pub(super) struct Chains {
    waiting: FxHashMap<(Phase, u64), Vec<(After, Recipe)>>,
    /// When requests ended, and whether that releases what follows: kept where what follows may stand far behind.
    ends: FxHashMap<(Phase, u64), (Ns, bool)>,
    keep: bool,
    first_measured: Option<Ns>,
}

impl Chains {
    /// With `keep`, a request may follow one that has ended long ago; else only one that has not ended yet.
    pub(super) fn new(keep: bool) -> Self {
        Self { waiting: FxHashMap::default(), ends: FxHashMap::default(), keep, first_measured: None }
    }

    /// A recipe waits for another of its phase.
    pub(super) fn wait(&mut self, after: After, recipe: Recipe) {
        self.waiting.entry((recipe.phase, after.index)).or_default().push((after, recipe));
    }

    /// Whether nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When a request ended, and whether that releases what follows.
    pub(super) fn end_of(&self, phase: Phase, index: u64) -> Option<(Ns, bool)> {
        self.ends.get(&(phase, index)).copied()
    }

    /// A request has ended: what waited for it, in the order of the plan.
    pub(super) fn end(&mut self, phase: Phase, index: u64, at: Ns, released: bool) -> Vec<(After, Recipe)> {
        if self.keep {
            self.ends.insert((phase, index), (at, released));
        }
        self.waiting.remove(&(phase, index)).unwrap_or_default()
    }

    /// A request was done in an earlier run: what follows it counts from the start of this one.
    pub(super) fn pass_over(&mut self, recipe: &Recipe) {
        if recipe.phase == Phase::Measured && self.first_measured.is_none() {
            self.first_measured = recipe.arrival;
        }
        self.end(recipe.phase, recipe.index, 0, true);
    }

    /// The arrival of the first measured request, when it was passed over.
    pub(super) fn first_measured(&self) -> Option<Ns> {
        self.first_measured
    }
}

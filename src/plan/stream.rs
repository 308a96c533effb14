//! The recipes of one run of a workload, one after another, in constant memory.

use std::sync::Arc;

use super::generator::{Clock, Generator, Keys, Said};
use super::{Recipe, RecipeSource, WarmupPlan, WorkloadPlan};
use crate::record::{Phase, Turn};
use crate::units::Ns;

/// Hands out the recipes of one repeat: first the warm-up, then what is measured, each numbered from 0.
///
/// In open loads they come in order of their due time and end by themselves. In closed loads they end with the number
/// of requests; where only time ends the load (or its warm-up) they never end, and the load stops asking.
#[derive(Debug, Clone)]
pub struct RecipeStream {
    inner: Inner,
    lane: u32,
}

#[derive(Debug, Clone)]
enum Inner {
    Generated(Box<Walk>),
    Listed { recipes: Arc<[Recipe]>, at: usize, end: usize },
}

impl WorkloadPlan {
    /// The recipes of the `repeat`-th run, from 0. The same call gives the same recipes, always.
    pub fn stream(&self, repeat: u32) -> RecipeStream {
        let inner = match &self.recipes {
            RecipeSource::Generated(generator) => {
                Inner::Generated(Box::new(Walk::new(self, generator, repeat)))
            }
            RecipeSource::Listed(recipes) => {
                let (at, end) = run_bounds(recipes, repeat);
                Inner::Listed { recipes: Arc::clone(recipes), at, end }
            }
        };
        RecipeStream { inner, lane: self.lane }
    }
}

/// Where the `repeat`-th run lies in a list, or the last one there is.
fn run_bounds(recipes: &[Recipe], repeat: u32) -> (usize, usize) {
    let order = |recipe: &Recipe| (recipe.phase == Phase::Measured, recipe.index);
    let mut start = 0;
    let mut runs = 0;
    for at in 1..recipes.len() {
        if order(&recipes[at]) <= order(&recipes[at - 1]) {
            if runs == repeat {
                return (start, at);
            }
            runs += 1;
            start = at;
        }
    }
    (start, recipes.len())
}

impl RecipeStream {
    /// Ends the warm-up: what follows is measured. A closed load whose warm-up is ended by time calls this; without a
    /// warm-up left it changes nothing. Called earlier than that it skips what is left of the warm-up, and only due times
    /// behind a warm-up of so many requests depend on what was skipped.
    pub fn start_measuring(&mut self) {
        match &mut self.inner {
            Inner::Generated(walk) => walk.start_measuring(),
            Inner::Listed { recipes, at, end } => {
                let left =
                    recipes[*at..*end].iter().take_while(|recipe| recipe.phase == Phase::Warmup).count();
                *at += left;
            }
        }
    }
}

impl Iterator for RecipeStream {
    type Item = Recipe;

    fn next(&mut self) -> Option<Recipe> {
        let recipe = match &mut self.inner {
            Inner::Generated(walk) => walk.next()?,
            Inner::Listed { recipes, at, end } => {
                let recipe = recipes[*at..*end].first()?.clone();
                *at += 1;
                recipe
            }
        };
        Some(Recipe { lane: self.lane, ..recipe })
    }
}

/// What a load sends, counted as far as it can be known before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count {
    pub(super) warmup: u64,
    pub(super) measured: u64,
    /// Requests and sessions that follow no other, of both phases.
    pub(super) arrivals: u64,
    /// Measured sessions.
    pub(super) sessions: u64,
    /// The last due time; 0 where users decide.
    pub(super) last: Ns,
    /// Whether the stream ended within the limit.
    pub(super) ended: bool,
}

impl WorkloadPlan {
    /// Counts what the `repeat`-th stream hands out, up to `limit` arrivals, without drawing any.
    pub(super) fn count(&self, repeat: u32, limit: u64) -> Count {
        let mut count = Count::default();
        let mut add = |phase: Phase, arrival: Option<Ns>, session: Option<Turn>| {
            let follows = session.is_some_and(|session| session.turn > 1);
            if !follows && count.arrivals >= limit {
                return false;
            }
            count.arrivals += u64::from(!follows);
            count.sessions += u64::from(phase == Phase::Measured && session.is_some() && !follows);
            match phase {
                Phase::Warmup => count.warmup += 1,
                Phase::Measured => count.measured += 1,
            }
            count.last = arrival.unwrap_or(count.last);
            true
        };
        let more = match self.stream(repeat).inner {
            Inner::Generated(mut walk) => {
                std::iter::from_fn(|| walk.step()).any(|slot| !add(slot.phase, slot.arrival, slot.session))
            }
            Inner::Listed { recipes, at, end } => {
                recipes[at..end].iter().any(|recipe| !add(recipe.phase, recipe.arrival, recipe.session))
            }
        };
        Count { ended: !more, ..count }
    }

    /// Whether the `repeat`-th run measures anything at all.
    pub(super) fn sends(&self, repeat: u32) -> bool {
        let mut stream = self.stream(repeat);
        stream.start_measuring();
        stream.next().is_some()
    }
}

/// One place in a stream.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) phase: Phase,
    pub(super) index: u64,
    /// Which row of a file it takes, or which session it belongs to; a replay goes on after the rows of its warm-up.
    pub(super) row: u64,
    pub(super) arrival: Option<Ns>,
    pub(super) session: Option<Turn>,
}

/// Where a generated stream stands.
#[derive(Debug, Clone)]
struct Walk {
    generator: Arc<Generator>,
    keys: Keys,
    warmup: WarmupPlan,
    requests: Option<u64>,
    sessions: Option<u64>,
    duration: Option<Ns>,
    phase: Phase,
    index: u64,
    /// Requests and sessions of this phase that follow no other.
    arrived: u64,
    /// The turn that was handed out last, when another one follows.
    open: Option<Turn>,
    said: Said,
    /// Rows that the warm-up took, where measuring goes on behind them.
    warmed: u64,
    /// Position of the last arrival in its phase's process of unit rate.
    events: f64,
    /// T0 of the phase's arrival process.
    origin: Ns,
    /// When measuring ends, once it is known.
    until: Option<Ns>,
}

impl Walk {
    fn new(plan: &WorkloadPlan, generator: &Arc<Generator>, repeat: u32) -> Self {
        let mut walk = Self {
            generator: Arc::clone(generator),
            keys: generator.keys(repeat),
            warmup: plan.warmup,
            requests: plan.requests,
            sessions: plan.sessions,
            duration: plan.duration,
            phase: Phase::Warmup,
            index: 0,
            arrived: 0,
            open: None,
            said: Said::default(),
            warmed: 0,
            events: 0.0,
            origin: 0,
            until: None,
        };
        if walk.warmup == WarmupPlan::None {
            walk.start_measuring();
        }
        walk
    }

    fn start_measuring(&mut self) {
        if self.phase == Phase::Measured {
            return;
        }
        self.origin = match self.warmup {
            WarmupPlan::None => 0,
            WarmupPlan::Duration(length) => length,
            WarmupPlan::Requests(count) => {
                let arrivals = self.generator.rows_of_warmup(&self.keys, count);
                self.generator.clock.end_of_warmup(arrivals, self.events)
            }
        };
        if !matches!(self.warmup, WarmupPlan::Requests(_)) {
            self.until = self.duration.map(|duration| self.origin.saturating_add(duration));
        }
        self.phase = Phase::Measured;
        self.warmed = match self.warmup {
            WarmupPlan::None => 0,
            WarmupPlan::Requests(count) => self.generator.rows_of_warmup(&self.keys, count),
            WarmupPlan::Duration(length) => self.generator.trace_rows_before(length),
        };
        (self.index, self.arrived, self.events) = (0, 0, 0.0);
        (self.open, self.said) = (None, Said::default());
    }

    fn next(&mut self) -> Option<Recipe> {
        let slot = self.step()?;
        self.generator.recipe(&self.keys, &slot, &mut self.said)
    }

    /// Goes to the next request without drawing what it is.
    fn step(&mut self) -> Option<Slot> {
        if self.phase == Phase::Warmup {
            if let Some(slot) = self.step_warmup() {
                return Some(slot);
            }
            self.start_measuring();
        }
        if self.requests.is_some_and(|requests| self.index >= requests) {
            return None;
        }
        if let Some(slot) = self.next_turn() {
            return Some(slot);
        }
        if self.sessions.is_some_and(|sessions| self.arrived >= sessions) {
            return None;
        }
        let arrival = match self.due() {
            Due::Never => return None,
            Due::WhenFree => None,
            Due::At(at) => {
                let duration = self.duration;
                let until =
                    *self.until.get_or_insert_with(|| duration.map_or(Ns::MAX, |d| at.saturating_add(d)));
                if at >= until {
                    return None;
                }
                Some(at)
            }
        };
        Some(self.slot(arrival))
    }

    fn step_warmup(&mut self) -> Option<Slot> {
        if let WarmupPlan::Requests(count) = self.warmup
            && self.index >= count
        {
            return None;
        }
        if let Some(slot) = self.next_turn() {
            return Some(slot);
        }
        let arrival = match self.due() {
            Due::Never => return None,
            Due::WhenFree => None,
            Due::At(at) if matches!(self.warmup, WarmupPlan::Duration(length) if at >= length) => {
                return None;
            }
            Due::At(at) => Some(at),
        };
        Some(self.slot(arrival))
    }

    /// A request that follows no other, the first of its session where it begins one.
    fn slot(&mut self, arrival: Option<Ns>) -> Slot {
        let row = self.row();
        let turns = self.generator.turns(&self.keys, self.phase, row);
        let session = turns.map(|turns| Turn { session: self.arrived, turn: 1, turns });
        self.arrived += 1;
        self.hand_out(row, arrival, session)
    }

    /// The next turn of the session whose turn was handed out last.
    fn next_turn(&mut self) -> Option<Slot> {
        let last = self.open?;
        let row = self.row() - 1;
        Some(self.hand_out(row, None, Some(Turn { turn: last.turn + 1, ..last })))
    }

    fn hand_out(&mut self, row: u64, arrival: Option<Ns>, session: Option<Turn>) -> Slot {
        self.open = session.filter(|session| session.has_next());
        let slot = Slot { phase: self.phase, index: self.index, row, arrival, session };
        self.index += 1;
        slot
    }

    /// The row that the next request or session takes.
    fn row(&self) -> u64 {
        let before = if matches!(self.generator.clock, Clock::Trace { .. }) { self.warmed } else { 0 };
        before.saturating_add(self.arrived)
    }

    /// When the next request of this phase is due.
    fn due(&mut self) -> Due {
        match &self.generator.clock {
            Clock::Users => Due::WhenFree,
            Clock::Law { gaps, profile, warmup } => {
                let profile = if self.phase == Phase::Warmup { warmup } else { profile };
                self.events = gaps.next(self.events, self.arrived, self.keys.phase(self.phase));
                profile.time_of(self.events).map_or(Due::Never, |at| Due::At(self.origin.saturating_add(at)))
            }
            Clock::Trace { .. } => self.generator.trace_arrival(self.row()).map_or(Due::Never, Due::At),
        }
    }
}

enum Due {
    At(Ns),
    /// A user decides.
    WhenFree,
    /// The load has ended.
    Never,
}

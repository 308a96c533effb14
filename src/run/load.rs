//! When requests are sent: a state machine that is told the time and what has ended. It neither sleeps nor sends.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rustc_hash::FxHashMap;

use super::chain::Chains;
use super::retry::Tried;
use super::users::Users;
use super::{Recipes, Resume};
use crate::plan::{LoadPlan, Recipe, RecipeSource, WarmupPlan, WorkloadPlan};
use crate::record::{Outcome, Phase};
use crate::units::{MILLISECOND, Ns};

/// What a user whose request took no time at all waits before the next one, where only time ends the load: else such a
/// load would never end.
const LEAST_TURN: Ns = MILLISECOND;
/// Why a request that follows another one is not sent.
const FAILED: &str = "the request it follows failed";

/// A request that is to be sent.
#[derive(Debug, Clone)]
pub struct Start {
    /// What is sent.
    pub recipe: Recipe,
    /// When the load law wanted it sent.
    pub due: Ns,
    /// How long it waited for its place under `max_in_flight`.
    pub cap_wait: Ns,
    /// The user who sends it, in a closed load.
    pub(super) user: Option<u32>,
    /// The attempts at it that failed, where it is sent again.
    pub(super) tried: Option<Box<Tried>>,
}

/// A request that was due and is not sent.
#[derive(Debug, Clone)]
pub struct Unsent {
    /// What was not sent.
    pub recipe: Recipe,
    /// When it was due; the end of the request it follows when that failed.
    pub due: Ns,
    /// Why it was not sent.
    pub reason: &'static str,
}

/// A request with its time. Ordered by time, then by when it was scheduled.
#[derive(Debug)]
struct Pending {
    due: Ns,
    order: u64,
    recipe: Recipe,
    user: Option<u32>,
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.order) == (other.due, other.order)
    }
}
impl Eq for Pending {}
impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Pending {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

/// What decides when requests are due.
#[derive(Debug)]
enum Law {
    Closed(Users),
    Open { cap: Option<u32> },
}

/// The candidates for what happens next, in the order that decides between equal times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    /// A warm-up of fixed length ends.
    Measure,
    /// A scheduled request.
    Pending,
    /// The next arrival of an open load.
    Head,
    /// A user arrives.
    User,
    /// The load ends while requests wait under `max_in_flight`.
    End,
}

/// The load of one cell. Recipes are taken one by one, when they are needed.
///
/// - **Ends**: what would be due at or after the end is not due at all. A request that still waits under `max_in_flight`
///   at the end is not sent either; it is [`Unsent`].
/// - **Warm-up by time** in a closed load: a user whose next request would be due after it waits, and takes a measured
///   request when measuring starts, not before its think time is over.
/// - **`after`**: a request is released by the end of its parent in the same phase. It belongs to its parent's user, who
///   sends nothing else meanwhile. A parent without success (or cancellation by our side) makes it [`Unsent`].
/// - **Resume**: finished requests are passed over. Arrivals count from the first one that is left.
/// - **Ahead**: requests can be had a little before they are due, by somebody who sends them in time. Whatever else decides
///   about them happens at its own time, so that the load does not depend on it.
#[derive(Debug)]
pub struct Load<'a, R> {
    recipes: R,
    resume: &'a Resume,
    law: Law,
    warmup: WarmupPlan,
    duration: Option<Ns>,
    requests: Option<u64>,
    sessions: Option<u64>,
    /// Whether the recipes have come to their end.
    ended: bool,
    /// Recipes that were taken and not used; they come first.
    returned: VecDeque<Recipe>,
    /// The next arrival of an open load and its time.
    head: Option<(Ns, Recipe)>,
    /// What arrivals are moved back by.
    shift: Ns,
    /// How long before they are due requests can be had.
    ahead: Ns,
    pending: BinaryHeap<Reverse<Pending>>,
    scheduled: u64,
    chains: Chains,
    unsent: VecDeque<Unsent>,
    in_flight: u32,
    /// When the free places under `max_in_flight` that were used before became free.
    freed: VecDeque<Ns>,
    /// How many requests each user has outstanding.
    users: FxHashMap<u32, u32>,
    users_named: u32,
    /// Users who wait for measuring to start, and since when.
    parked: Vec<(u32, Ns)>,
    measuring: Option<Ns>,
    until: Option<Ns>,
    /// When somebody else ended it.
    cut: Option<Ns>,
    measured: u64,
}

impl<'a, R: Recipes> Load<'a, R> {
    /// The load of `plan` over `recipes`, from time 0.
    pub fn new(plan: &WorkloadPlan, recipes: R, resume: &'a Resume) -> Self {
        let law = match &plan.load {
            LoadPlan::Closed { users, ramp_up } => {
                Law::Closed(Users::new(users.clone(), *ramp_up, resume.elapsed))
            }
            LoadPlan::Open { max_in_flight } => Law::Open { cap: *max_in_flight },
        };
        let mut load = Self {
            recipes,
            resume,
            law,
            warmup: plan.warmup,
            duration: plan.duration,
            requests: plan.requests,
            sessions: plan.sessions,
            ended: false,
            returned: VecDeque::new(),
            head: None,
            shift: 0,
            ahead: 0,
            pending: BinaryHeap::new(),
            scheduled: 0,
            chains: Chains::new(matches!(plan.recipes, RecipeSource::Listed(_))),
            unsent: VecDeque::new(),
            in_flight: 0,
            freed: VecDeque::new(),
            users: FxHashMap::default(),
            users_named: 0,
            parked: Vec::new(),
            measuring: None,
            until: None,
            cut: None,
            measured: 0,
        };
        if matches!(load.law, Law::Open { .. }) {
            load.first_head();
        }
        if load.warmup == WarmupPlan::None {
            load.start_measuring(0);
        }
        load
    }

    /// Requests can be had so long before they are due.
    #[must_use]
    pub fn ahead(self, ahead: Ns) -> Self {
        Self { ahead, ..self }
    }

    /// When measuring started, once it has.
    pub fn measuring(&self) -> Option<Ns> {
        self.measuring
    }

    /// When the load's time is over, where time ends it and not the number of requests or sessions.
    pub fn ended_by_time(&self) -> Option<Ns> {
        let by_requests = self.requests.is_some_and(|requests| self.measured >= requests);
        let by_sessions = self.sessions.is_some()
            && self.is_exhausted()
            && self.head.is_none()
            && self.pending.is_empty()
            && self.chains.is_idle();
        self.until.filter(|_| !by_requests && !by_sessions)
    }

    /// When there is something to do next, if nothing ends before; `None` when nothing is left or all depends on what is in
    /// flight.
    pub fn next_due(&self) -> Option<Ns> {
        self.next().map(|(due, next)| self.from(due, next))
    }

    /// From when on something can be had.
    fn from(&self, due: Ns, next: Next) -> Ns {
        match next {
            Next::Pending | Next::Head => due.saturating_sub(self.ahead),
            Next::Measure | Next::User | Next::End => due,
        }
    }

    fn next(&self) -> Option<(Ns, Next)> {
        let pending = self.pending.peek().map(|Reverse(pending)| (pending.due, Next::Pending));
        let head = self.head.as_ref().map(|(due, _)| (*due, Next::Head));
        let mut sends = [pending, head, None];
        match &self.law {
            Law::Open { cap } if cap.is_some_and(|cap| self.in_flight >= cap) => {
                let waits =
                    sends.iter().flatten().any(|(due, _)| self.until.is_some_and(|until| *due < until));
                sends = [None, None, self.until.filter(|_| waits).map(|until| (until, Next::End))];
            }
            Law::Closed(users) if !self.is_exhausted() => {
                sends[2] = users.next_arrival().map(|at| (at, Next::User));
            }
            Law::Open { .. } | Law::Closed(_) => {}
        }
        let until = self.until.unwrap_or(Ns::MAX);
        let send = sends.into_iter().flatten().filter(|(due, next)| *due < until || *next == Next::End).min();
        let more = send.is_some() || !self.parked.is_empty() || (self.in_flight > 0 && !self.is_exhausted());
        let measure = self.warmup_end().filter(|_| more && self.cut.is_none());
        send.into_iter().chain(measure.map(|at| (at, Next::Measure))).min_by_key(|(at, next)| (*at, *next))
    }

    /// When a warm-up of fixed length ends, while it lasts.
    fn warmup_end(&self) -> Option<Ns> {
        match self.warmup {
            WarmupPlan::Duration(length) if self.measuring.is_none() => {
                Some(length.saturating_sub(self.shift))
            }
            _ => None,
        }
    }

    /// The next request that can be had by `now`, in order of due time. It counts as in flight.
    pub fn poll(&mut self, now: Ns) -> Option<Start> {
        loop {
            let (due, next) = self.next().filter(|(due, next)| self.from(*due, *next) <= now)?;
            match next {
                Next::Measure => self.end_warmup(due),
                Next::User => self.user_arrives(due),
                Next::End => self.close_door(due),
                Next::Pending => {
                    let Some(Reverse(pending)) = self.pending.pop() else { continue };
                    if let Some(user) = pending.user
                        && self.is_surplus(pending.due, pending.recipe.phase)
                        && pending.recipe.after.is_none()
                    {
                        self.returned.push_front(pending.recipe);
                        self.user_leaves(user, pending.due);
                        continue;
                    }
                    return Some(self.start(pending.recipe, pending.due, pending.user));
                }
                Next::Head => {
                    let Some((due, recipe)) = self.head.take() else { continue };
                    let start = self.start(recipe, due, None);
                    self.next_head();
                    return Some(start);
                }
            }
        }
    }

    /// A request that will not be sent, if there is one.
    pub fn take_unsent(&mut self) -> Option<Unsent> {
        self.unsent.pop_front()
    }

    /// A request that was started has ended. `sent` is when it was sent.
    pub fn on_finished(&mut self, start: &Start, sent: Ns, outcome: Outcome, now: Ns) {
        self.in_flight -= 1;
        if let Law::Open { cap: Some(_) } = self.law {
            self.freed.push_back(now);
        }
        let phase = start.recipe.phase;
        let released = match outcome {
            _ if outcome.releases() => Ok(()),
            Outcome::Skipped => Err("the session ended before it"),
            _ => Err(FAILED),
        };
        self.close(phase, start.recipe.index, now, released, start.user);
        let Some(user) = start.user else { return };
        let Some(outstanding) = self.users.get_mut(&user) else { return };
        *outstanding -= 1;
        if *outstanding == 0 {
            let counted = self.requests.is_some() || self.sessions.is_some();
            let timed = !counted || self.warmup_end().is_some();
            let least = if timed && now <= sent { LEAST_TURN } else { 0 };
            self.next_turn(user, now, least, false);
        }
    }

    /// Nothing new starts from `now` on; what is in flight goes on.
    pub fn end(&mut self, now: Ns) {
        self.cut = Some(now);
        self.until = Some(self.until.map_or(now, |until| until.min(now)));
    }

    /// Ends the load at `now`: what was due and not sent, in order of due time.
    pub fn stop(&mut self, now: Ns) -> Vec<(Ns, Recipe)> {
        let mut due = Vec::new();
        let until = self.until.unwrap_or(Ns::MAX);
        while let Some(Reverse(pending)) = self.pending.pop() {
            if pending.due <= now && pending.due < until {
                due.push((pending.due, pending.recipe));
            }
        }
        while let Some((at, recipe)) = self.head.take().filter(|(at, _)| *at <= now && *at < until) {
            due.push((at, recipe));
            self.next_head();
        }
        due.sort_by_key(|(at, _)| *at);
        due
    }

    fn start(&mut self, recipe: Recipe, due: Ns, user: Option<u32>) -> Start {
        if recipe.phase == Phase::Measured {
            self.measured += 1;
            if self.measuring.is_none() {
                self.start_measuring(due);
            }
        }
        let mut cap_wait = 0;
        if let Law::Open { cap: Some(cap) } = self.law {
            // Places that were never used have no entry and come first.
            let unused = cap.saturating_sub(self.in_flight) as usize > self.freed.len();
            let freed = if unused { None } else { self.freed.pop_front() };
            cap_wait = freed.map_or(0, |freed| freed.saturating_sub(due));
        }
        self.in_flight += 1;
        Start { recipe, due, cap_wait, user, tried: None }
    }

    /// Measuring starts; the end is known.
    fn start_measuring(&mut self, at: Ns) {
        self.measuring = Some(at);
        let played = self.resume.elapsed;
        self.until = self.duration.map(|duration| at.saturating_add(duration.saturating_sub(played)));
        match &mut self.law {
            Law::Closed(users) => {
                users.start_measuring(at);
                self.until = self.until.into_iter().chain(users.end()).min();
            }
            Law::Open { .. } => {
                // The end moves back with the arrivals.
                let start = self.unshifted_start();
                self.until =
                    self.duration.map(|length| start.saturating_add(length).saturating_sub(self.shift));
            }
        }
        self.until = self.until.into_iter().chain(self.cut).min();
    }

    /// When the measured part of an open load starts before arrivals are moved back.
    fn unshifted_start(&self) -> Ns {
        match self.warmup {
            WarmupPlan::None => 0,
            WarmupPlan::Duration(length) => length,
            WarmupPlan::Requests(_) => self
                .chains
                .first_measured()
                .unwrap_or_else(|| self.measuring.unwrap_or(0).saturating_add(self.shift)),
        }
    }

    fn end_warmup(&mut self, at: Ns) {
        self.recipes.start_measuring();
        self.returned.retain(|recipe| recipe.phase == Phase::Measured);
        self.ended = false;
        self.start_measuring(at);
        for (user, since) in std::mem::take(&mut self.parked) {
            self.next_turn(user, since, 0, true);
        }
    }

    /// The next recipe that is not done and follows no other. Those right behind it that follow one are taken with it, so
    /// that they are known before it ends.
    fn take(&mut self) -> Option<Recipe> {
        let taken = self.returned.pop_front().or_else(|| self.take_plain());
        if self.returned.is_empty() {
            let ahead = self.take_plain();
            self.returned.extend(ahead);
        }
        taken
    }

    fn take_plain(&mut self) -> Option<Recipe> {
        while !self.ended {
            let Some(recipe) = self.recipes.next() else {
                self.ended = true;
                break;
            };
            if self.resume.finished.contains(&(recipe.phase, recipe.index)) {
                self.measured += u64::from(recipe.phase == Phase::Measured);
                self.chains.pass_over(&recipe);
                continue;
            }
            let Some(after) = recipe.after else { return Some(recipe) };
            match self.chains.end_of(recipe.phase, after.index) {
                None => self.chains.wait(after, recipe),
                Some((end, true)) => self.schedule(recipe, end.saturating_add(after.delay), None),
                Some((end, false)) => self.skip(recipe, end, FAILED),
            }
        }
        None
    }

    fn is_exhausted(&self) -> bool {
        self.ended && self.returned.is_empty()
    }

    fn first_head(&mut self) {
        self.next_head();
        if self.resume.finished.is_empty() {
            return;
        }
        if let Some((due, _)) = &mut self.head {
            self.shift = std::mem::take(due);
        }
    }

    fn next_head(&mut self) {
        self.head = self.take().map(|recipe| {
            let due = recipe.arrival.unwrap_or(0).saturating_sub(self.shift);
            (due, recipe)
        });
    }

    fn schedule(&mut self, recipe: Recipe, due: Ns, user: Option<u32>) {
        if let Some(outstanding) = user.and_then(|user| self.users.get_mut(&user)) {
            *outstanding += 1;
        }
        let order = self.scheduled;
        self.scheduled += 1;
        self.pending.push(Reverse(Pending { due, order, recipe, user }));
    }

    fn user_arrives(&mut self, at: Ns) {
        if let Law::Closed(users) = &mut self.law {
            users.arrive(at);
        }
        let user = self.users_named;
        self.users_named += 1;
        self.users.insert(user, 0);
        let Some(recipe) = self.take() else { return self.user_leaves(user, at) };
        if self.is_after_warmup(&recipe, at) {
            self.returned.push_front(recipe);
            self.parked.push((user, at));
        } else {
            self.schedule(recipe, at, Some(user));
        }
    }

    fn user_leaves(&mut self, user: u32, at: Ns) {
        self.users.remove(&user);
        if let Law::Closed(users) = &mut self.law {
            users.leave(at);
        }
    }

    /// A user whose last request ended at `since` takes the next one.
    fn next_turn(&mut self, user: u32, since: Ns, least: Ns, parked: bool) {
        if let Some(at) = self.warmup_end().filter(|at| since >= *at) {
            self.end_warmup(at);
        }
        let from = if parked { self.measuring.unwrap_or(since) } else { since };
        let Some(recipe) = self.take() else { return self.user_leaves(user, from) };
        if self.is_surplus(from, recipe.phase) {
            self.returned.push_front(recipe);
            return self.user_leaves(user, from);
        }
        let due = since.saturating_add(recipe.think.max(least)).max(from);
        if self.is_after_warmup(&recipe, due) {
            self.returned.push_front(recipe);
            self.parked.push((user, since));
        } else {
            self.schedule(recipe, due, Some(user));
        }
    }

    fn is_after_warmup(&self, recipe: &Recipe, due: Ns) -> bool {
        recipe.phase == Phase::Warmup && self.warmup_end().is_some_and(|end| due >= end)
    }

    /// Whether the curve wants fewer users at `at` than there are. The request that starts measuring is always sent.
    fn is_surplus(&self, at: Ns, phase: Phase) -> bool {
        let Law::Closed(users) = &self.law else { return false };
        (phase == Phase::Warmup || self.measuring.is_some()) && users.is_one_too_many(at)
    }

    /// Releases what follows a request that has ended, or gives it up with everything behind it, for a reason.
    fn close(
        &mut self,
        phase: Phase,
        index: u64,
        at: Ns,
        released: Result<(), &'static str>,
        user: Option<u32>,
    ) {
        for (after, recipe) in self.chains.end(phase, index, at, released.is_ok()) {
            match released {
                Ok(()) => self.schedule(recipe, at.saturating_add(after.delay), user),
                Err(reason) => self.skip(recipe, at, reason),
            }
        }
    }

    fn skip(&mut self, recipe: Recipe, at: Ns, reason: &'static str) {
        let mut skipped = VecDeque::from([recipe]);
        while let Some(recipe) = skipped.pop_front() {
            let behind = self.chains.end(recipe.phase, recipe.index, at, false);
            skipped.extend(behind.into_iter().map(|(_, recipe)| recipe));
            self.measured += u64::from(recipe.phase == Phase::Measured);
            self.unsent.push_back(Unsent { recipe, due: at, reason });
        }
    }

    /// The load ends while requests wait for a place.
    fn close_door(&mut self, at: Ns) {
        for (due, recipe) in self.stop(at) {
            let reason = "the load ended while it waited under `max_in_flight`";
            self.unsent.push_back(Unsent { recipe, due, reason });
        }
    }
}

//! One workload on the timeline of its cell, or of the group that it shares a backend with.

use std::collections::VecDeque;

use super::checker::Checker;
use super::conversation::Conversations;
use super::flight::unsent;
use super::load::{Load, Start};
use super::retry::{Failed, Retries};
use super::{Ending, Flow, Observer, Played, ProcessorUse, Recipes, Resume};
use crate::backend::{EngineStats, RequestId};
use crate::plan::{Recipe, WorkloadPlan};
use crate::record::{GapRun, Outcome, Phase, Record, Response};
use crate::units::Ns;

/// A workload that is to be played, alone or beside others.
pub struct Part<'a, R> {
    /// Its plan.
    pub plan: &'a WorkloadPlan,
    /// Its recipes. Each says its place among the parts ([`Recipe::lane`]).
    pub recipes: R,
    /// Hears of its requests.
    pub observer: &'a mut dyn Observer,
    /// What was done before.
    pub resume: &'a Resume,
    /// How long after T0 its own time begins.
    pub start: Ns,
    /// It starts nothing new when that part is over.
    pub until: Option<usize>,
}

/// What a group came to.
#[derive(Debug)]
pub struct GroupPlayed {
    /// Each part on its own, in order; what the engine counted is not told apart.
    pub parts: Vec<Played>,
    /// All of them together.
    pub whole: Played,
}

/// A workload that is being played.
pub(super) struct Lane<'a, R> {
    plan: &'a WorkloadPlan,
    load: Load<'a, R>,
    retries: Retries,
    checker: Checker<'a>,
    conversations: Conversations<'a>,
    pub(super) observer: &'a mut dyn Observer,
    start: Ns,
    until: Option<usize>,
    /// When `total_timeout` cuts it off.
    total: Option<Ns>,
    measuring: Option<Ns>,
    measured_end: Ns,
    /// Requests in flight, and the measured ones among them.
    in_flight: u32,
    measured_in_flight: u32,
    max_in_flight: u32,
    /// Measured requests that ride.
    pub(super) riding: u32,
    /// Whether the part that it lasts as long as is over.
    ended: bool,
    /// When its requests time out, in order; entries of ended ones are passed over.
    pub(super) deadlines: VecDeque<(Ns, RequestId)>,
    /// What cut it off.
    ending: Option<Ending>,
    abort: Option<String>,
}

impl<'a, R: Recipes> Lane<'a, R> {
    pub(super) fn new(part: Part<'a, R>) -> Self {
        let Part { plan, recipes, observer, resume, start, until } = part;
        Self {
            plan,
            load: Load::new(plan, recipes, resume),
            retries: Retries::new(plan.retries, plan.timeout),
            checker: Checker::new(plan),
            conversations: Conversations::new(plan),
            observer,
            start,
            until,
            total: plan.total_timeout.map(|total| start.saturating_add(total)),
            measuring: None,
            measured_end: 0,
            in_flight: 0,
            measured_in_flight: 0,
            max_in_flight: 0,
            riding: 0,
            ended: false,
            deadlines: VecDeque::new(),
            ending: None,
            abort: None,
        }
    }

    /// Its requests can be had so long before they are due, where nothing but the load itself ends it.
    #[must_use]
    pub(super) fn ahead(mut self, ahead: Ns) -> Self {
        if self.until.is_none() && self.total.is_none() {
            self.load = self.load.ahead(ahead);
        }
        self
    }

    /// The longest that one request may take.
    pub(super) fn timeout(&self) -> Ns {
        self.plan.timeout
    }

    /// When there is something to do next, if nothing ends before.
    pub(super) fn next_due(&self) -> Option<Ns> {
        let load = self.load_due();
        load.into_iter().chain(self.retries.next()).filter(|_| self.ending.is_none()).min()
    }

    fn load_due(&self) -> Option<Ns> {
        self.load.next_due().map(|at| self.start.saturating_add(at))
    }

    /// When it is cut off; `None` when it can not be any more.
    pub(super) fn cut_off_at(&self) -> Option<Ns> {
        self.total.filter(|_| !self.is_done())
    }

    /// Whether nothing is in flight and nothing is due any more.
    pub(super) fn is_done(&self) -> bool {
        self.in_flight == 0 && self.next_due().is_none()
    }

    /// It starts nothing new from `now` on.
    fn end(&mut self, now: Ns) {
        self.ended = true;
        self.load.end(now.saturating_sub(self.start));
    }

    /// The next request that is due by `now`. What is sent again comes before what is due at the same time.
    pub(super) fn poll(&mut self, now: Ns) -> Option<Start> {
        let own = now.checked_sub(self.start).filter(|_| self.ending.is_none())?;
        let load = self.load_due().unwrap_or(Ns::MAX);
        if self.retries.next().is_some_and(|at| at <= now && at <= load) {
            return self.retries.pop();
        }
        let start = self.load.poll(own)?;
        Some(Start { due: start.due.saturating_add(self.start), ..start })
    }

    /// When a request that failed so is sent again, if it is.
    pub(super) fn retry_at(&self, start: &Start, failed: &Failed) -> Option<Ns> {
        self.retries.when(start, failed).filter(|_| self.ending.is_none())
    }

    /// A request that failed waits until `at` to be sent again. Until then it counts as in flight.
    pub(super) fn retry(&mut self, start: Start, failed: &Failed, at: Ns) {
        self.retries.wait(start, failed, at);
    }

    /// The next one of those that wait to be sent again, when they are not any more.
    pub(super) fn give_up_retry(&mut self) -> Option<(Start, Ns)> {
        let mut start = self.retries.pop()?;
        // Its last attempt is then what its record is about.
        let mut tried = start.tried.take()?;
        let last = tried.attempts.pop()?;
        start.tried = (!tried.attempts.is_empty()).then_some(tried);
        Some((start, last.sent))
    }

    /// Whether measuring has started since this was asked last.
    pub(super) fn begins_to_measure(&mut self) -> bool {
        if self.measuring.is_some() {
            return false;
        }
        self.measuring = self.load.measuring().map(|at| self.start.saturating_add(at));
        self.measuring.is_some()
    }

    /// When measuring started, once that is known here.
    pub(super) fn measuring(&self) -> Option<Ns> {
        self.measuring
    }

    /// Records what will not be sent.
    pub(super) fn take_unsent(&mut self, stamp: Ns) {
        while let Some(one) = self.load.take_unsent() {
            let mut record = unsent(&one.recipe, one.due.saturating_add(self.start), stamp);
            record.outcome = Outcome::Skipped;
            record.message = Some(one.reason.into());
            self.hand_over(&record, &[]);
        }
    }

    /// A request goes out: what was said before is filled in. One that is not sent after all comes back as its record, known
    /// at `at`.
    pub(super) fn begin(&mut self, start: &mut Start, at: Ns) -> Option<Record> {
        if start.tried.is_some() {
            return None;
        }
        if let Some(record) = self.conversations.fill(start, at) {
            return Some(record);
        }
        self.in_flight += 1;
        if start.recipe.phase == Phase::Measured {
            self.measured_in_flight += 1;
            self.max_in_flight = self.max_in_flight.max(self.measured_in_flight);
        }
        None
    }

    /// A request that went out has its record: its response is looked at, and it is handed over.
    pub(super) fn close(
        &mut self,
        recipe: &Recipe,
        record: &mut Record,
        gaps: &[GapRun],
        response: Option<Box<Response>>,
    ) {
        let text = response.as_ref().map(|response| response.text.as_str().into());
        self.checker.check(recipe, record, response);
        self.in_flight -= 1;
        if record.phase == Phase::Measured {
            self.measured_in_flight -= 1;
        }
        self.conversations.hear(recipe, record.output_tokens, text, record.outcome.releases());
        self.hand_over(record, gaps);
    }

    /// Tells the load that a request ended.
    pub(super) fn on_finished(&mut self, start: &Start, sent: Ns, outcome: Outcome, now: Ns) {
        let own = |at: Ns| at.saturating_sub(self.start);
        self.load.on_finished(start, own(sent), outcome, own(now));
    }

    pub(super) fn hand_over(&mut self, record: &Record, gaps: &[GapRun]) {
        if record.phase == Phase::Measured {
            self.measured_end = self.measured_end.max(record.end);
        }
        if let Flow::Abort(reason) = self.observer.on_record(record, gaps) {
            self.abort.get_or_insert(reason);
        }
    }

    /// Why its observer wants everything to end, once.
    pub(super) fn take_abort(&mut self) -> Option<String> {
        self.abort.take()
    }

    /// It is cut off: nothing starts any more. How what is in flight ends, how what waits does, and what is said of both;
    /// `None` where it was cut off before, or has come to its end.
    pub(super) fn cut_off(&mut self, ending: &Ending) -> Option<(Outcome, Outcome, &'static str)> {
        if self.ending.is_some() {
            return None;
        }
        let how = match ending {
            Ending::Complete => return None,
            Ending::TimedOut => (Outcome::TimedOut, Outcome::Skipped, "cut off by `total_timeout`"),
            Ending::Aborted(_) => (Outcome::Interrupted, Outcome::Interrupted, "the run was aborted"),
            Ending::Interrupted(_) => (Outcome::Interrupted, Outcome::Interrupted, "the run was interrupted"),
        };
        self.ending = Some(ending.clone());
        Some(how)
    }

    /// Ends the load at `now`: what was due and not sent.
    pub(super) fn stop(&mut self, now: Ns) -> Vec<(Ns, Recipe)> {
        let Some(own) = now.checked_sub(self.start) else { return Vec::new() };
        let due = self.load.stop(own);
        due.into_iter().map(|(due, recipe)| (due.saturating_add(self.start), recipe)).collect()
    }

    /// Records what was due and is not sent because it is cut off.
    pub(super) fn record_waiting(
        &mut self,
        due: Vec<(Ns, Recipe)>,
        (_, outcome, message): (Outcome, Outcome, &str),
        now: Ns,
    ) {
        for (due, recipe) in due {
            let mut record = unsent(&recipe, due, now);
            (record.outcome, record.message) = (outcome, Some(message.into()));
            self.hand_over(&record, &[]);
        }
    }

    /// When measuring ended, at `now`: with the last measured request, or with the load's time where that is later.
    pub(super) fn measure_end(&self, now: Ns) -> Ns {
        let mut end = self.measured_end.max(self.measuring.unwrap_or(now));
        if self.ending.is_none() && self.measuring.is_some() {
            let over = self.load.ended_by_time().map_or(0, |at| self.start.saturating_add(at));
            end = end.max(over);
        }
        end
    }

    fn played(&self, now: Ns, counted: Counted) -> Played {
        let Counted { max_in_flight, stats, processor } = counted;
        Played {
            measure_start: self.measuring.unwrap_or(now),
            measure_end: self.measure_end(now),
            max_in_flight,
            stats,
            processor,
            ending: self.ending.clone().unwrap_or(Ending::Complete),
        }
    }
}

/// What was counted beside records.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) max_in_flight: u32,
    pub(super) stats: EngineStats,
    pub(super) processor: Option<ProcessorUse>,
}

/// The next request of all that is due by `now`; none once an observer wants everything to end.
pub(super) fn next_start<R: Recipes>(lanes: &mut [Lane<'_, R>], now: Ns) -> Option<Start> {
    loop {
        if lanes.iter().any(|lane| lane.abort.is_some()) {
            return None;
        }
        let due = |lane: &Lane<'_, R>| lane.next_due().filter(|due| *due <= now);
        let next = (0..).zip(lanes.iter()).filter_map(|(at, lane)| Some((due(lane)?, at))).min();
        let (_, at): (Ns, usize) = next?;
        // What was due may have been the end of a warm-up.
        if let Some(start) = lanes[at].poll(now) {
            return Some(start);
        }
    }
}

/// Ends the parts that last as long as another one that is over.
pub(super) fn end_followers<R: Recipes>(lanes: &mut [Lane<'_, R>], now: Ns) {
    for at in 0..lanes.len() {
        if let Some(leader) = lanes[at].until.filter(|_| !lanes[at].ended)
            && lanes[leader].is_done()
        {
            lanes[at].end(now);
        }
    }
}

/// What a group came to.
pub(super) fn group_played<R: Recipes>(lanes: &[Lane<'_, R>], now: Ns, counted: Counted) -> GroupPlayed {
    if let [lane] = lanes {
        let played = lane.played(now, counted);
        return GroupPlayed { parts: vec![played.clone()], whole: played };
    }
    let Counted { max_in_flight, stats, processor } = counted;
    let own = |at: usize| EngineStats {
        faults: stats.faults.iter().filter(|fault| fault.lane as usize == at).cloned().collect(),
        ..EngineStats::default()
    };
    let part = |(at, lane): (usize, &Lane<'_, R>)| {
        lane.played(now, Counted { max_in_flight: lane.max_in_flight, stats: own(at), processor })
    };
    let parts: Vec<Played> = lanes.iter().enumerate().map(part).collect();
    let rank = |ending: &Ending| match ending {
        Ending::Complete => 0,
        Ending::TimedOut => 1,
        Ending::Aborted(_) => 2,
        Ending::Interrupted(_) => 3,
    };
    let ending = parts.iter().map(|part| &part.ending).max_by_key(|ending| rank(ending)).cloned();
    let whole = Played {
        measure_start: parts.iter().map(|part| part.measure_start).min().unwrap_or(now),
        measure_end: parts.iter().map(|part| part.measure_end).max().unwrap_or(now),
        max_in_flight,
        stats,
        processor,
        ending: ending.unwrap_or(Ending::Complete),
    };
    GroupPlayed { parts, whole }
}

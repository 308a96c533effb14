//! The driver: interleaves load, backend and timeouts, on either clock.

use rustc_hash::FxHashMap;

use super::checker::unmade;
use super::clock::{Pace, Timeline};
use super::flight::{Ended, Flight};
use super::lane::{Counted, GroupPlayed, Lane, Part, end_followers, group_played, next_start};
use super::load::Start;
use super::processor::Watched;
use super::steps::Steps;
use super::{Ending, Observer, Played, Recipes, Resume, RunError, Stop};
use crate::backend::{Finish, RequestId, Sink, Stepped};
use crate::plan::WorkloadPlan;
use crate::record::{GapRun, Outcome, Phase};
use crate::units::{Duration, Ns};

/// How often a backend may say that something is due, and then do nothing.
const IDLE_STEPS: u32 = 1000;

/// Plays one cell: every request that is due gets exactly one record, also when the run is cut off.
///
/// At one instant the backend's events come first, then timeouts, then what the load sends, each in the order of
/// submission. So a user's next request is sent at the instant at which the last one ended, and an answer that is
/// complete at its deadline counts.
///
/// On the virtual clock, time jumps to the next event and records carry the backend's own times. On the real clock the
/// calling thread sleeps until the next event and records carry the times at which events were heard of; the backend's
/// times are never adjusted to those, so delays do not add up. On a scaled clock the same holds in modelled time.
///
/// When `stop` or `observer` asks for it, nothing new starts and what is in flight ends as [`Outcome::Interrupted`].
///
/// # Errors
/// When the backend stands still: it says that something is due and does nothing.
pub fn play(
    plan: &WorkloadPlan,
    recipes: impl Recipes,
    backend: &mut dyn Stepped,
    pace: Pace,
    stop: &Stop,
    observer: &mut dyn Observer,
    resume: &Resume,
) -> Result<Played, RunError> {
    let part = Part { plan, recipes, observer, resume, start: 0, until: None };
    play_group(vec![part], backend, pace, stop).map(|played| played.whole)
}

/// Plays several workloads on one backend and one timeline, each with its own load. What [`play`] says holds for each; at
/// one instant they send in their order. A part that lasts as long as another one ends when the last request of that one
/// has ended. `total_timeout` cuts off its own part only; a stop and an observer's word end all of them.
///
/// # Errors
/// As [`play`].
pub fn play_group<R: Recipes>(
    parts: Vec<Part<'_, R>>,
    backend: &mut dyn Stepped,
    pace: Pace,
    stop: &Stop,
) -> Result<GroupPlayed, RunError> {
    if pace == Pace::Virtual && parts.iter().all(|part| part.observer.pools_gaps()) {
        backend.fold_steps();
    }
    if parts.iter().any(|part| part.plan.checks.is_some() || part.plan.has_history()) {
        backend.keep_responses();
    }
    let player = Player {
        lanes: parts.into_iter().map(Lane::new).collect(),
        backend,
        clock: Timeline::start(pace),
        flights: Flights::default(),
        next_id: 0,
        processor: if pace == Pace::Virtual { None } else { Watched::start(&[]) },
        is_measuring: false,
        measured_in_flight: 0,
        max_in_flight: 0,
    };
    player.run(stop)
}

/// The requests in flight, and what was heard of them since the last look.
#[derive(Debug, Default)]
struct Flights {
    live: FxHashMap<RequestId, Flight>,
    /// Ended by the backend, in order.
    ended: Vec<(RequestId, Ended)>,
    /// Had all the tokens that our side wants.
    cancelled: Vec<RequestId>,
    /// Emptied lists, for their memory.
    spare: Vec<Vec<GapRun>>,
    steps: Steps,
}

impl Flights {
    /// Has a request ride no more, if it does.
    fn alight<R>(&mut self, id: RequestId, lanes: &mut [Lane<'_, R>]) {
        if let Some(flight) = self.live.get_mut(&id)
            && flight.alight(&self.steps)
        {
            let recipe = &flight.start.recipe;
            lanes[recipe.lane as usize].riding -= u32::from(recipe.phase == Phase::Measured);
        }
    }
}

/// What the backend talks to.
struct Hearing<'a, 'p, R> {
    flights: &'a mut Flights,
    clock: &'a Timeline,
    lanes: &'a mut [Lane<'p, R>],
    heard: bool,
}

impl<R> Sink for Hearing<'_, '_, R> {
    fn tokens(&mut self, id: RequestId, at: Ns, gap: Ns, count: u32) {
        self.heard = true;
        // On the real clock they are all heard of at once, whatever the backend says of their gaps.
        let gap = if matches!(self.clock, Timeline::Virtual(_)) { gap } else { 0 };
        let Some(flight) = self.flights.live.get_mut(&id) else { return };
        if count == 0 || flight.is_cancelled() {
            return;
        }
        flight.on_tokens(self.clock.stamp(at), gap, count);
        if flight.is_cancelled() {
            self.flights.cancelled.push(id);
        }
    }

    fn scheduled(&mut self, id: RequestId, at: Ns) {
        // When a request leaves the queue only the engine sees: its own time holds, not when it was heard of.
        if let Some(flight) = self.flights.live.get_mut(&id) {
            flight.on_scheduled(at);
        }
    }

    fn usage(&mut self, id: RequestId, output_tokens: u32) {
        if let Some(flight) = self.flights.live.get_mut(&id) {
            flight.on_usage(output_tokens);
        }
    }

    fn finished(&mut self, id: RequestId, at: Ns, end: Finish) {
        self.heard = true;
        self.flights.alight(id, self.lanes);
        self.flights.ended.push((id, Ended::told(self.clock.stamp(at), end)));
    }

    fn step(&mut self, at: Ns, gap: Ns) {
        self.flights.steps.push(at, gap);
        if self.flights.steps.is_full() {
            let boarded = self.flights.live.values().filter_map(Flight::boarded);
            let oldest = boarded.min().unwrap_or_else(|| self.flights.steps.count());
            self.flights.steps.forget(oldest);
        }
        for lane in self.lanes.iter_mut().filter(|lane| lane.riding > 0) {
            lane.observer.on_step(gap, lane.riding);
        }
    }

    fn board(&mut self, id: RequestId) {
        if let Some(flight) = self.flights.live.get_mut(&id) {
            flight.board(&self.flights.steps);
            let recipe = &flight.start.recipe;
            self.lanes[recipe.lane as usize].riding += u32::from(recipe.phase == Phase::Measured);
        }
    }

    fn alight(&mut self, id: RequestId) {
        self.flights.alight(id, self.lanes);
    }
}

/// How often a backend is let go on before the run looks up again.
const GLIDE: u32 = 10_000;

struct Player<'a, 'p, R> {
    lanes: Vec<Lane<'p, R>>,
    backend: &'a mut dyn Stepped,
    clock: Timeline,
    flights: Flights,
    next_id: RequestId,
    processor: Option<Watched>,
    is_measuring: bool,
    measured_in_flight: u32,
    max_in_flight: u32,
}

impl<'p, R: Recipes> Player<'_, 'p, R> {
    fn run(mut self, stop: &Stop) -> Result<GroupPlayed, RunError> {
        let ending = loop {
            if let Some(signal) = stop.requested() {
                break Ending::Interrupted(signal);
            }
            let now = self.clock.now();
            self.hear(now)?;
            self.time_out(now);
            for at in 0..self.lanes.len() {
                if self.lanes[at].cut_off_at().is_some_and(|total| now >= total) {
                    self.cut_off(at, &Ending::TimedOut);
                }
            }
            end_followers(&mut self.lanes, now);
            self.send(now)?;
            if let Some(reason) = self.lanes.iter_mut().find_map(Lane::take_abort) {
                break Ending::Aborted(reason);
            }
            let deadlines = self.lanes.iter().filter_map(|lane| lane.deadlines.front());
            let deadline = deadlines.map(|(at, _)| *at).min();
            let total = self.lanes.iter().filter_map(Lane::cut_off_at).min().unwrap_or(Ns::MAX);
            let due = self.lanes.iter().filter_map(Lane::next_due).min();
            let own = due.into_iter().chain(deadline).min().unwrap_or(Ns::MAX).min(total);
            let is_done = due.is_none() && self.flights.live.is_empty();
            match self.backend_event() {
                _ if is_done => break Ending::Complete,
                Some(at) if at < own => self.glide(at, own, stop),
                None if own == Ns::MAX => break Ending::Complete,
                _ => self.wait(own, stop),
            }
        };
        for at in 0..self.lanes.len() {
            // Of several, one that is over is complete.
            if self.lanes.len() == 1 || !self.lanes[at].is_done() {
                self.cut_off(at, &ending);
            }
        }
        let now = self.clock.now();
        let processor = self.processor.as_ref().and_then(Watched::end);
        let (lanes, most) = (&self.lanes, self.max_in_flight);
        let end = lanes.iter().map(|lane| lane.measure_end(now)).max().unwrap_or(now);
        let stats = self.backend.stats(now.max(end));
        Ok(group_played(lanes, now, Counted { max_in_flight: most, stats, processor }))
    }

    /// Waits until `deadline`, or for a shorter time: on the real clock until something happens in the backend.
    fn wait(&mut self, deadline: Ns, stop: &Stop) {
        let heard = self.clock.longest_wait(deadline).is_some_and(|most| self.backend.wait(most));
        if !heard {
            self.clock.wait(deadline, stop);
        }
    }

    /// The backend's next event, as long as somebody waits for an answer.
    fn backend_event(&self) -> Option<Ns> {
        self.backend.next_event().filter(|_| !self.flights.live.is_empty())
    }

    /// Waits for the backend's next event, at `at`. In virtual time the backend goes on alone until something is heard by
    /// name, as long as it is before `end`: until then nothing else can happen.
    fn glide(&mut self, at: Ns, end: Ns, stop: &Stop) {
        self.clock.wait(at, stop);
        let Timeline::Virtual(_) = self.clock else { return };
        for _ in 0..GLIDE {
            let (backend, mut hearing) = self.hearing();
            let Some(at) = backend.glide(end, &mut hearing) else { return };
            let heard = hearing.heard;
            self.clock.wait(at, stop);
            if heard {
                self.close_ended();
                self.close_cancelled(at);
            }
            if heard || stop.requested().is_some() {
                return;
            }
        }
    }

    /// The backend, and what it talks to.
    fn hearing(&mut self) -> (&mut dyn Stepped, Hearing<'_, 'p, R>) {
        let Self { flights, clock, lanes, backend, .. } = self;
        (&mut **backend, Hearing { flights, clock, lanes, heard: false })
    }

    /// Has the backend play everything up to `at`. Whether a request heard something by name.
    fn advance(&mut self, at: Ns) -> bool {
        let (backend, mut hearing) = self.hearing();
        backend.advance(at, &mut hearing);
        hearing.heard
    }

    /// Plays the backend up to `now`, instant by instant, so that cancelling takes effect at its own time.
    fn hear(&mut self, now: Ns) -> Result<(), RunError> {
        let (mut idle, mut last) = (0, None);
        while let Some(at) = self.backend.next_event().filter(|at| *at <= now) {
            idle = if self.advance(at) || last != Some(at) { 0 } else { idle + 1 };
            last = Some(at);
            if idle >= IDLE_STEPS {
                return Err(RunError::StandsStill { at: Duration(at) });
            }
            self.close_ended();
            self.close_cancelled(at);
        }
        Ok(())
    }

    fn close_ended(&mut self) {
        let mut ended = std::mem::take(&mut self.flights.ended);
        for (id, ended) in ended.drain(..) {
            self.close(id, ended);
        }
        self.flights.ended = ended;
    }

    fn close_cancelled(&mut self, at: Ns) {
        while let Some(id) = self.flights.cancelled.pop() {
            if self.flights.live.contains_key(&id) {
                self.backend.cancel(id, at);
                self.close(id, Ended::here(self.clock.stamp(at), Outcome::Cancelled, None));
            }
        }
    }

    /// Ends what is in flight too long.
    fn time_out(&mut self, now: Ns) {
        for at in 0..self.lanes.len() {
            while let Some((deadline, id)) = self.lanes[at].deadlines.front().copied() {
                let live = self.flights.live.contains_key(&id);
                if live && deadline > now {
                    break;
                }
                self.lanes[at].deadlines.pop_front();
                if live {
                    self.backend.cancel(id, now);
                    let message = format!("no complete answer within {}", Duration(self.lanes[at].timeout()));
                    let ended = Ended::here(self.clock.stamp(now), Outcome::TimedOut, Some(message.into()));
                    self.close(id, ended);
                }
            }
            // One long request must not keep the entries of all that ended behind it.
            let deadlines = &mut self.lanes[at].deadlines;
            if deadlines.len() > 64 + 2 * self.flights.live.len() {
                let live = &self.flights.live;
                deadlines.retain(|(_, id)| live.contains_key(id));
            }
        }
    }

    /// Sends what is due by `now`.
    fn send(&mut self, now: Ns) -> Result<(), RunError> {
        loop {
            let stamp = self.clock.stamp(now);
            let start = next_start(&mut self.lanes, now);
            for lane in &mut self.lanes {
                if lane.begins_to_measure() && !self.is_measuring {
                    self.is_measuring = true;
                    self.backend.start_measuring(now);
                }
                lane.take_unsent(stamp);
            }
            let Some(start) = start else { return Ok(()) };
            let sent = self.clock.now();
            if sent > now {
                self.hear(sent)?;
            }
            self.submit(start, sent);
        }
    }

    fn submit(&mut self, mut start: Start, sent: Ns) {
        let lane = &mut self.lanes[start.recipe.lane as usize];
        let at = self.clock.stamp(sent);
        let again = start.tried.as_ref().map(|tried| tried.deadline);
        if let Some(record) = unmade(&start, at).or_else(|| lane.begin(&mut start, at)) {
            lane.hand_over(&record, &[]);
            lane.on_finished(&start, sent, record.outcome, sent);
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        match again {
            None => lane.deadlines.push_back((sent.saturating_add(lane.timeout()), id)),
            Some(deadline) => {
                let at = lane.deadlines.partition_point(|(other, _)| *other <= deadline);
                lane.deadlines.insert(at, (deadline, id));
            }
        }
        self.backend.submit(id, &start.recipe, sent);
        if start.recipe.phase == Phase::Measured && again.is_none() {
            self.measured_in_flight += 1;
            self.max_in_flight = self.max_in_flight.max(self.measured_in_flight);
        }
        let gaps = self.flights.spare.pop().unwrap_or_default();
        self.flights.live.insert(id, Flight::new(start, sent, gaps));
    }

    /// Makes a request's record, and tells the load.
    fn close(&mut self, id: RequestId, ended: Ended) {
        let at = ended.at;
        if self.is_tried_again(id, &ended) {
            return;
        }
        let Some((start, sent, outcome)) = self.record(id, ended) else { return };
        self.lanes[start.recipe.lane as usize].on_finished(&start, sent, outcome, at);
    }

    /// Puts a request aside that failed and is sent again later.
    fn is_tried_again(&mut self, id: RequestId, ended: &Ended) -> bool {
        let Some(flight) = self.flights.live.get(&id) else { return false };
        let (lane, failed) = (flight.start.recipe.lane as usize, flight.failed(ended));
        let Some(at) = self.lanes[lane].retry_at(&flight.start, &failed) else { return false };
        self.flights.alight(id, &mut self.lanes);
        if let Some(flight) = self.flights.live.remove(&id) {
            let (start, gaps) = flight.give_back();
            self.flights.spare.push(gaps);
            self.lanes[lane].retry(start, &failed, at);
        }
        true
    }

    fn record(&mut self, id: RequestId, mut ended: Ended) -> Option<(Start, Ns, Outcome)> {
        self.flights.alight(id, &mut self.lanes);
        let flight = self.flights.live.remove(&id)?;
        let sent = flight.sent;
        let response = ended.response.take();
        let (mut record, mut gaps, start) = flight.close(ended);
        if record.phase == Phase::Measured {
            self.measured_in_flight -= 1;
        }
        self.lanes[start.recipe.lane as usize].close(&start.recipe, &mut record, &gaps, response);
        gaps.clear();
        self.flights.spare.push(gaps);
        Some((start, sent, record.outcome))
    }

    /// Ends what is in flight of one part, and records what was due and not sent.
    fn cut_off(&mut self, at: usize, ending: &Ending) {
        let now = self.clock.now();
        let Some(how) = self.lanes[at].cut_off(ending) else { return };
        let own = self.flights.live.iter().filter(|(_, flight)| flight.start.recipe.lane as usize == at);
        let mut ids: Vec<RequestId> = own.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        for id in ids {
            self.backend.cancel(id, now);
            self.record(id, Ended::here(now, how.0, Some(how.2.into())));
        }
        while let Some((start, sent)) = self.lanes[at].give_up_retry() {
            // It counts as in flight, though no engine has it.
            let id = self.next_id;
            self.next_id += 1;
            self.flights.live.insert(id, Flight::new(start, sent, Vec::new()));
            self.record(id, Ended::here(now, how.0, Some(how.2.into())));
        }
        let due = self.lanes[at].stop(now);
        self.lanes[at].record_waiting(due, how, now);
    }
}

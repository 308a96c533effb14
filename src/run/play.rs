//! The driver: interleaves load, backend and timeouts, on either clock.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::checker::{Checker, unmade};
use super::clock::{Pace, Timeline};
use super::conversation::Conversations;
use super::flight::{Ended, Flight, unsent};
use super::load::{Load, Start};
use super::processor::Watched;
use super::steps::Steps;
use super::{Ending, Flow, Observer, Played, Recipes, Resume, RunError, Stop};
use crate::backend::{Finish, RequestId, Sink, Stepped};
use crate::plan::WorkloadPlan;
use crate::record::{GapRun, Outcome, Phase, Record};
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
    if pace == Pace::Virtual && observer.pools_gaps() {
        backend.fold_steps();
    }
    let checker = Checker::new(plan);
    if checker.looks() || plan.has_history() {
        backend.keep_responses();
    }
    let player = Player {
        timeout: plan.timeout,
        checker,
        load: Load::new(plan, recipes, resume),
        backend,
        clock: Timeline::start(pace),
        observer,
        abort: None,
        flights: Flights::default(),
        conversations: Conversations::new(plan),
        deadlines: VecDeque::new(),
        next_id: 0,
        processor: if pace == Pace::Virtual { None } else { Watched::start(&[]) },
        measuring: None,
        measured_end: 0,
        measured_in_flight: 0,
        max_in_flight: 0,
    };
    player.run(stop, plan.total_timeout)
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
    /// Measured requests that ride.
    riding: u32,
}

impl Flights {
    /// Has a request ride no more, if it does.
    fn alight(&mut self, id: RequestId) {
        if let Some(flight) = self.live.get_mut(&id)
            && flight.alight(&self.steps)
        {
            self.riding -= u32::from(flight.start.recipe.phase == Phase::Measured);
        }
    }
}

/// What the backend talks to.
struct Hearing<'a> {
    flights: &'a mut Flights,
    clock: &'a Timeline,
    observer: &'a mut dyn Observer,
    heard: bool,
}

impl Sink for Hearing<'_> {
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
        let at = self.clock.stamp(at);
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
        self.flights.alight(id);
        self.flights.ended.push((id, Ended::told(self.clock.stamp(at), end)));
    }

    fn step(&mut self, at: Ns, gap: Ns) {
        self.flights.steps.push(at, gap);
        if self.flights.steps.is_full() {
            let boarded = self.flights.live.values().filter_map(Flight::boarded);
            let oldest = boarded.min().unwrap_or_else(|| self.flights.steps.count());
            self.flights.steps.forget(oldest);
        }
        if self.flights.riding > 0 {
            self.observer.on_step(gap, self.flights.riding);
        }
    }

    fn board(&mut self, id: RequestId) {
        if let Some(flight) = self.flights.live.get_mut(&id) {
            flight.board(&self.flights.steps);
            self.flights.riding += u32::from(flight.start.recipe.phase == Phase::Measured);
        }
    }

    fn alight(&mut self, id: RequestId) {
        self.flights.alight(id);
    }
}

/// How many half steps a backend is let go on before the run looks up again.
const GLIDE: u32 = 10_000;

struct Player<'a, R> {
    timeout: Ns,
    checker: Checker<'a>,
    load: Load<'a, R>,
    backend: &'a mut dyn Stepped,
    clock: Timeline,
    observer: &'a mut dyn Observer,
    abort: Option<String>,
    flights: Flights,
    conversations: Conversations<'a>,
    /// When requests time out, in order; entries of ended ones are passed over.
    deadlines: VecDeque<(Ns, RequestId)>,
    next_id: RequestId,
    processor: Option<Watched>,
    measuring: Option<Ns>,
    measured_end: Ns,
    measured_in_flight: u32,
    max_in_flight: u32,
}

impl<R: Recipes> Player<'_, R> {
    fn run(mut self, stop: &Stop, total_timeout: Option<Ns>) -> Result<Played, RunError> {
        let ending = loop {
            if let Some(signal) = stop.requested() {
                break Ending::Interrupted(signal);
            }
            let now = self.clock.now();
            self.hear(now)?;
            self.time_out(now);
            if total_timeout.is_some_and(|total| now >= total) && !self.is_done() {
                break Ending::TimedOut;
            }
            self.send(now)?;
            if let Some(reason) = self.abort.take() {
                break Ending::Aborted(reason);
            }
            let deadline = self.deadlines.front().map(|(at, _)| *at);
            let total = total_timeout.unwrap_or(Ns::MAX);
            let due = self.load.next_due();
            let own = due.into_iter().chain(deadline).min().unwrap_or(Ns::MAX).min(total);
            let is_done = due.is_none() && self.flights.live.is_empty();
            match self.backend_event() {
                _ if is_done => break Ending::Complete,
                Some(at) if at < own => self.glide(at, own, stop),
                None if own == Ns::MAX => break Ending::Complete,
                _ => self.wait(own, stop),
            }
        };
        self.cut_off(&ending);
        let now = self.clock.now();
        let measure_start = self.measuring.unwrap_or(now);
        let mut measure_end = self.measured_end.max(measure_start);
        if ending == Ending::Complete && self.measuring.is_some() {
            measure_end = measure_end.max(self.load.ended_by_time().unwrap_or(0));
        }
        let stats = self.backend.stats(now.max(measure_end));
        let processor = self.processor.as_ref().and_then(Watched::end);
        let max_in_flight = self.max_in_flight;
        Ok(Played { measure_start, measure_end, max_in_flight, stats, processor, ending })
    }

    /// Waits until `deadline`, or for a shorter time: on the real clock until something happens in the backend.
    fn wait(&mut self, deadline: Ns, stop: &Stop) {
        let heard = self.clock.longest_wait(deadline).is_some_and(|most| self.backend.wait(most));
        if !heard {
            self.clock.wait(deadline, stop);
        }
    }

    fn is_done(&self) -> bool {
        self.flights.live.is_empty() && self.load.next_due().is_none()
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
            let Some(at) = self.backend.next_event().filter(|at| *at < end) else { return };
            self.clock.wait(at, stop);
            if self.advance(at) {
                self.close_ended();
                self.close_cancelled(at);
                return;
            }
        }
    }

    /// Has the backend play everything up to `at`. Whether a request heard something by name.
    fn advance(&mut self, at: Ns) -> bool {
        let mut hearing = Hearing {
            flights: &mut self.flights,
            clock: &self.clock,
            observer: &mut *self.observer,
            heard: false,
        };
        self.backend.advance(at, &mut hearing);
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
        while let Some((deadline, id)) = self.deadlines.front().copied() {
            let live = self.flights.live.contains_key(&id);
            if live && deadline > now {
                break;
            }
            self.deadlines.pop_front();
            if live {
                self.backend.cancel(id, now);
                let message = format!("no complete answer within {}", Duration(self.timeout));
                let ended = Ended::here(self.clock.stamp(now), Outcome::TimedOut, Some(message.into()));
                self.close(id, ended);
            }
        }
        // One long request must not keep the entries of all that ended behind it.
        if self.deadlines.len() > 64 + 2 * self.flights.live.len() {
            let live = &self.flights.live;
            self.deadlines.retain(|(_, id)| live.contains_key(id));
        }
    }

    /// Sends what is due by `now`.
    fn send(&mut self, now: Ns) -> Result<(), RunError> {
        loop {
            let start = if self.abort.is_some() { None } else { self.load.poll(now) };
            if self.measuring.is_none()
                && let Some(at) = self.load.measuring()
            {
                self.measuring = Some(at);
                self.backend.start_measuring(now);
            }
            while let Some(unsent_one) = self.load.take_unsent() {
                let mut record = unsent(&unsent_one.recipe, unsent_one.due, self.clock.stamp(now));
                record.outcome = Outcome::Skipped;
                record.message = Some(unsent_one.reason.into());
                self.hand_over(&record, &[]);
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
        let at = self.clock.stamp(sent);
        if let Some(record) = unmade(&start, at).or_else(|| self.conversations.fill(&mut start, at)) {
            self.hand_over(&record, &[]);
            self.load.on_finished(&start, sent, record.outcome, sent);
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.backend.submit(id, &start.recipe, sent);
        if start.recipe.phase == Phase::Measured {
            self.measured_in_flight += 1;
            self.max_in_flight = self.max_in_flight.max(self.measured_in_flight);
        }
        self.deadlines.push_back((sent.saturating_add(self.timeout), id));
        let gaps = self.flights.spare.pop().unwrap_or_default();
        self.flights.live.insert(id, Flight::new(start, sent, gaps));
    }

    /// Makes a request's record, and tells the load.
    fn close(&mut self, id: RequestId, ended: Ended) {
        let at = ended.at;
        let Some((start, sent, outcome)) = self.record(id, ended) else { return };
        self.load.on_finished(&start, sent, outcome, at);
    }

    fn record(&mut self, id: RequestId, mut ended: Ended) -> Option<(Start, Ns, Outcome)> {
        self.flights.alight(id);
        let flight = self.flights.live.remove(&id)?;
        let sent = flight.sent;
        let response = ended.response.take();
        let text = response.as_ref().map(|response| response.text.as_str().into());
        let (mut record, mut gaps, start) = flight.close(ended);
        self.checker.check(&start.recipe, &mut record, response);
        if record.phase == Phase::Measured {
            self.measured_in_flight -= 1;
        }
        self.conversations.hear(&start.recipe, record.output_tokens, text, record.outcome.releases());
        self.hand_over(&record, &gaps);
        gaps.clear();
        self.flights.spare.push(gaps);
        Some((start, sent, record.outcome))
    }

    fn hand_over(&mut self, record: &Record, gaps: &[GapRun]) {
        if record.phase == Phase::Measured {
            self.measured_end = self.measured_end.max(record.end);
        }
        if let Flow::Abort(reason) = self.observer.on_record(record, gaps) {
            self.abort.get_or_insert(reason);
        }
    }

    /// Ends what is in flight, and records what was due and not sent.
    fn cut_off(&mut self, ending: &Ending) {
        let now = self.clock.now();
        let (flying, waiting, message) = match ending {
            Ending::Complete => return,
            Ending::TimedOut => (Outcome::TimedOut, Outcome::Skipped, "cut off by `total_timeout`"),
            Ending::Aborted(_) => (Outcome::Interrupted, Outcome::Interrupted, "the run was aborted"),
            Ending::Interrupted(_) => (Outcome::Interrupted, Outcome::Interrupted, "the run was interrupted"),
        };
        let mut ids: Vec<RequestId> = self.flights.live.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.backend.cancel(id, now);
            self.record(id, Ended::here(now, flying, Some(message.into())));
        }
        for (due, recipe) in self.load.stop(now) {
            let mut record = unsent(&recipe, due, now);
            (record.outcome, record.message) = (waiting, Some(message.into()));
            self.hand_over(&record, &[]);
        }
    }
}

//! The driver of servers: interleaves load and answers in real time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::checker::unmade;
use super::clock::PreciseTimers;
use super::flight::{hold_to_length, sent_record, unsent};
use super::lane::{Counted, GroupPlayed, Lane, Part, end_followers, group_played, next_start};
use super::load::Start;
use super::processor::Watched;
use super::retry::Failed;
use super::{Ending, Observer, Played, Recipes, Resume, RunError, Stop};
use crate::backend::{Answer, Live, Render, RequestId};
use crate::plan::{Recipe, WorkloadPlan};
use crate::record::{Attempt, Outcome, Phase, Record, Response, TokenTimes};
use crate::units::{MILLISECOND, Ns, SECOND};

/// The longest sleep before a run looks whether it is asked to stop.
const LONGEST_SLEEP: Ns = 50 * MILLISECOND;
/// How long before they are due requests are handed to the threads that send them, so that they leave in time whenever this
/// one wakes up.
const HEAD_START: Ns = 2 * MILLISECOND;
/// Requests that are made ready ahead of the load.
const AHEAD: usize = 256;
/// Their prompt tokens together, beyond the first one.
const TOKENS_AHEAD: u64 = 1 << 20;
/// How long answers of requests that were given up are waited for.
const LAST_WORDS: Ns = 5 * SECOND;

/// Plays one cell on a server: every request that is due gets exactly one record, also when the run is cut off.
///
/// The calling thread sleeps until the next request is almost due or an answer is there. Sending, reading and stamping happen
/// on the server's own threads; a request's `sent` is when its first byte was about to be written.
///
/// When `stop` or `observer` asks for it, nothing new starts and what is in flight ends as [`Outcome::Interrupted`].
///
/// # Errors
/// When a thread of the client died.
pub fn play_live(
    plan: &WorkloadPlan,
    recipes: impl Recipes,
    live: &mut dyn Live,
    stop: &Stop,
    observer: &mut dyn Observer,
    resume: &Resume,
) -> Result<Played, RunError> {
    let part = Part { plan, recipes, observer, resume, start: 0, until: None };
    play_group_live(vec![part], live, stop).map(|played| played.whole)
}

/// Plays several workloads on one server and one timeline, as [`play_group`](super::play_group) does.
///
/// # Errors
/// As [`play_live`].
pub fn play_group_live<R: Recipes>(
    parts: Vec<Part<'_, R>>,
    live: &mut dyn Live,
    stop: &Stop,
) -> Result<GroupPlayed, RunError> {
    let looks = parts.iter().any(|part| part.plan.checks.is_some() || part.plan.has_history());
    let plans: Vec<&WorkloadPlan> = parts.iter().map(|part| part.plan).collect();
    live.begin(&plans, looks);
    let render = live.renderer();
    let lanes = parts.into_iter().map(|part| {
        let asks = part.plan.hooked.as_ref().is_some_and(|hooked| hooked.makes_turns());
        let recipes = Ahead::new(part.recipes, Arc::clone(&render), part.resume, asks);
        let Part { plan, observer, resume, start, until, .. } = part;
        Lane::new(Part { plan, recipes, observer, resume, start, until }).ahead(HEAD_START)
    });
    let lanes = lanes.collect();
    render.settle();
    let _timers = PreciseTimers::new();
    let processor = Watched::start(&live.threads());
    let t0 = Instant::now();
    live.start(t0);
    let player = LivePlayer {
        lanes,
        live,
        t0,
        flying: FxHashMap::default(),
        next_id: 0,
        processor,
        is_measuring: false,
        measured_in_flight: 0,
        max_in_flight: 0,
    };
    player.run(stop)
}

/// Recipes, some of them taken early so that their requests can be made ready.
struct Ahead<'a, R> {
    inner: R,
    taken: VecDeque<Recipe>,
    tokens: u64,
    render: Arc<dyn Render>,
    resume: &'a Resume,
    /// Whether a hook makes the turns of sessions when they are due.
    asks: bool,
}

impl<'a, R: Recipes> Ahead<'a, R> {
    fn new(inner: R, render: Arc<dyn Render>, resume: &'a Resume, asks: bool) -> Self {
        let mut ahead = Self { inner, taken: VecDeque::new(), tokens: 0, render, resume, asks };
        ahead.fill();
        ahead
    }

    fn fill(&mut self) {
        while self.taken.is_empty() || (self.taken.len() < AHEAD && self.tokens < TOKENS_AHEAD) {
            let Some(recipe) = self.inner.next() else { return };
            let made = recipe.failed.is_none();
            // A later turn's prompt is known when the turn before it was answered, one that a hook makes when it is due.
            let is_open = recipe.session.is_some_and(|session| session.turn > 1 || self.asks);
            if made && !is_open && !self.resume.finished.contains(&(recipe.phase, recipe.index)) {
                self.render.ahead(&recipe);
            }
            self.tokens += u64::from(recipe.prompt.tokens());
            self.taken.push_back(recipe);
        }
    }
}

impl<R: Recipes> Iterator for Ahead<'_, R> {
    type Item = Recipe;

    fn next(&mut self) -> Option<Recipe> {
        let next = self.taken.pop_front();
        if let Some(recipe) = &next {
            self.tokens -= u64::from(recipe.prompt.tokens());
        }
        self.fill();
        next
    }
}

impl<R: Recipes> Recipes for Ahead<'_, R> {
    fn start_measuring(&mut self) {
        // A warm-up that time ends has its recipes first, and the measured ones only after this call.
        self.taken.retain(|recipe| recipe.phase == Phase::Measured);
        self.tokens = self.taken.iter().map(|recipe| u64::from(recipe.prompt.tokens())).sum();
        self.inner.start_measuring();
    }
}

struct LivePlayer<'a, 'p, R> {
    lanes: Vec<Lane<'p, R>>,
    live: &'a mut dyn Live,
    t0: Instant,
    flying: FxHashMap<RequestId, Start>,
    next_id: RequestId,
    processor: Option<Watched>,
    is_measuring: bool,
    measured_in_flight: u32,
    max_in_flight: u32,
}

impl<R: Recipes> LivePlayer<'_, '_, R> {
    fn run(mut self, stop: &Stop) -> Result<GroupPlayed, RunError> {
        let ending = loop {
            if let Some(signal) = stop.requested() {
                break Ending::Interrupted(signal);
            }
            while let Some(answer) = self.hear(0)? {
                self.close(answer, None);
            }
            let now = self.now();
            for at in 0..self.lanes.len() {
                if self.lanes[at].cut_off_at().is_some_and(|total| now >= total) {
                    self.cut_off(at, &Ending::TimedOut)?;
                }
            }
            end_followers(&mut self.lanes, now);
            self.send(now);
            if let Some(reason) = self.lanes.iter_mut().find_map(Lane::take_abort) {
                break Ending::Aborted(reason);
            }
            if self.is_done() {
                break Ending::Complete;
            }
            let own = self.lanes.iter().flat_map(|lane| [lane.next_due(), lane.cut_off_at()]);
            let wakes = own.chain([Some(now.saturating_add(LONGEST_SLEEP))]);
            let until = wakes.flatten().min().unwrap_or(now);
            if let Some(answer) = self.hear(until)? {
                self.close(answer, None);
            }
        };
        for at in 0..self.lanes.len() {
            // Of several, one that is over is complete.
            if self.lanes.len() == 1 || !self.lanes[at].is_done() {
                self.cut_off(at, &ending)?;
            }
        }
        let now = self.now();
        // The threads still live: looked at before the server is asked for its last words.
        let processor = self.processor.as_ref().and_then(Watched::end);
        let (stats, max_in_flight) = (self.live.finish(), self.max_in_flight);
        Ok(group_played(&self.lanes, now, Counted { max_in_flight, stats, processor }))
    }

    fn now(&self) -> Ns {
        self.t0.elapsed().as_nanos() as Ns
    }

    fn hear(&mut self, until: Ns) -> Result<Option<Answer>, RunError> {
        self.live.next(until).map_err(RunError::ClientDied)
    }

    fn is_done(&self) -> bool {
        self.lanes.iter().all(Lane::is_done)
    }

    /// Hands over what is to be sent by `now` or soon after.
    fn send(&mut self, now: Ns) {
        loop {
            let start = next_start(&mut self.lanes, now);
            for lane in &mut self.lanes {
                if lane.begins_to_measure() && !self.is_measuring {
                    self.is_measuring = true;
                    self.live.start_measuring(lane.measuring().unwrap_or(now));
                }
                lane.take_unsent(now);
            }
            let Some(mut start) = start else { return };
            let lane = &mut self.lanes[start.recipe.lane as usize];
            // One that is sent again was due before.
            let (again, at) = (start.tried.as_ref().map(|tried| tried.deadline), start.due.max(now));
            if let Some(record) = unmade(&start, at).or_else(|| lane.begin(&mut start, at)) {
                lane.hand_over(&record, &[]);
                lane.on_finished(&start, at, record.outcome, at);
                continue;
            }
            let id = self.next_id;
            self.next_id += 1;
            let deadline = again.unwrap_or_else(|| {
                let sent = start.due.max(self.t0.elapsed().as_nanos() as Ns);
                sent.saturating_add(lane.timeout())
            });
            self.live.submit(id, &start.recipe, at, deadline);
            if start.recipe.phase == Phase::Measured && again.is_none() {
                self.measured_in_flight += 1;
                self.max_in_flight = self.max_in_flight.max(self.measured_in_flight);
            }
            self.flying.insert(id, start);
        }
    }

    /// Makes a request's record, and tells the load. `ended` is how our side ended it, if it did.
    fn close(&mut self, mut answer: Answer, ended: Option<(Outcome, &str)>) {
        let Some(start) = self.flying.remove(&answer.id) else { return };
        let failed = Failed {
            attempt: Attempt { sent: answer.sent, end: answer.closed, outcome: answer.outcome },
            has_tokens: answer.times.tokens > 0,
            retry_after: answer.retry_after,
        };
        let lane = &mut self.lanes[start.recipe.lane as usize];
        if let Some(at) = lane.retry_at(&start, &failed).filter(|_| ended.is_none()) {
            return lane.retry(start, &failed, at);
        }
        let mut record = sent_record(&start, answer.sent, answer.closed, &answer.times);
        record.connect = answer.connect;
        record.first_answer = answer.first_answer;
        record.prompt_tokens = answer.prompt_tokens.unwrap_or(record.prompt_tokens);
        record.token_source = answer.token_source;
        (record.outcome, record.message) = (answer.outcome, answer.message.take());
        if let (Outcome::Interrupted, Some((outcome, message))) = (record.outcome, ended) {
            (record.outcome, record.message) = (outcome, Some(message.into()));
        }
        hold_to_length(&mut record);
        let response = answer.response.take();
        self.keep(&start, record, answer.closed, &answer.times, response);
    }

    fn keep(
        &mut self,
        start: &Start,
        mut record: Record,
        at: Ns,
        times: &TokenTimes,
        response: Option<Box<Response>>,
    ) {
        if record.phase == Phase::Measured {
            self.measured_in_flight -= 1;
        }
        let lane = &mut self.lanes[start.recipe.lane as usize];
        lane.close(&start.recipe, &mut record, &times.gaps, response);
        lane.on_finished(start, record.sent.unwrap_or(at), record.outcome, at);
    }

    /// Ends what is in flight of one part, and records what was due and not sent.
    fn cut_off(&mut self, at: usize, ending: &Ending) -> Result<(), RunError> {
        let now = self.now();
        let Some(how) = self.lanes[at].cut_off(ending) else { return Ok(()) };
        // Nothing that ends from here on releases anything.
        let due = self.lanes[at].stop(now);
        let is_own = |start: &Start| start.recipe.lane as usize == at;
        for (id, _) in self.flying.iter().filter(|(_, start)| is_own(start)) {
            self.live.cancel(*id);
        }
        let patience = now.saturating_add(LAST_WORDS);
        while self.flying.values().any(is_own) {
            let Some(answer) = self.hear(patience)? else { break };
            let ended = self.flying.get(&answer.id).is_some_and(is_own).then_some((how.0, how.2));
            self.close(answer, ended);
        }
        let left = self.flying.iter().filter(|(_, start)| is_own(start)).map(|(id, _)| *id);
        let mut left: Vec<RequestId> = left.collect();
        left.sort_unstable();
        for id in left {
            let Some(start) = self.flying.remove(&id) else { continue };
            let at = self.now();
            let mut record = unsent(&start.recipe, start.due, at);
            (record.outcome, record.message) = (how.0, Some(how.2.into()));
            self.keep(&start, record, at, &TokenTimes::default(), None);
        }
        while let Some((start, sent)) = self.lanes[at].give_up_retry() {
            let mut record = sent_record(&start, sent, now, &TokenTimes::default());
            (record.outcome, record.message) = (how.0, Some(how.2.into()));
            self.keep(&start, record, now, &TokenTimes::default(), None);
        }
        self.lanes[at].record_waiting(due, how, now);
        Ok(())
    }
}

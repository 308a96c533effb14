//! The driver of servers: interleaves load and answers in real time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::checker::{Checker, unmade};
use super::clock::PreciseTimers;
use super::conversation::Conversations;
use super::flight::{hold_to_length, sent_record, unsent};
use super::load::{Load, Start};
use super::processor::Watched;
use super::{Ending, Flow, Observer, Played, Recipes, Resume, RunError, Stop};
use crate::backend::{Answer, Live, Render, RequestId};
use crate::plan::{Recipe, WorkloadPlan};
use crate::record::{GapRun, Outcome, Phase, Record, TokenTimes};
use crate::units::{MILLISECOND, Ns, SECOND};

/// The longest sleep before a run looks whether it is asked to stop.
const LONGEST_SLEEP: Ns = 50 * MILLISECOND;
/// Requests that are made ready ahead of the load.
const AHEAD: usize = 256;
/// Their prompt tokens together, beyond the first one.
const TOKENS_AHEAD: u64 = 1 << 20;
/// How long answers of requests that were given up are waited for.
const LAST_WORDS: Ns = 5 * SECOND;

/// Plays one cell on a server: every request that is due gets exactly one record, also when the run is cut off.
///
/// The calling thread sleeps until the next request is due or an answer is there. Sending, reading and stamping happen on
/// the server's own threads; a request's `sent` is when its first byte was about to be written.
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
    let checker = Checker::new(plan);
    live.begin(plan, checker.looks() || plan.has_history());
    let render = live.renderer();
    let asks = plan.hooked.as_ref().is_some_and(|hooked| hooked.makes_turns());
    let recipes = Ahead::new(recipes, Arc::clone(&render), resume, asks);
    let load = Load::new(plan, recipes, resume);
    render.settle();
    let _timers = PreciseTimers::new();
    let processor = Watched::start(&live.threads());
    let t0 = Instant::now();
    live.start(t0);
    let player = LivePlayer {
        timeout: plan.timeout,
        checker,
        load,
        live,
        t0,
        observer,
        abort: None,
        flying: FxHashMap::default(),
        conversations: Conversations::new(plan),
        next_id: 0,
        processor,
        measuring: None,
        measured_end: 0,
        measured_in_flight: 0,
        max_in_flight: 0,
    };
    player.run(stop, plan.total_timeout)
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

struct LivePlayer<'a, R> {
    timeout: Ns,
    checker: Checker<'a>,
    load: Load<'a, R>,
    live: &'a mut dyn Live,
    t0: Instant,
    observer: &'a mut dyn Observer,
    abort: Option<String>,
    flying: FxHashMap<RequestId, Start>,
    conversations: Conversations<'a>,
    next_id: RequestId,
    processor: Option<Watched>,
    measuring: Option<Ns>,
    measured_end: Ns,
    measured_in_flight: u32,
    max_in_flight: u32,
}

impl<R: Recipes> LivePlayer<'_, R> {
    fn run(mut self, stop: &Stop, total_timeout: Option<Ns>) -> Result<Played, RunError> {
        let ending = loop {
            if let Some(signal) = stop.requested() {
                break Ending::Interrupted(signal);
            }
            while let Some(answer) = self.hear(0)? {
                self.close(answer, None);
            }
            let now = self.now();
            if total_timeout.is_some_and(|total| now >= total) && !self.is_done() {
                break Ending::TimedOut;
            }
            self.send(now);
            if let Some(reason) = self.abort.take() {
                break Ending::Aborted(reason);
            }
            if self.is_done() {
                break Ending::Complete;
            }
            let wakes = [self.load.next_due(), total_timeout, Some(now.saturating_add(LONGEST_SLEEP))];
            let until = wakes.into_iter().flatten().min().unwrap_or(now);
            if let Some(answer) = self.hear(until)? {
                self.close(answer, None);
            }
        };
        self.cut_off(&ending)?;
        let now = self.now();
        let measure_start = self.measuring.unwrap_or(now);
        let mut measure_end = self.measured_end.max(measure_start);
        if ending == Ending::Complete && self.measuring.is_some() {
            measure_end = measure_end.max(self.load.ended_by_time().unwrap_or(0));
        }
        // The threads still live: looked at before the server is asked for its last words.
        let processor = self.processor.as_ref().and_then(Watched::end);
        let stats = self.live.finish();
        let max_in_flight = self.max_in_flight;
        Ok(Played { measure_start, measure_end, max_in_flight, stats, processor, ending })
    }

    fn now(&self) -> Ns {
        self.t0.elapsed().as_nanos() as Ns
    }

    fn hear(&mut self, until: Ns) -> Result<Option<Answer>, RunError> {
        self.live.next(until).map_err(RunError::ClientDied)
    }

    fn is_done(&self) -> bool {
        self.flying.is_empty() && self.load.next_due().is_none()
    }

    /// Sends what is due by `now`.
    fn send(&mut self, now: Ns) {
        loop {
            let start = if self.abort.is_some() { None } else { self.load.poll(now) };
            if self.measuring.is_none()
                && let Some(at) = self.load.measuring()
            {
                self.measuring = Some(at);
                self.live.start_measuring(at);
            }
            while let Some(one) = self.load.take_unsent() {
                let mut record = unsent(&one.recipe, one.due, now);
                record.outcome = Outcome::Skipped;
                record.message = Some(one.reason.into());
                self.hand_over(&record, &[]);
            }
            let Some(mut start) = start else { return };
            if let Some(record) = unmade(&start, now).or_else(|| self.conversations.fill(&mut start, now)) {
                self.hand_over(&record, &[]);
                self.load.on_finished(&start, now, record.outcome, now);
                continue;
            }
            let id = self.next_id;
            self.next_id += 1;
            self.live.submit(id, &start.recipe, self.now().saturating_add(self.timeout));
            if start.recipe.phase == Phase::Measured {
                self.measured_in_flight += 1;
                self.max_in_flight = self.max_in_flight.max(self.measured_in_flight);
            }
            self.flying.insert(id, start);
        }
    }

    /// Makes a request's record, and tells the load. `ended` is how our side ended it, if it did.
    fn close(&mut self, answer: Answer, ended: Option<(Outcome, &str)>) {
        let Some(start) = self.flying.remove(&answer.id) else { return };
        let mut record = sent_record(&start, answer.sent, answer.closed, &answer.times);
        record.connect = answer.connect;
        record.first_answer = answer.first_answer;
        record.prompt_tokens = answer.prompt_tokens.unwrap_or(record.prompt_tokens);
        record.token_source = answer.token_source;
        (record.outcome, record.message) = (answer.outcome, answer.message);
        if let (Outcome::Interrupted, Some((outcome, message))) = (record.outcome, ended) {
            (record.outcome, record.message) = (outcome, Some(message.into()));
        }
        hold_to_length(&mut record);
        let text = answer.response.as_ref().map(|response| response.text.as_str().into());
        self.checker.check(&start.recipe, &mut record, answer.response);
        self.conversations.hear(&start.recipe, record.output_tokens, text, record.outcome.releases());
        self.keep(&start, &record, answer.closed, &answer.times);
    }

    fn keep(&mut self, start: &Start, record: &Record, at: Ns, times: &TokenTimes) {
        if record.phase == Phase::Measured {
            self.measured_in_flight -= 1;
        }
        self.hand_over(record, &times.gaps);
        self.load.on_finished(start, record.sent.unwrap_or(at), record.outcome, at);
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
    fn cut_off(&mut self, ending: &Ending) -> Result<(), RunError> {
        let now = self.now();
        let (flying, waiting, message) = match ending {
            Ending::Complete => return Ok(()),
            Ending::TimedOut => (Outcome::TimedOut, Outcome::Skipped, "cut off by `total_timeout`"),
            Ending::Aborted(_) => (Outcome::Interrupted, Outcome::Interrupted, "the run was aborted"),
            Ending::Interrupted(_) => (Outcome::Interrupted, Outcome::Interrupted, "the run was interrupted"),
        };
        // Nothing that ends from here on releases anything.
        let due = self.load.stop(now);
        for id in self.flying.keys() {
            self.live.cancel(*id);
        }
        let patience = now.saturating_add(LAST_WORDS);
        while !self.flying.is_empty() {
            let Some(answer) = self.hear(patience)? else { break };
            self.close(answer, Some((flying, message)));
        }
        let mut left: Vec<(RequestId, Start)> = self.flying.drain().collect();
        left.sort_unstable_by_key(|(id, _)| *id);
        for (_, start) in left {
            let at = self.now();
            let mut record = unsent(&start.recipe, start.due, at);
            (record.outcome, record.message) = (flying, Some(message.into()));
            self.keep(&start, &record, at, &TokenTimes::default());
        }
        for (due, recipe) in due {
            let mut record = unsent(&recipe, due, now);
            (record.outcome, record.message) = (waiting, Some(message.into()));
            self.hand_over(&record, &[]);
        }
        Ok(())
    }
}

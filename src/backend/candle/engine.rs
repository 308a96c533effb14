//! The engine: the scheduler decides the steps, and a thread of its own computes them.
//!
//! A step begins when whoever drives the engine has nothing else to do ([`Stepped::wait`]), so that everything that was sent
//! by then is in it. It ends when the thread is done; what came out is told then, and the next step is decided.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::live::{Live, Stop, Tokens};
use super::lookup::{Reach, look_up};
use super::memory::Memory;
use super::prompt::Prompts;
use super::sampler::Choice;
use super::worker::{Ask, Done, Drafter, Forward, Job, Worker};
use super::{ChatTemplate, Row};
use crate::backend::config::Drafting;
use crate::backend::{Drawing, Ends, EngineStats, Finish, RequestId, Sink, Standing, Stepped};
use crate::engine::{Emission, KvCache, Limits, Request, Scheduled, Scheduler};
use crate::plan::{PromptRecipe, Recipe, Sampling};
use crate::record::{Outcome, Response, Turn};
use crate::tokenizer::Hf;
use crate::units::Ns;

/// What an engine is made of, beside what computes.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Bounds of a step; drafts are set from `speculative`.
    pub limits: Limits,
    /// The KV cache's bookkeeping.
    pub cache: KvCache,
    /// The model's tokenizer.
    pub tokenizer: Arc<Hf>,
    /// Its chat template, for conversations of given texts.
    pub template: Option<Arc<ChatTemplate>>,
    /// The longest context.
    pub context: u32,
    /// Tokens that end an answer whose length is not forced.
    pub end_tokens: Vec<u32>,
    /// Bytes of keys and values per token.
    pub bytes_per_token: u64,
    /// Where drafts come from.
    pub speculative: Option<Drafting>,
    /// How answers are chosen and where they end; without a temperature, the most likely token is.
    /// For each workload that it serves, in the order of [`Recipe::lane`].
    pub sampling: Vec<Sampling>,
}

/// One cell's engine: a cold cache, nothing in flight.
#[derive(Debug)]
pub struct Engine {
    parts: Settings,
    pub(super) scheduler: Scheduler<Tokens>,
    worker: Worker,
    live: FxHashMap<RequestId, Live>,
    prompts: Prompts,
    /// Requests whose prompts are not looked at yet.
    inbox: VecDeque<(RequestId, Recipe)>,
    /// How the answers to some of them are chosen.
    drawings: FxHashMap<RequestId, Drawing>,
    /// Requests that left the queue, and when, not yet told.
    scheduled: Vec<(RequestId, Ns)>,
    /// The sequences of the step in flight.
    batch: Vec<Scheduled>,
    /// The step's memory, while none is in flight.
    spare: Option<Box<Job>>,
    /// A step that is done and not yet told.
    done: Option<Done>,
    /// Requests that ended without a step.
    ends: Vec<(RequestId, Finish)>,
    emissions: Vec<Emission>,
    keeps_responses: bool,
    now: Ns,
    /// When the machine's clock said so.
    heard: Instant,
    memory: Memory,
    kv_used: u64,
    /// What eviction had taken when measuring started.
    evict_before: Ns,
}

/// What stays the same over the requests of an engine.
#[derive(Debug)]
struct Settings {
    tokenizer: Arc<Hf>,
    context: u32,
    end_tokens: Vec<u32>,
    bytes_per_token: u64,
    drafting: Option<Drafting>,
    sampling: Vec<Sampling>,
    /// What ends the answers of each workload.
    ends: Vec<Arc<Ends>>,
}

impl Engine {
    /// An engine that computes by `forward`, whose blocks are those of `parts.cache`. The drafter is there where drafts come
    /// from a model.
    ///
    /// # Errors
    /// When the system lends no thread.
    pub fn start(parts: Parts, forward: Box<dyn Forward>, drafter: Option<Drafter>) -> std::io::Result<Self> {
        let drafts = parts.speculative.as_ref().map_or(0, Drafting::tokens);
        let limits = Limits { drafts, ..parts.limits };
        Ok(Self {
            scheduler: Scheduler::new(limits, parts.cache.timed(nanoseconds)),
            worker: Worker::start(forward, drafter, parts.end_tokens.clone())?,
            live: FxHashMap::default(),
            prompts: Prompts::new(Arc::clone(&parts.tokenizer), parts.template),
            inbox: VecDeque::new(),
            drawings: FxHashMap::default(),
            scheduled: Vec::new(),
            batch: Vec::new(),
            spare: Some(Box::default()),
            done: None,
            ends: Vec::new(),
            emissions: Vec::new(),
            keeps_responses: false,
            now: 0,
            heard: Instant::now(),
            memory: Memory::start(),
            kv_used: 0,
            evict_before: 0,
            parts: Settings {
                tokenizer: parts.tokenizer,
                context: parts.context,
                end_tokens: parts.end_tokens,
                bytes_per_token: parts.bytes_per_token,
                drafting: parts.speculative,
                ends: parts.sampling.iter().map(|sampling| Arc::new(ends(sampling))).collect(),
                sampling: parts.sampling,
            },
        })
    }

    /// The most sequences in one step since measuring started.
    pub fn largest_batch(&self) -> u32 {
        self.scheduler.counters().max_batch
    }

    /// It is `now` by the clock of whoever drives the engine.
    fn hear_time(&mut self, now: Ns) {
        if now > self.now {
            (self.now, self.heard) = (now, Instant::now());
        }
    }

    /// What that clock says by now.
    fn time(&self) -> Ns {
        self.now.saturating_add(self.heard.elapsed().as_nanos() as Ns)
    }

    fn accept(&mut self, id: RequestId, recipe: &Recipe) -> Result<(), (u32, String)> {
        let drawing = self.drawings.remove(&id);
        let ids = self.prompts.ids(recipe).map_err(|message| (recipe.prompt.tokens(), message))?;
        let (prompt, output) = (ids.len() as u32, recipe.output_tokens);
        let context = self.parts.context;
        if prompt.saturating_add(output) > context {
            return Err((
                prompt,
                format!(
                    "{prompt} prompt and {output} output tokens are more than the model's context of {context}"
                ),
            ));
        }
        let salt = drawing.as_ref().map_or(0, |drawing| drawing.salt);
        let tokens = Tokens::new(ids, self.scheduler.cache().block_tokens(), salt);
        let request = Request {
            id,
            seed: recipe.seed,
            prompt_tokens: prompt,
            output_tokens: output,
            content: tokens.clone(),
        };
        self.scheduler.submit(request).map_err(|rejection| (prompt, rejection.to_string()))?;
        let tells_ids = drawing.is_some();
        let (choice, ends) = self.parts.choice(recipe, drawing);
        let reach = Reach::new(self.parts.drafting.as_ref().map_or(0, Drafting::tokens));
        let session = self.prompts.begin(recipe).filter(|_| recipe.session.is_some_and(Turn::has_next));
        let forced = recipe.forced;
        let live =
            Live { tokens, prompt, forced, session, choice, reach, kept: 0, stop: None, ends, tells_ids };
        self.live.insert(id, live);
        Ok(())
    }

    /// Turns the prompts that arrived into tokens: beside the step that is computed, until that is done. It is part of a
    /// request's time to first token, as on a server, and holds up nobody who sends.
    fn open_inbox(&mut self) {
        while self.done.is_none() {
            let Some((id, recipe)) = self.inbox.pop_front() else { return };
            if let Err((prompt, message)) = self.accept(id, &recipe) {
                self.ends.push((id, Finish::new(prompt, 0, Outcome::Refused, Some(message))));
            }
            if self.is_busy() {
                self.done = self.worker.take();
            }
        }
    }

    /// Whether a step is being computed.
    fn is_busy(&self) -> bool {
        self.spare.is_none() && self.done.is_none()
    }

    /// Proposes what may come next in every answer that has begun.
    fn draft(&mut self) {
        let Some(drafting) = &self.parts.drafting else { return };
        for live in self.live.values() {
            let held = &mut *live.tokens.held();
            held.drafts.clear();
            if held.ids.len() > live.prompt as usize {
                let most = live.reach.drafts() as usize;
                match drafting {
                    Drafting::PromptLookup(lookup) => look_up(&held.ids, lookup, most, &mut held.drafts),
                    // Room: the model proposes them in the step itself, when their blocks are known.
                    Drafting::Model(_) => held.drafts.resize(most, 0),
                }
            }
        }
    }

    fn begin_step(&mut self) {
        let Some(mut job) = self.spare.take() else { return };
        self.draft();
        self.batch.clear();
        let now = self.time();
        match self.scheduler.next_step() {
            Ok(Some(step)) => {
                self.scheduled.extend(step.admitted.iter().map(|id| (*id, now)));
                self.batch.extend_from_slice(&step.sequences);
            }
            Ok(None) => {}
            Err(stuck) => self.end_all(&stuck.to_string()),
        }
        if self.batch.is_empty() {
            self.spare = Some(job);
            return;
        }
        self.kv_used = self.kv_used.max(self.scheduler.cache().pool().resident_tokens());
        job.clear();
        let is_model = matches!(self.parts.drafting, Some(Drafting::Model(_)));
        for (sequence, scheduled) in (0..).zip(&self.batch) {
            if let Some(live) = self.live.get(&scheduled.id) {
                put(&mut job, sequence, scheduled, live, is_model);
            }
            job.blocks.extend(self.scheduler.blocks(scheduled).iter().map(|block| block.index()));
            job.ends.push(job.blocks.len() as u32);
        }
        self.worker.begin(job);
    }

    fn end_step(&mut self, done: Done, sink: &mut dyn Sink) {
        let job = match done {
            Ok(job) => job,
            Err(message) => {
                self.spare = Some(Box::default());
                self.end_all(&message);
                return;
            }
        };
        self.take_chosen(&job);
        self.spare = Some(job);
        let live = &self.live;
        let kept = |scheduled: &Scheduled| live.get(&scheduled.id).map_or(0, |live| live.kept);
        let mut emissions = std::mem::take(&mut self.emissions);
        self.scheduler.finish_step(kept, |emission| emissions.push(emission));
        for emission in emissions.drain(..) {
            self.emit(emission, sink);
        }
        self.emissions = emissions;
        self.memory.look();
    }

    /// Appends what was chosen to the answers.
    fn take_chosen(&mut self, job: &Job) {
        let mut at = 0;
        let emitting = self.batch.iter().filter(|scheduled| scheduled.emits);
        for (scheduled, count) in emitting.zip(&job.counts) {
            let chosen = &job.chosen[at..at + *count as usize];
            at += chosen.len();
            // Cancelled while it was computed.
            let Some(live) = self.live.get_mut(&scheduled.id) else { continue };
            live.kept = count - 1;
            live.reach.learn(scheduled.drafts, live.kept);
            live.tokens.held().ids.extend_from_slice(chosen);
            live.stop = self.parts.stop(live, chosen);
        }
    }

    /// Tells what came out of a request.
    fn emit(&mut self, emission: Emission, sink: &mut dyn Sink) {
        let id = emission.id;
        let Some(live) = self.live.get_mut(&id) else { return };
        let stop = live.stop.take();
        let tokens = stop.map_or(emission.tokens, |stop| stop.tokens.min(emission.tokens));
        if live.tells_ids {
            let held = live.tokens.held();
            let from = held.ids.len() - emission.tokens as usize;
            sink.ids(id, &held.ids[from..from + tokens as usize]);
        }
        sink.tokens(id, self.now, 0, tokens);
        if stop.is_none() && !emission.last {
            return;
        }
        let Some(live) = self.live.remove(&id) else { return };
        self.scheduler.cancel(id);
        let mut finish =
            Finish::new(emission.prompt_tokens, emission.preemptions, Outcome::Success, None::<String>);
        let mut held = live.tokens.held();
        let surplus = (emission.tokens - tokens) as usize;
        let end = held.ids.len() - surplus;
        held.ids.truncate(end);
        if let Some(key) = live.session {
            self.prompts.said(key, held.ids.clone());
        }
        if self.keeps_responses {
            let text = self.parts.answer(&held.ids[live.prompt as usize..], &live.ends);
            let reason = if stop.is_some() { "stop" } else { "length" };
            finish.response = Some(Box::new(Response { text, finish_reason: Some(reason.into()) }));
        }
        sink.finished(id, self.now, finish);
    }

    /// Ends everything in flight with an error.
    fn end_all(&mut self, message: &str) {
        let mut ids: Vec<RequestId> = self.live.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(live) = self.live.remove(&id) else { continue };
            self.scheduler.cancel(id);
            let end = Finish::new(live.prompt, 0, Outcome::CancelledByServer, Some(message.to_owned()));
            self.ends.push((id, end));
        }
        // What was in flight brings nothing.
        self.scheduler.finish_step(|_| 0, |_| {});
    }
}

impl Settings {
    /// How an answer is chosen and what ends it: as was said of it, else as its workload says. A forced length is not cut.
    fn choice(&self, recipe: &Recipe, drawing: Option<Drawing>) -> (Choice, Arc<Ends>) {
        if let Some(Drawing { temperature, top_p, seed, ends, .. }) = drawing {
            let (temperature, top_p) = (temperature as f32, top_p as f32);
            return (Choice { temperature, top_p, seed, least: ends.least }, Arc::new(ends));
        }
        let lane = (recipe.lane as usize).min(self.sampling.len() - 1);
        let sampling = &self.sampling[lane];
        // What a row of a file says of its own request holds before what the workload says.
        let own = match &recipe.prompt {
            PromptRecipe::Chat { body, .. } => body.as_deref(),
            _ => None,
        };
        let own = |name: &str| own.and_then(|body| body.get(name));
        let number = |name: &str| own(name).and_then(Value::as_f64);
        let seed = own("seed").and_then(Value::as_i64).or(sampling.seed);
        let choice = Choice {
            temperature: number("temperature").or(sampling.temperature).unwrap_or(0.0) as f32,
            top_p: number("top_p").or(sampling.top_p).unwrap_or(1.0) as f32,
            seed: seed.map_or(recipe.seed, i64::cast_unsigned),
            least: 0,
        };
        (choice, if recipe.forced { Arc::default() } else { Arc::clone(&self.ends[lane]) })
    }

    /// Whether an answer ends with some of the tokens that it has just got.
    fn stop(&self, live: &Live, chosen: &[u32]) -> Option<Stop> {
        let ends_it = |token: &u32| !live.forced && self.end_tokens.contains(token);
        if let Some(at) = chosen.iter().position(ends_it) {
            return Some(Stop { tokens: at as u32 + 1 });
        }
        let ends = &*live.ends;
        if ends.texts.is_empty() {
            return None;
        }
        let held = live.tokens.held();
        let answer = &held.ids[live.prompt as usize..];
        let before = answer.len() - chosen.len();
        // No token is shorter than a byte of the text that it ends, but for special ones, which have none.
        let reach = ends.texts.iter().map(String::len).max().unwrap_or(0);
        let start = before.saturating_sub(reach);
        let text = |end: usize| self.tokenizer.decode(&answer[start..end]);
        (before + 1..=answer.len())
            .find(|end| {
                // A text that was complete before the least length ends nothing.
                let least = (ends.least as usize).clamp(start, end - 1);
                *end > ends.least as usize && ends.find(&text(*end), text(least).len()).is_some()
            })
            .map(|end| Stop { tokens: (end - before) as u32 })
    }

    /// The text of an answer, up to where a stop begins.
    fn answer(&self, ids: &[u32], ends: &Ends) -> String {
        let mut text = self.tokenizer.decode(ids);
        let least = (ends.least as usize).min(ids.len());
        let after = if ends.texts.is_empty() { 0 } else { self.tokenizer.decode(&ids[..least]).len() };
        if let Some((at, end)) = ends.find(&text, after) {
            text.truncate(if ends.kept { end } else { at });
        }
        text
    }
}

/// What ends the answers of a workload.
fn ends(sampling: &Sampling) -> Ends {
    Ends { texts: sampling.stop.clone(), ..Ends::default() }
}

/// Puts a sequence's tokens into a step, and into what a draft model computes.
fn put(job: &mut Job, sequence: u32, scheduled: &Scheduled, live: &Live, is_model: bool) {
    let held = live.tokens.held();
    let known = scheduled.tokens - scheduled.drafts;
    let from = scheduled.context as usize;
    let drafts = &held.drafts[..scheduled.drafts as usize];
    let row = |(position, token): (u32, &u32)| Row { token: *token, position, sequence };
    if is_model {
        let before = from - usize::from(scheduled.drafts > 0 && from > 0);
        job.known.extend((before as u32..).zip(&held.ids[before..from + known as usize]).map(row));
    }
    let tokens = held.ids[from..from + known as usize].iter().chain(drafts);
    job.rows.extend((scheduled.context..).zip(tokens).map(row));
    if scheduled.emits {
        let start = job.drafts.len() as u32;
        job.drafts.extend_from_slice(drafts);
        let rows = job.rows.len() as u32;
        let ask = Ask {
            wanted: job.wanted.len() as u32,
            drafts: (start, job.drafts.len() as u32),
            position: scheduled.position,
            known: (job.known.len() as u32).saturating_sub(1),
            choice: live.choice,
        };
        job.wanted.extend(rows - scheduled.drafts - 1..rows);
        job.asks.push(ask);
    }
}

/// A clock for the time that evictions take.
fn nanoseconds() -> Ns {
    use std::sync::LazyLock;
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    ORIGIN.elapsed().as_nanos() as Ns
}

impl Stepped for Engine {
    fn keep_responses(&mut self) {
        self.keeps_responses = true;
    }

    fn draw(&mut self, id: RequestId, drawing: Drawing) {
        self.drawings.insert(id, drawing);
    }

    fn submit(&mut self, id: RequestId, recipe: &Recipe, now: Ns) {
        self.hear_time(now);
        self.inbox.push_back((id, recipe.clone()));
    }

    fn cancel(&mut self, id: RequestId, now: Ns) {
        self.hear_time(now);
        self.scheduler.cancel(id);
        self.live.remove(&id);
        self.drawings.remove(&id);
        self.scheduled.retain(|(other, _)| *other != id);
        self.inbox.retain(|(other, _)| *other != id);
        self.ends.retain(|(other, _)| *other != id);
    }

    fn next_event(&self) -> Option<Ns> {
        (self.done.is_some() || !self.ends.is_empty()).then_some(self.now)
    }

    fn advance(&mut self, to: Ns, sink: &mut dyn Sink) {
        self.hear_time(to);
        for (id, at) in std::mem::take(&mut self.scheduled) {
            sink.scheduled(id, at);
        }
        if let Some(done) = self.done.take() {
            self.end_step(done, sink);
        }
        for (id, end) in std::mem::take(&mut self.ends) {
            sink.finished(id, self.now, end);
        }
    }

    fn wait(&mut self, most: Duration) -> bool {
        self.open_inbox();
        if self.done.is_none() && self.ends.is_empty() && !self.is_busy() {
            self.begin_step();
        }
        if self.is_busy() && self.ends.is_empty() {
            self.done = self.worker.wait(most);
            if self.done.is_some() {
                self.hear_time(self.time());
            }
            return true;
        }
        self.next_event().is_some()
    }

    fn start_measuring(&mut self, now: Ns) {
        self.hear_time(now);
        self.scheduler.restart_counters();
        self.evict_before = self.scheduler.cache().evict_ns();
        self.kv_used = self.scheduler.cache().pool().resident_tokens();
        self.memory.restart();
    }

    fn standing(&self) -> Option<Standing> {
        Some(Standing {
            running: self.scheduler.running() as u32,
            waiting: (self.scheduler.waiting() + self.inbox.len()) as u32,
            kv: Some(self.scheduler.cache().into()),
        })
    }

    fn forget_prefixes(&mut self) -> bool {
        self.scheduler.cache_mut().forget();
        true
    }

    fn stats(&self, _: Ns) -> EngineStats {
        let (counters, cache) = (self.scheduler.counters(), self.scheduler.cache());
        let memory = self.memory.summary();
        let mut stats = EngineStats {
            kv_used_tokens: Some(self.kv_used),
            kv_capacity_tokens: Some(u64::from(cache.pool().total()) * u64::from(cache.block_tokens())),
            kv_total_tokens: Some(counters.computed_tokens),
            kv_bytes_per_token: Some(self.parts.bytes_per_token),
            evict_count: Some(counters.evictions),
            evict_ns: Some(cache.evict_ns() - self.evict_before),
            preempt_count: Some(counters.preemptions),
            peak_mem_bytes: memory.map(|(peak, _)| peak),
            avg_mem_bytes: memory.map(|(_, mean)| mean),
            ..EngineStats::default()
        };
        let mut lacking = |name: &'static str, reason: &str| {
            stats.unavailable.push((name.into(), reason.to_owned()));
        };
        if memory.is_none() {
            for name in ["peak_mem_mb", "avg_mem_mb"] {
                lacking(name, "the system does not tell this process's memory");
            }
        }
        if !cache.reuses() {
            lacking("prefix_hit_rate", "the prefix cache is off");
        }
        if self.parts.drafting.is_none() {
            lacking("spec_accept_rate", "speculation is off");
        }
        if cache.reuses() {
            stats.prefix_queried_tokens = Some(counters.queried_tokens);
            stats.prefix_hit_tokens = Some(counters.hit_tokens);
        }
        if self.parts.drafting.is_some() {
            stats.draft_tokens = Some(counters.draft_tokens);
            stats.accepted_tokens = Some(counters.accepted_tokens);
        }
        stats
    }
}

//! The mock's batched mode: the engine's scheduler, whose steps take what a cost model says.
//!
//! A step begins at the instant at which the last one ended, or at which a request arrives at an idle engine; whoever
//! arrives at that same instant is still in it. What a step emits comes out at its end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::answer::Answers;
use super::counters::Counters;
use super::fault::{self, Faults};
use super::{MockError, cache};
use crate::backend::config::{FaultAction, MockBackend, StepCost};
use crate::backend::{EngineStats, Finish, InjectedFault, RequestId, Sink, Stepped};
use crate::engine::{Content, Emission, Limits, Request, Scheduled, Scheduler, Speculation};
use crate::plan::Recipe;
use crate::record::{Outcome, Phase, TokenSource};
use crate::units::Ns;

/// A request's content, block by block, as its plan has it.
#[derive(Debug)]
struct Held {
    recipe: Recipe,
    block_tokens: u32,
}

impl Content for Held {
    fn block(&self, index: u64) -> u64 {
        self.recipe.block(index, self.block_tokens)
    }
}

/// A request in flight.
#[derive(Debug)]
struct Live {
    recipe: Recipe,
    fault: Option<FaultAction>,
    emitted: u32,
    /// How much later than they are computed its tokens come out: a stall that it has been through.
    behind: Ns,
}

/// Something that comes out later than it was computed. Ordered by time, then by when it was put there.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Later {
    at: Ns,
    order: u64,
    id: RequestId,
    /// So many tokens, or the end.
    tokens: Option<u32>,
}

/// The mock's batched mode. One per cell.
#[derive(Debug)]
pub struct Batched {
    scheduler: Scheduler<Held>,
    cost: StepCost,
    /// What dropping one cached block adds to a step.
    evict: Ns,
    speculation: Option<Speculation>,
    faults: Faults,
    answers: Answers,
    live: FxHashMap<RequestId, Live>,
    /// When the step in flight ends.
    busy_until: Option<Ns>,
    /// When the next step begins, while none is in flight.
    start_at: Option<Ns>,
    later: BinaryHeap<Reverse<Later>>,
    /// Why the requests that end later end as they do; a request without an entry ends in success.
    ends: FxHashMap<RequestId, Finish>,
    orders: u64,
    /// What came out of a step; kept for its memory.
    emissions: Vec<Emission>,
    counters: Counters,
    log: Vec<InjectedFault>,
}

impl Batched {
    /// A mock for one cell. `family` is the workload's name in the scenario, `seed` the scenario's.
    ///
    /// # Errors
    /// When the configuration lacks a cost or a usable KV cache.
    pub fn open(config: &MockBackend, family: &str, seed: u64) -> Result<Self, MockError> {
        let mut config = config.clone();
        let kv = config.kv.as_mut().ok_or(MockError::Missing("kv"))?;
        let cost = match (config.preset, config.cost) {
            (Some(preset), _) => {
                let (cost, bytes_per_token) = preset.parameters();
                kv.bytes_per_token.get_or_insert(bytes_per_token);
                cost
            }
            (None, Some(cost)) => cost,
            (None, None) => return Err(MockError::Missing("cost")),
        };
        let cache = cache(kv)?;
        let evict = kv.evict.map_or(0, |cost| cost.0);
        let engine = config.engine.unwrap_or_default();
        let speculation = config.speculative.as_ref().map(|speculative| {
            let mut accept = speculative.accept.0.clone();
            let last = accept.last().copied().unwrap_or(0.0);
            accept.resize(speculative.tokens as usize, last);
            Speculation::new(accept)
        });
        let limits = Limits {
            sequences: engine.max_num_seqs,
            tokens: engine.max_num_batched_tokens,
            chunked_prefill: engine.chunked_prefill,
            watermark: libm::ceil(engine.watermark.0 * f64::from(cache.pool().total())) as u32,
            drafts: speculation.as_ref().map_or(0, Speculation::drafts),
        };
        Ok(Self {
            counters: Counters::new(&config),
            scheduler: Scheduler::new(limits, cache),
            cost,
            evict,
            speculation,
            faults: Faults::new(&config.faults, family, seed),
            answers: Answers::new(&config.responses, family, seed),
            live: FxHashMap::default(),
            busy_until: None,
            start_at: None,
            later: BinaryHeap::new(),
            ends: FxHashMap::default(),
            orders: 0,
            emissions: Vec::new(),
            log: Vec::new(),
        })
    }

    fn finish(prompt_tokens: u32, preemptions: u32, outcome: Outcome, message: Option<String>) -> Finish {
        let message = message.map(Into::into);
        let token_source = TokenSource::Engine;
        Finish { outcome, message, prompt_tokens, preemptions, token_source, response: None }
    }

    fn put_later(&mut self, at: Ns, id: RequestId, tokens: Option<u32>) {
        self.orders += 1;
        self.later.push(Reverse(Later { at, order: self.orders, id, tokens }));
    }

    /// Ends a request at `at` without another token.
    fn end_at(&mut self, at: Ns, id: RequestId, end: Finish) {
        self.scheduler.cancel(id);
        self.ends.insert(id, end);
        self.put_later(at, id, None);
    }

    /// A fault that keeps a request from being computed at all. Whether there is one.
    fn strikes_at_once(&mut self, id: RequestId, recipe: &Recipe, action: &FaultAction, now: Ns) -> bool {
        let prompt = recipe.prompt.tokens();
        match action {
            FaultAction::HttpStatus(status) => {
                let message = format!("injected fault: HTTP status {}", status.code);
                self.end_at(
                    now,
                    id,
                    Self::finish(prompt, 0, Outcome::HttpStatus(status.code), Some(message)),
                );
            }
            FaultAction::Disconnect(disconnect) if disconnect.after_tokens == 0 => {
                let message = "injected fault: disconnected after 0 tokens".to_owned();
                self.end_at(now, id, Self::finish(prompt, 0, Outcome::Disconnected, Some(message)));
            }
            FaultAction::Timeout(_) => {}
            FaultAction::Disconnect(_) | FaultAction::Stall(_) => return false,
        }
        self.log.push(fault::entry(recipe, action, now));
        true
    }

    fn begin_step(&mut self, now: Ns) {
        self.start_at = None;
        let duration = match self.scheduler.next_step() {
            Ok(None) => return,
            Ok(Some(step)) => {
                let evictions = self.evict * Ns::from(step.evictions);
                self.counters.evict_ns += evictions;
                self.cost.duration(step) + evictions
            }
            Err(stuck) => {
                let mut ids: Vec<RequestId> = self.live.keys().copied().collect();
                ids.sort_unstable();
                for id in ids {
                    let message = Some(stuck.to_string());
                    let prompt = self.live[&id].recipe.prompt.tokens();
                    self.end_at(now, id, Self::finish(prompt, 0, Outcome::CancelledByServer, message));
                }
                return;
            }
        };
        self.counters.observe(now, self.scheduler.cache());
        // A step without any cost would never let time pass.
        self.busy_until = Some(now.saturating_add(duration.max(1)));
    }

    fn end_step(&mut self, now: Ns, sink: &mut dyn Sink) {
        self.busy_until = None;
        let speculation = &self.speculation;
        let accepted = |scheduled: &Scheduled| {
            let law = speculation.as_ref();
            law.map_or(0, |law| law.accepted(scheduled.seed, scheduled.position, scheduled.drafts))
        };
        let mut emissions = std::mem::take(&mut self.emissions);
        self.scheduler.finish_step(accepted, |emission| emissions.push(emission));
        self.counters.observe(now, self.scheduler.cache());
        for emission in emissions.drain(..) {
            self.emit(emission, now, sink);
        }
        self.emissions = emissions;
        if self.scheduler.has_work() {
            self.start_at = Some(now);
        }
    }

    /// Hands on what came out of a request, as far as its fault lets it.
    fn emit(&mut self, emission: Emission, now: Ns, sink: &mut dyn Sink) {
        let (id, tokens) = (emission.id, emission.tokens);
        let Some(live) = self.live.get_mut(&id) else { return };
        let before = live.emitted;
        live.emitted += tokens;
        let end =
            |outcome, message| Self::finish(emission.prompt_tokens, emission.preemptions, outcome, message);
        if live.fault.is_none() {
            sink.tokens(id, now, 0, tokens);
            if emission.last {
                let mut end = end(Outcome::Success, None);
                end.response = self.answers.response(&live.recipe, end.outcome);
                self.live.remove(&id);
                sink.finished(id, now, end);
            }
            return;
        }
        let (mut early, mut late, mut cut) = (tokens, 0, false);
        let mut delay = live.behind;
        let strikes = |after: u32| (before..before + tokens).contains(&after);
        match &live.fault {
            Some(action @ FaultAction::Disconnect(fault)) if strikes(fault.after_tokens) => {
                (early, cut) = (fault.after_tokens - before, true);
                self.log.push(fault::entry(&live.recipe, action, now));
            }
            Some(action @ FaultAction::Stall(fault)) if strikes(fault.after_tokens) => {
                early = fault.after_tokens - before;
                late = tokens - early;
                live.behind = fault.pause.0;
                self.log.push(fault::entry(&live.recipe, action, now));
            }
            _ => {}
        }
        let behind = now.saturating_add(live.behind);
        if late > 0 {
            delay = 0;
        }
        for (at, count) in [(now.saturating_add(delay), early), (behind, late)] {
            if count > 0 {
                self.put_later(at, id, Some(count));
            }
        }
        if cut {
            let message = format!("injected fault: disconnected after {} tokens", before + early);
            self.end_at(behind, id, end(Outcome::Disconnected, Some(message)));
        } else if emission.last {
            self.ends.insert(id, end(Outcome::Success, None));
            self.put_later(behind, id, None);
        }
    }

    /// Tells the sink what comes out at `at`.
    fn tell(&mut self, later: &Later, sink: &mut dyn Sink) {
        if !self.live.contains_key(&later.id) {
            return;
        }
        if let Some(count) = later.tokens {
            sink.tokens(later.id, later.at, 0, count);
            return;
        }
        let Some(live) = self.live.remove(&later.id) else { return };
        if let Some(mut end) = self.ends.remove(&later.id) {
            end.response = self.answers.response(&live.recipe, end.outcome);
            sink.finished(later.id, later.at, end);
        }
    }
}

impl Stepped for Batched {
    fn keep_responses(&mut self) {
        self.answers.keep();
    }

    fn submit(&mut self, id: RequestId, recipe: &Recipe, now: Ns) {
        let recipe = &self.answers.own(recipe);
        let fault = if recipe.phase == Phase::Measured { self.faults.of(recipe.index) } else { None };
        let live = Live { recipe: recipe.clone(), fault: fault.clone(), emitted: 0, behind: 0 };
        self.live.insert(id, live);
        if fault.is_some_and(|action| self.strikes_at_once(id, recipe, &action, now)) {
            return;
        }
        let request = Request {
            id,
            seed: recipe.seed,
            prompt_tokens: recipe.prompt.tokens(),
            output_tokens: recipe.output_tokens,
            content: Held { recipe: recipe.clone(), block_tokens: self.scheduler.cache().block_tokens() },
        };
        if let Err(rejection) = self.scheduler.submit(request) {
            let message = Some(rejection.to_string());
            self.end_at(now, id, Self::finish(recipe.prompt.tokens(), 0, Outcome::Refused, message));
        } else if self.busy_until.is_none() {
            self.start_at.get_or_insert(now);
        }
    }

    fn cancel(&mut self, id: RequestId, now: Ns) {
        self.scheduler.cancel(id);
        self.live.remove(&id);
        self.ends.remove(&id);
        self.counters.observe(now, self.scheduler.cache());
    }

    fn next_event(&self) -> Option<Ns> {
        let later = self.later.peek().map(|Reverse(later)| later.at);
        [self.busy_until, self.start_at, later].into_iter().flatten().min()
    }

    fn advance(&mut self, to: Ns, sink: &mut dyn Sink) {
        while let Some(at) = self.next_event().filter(|at| *at <= to) {
            if self.busy_until == Some(at) {
                self.end_step(at, sink);
                // Requests that arrive at this instant are in the next step: it begins when they are there.
                if self.start_at == Some(to) {
                    self.tell_due(at, sink);
                    return;
                }
            }
            self.tell_due(at, sink);
            if self.start_at == Some(at) {
                self.begin_step(at);
            }
        }
    }

    fn start_measuring(&mut self, now: Ns) {
        self.scheduler.restart_counters();
        self.counters.restart(now);
    }

    fn stats(&self, now: Ns) -> EngineStats {
        let own = self.scheduler.counters();
        let mut counters = self.counters.clone();
        counters.written = own.computed_tokens;
        counters.queried = own.queried_tokens;
        counters.hits = own.hit_tokens;
        counters.evictions = own.evictions;
        counters.preemptions = own.preemptions;
        let mut stats = counters.stats(now, Some(self.scheduler.cache()), &self.log);
        if self.speculation.is_some() {
            stats.draft_tokens = Some(own.draft_tokens);
            stats.accepted_tokens = Some(own.accepted_tokens);
            stats.unavailable.retain(|(name, _)| name != "spec_accept_rate");
        }
        stats
    }
}

impl Batched {
    fn tell_due(&mut self, at: Ns, sink: &mut dyn Sink) {
        while self.later.peek().is_some_and(|Reverse(later)| later.at <= at) {
            if let Some(Reverse(later)) = self.later.pop() {
                self.tell(&later, sink);
            }
        }
    }
}

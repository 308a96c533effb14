//! The mock's batched mode: the engine's scheduler, whose steps take what a cost model says.
//!
//! A step begins at the instant at which the last one ended, with those who were there before it, or at which a request
//! arrives at an idle engine, with all who arrive at that same instant. What a step emits comes out at its end.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::answer::Answers;
use super::cost::Stopwatch;
use super::counters::Counters;
use super::{Engine, MockError, cache};
use crate::backend::config::MockBackend;
use crate::backend::{EngineStats, Finish, RequestId, Sink, Standing, Stepped};
use crate::engine::{Content, Emission, KvCache, Limits, Request, Scheduled, Scheduler, Speculation};
use crate::plan::Recipe;
use crate::record::Outcome;
use crate::units::Ns;

/// At most so many instants in one glide.
const GLIDE: u32 = 1_000;

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

/// The mock's batched mode. One per cell.
#[derive(Debug)]
pub struct Batched {
    scheduler: Scheduler<Held>,
    cost: Stopwatch,
    /// What dropping one cached block adds to a step.
    evict: Ns,
    speculation: Option<Speculation>,
    answers: Answers,
    /// What is in flight, where responses are told.
    asked: FxHashMap<RequestId, Recipe>,
    /// When the step in flight ends.
    busy_until: Option<Ns>,
    /// When it began.
    began: Ns,
    /// Whether the sink is told whole steps.
    folds: bool,
    /// When the next step begins, while none is in flight.
    start_at: Option<Ns>,
    /// Nothing begins before this.
    held: Ns,
    /// Requests that end without having been computed, the next one first.
    ends: VecDeque<(Ns, RequestId, Finish)>,
    /// What came out of a step; kept for its memory.
    emissions: Vec<Emission>,
    counters: Counters,
}

impl Batched {
    /// A mock for one cell. `families` are the names in the scenario of the workloads that it serves, in the order of
    /// [`Recipe::lane`], `seed` the scenario's.
    ///
    /// # Errors
    /// When the configuration lacks a cost or a usable KV cache.
    pub fn open(config: &MockBackend, families: &[&str], seed: u64) -> Result<Self, MockError> {
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
            counters: Counters::new(&config, Some(&cache)),
            scheduler: Scheduler::new(limits, cache),
            cost: Stopwatch::new(cost),
            evict,
            speculation,
            answers: Answers::group(&config.responses, families, seed),
            asked: FxHashMap::default(),
            busy_until: None,
            began: 0,
            folds: false,
            start_at: None,
            held: 0,
            ends: VecDeque::new(),
            emissions: Vec::new(),
        })
    }

    #[cfg(test)]
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.scheduler.check()
    }

    fn observe(&mut self, now: Ns) {
        self.counters.observe(now, self.scheduler.cache());
        self.counters.run(now, self.scheduler.running());
    }

    fn begin_step(&mut self, now: Ns, sink: &mut dyn Sink) {
        self.start_at = None;
        let duration = match self.scheduler.next_step() {
            Ok(None) => return,
            Ok(Some(step)) => {
                let evictions = self.evict * Ns::from(step.evictions);
                self.counters.evict_ns += evictions;
                for id in &step.admitted {
                    sink.scheduled(*id, now);
                }
                self.cost.duration(step) + evictions
            }
            Err(stuck) => {
                let message = stuck.to_string();
                for (id, prompt, preemptions) in self.scheduler.in_flight() {
                    self.scheduler.cancel(id);
                    let end =
                        Finish::new(prompt, preemptions, Outcome::CancelledByServer, Some(message.clone()));
                    self.ends.push_back((now, id, end));
                }
                return;
            }
        };
        for id in self.scheduler.alighted() {
            sink.alight(*id);
        }
        self.observe(now);
        self.began = now;
        // A step without any cost would never let time pass.
        self.busy_until = Some(now.saturating_add(duration.max(1)));
    }

    /// Whether something was told of a request by name.
    fn end_step(&mut self, now: Ns, sink: &mut dyn Sink) -> bool {
        self.busy_until = None;
        let speculation = &self.speculation;
        let accepted = |scheduled: &Scheduled| {
            let law = speculation.as_ref();
            law.map_or(0, |law| law.accepted(scheduled.seed, scheduled.position, scheduled.drafts))
        };
        let mut emissions = std::mem::take(&mut self.emissions);
        self.scheduler.finish_step(accepted, |emission| emissions.push(emission));
        self.observe(now);
        if self.folds {
            sink.step(now, now - self.began);
        }
        let is_told = !emissions.is_empty();
        for Emission { id, tokens, last, rode, prompt_tokens, preemptions, .. } in emissions.drain(..) {
            if !rode {
                sink.tokens(id, now, 0, tokens);
            }
            if last {
                let mut end = Finish::new(prompt_tokens, preemptions, Outcome::Success, None::<String>);
                if let Some(recipe) = self.asked.remove(&id) {
                    end.response = self.answers.response(&recipe, end.outcome);
                }
                sink.finished(id, now, end);
            }
        }
        self.emissions = emissions;
        if self.folds {
            for id in self.scheduler.boarded() {
                sink.board(*id);
            }
        }
        if self.scheduler.has_work() {
            self.start_at = Some(now.max(self.held));
        }
        is_told
    }

    /// Tells the sink who ends at `at` without having been computed. Whether there is anyone.
    fn tell_ends(&mut self, at: Ns, sink: &mut dyn Sink) -> bool {
        let mut is_told = false;
        while let Some((at, id, end)) = self.ends.pop_front_if(|(due, ..)| *due <= at) {
            self.asked.remove(&id);
            sink.finished(id, at, end);
            is_told = true;
        }
        is_told
    }
}

impl Stepped for Batched {
    fn keep_responses(&mut self) {
        self.answers.keep();
    }

    fn submit(&mut self, id: RequestId, recipe: &Recipe, now: Ns) {
        let recipe = &self.answers.own(recipe);
        if self.answers.are_kept() {
            self.asked.insert(id, recipe.clone());
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
            self.ends.push_back((now, id, Finish::new(recipe.prompt.tokens(), 0, Outcome::Refused, message)));
            return;
        }
        if recipe.cancel_after.is_some() {
            self.scheduler.follow(id);
        }
        if self.busy_until.is_none() {
            self.start_at.get_or_insert(now.max(self.held));
        }
    }

    fn cancel(&mut self, id: RequestId, now: Ns) {
        self.scheduler.cancel(id);
        self.asked.remove(&id);
        self.ends.retain(|(_, other, _)| *other != id);
        self.observe(now);
    }

    fn next_event(&self) -> Option<Ns> {
        let end = self.ends.front().map(|(at, ..)| *at);
        [self.busy_until, self.start_at, end].into_iter().flatten().min()
    }

    fn advance(&mut self, to: Ns, sink: &mut dyn Sink) {
        while let Some(at) = self.next_event().filter(|at| *at <= to) {
            if self.busy_until == Some(at) {
                self.end_step(at, sink);
                // What came out is heard before the next step begins: a request that is given up for it is not in that step.
                if self.start_at == Some(to) {
                    self.tell_ends(at, sink);
                    return;
                }
            }
            self.tell_ends(at, sink);
            if self.start_at == Some(at) {
                self.begin_step(at, sink);
            }
        }
    }

    fn glide(&mut self, end: Ns, sink: &mut dyn Sink) -> Option<Ns> {
        let mut last = None;
        for _ in 0..GLIDE {
            let Some(at) = self.next_event().filter(|at| *at < end) else { break };
            last = Some(at);
            let is_told = self.busy_until == Some(at) && self.end_step(at, sink);
            if self.tell_ends(at, sink) || is_told {
                break;
            }
            if self.start_at == Some(at) {
                self.begin_step(at, sink);
            }
        }
        last
    }

    fn fold_steps(&mut self) {
        self.folds = true;
        self.scheduler.fold_steps();
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
        let mut stats = counters.stats(now, Some(self.scheduler.cache()));
        if self.speculation.is_some() {
            stats.draft_tokens = Some(own.draft_tokens);
            stats.accepted_tokens = Some(own.accepted_tokens);
            stats.unavailable.retain(|(name, _)| name != "spec_accept_rate");
        }
        stats
    }

    fn standing(&self) -> Option<Standing> {
        Some(Standing {
            running: self.scheduler.running() as u32,
            waiting: self.scheduler.waiting() as u32,
            kv: Some(self.scheduler.cache().into()),
        })
    }

    fn forget_prefixes(&mut self) -> bool {
        self.scheduler.cache_mut().forget();
        true
    }
}

impl Engine for Batched {
    fn hold(&mut self, now: Ns, until: Ns) {
        self.held = self.held.max(until);
        if let Some(end) = &mut self.busy_until {
            *end = end.saturating_add(until.saturating_sub(now));
        } else if let Some(start) = &mut self.start_at {
            *start = self.held.max(*start);
        }
    }

    fn cache_mut(&mut self) -> Option<&mut KvCache> {
        Some(self.scheduler.cache_mut())
    }

    fn preemptions(&self, id: RequestId) -> u32 {
        self.scheduler.preemptions(id)
    }
}

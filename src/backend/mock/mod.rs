//! A simulated inference engine over a real block pool: [`Mock`] is its fixed mode, with constant (or drawn) TTFT and TBT,
//! [`Batched`] its batched one.
//!
//! The fixed mode:
//! Each sequence has events of its own; there is no step that all share. At one instant, in this order:
//!
//! 1. What is due is told, in the order of request ids. A sequence that is finished lets go of its blocks.
//! 2. Each token that was emitted and is not its request's last gets a slot, in the order in which the sequences were
//!    admitted. When no block is free, the sequence that was admitted last is preempted (it may be the one that asks): it
//!    loses its blocks and goes to the front of the queue. When it comes back it pays its TTFT again.
//! 3. If nothing was preempted at this instant, the queue is admitted from its head, as far as there are blocks.

mod answer;
mod batched;
mod cost;
mod counters;
mod fault;
mod faulty;
mod occupancy;
mod sequence;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::path::Path;

use rustc_hash::FxHashMap;

pub use self::answer::Answers;
pub use self::batched::Batched;
use self::counters::Counters;
pub use self::fault::FaultPlan;
pub use self::faulty::Faulty;
use self::sequence::{Running, Sequence, State};
use super::config::{Kv, MockBackend, Mode};
use super::{EngineStats, Finish, RequestId, Sink, Standing, Stepped};
use crate::engine::KvCache;
use crate::plan::Recipe;
use crate::record::{Outcome, TokenSource};
use crate::sample::{BadLaw, Draws, Quantity, Sampler, Time};
use crate::units::{Duration, Ns};

/// A mock for one cell, in the mode of its configuration. `family` is the workload's name in the scenario, `seed` the
/// scenario's; files that the configuration names are relative to `dir`.
///
/// # Errors
/// When the configuration can not be used.
pub fn open(
    config: &MockBackend,
    family: &str,
    seed: u64,
    dir: &Path,
) -> Result<Box<dyn Stepped>, MockError> {
    let faults = FaultPlan::new(&config.faults, family, seed);
    Ok(match config.mode {
        Mode::Fixed => with_faults(Mock::open(config, family, seed, dir)?, faults),
        Mode::Batched => with_faults(Batched::open(config, family, seed)?, faults),
    })
}

fn with_faults(engine: impl Engine + 'static, faults: FaultPlan) -> Box<dyn Stepped> {
    if faults.is_empty() { Box::new(engine) } else { Box::new(Faulty::new(engine, faults)) }
}

/// What can be done to an engine as a whole.
pub trait Engine: Stepped {
    /// The engine stands still from `now` until `until`: what is under way takes that much longer, and nothing new begins.
    fn hold(&mut self, now: Ns, until: Ns);

    /// The KV cache, if there is one.
    fn cache_mut(&mut self) -> Option<&mut KvCache>;

    /// How often a request that is in the engine was preempted; 0 for an unknown one.
    fn preemptions(&self, id: RequestId) -> u32;
}

/// The two laws of a mock, made ready for drawing: nanoseconds.
#[derive(Debug, Clone)]
pub struct Laws {
    /// From admission to the first token.
    pub ttft: Sampler,
    /// Between two tokens.
    pub tbt: Sampler,
}

/// Why a mock can not be built from its configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MockError {
    /// Not exactly one size.
    #[error("`kv` takes exactly one of `tokens`, `blocks` and `bytes`, {0} are given")]
    Sizes(usize),
    /// A size in bytes, and no way to count tokens in it.
    #[error("`kv.bytes` needs `kv.bytes_per_token`, at least 1")]
    BytesPerToken,
    /// Nothing fits.
    #[error("`kv` holds {tokens} tokens, less than one block of {block_tokens}; make it larger")]
    Empty {
        /// Tokens that fit.
        tokens: u64,
        /// Tokens in one block.
        block_tokens: u32,
    },
    /// More blocks than the pool numbers.
    #[error("`kv` has {0} blocks, more than 16777216; make it smaller or `block_tokens` larger")]
    TooLarge(u64),
    /// A law can not be drawn from.
    #[error("`{0}`: {1}")]
    Law(&'static str, BadLaw),
    /// The mode needs a key.
    #[error("this mode of the mock needs `{0}`")]
    Missing(&'static str),
    /// No token would ever come.
    #[error("`rate_cap` must be above 0")]
    RateCap,
}

/// Something that is due. Ordered by time, then request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Ns,
    id: RequestId,
    slot: u32,
    /// Valid while the sequence carries the same stamp.
    stamp: u64,
}

type Queue = BinaryHeap<Reverse<Due>>;

/// The mock's fixed mode. One per cell: a fresh pool, a cold cache.
#[derive(Debug)]
pub struct Mock {
    laws: Laws,
    answers: Answers,
    kv: Option<KvCache>,
    /// What one eviction costs.
    evict: Ns,
    /// The shortest time between two tokens of all requests together.
    pace: Ns,
    /// No token comes before this.
    gate: Ns,
    /// Nobody is admitted before this.
    held: Ns,
    sequences: Vec<Sequence>,
    vacant: Vec<u32>,
    ids: FxHashMap<RequestId, u32>,
    running: Running,
    /// Slots and stamps of what waits, the next one first. Entries of cancelled requests are skipped.
    waiting: VecDeque<(u32, u64)>,
    tokens: Queue,
    /// Requests that end without another token.
    ends: Queue,
    stamps: u64,
    /// The last instant at which something happened.
    now: Ns,
    preempted_at: Option<Ns>,
    /// Whether the head of the queue may fit: something changed since it was refused.
    retry: bool,
    /// Sequences whose token needs a slot at this instant; kept for its memory.
    unplaced: Vec<u32>,
    counters: Counters,
}

impl Mock {
    /// A mock for one cell. `family` is the workload's name in the scenario, `seed` the scenario's: together they decide
    /// which texts requests are answered with.
    ///
    /// # Errors
    /// When the KV cache has no usable size, or the rate cap is 0.
    pub fn new(config: &MockBackend, laws: Laws, family: &str, seed: u64) -> Result<Self, MockError> {
        let kv = config.kv.as_ref().map(cache).transpose()?;
        let pace = match config.rate_cap {
            None => 0,
            Some(cap) if cap.0 > 0.0 => Duration::from_float(1e9 / cap.0).0.max(1),
            Some(_) => return Err(MockError::RateCap),
        };
        Ok(Self {
            laws,
            answers: Answers::new(&config.responses, family, seed),
            counters: Counters::new(config, kv.as_ref()),
            kv,
            evict: config.kv.as_ref().and_then(|kv| kv.evict).map_or(0, |cost| cost.0),
            pace,
            gate: 0,
            held: 0,
            sequences: Vec::new(),
            vacant: Vec::new(),
            ids: FxHashMap::default(),
            running: Running::default(),
            waiting: VecDeque::new(),
            tokens: Queue::new(),
            ends: Queue::new(),
            stamps: 0,
            now: 0,
            preempted_at: None,
            retry: false,
            unplaced: Vec::new(),
        })
    }

    /// [`Self::new`] with the laws of the configuration; the files they name are relative to `dir`.
    pub fn open(config: &MockBackend, family: &str, seed: u64, dir: &Path) -> Result<Self, MockError> {
        let law = |key, law: &Option<Time>| {
            let law = law.as_ref().ok_or(MockError::Missing(key))?;
            law.sampler(dir).map_err(|error| MockError::Law(key, error))
        };
        let (ttft, tbt) = (law("ttft", &config.ttft)?, law("tbt", &config.tbt)?);
        Self::new(config, Laws { ttft, tbt }, family, seed)
    }

    /// The KV cache, if there is one.
    pub fn cache(&self) -> Option<&KvCache> {
        self.kv.as_ref()
    }

    fn sequence(&mut self, slot: u32) -> &mut Sequence {
        &mut self.sequences[slot as usize]
    }

    fn stamp(&mut self, slot: u32) -> u64 {
        self.stamps += 1;
        self.sequences[slot as usize].stamp = self.stamps;
        self.stamps
    }

    /// Schedules what a sequence does next.
    fn schedule(&mut self, slot: u32, at: Ns) -> Due {
        let stamp = self.stamp(slot);
        Due { at, id: self.sequences[slot as usize].id, slot, stamp }
    }

    fn is_live(sequences: &[Sequence], due: Due) -> bool {
        sequences[due.slot as usize].stamp == due.stamp
    }

    /// Drops entries whose sequence has moved on: all at the head, and everywhere when they are the most.
    fn prune(&mut self) {
        let sequences = &self.sequences;
        for queue in [&mut self.tokens, &mut self.ends] {
            if queue.len() > 64 + 2 * self.ids.len() {
                queue.retain(|Reverse(due)| Self::is_live(sequences, *due));
            }
            while queue.peek().is_some_and(|Reverse(due)| !Self::is_live(sequences, *due)) {
                queue.pop();
            }
        }
        let waits = |&(slot, stamp): &(u32, u64)| sequences[slot as usize].stamp == stamp;
        if self.waiting.len() > 64 + 2 * self.ids.len() {
            self.waiting.retain(waits);
        }
        while self.waiting.front().is_some_and(|entry| !waits(entry)) {
            self.waiting.pop_front();
        }
    }

    /// When the next token comes, if one is due.
    fn token_time(&self) -> Option<Ns> {
        self.tokens.peek().map(|Reverse(due)| due.at.max(self.gate))
    }

    /// Whether the queue is to be looked at without anything else happening.
    fn admission_is_open(&self) -> bool {
        let refused = self.preempted_at == Some(self.now) && !self.running.is_empty();
        self.retry && !refused && !self.waiting.is_empty()
    }

    /// Everything that happens at `at`.
    fn round(&mut self, at: Ns, sink: &mut dyn Sink) {
        self.now = at;
        while let Some(due) = self.pop(at) {
            if Self::is_live(&self.sequences, due) {
                self.tell(due.slot, at, sink);
            }
        }
        let mut unplaced = std::mem::take(&mut self.unplaced);
        let sequences = &self.sequences;
        unplaced.sort_unstable_by_key(|slot| sequences[*slot as usize].order);
        for slot in unplaced.drain(..) {
            // It may have been preempted for one before it.
            if self.sequence(slot).state == State::Running {
                self.place(slot, at);
            }
        }
        self.unplaced = unplaced;
        if self.admission_is_open() && at >= self.held {
            self.admit(at, sink);
        }
        self.prune();
    }

    /// The next thing that is due by `at`, in the order of ids.
    fn pop(&mut self, at: Ns) -> Option<Due> {
        let end = self.ends.peek().map(|Reverse(due)| *due).filter(|due| due.at <= at);
        let open = self.gate <= at;
        let token = self.tokens.peek().map(|Reverse(due)| *due).filter(|due| open && due.at <= at);
        match (end, token) {
            (Some(end), Some(token)) if token.id < end.id => self.tokens.pop(),
            (Some(_), _) => self.ends.pop(),
            (None, Some(_)) => self.tokens.pop(),
            (None, None) => None,
        }
        .map(|Reverse(due)| due)
    }

    /// A sequence's token, or its end.
    fn tell(&mut self, slot: u32, at: Ns, sink: &mut dyn Sink) {
        if let Some(message) = self.sequence(slot).refusal.take() {
            self.finish(slot, at, Outcome::Refused, Some(message), sink);
            return;
        }
        self.compute(slot);
        let sequence = &mut self.sequences[slot as usize];
        if sequence.recipe.output_tokens > 0 {
            sequence.emitted += 1;
            sink.tokens(sequence.id, at, 0, 1);
            self.gate = at.saturating_add(self.pace);
        }
        if sequence.emitted >= sequence.recipe.output_tokens {
            self.finish(slot, at, Outcome::Success, None, sink);
            return;
        }
        self.unplaced.push(slot);
    }

    /// The keys and values of everything before the token that comes out are written, and full blocks can be found.
    fn compute(&mut self, slot: u32) {
        let sequence = &mut self.sequences[slot as usize];
        let total = sequence.total();
        self.counters.written += u64::from(total.saturating_sub(sequence.computed));
        sequence.computed = total;
        if let Some(kv) = &mut self.kv {
            if kv.reuses() {
                sequence.know_blocks(total / kv.block_tokens(), kv.block_tokens());
            }
            self.retry |= kv.publish(&mut sequence.table, total);
        }
    }

    /// Finds a slot for the token that was emitted, preempting from the end, and schedules the next one.
    fn place(&mut self, slot: u32, at: Ns) {
        let evictions = loop {
            let Some(kv) = &mut self.kv else { break 0 };
            if let Some(evictions) = kv.append(&mut self.sequences[slot as usize].table) {
                self.counters.observe(at, kv);
                break evictions;
            }
            let Some(victim) = self.running.last() else { return };
            self.preempt(victim, at);
            if victim == slot {
                return;
            }
        };
        let gap = self.gap(slot);
        let cost = self.charge(evictions);
        let due = self.schedule(slot, at.saturating_add(gap).saturating_add(cost));
        self.tokens.push(Reverse(due));
    }

    /// The cost of evictions.
    fn charge(&mut self, evictions: u32) -> Ns {
        let cost = self.evict.saturating_mul(u64::from(evictions));
        self.counters.evictions += u64::from(evictions);
        self.counters.evict_ns += cost;
        cost
    }

    fn gap(&mut self, slot: u32) -> Ns {
        match &self.laws.tbt {
            Sampler::Constant(gap) => Duration::from_float(*gap).0,
            law => Duration::from_float(law.draw(self.sequences[slot as usize].gaps())).0,
        }
    }

    /// The time to the first token of a sequence's `admission`-th admission.
    fn first(&self, recipe: &Recipe, admission: u32) -> Ns {
        match &self.laws.ttft {
            Sampler::Constant(ttft) => Duration::from_float(*ttft).0,
            law => {
                let mut draws = Draws::new(recipe.seed, "mock ttft", u64::from(admission));
                Duration::from_float(law.draw(&mut draws)).0
            }
        }
    }

    fn preempt(&mut self, slot: u32, at: Ns) {
        self.running.remove(&mut self.sequences, slot);
        self.counters.run(at, self.running.len());
        let stamp = self.stamp(slot);
        let sequence = &mut self.sequences[slot as usize];
        sequence.state = State::Waiting;
        sequence.preemptions += 1;
        sequence.computed = 0;
        if let Some(kv) = &mut self.kv {
            kv.release(&mut sequence.table);
            self.counters.observe(at, kv);
        }
        self.waiting.push_front((slot, stamp));
        self.counters.preemptions += 1;
        self.preempted_at = Some(at);
        self.retry = true;
    }

    fn admit(&mut self, at: Ns, sink: &mut dyn Sink) {
        self.retry = false;
        while let Some((slot, stamp)) = self.waiting.front().copied() {
            let sequence = &mut self.sequences[slot as usize];
            if sequence.stamp != stamp {
                self.waiting.pop_front();
                continue;
            }
            let mut evictions = 0;
            if let Some(kv) = &mut self.kv {
                let total = sequence.total();
                let Some(admission) = kv.admit(&mut sequence.table, total) else { return };
                evictions = admission.evictions;
                sequence.computed = admission.hit_tokens;
                if sequence.admissions == 0 && kv.reuses() {
                    self.counters.queried += u64::from(sequence.recipe.prompt.tokens());
                    self.counters.hits += u64::from(admission.hit_tokens);
                }
                self.counters.observe(at, kv);
            }
            self.waiting.pop_front();
            sequence.state = State::Running;
            sequence.admissions += 1;
            if sequence.admissions == 1 {
                sink.scheduled(sequence.id, at);
            }
            self.running.push(&mut self.sequences, slot);
            self.counters.run(at, self.running.len());
            let sequence = &self.sequences[slot as usize];
            let ttft = self.first(&sequence.recipe, sequence.admissions);
            let cost = self.charge(evictions);
            let due = self.schedule(slot, at.saturating_add(ttft).saturating_add(cost));
            self.tokens.push(Reverse(due));
        }
    }

    fn finish(
        &mut self,
        slot: u32,
        at: Ns,
        outcome: Outcome,
        message: Option<Box<str>>,
        sink: &mut dyn Sink,
    ) {
        let sequence = &self.sequences[slot as usize];
        let end = Finish {
            outcome,
            message,
            prompt_tokens: sequence.recipe.prompt.tokens(),
            preemptions: sequence.preemptions,
            token_source: TokenSource::Engine,
            response: self.answers.response(&sequence.recipe, outcome),
        };
        let id = sequence.id;
        self.vacate(slot, at);
        sink.finished(id, at, end);
    }

    /// Forgets a sequence and frees what it holds.
    fn vacate(&mut self, slot: u32, at: Ns) {
        self.stamp(slot);
        let sequence = &mut self.sequences[slot as usize];
        let was_running = std::mem::replace(&mut sequence.state, State::Gone) == State::Running;
        self.ids.remove(&sequence.id);
        if let Some(kv) = &mut self.kv {
            kv.release(&mut sequence.table);
            self.counters.observe(at, kv);
        }
        if was_running {
            self.running.remove(&mut self.sequences, slot);
            self.counters.run(at, self.running.len());
        }
        self.vacant.push(slot);
        self.retry = true;
    }

    /// Takes a request in and says where it is kept.
    fn store(&mut self, id: RequestId, recipe: &Recipe) -> u32 {
        let sequence = Sequence::new(id, self.answers.own(recipe));
        let slot = if let Some(slot) = self.vacant.pop() {
            self.sequences[slot as usize] = sequence;
            slot
        } else {
            self.sequences.push(sequence);
            self.sequences.len() as u32 - 1
        };
        self.ids.insert(id, slot);
        slot
    }

    /// The message for a request that never fits.
    fn refusal(&self, recipe: &Recipe) -> Option<Box<str>> {
        let kv = self.kv.as_ref()?;
        let (prompt, output) = (recipe.prompt.tokens(), recipe.output_tokens);
        if kv.can_ever_fit(u64::from(prompt) + u64::from(output)) {
            return None;
        }
        let capacity = u64::from(kv.pool().total()) * u64::from(kv.block_tokens());
        Some(
            format!("{prompt} prompt and {output} output tokens can never fit in a KV cache of {capacity}")
                .into(),
        )
    }
}

impl Stepped for Mock {
    fn keep_responses(&mut self) {
        self.answers.keep();
    }

    fn submit(&mut self, id: RequestId, recipe: &Recipe, now: Ns) {
        self.now = self.now.max(now);
        let refusal = self.refusal(recipe);
        let slot = self.store(id, recipe);
        if refusal.is_some() {
            let sequence = self.sequence(slot);
            sequence.state = State::Ending;
            sequence.refusal = refusal;
            let due = self.schedule(slot, now);
            self.ends.push(Reverse(due));
            return;
        }
        if let Some(kv) = &self.kv
            && kv.reuses()
        {
            let size = kv.block_tokens();
            self.sequences[slot as usize].know_blocks(recipe.prompt.tokens() / size, size);
        }
        let stamp = self.stamp(slot);
        self.retry |= self.waiting.is_empty();
        self.waiting.push_back((slot, stamp));
    }

    fn cancel(&mut self, id: RequestId, now: Ns) {
        let Some(slot) = self.ids.get(&id).copied() else { return };
        self.now = self.now.max(now);
        self.vacate(slot, now);
        self.prune();
    }

    fn next_event(&self) -> Option<Ns> {
        let end = self.ends.peek().map(|Reverse(due)| due.at);
        let admission = self.admission_is_open().then_some(self.held);
        // What was due before the last submission is due at once: time does not go back.
        [end, self.token_time(), admission].into_iter().flatten().min().map(|at| at.max(self.now))
    }

    fn advance(&mut self, to: Ns, sink: &mut dyn Sink) {
        while let Some(at) = self.next_event().filter(|at| *at <= to) {
            self.round(at, sink);
        }
    }

    fn start_measuring(&mut self, now: Ns) {
        self.counters.restart(now);
    }

    fn stats(&self, now: Ns) -> EngineStats {
        self.counters.stats(now, self.kv.as_ref())
    }

    fn standing(&self) -> Option<Standing> {
        let count = |state| {
            self.ids.values().filter(|slot| self.sequences[**slot as usize].state == state).count() as u32
        };
        Some(Standing {
            running: count(State::Running),
            waiting: count(State::Waiting),
            kv: self.kv.as_ref().map(Into::into),
        })
    }

    fn forget_prefixes(&mut self) -> bool {
        if let Some(kv) = &mut self.kv {
            kv.forget();
        }
        true
    }
}

impl Engine for Mock {
    fn hold(&mut self, now: Ns, until: Ns) {
        let by = until.saturating_sub(now);
        let later = |Reverse(due): Reverse<Due>| Reverse(Due { at: due.at.saturating_add(by), ..due });
        self.tokens = std::mem::take(&mut self.tokens).into_iter().map(later).collect();
        (self.gate, self.held) = (self.gate.max(until), self.held.max(until));
    }

    fn cache_mut(&mut self) -> Option<&mut KvCache> {
        self.kv.as_mut()
    }

    fn preemptions(&self, id: RequestId) -> u32 {
        self.ids.get(&id).map_or(0, |slot| self.sequences[*slot as usize].preemptions)
    }
}

/// Builds the cache that a scenario asks for.
fn cache(kv: &Kv) -> Result<KvCache, MockError> {
    let block_tokens = kv.block_tokens.max(1);
    let size = u64::from(block_tokens);
    let tokens = match (kv.tokens, kv.blocks, kv.bytes) {
        (Some(tokens), None, None) => u64::from(tokens.0),
        (None, Some(blocks), None) => u64::from(blocks) * size,
        (None, None, Some(bytes)) => {
            bytes.0 / kv.bytes_per_token.filter(|n| *n > 0).ok_or(MockError::BytesPerToken)?
        }
        (tokens, blocks, bytes) => {
            let given = [tokens.is_some(), blocks.is_some(), bytes.is_some()];
            return Err(MockError::Sizes(given.into_iter().filter(|given| *given).count()));
        }
    };
    match tokens / size {
        0 => Err(MockError::Empty { tokens, block_tokens }),
        blocks if blocks > 1 << 24 => Err(MockError::TooLarge(blocks)),
        blocks => Ok(KvCache::new(blocks as u32, block_tokens, kv.prefix_cache)),
    }
}

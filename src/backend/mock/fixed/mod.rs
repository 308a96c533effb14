//! The mock's fixed mode, with constant (or drawn) TTFT and TBT.
//!
//! Each sequence has events of its own; there is no step that all share. At one instant, in this order:
//!
//! 1. What is due is told, in the order of request ids. A sequence that is finished lets go of its blocks.
//! 2. Each token that was emitted and is not its request's last gets a slot, in the order in which the sequences were
//!    admitted. When no block is free, the sequence that was admitted last is preempted (it may be the one that asks): it
//!    loses its blocks and goes to the front of the queue. When it comes back it pays its TTFT again.
//! 3. If nothing was preempted at this instant, the queue is admitted from its head, as far as there are blocks.

mod round;
mod sequence;
#[cfg(test)]
pub(super) mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::path::Path;

use rustc_hash::FxHashMap;

use self::sequence::{Running, Sequence, State};
use super::answer::Answers;
use super::counters::Counters;
use super::{Engine, MockError, cache};
use crate::backend::config::MockBackend;
use crate::backend::{EngineStats, Finish, RequestId, Sink, Standing, Stepped};
use crate::engine::KvCache;
use crate::plan::Recipe;
use crate::record::{Outcome, TokenSource};
use crate::sample::{Quantity, Sampler, Time};
use crate::units::{Duration, Ns};

/// The two laws of a mock, made ready for drawing: nanoseconds.
#[derive(Debug, Clone)]
pub struct Laws {
    /// From admission to the first token.
    pub ttft: Sampler,
    /// Between two tokens.
    pub tbt: Sampler,
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
    /// A mock for one cell. `families` are the names in the scenario of the workloads that it serves, in the order of
    /// [`Recipe::lane`], `seed` the scenario's: together they decide which texts requests are answered with.
    ///
    /// # Errors
    /// When the KV cache has no usable size, or the rate cap is 0.
    pub fn new(config: &MockBackend, laws: Laws, families: &[&str], seed: u64) -> Result<Self, MockError> {
        let kv = config.kv.as_ref().map(cache).transpose()?;
        let pace = match config.rate_cap {
            None => 0,
            Some(cap) if cap.0 > 0.0 => Duration::from_float(1e9 / cap.0).0.max(1),
            Some(_) => return Err(MockError::RateCap),
        };
        Ok(Self {
            laws,
            answers: Answers::group(&config.responses, families, seed),
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
    pub fn open(config: &MockBackend, families: &[&str], seed: u64, dir: &Path) -> Result<Self, MockError> {
        let law = |key, law: &Option<Time>| {
            let law = law.as_ref().ok_or(MockError::Missing(key))?;
            law.sampler(dir).map_err(|error| MockError::Law(key, error))
        };
        let (ttft, tbt) = (law("ttft", &config.ttft)?, law("tbt", &config.tbt)?);
        Self::new(config, Laws { ttft, tbt }, families, seed)
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
            retry_after: None,
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

//! Which sequences compute which tokens in the next step: continuous batching by the rules of vLLM v1's scheduler.
//!
//! 1. Running sequences come first, in the order of their admission. Each wants what is not computed of it, one token
//!    or the rest of its prompt, and drafts, clipped by the step's token budget. When no block is free, the sequence
//!    that was admitted last loses its blocks and goes to the front of the queue, to be computed again from its start.
//! 2. When nothing was preempted in the step, the queue is admitted from its head while the budget, the number of
//!    sequences and the blocks allow. A known prefix is taken from the cache, at most all but the last token.
//! 3. Blocks that a step fills can be found as soon as it is scheduled, also by who is admitted to the same step: a step
//!    writes keys and values before it looks back at them. Drafts are not counted, they may be rejected.
//! 4. When the step is done, a sequence that is computed to its end emits one token and its accepted drafts; the slots of
//!    rejected drafts are taken back; who is finished lets go of its blocks.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use self::wheel::Wheel;
use super::cache::{BlockTable, KvCache};
use super::pool::BlockId;
use super::step::{Emission, Scheduled, Step};

/// After so many tries without a single token to compute, scheduling is stuck.
const TRIES: u32 = 1_000;

/// What bounds a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// At most so many sequences run at once.
    pub sequences: u32,
    /// At most so many tokens are computed in one step.
    pub tokens: u32,
    /// Whether a prompt may be computed over several steps. Otherwise it waits for a step that takes it whole.
    pub chunked_prefill: bool,
    /// So many blocks stay free when a sequence is admitted beside others.
    pub watermark: u32,
    /// Draft tokens per step of a decoding sequence.
    pub drafts: u32,
}

/// What a sequence holds, block by block. Equal leading blocks mean an equal prefix.
pub trait Content {
    /// The identity of the `index`-th full block of prompt and output together.
    fn block(&self, index: u64) -> u64;

    /// How many drafts there are behind its last token, at most `most`.
    fn drafts(&self, most: u32) -> u32 {
        most
    }
}

/// A request for the scheduler.
#[derive(Debug, Clone)]
pub struct Request<C> {
    /// Its name, not in use by another request that is in flight.
    pub id: u64,
    /// Its own seed; handed to whoever decides about drafts.
    pub seed: u64,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Tokens that it emits.
    pub output_tokens: u32,
    /// What it holds.
    pub content: C,
}

/// Why a request can never run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Nothing to compute.
    #[error("a request needs at least 1 prompt and 1 output token, this one has {0} and {1}")]
    Empty(u32, u32),
    /// Larger than the cache.
    #[error("{prompt} prompt and {output} output tokens can never fit in a KV cache of {capacity}")]
    Cache {
        /// Tokens of its prompt.
        prompt: u32,
        /// Tokens of its output.
        output: u32,
        /// Tokens that the cache holds.
        capacity: u64,
    },
    /// Larger than a step, and prompts are not cut in pieces.
    #[error(
        "{prompt} prompt and {output} output tokens can never fit in a step of {budget} tokens; raise `max_num_batched_tokens` or turn `chunked_prefill` on"
    )]
    Step {
        /// Tokens of its prompt.
        prompt: u32,
        /// Tokens of its output.
        output: u32,
        /// Tokens in one step.
        budget: u32,
    },
}

/// Requests are in flight and none of them can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no request can go on after {TRIES} tries to make a step; raise `{setting}`")]
pub struct Stuck {
    /// The setting that allows nothing.
    pub setting: &'static str,
}

/// What was counted since the start, or since [`Scheduler::restart_counters`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Steps.
    pub steps: u64,
    /// Sequences in them, summed; over `steps` it is the mean batch.
    pub batched: u64,
    /// The most sequences in one step.
    pub max_batch: u32,
    /// Tokens whose keys and values were computed, again ones and rejected drafts included.
    pub computed_tokens: u64,
    /// Prompt tokens that were looked up in the cache at first admissions.
    pub queried_tokens: u64,
    /// Prompt tokens that were found in it at first admissions.
    pub hit_tokens: u64,
    /// Cached blocks that were dropped for reuse.
    pub evictions: u64,
    /// Preemptions.
    pub preemptions: u64,
    /// Draft tokens that were computed.
    pub draft_tokens: u64,
    /// Draft tokens that were accepted.
    pub accepted_tokens: u64,
}

/// How many requests went where, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ledger {
    submitted: u64,
    rejected: u64,
    finished: u64,
    cancelled: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    /// Its place is vacant.
    Gone,
}

#[derive(Debug)]
struct Sequence<C> {
    id: u64,
    seed: u64,
    /// Tells it from those that had its place before.
    serial: u64,
    state: State,
    prompt: u32,
    output: u32,
    emitted: u32,
    /// Tokens whose keys and values are in its blocks.
    computed: u32,
    preemptions: u32,
    /// Its place among all admissions.
    order: u64,
    /// Whether it rides.
    rides: bool,
    /// The turn of the wheel up to which a rider's numbers are right; of others, the turn of their last token.
    since: u64,
    /// Whether each of its tokens is told.
    followed: bool,
    table: BlockTable,
    /// `None` when its place is vacant.
    content: Option<C>,
}

impl<C: Content> Sequence<C> {
    /// Tokens of prompt and output so far.
    fn total(&self) -> u32 {
        self.prompt + self.emitted
    }

    /// What is told of `tokens` tokens that it has just emitted.
    fn emission(&self, tokens: u32) -> Emission {
        Emission {
            id: self.id,
            tokens,
            first: self.emitted == tokens,
            last: self.emitted == self.output,
            prompt_tokens: self.prompt,
            preemptions: self.preemptions,
            rode: self.rides && !self.followed,
        }
    }

    /// Tells the table the content of the first `blocks` full blocks.
    fn know_blocks(&mut self, blocks: u32) {
        let Some(content) = &self.content else { return };
        for index in self.table.known_blocks() as u64..u64::from(blocks) {
            self.table.push_content(content.block(index));
        }
    }
}

/// Schedules sequences over a cache, step by step.
///
/// [`Self::next_step`] says what to compute; when that is done, [`Self::finish_step`] says what came out. Requests may be
/// submitted and cancelled at any time; a request that is submitted while a step is in flight waits for the next one.
#[derive(Debug)]
pub struct Scheduler<C> {
    limits: Limits,
    cache: KvCache,
    sequences: Vec<Sequence<C>>,
    vacant: Vec<u32>,
    ids: FxHashMap<u64, u32>,
    /// In the order of admission.
    running: Vec<u32>,
    /// Slots and serials, the next one first. Entries of cancelled requests are skipped.
    waiting: VecDeque<(u32, u64)>,
    admissions: u64,
    wheel: Wheel,
    step: Step,
    in_flight: bool,
    ledger: Ledger,
    counters: Counters,
}

impl<C: Content> Scheduler<C> {
    /// A scheduler without requests.
    pub fn new(limits: Limits, cache: KvCache) -> Self {
        Self {
            limits,
            cache,
            sequences: Vec::new(),
            vacant: Vec::new(),
            ids: FxHashMap::default(),
            running: Vec::new(),
            waiting: VecDeque::new(),
            admissions: 0,
            wheel: Wheel::default(),
            step: Step::default(),
            in_flight: false,
            ledger: Ledger::default(),
            counters: Counters::default(),
        }
    }

    /// The KV cache.
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// The KV cache, to be made smaller or emptied while the scheduler runs.
    pub fn cache_mut(&mut self) -> &mut KvCache {
        &mut self.cache
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts from here on.
    pub fn restart_counters(&mut self) {
        self.counters = Counters::default();
    }

    /// Whether a request is running or waiting.
    pub fn has_work(&self) -> bool {
        !self.ids.is_empty()
    }

    /// Requests that are running.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests that are waiting.
    pub fn waiting(&self) -> usize {
        self.ids.len() - self.running.len()
    }

    /// How often a request that is running or waiting was preempted; 0 for an unknown one.
    pub fn preemptions(&self, id: u64) -> u32 {
        self.ids.get(&id).map_or(0, |slot| self.sequences[*slot as usize].preemptions)
    }

    /// The requests that are running or waiting, by id: their prompt tokens, and how often they were preempted.
    pub fn in_flight(&self) -> Vec<(u64, u32, u32)> {
        let of = |slot: &u32| &self.sequences[*slot as usize];
        let mut all: Vec<_> = self.ids.values().map(of).map(|s| (s.id, s.prompt, s.preemptions)).collect();
        all.sort_unstable();
        all
    }

    /// The blocks of a sequence of the step in flight, in order; empty when it was cancelled.
    pub fn blocks(&self, scheduled: &Scheduled) -> &[BlockId] {
        let sequence = &self.sequences[scheduled.slot as usize];
        if sequence.serial == scheduled.serial { sequence.table.blocks() } else { &[] }
    }

    /// Takes a request in, at the end of the queue.
    ///
    /// # Errors
    /// When it can never run; it is then forgotten.
    pub fn submit(&mut self, request: Request<C>) -> Result<(), Rejection> {
        self.ledger.submitted += 1;
        if let Some(rejection) = self.rejection(request.prompt_tokens, request.output_tokens) {
            self.ledger.rejected += 1;
            return Err(rejection);
        }
        let slot = self.vacant.pop().unwrap_or(self.sequences.len() as u32);
        let mut sequence = Sequence {
            id: request.id,
            seed: request.seed,
            serial: self.ledger.submitted,
            state: State::Waiting,
            prompt: request.prompt_tokens,
            output: request.output_tokens,
            emitted: 0,
            computed: 0,
            preemptions: 0,
            order: 0,
            rides: false,
            since: 0,
            followed: false,
            table: BlockTable::default(),
            content: Some(request.content),
        };
        self.ids.insert(sequence.id, slot);
        self.waiting.push_back((slot, sequence.serial));
        if let Some(place) = self.sequences.get_mut(slot as usize) {
            sequence.table = std::mem::take(&mut place.table);
            sequence.table.clear();
            *place = sequence;
        } else {
            self.sequences.push(sequence);
        }
        Ok(())
    }

    fn rejection(&self, prompt: u32, output: u32) -> Option<Rejection> {
        let tokens = u64::from(prompt) + u64::from(output);
        if prompt == 0 || output == 0 {
            Some(Rejection::Empty(prompt, output))
        } else if !self.cache.can_ever_fit(tokens) {
            let capacity = u64::from(self.cache.pool().total()) * u64::from(self.cache.block_tokens());
            Some(Rejection::Cache { prompt, output, capacity })
        } else if !self.limits.chunked_prefill && tokens > u64::from(self.limits.tokens) {
            Some(Rejection::Step { prompt, output, budget: self.limits.tokens })
        } else {
            None
        }
    }

    /// Gives a request up: its blocks are released, and the step in flight brings nothing of it. Unknown ids are ignored.
    pub fn cancel(&mut self, id: u64) {
        let Some(slot) = self.ids.get(&id).copied() else { return };
        let sequence = &self.sequences[slot as usize];
        if sequence.state == State::Running {
            if sequence.rides {
                self.alight(slot, u32::from(self.in_flight));
            }
            self.leave(slot);
        }
        self.vacate(slot);
        self.ledger.cancelled += 1;
    }

    /// What to compute next: the step in flight, else a new one; `None` when there is no request.
    ///
    /// # Errors
    /// When there are requests and the limits allow none of them to go on.
    pub fn next_step(&mut self) -> Result<Option<&Step>, Stuck> {
        if !self.has_work() && !self.in_flight {
            return Ok(None);
        }
        let mut tries = 0;
        while !self.in_flight {
            self.schedule();
            self.in_flight = self.step.batch() > 0;
            tries += 1;
            if tries == TRIES {
                return Err(self.stuck());
            }
        }
        Ok(Some(&self.step))
    }

    fn stuck(&self) -> Stuck {
        let setting = match self.limits {
            Limits { sequences: 0, .. } => "max_num_seqs",
            Limits { tokens: 0, .. } | Limits { chunked_prefill: false, .. } => "max_num_batched_tokens",
            _ => "kv",
        };
        Stuck { setting }
    }

    fn schedule(&mut self) {
        self.step.clear();
        let budget = self.schedule_riders();
        let budget = self.schedule_running(budget);
        if self.step.preemptions == 0 {
            self.admit(budget);
        }
        let (batch, counters) = (self.step.batch(), &mut self.counters);
        counters.steps += u64::from(batch > 0);
        counters.batched += u64::from(batch);
        counters.max_batch = counters.max_batch.max(batch);
        counters.computed_tokens += u64::from(self.step.tokens);
        counters.evictions += u64::from(self.step.evictions);
        counters.preemptions += u64::from(self.step.preemptions);
    }

    /// Rule 1, for those who do not ride. What is left of the token budget.
    fn schedule_running(&mut self, mut budget: u32) -> u32 {
        let mut at = self.wheel.riders as usize;
        while at < self.running.len() && budget > 0 {
            let slot = self.running[at];
            let sequence = &self.sequences[slot as usize];
            let rest = sequence.total() - sequence.computed;
            let mut drafts = 0;
            if rest == 1 && sequence.emitted > 0 {
                // What a draft behind the last token would be is never asked for.
                let most = self.limits.drafts.min(sequence.output - sequence.emitted - 1);
                drafts = sequence.content.as_ref().map_or(0, |content| content.drafts(most));
            }
            let tokens = (rest + drafts).min(budget);
            let drafts = drafts.min(tokens.saturating_sub(rest));
            if !self.make_room(slot, tokens) {
                break;
            }
            self.plan(slot, tokens, drafts);
            budget -= tokens;
            at += 1;
        }
        budget
    }

    /// Finds slots for so many more tokens, preempting from the end. Whether the sequence itself stayed.
    fn make_room(&mut self, slot: u32, tokens: u32) -> bool {
        loop {
            let sequence = &mut self.sequences[slot as usize];
            if let Some(evictions) = self.cache.grow(&mut sequence.table, sequence.computed + tokens) {
                self.step.evictions += evictions;
                return true;
            }
            let Some(victim) = self.running.pop() else { return false };
            let sequence = &mut self.sequences[victim as usize];
            self.cache.release(&mut sequence.table);
            sequence.state = State::Waiting;
            sequence.computed = 0;
            sequence.preemptions += 1;
            self.waiting.push_front((victim, sequence.serial));
            self.step.preemptions += 1;
            if victim == slot {
                return false;
            }
        }
    }

    /// Rule 2.
    fn admit(&mut self, mut budget: u32) {
        while budget > 0 && self.running.len() < self.limits.sequences as usize {
            let Some((slot, serial)) = self.waiting.front().copied() else { return };
            let sequence = &mut self.sequences[slot as usize];
            if sequence.serial != serial || sequence.state != State::Waiting {
                self.waiting.pop_front();
                continue;
            }
            let total = sequence.total();
            if self.cache.reuses() {
                sequence.know_blocks(total / self.cache.block_tokens());
            }
            let prefix = self.cache.lookup(&sequence.table, total - 1);
            let rest = total - prefix.tokens;
            if rest > budget && !self.limits.chunked_prefill {
                return;
            }
            let tokens = rest.min(budget);
            let spare = if self.running.is_empty() { 0 } else { self.limits.watermark };
            let upto = prefix.tokens + tokens;
            let Some(admission) = self.cache.admit_behind(&mut sequence.table, prefix, upto, spare) else {
                return;
            };
            sequence.state = State::Running;
            sequence.order = self.admissions;
            self.admissions += 1;
            sequence.computed = admission.hit_tokens;
            if sequence.preemptions == 0 && self.cache.reuses() {
                self.counters.queried_tokens += u64::from(total);
                self.counters.hit_tokens += u64::from(admission.hit_tokens);
            }
            if sequence.preemptions == 0 {
                self.step.admitted.push(sequence.id);
            }
            self.step.evictions += admission.evictions;
            self.waiting.pop_front();
            self.running.push(slot);
            self.plan(slot, tokens, 0);
            budget -= tokens;
        }
    }

    /// Puts a sequence in the step, and its full blocks in the index (rule 3).
    fn plan(&mut self, slot: u32, tokens: u32, drafts: u32) {
        let sequence = &mut self.sequences[slot as usize];
        if self.cache.reuses() {
            let known = (sequence.computed + tokens - drafts).min(sequence.total());
            sequence.know_blocks(known / self.cache.block_tokens());
            self.cache.publish(&mut sequence.table, known);
        }
        self.step.push(Scheduled {
            id: sequence.id,
            seed: sequence.seed,
            context: sequence.computed,
            tokens,
            drafts,
            position: sequence.emitted,
            emits: sequence.computed + tokens - drafts == sequence.total(),
            slot,
            serial: sequence.serial,
        });
    }

    /// Ends the step in flight (rule 4). `accepted` says how many of a sequence's drafts are accepted, asked only of those
    /// that have some; `emit` hears what came out, in the order of the step.
    pub fn finish_step(
        &mut self,
        mut accepted: impl FnMut(&Scheduled) -> u32,
        mut emit: impl FnMut(Emission),
    ) {
        if !std::mem::take(&mut self.in_flight) {
            return;
        }
        self.finish_riders(&mut emit);
        let mut ended = false;
        let step = std::mem::take(&mut self.step);
        for scheduled in &step.sequences {
            let sequence = &mut self.sequences[scheduled.slot as usize];
            if sequence.serial != scheduled.serial || sequence.state != State::Running {
                continue;
            }
            let kept = match scheduled.drafts {
                0 => 0,
                drafts => accepted(scheduled).min(drafts),
            };
            self.counters.draft_tokens += u64::from(scheduled.drafts);
            self.counters.accepted_tokens += u64::from(kept);
            sequence.computed += scheduled.tokens - (scheduled.drafts - kept);
            if kept < scheduled.drafts {
                self.cache.retract(&mut sequence.table, sequence.computed);
            }
            let tokens = if scheduled.emits { 1 + kept } else { 0 };
            sequence.emitted += tokens;
            if tokens == 0 {
                continue;
            }
            sequence.since = self.wheel.turn;
            let emission = sequence.emission(tokens);
            emit(emission);
            if emission.last {
                self.vacate(scheduled.slot);
                self.ledger.finished += 1;
                ended = true;
            }
        }
        self.step = step;
        if ended {
            let sequences = &self.sequences;
            self.running.retain(|slot| sequences[*slot as usize].state == State::Running);
        }
        self.board();
    }

    /// Forgets a sequence and frees what it holds.
    fn vacate(&mut self, slot: u32) {
        let sequence = &mut self.sequences[slot as usize];
        self.cache.release(&mut sequence.table);
        sequence.state = State::Gone;
        sequence.content = None;
        self.ids.remove(&sequence.id);
        self.vacant.push(slot);
    }
}

mod check;
mod wheel;

#[cfg(test)]
mod tests;

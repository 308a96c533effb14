//! What happens at one instant.

use std::cmp::Reverse;

use super::sequence::State;
use super::{Due, Mock};
use crate::backend::Sink;
use crate::plan::Recipe;
use crate::record::Outcome;
use crate::sample::{Draws, Quantity, Sampler};
use crate::units::{Duration, Ns};

impl Mock {
    /// Whether the queue is to be looked at without anything else happening.
    pub(super) fn admission_is_open(&self) -> bool {
        let refused = self.preempted_at == Some(self.now) && !self.running.is_empty();
        self.retry && !refused && !self.waiting.is_empty()
    }

    /// Everything that happens at `at`.
    pub(super) fn round(&mut self, at: Ns, sink: &mut dyn Sink) {
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
}

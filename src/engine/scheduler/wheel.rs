//! Many steps at the cost of few: sequences that decode one token in every step are not looked at one by one.
//!
//! Such a sequence *rides*. What a step does to it follows from how many steps it has been riding, so a step only adds up:
//! riders, and the tokens that they look back at. It looks at a rider when the rider needs a block or has filled one,
//! which is once in `block_tokens` steps and told by a bucket, and when it is finished, which is told by a heap.
//!
//! Riders are always the first of the running sequences. Whatever the simple rules would treat otherwise than one token
//! and at most one block for each, a budget smaller than the batch or a cache without a free block, ends all riding:
//! the step is then made by the simple rules, and who still decodes after it rides again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Content, Emission, Scheduler, Sequence, State};

/// The end of a rider. Ordered by turn, then by admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    turn: u64,
    order: u64,
    slot: u32,
}

/// Who rides, and when each is looked at. Turns count the steps that have ended.
#[derive(Debug, Default)]
pub(super) struct Wheel {
    /// Whether anyone may ride.
    pub(super) on: bool,
    pub(super) turn: u64,
    /// How many ride: the first ones of `running`.
    pub(super) riders: u32,
    /// Tokens computed of all riders together.
    pub(super) context: u64,
    /// Slots of riders in the order of admission, by the remainder of (computed − turn) by the size of a block.
    buckets: Vec<Vec<u32>>,
    /// Entries of riders that are gone are skipped.
    ends: BinaryHeap<Reverse<End>>,
    /// Riders whose every token is told, in the order of admission.
    followed: Vec<u32>,
    /// Who rides no more since the last step began, and who rides since the last step ended.
    pub(super) alighted: Vec<u64>,
    pub(super) boarded: Vec<u64>,
    /// Riders to look at in a step; kept for its memory.
    due: Vec<(u64, u32)>,
}

impl Wheel {
    fn bucket(&self, computed: u32, turn: u64) -> usize {
        let size = self.buckets.len() as u64;
        ((u64::from(computed) + size - turn % size) % size) as usize
    }
}

impl<C> Sequence<C> {
    /// Brings a rider's numbers up to the end of `turn`.
    fn catch_up(&mut self, turn: u64) {
        let steps = (turn - self.since) as u32;
        self.emitted += steps;
        self.computed += steps;
        self.since = turn;
    }
}

impl<C: Content> Scheduler<C> {
    /// From here on, sequences that decode a token in every step are not listed in [`Step::sequences`](crate::engine::Step)
    /// but counted in its `riding`, and their tokens are not told one by one: [`Self::boarded`] says whose, and
    /// [`Self::alighted`] until when. Everything else stays as it is, to the last block. With drafts nobody rides.
    pub fn fold_steps(&mut self) {
        self.wheel.on = self.limits.drafts == 0;
        self.wheel.buckets.resize(self.cache.block_tokens() as usize, Vec::new());
    }

    /// Has every token of a request told, also where steps are folded. Unknown ids are ignored.
    pub fn follow(&mut self, id: u64) {
        let Some(slot) = self.ids.get(&id).copied() else { return };
        let sequence = &mut self.sequences[slot as usize];
        if !std::mem::replace(&mut sequence.followed, true) && sequence.rides {
            let order = sequence.order;
            insert(&mut self.wheel.followed, &self.sequences, slot, order);
        }
    }

    /// Who is told no more, since the last step ended: a token comes out of each in every further step, until it
    /// alights, is cancelled, or its last token is told.
    pub fn boarded(&self) -> &[u64] {
        &self.wheel.boarded
    }

    /// Who is told again, from the step that was begun last.
    pub fn alighted(&self) -> &[u64] {
        &self.wheel.alighted
    }

    /// Schedules all riders, where each of them gets its token and its block. What is left of the token budget.
    pub(super) fn schedule_riders(&mut self) -> u32 {
        self.wheel.alighted.clear();
        let riders = self.wheel.riders;
        if riders == 0 {
            return self.limits.tokens;
        }
        let (turn, size) = (self.wheel.turn, self.wheel.buckets.len());
        let growing = self.wheel.bucket(0, turn);
        let wanted = self.wheel.buckets[growing].len();
        if riders > self.limits.tokens || wanted > self.cache.pool().free() as usize {
            self.alight_all();
            return self.limits.tokens;
        }
        for at in 0..wanted {
            let sequence = &mut self.sequences[self.wheel.buckets[growing][at] as usize];
            sequence.catch_up(turn);
            self.cache.settle(&mut sequence.table, sequence.computed);
            self.step.evictions += self.cache.extend(&mut sequence.table);
        }
        if self.cache.reuses() {
            let filling = (growing + size - 1) % size;
            for at in 0..self.wheel.buckets[filling].len() {
                let sequence = &mut self.sequences[self.wheel.buckets[filling][at] as usize];
                sequence.catch_up(turn);
                sequence.know_blocks((sequence.computed + 1) / size as u32);
                self.cache.publish(&mut sequence.table, sequence.computed + 1);
            }
        }
        self.cache.count(riders);
        self.step.ride(riders, self.wheel.context);
        self.limits.tokens - riders
    }

    /// Ends a step for all riders: tells the tokens of those who are finished or followed.
    pub(super) fn finish_riders(&mut self, emit: &mut impl FnMut(Emission)) {
        self.wheel.turn += 1;
        self.wheel.context += u64::from(self.wheel.riders);
        let mut due = std::mem::take(&mut self.wheel.due);
        while let Some(Reverse(end)) =
            self.wheel.ends.peek().copied().filter(|end| end.0.turn <= self.wheel.turn)
        {
            self.wheel.ends.pop();
            if self.is_rider(end.slot, end.order) {
                due.push((end.order, end.slot));
            }
        }
        let followed = self.wheel.followed.iter().map(|slot| (self.sequences[*slot as usize].order, *slot));
        due.extend(followed);
        due.sort_unstable();
        due.dedup();
        for (_, slot) in due.drain(..) {
            let sequence = &mut self.sequences[slot as usize];
            sequence.catch_up(self.wheel.turn);
            let emission = sequence.emission(1);
            emit(emission);
            if emission.last {
                self.alight(slot, 0);
                self.leave(slot);
                self.vacate(slot);
                self.ledger.finished += 1;
            }
        }
        self.wheel.due = due;
    }

    /// Lets everyone ride who only decodes and had a token in this very step, as long as all before it ride: the gap before
    /// a rider's token is the length of the step.
    pub(super) fn board(&mut self) {
        self.wheel.boarded.clear();
        if !self.wheel.on || self.running.len() > self.limits.tokens as usize {
            return;
        }
        while let Some(slot) = self.running.get(self.wheel.riders as usize).copied() {
            let (turn, sequence) = (self.wheel.turn, &mut self.sequences[slot as usize]);
            let is_due = sequence.emitted > 0 && sequence.total() - sequence.computed == 1;
            if !is_due || sequence.since != turn {
                break;
            }
            (sequence.rides, sequence.since) = (true, turn);
            self.wheel.riders += 1;
            self.wheel.context += u64::from(sequence.computed);
            let (order, bucket) = (sequence.order, self.wheel.bucket(sequence.computed, turn));
            let end = End { turn: turn + u64::from(sequence.output - sequence.emitted), order, slot };
            if sequence.followed {
                insert(&mut self.wheel.followed, &self.sequences, slot, order);
            } else {
                self.wheel.boarded.push(sequence.id);
            }
            insert(&mut self.wheel.buckets[bucket], &self.sequences, slot, order);
            self.wheel.ends.push(Reverse(end));
        }
        if self.wheel.ends.len() > 64 + 2 * self.wheel.riders as usize {
            let mut ends = std::mem::take(&mut self.wheel.ends);
            ends.retain(|Reverse(end)| self.is_rider(end.slot, end.order));
            self.wheel.ends = ends;
        }
    }

    fn is_rider(&self, slot: u32, order: u64) -> bool {
        let sequence = &self.sequences[slot as usize];
        sequence.rides && sequence.order == order
    }

    /// Lets one rider go, who has `scheduled` tokens in the step in flight. It stays in `running`.
    pub(super) fn alight(&mut self, slot: u32, scheduled: u32) {
        let turn = self.wheel.turn;
        let sequence = &mut self.sequences[slot as usize];
        sequence.catch_up(turn);
        sequence.rides = false;
        self.cache.settle(&mut sequence.table, sequence.computed + scheduled);
        self.wheel.riders -= 1;
        self.wheel.context -= u64::from(sequence.computed);
        let (order, followed) = (sequence.order, sequence.followed);
        let bucket = self.wheel.bucket(sequence.computed, turn);
        remove(&mut self.wheel.buckets[bucket], &self.sequences, order);
        if followed {
            remove(&mut self.wheel.followed, &self.sequences, order);
        }
    }

    /// Ends all riding, before a step that the simple rules make.
    fn alight_all(&mut self) {
        let turn = self.wheel.turn;
        for at in 0..std::mem::take(&mut self.wheel.riders) as usize {
            let sequence = &mut self.sequences[self.running[at] as usize];
            sequence.catch_up(turn);
            sequence.rides = false;
            self.cache.settle(&mut sequence.table, sequence.computed);
            let (bucket, id) = (self.wheel.bucket(sequence.computed, turn), sequence.id);
            self.wheel.buckets[bucket].clear();
            if !sequence.followed {
                self.wheel.alighted.push(id);
            }
        }
        self.wheel.context = 0;
        self.wheel.ends.clear();
        self.wheel.followed.clear();
    }

    /// Brings the numbers of all riders up to date, for whoever looks at them.
    pub(super) fn catch_up(&mut self) {
        let scheduled = u32::from(self.in_flight);
        for slot in &self.running[..self.wheel.riders as usize] {
            let sequence = &mut self.sequences[*slot as usize];
            sequence.catch_up(self.wheel.turn);
            self.cache.settle(&mut sequence.table, sequence.computed + scheduled);
        }
    }

    /// Takes a sequence off the list of those that run.
    pub(super) fn leave(&mut self, slot: u32) {
        let order = self.sequences[slot as usize].order;
        remove(&mut self.running, &self.sequences, order);
    }

    /// The rules that hold for riders.
    pub(super) fn check_wheel(&self) -> Result<(), String> {
        let riders = self.wheel.riders as usize;
        let rides = |slot: &u32| self.sequences[*slot as usize].rides;
        if !self.running[..riders].iter().all(rides) || self.running[riders..].iter().any(rides) {
            return Err("the riders are not the first of the running sequences".into());
        }
        let context: u64 = self.running[..riders]
            .iter()
            .map(|slot| u64::from(self.sequences[*slot as usize].computed))
            .sum();
        let in_buckets: usize = self.wheel.buckets.iter().map(Vec::len).sum();
        let gone = self.sequences.iter().any(|sequence| sequence.rides && sequence.state != State::Running);
        if context != self.wheel.context || in_buckets != riders || gone {
            return Err(format!(
                "{riders} riders have {context} tokens computed, {in_buckets} are in buckets and {} tokens counted",
                self.wheel.context
            ));
        }
        Ok(())
    }
}

/// The place of an admission in a list that is in the order of admission.
fn place<C>(list: &[u32], sequences: &[Sequence<C>], order: u64) -> usize {
    list.partition_point(|slot| sequences[*slot as usize].order < order)
}

fn insert<C>(list: &mut Vec<u32>, sequences: &[Sequence<C>], slot: u32, order: u64) {
    list.insert(place(list, sequences, order), slot);
}

fn remove<C>(list: &mut Vec<u32>, sequences: &[Sequence<C>], order: u64) {
    let at = place(list, sequences, order);
    if list.get(at).is_some_and(|slot| sequences[*slot as usize].order == order) {
        list.remove(at);
    }
}

//! The KV cache: a pool of blocks, the index of what they hold, and the table of each sequence.

use super::pool::{BlockId, BlockPool};
use super::prefix::{BlockHash, PrefixIndex, chain};

/// The blocks of one sequence, in order, and the hashes of what it has in full blocks.
#[derive(Debug, Clone, Default)]
pub struct BlockTable {
    blocks: Vec<BlockId>,
    /// Tokens that have a slot.
    tokens: u32,
    /// Hashes of the sequence's full blocks, as far as they are known. Kept when the blocks are released, so that a
    /// preempted sequence finds them again.
    hashes: Vec<BlockHash>,
    /// Leading blocks that were looked at for the index.
    published: usize,
}

impl BlockTable {
    /// Adds the content of the sequence's next full block.
    pub fn push_content(&mut self, content: u64) {
        let hash = chain(self.hashes.last().copied(), content);
        self.hashes.push(hash);
    }

    /// How many full blocks have their content.
    pub fn known_blocks(&self) -> usize {
        self.hashes.len()
    }

    /// Blocks that it holds.
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// Tokens that have a slot.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Makes a table without blocks ready for another sequence; its memory stays.
    pub fn clear(&mut self) {
        debug_assert!(self.blocks.is_empty(), "blocks are released, not forgotten");
        self.hashes.clear();
    }
}

/// The leading blocks of a sequence that are in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Tokens in them.
    pub tokens: u32,
    blocks: u32,
    /// How many of them nobody holds.
    revived: u32,
}

/// What a sequence found when it was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Tokens that were in the cache.
    pub hit_tokens: u32,
    /// Cached blocks that were dropped for it.
    pub evictions: u32,
}

/// How long evictions take. It is no part of what a cache holds: caches that differ in it are equal.
#[derive(Debug, Clone, Copy, Default)]
struct Watch {
    /// Reads the time in nanoseconds, where evictions are timed.
    clock: Option<fn() -> u64>,
    total: u64,
}

impl PartialEq for Watch {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Watch {
    fn now(&self) -> u64 {
        self.clock.map_or(0, |clock| clock())
    }
}

/// A pool with its index.
#[derive(Debug, Clone, PartialEq)]
pub struct KvCache {
    pool: BlockPool,
    index: PrefixIndex,
    block_tokens: u32,
    reuse: bool,
    watch: Watch,
}

impl KvCache {
    /// A cache of `blocks` blocks of `block_tokens` tokens (at least 1), all free. With `reuse`, full blocks are found
    /// again by later sequences.
    pub fn new(blocks: u32, block_tokens: u32, reuse: bool) -> Self {
        Self {
            pool: BlockPool::new(blocks),
            index: PrefixIndex::default(),
            block_tokens: block_tokens.max(1),
            reuse,
            watch: Watch::default(),
        }
    }

    /// Lets evictions be timed by a clock of nanoseconds.
    #[must_use]
    pub fn timed(self, clock: fn() -> u64) -> Self {
        Self { watch: Watch { clock: Some(clock), total: 0 }, ..self }
    }

    /// The time that evictions took: taking the block from the free list and its content from the index. 0 without a clock.
    pub fn evict_ns(&self) -> u64 {
        self.watch.total
    }

    /// Its blocks.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Tokens in one block.
    pub fn block_tokens(&self) -> u32 {
        self.block_tokens
    }

    /// Whether full blocks are found again.
    pub fn reuses(&self) -> bool {
        self.reuse
    }

    /// Leaves only `blocks` blocks. Free ones go at once, the longest unused first, and others as they become free. Whoever
    /// does not find one any more is for the caller to preempt, as when the cache is full.
    pub fn shrink(&mut self, blocks: u32) {
        self.pool.shrink(blocks);
        self.retire();
    }

    /// Takes out what has to go, as far as it is free. Its content is dropped, and that is no eviction: nobody reuses it.
    fn retire(&mut self) {
        while let Some((block, dropped)) = self.pool.retire() {
            if let Some(hash) = dropped {
                self.index.forget(hash, block);
            }
        }
    }

    /// Forgets the content of all blocks: nothing is found again before it is computed and published anew.
    pub fn forget(&mut self) {
        self.pool.clear_hashes();
        self.index = PrefixIndex::default();
    }

    /// Whether a sequence that grows to so many tokens fits when it is alone.
    pub fn can_ever_fit(&self, tokens: u64) -> bool {
        tokens.div_ceil(u64::from(self.block_tokens)) <= u64::from(self.pool.total())
    }

    /// Gives an empty table slots for `tokens` tokens: blocks of a known prefix first, at most `tokens - 1` tokens of it
    /// since the last token has to be computed, then free ones. `None`, and nothing changes, when there are too few.
    pub fn admit(&mut self, table: &mut BlockTable, tokens: u32) -> Option<Admission> {
        let prefix = self.lookup(table, tokens.saturating_sub(1));
        self.admit_behind(table, prefix, tokens, 0)
    }

    /// Finds how many of the leading blocks of an empty table, at most `tokens` tokens, are in the cache.
    pub fn lookup(&self, table: &BlockTable, tokens: u32) -> Prefix {
        let findable = if self.reuse { tokens / self.block_tokens } else { 0 };
        let (mut blocks, mut revived) = (0, 0);
        for hash in table.hashes.iter().take(findable as usize) {
            let Some(block) = self.index.get(*hash) else { break };
            blocks += 1;
            revived += u32::from(self.pool.is_free(block));
        }
        Prefix { tokens: blocks * self.block_tokens, blocks, revived }
    }

    /// Gives an empty table the blocks of a prefix that [`Self::lookup`] has just found, and free ones behind it until
    /// `tokens` tokens have a slot. `None`, and nothing changes, when fewer than `spare` blocks would stay free.
    pub fn admit_behind(
        &mut self,
        table: &mut BlockTable,
        prefix: Prefix,
        tokens: u32,
        spare: u32,
    ) -> Option<Admission> {
        debug_assert!(table.blocks.is_empty(), "only a sequence without blocks is admitted");
        let wanted = u64::from(tokens.div_ceil(self.block_tokens).saturating_sub(prefix.blocks));
        if wanted + u64::from(prefix.revived) + u64::from(spare) > u64::from(self.pool.free()) {
            return None;
        }
        for hash in &table.hashes[..prefix.blocks as usize] {
            if let Some(block) = self.index.get(*hash) {
                self.pool.hold(block);
                table.blocks.push(block);
            }
        }
        table.published = prefix.blocks as usize;
        table.tokens = prefix.tokens;
        let evictions = self.grow(table, tokens)?;
        Some(Admission { hit_tokens: prefix.tokens, evictions })
    }

    /// Gives one more token a slot. The number of cached blocks that were dropped for it (0 or 1), or `None` when no
    /// block is free.
    pub fn append(&mut self, table: &mut BlockTable) -> Option<u32> {
        self.grow(table, table.tokens + 1)
    }

    /// Gives slots to the tokens of a table up to the first `tokens`. The number of cached blocks that were dropped for
    /// it, or `None`, and nothing changes, when there are too few.
    pub fn grow(&mut self, table: &mut BlockTable, tokens: u32) -> Option<u32> {
        let missing = (tokens.div_ceil(self.block_tokens) as usize).saturating_sub(table.blocks.len());
        if missing > self.pool.free() as usize {
            return None;
        }
        let evictions = (0..missing).map(|_| self.extend(table)).sum();
        self.count(tokens.saturating_sub(table.tokens));
        self.settle(table, tokens);
        Some(evictions)
    }

    /// Gives a table one more block, without slots. The number of cached blocks that were dropped for it, 0 or 1; nothing
    /// happens when no block is free.
    pub(super) fn extend(&mut self, table: &mut BlockTable) -> u32 {
        let start = self.watch.now();
        let Some((block, evicted)) = self.pool.take() else { return 0 };
        table.blocks.push(block);
        let Some(hash) = evicted else { return 0 };
        self.index.forget(hash, block);
        self.watch.total += self.watch.now() - start;
        1
    }

    /// Counts `tokens` tokens as resident that [`Self::settle`] gives their slots later.
    pub(super) fn count(&mut self, tokens: u32) {
        self.pool.count(tokens);
    }

    /// Gives slots in the blocks of a table to its tokens up to the first `tokens`, which are counted already.
    pub(super) fn settle(&mut self, table: &mut BlockTable, tokens: u32) {
        while table.tokens < tokens {
            let room = self.block_tokens - table.tokens % self.block_tokens;
            let filled = room.min(tokens - table.tokens);
            self.pool.settle(table.blocks[(table.tokens / self.block_tokens) as usize], filled);
            table.tokens += filled;
        }
    }

    /// Takes back the slots behind the first `tokens` tokens, which must not reach into published blocks. The blocks
    /// stay with the table: it is about to grow again.
    pub fn retract(&mut self, table: &mut BlockTable, tokens: u32) {
        while table.tokens > tokens {
            let at = (table.tokens - 1) / self.block_tokens;
            let emptied = table.tokens - tokens.max(at * self.block_tokens);
            self.pool.unfill(table.blocks[at as usize], emptied);
            table.tokens -= emptied;
        }
    }

    /// Enters the sequence's full blocks in the index, as far as they lie in its first `tokens` tokens and their content is
    /// known. Whether anything can be found that could not be found before.
    pub fn publish(&mut self, table: &mut BlockTable, tokens: u32) -> bool {
        if !self.reuse {
            return false;
        }
        let full = ((tokens / self.block_tokens) as usize).min(table.hashes.len()).min(table.blocks.len());
        let mut new = false;
        while table.published < full {
            let (block, hash) = (table.blocks[table.published], table.hashes[table.published]);
            new |= self.index.publish(hash, block);
            self.pool.set_hash(block, hash);
            table.published += 1;
        }
        new
    }

    /// Takes all blocks from a sequence, the last one first, so that the start of the sequence is found longest.
    pub fn release(&mut self, table: &mut BlockTable) {
        while let Some(block) = table.blocks.pop() {
            self.pool.release(block);
        }
        table.tokens = 0;
        table.published = 0;
        self.retire();
    }

    /// Holds the cache against its rules, given the tables of all sequences: [`BlockPool::check`], every token with
    /// a slot lies in a block, and the index points exactly to the blocks that carry a hash.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check<'a>(&self, tables: impl Iterator<Item = &'a BlockTable>) -> Result<(), String> {
        let mut held = 0;
        for table in tables {
            held += table.blocks.len() as u64;
            let wanted = table.tokens.div_ceil(self.block_tokens) as usize;
            if table.blocks.len() < wanted {
                return Err(format!("{} tokens lie in {} blocks", table.tokens, table.blocks.len()));
            }
        }
        self.pool.check(held)?;
        let (mut hashed, mut twins) = (0, 0);
        for (block, hash) in self.pool.hashes() {
            let at = self.index.all(hash).position(|other| other == block);
            let Some(at) = at else { return Err(format!("the index does not point to {block:?}")) };
            hashed += usize::from(at == 0);
            twins += usize::from(at > 0 || self.index.all(hash).nth(1).is_some());
        }
        if (hashed, twins) != (self.index.len(), self.index.twins()) {
            return Err(format!(
                "{hashed} contents are in blocks and {twins} blocks are not alone, {} and {} are in the index",
                self.index.len(),
                self.index.twins()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(contents: &[u64]) -> BlockTable {
        let mut table = BlockTable::default();
        for content in contents {
            table.push_content(*content);
        }
        table
    }

    #[test]
    fn a_prefix_is_found_but_for_its_last_token() {
        let mut cache = KvCache::new(8, 4, true);
        let mut first = table(&[1, 2]);
        assert_eq!(cache.admit(&mut first, 8), Some(Admission { hit_tokens: 0, evictions: 0 }));
        cache.publish(&mut first, 8);
        let mut same = table(&[1, 2]);
        assert_eq!(cache.admit(&mut same, 8).unwrap().hit_tokens, 4, "the last token has to be computed");
        let mut longer = table(&[1, 2]);
        assert_eq!(cache.admit(&mut longer, 9).unwrap().hit_tokens, 8);
        assert_eq!(cache.pool().used(), 4);
        assert_eq!(cache.pool().resident_tokens(), 8 + 4 + 1, "a shared block counts once");
        cache.check([&first, &same, &longer].into_iter()).unwrap();
    }

    #[test]
    fn another_first_block_hides_an_equal_second_one() {
        let mut cache = KvCache::new(8, 4, true);
        let mut first = table(&[1, 2]);
        cache.admit(&mut first, 8).unwrap();
        cache.publish(&mut first, 8);
        assert_eq!(cache.admit(&mut table(&[3, 2]), 12).unwrap().hit_tokens, 0);
    }

    #[test]
    fn equal_blocks_are_both_kept_and_the_first_is_found() {
        let mut cache = KvCache::new(4, 4, true);
        let mut first = table(&[1]);
        cache.admit(&mut first, 4).unwrap();
        assert!(cache.publish(&mut first, 4));
        let old = first.blocks()[0];
        cache.release(&mut first);
        // The same prompt again: its last token has to be computed, so its only block is computed anew.
        let mut again = table(&[1]);
        assert_eq!(cache.admit(&mut again, 4), Some(Admission { hit_tokens: 0, evictions: 0 }));
        assert!(!cache.publish(&mut again, 4), "nothing more can be found than before");
        assert_eq!(cache.index.get(again.hashes[0]), Some(old));
        cache.check([&again].into_iter()).unwrap();
        // All other blocks are taken, the first copy among them.
        assert_eq!(cache.admit(&mut table(&[]), 12), Some(Admission { hit_tokens: 0, evictions: 1 }));
        cache.release(&mut again);
        assert_eq!(cache.admit(&mut table(&[1]), 5), None);
        assert_eq!(cache.lookup(&table(&[1]), 4).tokens, 4, "the fresh copy is still found");
    }

    #[test]
    fn an_eviction_is_the_reuse_of_a_block_that_could_be_found() {
        let mut cache = KvCache::new(2, 4, true);
        let mut first = table(&[1]);
        cache.admit(&mut first, 5).unwrap();
        cache.publish(&mut first, 5);
        cache.release(&mut first);
        let mut second = table(&[2]);
        assert_eq!(cache.admit(&mut second, 4).unwrap().evictions, 0, "the partial block comes first");
        assert_eq!(cache.append(&mut second), Some(1));
        assert_eq!(cache.admit(&mut first, 5), None);
        cache.check([&first, &second].into_iter()).unwrap();
    }

    #[test]
    fn a_cache_that_shrinks_drops_what_is_free_and_waits_for_the_rest() {
        let mut cache = KvCache::new(4, 4, true);
        let (mut first, mut second) = (table(&[1]), table(&[2]));
        cache.admit(&mut first, 5).unwrap();
        cache.admit(&mut second, 4).unwrap();
        cache.publish(&mut second, 4);
        cache.release(&mut second);
        // Two blocks are held, two are free: both go, and one of those that are held has to follow.
        cache.shrink(1);
        assert_eq!((cache.pool().total(), cache.pool().free(), cache.pool().used()), (1, 0, 2));
        assert_eq!(cache.lookup(&second, 4).tokens, 0, "what is gone is not found");
        cache.release(&mut first);
        assert_eq!((cache.pool().total(), cache.pool().free(), cache.pool().used()), (1, 1, 0));
        assert!(cache.can_ever_fit(4) && !cache.can_ever_fit(5));
        cache.check(std::iter::empty()).unwrap();
    }

    #[test]
    fn blocks_of_a_prefix_that_are_free_are_not_counted_as_room() {
        let mut cache = KvCache::new(2, 4, true);
        let mut first = table(&[1]);
        cache.admit(&mut first, 4).unwrap();
        cache.publish(&mut first, 4);
        cache.release(&mut first);
        let mut long = table(&[1]);
        assert_eq!(cache.admit(&mut long, 12), None);
        assert_eq!(cache.admit(&mut long, 8).unwrap(), Admission { hit_tokens: 4, evictions: 0 });
    }

    proptest! {
        #[test]
        fn the_rules_hold_after_any_operations(
            blocks in 1_u32..12,
            block_tokens in 1_u32..5,
            reuse: bool,
            operations in prop::collection::vec((0_usize..4, 0_u8..6, 1_u32..20, 0_u64..3), 1..120),
        ) {
            let mut cache = KvCache::new(blocks, block_tokens, reuse);
            let mut tables: Vec<BlockTable> = vec![BlockTable::default(); 4];
            for (at, operation, tokens, content) in operations {
                let table = &mut tables[at];
                match operation {
                    0 if table.blocks().is_empty() => {
                        while table.known_blocks() < (tokens / block_tokens) as usize {
                            table.push_content(content);
                        }
                        let admitted = cache.admit(table, tokens);
                        prop_assert_eq!(admitted.is_some(), table.tokens() == tokens);
                    }
                    1 if !table.blocks().is_empty() => {
                        let before = table.tokens();
                        let appended = cache.append(table);
                        prop_assert_eq!(appended.is_some(), table.tokens() == before + 1);
                        if table.tokens().is_multiple_of(block_tokens)
                            && table.known_blocks() < (table.tokens() / block_tokens) as usize
                        {
                            table.push_content(content);
                        }
                    }
                    2 => {
                        let computed = table.tokens();
                        cache.publish(table, computed);
                    }
                    3 => cache.release(table),
                    // Rarely, so that something is left.
                    4 if tokens == 1 => {
                        let total = cache.pool().total();
                        cache.shrink(total.saturating_sub(1));
                        prop_assert_eq!(cache.pool().total(), total.saturating_sub(1));
                    }
                    5 if tokens == 1 => {
                        cache.forget();
                        prop_assert_eq!(cache.lookup(&tables[at], 1 << 20).tokens, 0);
                    }
                    _ => {}
                }
                prop_assert_eq!(cache.check(tables.iter()), Ok(()));
            }
            for table in &mut tables {
                cache.release(table);
            }
            prop_assert_eq!(cache.pool().used(), 0);
            prop_assert_eq!(cache.pool().resident_tokens(), 0);
            prop_assert_eq!(cache.check(tables.iter()), Ok(()));
        }
    }
}

//! Reference-counted KV blocks and the order in which free ones are used again.

use std::num::NonZeroU32;

use super::prefix::BlockHash;

/// Names a block: its position in the pool, from 0. Held as one more than that, so that no block takes no space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(NonZeroU32);

impl BlockId {
    fn new(index: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(index))
    }

    /// The position.
    pub fn index(self) -> u32 {
        self.0.get() - 1
    }
}

/// The end of a list of blocks.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, PartialEq)]
struct Block {
    /// How many tables hold it.
    refs: u32,
    /// Tokens that have a slot in it.
    filled: u32,
    /// What it holds, when that can be found again. Survives until the block is taken for something else.
    hash: Option<BlockHash>,
    /// Neighbours on the free list.
    prev: u32,
    next: u32,
}

/// All blocks of a cache. Every operation is O(1).
///
/// Free blocks form a list ordered by when they were freed: never-used ones come first, then the longest unused. A block
/// keeps its hash on the list, so that a later request can take it back.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockPool {
    blocks: Vec<Block>,
    head: u32,
    tail: u32,
    free: u32,
    resident: u64,
    /// Blocks that were taken out for good.
    retired: u32,
    /// Blocks that are to be taken out when they become free.
    owed: u32,
}

impl BlockPool {
    /// A pool of `count` blocks, all free.
    pub fn new(count: u32) -> Self {
        let block = |id: u32| Block {
            refs: 0,
            filled: 0,
            hash: None,
            prev: id.checked_sub(1).unwrap_or(NONE),
            next: if id + 1 == count { NONE } else { id + 1 },
        };
        Self {
            blocks: (0..count).map(block).collect(),
            head: if count == 0 { NONE } else { 0 },
            tail: count.checked_sub(1).unwrap_or(NONE),
            free: count,
            resident: 0,
            retired: 0,
            owed: 0,
        }
    }

    /// Blocks in all, without those that are to go.
    pub fn total(&self) -> u32 {
        self.blocks.len() as u32 - self.retired - self.owed
    }

    /// Blocks that nobody holds.
    pub fn free(&self) -> u32 {
        self.free
    }

    /// Blocks that somebody holds.
    pub fn used(&self) -> u32 {
        self.blocks.len() as u32 - self.retired - self.free
    }

    /// Tokens that have a slot in a held block; a shared block counts once.
    pub fn resident_tokens(&self) -> u64 {
        self.resident
    }

    /// Whether nobody holds the block.
    pub fn is_free(&self, id: BlockId) -> bool {
        self.block(id).refs == 0
    }

    /// What the block holds, when that can be found again.
    pub fn hash(&self, id: BlockId) -> Option<BlockHash> {
        self.block(id).hash
    }

    /// Takes the free block that was unused longest, empty and held once. The hash is that of what was dropped for it:
    /// an eviction. `None` when no block is free.
    pub fn take(&mut self) -> Option<(BlockId, Option<BlockHash>)> {
        if self.head == NONE {
            return None;
        }
        let id = BlockId::new(self.head);
        self.unlink(id);
        let block = self.block_mut(id);
        block.refs = 1;
        block.filled = 0;
        Some((id, block.hash.take()))
    }

    /// Holds a block once more. A free block leaves the free list with its content.
    pub fn hold(&mut self, id: BlockId) {
        if self.is_free(id) {
            self.unlink(id);
            self.resident += u64::from(self.block(id).filled);
        }
        self.block_mut(id).refs += 1;
    }

    /// Lets go of a block that is held. When nobody else holds it, it goes to the end of the free list.
    pub fn release(&mut self, id: BlockId) {
        let block = self.block_mut(id);
        debug_assert!(block.refs > 0, "only a held block is released");
        block.refs -= 1;
        if block.refs == 0 {
            self.resident -= u64::from(self.block(id).filled);
            self.append(id);
        }
    }

    /// Gives slots in a held block to `tokens` more tokens.
    pub fn fill(&mut self, id: BlockId, tokens: u32) {
        self.count(tokens);
        self.settle(id, tokens);
    }

    /// Counts `tokens` tokens as resident whose block is told later, by [`Self::settle`].
    pub(super) fn count(&mut self, tokens: u32) {
        self.resident += u64::from(tokens);
    }

    /// Gives slots in a held block to `tokens` tokens that are counted already.
    pub(super) fn settle(&mut self, id: BlockId, tokens: u32) {
        self.block_mut(id).filled += tokens;
    }

    /// Takes the slots of the last `tokens` tokens of a held block back.
    pub fn unfill(&mut self, id: BlockId, tokens: u32) {
        let block = self.block_mut(id);
        debug_assert!(block.filled >= tokens, "only filled slots are taken back");
        block.filled -= tokens;
        self.resident -= u64::from(tokens);
    }

    /// Marks what a held block holds.
    pub fn set_hash(&mut self, id: BlockId, hash: BlockHash) {
        self.block_mut(id).hash = Some(hash);
    }

    /// Leaves only `total` blocks; the others go by [`Self::retire`], as they are free. A pool does not grow.
    pub fn shrink(&mut self, total: u32) {
        self.owed += self.total().saturating_sub(total);
    }

    /// Takes the free block that was unused longest out for good, if one has to go. `None` when none has to, or none is
    /// free; else the block, and the hash of what was dropped with it.
    pub fn retire(&mut self) -> Option<(BlockId, Option<BlockHash>)> {
        if self.owed == 0 {
            return None;
        }
        let (id, hash) = self.take()?;
        // It is on no list and held by nobody, so nothing comes back to it.
        self.block_mut(id).refs = 0;
        self.block_mut(id).filled = 0;
        self.owed -= 1;
        self.retired += 1;
        Some((id, hash))
    }

    /// Forgets what every block holds.
    pub fn clear_hashes(&mut self) {
        for block in &mut self.blocks {
            block.hash = None;
        }
    }

    fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id.index() as usize]
    }

    fn block_mut(&mut self, id: BlockId) -> &mut Block {
        &mut self.blocks[id.index() as usize]
    }

    fn unlink(&mut self, id: BlockId) {
        let (prev, next) = (self.block(id).prev, self.block(id).next);
        match prev {
            NONE => self.head = next,
            prev => self.blocks[prev as usize].next = next,
        }
        match next {
            NONE => self.tail = prev,
            next => self.blocks[next as usize].prev = prev,
        }
        self.free -= 1;
    }

    fn append(&mut self, id: BlockId) {
        let tail = std::mem::replace(&mut self.tail, id.index());
        let block = self.block_mut(id);
        (block.prev, block.next) = (tail, NONE);
        match tail {
            NONE => self.head = id.index(),
            tail => self.blocks[tail as usize].next = id.index(),
        }
        self.free += 1;
    }

    /// Holds the pool against its rules: the free list is whole and holds exactly the blocks without holders, and the
    /// counts agree with the blocks and with `held`, the number of places that all tables have together.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&self, held: u64) -> Result<(), String> {
        let (mut at, mut before, mut listed) = (self.head, NONE, 0);
        while at != NONE && listed <= self.free {
            let block = &self.blocks[at as usize];
            if block.refs != 0 || block.prev != before {
                return Err(format!("block {at} is wrongly on the free list"));
            }
            (before, at) = (at, block.next);
            listed += 1;
        }
        if listed != self.free || self.tail != before {
            return Err(format!("{listed} blocks are on the free list, {} are counted", self.free));
        }
        let unheld = self.blocks.iter().filter(|block| block.refs == 0).count();
        if unheld != (self.free + self.retired) as usize {
            return Err(format!(
                "{unheld} blocks have no holder, {} are free, {} are out",
                self.free, self.retired
            ));
        }
        if self.owed > 0 && self.free > 0 {
            return Err(format!("{} blocks are to go, and {} are free", self.owed, self.free));
        }
        let refs: u64 = self.blocks.iter().map(|block| u64::from(block.refs)).sum();
        if refs != held {
            return Err(format!("the blocks count {refs} holders, the tables {held}"));
        }
        let resident: u64 =
            self.blocks.iter().filter(|block| block.refs > 0).map(|block| u64::from(block.filled)).sum();
        if resident != self.resident {
            return Err(format!("{resident} tokens are resident, {} are counted", self.resident));
        }
        Ok(())
    }

    /// Every block and its hash.
    pub fn hashes(&self) -> impl Iterator<Item = (BlockId, BlockHash)> {
        self.blocks.iter().zip(0..).filter_map(|(block, id)| Some((BlockId::new(id), block.hash?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_used_blocks_come_first_then_the_longest_unused() {
        let mut pool = BlockPool::new(3);
        let (a, _) = pool.take().unwrap();
        let (b, _) = pool.take().unwrap();
        pool.release(b);
        pool.release(a);
        let order: Vec<u32> = std::iter::from_fn(|| pool.take()).map(|(id, _)| id.index()).collect();
        assert_eq!(order, [2, 1, 0]);
        assert_eq!(pool.take(), None);
        assert_eq!(pool.used(), 3);
    }

    #[test]
    fn a_free_block_keeps_its_content_until_it_is_taken() {
        let mut pool = BlockPool::new(1);
        let (id, evicted) = pool.take().unwrap();
        assert_eq!(evicted, None);
        pool.fill(id, 4);
        pool.set_hash(id, BlockHash(9));
        pool.release(id);
        assert_eq!((pool.free(), pool.resident_tokens()), (1, 0));
        pool.hold(id);
        assert_eq!((pool.free(), pool.resident_tokens()), (0, 4));
        pool.hold(id);
        pool.release(id);
        assert_eq!(pool.free(), 0);
        pool.release(id);
        assert_eq!(pool.take(), Some((id, Some(BlockHash(9)))));
        assert_eq!(pool.hash(id), None);
    }
}

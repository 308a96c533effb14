//! Finding blocks again by what they hold.

use rustc_hash::FxHashMap;

use super::pool::BlockId;
use crate::sample::key;

/// Names a full block's content and everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockHash(pub u64);

/// The hash of a block with this content behind `before`; `None` is the start of a sequence. 64 bits: among a million
/// blocks two different ones are taken for each other with a probability of 3 in 10^8.
pub fn chain(before: Option<BlockHash>, content: u64) -> BlockHash {
    BlockHash(key(&[before.map_or(0, |hash| hash.0), content]))
}

/// Which block holds a prefix.
#[derive(Debug, Clone, Default)]
pub struct PrefixIndex(FxHashMap<BlockHash, BlockId>);

impl PrefixIndex {
    /// The block with this hash.
    pub fn get(&self, hash: BlockHash) -> Option<BlockId> {
        self.0.get(&hash).copied()
    }

    /// Enters a block. Of two blocks with equal content the first stays; then the answer is false.
    pub fn publish(&mut self, hash: BlockHash, block: BlockId) -> bool {
        *self.0.entry(hash).or_insert(block) == block
    }

    /// Lets another block stand for content that is already entered.
    pub fn replace(&mut self, hash: BlockHash, block: BlockId) {
        self.0.insert(hash, block);
    }

    /// Forgets a block whose content is dropped.
    pub fn forget(&mut self, hash: BlockHash) {
        self.0.remove(&hash);
    }

    /// How many blocks can be found.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing can be found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

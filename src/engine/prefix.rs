//! Finding blocks again by what they hold.

use rustc_hash::FxHashMap;

use super::pool::BlockId;
use crate::sample::mix;

/// Names a full block's content and everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockHash(pub u64);

/// The hash of a block with this content behind `before`; `None` is the start of a sequence. 64 bits: among a million
/// blocks two different ones are taken for each other with a probability of 3 in 10^8.
pub fn chain(before: Option<BlockHash>, content: u64) -> BlockHash {
    BlockHash(mix(before.map_or(0, |hash| hash.0).rotate_left(23) ^ content))
}

/// The blocks that hold one content, the longest published one first.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Twins {
    first: BlockId,
    last: BlockId,
}

/// The neighbours of a block among those of equal content.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Neighbours {
    before: Option<BlockId>,
    after: Option<BlockId>,
}

/// Which blocks hold a prefix. Every operation is O(1).
///
/// Blocks of equal content stand beside each other, as in vLLM, which never exchanges a block that a sequence has: of
/// two, the one that was published first is found, and when it is dropped the other one is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PrefixIndex {
    blocks: FxHashMap<BlockHash, Twins>,
    /// Only of blocks that are not alone with their content.
    neighbours: FxHashMap<BlockId, Neighbours>,
}

impl PrefixIndex {
    /// The block with this hash; of several the one that was published first.
    pub fn get(&self, hash: BlockHash) -> Option<BlockId> {
        self.blocks.get(&hash).map(|twins| twins.first)
    }

    /// Enters a block. Whether its content could not be found before.
    pub fn publish(&mut self, hash: BlockHash, block: BlockId) -> bool {
        let twins = match self.blocks.entry(hash) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Twins { first: block, last: block });
                return true;
            }
            std::collections::hash_map::Entry::Occupied(occupied) => occupied.into_mut(),
        };
        let last = std::mem::replace(&mut twins.last, block);
        self.neighbours.entry(last).or_default().after = Some(block);
        self.neighbours.insert(block, Neighbours { before: Some(last), after: None });
        false
    }

    /// Forgets a block whose content is dropped.
    pub fn forget(&mut self, hash: BlockHash, block: BlockId) {
        let Some(twins) = self.blocks.get_mut(&hash) else { return };
        if twins.first == twins.last {
            self.blocks.remove(&hash);
            return;
        }
        let Some(Neighbours { before, after }) = self.neighbours.remove(&block) else { return };
        match before {
            None => twins.first = after.unwrap_or(twins.last),
            Some(before) => self.neighbours.entry(before).or_default().after = after,
        }
        match after {
            None => twins.last = before.unwrap_or(twins.first),
            Some(after) => self.neighbours.entry(after).or_default().before = before,
        }
        if twins.first == twins.last {
            self.neighbours.remove(&twins.first);
        }
    }

    /// How many different contents can be found.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether nothing can be found.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Every block that holds a content, the first one first.
    pub(super) fn all(&self, hash: BlockHash) -> impl Iterator<Item = BlockId> {
        let after = |block: &BlockId| self.neighbours.get(block).and_then(|neighbours| neighbours.after);
        std::iter::successors(self.get(hash), after)
    }

    /// How many blocks stand beside another one of equal content.
    pub(super) fn twins(&self) -> usize {
        self.neighbours.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_blocks_the_first_is_found_and_each_takes_its_turn() {
        let (one, two) = (BlockHash(1), BlockHash(2));
        let ids: Vec<BlockId> = {
            let mut pool = crate::engine::BlockPool::new(5);
            std::iter::from_fn(|| pool.take()).map(|(id, _)| id).collect()
        };
        for dropped in 0..4 {
            let mut index = PrefixIndex::default();
            assert!(index.publish(two, ids[4]));
            for (at, id) in ids[..4].iter().enumerate() {
                assert_eq!(index.publish(one, *id), at == 0);
            }
            index.forget(one, ids[dropped]);
            let left: Vec<BlockId> = (0..4).filter(|at| *at != dropped).map(|at| ids[at]).collect();
            assert_eq!(index.all(one).collect::<Vec<_>>(), left);
            for (at, id) in left.iter().enumerate() {
                assert_eq!(index.get(one), Some(*id));
                index.forget(one, *id);
                assert_eq!(index.all(one).count(), 2 - at);
            }
            assert_eq!((index.get(one), index.len(), index.twins()), (None, 1, 0));
        }
    }
}

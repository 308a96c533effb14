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

/// Contents and their blocks: open addressing with linear probing, at most half full, without tombstones. Hashes of blocks
/// are mixed already, so their lowest bits are the place; every step of a busy cache enters one content and drops another.
#[derive(Debug, Clone, Default)]
struct Contents {
    /// A power of two of them, or none.
    slots: Vec<Option<(BlockHash, Twins)>>,
    len: usize,
}

impl Contents {
    const LEAST: usize = 64;

    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    /// Where a content is, or the free slot where it would be. There must be slots.
    fn place(&self, hash: BlockHash) -> usize {
        let mut at = hash.0 as usize & self.mask();
        while self.slots[at].is_some_and(|(other, _)| other != hash) {
            at = (at + 1) & self.mask();
        }
        at
    }

    fn get(&self, hash: BlockHash) -> Option<&Twins> {
        if self.len == 0 {
            return None;
        }
        self.slots[self.place(hash)].as_ref().map(|(_, twins)| twins)
    }

    /// The blocks of a content; `None`, and this one is entered, when there are none.
    fn get_or_insert(&mut self, hash: BlockHash, block: BlockId) -> Option<&mut Twins> {
        if 2 * (self.len + 1) > self.slots.len() {
            self.grow();
        }
        let at = self.place(hash);
        let slot = &mut self.slots[at];
        if slot.is_none() {
            *slot = Some((hash, Twins { first: block, last: block }));
            self.len += 1;
            return None;
        }
        slot.as_mut().map(|(_, twins)| twins)
    }

    fn grow(&mut self) {
        let slots = vec![None; Self::LEAST.max(2 * self.slots.len())];
        for (hash, twins) in std::mem::replace(&mut self.slots, slots).into_iter().flatten() {
            let at = self.place(hash);
            self.slots[at] = Some((hash, twins));
        }
    }

    /// The slot of a content; `None` when it is not there.
    fn find(&self, hash: BlockHash) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        let at = self.place(hash);
        self.slots[at].is_some().then_some(at)
    }

    /// Empties a slot: who stands behind it because it was taken moves up.
    fn remove(&mut self, mut gap: usize) {
        let mask = self.mask();
        let mut at = (gap + 1) & mask;
        while let Some((hash, _)) = self.slots[at] {
            let home = hash.0 as usize & mask;
            // It may not stand before its home.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.slots[gap] = self.slots[at];
                gap = at;
            }
            at = (at + 1) & mask;
        }
        self.slots[gap] = None;
        self.len -= 1;
    }
}

/// What stands where depends on the order in which it came; what is there does not.
impl PartialEq for Contents {
    fn eq(&self, other: &Self) -> bool {
        let mut own = self.slots.iter().flatten();
        self.len == other.len && own.all(|(hash, twins)| other.get(*hash) == Some(twins))
    }
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
    blocks: Contents,
    /// Only of blocks that are not alone with their content.
    neighbours: FxHashMap<BlockId, Neighbours>,
}

impl PrefixIndex {
    /// The block with this hash; of several the one that was published first.
    pub fn get(&self, hash: BlockHash) -> Option<BlockId> {
        self.blocks.get(hash).map(|twins| twins.first)
    }

    /// Enters a block. Whether its content could not be found before.
    pub fn publish(&mut self, hash: BlockHash, block: BlockId) -> bool {
        let Some(twins) = self.blocks.get_or_insert(hash, block) else { return true };
        let last = std::mem::replace(&mut twins.last, block);
        self.neighbours.entry(last).or_default().after = Some(block);
        self.neighbours.insert(block, Neighbours { before: Some(last), after: None });
        false
    }

    /// Forgets a block whose content is dropped.
    pub fn forget(&mut self, hash: BlockHash, block: BlockId) {
        let Some(at) = self.blocks.find(hash) else { return };
        let Some((_, twins)) = &mut self.blocks.slots[at] else { return };
        if twins.first == twins.last {
            self.blocks.remove(at);
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
        self.blocks.len
    }

    /// Whether nothing can be found.
    pub fn is_empty(&self) -> bool {
        self.blocks.len == 0
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn of_equal_blocks_the_first_is_found_and_each_takes_its_turn() {
        let (one, two) = (BlockHash(1), BlockHash(2));
        let ids = blocks(5);
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

    fn blocks(count: u32) -> Vec<BlockId> {
        let mut pool = crate::engine::BlockPool::new(count);
        std::iter::from_fn(|| pool.take()).map(|(id, _)| id).collect()
    }

    proptest! {
        /// Against lists in a map, with hashes that want the same few places.
        #[test]
        fn contents_are_found_whatever_was_dropped(
            steps in prop::collection::vec((0_u64..4, 0_u64..3, any::<prop::sample::Index>(), any::<bool>()), 1..400),
        ) {
            let (mut index, mut lists) = (PrefixIndex::default(), std::collections::BTreeMap::<u64, Vec<BlockId>>::new());
            let mut free = blocks(400);
            for (low, high, which, drops) in steps {
                let hash = (high << 40) | (60 + low);
                let list = lists.entry(hash).or_default();
                if drops && !list.is_empty() {
                    let block = list.remove(which.index(list.len()));
                    index.forget(BlockHash(hash), block);
                } else if let Some(block) = free.pop() {
                    prop_assert_eq!(index.publish(BlockHash(hash), block), list.is_empty());
                    list.push(block);
                }
                for (hash, list) in &lists {
                    let found: Vec<BlockId> = index.all(BlockHash(*hash)).collect();
                    prop_assert_eq!(&found, list);
                }
                prop_assert_eq!(index.len(), lists.values().filter(|list| !list.is_empty()).count());
            }
            let mut again = PrefixIndex::default();
            for (hash, list) in lists.iter().rev() {
                for block in list {
                    again.publish(BlockHash(*hash), *block);
                }
            }
            prop_assert_eq!(again, index);
        }
    }
}

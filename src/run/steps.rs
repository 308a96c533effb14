//! The steps of a batch that requests share, for whoever rides along: see [`Sink::step`](crate::backend::Sink::step).

use crate::units::Ns;

/// How many steps there were, when the last one ended, and the longest of them since any.
#[derive(Debug, Default)]
pub(super) struct Steps {
    count: u64,
    last: Ns,
    /// Steps that are longer than all after them, in order. The first one at or behind a step is the longest since then.
    longest: Vec<(u64, Ns)>,
    /// When `longest` is to be looked through.
    full: usize,
}

impl Steps {
    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// When the last one ended.
    pub(super) fn last(&self) -> Ns {
        self.last
    }

    /// A step of length `gap` ended at `at`.
    pub(super) fn push(&mut self, at: Ns, gap: Ns) {
        while self.longest.last().is_some_and(|(_, longest)| *longest <= gap) {
            self.longest.pop();
        }
        self.longest.push((self.count, gap));
        self.count += 1;
        self.last = at;
    }

    /// The longest one behind the first `count`; 0 when there is none.
    pub(super) fn longest_since(&self, count: u64) -> Ns {
        let at = self.longest.partition_point(|(step, _)| *step < count);
        self.longest.get(at).map_or(0, |(_, gap)| *gap)
    }

    /// Whether it has grown so much that it is worth forgetting what nobody asks for.
    pub(super) fn is_full(&self) -> bool {
        self.longest.len() > self.full.max(64)
    }

    /// Forgets what is before the first `count` steps.
    pub(super) fn forget(&mut self, count: u64) {
        let at = self.longest.partition_point(|(step, _)| *step < count);
        self.longest.drain(..at);
        self.full = 2 * self.longest.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_longest_since_any_step(gaps in prop::collection::vec(1_u64..20, 1..200), forgotten in 0_usize..200) {
            let mut steps = Steps::default();
            for (at, gap) in gaps.iter().enumerate() {
                steps.push(at as u64, *gap);
                if at == forgotten {
                    steps.forget(at as u64 / 2);
                }
            }
            let from = if forgotten < gaps.len() { forgotten / 2 } else { 0 };
            for since in from..=gaps.len() {
                let longest = gaps[since..].iter().max().copied().unwrap_or(0);
                prop_assert_eq!(steps.longest_since(since as u64), longest);
            }
        }
    }
}

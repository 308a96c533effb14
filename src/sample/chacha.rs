//! `ChaCha` with 8 rounds, one block at a time: the numbers of `rand_chacha`'s `ChaCha8Rng::seed_from_u64`, which computes four
//! blocks at once. Almost every stream of a plan gives one or two numbers and is thrown away.
//!
//! Bernstein, `ChaCha`, a variant of Salsa20 (2008). Not for secrets.

/// A stream of 64-bit numbers.
#[derive(Debug, Clone)]
pub(super) struct ChaCha8 {
    key: [u32; 8],
    /// The next block.
    counter: u64,
    block: [u32; 16],
    /// Words of the block that were used.
    used: usize,
}

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
/// Two rounds each.
const DOUBLE_ROUNDS: u32 = 4;

impl ChaCha8 {
    /// The stream whose key a PCG32 generator expands from `seed`, as `rand_core` does.
    pub(super) fn seeded(seed: u64) -> Self {
        let mut state = seed;
        let key = std::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(11_634_580_027_462_260_723);
            ((((state >> 18) ^ state) >> 27) as u32).rotate_right((state >> 59) as u32)
        });
        Self { key, counter: 0, block: [0; 16], used: 16 }
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        if self.used == self.block.len() {
            self.refill();
        }
        let (low, high) = (self.block[self.used], self.block[self.used + 1]);
        self.used += 2;
        u64::from(low) | u64::from(high) << 32
    }

    fn refill(&mut self) {
        let counter = [self.counter as u32, (self.counter >> 32) as u32, 0, 0];
        let start = [CONSTANTS, halves(&self.key)[0], halves(&self.key)[1], counter];
        let [mut a, mut b, mut c, mut d] = start;
        for _ in 0..DOUBLE_ROUNDS {
            [a, b, c, d] = quarters([a, b, c, d]);
            // The diagonals become columns, and columns again.
            [b, c, d] = [turned::<1>(b), turned::<2>(c), turned::<3>(d)];
            [a, b, c, d] = quarters([a, b, c, d]);
            [b, c, d] = [turned::<3>(b), turned::<2>(c), turned::<1>(d)];
        }
        let rows = [a, b, c, d];
        for (at, word) in self.block.iter_mut().enumerate() {
            *word = rows[at / 4][at % 4].wrapping_add(start[at / 4][at % 4]);
        }
        (self.counter, self.used) = (self.counter.wrapping_add(1), 0);
    }
}

fn halves(key: &[u32; 8]) -> [[u32; 4]; 2] {
    std::array::from_fn(|half| std::array::from_fn(|at| key[4 * half + at]))
}

fn turned<const BY: usize>(row: [u32; 4]) -> [u32; 4] {
    std::array::from_fn(|at| row[(at + BY) % 4])
}

/// A quarter round on each column.
#[inline]
fn quarters([a, b, c, d]: [[u32; 4]; 4]) -> [[u32; 4]; 4] {
    let half = |[a, b, c, d]: [[u32; 4]; 4], first: u32, second: u32| {
        let a: [u32; 4] = std::array::from_fn(|at| a[at].wrapping_add(b[at]));
        let d: [u32; 4] = std::array::from_fn(|at| (d[at] ^ a[at]).rotate_left(first));
        let c: [u32; 4] = std::array::from_fn(|at| c[at].wrapping_add(d[at]));
        let b: [u32; 4] = std::array::from_fn(|at| (b[at] ^ c[at]).rotate_left(second));
        [a, b, c, d]
    };
    half(half([a, b, c, d], 16, 12), 8, 7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    use super::*;

    proptest! {
        #[test]
        fn the_numbers_are_those_of_rand_chacha(seed: u64, count in 1_usize..100) {
            let (mut own, mut theirs) = (ChaCha8::seeded(seed), ChaCha8Rng::seed_from_u64(seed));
            for _ in 0..count {
                prop_assert_eq!(own.next(), theirs.next_u64());
            }
        }
    }
}

//! Keys and streams.

use super::chacha::ChaCha8;

/// Mixes parts into one 64-bit key. Not cryptographic; the same on every platform (splitmix64's finaliser as a chain).
pub fn key(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| mix(state.rotate_left(23) ^ mix(*part)))
}

/// The 64-bit FNV-1a hash of a name, for use as a part of [`key`].
pub fn name_key(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Where `position` of `0..n` goes under the shuffle that `seed` names: a bijection of `0..n` that needs no memory.
///
/// Eight Feistel rounds over the smallest even number of bits that holds `n`, walked until the result lies below `n`
/// (fewer than four steps on average). `position` must be below `n`.
pub fn permuted(position: u64, n: u64, seed: u64) -> u64 {
    debug_assert!(position < n, "the position lies in the range that is shuffled");
    let half = (64 - n.saturating_sub(1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1_u64 << half) - 1;
    let mut value = position;
    loop {
        let (mut left, mut right) = (value >> half, value & mask);
        for round in 0..8 {
            (left, right) = (right, left ^ (key(&[seed, round, right]) & mask));
        }
        value = (left << half) | right;
        if value < n {
            return value;
        }
    }
}

/// Mixes the bits of one number: a bijection, the same on every platform (splitmix64).
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of draws for one purpose and one index.
#[derive(Debug, Clone)]
pub struct Draws(ChaCha8);

impl Draws {
    /// The stream of `purpose` for the `index`-th thing under `seed`.
    pub fn new(seed: u64, purpose: &str, index: u64) -> Self {
        Self::keyed(key(&[seed, name_key(purpose), index]))
    }

    /// The stream that a [`key`] names.
    pub fn keyed(key: u64) -> Self {
        Self(ChaCha8::seeded(key))
    }

    /// A uniform 64-bit integer.
    pub fn bits(&mut self) -> u64 {
        self.0.next()
    }

    /// A uniform number in [0, 1) with 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A uniform integer in `0..n` (Lemire's multiply-shift; the bias is below n / 2^64). `n` must not be 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// An exponential number of mean 1.
    pub fn exponential(&mut self) -> f64 {
        -libm::log(1.0 - self.unit())
    }

    /// A standard normal number (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(2.0 * self.exponential());
        radius * libm::cos(2.0 * std::f64::consts::PI * self.unit())
    }
    /// A gamma number of this shape and scale 1 (Marsaglia and Tsang, 2000; below shape 1 by their boost
    /// `gamma(shape + 1) * unit^(1 / shape)`). `shape` must be above 0.
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = libm::pow(1.0 - self.unit(), 1.0 / shape);
            return self.gamma(shape + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / libm::sqrt(9.0 * d);
        loop {
            let x = self.normal();
            let cube = 1.0 + c * x;
            if cube <= 0.0 {
                continue;
            }
            let v = cube * cube * cube;
            if libm::log(1.0 - self.unit()) < 0.5 * x * x + d - d * v + d * libm::log(v) {
                return d * v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_shuffle_visits_each_once() {
        for n in [1, 2, 3, 10, 64, 65, 1000] {
            let seen: BTreeSet<u64> = (0..n).map(|at| permuted(at, n, 5)).collect();
            assert_eq!(seen, (0..n).collect());
        }
        let pass = |seed| (0..50).map(|at| permuted(at, 50, seed)).collect::<Vec<_>>();
        assert_ne!(pass(1), pass(2));
    }

    #[test]
    fn every_place_of_a_shuffle_is_as_likely() {
        const N: u64 = 10;
        const SEEDS: u64 = 5000;
        let mut counts = [[0_u32; N as usize]; N as usize];
        for seed in 0..SEEDS {
            for at in 0..N {
                counts[at as usize][permuted(at, N, seed) as usize] += 1;
            }
        }
        let expected = SEEDS as f64 / N as f64;
        let chi: f64 = counts.iter().flatten().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum();
        // Of 100 cells each has variance 0.9 times its expectation; the sum has a standard deviation of about 13.
        assert!((chi - 90.0).abs() < 4.0 * 13.0, "{chi}");
    }

    #[test]
    fn gamma_has_mean_and_variance_equal_to_its_shape() {
        for shape in [0.05, 0.5, 1.0, 3.0, 40.0] {
            let values: Vec<f64> =
                (0..20_000).map(|index| Draws::new(1, "gamma", index).gamma(shape)).collect();
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
            assert!((mean - shape).abs() < 4.0 * f64::sqrt(shape / n), "shape {shape}: mean {mean}");
            // The fourth central moment is 3 shape^2 + 6 shape.
            let error = f64::sqrt((2.0 * shape * shape + 6.0 * shape) / n);
            assert!((variance - shape).abs() < 4.0 * error, "shape {shape}: variance {variance}");
        }
    }

    #[test]
    fn streams_are_named_by_seed_purpose_and_index() {
        let first = |seed, purpose, index| Draws::new(seed, purpose, index).bits();
        let all = [first(1, "a", 0), first(2, "a", 0), first(1, "b", 0), first(1, "a", 1), first(0, "a", 1)];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(first(1, "a", 0), first(1, "a", 0));
        assert_ne!(key(&[1, 2]), key(&[2, 1]));
    }
}

//! Speculative decoding without a model: how many drafts are accepted, drawn from given probabilities.

use crate::sample::{key, name_key};

/// Drafts per step and the law of their acceptance.
///
/// A draft is accepted only when all drafts before it are, so with probabilities `p_1 .. p_k` the expected number of
/// accepted drafts is `p_1 + p_1 p_2 + .. + p_1 .. p_k`.
#[derive(Debug, Clone, PartialEq)]
pub struct Speculation {
    accept: Vec<f64>,
    stream: u64,
}

impl Speculation {
    /// One draft per probability: that the draft there is accepted when all before it are.
    pub fn new(accept: Vec<f64>) -> Self {
        Self { accept, stream: name_key("speculation") }
    }

    /// Drafts per step.
    pub fn drafts(&self) -> u32 {
        self.accept.len() as u32
    }

    /// How many of the first `drafts` drafts behind output token `position` are accepted: a pure function of the request's
    /// seed and the position, whatever else is in the batch.
    pub fn accepted(&self, seed: u64, position: u32, drafts: u32) -> u32 {
        let stream = key(&[seed, self.stream, u64::from(position)]);
        let accepted = |(draft, p): &(u64, &f64)| unit(key(&[stream, *draft])) < **p;
        (0..).zip(&self.accept).take(drafts as usize).take_while(accepted).count() as u32
    }

    /// The expected number of accepted drafts per step.
    pub fn expected(&self) -> f64 {
        let all = self.accept.iter().scan(1.0, |product, p| {
            *product *= p;
            Some(*product)
        });
        all.sum()
    }
}

/// A uniform number in [0, 1) from 64 bits.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_and_always_are_exact() {
        let (never, always) = (Speculation::new(vec![0.0; 4]), Speculation::new(vec![1.0; 4]));
        for position in 0..1_000 {
            assert_eq!(never.accepted(7, position, 4), 0);
            assert_eq!(always.accepted(7, position, 3), 3);
        }
    }

    #[test]
    fn the_mean_is_the_sum_of_products() {
        let law = Speculation::new(vec![0.9, 0.5, 0.8]);
        assert!((law.expected() - (0.9 + 0.45 + 0.36)).abs() < 1e-12);
        let n = 100_000;
        let sum: u32 = (0..n).map(|at| law.accepted(u64::from(at % 317), at, 3)).sum();
        let mean = f64::from(sum) / f64::from(n);
        // The standard deviation of one draw is below 1.3.
        assert!((mean - law.expected()).abs() < 5.0 * 1.3 / f64::from(n).sqrt(), "{mean}");
    }
}

//! From logits to a token: the most likely one, or a seeded draw.

use crate::sample::{key, name_key};

/// How one request's tokens are chosen. A token is a pure function of the logits, the seed and its position, whatever else
/// is in the batch: a draft is accepted when it is the token that would have been chosen anyway, so that speculation changes
/// no answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Only the most likely tokens of this probability together; 1 takes all.
    pub top_p: f32,
    /// Seeds the draws.
    pub seed: u64,
    /// No token that ends an answer is chosen below this position.
    pub least: u32,
}

/// The model computed something that is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoNumber;

/// Chooses tokens; keeps its memory.
#[derive(Debug, Default)]
pub struct Sampler {
    /// Weights of tokens, the heaviest first where they are sorted.
    weights: Vec<(f32, u32)>,
    /// Tokens that end an answer.
    end_tokens: Vec<u32>,
    /// Logits without them.
    without: Vec<f32>,
}

impl Sampler {
    /// One that knows the tokens that end an answer.
    pub fn new(end_tokens: Vec<u32>) -> Self {
        Self { end_tokens, ..Self::default() }
    }

    /// The token at an output position.
    pub fn choose(&mut self, logits: &[f32], choice: &Choice, position: u32) -> Result<u32, NoNumber> {
        if position >= choice.least || self.end_tokens.is_empty() {
            return self.choose_of(logits, choice, position);
        }
        let mut without = std::mem::take(&mut self.without);
        without.clear();
        without.extend_from_slice(logits);
        for token in &self.end_tokens {
            if let Some(logit) = without.get_mut(*token as usize).filter(|logit| logit.is_finite()) {
                *logit = f32::MIN;
            }
        }
        let chosen = self.choose_of(&without, choice, position);
        self.without = without;
        chosen
    }

    fn choose_of(&mut self, logits: &[f32], choice: &Choice, position: u32) -> Result<u32, NoNumber> {
        let (best, most) = largest(logits).ok_or(NoNumber)?;
        if choice.temperature <= 0.0 {
            return Ok(best);
        }
        let weight = |logit: f32| libm::expf((logit - most) / choice.temperature);
        self.weights.clear();
        self.weights.extend((0..).zip(logits).map(|(token, logit)| (weight(*logit), token)));
        let mut total: f32 = self.weights.iter().map(|(weight, _)| weight).sum();
        if choice.top_p < 1.0 {
            total = self.keep_nucleus(choice.top_p, total);
        }
        let bits = key(&[choice.seed, name_key("sampling"), u64::from(position)]);
        let mut left = (bits >> 40) as f32 * (1.0 / (1_u32 << 24) as f32) * total;
        for (weight, token) in &self.weights {
            left -= weight;
            if left < 0.0 {
                return Ok(*token);
            }
        }
        // Rounding may leave a little after the last one.
        Ok(self.weights.last().map_or(best, |(_, token)| *token))
    }

    /// Leaves the fewest, heaviest tokens that together weigh at least that share. What they weigh.
    fn keep_nucleus(&mut self, share: f32, total: f32) -> f32 {
        // Tokens lighter than this weigh less than the rest even if all are: none of them is needed, nor has to be sorted.
        let least = (1.0 - share) * total / self.weights.len() as f32;
        self.weights.retain(|(weight, _)| *weight >= least);
        self.weights.sort_unstable_by(|(a, left), (b, right)| b.total_cmp(a).then(left.cmp(right)));
        let (mut kept, mut count) = (0.0, 0);
        for (weight, _) in &self.weights {
            kept += weight;
            count += 1;
            if kept >= share * total {
                break;
            }
        }
        self.weights.truncate(count);
        kept
    }
}

/// The first of the largest logits and its value; `None` when there is none or one is not a number.
fn largest(logits: &[f32]) -> Option<(u32, f32)> {
    let mut best = (0, *logits.first()?);
    let mut sum = 0.0;
    for (token, logit) in (0..).zip(logits) {
        // One of them that is no number makes this one none, and an infinite one too.
        sum += logit * 0.0;
        if *logit > best.1 {
            best = (token, *logit);
        }
    }
    (sum == 0.0).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREEDY: Choice = Choice { temperature: 0.0, top_p: 1.0, seed: 1, least: 0 };

    fn counts(choice: Choice, logits: &[f32], n: u32) -> Vec<u32> {
        let mut sampler = Sampler::default();
        let mut counts = vec![0; logits.len()];
        for position in 0..n {
            counts[sampler.choose(logits, &choice, position).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let mut sampler = Sampler::default();
        assert_eq!(sampler.choose(&[1.0, 3.0, 2.0, 3.0], &GREEDY, 0), Ok(1));
        for broken in [&[] as &[f32], &[1.0, f32::NAN], &[f32::INFINITY, 0.0], &[f32::NAN]] {
            assert_eq!(sampler.choose(broken, &GREEDY, 0), Err(NoNumber), "{broken:?}");
        }
    }

    #[test]
    fn what_ends_an_answer_is_not_chosen_too_early() {
        let mut sampler = Sampler::new(vec![1, 9]);
        let logits = [1.0, 3.0, 2.0];
        for temperature in [0.0, 0.5] {
            let choice = Choice { temperature, top_p: 1.0, seed: 1, least: 200 };
            let chosen: Vec<u32> = (0..400).map(|at| sampler.choose(&logits, &choice, at).unwrap()).collect();
            assert!(!chosen[..200].contains(&1) && chosen[200..].contains(&1), "{chosen:?}");
        }
        assert_eq!(sampler.choose(&[1.0, f32::NAN], &Choice { least: 5, ..GREEDY }, 0), Err(NoNumber));
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0, 1.0, 2.0, -1.0];
        let n = 40_000;
        for temperature in [0.5_f64, 1.0, 2.0] {
            let weights: Vec<f64> = logits.iter().map(|l| libm::exp(f64::from(*l) / temperature)).collect();
            let total: f64 = weights.iter().sum();
            let choice = Choice { temperature: temperature as f32, top_p: 1.0, seed: 7, least: 0 };
            for (count, weight) in counts(choice, &logits, n).into_iter().zip(weights) {
                let p = weight / total;
                let five = 5.0 * (p * (1.0 - p) / f64::from(n)).sqrt();
                assert!((f64::from(count) / f64::from(n) - p).abs() < five, "{count} at {p}");
            }
        }
    }

    #[test]
    fn the_nucleus_is_the_fewest_that_weigh_enough() {
        // Probabilities .5, .3, .15, .05.
        let logits = [0.15_f32, 0.5, 0.05, 0.3].map(libm::logf);
        let drawn = |top_p| {
            let counts = counts(Choice { temperature: 1.0, top_p, seed: 3, least: 0 }, &logits, 4000);
            counts.iter().map(|count| *count > 0).collect::<Vec<_>>()
        };
        assert_eq!(drawn(0.45), [false, true, false, false]);
        assert_eq!(drawn(0.7), [false, true, false, true]);
        assert_eq!(drawn(0.9), [true, true, false, true]);
        assert_eq!(drawn(1.0), [true; 4]);
    }

    #[test]
    fn a_draw_depends_on_seed_and_position_only() {
        let logits: Vec<f32> = (0..100).map(|n| (n % 7) as f32 * 0.3).collect();
        let choice = Choice { temperature: 1.0, top_p: 0.9, seed: 11, least: 0 };
        let draw = |sampler: &mut Sampler, position| sampler.choose(&logits, &choice, position).unwrap();
        let (mut one, mut other) = (Sampler::default(), Sampler::default());
        let forward: Vec<u32> = (0..50).map(|position| draw(&mut one, position)).collect();
        let backward: Vec<u32> = (0..50).rev().map(|position| draw(&mut other, position)).collect();
        assert_eq!(forward, backward.into_iter().rev().collect::<Vec<_>>());
        assert!(forward.iter().any(|token| *token != forward[0]));
    }
}

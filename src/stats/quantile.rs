//! Quantiles by nearest rank, and what order statistics say about the true one.

use super::Run;
use super::binomial::{at_least, at_most, is_within};

/// The runs in order of value. NaN sorts last.
pub fn sorted(runs: &[Run]) -> Vec<Run> {
    let mut sorted = runs.to_vec();
    sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    sorted
}

/// The rank of the `q` quantile among `n` observations, from 1: ⌈q·n⌉.
///
/// `q·n` carries the rounding of `q` (0.07 × 100 is a little over 7), so a product within a relative 1e-12 of an integer
/// is that integer.
fn rank(n: u64, q: f64) -> u64 {
    let exact = q * n as f64;
    let near = libm::round(exact);
    let rank = if (exact - near).abs() <= 1e-12 * near.max(1.0) { near } else { libm::ceil(exact) };
    (rank as u64).clamp(1, n.max(1))
}

/// The observation of this rank, from 1, of runs in order of value.
pub fn at_rank(sorted: &[Run], rank: u64) -> Option<f64> {
    let mut seen = 0;
    sorted.iter().find_map(|(value, count)| {
        seen += count;
        (seen >= rank).then_some(*value)
    })
}

/// The nearest-rank quantile `x_(⌈q·n⌉)` of runs in order of value; `None` of nothing.
pub fn nearest_rank(sorted: &[Run], q: f64) -> Option<f64> {
    at_rank(sorted, rank(super::total(sorted), q))
}

/// Two ranks, from 1, between which the true quantile lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderStatistics {
    /// The rank of the lower bound.
    pub low: u64,
    /// The rank of the upper bound.
    pub high: u64,
}

/// The exact, distribution-free bounds of the true `q` quantile of `n` independent observations: each of the two is
/// wrong with probability `alpha` at most. `None` when `n` is too small for either
/// (David and Nagaraja, *Order Statistics*, 3rd ed., 7.1).
///
/// `x_(r)` lies above the quantile when fewer than r observations are at or below it, P(Bin(n, q) ≤ r − 1) at most;
/// it lies below when at least r are under it, P(Bin(n, q) ≥ r) at most.
pub fn quantile_bounds(n: u64, q: f64, alpha: f64) -> Option<OrderStatistics> {
    // Both conditions are monotone in the rank: the first holds up to `low`, the second from `high` on.
    let low = last_true(n, |r| is_within(at_most(n, q, r - 1), alpha))?;
    let high = last_true(n, |r| !is_within(at_least(n, q, r), alpha)).unwrap_or(0) + 1;
    (high <= n).then_some(OrderStatistics { low, high })
}

/// The largest rank in `1..=n` for which a condition holds that never comes back once it is lost.
fn last_true(n: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut yes, mut no) = (0, n + 1);
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if holds(middle) {
            yes = middle;
        } else {
            no = middle;
        }
    }
    (yes > 0).then_some(yes)
}

/// The fewest independent observations of which none being over can show, with error probability `alpha`, that at most
/// a share `allowed` of all would be: the smallest n with (1 − allowed)^n ≤ alpha, which is ⌈ln alpha / ln(1 − allowed)⌉.
///
/// For p95 (`allowed` 0.05) at 95 % that is 59, for p99 299. `None` when no number is enough (`allowed` is 0 or less).
pub fn smallest_n(allowed: f64, alpha: f64) -> Option<u64> {
    if allowed <= 0.0 || alpha <= 0.0 || allowed.is_nan() {
        return None;
    }
    if allowed >= 1.0 || alpha >= 1.0 {
        return Some(1);
    }
    // Where the quotient is a whole number its rounding must not add one.
    let n = libm::ceil(libm::log(alpha) / libm::log1p(-allowed) * (1.0 - 1e-12)).max(1.0);
    (n < 1e18).then_some(n as u64)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "quantiles are observations, never computed")]
mod tests {
    use super::*;

    fn ones(values: &[f64]) -> Vec<Run> {
        sorted(&values.iter().map(|v| (*v, 1)).collect::<Vec<_>>())
    }

    #[test]
    fn nearest_rank_takes_an_observation() {
        let five = ones(&[50.0, 15.0, 40.0, 20.0, 35.0]);
        let at = |q| nearest_rank(&five, q).unwrap();
        assert_eq!([at(0.05), at(0.30), at(0.40), at(0.50), at(0.99)], [15.0, 20.0, 20.0, 35.0, 50.0]);
        assert_eq!(nearest_rank(&[], 0.5), None);
        assert_eq!(nearest_rank(&[(1.0, 98), (2.0, 1), (3.0, 1)], 0.99), Some(2.0));
    }

    #[test]
    fn the_rank_is_not_shifted_by_rounding() {
        // 7 of 100 and 99.9 % of 1000 are whole numbers, though neither product is.
        for (n, percent, expected) in [
            (100, "7", 7),
            (100, "29", 29),
            (1000, "99.9", 999),
            (100, "99", 99),
            (1, "50", 1),
            (3, "0.1", 1),
        ] {
            let q: f64 = format!("{percent}e-2").parse().unwrap();
            assert_eq!(rank(n, q), expected, "p{percent} of {n}");
        }
    }

    #[test]
    fn the_smallest_samples_are_the_well_known_ones() {
        let at_95 = |allowed| smallest_n(allowed, 0.05);
        assert_eq!(
            [at_95(0.05), at_95(0.01), at_95(0.1), at_95(0.5), at_95(0.001)].map(Option::unwrap),
            [59, 299, 29, 5, 2995]
        );
        assert_eq!(smallest_n(0.01, 0.01), Some(459));
        assert_eq!((at_95(0.0), at_95(1.0)), (None, Some(1)));
        assert_eq!((at_95(0.95), at_95(1.0 - 0.05), smallest_n(0.9, 0.001)), (Some(1), Some(1), Some(3)));
        // One fewer is never enough.
        for allowed in [0.001, 0.01, 0.05, 0.2, 0.5, 0.9] {
            let n = at_95(allowed).unwrap();
            assert!(at_most(n, allowed, 0) <= 0.05);
            assert!(n == 1 || at_most(n - 1, allowed, 0) > 0.05);
        }
    }

    #[test]
    fn quantile_bounds_cover_as_promised_and_are_the_tightest() {
        for (n, q, alpha) in [(5, 0.5, 0.05), (100, 0.5, 0.025), (299, 0.99, 0.05), (1000, 0.95, 0.05)] {
            let Some(OrderStatistics { low, high }) = quantile_bounds(n, q, alpha) else { continue };
            assert!(at_most(n, q, low - 1) <= alpha && at_most(n, q, low) > alpha, "low of {n} {q}");
            assert!(at_least(n, q, high) <= alpha && at_least(n, q, high - 1) > alpha, "high of {n} {q}");
        }
        // The textbook case: the median of 100 lies between the 40th and the 61st at 95 %.
        assert_eq!(quantile_bounds(100, 0.5, 0.025), Some(OrderStatistics { low: 40, high: 61 }));
        assert_eq!(quantile_bounds(298, 0.99, 0.05), None);
        assert_eq!(quantile_bounds(299, 0.99, 0.05).map(|r| r.high), Some(299));
        assert_eq!(quantile_bounds(0, 0.5, 0.05), None);
    }
}

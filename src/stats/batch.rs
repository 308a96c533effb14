//! How much less a dependent sample says than an independent one of its size.

use super::Run;

/// Consecutive batches that a sample is cut into.
const BATCHES: u64 = 20;

/// The design effect of an indicator (0 or 1, as runs in order of time) by batch means: the variance of the mean that
/// 20 consecutive batches show, divided by the p(1 − p)/n that independent observations would have; at least 1
/// (Kish, *Survey Sampling*, 1965, for the name; Law, *Simulation Modeling and Analysis*, 9.5.3, for the batches).
///
/// A sample of n then counts as n divided by it. It is 1 where all observations are equal or there are fewer than 20.
pub fn design_effect(indicator: &[(bool, u64)]) -> f64 {
    let runs: Vec<Run> = indicator.iter().map(|(hit, count)| (f64::from(u8::from(*hit)), *count)).collect();
    let n = super::total(&runs);
    let hits = super::sum(&runs);
    let p = if n == 0 { 0.0 } else { hits / n as f64 };
    if n < BATCHES || p <= 0.0 || p >= 1.0 {
        return 1.0;
    }
    let means: Vec<Run> =
        batch_hits(indicator, n).into_iter().map(|(hits, size)| (hits as f64 / size as f64, 1)).collect();
    let spread = super::stddev(&means).unwrap_or(0.0);
    let of_the_mean = spread * spread / BATCHES as f64;
    (of_the_mean / (p * (1.0 - p) / n as f64)).max(1.0)
}

/// The ranges of `n` observations that the batches take: batch j from ⌊j·n/20⌋ to ⌊(j+1)·n/20⌋, so sizes differ by one at most.
pub(super) fn batches(n: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    let edge = move |j: u64| (u128::from(j) * u128::from(n) / u128::from(BATCHES)) as u64;
    (0..BATCHES).map(move |j| edge(j)..edge(j + 1))
}

/// Hits and size of each batch.
fn batch_hits(indicator: &[(bool, u64)], n: u64) -> Vec<(u64, u64)> {
    let ranges: Vec<std::ops::Range<u64>> = batches(n).collect();
    let mut hits: Vec<(u64, u64)> = ranges.iter().map(|range| (0, range.end - range.start)).collect();
    let (mut at, mut batch) = (0, 0);
    for (hit, count) in indicator {
        let end = at + count;
        while at < end {
            let upto = end.min(ranges[batch].end);
            if *hit {
                hits[batch].0 += upto - at;
            }
            at = upto;
            if at == ranges[batch].end {
                batch += 1;
            }
        }
    }
    hits
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "1 is returned as it stands")]
mod tests {
    use super::*;
    use crate::sample::Draws;

    #[test]
    fn equal_or_few_observations_count_in_full() {
        assert_eq!(design_effect(&[]), 1.0);
        assert_eq!(design_effect(&[(true, 1000)]), 1.0);
        assert_eq!(design_effect(&[(false, 1000)]), 1.0);
        assert_eq!(design_effect(&[(true, 5), (false, 14)]), 1.0);
    }

    #[test]
    fn one_block_counts_as_its_batches() {
        // Half the batches all hits, half none: their means' variance is 10·0.25·2/19 = 5/19, so D = 5/19/20 / (0.25/n) = n/19.
        let d = design_effect(&[(true, 500), (false, 500)]);
        assert!((d - 1000.0 / 19.0).abs() < 1e-9, "{d}");
    }

    #[test]
    fn runs_and_single_observations_are_the_same_sample() {
        let runs = [(true, 37), (false, 101), (true, 3), (false, 250), (true, 14)];
        let singles: Vec<(bool, u64)> =
            runs.iter().flat_map(|(hit, count)| std::iter::repeat_n((*hit, 1), *count as usize)).collect();
        assert_eq!(design_effect(&runs), design_effect(&singles));
        let n = 405;
        let batches = batch_hits(&runs, n);
        assert_eq!(batches.iter().map(|b| b.1).sum::<u64>(), n);
        assert_eq!(batches.iter().map(|b| b.0).sum::<u64>(), 54);
    }

    #[test]
    fn independent_observations_keep_most_of_their_size_and_sticky_ones_do_not() {
        // A two-state chain that keeps its state with probability k has the design effect k/(1−k)
        // for p = 1/2 in the limit: 1 for k = 1/2, 9 for k = 0.9.
        let chain = |keep: f64| {
            let mut draws = Draws::new(7, "chain", 0);
            let mut state = false;
            let mut sum = 0.0;
            for _ in 0..200 {
                let sample: Vec<(bool, u64)> = (0..2000)
                    .map(|_| {
                        state = if draws.unit() < keep { state } else { !state };
                        (state, 1)
                    })
                    .collect();
                sum += design_effect(&sample);
            }
            sum / 200.0
        };
        let (free, sticky) = (chain(0.5), chain(0.9));
        assert!((1.0..1.25).contains(&free), "{free}");
        assert!((7.5..9.5).contains(&sticky), "{sticky}");
    }
}

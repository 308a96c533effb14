//! How much less a dependent sample says than an independent one of its size.

use super::Run;
use super::student::t_exceeded;

/// The ways in which a sample is cut into consecutive batches. Where observations are independent, the variance of the mean that
/// b batches show exceeds the true one by more than the second number once in twenty times: χ²₀.₉₅(b − 1)/(b − 1).
const CUTS: [(u64, f64); 3] = [(20, 1.586_50), (10, 1.879_89), (5, 2.371_93)];

/// The number of batches where nothing speaks against independence.
pub(super) const BATCHES: u64 = CUTS[0].0;

/// Into how many batches a sample is cut to tell the error of its mean, or `None` where its neighbours are not alike.
///
/// `variance(b)` is the variance of the mean that b batches show, `independent` what independent observations have. A batch
/// must be long beside the time over which neighbours are alike, which nobody knows. So 20 batches are taken where 20, 10 and
/// 5 all show no more than independent observations do; else the number with which the mean is least certain: the largest
/// variance times the squared t of its b − 1 degrees of freedom (Law, *Simulation Modeling and Analysis*, 9.5.3, for the
/// batches and for t).
pub(super) fn least_certain(independent: f64, alpha: f64, variance: impl Fn(u64) -> f64) -> Option<u64> {
    let shown = CUTS.map(|(batches, critical)| (batches, critical, variance(batches)));
    if shown.iter().all(|(_, critical, variance)| *variance <= critical * independent) {
        return None;
    }
    let reach = |(batches, _, variance): &(u64, f64, f64)| {
        let t = t_exceeded(alpha, *batches as f64 - 1.0);
        variance * t * t
    };
    shown.iter().max_by(|a, b| reach(a).total_cmp(&reach(b))).map(|(batches, ..)| *batches)
}

/// The design effect of an indicator (0 or 1, as runs in order of time) by batch means: the variance of the mean that
/// consecutive batches show, divided by the p(1 − p)/n that independent observations would have; at least 1
/// (Kish, *Survey Sampling*, 1965, for the name). Where neighbours are alike, that variance is itself known from few batches,
/// so it is raised by (t/z)², the squared ratio of what t of the batches' degrees of freedom and the normal law exceed with
/// probability `alpha`.
///
/// A sample of n then counts as n divided by it. It is 1 where all observations are equal or there are fewer than 20.
pub fn design_effect(indicator: &[(bool, u64)], alpha: f64) -> f64 {
    estimated(indicator, alpha).map_or(1.0, |(effect, _)| effect)
}

/// The design effect of an indicator whose neighbours are shown to be alike; 1 where what the batches show can come from
/// independent observations.
pub fn shown_design_effect(indicator: &[(bool, u64)], alpha: f64) -> f64 {
    estimated(indicator, alpha).filter(|(_, is_shown)| *is_shown).map_or(1.0, |(effect, _)| effect)
}

/// The design effect, and whether it is more than chance; `None` where there is nothing to see.
fn estimated(indicator: &[(bool, u64)], alpha: f64) -> Option<(f64, bool)> {
    let n: u64 = indicator.iter().map(|(_, count)| count).sum();
    let hits: u64 = indicator.iter().filter(|(hit, _)| *hit).map(|(_, count)| count).sum();
    if n < BATCHES || hits == 0 || hits == n {
        return None;
    }
    let p = hits as f64 / n as f64;
    let independent = p * (1.0 - p) / n as f64;
    let variance = |batches: u64| {
        let means: Vec<Run> = batch_hits(indicator, n, batches)
            .into_iter()
            .map(|(hits, size)| (hits as f64 / size as f64, 1))
            .collect();
        let spread = super::stddev(&means).unwrap_or(0.0);
        spread * spread / batches as f64
    };
    let (effect, is_shown) = match least_certain(independent, alpha, variance) {
        None => (variance(BATCHES) / independent, false),
        Some(batches) => {
            let ratio = t_exceeded(alpha, batches as f64 - 1.0) / t_exceeded(alpha, NORMAL);
            (variance(batches) * ratio * ratio / independent, true)
        }
    };
    Some((effect.max(1.0), is_shown))
}

/// Degrees of freedom with which t is the normal law, to six digits.
const NORMAL: f64 = 1e6;

/// The ranges of `n` observations that `count` batches take: batch j from ⌊j·n/count⌋ to ⌊(j+1)·n/count⌋, so sizes differ by
/// one at most.
pub(super) fn batches(n: u64, count: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    let edge = move |j: u64| (u128::from(j) * u128::from(n) / u128::from(count)) as u64;
    (0..count).map(move |j| edge(j)..edge(j + 1))
}

/// Hits and size of each batch.
fn batch_hits(indicator: &[(bool, u64)], n: u64, count: u64) -> Vec<(u64, u64)> {
    let ranges: Vec<std::ops::Range<u64>> = batches(n, count).collect();
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
        for indicator in [&[][..], &[(true, 1000)], &[(false, 1000)], &[(true, 5), (false, 14)]] {
            assert_eq!(design_effect(indicator, 0.05), 1.0);
        }
    }

    #[test]
    fn one_block_counts_as_its_batches() {
        // Five batches are the least certain: means of 1, 1, 1/2, 0 and 0 have the variance 1/4, so D = (1/4)/5 / ((1/4)/n) = n/5,
        // times the squares of t(0.05, 4) = 2.131847 and 1/z = 1/1.644854.
        let d = design_effect(&[(true, 500), (false, 500)], 0.05);
        let ratio = 2.131_847 / 1.644_854;
        assert!((d / (200.0 * ratio * ratio) - 1.0).abs() < 1e-4, "{d}");
    }

    #[test]
    fn runs_and_single_observations_are_the_same_sample() {
        let runs = [(true, 37), (false, 101), (true, 3), (false, 250), (true, 14)];
        let singles: Vec<(bool, u64)> =
            runs.iter().flat_map(|(hit, count)| std::iter::repeat_n((*hit, 1), *count as usize)).collect();
        assert_eq!(design_effect(&runs, 0.05), design_effect(&singles, 0.05));
        let n = 405;
        let batches = batch_hits(&runs, n, 20);
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
                sum += design_effect(&sample, 0.05);
            }
            sum / 200.0
        };
        let (free, sticky) = (chain(0.5), chain(0.9));
        assert!((1.0..1.6).contains(&free), "{free}");
        assert!((9.0..20.0).contains(&sticky), "{sticky}");
    }
}

//! Sorted values and what is read off them.

/// The nearest rank of quantile `q` among `n` values, 1-based: ceil(q·n), within 1..=n. `n` must not be 0.
///
/// A product that exceeds a whole number only by the rounding of `q` (0.07 × 100 = 7.000000000000001) is that number.
pub fn rank(q: f64, n: u64) -> u64 {
    let product = q * n as f64;
    (libm::ceil(product * (1.0 - 4.0 * f64::EPSILON)) as u64).clamp(1, n.max(1))
}

/// Values in ascending order, and their statistics. Any unit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distribution(Vec<f64>);

impl Distribution {
    /// Sorts values. NaN must not be among them; it would sort to an end.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        Self(values)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// The values in ascending order.
    pub fn sorted(&self) -> &[f64] {
        &self.0
    }

    /// The nearest-rank quantile; `None` without values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0[rank(q, self.count()) as usize - 1])
    }

    /// The smallest value.
    pub fn min(&self) -> Option<f64> {
        self.0.first().copied()
    }

    /// The largest value.
    pub fn max(&self) -> Option<f64> {
        self.0.last().copied()
    }

    /// The sum, added in ascending order, so that it does not depend on the order of the records.
    pub fn sum(&self) -> f64 {
        self.0.iter().sum()
    }

    /// The arithmetic mean; `None` without values.
    pub fn mean(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.sum() / self.0.len() as f64)
    }

    /// The sample standard deviation (divided by n − 1); `None` for fewer than two values.
    pub fn std(&self) -> Option<f64> {
        let mean = self.mean().filter(|_| self.0.len() > 1)?;
        let squares: f64 = self.0.iter().map(|value| (value - mean) * (value - mean)).sum();
        Some(libm::sqrt(squares / (self.0.len() - 1) as f64))
    }
}

/// The ranks (1-based) of the two order statistics that enclose the median with a probability of at least 95 %,
/// whatever the distribution: the largest l with P(Bin(n, 1/2) ≤ l − 1) ≤ 2.5 %, and n + 1 − l.
/// `None` for n < 6, where even the smallest and the largest value enclose it with less.
///
/// Source: Conover, Practical Nonparametric Statistics, confidence interval for a quantile.
pub fn median_interval(n: u64) -> Option<(u64, u64)> {
    if n < 6 {
        return None;
    }
    let total = n as f64;
    // Ten standard deviations below the mean, the mass left out is below 1e-20.
    let from = libm::floor(total / 2.0 - 5.0 * libm::sqrt(total)).max(0.0);
    let ln_choose = libm::lgamma(total + 1.0) - libm::lgamma(from + 1.0) - libm::lgamma(total - from + 1.0);
    let mut mass = libm::exp(ln_choose - total * std::f64::consts::LN_2);
    let (mut at, mut below) = (from, 0.0);
    while below + mass <= 0.025 {
        below += mass;
        mass *= (total - at) / (at + 1.0);
        at += 1.0;
    }
    let lower = (at as u64).max(1);
    Some((lower, n + 1 - lower))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranks_survive_the_rounding_of_the_quantile() {
        for percent in 1..100u64 {
            for n in 1..=1000u64 {
                let exact = (percent * n).div_ceil(100);
                assert_eq!(rank(percent as f64 / 100.0, n), exact, "p{percent} of {n}");
            }
        }
        assert_eq!(rank(0.999, 1000), 999);
        assert_eq!(rank(0.999, 1_000_000), 999_000);
    }

    proptest! {
        /// Nearest rank by definition: the smallest value with at least q·n values at or below it.
        #[test]
        fn quantiles_follow_the_definition(values in prop::collection::vec(0u32..50, 1..200), percent in 1u64..100) {
            let n = values.len() as u64;
            let expected = values.iter().copied()
                .filter(|v| values.iter().filter(|w| *w <= v).count() as u64 * 100 >= percent * n)
                .min().expect("the largest value qualifies");
            let distribution = Distribution::of(values.iter().map(|v| f64::from(*v)).collect());
            prop_assert_eq!(distribution.quantile(percent as f64 / 100.0), Some(f64::from(expected)));
        }
    }

    #[test]
    fn median_intervals_are_those_of_the_printed_tables() {
        // Conover's table A3 / any table of sign-test intervals at 95 %.
        for (n, expected) in [
            (5, None),
            (6, Some((1, 6))),
            (8, Some((1, 8))),
            (9, Some((2, 8))),
            (10, Some((2, 9))),
            (20, Some((6, 15))),
            (25, Some((8, 18))),
            (50, Some((18, 33))),
            (100, Some((40, 61))),
        ] {
            assert_eq!(median_interval(n), expected, "n = {n}");
        }
        // The normal approximation n/2 − 0.98 √n at a size where the exact sum would underflow term by term.
        let (lower, upper) = median_interval(1_000_000).expect("n is large");
        assert!((499_019..=499_021).contains(&lower) && upper == 1_000_001 - lower, "{lower} {upper}");
    }

    #[test]
    fn statistics_of_four_values() {
        let four = Distribution::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((four.min(), four.max(), four.mean()), (Some(1.0), Some(4.0), Some(2.5)));
        assert_eq!(four.std(), Some(libm::sqrt(5.0 / 3.0)));
        assert_eq!(Distribution::default().mean(), None);
        assert_eq!(Distribution::of(vec![1.0]).std(), None);
    }
}

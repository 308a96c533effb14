//! The pool of token gaps: value to count.

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;

use super::distribution::rank;
use crate::units::Ns;

/// Up to so many distinct values are kept as they are.
const DISTINCT: usize = 1_000_000;

/// Gaps between tokens in nanoseconds: exact while there are at most a million distinct values, then an
/// `HdrHistogram` of 3 significant digits. Count, mean and extremes are exact in both.
///
/// What it holds depends only on which gaps were recorded, never on their order or on how they were split and merged.
#[derive(Debug, Clone)]
pub struct Pool {
    store: Store,
    count: u64,
    sum: u128,
    min: Ns,
    max: Ns,
    distinct: usize,
}

#[derive(Debug, Clone)]
enum Store {
    Exact(FxHashMap<Ns, u64>),
    Histogram(Box<Histogram<u64>>),
}

impl Default for Pool {
    fn default() -> Self {
        Self::with_limit(DISTINCT)
    }
}

impl PartialEq for Pool {
    fn eq(&self, other: &Self) -> bool {
        self.is_exact() == other.is_exact() && self.sum == other.sum && self.sorted() == other.sorted()
    }
}

impl Pool {
    /// A pool that stays exact up to `distinct` distinct values.
    fn with_limit(distinct: usize) -> Self {
        Self { store: Store::Exact(FxHashMap::default()), count: 0, sum: 0, min: Ns::MAX, max: 0, distinct }
    }

    /// Adds `count` gaps of the same length.
    pub fn record_n(&mut self, gap: Ns, count: u64) {
        if count == 0 {
            return;
        }
        self.count += count;
        self.sum += u128::from(gap) * u128::from(count);
        self.min = self.min.min(gap);
        self.max = self.max.max(gap);
        self.store(gap, count);
    }

    fn store(&mut self, gap: Ns, count: u64) {
        match &mut self.store {
            Store::Exact(values) => {
                *values.entry(gap).or_default() += count;
                if values.len() > self.distinct {
                    let mut histogram = empty_histogram();
                    for (value, count) in values.iter() {
                        note(&mut histogram, *value, *count);
                    }
                    self.store = Store::Histogram(Box::new(histogram));
                }
            }
            Store::Histogram(histogram) => note(histogram, gap, count),
        }
    }

    /// Adds another pool.
    ///
    /// # Panics
    /// Never: histograms of one precision add up.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        match (&mut self.store, &other.store) {
            (Store::Histogram(own), Store::Histogram(theirs)) => own
                .add(theirs.as_ref())
                .expect("both histograms grow to any value and have the same precision"),
            (Store::Exact(own), Store::Histogram(theirs)) => {
                let mut histogram = theirs.clone();
                for (value, count) in own.iter() {
                    note(&mut histogram, *value, *count);
                }
                self.store = Store::Histogram(histogram);
            }
            (_, Store::Exact(theirs)) => {
                for (value, count) in theirs {
                    self.store(*value, *count);
                }
            }
        }
    }

    /// How many gaps there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether every value is kept as it is.
    pub fn is_exact(&self) -> bool {
        matches!(self.store, Store::Exact(_))
    }

    /// The sum of all gaps.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// The shortest gap.
    pub fn min(&self) -> Option<Ns> {
        (self.count > 0).then_some(self.min)
    }

    /// The longest gap.
    pub fn max(&self) -> Option<Ns> {
        (self.count > 0).then_some(self.max)
    }

    /// The mean gap in nanoseconds.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// The sample standard deviation in nanoseconds; `None` for fewer than two gaps.
    pub fn std(&self) -> Option<f64> {
        let mean = self.mean().filter(|_| self.count > 1)?;
        let squares: f64 = self
            .sorted()
            .iter()
            .map(|(value, count)| (*value as f64 - mean) * (*value as f64 - mean) * *count as f64)
            .sum();
        Some(libm::sqrt(squares / (self.count - 1) as f64))
    }

    /// Distinct values with their counts, in ascending order. Of a histogram: the upper end of each bucket that holds
    /// something, the last one cut to the longest gap.
    pub fn sorted(&self) -> Vec<(Ns, u64)> {
        match &self.store {
            Store::Exact(values) => {
                let mut pairs: Vec<_> = values.iter().map(|(value, count)| (*value, *count)).collect();
                pairs.sort_unstable();
                pairs
            }
            Store::Histogram(histogram) => histogram
                .iter_recorded()
                .map(|bucket| (bucket.value_iterated_to().min(self.max), bucket.count_at_value()))
                .collect(),
        }
    }

    /// The nearest-rank quantile in nanoseconds. For several, use [`Self::quantiles`], which sorts once.
    pub fn quantile(&self, q: f64) -> Option<Ns> {
        self.quantiles(&[q]).map(|values| values[0])
    }

    /// The nearest-rank quantiles of ascending `q`s, in nanoseconds; `None` of an empty pool.
    pub fn quantiles(&self, ascending: &[f64]) -> Option<Vec<Ns>> {
        if self.count == 0 {
            return None;
        }
        let pairs = self.sorted();
        let (mut at, mut seen) = (0, pairs[0].1);
        Some(
            ascending
                .iter()
                .map(|q| {
                    while seen < rank(*q, self.count) && at + 1 < pairs.len() {
                        at += 1;
                        seen += pairs[at].1;
                    }
                    pairs[at].0
                })
                .collect(),
        )
    }
}

/// Records into a histogram, which grows to the value by itself.
fn note(histogram: &mut Histogram<u64>, value: Ns, count: u64) {
    histogram
        .record_n(value, count)
        .expect("a histogram of 3 digits over all of u64 has 55,000 buckets: it fits");
}

fn empty_histogram() -> Histogram<u64> {
    Histogram::new(3).expect("3 significant digits are within the 0 to 5 that exist")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(runs: &[(u64, u64)], limit: usize) -> Pool {
        let mut pool = Pool::with_limit(limit);
        for (gap, count) in runs {
            pool.record_n(*gap, *count);
        }
        pool
    }

    fn runs() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((0u64..10_000_000_000, 1u64..5), 1..100)
    }

    proptest! {
        #[test]
        fn an_exact_pool_is_the_sorted_list(runs in runs(), percent in 1u64..101) {
            let pool = filled(&runs, DISTINCT);
            let mut list: Vec<u64> = runs.iter().flat_map(|(gap, n)| (0..*n).map(|_| *gap)).collect();
            list.sort_unstable();
            let n = list.len() as u64;
            prop_assert_eq!(pool.count(), n);
            prop_assert_eq!(pool.quantile(percent as f64 / 100.0), Some(list[(percent * n).div_ceil(100) as usize - 1]));
            prop_assert_eq!(pool.max(), list.last().copied());
            prop_assert_eq!(pool.min(), list.first().copied());
            let mean = list.iter().map(|v| u128::from(*v)).sum::<u128>() as f64 / n as f64;
            prop_assert!((pool.mean().unwrap() - mean).abs() <= mean * 1e-12);
        }

        #[test]
        fn splitting_and_merging_changes_nothing(runs in runs(), cut in 0usize..100, limit in prop::sample::select(vec![3usize, 40, DISTINCT])) {
            let whole = filled(&runs, limit);
            let cut = cut.min(runs.len());
            let (left, right) = runs.split_at(cut);
            let mut merged = filled(left, limit);
            merged.merge(&filled(right, limit));
            prop_assert_eq!(&merged, &whole);
            let mut reversed = filled(right, limit);
            reversed.merge(&filled(left, limit));
            prop_assert_eq!(&reversed, &whole);
        }

        #[test]
        fn a_histogram_errs_by_at_most_a_thousandth(runs in runs(), percent in 1u64..101) {
            let exact = filled(&runs, DISTINCT);
            let coarse = filled(&runs, 0);
            prop_assert!(!coarse.is_exact());
            let (a, b) = (exact.quantile(percent as f64 / 100.0).unwrap(), coarse.quantile(percent as f64 / 100.0).unwrap());
            prop_assert!(b >= a && (b - a) as f64 <= a as f64 * 1e-3 + 1.0, "{a} {b}");
            prop_assert_eq!(exact.mean(), coarse.mean());
            prop_assert_eq!(exact.max(), coarse.max());
        }
    }

    #[test]
    fn an_empty_pool_has_no_statistics() {
        let pool = Pool::default();
        assert_eq!((pool.mean(), pool.quantile(0.5), pool.max(), pool.std()), (None, None, None, None));
    }

    #[test]
    fn a_histogram_grows_to_any_value() {
        let mut pool = filled(&[(0, 1), (1, 1), (1 << 62, 2)], 0);
        assert_eq!(pool.quantiles(&[0.2, 0.5, 0.9]), Some(vec![0, 1, 1 << 62]));
        pool.merge(&filled(&[(5, 1)], 0));
        assert_eq!((pool.count(), pool.quantile(0.6)), (5, Some(5)));
    }

    #[test]
    fn deviation_of_1_2_3_4() {
        let pool = filled(&[(1, 1), (2, 1), (3, 1), (4, 1)], DISTINCT);
        assert_eq!(pool.std(), Some(libm::sqrt(5.0 / 3.0)));
    }
}

//! Student's t distribution, and estimates that follow it.

use super::Run;
use super::batch::{BATCHES, batches, least_certain};

/// ln Γ(a) + ln Γ(b) − ln Γ(a + b).
fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

/// The regularised incomplete beta function Iₓ(a, b) by its continued fraction, evaluated with Lentz's method
/// (*NIST Digital Library of Mathematical Functions*, 8.17.22). Fast where x < (a + 1)/(a + b + 2), so the other side
/// goes through Iₓ(a, b) = 1 − I₁₋ₓ(b, a).
#[expect(clippy::many_single_char_names, reason = "the names of the formula's source")]
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = libm::exp(a * libm::log(x) + b * libm::log1p(-x) - ln_beta(a, b)) / a;
    let tiny = 1e-300;
    let keep = |value: f64| if value.abs() < tiny { tiny } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / keep(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..10_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut factor = 1.0;
        for term in [even, odd] {
            d = 1.0 / keep(1.0 + term * d);
            c = keep(1.0 + term / c);
            factor = c * d;
            fraction *= factor;
        }
        if (factor - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// P(T ≤ t) of Student's t with `df` degrees of freedom, which need not be whole.
pub fn t_below(t: f64, df: f64) -> f64 {
    // P(|T| > t) = Iₓ(df/2, 1/2) at x = df/(df + t²).
    let beyond = 0.5 * incomplete_beta(df / (df + t * t), 0.5 * df, 0.5);
    if t > 0.0 { 1.0 - beyond } else { beyond }
}

/// The t that is exceeded with probability `alpha` below one half: 1.729 for 5 % at 19 degrees of freedom.
pub fn t_exceeded(alpha: f64, df: f64) -> f64 {
    let is_within = |t: f64| t_below(-t, df) <= alpha;
    let mut high = 1.0;
    while !is_within(high) && high < 1e300 {
        high *= 2.0;
    }
    let mut low = 0.0;
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if is_within(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// A mean with what is known of its error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The estimate itself.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
    /// The degrees of freedom behind the standard error.
    pub df: f64,
    /// Whether the error comes from batches of neighbours that are alike.
    pub alike: bool,
}

impl Estimate {
    /// Two bounds, each of which the true value is beyond with probability `alpha`: value ± `t_alpha` · error.
    ///
    /// Waits in a queue are skewed: where their mean comes out small, so does its error, and the upper bound of t fails two to
    /// four times as often as it should. So where neighbours are alike, the upper bound of a positive mean is
    /// value · exp(t · error/value), with t at a quarter of `alpha`. What is left is in the tests: at the edge, rules on
    /// M/M/1 queues at loads of 0.5 to 0.9 pass in 1 to 8 % of runs for an alpha of 5 %.
    pub fn bounds(&self, alpha: f64) -> [f64; 2] {
        // Without an error, t would only spoil the last digit.
        if self.error <= 0.0 {
            return [self.value, self.value];
        }
        let low = self.value - t_exceeded(alpha, self.df) * self.error;
        let high = if self.alike && self.value > 0.0 {
            let reach = t_exceeded(alpha / 4.0, self.df) * self.error / self.value;
            self.value * libm::exp(reach)
        } else {
            self.value + t_exceeded(alpha, self.df) * self.error
        };
        [low, high]
    }

    /// The difference to an independent estimate, with Welch's degrees of freedom
    /// (Welch, *Biometrika* 34, 1947: (a + b)² / (a²/f + b²/g) with f and g those of both sides, for squared errors a and b).
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let (a, b) = (self.error * self.error, other.error * other.error);
        let below = a * a / self.df + b * b / other.df;
        Self {
            value: self.value - other.value,
            error: libm::sqrt(a + b),
            df: if below > 0.0 { (a + b) * (a + b) / below } else { self.df.min(other.df) },
            alike: false,
        }
    }
}

/// The mean of independent values: standard error s/√n with n − 1 degrees of freedom. `None` of fewer than two.
pub fn mean_of_independent(values: &[f64]) -> Option<Estimate> {
    let runs: Vec<Run> = values.iter().map(|value| (*value, 1)).collect();
    let error = super::stddev(&runs)? / libm::sqrt(values.len() as f64);
    Some(Estimate { value: super::mean(&runs)?, error, df: values.len() as f64 - 1.0, alike: false })
}

/// The mean of values in order of time whose neighbours may be alike, by b batch means: their standard deviation over √b, with
/// b − 1 degrees of freedom (Law, *Simulation Modeling and Analysis*, 9.5.3); 20 batches, or 10 or 5 where neighbours are
/// alike and those are less certain. `None` of fewer than 40 values.
pub fn mean_of_neighbours(runs: &[Run]) -> Option<Estimate> {
    let parts: Vec<(f64, u64)> = runs.iter().map(|(value, count)| (value * *count as f64, *count)).collect();
    (super::total(runs) >= 40).then(|| ratio_by_batches(&singles(&parts)))?
}

/// Runs as single observations: a run may lie across the edge of two batches.
fn singles(parts: &[(f64, u64)]) -> Vec<(f64, u64)> {
    let each = |(sum, count): &(f64, u64)| std::iter::repeat_n((sum / *count as f64, 1), *count as usize);
    parts.iter().filter(|(_, count)| *count > 0).flat_map(each).collect()
}

/// The mean of values that come in clusters, as the gaps of one request do: Σ sums / Σ counts, a ratio whose error comes
/// from the residuals sum − ratio · count of the clusters (Cochran, *Sampling Techniques*, 3rd ed., 6.3), in batches of
/// neighbours, as many as [`mean_of_neighbours`] takes, where there are 200 clusters or more. `None` of fewer than two
/// clusters.
pub fn mean_of_clusters(clusters: &[(f64, u64)]) -> Option<Estimate> {
    let clusters: Vec<(f64, u64)> = clusters.iter().filter(|(_, count)| *count > 0).copied().collect();
    if clusters.len() < 2 {
        return None;
    }
    if clusters.len() >= 200 { ratio_by_batches(&clusters) } else { ratio(&clusters) }
}

fn ratio_by_batches(clusters: &[(f64, u64)]) -> Option<Estimate> {
    let cut = |count: u64| {
        let sums = batches(clusters.len() as u64, count).map(|batch| {
            clusters[batch.start as usize..batch.end as usize]
                .iter()
                .fold((0.0, 0), |(sum, count), (more, n)| (sum + more, count + n))
        });
        ratio(&sums.collect::<Vec<_>>())
    };
    let variance =
        |estimate: Option<Estimate>| estimate.map_or(0.0, |estimate| estimate.error * estimate.error);
    let count = least_certain(variance(ratio(clusters)), CHOICE_ALPHA, |count| variance(cut(count)));
    Some(Estimate { alike: count.is_some(), ..cut(count.unwrap_or(BATCHES))? })
}

/// The probability at which numbers of batches are held against each other.
const CHOICE_ALPHA: f64 = 0.05;

fn ratio(clusters: &[(f64, u64)]) -> Option<Estimate> {
    let count: u64 = clusters.iter().map(|(_, count)| count).sum();
    let sums: Vec<Run> = clusters.iter().map(|(sum, _)| (*sum, 1)).collect();
    let n = clusters.len() as f64;
    let value = super::sum(&sums) / count as f64;
    let residuals: Vec<Run> = clusters.iter().map(|(sum, count)| (sum - value * *count as f64, 1)).collect();
    let error = super::stddev(&residuals)? * libm::sqrt(n) / count as f64;
    Some(Estimate { value, error, df: n - 1.0, alike: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Draws;

    fn assert_close(found: f64, expected: f64, tolerance: f64, what: &str) {
        assert!(
            (found / expected - 1.0).abs() <= tolerance,
            "{what}: found {found:e}, expected {expected:e}"
        );
    }

    #[test]
    fn t_has_closed_forms_for_one_and_two_degrees_of_freedom() {
        for t in [-30.0_f64, -2.0, -0.1, 0.0, 0.5, 1.0, 7.0] {
            let cauchy = 0.5 + libm::atan(t) / std::f64::consts::PI;
            assert!((t_below(t, 1.0) - cauchy).abs() < 1e-14, "{t}");
            let two = 0.5 + 0.5 * t / libm::sqrt(2.0 + t * t);
            assert!((t_below(t, 2.0) - two).abs() < 1e-14, "{t}");
        }
    }

    /// `scipy.stats.t.isf(alpha, df)` of scipy 1.17.
    #[expect(clippy::unreadable_literal, reason = "numbers as they were printed")]
    const T: &[(f64, f64, f64)] = &[
        (0.05, 1.0, 6.313751514675044),
        (0.05, 2.0, 2.9199855803537256),
        (0.05, 4.0, 2.131846786326651),
        (0.025, 4.0, 2.7764451051977943),
        (0.05, 19.0, 1.7291328115213687),
        (0.05, 7.3, 1.8829300179564314),
        (0.001, 19.0, 3.579400148954716),
        (0.05, 1000.0, 1.6463788172854648),
        (0.2, 3.0, 0.9784723123633038),
    ];

    #[test]
    fn t_agrees_with_scipy() {
        for &(alpha, df, expected) in T {
            assert_close(t_exceeded(alpha, df), expected, 1e-9, &format!("t({alpha}, {df})"));
        }
    }

    #[test]
    fn welch_takes_the_textbook_degrees_of_freedom() {
        let a =
            mean_of_independent(&[27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6])
                .unwrap();
        let b =
            mean_of_independent(&[27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1])
                .unwrap();
        let difference = a.minus(&b);
        // By hand: a² and b² over their 11 degrees of freedom each.
        let (x, y) = (a.error * a.error, b.error * b.error);
        assert_close(difference.df, (x + y) * (x + y) / (x * x / 11.0 + y * y / 11.0), 1e-12, "df");
        assert_close(difference.value, a.value - b.value, 1e-12, "difference");
        assert_eq!(a.minus(&a).value.to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn clusters_of_one_size_are_independent_values() {
        let values = [3.0, 5.0, 4.0, 9.0, 1.0];
        let plain = mean_of_independent(&values).unwrap();
        let clusters: Vec<(f64, u64)> = values.iter().map(|value| (value * 7.0, 7)).collect();
        let found = mean_of_clusters(&clusters).unwrap();
        assert_close(found.value, plain.value, 1e-12, "mean");
        assert_close(found.error, plain.error, 1e-12, "error");
        assert_eq!(mean_of_clusters(&clusters[..1]), None);
        assert_eq!(mean_of_independent(&[1.0]), None);
    }

    /// A first-order autoregression x' = φx + noise, started in its steady state of mean 0 and variance 1.
    fn autoregression(phi: f64, n: usize, seed: u64) -> Vec<Run> {
        let mut draws = Draws::new(seed, "autoregression", 0);
        let mut normal = || {
            // The sum of twelve uniform values, near enough to a normal one here.
            (0..12).map(|_| draws.unit()).sum::<f64>() - 6.0
        };
        let mut x = normal();
        (0..n)
            .map(|_| {
                x = phi * x + libm::sqrt(1.0 - phi * phi) * normal();
                (x, 1)
            })
            .collect()
    }

    /// How often the true mean 0 lies beyond the upper bound at 5 %.
    fn beyond(phi: f64, estimate: impl Fn(&[Run]) -> Estimate) -> f64 {
        let beyond =
            (0..1000).filter(|seed| estimate(&autoregression(phi, 1000, *seed)).bounds(0.05)[1] < 0.0);
        beyond.count() as f64 / 1000.0
    }

    #[test]
    fn batch_means_hold_their_level_where_plain_means_do_not() {
        let plain = |runs: &[Run]| {
            mean_of_independent(&runs.iter().map(|(value, _)| *value).collect::<Vec<_>>()).unwrap()
        };
        let batched = |runs: &[Run]| mean_of_neighbours(runs).unwrap();
        assert!((0.02..0.07).contains(&beyond(0.0, batched)), "independent");
        for phi in [0.5, 0.8, 0.95] {
            let (with, without) = (beyond(phi, batched), beyond(phi, plain));
            assert!(with < 0.065 && without > 0.15, "{phi}: {with} {without}");
        }
    }

    #[test]
    fn runs_count_as_single_values() {
        let runs: Vec<Run> = (0..30).map(|at| (f64::from(at % 7), 1 + u64::from(at as u32 % 3))).collect();
        let single: Vec<Run> =
            runs.iter().flat_map(|(value, n)| std::iter::repeat_n((*value, 1), *n as usize)).collect();
        assert_eq!(mean_of_neighbours(&runs), mean_of_neighbours(&single));
        assert_eq!(mean_of_neighbours(&single[..39]), None);
    }
}

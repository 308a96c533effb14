//! Sums, means and standard deviations of runs.

use super::Run;

/// How many observations there are.
pub fn total(runs: &[Run]) -> u64 {
    runs.iter().map(|(_, count)| count).sum()
}

/// Adds with a running correction, so that the error does not grow with the number of terms
/// (Neumaier, *Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen*, 1974).
fn compensated(terms: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0_f64, 0.0_f64);
    for term in terms {
        let next = sum + term;
        lost += if sum.abs() >= term.abs() { (sum - next) + term } else { (term - next) + sum };
        sum = next;
    }
    sum + lost
}

/// The sum of all observations; 0 of none.
pub fn sum(runs: &[Run]) -> f64 {
    compensated(runs.iter().map(|(value, count)| value * *count as f64))
}

/// The arithmetic mean; `None` of nothing.
pub fn mean(runs: &[Run]) -> Option<f64> {
    let n = total(runs);
    (n > 0).then(|| sum(runs) / n as f64)
}

/// The sample standard deviation (divisor n − 1), in two passes; `None` of fewer than two observations.
pub fn stddev(runs: &[Run]) -> Option<f64> {
    let n = total(runs);
    if n < 2 {
        return None;
    }
    let mean = mean(runs)?;
    let squares =
        compensated(runs.iter().map(|(value, count)| (value - mean) * (value - mean) * *count as f64));
    Some(libm::sqrt(squares / (n - 1) as f64))
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these values are exact in binary")]
mod tests {
    use super::*;

    #[test]
    fn of_nothing_there_is_no_mean() {
        assert_eq!((total(&[]), sum(&[]), mean(&[]), stddev(&[])), (0, 0.0, None, None));
        assert_eq!((mean(&[(3.0, 1)]), stddev(&[(3.0, 1)])), (Some(3.0), None));
    }

    #[test]
    fn runs_count_as_often_as_they_say() {
        let runs = [(2.0, 1), (4.0, 3), (5.0, 2), (7.0, 1), (9.0, 1)];
        assert_eq!((total(&runs), sum(&runs), mean(&runs)), (8, 40.0, Some(5.0)));
        assert_eq!(stddev(&runs), Some(libm::sqrt(32.0 / 7.0)));
    }

    #[test]
    fn a_large_offset_costs_no_digits() {
        let runs: Vec<Run> = [4.0, 7.0, 13.0, 16.0].iter().map(|x| (1e9 + x, 1)).collect();
        assert_eq!((mean(&runs), stddev(&runs)), (Some(1e9 + 10.0), Some(libm::sqrt(30.0))));
        assert_eq!(sum(&[(1.0, 1), (1e100, 1), (1.0, 1), (-1e100, 1)]), 2.0);
    }
}

//! Binomial tails, exact up to the rounding of floats, for any n.
//!
//! One probability comes from Loader's saddle-point form, *Fast and Accurate Computation of Binomial Probabilities* (2000),
//! which cancels nothing; a tail is summed from it term by term, from the largest term outwards.

/// ln n! − ln(√(2πn) (n/e)^n), the error of Stirling's formula, for a whole number n.
fn stirling_error(n: f64) -> f64 {
    if n < 16.0 {
        // Below 16 the factorial is exact in a float, and both logarithms are small.
        let factorial: f64 = (2..=n as u32).map(f64::from).product();
        let stirling = if n < 1.0 {
            return 0.0;
        } else {
            0.5 * libm::log(2.0 * std::f64::consts::PI * n) + n * libm::log(n) - n
        };
        return libm::log(factorial) - stirling;
    }
    // The asymptotic series of ln Γ: Bernoulli numbers B_2k / (2k (2k − 1) n^(2k − 1)).
    let inverse_square = 1.0 / (n * n);
    let series = [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0, -691.0 / 360_360.0];
    series.iter().rev().fold(0.0, |sum, term| sum * inverse_square + term) / n
}

/// x·ln(x/m) + m − x, without cancellation where x is near m.
fn deviance(x: f64, m: f64) -> f64 {
    if (x - m).abs() < 0.1 * (x + m) {
        // With v = (x − m)/(x + m): ln(x/m) = 2 artanh v, so the value is (x − m)·v + 2x·Σ v^(2j+1)/(2j+1), j ≥ 1.
        let v = (x - m) / (x + m);
        let mut sum = (x - m) * v;
        let mut power = 2.0 * x * v;
        for j in 1..1000 {
            power *= v * v;
            let next = sum + power / f64::from(2 * j + 1);
            if next.to_bits() == sum.to_bits() {
                break;
            }
            sum = next;
        }
        return sum;
    }
    x * libm::log(x / m) + m - x
}

/// P(Bin(n, p) = k).
pub fn pmf(n: u64, p: f64, k: u64) -> f64 {
    if k > n {
        return 0.0;
    }
    if p <= 0.0 {
        return f64::from(u8::from(k == 0));
    }
    if p >= 1.0 {
        return f64::from(u8::from(k == n));
    }
    let (size, hits, misses) = (n as f64, k as f64, (n - k) as f64);
    if k == 0 {
        return libm::exp(size * libm::log1p(-p));
    }
    if k == n {
        return libm::exp(size * libm::log(p));
    }
    let exponent = stirling_error(size)
        - stirling_error(hits)
        - stirling_error(misses)
        - deviance(hits, size * p)
        - deviance(misses, size * (1.0 - p));
    libm::exp(exponent) * libm::sqrt(size / (2.0 * std::f64::consts::PI * hits * misses))
}

/// Whether a probability is at most `alpha`, up to the rounding of both: 1 − 0.95 is not 0.05 in floats, and a test that
/// stands exactly at its edge must not depend on it.
pub fn is_within(probability: f64, alpha: f64) -> bool {
    probability <= alpha * (1.0 + 1e-9)
}

/// P(Bin(n, p) ≤ k).
pub fn at_most(n: u64, p: f64, k: u64) -> f64 {
    if k >= n || p <= 0.0 {
        return 1.0;
    }
    if p >= 1.0 {
        return 0.0;
    }
    // Sum the side that does not hold the mean: its terms fall from the first on.
    if k as f64 >= n as f64 * p { 1.0 - upper(n, p, k + 1) } else { lower(n, p, k) }
}

/// P(Bin(n, p) ≥ k).
pub fn at_least(n: u64, p: f64, k: u64) -> f64 {
    if k == 0 || p >= 1.0 {
        return f64::from(u8::from(k <= n));
    }
    if k > n || p <= 0.0 {
        return 0.0;
    }
    if k as f64 > n as f64 * p { upper(n, p, k) } else { 1.0 - lower(n, p, k - 1) }
}

/// Σ P(Bin = j) for j from k down to 0, with k below the mean.
fn lower(n: u64, p: f64, k: u64) -> f64 {
    let odds = (1.0 - p) / p;
    let mut term = 1.0;
    let mut sum = 1.0;
    for j in (1..=k).rev() {
        term *= j as f64 / (n - j + 1) as f64 * odds;
        sum += term;
        if term < 1e-17 * sum {
            break;
        }
    }
    (pmf(n, p, k) * sum).min(1.0)
}

/// Σ P(Bin = j) for j from k up to n, with k above the mean.
fn upper(n: u64, p: f64, k: u64) -> f64 {
    let odds = p / (1.0 - p);
    let mut term = 1.0;
    let mut sum = 1.0;
    for j in k..n {
        term *= (n - j) as f64 / (j + 1) as f64 * odds;
        sum += term;
        if term < 1e-17 * sum {
            break;
        }
    }
    (pmf(n, p, k) * sum).min(1.0)
}

/// The bounds of Clopper and Pearson, *Biometrika* 26 (1934), on the true share of which `hits` of `n` were seen: each of
/// the two is wrong with probability `alpha` at most. `None` of nothing.
///
/// The lower one is the p at which so many or more have probability alpha (0 for no hits), the upper one the p at which
/// so many or fewer have (1 for all hits). With no hits the upper bound is 1 − alpha^(1/n), about 3/n at 95 %.
pub fn proportion_bounds(hits: u64, n: u64, alpha: f64) -> Option<[f64; 2]> {
    if n == 0 || hits > n {
        return None;
    }
    let seen = hits as f64 / n as f64;
    let low = if hits == 0 { 0.0 } else { bisect(0.0, seen, |p| at_least(n, p, hits) < alpha) };
    let high = if hits == n { 1.0 } else { bisect(seen, 1.0, |p| at_most(n, p, hits) > alpha) };
    Some([low, high])
}

/// Where a condition that holds at `low` and not at `high` is lost.
fn bisect(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high || high - low <= 1e-15 * high {
            break;
        }
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (n, p, k, P(X = k), P(X ≤ k), P(X ≥ k)), summed with mpmath 1.3 at 60 digits. For each row, with k above the mean:
    /// `t = binomial(n,k)*mpf(p)**k*(1-mpf(p))**(n-k); s = 0; while k <= n: s += t; t *= mpf(n-k)/(k+1)*mpf(p)/(1-mpf(p)); k += 1`
    /// and downwards below it. `scipy.stats.binom.{pmf,cdf}(k, n, p)` and `sf(k-1, n, p)` of scipy 1.17 agree to 12 digits.
    #[expect(clippy::unreadable_literal, reason = "numbers as they were printed")]
    const REFERENCE: &[(u64, f64, u64, f64, f64, f64)] = &[
        (10, 0.5, 3, 0.1171875, 0.171875, 0.9453125),
        (59, 0.05, 0, 0.04849452524942323, 0.04849452524942323, 1.0),
        (300, 0.01, 0, 0.049040894071285854, 0.049040894071285854, 1.0),
        (300, 0.01, 7, 0.021276867767901372, 0.9885259213651223, 0.03275094640277906),
        (1000, 0.05, 37, 0.0095095576361211, 0.03066439004792833, 0.9788451675881927),
        (1000, 0.05, 63, 0.00996483828051538, 0.9715716027160051, 0.03839323556451034),
        (1000, 0.999, 998, 0.1840317441296118, 0.264241086969813, 0.9197906571597988),
        (20000, 0.3, 5900, 0.0018737248101402665, 0.062179569439817776, 0.9396941553703225),
        (20000, 0.3, 6100, 0.0018700455670872887, 0.9393476778561742, 0.06252236771091307),
        (1000000, 0.01, 9900, 0.002427623000350728, 0.15865120924671097, 0.8437764137536398),
        (1000000, 0.01, 10150, 0.001284685513543618, 0.9345403966758142, 0.06674428883772936),
        (1000000, 0.5, 499000, 0.00010798197801891516, 0.02280414993269104, 0.9773038320453279),
        (5000000, 0.001, 4800, 9.952601252327481e-05, 0.002259428671185068, 0.9978400973413382),
        (5000000, 0.001, 5300, 7.986226571676047e-07, 0.9999873806029138, 1.3418019743320047e-05),
        (3000000, 1e-06, 12, 5.523694518848364e-05, 0.9999838512000118, 7.138574517670673e-05),
        (1000000, 0.01, 9000, 8.49990892744357e-26, 8.350415916923583e-25, 1.0),
        (1000000, 0.01, 11500, 3.132294249973047e-50, 1.0, 2.3671080357524566e-49),
        (16, 0.25, 1, 0.05345384404063225, 0.0634764397982508, 0.9899774042423815),
        (15, 0.25, 12, 1.1441297829151154e-05, 0.9999990770593286, 1.2364238500595093e-05),
        (100, 0.99, 90, 7.006035693977265e-08, 7.631587532260681e-08, 0.9999999937444816),
    ];

    /// (hits, n, alpha, low, high): `scipy.stats.beta.ppf(alpha, h, n-h+1)` and `beta.ppf(1-alpha, h+1, n-h)` of scipy 1.17.
    #[expect(clippy::unreadable_literal, reason = "numbers as they were printed")]
    const BOUNDS: &[(u64, u64, f64, f64, f64)] = &[
        (0, 10, 0.05, 0.0, 0.2588655508930522),
        (3, 10, 0.05, 0.08726443391415033, 0.6066242161054123),
        (10, 10, 0.05, 0.7411344491069477, 1.0),
        (5, 1000, 0.025, 0.00162541951756276, 0.011629470559812147),
        (980, 1000, 0.05, 0.9710698771486013, 0.9867069944654395),
        (10000, 1000000, 0.05, 0.009836888398114332, 0.010165213982092063),
        (1, 300, 0.05, 0.00017096303211345723, 0.01571455489158395),
    ];

    fn assert_close(found: f64, expected: f64, tolerance: f64, what: &str) {
        let error = if expected == 0.0 { found.abs() } else { (found / expected - 1.0).abs() };
        assert!(error <= tolerance, "{what}: found {found:e}, expected {expected:e}, off by {error:e}");
    }

    #[test]
    fn probabilities_agree_with_sixty_digits() {
        for &(n, p, k, mass, below, above) in REFERENCE {
            assert_close(pmf(n, p, k), mass, 1e-12, &format!("P(Bin({n}, {p}) = {k})"));
            assert_close(at_most(n, p, k), below, 1e-12, &format!("P(Bin({n}, {p}) ≤ {k})"));
            assert_close(at_least(n, p, k), above, 1e-12, &format!("P(Bin({n}, {p}) ≥ {k})"));
        }
    }

    #[test]
    fn tails_are_sums_of_every_outcome() {
        for n in 0..=12_u64 {
            for p in [0.0, 0.01, 0.3, 0.5, 0.95, 1.0] {
                // Every sequence of n hits and misses, one by one.
                let mut mass = vec![0.0; n as usize + 1];
                for sequence in 0..1_u32 << n {
                    let hits = sequence.count_ones();
                    mass[hits as usize] +=
                        libm::pow(p, f64::from(hits)) * libm::pow(1.0 - p, n as f64 - f64::from(hits));
                }
                for k in 0..=n {
                    let (at, what) = (k as usize, format!("n {n} p {p} k {k}"));
                    assert!((at_most(n, p, k) - mass[..=at].iter().sum::<f64>()).abs() < 1e-13, "{what}");
                    assert!((at_least(n, p, k) - mass[at..].iter().sum::<f64>()).abs() < 1e-13, "{what}");
                    assert!((pmf(n, p, k) - mass[at]).abs() < 1e-14, "{what}");
                }
            }
        }
    }

    #[test]
    fn out_of_range_is_certain_or_impossible() {
        assert_close(at_most(5, 0.5, 9), 1.0, 0.0, "all");
        assert_close(at_least(5, 0.5, 9), 0.0, 0.0, "none");
        assert_close(at_least(0, 0.5, 0), 1.0, 0.0, "nothing of nothing");
        assert_close(at_most(0, 0.5, 0), 1.0, 0.0, "nothing of nothing");
    }

    #[test]
    fn bounds_agree_with_scipy() {
        for &(hits, n, alpha, low, high) in BOUNDS {
            let [found_low, found_high] = proportion_bounds(hits, n, alpha).unwrap();
            assert_close(found_low, low, 1e-10, &format!("low of {hits}/{n}"));
            assert_close(found_high, high, 1e-10, &format!("high of {hits}/{n}"));
        }
        assert_eq!(proportion_bounds(0, 0, 0.05), None);
        // No hits: 1 − alpha^(1/n), about three in n.
        let [_, high] = proportion_bounds(0, 1000, 0.05).unwrap();
        assert_close(high, 1.0 - libm::pow(0.05, 0.001), 1e-10, "rule of three");
    }
}

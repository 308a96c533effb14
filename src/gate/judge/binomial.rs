//! The binomial test of shares and quantiles.

use super::super::judgement::Verdict;
use crate::stats;
use crate::units::human;

/// From so many observations on, neighbours are looked at: 20 batches of at least ten.
pub(super) const DEPENDENCE_FROM: u64 = 200;

/// The binomial test of the parent module's doc.
pub(super) struct Test {
    pub(super) n: u64,
    violations: u64,
    /// What the sample counts as, its dependence taken into account.
    pub(super) effective: u64,
    /// n divided by the effective size, as it was estimated.
    design_effect: f64,
    allowed: f64,
    pub(super) alpha: f64,
}

/// The design effect of an indicator in order of time, where there are enough observations to look for one.
pub(super) fn design_effect(indicator: &[(bool, u64)], alpha: f64) -> f64 {
    let n: u64 = indicator.iter().map(|(_, count)| count).sum();
    if n >= DEPENDENCE_FROM { stats::design_effect(indicator, alpha) } else { 1.0 }
}

/// What a sample counts as.
pub(super) fn effective(n: u64, design_effect: f64) -> u64 {
    (libm::floor(n as f64 / design_effect) as u64).max(1).min(n)
}

impl Test {
    pub(super) fn new(violations: &[(bool, u64)], design_effect: f64, allowed: f64, alpha: f64) -> Self {
        let n: u64 = violations.iter().map(|(_, count)| count).sum();
        let hits = violations.iter().filter(|(hit, _)| *hit).map(|(_, count)| count).sum();
        Self { n, violations: hits, effective: effective(n, design_effect), design_effect, allowed, alpha }
    }

    /// A count of the real sample in the effective one.
    pub(super) fn scaled(&self, count: f64, round: fn(f64) -> f64) -> u64 {
        (round(count / self.design_effect) as u64).min(self.effective)
    }

    /// Violations are rounded up for passing and down for failing: the division must not decide.
    pub(super) fn verdict(&self) -> Verdict {
        let t = self.violations as f64;
        if self.passes(self.scaled(t, libm::ceil)) {
            Verdict::Pass
        } else if self.fails(self.scaled(t, libm::floor)) {
            Verdict::Fail
        } else {
            Verdict::Inconclusive
        }
    }

    fn passes(&self, violations: u64) -> bool {
        stats::is_within(stats::at_most(self.effective, self.allowed, violations), self.alpha)
    }

    fn fails(&self, violations: u64) -> bool {
        stats::is_within(stats::at_least(self.effective, self.allowed, violations), self.alpha)
    }

    /// What it would take to be decided.
    pub(super) fn shortfall(&self) -> String {
        let level = human(1.0 - self.alpha, "%");
        let n = self.effective;
        let needed = stats::smallest_n(self.allowed, self.alpha).filter(|needed| n < *needed);
        if let Some(needed) = needed {
            return if n < self.n {
                format!(
                    "neighbours are alike, so {} samples count as {n}, too few to pass at {level}, which takes {needed}",
                    self.n
                )
            } else {
                format!("{n} samples are too few to pass at {level}, which takes {needed}")
            };
        }
        let most = partition(n, |t| self.passes(t)).saturating_sub(1);
        let least = partition(n, |t| !self.fails(t));
        let seen = self.scaled(self.violations as f64, libm::round);
        format!(
            "{seen} of {n} break the limit; at {level} a pass allows {most} at most and a failure takes {least}"
        )
    }
}

/// The first count in `0..=n` for which a condition does not hold that never comes back once it is lost; n + 1 if none.
fn partition(n: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, n + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

//! One measurement against another: is it worse by more than is allowed?
//!
//! The ratio of both sides is held against the allowed change δ by one-sided bounds, each wrong with probability α: it
//! fails when the bound that favours it most is beyond 1 + δ, passes when the one that favours it least is not, and is
//! inconclusive between (Criterion's shape, after Kalibera and Jones, *Rigorous Benchmarking in Reasonable Time*, 2013:
//! what decides is how much repeats differ, not how much requests do).
//!
//! | repeats | spread of the ratio's logarithm |
//! |---|---|
//! | two or more on both sides | Welch's t on the logarithms of the repeats' statistics |
//! | one against several | the several's own, for both sides: t with error s·√(1 + 1/R) |
//! | one against one | only that within each run, by Zou and Donner's MOVER (*Statistics in Medicine* 27, 2008) |
//!
//! The last one knows nothing of how much runs differ, and no verdict of it decides unless that is asked for. Where a value
//! is 0 there are no logarithms, and differences take their place; a change in a unit (`+ 5ms`) is one as well.

use super::super::judgement::Verdict;
use crate::rule::{Change, Op};
use crate::stats::{Estimate, mean_of_independent, t_exceeded};

/// The error probability each way of [`Side::interval`].
pub const INTERVAL_ALPHA: f64 = 0.05;

/// What one statistic comes to on one side.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// Its value in each repeat; at least one.
    pub values: Vec<f64>,
    /// Of a single run: bounds on the true value, each wrong with probability [`INTERVAL_ALPHA`].
    pub interval: Option<[f64; 2]>,
    /// Whether the same plan gives the same numbers again.
    pub exact: bool,
}

impl Side {
    /// The mean over the repeats.
    pub fn value(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }

    /// The same on another scale.
    fn scaled(&self, scale: impl Fn(f64) -> f64) -> Self {
        Self {
            values: self.values.iter().map(|value| scale(*value)).collect(),
            interval: self.interval.map(|bounds| bounds.map(&scale)),
            exact: self.exact,
        }
    }
}

/// What holding two sides against each other comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Contrast {
    /// The verdict on `ours op change(theirs)`.
    pub verdict: Verdict,
    /// Ours over theirs; `None` where theirs is 0.
    pub ratio: Option<f64>,
    /// Its two one-sided bounds, where there are any.
    pub interval: Option<[f64; 2]>,
    /// How it was judged, in a few words.
    pub method: String,
    /// Only the spread within one run each is known, so that the verdict should not decide.
    pub is_single: bool,
}

/// Holds `ours op change(theirs)`.
pub fn contrast(ours: &Side, theirs: &Side, change: Change, op: Op, alpha: f64) -> Contrast {
    let (mine, other) = (ours.value(), theirs.value());
    let ratio = (other != 0.0).then(|| mine / other);
    let by_point = |method: &str, is_single| Contrast {
        verdict: if op.holds(mine, change.of(other)) { Verdict::Pass } else { Verdict::Fail },
        ratio,
        interval: None,
        method: method.to_owned(),
        is_single,
    };
    if op.is_equality() || (ours.exact && theirs.exact) {
        return by_point("exact", false);
    }
    let positive = |side: &Side| side.values.iter().chain(side.interval.iter().flatten()).all(|v| *v > 0.0);
    let logs = !matches!(change, Change::By(_)) && positive(ours) && positive(theirs);
    let (ours_scaled, theirs_scaled, target) = match change {
        Change::None | Change::Share(_) if logs => {
            (ours.scaled(libm::log), theirs.scaled(libm::log), libm::log(change.of(1.0)))
        }
        Change::By(more) => (ours.clone(), theirs.clone(), more),
        Change::None | Change::Share(_) => (ours.clone(), theirs.scaled(|value| change.of(value)), 0.0),
    };
    let Some((bounds, method, is_single)) = difference(&ours_scaled, &theirs_scaled, alpha) else {
        return by_point("point, 1 run against 1", true);
    };
    Contrast {
        verdict: decided(bounds, op, target),
        ratio,
        interval: logs.then(|| bounds.map(libm::exp)),
        method,
        is_single,
    }
}

/// The verdict of two one-sided bounds.
pub(super) fn decided([low, high]: [f64; 2], op: Op, limit: f64) -> Verdict {
    let (worst, best) = if op.is_upper() { (high, low) } else { (low, high) };
    if op.holds(worst, limit) {
        Verdict::Pass
    } else if op.holds(best, limit) {
        Verdict::Inconclusive
    } else {
        Verdict::Fail
    }
}

/// Bounds on the difference, how they were found, and whether only the spread within runs is in them.
fn difference(ours: &Side, theirs: &Side, alpha: f64) -> Option<([f64; 2], String, bool)> {
    let (n, m) = (ours.values.len(), theirs.values.len());
    let sizes = format!("{} against {m}", super::runs(n));
    if let Some((a, b)) = mean_of_independent(&ours.values).zip(mean_of_independent(&theirs.values)) {
        return Some((a.minus(&b).bounds(alpha), format!("Welch's t over repeats, {sizes}"), false));
    }
    if let Some(several) = mean_of_independent(&ours.values).or(mean_of_independent(&theirs.values)) {
        let repeats = n.max(m) as f64;
        let error = several.error * libm::sqrt(repeats + 1.0);
        let estimate = Estimate { value: ours.value() - theirs.value(), error, df: several.df, alike: false };
        return Some((estimate.bounds(alpha), format!("t over the repeats of one side, {sizes}"), false));
    }
    let (own, other) = (reach(ours, alpha)?, reach(theirs, alpha)?);
    let value = ours.value() - theirs.value();
    let bounds = [value - libm::hypot(own[0], other[1]), value + libm::hypot(own[1], other[0])];
    Some((bounds, format!("within-run spread, {sizes}"), true))
}

/// How far the bounds of a single run lie below and above its value, stretched to `alpha` as those of a normal law are.
fn reach(side: &Side, alpha: f64) -> Option<[f64; 2]> {
    let ([low, high], value) = (side.interval?, side.value());
    let normal = 1e9;
    let stretch = t_exceeded(alpha, normal) / t_exceeded(INTERVAL_ALPHA, normal);
    Some([stretch * (value - low).max(0.0), stretch * (high - value).max(0.0)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Draws;

    fn repeats(values: &[f64]) -> Side {
        Side { values: values.to_vec(), interval: None, exact: false }
    }

    fn single(value: f64, interval: Option<[f64; 2]>) -> Side {
        Side { values: vec![value], interval, exact: false }
    }

    #[test]
    fn welch_on_logarithms_agrees_with_scipy() {
        // a = [20.1, 20.9, 19.8, 20.4, 20.6]; b = [18.9, 19.3, 19.1, 18.7, 19.0]:
        // r = scipy.stats.ttest_ind(np.log(a), np.log(b), equal_var=False); np.exp(r.confidence_interval(0.9)) of scipy 1.17.
        let (a, b) = (repeats(&[20.1, 20.9, 19.8, 20.4, 20.6]), repeats(&[18.9, 19.3, 19.1, 18.7, 19.0]));
        let found = contrast(&a, &b, Change::Share(0.05), Op::Le, 0.05);
        let [low, high] = found.interval.unwrap();
        assert!((low - LOW).abs() < 1e-9 && (high - HIGH).abs() < 1e-9, "{low} {high}");
        assert_eq!(found.verdict, Verdict::Inconclusive);
        assert_eq!(contrast(&a, &b, Change::Share(0.12), Op::Le, 0.05).verdict, Verdict::Pass);
        assert_eq!(contrast(&a, &b, Change::None, Op::Le, 0.05).verdict, Verdict::Fail);
        assert_eq!(contrast(&b, &a, Change::None, Op::Le, 0.05).verdict, Verdict::Pass);
        assert_eq!(contrast(&b, &a, Change::Share(-0.02), Op::Ge, 0.05).verdict, Verdict::Fail);
        assert_eq!(found.method, "Welch's t over repeats, 5 runs against 5");
    }

    const LOW: f64 = 1.049_416_869_973_09;
    const HIGH: f64 = 1.093_943_398_956_815_5;

    #[test]
    fn deterministic_sides_are_compared_exactly() {
        let side = |value| Side { values: vec![value], interval: None, exact: true };
        let verdict = |ours, change| contrast(&side(ours), &side(10.0), change, Op::Le, 0.05).verdict;
        assert_eq!(verdict(10.5, Change::Share(0.05)), Verdict::Pass);
        assert_eq!(verdict(10.51, Change::Share(0.05)), Verdict::Fail);
        assert_eq!(verdict(12.0, Change::By(2.0)), Verdict::Pass);
        assert_eq!(verdict(10.0, Change::None), Verdict::Pass);
    }

    #[test]
    fn single_runs_never_decide_alone() {
        let wide = contrast(
            &single(10.0, Some([9.0, 11.0])),
            &single(9.0, Some([8.0, 10.0])),
            Change::None,
            Op::Le,
            0.05,
        );
        assert_eq!((wide.verdict, wide.is_single), (Verdict::Inconclusive, true));
        let far = contrast(
            &single(20.0, Some([19.0, 21.0])),
            &single(9.0, Some([8.0, 10.0])),
            Change::None,
            Op::Le,
            0.05,
        );
        assert_eq!((far.verdict, far.is_single), (Verdict::Fail, true));
        let bare = contrast(&single(20.0, None), &single(9.0, None), Change::None, Op::Le, 0.05);
        assert_eq!((bare.verdict, bare.is_single, bare.interval), (Verdict::Fail, true, None));
    }

    #[test]
    fn one_against_several_takes_the_several_s_spread() {
        let several = repeats(&[10.0, 10.4, 9.7, 10.1, 9.9]);
        let near = contrast(&single(10.2, None), &several, Change::None, Op::Le, 0.05);
        assert_eq!((near.verdict, near.is_single), (Verdict::Inconclusive, false));
        assert_eq!(
            contrast(&single(13.0, None), &several, Change::None, Op::Le, 0.05).verdict,
            Verdict::Fail
        );
        assert_eq!(contrast(&single(8.0, None), &several, Change::None, Op::Le, 0.05).verdict, Verdict::Pass);
    }

    #[test]
    fn zeros_are_compared_by_difference() {
        let found = contrast(
            &repeats(&[0.0, 0.0, 0.0]),
            &repeats(&[0.0, 0.0, 0.0]),
            Change::Share(0.05),
            Op::Le,
            0.05,
        );
        assert_eq!((found.verdict, found.ratio, found.interval), (Verdict::Pass, None, None));
        let found = contrast(
            &repeats(&[3.0, 4.0, 3.5]),
            &repeats(&[0.0, 0.0, 0.1]),
            Change::Share(0.05),
            Op::Le,
            0.05,
        );
        assert_eq!(found.verdict, Verdict::Fail);
    }

    /// How often a comparison of runs that differ by 5 % from run to run fails, and passes, at a true ratio and with δ = 10 %.
    fn shares(true_ratio: f64, repeats_each: usize, alpha: f64) -> (f64, f64) {
        let mut draws = Draws::new(11, "runs", 0);
        let mut run = |level: f64| {
            let normal = (0..12).map(|_| draws.unit()).sum::<f64>() - 6.0;
            level * libm::exp(0.05 * normal)
        };
        let verdicts: Vec<Verdict> = (0..2000)
            .map(|_| {
                let ours: Vec<f64> = (0..repeats_each).map(|_| run(20.0 * true_ratio)).collect();
                let theirs: Vec<f64> = (0..repeats_each).map(|_| run(20.0)).collect();
                contrast(&repeats(&ours), &repeats(&theirs), Change::Share(0.10), Op::Le, alpha).verdict
            })
            .collect();
        let share = |wanted| verdicts.iter().filter(|v| **v == wanted).count() as f64 / 2000.0;
        (share(Verdict::Fail), share(Verdict::Pass))
    }

    #[test]
    fn the_comparison_keeps_its_level_at_the_edge() {
        // 2,000 runs: a true share of 5 % shows as 3.5 to 6.5 % in all but one of 400 cases.
        for repeats_each in [2, 3, 5, 10] {
            let (fails, passes) = shares(1.10, repeats_each, 0.05);
            assert!(fails <= 0.065 && passes <= 0.065, "{repeats_each} repeats: {fails} {passes}");
        }
        // And it sees what is there: a fifth slower where a tenth is allowed, and nothing where nothing is.
        assert!(shares(1.25, 5, 0.05).0 > 0.9);
        assert!(shares(1.0, 5, 0.05).1 > 0.8 && shares(1.0, 5, 0.05).0 < 0.002);
    }
}

//! How alike neighbours are, beyond what the violations of a rule show by themselves.

use super::super::evidence::{Event, Evidence, Samples};
use super::binomial::{DEPENDENCE_FROM, design_effect};
use crate::metric::Metric;
use crate::rule::{Condition, On, Op};
use crate::stats::{self, Run};

/// So many values beyond a quantile show whether they come together: two in each of 20 batches.
const SHOWN_BY: f64 = 40.0;

/// The design effect of lying beyond the measured quantile `q`, and of lying beyond one that enough values are beyond.
pub(super) fn beyond(runs: &[Run], sorted: &[Run], q: f64, alpha: f64) -> f64 {
    let own = design_effect(&indicator(runs, sorted, q), alpha);
    own.max(shown(runs, sorted, with_enough(q, stats::total(runs)), alpha))
}

/// The design effect that is shown by the values of the metrics which decide whether an event happens to a request; with the
/// share that a rule allows, also by the values that are beyond as far.
pub(super) fn event(
    event: &Event<'_>,
    evidence: &dyn Evidence,
    filter: &[Condition],
    allowed: Option<f64>,
    alpha: f64,
) -> f64 {
    let limits = match event {
        Event::Met(conditions) => limited(conditions),
        Event::MetSlo => evidence.slo(),
        Event::Failed | Event::Passed(_) | Event::PassedAll => Vec::new(),
    };
    let effect = |(metric, op): (&'static Metric, Op)| {
        let Ok(Samples::InOrder(runs)) = evidence.samples(metric, filter) else { return 1.0 };
        let sorted = stats::sorted(&runs);
        // The end of the values that a limit cuts off.
        let cut = |share: f64| if op.is_upper() { 1.0 - share } else { share };
        match allowed {
            Some(allowed) => beyond(&runs, &sorted, cut(allowed), alpha),
            None => shown(&runs, &sorted, with_enough(cut(0.0), stats::total(&runs)), alpha),
        }
    };
    limits.into_iter().map(effect).fold(1.0, f64::max)
}

/// The metrics that conditions limit, and from which side.
pub fn limited(conditions: &[Condition]) -> Vec<(&'static Metric, Op)> {
    let metric = |condition: &Condition| match condition.on {
        On::Metric(metric, _) => Some((metric, condition.op)),
        On::Tag(..) => None,
    };
    conditions.iter().filter_map(metric).collect()
}

/// The nearest quantile to `q` that enough of `n` values are on either side of.
fn with_enough(q: f64, n: u64) -> f64 {
    let tail = (SHOWN_BY / n as f64).min(0.5);
    q.clamp(tail, 1.0 - tail)
}

fn shown(runs: &[Run], sorted: &[Run], q: f64, alpha: f64) -> f64 {
    if stats::total(runs) < DEPENDENCE_FROM {
        return 1.0;
    }
    stats::shown_design_effect(&indicator(runs, sorted, q), alpha)
}

/// Which values lie beyond the measured quantile.
fn indicator(runs: &[Run], sorted: &[Run], q: f64) -> Vec<(bool, u64)> {
    let value = stats::nearest_rank(sorted, q).unwrap_or(f64::INFINITY);
    runs.iter().map(|(each, count)| (*each > value, *count)).collect()
}

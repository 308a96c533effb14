//! From a rule and what was measured to a verdict.
//!
//! **Quantiles and shares** are judged by the exact binomial test, one-sided each way with α = 1 − confidence. Both come
//! down to one question: is the share of *violations* (requests or values that break the limit) below the share `allowed`?
//! With t violations of n, it passes when P(Bin(n, allowed) ≤ t) ≤ α, it fails when P(Bin(n, allowed) ≥ t) ≤ α, and is
//! inconclusive between. No law of the values is assumed; it is the test of `LoadGen`'s early stopping.
//!
//! | rule | a violation is | allowed |
//! |---|---|---|
//! | `pQ(x) < L` | x ≥ L | 1 − Q |
//! | `pQ(x) <= L` | x > L | 1 − Q |
//! | `pQ(x) > L` | x ≤ L | Q |
//! | `pQ(x) >= L` | x < L | Q |
//! | `rate < R`, `rate <= R` | a hit | R |
//! | `rate > R`, `rate >= R` | no hit | 1 − R |
//!
//! The nearest-rank quantile x_(⌈Qn⌉) is under L when at most n(1 − Q) values are not: hence the first two rows. `>=`
//! is the contrary of `<`, and `>` of `<=`: with the complement counted (n − t, and Q for 1 − Q) the same test stands
//! for them, since P(Bin(n, 1 − Q) ≥ n − t) = P(Bin(n, Q) ≤ t).
//!
//! **Neighbours are alike** where requests queue behind one another, so from 200 observations on the sample counts as n
//! divided by its [design effect](stats::design_effect), and t with it. For a quantile that is the larger one of two
//! indicators: value beyond the limit, and value beyond the measured quantile. The first alone is blind when few or no
//! values break the limit, since those few come in a cluster or not at all: of p99 rules on the waits of an M/M/1 queue at
//! load 0.8 with n = 1000 and the true p99 at the limit, over two thirds pass with the first alone, and at most 5 % with both.
//! Few values beyond a quantile can not show that they come together, so neighbours that are shown to be alike where 40 values
//! are beyond count as well; of a share of requests within limits, those of the metrics that it limits.
//!
//! **Means** are judged by Student's t, one-sided each way: over the means of three or more repeats; else over 5 to 20
//! batches of neighbours from 200 values on; below that over the values as if they were independent, which is approximate. Gaps
//! between tokens come in clusters, one a request, and their mean is a ratio of sums over requests.
//!
//! **Metrics that are one number**, and quantiles of samples whose order is lost, are judged by t over three or more
//! repeats, and by the point of fewer.
//!
//! **Statistics without the requests they are taken over**, of runs that were imported, are judged the same way.
//!
//! **References** (`main + 5%`) are judged by [`contrast()`].
//!
//! A rate against 0 % or 100 %, extremes, counts and sums are exact, and so is every rule on a deterministic run.

mod alike;
mod binomial;
mod contrast;

pub use alike::limited;
use binomial::Test;
pub use contrast::{Contrast, INTERVAL_ALPHA, Side, contrast};

use super::config::{Confidence, NoData, Severity};
use super::evidence::{Event, Evidence, Samples};
use super::judgement::{Against, Judgement, Verdict};
use crate::metric::{Kind, Metric};
use crate::rule::{Aggregate, Condition, Limit, Op, Reference, Rule, Subject};
use crate::stats::{self, Estimate, Run};
use crate::units::human;

/// From so many values on, the mean is taken over batches of neighbours.
const BATCHED_FROM: u64 = 200;
/// So many repeats are needed to judge by how they differ.
const REPEATS: usize = 3;

/// A rule with its options, and whom it is judged for.
#[derive(Debug, Clone, PartialEq)]
pub struct Case<'a> {
    /// The parsed rule. Its conditions on tags have chosen the workloads and are left out of account here.
    pub rule: &'a Rule,
    /// The rule as written.
    pub text: &'a str,
    /// The workload's full name, or `all` for pooled ones.
    pub workload: &'a str,
    /// The backend's name.
    pub backend: &'a str,
    /// How sure the verdict must be.
    pub confidence: Confidence,
    /// Whether a violation fails the run.
    pub severity: Severity,
    /// What a metric without a value does.
    pub no_data: NoData,
    /// Whether nobody wrote the rule.
    pub implicit: bool,
    /// Whether a comparison of one run with one other may decide.
    pub allow_single_run: bool,
}

/// Judges one rule. `theirs` is the other side of a rule with a reference, or the reason why there is none; it is not
/// looked at for other rules. `place` and `suspended` are left for the caller, who knows the file and the validity.
pub fn judge(case: &Case<'_>, evidence: &dyn Evidence, theirs: Result<&Side, &str>) -> Judgement {
    let mut judgement = Judgement {
        rule: case.text.to_owned(),
        workload: case.workload.to_owned(),
        backend: case.backend.to_owned(),
        verdict: Verdict::NoData,
        decides: case.severity == Severity::Fail,
        severity: case.severity,
        value: None,
        limit: case.rule.limit.number(),
        unit: case.rule.subject.unit().symbol().to_owned(),
        interval: None,
        interval_level: None,
        samples: None,
        effective_samples: None,
        method: "not judged".to_owned(),
        reason: None,
        implicit: case.implicit,
        against: None,
        suspended: false,
        place: None,
    };
    let found = match &case.rule.limit {
        Limit::Number(limit) => find(case, *limit, evidence),
        Limit::Reference(reference) => {
            theirs.map_err(str::to_owned).and_then(|theirs| compared(case, reference, evidence, theirs))
        }
    };
    match found {
        Ok(found) => {
            judgement.limit = Some(found.limit);
            judgement.decides &= !found.is_single || case.allow_single_run;
            judgement.against = found.against;
            judgement.verdict = found.verdict;
            judgement.value = Some(found.value);
            judgement.interval = found.interval;
            let has_interval =
                found.interval.or(judgement.against.as_ref().and_then(|against| against.interval)).is_some();
            judgement.interval_level = has_interval.then(|| 1.0 - 2.0 * alpha(case.confidence));
            judgement.samples = found.samples;
            judgement.effective_samples = found.effective;
            judgement.method = found.method;
            judgement.reason = found.reason;
        }
        Err(reason) => {
            judgement.decides &= case.no_data == NoData::Fail;
            judgement.reason = Some(match case.no_data {
                NoData::Skip => format!("{reason}; left out, as the rule says `no_data: skip`"),
                NoData::Warn | NoData::Fail => reason,
            });
        }
    }
    judgement
}

/// What is found where there is something to judge.
struct Found {
    value: f64,
    limit: f64,
    verdict: Verdict,
    interval: Option<[f64; 2]>,
    samples: Option<u64>,
    effective: Option<u64>,
    method: String,
    reason: Option<String>,
    against: Option<Against>,
    /// Only the spread within one run each is known.
    is_single: bool,
}

/// The error probability allowed each way. Without a confidence asked for, intervals are those of the default one.
fn alpha(confidence: Confidence) -> f64 {
    tested_at(confidence).or(tested_at(Confidence::default())).unwrap_or(0.05)
}

/// `3 runs`.
fn runs(n: usize) -> String {
    format!("{n} run{}", if n == 1 { "" } else { "s" })
}

fn find(case: &Case<'_>, limit: f64, evidence: &dyn Evidence) -> Result<Found, String> {
    let filter = case.rule.filter_on_metrics();
    let deterministic = evidence.deterministic();
    if let Some(told) = evidence.statistic(&case.rule.subject, &filter) {
        let judged = Judged { case, limit, value: told?, n: None };
        let repeats = repeats(case.rule, evidence)?;
        return Ok(judged.over_repeats(&repeats).unwrap_or_else(|| judged.by_point("point of a statistic")));
    }
    match &case.rule.subject {
        Subject::Aggregate(aggregate, metric) => {
            let samples = evidence.samples(metric, &filter)?;
            let point = aggregated(*aggregate, samples.runs())?;
            let judged = Judged { case, limit, value: point, n: Some(stats::total(samples.runs())) };
            if deterministic || aggregate.is_exact() {
                return Ok(judged.by_point("exact"));
            }
            if let (Some(q), Samples::InOrder(runs)) = (aggregate.quantile(), &samples) {
                return quantile(case, limit, q, runs);
            }
            let repeats = repeats(case.rule, evidence)?;
            if let Some(found) = judged.over_repeats(&repeats) {
                return Ok(found);
            }
            Ok(match aggregate {
                Aggregate::Avg => judged.mean(&samples),
                _ => judged.by_point("point"),
            })
        }
        Subject::Share(conditions) => share(case, limit, &Event::Met(conditions), evidence),
        Subject::Check(name) => share(case, limit, &Event::Passed(name), evidence),
        Subject::Plain(metric) => {
            if let Some(event) = event_of(metric) {
                return share(case, limit, &event, evidence);
            }
            let judged = Judged { case, limit, value: evidence.number(metric, &filter)?, n: None };
            if deterministic || metric.kind == Kind::Count {
                return Ok(judged.by_point("exact"));
            }
            let repeats = repeats(case.rule, evidence)?;
            let point = || judged.by_point(&format!("point ({})", runs(repeats.len().max(1))));
            Ok(judged.over_repeats(&repeats).unwrap_or_else(point))
        }
    }
}

/// A rule whose limit is what its subject comes to elsewhere.
fn compared(
    case: &Case<'_>,
    reference: &Reference,
    evidence: &dyn Evidence,
    theirs: &Side,
) -> Result<Found, String> {
    let rule = case.rule;
    let ours = side(rule, evidence)?;
    let contrast = contrast(&ours, theirs, reference.change, rule.op, alpha(case.confidence));
    let point = rule.op.holds(ours.value(), reference.change.of(theirs.value()));
    let verdict = match case.confidence {
        Confidence::None if point => Verdict::Pass,
        Confidence::None => Verdict::Fail,
        Confidence::Level(_) => contrast.verdict,
    };
    let reason = match verdict {
        Verdict::Inconclusive => Some(
            "what is allowed lies within the interval; more `repeats` on both sides narrow it".to_owned(),
        ),
        Verdict::Fail if contrast.is_single && !case.allow_single_run => Some(
            "how much runs differ is not known from one on each side, so this only warns; set `repeats` on both, or `allow_single_run: true`"
                .to_owned(),
        ),
        _ => None,
    };
    Ok(Found {
        value: ours.value(),
        limit: reference.change.of(theirs.value()),
        verdict,
        interval: None,
        samples: None,
        effective: None,
        method: contrast.method,
        reason,
        against: Some(Against {
            name: reference.name.clone(),
            value: theirs.value(),
            ratio: contrast.ratio,
            interval: contrast.interval,
        }),
        is_single: contrast.is_single,
    })
}

/// The rule's subject in every repeat; empty where there is only one.
fn repeats(rule: &Rule, evidence: &dyn Evidence) -> Result<Vec<f64>, String> {
    evidence.repeats().iter().map(|repeat| point(rule, repeat.as_ref())).collect()
}

/// What a rule's subject comes to, to be held against another side.
///
/// # Errors
/// Why there is no value.
pub fn side(rule: &Rule, evidence: &dyn Evidence) -> Result<Side, String> {
    let repeats = repeats(rule, evidence)?;
    let exact = evidence.deterministic();
    if repeats.len() > 1 {
        return Ok(Side { values: repeats, interval: None, exact });
    }
    let value = point(rule, evidence)?;
    let interval = if exact { None } else { interval(&rule.subject, &rule.filter_on_metrics(), evidence) };
    Ok(Side { values: vec![value], interval, exact })
}

/// The value of a rule's subject as it stands.
fn point(rule: &Rule, evidence: &dyn Evidence) -> Result<f64, String> {
    let filter = rule.filter_on_metrics();
    if let Some(told) = evidence.statistic(&rule.subject, &filter) {
        return told;
    }
    let happened = |event: &Event<'_>| {
        let events = evidence.events(event, &filter)?;
        let hits = events.iter().filter(|hit| **hit).count();
        if events.is_empty() { Err(nobody()) } else { Ok(hits as f64 / events.len() as f64) }
    };
    match &rule.subject {
        Subject::Aggregate(aggregate, metric) => {
            aggregated(*aggregate, evidence.samples(metric, &filter)?.runs())
        }
        Subject::Share(conditions) => happened(&Event::Met(conditions)),
        Subject::Check(name) => happened(&Event::Passed(name)),
        Subject::Plain(metric) => match event_of(metric) {
            Some(event) => happened(&event),
            None => evidence.number(metric, &filter),
        },
    }
}

/// Bounds on the true value of a statistic of one run, each wrong with probability [`INTERVAL_ALPHA`]; `None` where
/// nothing within one run tells of them.
pub fn interval(subject: &Subject, filter: &[Condition], evidence: &dyn Evidence) -> Option<[f64; 2]> {
    let Subject::Aggregate(aggregate, metric) = subject else {
        let event = match subject {
            Subject::Share(conditions) => Event::Met(conditions),
            Subject::Check(name) => Event::Passed(name),
            Subject::Plain(metric) => event_of(metric)?,
            Subject::Aggregate(..) => return None,
        };
        let events = evidence.events(&event, filter).ok()?;
        return share_interval(&events, &event, evidence, filter, None, INTERVAL_ALPHA).0;
    };
    let samples = evidence.samples(metric, filter).ok()?;
    match (aggregate, aggregate.quantile(), &samples) {
        (Aggregate::Avg, ..) => mean(&samples).map(|(estimate, _)| estimate.bounds(INTERVAL_ALPHA)),
        (_, Some(q), Samples::InOrder(runs)) => {
            let sorted = stats::sorted(runs);
            let design_effect = alike::beyond(runs, &sorted, q, INTERVAL_ALPHA);
            quantile_interval(&sorted, q, design_effect, INTERVAL_ALPHA)
        }
        _ => None,
    }
}

/// The mean with its error, and how it was found; `None` of a single value.
fn mean(samples: &Samples) -> Option<(Estimate, &'static str)> {
    match samples {
        Samples::InOrder(runs) if stats::total(runs) >= BATCHED_FROM => {
            stats::mean_of_neighbours(runs).map(|estimate| (estimate, "batch means"))
        }
        Samples::InOrder(runs) => {
            let values: Vec<f64> =
                runs.iter().flat_map(|(value, count)| std::iter::repeat_n(*value, *count as usize)).collect();
            stats::mean_of_independent(&values).map(|estimate| (estimate, "t, approximate"))
        }
        Samples::Unordered { clusters, .. } => {
            stats::mean_of_clusters(clusters).map(|estimate| (estimate, "t over requests"))
        }
    }
}

/// A number about to be judged.
struct Judged<'a> {
    case: &'a Case<'a>,
    limit: f64,
    value: f64,
    n: Option<u64>,
}

impl Judged<'_> {
    /// The measured value decides.
    fn by_point(&self, method: &str) -> Found {
        Found {
            value: self.value,
            limit: self.limit,
            verdict: if self.case.rule.op.holds(self.value, self.limit) {
                Verdict::Pass
            } else {
                Verdict::Fail
            },
            interval: None,
            samples: self.n,
            effective: None,
            method: method.to_owned(),
            reason: None,
            against: None,
            is_single: false,
        }
    }

    /// By how repeats differ, where there are enough of them.
    fn over_repeats(&self, repeats: &[f64]) -> Option<Found> {
        let estimate = stats::mean_of_independent(repeats).filter(|_| repeats.len() >= REPEATS)?;
        let found = self.by_estimate(&estimate, &format!("t over {}", runs(repeats.len())));
        Some(Found { value: estimate.value, ..found })
    }

    /// A mean by what is known within the run.
    fn mean(&self, samples: &Samples) -> Found {
        match mean(samples) {
            Some((estimate, method)) => self.by_estimate(&estimate, method),
            None if self.case.confidence == Confidence::None => self.by_point("point"),
            None => Found {
                verdict: Verdict::Inconclusive,
                reason: Some("one value tells nothing of how far the mean may be from it".to_owned()),
                ..self.by_point("t")
            },
        }
    }

    fn by_estimate(&self, estimate: &Estimate, method: &str) -> Found {
        let alpha = alpha(self.case.confidence);
        let bounds = estimate.bounds(alpha);
        if self.case.confidence == Confidence::None {
            return Found { interval: Some(bounds), ..self.by_point("point") };
        }
        let verdict = contrast::decided(bounds, self.case.rule.op, self.limit);
        let reason = (verdict == Verdict::Inconclusive)
            .then(|| "the limit lies within the interval; more requests or repeats narrow it".to_owned());
        let method = format!("{method} at {}", human(1.0 - alpha, "%"));
        Found { verdict, interval: Some(bounds), reason, ..self.by_point(&method) }
    }
}

/// The event of which a rate is the share, for rates that count requests.
fn event_of(metric: &Metric) -> Option<Event<'static>> {
    match metric.name {
        "error_rate" => Some(Event::Failed),
        "slo_share" => Some(Event::MetSlo),
        "checks_pass_rate" => Some(Event::PassedAll),
        _ => None,
    }
}

/// The share of violations that a rule allows, where it is judged by the binomial test; `None` for all other rules.
pub(super) fn allowed(rule: &Rule) -> Option<f64> {
    match &rule.subject {
        Subject::Aggregate(aggregate, _) => aggregate.quantile().map(|q| allowed_by_quantile(rule.op, q)),
        Subject::Plain(metric) if event_of(metric).is_none() => None,
        Subject::Share(_) | Subject::Check(_) | Subject::Plain(_) => allowed_by_share(rule),
    }
}

fn allowed_by_quantile(op: Op, q: f64) -> f64 {
    if op.is_upper() { 1.0 - q } else { q }
}

/// `None` where all or nothing is asked for, or exactly so much: that is seen, not tested.
fn allowed_by_share(rule: &Rule) -> Option<f64> {
    let limit = rule.limit.number()?;
    let tested = !rule.op.is_equality() && limit > 0.0 && limit < 1.0;
    tested.then_some(if rule.op.is_upper() { limit } else { 1.0 - limit })
}

/// The error probability each way that a rule is tested with.
pub(super) fn tested_at(confidence: Confidence) -> Option<f64> {
    match confidence {
        Confidence::Level(level) => Some(1.0 - level),
        Confidence::None => None,
    }
}

fn nothing() -> String {
    "no request that the rule looks at has a value".to_owned()
}

fn nobody() -> String {
    "no request that the rule looks at was counted".to_owned()
}

/// Many values as one.
fn aggregated(aggregate: Aggregate, runs: &[Run]) -> Result<f64, String> {
    let n = stats::total(runs);
    let values = || runs.iter().filter(|(_, count)| *count > 0).map(|(value, _)| *value);
    let value = match aggregate {
        // None of them over a second is a count, not a lack of one.
        Aggregate::Count => Some(n as f64),
        Aggregate::Min => values().reduce(f64::min),
        Aggregate::Max => values().reduce(f64::max),
        Aggregate::Sum => (n > 0).then(|| stats::sum(runs)),
        Aggregate::Avg => stats::mean(runs),
        Aggregate::Stddev if n == 1 => {
            return Err("a standard deviation needs two values, and there is one".to_owned());
        }
        Aggregate::Stddev => stats::stddev(runs),
        Aggregate::Med => stats::nearest_rank(&stats::sorted(runs), 0.5),
        Aggregate::Quantile(q) => stats::nearest_rank(&stats::sorted(runs), q),
    };
    value.ok_or_else(nothing)
}

/// Quantiles, by the test.
fn quantile(case: &Case<'_>, limit: f64, q: f64, runs: &[Run]) -> Result<Found, String> {
    let sorted = stats::sorted(runs);
    let value = stats::nearest_rank(&sorted, q).ok_or_else(nothing)?;
    let rule = case.rule;
    let violations: Vec<(bool, u64)> =
        runs.iter().map(|(value, count)| (!rule.op.holds(*value, limit), *count)).collect();
    let alpha = alpha(case.confidence);
    let own = binomial::design_effect(&violations, alpha);
    let design_effect = own.max(alike::beyond(runs, &sorted, q, alpha));
    let test = Test::new(&violations, design_effect, allowed_by_quantile(rule.op, q), alpha);
    let interval = quantile_interval(&sorted, q, design_effect, test.alpha);
    Ok(tested(case, limit, value, interval, &test))
}

/// The order statistics that enclose a quantile. Their ranks are those of the effective sample, stretched over the real
/// one, outwards.
fn quantile_interval(sorted: &[Run], q: f64, design_effect: f64, alpha: f64) -> Option<[f64; 2]> {
    let n = stats::total(sorted);
    let effective = binomial::effective(n, design_effect);
    let ranks = stats::quantile_bounds(effective, q, alpha)?;
    let of = |rank: u64| u128::from(rank) * u128::from(n);
    let low = (of(ranks.low - 1) / u128::from(effective)) as u64 + 1;
    let high = of(ranks.high).div_ceil(u128::from(effective)) as u64;
    Some([stats::at_rank(sorted, low)?, stats::at_rank(sorted, high)?])
}

/// Shares of requests, by the test.
fn share(case: &Case<'_>, limit: f64, event: &Event<'_>, evidence: &dyn Evidence) -> Result<Found, String> {
    let rule = case.rule;
    let filter = rule.filter_on_metrics();
    let events = evidence.events(event, &filter)?;
    let n = events.len() as u64;
    if n == 0 {
        return Err(nobody());
    }
    let hits = events.iter().filter(|hit| **hit).count() as u64;
    let judged = Judged { case, limit, value: hits as f64 / n as f64, n: Some(n) };
    if evidence.deterministic() {
        return Ok(judged.by_point("exact"));
    }
    let alpha = alpha(case.confidence);
    let allowed = allowed_by_share(rule);
    let (interval, alike) = share_interval(&events, event, evidence, &filter, allowed, alpha);
    let Some(allowed) = allowed else {
        return Ok(Found { interval, ..judged.by_point("exact") });
    };
    let upper = rule.op.is_upper();
    let violations: Vec<(bool, u64)> = events.iter().map(|hit| (*hit == upper, 1)).collect();
    let test = Test::new(&violations, alike, allowed, alpha);
    Ok(tested(case, limit, judged.value, interval, &test))
}

/// Bounds on the true share of events, outwards as the verdict rounds; and the design effect of the sample.
fn share_interval(
    events: &[bool],
    event: &Event<'_>,
    evidence: &dyn Evidence,
    filter: &[Condition],
    allowed: Option<f64>,
    alpha: f64,
) -> (Option<[f64; 2]>, f64) {
    let indicator: Vec<(bool, u64)> = events.iter().map(|hit| (*hit, 1)).collect();
    let own = binomial::design_effect(&indicator, alpha);
    let alike = own.max(alike::event(event, evidence, filter, allowed, alpha));
    let hits = events.iter().filter(|hit| **hit).count() as f64;
    let test = Test::new(&indicator, alike, 0.5, alpha);
    let seen = |round| stats::proportion_bounds(test.scaled(hits, round), test.effective, alpha);
    let bounds = seen(libm::floor).zip(seen(libm::ceil)).map(|([low, _], [_, high])| [low, high]);
    (bounds, alike)
}

/// The verdict of a test, or of the point where no confidence is asked for.
fn tested(case: &Case<'_>, limit: f64, value: f64, interval: Option<[f64; 2]>, test: &Test) -> Found {
    let point = Judged { case, limit, value, n: Some(test.n) }.by_point("point");
    if case.confidence == Confidence::None {
        return Found { interval, ..point };
    }
    let verdict = test.verdict();
    let effective = (test.effective < test.n).then_some(test.effective);
    let size =
        effective.map_or(String::new(), |effective| format!(", n = {} (effective {effective})", test.n));
    Found {
        verdict,
        interval,
        effective,
        method: format!("binomial test at {}{size}", human(1.0 - test.alpha, "%")),
        reason: (verdict == Verdict::Inconclusive).then(|| test.shortfall()),
        ..point
    }
}

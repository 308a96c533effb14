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
//! load 0.8 with n = 1000 and the true p99 at the limit, 70 % pass with the first and 10 % with both (73 % without either).
//!
//! A rate against 0 % or 100 %, extremes, counts and sums are exact, and so is every rule on a deterministic run. Means,
//! metrics that are one number, and quantiles of samples whose order is lost are judged by the point.

use super::config::{Confidence, NoData, Severity};
use super::evidence::{Event, Evidence, Samples};
use super::judgement::{Judgement, Verdict};
use crate::metric::{Kind, Metric};
use crate::rule::{Aggregate, Op, Rule, Subject};
use crate::stats::{self, Run};
use crate::units::human;

/// From so many observations on, neighbours are looked at: 20 batches of at least ten.
const DEPENDENCE_FROM: u64 = 200;

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
}

/// Judges one rule. `place` and `suspended` are left for the caller, who knows the file and the validity.
pub fn judge(case: &Case<'_>, evidence: &dyn Evidence) -> Judgement {
    let mut judgement = Judgement {
        rule: case.text.to_owned(),
        workload: case.workload.to_owned(),
        backend: case.backend.to_owned(),
        verdict: Verdict::NoData,
        decides: case.severity == Severity::Fail,
        severity: case.severity,
        value: None,
        limit: case.rule.limit,
        unit: case.rule.subject.unit().symbol().to_owned(),
        interval: None,
        interval_level: None,
        samples: None,
        effective_samples: None,
        method: "not judged".to_owned(),
        reason: None,
        implicit: case.implicit,
        suspended: false,
        place: None,
    };
    match find(case, evidence) {
        Ok(found) => {
            judgement.verdict = found.verdict;
            judgement.value = Some(found.value);
            judgement.interval = found.interval;
            judgement.interval_level = found.interval.map(|_| 1.0 - 2.0 * alpha(case.confidence));
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
    verdict: Verdict,
    interval: Option<[f64; 2]>,
    samples: Option<u64>,
    effective: Option<u64>,
    method: String,
    reason: Option<String>,
}

/// The error probability allowed each way. Without a confidence asked for, intervals are those of the default one.
fn alpha(confidence: Confidence) -> f64 {
    tested_at(confidence).or(tested_at(Confidence::default())).unwrap_or(0.05)
}

fn find(case: &Case<'_>, evidence: &dyn Evidence) -> Result<Found, String> {
    let rule = case.rule;
    let filter = rule.filter_on_metrics();
    match &rule.subject {
        Subject::Aggregate(aggregate, metric) => {
            let deterministic = evidence.deterministic();
            match (aggregate.quantile(), evidence.samples(metric, &filter)?) {
                (Some(q), Samples::InOrder(runs)) if !deterministic => quantile(case, q, &runs),
                (_, Samples::InOrder(runs) | Samples::Unordered(runs)) => {
                    aggregated(case, deterministic, *aggregate, &runs)
                }
            }
        }
        Subject::Share(conditions) => {
            let events = evidence.events(&Event::Met(conditions), &filter)?;
            share(case, evidence.deterministic(), &events)
        }
        Subject::Plain(metric) => {
            if let Some(event) = event_of(metric) {
                return share(case, evidence.deterministic(), &evidence.events(&event, &filter)?);
            }
            let value = evidence.number(metric, &filter)?;
            let exact = evidence.deterministic() || metric.kind == Kind::Count;
            Ok(by_point(rule, value, None, exact))
        }
    }
}

/// The event of which a rate is the share, for rates that count requests.
fn event_of(metric: &Metric) -> Option<Event<'static>> {
    match metric.name {
        "error_rate" => Some(Event::Failed),
        "slo_share" => Some(Event::MetSlo),
        _ => None,
    }
}

/// The share of violations that a rule allows, where it is judged by the binomial test; `None` for all other rules.
pub(super) fn allowed(rule: &Rule) -> Option<f64> {
    match &rule.subject {
        Subject::Aggregate(aggregate, _) => aggregate.quantile().map(|q| allowed_by_quantile(rule.op, q)),
        Subject::Plain(metric) if event_of(metric).is_none() => None,
        Subject::Share(_) | Subject::Plain(_) => allowed_by_share(rule),
    }
}

fn allowed_by_quantile(op: Op, q: f64) -> f64 {
    if op.is_upper() { 1.0 - q } else { q }
}

/// `None` where all or nothing is asked for, or exactly so much: that is seen, not tested.
fn allowed_by_share(rule: &Rule) -> Option<f64> {
    let tested = !rule.op.is_equality() && rule.limit > 0.0 && rule.limit < 1.0;
    tested.then_some(if rule.op.is_upper() { rule.limit } else { 1.0 - rule.limit })
}

/// The error probability each way that a rule is tested with.
pub(super) fn tested_at(confidence: Confidence) -> Option<f64> {
    match confidence {
        Confidence::Level(level) => Some(1.0 - level),
        Confidence::None => None,
    }
}

/// The measured value decides.
fn by_point(rule: &Rule, value: f64, samples: Option<u64>, exact: bool) -> Found {
    Found {
        value,
        verdict: if rule.op.holds(value, rule.limit) { Verdict::Pass } else { Verdict::Fail },
        interval: None,
        samples,
        effective: None,
        method: if exact { "exact" } else { "point" }.to_owned(),
        reason: None,
    }
}

fn nothing() -> String {
    "no request that the rule looks at has a value".to_owned()
}

/// Everything that no test is made for: the value as it stands.
fn aggregated(
    case: &Case<'_>,
    deterministic: bool,
    aggregate: Aggregate,
    runs: &[Run],
) -> Result<Found, String> {
    let n = stats::total(runs);
    let values = || runs.iter().filter(|(_, count)| *count > 0).map(|(value, _)| *value);
    let (value, exact) = match aggregate {
        // None of them over a second is a count, not a lack of one.
        Aggregate::Count => (Some(n as f64), true),
        Aggregate::Min => (values().reduce(f64::min), true),
        Aggregate::Max => (values().reduce(f64::max), true),
        Aggregate::Sum => ((n > 0).then(|| stats::sum(runs)), true),
        Aggregate::Avg => (stats::mean(runs), false),
        Aggregate::Stddev if n == 1 => {
            return Err("a standard deviation needs two values, and there is one".to_owned());
        }
        Aggregate::Stddev => (stats::stddev(runs), false),
        Aggregate::Med => (stats::nearest_rank(&stats::sorted(runs), 0.5), false),
        Aggregate::Quantile(q) => (stats::nearest_rank(&stats::sorted(runs), q), false),
    };
    let value = value.ok_or_else(nothing)?;
    Ok(by_point(case.rule, value, Some(n), exact || deterministic))
}

/// Quantiles, by the test.
fn quantile(case: &Case<'_>, q: f64, runs: &[Run]) -> Result<Found, String> {
    let sorted = stats::sorted(runs);
    let value = stats::nearest_rank(&sorted, q).ok_or_else(nothing)?;
    let n = stats::total(runs);
    let rule = case.rule;
    let violations: Vec<(bool, u64)> =
        runs.iter().map(|(value, count)| (!rule.op.holds(*value, rule.limit), *count)).collect();
    let beyond: Vec<(bool, u64)> = runs.iter().map(|(each, count)| (*each > value, *count)).collect();
    let design_effect = design_effect(&violations).max(design_effect(&beyond));
    let test = Test::new(&violations, design_effect, allowed_by_quantile(rule.op, q), alpha(case.confidence));
    // The ranks are those of the effective sample, stretched over the real one, outwards.
    let interval = stats::quantile_bounds(test.effective, q, test.alpha).and_then(|ranks| {
        let of = |rank: u64| u128::from(rank) * u128::from(n);
        let low = (of(ranks.low - 1) / u128::from(test.effective)) as u64 + 1;
        let high = of(ranks.high).div_ceil(u128::from(test.effective)) as u64;
        Some([stats::at_rank(&sorted, low)?, stats::at_rank(&sorted, high)?])
    });
    Ok(tested(case, value, interval, &test))
}

/// Shares of requests, by the test.
fn share(case: &Case<'_>, deterministic: bool, events: &[bool]) -> Result<Found, String> {
    let rule = case.rule;
    let n = events.len() as u64;
    if n == 0 {
        return Err("no request that the rule looks at was counted".to_owned());
    }
    let hits = events.iter().filter(|hit| **hit).count() as u64;
    let value = hits as f64 / n as f64;
    if deterministic {
        return Ok(by_point(rule, value, Some(n), true));
    }
    let upper = rule.op.is_upper();
    let violations: Vec<(bool, u64)> = events.iter().map(|hit| (*hit == upper, 1)).collect();
    let allowed = allowed_by_share(rule);
    // Where everything is exact the test only measures how much the sample says.
    let test =
        Test::new(&violations, design_effect(&violations), allowed.unwrap_or(0.5), alpha(case.confidence));
    // Outwards, as the verdict rounds.
    let seen = |round| stats::proportion_bounds(test.scaled(hits as f64, round), test.effective, test.alpha);
    let interval = seen(libm::floor).zip(seen(libm::ceil)).map(|([low, _], [_, high])| [low, high]);
    if allowed.is_none() {
        return Ok(Found { interval, ..by_point(rule, value, Some(n), true) });
    }
    Ok(tested(case, value, interval, &test))
}

/// The verdict of a test, or of the point where no confidence is asked for.
fn tested(case: &Case<'_>, value: f64, interval: Option<[f64; 2]>, test: &Test) -> Found {
    if case.confidence == Confidence::None {
        return Found { interval, ..by_point(case.rule, value, Some(test.n), false) };
    }
    let verdict = test.verdict();
    let effective = (test.effective < test.n).then_some(test.effective);
    let size =
        effective.map_or(String::new(), |effective| format!(", n = {} (effective {effective})", test.n));
    Found {
        value,
        verdict,
        interval,
        samples: Some(test.n),
        effective,
        method: format!("binomial test at {}{size}", human(1.0 - test.alpha, "%")),
        reason: (verdict == Verdict::Inconclusive).then(|| test.shortfall()),
    }
}

/// The binomial test of the module's doc.
struct Test {
    n: u64,
    violations: u64,
    /// What the sample counts as, its dependence taken into account.
    effective: u64,
    /// n divided by the effective size, as it was estimated.
    design_effect: f64,
    allowed: f64,
    alpha: f64,
}

/// The design effect of an indicator in order of time, where there are enough observations to look for one.
fn design_effect(indicator: &[(bool, u64)]) -> f64 {
    let n: u64 = indicator.iter().map(|(_, count)| count).sum();
    if n >= DEPENDENCE_FROM { stats::design_effect(indicator) } else { 1.0 }
}

impl Test {
    fn new(violations: &[(bool, u64)], design_effect: f64, allowed: f64, alpha: f64) -> Self {
        let n: u64 = violations.iter().map(|(_, count)| count).sum();
        let hits = violations.iter().filter(|(hit, _)| *hit).map(|(_, count)| count).sum();
        let effective = (libm::floor(n as f64 / design_effect) as u64).max(1).min(n);
        Self { n, violations: hits, effective, design_effect, allowed, alpha }
    }

    /// A count of the real sample in the effective one.
    fn scaled(&self, count: f64, round: fn(f64) -> f64) -> u64 {
        (round(count / self.design_effect) as u64).min(self.effective)
    }

    /// Violations are rounded up for passing and down for failing: the division must not decide.
    fn verdict(&self) -> Verdict {
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
    fn shortfall(&self) -> String {
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

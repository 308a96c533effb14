//! Stops a run whose rule can not be kept any more.
//!
//! Looking many times at a test that is made for one look stops healthy runs: a point estimate every two seconds against
//! an error budget of 5 % stops 64 of 100 runs whose true rate is 4 %. What is watched here stays honest however often it
//! looks. With `p0` the share of violations that the rule allows, the process
//!
//! ```text
//! E = mean over p in p0 · {1.25, 1.5, 2, 3, 5, 10, 20} of Π (p / p0 for a violation, (1 − p) / (1 − p0) for none)
//! ```
//!
//! is a nonnegative martingale of mean 1 where violations have probability `p0`, and a supermartingale where it is less;
//! so by Ville's inequality it ever reaches 100 with probability 1 % at most (Ramdas et al., *Game-Theoretic Statistics
//! and Safe Anytime-Valid Inference*, 2023). That holds for requests that do not influence one another; a queue makes
//! violations come in clusters, for which `abort_after` gives time.
//!
//! Where the point decides (`confidence: none`, a deterministic backend) a rule is lost once more requests break it than
//! may among all that the plan has. Counts, extremes and rates of 0 % are lost at the first event beyond them.

use super::check::ScopedRule;
use super::config::Confidence;
use super::judge::allowed;
use crate::measure::{meets, value_of};
use crate::metric::Metric;
use crate::plan::config::Tags;
use crate::record::{Basis, GapRun, Outcome, Phase, Record};
use crate::rule::{Aggregate, Condition, On, Op, Rule, Subject};
use crate::run::{Flow, Observer};
use crate::units::{Ns, human, ms};

/// A healthy run is stopped at most once in so many.
const ABORT_AT: f64 = 100.0;
/// The violation rates that are bet on, in units of the allowed one.
const BETS: [f64; 7] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0];

/// The process of the module's doc.
#[derive(Debug, Clone)]
pub struct EProcess {
    /// The logarithms of what a violation and its absence multiply each bet by, and of its product so far.
    bets: Vec<[f64; 3]>,
}

impl EProcess {
    /// `allowed` is the share of violations that is still fine, between 0 and 1.
    pub fn new(allowed: f64) -> Self {
        let rates = BETS.iter().map(|times| times * allowed).filter(|rate| *rate < 1.0);
        let mut bets: Vec<[f64; 3]> = rates
            .map(|rate| [libm::log(rate / allowed), libm::log1p(-rate) - libm::log1p(-allowed), 0.0])
            .collect();
        if bets.is_empty() {
            // So much is allowed that only more than now can be bet on.
            let rate = f64::midpoint(allowed, 1.0);
            bets.push([libm::log(rate / allowed), libm::log1p(-rate) - libm::log1p(-allowed), 0.0]);
        }
        Self { bets }
    }

    /// Takes one observation and says what the process stands at.
    pub fn observe(&mut self, is_violation: bool) -> f64 {
        for [over, under, product] in &mut self.bets {
            *product += if is_violation { *over } else { *under };
        }
        self.value()
    }

    /// The mean over the bets.
    pub fn value(&self) -> f64 {
        let sum: f64 = self.bets.iter().map(|[_, _, product]| libm::exp(*product)).sum();
        sum / self.bets.len() as f64
    }
}

/// Whether it can be certain before the end that a rule fails.
pub fn watchable(rule: &Rule) -> bool {
    if rule.limit.number().is_none() {
        return false;
    }
    match &rule.subject {
        Subject::Aggregate(Aggregate::Max, _) => rule.op.is_upper(),
        Subject::Aggregate(aggregate, metric) if metric.name == "tbt" => {
            *aggregate == Aggregate::Min && rule.op.is_lower()
        }
        Subject::Aggregate(Aggregate::Min, _) => rule.op.is_lower(),
        Subject::Aggregate(Aggregate::Count | Aggregate::Sum, _) => rule.op.is_upper(),
        Subject::Aggregate(aggregate, _) => aggregate.quantile().is_some(),
        Subject::Share(_) | Subject::Check(_) => true,
        Subject::Plain(metric) => match metric.name {
            "error_rate" | "slo_share" | "checks_pass_rate" => true,
            "failed_requests" => rule.op.is_upper() || rule.op == Op::Eq,
            _ => false,
        },
    }
}

/// A rule that was certain to fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Fired {
    /// The rule's position among the checked ones.
    pub rule: usize,
    /// What made it certain, such as `E = 104 after 212 requests`.
    pub why: String,
}

/// What is known of the workload that is watched.
#[derive(Debug, Clone)]
pub struct Watched<'a> {
    /// Its tags.
    pub tags: &'a Tags,
    /// Its SLO.
    pub slo: &'a [Condition],
    /// The names of its checks, in order.
    pub checks: Vec<&'a str>,
    /// From which moment latency counts.
    pub basis: Basis,
    /// Its measured requests in this repeat; `None` when only time ends it.
    pub requests: Option<u64>,
    /// Whether the backend gives the same numbers again.
    pub deterministic: bool,
}

/// Watches the rules of one cell that stop a run.
#[derive(Debug)]
pub struct Watch<'a> {
    workload: Watched<'a>,
    rules: Vec<Watcher<'a>>,
    start: Option<Ns>,
    fired: Option<Fired>,
}

#[derive(Debug)]
struct Watcher<'a> {
    index: usize,
    rule: &'a Rule,
    limit: f64,
    after: Ns,
    filter: Vec<Condition>,
    seen: u64,
    violations: u64,
    sum: f64,
    by: By,
}

/// How a rule is lost.
#[derive(Debug)]
enum By {
    /// The process reaches its bound.
    Process(EProcess),
    /// More violations than this.
    Count(u64),
    /// The sum of the values is beyond the limit.
    Sum,
}

impl<'a> Watch<'a> {
    /// Watches those of `rules` that stop a run and are judged for this workload on this backend.
    pub fn new(rules: &'a [ScopedRule], workload: &str, backend: &str, watched: Watched<'a>) -> Self {
        let own = rules.iter().enumerate().filter(|(_, rule)| {
            rule.backends.iter().any(|name| name == backend)
                && rule.scope.names().iter().any(|name| name == workload)
        });
        let rules = own.filter_map(|(index, rule)| Watcher::new(index, rule, &watched)).collect();
        Self { workload: watched, rules, start: None, fired: None }
    }

    /// Whether there is nothing to watch.
    pub fn is_idle(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule that stopped the run, if one did.
    pub fn fired(&self) -> Option<&Fired> {
        self.fired.as_ref()
    }
}

impl Observer for Watch<'_> {
    fn on_record(&mut self, record: &Record, _: &[GapRun]) -> Flow {
        if self.rules.is_empty() || record.phase != Phase::Measured {
            return Flow::Continue;
        }
        let start = *self.start.get_or_insert(record.due);
        let now = record.end.saturating_sub(start);
        for watcher in &mut self.rules {
            if let Some(why) = watcher.observe(record, &self.workload).filter(|_| now >= watcher.after) {
                let reason = format!("`{}` is certain to fail: {why}", watcher.rule);
                self.fired = Some(Fired { rule: watcher.index, why });
                return Flow::Abort(reason);
            }
        }
        Flow::Continue
    }
}

impl<'a> Watcher<'a> {
    fn new(index: usize, scoped: &'a ScopedRule, watched: &Watched<'_>) -> Option<Self> {
        let rule = &scoped.rule;
        let by = match (allowed(rule), &rule.subject) {
            (Some(allowed), _) if watched.deterministic || scoped.confidence == Confidence::None => {
                By::Count(libm::floor(allowed * watched.requests? as f64 * (1.0 + 1e-12)) as u64)
            }
            (Some(allowed), _) => By::Process(EProcess::new(allowed)),
            (None, Subject::Aggregate(Aggregate::Sum, _)) => By::Sum,
            (None, Subject::Aggregate(Aggregate::Count, _)) => By::Count(most(rule)),
            (None, Subject::Plain(metric)) if metric.name == "failed_requests" => By::Count(most(rule)),
            (None, _) => By::Count(0),
        };
        Some(Self {
            index,
            rule,
            limit: rule.limit.number()?,
            after: scoped.abort_after?,
            filter: rule.filter_on_metrics(),
            seen: 0,
            violations: 0,
            sum: 0.0,
            by,
        })
    }

    /// Whether the record breaks the rule; `None` where the rule does not look at it.
    fn breaks(&self, record: &Record, watched: &Watched<'_>) -> Option<bool> {
        let passes = self.filter.iter().all(|condition| match &condition.on {
            On::Metric(metric, limit) => {
                value_of(record, metric, watched.basis).is_some_and(|value| condition.op.holds(value, *limit))
            }
            On::Tag(..) => true,
        });
        if !passes || !record.outcome.is_counted() {
            return None;
        }
        let met = |limits: &[Condition]| {
            record.outcome == Outcome::Success && meets(record, watched.basis, watched.tags, limits)
        };
        // A share with an upper limit is broken by a hit, one with a lower limit by a miss.
        let upper = self.rule.op.is_upper() || (self.rule.op == Op::Eq && self.limit <= 0.0);
        match &self.rule.subject {
            Subject::Share(conditions) => Some(met(conditions) == upper),
            Subject::Plain(metric) if metric.name == "slo_share" => Some(met(watched.slo) == upper),
            Subject::Plain(metric) if metric.name == "error_rate" => {
                Some(record.outcome.is_failure() == upper)
            }
            Subject::Check(name) => {
                let at = watched.checks.iter().position(|known| known == name)?;
                Some(record.checked.as_ref()?.passes(at) == upper)
            }
            Subject::Plain(metric) if metric.name == "checks_pass_rate" => {
                Some((record.checked.as_ref()?.failed == 0) == upper)
            }
            Subject::Plain(_) => Some(record.outcome.is_failure()),
            Subject::Aggregate(Aggregate::Count, metric) => {
                value_of(record, metric, watched.basis).map(|_| true)
            }
            Subject::Aggregate(Aggregate::Max, metric) if metric.name == "tbt" => {
                let has_gaps = record.output_tokens > record.first_event_tokens;
                has_gaps.then(|| !self.rule.op.holds(ms(record.longest_gap), self.limit))
            }
            Subject::Aggregate(_, metric) => {
                Some(!self.rule.op.holds(value(record, metric, watched)?, self.limit))
            }
        }
    }

    /// Takes a record and says why the rule is lost, if it is.
    fn observe(&mut self, record: &Record, watched: &Watched<'_>) -> Option<String> {
        let broken = self.breaks(record, watched)?;
        self.seen += 1;
        self.violations += u64::from(broken);
        if let Subject::Aggregate(Aggregate::Sum, metric) = &self.rule.subject {
            self.sum += value(record, metric, watched).unwrap_or(0.0);
        }
        let (seen, violations) = (self.seen, self.violations);
        match &mut self.by {
            By::Process(process) => {
                let stands_at = process.observe(broken);
                (stands_at >= ABORT_AT).then(|| {
                    format!(
                        "E = {} after {seen} requests, {violations} of them beyond the limit",
                        human(stands_at, "")
                    )
                })
            }
            By::Count(most) => (violations > *most)
                .then(|| format!("{violations} of {seen} requests are beyond the limit, and {most} may be")),
            By::Sum => (!self.rule.op.holds(self.sum, self.limit))
                .then(|| format!("the sum is {} after {seen} requests", human(self.sum, ""))),
        }
    }
}

fn value(record: &Record, metric: &'static Metric, watched: &Watched<'_>) -> Option<f64> {
    value_of(record, metric, watched.basis)
}

/// The largest count that an upper limit allows.
fn most(rule: &Rule) -> u64 {
    let limit = rule.limit.number().unwrap_or(0.0);
    let whole = libm::floor(limit) as u64;
    if rule.op.holds(whole as f64, limit) { whole } else { whole.saturating_sub(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Draws;

    /// The share of runs that are stopped within `looks` requests of which each is a violation with probability `rate`.
    fn stopped(allowed: f64, rate: f64, looks: u32, runs: u64) -> f64 {
        let stopped = (0..runs).filter(|run| {
            let mut draws = Draws::new(*run, "requests", 0);
            let mut process = EProcess::new(allowed);
            (0..looks).any(|_| process.observe(draws.unit() < rate) >= ABORT_AT)
        });
        stopped.count() as f64 / runs as f64
    }

    #[test]
    fn healthy_runs_are_stopped_within_the_bound_over_two_thousand_looks() {
        // At the edge itself the bound is 1 %; of 1,000 runs more than 2 % would be a chance of one in a thousand.
        for allowed in [0.01, 0.05, 0.5, 0.9] {
            let share = stopped(allowed, allowed, 2000, 1000);
            assert!(share <= 0.02, "{allowed}: {share}");
        }
        // k6's way stops most of these.
        assert!(stopped(0.05, 0.04, 2000, 1000) <= 0.002);
    }

    #[test]
    fn sick_runs_are_stopped_soon() {
        assert!(stopped(0.05, 0.30, 100, 300) > 0.97);
        assert!(stopped(0.01, 0.05, 1000, 300) > 0.97);
        assert!(stopped(0.9, 1.0, 200, 10) > 0.99);
    }

    #[test]
    fn the_process_is_the_mean_of_its_bets() {
        let mut process = EProcess::new(0.1);
        assert!((process.value() - 1.0).abs() < 1e-15);
        // One violation multiplies each bet by its factor; 20 and 10 times 0.1 are no probabilities below 1.
        let expected = (1.25 + 1.5 + 2.0 + 3.0 + 5.0) / 5.0;
        assert!((process.observe(true) - expected).abs() < 1e-12);
        // Its mean over both outcomes is what it was: 0.1 · after a violation + 0.9 · after none.
        let (mut hit, mut miss) = (process.clone(), process.clone());
        assert!((0.1 * hit.observe(true) + 0.9 * miss.observe(false) - expected).abs() < 1e-12);
    }
}

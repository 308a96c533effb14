//! What a rule is judged against: the narrow view of a measured workload that judging needs.

use crate::metric::Metric;
use crate::rule::{Condition, Op, Subject};
use crate::stats::Run;

/// What was measured for one workload on one backend, its repeats pooled, or for several workloads pooled.
///
/// Every answer is restricted to requests that meet all conditions of `filter`; a request for which a condition's metric
/// has no value does not meet it. `Err` says in a lower-case fragment why there is nothing to tell, such as `the server
/// does not export it`. All numbers are finite and in the metric's own unit.
pub trait Evidence {
    /// Whether the same plan gives the same numbers again (the mock on the virtual clock): rules are then judged exactly.
    fn deterministic(&self) -> bool;

    /// The values of a metric of kind `Samples`. A request without one (a failed one has no TPOT) is left out.
    fn samples(&self, metric: &'static Metric, filter: &[Condition]) -> Result<Samples, String>;

    /// For each counted request (successful or failed) in order of due time, whether the event happened to it.
    fn events(&self, event: &Event<'_>, filter: &[Condition]) -> Result<Vec<bool>, String>;

    /// A metric that is one number: kinds `Count` and `Value`, and rates that count no requests (`prefix_hit_rate`).
    /// `filter` is empty but for metrics of which [`counts_requests`](crate::rule::counts_requests) holds.
    fn number(&self, metric: &'static Metric, filter: &[Condition]) -> Result<f64, String>;

    /// What a rule is about, where only this statistic is known and not the requests it is taken over; `None` where they are.
    fn statistic(&self, _subject: &Subject, _filter: &[Condition]) -> Option<Result<f64, String>> {
        None
    }

    /// The metrics that the SLO limits, and from which side.
    fn slo(&self) -> Vec<(&'static Metric, Op)> {
        Vec::new()
    }

    /// Each repeat on its own, in order, where several are pooled here; else nothing.
    fn repeats(&self) -> Vec<Box<dyn Evidence + '_>>;
}

/// Values as runs `(value, count)`.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    /// In order of the requests' due times; pooled workloads follow one another.
    InOrder(Vec<Run>),
    /// In no order, such as token gaps that were counted by length. How alike neighbours are can not be told then.
    Unordered {
        /// The values.
        runs: Vec<Run>,
        /// What each request gave: the sum of its values and their number, in order of due times.
        clusters: Vec<(f64, u64)>,
    },
}

impl Samples {
    /// The values, in order or not.
    pub fn runs(&self) -> &[Run] {
        match self {
            Self::InOrder(runs) | Self::Unordered { runs, .. } => runs,
        }
    }
}

/// What may happen to a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event<'a> {
    /// It failed: `error_rate`.
    Failed,
    /// It succeeded and broke no limit of its workload's SLO: `slo_share`.
    MetSlo,
    /// It succeeded and broke none of these: `share(...)`.
    Met(&'a [Condition]),
    /// Its response passed the check of this name: `check(...)`. Of requests whose response that check looked at.
    Passed(&'a str),
    /// Its response passed every check: `checks_pass_rate`. Of requests whose response was looked at.
    PassedAll,
}

//! What a rule is judged against: the narrow view of a measured workload that judging needs.

use crate::metric::Metric;
use crate::rule::Condition;
use crate::stats::Run;

/// What was measured for one workload on one backend, its repeats pooled, or for several workloads pooled.
///
/// Every answer is restricted to requests that meet all conditions of `filter`; a request for which a condition's metric
/// has no value does not meet it. `Err` says in a lower-case fragment why there is nothing to tell, such as `the server
/// does not export it`. All numbers are finite and in the metric's own unit.
pub trait Evidence {
    /// Whether the same plan gives the same numbers again (the mock on the virtual clock): rules are then judged exactly.
    fn deterministic(&self) -> bool;

    /// The values of a metric of kind `Samples` as runs `(value, count)`, in order of the requests' due times. A request
    /// without a value (a failed one has no TPOT) has none. Pooled workloads follow one another.
    fn samples(&self, metric: &'static Metric, filter: &[Condition]) -> Result<Vec<Run>, String>;

    /// For each counted request (successful or failed) in order of due time, whether the event happened to it.
    fn events(&self, event: &Event<'_>, filter: &[Condition]) -> Result<Vec<bool>, String>;

    /// A metric that is one number: kinds `Count` and `Value`, and rates that count no requests (`prefix_hit_rate`).
    /// `filter` is empty but for metrics of which [`counts_requests`](crate::rule::counts_requests) holds.
    fn number(&self, metric: &'static Metric, filter: &[Condition]) -> Result<f64, String>;
}

/// What may happen to a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event<'a> {
    /// It failed: `error_rate`.
    Failed,
    /// It succeeded and met every limit of its workload's SLO: `slo_share`.
    MetSlo,
    /// It succeeded and met all of these: `share(...)`.
    Met(&'a [Condition]),
}

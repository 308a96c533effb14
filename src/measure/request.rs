//! What one request's metrics are, and whether it meets a condition.

use super::Samples;
use crate::metric::Metric;
use crate::plan::config::Tags;
use crate::record::{Basis, Outcome, Record};
use crate::rule::{Condition, On, Op};
use crate::units::ms;

/// Reads one metric off one record.
type Reading = fn(&Record, Basis) -> Option<f64>;

/// The reading of a metric of kind `Samples`; `None` for a metric that a single request does not have.
fn reading(metric: &Metric) -> Option<Reading> {
    Some(match metric.name {
        "ttft" => |record, basis| success(record)?.ttft(basis).map(ms),
        "answer_ttft" => |record, basis| {
            let record = success(record)?;
            Some(ms(record.first_answer?.saturating_sub(record.start(basis)?)))
        },
        "tbt" => |record, _| {
            let record = success(record)?;
            (record.output_tokens > record.first_event_tokens).then(|| ms(record.longest_gap))
        },
        "tpot" => |record, _| success(record)?.tpot().map(|ns| ns / 1e6),
        "e2e" => |record, basis| success(record)?.e2e(basis).map(ms),
        "queue_time" => |record, _| success(record)?.queue_time().map(ms),
        "throughput" => |record, basis| {
            let ns = success(record)?.e2e(basis).filter(|ns| *ns > 0)?;
            Some(f64::from(record.output_tokens) / (ns as f64 / 1e9))
        },
        "output_tokens" => |record, _| success(record).map(|record| f64::from(record.output_tokens)),
        "queue_delay" => |record, _| {
            let sent = record.sent.filter(|_| record.outcome.is_counted())?;
            Some(ms(sent.saturating_sub(record.due)))
        },
        "prompt_tokens" => |record, _| {
            (record.sent.is_some() && record.outcome.is_counted()).then(|| f64::from(record.prompt_tokens))
        },
        "turn" => |record, _| record.session.map(|session| f64::from(session.turn)),
        _ => return None,
    })
}

fn success(record: &Record) -> Option<&Record> {
    (record.outcome == Outcome::Success).then_some(record)
}

/// The value of a metric of kind `Samples` for one request, in the metric's unit; `None` where it has none.
///
/// Latencies (`ttft`, `tpot`, `e2e`, `queue_time`, `throughput`, `output_tokens`) exist for successful requests only: a failed
/// request is in `error_rate`, and its time says how it failed, not how fast the server is. `queue_delay` and
/// `prompt_tokens` exist for every counted request that was sent. `tbt`, which has many values per request, is the
/// request's longest gap here; its aggregates come from the pool of [`Samples`].
pub fn value_of(record: &Record, metric: &Metric, basis: Basis) -> Option<f64> {
    match metric.custom {
        Some(place) => record.checked.as_ref()?.value(place),
        None => reading(metric)?(record, basis),
    }
}

/// Whether a request meets every condition. `tags` are its workload's.
///
/// A metric that the request does not have (TPOT of a one-token answer) breaks no limit. Whether the request
/// succeeded is not asked here.
pub fn meets(record: &Record, basis: Basis, tags: &Tags, conditions: &[Condition]) -> bool {
    conditions.iter().all(|condition| match &condition.on {
        On::Metric(metric, limit) => {
            value_of(record, metric, basis).is_none_or(|value| condition.op.holds(value, *limit))
        }
        On::Tag(tag, word) => {
            let equal = tags.get(tag) == Some(word);
            match condition.op {
                Op::Eq => equal,
                Op::Ne => !equal,
                _ => false,
            }
        }
    })
}

impl Samples {
    /// The values of a metric of kind `Samples` over the requests that have one, in the order they were taken.
    /// Of `tbt`: see [`value_of`].
    pub fn values(&self, metric: &Metric) -> Vec<f64> {
        self.records().iter().filter_map(|record| value_of(record, metric, self.basis())).collect()
    }
}

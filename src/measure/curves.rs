//! What reports draw: quantile curves, a timeline of requests, and failures with a sample of what they said.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::flat::rounded;
use super::{Distribution, Samples};
use crate::metric::Metric;
use crate::record::Record;
use crate::units::ms;

/// At most so many points of a curve.
const POINTS: usize = 60;
/// At most so many bars of a timeline.
const BARS: usize = 200;
/// At most so many characters of a failure's message.
const MESSAGE: usize = 300;

/// Quantile curves: pairs of a quantile (0 to 1) and the value there in milliseconds, ascending. Empty without samples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Curves {
    /// Of the time to first token.
    pub ttft: Vec<[f64; 2]>,
    /// Of the time between tokens.
    pub tbt: Vec<[f64; 2]>,
}

/// The first requests of a cell, as bars over time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timeline {
    /// How many measured requests there are; the bars show the first of them by due time.
    pub requests: u64,
    /// The bars, by due time.
    pub bars: Vec<Bar>,
}

/// One request on the timeline. Times are milliseconds since its cell's T0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bar {
    /// Its number in the plan.
    pub index: u64,
    /// When it was due.
    pub due_ms: f64,
    /// When it was sent.
    pub sent_ms: Option<f64>,
    /// When its first content came.
    pub first_ms: Option<f64>,
    /// When it ended.
    pub end_ms: f64,
    /// How it ended, such as `success` or `http_503`.
    pub outcome: String,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorCount {
    /// The kind: `timed_out`, `http_503`.
    pub kind: String,
    /// How many requests failed so.
    pub count: u64,
    /// What the backend said about the first of them (by due time), cut to 300 characters.
    pub message: Option<String>,
}

/// The quantile curves of a cell.
pub fn curves(samples: &Samples) -> Curves {
    let ttft =
        Metric::named("ttft").map(|metric| Distribution::of(samples.values(metric))).unwrap_or_default();
    let grid = |n: u64| quantiles(n);
    let gaps = samples.gaps();
    let grid_tbt = grid(gaps.count());
    let tbt = gaps.quantiles(&grid_tbt).unwrap_or_default();
    Curves {
        ttft: grid(ttft.count()).into_iter().filter_map(|q| Some([q, rounded(ttft.quantile(q)?)])).collect(),
        tbt: grid_tbt.into_iter().zip(tbt).map(|(q, ns)| [q, rounded(ms(ns))]).collect(),
    }
}

/// Where a curve of `n` values is read: its own ranks when there are few, else an even grid that is denser in the tail.
fn quantiles(n: u64) -> Vec<f64> {
    if n == 0 {
        return Vec::new();
    }
    if n <= 40 {
        return (1..=n).map(|k| rounded(k as f64 / n as f64)).collect();
    }
    let mut grid: Vec<f64> = (0..=45).map(|k| f64::from(k) / 50.0).collect();
    grid.extend([0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 0.999]);
    grid.push(1.0);
    debug_assert!(grid.len() <= POINTS);
    grid
}

/// The first requests of a cell as bars.
pub fn timeline(samples: &Samples) -> Timeline {
    let records = samples.by_due();
    Timeline { requests: records.len() as u64, bars: records.into_iter().take(BARS).map(bar).collect() }
}

fn bar(record: &Record) -> Bar {
    let at = |ns| rounded(ms(ns));
    Bar {
        index: record.index,
        due_ms: at(record.due),
        sent_ms: record.sent.map(at),
        first_ms: record.first.map(at),
        end_ms: at(record.end),
        outcome: record.outcome.label(),
    }
}

/// Failures by kind, the most frequent first, each with a sample message.
pub fn errors(samples: &Samples) -> Vec<ErrorCount> {
    let mut kinds: IndexMap<String, ErrorCount> = IndexMap::new();
    let mut failed: Vec<&Record> =
        samples.records().iter().filter(|record| record.outcome.is_failure()).collect();
    failed.sort_by_key(|record| (record.due, record.index));
    for record in failed {
        let kind = record.outcome.label();
        let entry = kinds.entry(kind.clone()).or_insert(ErrorCount { kind, count: 0, message: None });
        entry.count += 1;
        if entry.message.is_none() {
            entry.message = record.message.as_deref().map(|text| text.chars().take(MESSAGE).collect());
        }
    }
    let mut errors: Vec<ErrorCount> = kinds.into_values().collect();
    errors.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.kind.cmp(&b.kind)));
    errors
}

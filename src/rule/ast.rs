//! What a rule is once parsed. Every part keeps the bytes of the text it stands at.

use std::ops::Range;

use crate::metric::{Metric, Unit};

/// Bytes of the rule's text.
pub type Bytes = Range<usize>;

/// A parsed rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// What is judged.
    pub subject: Subject,
    /// Where the subject stands.
    pub subject_at: Bytes,
    /// How it is compared.
    pub op: Op,
    /// Against what, in the subject's unit (milliseconds, MiB, a ratio, ...).
    pub limit: f64,
    /// Where the limit stands.
    pub limit_at: Bytes,
    /// Which requests count: the `where` part. All must hold.
    pub filter: Vec<Condition>,
}

/// The left side of a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// `p99(ttft)`, `avg(tpot)`, and the flat names `p99_ttft_ms`, `avg_tpot_ms`.
    Aggregate(Aggregate, &'static Metric),
    /// `share(ttft <= 200ms and tpot <= 20ms)`: requests that succeeded and meet all of it, of all that are counted.
    Share(Vec<Condition>),
    /// A rate, count or value: `error_rate`, `output_throughput`, and its flat name.
    Plain(&'static Metric),
}

impl Subject {
    /// The unit its limit is in.
    pub fn unit(&self) -> Unit {
        match self {
            Self::Aggregate(Aggregate::Count, _) => Unit::Count,
            Self::Aggregate(_, metric) | Self::Plain(metric) => metric.unit,
            Self::Share(_) => Unit::Ratio,
        }
    }

    /// Whether two measurements of it are hardly ever equal, so that `==` would be no sensible question.
    pub(super) fn continuous(&self) -> bool {
        let estimated = matches!(
            self,
            Self::Aggregate(Aggregate::Avg | Aggregate::Med | Aggregate::Stddev | Aggregate::Quantile(_), _)
        );
        estimated || !matches!(self.unit(), Unit::Count | Unit::Tokens | Unit::Bytes)
    }
}

/// Whether a metric that is one number counts requests, so that `where` can narrow it to some of them.
pub fn counts_requests(metric: &Metric) -> bool {
    matches!(metric.name, "error_rate" | "slo_share") || metric.name.ends_with("_requests")
}

impl Rule {
    /// The conditions that choose requests; those on tags choose workloads.
    pub fn filter_on_metrics(&self) -> Vec<Condition> {
        self.filter.iter().filter(|condition| matches!(condition.on, On::Metric(..))).cloned().collect()
    }
}

/// How many values become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aggregate {
    /// The arithmetic mean.
    Avg,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The median, the nearest-rank 50th percentile.
    Med,
    /// The sample standard deviation.
    Stddev,
    /// The sum.
    Sum,
    /// How many.
    Count,
    /// The nearest-rank quantile, between 0 and 1 exclusive.
    Quantile(f64),
}

impl Aggregate {
    /// The quantile that it is, between 0 and 1 exclusive; `None` for all that is none.
    pub fn quantile(self) -> Option<f64> {
        match self {
            Self::Med => Some(0.5),
            Self::Quantile(q) => Some(q),
            Self::Avg | Self::Min | Self::Max | Self::Stddev | Self::Sum | Self::Count => None,
        }
    }
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `==`
    Eq,
    /// `!=`
    Ne,
}

impl Op {
    /// Whether it is an upper limit: `<` or `<=`.
    pub fn is_upper(self) -> bool {
        matches!(self, Self::Lt | Self::Le)
    }

    /// Whether it is `==` or `!=`.
    pub fn is_equality(self) -> bool {
        matches!(self, Self::Eq | Self::Ne)
    }

    /// Whether `left op right` holds.
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Lt => left < right,
            Self::Le => left <= right,
            Self::Gt => left > right,
            Self::Ge => left >= right,
            #[expect(clippy::float_cmp, reason = "a rule that says == means exactly equal")]
            Self::Eq => left == right,
            #[expect(clippy::float_cmp, reason = "a rule that says != means not exactly equal")]
            Self::Ne => left != right,
        }
    }
}

/// One condition on one request: `ttft <= 200ms`, `tier == gold`.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What it looks at.
    pub on: On,
    /// How it compares.
    pub op: Op,
    /// Where it stands.
    pub at: Bytes,
}

/// What a condition looks at, and the value it compares with.
#[derive(Debug, Clone, PartialEq)]
pub enum On {
    /// A per-request metric (kind `Samples`), and the limit in its unit.
    Metric(&'static Metric, f64),
    /// A tag of the workload, and the word it is compared with.
    Tag(String, String),
}

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
    /// Against what.
    pub limit: Limit,
    /// Where the limit stands.
    pub limit_at: Bytes,
    /// Which requests count: the `where` part. All must hold.
    pub filter: Vec<Condition>,
}

/// The right side of a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Limit {
    /// A number in the subject's unit (milliseconds, MiB, a ratio, ...).
    Number(f64),
    /// What the same subject comes to elsewhere: `main + 5%`.
    Reference(Reference),
}

impl Limit {
    /// The number, where it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Reference(_) => None,
        }
    }
}

/// The same subject measured elsewhere: in a baseline, for another workload, on another backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The name of a baseline, a workload or a backend.
    pub name: String,
    /// What is allowed on top.
    pub change: Change,
}

/// How far a limit lies from what it refers to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// It is that value.
    None,
    /// So much more (or less, when negative) in the subject's unit; for shares in points of 100 %.
    By(f64),
    /// By this share of the value more, or less when negative: 0.05 for `+ 5%`.
    Share(f64),
}

impl Change {
    /// The limit that it makes of a value.
    pub fn of(self, value: f64) -> f64 {
        match self {
            Self::None => value,
            Self::By(more) => value + more,
            Self::Share(share) => value * (1.0 + share),
        }
    }
}

/// The left side of a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// `p99(ttft)`, `avg(tpot)`, and the flat names `p99_ttft_ms`, `avg_tpot_ms`.
    Aggregate(Aggregate, &'static Metric),
    /// `share(ttft <= 200ms and tpot <= 20ms)`: requests that succeeded and meet all of it, of all that are counted.
    Share(Vec<Condition>),
    /// `check(json)`: checked responses that passed the check of this name.
    Check(String),
    /// A rate, count or value: `error_rate`, `output_throughput`, and its flat name.
    Plain(&'static Metric),
}

impl Subject {
    /// The unit its limit is in.
    pub fn unit(&self) -> Unit {
        match self {
            Self::Aggregate(Aggregate::Count, _) => Unit::Count,
            Self::Aggregate(_, metric) | Self::Plain(metric) => metric.unit,
            Self::Share(_) | Self::Check(_) => Unit::Ratio,
        }
    }

    /// Its name in the flat result files; `None` for what does not stand there.
    pub fn flat(&self) -> Option<String> {
        match self {
            Self::Aggregate(_, metric) if metric.custom.is_some() => None,
            Self::Aggregate(aggregate, metric) => {
                let name = match aggregate {
                    Aggregate::Med => "p50".to_owned(),
                    other => other.to_string(),
                };
                crate::metric::KEPT.contains(&name.as_str()).then(|| metric.flat_of(&name))
            }
            Self::Plain(metric) => Some(metric.flat()),
            Self::Share(_) | Self::Check(_) => None,
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
    matches!(metric.name, "error_rate" | "slo_share" | "checks_pass_rate")
        || metric.name.ends_with("_requests")
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
    /// Whether it is a plain fact of the sample rather than an estimate of something behind it.
    pub fn is_exact(self) -> bool {
        matches!(self, Self::Count | Self::Min | Self::Max | Self::Sum)
    }

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

    /// Whether it is a lower limit: `>` or `>=`.
    pub fn is_lower(self) -> bool {
        matches!(self, Self::Gt | Self::Ge)
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

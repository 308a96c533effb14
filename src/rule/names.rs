//! What names a rule may use, and which one was probably meant.

use super::error::RuleError;
use super::{Aggregate, Bytes};
use crate::metric::{Kind, METRICS, Metric};
use crate::nearest::nearest;

/// Names and aliases of metrics that satisfy a condition.
pub(super) fn names(which: fn(&Metric) -> bool) -> Vec<&'static str> {
    METRICS
        .iter()
        .filter(|metric| which(metric))
        .flat_map(|metric| std::iter::once(metric.name).chain(metric.aliases.iter().copied()))
        .collect()
}

/// Whether a condition can look at it: one value for each request.
pub(super) fn is_per_request(metric: &Metric) -> bool {
    metric.kind == Kind::Samples && metric.name != "tbt"
}

/// The rule's subject that a flat name of the result files stands for: `p99_ttft_ms`, `peak_mem_mb`.
pub(super) fn flat(name: &str, declared: &[&'static Metric]) -> Option<(Option<Aggregate>, &'static Metric)> {
    let plain = METRICS.iter().find(|metric| metric.kind != Kind::Samples && metric.flat() == name);
    if let Some(metric) = plain {
        return Some((None, metric));
    }
    let (prefix, rest) = name.split_once('_')?;
    // A count has no unit, so the flat names have none of it.
    let aggregate = Aggregate::named(prefix).ok().filter(|aggregate| *aggregate != Aggregate::Count)?;
    let metric = METRICS.iter().chain(declared.iter().copied()).find(|metric| {
        metric.kind == Kind::Samples
            && rest
                .strip_suffix(metric.unit.suffix())
                .is_some_and(|stem| metric.name == stem || metric.aliases.contains(&stem))
    })?;
    Some((Some(aggregate), metric))
}

/// Every flat name worth suggesting.
pub(super) fn flat_names(declared: &[&'static Metric]) -> Vec<String> {
    METRICS
        .iter()
        .chain(declared.iter().copied())
        .flat_map(|metric| match metric.kind {
            Kind::Samples => ["avg", "p50", "p90", "p95", "p99", "max"].map(|a| metric.flat_of(a)).to_vec(),
            Kind::Rate | Kind::Count | Kind::Value => vec![metric.flat()],
        })
        .collect()
}

/// The plain aggregates, in the order of the documentation.
pub(super) const AGGREGATES: [Aggregate; 7] = [
    Aggregate::Avg,
    Aggregate::Min,
    Aggregate::Max,
    Aggregate::Med,
    Aggregate::Stddev,
    Aggregate::Sum,
    Aggregate::Count,
];

impl Aggregate {
    /// The aggregate of this name.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub(super) fn named(name: &str) -> Result<Self, (String, String)> {
        if let Some(number) = name.strip_prefix('p').filter(|number| is_number(number)) {
            return percentile(number);
        }
        if let Some(plain) = AGGREGATES.into_iter().find(|aggregate| aggregate.to_string() == name) {
            return Ok(plain);
        }
        let plain = AGGREGATES.map(|aggregate| aggregate.to_string());
        let meant = match name {
            "mean" | "average" => Some("avg"),
            "median" => Some("med"),
            "std" | "stdev" | "sd" => Some("stddev"),
            "total" => Some("sum"),
            _ => nearest(name, plain.iter().map(String::as_str).chain(["share"])),
        };
        let help = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("write one of {}, or a percentile such as p99", plain.join(", ")),
        };
        Err((format!("unknown aggregation `{name}`"), help))
    }
}

/// p50 as the quantile 0.5. The point is moved in the text, so that p99.9 is the float nearest to 0.999.
fn percentile(number: &str) -> Result<Aggregate, (String, String)> {
    let q: f64 = format!("{number}e-2").parse().unwrap_or(f64::INFINITY);
    if q > 0.0 && q < 1.0 {
        return Ok(Aggregate::Quantile(q));
    }
    Err(if q <= 0.0 {
        (format!("`p{number}` is the smallest value"), "write `min(...)`".to_owned())
    } else if q <= 1.0 {
        (format!("`p{number}` is the largest value"), "write `max(...)`".to_owned())
    } else {
        (
            format!("there is no percentile {number}"),
            "a percentile lies between 0 and 100, such as p99".to_owned(),
        )
    })
}

/// Digits, with one point between them at most.
pub(super) fn is_number(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    digits(whole) && digits(fraction)
}

/// The error for a name that no metric has.
pub(super) fn unknown(name: &str, at: Bytes, candidates: &[&str]) -> RuleError {
    // Aliases are left out of the list.
    let is_main = |name: &&str| Metric::named(name).is_none_or(|metric| metric.name == *name);
    let listed = || candidates.iter().copied().filter(is_main).collect::<Vec<_>>().join(", ");
    let help = match nearest(name, candidates.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write one of {}", listed()),
    };
    RuleError::new(at, format!("unknown metric `{name}`"), help)
}

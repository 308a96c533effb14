//! What names a rule may use, and which one was probably meant.

use super::Aggregate;
use crate::metric::{Kind, METRICS, Metric};

/// The candidate nearest to a word by edit distance, if it is near: at most a third of the word's letters differ, and at
/// least one may. Of equally near ones the first.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

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
pub(super) fn flat(name: &str) -> Option<(Option<Aggregate>, &'static Metric)> {
    let plain = METRICS.iter().find(|metric| metric.kind != Kind::Samples && metric.flat() == name);
    if let Some(metric) = plain {
        return Some((None, metric));
    }
    let (prefix, rest) = name.split_once('_')?;
    // A count has no unit, so the flat names have none of it.
    let aggregate = Aggregate::named(prefix).ok().filter(|aggregate| *aggregate != Aggregate::Count)?;
    let metric = METRICS.iter().find(|metric| {
        metric.kind == Kind::Samples
            && rest
                .strip_suffix(metric.unit.suffix())
                .is_some_and(|stem| metric.name == stem || metric.aliases.contains(&stem))
    })?;
    Some((Some(aggregate), metric))
}

/// Every flat name worth suggesting.
pub(super) fn flat_names() -> Vec<String> {
    METRICS
        .iter()
        .flat_map(|metric| match metric.kind {
            Kind::Samples => ["avg", "p50", "p90", "p95", "p99", "max"].map(|a| metric.flat_of(a)).to_vec(),
            Kind::Rate | Kind::Count | Kind::Value => vec![metric.flat()],
        })
        .collect()
}

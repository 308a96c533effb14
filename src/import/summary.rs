//! Statistics as a file tells them.

use indexmap::IndexMap;
use serde_json::Value;

use super::value::At;
use crate::sample::FileError;

/// Statistics under our names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Numbers by their flat name, such as `p99_ttft_ms`.
    pub values: IndexMap<String, Value>,
    /// Why a number is not told, by flat name.
    pub reasons: IndexMap<String, String>,
    /// How the tool takes percentiles.
    pub percentiles: &'static str,
}

/// The statistics that are kept under our names: ours, and the words that tools have for each.
const STATISTICS: [(&str, &[&str]); 6] = [
    ("avg", &["mean", "avg"]),
    ("p50", &["median", "p50"]),
    ("p90", &["p90"]),
    ("p95", &["p95"]),
    ("p99", &["p99"]),
    ("max", &["max"]),
];

/// numpy's default.
pub(super) const INTERPOLATED: &str = "as the tool took it: between the two nearest values";

impl Summary {
    pub(super) fn new(percentiles: &'static str) -> Self {
        Self { percentiles, ..Self::default() }
    }

    pub(super) fn set(&mut self, name: impl Into<String>, value: f64) {
        self.values.insert(name.into(), crate::measure::rounded(value).into());
    }

    pub(super) fn set_count(&mut self, name: &str, count: u64) {
        self.values.insert(name.to_owned(), count.into());
    }

    /// Takes a number under our name, where it is there.
    pub(super) fn take(&mut self, name: &str, at: Option<At<'_>>, scale: f64) -> Result<(), FileError> {
        if let Some(at) = at {
            let value = at.amount()? * scale;
            self.set(name, value);
        }
        Ok(())
    }

    /// Takes the statistics of a map such as `{"mean": 1, "p99": 2}` as those of `metric` with `suffix`.
    pub(super) fn take_statistics(
        &mut self,
        metric: &str,
        suffix: &str,
        at: Option<&At<'_>>,
        scale: f64,
    ) -> Result<(), FileError> {
        let Some(at) = at else { return Ok(()) };
        let percentiles = at.get("percentiles");
        for (ours, theirs) in STATISTICS {
            let inner = percentiles.as_ref().and_then(|inner| inner.any(theirs));
            self.take(&format!("{ours}_{metric}{suffix}"), at.any(theirs).or(inner), scale)?;
        }
        Ok(())
    }

    /// Takes what stands under names such as `p99_ttft_ms`.
    pub(super) fn take_flat(&mut self, metric: &str, theirs: &str, at: &At<'_>) -> Result<(), FileError> {
        for (ours, words) in STATISTICS {
            let keys: Vec<String> = words.iter().map(|word| format!("{word}_{theirs}_ms")).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            self.take(&format!("{ours}_{metric}_ms"), at.any(&keys), 1.0)?;
        }
        Ok(())
    }

    /// How many requests there were.
    pub(super) fn requests(&mut self, successful: u64, failed: Option<u64>) {
        self.set_count("successful_requests", successful);
        self.set_count("sample_count", successful);
        if let Some(failed) = failed {
            let total = successful + failed;
            self.set_count("failed_requests", failed);
            self.set_count("total_requests", total);
            if total > 0 {
                self.set("error_rate", failed as f64 / total as f64);
            }
        }
    }

    /// Why a metric under every statistic is not told.
    pub(super) fn lacks(&mut self, metric: &str, suffix: &str, why: &str) {
        for (ours, _) in STATISTICS {
            self.reasons.insert(format!("{ours}_{metric}{suffix}"), why.to_owned());
        }
    }

    /// Why a number is not told.
    pub(super) fn lacks_number(&mut self, name: &str, why: &str) {
        self.reasons.insert(name.to_owned(), why.to_owned());
    }
}

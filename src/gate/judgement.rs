//! What judging a rule comes to.

use serde::{Deserialize, Serialize};

use super::config::Severity;

/// The verdict on one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// The rule holds.
    Pass,
    /// The rule is violated.
    Fail,
    /// The samples are too few to tell at the confidence asked for.
    Inconclusive,
    /// There is nothing to judge: the metric is unavailable or nothing was measured.
    #[serde(rename = "NO_DATA")]
    NoData,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::NoData => "NO_DATA",
        })
    }
}

/// One rule judged for one workload on one backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Judgement {
    /// The rule as written.
    pub rule: String,
    /// The workload's full name, or `all` for pooled ones.
    pub workload: String,
    /// The backend's name.
    pub backend: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Whether it decides over the run: severity `fail`, and for `NO_DATA` the rule's `no_data: fail`.
    pub decides: bool,
    /// The rule's severity.
    pub severity: Severity,
    /// The measured value in the unit of the limit; `None` without data.
    pub value: Option<f64>,
    /// The limit in the same unit; `None` for a reference to something that has no value.
    pub limit: Option<f64>,
    /// The unit of both, as printed: `ms`, `tok/s`, `MiB`, `%` (value and limit stay ratios), or nothing.
    pub unit: String,
    /// A confidence interval of the value where one was computed. Its two bounds are the two one-sided ones that the
    /// verdict comes from: a rule that is decided by a test has its limit outside.
    pub interval: Option<[f64; 2]>,
    /// How likely the interval holds the true value: 0.9 where each bound alone holds at 95 %.
    pub interval_level: Option<f64>,
    /// Samples behind the value.
    pub samples: Option<u64>,
    /// What they count as where neighbours are alike; absent where they count in full.
    pub effective_samples: Option<u64>,
    /// How it was judged, in a few words: `exact`, `point`, `binomial test at 95%, n = 1000 (effective 280)`.
    pub method: String,
    /// Why, where that needs saying: why there is no data, how many samples are missing.
    pub reason: Option<String>,
    /// Whether nobody wrote the rule: it holds by default.
    pub implicit: bool,
    /// What the limit refers to, for a rule such as `avg(tpot) <= main + 5%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
    /// The workload is INVALID, so the verdict is only what it would have been.
    pub suspended: bool,
    /// Where the rule stands: file, line and column (1-based). Absent for implicit rules.
    pub place: Option<Place>,
}

/// The other side of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Against {
    /// The baseline, workload or backend.
    pub name: String,
    /// The value there, the mean over its repeats.
    pub value: f64,
    /// Our value divided by that one; `None` where that is 0.
    pub ratio: Option<f64>,
    /// Bounds on the ratio, each wrong with the probability that the rule's confidence leaves.
    pub interval: Option<[f64; 2]>,
}

/// A place in a scenario file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Place {
    /// The file as it was named.
    pub file: String,
    /// 1-based line.
    pub line: u32,
    /// 1-based column, in characters.
    pub column: u32,
}

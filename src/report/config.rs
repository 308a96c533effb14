//! What a scenario says about its reports and records. Doc comments here are the user manual.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A report beside the standard ones: either from a `template` or as an `export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "template": "pr.md", "out": "PR.md" }]))]
pub struct ReportFile {
    /// The template: beside the scenario, else in its `templates/` folder, else one that ships with the program under that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// A format of another tool, in place of a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Export>,
    /// The file to write, inside the output folder.
    pub out: PathBuf,
}

/// A format of another tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Export {
    /// `HdrHistogram`'s interval log: TTFT, TPOT, E2E and TBT of each workload, backend and repeat, in microseconds with 3
    /// significant digits, tagged `workload/backend/metric`. Histograms of several runs add up.
    Hlog,
}

/// How much of each request is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Records {
    /// One row per request in `requests.jsonl`: memory and disk stay bounded by the number of requests.
    #[default]
    Requests,
    /// Beside it `tokens.jsonl.gz`: when every token came, as runs of equal gaps, compressed.
    Tokens,
}

impl Records {
    /// Whether nothing but the default is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

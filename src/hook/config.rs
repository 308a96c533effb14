//! What a scenario says about its hooks and the metrics that they record. Doc comments here are the user manual.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metric::{Better, Metric, Unit};

/// Functions in the Rhai language that make prompts, change requests and judge responses.
///
/// `prompt(ctx)` makes the prompts of a workload whose prompt is `kind: script`; `request(req)` may change each request before
/// it is sent; `check(req, res)` judges each response; `next_turn(session)` makes the next turn of a session. All are optional.
/// A hook has a seeded `rng`, and neither a clock, nor files, nor a network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "file": "hooks/year1.rhai" }, { "inline": "fn check(req, res) { res.text.len() > 20 }" }]))]
pub struct Hooks {
    /// The file, relative to the scenario. It may import others that lie in the scenario's folder or below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The functions, written in place. Variables such as `${NAME}` are not replaced here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
    /// Where an inline text stands, for messages; set when the scenario is read.
    #[serde(skip)]
    #[schemars(skip)]
    pub origin: Option<Origin>,
}

/// Where the lines of a script stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The file.
    pub file: String,
    /// The file's line before the script's first one.
    pub line: u32,
    /// Columns before each line of the script.
    pub column: u32,
}

/// A metric that hooks record, one value for each request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "unit": "1", "better": "higher", "description": "Lines of the answer." }]))]
pub struct CustomMetric {
    /// The unit of its values. Default: a plain number.
    #[serde(default)]
    pub unit: CustomUnit,
    /// Which direction is better. Default `neither`.
    #[serde(default = "neither")]
    pub better: Better,
    /// What it is, for reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

fn neither() -> Better {
    Better::Neither
}

/// The unit of a metric that hooks record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum CustomUnit {
    /// A plain number.
    #[default]
    #[serde(rename = "1")]
    One,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// A share between 0 and 1, printed as a percentage.
    #[serde(rename = "%")]
    Ratio,
    /// Tokens.
    #[serde(rename = "tokens")]
    Tokens,
    /// Tokens per second.
    #[serde(rename = "tok/s")]
    TokensPerSecond,
    /// Bytes.
    #[serde(rename = "B")]
    Bytes,
    /// MiB.
    #[serde(rename = "MiB")]
    Mebibytes,
}

impl CustomMetric {
    /// The metric that it declares, at this position among the scenario's.
    pub fn metric(&self, place: u16, name: &str) -> &'static Metric {
        let unit = match self.unit {
            CustomUnit::One => Unit::Count,
            CustomUnit::Milliseconds => Unit::Milliseconds,
            CustomUnit::Seconds => Unit::Seconds,
            CustomUnit::Ratio => Unit::Ratio,
            CustomUnit::Tokens => Unit::Tokens,
            CustomUnit::TokensPerSecond => Unit::TokensPerSecond,
            CustomUnit::Bytes => Unit::Bytes,
            CustomUnit::Mebibytes => Unit::Mebibytes,
        };
        Metric::declared(place, name, unit, self.better, self.description.as_deref().unwrap_or_default())
    }
}

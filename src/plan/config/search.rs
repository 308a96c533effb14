//! What a scenario says about a search for capacity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Arrival;
use crate::sample::Time;
use crate::units::{Duration, Rate, Ratio, human};

/// Looks for the most load under which the workload keeps its `slo`.
///
/// Each probe is a load of its own at one level, from an empty backend to the end of its last request. The level is doubled
/// from the bottom of the range until a probe fails; then the gap between the highest level that passed and the lowest one
/// that failed is halved on the log scale until it is within `tolerance`. The level that is found must then pass once
/// more with prompts and arrivals of its own; if it does not, lower ones are tried.
///
/// A probe passes when at least `share` of its requests succeed and keep every limit of the `slo`, as sure as
/// `gates.confidence` asks for. One that can not be decided is played again for twice as long, three times at most, and
/// then counts as not passed. What is found is the metric `capacity_rps` or `capacity_concurrency`; the workload's
/// other metrics are those of the probe that confirmed it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchLoad {
    /// What is looked for.
    pub variable: Variable,
    /// The lowest and the highest level: rates such as `[1/s, 64/s]`, or numbers of users such as `[1, 256]`.
    pub range: [Level; 2],
    /// For `variable: rate`: the law of the times between arrivals. Default `poisson`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival: Option<Arrival>,
    /// For `variable: concurrency`: how long a user waits between the end of one request and the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think_time: Option<Time>,
    /// The share of requests that must keep the `slo`. Default 99 %.
    #[serde(default = "most")]
    pub share: Ratio,
    /// How much larger than the level that passes the one that fails may be in the end. Default 5 %.
    #[serde(default = "close")]
    #[schemars(extend("examples" = ["5%", 0.02]))]
    pub tolerance: Ratio,
    /// How long one probe lasts.
    pub probe: Probe,
    /// No probe begins that would end later than this after the first one began, on the backend's clock. What is left of it
    /// is kept for the confirmation. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Duration>,
}

/// What a search changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Searched")]
pub enum Variable {
    /// The rate of an open load. Of prompts that are sessions, the rate at which sessions begin.
    Rate,
    /// The number of users of a closed load.
    Concurrency,
}

impl Variable {
    /// The metric that tells what was found.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Rate => "capacity_rps",
            Self::Concurrency => "capacity_concurrency",
        }
    }

    /// A level as it is written.
    pub fn level(self, level: f64) -> String {
        match self {
            Self::Rate => format!("{}/s", human(level, "")),
            Self::Concurrency if level > 1.0 => format!("{} users", human(level, "")),
            Self::Concurrency => "1 user".to_owned(),
        }
    }
}

/// One probe of a search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// How long requests are sent that count.
    pub duration: Duration,
    /// How long requests are sent before, that do not count. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Duration>,
}

fn most() -> Ratio {
    Ratio(0.99)
}

fn close() -> Ratio {
    Ratio(0.05)
}

/// A level of a search: a rate, or a number of users.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Level {
    /// Requests per second.
    Rate(Rate),
    /// Users.
    Users(u32),
}

impl Level {
    /// Per second, or users.
    pub fn number(self) -> f64 {
        match self {
            Self::Rate(rate) => rate.0,
            Self::Users(users) => f64::from(users),
        }
    }
}

impl Serialize for Level {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Rate(rate) => rate.serialize(serializer),
            Self::Users(users) => serializer.serialize_u32(*users),
        }
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let level = match &value {
            serde_json::Value::Number(n) => {
                n.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).map(Self::Users)
            }
            serde_json::Value::String(text) => {
                text.parse().ok().filter(|rate: &Rate| rate.0 > 0.0).map(Self::Rate)
            }
            _ => None,
        };
        level.ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{value} is no level of a search; write a rate above 0 such as 8/s, or a number of users such as 16"
            ))
        })
    }
}

impl JsonSchema for Level {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Level".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["integer", "string"],
            "minimum": 1,
            "pattern": r"^[0-9]+(\.[0-9]+)?/(s|m|h)$",
            "description": "A level of a search: a rate such as `8/s`, or a number of users.",
            "examples": ["8/s", 16],
        })
    }
}

//! How requests are sent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SearchLoad;
use crate::sample::Time;
use crate::units::{Duration, Rate};

crate::union! {
    /// How requests are sent.
    pub enum Load {
        "closed" => Closed(ClosedLoad),
        "open" => Open(OpenLoad),
        "stages" => Stages(StagesLoad),
        "replay" => Replay(ReplayLoad),
        "search" => Search(SearchLoad),
    }
    examples [
        { "kind": "closed", "concurrency": 8, "requests": "20x" },
        { "kind": "open", "rate": "8/s", "arrival": "poisson", "duration": "60s" },
        { "kind": "stages", "stages": [{ "duration": "1m", "rate": "10/s", "shape": "linear" }, { "duration": "5m", "rate": "10/s" }] },
        { "kind": "replay", "speed": 2 },
        { "kind": "search", "variable": "rate", "range": ["1/s", "64/s"], "probe": { "duration": "90s", "warmup": "15s" }, "budget": "30m" },
    ]
}

/// A fixed number of users; each sends its next request when its last one has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClosedLoad {
    /// How many requests are in flight at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub concurrency: u32,
    /// How long a user waits between the end of one request and the next. A user's first request does not wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think_time: Option<Time>,
    /// Over how long the users arrive, evenly spaced. Default: all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp_up: Option<Duration>,
    /// End after so many requests, or `20x`: so many per user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Requests>,
    /// End after so many sessions, or `20x`: so many per user. For prompts that are sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Requests>,
    /// Start nothing new after this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
}

/// Requests arrive by the clock, whether earlier ones have ended or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenLoad {
    /// Mean arrival rate.
    pub rate: Rate,
    /// The law of the times between arrivals. Default `poisson`.
    #[serde(default)]
    pub arrival: Arrival,
    /// At most so many in flight; a request that waits for its place is recorded with `cap_wait`, which counts in its TTFT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_in_flight: Option<u32>,
    /// End after so many requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests: Option<u64>,
    /// End after so many sessions. For prompts that are sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub sessions: Option<u64>,
    /// Start nothing new after this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
}

crate::union! {
    /// The law of the times between arrivals.
    pub enum Arrival {
        "constant" => Constant(ConstantArrival),
        "poisson" => Poisson(PoissonArrival),
        "gamma" => Gamma(GammaArrival),
    }
    examples [
        { "kind": "constant" },
        { "kind": "poisson" },
        { "kind": "gamma", "burstiness": 0.25 },
    ]
    short { "type": "string", "enum": ["constant", "poisson"], "description": "An arrival law without parameters." }
        => |value| match value.as_str() {
            Some("constant") => Ok(Arrival::Constant(ConstantArrival {})),
            Some("poisson") => Ok(Arrival::Poisson(PoissonArrival {})),
            _ => Err(format!("unknown arrival {value}; constant, poisson, or a map with `kind: gamma`")),
        }
}

impl Default for Arrival {
    fn default() -> Self {
        Self::Poisson(PoissonArrival {})
    }
}

/// Evenly spaced arrivals, the first at time 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConstantArrival {}

/// Exponential times between arrivals: independent users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoissonArrival {}

/// Gamma times between arrivals of the same mean: `burstiness` is the shape, 1 is Poisson, below 1 comes in bursts, above 1 is more even.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GammaArrival {
    /// The shape of the gamma law, from 0.001 to 1000.
    #[schemars(range(min = 0.001, max = 1000.0))]
    pub burstiness: f64,
}

/// A load that changes with time. All stages set a rate, or all set a concurrency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StagesLoad {
    /// The stages, one after another.
    #[schemars(length(min = 1))]
    pub stages: Vec<Stage>,
    /// The law of the times between arrivals in stages that set a rate. Default `poisson`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival: Option<Arrival>,
    /// At most so many in flight, in stages that set a rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_in_flight: Option<u32>,
    /// End after so many requests, if the stages have not ended before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests: Option<u64>,
    /// End after so many sessions. For prompts that are sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub sessions: Option<u64>,
}

/// One stage of a load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "duration": "2m", "rate": "20/s", "shape": "linear" }]))]
pub struct Stage {
    /// How long it lasts.
    pub duration: Duration,
    /// Its arrival rate: throughout (`step`) or reached at its end (`linear`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Its number of users: throughout (`step`) or reached at its end (`linear`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub concurrency: Option<u32>,
    /// How it gets from the last stage's value to its own. Default `step`. The value before the first stage is 0.
    #[serde(default)]
    pub shape: Shape,
}

/// How a stage changes the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// At once.
    #[default]
    Step,
    /// In a straight line over the stage.
    Linear,
}

/// The arrivals of the workload's own trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayLoad {
    /// Time runs so many times faster. Default 1.
    #[serde(default = "unit_speed")]
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1_000_000))]
    pub speed: f64,
    /// At most so many in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_in_flight: Option<u32>,
    /// End after so many requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests: Option<u64>,
    /// End after so many sessions. For prompts that are sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub sessions: Option<u64>,
    /// Start nothing new after this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
}

fn unit_speed() -> f64 {
    1.0
}

/// A number of requests: in all, or per user as `20x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requests {
    /// In all.
    Total(u64),
    /// For each user of a closed loop.
    PerUser(u64),
}

impl Serialize for Requests {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Total(n) => serializer.serialize_u64(*n),
            Self::PerUser(n) => serializer.collect_str(&format_args!("{n}x")),
        }
    }
}

impl<'de> Deserialize<'de> for Requests {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let parsed = match &value {
            serde_json::Value::Number(n) => n.as_u64().map(Self::Total),
            serde_json::Value::String(text) => {
                text.strip_suffix('x').and_then(|n| n.parse().ok()).map(Self::PerUser)
            }
            _ => None,
        };
        parsed.filter(|requests| !matches!(requests, Self::Total(0) | Self::PerUser(0))).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{value} is no number of requests; write 100, or 20x for 20 per user"
            ))
        })
    }
}

impl JsonSchema for Requests {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Requests".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["integer", "string"],
            "minimum": 1,
            "pattern": "^[1-9][0-9]*x$",
            "description": "A number of requests in all, or per user as `20x`.",
            "examples": [100, "20x"],
        })
    }
}

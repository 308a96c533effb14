//! The laws a number of tokens or a length of time may follow, as written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{Duration, TokenCount};

/// What a distribution is over: converts to and from the float that is sampled.
pub trait Quantity: Copy {
    /// The quantity as a float (tokens, or nanoseconds).
    fn to_float(self) -> f64;
    /// The quantity nearest to a float, clamped to what the type can hold.
    fn from_float(value: f64) -> Self;
}

impl Quantity for TokenCount {
    fn to_float(self) -> f64 {
        f64::from(self.0)
    }
    fn from_float(value: f64) -> Self {
        Self(libm::round(value).clamp(1.0, f64::from(Self::MAX)) as u32)
    }
}

impl Quantity for Duration {
    fn to_float(self) -> f64 {
        self.0 as f64
    }
    fn from_float(value: f64) -> Self {
        Self(libm::round(value.max(0.0)) as u64)
    }
}

/// Always the same value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fixed<T> {
    /// The value.
    pub value: T,
}

/// Every value from `min` to `max`, both included, is equally likely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Uniform<T> {
    /// The smallest value.
    pub min: T,
    /// The largest value.
    pub max: T,
}

/// The normal law, cut to `min` and `max` (values outside are clamped).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
pub struct Normal<T> {
    /// The mean before clamping.
    pub mean: T,
    /// The standard deviation before clamping.
    pub std: T,
    /// Values below are raised to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<T>,
    /// Values above are lowered to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<T>,
}

/// The log-normal law with this mean and standard deviation (of the values, not of their logarithms), clamped to `min` and `max`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
pub struct Lognormal<T> {
    /// The mean of the values before clamping.
    pub mean: T,
    /// The standard deviation of the values before clamping.
    pub std: T,
    /// Values below are raised to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<T>,
    /// Values above are lowered to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<T>,
}

/// The Zipf law over `min..=max`: the k-th smallest value has probability proportional to k^-exponent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Zipf {
    /// The smallest and likeliest value.
    pub min: TokenCount,
    /// The largest value.
    pub max: TokenCount,
    /// The exponent, above 0.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 20))]
    pub exponent: f64,
}

/// Values drawn with replacement from one column of a CSV or JSONL file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empirical {
    /// The file, relative to the scenario.
    pub path: PathBuf,
    /// The CSV column or JSON key that holds the value: a number of tokens, or milliseconds where a time stands.
    pub column: String,
}

crate::union! {
    /// A number of tokens, fixed or drawn for each request.
    pub enum Tokens {
        "fixed" => Fixed(Fixed<TokenCount>),
        "uniform" => Uniform(Uniform<TokenCount>),
        "normal" => Normal(Normal<TokenCount>),
        "lognormal" => Lognormal(Lognormal<TokenCount>),
        "zipf" => Zipf(Zipf),
        "empirical" => Empirical(Empirical),
    }
    examples [
        { "kind": "fixed", "value": 128 },
        { "kind": "uniform", "min": 64, "max": 256 },
        { "kind": "normal", "mean": 200, "std": 50, "min": 16 },
        { "kind": "lognormal", "mean": 512, "std": 256, "max": 4096 },
        { "kind": "zipf", "min": 16, "max": 4096, "exponent": 1.2 },
        { "kind": "empirical", "path": "lengths.csv", "column": "prompt_tokens" },
    ]
    short { "type": "integer", "minimum": 1, "maximum": 16_777_216, "description": "A fixed number of tokens." }
        => |value| serde_json::from_value(value).map(|value| Tokens::Fixed(Fixed { value })).map_err(|e| e.to_string())
}

crate::union! {
    /// A length of time, fixed or drawn each time.
    pub enum Time {
        "fixed" => Fixed(Fixed<Duration>),
        "uniform" => Uniform(Uniform<Duration>),
        "normal" => Normal(Normal<Duration>),
        "lognormal" => Lognormal(Lognormal<Duration>),
        "empirical" => Empirical(Empirical),
    }
    examples [
        { "kind": "fixed", "value": "2s" },
        { "kind": "uniform", "min": "1s", "max": "10s" },
        { "kind": "normal", "mean": "5s", "std": "1s", "min": "1s" },
        { "kind": "lognormal", "mean": "8s", "std": "6s", "max": "60s" },
        { "kind": "empirical", "path": "pauses.jsonl", "column": "think_ms" },
    ]
    short { "$ref": "#/$defs/Duration" }
        => |value| serde_json::from_value(value).map(|value| Time::Fixed(Fixed { value })).map_err(|e| e.to_string())
}

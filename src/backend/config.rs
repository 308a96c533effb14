//! What a scenario says about a backend. Doc comments here are the user manual.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sample::Time;
use crate::units::{Duration, Rate, Ratio, Size, TokenCount};

crate::union! {
    /// What answers the requests.
    pub enum Backend {
        "mock" => Mock(MockBackend),
    }
}

/// A simulated inference engine. TTFT and TBT are constants (or drawn); the KV cache is a real block pool with prefix
/// reuse, eviction and preemption, so a workload that is too large for it queues and recomputes as on a real server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MockBackend {
    /// Time from admission to the first token. A preempted request pays it again when it comes back.
    pub ttft: Time,
    /// Time between two tokens of one request.
    pub tbt: Time,
    /// The KV cache. Without it the cache is unlimited and its metrics are unavailable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv: Option<Kv>,
    /// At most so many tokens per second over all requests together. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_cap: Option<Rate>,
    /// Which clock the run is played on. Default `virtual`.
    #[serde(default)]
    pub clock: Clock,
    /// The name reported as the model. Default `mock`.
    #[serde(default = "mock_model")]
    pub model: String,
    /// Memory taken by the model's weights; part of the modelled device memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Size>,
    /// Requests that go wrong on purpose. The first rule that matches a request decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

fn mock_model() -> String {
    "mock".into()
}

/// The KV cache. Exactly one of `tokens`, `blocks` and `bytes` gives its size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kv {
    /// Its size in tokens, rounded down to whole blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenCount>,
    /// Its size in blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub blocks: Option<u32>,
    /// Its size in bytes, rounded down to whole blocks; needs `bytes_per_token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Size>,
    /// Tokens in one block. Default 16.
    #[serde(default = "default_block")]
    #[schemars(range(min = 1, max = 4096))]
    pub block_tokens: u32,
    /// Bytes of keys and values per token: 2 × layers × KV heads × head size × bytes per number. Without it memory in bytes is unavailable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub bytes_per_token: Option<u64>,
    /// Whether full blocks are kept for later requests with the same prefix. Default true.
    #[serde(default = "yes")]
    pub prefix_cache: bool,
    /// Time that dropping one cached block costs the token that needed the block. Default: none, and `evict_ms` is unavailable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evict: Option<Duration>,
}

fn default_block() -> u32 {
    16
}
fn yes() -> bool {
    true
}

/// Which clock a run is played on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// Simulated time: the run takes as long as computing it does, and repeats to the byte.
    #[default]
    Virtual,
    /// The machine's monotonic clock: the run takes as long as it says.
    Real,
}

/// One rule of injected faults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which requests it hits. All conditions given must hold.
    #[serde(rename = "match")]
    pub matches: FaultMatch,
    /// What happens to them.
    pub action: FaultAction,
}

/// Which measured requests a fault hits. Requests are numbered from 0 in the order of the plan, so the same ones fail at any concurrency.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultMatch {
    /// Only requests of this workload (all its matrix points).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Only the requests with these numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexList>,
    /// Every n-th request: numbers n−1, 2n−1, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub every: Option<u64>,
    /// Only the first n requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub first: Option<u64>,
    /// This share of the requests, drawn for each from the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Ratio>,
}

/// One request number or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexList(pub Vec<u64>);

impl Serialize for IndexList {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for IndexList {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let list = if value.is_array() { value } else { serde_json::Value::Array(vec![value]) };
        serde_json::from_value(list).map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for IndexList {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IndexList".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["integer", "array"],
            "minimum": 0,
            "items": { "type": "integer", "minimum": 0 },
            "description": "A request's number, or a list of them.",
        })
    }
}

crate::union! {
    /// What happens to a request that a fault hits.
    pub enum FaultAction {
        "http_status" => HttpStatus(StatusFault),
        "timeout" => Timeout(TimeoutFault),
        "disconnect" => Disconnect(DisconnectFault),
        "stall" => Stall(StallFault),
    }
}

/// The request is answered with an HTTP error status instead of tokens, after the time of a first token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusFault {
    /// The status.
    #[schemars(range(min = 400, max = 599))]
    pub code: u16,
}

/// The request is accepted and never answered; the client's timeout ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeoutFault {}

/// The connection ends in the middle of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DisconnectFault {
    /// After so many tokens: it ends at the moment the next one is due, in its place. 0 ends it before the first.
    pub after_tokens: u32,
}

/// The answer pauses once and then goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StallFault {
    /// After so many tokens, at least 1.
    #[schemars(range(min = 1))]
    pub after_tokens: u32,
    /// How much longer the next token takes.
    #[serde(rename = "for")]
    pub pause: Duration,
}

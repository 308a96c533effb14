//! What a scenario says about faults: what goes wrong on purpose, and when. Doc comments here are the user manual.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{Duration, Ratio, TokenCount};

/// One rule of injected faults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "match": { "index": [2, 5] }, "action": { "kind": "http_status", "code": 503 } }, { "match": { "rate": "1%" }, "action": { "kind": "stall", "after_tokens": 10, "for": "3s" } }]))]
pub struct Fault {
    /// Which requests it hits. All conditions given must hold; without any, it hits every measured request. What happens to
    /// the engine as a whole (`engine_stall`, `engine_crash`, `kv_shrink`, `startup_delay`) takes `workload` only.
    #[serde(rename = "match", default)]
    pub matches: RequestMatch,
    /// What happens.
    pub action: FaultAction,
}

/// Which requests a rule is for: faults hit measured ones only. Requests are numbered from 0 in the order of the plan, so the same ones fail at any concurrency.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "every": 10 }, { "workload": "chat", "rate": "5%" }, { "prompt_tokens": { "min": 4096 } }]))]
pub struct RequestMatch {
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
    /// Only the first n attempts at a request, where the workload has `retries`. Default: every attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub attempts: Option<u32>,
    /// This share of the requests, drawn for each from the seed (and for each attempt at one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Ratio>,
    /// Only requests whose prompt is this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<TokenRange>,
}

impl RequestMatch {
    /// Whether it takes a number of tokens of the prompt, a request's number or a draw: everything but `workload`.
    pub fn names_requests(&self) -> bool {
        *self != Self { workload: self.workload.clone(), ..Self::default() }
    }
}

/// A range of lengths in tokens, both ends included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "min": 4096 }]))]
pub struct TokenRange {
    /// The shortest. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<TokenCount>,
    /// The longest. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<TokenCount>,
}

impl TokenRange {
    /// Whether so many tokens are in it.
    pub fn contains(&self, tokens: u32) -> bool {
        self.min.is_none_or(|min| tokens >= min.0) && self.max.is_none_or(|max| tokens <= max.0)
    }
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
    /// What goes wrong: with one request, or with the engine as a whole (`engine_stall`, `engine_crash`, `kv_shrink`,
    /// `startup_delay`). Every fault that strikes is in the run's log of faults.
    pub enum FaultAction {
        "http_status" => HttpStatus(StatusFault),
        "reject" => Reject(RejectFault),
        "timeout" => Timeout(TimeoutFault),
        "slow_ttft" => SlowTtft(SlowTtftFault),
        "stall" => Stall(StallFault),
        "disconnect" => Disconnect(DisconnectFault),
        "truncate" => Truncate(CutFault),
        "malformed" => Malformed(CutFault),
        "wrong_usage" => WrongUsage(UsageFault),
        "duplicate_token" => DuplicateToken(DuplicateFault),
        "engine_stall" => EngineStall(EngineStallFault),
        "engine_crash" => EngineCrash(CrashFault),
        "kv_shrink" => KvShrink(ShrinkFault),
        "startup_delay" => StartupDelay(StartupFault),
    }
    examples [
        { "kind": "http_status", "code": 503, "retry_after": "2s" },
        { "kind": "reject" },
        { "kind": "timeout" },
        { "kind": "slow_ttft", "for": "800ms" },
        { "kind": "stall", "after_tokens": 10, "for": "3s" },
        { "kind": "disconnect", "after_tokens": 12, "close": "rst" },
        { "kind": "truncate", "after_tokens": 12 },
        { "kind": "malformed", "after_tokens": 12 },
        { "kind": "wrong_usage", "completion_tokens": 7 },
        { "kind": "duplicate_token", "token": 5 },
        { "kind": "engine_stall", "at": "20s", "for": "2s" },
        { "kind": "engine_crash", "at": "20s", "restart": "5s" },
        { "kind": "kv_shrink", "at": "20s", "to": 8192 },
        { "kind": "startup_delay", "for": "30s" },
    ]
}

impl FaultAction {
    /// Whether it happens to the engine as a whole, at a time, rather than to requests.
    pub fn is_of_engine(&self) -> bool {
        matches!(
            self,
            Self::EngineStall(_) | Self::EngineCrash(_) | Self::KvShrink(_) | Self::StartupDelay(_)
        )
    }
}

/// The request is answered at once with an HTTP error status instead of tokens: it fails as `http_503` and the like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusFault {
    /// The status.
    #[schemars(range(min = 400, max = 599))]
    pub code: u16,
    /// When the client may try again: the answer's `Retry-After` header, in whole seconds rounded up. Default: no header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
}

/// The engine refuses the request before it runs, as one whose queue is full: it fails as `refused`. Over HTTP the answer is
/// 429 with an error in its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectFault {}

/// The request is accepted and never answered; the client's timeout ends it, as `timed_out`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeoutFault {}

/// The first token comes later, and all others behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowTtftFault {
    /// How much longer the first token takes.
    #[serde(rename = "for")]
    pub delay: Duration,
}

/// The answer pauses once and then goes on. The engine computes meanwhile: what is late is the way to the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StallFault {
    /// After so many tokens, at least 1.
    #[schemars(range(min = 1))]
    pub after_tokens: u32,
    /// How much longer the next token takes, and all others behind it.
    #[serde(rename = "for")]
    pub pause: Duration,
}

/// The connection ends in the middle of the answer, which fails as `disconnected`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DisconnectFault {
    /// After so many tokens: it ends at the moment the next one is due, in its place. 0 ends it before the first. An answer
    /// that is not longer is left alone.
    pub after_tokens: u32,
    /// How the connection is closed. Default `fin`.
    #[serde(default)]
    pub close: CloseBy,
}

/// How a connection is closed in the middle of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloseBy {
    /// In order, as by a process that ends: what was sent arrives, then the stream is at its end, too early.
    #[default]
    Fin,
    /// By a reset, as by a crash or a firewall: the client sees an error, and may lose what was under way.
    Rst,
}

/// The answer goes wrong in its middle. `truncate`: the stream ends in order, but without `finish_reason` and `[DONE]`, and fails
/// as `truncated`. `malformed`: an event comes that can not be read (over HTTP, broken JSON), and the request fails as
/// `malformed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CutFault {
    /// After so many tokens: at the moment the next one is due, in its place. 0 is before the first. An answer that is not
    /// longer is left alone.
    pub after_tokens: u32,
}

/// The answer is complete, and its usage says another number of tokens than came. The usage counts, as it does with a real
/// server: the record has its number, and a request whose length was forced is counted in `length_mismatches`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UsageFault {
    /// What the usage says.
    pub completion_tokens: u32,
}

/// One token comes twice. The answer is one token too long: where its length was forced, it fails as `truncated`, the kind for
/// every forced length that came out otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DuplicateFault {
    /// Which token, counted from 1; it comes again at the same moment. A shorter answer is left alone.
    #[schemars(range(min = 1))]
    pub token: u32,
}

/// The whole engine stands still once: what is being computed takes that much longer, and nothing new begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineStallFault {
    /// When, since the workload's start (its warm-up included).
    pub at: Duration,
    /// For how long.
    #[serde(rename = "for")]
    pub pause: Duration,
}

/// The engine crashes once: every request in it fails as `disconnected`, what arrives before it is back fails as `refused`,
/// and its cache is empty afterwards. Each request that fails so is in the log of faults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CrashFault {
    /// When, since the workload's start (its warm-up included).
    pub at: Duration,
    /// How long it takes to come back.
    pub restart: Duration,
}

/// The KV cache becomes smaller and stays so, as when something else takes the device's memory. Free blocks go first, then
/// those that become free; requests that need more than is left are preempted. A request that the smaller cache can never
/// hold fails as `cancelled_by_server`, and is in the log of faults; one that comes later is `refused`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShrinkFault {
    /// When, since the workload's start (its warm-up included).
    pub at: Duration,
    /// Tokens that are left, rounded down to whole blocks.
    pub to: TokenCount,
}

/// The engine is not ready when the workload starts: requests wait, and nothing is computed until then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartupFault {
    /// For how long.
    #[serde(rename = "for")]
    pub delay: Duration,
}

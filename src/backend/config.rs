//! What a scenario says about a backend. Doc comments here are the user manual.

mod candle;
mod fault;
mod openai;
mod url;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::candle::{CandleBackend, CandleKv, DraftModel, Drafting, Dtype, PromptLookup};
pub use self::fault::{
    CloseBy, CrashFault, CutFault, DisconnectFault, DuplicateFault, EngineStallFault, Fault, FaultAction,
    IndexList, RejectFault, RequestMatch, ShrinkFault, SlowTtftFault, StallFault, StartupFault, StatusFault,
    TimeoutFault, TokenRange, UsageFault,
};
pub use self::openai::{
    Endpoint, Flavor, HttpVersion, LengthField, MetricsPages, OpenAiBackend, ProxyFrom, Urls,
};
pub use self::url::{Place, Url};
use crate::sample::Time;
use crate::units::{Duration, Rate, Ratio, Size, TokenCount};

crate::union! {
    /// What answers the requests.
    pub enum Backend {
        "mock" => Mock(MockBackend),
        "candle" => Candle(CandleBackend),
        "openai" => OpenAi(OpenAiBackend),
        "vllm" => Vllm(OpenAiBackend),
        "sglang" => Sglang(OpenAiBackend),
        "lmdeploy" => Lmdeploy(OpenAiBackend),
        "llamacpp" => Llamacpp(OpenAiBackend),
    }
    examples [
        { "kind": "mock", "ttft": "10ms", "tbt": "5ms", "kv": { "tokens": 4096, "bytes_per_token": 32768 } },
        { "kind": "mock", "mode": "batched", "preset": "rtx4090-8b", "kv": { "tokens": 131_072 } },
        { "kind": "candle", "model": "HuggingFaceTB/SmolLM2-135M", "kv": { "tokens": 8192 } },
        { "kind": "openai", "base_url": "https://api.example.com/v1", "model": "my-model", "api_key_env": "API_KEY" },
        { "kind": "vllm", "base_url": "http://127.0.0.1:8000/v1", "wait_ready": "5m" },
        { "kind": "sglang", "base_url": "http://127.0.0.1:30000/v1" },
        { "kind": "lmdeploy", "base_url": "http://127.0.0.1:23333/v1" },
        { "kind": "llamacpp", "base_url": "http://127.0.0.1:8080/v1" },
    ]
}

impl Backend {
    /// The settings of a server behind HTTP and its flavor; `None` for what runs in this process.
    pub fn server(&self) -> Option<(&OpenAiBackend, Flavor)> {
        match self {
            Self::Mock(_) | Self::Candle(_) => None,
            Self::OpenAi(server) => Some((server, server.flavor)),
            Self::Vllm(server) => Some((server, Flavor::Vllm)),
            Self::Sglang(server) => Some((server, Flavor::Sglang)),
            Self::Lmdeploy(server) => Some((server, Flavor::Lmdeploy)),
            Self::Llamacpp(server) => Some((server, Flavor::Llamacpp)),
        }
    }

    /// The settings of a server behind HTTP, to change them.
    pub fn server_mut(&mut self) -> Option<&mut OpenAiBackend> {
        match self {
            Self::Mock(_) | Self::Candle(_) => None,
            Self::OpenAi(server)
            | Self::Vllm(server)
            | Self::Sglang(server)
            | Self::Lmdeploy(server)
            | Self::Llamacpp(server) => Some(server),
        }
    }
}

/// A simulated inference engine. In `mode: fixed`, TTFT and TBT are constants (or drawn); in `mode: batched`, a continuous
/// batch is scheduled step by step and each step takes what a cost model says. In both, the KV cache is a real block pool
/// with prefix reuse, eviction and preemption, so a workload that is too large for it queues and recomputes as on a real
/// server. In `mode: replay`, the times of answers are those that a trace recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MockBackend {
    /// How time passes. Default `fixed`.
    #[serde(default)]
    pub mode: Mode,
    /// `mode: fixed`, required: time from admission to the first token. A preempted request pays it again when it comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft: Option<Time>,
    /// `mode: fixed`, required: time between two tokens of one request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tbt: Option<Time>,
    /// `mode: batched`: a GPU and a model whose step cost is known. Exactly one of `preset` and `cost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// `mode: batched`: what a step costs. Exactly one of `preset` and `cost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<StepCost>,
    /// `mode: batched`: what bounds a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineLimits>,
    /// `mode: batched`: speculative decoding. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speculative: Option<Speculative>,
    /// The KV cache. Required in `mode: batched`; in `mode: fixed` it is unlimited without this, and its metrics are
    /// unavailable; `mode: replay` has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv: Option<Kv>,
    /// `mode: fixed`: at most so many tokens per second over all requests together. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_cap: Option<Rate>,
    /// Which clock the run is played on. Default `virtual`.
    #[serde(default)]
    pub clock: Clock,
    /// `clock: scaled`, required: modelled seconds in a second of the machine's clock. Less than 1 is slow motion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 1_000_000))]
    pub speed: Option<f64>,
    /// The name reported as the model. Default `mock`.
    #[serde(default = "mock_model")]
    pub model: String,
    /// Memory taken by the model's weights; part of the modelled device memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Size>,
    /// What goes wrong on purpose. Of the rules for requests, the first one that matches a request decides; every rule for the
    /// engine as a whole strikes at its time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// What requests are answered with, where words that mean nothing will not do: for checks of the text, say. The first
    /// one that matches a request answers it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub responses: Vec<MockResponse>,
}

/// A text that the mock answers with.
///
/// Where the output is only limited (`max_tokens`), the answer ends with the text, by `stop`; a limit that is shorter cuts
/// it off, by `length`. Where the length is forced (`tokens`), the answer is cut off at it, or goes on behind the text with
/// words that mean nothing, as a model does that may not stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "text": "{\"city\": \"Paris\"}" }, { "match": { "every": 10 }, "text": "I am sorry." }]))]
pub struct MockResponse {
    /// Which requests it answers, those of the warm-up included. All conditions given must hold. Default: all.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<RequestMatch>,
    /// The text.
    #[schemars(length(min = 1))]
    pub text: String,
}

/// How time passes in a mock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Each request has events of its own: `ttft`, then `tbt` per token.
    #[default]
    Fixed,
    /// All running requests share steps, by the scheduling rules of vLLM v1; a step takes what `preset` or `cost` says.
    Batched,
    /// Each request is answered when its trace says that it was: the workload's prompts are a trace whose `fields` tell the
    /// times of answers. Recorded runs can be judged and reported again without the server. The load changes nothing, and a
    /// cache or a batch is not known. A request that asks for another length than was recorded goes on at the recorded pace.
    Replay,
}

/// A GPU and a model in bf16 whose step cost is known. All but `rtx4090-8b` are fits to kernel tables that were never
/// checked end to end, and those of several GPUs leave out the time that they spend talking to each other, which makes them
/// optimistic; a run on one of them says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// One A100, 8B parameters.
    #[serde(rename = "a100-8b")]
    A100Of8b,
    /// One H100, 8B parameters.
    #[serde(rename = "h100-8b")]
    H100Of8b,
    /// One H200, 8B parameters.
    #[serde(rename = "h200-8b")]
    H200Of8b,
    /// One B200, 8B parameters.
    #[serde(rename = "b200-8b")]
    B200Of8b,
    /// One L40S, 8B parameters.
    #[serde(rename = "l40s-8b")]
    L40sOf8b,
    /// Eight A100, 70B parameters.
    #[serde(rename = "a100-70b-tp8")]
    A100Of70bTp8,
    /// Four H100, 70B parameters.
    #[serde(rename = "h100-70b-tp4")]
    H100Of70bTp4,
    /// Eight H100, 70B parameters.
    #[serde(rename = "h100-70b-tp8")]
    H100Of70bTp8,
    /// Eight H200, 70B parameters.
    #[serde(rename = "h200-70b-tp8")]
    H200Of70bTp8,
    /// Eight B200, 70B parameters.
    #[serde(rename = "b200-70b-tp8")]
    B200Of70bTp8,
    /// One RTX 4090, 8B parameters. Checked against a real run of vLLM.
    #[serde(rename = "rtx4090-8b")]
    Rtx4090Of8b,
}

/// What one step costs:
/// `base + (weights^knee + (token × n)^knee)^(1/knee) + sequence × sequences + kv_token × kv + prefill_pair × pairs + comm`.
///
/// n is the number of tokens in the step, kv the context of the decoding sequences, pairs the tokens of prefill chunks
/// times what they look back at. The smooth maximum is the roofline: reading the weights or computing, whichever is longer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "base_ms": 4.2, "weights_ms": 17, "token_us": 90, "knee": 4, "kv_token_ns": 130 }]))]
pub struct StepCost {
    /// Time of a step whatever is in it: kernel launches, sampling, the host's share. In milliseconds.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub base_ms: f64,
    /// Time to read the weights once, in milliseconds.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weights_ms: f64,
    /// Time to compute one token, in microseconds.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub token_us: f64,
    /// How sharp the knee of the roofline is; 1 adds the two, larger values come close to their maximum.
    #[schemars(range(min = 1, max = 100))]
    pub knee: f64,
    /// Time for each sequence in the step, in microseconds. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub sequence_us: f64,
    /// Time to read the keys and values of one token of context while decoding, in nanoseconds. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub kv_token_ns: f64,
    /// Time for one pair of a prefill token and a token that it looks back at, in picoseconds. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub prefill_pair_ps: f64,
    /// What the GPUs of one model spend on talking to each other (tensor parallelism), added to each step. Default: one GPU,
    /// no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm: Option<Comm>,
}

/// The all-reduces of tensor parallelism: two in each layer, over the activations of the step's tokens in bf16, around a
/// ring. A step of n tokens spends `2 × layers × (alpha + 2 (gpus − 1) / gpus × n × hidden × 2 bytes / beta)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "gpus": 8, "layers": 80, "hidden": 8192, "alpha_us": 12, "beta_gb_s": 300 }]))]
pub struct Comm {
    /// GPUs that share the model.
    #[schemars(range(min = 2, max = 1024))]
    pub gpus: u32,
    /// Layers of the model.
    #[schemars(range(min = 1, max = 10_000))]
    pub layers: u32,
    /// Its hidden size: numbers per token that an all-reduce adds up.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub hidden: u32,
    /// Time of an all-reduce of next to nothing: launch and latency. In microseconds.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub alpha_us: f64,
    /// Bandwidth of the links, in GB/s (10^9 bytes): what benchmarks of collectives call the bus bandwidth.
    #[schemars(range(min = 0.001, max = 1_000_000))]
    pub beta_gb_s: f64,
}

/// What bounds a step of a continuous batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("examples" = [{ "max_num_seqs": 64, "max_num_batched_tokens": 4096 }]))]
pub struct EngineLimits {
    /// At most so many requests run at once. Default 256.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_num_seqs: u32,
    /// At most so many tokens are computed in one step. Default 2048.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_num_batched_tokens: u32,
    /// Whether a prompt may be computed over several steps. Otherwise it waits for a step that takes it whole, and a request
    /// longer than `max_num_batched_tokens` is refused. Default true.
    pub chunked_prefill: bool,
    /// This share of the cache's blocks stays free when a request is admitted beside others. Default 0.
    pub watermark: Ratio,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self { max_num_seqs: 256, max_num_batched_tokens: 2048, chunked_prefill: true, watermark: Ratio(0.0) }
    }
}

/// Speculative decoding: each decoding request computes drafts with its token, and those that are accepted come out with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "tokens": 4, "accept": "60%" }, { "tokens": 3, "accept": ["80%", "60%", "40%"] }]))]
pub struct Speculative {
    /// Draft tokens per step.
    #[schemars(range(min = 1, max = 64))]
    pub tokens: u32,
    /// The probability that a draft is accepted when all before it are: one for all drafts, or one for each.
    pub accept: Acceptance,
}

/// One probability, or one per draft.
#[derive(Debug, Clone, PartialEq)]
pub struct Acceptance(pub Vec<f64>);

impl Serialize for Acceptance {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_f64(*one),
            list => list.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Acceptance {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let list = if value.is_array() { value } else { serde_json::Value::Array(vec![value]) };
        let ratios: Vec<Ratio> = serde_json::from_value(list).map_err(serde::de::Error::custom)?;
        Ok(Self(ratios.into_iter().map(|ratio| ratio.0).collect()))
    }
}

impl JsonSchema for Acceptance {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Acceptance".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let ratio = generator.subschema_for::<Ratio>();
        schemars::json_schema!({
            "description": "One probability, or one per draft.",
            "oneOf": [ratio, { "type": "array", "items": ratio, "minItems": 1, "description": "One probability for each draft." }],
        })
    }
}

fn mock_model() -> String {
    "mock".into()
}

/// The KV cache. Exactly one of `tokens`, `blocks` and `bytes` gives its size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "tokens": 65536, "block_tokens": 16, "bytes_per_token": 131_072 }, { "bytes": "8GiB", "bytes_per_token": 131_072 }]))]
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
    /// The machine's monotonic clock, `speed` times as fast: an hour of traffic takes a minute at `speed: 60`. Every number
    /// is told in modelled time, the time that the backend lives in: a TTFT of 10 ms stays 10 ms. What the machine adds by
    /// being late is multiplied as well, so this is for watching a long run, not for precision.
    Scaled,
}

impl Clock {
    /// Its name in a scenario.
    pub fn word(self) -> &'static str {
        match self {
            Self::Virtual => "virtual",
            Self::Real => "real",
            Self::Scaled => "scaled",
        }
    }
}

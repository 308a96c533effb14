//! What a scenario says about a workload's prompts, lengths and load. Doc comments here are the user manual.

use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sample::Tokens;
use crate::units::{Duration, Ratio, TokenCount};

mod load;
mod prompt;
mod search;

pub use load::*;
pub use prompt::*;
pub use search::*;

crate::union! {
    /// Where prompts come from.
    pub enum Prompt {
        "synthetic" => Synthetic(SyntheticPrompt),
        "text" => Text(TextPrompt),
        "file" => File(FilePrompt),
        "corpus" => Corpus(CorpusPrompt),
        "sessions" => Sessions(SessionsPrompt),
        "mix" => Mix(MixPrompt),
        "trace" => Trace(TracePrompt),
        "script" => Script(ScriptPrompt),
    }
    examples [
        { "kind": "synthetic", "tokens": 512, "prefix": { "tokens": 256, "groups": 8 } },
        { "kind": "text", "text": "Why is the sky blue?" },
        { "kind": "file", "path": "requests.jsonl", "format": "openai", "order": "shuffle" },
        { "kind": "corpus", "path": "book.txt", "tokens": { "kind": "uniform", "min": 20, "max": 200 } },
        { "kind": "sessions", "turns": 4, "system": { "tokens": 400 }, "user": { "tokens": 60 }, "think_time": "5s" },
        { "kind": "mix", "parts": [{ "weight": 3, "prompt": { "kind": "synthetic", "tokens": 200 }, "output": { "tokens": 100 } }, { "weight": 1, "prompt": { "kind": "synthetic", "tokens": 4000 }, "output": { "tokens": 300 } }] },
        { "kind": "trace", "path": "traces/day.jsonl", "format": "mooncake", "window": ["10m", "40m"] },
        { "kind": "script", "function": "prompt" },
    ]
}

impl Prompt {
    /// Whether its requests can be turns of sessions. Of a trace only its rows tell.
    pub fn may_be_sessions(&self) -> bool {
        match self {
            Self::Sessions(_) => true,
            Self::File(file) => file.sessions.is_some(),
            Self::Trace(trace) => trace.format == TraceFormat::Mooncake,
            Self::Synthetic(_) | Self::Text(_) | Self::Corpus(_) | Self::Mix(_) | Self::Script(_) => false,
        }
    }
}

/// Generated text of exactly as many tokens as asked for, distinct for each request and a pure function of the seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyntheticPrompt {
    /// Tokens of each prompt, before any chat template.
    pub tokens: Tokens,
    /// A prefix that requests share on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<SharedPrefix>,
}

/// The first tokens of a prompt, equal for all requests of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "tokens": 256, "groups": 8 }]))]
pub struct SharedPrefix {
    /// Tokens of the prefix; they are part of the prompt's length.
    pub tokens: TokenCount,
    /// How many different prefixes there are; each request draws one of them. Default 1.
    #[serde(default = "one_group")]
    #[schemars(range(min = 1))]
    pub groups: u32,
}

fn one_group() -> u32 {
    1
}

/// The same text for every request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextPrompt {
    /// The prompt.
    #[schemars(length(min = 1))]
    pub text: String,
}

/// Prompts from the rows of a file. What a row says about the length of its answer holds where the workload has no
/// `output`; `fields.output_tokens` of `jsonl` says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilePrompt {
    /// The file, relative to the scenario.
    pub path: PathBuf,
    /// How its rows are read.
    pub format: FileFormat,
    /// For `jsonl`: which key of a row holds what. The key `prompt` must be named unless a row's own key is `prompt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<FileFields>,
    /// In which order rows are taken.
    #[serde(default)]
    pub order: RowOrder,
    /// Start again at the first row when all are used. When false, a plan that needs more rows than there are is an
    /// error, and a closed load that only time ends also ends with the last row.
    #[serde(default = "yes")]
    pub wrap: bool,
    /// Read at most so many rows, those that are left out not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
    /// For `openai` and `sharegpt`: play each row as a session, one request for each answer in it. The load then sends
    /// sessions, as with `kind: sessions`. Without it a row is one request: all messages of an `openai` row, the first
    /// question of a `sharegpt` one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<FileSessions>,
}

fn yes() -> bool {
    true
}

/// The format of a prompt file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// One JSON object per line, with the prompt as a string.
    Jsonl,
    /// One chat completion request per line, as its body or as a line of the Batch API (`body`). `messages` may have parts,
    /// images by reference and tool calls; all is passed through, and so are further keys such as `tools`,
    /// `response_format` and `temperature`. `max_tokens` (or `max_completion_tokens`) limits the answer; `model` and
    /// `stream` are the backend's. Only texts count as prompt tokens.
    Openai,
    /// Conversations as a JSON array or one per line: `conversations: [{from: human, value: ..}, {from: gpt, value: ..}]`
    /// (`user`, `assistant` and `system` are known too). The recorded answer's length is forced. Conversations without a
    /// question and an answer are left out and counted.
    Sharegpt,
    /// vLLM's custom dataset: one `{"prompt": "..", "output_tokens": 128}` per line.
    Vllm,
}

/// Names of the keys in a JSONL row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "prompt": "question", "output_tokens": "answer_tokens" }]))]
pub struct FileFields {
    /// The key of the prompt's text. Default `prompt`.
    #[serde(default = "prompt_key")]
    pub prompt: String,
    /// The key of the number of output tokens, which then replaces the number in the workload's `output` for that row
    /// (forced, unless `output` says `max_tokens`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<String>,
}

impl Default for FileFields {
    fn default() -> Self {
        Self { prompt: prompt_key(), output_tokens: None }
    }
}

fn prompt_key() -> String {
    "prompt".into()
}

/// In which order the rows of a file are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowOrder {
    /// As they stand.
    #[default]
    Sequential,
    /// In an order drawn from the seed; each pass over the file draws its own.
    Shuffle,
}

/// A function of the hooks makes each prompt.
///
/// `function(ctx)` gives back the text, or a map such as `#{ prompt: "..", output_tokens: 64 }` whose number replaces the one
/// in the workload's `output`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScriptPrompt {
    /// The function. Default `prompt`.
    #[serde(default = "prompt_key")]
    pub function: String,
}

/// Lengths, shared blocks and arrivals of recorded traffic. The texts are synthetic. Time 0 is the arrival of the first
/// row. Under `replay` the trace ends the load; under every other load its rows are taken in order and none is taken
/// twice: a plan that needs more rows than there are is an error, and a closed load that only time ends also ends with the
/// last row.
///
/// A Mooncake row with a `session_id` that a row before it has is a later turn of that session: it is due `delay` ms (default
/// 0) after the turn before it ended, its `input_length` is that of its new message, and its prompt is the whole conversation
/// so far. The load then sends sessions, as with `kind: sessions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TracePrompt {
    /// The trace file, relative to the scenario.
    pub path: PathBuf,
    /// Its format.
    pub format: TraceFormat,
    /// For `jsonl`: which key of a row holds what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<TraceFields>,
    /// Tokens in one block of `hash_ids`. Default 512, as in Mooncake's published traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_tokens: Option<TokenCount>,
    /// Take only the arrivals from the first time until just before the second, counted from the first row; the window's start becomes time 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<[Duration; 2]>,
    /// Take at most this many rows (of the window), those counted that are then left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
    /// What to do with rows whose prompt and output together exceed `max_tokens`.
    #[serde(default)]
    pub too_long: TooLong,
    /// The longest prompt plus output that counts as fitting. Without it every row fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<TokenCount>,
}

/// The format of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TraceFormat {
    /// JSONL with `timestamp` (ms), `input_length`, `output_length`, `hash_ids` (kvcache-ai/Mooncake); `session_id` and
    /// `delay` (ms) where it has sessions.
    Mooncake,
    /// CSV with `TIMESTAMP`, `ContextTokens`, `GeneratedTokens` (Azure's LLM inference traces, 2023 and 2024).
    Azure,
    /// CSV with `Timestamp` (s), `Request tokens`, `Response tokens` (`BurstGPT`, both header variants). Rows without
    /// response tokens are requests that failed; they are left out.
    Burstgpt,
    /// JSONL with keys named by `fields`.
    Jsonl,
}

/// Names of the keys in a JSONL trace row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "timestamp": "time", "timestamp_unit": "s", "prompt_tokens": "in", "output_tokens": "out" }]))]
pub struct TraceFields {
    /// The key of the arrival time.
    #[serde(default = "default_timestamp")]
    pub timestamp: String,
    /// The unit of the arrival time. Default `ms`.
    #[serde(default)]
    pub timestamp_unit: TimeUnit,
    /// The key of the prompt's length in tokens.
    #[serde(default = "default_prompt_tokens")]
    pub prompt_tokens: String,
    /// The key of the output's length in tokens.
    #[serde(default = "default_output_tokens")]
    pub output_tokens: String,
    /// The key of a list of block ids; equal leading ids mean an equal prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<String>,
    /// The key of the time at which the first token came, as `timestamp` and in its unit. With `last` (or `ttft` and `tpot`)
    /// the trace says when its answers came, and a mock in `mode: replay` plays them back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// The key of the time at which the last token came, as `timestamp` and in its unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// The key of how long the first token took, in place of `first`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft: Option<String>,
    /// The key of the mean time between two tokens, in place of `last`. The value of an answer of one token is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpot: Option<String>,
    /// The unit of `ttft` and `tpot`. Default `ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_unit: Option<TimeUnit>,
}

impl Default for TraceFields {
    fn default() -> Self {
        Self {
            timestamp: default_timestamp(),
            timestamp_unit: TimeUnit::default(),
            prompt_tokens: default_prompt_tokens(),
            output_tokens: default_output_tokens(),
            blocks: None,
            first: None,
            last: None,
            ttft: None,
            tpot: None,
            latency_unit: None,
        }
    }
}

fn default_timestamp() -> String {
    "timestamp".into()
}
fn default_prompt_tokens() -> String {
    "prompt_tokens".into()
}
fn default_output_tokens() -> String {
    "output_tokens".into()
}

/// The unit of a number that stands for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    #[default]
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

/// What to do with a request that is longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TooLong {
    /// Send it; the backend's refusal is a failed record.
    #[default]
    Reject,
    /// Leave the row out; how many were left out is reported.
    Skip,
    /// Shorten the prompt, then the output, until it fits.
    Clip,
}

/// How long answers are. Exactly one of `tokens` and `max_tokens`; a trace supplies its own lengths and takes neither.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "tokens": 128 }, { "max_tokens": { "kind": "uniform", "min": 30, "max": 120 }, "temperature": 0.7, "seed": 1 }, { "max_tokens": 200, "extra": { "response_format": { "type": "json_object" } } }]))]
pub struct Output {
    /// Forces the length: the backend must answer with exactly so many tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// Limits the length; the model may stop earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<Tokens>,
    /// The sampling temperature, for backends that sample. Default: the server's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2))]
    pub temperature: Option<f64>,
    /// Nucleus sampling: only the most likely tokens of this probability together. Default: the server's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub top_p: Option<f64>,
    /// Seeds the server's sampler. Default: none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Texts at which the answer ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Whether a server streams the answer. Default true; without it there is no time to first token, only an end.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub stream: bool,
    /// Further fields of the request's JSON, sent to a server as they stand.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub extra: IndexMap<String, serde_json::Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_yes(flag: &bool) -> bool {
    *flag
}

/// What a server's prefix cache knows before a workload is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// Nothing of earlier runs. A server that takes a `cache_salt` gets one; one that can be told to is told to forget;
    /// else the first block of each generated prompt is this run's own. What requests of one run share, they still share.
    #[default]
    Cold,
    /// Whatever it knows.
    Keep,
}

/// The workloads of a group, by name, with when each starts and ends. They share one backend, its cache and its time.
pub type Group = IndexMap<String, Member>;

/// When a workload of a group starts and ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// How long after the group's start it begins, its warm-up included. Default: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Duration>,
    /// Start nothing new once the last request of that workload of the group has ended. Its own `requests` and `duration`
    /// still end it when they come first; with `until` it needs neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// What is sent before measuring starts, under the same load and from the same sources. The load does not pause
/// between the two; exactly one of `requests` and `duration`. What is measured is the same with and without a warm-up:
/// rows of a file are taken from its end for the warm-up. In `stages` the warm-up holds the value that the first stage
/// starts with; in `replay` it is the first part of the trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "requests": 20 }, { "duration": "30s" }]))]
pub struct Warmup {
    /// So many requests more, ahead of the measured ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests: Option<u64>,
    /// What is due in this time counts as warm-up; the load's own `duration` starts after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
}

/// Requests that the client gives up on, as impatient users do. They are no failures and are counted apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "rate": "5%", "after_tokens": 20 }]))]
pub struct Cancel {
    /// The share of requests that are cancelled, drawn from the seed.
    pub rate: Ratio,
    /// After so many output tokens.
    pub after_tokens: TokenCount,
}

/// Free labels that rules (`where`) and reports can use.
pub type Tags = IndexMap<String, String>;

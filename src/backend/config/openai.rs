//! What a scenario says about a server behind an OpenAI-compatible API. Doc comments here are the user manual.

use std::borrow::Cow;
use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::units::{Duration, SECOND};

/// Any server with the API of `OpenAI`: vLLM, `SGLang`, `LMDeploy`, llama.cpp, TGI, Ollama, gateways and hosted APIs. `kind: vllm`,
/// `sglang`, `lmdeploy` and `llamacpp` are the same with the flavor set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenAiBackend {
    /// Where the API is: `http://127.0.0.1:8000/v1`, `https://...` or `unix:///run/server.sock`. Without a path, `/v1` is
    /// meant. Of a list, requests take one after the other in turn.
    pub base_url: Urls,
    /// The model to ask for. Default: the only one that the server serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Which server it is: this decides how an output length is forced, whether prompts go as token ids, how the cache is
    /// kept cold, and which metrics are read. Default `auto`: the server is asked. Only `kind: openai` takes it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub flavor: Flavor,
    /// Which API is used. Default: `completions` with a known flavor, whose prompts have exact lengths; `chat` otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// What makes prompts of an exact length: `server` (its own `/tokenize`), the id of a model on the hub, or the path of
    /// a `tokenizer.json` (relative to the scenario). Default `auto`: `server` where it has one. Without any, prompts are
    /// words, their lengths are inexact, and what is reported is what the server's usage says.
    #[serde(default = "auto", skip_serializing_if = "is_auto")]
    pub tokenizer: String,
    /// Where the server's own counters are read: `auto` (`/metrics` beside `base_url`), `off`, or a list of URLs, such as
    /// those of the workers behind a router.
    #[serde(default, skip_serializing_if = "is_default")]
    pub metrics: MetricsPages,
    /// The environment variable that holds the API key. The key itself appears in no log, record or report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// Headers sent with every request.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub headers: IndexMap<String, String>,
    /// Fields added to every request's JSON; they go over those of the program.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub extra: IndexMap<String, Value>,
    /// Which field limits the length of an answer. Default `max_tokens`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub length_field: LengthField,
    /// The version of HTTP. Default `http1`: kept-alive connections, one request at a time on each.
    #[serde(default, skip_serializing_if = "is_default")]
    pub http: HttpVersion,
    /// Whether a proxy stands between: `env` takes the one that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` name in
    /// the environment, in capitals or not. Default `off`, whatever they say.
    #[serde(default, skip_serializing_if = "is_default")]
    pub proxy: ProxyFrom,
    /// A PEM file of certificates to trust beside the system's, relative to the scenario.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Accept any certificate, so that anybody on the way may answer. Default false; a run that uses it says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// The longest that opening a connection may take, name and TLS included. Default 10s.
    #[serde(default = "ten_seconds")]
    pub connect_timeout: Duration,
    /// Ask the server so long whether it is ready before the run begins. Default: once (with `launch`: 10m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ready: Option<Duration>,
    /// A command that starts the server for this run, such as `[vllm, serve, my-model]`. It is run only under
    /// `--allow-exec`; its memory is measured, its output is kept in the results folder, and it is stopped after the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "words")]
    #[schemars(with = "Vec<Word>")]
    pub launch: Vec<String>,
    /// How many threads of the client talk to the server. Default: one per core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub threads: Option<u32>,
}

fn auto() -> String {
    "auto".into()
}

fn is_auto(word: &String) -> bool {
    word == "auto"
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn ten_seconds() -> Duration {
    Duration(10 * SECOND)
}

/// Which server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Flavor {
    /// The server is asked.
    #[default]
    Auto,
    /// vLLM.
    Vllm,
    /// `SGLang`.
    Sglang,
    /// `LMDeploy`.
    Lmdeploy,
    /// The server of llama.cpp.
    Llamacpp,
    /// Hugging Face's text-generation-inference.
    Tgi,
    /// Nothing beyond the fields of `OpenAI`.
    Generic,
}

impl Flavor {
    /// The kind of backend that stands for it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Vllm | Self::Sglang | Self::Lmdeploy | Self::Llamacpp => self.name(),
            Self::Auto | Self::Tgi | Self::Generic => "openai",
        }
    }

    /// Its name in scenarios.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Lmdeploy => "lmdeploy",
            Self::Llamacpp => "llamacpp",
            Self::Tgi => "tgi",
            Self::Generic => "generic",
        }
    }
}

/// Which API is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `/v1/completions`: the prompt is all there is.
    Completions,
    /// `/v1/chat/completions`: the prompt is a user's message, and the model's chat template adds to it.
    Chat,
}

impl Endpoint {
    /// Its name in scenarios.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completions => "completions",
            Self::Chat => "chat",
        }
    }
}

/// Which field limits the length of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LengthField {
    /// `max_tokens`.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`, which newer hosted models want.
    MaxCompletionTokens,
    /// Both.
    Both,
}

/// Where a proxy is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyFrom {
    /// Nowhere: the server is spoken to directly.
    #[default]
    Off,
    /// In the environment.
    Env,
}

/// The version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, by prior knowledge on `http://` and by ALPN on `https://`: many requests share one connection.
    Http2,
}

/// A word of a command. A number is as good as a text: a port often is one, and a variable such as `${PORT}` becomes one.
struct Word(String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            word @ (Value::Number(_) | Value::Bool(_)) => Ok(Self(word.to_string())),
            other => Err(serde::de::Error::custom(format!("{other} is no word of a command"))),
        }
    }
}

impl JsonSchema for Word {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Word".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

fn words<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Vec::<Word>::deserialize(deserializer)?.into_iter().map(|word| word.0).collect())
}

/// One URL or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Urls(pub Vec<String>);

impl Serialize for Urls {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            list => list.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let list = if value.is_array() { value } else { Value::Array(vec![value]) };
        serde_json::from_value(list).map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Urls {
    fn schema_name() -> Cow<'static, str> {
        "Urls".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "One URL or a list of them.",
            "oneOf": [
                { "type": "string", "minLength": 1, "description": "One URL.", "examples": ["http://127.0.0.1:8000/v1"] },
                { "type": "array", "items": { "type": "string", "minLength": 1 }, "minItems": 1, "description": "URLs that take turns." },
            ],
        })
    }
}

/// Where the server's own counters are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MetricsPages {
    /// `/metrics` beside each base URL; where there is none, nothing is read.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// These pages; one that can not be read is an error.
    Pages(Vec<String>),
}

impl Serialize for MetricsPages {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Off => serializer.serialize_str("off"),
            Self::Pages(pages) => pages.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for MetricsPages {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(word) if word == "auto" => Ok(Self::Auto),
            Value::String(word) if word == "off" => Ok(Self::Off),
            value @ Value::Array(_) => {
                serde_json::from_value(value).map(Self::Pages).map_err(serde::de::Error::custom)
            }
            other => Err(serde::de::Error::custom(format!(
                "{other} says nothing about metrics; write `auto`, `off`, or a list of URLs"
            ))),
        }
    }
}

impl JsonSchema for MetricsPages {
    fn schema_name() -> Cow<'static, str> {
        "MetricsPages".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Where the server's own counters are read.",
            "oneOf": [
                { "type": "string", "enum": ["auto", "off"], "description": "`auto`: `/metrics` beside each base URL. `off`: nowhere." },
                { "type": "array", "items": { "type": "string", "minLength": 1 }, "minItems": 1, "description": "The URLs of metrics pages." },
            ],
        })
    }
}

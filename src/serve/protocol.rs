//! What clients ask for: the bodies of `OpenAI`'s API, and vLLM's additions to it.
//!
//! Sampling parameters have no meaning for a simulated model. What would change the answer's shape and is not served is
//! refused, by name; and so is, where a model is computed, what would change what it says.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::asking::ends;
use super::error::ApiError;
use crate::backend::Ends;

/// Which of the two dialects is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `/v1/completions`.
    Completions,
    /// `/v1/chat/completions`.
    Chat,
}

/// The body of a request, as it came. Unknown fields are passed over, as vLLM does.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    model: Option<String>,
    prompt: Option<Value>,
    messages: Option<Vec<Value>>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    min_tokens: Option<u64>,
    ignore_eos: Option<bool>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    stop: Option<Value>,
    include_stop_str_in_output: Option<bool>,
    return_token_ids: Option<bool>,
    cache_salt: Option<String>,
    n: Option<u64>,
    best_of: Option<u64>,
    echo: Option<bool>,
    logprobs: Option<Value>,
    prompt_logprobs: Option<Value>,
    suffix: Option<String>,
    stop_token_ids: Option<Vec<u32>>,
    tools: Option<Vec<Value>>,
    response_format: Option<Value>,
    use_beam_search: Option<bool>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    seed: Option<i64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    repetition_penalty: Option<f64>,
    logit_bias: Option<Map<String, Value>>,
    bad_words: Option<Vec<String>>,
    skip_special_tokens: Option<bool>,
    chat_template: Option<String>,
    chat_template_kwargs: Option<Map<String, Value>>,
    continue_final_message: Option<bool>,
    add_generation_prompt: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: Option<bool>,
    continuous_usage_stats: Option<bool>,
}

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Prompt {
    Text(String),
    Ids(Arc<[u32]>),
    /// A conversation; its template may take further variables.
    Chat {
        messages: Vec<Value>,
        variables: Option<Map<String, Value>>,
    },
}

/// What a client asked for.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the request, as the API has them")]
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) dialect: Dialect,
    pub(super) prompt: Prompt,
    pub(super) max_tokens: Option<u64>,
    pub(super) min_tokens: u64,
    pub(super) ignore_eos: bool,
    pub(super) stream: bool,
    /// A last event with the usage.
    pub(super) usage: bool,
    /// The usage so far in every event.
    pub(super) running_usage: bool,
    /// Texts that end the answer.
    pub(super) ends: Ends,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) seed: Option<i64>,
    pub(super) token_ids: bool,
    /// Requests find the prefixes of those with the same salt only.
    pub(super) salt: Option<String>,
}

/// Reads a body. `model` is the only one there is; `computes` says that it is a real one.
pub(super) fn read(bytes: &[u8], dialect: Dialect, model: &str, computes: bool) -> Result<Asked, ApiError> {
    let body: Body = parse(bytes)?;
    check_model(body.model.as_deref(), model)?;
    refuse(&body)?;
    if computes {
        refuse_computed(&body)?;
    }
    let options = body.stream_options.as_ref();
    let stream = body.stream.unwrap_or(false);
    if options.is_some() && !stream {
        return Err(ApiError::bad("stream_options", "`stream_options` needs `stream: true`"));
    }
    let prompt = match dialect {
        Dialect::Completions => prompt(body.prompt.as_ref())?,
        Dialect::Chat => {
            Prompt::Chat { messages: messages(body.messages)?, variables: body.chat_template_kwargs }
        }
    };
    let max_tokens = match dialect {
        Dialect::Completions => Some(body.max_tokens.unwrap_or(16)),
        Dialect::Chat => body.max_completion_tokens.or(body.max_tokens),
    };
    if max_tokens == Some(0) {
        return Err(ApiError::bad("max_tokens", "`max_tokens` must be at least 1, it is 0"));
    }
    let min_tokens = body.min_tokens.unwrap_or(0);
    if let Some(max) = max_tokens.filter(|max| *max < min_tokens) {
        let message =
            format!("`min_tokens` must not be more than `max_tokens`, which is {max}; it is {min_tokens}");
        return Err(ApiError::bad("min_tokens", message));
    }
    let asks = |flag: fn(&StreamOptions) -> Option<bool>| options.and_then(flag).unwrap_or(false);
    let running_usage = asks(|options| options.continuous_usage_stats);
    Ok(Asked {
        dialect,
        prompt,
        max_tokens,
        min_tokens,
        ignore_eos: body.ignore_eos.unwrap_or(false),
        stream,
        usage: asks(|options| options.include_usage),
        running_usage,
        ends: ends(stops(body.stop.as_ref())?, body.include_stop_str_in_output.unwrap_or(false), min_tokens),
        temperature: body.temperature,
        top_p: body.top_p,
        seed: body.seed,
        token_ids: body.return_token_ids.unwrap_or(false),
        salt: body.cache_salt,
    })
}

/// Reads JSON; the error says where it is wrong.
pub(super) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    // A list would be taken for the fields of a map in their order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        let message = "the body must be a JSON object, it is a list";
        return Err(ApiError::new(hyper::StatusCode::BAD_REQUEST, message));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        ApiError::new(hyper::StatusCode::BAD_REQUEST, format!("the body can not be read: {error}"))
    })
}

pub(super) fn check_model(asked: Option<&str>, model: &str) -> Result<(), ApiError> {
    if asked.is_none_or(|asked| asked == model) {
        return Ok(());
    }
    let message =
        format!("The model `{}` does not exist; `{model}` is served here.", asked.unwrap_or_default());
    Err(ApiError { param: Some("model"), ..ApiError::new(hyper::StatusCode::NOT_FOUND, message) })
}

/// Refuses what would give the answer another shape.
fn refuse(body: &Body) -> Result<(), ApiError> {
    let set = |value: &Option<Value>| {
        !matches!(value, None | Some(Value::Null | Value::Bool(false))) && *value != Some(Value::from(0))
    };
    let text_only = body.response_format.as_ref().is_none_or(|format| format["type"] == "text");
    let refused: [(&'static str, bool); 11] = [
        ("n", body.n.is_some_and(|n| n != 1)),
        ("best_of", body.best_of.is_some_and(|n| n != 1)),
        ("echo", body.echo == Some(true)),
        ("logprobs", set(&body.logprobs)),
        ("prompt_logprobs", set(&body.prompt_logprobs)),
        ("suffix", body.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty())),
        ("stop_token_ids", body.stop_token_ids.as_ref().is_some_and(|ids| !ids.is_empty())),
        ("tools", body.tools.as_ref().is_some_and(|tools| !tools.is_empty())),
        ("response_format", !text_only),
        ("use_beam_search", body.use_beam_search == Some(true)),
        ("prompt", body.prompt.as_ref().is_some_and(several)),
    ];
    match refused.into_iter().find(|(_, is_asked)| *is_asked) {
        None => Ok(()),
        Some((name @ ("n" | "best_of"), _)) => {
            Err(ApiError::bad(name, format!("`{name}` must be 1: one answer per request is served here")))
        }
        Some(("prompt", _)) => {
            Err(ApiError::bad("prompt", "one prompt per request is served here; send several requests"))
        }
        Some((name, _)) => Err(ApiError::bad(name, format!("`{name}` is not served here"))),
    }
}

/// Refuses what a model that is computed here is not asked in: what would change what it says.
fn refuse_computed(body: &Body) -> Result<(), ApiError> {
    if let Some(temperature) = body.temperature.filter(|value| !(0.0..=100.0).contains(value)) {
        let message = format!("`temperature` must be from 0 to 100, it is {temperature}");
        return Err(ApiError::bad("temperature", message));
    }
    if let Some(top_p) = body.top_p.filter(|value| !(*value > 0.0 && *value <= 1.0)) {
        return Err(ApiError::bad("top_p", format!("`top_p` must be above 0 and at most 1, it is {top_p}")));
    }
    let differs =
        |value: Option<f64>, neutral: f64| value.is_some_and(|value| (value - neutral).abs() > f64::EPSILON);
    let refused: [(&'static str, bool); 11] = [
        ("top_k", body.top_k.is_some_and(|k| k > 0)),
        ("min_p", differs(body.min_p, 0.0)),
        ("presence_penalty", differs(body.presence_penalty, 0.0)),
        ("frequency_penalty", differs(body.frequency_penalty, 0.0)),
        ("repetition_penalty", differs(body.repetition_penalty, 1.0)),
        ("logit_bias", body.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty())),
        ("bad_words", body.bad_words.as_ref().is_some_and(|words| !words.is_empty())),
        ("skip_special_tokens", body.skip_special_tokens == Some(false)),
        ("chat_template", body.chat_template.is_some()),
        ("continue_final_message", body.continue_final_message == Some(true)),
        ("add_generation_prompt", body.add_generation_prompt == Some(false)),
    ];
    match refused.into_iter().find(|(_, is_asked)| *is_asked) {
        None => Ok(()),
        Some((name, _)) => Err(ApiError::bad(name, format!("`{name}` is not served here"))),
    }
}

fn several(prompt: &Value) -> bool {
    prompt.as_array().is_some_and(|list| list.len() > 1 && !list[0].is_number())
}

/// A text, its token ids, or a list of one of them.
fn prompt(prompt: Option<&Value>) -> Result<Prompt, ApiError> {
    let wrong = || ApiError::bad("prompt", "`prompt` must be a text or a list of token ids, and not empty");
    match prompt {
        None => Err(ApiError::bad("prompt", "`prompt` is missing")),
        Some(Value::String(text)) if !text.is_empty() => Ok(Prompt::Text(text.clone())),
        Some(Value::Array(list)) => match list.as_slice() {
            [] => Err(wrong()),
            [one @ (Value::String(_) | Value::Array(_))] => self::prompt(Some(one)),
            ids => {
                let ids = ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()));
                Ok(Prompt::Ids(ids.collect::<Option<Vec<u32>>>().ok_or_else(wrong)?.into()))
            }
        },
        Some(_) => Err(wrong()),
    }
}

/// Messages, each with its role.
fn messages(messages: Option<Vec<Value>>) -> Result<Vec<Value>, ApiError> {
    let messages = messages
        .filter(|messages| !messages.is_empty())
        .ok_or_else(|| ApiError::bad("messages", "`messages` is missing or empty"))?;
    for message in &messages {
        let wrong = if !message["role"].is_string() {
            "a message needs a `role`, a text"
        } else if !matches!(message["content"], Value::String(_) | Value::Null | Value::Array(_)) {
            "a message's `content` must be a text or a list of parts"
        } else {
            continue;
        };
        return Err(ApiError::bad("messages", wrong));
    }
    Ok(messages)
}

/// The text of a conversation with a mock: each message's role and content on lines of their own, and at the end the line of
/// whoever answers.
pub(super) fn conversation(messages: &[Value]) -> Result<String, ApiError> {
    let mut text = String::new();
    for message in messages {
        text.push_str(message["role"].as_str().unwrap_or_default());
        text.push('\n');
        match &message["content"] {
            Value::String(content) => text.push_str(content),
            Value::Array(parts) => {
                for part in parts {
                    let content = part["text"].as_str().ok_or_else(|| {
                        ApiError::bad("messages", "a message's `content` may have parts of `type: text` only")
                    })?;
                    text.push_str(content);
                }
            }
            _ => {}
        }
        text.push('\n');
    }
    text.push_str("assistant\n");
    Ok(text)
}

/// One text that ends the answer, or a list of them.
fn stops(stop: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::bad("stop", "`stop` must be a text or a list of texts, none of them empty");
    let text =
        |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned).ok_or_else(wrong);
    match stop {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(text).collect(),
        Some(one) => Ok(vec![text(one)?]),
    }
}

/// The body of `/tokenize`.
#[derive(Debug, Deserialize)]
pub(super) struct Tokenize {
    model: Option<String>,
    prompt: Option<String>,
    messages: Option<Vec<Value>>,
    #[serde(default)]
    pub(super) return_token_strs: Option<bool>,
}

impl Tokenize {
    /// What is to be cut.
    pub(super) fn prompt(self, model: &str) -> Result<Prompt, ApiError> {
        check_model(self.model.as_deref(), model)?;
        match (self.prompt, self.messages) {
            (Some(prompt), None) => Ok(Prompt::Text(prompt)),
            (None, Some(messages)) => {
                Ok(Prompt::Chat { messages: self::messages(Some(messages))?, variables: None })
            }
            _ => Err(ApiError::bad("prompt", "exactly one of `prompt` and `messages` is needed")),
        }
    }
}

/// The body of `/detokenize`.
#[derive(Debug, Deserialize)]
pub(super) struct Detokenize {
    model: Option<String>,
    tokens: Vec<u32>,
}

impl Detokenize {
    /// The token ids to be put together.
    pub(super) fn tokens(&self, model: &str) -> Result<&[u32], ApiError> {
        check_model(self.model.as_deref(), model)?;
        Ok(&self.tokens)
    }
}

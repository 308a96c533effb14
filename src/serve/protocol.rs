//! What clients ask for: the bodies of `OpenAI`'s API, and vLLM's additions to it.
//!
//! Sampling parameters are taken and have no meaning for a simulated model. What would change the answer's shape and is not
//! served is refused, by name.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::error::ApiError;

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
    messages: Option<Vec<Message>>,
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
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: Option<bool>,
    continuous_usage_stats: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Value,
}

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Prompt {
    Text(String),
    Ids(Arc<[u32]>),
}

/// What a client asked for.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the request, as the API has them")]
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub(super) stop: Vec<String>,
    /// Whether the text that ends the answer is part of it.
    pub(super) keep_stop: bool,
    pub(super) token_ids: bool,
    /// Requests find the prefixes of those with the same salt only.
    pub(super) salt: Option<String>,
}

/// Reads a body. `model` is the only one there is.
pub(super) fn read(bytes: &[u8], dialect: Dialect, model: &str) -> Result<Asked, ApiError> {
    let body: Body = parse(bytes)?;
    check_model(body.model.as_deref(), model)?;
    refuse(&body)?;
    let options = body.stream_options.as_ref();
    let stream = body.stream.unwrap_or(false);
    if options.is_some() && !stream {
        return Err(ApiError::bad("stream_options", "`stream_options` needs `stream: true`"));
    }
    let prompt = match dialect {
        Dialect::Completions => prompt(body.prompt.as_ref())?,
        Dialect::Chat => Prompt::Text(conversation(body.messages.as_deref())?),
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
        stop: stops(body.stop.as_ref())?,
        keep_stop: body.include_stop_str_in_output.unwrap_or(false),
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

/// The text of a conversation: each message's role and content on lines of their own, and at the end the line of whoever
/// answers.
fn conversation(messages: Option<&[Message]>) -> Result<String, ApiError> {
    let messages = messages
        .filter(|messages| !messages.is_empty())
        .ok_or_else(|| ApiError::bad("messages", "`messages` is missing or empty"))?;
    let mut text = String::new();
    for message in messages {
        text.push_str(&message.role);
        text.push('\n');
        match &message.content {
            Value::String(content) => text.push_str(content),
            Value::Null => {}
            Value::Array(parts) => {
                for part in parts {
                    let content = part["text"].as_str().ok_or_else(|| {
                        ApiError::bad("messages", "a message's `content` may have parts of `type: text` only")
                    })?;
                    text.push_str(content);
                }
            }
            _ => {
                return Err(ApiError::bad(
                    "messages",
                    "a message's `content` must be a text or a list of parts",
                ));
            }
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
    messages: Option<Vec<Message>>,
    #[serde(default)]
    pub(super) return_token_strs: Option<bool>,
}

impl Tokenize {
    /// The text to be cut.
    pub(super) fn text(&self, model: &str) -> Result<String, ApiError> {
        check_model(self.model.as_deref(), model)?;
        match (&self.prompt, &self.messages) {
            (Some(prompt), None) => Ok(prompt.clone()),
            (None, Some(messages)) => conversation(Some(messages)),
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

//! What hooks are given and what they give back.

use std::fmt;
use std::sync::Arc;

use rhai::{Dynamic, ImmutableString, Map};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::record::Phase;

/// What all requests of a workload have in common.
#[derive(Debug, Clone, Default)]
pub struct Site {
    workload: ImmutableString,
    point: Map,
    tags: Map,
}

impl Site {
    /// `point` are the coordinates of a matrix point, `tags` the workload's.
    pub fn new<'a>(
        workload: &str,
        point: impl Iterator<Item = (&'a String, &'a Value)>,
        tags: impl Iterator<Item = (&'a String, &'a String)>,
    ) -> Self {
        let point = point.map(|(key, value)| (key.as_str().into(), dynamic(value)));
        let tags = tags.map(|(key, value)| (key.as_str().into(), value.as_str().into()));
        Self { workload: workload.into(), point: point.collect(), tags: tags.collect() }
    }
}

/// A JSON value as hooks see it.
pub(super) fn dynamic(value: &Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(float)) => float.into(),
            (None, None) => Dynamic::UNIT,
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(list) => list.iter().map(dynamic).collect::<rhai::Array>().into(),
        Value::Object(map) => map_of(map).into(),
    }
}

/// A JSON text as hooks see it, read without a tree in between. What [`dynamic`] says of values holds for it.
pub(super) struct Json(pub(super) Dynamic);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor).map(Self)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Dynamic;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Dynamic, E> {
        Ok(Dynamic::UNIT)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Dynamic, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Dynamic, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Dynamic, E> {
        Ok(i64::try_from(value).map_or_else(|_| (value as f64).into(), Dynamic::from))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Dynamic, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, value: &str) -> Result<Dynamic, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Dynamic, A::Error> {
        let mut list = rhai::Array::new();
        while let Some(Json(value)) = access.next_element()? {
            list.push(value);
        }
        Ok(list.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Dynamic, A::Error> {
        let mut map = Map::new();
        while let Some((key, Json(value))) = access.next_entry::<String, Json>()? {
            map.insert(key.into(), value);
        }
        Ok(map.into())
    }
}

/// A value of a hook as JSON; `None` for what JSON has no word for.
pub(super) fn json(value: &Dynamic) -> Option<Value> {
    if value.is_unit() {
        Some(Value::Null)
    } else if let Ok(value) = value.as_bool() {
        Some(value.into())
    } else if let Ok(value) = value.as_int() {
        Some(value.into())
    } else if let Ok(value) = value.as_float() {
        serde_json::Number::from_f64(value).map(Value::Number)
    } else if let Ok(text) = value.as_immutable_string_ref() {
        Some(text.as_str().into())
    } else if let Ok(list) = value.as_array_ref() {
        list.iter().map(json).collect::<Option<Vec<_>>>().map(Value::Array)
    } else if let Ok(map) = value.as_map_ref() {
        map.iter()
            .map(|(key, value)| Some((key.to_string(), json(value)?)))
            .collect::<Option<_>>()
            .map(Value::Object)
    } else {
        None
    }
}

/// The request that `prompt(ctx)` makes the prompt of.
#[derive(Debug, Clone)]
pub struct Context {
    /// Its workload.
    pub site: Arc<Site>,
    /// Its number within its phase, from 0.
    pub index: u64,
    /// Warm-up or measured.
    pub phase: Phase,
    /// Seeds the call's draws.
    pub seed: u64,
}

/// Renders a prompt's text when a hook asks for it.
#[derive(Clone)]
pub struct Text(Arc<dyn Fn() -> String + Send + Sync>);

impl Text {
    /// `render` must give the same text each time.
    pub fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(render))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Text")
    }
}

/// A request, for `request(req)` and `check(req, res)`.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which request it is.
    pub context: Context,
    /// Its prompt as planned.
    pub text: Text,
    /// The prompt's tokens as planned.
    pub prompt_tokens: u32,
    /// Output tokens asked for.
    pub output_tokens: i64,
    /// Whether that length is forced.
    pub forced: bool,
    /// The prompt that a hook put in its place.
    pub new_prompt: Option<ImmutableString>,
    /// Keys of the request's body, over those of the workload.
    pub body: Map,
}

/// A JSON object as hooks see it.
pub fn map_of(object: &serde_json::Map<String, Value>) -> Map {
    object.iter().map(|(key, value)| (key.as_str().into(), dynamic(value))).collect()
}

impl Request {
    /// The body as JSON, its keys in the order of the alphabet; `None` when it is empty.
    pub fn body_as_json(&self) -> Option<serde_json::Map<String, Value>> {
        let pairs = self.body.iter().filter_map(|(key, value)| Some((key.to_string(), json(value)?)));
        (!self.body.is_empty()).then(|| pairs.collect())
    }

    pub(super) fn prompt(&mut self) -> ImmutableString {
        match &self.new_prompt {
            Some(prompt) => prompt.clone(),
            None => (self.text.0)().into(),
        }
    }
}

/// What a response came to, for `check(req, res)`.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// The generated text.
    pub text: ImmutableString,
    /// Why generation ended.
    pub finish_reason: Option<ImmutableString>,
    /// Prompt tokens as the backend counts them.
    pub prompt_tokens: u32,
    /// Output tokens that came.
    pub output_tokens: u32,
    /// Time to first token, in milliseconds.
    pub ttft_ms: Option<f64>,
    /// Time per output token, in milliseconds.
    pub tpot_ms: Option<f64>,
    /// End to end, in milliseconds.
    pub e2e_ms: Option<f64>,
}

/// A session so far, for `next_turn(session)`.
#[derive(Debug, Clone)]
pub struct Session {
    /// The request that the turn will be.
    pub context: Context,
    /// Which turn is made, from 1.
    pub turn: u32,
    /// The messages so far, as (role, text).
    pub messages: Vec<(ImmutableString, ImmutableString)>,
}

/// A prompt that a hook made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The text; not empty.
    pub text: String,
    /// Output tokens, in the place of the workload's own number.
    pub output_tokens: Option<u32>,
}

/// What `check(req, res)` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Why the response does not pass; `None` when it does.
    pub fault: Option<String>,
    /// What was recorded: the metric's position among those declared, and the value.
    pub recorded: Vec<(u16, f64)>,
}

/// The start of a text in quotes, on one line.
pub(super) fn excerpt(text: &str, most: usize) -> String {
    let cut: String = text.chars().take(most).collect();
    let dots = if cut.len() < text.len() { ".." } else { "" };
    format!("{cut:?}{dots}")
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = if self.phase == Phase::Warmup { "warm-up request" } else { "request" };
        write!(f, "{phase} {} of {}", self.index, self.site.workload)
    }
}

/// Which request it is, in a message.
#[derive(Debug)]
pub(super) struct Head {
    context: Context,
    prompt_tokens: u32,
    output_tokens: i64,
}

impl Request {
    /// What a message says of it.
    pub(super) fn head(&self) -> Head {
        let (prompt_tokens, output_tokens) = (self.prompt_tokens, self.output_tokens);
        Head { context: self.context.clone(), prompt_tokens, output_tokens }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} prompt and {} output tokens", self.context, self.prompt_tokens, self.output_tokens)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head().fmt(f)
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&excerpt(&self.text, 120))
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "turn {} of session {} of {}", self.turn, self.context.index, self.context.site.workload)
    }
}

impl Context {
    pub(super) fn phase(&mut self) -> ImmutableString {
        (if self.phase == Phase::Warmup { "warmup" } else { "measured" }).into()
    }
    pub(super) fn workload(&mut self) -> ImmutableString {
        self.site.workload.clone()
    }
    pub(super) fn point(&mut self) -> Map {
        self.site.point.clone()
    }
    pub(super) fn tags(&mut self) -> Map {
        self.site.tags.clone()
    }
    pub(super) fn index(&mut self) -> i64 {
        self.index.cast_signed()
    }
}

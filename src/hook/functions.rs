//! What a hook sees beside the language: types and functions, each registered together with its line of documentation.

use std::sync::{Arc, Mutex, PoisonError};

use regex::Regex;
use rhai::{Array, Dynamic, Engine, EvalAltResult, ImmutableString, Map, NativeCallContext};
use rustc_hash::FxHashMap;

use super::rng::{Rng, refuse};
use super::script::described;
use super::values::{Context, Json, Request, Response, Session, json};
use crate::nearest::nearest;

/// One line of the reference page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The type that it belongs to, or the group of functions.
    pub group: &'static str,
    /// How it is written.
    pub written: &'static str,
    /// What it is.
    pub doc: &'static str,
}

/// What a call carries along, for the functions that need it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) rng: Rng,
    /// The names of the metrics, and what was recorded; `None` in hooks that may not record.
    pub(super) recorded: Option<Arc<Recorded>>,
}

#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) names: Arc<[String]>,
    pub(super) values: Mutex<Vec<(u16, f64)>>,
}

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// Compiled patterns are kept up to this number.
const PATTERNS: usize = 64;

macro_rules! rows {
    ($engine:ident, $rows:ident, $group:literal; $($register:ident $name:literal $written:literal $doc:literal => $function:expr;)+) => {
        $(
            $engine.$register($name, $function);
            $rows.push(Row { group: $group, written: $written, doc: $doc });
        )+
    };
}

/// Registers everything, in the order of the page.
pub(super) fn register(engine: &mut Engine) -> Vec<Row> {
    let mut rows = Vec::new();
    context(engine, &mut rows);
    request(engine, &mut rows);
    response(engine, &mut rows);
    session(engine, &mut rows);
    draws(engine, &mut rows);
    functions(engine, &mut rows);
    mathematics(engine, &mut rows);
    rows
}

fn context(engine: &mut Engine, rows: &mut Vec<Row>) {
    engine.register_type_with_name::<Context>("Context");
    rows! { engine, rows, "Context";
        register_get "index" "ctx.index" "The request's number within its phase, from 0." => Context::index;
        register_get "phase" "ctx.phase" "`\"warmup\"` or `\"measured\"`." => Context::phase;
        register_get "workload" "ctx.workload" "The workload's full name, such as `chat@concurrency=4`." => Context::workload;
        register_get "point" "ctx.point" "The coordinates of the matrix point: a map, empty without a matrix." => Context::point;
        register_get "tags" "ctx.tags" "The workload's tags: a map." => Context::tags;
    }
}

fn request(engine: &mut Engine, rows: &mut Vec<Row>) {
    engine.register_type_with_name::<Request>("Request");
    engine.register_set("prompt", |request: &mut Request, text: ImmutableString| {
        request.new_prompt = Some(text);
    });
    engine.register_set("output_tokens", |request: &mut Request, tokens: i64| request.output_tokens = tokens);
    engine.register_set("body", |request: &mut Request, body: Map| request.body = body);
    rows! { engine, rows, "Request";
        register_get "prompt" "req.prompt" "The prompt's text. `request` may set it." => Request::prompt;
        register_get "output_tokens" "req.output_tokens" "Output tokens asked for. `request` may set it." => |request: &mut Request| request.output_tokens;
        register_get "body" "req.body" "Keys that are put into the body of an HTTP request, over those of the workload, such as `req.body.user = \"u1\"`: a map, empty at first. `request` may set it." => |request: &mut Request| request.body.clone();
        register_get "prompt_tokens" "req.prompt_tokens" "The tokens of the prompt as planned." => |request: &mut Request| i64::from(request.prompt_tokens);
        register_get "forced" "req.forced" "Whether the output's length is forced, or only limited." => |request: &mut Request| request.forced;
        register_get "index" "req.index" "The request's number within its phase, from 0." => |request: &mut Request| request.context.index();
        register_get "phase" "req.phase" "`\"warmup\"` or `\"measured\"`." => |request: &mut Request| request.context.phase();
        register_get "workload" "req.workload" "The workload's full name." => |request: &mut Request| request.context.workload();
        register_get "point" "req.point" "The coordinates of the matrix point: a map." => |request: &mut Request| request.context.point();
        register_get "tags" "req.tags" "The workload's tags: a map." => |request: &mut Request| request.context.tags();
    }
}

fn response(engine: &mut Engine, rows: &mut Vec<Row>) {
    fn optional<T: Into<Dynamic>>(value: Option<T>) -> Dynamic {
        value.map_or(Dynamic::UNIT, Into::into)
    }
    engine.register_type_with_name::<Response>("Response");
    rows! { engine, rows, "Response";
        register_get "text" "res.text" "The generated text." => |response: &mut Response| response.text.clone();
        register_get "json" "res.json" "The text read as JSON: maps, lists, texts, numbers, booleans, and `()` for null. A text that is not JSON fails the hook; use `parse_json` in a `try` to look first." => |response: &mut Response| parse_json(&response.text);
        register_get "finish_reason" "res.finish_reason" "Why generation ended: `\"stop\"`, `\"length\"`, or another word of the server; `()` when it does not say." => |response: &mut Response| optional(response.finish_reason.clone());
        register_get "prompt_tokens" "res.prompt_tokens" "Prompt tokens as the backend counts them." => |response: &mut Response| i64::from(response.prompt_tokens);
        register_get "output_tokens" "res.output_tokens" "Output tokens that came." => |response: &mut Response| i64::from(response.output_tokens);
        register_get "ttft_ms" "res.ttft_ms" "Time to first token in milliseconds." => |response: &mut Response| optional(response.ttft_ms);
        register_get "tpot_ms" "res.tpot_ms" "Time per output token in milliseconds; `()` for one token." => |response: &mut Response| optional(response.tpot_ms);
        register_get "e2e_ms" "res.e2e_ms" "End to end in milliseconds." => |response: &mut Response| optional(response.e2e_ms);
    }
}

fn session(engine: &mut Engine, rows: &mut Vec<Row>) {
    fn messages(session: &mut Session) -> Array {
        let message = |(role, content): &(ImmutableString, ImmutableString)| {
            let parts = [("role".into(), role.clone().into()), ("content".into(), content.clone().into())];
            Dynamic::from_map(parts.into_iter().collect())
        };
        session.messages.iter().map(message).collect()
    }
    engine.register_type_with_name::<Session>("Session");
    rows! { engine, rows, "Session";
        register_get "turn" "session.turn" "Which turn is made, from 1." => |session: &mut Session| i64::from(session.turn);
        register_get "messages" "session.messages" "The messages so far: a list of maps with `role` and `content`." => messages;
        register_get "last" "session.last" "The text of the last message; empty at the first turn." => |session: &mut Session| session.messages.last().map(|(_, text)| text.clone()).unwrap_or_default();
        register_get "index" "session.index" "The session's number within its phase, from 0." => |session: &mut Session| session.context.index();
        register_get "phase" "session.phase" "`\"warmup\"` or `\"measured\"`." => |session: &mut Session| session.context.phase();
        register_get "workload" "session.workload" "The workload's full name." => |session: &mut Session| session.context.workload();
        register_get "point" "session.point" "The coordinates of the matrix point: a map." => |session: &mut Session| session.context.point();
        register_get "tags" "session.tags" "The workload's tags: a map." => |session: &mut Session| session.context.tags();
    }
}

fn draws(engine: &mut Engine, rows: &mut Vec<Row>) {
    engine.register_type_with_name::<Rng>("Rng");
    rows! { engine, rows, "rng";
        register_fn "unit" "rng.unit()" "A uniform number from 0 to 1, 1 exclusive." => |rng: Rng| rng.unit();
        register_fn "int" "rng.int(from, to)" "A uniform whole number, both ends inclusive." => |rng: Rng, from: i64, to: i64| rng.int(from, to);
        register_fn "chance" "rng.chance(share)" "True with this probability." => |rng: Rng, share: Dynamic| Ok::<_, Box<EvalAltResult>>(rng.chance(number(&share)?));
        register_fn "normal" "rng.normal(mean, std)" "A normal number." => |rng: Rng, mean: Dynamic, std: Dynamic| Ok::<_, Box<EvalAltResult>>(rng.normal(number(&mean)?, number(&std)?));
        register_fn "exponential" "rng.exponential(mean)" "An exponential number." => |rng: Rng, mean: Dynamic| Ok::<_, Box<EvalAltResult>>(rng.exponential(number(&mean)?));
        register_fn "pick" "rng.pick(list)" "One item of a list." => |rng: Rng, list: Array| rng.pick(list);
        register_fn "shuffle" "rng.shuffle(list)" "The list in another order." => |rng: Rng, list: Array| rng.shuffle(list);
        register_fn "text" "rng.text(tokens)" "Invented words: exactly so many tokens by the plan's tokenizer." => |rng: Rng, tokens: i64| rng.text(tokens);
    }
}

fn functions(engine: &mut Engine, rows: &mut Vec<Row>) {
    let patterns: Mutex<FxHashMap<String, Regex>> = Mutex::default();
    let matches = move |text: ImmutableString, pattern: ImmutableString| -> Result<bool> {
        let mut patterns = patterns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(regex) = patterns.get(pattern.as_str()) {
            return Ok(regex.is_match(&text));
        }
        let regex = match Regex::new(&pattern) {
            Ok(regex) => regex,
            Err(error) => {
                let error = error.to_string();
                let last = error.trim_end().lines().last().unwrap_or_default();
                return refuse(format!("{pattern:?} is no pattern: {}", last.trim_start_matches("error: ")));
            }
        };
        let found = regex.is_match(&text);
        if patterns.len() >= PATTERNS {
            patterns.clear();
        }
        patterns.insert(pattern.into(), regex);
        Ok(found)
    };
    rows! { engine, rows, "functions";
        register_fn "record" "record(metric, value)" "In `check`: adds to the request's value of a metric that the scenario declares under `metrics`." => record;
        register_fn "tokens" "tokens(text)" "How many tokens a text has, by the plan's tokenizer." => tokens;
        register_fn "matches" "text.matches(pattern)" "Whether a regular expression occurs in the text (the syntax of Rust's regex crate)." => matches;
        register_fn "parse_json" "parse_json(text)" "A JSON text as a value. A text that is not JSON is an error, which `try { .. } catch { .. }` catches." => |text: ImmutableString| parse_json(&text);
        register_fn "to_json" "value.to_json()" "A value as JSON text." => |value: Dynamic| match json(&value) {
            Some(value) => Ok(value.to_string()),
            None => refuse(format!("to_json: JSON has no form for {}", described(&value))),
        };
        register_fn "to_json" "map.to_json()" "The same for a map." => |map: Map| match json(&map.into()) {
            Some(value) => Ok(value.to_string()),
            None => refuse("to_json: the map holds something that JSON has no form for"),
        };
        register_fn "print" "print(value)" "Writes a line to the log, which `-v` shows." => |value: ImmutableString| log(&value);
    }
}

/// The functions of a real number, the same on every machine. Rhai's own come from the platform.
fn mathematics(engine: &mut Engine, rows: &mut Vec<Row>) {
    rows! { engine, rows, "mathematics";
        register_fn "pow" "pow(x, y)" "x to the power of y, as a float. The operator `**` is not there." => |x: Dynamic, y: Dynamic| Ok::<_, Box<EvalAltResult>>(libm::pow(number(&x)?, number(&y)?));
        register_fn "exp" "x.exp()" "e to the power of x." => |x: f64| libm::exp(x);
        register_fn "ln" "x.ln()" "The natural logarithm." => |x: f64| libm::log(x);
        register_fn "log" "x.log()" "The logarithm to base 10." => |x: f64| libm::log10(x);
        register_fn "log" "x.log(base)" "The logarithm to another base." => |x: f64, base: f64| libm::log(x) / libm::log(base);
        register_fn "sin" "x.sin()" "The sine of radians; likewise `cos`, `tan`, `asin`, `acos`, `atan`, `sinh`, `cosh`, `tanh`, `asinh`, `acosh`, `atanh`." => |x: f64| libm::sin(x);
        register_fn "hypot" "hypot(x, y)" "The square root of x² + y²." => |x: f64, y: f64| libm::hypot(x, y);
        register_fn "atan" "atan(x, y)" "The angle of the point (x, y), in radians." => |x: f64, y: f64| libm::atan2(x, y);
    }
    let others: [(&str, Real); 11] = [
        ("cos", libm::cos),
        ("tan", libm::tan),
        ("asin", libm::asin),
        ("acos", libm::acos),
        ("atan", libm::atan),
        ("sinh", libm::sinh),
        ("cosh", libm::cosh),
        ("tanh", libm::tanh),
        ("asinh", libm::asinh),
        ("acosh", libm::acosh),
        ("atanh", libm::atanh),
    ];
    for (name, function) in others {
        engine.register_fn(name, function);
    }
}

/// A function of a real number.
type Real = fn(f64) -> f64;

/// A whole or real number.
pub(super) fn number(value: &Dynamic) -> Result<f64> {
    match (value.as_float(), value.as_int()) {
        (Ok(value), _) => Ok(value),
        (_, Ok(value)) => Ok(value as f64),
        _ => refuse(format!("expected a number, found {}", described(value))),
    }
}

pub(super) fn log(text: &str) {
    tracing::info!(target: "hook", "{text}");
}

fn call(context: &NativeCallContext<'_>, function: &str) -> Result<Call> {
    match context.tag().and_then(|tag| tag.clone().try_cast::<Call>()) {
        Some(call) => Ok(call),
        None => refuse(format!("`{function}` is for hooks; it has nothing to work on at the top of a file")),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "Rhai hands arguments over")]
fn tokens(context: NativeCallContext<'_>, text: ImmutableString) -> Result<i64> {
    Ok(i64::from(call(&context, "tokens")?.rng.count(&text)))
}

#[expect(clippy::needless_pass_by_value, reason = "Rhai hands arguments over")]
fn record(context: NativeCallContext<'_>, metric: ImmutableString, value: Dynamic) -> Result<()> {
    let Some(recorded) = call(&context, "record")?.recorded else {
        return refuse("`record` is for `check`: only a response can be measured");
    };
    let Some(place) = recorded.names.iter().position(|name| *name == metric.as_str()) else {
        let names = recorded.names.iter().map(String::as_str);
        let help = match nearest(&metric, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("declare it: `metrics: {{ {metric}: {{ unit: \"1\", better: higher }} }}`"),
        };
        return refuse(format!("there is no metric `{metric}`; {help}"));
    };
    let value = number(&value)?;
    if !value.is_finite() {
        return refuse(format!("record(\"{metric}\", {value}): a metric takes finite numbers"));
    }
    let mut values = recorded.values.lock().unwrap_or_else(PoisonError::into_inner);
    let place = place as u16;
    match values.iter_mut().find(|(known, _)| *known == place) {
        Some((_, sum)) => *sum += value,
        None => values.push((place, value)),
    }
    Ok(())
}

fn parse_json(text: &str) -> Result<Dynamic> {
    match serde_json::from_str::<Json>(text) {
        Ok(Json(value)) => Ok(value),
        Err(error) => refuse(format!("the text is not JSON: {error}")),
    }
}

//! One check, compiled.

use std::io::Read as _;
use std::path::Path;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::Flaw;
use super::config::{Check, JsonSchemaCheck};
use crate::hook::Script;
use crate::record::{Record, Response};

/// The largest file that is read as a schema.
const MAX_SCHEMA: u64 = 8 << 20;

/// What one check looks for.
#[derive(Debug)]
pub(super) enum Test {
    /// A text that stands in it, or must not.
    Contains { text: String, pattern: Option<Regex>, negate: bool },
    /// A pattern that matches, or must not.
    Regex { pattern: Regex, negate: bool },
    /// JSON.
    Json { allow_fence: bool },
    /// JSON under a schema.
    Schema { validator: Box<jsonschema::Validator>, allow_fence: bool },
    /// A number of tokens.
    Tokens { least: u32, most: u32 },
    /// Why generation ended.
    FinishReason(Vec<String>),
    /// A function of the hooks.
    Script(String),
}

fn flaw(key: &'static str, message: String, help: &str) -> Flaw {
    Flaw { index: 0, key, message, help: help.to_owned(), fault: None }
}

impl Test {
    pub(super) fn compile(check: &Check, script: Option<&Script>, dir: &Path) -> Result<Self, Flaw> {
        Ok(match check {
            Check::Contains(check) => {
                let pattern = check
                    .ignore_case
                    .then(|| RegexBuilder::new(&regex::escape(&check.text)).case_insensitive(true).build());
                let too_long = |_| flaw("text", "the text is too long to search for".into(), "shorten it");
                let pattern = pattern.transpose().map_err(too_long)?;
                Self::Contains { text: check.text.clone(), pattern, negate: check.negate }
            }
            Check::Regex(check) => {
                let pattern = Regex::new(&check.pattern).map_err(|error| {
                    let error = error.to_string();
                    let last = error.trim_end().lines().last().unwrap_or_default();
                    let message =
                        format!("this is no regular expression: {}", last.trim_start_matches("error: "));
                    flaw("pattern", message, "the syntax is that of Rust's regex crate, without look-around")
                })?;
                Self::Regex { pattern, negate: check.negate }
            }
            Check::Json(check) => Self::Json { allow_fence: check.allow_fence },
            Check::JsonSchema(check) => Self::schema(check, dir)?,
            Check::MinTokens(check) => Self::Tokens { least: check.tokens.0, most: u32::MAX },
            Check::MaxTokens(check) => Self::Tokens { least: 0, most: check.tokens.0 },
            Check::FinishReason(check) => Self::FinishReason(check.reasons.clone()),
            Check::Script(check) => {
                let Some(script) = script else {
                    let help = "write them: `hooks: { file: hooks.rhai }`, or `inline`";
                    return Err(flaw("function", "the workload has no hooks".into(), help));
                };
                if let Some(fault) = script.lacks(&check.function, &["req", "res"]) {
                    let (message, help) = (fault.message.clone(), fault.help.clone().unwrap_or_default());
                    return Err(Flaw { fault: Some(Box::new(fault)), ..flaw("function", message, &help) });
                }
                Self::Script(check.function.clone())
            }
        })
    }

    fn schema(check: &JsonSchemaCheck, dir: &Path) -> Result<Self, Flaw> {
        let (key, schema) = match (&check.schema, &check.path) {
            (_, Some(path)) => (
                "path",
                read(&dir.join(path)).map_err(|error| {
                    let message = format!("{}: {error}", path.display());
                    flaw("path", message, "name a file with a JSON Schema")
                })?,
            ),
            (schema, None) => ("schema", schema.clone().unwrap_or_default()),
        };
        let validator = jsonschema::validator_for(&schema).map_err(|error| {
            let place = error.instance_path().to_string();
            let place = if place.is_empty() { String::new() } else { format!(" at {place}") };
            let said = error.to_string();
            let outside = said.strip_prefix("Resource '").and_then(|rest| rest.split_once('\''));
            let error = outside.map_or(said.clone(), |(name, _)| format!("it refers to {name}"));
            flaw(
                key,
                format!("this is no JSON Schema{place}: {error}"),
                "a schema refers to nothing outside itself",
            )
        })?;
        Ok(Self::Schema { validator: Box::new(validator), allow_fence: check.allow_fence })
    }

    /// The function that it calls.
    pub(super) fn function(&self) -> Option<&str> {
        if let Self::Script(function) = self { Some(function) } else { None }
    }

    /// Why a response does not pass; of a script that is for the script to say.
    pub(super) fn fault(&self, response: &Response, record: &Record) -> Option<String> {
        let text = response.text.as_str();
        match self {
            Self::Contains { text: wanted, pattern, negate } => {
                let found = pattern.as_ref().map_or_else(|| text.contains(wanted), |p| p.is_match(text));
                let words = if *negate { "contains" } else { "does not contain" };
                (found == *negate).then(|| format!("{words} {wanted:?}"))
            }
            Self::Regex { pattern, negate } => {
                let words = if *negate { "matches" } else { "does not match" };
                (pattern.is_match(text) == *negate).then(|| format!("{words} {}", pattern.as_str()))
            }
            Self::Json { allow_fence } => json(text, *allow_fence).err(),
            Self::Schema { validator, allow_fence } => match json(text, *allow_fence) {
                Ok(value) => validator.iter_errors(&value).next().map(|error| {
                    let place = error.instance_path().to_string();
                    if place.is_empty() { error.to_string() } else { format!("at {place}: {error}") }
                }),
                Err(fault) => Some(fault),
            },
            Self::Tokens { least, most } => {
                let tokens = record.output_tokens;
                if tokens < *least {
                    Some(format!("has {tokens} tokens, fewer than {least}"))
                } else {
                    (tokens > *most).then(|| format!("has {tokens} tokens, more than {most}"))
                }
            }
            Self::FinishReason(reasons) => match &response.finish_reason {
                None => Some("the backend does not say why generation ended".into()),
                Some(reason) => (!reasons.iter().any(|known| known == reason))
                    .then(|| format!("ended by `{reason}`, not by {}", reasons.join(" or "))),
            },
            Self::Script(_) => None,
        }
    }
}

/// A response as JSON.
fn json(text: &str, allow_fence: bool) -> Result<Value, String> {
    let text = if allow_fence { unfenced(text) } else { text };
    if text.trim().is_empty() {
        return Err("is empty, which is no JSON".into());
    }
    serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))
}

/// The inside of a text that is one fenced block.
fn unfenced(text: &str) -> &str {
    let inside = || {
        let body = text.trim().strip_prefix("```")?.strip_suffix("```")?;
        // The first line names the language.
        body.split_once('\n').map(|(_, body)| body)
    };
    inside().unwrap_or(text)
}

fn read(path: &Path) -> Result<Value, String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_SCHEMA + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_SCHEMA {
        return Err("it has more than 8 MiB".into());
    }
    serde_json::from_slice(&bytes).map_err(|error| format!("is not JSON: {error}"))
}

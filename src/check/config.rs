//! What a scenario expects of responses. Doc comments here are the user manual.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::units::TokenCount;

crate::union! {
    /// A check of each response.
    pub enum Check {
        "contains" => Contains(ContainsCheck),
        "regex" => Regex(RegexCheck),
        "json" => Json(JsonCheck),
        "json_schema" => JsonSchema(JsonSchemaCheck),
        "min_tokens" => MinTokens(MinTokensCheck),
        "max_tokens" => MaxTokens(MaxTokensCheck),
        "finish_reason" => FinishReason(FinishReasonCheck),
        "script" => Script(ScriptCheck),
    }
    examples [
        { "kind": "contains", "text": "Paris", "ignore_case": true },
        { "kind": "contains", "name": "no_refusal", "text": "I am sorry", "negate": true },
        { "kind": "regex", "name": "names_source", "pattern": "\\[source: [a-z0-9, ]+\\]$" },
        { "kind": "json", "allow_fence": true },
        { "kind": "json_schema", "schema": { "type": "object", "required": ["city"] } },
        { "kind": "min_tokens", "tokens": 8 },
        { "kind": "max_tokens", "tokens": 200 },
        { "kind": "finish_reason", "reasons": ["stop", "tool_calls"] },
        { "kind": "script", "name": "polite", "function": "is_polite" },
    ]
}

/// The response contains a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainsCheck {
    /// The name for rules and reports, as in `check(name)`. Default: the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The text.
    #[schemars(length(min = 1))]
    pub text: String,
    /// Upper and lower case are the same. Default false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ignore_case: bool,
    /// The response must not contain it. Default false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub negate: bool,
}

/// A regular expression matches somewhere in the response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegexCheck {
    /// The name for rules and reports, as in `check(name)`. Default: the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The pattern, in the syntax of Rust's regex crate: `^` and `$` are the ends of the response, `(?i)` ignores case.
    #[schemars(length(min = 1))]
    pub pattern: String,
    /// It must not match. Default false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub negate: bool,
}

/// The whole response is JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonCheck {
    /// The name for rules and reports, as in `check(name)`. Default: the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A response that is one fenced code block (three backquotes) is read without the fence. Default false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_fence: bool,
}

/// The whole response is JSON that a JSON Schema allows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonSchemaCheck {
    /// The name for rules and reports, as in `check(name)`. Default: the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The schema, written in place; drafts 4 to 2020-12 by its `$schema`, 2020-12 without. Exactly one of `schema` and `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Map<String, Value>>")]
    pub schema: Option<Value>,
    /// A file with the schema, relative to the scenario.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// A response that is one fenced code block (three backquotes) is read without the fence. Default false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_fence: bool,
}

/// The response has at least so many tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MinTokensCheck {
    /// The name for rules and reports, as in `check(name)`. Default: the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many.
    pub tokens: TokenCount,
}

/// The response has at most so many tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaxTokensCheck {
    /// The name for rules and reports, as in `check(name)`. Default: the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many.
    pub tokens: TokenCount,
}

/// Generation ended for one of these reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishReasonCheck {
    /// The name for rules and reports, as in `check(name)`. Default: the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The reasons, in the server's words: `stop`, `length`, `tool_calls`, `content_filter`.
    #[schemars(length(min = 1))]
    pub reasons: Vec<String>,
}

/// A function of the hooks judges the response: `function(req, res)` gives back true, false or a text that says what is wrong.
///
/// A function `check` of the hooks judges every response also where no check names it; its name is then `hook`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScriptCheck {
    /// The name for rules and reports, as in `check(name)`. Default: the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The function. Default `check`.
    #[serde(default = "check_function")]
    pub function: String,
}

fn check_function() -> String {
    "check".into()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Check {
    /// The name for rules and reports.
    pub fn name(&self) -> &str {
        let given = match self {
            Self::Contains(check) => &check.name,
            Self::Regex(check) => &check.name,
            Self::Json(check) => &check.name,
            Self::JsonSchema(check) => &check.name,
            Self::MinTokens(check) => &check.name,
            Self::MaxTokens(check) => &check.name,
            Self::FinishReason(check) => &check.name,
            Self::Script(check) => &check.name,
        };
        given.as_deref().unwrap_or_else(|| self.kind())
    }

    /// The function of the hooks that it calls.
    pub fn function(&self) -> Option<&str> {
        if let Self::Script(check) = self { Some(&check.function) } else { None }
    }

    /// Whether a response of a forced length can hardly pass it: JSON ends where it ends.
    pub fn needs_an_end(&self) -> bool {
        matches!(self, Self::Json(_) | Self::JsonSchema(_))
    }
}

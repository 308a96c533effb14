//! Errors of the strict schema in words.

use jsonschema::error::ValidationErrorKind as Kind;
use serde_json::Value;

use super::diagnostic::{Diagnostic, quote};
use super::node::describe;
use super::schema::{Quantity, STRICT};
use super::validate::{At, kind_of, quantity_of, resolved};

/// The kinds of a union, in words.
pub fn kinds_note(branches: &'static [Value]) -> Option<String> {
    let kinds: Vec<&str> = branches.iter().filter_map(kind_of).collect();
    (!kinds.is_empty()).then(|| format!("`kind`: {}", kinds.join(", ")))
}

/// What the branches of a union look like, in words.
pub fn forms(branches: &'static [Value]) -> Vec<String> {
    let mut forms = Vec::new();
    for branch in branches {
        let schema = resolved(branch);
        let form = if kind_of(branch).is_some() {
            "a map with `kind`".to_owned()
        } else if let Some(options) = schema.get("enum").and_then(Value::as_array) {
            let words: Vec<String> =
                options.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
            words.join(" or ")
        } else if let Some(quantity) = quantity_of(schema) {
            format!("a {} such as {}", quantity.name.to_lowercase(), examples(schema))
        } else {
            type_words(schema)
        };
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms
}

fn examples(schema: &Value) -> String {
    let list = schema.get("examples").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let words: Vec<String> = list
        .iter()
        .map(|example| example.as_str().map_or_else(|| example.to_string(), str::to_owned))
        .collect();
    words.join(" or ")
}

/// The types of a schema, in words.
fn type_words(schema: &Value) -> String {
    let word = |name: &str| match name {
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "a text",
        "boolean" => "`true` or `false`",
        "array" => "a list",
        _ => "a map",
    };
    match schema.get("type") {
        Some(Value::String(name)) => word(name).to_owned(),
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).map(word).collect::<Vec<_>>().join(" or ")
        }
        _ => "something else".into(),
    }
}

/// A word that is none of those there are.
pub fn no_such_word(instance: &Value, words: &[&str], at: &At) -> Diagnostic {
    let list = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let message = format!("{} is one of {list}, not {}", at.name(), describe(instance));
    Diagnostic::error(at.span, message).suggest(instance.as_str().unwrap_or_default(), words.iter().copied())
}

/// A value that its quantity's parser refuses.
pub fn quantity_error(quantity: &Quantity, instance: &Value, at: &At) -> Diagnostic {
    if let (Value::Number(number), [first, second]) = (instance, quantity.units) {
        let message = format!("{} needs a unit: `{number}` has none", at.name());
        return Diagnostic::error(at.span, message)
            .help(format!("write {number}{first} or {number}{second}"));
    }
    let wrong_type = !(instance.is_string() || instance.is_number());
    let problem = (quantity.parse)(instance.clone()).err().filter(|_| !wrong_type);
    // parsers that take any JSON value show it as JSON
    let written = instance.as_str().map(|text| (instance.to_string(), quote(text)));
    let problem = problem.map(|problem| match &written {
        Some((json, written)) => problem.replacen(json, written, 1),
        None => problem,
    });
    let message = problem.unwrap_or_else(|| {
        let schema = STRICT.schema.pointer(&format!("/$defs/{}", quantity.name)).unwrap_or(&Value::Null);
        format!("{} must be written like {}, not {}", at.name(), examples(schema), describe(instance))
    });
    Diagnostic::error(at.span, message)
}

/// Errors of one keyword: the message, and help where there is some.
pub fn plain_error(kind: &Kind, schema: &Value, instance: &Value, at: &At) -> (String, Option<String>) {
    let name = at.name();
    let found = describe(instance);
    let message = match kind {
        Kind::Type { .. } => format!("{name} must be {}, not {found}", type_words(schema)),
        Kind::Minimum { limit } => format!("{name} must be at least {limit}, not {instance}"),
        Kind::Maximum { limit } => format!("{name} must be at most {limit}, not {instance}"),
        Kind::ExclusiveMinimum { limit } => format!("{name} must be more than {limit}, not {instance}"),
        Kind::ExclusiveMaximum { limit } => format!("{name} must be less than {limit}, not {instance}"),
        Kind::MinItems { limit } | Kind::MinProperties { limit } => {
            let entries = if *limit == 1 { "entry" } else { "entries" };
            format!("{name} needs at least {limit} {entries}")
        }
        Kind::MaxItems { limit } => format!("{name} has at most {limit} entries"),
        Kind::MinLength { .. } => format!("{name} must not be empty"),
        Kind::UniqueItems => format!("{name} has the same entry twice"),
        Kind::Constant { expected_value } if name == "`version`" => {
            let message = format!("this program reads version {expected_value} of the language, not {found}");
            return (message, Some(format!("write `version: {expected_value}`")));
        }
        Kind::Constant { expected_value } => format!("{name} must be {expected_value}, not {found}"),
        Kind::Enum { options } => {
            let words: Vec<String> = options
                .as_array()
                .into_iter()
                .flatten()
                .map(|word| quote(word.as_str().unwrap_or("?")))
                .collect();
            format!("{name} is one of {}, not {found}", words.join(", "))
        }
        _ => format!("{name} does not fit: {found}"),
    };
    (message, None)
}

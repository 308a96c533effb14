//! The two schemas of one set of types.
//!
//! The **editor** schema describes a file as it is written: `extends` and `defaults` may supply what a file leaves out, and
//! a scalar may be a `${..}` text. The **strict** schema describes the tree after everything is merged and expanded; it is
//! what runs, and it hands quantities to their own parsers, so that what a message says is what the parser says.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::types::Scenario;
use crate::gate::config::Confidence;
use crate::plan::config::Requests;
use crate::units::{Duration, Rate, Ratio, Size};

/// A type with a text form of its own: its name in the schema, its parser, and how it is written.
pub struct Quantity {
    /// The name of its definition.
    pub name: &'static str,
    /// Parses a value; the error is fit for a user.
    pub parse: fn(Value) -> Result<(), String>,
    /// Units to try on a bare number, as in `10ms`.
    pub units: &'static [&'static str],
}

/// Every quantity of the language.
pub const QUANTITIES: [Quantity; 6] = [
    Quantity { name: "Duration", parse: parse::<Duration>, units: &["ms", "s"] },
    Quantity { name: "Rate", parse: parse::<Rate>, units: &["/s", "/m"] },
    Quantity { name: "Size", parse: parse::<Size>, units: &["MiB", "GiB"] },
    Quantity { name: "Ratio", parse: parse::<Ratio>, units: &[] },
    Quantity { name: "Confidence", parse: parse::<Confidence>, units: &[] },
    Quantity { name: "Requests", parse: parse::<Requests>, units: &[] },
];

fn parse<T: DeserializeOwned>(value: Value) -> Result<(), String> {
    serde_json::from_value::<T>(value).map(drop).map_err(|error| error.to_string())
}

/// What runs: the schema and its validator, built on first use.
pub struct Strict {
    /// The schema.
    pub schema: Value,
    /// The schema, compiled.
    pub validator: Validator,
}

/// The strict schema of this process.
pub static STRICT: LazyLock<Strict> = LazyLock::new(|| {
    let schema = strict_schema();
    let mut options = jsonschema::options().should_validate_formats(true);
    for quantity in &QUANTITIES {
        let parse = quantity.parse;
        options = options.with_format(format_of(quantity.name), move |text: &str| parse(text.into()).is_ok());
    }
    let validator = options.build(&schema).expect("a schema generated from types compiles; a test builds it");
    Strict { schema, validator }
});

fn format_of(name: &str) -> String {
    format!("sagebench-{}", name.to_lowercase())
}

/// The schema as the types give it, without what is not JSON Schema.
pub(super) fn generated() -> Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12();
    let mut schema = settings.into_generator().into_root_schema_for::<Scenario>().to_value();
    each(&mut schema, &mut |object| {
        strip_null(object);
        // `uint32` and its kin are no formats of JSON Schema
        object.remove("format");
        object.remove("writeOnly");
    });
    schema
}

/// The schema of the tree after merging and expansion.
pub fn strict_schema() -> Value {
    let mut schema = generated();
    // names are checked where they are written, before a matrix gives them coordinates
    for group in ["workloads", "backends"] {
        if let Some(group) =
            schema.pointer_mut(&format!("/properties/{group}")).and_then(Value::as_object_mut)
        {
            group.remove("propertyNames");
        }
    }
    // one message for a version that is not 1, whatever it is
    if let Some(version) = schema.pointer_mut("/properties/version").and_then(Value::as_object_mut) {
        version.remove("type");
        version.remove("minimum");
    }
    for quantity in &QUANTITIES {
        if let Some(definition) = definition(&mut schema, quantity.name) {
            definition.remove("pattern");
            definition.insert("format".into(), format_of(quantity.name).into());
        }
    }
    schema
}

/// What editors check a file against while it is written: the content of `schemas/scenario.schema.json`.
pub fn editor_schema() -> Value {
    let mut schema = generated();
    relax(&mut schema);
    let definitions = schema["$defs"].clone();
    each(&mut schema, &mut |object| {
        // unions: without a required `kind` more than one branch may fit
        if let Some(branches) = object.remove("oneOf") {
            object.insert("anyOf".into(), branches);
        }
        if let Some(Value::Array(branches)) = object.get_mut("anyOf") {
            for branch in branches {
                leave_words_to_the_key(branch, &definitions);
            }
        }
        name_choices(object);
        accept_variables(object);
    });
    if let Some(definitions) = schema.get_mut("$defs").and_then(Value::as_object_mut) {
        let variable = json!({
            "type": "string",
            "pattern": VARIABLE,
            "description": "A variable of the environment, with a default if it may be unset.",
            "examples": ["${NAME}", "${NAME:-default}"],
        });
        definitions.insert("Variable".into(), variable);
    }
    if let Some(root) = schema.as_object_mut() {
        // ajv's strict mode wants the keys named where they are required
        let named = |keys: &[&str]| -> Map<String, Value> {
            keys.iter().map(|key| ((*key).into(), true.into())).collect()
        };
        let (extends, whole) = (["extends"], ["version", "backends", "workloads"]);
        // Linters that read each part strictly need to be told that the parts allow what the whole allows.
        let absent = json!({ "properties": named(&extends), "required": extends });
        root.insert("if".into(), json!({ "type": "object", "not": absent, "additionalProperties": true }));
        let needed = json!({ "type": "object", "properties": named(&whole), "required": whole, "additionalProperties": true });
        root.insert("then".into(), needed);
    }
    schema
}

/// Over a key, editors show the first description that they meet on the way out from its value: one of a branch would hide
/// the key's own. What a kind is stands at its `kind`.
fn leave_words_to_the_key(branch: &mut Value, definitions: &Value) {
    let name = branch["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"));
    if let Some(definition) =
        name.and_then(|name| definitions.get(name)).filter(|one| one.get("type").is_some())
    {
        *branch = definition.clone();
        if let Some(object) = branch.as_object_mut() {
            object.remove("examples");
            accept_variables(object);
        }
    }
    if let Some(object) = branch.as_object_mut().filter(|object| !object.contains_key("const")) {
        object.remove("description");
    }
}

/// An enumeration as editors know it: its values, and beside them what each means.
fn name_choices(object: &mut Map<String, Value>) {
    let Some(Value::Array(branches)) = object.get("anyOf") else { return };
    let each = |key: &str| branches.iter().map(|branch| branch.get(key).cloned()).collect::<Option<Vec<_>>>();
    let (Some(values), Some(meanings)) = (each("const"), each("description")) else { return };
    object.remove("anyOf");
    object.insert("type".into(), "string".into());
    object.insert("enum".into(), values.into());
    object.insert("enumDescriptions".into(), meanings.into());
}

/// The pattern of a text with a variable in it.
const VARIABLE: &str = r"\$\{.*\}";

fn definition<'a>(schema: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    schema.pointer_mut(&format!("/$defs/{name}"))?.as_object_mut()
}

/// Calls `change` on every schema object, inner ones first.
fn each(schema: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    let Some(object) = schema.as_object_mut() else { return };
    for (key, value) in object.iter_mut() {
        match key.as_str() {
            "properties" | "$defs" => {
                if let Some(map) = value.as_object_mut() {
                    for schema in map.values_mut() {
                        each(schema, change);
                    }
                }
            }
            "oneOf" | "anyOf" | "allOf" => {
                if let Some(list) = value.as_array_mut() {
                    for schema in list {
                        each(schema, change);
                    }
                }
            }
            "items" | "additionalProperties" | "propertyNames" => each(value, change),
            _ => {}
        }
    }
    change(object);
}

/// An optional value is one that may be left out, not one that may be `null`.
fn strip_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if object.get("default") == Some(&Value::Null) {
        object.remove("default");
    }
    let Some(Value::Array(branches)) = object.get_mut("anyOf") else { return };
    branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
    if let [Value::Object(only)] = branches.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}

/// Wherever a scalar that is no plain text stands, a text with a variable may stand; each type gets a branch of its own,
/// since ajv's strict mode takes no list of types.
fn accept_variables(object: &mut Map<String, Value>) {
    let variable = json!({ "$ref": "#/$defs/Variable" });
    if object.contains_key("anyOf") {
        return;
    }
    let types: Vec<String> = match object.get("type") {
        Some(Value::String(name)) => vec![name.clone()],
        Some(Value::Array(names)) => {
            names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
        }
        _ => return,
    };
    let limited = object.contains_key("pattern") || object.contains_key("enum");
    let scalar = types.iter().all(|name| ["integer", "number", "boolean"].contains(&name.as_str()));
    let words = types.iter().all(|name| name == "string") && !limited;
    let version = object.contains_key("const");
    if version || words || (types.len() == 1 && !scalar && !limited) {
        return;
    }
    let mut branches: Vec<Value> = types.iter().map(|name| branch(object, name)).collect();
    branches.push(variable);
    object.retain(|key, _| ["description", "default", "examples"].contains(&key.as_str()));
    object.insert("anyOf".into(), branches.into());
}

/// What a schema says about one of its types.
fn branch(object: &Map<String, Value>, name: &str) -> Value {
    let keywords: &[&str] = match name {
        "integer" | "number" => &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum"],
        "string" => &["pattern", "minLength", "maxLength", "enum", "enumDescriptions"],
        "array" => &["items", "minItems", "maxItems", "uniqueItems"],
        _ => &[],
    };
    let own = object.iter().filter(|(key, _)| keywords.contains(&key.as_str()));
    let mut branch = Map::from_iter([("type".to_owned(), Value::from(name))]);
    branch.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    Value::Object(branch)
}

/// Removes `required` wherever `extends` or `defaults` may supply what is missing: everywhere but inside lists, which are
/// replaced as a whole.
fn relax(schema: &mut Value) {
    let mut merged = BTreeSet::new();
    collect(schema, schema, &mut merged);
    let names: Vec<String> = merged.into_iter().collect();
    for name in names {
        if let Some(definition) = schema.pointer_mut(&format!("/$defs/{name}")) {
            drop_required(definition);
        }
    }
    // Of a kind only `kind` is asked for, also inside lists: else the kinds that need more are not completed.
    for (_, definition) in schema["$defs"].as_object_mut().into_iter().flatten() {
        for branch in definition.get_mut("oneOf").and_then(Value::as_array_mut).into_iter().flatten() {
            if branch.pointer("/properties/kind/const").is_some() && branch.get("required").is_some() {
                branch["required"] = json!(["kind"]);
            }
        }
    }
    if let Some(root) = schema.as_object_mut() {
        root.remove("required");
    }
}

fn drop_required(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("required");
    for list in ["oneOf", "anyOf"] {
        if let Some(Value::Array(branches)) = object.get_mut(list) {
            branches.iter_mut().for_each(drop_required);
        }
    }
}

/// The definitions that are reached without going through a list.
fn collect(root: &Value, schema: &Value, reached: &mut BTreeSet<String>) {
    let Some(object) = schema.as_object() else { return };
    if let Some(name) =
        object.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"))
        && reached.insert(name.to_owned())
        && let Some(definition) = root.pointer(&format!("/$defs/{name}"))
    {
        collect(root, definition, reached);
    }
    for key in ["properties", "additionalProperties", "oneOf", "anyOf"] {
        match object.get(key) {
            Some(Value::Object(map)) if key == "properties" => {
                map.values().for_each(|schema| collect(root, schema, reached));
            }
            Some(Value::Array(list)) => list.iter().for_each(|schema| collect(root, schema, reached)),
            Some(schema) => collect(root, schema, reached),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_editor_schema_is_the_one_of_the_types() {
        let text = serde_json::to_string_pretty(&editor_schema()).expect("JSON") + "\n";
        crate::generated::is_committed("schemas/scenario.schema.json", &text);
    }

    #[test]
    fn quantities_go_to_their_parsers() {
        let strict = &*STRICT;
        for quantity in &QUANTITIES {
            assert!(
                strict.schema.pointer(&format!("/$defs/{}/format", quantity.name)).is_some(),
                "{}",
                quantity.name
            );
        }
    }

    #[test]
    fn every_key_and_choice_is_described() {
        let mut bare = Vec::new();
        let schema = editor_schema();
        describe("", &schema, &mut bare);
        assert_eq!(bare, Vec::<String>::new());
    }

    fn describe(path: &str, schema: &Value, bare: &mut Vec<String>) {
        match schema {
            Value::Object(object) => {
                if let Some(Value::Object(properties)) = object.get("properties") {
                    for (key, value) in properties {
                        if value != true && value.get("description").is_none() {
                            bare.push(format!("{path}/{key}"));
                        }
                    }
                }
                if object.contains_key("const") && !object.contains_key("description") {
                    bare.push(path.to_owned());
                }
                for (key, value) in object {
                    describe(&format!("{path}/{key}"), value, bare);
                }
            }
            Value::Array(list) => {
                for (at, value) in list.iter().enumerate() {
                    describe(&format!("{path}/{at}"), value, bare);
                }
            }
            _ => {}
        }
    }

    /// Calls `see` on every schema inside, with its path.
    fn walk(path: &str, schema: &Value, see: &mut impl FnMut(&str, &Map<String, Value>)) {
        match schema {
            Value::Object(object) => {
                see(path, object);
                for (key, value) in object.iter().filter(|(key, _)| *key != "examples") {
                    walk(&format!("{path}/{key}"), value, see);
                }
            }
            Value::Array(list) => {
                for (at, value) in list.iter().enumerate() {
                    walk(&format!("{path}/{at}"), value, see);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn every_kind_has_examples_and_every_example_is_valid() {
        let schema = strict_schema();
        let (mut bare, mut wrong, mut seen) = (Vec::new(), Vec::new(), 0);
        walk("", &schema, &mut |path, object| {
            let kind = object.get("properties").and_then(|keys| keys.pointer("/kind/const"));
            let Some(Value::Array(examples)) = object.get("examples") else {
                bare.extend(kind.map(|kind| format!("{path}: {kind}")));
                return;
            };
            let mut own = object.clone();
            own.insert("$defs".into(), schema["$defs"].clone());
            let mut options = jsonschema::options().should_validate_formats(true);
            for quantity in &QUANTITIES {
                let parse = quantity.parse;
                options = options
                    .with_format(format_of(quantity.name), move |text: &str| parse(text.into()).is_ok());
            }
            let validator = options.build(&Value::Object(own)).expect("a part of a schema compiles");
            seen += examples.len();
            let refused = examples.iter().filter_map(|one| Some((one, validator.iter_errors(one).next()?)));
            wrong.extend(refused.map(|(one, error)| format!("{path}: {one}: {error}")));
        });
        assert!(bare.is_empty(), "kinds without an example: {bare:#?}");
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn the_editor_schema_takes_what_is_written_before_merging() {
        let validator = jsonschema::validator_for(&editor_schema()).expect("compiles");
        let valid = |value: &Value| validator.is_valid(value);
        assert!(valid(
            &json!({ "extends": "base.yaml", "workloads": { "a": { "load": { "concurrency": "${N:-4}" } } } })
        ));
        assert!(valid(&json!({
            "version": 1, "backends": { "m": { "kind": "mock", "ttft": "${T}", "tbt": "5ms", "clock": "${CLOCK}" } },
            "workloads": { "a": { "prompt": { "kind": "synthetic", "tokens": 5 }, "repeats": "${R}" } },
        })));
        assert!(!valid(&json!({ "workloads": {} })), "without extends, version is needed");
        assert!(!valid(&json!({ "extends": "b", "workloads": { "A b": {} } })));
        assert!(!valid(&json!({ "extends": "b", "workloads": { "a": { "load": { "concurency": 4 } } } })));
        assert!(!valid(&json!({ "extends": "b", "workloads": { "a": { "load": { "kind": "clsed" } } } })));
        assert!(!valid(&json!({ "extends": "b", "workloads": { "a": { "timeout": "10" } } })));
        assert!(!valid(&json!({ "extends": "b", "reports": [{ "template": "x" }] })), "lists are whole");
    }
}

//! The tree against the strict schema: every error at its place, in words that fit the definition it breaks.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind as Kind;
use serde_json::Value;

use super::diagnostic::{Diagnostic, quote};
use super::found::Found;
use super::load::unescape;
use super::node::{Node, describe};
use super::schema::{QUANTITIES, Quantity, STRICT};
use super::source::Span;
use super::words::{forms, kinds_note, no_such_word, plain_error, quantity_error};
use crate::nearest::nearest;

/// Reports everything that the schema forbids.
pub fn check(tree: &Node, value: &Value, found: &mut Found) {
    let mut checker = Checker { tree, root: value, found, slips: Vec::new(), missing: Vec::new() };
    for error in STRICT.validator.iter_errors(value) {
        checker.explain(&error);
    }
    // a key that was misspelt is not missing as well
    let Checker { slips, missing, .. } = checker;
    for (place, diagnostic) in missing {
        if !slips.contains(&place) && !found.knows(diagnostic.span) {
            found.push(diagnostic);
        }
    }
}

struct Checker<'a> {
    tree: &'a Node,
    root: &'a Value,
    found: &'a mut Found,
    /// Misspelt keys: the map's path, and what was meant.
    slips: Vec<Key>,
    /// Missing keys, and what to say about each.
    missing: Vec<(Key, Diagnostic)>,
}

/// A map's path and one of its keys.
type Key = (Vec<String>, String);

/// Where an error is: the node, its key, and how the user calls it.
pub struct At {
    /// The way to it.
    pub path: Vec<String>,
    /// Its place.
    pub span: Span,
    /// Its key's place, if it has a key.
    pub key: Option<Span>,
}

impl At {
    /// The last name on the way, quoted; of an item of a list, which one.
    pub fn name(&self) -> String {
        let Some(last) = self.path.last() else { return "a scenario".into() };
        match (last.parse::<usize>(), self.path.len().checked_sub(2).map(|at| &self.path[at])) {
            (Ok(index), Some(list)) if self.key.is_none() => format!("item {} of `{list}`", index + 1),
            _ => quote(last),
        }
    }

    /// The workload that this is, if it is one.
    fn workload(&self) -> Option<&str> {
        match self.path.as_slice() {
            [group, name] if group == "workloads" => Some(family(name)),
            _ => None,
        }
    }

    fn key_or_value(&self) -> Span {
        self.key.unwrap_or(self.span)
    }
}

/// A workload's name without the coordinates of a matrix.
fn family(name: &str) -> &str {
    name.split('@').next().unwrap_or(name)
}

fn steps(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(unescape).collect()
}

/// The schema that a keyword stands in.
fn schema_of(error: &ValidationError<'_>) -> &'static Value {
    let path = error.schema_path().as_str();
    let parent = path.rfind('/').map_or("", |at| &path[..at]);
    STRICT.schema.pointer(parent).unwrap_or(&Value::Null)
}

/// The schema behind a reference.
pub fn resolved(schema: &'static Value) -> &'static Value {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
    target.and_then(|path| STRICT.schema.pointer(path)).unwrap_or(schema)
}

/// The quantity that a schema stands for.
pub fn quantity_of(schema: &Value) -> Option<&'static Quantity> {
    QUANTITIES.iter().find(|quantity| {
        let format = schema.get("format").and_then(Value::as_str);
        format
            .and_then(|format| format.strip_prefix("sagebench-"))
            .is_some_and(|name| name.eq_ignore_ascii_case(quantity.name))
    })
}

/// The kind that a branch of a union stands for.
pub fn kind_of(branch: &'static Value) -> Option<&'static str> {
    resolved(branch).pointer("/properties/kind/const").and_then(Value::as_str)
}

impl Checker<'_> {
    fn at(&self, error: &ValidationError<'_>) -> At {
        self.locate(steps(error.instance_path().as_str()))
    }

    fn locate(&self, path: Vec<String>) -> At {
        let mut at = At { span: self.tree.span, key: None, path: Vec::new() };
        let mut node = self.tree;
        for step in path {
            let Some((next, key)) = node.step(&step) else { break };
            at.span = next.span;
            at.key = key;
            at.path.push(step);
            node = next;
        }
        at
    }

    fn push(&mut self, diagnostic: Diagnostic) {
        if !self.found.knows(diagnostic.span) {
            self.found.push(diagnostic);
        }
    }

    fn explain(&mut self, error: &ValidationError<'_>) {
        let at = self.at(error);
        let schema = schema_of(error);
        let instance = error.instance().as_ref();
        if instance.is_null() {
            let message = format!("{} has no value", at.name());
            let span = if at.span.start == at.span.end { at.key_or_value() } else { at.span };
            return self.push(Diagnostic::error(span, message).help("give it one, or remove the key"));
        }
        match error.kind() {
            Kind::OneOfNotValid { context } => return self.union(error, context, &at),
            Kind::AdditionalProperties { unexpected } => {
                for key in unexpected {
                    self.unknown_key(&at, schema, key);
                }
                return;
            }
            Kind::Required { property } => {
                return self.missing(&at, schema, property.as_str().unwrap_or_default());
            }
            _ => {}
        }
        if let Some(quantity) = quantity_of(schema) {
            return self.push(quantity_error(quantity, instance, &at));
        }
        let (message, help) = plain_error(error.kind(), schema, instance, &at);
        let mut diagnostic = Diagnostic::error(at.span, message);
        diagnostic.help.extend(help);
        if let (Some(word), Kind::Enum { options }) = (instance.as_str(), error.kind()) {
            let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
            diagnostic = diagnostic.suggest(word, options.iter().filter_map(Value::as_str));
        }
        self.push(diagnostic);
    }

    fn unknown_key(&mut self, at: &At, schema: &'static Value, key: &str) {
        let mut path = at.path.clone();
        path.push(key.to_owned());
        let span = self.locate(path).key_or_value();
        let known: Vec<&str> = schema
            .get("properties")
            .and_then(Value::as_object)
            .map(|map| map.keys().map(String::as_str).filter(|name| *name != "$schema").collect())
            .unwrap_or_default();
        let owner = match kind_of(schema) {
            Some(kind) => format!("`kind: {kind}`"),
            None if at.workload().is_some() => "a workload".into(),
            None => at.name(),
        };
        if let Some(meant) = nearest(key, known.iter().copied()) {
            self.slips.push((at.path.clone(), meant.to_owned()));
        }
        let mut diagnostic = Diagnostic::error(span, format!("unknown key {} in {owner}", quote(key)))
            .suggest(key, known.iter().copied());
        if diagnostic.help.is_empty()
            && let Some(kinds) = self.kinds_with(at, key)
        {
            diagnostic = diagnostic.help(format!("it belongs to {kinds}"));
        }
        self.push(diagnostic.note(format!("known keys: {}", known.join(", "))));
    }

    /// The other kinds of the union at this place that know a key.
    fn kinds_with(&self, at: &At, key: &str) -> Option<String> {
        let branches = union_at(&at.path, self.root)?;
        let kinds: Vec<String> = branches
            .iter()
            .filter(|branch| resolved(branch).pointer("/properties").and_then(|map| map.get(key)).is_some())
            .filter_map(|branch| kind_of(branch))
            .map(|kind| format!("`kind: {kind}`"))
            .collect();
        (!kinds.is_empty()).then(|| kinds.join(", "))
    }

    fn missing(&mut self, at: &At, schema: &'static Value, property: &str) {
        if self.found.incomplete {
            return;
        }
        let path: Vec<&str> = at.path.iter().map(String::as_str).collect();
        let (owner, span, help) = match path.as_slice() {
            [] => ("the scenario".to_owned(), at.span, None),
            ["workloads", name] => (
                format!("the workload {}", quote(family(name))),
                at.key_or_value(),
                Some("write it there, or in `defaults` for all workloads"),
            ),
            _ => match kind_of(schema) {
                Some(kind) => (format!("`kind: {kind}`"), at.key_or_value(), None),
                None => (at.name(), at.key_or_value(), None),
            },
        };
        let mut diagnostic = Diagnostic::error(span, format!("missing key `{property}` in {owner}"));
        if let Some(help) = help {
            diagnostic = diagnostic.help(help);
        }
        if property == "version" {
            diagnostic = diagnostic.help("write `version: 1`");
        }
        let description = schema["properties"][property].get("description").and_then(Value::as_str);
        if let Some(first) = description.and_then(|text| text.split(". ").next()) {
            let first = first.replace('\n', " ");
            diagnostic = diagnostic.note(format!("`{property}`: {}", first.trim_end_matches('.')));
        }
        self.missing.push(((at.path.clone(), property.to_owned()), diagnostic));
    }

    fn union(&mut self, error: &ValidationError<'_>, context: &[Vec<ValidationError<'static>>], at: &At) {
        let schema = schema_of(error);
        let branches = schema.get("oneOf").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let instance = error.instance().as_ref();
        let words: Vec<&str> =
            branches.iter().filter_map(|branch| branch.get("const").and_then(Value::as_str)).collect();
        if !branches.is_empty() && words.len() == branches.len() {
            return self.push(no_such_word(instance, &words, at));
        }
        let chosen = match instance {
            Value::Object(map) => {
                let kinds: Vec<&str> = branches.iter().filter_map(kind_of).collect();
                if kinds.is_empty() {
                    branches.iter().position(|branch| accepts(resolved(branch), instance))
                } else {
                    match map.get("kind") {
                        None => return self.no_kind(at, &kinds, map),
                        Some(kind) => match kind
                            .as_str()
                            .and_then(|kind| branches.iter().position(|b| kind_of(b) == Some(kind)))
                        {
                            Some(chosen) => Some(chosen),
                            None => return self.unknown_kind(at, &kinds, kind),
                        },
                    }
                }
            }
            _ => branches.iter().position(|branch| accepts(resolved(branch), instance)),
        };
        if let Some(errors) = chosen.and_then(|chosen| context.get(chosen)) {
            let before = self.found.diagnostics.len();
            for error in errors {
                self.explain(error);
            }
            if !instance.is_object()
                && let (Some(kinds), Some(first)) =
                    (kinds_note(branches), self.found.diagnostics.get_mut(before))
            {
                first.notes.push(format!("or a map with {kinds}"));
            }
            return;
        }
        let unit =
            branches.iter().find_map(|branch| quantity_of(resolved(branch))).filter(|_| instance.is_number());
        if let Some(quantity) = unit {
            return self.push(quantity_error(quantity, instance, at));
        }
        let forms: Vec<String> = forms(branches);
        let message = format!("{} must be {}, not {}", at.name(), forms.join(" or "), describe(instance));
        let mut diagnostic = Diagnostic::error(at.span, message);
        if let Some(word) = instance.as_str()
            && branches.iter().any(|branch| kind_of(branch) == Some(word))
        {
            diagnostic = diagnostic.help(format!("write `{{ kind: {word}, .. }}`"));
        }
        diagnostic.notes.extend(kinds_note(branches));
        self.push(diagnostic);
    }

    fn no_kind(&mut self, at: &At, kinds: &[&str], map: &serde_json::Map<String, Value>) {
        if self.found.incomplete {
            return;
        }
        let mut diagnostic =
            Diagnostic::error(at.key_or_value(), format!("missing key `kind` in {}", at.name()));
        if kinds.len() == 1 {
            diagnostic = diagnostic.help(format!("write `kind: {}`", kinds[0]));
        } else {
            // the kind that knows every key that is there is the likely one
            let fitting: Vec<&str> = union_at(&at.path, self.root)
                .into_iter()
                .flatten()
                .filter(|branch| map.keys().all(|key| resolved(branch)["properties"].get(key).is_some()))
                .filter_map(kind_of)
                .collect();
            if let [kind] = fitting.as_slice() {
                diagnostic = diagnostic.help(format!("its keys fit `kind: {kind}`"));
            }
            diagnostic = diagnostic.note(format!("kinds: {}", kinds.join(", ")));
        }
        self.push(diagnostic);
    }

    fn unknown_kind(&mut self, at: &At, kinds: &[&str], kind: &Value) {
        let mut path = at.path.clone();
        path.push("kind".into());
        let span = self.locate(path).span;
        let word = kind.as_str().unwrap_or_default();
        let shown = kind.as_str().map_or_else(|| describe(kind), quote);
        let what = if kind.is_string() {
            format!("unknown kind {shown} in {}", at.name())
        } else {
            format!("`kind` is a word, not {shown}")
        };
        self.push(
            Diagnostic::error(span, what)
                .suggest(word, kinds.iter().copied())
                .note(format!("kinds: {}", kinds.join(", "))),
        );
    }
}

/// The branches of the union that stands at a path, found by walking schema and value together.
fn union_at(path: &[String], root: &Value) -> Option<&'static [Value]> {
    let mut schema = &STRICT.schema;
    let mut value = root;
    for step in path {
        schema = choose(resolved(schema), value);
        schema = schema
            .get("properties")
            .and_then(|map| map.get(step))
            .or_else(|| schema.get("additionalProperties"))
            .or_else(|| schema.get("items"))?;
        value = value.get(step).or_else(|| value.get(step.parse::<usize>().ok()?))?;
    }
    resolved(schema).get("oneOf")?.as_array().map(Vec::as_slice)
}

/// The branch of a union that a value's `kind` names; the schema itself where there is no union.
fn choose(schema: &'static Value, value: &Value) -> &'static Value {
    let Some(branches) = schema.get("oneOf").and_then(Value::as_array) else { return schema };
    let kind = value.get("kind").and_then(Value::as_str);
    let branch = branches.iter().find(|branch| {
        if kind.is_some() { kind_of(branch) == kind } else { accepts(resolved(branch), value) }
    });
    branch.map_or(schema, resolved)
}

/// Whether a schema is for values of this JSON type.
fn accepts(schema: &Value, value: &Value) -> bool {
    let own = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = |name: &str| name == own || (name == "integer" && own == "number");
    match schema.get("type") {
        Some(Value::String(name)) => fits(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(fits),
        _ => false,
    }
}

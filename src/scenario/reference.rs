//! The reference page of the scenario language, written from the schema.
//!
//! Types come in the order in which an author meets them: key by key from the top of a file, each type where it is met first.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::schema::generated;
use crate::generated::row;

/// Written around the quantities: what each stands for is in its own description.
const QUANTITIES: [&str; 7] = ["Duration", "Rate", "Size", "Ratio", "TokenCount", "Requests", "Confidence"];

/// What the page leaves out: it is for editors.
const HIDDEN: [&str; 1] = ["$schema"];

/// The page in Markdown.
fn page() -> String {
    let schema = generated();
    let mut page = Page {
        schema: &schema,
        text: HEAD.to_owned(),
        chapter: String::new(),
        met: Vec::new(),
        kinds: Vec::new(),
    };
    page.quantities();
    page.text.push_str("\n## A scenario\n\n");
    page.table(&schema, &HIDDEN);
    let keys = schema["properties"].as_object().expect("a scenario has keys");
    // What `defaults` holds is met again as a workload.
    for (key, value) in keys.iter().filter(|(key, _)| *key != "defaults") {
        page.chapter = chapter(key);
        let before = page.text.len();
        page.follow(value, &below("", key, value));
        let is_named = page.text.contains(&format!("### {}\n", page.chapter));
        if page.text.len() > before && !is_named {
            page.text.insert_str(before, &format!("\n## {}\n", page.chapter));
        }
    }
    // One empty line parts what belongs apart.
    while page.text.contains("\n\n\n") {
        page.text = page.text.replace("\n\n\n", "\n\n");
    }
    page.text
}

/// The heading over all that is met first under a key of the file.
fn chapter(key: &str) -> String {
    let mut letters = key.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().collect::<String>() + letters.as_str())
        .unwrap_or_default()
}

const HEAD: &str = "# The scenario language

Every key, its type, its default and what it means. YAML and TOML are equal: the same keys, the same values. `sagebench init` writes a scenario to start from,
`scenarios/` holds worked ones, and with `schemas/scenario.schema.json` (`sagebench schema`) an editor completes keys and shows this page's texts:

```yaml
# yaml-language-server: $schema=../schemas/scenario.schema.json
version: 1
backends:
  mock: { kind: mock, ttft: 10ms, tbt: 5ms }
workloads:
  chat:
    prompt: { kind: synthetic, tokens: 512 }
    output: { tokens: 128 }
    load: { kind: open, rate: 8/s, duration: 60s }
gates:
  rules: [p95(ttft) <= 400ms, error_rate <= 1%]
```

## How a file is read

In this order: `extends`, variables, `--set`, `defaults`, `matrix`, and then everything is checked at once.

- **`extends: base.yaml`** takes another file as the start. Maps merge; scalars and lists are replaced; where a map's `kind` changes, the whole map is replaced.
- **`${NAME}`** and **`${NAME:-default}`** stand for variables of the environment, in every text but scripts; `$${` is a plain `${`. A text that is nothing but one
  variable is read again, so `concurrency: \"${N:-4}\"` is a number. In a YAML flow map (`{ }`) it needs quotes.
- **`--set workloads.chat.load.concurrency=4`** changes one value from the command line.
- **`defaults`** is a workload that every workload starts from.
- **`matrix`** makes several workloads of one.
- Where a map carries `kind`, the keys that it takes are those of that kind. A short form, such as `tokens: 128` or `arrival: poisson`, stands for one kind.
- Names (of workloads, backends, checks, metrics, baselines) are lower-case letters, digits, `_`, `.` and `-`. Paths are relative to the file they stand in.

The language of `rules` and `slo` is in [rules.md](rules.md), that of `hooks` in [hooks.md](hooks.md).
";

struct Page<'a> {
    schema: &'a Value,
    text: String,
    /// The heading of the key of the file that is followed.
    chapter: String,
    /// The definitions that have their place already.
    met: Vec<String>,
    /// The kinds that were written, with their keys: another union's kind of the same keys refers to them.
    kinds: Vec<(String, Value)>,
}

impl Page<'_> {
    fn quantities(&mut self) {
        self.text.push_str("\n## Quantities\n\nA number that has a unit is written with it.\n\n");
        self.text.push_str("| type | what it is | examples |\n|---|---|---|\n");
        for name in QUANTITIES {
            let definition = &self.schema["$defs"][name];
            let examples = match definition["examples"].as_array() {
                Some(examples) => {
                    examples.iter().map(|one| format!("`{}`", plain(one))).collect::<Vec<_>>().join(", ")
                }
                None => "`128`".to_owned(),
            };
            let anchor = format!("<a id=\"{}\"></a>{}", anchor(&words(name)), words(name));
            row(&mut self.text, [&anchor, description(definition), &examples]);
            self.met.push(name.to_owned());
        }
    }

    /// Writes the sections of all types that a schema leads to and that have none yet.
    fn follow(&mut self, schema: &Value, path: &str) {
        let Some(object) = schema.as_object() else { return };
        if let Some(name) = reference(schema) {
            if !self.met.iter().any(|met| met == name) {
                self.met.push(name.to_owned());
                let definition = &self.schema["$defs"][name];
                self.section(name, definition, path);
            }
            return;
        }
        for (key, inner) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.follow(inner, &below(path, key, inner));
        }
        if let Some(items) = object.get("items") {
            self.follow(items, path);
        }
        if let Some(values) = object.get("additionalProperties") {
            self.follow(values, path);
        }
        for branch in branches(schema) {
            self.follow(branch, path);
        }
    }

    /// The section of one type, and those of the types that it is made of.
    fn section(&mut self, name: &str, definition: &Value, path: &str) {
        let branches = branches(definition);
        let is_map = definition.get("properties").is_some_and(|keys| keys != &Value::Object(Map::new()));
        if branches.is_empty() && !is_map {
            // A scalar of its own: the table that it stands in says what it is.
            return;
        }
        if words(name) == self.chapter {
            self.text.push('\n');
        } else {
            let _ = write!(self.text, "\n### {}\n\n", words(name));
        }
        if is_list_or_scalar(definition) || is_map {
            let _ = write!(self.text, "At `{path}`. ");
        } else {
            let _ = write!(self.text, "At `{path}`, by its `kind`. ");
        }
        let _ = write!(self.text, "{}\n\n", one_line(description(definition)));
        if is_map {
            self.table(definition, &[]);
            self.examples(definition, path);
            self.follow(definition, path);
            return;
        }
        let kinds: Vec<(&str, &Value)> = branches.iter().filter_map(|one| Some((kind(one)?, *one))).collect();
        self.forms(&branches);
        if !kinds.is_empty() {
            self.text.push_str("| kind | what it is |\n|---|---|\n");
        }
        for (kind, branch) in &kinds {
            let title = format!("{}: {kind}", words(name));
            let link = format!("[`{kind}`](#{})", anchor(&title));
            let says = description(branch);
            let first =
                kinds.iter().find(|(_, one)| description(one) == says).map_or(*kind, |(first, _)| *first);
            let same = format!("The same as `{first}`, for {kind}.");
            let says = one_line(says);
            row(&mut self.text, [&link, if first == *kind { first_sentence(&says) } else { &same }]);
        }
        for (kind, branch) in &kinds {
            self.kind(name, kind, branch, path);
        }
        for branch in &branches {
            if kind(branch).is_none() && branch.get("properties").is_some() {
                self.table(branch, &[]);
                self.examples(branch, path);
            }
        }
        for branch in branches {
            self.follow(branch, path);
        }
    }

    /// The values of an enumeration, or the short forms of a union.
    fn forms(&mut self, branches: &[&Value]) {
        let words: Vec<&&Value> = branches.iter().filter(|one| one.get("const").is_some()).collect();
        if !words.is_empty() {
            self.text.push_str("| value | meaning |\n|---|---|\n");
            for one in words {
                row(&mut self.text, [&format!("`{}`", plain(&one["const"])), &one_line(description(one))]);
            }
            return;
        }
        for branch in branches.iter().filter(|one| kind(one).is_none()) {
            let says = one_line(description(branch));
            let says = if says.is_empty() { String::new() } else { format!(": {says}") };
            let _ = writeln!(self.text, "- {}{says}", self.shape(branch));
        }
        self.text.push('\n');
    }

    fn kind(&mut self, union: &str, kind: &str, branch: &Value, path: &str) {
        let _ = write!(self.text, "\n#### {}: {kind}\n\n", words(union));
        let mut keys = branch.clone();
        if let Some(object) = keys.as_object_mut() {
            object.remove("examples");
            if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
                properties.remove("kind");
            }
        }
        let known = self.kinds.iter().find(|(_, known)| *known == keys).map(|(title, _)| title.clone());
        if let Some(title) = known {
            let _ = write!(self.text, "The same keys as [{title}](#{}).\n\n", anchor(&title));
        } else {
            let _ = write!(self.text, "{}\n\n", one_line(description(branch)));
            self.kinds.push((format!("{}: {kind}", words(union)), keys));
            self.table(branch, &["kind"]);
        }
        self.examples(branch, path);
    }

    /// The keys of a map.
    fn table(&mut self, schema: &Value, hidden: &[&str]) {
        let keys = schema["properties"].as_object().into_iter().flatten();
        let keys: Vec<_> = keys.filter(|(key, _)| !hidden.contains(&key.as_str())).collect();
        if keys.is_empty() {
            return;
        }
        let required =
            |key: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == key));
        self.text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
        for (key, value) in keys {
            let default = match value.get("default") {
                _ if required(key) => "**required**".to_owned(),
                Some(default) if default.is_object() || default == "" => String::new(),
                Some(default) => format!("`{}`", flow(default)),
                None => String::new(),
            };
            let mut says = one_line(description(value));
            for said in [format!(" Default {default}."), format!(" Default {}.", default.trim_matches('`'))] {
                says = says.strip_suffix(&said).unwrap_or(&says).to_owned();
            }
            if let Some(Value::Array(examples)) = value.get("examples") {
                let examples: Vec<String> = examples.iter().map(|one| format!("`{}`", flow(one))).collect();
                let _ = write!(says, " Example: {}.", examples.join(", "));
            }
            let shape = self.shape(value);
            row(&mut self.text, [&format!("`{key}`"), &shape, &default, &says]);
        }
        self.text.push('\n');
    }

    /// How a type is written, at the place where it stands.
    fn examples(&mut self, schema: &Value, path: &str) {
        let Some(Value::Array(examples)) = schema.get("examples") else { return };
        let key = path.rsplit('.').find(|part| *part != "NAME").unwrap_or(path);
        let (key, is_item) = (key.trim_end_matches("[]"), key.ends_with("[]"));
        self.text.push_str("```yaml\n");
        for example in examples {
            if path.rsplit_once('.').is_some_and(|(_, last)| last == "NAME") {
                let _ = writeln!(self.text, "{key}: {{ my_name: {} }}", flow(example));
            } else if is_item {
                let _ = writeln!(self.text, "{key}: [{}]", flow(example));
            } else {
                let _ = writeln!(self.text, "{key}: {}", flow(example));
            }
        }
        self.text.push_str("```\n");
    }

    /// What may be written for a schema, in words.
    fn shape(&self, schema: &Value) -> String {
        if let Some(name) = reference(schema) {
            let definition = &self.schema["$defs"][name];
            let has_section = QUANTITIES.contains(&name)
                || !branches(definition).is_empty()
                || definition["properties"].as_object().is_some_and(|keys| !keys.is_empty());
            if has_section {
                return format!("[{}](#{})", words(name), anchor(&words(name)));
            }
            return self.shape(definition);
        }
        if let Some(words) = schema["enum"].as_array() {
            return words.iter().map(|word| format!("`{}`", plain(word))).collect::<Vec<_>>().join(" or ");
        }
        if let Some(word) = schema.get("const") {
            return format!("`{}`", plain(word));
        }
        match &schema["type"] {
            Value::String(name) => self.typed(name, schema),
            Value::Array(names) => {
                let names = names.iter().filter_map(Value::as_str).map(|name| self.typed(name, schema));
                names.collect::<Vec<_>>().join(" or ")
            }
            _ => match branches(schema).as_slice() {
                [] => "anything".to_owned(),
                all => all.iter().map(|one| self.shape(one)).collect::<Vec<_>>().join(" or "),
            },
        }
    }

    fn typed(&self, name: &str, schema: &Value) -> String {
        match name {
            "integer" | "number" => number(name, schema),
            "boolean" => "true or false".to_owned(),
            "string" => "text".to_owned(),
            "array" => match schema.get("items") {
                Some(items) if items.is_object() => match (&schema["minItems"], &schema["maxItems"]) {
                    (Value::Number(least), Value::Number(most)) if least == most => {
                        format!("{least} of {}", self.shape(items))
                    }
                    _ => format!("list of {}", self.shape(items)),
                },
                _ => "list".to_owned(),
            },
            _ => match schema.get("additionalProperties") {
                Some(values) if values.is_object() => format!("map of names to {}", self.shape(values)),
                _ => "map".to_owned(),
            },
        }
    }
}

/// A number and its bounds.
fn number(name: &str, schema: &Value) -> String {
    let noun = if name == "integer" { "whole number" } else { "number" };
    let bound = |key: &str| {
        let bound = schema.get(key).filter(|bound| bound.is_number()).map(plain)?;
        Some(bound.strip_suffix(".0").map_or(bound.clone(), str::to_owned))
    };
    let least = bound("minimum").map(|n| (n, "from")).or(bound("exclusiveMinimum").map(|n| (n, "above")));
    let most = bound("maximum").map(|n| (n, "to")).or(bound("exclusiveMaximum").map(|n| (n, "below")));
    match (least, most) {
        (None, None) => noun.to_owned(),
        (Some((n, _)), None) if n == "0" && name == "integer" => noun.to_owned(),
        (least, most) => {
            let bounds = least.into_iter().chain(most).map(|(n, word)| format!("{word} {n}"));
            format!("{noun} {}", bounds.collect::<Vec<_>>().join(" "))
        }
    }
}

/// The definition that a schema refers to.
fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"))
}

fn branches(schema: &Value) -> Vec<&Value> {
    let list = |key: &str| schema[key].as_array();
    list("oneOf").or(list("anyOf")).into_iter().flatten().collect()
}

/// Whether no branch of a union carries `kind`.
fn is_list_or_scalar(schema: &Value) -> bool {
    branches(schema).iter().all(|branch| kind(branch).is_none())
}

/// The `kind` that a branch of a union is for.
fn kind(branch: &Value) -> Option<&str> {
    branch["properties"]["kind"]["const"].as_str()
}

fn description(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

/// A description as one line of Markdown.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text up to its first full stop.
fn first_sentence(text: &str) -> &str {
    text.find(". ").map_or(text, |end| &text[..=end])
}

/// The path of a key.
fn below(path: &str, key: &str, value: &Value) -> String {
    let path = if path.is_empty() { String::new() } else { format!("{path}.") };
    let list = if value["type"] == "array" { "[]" } else { "" };
    let names = if value["additionalProperties"].is_object() { ".NAME" } else { "" };
    format!("{path}{key}{list}{names}")
}

/// `SharedPrefix` as `Shared prefix`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for (at, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && at > 0 {
            words.push(' ');
            words.extend(letter.to_lowercase());
        } else {
            words.push(letter);
        }
    }
    words
}

/// The anchor that a Markdown heading gets.
fn anchor(title: &str) -> String {
    let letters = title.to_lowercase();
    letters
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// A scalar without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A value as YAML in one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) => {
            let quoted = text.is_empty()
                || text.parse::<f64>().is_ok()
                || text.starts_with(|c: char| !c.is_alphanumeric() && c != '.')
                || text.contains([',', '{', '}', '[', ']', '#', '"', '\n'])
                || text.contains(": ");
            if quoted { format!("'{}'", text.replace('\'', "''")) } else { text.clone() }
        }
        other => other.to_string(),
    }
}

#[test]
fn the_page_is_the_one_of_the_schema() {
    crate::generated::is_committed("docs/scenario.md", &page());
}

#[test]
fn every_link_has_its_anchor() {
    let page = page();
    let headings: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|title| anchor(title.trim_start_matches(['#', ' '])))
        .collect();
    for (at, _) in page.match_indices("](#") {
        let link = page[at + 3..].split(')').next().unwrap_or_default();
        let known =
            headings.iter().any(|heading| heading == link) || page.contains(&format!("<a id=\"{link}\">"));
        assert!(known, "#{link}");
    }
    let mut unique = headings.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), headings.len(), "an anchor of two headings leads to the first");
}

/// The same value read from YAML.
#[test]
fn examples_are_written_as_yaml_that_reads_as_them() {
    let mut examples = Vec::new();
    collect(&generated(), &mut examples);
    assert!(examples.len() > 100, "{}", examples.len());
    for example in examples {
        let options = serde_yaml::options! { strict_booleans: true };
        let read: Value = serde_yaml::from_str_with_options(&flow(&example), options)
            .unwrap_or_else(|error| panic!("{example}: {error}"));
        assert_eq!(read, example);
    }
}

fn collect(schema: &Value, examples: &mut Vec<Value>) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("examples", Value::Array(list)) => examples.extend(list.iter().cloned()),
                    _ => collect(value, examples),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|one| collect(one, examples)),
        _ => {}
    }
}

//! YAML into the tree. The one file that knows serde-saphyr.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_yaml::budget::BudgetBreach;
use serde_yaml::options::DuplicateKeyPolicy;
use serde_yaml::{Error, Location, Spanned};

use super::diagnostic::{Diagnostic, quote};
use super::node::{Entry, Map, Node, Tree};
use super::source::{FileId, Span};

/// Values that one file may hold once its aliases are expanded.
const MAX_NODES: usize = 100_000;
/// How deep values may nest. A scenario needs about twelve levels; a thread of 2 MiB has to hold this many.
pub const MAX_DEPTH: usize = 24;

/// Reads a text. `offset` is where it starts in its source, for arguments of which only a part is YAML.
///
/// Equal keys in one map are each reported and the first one is kept. A syntax error ends the reading with `None`.
pub fn read(file: FileId, text: &str, offset: usize, found: &mut Vec<Diagnostic>) -> Option<Node> {
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! { max_depth: MAX_DEPTH, flow_nesting_limit: MAX_DEPTH, max_nodes: MAX_NODES },
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    };
    let mut reader = Reader { file, text, offset, found };
    match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Some(reader.node(raw)),
        Err(error) => {
            let diagnostic = reader.syntax_error(&error);
            reader.found.push(diagnostic);
            None
        }
    }
}

/// A value as the parser hands it over.
enum Raw {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Raw, E> {
        Number::from_f64(value).map(Raw::Number).ok_or_else(|| E::custom("a number must be finite"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element()? {
            list.push(value);
        }
        Ok(Raw::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = access.next_entry()? {
            map.push(entry);
            if map.len() > MAX_NODES {
                return Err(A::Error::custom("the map is too large"));
            }
        }
        Ok(Raw::Map(map))
    }
}

struct Reader<'a> {
    file: FileId,
    text: &'a str,
    offset: usize,
    found: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn node(&mut self, raw: Spanned<Raw>) -> Node {
        let mut span = self.span(&raw.defined);
        let tree = match raw.value {
            Raw::Null => Tree::Null,
            Raw::Bool(value) => Tree::Bool(value),
            Raw::Number(number) => Tree::Number(number),
            Raw::Text(text) => Tree::Text(text),
            Raw::List(list) => {
                let list: Vec<Node> = list.into_iter().map(|value| self.node(value)).collect();
                let end = list.iter().map(|node| node.span.end).fold(span.end, usize::max);
                span.end = self.flow_end(span, end, ']');
                Tree::List(list)
            }
            Raw::Map(entries) => {
                let map = self.map(entries);
                let ends = map.values().map(|entry| entry.node.span.end.max(entry.key.end));
                let end = ends.fold(span.end, usize::max);
                span.end = self.flow_end(span, end, '}');
                Tree::Map(map)
            }
        };
        Node { span, tree }
    }

    fn map(&mut self, entries: Vec<(Spanned<String>, Spanned<Raw>)>) -> Map {
        let mut map = Map::new();
        for (key, value) in entries {
            let span = self.span(&key.defined);
            let node = self.node(value);
            if let Some(first) = map.get(&key.value).map(|entry: &Entry| entry.key) {
                self.found.push(
                    Diagnostic::error(
                        span,
                        format!("the key {} stands twice in this map", quote(&key.value)),
                    )
                    .related(Some(first), "here first")
                    .help("remove one of them"),
                );
                continue;
            }
            map.insert(key.value, Entry { key: span, node });
        }
        map
    }

    fn span(&self, location: &Location) -> Span {
        let span = location.span();
        let (start, len) = match (span.byte_offset(), span.byte_len()) {
            (Some(offset), Some(len)) => (offset as usize, len as usize),
            _ => (self.nth(span.offset() as usize), 1),
        };
        let start = start.min(self.text.len());
        let end = (start + len).min(self.text.len());
        let trimmed = self.text.get(start..end).map_or(end, |text| start + text.trim_end().len());
        Span { file: self.file, start: self.offset + start, end: self.offset + trimmed }
    }

    /// The end of a map or list in brackets: its closing bracket, when it follows its last part.
    fn flow_end(&self, span: Span, end: usize, close: char) -> usize {
        let inside = self.text.get(span.start - self.offset..).unwrap_or_default();
        if !inside.starts_with(['{', '[']) {
            return end;
        }
        let rest = self.text.get(end - self.offset..).unwrap_or_default();
        let gap = rest.len() - rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',').len();
        if rest[gap..].starts_with(close) { end + gap + 1 } else { end }
    }

    /// The byte of the n-th character.
    fn nth(&self, n: usize) -> usize {
        self.text.char_indices().nth(n).map_or(self.text.len(), |(at, _)| at)
    }

    fn syntax_error(&self, error: &Error) -> Diagnostic {
        let mut error = error.without_snippet();
        let outer = error.location();
        while let Error::AliasError { error: inner, .. } = error {
            error = inner.without_snippet();
        }
        let at = outer.or_else(|| error.location()).map(|location| self.span(&location));
        let Some(mut span) = at else { return Diagnostic::error(None, error.to_string()) };
        if span.start == span.end {
            let next = self.text.get(span.start - self.offset..).and_then(|rest| rest.chars().next());
            span.end += next.filter(|c| *c != '\n').map_or(0, char::len_utf8);
        }
        if let Some(variable) = self.bare_variable(span) {
            return Diagnostic::error(variable, "a variable can not stand bare inside `{ }` or `[ ]`").help(
                format!(
                    "quote it: \"{}\"",
                    &self.text[variable.start - self.offset..variable.end - self.offset]
                ),
            );
        }
        // the parser points behind a tag and behind the line that starts a document
        let before = &self.text[..span.start - self.offset];
        let marker = match error {
            Error::UnsupportedTag { tag, .. } => before.rfind(tag.as_str()).map(|at| (at, tag.len())),
            Error::MultipleDocuments { .. } => before.rfind("\n---").map(|at| (at + 1, 3)),
            Error::UnknownAnchor { .. } => {
                let word = self.text[before.len()..].split([' ', ',', ']', '}', '\n', '\r']).next();
                word.map(|word| (before.len(), word.len()))
            }
            _ => None,
        };
        if let Some((start, length)) = marker {
            span = Span { start: self.offset + start, end: self.offset + start + length, ..span };
        }
        explain(error, span)
    }

    /// The `${..}` whose brace the parser stumbled over.
    fn bare_variable(&self, at: Span) -> Option<Span> {
        let brace = at.start - self.offset;
        let start = self.text.get(..brace)?.strip_suffix('$')?.len();
        let rest = &self.text[brace..];
        let length = rest.strip_prefix('{')?.find('}').map_or(rest.lines().next()?.len(), |end| end + 2);
        Some(Span { start: self.offset + start, end: self.offset + brace + length, ..at })
    }
}

/// A parser's error in our words.
fn explain(error: &Error, span: Span) -> Diagnostic {
    let plain = |message: &str| Diagnostic::error(span, message);
    match error {
        Error::MultipleDocuments { .. } => {
            plain("a second document starts here").help("put each scenario into a file of its own")
        }
        Error::UnknownAnchor { .. } => {
            plain("this alias names no anchor").help("an anchor `&name` stands before its aliases `*name`")
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => plain("this alias contains itself"),
        Error::NonFiniteFloat { value, .. } => plain(&format!("{} is not a finite number", quote(value))),
        Error::UnsupportedTag { tag, .. } => {
            plain(&format!("the tag {} means nothing here", quote(tag))).help("remove the tag")
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => too_deep(span),
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            plain("the file grows too large when its aliases are expanded")
                .note(format!("a scenario may hold {MAX_NODES} values"))
        }
        Error::MergeValueNotMapOrSeqOfMaps { .. } => plain("`<<` takes a map or a list of maps"),
        Error::Unexpected { expected, .. } if expected.contains("key") || expected.contains("string") => {
            plain("a key must be a text")
        }
        _ => explain_scan(&error.to_string(), span),
    }
}

/// Nesting beyond what any scenario needs.
pub fn too_deep(span: Span) -> Diagnostic {
    Diagnostic::error(span, format!("values nest deeper than {MAX_DEPTH} levels"))
}

fn explain_scan(message: &str, span: Span) -> Diagnostic {
    let message = message.rfind(" at line ").map_or(message, |at| &message[..at]);
    let known: [(&str, &str, &str); 10] = [
        ("tabs disallowed", "YAML is not indented with tabs", "use spaces"),
        ("recursion limit", "", ""),
        (
            "mapping values are not allowed",
            "a `:` can not stand here",
            "check the indentation; quote the value if the colon belongs to it",
        ),
        ("illegal placement of ':'", "a `:` can not stand here", "is a `]` or `}` missing before it?"),
        (
            "did not find expected ',' or '}'",
            "expected `,` or `}`",
            "is a `}` missing on a line above, or does a value need quotes?",
        ),
        (
            "expected ',' or ']'",
            "expected `,` or `]`",
            "is a `]` missing on a line above, or does a value need quotes?",
        ),
        ("did not find expected key", "expected a key", "check the indentation"),
        ("unclosed bracket", "this bracket is never closed", "add the closing bracket"),
        ("unclosed quote", "this quote is never closed", "add the closing quote"),
        (
            "unknown escape character",
            "unknown escape in a double-quoted text",
            "write `\\\\` for a backslash, or use single quotes",
        ),
    ];
    for (pattern, ours, help) in known {
        if message.contains(pattern) {
            return if ours.is_empty() { too_deep(span) } else { Diagnostic::error(span, ours).help(help) };
        }
    }
    if message.starts_with("unexpected character") {
        return Diagnostic::error(span, "this character can not start a value").help("quote the value");
    }
    Diagnostic::error(span, format!("not YAML: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::source::{Origin, Source, Sources};

    fn json(text: &str) -> serde_json::Value {
        let mut found = Vec::new();
        let mut sources = Sources::default();
        let file = sources.add(Source {
            name: "x".into(),
            text: text.into(),
            origin: Origin::File,
            folder: String::new(),
        });
        let node = read(file, text, 0, &mut found).expect("valid YAML");
        assert_eq!(found, []);
        node.to_json()
    }

    #[test]
    fn scalars_are_what_yaml_1_2_says_and_odd_numbers_stay_texts() {
        assert_eq!(
            json("[no, on, 017, 1_000, yes, true, ~, 0x10, 1.5, -3, '1', 10ms]"),
            serde_json::json!(["no", "on", "017", "1_000", "yes", true, null, 16, 1.5, -3, "1", "10ms"])
        );
    }

    #[test]
    fn merge_keys_and_anchors_expand() {
        assert_eq!(
            json("a: &x { b: 1, c: 2 }\nd: { <<: *x, c: 3 }\n"),
            serde_json::json!({"a": {"b": 1, "c": 2}, "d": {"c": 3, "b": 1}})
        );
    }
}

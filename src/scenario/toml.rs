//! TOML into the tree.

use serde_json::Number;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, quote};
use super::node::{Entry, Map, Node, Tree};
use super::source::{FileId, Span};
use super::yaml::{MAX_DEPTH, too_deep};

/// Reads a text. All syntax errors are reported at once; with one, there is no tree.
pub fn read(file: FileId, text: &str, found: &mut Vec<Diagnostic>) -> Option<Node> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let clean = errors.is_empty();
    for error in errors {
        let range = error.span().unwrap_or(0..0);
        found.push(explain(error.message(), Span { file, start: range.start, end: range.end }, text));
    }
    if !clean {
        return None;
    }
    let before = found.len();
    let mut reader = Reader { file, found };
    let node =
        Node { span: reader.span(&(0..text.len())), tree: Tree::Map(reader.table(table.get_ref(), 0)) };
    (found.len() == before).then_some(node)
}

fn explain(message: &str, span: Span, text: &str) -> Diagnostic {
    let written = text.get(span.start..span.end).unwrap_or("");
    if message.starts_with("duplicate key") {
        return Diagnostic::error(span, format!("the key {} stands twice in this table", quote(written)))
            .help("remove one of them");
    }
    if message.contains("recurs") {
        return too_deep(span);
    }
    if message.starts_with("string values must be quoted") {
        return Diagnostic::error(span, "a text must stand in quotes").help(format!("write \"{written}\""));
    }
    Diagnostic::error(span, format!("not TOML: {message}"))
}

struct Reader<'a> {
    file: FileId,
    found: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn span(&self, range: &std::ops::Range<usize>) -> Span {
        Span { file: self.file, start: range.start, end: range.end }
    }

    fn table(&mut self, table: &DeTable<'_>, depth: usize) -> Map {
        table
            .iter()
            .map(|(key, value)| {
                let node = self.node(value, depth + 1);
                (key.get_ref().to_string(), Entry { key: self.span(&key.span()), node })
            })
            .collect()
    }

    fn node(&mut self, value: &Spanned<DeValue<'_>>, depth: usize) -> Node {
        let span = self.span(&value.span());
        if depth > MAX_DEPTH {
            self.found.push(too_deep(span));
            return Node { span, tree: Tree::Null };
        }
        let tree = match value.get_ref() {
            DeValue::Boolean(value) => Tree::Bool(*value),
            DeValue::String(text) => Tree::Text(text.to_string()),
            DeValue::Datetime(date) => Tree::Text(date.to_string()),
            DeValue::Integer(integer) => {
                let number = i64::from_str_radix(integer.as_str(), integer.radix()).map(Number::from);
                let number = number
                    .or_else(|_| u64::from_str_radix(integer.as_str(), integer.radix()).map(Number::from));
                self.number(number.ok(), span, integer.as_str())
            }
            DeValue::Float(float) => {
                let number = float.as_str().parse().ok().and_then(Number::from_f64);
                self.number(number, span, float.as_str())
            }
            DeValue::Array(list) => {
                Tree::List(list.iter().map(|value| self.node(value, depth + 1)).collect())
            }
            DeValue::Table(table) => Tree::Map(self.table(table, depth)),
        };
        Node { span, tree }
    }

    fn number(&mut self, number: Option<Number>, span: Span, written: &str) -> Tree {
        if number.is_none() {
            self.found.push(Diagnostic::error(span, format!("{} is not a number that fits", quote(written))));
        }
        number.map_or(Tree::Null, Tree::Number)
    }
}

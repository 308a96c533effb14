//! `${NAME}` and `${NAME:-default}` in texts. `$${` stands for `${`.

use serde_json::Value;

use super::diagnostic::{Diagnostic, quote};
use super::found::Found;
use super::node::{Node, Tree};
use super::source::{Sources, Span};

/// Replaces the variables in every text of a tree. Keys are left alone.
///
/// A text that is wholly one variable is read again as a truth value or number where it looks like one. A default is
/// taken when the variable is unset or empty, as in a shell.
pub fn replace(tree: &mut Node, env: &dyn Fn(&str) -> Option<String>, sources: &Sources, found: &mut Found) {
    let scripts = scripts(tree);
    tree.walk(&mut |node| {
        let Tree::Text(text) = &node.tree else { return };
        if !text.contains("${") || scripts.contains(&node.span) {
            return;
        }
        match expand(text, env) {
            Ok((text, true)) => node.tree = scalar(text),
            Ok((text, false)) => node.tree = Tree::Text(text),
            Err(problem) => {
                found.push(problem.diagnostic(node.span, sources));
                found.undetermined.push(node.span);
            }
        }
    });
}

/// Where scripts stand: `${` means something of its own there.
fn scripts(tree: &Node) -> Vec<Span> {
    let top = ["hooks", "defaults"].into_iter().filter_map(|key| tree.get(key)).map(|entry| &entry.node);
    let workloads = tree.get("workloads").and_then(|entry| entry.node.map());
    let workloads = workloads.into_iter().flat_map(|map| map.values().map(|entry| &entry.node));
    let owners = top.chain(workloads);
    let hooks = owners.map(|node| node.get("hooks").map_or(node, |entry| &entry.node));
    hooks.filter_map(|node| node.get("inline")).map(|entry| entry.node.span).collect()
}

/// A value as it would be without quotes; numbers are JSON's, so `017` and `1_000` stay texts.
fn scalar(text: String) -> Tree {
    match serde_json::from_str(&text) {
        Ok(Value::Bool(value)) => Tree::Bool(value),
        Ok(Value::Number(number)) => Tree::Number(number),
        _ => Tree::Text(text),
    }
}

#[derive(Debug, PartialEq)]
enum Problem {
    Unset { name: String, written: String },
    NoName { written: String },
    Open { written: String },
}

impl Problem {
    fn diagnostic(self, at: Span, sources: &Sources) -> Diagnostic {
        let (Self::Unset { written, .. } | Self::NoName { written } | Self::Open { written }) = &self;
        let span = sources.text(at).find(written).map_or(at, |start| at.part(start..start + written.len()));
        match &self {
            Self::Unset { name, .. } => Diagnostic::error(span, format!("the variable `{name}` is not set"))
                .help(format!("set it in the environment, or give a default: `${{{name}:-value}}`")),
            Self::NoName { written } => {
                Diagnostic::error(span, format!("{} names no variable", quote(written)))
                    .help("write `${NAME}` or `${NAME:-default}`; a name is made of letters, digits and `_`")
                    .help("for the characters themselves write `$${`")
            }
            Self::Open { .. } => Diagnostic::error(span, "this `${` is never closed")
                .help("add the `}`; for the characters themselves write `$${`"),
        }
    }
}

/// The text with its variables replaced, and whether it was wholly one variable.
fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<(String, bool), Problem> {
    let mut out = String::new();
    let mut rest = text;
    let mut whole = false;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let body = &rest[at + 2..];
        let close = body.find('}').ok_or_else(|| Problem::Open { written: rest[at..].to_owned() })?;
        let written = &rest[at..at + 3 + close];
        out.push_str(&value(&body[..close], written, env)?);
        whole = written.len() == text.len();
        rest = &body[close + 1..];
    }
    out.push_str(rest);
    Ok((out, whole))
}

fn value(inside: &str, written: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Problem> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let valid = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !valid {
        return Err(Problem::NoName { written: written.to_owned() });
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Problem::Unset { name: name.to_owned(), written: written.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<(String, bool), Problem> {
        expand(text, &|name| match name {
            "X" => Some("7".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn variables_defaults_and_the_literal() {
        let ok = |text: &str, whole| Ok((text.to_owned(), whole));
        assert_eq!(expanded("${X}"), ok("7", true));
        assert_eq!(expanded("a${X}b${X}"), ok("a7b7", false));
        assert_eq!(expanded("${NO:-http://h/v1}"), ok("http://h/v1", true));
        assert_eq!(expanded("${EMPTY:-d}"), ok("d", true));
        assert_eq!(expanded("${EMPTY}"), ok("", true));
        assert_eq!(expanded("$${X} costs $5"), ok("${X} costs $5", false));
        assert_eq!(expanded("${NO:-}"), ok("", true));
        assert!(matches!(expanded("${NO}"), Err(Problem::Unset { .. })));
        assert!(matches!(expanded("${X-1}"), Err(Problem::NoName { .. })));
        assert!(matches!(expanded("${X"), Err(Problem::Open { .. })));
    }

    #[test]
    fn a_whole_variable_is_read_again() {
        assert_eq!(scalar("4".into()), Tree::Number(4.into()));
        assert_eq!(scalar("true".into()), Tree::Bool(true));
        for text in ["017", "1_000", "null", "[1]", "10ms", "", "no"] {
            assert_eq!(scalar(text.into()), Tree::Text(text.into()));
        }
    }
}

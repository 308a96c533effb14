//! One JSON array of `{ severity, message, file, line, column, end_line, end_column, label, notes, help, related }`.

use serde_json::{Value, json};

use crate::scenario::{Diagnostic, Severity, Sources, Span};

/// Lines and columns are 1-based; columns count characters, and an end is just after the last one. What stands nowhere
/// has `null` for them; a place in an argument of the command line has `null` for `file`.
pub fn render(all: &[(&Sources, &[Diagnostic])]) -> String {
    let list: Vec<Value> =
        all.iter().flat_map(|(sources, found)| found.iter().map(|one| entry(sources, one))).collect();
    let mut text = serde_json::to_string_pretty(&list).unwrap_or_else(|_| "[]".into());
    text.push('\n');
    text
}

fn entry(sources: &Sources, diagnostic: &Diagnostic) -> Value {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut entry = json!({ "severity": severity, "message": diagnostic.message });
    place(&mut entry, sources, diagnostic.span);
    let related: Vec<Value> = diagnostic
        .related
        .iter()
        .map(|label| {
            let mut entry = json!({ "message": label.text });
            place(&mut entry, sources, Some(label.span));
            entry
        })
        .collect();
    entry["label"] = json!(diagnostic.label);
    entry["notes"] = json!(diagnostic.notes);
    entry["help"] = json!(diagnostic.help);
    entry["related"] = json!(related);
    entry
}

fn place(entry: &mut Value, sources: &Sources, span: Option<Span>) {
    let place = span.map(|span| sources.place(span));
    let number = |get: fn(&crate::scenario::Place) -> u32| json!(place.as_ref().map(get));
    entry["file"] = json!(place.as_ref().and_then(|place| place.file.clone()));
    entry["line"] = number(|place| place.line);
    entry["column"] = number(|place| place.column);
    entry["end_line"] = number(|place| place.end_line);
    entry["end_column"] = number(|place| place.end_column);
}

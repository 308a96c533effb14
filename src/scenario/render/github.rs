//! GitHub's workflow commands: `::error file=..,line=..,col=..::message`, one line each.

use std::fmt::Write as _;

use crate::scenario::{Diagnostic, Severity, Sources};

/// Label and help follow the message; GitHub shows one text.
pub fn render(sources: &Sources, diagnostics: &[Diagnostic]) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        let command = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let place = diagnostic.span.map(|span| sources.place(span));
        let mut properties = String::new();
        if let Some((place, file)) = place.as_ref().and_then(|place| Some((place, place.file.as_ref()?))) {
            let _ = write!(
                properties,
                " file={},line={},endLine={},col={}",
                property(file),
                place.line,
                place.end_line,
                place.column
            );
            if place.line == place.end_line {
                let _ = write!(properties, ",endColumn={}", place.end_column);
            }
        }
        let mut message = diagnostic.message.clone();
        if let Some(label) = &diagnostic.label {
            let _ = write!(message, ": {label}");
        }
        for help in diagnostic.notes.iter().chain(&diagnostic.help) {
            let _ = write!(message, "\n{help}");
        }
        let _ = writeln!(out, "::{command}{properties}::{}", escape(&message));
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    escape(text).replace(':', "%3A").replace(',', "%2C")
}

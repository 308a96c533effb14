//! What is wrong with a scenario, where, and what to do about it.

use std::collections::HashSet;

use super::source::Span;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The scenario can not be used.
    Error,
    /// It can, and something about it deserves a look.
    Warning,
}

/// A second place that explains the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What is there.
    pub text: String,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: one lower-case sentence.
    pub message: String,
    /// Where; `None` when it is nowhere in a text.
    pub span: Option<Span>,
    /// A few words at that place.
    pub label: Option<String>,
    /// Further places.
    pub related: Vec<Label>,
    /// What else to know.
    pub notes: Vec<String>,
    /// What to do.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(span: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            span: span.into(),
            label: None,
            related: Vec::new(),
            notes: Vec::new(),
            help: Vec::new(),
        }
    }

    /// A warning at a place.
    pub fn warning(span: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// With a few words at the place.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        self.label = Some(text.into());
        self
    }

    /// With a second place.
    #[must_use]
    pub fn related(mut self, span: Option<Span>, text: impl Into<String>) -> Self {
        self.related.extend(span.map(|span| Label { span, text: text.into() }));
        self
    }

    /// With a note.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// With a piece of advice.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// With "did you mean", when one of the candidates is near.
    #[must_use]
    pub fn suggest<'a>(self, wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(wrong, candidates) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }
}

/// The candidate that a word was most likely meant to be; `None` when none is near.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wrong.to_lowercase();
    let limit = (lower.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| {
            let folded = candidate.to_lowercase();
            let distance = strsim::osa_distance(&lower, &folded);
            let part = lower.len() >= 4 && (folded.starts_with(&lower) || lower.starts_with(&folded));
            (if part { distance.min(1) } else { distance }, candidate)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Puts diagnostics into the order of their places and removes those that repeat one at the same place.
pub fn sort(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by_key(|diagnostic| (diagnostic.span, diagnostic.severity));
    let mut seen = HashSet::new();
    diagnostics.retain(|diagnostic| seen.insert((diagnostic.span, diagnostic.message.clone())));
}

/// Quotes what a user wrote, short and with control characters escaped.
pub fn quote(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(60) {
        if c.is_control() { shown.extend(c.escape_debug()) } else { shown.push(c) }
    }
    if text.chars().nth(60).is_some() { format!("`{shown}…`") } else { format!("`{shown}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_slips_and_no_strangers() {
        let keys = ["concurrency", "think_time", "requests", "duration"];
        assert_eq!(nearest("concurency", keys), Some("concurrency"));
        assert_eq!(nearest("Requests", keys), Some("requests"));
        assert_eq!(nearest("request", keys), Some("requests"));
        assert_eq!(nearest("dur", ["dir"]), Some("dir"));
        assert_eq!(nearest("think", keys), Some("think_time"));
        assert_eq!(nearest("users", keys), None);
    }

    #[test]
    fn quotes_escape_control_characters_only() {
        assert_eq!(quote("a\u{1b}[31m日\""), "`a\\u{1b}[31m日\"`");
        assert_eq!(quote(&"x".repeat(70)), format!("`{}…`", "x".repeat(60)));
    }
}

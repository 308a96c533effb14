//! What the steps of a load have found so far.

use super::diagnostic::Diagnostic;
use super::source::Span;

/// The findings, and what later steps must know to report nothing that only follows from an earlier one.
#[derive(Debug, Default)]
pub struct Found {
    /// Everything found.
    pub diagnostics: Vec<Diagnostic>,
    /// Values that an earlier step could not determine.
    pub undetermined: Vec<Span>,
    /// Something that may hold missing keys or names could not be read.
    pub incomplete: bool,
}

impl Found {
    /// Adds a finding.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Whether a value was already reported as undetermined.
    pub fn knows(&self, span: Option<Span>) -> bool {
        span.is_some_and(|span| self.undetermined.contains(&span))
    }
}

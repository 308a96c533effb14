//! What is wrong with a rule's text.

use super::Bytes;

/// One error in the text of a rule or a condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuleError {
    /// The bytes of the text that it is about. Empty at the end of the text when something is missing there.
    pub at: Bytes,
    /// What is wrong, a lower-case fragment.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl RuleError {
    /// An error with a way out.
    pub fn new(at: Bytes, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { at, message: message.into(), help: help.into() }
    }
}

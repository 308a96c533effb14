//! Diagnostics as text: one file per format.

mod github;
mod json;
mod text;

use super::{Diagnostic, Sources};

/// For whom diagnostics are rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Render {
    /// A person: the source's lines with marks under them.
    Text {
        /// With ANSI colours.
        color: bool,
    },
    /// A program: a JSON array.
    Json,
    /// GitHub's annotations.
    Github,
}

/// Renders diagnostics. The result ends with a newline unless it is empty.
pub fn render(sources: &Sources, diagnostics: &[Diagnostic], format: Render) -> String {
    match format {
        Render::Text { color } => text::render(sources, diagnostics, color),
        Render::Json => json::render(&[(sources, diagnostics)]),
        Render::Github => github::render(sources, diagnostics),
    }
}

/// Renders the diagnostics of several files as one JSON array.
pub fn render_json(all: &[(&Sources, &[Diagnostic])]) -> String {
    json::render(all)
}

//! Where prompts come from, read and checked.

use std::sync::Arc;

use super::PromptRecipe;
use crate::sample::Sampler;
use crate::units::Ns;

/// A prompt source made ready.
#[derive(Debug)]
pub(super) enum Source {
    /// Generated text: length, and (tokens, groups) of the shared prefix.
    Synthetic { tokens: Sampler, prefix: Option<(u32, u32)> },
    /// Always the same.
    Text(PromptRecipe),
    /// The rows of a file.
    File(TextRows),
    /// The rows of a trace.
    Trace(TraceRows),
}

/// Prompts of a file; never empty.
#[derive(Debug)]
pub(super) struct TextRows {
    pub(super) rows: Vec<TextRow>,
    pub(super) shuffle: bool,
    pub(super) wrap: bool,
}

/// One prompt of a file.
#[derive(Debug)]
pub(super) struct TextRow {
    pub(super) prompt: PromptRecipe,
    /// Output tokens, where the row gives them.
    pub(super) output_tokens: Option<u32>,
}

/// Requests of a trace in order of time; never empty.
#[derive(Debug)]
pub(super) struct TraceRows {
    pub(super) rows: Vec<TraceRow>,
    /// Tokens in one of the blocks that `ids` name.
    pub(super) block_tokens: u32,
    /// Rows that were left out as too long.
    pub(super) skipped: u64,
}

/// One request of a trace.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TraceRow {
    /// When it arrived, counted from the first row (or the window's start).
    pub(super) at: Ns,
    /// Tokens of the prompt.
    pub(super) prompt: u32,
    /// Tokens of the output.
    pub(super) output: u32,
    /// The ids of its blocks, where the trace names them.
    pub(super) ids: Option<Arc<[u64]>>,
}

impl TraceRows {
    /// The prompt of one row: its blocks where the trace names them, else text of its own.
    pub(super) fn prompt(&self, row: &TraceRow) -> PromptRecipe {
        match &row.ids {
            Some(ids) => PromptRecipe::Blocks {
                tokens: row.prompt,
                block_tokens: self.block_tokens,
                ids: Arc::clone(ids),
            },
            None => PromptRecipe::Synthetic { tokens: row.prompt, prefix: None },
        }
    }
}

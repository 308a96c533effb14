//! Where prompts come from, read and checked.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::config::{FileFields, FileFormat, FilePrompt, Prompt, RowOrder, SyntheticPrompt};
use super::{PlanError, PromptRecipe};
use crate::hook::Fault;
use crate::sample::{BadLaw, FileError, Lines, Sampler, json_fault};
use crate::tokenizer::Tokenizer;
use crate::units::{Ns, TokenCount};

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
    /// Made by this function of the hooks.
    Script(String),
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

/// What is wrong with one part of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The path inside the workload, such as `prompt.path`.
    pub(super) path: String,
    pub(super) message: String,
    pub(super) help: String,
    /// The place in the hooks' script, where it is there.
    pub(super) fault: Option<Box<Fault>>,
}

impl Problem {
    pub(super) fn new(path: impl Into<String>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), help: help.into(), fault: None }
    }

    /// The problem of this workload.
    pub(super) fn of(self, workload: &str) -> PlanError {
        let Self { path, message, help, fault } = self;
        PlanError { workload: workload.to_owned(), path, message, help, fault }
    }

    /// What is wrong in the hooks' script.
    pub(super) fn script(path: impl Into<String>, fault: Fault) -> Self {
        let (message, help) = (fault.message.clone(), fault.help.clone().unwrap_or_default());
        Self { fault: Some(Box::new(fault)), ..Self::new(path, message, help) }
    }

    /// A law that can not be drawn from, at its place.
    pub(super) fn law(path: &str, bad: &BadLaw) -> Self {
        let path = if bad.key.is_empty() { path.to_owned() } else { format!("{path}.{}", bad.key) };
        Self::new(path, bad.message.clone(), bad.help.clone())
    }
}

impl Source {
    /// Reads and checks the prompt source that a scenario names.
    pub(super) fn read(prompt: &Prompt, dir: &Path, tokenizer: &dyn Tokenizer) -> Result<Self, Problem> {
        match prompt {
            Prompt::Synthetic(prompt) => synthetic(prompt, dir),
            Prompt::Text(prompt) => given(&prompt.text, tokenizer)
                .map(Self::Text)
                .map_err(|m| Problem::new("prompt.text", m, "write the prompt that every request sends")),
            Prompt::File(prompt) => file(prompt, dir, tokenizer).map(Self::File).map_err(|error| {
                Problem::new(
                    "prompt.path",
                    error.to_string(),
                    "a prompt file has one JSON object per line, with the prompt as a string",
                )
            }),
            Prompt::Trace(prompt) => super::trace::read(prompt, dir).map(Self::Trace),
            Prompt::Script(prompt) => Ok(Self::Script(prompt.function.clone())),
        }
    }

    /// Whether every row says how long its answer is.
    pub(super) fn gives_lengths(&self) -> bool {
        match self {
            Self::Trace(_) => true,
            Self::File(file) => file.rows.iter().all(|row| row.output_tokens.is_some()),
            Self::Synthetic { .. } | Self::Text(_) | Self::Script(_) => false,
        }
    }

    /// How many requests it has content for, where that is limited.
    pub(super) fn rows(&self) -> Option<u64> {
        match self {
            Self::Trace(trace) => Some(trace.rows.len() as u64),
            Self::File(file) if !file.wrap => Some(file.rows.len() as u64),
            _ => None,
        }
    }
}

fn synthetic(prompt: &SyntheticPrompt, dir: &Path) -> Result<Source, Problem> {
    let tokens = prompt.tokens.sampler(dir).map_err(|bad| Problem::law("prompt.tokens", &bad))?;
    if let Some(prefix) = &prompt.prefix {
        if prefix.tokens.0 == 0 {
            return Err(Problem::new("prompt.prefix.tokens", "a prefix has at least 1 token", "raise it"));
        }
        if prefix.groups == 0 {
            return Err(Problem::new("prompt.prefix.groups", "there is at least 1 group", "raise it"));
        }
        if tokens.least() < f64::from(prefix.tokens.0) {
            let (least, shared) = (tokens.least(), prefix.tokens.0);
            let message = format!("a prompt may be as short as {least} tokens, but its prefix has {shared}");
            let help =
                format!("set the smallest `prompt.tokens` to {shared} or more; the prefix is part of it");
            return Err(Problem::new("prompt.prefix.tokens", message, help));
        }
    }
    let prefix = prompt.prefix.as_ref().map(|prefix| (prefix.tokens.0, prefix.groups));
    Ok(Source::Synthetic { tokens, prefix })
}

/// The recipe of a given text, which must have tokens, and not too many.
fn given(text: &str, tokenizer: &dyn Tokenizer) -> Result<PromptRecipe, String> {
    let prompt = PromptRecipe::text(Arc::from(text), tokenizer);
    match prompt.tokens() {
        0 => Err("the prompt is empty".into()),
        1..=TokenCount::MAX => Ok(prompt),
        tokens => Err(format!("the prompt has {tokens} tokens, more than {}", TokenCount::MAX)),
    }
}

fn file(prompt: &FilePrompt, dir: &Path, tokenizer: &dyn Tokenizer) -> Result<TextRows, FileError> {
    let FileFormat::Jsonl = prompt.format;
    let fields = prompt.fields.clone().unwrap_or_default();
    let mut lines = Lines::open(dir, &prompt.path)?;
    let mut rows = Vec::new();
    while let Some((_, line)) = lines.read()? {
        match text_row(line, &fields, tokenizer) {
            Ok(row) => rows.push(row),
            Err(message) => return Err(lines.error(message)),
        }
    }
    if rows.is_empty() {
        return Err(lines.file_error("has no rows"));
    }
    Ok(TextRows { rows, shuffle: prompt.order == RowOrder::Shuffle, wrap: prompt.wrap })
}

fn text_row(line: &str, fields: &FileFields, tokenizer: &dyn Tokenizer) -> Result<TextRow, String> {
    let row: Value =
        serde_json::from_str(line).map_err(|error| format!("is not JSON: {}", json_fault(&error)))?;
    let text = row.get(&fields.prompt).ok_or_else(|| format!("has no `{}`", fields.prompt))?;
    let text = text.as_str().ok_or_else(|| format!("`{}` is not a string", fields.prompt))?;
    let output_tokens = match fields.output_tokens.as_ref().and_then(|name| Some((name, row.get(name)?))) {
        None => None,
        Some((name, value)) => {
            let tokens = value.as_u64().and_then(|tokens| u32::try_from(tokens).ok());
            let tokens = tokens.filter(|tokens| (1..=TokenCount::MAX).contains(tokens));
            Some(tokens.ok_or_else(|| format!("`{name}` is {value}, which is no number of tokens"))?)
        }
    };
    Ok(TextRow { prompt: given(text, tokenizer)?, output_tokens })
}

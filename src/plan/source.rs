//! Where prompts come from, read and checked.

use std::path::Path;
use std::sync::Arc;

use super::chat::Content;
use super::config::{MixPrompt, Output, Prompt, SyntheticPrompt};
use super::corpus::Corpus;
use super::generator::OutputLength;
use super::rows::{self, Dialogue, FileSource, Playing, Rows, TextRow};
use super::session::{self, Sessions};
use super::{PlanError, PromptRecipe, Recorded};
use crate::hook::Fault;
use crate::sample::{BadLaw, FileError, Sampler};
use crate::tokenizer::Tokenizer;
use crate::units::{Ns, TokenCount};

/// A prompt source made ready.
#[derive(Debug)]
pub(super) enum Source {
    /// Generated text: length, and (tokens, groups) of the shared prefix.
    Synthetic { tokens: Sampler, prefix: Option<(u32, u32)> },
    /// Always the same.
    Text(PromptRecipe),
    /// The rows of a file, one request each.
    File(Rows<TextRow>),
    /// The conversations of a file, played as sessions.
    Dialogues(Rows<Dialogue>, Playing),
    /// Passages of a text, and how long they are.
    Corpus(Corpus, Sampler),
    /// Generated conversations.
    Sessions(Sessions),
    /// One of several, drawn for each request; never empty.
    Mix(Vec<MixPart>),
    /// The rows of a trace.
    Trace(TraceRows),
    /// Made by this function of the hooks.
    Script(String),
}

/// One part of a mixture.
#[derive(Debug)]
pub(super) struct MixPart {
    /// The sum of the weights up to this part, of all parts together.
    pub(super) until: f64,
    pub(super) source: Source,
    /// `None` where the workload's own output holds.
    pub(super) output: Option<OutputLength>,
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
    /// When its answer came, where the trace tells it.
    pub(super) recorded: Option<Recorded>,
    /// The later turns of the session that it begins; `at` is how long each waits for the end of the one before it.
    pub(super) later: Vec<TraceRow>,
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

    /// The same as a message of a conversation. `seed` is that of its request.
    pub(super) fn message(&self, row: &TraceRow, seed: u64) -> Content {
        let tokens = row.prompt;
        match &row.ids {
            Some(ids) => Content::Blocks { tokens, block_tokens: self.block_tokens, ids: Arc::clone(ids) },
            None => Content::Synthetic { tokens, seed },
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
    /// `output` is what the workload says about answers.
    pub(super) fn read(
        prompt: &Prompt,
        output: Option<&Output>,
        dir: &Path,
        tokenizer: &dyn Tokenizer,
    ) -> Result<Self, Problem> {
        match prompt {
            Prompt::Synthetic(prompt) => synthetic(prompt, dir),
            Prompt::Text(prompt) => given(&prompt.text, tokenizer)
                .map(Self::Text)
                .map_err(|m| Problem::new("prompt.text", m, "write the prompt that every request sends")),
            Prompt::File(prompt) => rows::read(prompt, output, dir, tokenizer).map(|file| match file {
                FileSource::Single(rows) => Self::File(rows),
                FileSource::Sessions(rows, playing) => Self::Dialogues(rows, playing),
            }),
            Prompt::Corpus(prompt) => {
                let tokens = prompt.tokens.sampler(dir).map_err(|bad| Problem::law("prompt.tokens", &bad))?;
                let at_path = |error: FileError| {
                    Problem::new("prompt.path", error.to_string(), "a corpus is a text file in UTF-8")
                };
                let corpus = Corpus::read(dir, &prompt.path, tokenizer).map_err(at_path)?;
                let (least, size) = (tokens.least(), corpus.tokens());
                if least > size as f64 {
                    let message = format!("a prompt has at least {least} tokens, but the text has {size}");
                    return Err(Problem::new("prompt.tokens", message, "lower it, or name a longer text"));
                }
                Ok(Self::Corpus(corpus, tokens))
            }
            Prompt::Sessions(prompt) => session::read(prompt, dir).map(Self::Sessions),
            Prompt::Mix(prompt) => mix(prompt, output, dir, tokenizer),
            Prompt::Trace(prompt) => super::trace::read(prompt, dir).map(Self::Trace),
            Prompt::Script(prompt) => Ok(Self::Script(prompt.function.clone())),
        }
    }

    /// Whether every row says how long its answer is.
    pub(super) fn gives_lengths(&self) -> bool {
        match self {
            Self::Trace(_) => true,
            Self::File(file) => file.lacking.is_none(),
            Self::Dialogues(file, _) => file.lacking.is_none(),
            Self::Mix(parts) => parts.iter().all(|part| part.output.is_some() || part.source.gives_lengths()),
            Self::Synthetic { .. }
            | Self::Text(_)
            | Self::Corpus(..)
            | Self::Sessions(_)
            | Self::Script(_) => false,
        }
    }

    /// The row of a file that does not say how long its answer is, while others may.
    pub(super) fn lacking(&self) -> Option<&FileError> {
        match self {
            Self::File(file) => file.lacking.as_ref(),
            Self::Dialogues(file, _) => file.lacking.as_ref(),
            Self::Mix(parts) => {
                parts.iter().filter(|part| part.output.is_none()).find_map(|part| part.source.lacking())
            }
            _ => None,
        }
    }

    /// Whether loads count sessions.
    pub(super) fn is_sessions(&self) -> bool {
        match self {
            Self::Sessions(_) | Self::Dialogues(..) => true,
            Self::Trace(trace) => trace.rows.iter().any(|row| !row.later.is_empty()),
            _ => false,
        }
    }

    /// Rows that were left out.
    pub(super) fn skipped(&self) -> u64 {
        match self {
            Self::Trace(trace) => trace.skipped,
            Self::File(file) => file.skipped,
            Self::Dialogues(file, _) => file.skipped,
            Self::Mix(parts) => parts.iter().map(|part| part.source.skipped()).sum(),
            _ => 0,
        }
    }

    /// How many requests (or sessions) it has content for, where that is limited.
    pub(super) fn rows(&self) -> Option<u64> {
        match self {
            Self::Trace(trace) => Some(trace.rows.len() as u64),
            Self::File(file) if !file.wrap => Some(file.all.len() as u64),
            Self::Dialogues(file, _) if !file.wrap => Some(file.all.len() as u64),
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

fn mix(
    prompt: &MixPrompt,
    output: Option<&Output>,
    dir: &Path,
    tokenizer: &dyn Tokenizer,
) -> Result<Source, Problem> {
    let mut parts: Vec<MixPart> = Vec::with_capacity(prompt.parts.len());
    for (at, part) in prompt.parts.iter().enumerate() {
        let within =
            |problem: Problem| Problem { path: format!("prompt.parts.{at}.{}", problem.path), ..problem };
        if !(part.weight > 0.0 && part.weight.is_finite()) {
            let message = format!("a weight of {} is not above 0", part.weight);
            let path = format!("prompt.parts.{at}.weight");
            return Err(Problem::new(path, message, "raise it, or remove the part"));
        }
        let own = part.output.as_ref();
        let source = Source::read(&part.prompt.whole(), own.or(output), dir, tokenizer).map_err(within)?;
        if source.is_sessions() {
            let message = "a part of a mixture is one request, not a session";
            let help = "remove `sessions`, or make it a workload of its own";
            return Err(Problem::new(format!("prompt.parts.{at}.prompt.sessions"), message, help));
        }
        if source.rows().is_some() {
            let message = "a file in a mixture starts again when its rows are used";
            let path = format!("prompt.parts.{at}.prompt.wrap");
            return Err(Problem::new(path, message, "remove `wrap: false`"));
        }
        let until = parts.last().map_or(0.0, |last| last.until) + part.weight;
        let output = own.map(|output| OutputLength::read(output, dir)).transpose().map_err(within)?;
        parts.push(MixPart { until, source, output });
    }
    if parts.is_empty() {
        return Err(Problem::new("prompt.parts", "the mixture has no part", "add one"));
    }
    Ok(Source::Mix(parts))
}

/// The recipe of a given text, which must have tokens, and not too many.
pub(super) fn given(text: &str, tokenizer: &dyn Tokenizer) -> Result<PromptRecipe, String> {
    let prompt = PromptRecipe::text(Arc::from(text), tokenizer);
    match prompt.tokens() {
        0 => Err("the prompt is empty".into()),
        1..=TokenCount::MAX => Ok(prompt),
        tokens => Err(format!("the prompt has {tokens} tokens, more than {}", TokenCount::MAX)),
    }
}

//! The rows of prompt files: single requests and whole conversations.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::PromptRecipe;
use super::chat::{Body, Content, Message, Role};
use super::config::{FileFields, FileFormat, FilePrompt, History, Output, RowOrder};
use super::source::{Problem, given};
use crate::sample::{FileError, JsonRows, Sampler};
use crate::tokenizer::Tokenizer;
use crate::units::TokenCount;

/// The rows of a file; never empty.
#[derive(Debug)]
pub(super) struct Rows<T> {
    pub(super) all: Vec<T>,
    pub(super) shuffle: bool,
    pub(super) wrap: bool,
    /// Rows that were left out.
    pub(super) skipped: u64,
    /// The first row that does not say how long its answer is.
    pub(super) lacking: Option<FileError>,
}

/// How long the answer to a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length {
    pub(super) tokens: u32,
    pub(super) forced: bool,
}

/// One request of a file.
#[derive(Debug)]
pub(super) struct TextRow {
    pub(super) prompt: PromptRecipe,
    /// The answer's length, where the row gives it.
    pub(super) output: Option<Length>,
}

/// One conversation of a file; it has at least one turn.
#[derive(Debug)]
pub(super) struct Dialogue {
    pub(super) turns: Vec<DialogueTurn>,
    pub(super) body: Option<Body>,
}

/// One turn of a conversation.
#[derive(Debug)]
pub(super) struct DialogueTurn {
    /// What is new in it.
    pub(super) messages: Vec<Message>,
    /// What the file says was answered.
    pub(super) answer: Option<Message>,
    /// The answer's length, where the file gives it.
    pub(super) output: Option<Length>,
}

/// How the conversations of a file are played.
#[derive(Debug)]
pub(super) struct Playing {
    pub(super) think: Option<Sampler>,
    pub(super) history: History,
}

/// What a prompt file comes to.
#[derive(Debug)]
pub(super) enum FileSource {
    Single(Rows<TextRow>),
    Sessions(Rows<Dialogue>, Playing),
}

/// Reads the prompt file that a scenario names. `output` is the workload's.
pub(super) fn read(
    prompt: &FilePrompt,
    output: Option<&Output>,
    dir: &Path,
    tokenizer: &dyn Tokenizer,
) -> Result<FileSource, Problem> {
    check_options(prompt)?;
    let mut rows = JsonRows::open(dir, &prompt.path).map_err(|error| at_path(prompt, &error))?;
    let reader = Reader { prompt, output, tokenizer };
    let error = |error: FileError| at_path(prompt, &error);
    let Some(sessions) = &prompt.sessions else {
        return reader.all(&mut rows, |row| reader.single(row)).map(FileSource::Single).map_err(error);
    };
    let think = sessions.think_time.as_ref().map(|time| time.sampler(dir)).transpose();
    let playing = Playing {
        think: think.map_err(|bad| Problem::law("prompt.sessions.think_time", &bad))?,
        history: sessions.history,
    };
    let most = sessions.max_turns.map_or(usize::MAX, |most| most as usize);
    let dialogues = reader.all(&mut rows, |row| reader.dialogue(row, most)).map_err(error)?;
    Ok(FileSource::Sessions(dialogues, playing))
}

fn at_path(prompt: &FilePrompt, error: &FileError) -> Problem {
    let help = match prompt.format {
        FileFormat::Jsonl => "a prompt file has one JSON object per line, with the prompt as a string",
        FileFormat::Openai => "each line is the body of a chat completion request, with its `messages`",
        FileFormat::Sharegpt => {
            "a ShareGPT file is an array of `{conversations: [{from: human, value: ..}, {from: gpt, value: ..}]}`"
        }
        FileFormat::Vllm => "each line is `{\"prompt\": \"..\", \"output_tokens\": 128}`",
    };
    Problem::new("prompt.path", error.to_string(), help)
}

/// Options that the format does not have.
fn check_options(prompt: &FilePrompt) -> Result<(), Problem> {
    if prompt.fields.is_some() && prompt.format != FileFormat::Jsonl {
        let message = "`fields` is for `format: jsonl`; this format has its own names";
        return Err(Problem::new("prompt.fields", message, "remove `fields`"));
    }
    if prompt.sessions.is_some() && matches!(prompt.format, FileFormat::Jsonl | FileFormat::Vllm) {
        let message = "the rows of this format are single prompts, not conversations";
        return Err(Problem::new(
            "prompt.sessions",
            message,
            "remove `sessions`, or use `openai` or `sharegpt`",
        ));
    }
    Ok(())
}

struct Reader<'a> {
    prompt: &'a FilePrompt,
    output: Option<&'a Output>,
    tokenizer: &'a dyn Tokenizer,
}

/// A chat completion request: its messages, its further keys, and the limit on its answer.
type Request = (Vec<Said>, Option<Body>, Option<Length>);

/// A message with the place where a turn may end.
struct Said {
    message: Message,
    by_model: bool,
}

impl Reader<'_> {
    /// Reads all rows; a reader that answers `None` leaves a row out.
    fn all<T: HasLengths>(
        &self,
        rows: &mut JsonRows,
        one: impl Fn(Value) -> Result<Option<T>, String>,
    ) -> Result<Rows<T>, FileError> {
        let mut read = Rows {
            all: Vec::new(),
            shuffle: self.prompt.order == RowOrder::Shuffle,
            wrap: self.prompt.wrap,
            skipped: 0,
            lacking: None,
        };
        let limit = self.prompt.limit.unwrap_or(u64::MAX);
        while (read.all.len() as u64) < limit
            && let Some(value) = rows.read()?
        {
            match one(value).map_err(|message| rows.error(message))? {
                Some(row) => {
                    if read.lacking.is_none() && !row.has_lengths() {
                        read.lacking = Some(
                            rows.error("does not say how long its answer is, and neither does `output`"),
                        );
                    }
                    read.all.push(row);
                }
                None => read.skipped += 1,
            }
        }
        if read.all.is_empty() {
            let message = match read.skipped {
                0 => "has no rows".to_owned(),
                skipped => format!("has no rows to send; {skipped} have no question with an answer"),
            };
            return Err(rows.file_error(message));
        }
        Ok(read)
    }

    fn single(&self, row: Value) -> Result<Option<TextRow>, String> {
        match self.prompt.format {
            FileFormat::Jsonl => {
                let fields = self.prompt.fields.clone().unwrap_or_default();
                let forced = self.output.is_none_or(|output| output.max_tokens.is_none());
                text_row(&row, &fields, forced, self.tokenizer).map(Some)
            }
            FileFormat::Vllm => {
                let fields =
                    FileFields { output_tokens: Some("output_tokens".into()), ..FileFields::default() };
                let mut row = text_row(&row, &fields, true, self.tokenizer)?;
                row.output = row.output.filter(|_| self.output.is_none());
                Ok(Some(row))
            }
            FileFormat::Openai => {
                let (said, body, output) = self.request(row)?;
                let messages: Vec<Message> = said.into_iter().map(|said| said.message).collect();
                let prompt = self.chat(messages, body)?;
                Ok(Some(TextRow { prompt, output }))
            }
            FileFormat::Sharegpt => {
                let mut turns = self.turns(conversation(&row, self.tokenizer)?, 1);
                let Some(turn) = turns.pop().filter(|turn| turn.answer.is_some()) else { return Ok(None) };
                let prompt = self.chat(turn.messages, None)?;
                Ok(Some(TextRow { prompt, output: turn.output }))
            }
        }
    }

    fn dialogue(&self, row: Value, most: usize) -> Result<Option<Dialogue>, String> {
        let (turns, body) = if self.prompt.format == FileFormat::Openai {
            let (said, body, output) = self.request(row)?;
            let mut turns = self.turns(said, most);
            // The row's own limit holds for each of its answers.
            for turn in &mut turns {
                turn.output = output.or(turn.output);
            }
            (turns, body)
        } else {
            let turns = self.turns(conversation(&row, self.tokenizer)?, most);
            // What nobody answered in the recording has no length of its own, and is left out where no `output` gives one.
            let keep = |turn: &DialogueTurn| turn.answer.is_some() || self.output.is_some();
            (turns.into_iter().filter(keep).collect(), None)
        };
        if turns.is_empty() {
            return if self.prompt.format == FileFormat::Openai {
                Err("has no message that a model could answer".into())
            } else {
                Ok(None)
            };
        }
        self.fits(turns.iter().flat_map(|turn| turn.messages.iter().chain(&turn.answer)))?;
        if turns[0].messages.iter().all(|message| message.content.tokens() == 0) {
            return Err("the first turn has no text".into());
        }
        Ok(Some(Dialogue { turns, body }))
    }

    /// Cuts a conversation behind each answer of the model, at most `most` times. Answers before the first message of
    /// anybody else start nothing and stay in front.
    fn turns(&self, said: Vec<Said>, most: usize) -> Vec<DialogueTurn> {
        let mut turns: Vec<DialogueTurn> = Vec::new();
        let mut messages = Vec::new();
        for Said { message, by_model } in said {
            let is_answer =
                by_model && messages.iter().any(|m: &Message| matches!(m.role, Role::User | Role::Tool));
            if !is_answer {
                messages.push(message);
                continue;
            }
            let tokens = message.content.tokens();
            let output = (tokens > 0 && self.output.is_none()).then_some(Length { tokens, forced: true });
            turns.push(DialogueTurn {
                messages: std::mem::take(&mut messages),
                answer: Some(message),
                output,
            });
            if turns.len() == most {
                return turns;
            }
        }
        if messages.iter().any(|message| matches!(message.role, Role::User | Role::Tool)) {
            turns.push(DialogueTurn { messages, answer: None, output: None });
        }
        turns
    }

    fn chat(&self, messages: Vec<Message>, body: Option<Body>) -> Result<PromptRecipe, String> {
        self.fits(messages.iter())?;
        let prompt = PromptRecipe::chat(messages.into(), body);
        if prompt.tokens() == 0 { Err("the prompt has no text".into()) } else { Ok(prompt) }
    }

    #[expect(clippy::unused_self, reason = "a rule of the rows, beside the others")]
    fn fits<'m>(&self, messages: impl Iterator<Item = &'m Message>) -> Result<(), String> {
        let tokens: u64 = messages.map(|message| u64::from(message.content.tokens())).sum();
        if tokens <= u64::from(TokenCount::MAX) {
            return Ok(());
        }
        Err(format!("the conversation has {tokens} tokens, more than {}", TokenCount::MAX))
    }

    /// Takes a chat completion request apart.
    fn request(&self, mut row: Value) -> Result<Request, String> {
        // A line of the Batch API has the request inside.
        let mut row = row.get_mut("body").map(Value::take).filter(Value::is_object).unwrap_or(row);
        let Some(body) = row.as_object_mut() else { return Err("is no JSON object".into()) };
        let Some(messages) = body.shift_remove("messages") else { return Err("has no `messages`".into()) };
        let Value::Array(messages) = messages else { return Err("`messages` is no list".into()) };
        let said = messages
            .into_iter()
            .enumerate()
            .map(|(at, message)| self.message(message).map_err(|fault| format!("`messages[{at}]` {fault}")));
        let said: Vec<Said> = said.collect::<Result<_, _>>()?;
        if said.is_empty() {
            return Err("`messages` is empty".into());
        }
        let mut limit = None;
        for key in ["max_completion_tokens", "max_tokens"] {
            if let Some(value) = body.shift_remove(key) {
                limit = Some(tokens_of(key, &value)?);
            }
        }
        for key in ["model", "stream", "stream_options"] {
            body.shift_remove(key);
        }
        if body.contains_key("response_format") && self.output.is_some_and(|output| output.tokens.is_some()) {
            return Err("has a `response_format`, which can not be kept under a forced length; write \
                        `output: { max_tokens: .. }` for `output: { tokens: .. }`"
                .into());
        }
        let output = limit.filter(|_| self.output.is_none()).map(|tokens| Length { tokens, forced: false });
        let body = std::mem::take(body);
        Ok((said, (!body.is_empty()).then(|| Arc::new(body)), output))
    }

    fn message(&self, message: Value) -> Result<Said, String> {
        let Some(fields) = message.as_object() else { return Err("is no JSON object".into()) };
        let role = match fields.get("role").and_then(Value::as_str) {
            Some("system" | "developer") => Role::System,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("tool" | "function") => Role::Tool,
            Some(role) => return Err(format!("has the role `{role}`; system, user, assistant or tool")),
            None => return Err("has no `role`".into()),
        };
        check_content(fields)?;
        let is_plain = fields.len() == 2 && fields["role"] == role.name();
        let content = match fields.get("content").and_then(Value::as_str).filter(|_| is_plain) {
            Some(text) => Content::text(text, self.tokenizer),
            None => Content::given(Arc::new(message), self.tokenizer),
        };
        Ok(Said { message: Message { role, content }, by_model: role == Role::Assistant })
    }
}

/// What says how long its answers are.
trait HasLengths {
    fn has_lengths(&self) -> bool;
}

impl HasLengths for TextRow {
    fn has_lengths(&self) -> bool {
        self.output.is_some()
    }
}

impl HasLengths for Dialogue {
    fn has_lengths(&self) -> bool {
        self.turns.iter().all(|turn| turn.output.is_some())
    }
}

/// The content of a message: a text, a list of parts, or nothing beside tool calls.
fn check_content(message: &Map<String, Value>) -> Result<(), String> {
    match message.get("content") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) => match parts.iter().find(|part| !part["type"].is_string()) {
            None => Ok(()),
            Some(part) => Err(format!("has a part without `type`: {part}")),
        },
        None | Some(Value::Null) if message.contains_key("tool_calls") => Ok(()),
        None | Some(Value::Null) => Err("has no `content`".into()),
        Some(_) => Err("has a `content` that is neither a text nor a list of parts".into()),
    }
}

/// A conversation of `ShareGPT`.
fn conversation(row: &Value, tokenizer: &dyn Tokenizer) -> Result<Vec<Said>, String> {
    let list = row.get("conversations").or_else(|| row.get("conversation"));
    let list = list.ok_or("has no `conversations`")?.as_array().ok_or("`conversations` is no list")?;
    let one = |(at, entry): (usize, &Value)| {
        let fault = |what: &str| format!("`conversations[{at}]` {what}");
        let from = entry.get("from").or_else(|| entry.get("role")).and_then(Value::as_str);
        let text = entry.get("value").or_else(|| entry.get("content")).and_then(Value::as_str);
        let role = match from.ok_or_else(|| fault("has no `from`"))? {
            "human" | "user" => Role::User,
            "gpt" | "assistant" | "chatgpt" | "bing" | "bard" => Role::Assistant,
            "system" => Role::System,
            other => return Err(fault(&format!("is from `{other}`; human, gpt or system"))),
        };
        let content = Content::text(text.ok_or_else(|| fault("has no `value`"))?, tokenizer);
        Ok(Said { message: Message { role, content }, by_model: role == Role::Assistant })
    };
    list.iter().enumerate().map(one).collect()
}

fn text_row(
    row: &Value,
    fields: &FileFields,
    forced: bool,
    tokenizer: &dyn Tokenizer,
) -> Result<TextRow, String> {
    let text = row.get(&fields.prompt).ok_or_else(|| format!("has no `{}`", fields.prompt))?;
    let text = text.as_str().ok_or_else(|| format!("`{}` is not a string", fields.prompt))?;
    let output = match fields.output_tokens.as_ref().and_then(|name| Some((name, row.get(name)?))) {
        None => None,
        Some((name, value)) => Some(Length { tokens: tokens_of(name, value)?, forced }),
    };
    Ok(TextRow { prompt: given(text, tokenizer)?, output })
}

fn tokens_of(name: &str, value: &Value) -> Result<u32, String> {
    let tokens = value.as_u64().and_then(|tokens| u32::try_from(tokens).ok());
    let tokens = tokens.filter(|tokens| (1..=TokenCount::MAX).contains(tokens));
    tokens.ok_or_else(|| format!("`{name}` is {value}, which is no number of tokens"))
}

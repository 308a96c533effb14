//! From the bytes of one response to what it was: when its tokens came, how many, and how it ended. It reads no clock and
//! no socket.

use super::chunk::{Choice, Chunk, Usage};
use super::sse::Lines;
use crate::record::{GapRun, Outcome, Response, Stream, TokenSource, TokenTimes};
use crate::tokenizer::Tokenizer;
use crate::units::{Ns, ms};

/// The largest response that is one JSON object.
const LARGEST_BODY: usize = 64 << 20;
/// How many events beyond the tokens that were asked for an answer may have.
const SPARE_EVENTS: usize = 1 << 16;
/// How much of what can not be read is shown.
const SHOWN: usize = 120;

/// What is known of an answer before it comes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected {
    /// Output tokens that were asked for.
    pub asked_tokens: u32,
    /// This side gives up after so many.
    pub cancel_after: Option<u32>,
    /// Whether the text is kept: for those who look at it, and for a tokenizer to count.
    pub keep_text: bool,
}

/// An event with content.
#[derive(Debug, Clone, Copy)]
struct Event {
    at: Ns,
    /// Tokens, where the server says so.
    tokens: Option<u32>,
    /// Bytes of its text.
    bytes: u32,
}

/// How the body of a response looks, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Unknown,
    Events,
    Object,
}

/// How the transport of a response ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// As HTTP says that a response ends.
    Clean,
    /// Our side stopped reading: it has seen enough.
    Enough,
    /// In the middle.
    Broken(String),
    /// At the deadline.
    TimedOut {
        /// What to say.
        message: String,
        /// When.
        at: Ns,
    },
    /// Our side gave it up.
    GivenUp,
}

/// What a response came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcomes {
    /// How it ended.
    pub outcome: Outcome,
    /// What is to be said about that.
    pub message: Option<String>,
    /// When its tokens came.
    pub times: TokenTimes,
    /// The first content that is no reasoning, where reasoning came before it.
    pub first_answer: Option<Ns>,
    /// Who counted the tokens.
    pub token_source: TokenSource,
    /// Prompt tokens as the server counts them.
    pub prompt_tokens: Option<u32>,
    /// Prompt tokens that the server says it had in its cache.
    pub cached_tokens: Option<u32>,
    /// What was answered, where the text is kept.
    pub response: Option<Response>,
}

/// The state of a response that is being read.
#[derive(Debug)]
pub struct Reading {
    shape: Shape,
    lines: Lines,
    body: Vec<u8>,
    found: Found,
}

/// What the objects of a response have told.
#[derive(Debug, Default)]
struct Found {
    expected: Expected,
    events: Vec<Event>,
    stream: Option<Stream>,
    /// Tokens of events that the server counted.
    counted: u32,
    /// Tokens of events whose ids came.
    ids: u32,
    text: String,
    thought: String,
    usage: Option<Usage>,
    reasoning: bool,
    first_answer: Option<Ns>,
    finish_reason: Option<String>,
    done: bool,
    failure: Option<(Outcome, String)>,
    enough: bool,
}

impl Reading {
    /// Nothing has come.
    pub fn new(expected: Expected) -> Self {
        Self {
            shape: Shape::Unknown,
            lines: Lines::default(),
            body: Vec::new(),
            found: Found { expected, ..Found::default() },
        }
    }

    /// Bytes of the body came at `at`. Returns whether to go on reading.
    pub fn feed(&mut self, mut bytes: &[u8], at: Ns) -> bool {
        if self.shape == Shape::Unknown {
            while let [b' ' | b'\n' | b'\r' | b'\t' | 0xef | 0xbb | 0xbf, rest @ ..] = bytes {
                bytes = rest;
            }
            match bytes.first() {
                None => return true,
                Some(b'{' | b'[') => self.shape = Shape::Object,
                Some(_) => self.shape = Shape::Events,
            }
        }
        if self.shape == Shape::Object {
            if self.body.len() + bytes.len() > LARGEST_BODY {
                return self.found.fail(Outcome::Malformed, "the response is larger than 64 MiB");
            }
            self.body.extend_from_slice(bytes);
            return true;
        }
        let found = &mut self.found;
        if self.lines.feed(bytes, &mut |data| found.event(data, at)).is_err() {
            return found.fail(Outcome::Malformed, "an event is longer than 1 MiB");
        }
        !found.is_over()
    }

    /// Whether `[DONE]` has come: what follows is of no interest.
    pub fn is_done(&self) -> bool {
        self.found.done
    }

    /// The response is over at `closed`.
    pub fn end(mut self, end: End, closed: Ns, tokenizer: Option<&dyn Tokenizer>) -> Outcomes {
        if end == End::Clean {
            match self.shape {
                Shape::Object => self.found.object(&self.body, closed),
                Shape::Events if !self.found.is_over() => self.end_of_events(closed),
                Shape::Events | Shape::Unknown => {}
            }
        }
        let (outcome, message) = self.found.outcome(end);
        let (mut times, token_source) = self.found.times(tokenizer);
        (times.events, times.stream) = (self.found.events.len() as u32, self.found.stream);
        let usage = self.found.usage.unwrap_or_default();
        let mut outcomes = Outcomes {
            outcome,
            message,
            times,
            first_answer: self.found.first_answer.filter(|_| self.found.reasoning),
            token_source,
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.prompt_tokens_details.and_then(|details| details.cached_tokens),
            response: None,
        };
        if self.found.expected.keep_text && outcome == Outcome::Success {
            let finish_reason = self.found.finish_reason.take().map(Into::into);
            outcomes.response = Some(Response { text: std::mem::take(&mut self.found.text), finish_reason });
        }
        if outcomes.outcome == Outcome::TimedOut && outcomes.times.first.is_some() {
            // The silence that ended it is a gap that has no end; it was at least that long.
            let silence = closed.saturating_sub(outcomes.times.last);
            outcomes.times.longest_gap = outcomes.times.longest_gap.max(silence);
        }
        outcomes
    }

    /// What an event that no empty line ended says: it counts when it can be read, else the stream broke in it.
    fn end_of_events(&mut self, at: Ns) {
        let found = &mut self.found;
        let mut left = Vec::new();
        self.lines.end(&mut |data| {
            left.push(data.to_vec());
            true
        });
        for data in left {
            if data == b"[DONE]" || serde_json::from_slice::<Chunk<'_>>(&data).is_ok() {
                found.event(&data, at);
            }
        }
    }
}

impl Found {
    fn fail(&mut self, outcome: Outcome, message: impl Into<String>) -> bool {
        self.failure.get_or_insert_with(|| (outcome, message.into()));
        false
    }

    fn is_over(&self) -> bool {
        self.failure.is_some() || self.enough
    }

    /// The data of an event. Returns whether to go on.
    fn event(&mut self, data: &[u8], at: Ns) -> bool {
        let data = data.trim_ascii();
        if self.done || data.is_empty() {
            return true;
        }
        if data == b"[DONE]" {
            self.done = true;
            return true;
        }
        let chunk: Chunk<'_> = match serde_json::from_slice(data) {
            Ok(chunk) => chunk,
            Err(error) => {
                // Servers that send no empty lines between events.
                if data.contains(&b'\n') {
                    return data.split(|byte| *byte == b'\n').all(|line| self.event(line, at));
                }
                return self
                    .fail(Outcome::Malformed, format!("an event is no chunk: {error}: {}", shown(data)));
            }
        };
        self.chunk(&chunk, at);
        !self.is_over()
    }

    /// A whole response in one object.
    fn object(&mut self, body: &[u8], at: Ns) {
        match serde_json::from_slice::<Chunk<'_>>(body) {
            Ok(chunk) => {
                self.chunk(&chunk, at);
                self.done = true;
            }
            Err(error) => {
                self.fail(
                    Outcome::Malformed,
                    format!("the response is no completion: {error}: {}", shown(body)),
                );
            }
        }
    }

    fn chunk(&mut self, chunk: &Chunk<'_>, at: Ns) {
        if let Some(message) = chunk.error_message() {
            self.fail(Outcome::InBandError, message);
            return;
        }
        let before = self.usage.and_then(|usage| usage.completion_tokens);
        let after = chunk.usage.and_then(|usage| usage.completion_tokens);
        if chunk.usage.is_some() {
            self.usage = chunk.usage;
        }
        if let Some(stream) = &mut self.stream {
            stream.closed = at;
        }
        let Some(choice) = &chunk.choices else { return };
        let stream = self.stream.get_or_insert(Stream { chunks: 0, opened: at, last: at, closed: at });
        (stream.chunks, stream.last) = (stream.chunks + 1, at);
        // A count that runs with the events tells how many tokens each one has.
        let running = after.map(|after| after.saturating_sub(before.unwrap_or(0)));
        self.choice(choice, running, at);
        match choice.finish_reason.as_str() {
            "" => {}
            "abort" | "cancelled" => {
                self.fail(Outcome::CancelledByServer, "the server gave it up (`finish_reason: abort`)");
            }
            "error" => {
                self.fail(Outcome::InBandError, "the server failed (`finish_reason: error`)");
            }
            reason => self.finish_reason = Some(reason.to_owned()),
        }
    }

    fn choice(&mut self, choice: &Choice<'_>, running: Option<u32>, at: Ns) {
        let delta = choice.delta.as_ref();
        let reasoning = delta
            .map_or(0, |delta| delta.reasoning_content.as_str().len().max(delta.reasoning.as_str().len()));
        let answer = delta.map_or(0, |delta| delta.content.as_str().len() + delta.refusal.as_str().len())
            + choice.text.as_str().len();
        let calls = delta.is_some_and(|delta| delta.tool_calls.0 > 0);
        if reasoning + answer == 0 && !calls && choice.token_ids.0 == 0 {
            return;
        }
        if reasoning > 0 {
            self.reasoning |= self.first_answer.is_none();
        }
        if answer > 0 || calls {
            self.first_answer.get_or_insert(at);
        }
        if self.expected.keep_text {
            if let Some(delta) = delta {
                let thought = if delta.reasoning_content.is_empty() {
                    &delta.reasoning
                } else {
                    &delta.reasoning_content
                };
                self.thought.push_str(thought.as_str());
                self.text.push_str(delta.content.as_str());
            }
            self.text.push_str(choice.text.as_str());
        }
        let ids = Some(choice.token_ids.0).filter(|ids| *ids > 0);
        self.ids = self.ids.saturating_add(ids.unwrap_or(0));
        let tokens = ids.or(running);
        self.counted = self.counted.saturating_add(tokens.unwrap_or(1));
        self.events.push(Event { at, tokens, bytes: (reasoning + answer) as u32 });
        if self.events.len() > self.expected.asked_tokens as usize * 4 + SPARE_EVENTS {
            self.fail(
                Outcome::Malformed,
                format!(
                    "the answer does not end: {} events for {} tokens",
                    self.events.len(),
                    self.expected.asked_tokens
                ),
            );
        }
        self.enough |= self.expected.cancel_after.is_some_and(|after| self.counted >= after);
    }

    fn outcome(&mut self, end: End) -> (Outcome, Option<String>) {
        if let Some((outcome, message)) = self.failure.take() {
            return (outcome, Some(message));
        }
        if self.enough {
            return (Outcome::Cancelled, None);
        }
        let came = self.events.len();
        match end {
            End::Clean | End::Enough if self.done || self.finish_reason.is_some() => (Outcome::Success, None),
            End::Clean | End::Enough => {
                let text = if came == 0 {
                    "the response ended without an answer".to_owned()
                } else {
                    format!("the stream ended after {came} events without a `finish_reason` or `[DONE]`")
                };
                (Outcome::Truncated, Some(text))
            }
            // Everything had come but the end of the transport.
            End::Broken(_) if self.done => (Outcome::Success, None),
            End::Broken(why) => {
                (Outcome::Disconnected, Some(format!("the connection broke after {came} events: {why}")))
            }
            End::TimedOut { message, at } => {
                let silence = match self.events.last() {
                    Some(last) => format!(
                        "; {came} events came, then nothing for {:.0} ms",
                        ms(at.saturating_sub(last.at))
                    ),
                    None => "; nothing came".into(),
                };
                (Outcome::TimedOut, Some(message + silence.as_str()))
            }
            End::GivenUp => (Outcome::Interrupted, None),
        }
    }

    /// The times of the tokens, and who counted them: usage, else token ids, else the tokenizer, else the events.
    fn times(&self, tokenizer: Option<&dyn Tokenizer>) -> (TokenTimes, TokenSource) {
        let usage = self.usage.and_then(|usage| usage.completion_tokens).filter(|tokens| *tokens > 0);
        let (total, source) = match (usage, tokenizer) {
            _ if self.events.is_empty() => {
                let source = if usage.is_some() { TokenSource::Usage } else { TokenSource::Events };
                (0, source)
            }
            (Some(total), _) if !self.enough => (total, TokenSource::Usage),
            _ if self.ids > 0 => (self.counted, TokenSource::TokenIds),
            (_, Some(tokenizer)) if !(self.text.is_empty() && self.thought.is_empty()) => {
                let tokens = tokenizer.count(&self.thought) + tokenizer.count(&self.text);
                (tokens.max(1), TokenSource::Tokenizer)
            }
            _ => (self.counted, TokenSource::Events),
        };
        (spread(&self.events, total), source)
    }
}

/// Gives each event its tokens. What the server counted itself stands when it adds up; else every event gets one, and
/// the rest goes by the length of the texts; with fewer tokens than events, they are spread evenly.
fn spread(events: &[Event], total: u32) -> TokenTimes {
    let mut times = TokenTimes::new(Vec::<GapRun>::with_capacity(events.len()));
    let told: Option<u32> = events.iter().map(|event| event.tokens).sum();
    if told == Some(total) {
        for event in events {
            times.on_tokens(event.at, 0, event.tokens.unwrap_or(0));
        }
        return times;
    }
    let (count, total) = (events.len() as u64, u64::from(total));
    let spare = total.saturating_sub(count);
    let all_bytes: u64 = events.iter().map(|event| u64::from(event.bytes)).sum();
    let (mut bytes, mut given) = (0, 0);
    for (index, event) in (1..).zip(events) {
        bytes += u64::from(event.bytes);
        let by_now = if total < count {
            (index * total).div_ceil(count)
        } else if all_bytes == 0 {
            index + spare * index / count
        } else {
            index + (u128::from(spare) * u128::from(bytes) / u128::from(all_bytes)) as u64
        };
        times.on_tokens(event.at, 0, (by_now - given) as u32);
        given = by_now;
    }
    times
}

/// The start of something that can not be read.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned();
    if bytes.len() > SHOWN { text + "…" } else { text }
}

//! Bodies of answers: whole ones, and streams of events with one write per step of the engine.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use hyper::Version;
use hyper::body::{Body, Frame, SizeHint};

use super::answer::Answer;
use super::desk::{Heard, Ticket};
use super::protocol::Dialect;
use super::truth::Truth;
use super::wire::CutBy;
use crate::backend::Finish;
use crate::backend::config::CloseBy;
use crate::record::Outcome;
use crate::units::Ns;

/// The connection is to be cut here.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut on purpose")]
pub(super) struct Cut;

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Reply {
    Whole(Option<Bytes>),
    Events(Box<Events>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events(events) => events.poll(context).map(|next| next.map(|next| next.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Events(events) => events.state == State::Over,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// What stands around the text of every event.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) dialect: Dialect,
    /// `"id":..,"object":..,"created":..,"model":..` of events.
    pub(super) head: String,
    /// Whether the last event but one has the usage.
    pub(super) usage: bool,
    /// Whether every event has the usage so far.
    pub(super) running_usage: bool,
    /// Whether events carry token ids, and the first one those of the prompt: these.
    pub(super) ids: Option<std::sync::Arc<[u32]>>,
    pub(super) prompt_tokens: u32,
    /// Whether the stream ends with a comment of the modelled times.
    pub(super) times: bool,
    /// Over which HTTP it goes out.
    pub(super) version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is more to come from the engine.
    Open,
    /// The last token is written, the end is not: that is a write of its own.
    Last,
    /// The connection is to be cut.
    Cut(CloseBy),
    Over,
}

/// A stream of events.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) ticket: Ticket,
    pub(super) answer: Answer,
    pub(super) shape: Shape,
    pub(super) cut: CutBy,
    /// How the connection is closed where a fault cuts it.
    pub(super) close: CloseBy,
    truth: Truth,
    usage: Option<u32>,
    end: Option<(Ns, Box<Finish>)>,
    buffer: BytesMut,
    state: State,
    /// An event was written.
    begun: bool,
    /// A frame was handed over since there was nothing more to hand over, which is when frames are written.
    unwritten: bool,
}

impl Events {
    pub(super) fn new(ticket: Ticket, answer: Answer, shape: Shape, (cut, close): (CutBy, CloseBy)) -> Self {
        Self {
            ticket,
            answer,
            shape,
            cut,
            close,
            truth: Truth::default(),
            usage: None,
            end: None,
            buffer: BytesMut::with_capacity(1024),
            state: State::Open,
            begun: false,
            unwritten: false,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        // HTTP/2 has no chunks that the wire can tell apart.
        let has_more = self.end.is_some() || self.ticket.has_more();
        if self.shape.version == Version::HTTP_2 && has_more && self.write_first(context) {
            return Poll::Pending;
        }
        loop {
            match self.state {
                State::Over => return Poll::Ready(None),
                State::Cut(close) => {
                    if self.write_first(context) {
                        return Poll::Pending;
                    }
                    self.cut.set(Some(close));
                    self.state = State::Over;
                    return Poll::Ready(Some(Err(Cut)));
                }
                State::Last => {
                    self.write_end();
                    self.state = State::Over;
                }
                State::Open => {
                    let Poll::Ready(heard) = self.ticket.poll(context) else {
                        self.unwritten = false;
                        return Poll::Pending;
                    };
                    self.hear(heard);
                }
            }
            if !self.buffer.is_empty() {
                self.unwritten = true;
                return Poll::Ready(Some(Ok(self.buffer.split().freeze())));
            }
        }
    }

    /// Whether there is something to be written before this goes on, as it does at once.
    fn write_first(&mut self, context: &Context<'_>) -> bool {
        let is_wanted = std::mem::take(&mut self.unwritten);
        if is_wanted {
            context.waker().wake_by_ref();
        }
        is_wanted
    }

    fn hear(&mut self, heard: Heard) {
        self.truth.hear(&heard);
        match heard {
            Heard::Accepted(_) | Heard::Scheduled(_) => {}
            Heard::Usage(tokens) => self.usage = Some(tokens),
            Heard::Ids(ids) => self.answer.hear(&ids),
            Heard::Tokens { gap, count, .. } => {
                // Tokens of one instant are one event, as those of a step are; others have events of their own.
                let (events, each) = if gap == 0 { (1, count) } else { (count, 1) };
                for left in (0..events).rev() {
                    let is_last = left == 0 && self.take_success();
                    self.write_tokens(each, is_last);
                }
            }
            Heard::Finished { at, end } => self.finish(at, end),
        }
    }

    /// Takes the end if it is a success and comes at once behind the tokens.
    fn take_success(&mut self) -> bool {
        if let Some(Heard::Usage(tokens)) = self.ticket.take_usage() {
            self.usage = Some(tokens);
        }
        // A failure waits: what it writes stands behind the tokens.
        let end = self.ticket.take_end_if(|end| end.outcome == Outcome::Success);
        let Some((at, end)) = end else { return false };
        self.answer.end(&end);
        self.end = Some((at, end));
        self.state = State::Last;
        true
    }

    fn finish(&mut self, at: Ns, end: Box<Finish>) {
        let outcome = end.outcome;
        let message = end.message.clone();
        self.answer.end(&end);
        self.end = Some((at, end));
        self.state = match outcome {
            Outcome::Success => {
                self.write_tokens(0, true);
                State::Last
            }
            Outcome::Disconnected => State::Cut(self.close),
            Outcome::Truncated => State::Over,
            Outcome::Malformed => {
                let _ = self.open_event();
                self.buffer.put_slice(b",\"choices\":[{\"index\":0,\"te\n\n");
                State::Over
            }
            _ => {
                let text = message.as_deref().unwrap_or("the request failed");
                let error = serde_json::json!({
                    "error": { "message": text, "type": "InternalServerError", "param": null, "code": 500 },
                });
                self.buffer.put_slice(format!("data: {error}\n\ndata: [DONE]\n\n").as_bytes());
                State::Over
            }
        };
    }

    /// Begins an event; whether it is the first.
    fn open_event(&mut self) -> bool {
        self.buffer.put_slice(b"data: {");
        self.buffer.put_slice(self.shape.head.as_bytes());
        !std::mem::replace(&mut self.begun, true)
    }

    /// The event of the next `count` tokens.
    fn write_tokens(&mut self, count: u32, is_last: bool) {
        let is_chat = self.shape.dialect == Dialect::Chat;
        let mut is_first = self.open_event();
        if is_first && is_chat {
            self.buffer.put_slice(
                b",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]",
            );
            if let Some(ids) = &self.shape.ids {
                self.buffer.put_slice(b",\"prompt_token_ids\":");
                put_list(&mut self.buffer, ids);
            }
            self.write_running(0);
            self.buffer.put_slice(b"}\n\n");
            let _ = self.open_event();
            is_first = false;
        }
        self.buffer.put_slice(if is_chat {
            b",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"".as_slice()
        } else {
            b",\"choices\":[{\"index\":0,\"text\":\"".as_slice()
        });
        let mut ids = Vec::new();
        let text = self.answer.next(count, self.shape.ids.is_some().then_some(&mut ids));
        put_escaped(&mut self.buffer, text);
        self.buffer.put_slice(if is_chat { b"\"}".as_slice() } else { b"\"".as_slice() });
        self.buffer.put_slice(b",\"logprobs\":null,\"finish_reason\":");
        if is_last {
            self.buffer.put_slice(b"\"");
            self.buffer.put_slice(self.answer.reason.name().as_bytes());
            self.buffer.put_slice(b"\"");
        } else {
            self.buffer.put_slice(b"null");
        }
        if let Some(prompt) = &self.shape.ids {
            if is_first {
                self.buffer.put_slice(b",\"prompt_token_ids\":");
                put_list(&mut self.buffer, prompt);
            }
            self.buffer.put_slice(b",\"token_ids\":");
            put_list(&mut self.buffer, &ids);
        }
        self.buffer.put_slice(b"}]");
        self.write_running(self.truth.tokens());
        self.buffer.put_slice(b"}\n\n");
    }

    fn write_running(&mut self, tokens: u32) {
        if self.shape.running_usage {
            self.buffer.put_slice(b",\"usage\":");
            put_usage(&mut self.buffer, self.shape.prompt_tokens, tokens);
        }
    }

    /// The usage, the end of the stream, and the modelled times.
    fn write_end(&mut self) {
        if self.shape.usage {
            let _ = self.open_event();
            self.buffer.put_slice(b",\"choices\":[],\"usage\":");
            let tokens = self.usage.unwrap_or(self.truth.tokens());
            put_usage(&mut self.buffer, self.shape.prompt_tokens, tokens);
            self.buffer.put_slice(b"}\n\n");
        }
        self.buffer.put_slice(b"data: [DONE]\n\n");
        if let Some((at, end)) = self.end.as_ref().filter(|_| self.shape.times) {
            let times = self.truth.json(*at, self.shape.prompt_tokens, end.preemptions);
            self.buffer.put_slice(b": sagebench ");
            self.buffer.put_slice(times.as_bytes());
            self.buffer.put_slice(b"\n\n");
        }
    }
}

/// The usage as JSON.
pub(super) fn put_usage(out: &mut BytesMut, prompt: u32, completion: u32) {
    out.put_slice(b"{\"prompt_tokens\":");
    put_number(out, u64::from(prompt));
    out.put_slice(b",\"total_tokens\":");
    put_number(out, u64::from(prompt) + u64::from(completion));
    out.put_slice(b",\"completion_tokens\":");
    put_number(out, u64::from(completion));
    out.put_slice(b"}");
}

fn put_number(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

pub(super) fn put_list(out: &mut BytesMut, ids: &[u32]) {
    out.put_slice(b"[");
    for (index, id) in ids.iter().enumerate() {
        if index > 0 {
            out.put_slice(b",");
        }
        put_number(out, u64::from(*id));
    }
    out.put_slice(b"]");
}

/// A text as the inside of a JSON string.
pub(super) fn put_escaped(out: &mut BytesMut, text: &str) {
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| !plain(byte)) {
        out.put_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.put_slice(b"\\\""),
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            other => out.put_slice(format!("\\u{other:04x}").as_bytes()),
        }
        rest = &rest[at + 1..];
    }
    out.put_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_as_json_has_it() {
        let text = "a \"b\" \\ \n\r\t\u{1} é日 \u{7f}";
        let mut out = BytesMut::from("\"");
        put_escaped(&mut out, text);
        out.put_slice(b"\"");
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn numbers_are_written_in_full() {
        let mut out = BytesMut::new();
        put_list(&mut out, &[0, 10, u32::MAX]);
        assert_eq!(&out[..], b"[0,10,4294967295]");
    }
}

//! The text of an answer, token by token.

use std::sync::Arc;

use super::decoded::Decoded;
use super::vocabulary::Vocabulary;
use crate::backend::{Ends, Finish};
use crate::tokenizer::{self, Hf};

/// An answer as it comes out.
#[derive(Debug)]
pub(super) struct Answer {
    source: Source,
    /// Why it ends; of one that is computed, once it has.
    pub(super) reason: Reason,
}

#[derive(Debug)]
enum Source {
    Told(Told),
    Decoded(Decoded),
}

/// One whose whole text is known from the start: a token is the next piece of it.
#[derive(Debug)]
struct Told {
    text: String,
    /// Bytes of the text that may be shown: what ends an answer is not part of it.
    shown: usize,
    /// Bytes whose tokens came out.
    came: usize,
    /// The token that comes twice, counted from 1.
    duplicate: Option<u32>,
    /// Tokens that came out.
    tokens: u32,
    /// Bytes of the last token.
    last: usize,
    vocabulary: Vocabulary,
}

/// Why an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Stop,
    Length,
}

impl Reason {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

impl Answer {
    /// An answer of this text, and how many tokens it has: where one of the texts that end it comes, it is cut there.
    pub(super) fn told(text: String, reason: Reason, ends: &Ends, vocabulary: Vocabulary) -> (Self, u32) {
        let least: usize = tokenizer::Mock::pieces(&text).take(ends.least as usize).map(str::len).sum();
        let end = ends.find(&text, least);
        let shown = end.map_or(text.len(), |(at, end)| if ends.kept { end } else { at });
        let (mut tokens, mut length) = (0, 0);
        for piece in tokenizer::Mock::pieces(&text) {
            if end.is_some_and(|(_, end)| length >= end) {
                break;
            }
            tokens += 1;
            length += piece.len();
        }
        let reason = if end.is_some() { Reason::Stop } else { reason };
        let told = Told { text, shown, came: 0, duplicate: None, tokens: 0, last: 0, vocabulary };
        (Self { source: Source::Told(told), reason }, tokens)
    }

    /// An answer whose tokens are told while they are computed.
    pub(super) fn decoded(tokenizer: Arc<Hf>, ends: &Ends) -> Self {
        Self { source: Source::Decoded(Decoded::new(tokenizer, ends)), reason: Reason::Length }
    }

    /// Lets one token, counted from 1, come twice.
    pub(super) fn repeat(&mut self, token: u32) {
        if let Source::Told(told) = &mut self.source {
            told.duplicate = Some(token);
        }
    }

    /// Which tokens come next.
    pub(super) fn hear(&mut self, ids: &[u32]) {
        if let Source::Decoded(decoded) = &mut self.source {
            decoded.hear(ids);
        }
    }

    /// It is over with what comes next.
    pub(super) fn end(&mut self, end: &Finish) {
        if let (Source::Decoded(decoded), Some(response)) = (&mut self.source, &end.response) {
            if response.finish_reason.as_deref() == Some("stop") {
                self.reason = Reason::Stop;
            }
            decoded.end(response.text.clone());
        }
    }

    /// The text of the next `count` tokens, as far as it can be shown; their ids go to `ids`, where they are wanted.
    pub(super) fn next(&mut self, count: u32, ids: Option<&mut Vec<u32>>) -> &str {
        match &mut self.source {
            Source::Told(told) => told.next(count, ids),
            Source::Decoded(decoded) => decoded.next(count, ids),
        }
    }
}

impl Told {
    fn next(&mut self, count: u32, mut ids: Option<&mut Vec<u32>>) -> &str {
        let mut from = self.came;
        for _ in 0..count {
            if self.duplicate == Some(self.tokens) {
                self.duplicate = None;
                self.came -= self.last;
                from = from.min(self.came);
            } else {
                self.tokens += 1;
            }
            let piece = tokenizer::Mock::pieces(&self.text[self.came..]).next().unwrap_or_default();
            if let Some(ids) = &mut ids {
                ids.push(self.vocabulary.learn(piece));
            }
            self.last = piece.len();
            self.came += piece.len();
        }
        &self.text[from.min(self.shown)..self.came.min(self.shown)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, ends: &Ends) -> (Answer, u32) {
        Answer::told(text.into(), Reason::Length, ends, Vocabulary::Mock(Arc::default()))
    }

    fn stops(texts: &[&str], min_tokens: u32, kept: bool) -> (u32, Vec<String>, Reason) {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let ends = Ends { texts, least: min_tokens, kept };
        let (mut answer, tokens) = told("one two three four five", &ends);
        let pieces = (0..tokens).map(|_| answer.next(1, None).to_owned()).collect();
        (tokens, pieces, answer.reason)
    }

    #[test]
    fn an_answer_is_its_tokens() {
        let (tokens, pieces, reason) = stops(&[], 0, false);
        assert_eq!((tokens, reason), (5, Reason::Length));
        assert_eq!(pieces, ["one", " two", " three", " four", " five"]);
    }

    #[test]
    fn a_text_that_ends_it_is_not_shown_not_even_its_beginning() {
        let (tokens, pieces, reason) = stops(&["o thr", "five"], 0, false);
        assert_eq!((tokens, reason), (3, Reason::Stop));
        assert_eq!(pieces, ["one", " tw", ""]);
        assert_eq!(stops(&["o thr"], 0, true).1, ["one", " two", " thr"]);
        assert_eq!(stops(&["one"], 0, false).1, [""]);
        assert_eq!(stops(&["e", "ne"], 0, false).1, ["o"], "of two that end there, the longer one");
    }

    #[test]
    fn it_does_not_end_before_its_least_length() {
        assert_eq!(stops(&["e"], 1, false).0, 3);
        assert_eq!(stops(&["e"], 0, false).0, 1);
        assert_eq!(stops(&["e"], 5, false), (5, stops(&[], 0, false).1, Reason::Length));
    }

    #[test]
    fn a_token_comes_twice() {
        let (mut answer, _) = told("one two three", &Ends::default());
        answer.repeat(2);
        let pieces: Vec<String> = (0..5).map(|_| answer.next(1, None).to_owned()).collect();
        assert_eq!(pieces, ["one", " two", " two", " three", ""]);
    }
}

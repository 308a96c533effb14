//! The text of an answer, token by token.

use crate::tokenizer;

/// An answer as it comes out: the whole text is known from the start, and a token is the next piece of it.
#[derive(Debug)]
pub(super) struct Answer {
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
    /// Why it ends.
    pub(super) reason: Reason,
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

/// Where texts that end an answer end it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stops<'a> {
    pub(super) texts: &'a [String],
    /// They end nothing within so many tokens.
    pub(super) min_tokens: u32,
    /// Whether they are part of the answer.
    pub(super) kept: bool,
}

impl Answer {
    /// An answer of this text, and how many tokens it has: where one of the texts that end it comes, it is cut there.
    pub(super) fn new(text: String, reason: Reason, stops: Stops<'_>) -> (Self, u32) {
        let least: usize = tokenizer::Mock::pieces(&text).take(stops.min_tokens as usize).map(str::len).sum();
        // The one that is complete first ends the answer; of two, the longer one.
        let found = stops.texts.iter().filter_map(|stop| {
            let mut matches = text.match_indices(stop.as_str()).map(|(at, _)| (at, at + stop.len()));
            matches.find(|(_, end)| *end > least)
        });
        let end = found.min_by_key(|(at, end)| (*end, *at));
        let shown = end.map_or(text.len(), |(at, end)| if stops.kept { end } else { at });
        let (mut tokens, mut length) = (0, 0);
        for piece in tokenizer::Mock::pieces(&text) {
            if end.is_some_and(|(_, end)| length >= end) {
                break;
            }
            tokens += 1;
            length += piece.len();
        }
        let reason = if end.is_some() { Reason::Stop } else { reason };
        let answer = Self { text, shown, came: 0, duplicate: None, tokens: 0, last: 0, reason };
        (answer, tokens)
    }

    /// Lets one token, counted from 1, come twice.
    pub(super) fn repeat(&mut self, token: u32) {
        self.duplicate = Some(token);
    }

    /// The text of the next `count` tokens, and their pieces to `each`.
    pub(super) fn next(&mut self, count: u32, mut each: impl FnMut(&str)) -> &str {
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
            each(piece);
            self.last = piece.len();
            self.came += piece.len();
        }
        &self.text[from.min(self.shown)..self.came.min(self.shown)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(texts: &[&str], min_tokens: u32, kept: bool) -> (u32, Vec<String>, Reason) {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let stops = Stops { texts: &texts, min_tokens, kept };
        let (mut answer, tokens) = Answer::new("one two three four five".into(), Reason::Length, stops);
        let pieces = (0..tokens).map(|_| answer.next(1, |_| {}).to_owned()).collect();
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
        let (mut answer, _) = Answer::new("one two three".into(), Reason::Length, Stops::default());
        answer.repeat(2);
        let pieces: Vec<String> = (0..5).map(|_| answer.next(1, |_| {}).to_owned()).collect();
        assert_eq!(pieces, ["one", " two", " two", " three", ""]);
    }
}

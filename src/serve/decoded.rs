//! The text of an answer that is computed: it comes with its tokens, as soon as it is certain.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backend::Ends;
use crate::tokenizer::Hf;

/// An answer whose tokens are told one after another.
///
/// A character may be spread over several tokens, so that a text is shown once it does not end in the middle of one; and what
/// may be the beginning of a text that ends the answer is held back until it is certain that it is not.
#[derive(Debug)]
pub(super) struct Decoded {
    tokenizer: Arc<Hf>,
    ids: Vec<u32>,
    /// Tokens that were told and did not come out yet.
    ahead: VecDeque<u32>,
    /// Tokens from here on are decoded together, for what they look like depends on those before; up to `read` they are in
    /// the text.
    from: usize,
    read: usize,
    text: String,
    /// Bytes of it that were shown.
    shown: usize,
    /// Bytes at its end that are held back.
    held: usize,
    /// The whole text, once the answer is over.
    whole: Option<String>,
}

impl Decoded {
    pub(super) fn new(tokenizer: Arc<Hf>, ends: &Ends) -> Self {
        let longest = ends.texts.iter().map(String::len).max().unwrap_or(0);
        Self {
            tokenizer,
            ids: Vec::new(),
            ahead: VecDeque::new(),
            from: 0,
            read: 0,
            text: String::new(),
            shown: 0,
            held: longest.saturating_sub(1),
            whole: None,
        }
    }

    pub(super) fn hear(&mut self, ids: &[u32]) {
        self.ahead.extend(ids);
    }

    /// The whole text is this, and nothing comes behind what was told.
    pub(super) fn end(&mut self, text: String) {
        self.whole = Some(text);
    }

    /// The text of the next `count` tokens, as far as it is certain.
    pub(super) fn next(&mut self, count: u32, ids: Option<&mut Vec<u32>>) -> &str {
        let count = self.ahead.len().min(count as usize);
        let before = self.ids.len();
        self.ids.extend(self.ahead.drain(..count));
        if let Some(ids) = ids {
            ids.extend_from_slice(&self.ids[before..]);
        }
        let from = self.shown;
        if let Some(whole) = self.whole.take_if(|_| self.ahead.is_empty()) {
            self.text = whole;
            self.shown = self.text.len();
        } else {
            self.decode();
            let certain = self.text.len().saturating_sub(self.held);
            self.shown = self.shown.max(self.text.floor_char_boundary(certain));
        }
        self.text.get(from..self.shown).unwrap_or_default()
    }

    /// Appends the text of what came, unless it ends in the middle of a character.
    fn decode(&mut self) {
        let before = self.tokenizer.decode(&self.ids[self.from..self.read]);
        let now = self.tokenizer.decode(&self.ids[self.from..]);
        if now.len() > before.len() && !now.ends_with('\u{fffd}') {
            self.text.push_str(now.get(before.len()..).unwrap_or_default());
            (self.from, self.read) = (self.read, self.ids.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::checkpoint::random::{Like, Random, Stored};
    use crate::tokenizer::Tokenizer;

    /// Its tokens are bytes and some words.
    static TOKENIZER: LazyLock<Arc<Hf>> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        Random { like: Like::Gpt2, tiny: true, stored: Stored::F32, seed: 1 }.write(dir.path()).unwrap();
        let checkpoint = Checkpoint { name: "tiny".into(), path: dir.path().to_owned(), revision: None };
        Arc::new(Hf::open(&checkpoint).unwrap())
    });

    /// The pieces of an answer with these ids, in steps of these many tokens.
    fn pieces(ids: &[u32], steps: &[u32], ends: &Ends) -> Vec<String> {
        let mut answer = Decoded::new(Arc::clone(&TOKENIZER), ends);
        let (mut rest, mut found, mut told) = (ids, Vec::new(), Vec::new());
        let mut steps = steps.iter().cycle();
        let whole = || {
            let text = TOKENIZER.decode(ids);
            ends.find(&text, 0).map_or(text.clone(), |(at, _)| text[..at].to_owned())
        };
        while !rest.is_empty() {
            let count = (*steps.next().unwrap() as usize).clamp(1, rest.len());
            answer.hear(&rest[..count]);
            rest = &rest[count..];
            if rest.is_empty() {
                answer.end(whole());
            }
            found.push(answer.next(count as u32, Some(&mut told)).to_owned());
        }
        assert_eq!(told, ids);
        assert_eq!(found.concat(), if ids.is_empty() { String::new() } else { whole() });
        found
    }

    #[test]
    fn a_character_comes_when_it_is_whole() {
        let ids = TOKENIZER.encode("é日\u{1f600}!");
        assert_eq!(ids.len(), 10, "bytes");
        let pieces = pieces(&ids, &[1], &Ends::default());
        assert_eq!(pieces, ["", "é", "", "", "日", "", "", "", "\u{1f600}", "!"]);
    }

    #[test]
    fn what_may_end_the_answer_is_held_back() {
        let ends = Ends { texts: vec!["!?".into()], ..Ends::default() };
        let ids = TOKENIZER.encode("a!b!?");
        assert_eq!(pieces(&ids, &[1], &ends).concat(), "a!b");
        assert_eq!(pieces(&TOKENIZER.encode("a!b"), &[1], &ends), ["", "a", "!b"]);
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_text(
            ids in prop::collection::vec(0..512_u32, 0..60),
            steps in prop::collection::vec(1..5_u32, 1..4),
            text in prop::sample::select(vec!["", "ab", "日"]),
        ) {
            let texts = if text.is_empty() { Vec::new() } else { vec![text.to_owned()] };
            let ends = Ends { texts, ..Ends::default() };
            // Nothing comes behind the token that completes a text which ends the answer.
            let is_over = |count: &usize| ends.find(&TOKENIZER.decode(&ids[..*count]), 0).is_some();
            let count = (1..=ids.len()).find(is_over).unwrap_or(ids.len());
            pieces(&ids[..count], &steps, &ends);
        }
    }
}

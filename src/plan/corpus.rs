//! Passages of a plain text.
//!
//! The text is cut into words, each with the white space before it, and each word is tokenized on its own: tokenizers do not
//! join what white space parts, so the tokens of a passage are those of its words. Where the last word is too long it is cut
//! between two characters, so that the passage has exactly the tokens asked for; a word that no cut brings to the right
//! number is left out, and the recipe says how many tokens there are.

use std::path::Path;
use std::sync::Arc;

use super::PromptRecipe;
use crate::sample::{FileError, line_ends};
use crate::tokenizer::Tokenizer;

/// The largest text: its words are kept in memory.
const LARGEST: u64 = 64 << 20;

/// A text made ready for cutting passages.
#[derive(Debug)]
pub(super) struct Corpus {
    text: String,
    words: Vec<Word>,
    ids: Vec<u32>,
    cuts: Vec<Cut>,
}

/// A word with the white space before it.
#[derive(Debug)]
struct Word {
    /// Where it begins in the text.
    start: usize,
    /// Where its tokens begin among `ids`, and its cuts among `cuts`.
    ids: usize,
    cuts: usize,
}

/// The longest beginning of a word that has so many tokens.
#[derive(Debug)]
struct Cut {
    end: usize,
    ids: Arc<[u32]>,
}

impl Corpus {
    /// Reads and tokenizes a text file. `path` is relative to `dir`.
    pub(super) fn read(dir: &Path, path: &Path, tokenizer: &dyn Tokenizer) -> Result<Self, FileError> {
        let problem = |message: String| FileError { file: path.to_owned(), line: None, message };
        let full = dir.join(path);
        let meta = std::fs::metadata(&full).map_err(|e| problem(format!("can not be read: {e}")))?;
        if !meta.is_file() {
            return Err(problem("is not a regular file".into()));
        }
        if meta.len() > LARGEST {
            return Err(problem(format!(
                "has {} bytes, more than the {LARGEST} a corpus may have",
                meta.len()
            )));
        }
        let bytes = std::fs::read(&full).map_err(|e| problem(format!("can not be read: {e}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + line_ends(valid);
            FileError { file: path.to_owned(), line: Some(line), message: "is not valid UTF-8".into() }
        })?;
        let text = text.trim_start_matches('\u{feff}').trim().to_owned();
        let corpus = Self::new(text, tokenizer);
        if corpus.ids.is_empty() { Err(problem("has no words".into())) } else { Ok(corpus) }
    }

    fn new(text: String, tokenizer: &dyn Tokenizer) -> Self {
        let mut corpus = Self { text: String::new(), words: Vec::new(), ids: Vec::new(), cuts: Vec::new() };
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let start = text.len() - rest.len();
            let space = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
            let end = rest[space..].find(char::is_whitespace).map_or(rest.len(), |letters| space + letters);
            corpus.words.push(Word { start, ids: corpus.ids.len(), cuts: corpus.cuts.len() });
            corpus.cut(&rest[..end], start, tokenizer);
            rest = &rest[end..];
        }
        corpus.text = text;
        corpus
    }

    /// Adds a word's tokens, and its beginnings of fewer tokens.
    fn cut(&mut self, word: &str, start: usize, tokenizer: &dyn Tokenizer) {
        let whole = tokenizer.encode(word);
        // A long run without white space is no word; it is taken whole or not at all.
        if whole.len() > 1 && word.len() <= 64 {
            let mut longest: Vec<Option<Cut>> = (1..whole.len()).map(|_| None).collect();
            for (at, letter) in word.char_indices() {
                let end = at + letter.len_utf8();
                let ids = tokenizer.encode(&word[..end]);
                if let Some(slot) = ids.len().checked_sub(1).and_then(|at| longest.get_mut(at)) {
                    *slot = Some(Cut { end: start + end, ids: ids.into() });
                }
            }
            // Where a number of tokens has no beginning, the next smaller one stands for it.
            let mut last: Option<(usize, Arc<[u32]>)> = None;
            for cut in longest {
                last = cut.map(|cut| (cut.end, cut.ids)).or(last);
                let (end, ids) = last.clone().unwrap_or((start, Arc::from([])));
                self.cuts.push(Cut { end, ids });
            }
        }
        self.ids.extend(whole);
    }

    /// Tokens of the whole text.
    pub(super) fn tokens(&self) -> u64 {
        self.ids.len() as u64
    }

    /// The number of places at which a passage of `tokens` tokens may begin; at least 1.
    fn places(&self, tokens: u32) -> u64 {
        let last = self.ids.len().saturating_sub(tokens as usize);
        (self.words.partition_point(|word| word.ids <= last) as u64).max(1)
    }

    /// A passage of `tokens` tokens, or of the whole text where that is shorter. `draw` picks a number below the one it is
    /// given.
    pub(super) fn passage(&self, tokens: u32, draw: impl FnOnce(u64) -> u64) -> PromptRecipe {
        let first = draw(self.places(tokens)) as usize;
        let from = self.words[first].ids;
        let until = (from + tokens as usize).min(self.ids.len());
        // The last word that begins before the end of the passage.
        let last = self.words.partition_point(|word| word.ids < until) - 1;
        let word = &self.words[last];
        let next = self.words.get(last + 1);
        let (ids_end, text_end) =
            next.map_or((self.ids.len(), self.text.len()), |next| (next.ids, next.start));
        let mut ids = self.ids[from..word.ids].to_vec();
        let end = if ids_end == until {
            ids.extend(&self.ids[word.ids..until]);
            text_end
        } else {
            let cuts_end = next.map_or(self.cuts.len(), |next| next.cuts);
            match self.cuts[word.cuts..cuts_end].get(until - word.ids - 1) {
                Some(cut) => {
                    ids.extend(cut.ids.iter());
                    cut.end
                }
                None if last == first => {
                    ids.extend(&self.ids[word.ids..ids_end]);
                    text_end
                }
                None => word.start,
            }
        };
        let text = &self.text[self.words[first].start..end];
        // The white space before the first word is part of its tokens.
        PromptRecipe::Text { tokens: ids.len() as u32, text: Arc::from(text), ids: ids.into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tokenizer::Mock;

    proptest! {
        #[test]
        fn passages_have_their_tokens_and_stand_in_the_text(
            text in "[a-z]{1,14}([ \n]{1,2}([a-zA-Z,.é0-9]{1,14})){0,40}",
            tokens in 1_u32..60,
            place: u64,
        ) {
            let corpus = Corpus::new(text.clone(), &Mock);
            prop_assert_eq!(corpus.tokens(), u64::from(Mock.count(&text)));
            let PromptRecipe::Text { tokens: count, text: passage, ids } = corpus.passage(tokens, |n| place % n) else {
                panic!("a text")
            };
            prop_assert!(text.contains(&*passage));
            let encoded = Mock.encode(&passage);
            prop_assert_eq!(&*ids, encoded.as_slice());
            prop_assert_eq!(count as usize, ids.len());
            prop_assert_eq!(u64::from(count), u64::from(tokens).min(corpus.tokens()));
        }
    }

    #[test]
    fn a_text_is_named_where_it_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let read = |bytes: &[u8]| {
            std::fs::write(dir.path().join("x"), bytes).unwrap();
            Corpus::read(dir.path(), Path::new("x"), &Mock).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(read(b"fine"), Ok(()));
        assert_eq!(read(b" \n"), Err("x: has no words".into()));
        assert_eq!(read(b"fine\nnot \xff"), Err("x:2: is not valid UTF-8".into()));
    }
}

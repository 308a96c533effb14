//! The tokenizer of simulated backends: no vocabulary, the same on every machine.

use std::sync::Arc;

use super::Tokenizer;
use crate::sample::key;

/// Cuts text by rule. A token is
///
/// - up to six letters, with the space before them if there is one,
/// - up to three ASCII digits,
/// - or any other single character, white space included.
///
/// Letters are Unicode's alphabetic characters below U+2E80: east of there a character stands for a syllable or a word,
/// and is a token of its own. The id of a token is a hash of its bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mock;

const LETTERS: usize = 6;
const DIGITS: usize = 3;

/// The syllables of generated words are an onset, a vowel and a coda each: at most three letters.
const ONSETS: &[u8; 16] = b"bdfghklmnprstvwz";
const VOWELS: &[u8; 4] = b"aeio";
const CODAS: &[u8; 8] = b"nrslt\0\0\0";

fn is_letter(c: char) -> bool {
    c.is_alphabetic() && u32::from(c) < 0x2e80
}

impl Mock {
    /// The tokens of a text, in order. Joined they are the text.
    pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            let (piece, after) = rest.split_at(piece_length(rest)?);
            rest = after;
            Some(piece)
        })
    }
}

/// Bytes of the first token of a text; `None` when the text is empty.
fn piece_length(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    let space = usize::from(first == ' ');
    let letters: usize =
        text[space..].chars().take(LETTERS).take_while(|c| is_letter(*c)).map(char::len_utf8).sum();
    if letters > 0 {
        return Some(space + letters);
    }
    let digits = text.bytes().take(DIGITS).take_while(u8::is_ascii_digit).count();
    Some(if digits > 0 { digits } else { first.len_utf8() })
}

/// FNV-1a, 32 bits.
fn id_of(piece: &str) -> u32 {
    piece.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl Tokenizer for Mock {
    #[expect(
        clippy::unnecessary_literal_bound,
        reason = "the trait lets other tokenizers return a name they own"
    )]
    fn name(&self) -> &str {
        "mock"
    }

    fn shared(&self) -> Arc<dyn Tokenizer> {
        Arc::new(*self)
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        Self::pieces(text).map(id_of).collect()
    }

    /// Invented words of two syllables, one token each.
    fn text_of(&self, tokens: u32, seed: u64) -> String {
        let mut text = String::with_capacity(tokens as usize * (LETTERS + 1));
        for index in 0..u64::from(tokens) {
            if index > 0 {
                text.push(' ');
            }
            let mut bits = key(&[seed, index]);
            for _ in 0..2 {
                let letters = [
                    ONSETS[(bits & 15) as usize],
                    VOWELS[(bits >> 4 & 3) as usize],
                    CODAS[(bits >> 6 & 7) as usize],
                ];
                text.extend(letters.into_iter().filter(|letter| *letter != 0).map(char::from));
                bits >>= 9;
            }
        }
        text
    }

    fn count(&self, text: &str) -> u32 {
        Self::pieces(text).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cuts_by_its_rules() {
        let pieces: Vec<&str> = Mock::pieces("Hello tokenizer,  12345 naïve日本\n x").collect();
        let wanted =
            ["Hello", " tokeni", "zer", ",", " ", " ", "123", "45", " naïve", "日", "本", "\n", " x"];
        assert_eq!(pieces, wanted);
        assert_eq!(Mock.count(""), 0);
    }

    #[test]
    fn texts_read_like_words() {
        insta::assert_snapshot!(Mock.text_of(12, 42), @"bovan bitit kiza detfos vanzo faver bingis nesas hasrat warda hetpa holwa");
    }

    #[test]
    fn short_texts_are_distinct_too() {
        for (tokens, seeds, least) in [(1, 1000, 985), (2, 10_000, 10_000), (8, 10_000, 10_000)] {
            let texts: BTreeSet<String> = (0..seeds).map(|seed| Mock.text_of(tokens, seed)).collect();
            assert!(texts.len() >= least, "{} different texts of {tokens} tokens", texts.len());
        }
    }

    proptest! {
        #[test]
        fn texts_have_exactly_their_tokens(tokens in 0..600_u32, seed: u64) {
            let text = Mock.text_of(tokens, seed);
            prop_assert_eq!(Mock.encode(&text).len(), tokens as usize);
            prop_assert_eq!(text.trim(), &text);
            prop_assert!(Mock.text_of(tokens + 1, seed).starts_with(&text));
        }

        #[test]
        fn joined_texts_have_the_sum(a in 1..50_u32, b in 1..50_u32, seeds: (u64, u64)) {
            let (left, right) = (Mock.text_of(a, seeds.0), Mock.text_of(b, seeds.1));
            prop_assert_eq!(Mock.count(&format!("{left} {right}")), a + b);
        }

        #[test]
        fn pieces_make_up_the_text(text: String) {
            prop_assert_eq!(Mock::pieces(&text).collect::<String>(), text.as_str());
            prop_assert_eq!(Mock.encode(&text).len() as u32, Mock.count(&text));
        }
    }
}

//! An invented byte-level vocabulary: any text has its tokens, and invented words of one and two syllables are one token
//! each, with and without the space before them.

use serde_json::{Map, Value, json};

const CONSONANTS: &str = "bcdfghjklmnpqrstvwxyz";
const VOWELS: &str = "aeiou";
const END: &str = "<|endoftext|>";
/// The space, in the alphabet that byte-level vocabularies are written in.
const SPACE: &str = "Ġ";

/// Tokens and the pairs that make them.
pub struct Vocabulary {
    tokens: Vec<String>,
    merges: Vec<(String, String)>,
}

impl Vocabulary {
    /// At most `size` tokens; there are not many more than 22,000.
    pub fn of_size(size: u64) -> Self {
        let mut all = Self { tokens: (0..=255).map(written).map(String::from).collect(), merges: Vec::new() };
        let syllables: Vec<String> = CONSONANTS
            .chars()
            .flat_map(|consonant| VOWELS.chars().map(move |vowel| format!("{consonant}{vowel}")))
            .collect();
        let letters = syllables.iter().map(|syllable| syllable.split_at(1));
        let spaced: Vec<String> = syllables.iter().map(|syllable| format!("{SPACE}{syllable}")).collect();
        // Those of a row come before those of the next, so that a word is put together from its start.
        let rows = letters
            .map(|(consonant, vowel)| (consonant.to_owned(), vowel.to_owned()))
            .chain(syllables.iter().map(|syllable| (SPACE.to_owned(), syllable.clone())))
            .chain(pairs(&syllables, &spaced));
        // One place is the end's.
        let free = usize::try_from(size).unwrap_or(usize::MAX).saturating_sub(all.tokens.len() + 1);
        for (left, right) in rows.take(free) {
            all.tokens.push(format!("{left}{right}"));
            all.merges.push((left, right));
        }
        all
    }

    /// The id of the token that ends a text.
    pub fn end(&self) -> u64 {
        self.tokens.len() as u64
    }

    /// tokenizer.json.
    pub fn json(&self) -> Value {
        let mut vocabulary: Map<String, Value> =
            (0..).zip(&self.tokens).map(|(id, token): (u64, _)| (token.clone(), id.into())).collect();
        vocabulary.insert(END.into(), self.end().into());
        let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [{
                "id": self.end(), "content": END, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            }],
            "normalizer": null,
            "pre_tokenizer": byte_level,
            "post_processor": byte_level,
            "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
                "vocab": vocabulary, "merges": self.merges,
            },
        })
    }
}

/// Two syllables, each with and without a space before it.
fn pairs<'a>(syllables: &'a [String], spaced: &'a [String]) -> impl Iterator<Item = (String, String)> + 'a {
    syllables.iter().zip(spaced).flat_map(move |(plain, spaced)| {
        syllables
            .iter()
            .flat_map(move |second| [(plain.clone(), second.clone()), (spaced.clone(), second.clone())])
    })
}

/// The character that stands for a byte in byte-level vocabularies: itself where it can be printed, else one of those
/// from U+0100 on, in order.
fn written(byte: u32) -> char {
    let is_printed = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let code = if is_printed(byte) {
        byte
    } else {
        256 + (0..byte).filter(|other| !is_printed(*other)).count() as u32
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

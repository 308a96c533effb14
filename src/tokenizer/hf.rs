//! The tokenizers of real models.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustc_hash::FxHashSet;
use tokenizers::Tokenizer as Inner;

use super::{Tokenizer, definition};
use crate::checkpoint::gguf::Header;
use crate::checkpoint::{Checkpoint, CheckpointError, Hub, TOKENIZER, Wanted};
use crate::sample::key;

/// Words for prompts of a given length are looked for until there are so many.
const WORDS: usize = 4096;
/// Texts that are tried before the words are trusted, and their words.
const TRIES: (u64, u32) = (32, 48);

/// A tokenizer of a real model: that of its tokenizer.json, of its vocab.json and merges.txt, or of its GGUF file.
///
/// Texts of a given length are strung together from words of the vocabulary that are one token each, alone and behind a
/// space. That the tokens add up is checked for each word, and on whole texts, when the tokenizer is opened. Special tokens
/// (the one that begins a text, say) are not counted and not part of such texts.
#[derive(Clone)]
pub struct Hf(Arc<Opened>);

impl fmt::Debug for Hf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hf").field(&self.0.name).finish()
    }
}

struct Opened {
    inner: Inner,
    name: String,
    words: Vec<Box<str>>,
    vocabulary: u32,
}

impl Hf {
    /// The tokenizer of a model that is named as in a scenario: a folder or file relative to `dir`, or a hub id.
    pub fn find(model: &str, revision: Option<&str>, dir: &Path, hub: &Hub) -> Result<Self, CheckpointError> {
        Self::open(&Checkpoint::find(model, revision, dir, hub, Wanted::Tokenizer)?)
    }

    /// The tokenizer of a checkpoint.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let path = &checkpoint.path;
        let wrong = |path: &Path, problem: String| CheckpointError::file(path, problem);
        let read = |path: &Path| std::fs::read(path).map_err(|error| CheckpointError::file(path, error));
        if checkpoint.is_gguf() {
            let header = Header::read(path).map_err(|error| CheckpointError::file(path, error))?;
            let json = definition::of_gguf(&header).map_err(|problem| wrong(path, problem))?;
            return Self::from_json(json.to_string().as_bytes()).map_err(|problem| wrong(path, problem));
        }
        let [whole, vocabulary, merges] = TOKENIZER.map(|file| path.join(file));
        if path.is_file() || whole.is_file() {
            let file = if path.is_file() { path } else { &whole };
            return Self::from_json(&read(file)?).map_err(|problem| wrong(file, problem));
        }
        let json = definition::of_bpe_files(&read(&vocabulary)?, &read(&merges)?)
            .map_err(|problem| wrong(&vocabulary, problem))?;
        Self::from_json(json.to_string().as_bytes()).map_err(|problem| wrong(&vocabulary, problem))
    }

    /// The tokenizer of a tokenizer.json.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let mut inner =
            Inner::from_bytes(json).map_err(|error| format!("it is no tokenizer.json: {error}"))?;
        // Some files cut or fill up what they encode.
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        inner.with_padding(None);
        let vocabulary = inner.get_vocab(true).into_values().max().map_or(0, |last| last + 1);
        let name = format!("hf:{}", &blake3::hash(json).to_hex()[..16]);
        let mut opened = Opened { inner, name, words: Vec::new(), vocabulary };
        opened.words = opened.find_words()?;
        Ok(Self(Arc::new(opened)))
    }

    /// The token ids of a text as a model expects it: with the special tokens around it that the tokenizer adds.
    pub fn encode_whole(&self, text: &str) -> Vec<u32> {
        self.0.encode(text, true)
    }

    /// The text of token ids, without special tokens. What is no UTF-8 shows as U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        // Ids that it does not know are left out, so that nothing can go wrong.
        self.0.inner.decode(ids, true).unwrap_or_default()
    }

    /// Whether both give every token the same id.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || self.0.name == other.0.name
            || self.0.inner.get_vocab(true) == other.0.inner.get_vocab(true)
    }

    /// One more than the largest id.
    pub fn vocabulary(&self) -> u32 {
        self.0.vocabulary
    }
}

impl Opened {
    fn encode(&self, text: &str, special: bool) -> Vec<u32> {
        // Encoding can not fail without truncation: every model has a token, or none, for what it does not know.
        self.inner.encode_fast(text, special).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
    }

    /// Words that are one token each, alone and behind a word, in the order of their ids: common ones come first.
    fn find_words(&self) -> Result<Vec<Box<str>>, String> {
        let mut vocabulary: Vec<(u32, String)> =
            self.inner.get_vocab(false).into_iter().map(|(token, id)| (id, token)).collect();
        vocabulary.sort_unstable();
        let mut words: Vec<Box<str>> = Vec::new();
        let mut seen: FxHashSet<&str> = FxHashSet::default();
        for (_, token) in &vocabulary {
            // The marks of a space before and of a word's end in the notations of vocabularies.
            let word = token.trim_start_matches(['\u{120}', '\u{2581}']).trim_end_matches("</w>");
            let is_word =
                (2..=12).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase());
            if is_word && seen.insert(word) && self.is_single(word, words.last().map(|last| &**last)) {
                words.push(word.into());
            }
            if words.len() == WORDS {
                break;
            }
        }
        let (texts, length) = TRIES;
        let adds_up = |seed| {
            let text = |seed| string(&words, length, seed);
            let joined = format!("{} {}", text(seed), text(seed + texts));
            self.encode(&joined, false).len() == 2 * length as usize
        };
        if words.len() < 16 || !(0..texts).all(adds_up) {
            return Err(
                "its tokens do not add up when words are put together, so prompts of exact length can not be made"
                    .into(),
            );
        }
        Ok(words)
    }

    fn is_single(&self, word: &str, before: Option<&str>) -> bool {
        let before = before.unwrap_or(word);
        self.encode(word, false).len() == 1 && self.encode(&format!("{before} {word}"), false).len() == 2
    }
}

/// So many words, drawn from a seed.
fn string(words: &[Box<str>], count: u32, seed: u64) -> String {
    let mut text = String::with_capacity(count as usize * 7);
    for index in 0..u64::from(count) {
        if index > 0 {
            text.push(' ');
        }
        text.push_str(&words[(key(&[seed, index]) % words.len() as u64) as usize]);
    }
    text
}

impl Tokenizer for Hf {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn shared(&self) -> Arc<dyn Tokenizer> {
        Arc::new(self.clone())
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        self.0.encode(text, false)
    }

    fn text_of(&self, tokens: u32, seed: u64) -> String {
        string(&self.0.words, tokens, seed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::gguf::{Value, fixture};
    use crate::checkpoint::random::{Like, Random, Stored};

    /// The folder and tokenizer of a tiny model.
    static TINY: LazyLock<(tempfile::TempDir, Hf)> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        Random { like: Like::Gpt2, tiny: true, stored: Stored::F32, seed: 1 }.write(dir.path()).unwrap();
        let hf = Hf::open(&checkpoint(dir.path().to_owned())).unwrap();
        (dir, hf)
    });

    fn checkpoint(path: PathBuf) -> Checkpoint {
        Checkpoint { name: "test".into(), path, revision: None }
    }

    fn texts(texts: &[&str]) -> Value {
        Value::List(texts.iter().map(|text| Value::Text((*text).to_owned())).collect())
    }

    fn open_gguf(values: &[(&str, Value)]) -> Result<Hf, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.gguf");
        std::fs::write(&file, fixture::gguf(values)).unwrap();
        let shown = |error: CheckpointError| error.to_string().replace(dir.path().to_str().unwrap(), "DIR");
        Hf::open(&checkpoint(file)).map_err(shown)
    }

    #[test]
    fn texts_come_back_from_their_tokens() {
        let hf = &TINY.1;
        for text in ["", "Hello, world!  12\n", "naïve 日本 \u{1f600}", " bani<|endoftext|>"] {
            let shown = text.replace("<|endoftext|>", "");
            assert_eq!(hf.decode(&hf.encode(text)), shown);
        }
        assert_eq!(hf.vocabulary(), 512);
        assert_eq!(hf.decode(&[9_999_999]), "", "an id that it does not know is left out");
    }

    #[test]
    fn a_gguf_file_cuts_as_the_tokenizer_it_was_made_of() {
        let json = std::fs::read(TINY.0.path().join("tokenizer.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let model = &json["model"];
        let tokens: Vec<&str> = model["vocab"].as_object().unwrap().keys().map(String::as_str).collect();
        let merges: Vec<String> = (model["merges"].as_array().unwrap().iter())
            .map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
            .collect();
        let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
        let mut kinds = vec![Value::Integer(1); tokens.len()];
        kinds[511] = Value::Integer(3);
        let values = |rule: &str| {
            vec![
                ("tokenizer.ggml.model", Value::Text("gpt2".into())),
                ("tokenizer.ggml.pre", Value::Text(rule.into())),
                ("tokenizer.ggml.tokens", texts(&tokens)),
                ("tokenizer.ggml.merges", texts(&merges)),
                ("tokenizer.ggml.token_type", Value::List(kinds.clone())),
                ("tokenizer.ggml.bos_token_id", Value::Integer(511)),
                ("tokenizer.ggml.add_bos_token", Value::Flag(true)),
            ]
        };
        let text = "Bani, kibo's 123  la\n\n日<|endoftext|>";
        for rule in ["gpt-2", "smollm", "llama-bpe", "qwen2"] {
            let gguf = open_gguf(&values(rule)).unwrap();
            assert_eq!(gguf.decode(&gguf.encode(text)), text.replace("<|endoftext|>", ""), "{rule}");
            assert_eq!(
                gguf.encode_whole("ba"),
                [511, gguf.encode("ba")[0]],
                "{rule}: it begins with its token"
            );
        }
        let gguf = open_gguf(&values("gpt-2")).unwrap();
        assert_eq!(gguf.encode(text), TINY.1.encode(text));
        let error = open_gguf(&values("other")).unwrap_err();
        insta::assert_snapshot!(error, @"DIR/model.gguf: its tokenizer cuts texts by the rule `other`, which is not known; name a tokenizer.json with `tokenizer`");
    }

    /// Letters, bytes, and words put together from their start, the longer the better.
    fn sentence_piece(prefix: bool) -> Vec<(&'static str, Value)> {
        let mut tokens: Vec<String> = vec!["<unk>".into(), "<s>".into()];
        let mut scores = vec![0.0, 0.0];
        for byte in 0..=255 {
            tokens.push(format!("<0x{byte:02X}>"));
            scores.push(-1000.0);
        }
        let words: Vec<String> = "abcdefghijklmnopqrst"
            .chars()
            .flat_map(|a| ["an", "in"].map(|end| format!("{a}{end}")))
            .collect();
        for word in words.iter().flat_map(|word| [word.clone(), format!("\u{2581}{word}")]) {
            let starts: Vec<String> =
                word.char_indices().map(|(at, c)| word[..at + c.len_utf8()].to_owned()).collect();
            for part in starts.into_iter().chain(word.chars().map(String::from)) {
                if !tokens.contains(&part) {
                    scores.push(part.chars().count() as f64);
                    tokens.push(part);
                }
            }
        }
        let kinds = (0..tokens.len()).map(|id| {
            Value::Integer(match id {
                0 => 2,
                1 => 3,
                2..258 => 6,
                _ => 1,
            })
        });
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        vec![
            ("tokenizer.ggml.model", Value::Text("llama".into())),
            ("tokenizer.ggml.tokens", texts(&tokens)),
            ("tokenizer.ggml.scores", Value::List(scores.into_iter().map(Value::Float).collect())),
            ("tokenizer.ggml.token_type", Value::List(kinds.collect())),
            ("tokenizer.ggml.bos_token_id", Value::Integer(1)),
            ("tokenizer.ggml.unknown_token_id", Value::Integer(0)),
            ("tokenizer.ggml.add_space_prefix", Value::Flag(prefix)),
        ]
    }

    #[test]
    fn scores_decide_what_a_sentence_piece_vocabulary_merges() {
        for prefix in [true, false] {
            let hf = open_gguf(&sentence_piece(prefix)).unwrap();
            let ids = hf.encode("ban tin");
            assert_eq!(ids.len(), 2, "{ids:?}");
            assert_eq!(hf.encode_whole("ban tin"), [vec![1], ids].concat());
            for text in ["ban tin", "ban  é", "日 can"] {
                assert_eq!(hf.decode(&hf.encode(text)), text);
            }
            assert_eq!(hf.encode(&hf.text_of(200, 7)).len(), 200);
        }
    }

    #[test]
    fn what_can_not_be_opened_says_why() {
        let mut values = sentence_piece(true);
        values[0].1 = Value::Text("bert".into());
        insta::assert_snapshot!(open_gguf(&values).unwrap_err(), @"DIR/model.gguf: its tokenizer is of kind `bert`, and only `gpt2` and `llama` are known; name a tokenizer.json with `tokenizer`");
        insta::assert_snapshot!(open_gguf(&[]).unwrap_err(), @"DIR/model.gguf: its tokenizer lacks `tokenizer.ggml.tokens`");
        assert!(Hf::from_json(b"{}").unwrap_err().starts_with("it is no tokenizer.json"));
        // Bytes alone: every word is as many tokens as letters.
        let json = std::fs::read_to_string(TINY.0.path().join("tokenizer.json")).unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["model"]["merges"] = serde_json::json!([]);
        let error = Hf::from_json(json.to_string().as_bytes()).unwrap_err();
        insta::assert_snapshot!(error, @"its tokens do not add up when words are put together, so prompts of exact length can not be made");
    }

    #[test]
    fn two_files_make_the_tokenizer_of_one() {
        let json = std::fs::read(TINY.0.path().join("tokenizer.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vocab.json"), json["model"]["vocab"].to_string()).unwrap();
        let merges = json["model"]["merges"].as_array().unwrap();
        let lines = merges
            .iter()
            .map(|pair| format!("{} {}\n", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
        let text = std::iter::once("#version: 0.2\n".to_owned()).chain(lines).collect::<String>();
        std::fs::write(dir.path().join("merges.txt"), text).unwrap();
        let hf = Hf::open(&checkpoint(dir.path().to_owned())).unwrap();
        let text = "Bani, kibo<|endoftext|> 12";
        assert_eq!(hf.encode(text), TINY.1.encode(text));
    }

    proptest! {
        #[test]
        fn texts_have_exactly_their_tokens(tokens in 0..600_u32, seed: u64) {
            let text = TINY.1.text_of(tokens, seed);
            prop_assert_eq!(TINY.1.encode(&text).len(), tokens as usize);
            prop_assert_eq!(text.trim(), &text);
            prop_assert!(TINY.1.text_of(tokens + 1, seed).starts_with(&text));
        }

        #[test]
        fn joined_texts_have_the_sum(a in 1..50_u32, b in 1..50_u32, seeds: (u64, u64)) {
            let (left, right) = (TINY.1.text_of(a, seeds.0), TINY.1.text_of(b, seeds.1));
            prop_assert_eq!(TINY.1.count(&format!("{left} {right}")), a + b);
        }
    }
}

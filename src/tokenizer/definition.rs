//! Tokenizers that are not written as tokenizer.json, written as one.
//!
//! The rules by which a GGUF file's tokenizer cuts a text before its merges are named by `tokenizer.ggml.pre`; the patterns
//! are those of the models' own tokenizer.json.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::checkpoint::gguf::{self, Header};

/// The pattern of Llama 3.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The pattern of Qwen 2: as Llama 3, and each digit alone.
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a GGUF file marks a token that controls the model, and one that a user added.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// The tokenizer of a GGUF file as tokenizer.json.
///
/// # Errors
/// Why there is none.
pub fn of_gguf(header: &Header) -> Result<Value, String> {
    let lacking = |key: &str| format!("its tokenizer lacks `{key}`");
    let tokens = header.texts("tokenizer.ggml.tokens").ok_or_else(|| lacking("tokenizer.ggml.tokens"))?;
    let model = header.text("tokenizer.ggml.model").ok_or_else(|| lacking("tokenizer.ggml.model"))?;
    let mut definition = match model {
        "gpt2" => byte_level(header, &tokens)?,
        "llama" => sentence_piece(header, &tokens)?,
        other => {
            return Err(format!(
                "its tokenizer is of kind `{other}`, and only `gpt2` and `llama` are known; name a tokenizer.json with `tokenizer`"
            ));
        }
    };
    definition["added_tokens"] = added(header, &tokens);
    let begin = header.integer("tokenizer.ggml.bos_token_id").and_then(|id| usize::try_from(id).ok());
    let adds_begin = header.flag("tokenizer.ggml.add_bos_token").unwrap_or(model == "llama");
    if let Some(begin) = begin.filter(|id| adds_begin && *id < tokens.len()) {
        let token = tokens[begin];
        definition["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": token, "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { token: { "id": token, "ids": [begin], "tokens": [token] } },
        });
    }
    Ok(definition)
}

fn added(header: &Header, tokens: &[&str]) -> Value {
    let kinds = header.list("tokenizer.ggml.token_type").unwrap_or_default();
    let kind = |value: &gguf::Value| if let gguf::Value::Integer(kind) = value { *kind } else { 0 };
    let entries = tokens.iter().zip(kinds).enumerate().filter_map(|(id, (token, value))| {
        let kind = kind(value);
        let entry = json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": kind == CONTROL,
        });
        [CONTROL, USER_DEFINED].contains(&kind).then_some(entry)
    });
    entries.collect()
}

fn vocabulary(tokens: &[&str]) -> Map<String, Value> {
    (0..).zip(tokens).map(|(id, token): (u64, _)| ((*token).to_owned(), id.into())).collect()
}

fn bpe(vocabulary: &Map<String, Value>, merges: &[(&str, &str)]) -> Value {
    json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
        "vocab": vocabulary, "merges": merges,
    })
}

fn byte_level(header: &Header, tokens: &[&str]) -> Result<Value, String> {
    let merges =
        header.texts("tokenizer.ggml.merges").ok_or("its tokenizer lacks `tokenizer.ggml.merges`")?;
    let merges: Vec<(&str, &str)> = merges
        .iter()
        .map(|merge| merge.split_once(' ').ok_or_else(|| format!("its tokenizer has a merge `{merge}`")))
        .collect::<Result<_, _>>()?;
    let step = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
    let split = |pattern: &str| {
        json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
            step(false),
        ]})
    };
    let mut model = bpe(&vocabulary(tokens), &merges);
    let mut normalizer = Value::Null;
    let rule = header.text("tokenizer.ggml.pre").unwrap_or("default");
    let pre_tokenizer = match rule {
        "default" | "gpt-2" | "gpt2" | "phi-2" | "olmo" => step(true),
        "smollm" | "starcoder" | "refact" | "codeshell" | "exaone" | "command-r" => {
            let digits = json!({ "type": "Digits", "individual_digits": true });
            json!({ "type": "Sequence", "pretokenizers": [digits, step(true)] })
        }
        "llama-bpe" | "llama3" | "llama-v3" | "smaug-bpe" => {
            model["ignore_merges"] = json!(true);
            split(LLAMA_3)
        }
        "qwen2" | "stablelm2" | "deepseek-r1-qwen" => {
            normalizer = json!({ "type": "NFC" });
            split(QWEN_2)
        }
        other => {
            return Err(format!(
                "its tokenizer cuts texts by the rule `{other}`, which is not known; name a tokenizer.json with `tokenizer`"
            ));
        }
    };
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": step(false), "decoder": step(true), "model": model,
    }))
}

/// A `SentencePiece` vocabulary with scores. Of two neighbours, those are merged first whose union scores highest, which is
/// what merges in the order of score do.
fn sentence_piece(header: &Header, tokens: &[&str]) -> Result<Value, String> {
    let scores = header.list("tokenizer.ggml.scores").ok_or("its tokenizer lacks `tokenizer.ggml.scores`")?;
    let score =
        |value: &gguf::Value| if let gguf::Value::Float(score) = value { *score } else { f64::NEG_INFINITY };
    let scores: HashMap<&str, f64> =
        tokens.iter().zip(scores).map(|(token, value)| (*token, score(value))).collect();
    let mut merges: Vec<(f64, &str, &str)> = Vec::new();
    for token in tokens {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if scores.contains_key(left) && scores.contains_key(right) {
                merges.push((scores[token], left, right));
            }
        }
    }
    merges.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    let merges: Vec<(&str, &str)> = merges.into_iter().map(|(_, left, right)| (left, right)).collect();
    let mut model = bpe(&vocabulary(tokens), &merges);
    model["byte_fallback"] = json!(true);
    model["fuse_unk"] = json!(true);
    let unknown = header.integer("tokenizer.ggml.unknown_token_id").and_then(|id| usize::try_from(id).ok());
    model["unk_token"] = json!(unknown.and_then(|id| tokens.get(id)));
    let is_prefixed = header.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    let spaces = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" });
    let prefix = json!({ "type": "Prepend", "prepend": "\u{2581}" });
    let back = json!({ "type": "Replace", "pattern": { "String": "\u{2581}" }, "content": " " });
    let strip = json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 });
    let mut normalizers = vec![spaces];
    let mut decoders = vec![back, json!({ "type": "ByteFallback" }), json!({ "type": "Fuse" })];
    if is_prefixed {
        normalizers.insert(0, prefix);
        decoders.push(strip);
    }
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": { "type": "Sequence", "normalizers": normalizers }, "pre_tokenizer": null,
        "post_processor": null, "decoder": { "type": "Sequence", "decoders": decoders }, "model": model,
    }))
}

/// The tokenizer of a vocab.json and merges.txt of the GPT-2 family as tokenizer.json.
///
/// # Errors
/// What is wrong with them.
pub fn of_bpe_files(vocabulary: &[u8], merges: &[u8]) -> Result<Value, String> {
    let vocabulary: Map<String, Value> =
        serde_json::from_slice(vocabulary).map_err(|error| format!("it is no vocabulary: {error}"))?;
    let merges = std::str::from_utf8(merges).map_err(|_| "its merges.txt is no UTF-8")?;
    let pair = |line: &'_ str| line.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned()));
    let lines = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let pairs = lines.map(|line| pair(line).ok_or_else(|| format!("its merges.txt has a line `{line}`")));
    let pairs: Vec<(String, String)> = pairs.collect::<Result<_, _>>()?;
    let pairs: Vec<(&str, &str)> =
        pairs.iter().map(|(left, right)| (left.as_str(), right.as_str())).collect();
    let specials = ["<|endoftext|>", "<s>", "</s>", "<pad>", "<unk>", "<mask>"];
    let added: Vec<Value> = specials
        .iter()
        .filter_map(|token| {
            let id = vocabulary.get(*token)?;
            Some(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            }))
        })
        .collect();
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": byte_level, "decoder": byte_level,
        "model": bpe(&vocabulary, &pairs),
    }))
}

//! What a scenario says about a model on this machine's CPU.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::EngineLimits;
use crate::units::{Size, TokenCount};

/// A real model on this machine's CPU, in this process. Requests are batched step by step as on an inference server, over a
/// paged KV cache with prefix reuse, eviction and preemption; every number is measured. Runs on the real clock.
///
/// Known architectures: GPT-2, OPT, Llama (and what has its form, such as `SmolLM2`), Mistral, Qwen2 and 2.5, Qwen3, Gemma 3.
/// Conversations of given texts (a file's, or a hook's) go through the model's own chat template, and what it adds counts as
/// prompt tokens; generated prompts and conversations have exactly the tokens that they should, and go without. Without
/// `output.temperature`, answers are greedy: the most likely token is taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CandleBackend {
    /// The model: a folder with config.json, tokenizer.json and safetensors (relative to the scenario), one GGUF file, a
    /// hub id such as `HuggingFaceTB/SmolLM2-135M`, or one GGUF file of the hub, `ORG/NAME/FILE.gguf`. What the hub's cache
    /// on this machine holds is taken from there (`HF_HOME`, `HF_HUB_CACHE`); with `HF_HUB_OFFLINE=1` nothing is fetched.
    /// `sagebench model random` writes models for machines that can not download any.
    #[schemars(length(min = 1))]
    pub model: String,
    /// The branch, tag or commit of the hub. Default `main`. The commit that was used is in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Another tokenizer than the model's own: a tokenizer.json, a folder that holds one, or a hub id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// What weights are held and multiplied as. Default `auto`.
    #[serde(default)]
    pub dtype: Dtype,
    /// Threads that compute. Default: one per core of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<u32>,
    /// The KV cache.
    #[serde(default)]
    pub kv: CandleKv,
    /// What bounds a step.
    #[serde(default)]
    pub engine: EngineLimits,
    /// Speculative decoding. It changes how fast answers come, and not what they say. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speculative: Option<Drafting>,
}

/// What weights are held and multiplied as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// As the checkpoint has them, where that can be computed with; else the next larger type.
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// 16 bits: the upper half of those.
    Bf16,
    /// 8 bits, in blocks of 32 with a scale.
    #[serde(rename = "q8_0")]
    Q8,
}

/// The KV cache of a model on the CPU. At most one of `tokens`, `blocks` and `bytes` gives its size. Default: a quarter of
/// the memory that is free when the model is opened, and not more than 1 GiB or `max_num_seqs` full contexts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("examples" = [{ "tokens": 8192 }, { "bytes": "512MiB" }]))]
pub struct CandleKv {
    /// Its size in tokens, rounded down to whole blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenCount>,
    /// Its size in blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub blocks: Option<u32>,
    /// Its size in bytes, rounded down to whole blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Size>,
    /// Tokens in one block. Default 16.
    #[schemars(range(min = 1, max = 4096))]
    pub block_tokens: u32,
    /// Whether full blocks are kept for later requests with the same prefix. Default true.
    pub prefix_cache: bool,
}

impl Default for CandleKv {
    fn default() -> Self {
        Self { tokens: None, blocks: None, bytes: None, block_tokens: 16, prefix_cache: true }
    }
}

crate::union! {
    /// Where draft tokens come from.
    pub enum Drafting {
        "prompt_lookup" => PromptLookup(PromptLookup),
        "draft" => Model(DraftModel),
    }
    examples [
        { "kind": "prompt_lookup", "tokens": 4 },
        { "kind": "draft", "model": "HuggingFaceTB/SmolLM2-135M", "tokens": 4 },
    ]
}

impl Drafting {
    /// The most drafts per step.
    pub fn tokens(&self) -> u32 {
        match self {
            Self::PromptLookup(lookup) => lookup.tokens,
            Self::Model(draft) => draft.tokens,
        }
    }
}

/// Drafts are copied from where the last words stood before, in the prompt or the answer: good for summaries, edits and
/// code. A draft counts when the model would have chosen it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptLookup {
    /// At most so many drafts per step. Fewer are tried while few are accepted. Default 4.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 64))]
    pub tokens: u32,
    /// The longest run of tokens that is looked for; shorter ones follow, down to `min_ngram`. Default 3.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 16))]
    pub max_ngram: u32,
    /// The shortest run of tokens that is looked for. Default 2.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 16))]
    pub min_ngram: u32,
}

/// Drafts come from a smaller model with the same tokenizer. It computes every prompt too, and its keys and values lie in the
/// same blocks as the model's: the KV cache holds both. A draft counts when the model would have chosen it too, by the same
/// seeded draw where `temperature` is above 0; so answers are those of the model alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DraftModel {
    /// The smaller model, named as `model` is.
    #[schemars(length(min = 1))]
    pub model: String,
    /// Its branch, tag or commit of the hub. Default `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// At most so many drafts per step. Fewer are tried while few are accepted. Default 4.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 64))]
    pub tokens: u32,
}

fn four() -> u32 {
    4
}
fn three() -> u32 {
    3
}
fn two() -> u32 {
    2
}

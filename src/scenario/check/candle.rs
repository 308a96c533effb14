//! Models on the CPU.

use super::{Part, below};
use crate::backend::config::{CandleBackend, Drafting};

impl Part<'_> {
    /// Checks a model on the CPU.
    pub fn candle(&mut self, local: &CandleBackend) {
        let mut kv = self.at(&["kv"]);
        let sizes = ["tokens", "blocks", "bytes"];
        if sizes.iter().any(|key| below(kv.node, key).1.is_some()) {
            kv.one_of("the KV cache", &sizes, "one of them gives its size");
        }
        let block = local.kv.block_tokens;
        if local.kv.tokens.is_some_and(|tokens| tokens.0 < block) {
            kv.at(&["tokens"]).wrong(format!("the KV cache holds not one block of {block} tokens"));
        }
        kv.above_zero("bytes", local.kv.bytes.map(|bytes| bytes.0 > 0));
        if let Some(Drafting::PromptLookup(lookup)) = &local.speculative
            && lookup.min_ngram > lookup.max_ngram
        {
            self.at(&["speculative"]).wrong(format!(
                "`min_ngram` ({}) is more than `max_ngram` ({})",
                lookup.min_ngram, lookup.max_ngram
            ));
        }
    }
}

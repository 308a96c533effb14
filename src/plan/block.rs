//! The identity of a request's content, block by block, without rendering it.
//!
//! Content is a pure function of (seed, offset), so a block is told by which seeds it covers from where to where. Two
//! blocks have the same identity exactly when their content is equal by construction: blocks inside a shared prefix
//! within a group, blocks of equal trace ids, blocks of equal given tokens. What the model answers is content of its
//! own, different for each request and told by (its request's seed, offset), wherever it stands: so a later turn of a
//! conversation finds the answers before it in the cache.

use super::{Content, PromptRecipe, Recipe};
use crate::sample::{key, mix, name_key};

const SEEDED: u64 = 1;
const GIVEN: u64 = 2;
const TRACED: u64 = 3;
const ANSWER: u64 = 4;

impl Recipe {
    /// The identity of the `index`-th full block of `block_tokens` tokens of prompt and output together. `block_tokens`
    /// must not be 0.
    pub fn block(&self, index: u64, block_tokens: u32) -> u64 {
        let from = index * u64::from(block_tokens);
        let to = from + u64::from(block_tokens);
        let prompt = u64::from(self.prompt.tokens());
        let mut hash = u64::from(block_tokens);
        if from < prompt {
            hash = self.prompt_part(hash, from, to.min(prompt));
        }
        if to > prompt {
            hash = piece(hash, ANSWER, self.seed, from.max(prompt) - prompt, to - prompt);
        }
        hash
    }

    /// Goes on hashing the prompt's tokens `from..to`.
    fn prompt_part(&self, mut hash: u64, from: u64, to: u64) -> u64 {
        match &self.prompt {
            PromptRecipe::Synthetic { prefix, .. } => {
                let shared = prefix.map_or(0, |prefix| u64::from(prefix.tokens));
                if let Some(prefix) = prefix.filter(|_| from < shared) {
                    hash = piece(hash, SEEDED, prefix.seed, from, to.min(shared));
                }
                if to > shared {
                    hash = piece(hash, SEEDED, self.seed, from.max(shared) - shared, to - shared);
                }
                hash
            }
            PromptRecipe::Text { ids, .. } => given(hash, ids, from, to),
            PromptRecipe::Blocks { block_tokens, ids, .. } => traced(hash, *block_tokens, ids, from, to),
            PromptRecipe::Chat { messages, .. } => {
                let mut start = 0;
                for message in messages.iter() {
                    let end = start + u64::from(message.content.tokens());
                    if from < end && start < to {
                        hash = message.content.part(hash, from.max(start) - start, to.min(end) - start);
                    }
                    start = end;
                }
                hash
            }
        }
    }
}

impl Content {
    /// Goes on hashing the message's tokens `from..to`.
    fn part(&self, hash: u64, from: u64, to: u64) -> u64 {
        match self {
            Self::Synthetic { seed, .. } => piece(hash, SEEDED, *seed, from, to),
            Self::Answer { seed, .. } => piece(hash, ANSWER, *seed, from, to),
            Self::Text { ids, .. } => given(hash, ids, from, to),
            // Parts without text, such as images, are told apart by the message as a whole.
            Self::Given { message, ids, .. } => {
                given(key(&[hash, name_key(&message.to_string())]), ids, from, to)
            }
            Self::Blocks { block_tokens, ids, .. } => traced(hash, *block_tokens, ids, from, to),
        }
    }
}

/// Goes on hashing the tokens `from..to`, both below 2^32, of what a seed generates. A simulated engine asks for every block
/// of every request, so this mixes no more than it has to.
fn piece(hash: u64, kind: u64, seed: u64, from: u64, to: u64) -> u64 {
    mix(mix(hash ^ mix(seed.wrapping_add(kind))) ^ (from << 32 | to))
}

fn given(hash: u64, ids: &[u32], from: u64, to: u64) -> u64 {
    let given = ids.iter().skip(from as usize).take((to - from) as usize);
    given.fold(key(&[hash, GIVEN]), |hash, id| key(&[hash, u64::from(*id)]))
}

fn traced(mut hash: u64, block_tokens: u32, ids: &[u64], from: u64, to: u64) -> u64 {
    let size = u64::from(block_tokens).max(1);
    let mut at = from;
    while at < to {
        let end = to.min((at / size + 1) * size);
        let id = ids.get((at / size) as usize).copied().unwrap_or(u64::MAX);
        hash = key(&[hash, TRACED, id, at % size, end - at]);
        at = end;
    }
    hash
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::Prefix;
    use crate::tokenizer::Mock;

    fn recipe(seed: u64, prompt: PromptRecipe) -> Recipe {
        Recipe::new(0, prompt, 8, seed)
    }

    fn synthetic(seed: u64, tokens: u32, prefix: Option<Prefix>) -> Recipe {
        recipe(seed, PromptRecipe::Synthetic { tokens, prefix })
    }

    fn traced(seed: u64, tokens: u32, block_tokens: u32, ids: &[u64]) -> Recipe {
        recipe(seed, PromptRecipe::Blocks { tokens, block_tokens, ids: ids.into() })
    }

    #[test]
    fn a_group_shares_the_blocks_inside_its_prefix_only() {
        let group = Some(Prefix { tokens: 40, seed: 7 });
        let (a, b) = (synthetic(1, 64, group), synthetic(2, 80, group));
        assert_eq!(a.block(0, 16), b.block(0, 16));
        assert_eq!(a.block(1, 16), b.block(1, 16));
        assert_ne!(a.block(2, 16), b.block(2, 16), "the third block is half suffix");
        assert_ne!(a.block(0, 16), a.block(1, 16));
        let other = synthetic(1, 64, Some(Prefix { tokens: 40, seed: 8 }));
        assert_ne!(a.block(0, 16), other.block(0, 16));
    }

    #[test]
    fn answers_are_never_shared() {
        let (a, b) = (traced(1, 32, 16, &[5, 6]), traced(2, 32, 16, &[5, 6]));
        assert_eq!(a.block(1, 16), b.block(1, 16));
        assert_ne!(a.block(2, 16), b.block(2, 16));
        assert_ne!(a.block(2, 16), a.block(3, 16));
    }

    #[test]
    fn small_blocks_inside_large_trace_blocks() {
        let (a, b) = (traced(1, 1024, 512, &[3, 4]), traced(2, 700, 512, &[3, 9]));
        for block in 0..32 {
            assert_eq!(a.block(block, 16), b.block(block, 16));
        }
        assert_ne!(a.block(32, 16), b.block(32, 16));
        assert_ne!(a.block(0, 16), a.block(1, 16));
        let wide = traced(3, 64, 16, &[1, 2, 3, 4]);
        assert_eq!(wide.block(0, 32), traced(4, 40, 16, &[1, 2, 8]).block(0, 32));
        assert_ne!(wide.block(1, 32), wide.block(0, 32));
    }

    #[test]
    fn texts_share_what_they_begin_with() {
        let text = |seed, text: &str| recipe(seed, PromptRecipe::text(Arc::from(text), &Mock));
        let (a, b) = (text(1, "one two three four five"), text(2, "one two three four seven"));
        assert_eq!(a.block(0, 4), b.block(0, 4));
        assert_ne!(a.block(1, 4), b.block(1, 4));
        assert_ne!(a.block(0, 5), b.block(0, 5));
    }
}

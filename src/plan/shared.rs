//! How much of its prompts a workload shares.

use rustc_hash::FxHashSet;

use super::{PromptRecipe, Recipe, WorkloadPlan};
use crate::record::Phase;
use crate::sample::mix;

/// Tokens of a block: servers find prefixes in blocks of this size, or smaller ones.
const BLOCK: u32 = 16;
/// Blocks that are looked at, at most.
const MOST_BLOCKS: u64 = 1 << 22;

/// Prompt tokens of some requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SharedTokens {
    /// All of them.
    pub prompt: u64,
    /// Those that requests before have as well, from the start of the prompt on.
    pub shared: u64,
}

impl WorkloadPlan {
    /// The prompt tokens of the first `requests` measured requests of a repeat, and how many an endless prefix cache
    /// finds that is empty before the warm-up and takes the requests in order: full blocks of 16 tokens, answers included.
    /// `None` where that is too much to look at, or not known before the run because hooks make the prompts.
    pub fn shared_tokens(&self, repeat: u32, requests: u64) -> Option<SharedTokens> {
        if self.hooked.as_ref().is_some_and(|hooked| hooked.makes_turns()) {
            return None;
        }
        let (mut known, mut tokens, mut measured, mut looked) =
            (FxHashSet::default(), SharedTokens::default(), 0, 0);
        let mut stream = self.stream(repeat);
        while measured < requests {
            let Some(recipe) = stream.next() else { break };
            let (blocks, found) = find(&recipe, &mut known);
            looked += blocks;
            if looked > MOST_BLOCKS {
                return None;
            }
            if recipe.phase == Phase::Measured {
                measured += 1;
                tokens.prompt += u64::from(recipe.prompt.tokens());
                tokens.shared += found * u64::from(BLOCK);
            }
        }
        Some(tokens)
    }
}

/// Looks a request's blocks up and adds them: how many were looked at, and how many of its prompt were there.
fn find(recipe: &Recipe, known: &mut FxHashSet<u64>) -> (u64, u64) {
    let size = u64::from(BLOCK);
    let prompt = u64::from(recipe.prompt.tokens());
    let all = match &recipe.prompt {
        // What a request's own seed generates is nobody else's.
        PromptRecipe::Synthetic { prefix, .. } => prefix.map_or(0, |prefix| u64::from(prefix.tokens)),
        _ => prompt + u64::from(recipe.output_tokens),
    } / size;
    let (mut chain, mut found, mut is_prefix) = (0, 0, true);
    for index in 0..all {
        chain = mix(chain ^ recipe.block(index, BLOCK));
        let is_new = known.insert(chain);
        is_prefix &= !is_new && (index + 1) * size <= prompt;
        found += u64::from(is_prefix);
    }
    (all, found)
}

//! From a recipe to its text.

use super::{PromptRecipe, Recipe};
use crate::sample::key;
use crate::tokenizer::Tokenizer;

/// The prompt's text: exactly as many tokens as the recipe says, by the tokenizer it is rendered with. A pure function
/// of both. Equal shared prefixes and equal leading blocks give equal leading text.
///
/// A text that the scenario gives is returned as it stands.
pub fn text(recipe: &Recipe, tokenizer: &dyn Tokenizer) -> String {
    match &recipe.prompt {
        PromptRecipe::Text { text, .. } => text.to_string(),
        PromptRecipe::Synthetic { tokens, prefix: None } => tokenizer.text_of(*tokens, recipe.seed),
        PromptRecipe::Synthetic { tokens, prefix: Some(prefix) } => {
            let shared = prefix.tokens.min(*tokens);
            join([(shared, prefix.seed), (tokens - shared, recipe.seed)], tokenizer)
        }
        PromptRecipe::Blocks { tokens, block_tokens, ids } => {
            let size = (*block_tokens).max(1);
            let blocks = (0..tokens.div_ceil(size)).map(|block| {
                let id = ids.get(block as usize).copied().unwrap_or(u64::MAX);
                (size.min(tokens - block * size), key(&[BLOCK_TEXT, id]))
            });
            join(blocks, tokenizer)
        }
    }
}

/// Keeps the texts of trace blocks apart from those of seeds.
const BLOCK_TEXT: u64 = 0x626c_6f63_6b00;

/// Joins parts of (tokens, seed) by one space, which the tokenizer's texts allow without changing their tokens.
fn join(parts: impl IntoIterator<Item = (u32, u64)>, tokenizer: &dyn Tokenizer) -> String {
    let mut text = String::new();
    for (tokens, seed) in parts.into_iter().filter(|(tokens, _)| *tokens > 0) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&tokenizer.text_of(tokens, seed));
    }
    text
}

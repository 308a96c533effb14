//! From a recipe to its text.

use super::{Message, PromptRecipe, Recipe};
use crate::sample::key;
use crate::tokenizer::Tokenizer;

/// The prompt's text: exactly as many tokens as the recipe says, by the tokenizer it is rendered with. A pure function
/// of both. Equal shared prefixes and equal leading blocks give equal leading text.
///
/// A text that the scenario gives is returned as it stands. Of a chat it is the messages' texts, one behind the other:
/// what a server without a chat endpoint is sent. See [`wire_messages`](super::wire_messages) for the others.
pub fn text(recipe: &Recipe, tokenizer: &dyn Tokenizer) -> String {
    let mut text_of = |tokens, seed| tokenizer.text_of(tokens, seed);
    match &recipe.prompt {
        PromptRecipe::Text { text, .. } => text.to_string(),
        PromptRecipe::Chat { messages, .. } => chat_text(messages, &mut text_of),
        _ => join(parts(recipe), text_of),
    }
}

/// The texts of messages, one behind the other. `text_of` makes a text of so many tokens from a seed.
pub fn chat_text(messages: &[Message], text_of: &mut dyn FnMut(u32, u64) -> String) -> String {
    let texts = messages.iter().map(|message| message.content.render(text_of));
    texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

/// What a generated prompt consists of, in order: tokens, and what seeds them. Equal seeds give equal content. Nothing for
/// a given text or a conversation.
pub fn parts(recipe: &Recipe) -> Vec<(u32, u64)> {
    let mut parts = match &recipe.prompt {
        PromptRecipe::Text { .. } | PromptRecipe::Chat { .. } => Vec::new(),
        PromptRecipe::Synthetic { tokens, prefix: None } => vec![(*tokens, recipe.seed)],
        PromptRecipe::Synthetic { tokens, prefix: Some(prefix) } => {
            let shared = prefix.tokens.min(*tokens);
            vec![(shared, prefix.seed), (tokens - shared, recipe.seed)]
        }
        PromptRecipe::Blocks { tokens, block_tokens, ids } => block_parts(*tokens, *block_tokens, ids),
    };
    parts.retain(|(tokens, _)| *tokens > 0);
    parts
}

/// Keeps the texts of trace blocks apart from those of seeds.
const BLOCK_TEXT: u64 = 0x626c_6f63_6b00;

/// The parts of content that is named by block ids.
pub(super) fn block_parts(tokens: u32, block_tokens: u32, ids: &[u64]) -> Vec<(u32, u64)> {
    let size = block_tokens.max(1);
    let block = |block: u32| {
        let id = ids.get(block as usize).copied().unwrap_or(u64::MAX);
        (size.min(tokens - block * size), key(&[BLOCK_TEXT, id]))
    };
    (0..tokens.div_ceil(size)).map(block).collect()
}

/// Joins the texts of parts by one space, which tokenizers allow without changing their tokens.
pub fn join(
    parts: impl IntoIterator<Item = (u32, u64)>,
    mut text_of: impl FnMut(u32, u64) -> String,
) -> String {
    let mut text = String::new();
    for (tokens, seed) in parts {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&text_of(tokens, seed));
    }
    text
}

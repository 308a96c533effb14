//! The prompts of requests: as text, or as the ids of tokens where that makes their length exact.

use std::sync::Arc;

use serde_json::{Value, json};

use super::vocabulary::Vocabulary;
use crate::plan::{PromptRecipe, Recipe, chat_text, join, parts, wire_messages};
use crate::sample::key;
use crate::tokenizer::Tokenizer;

/// Tokens at the start of a prompt that differ between runs where nothing else keeps the server's cache cold: the first
/// block of every common block size is then another one, and with it all that follow.
const NONCE_TOKENS: u32 = 16;

/// What makes texts of a length.
#[derive(Clone)]
pub(super) enum Words {
    /// A tokenizer on this side.
    Tokenizer(Arc<dyn Tokenizer>),
    /// Words that the server's tokenizer makes one token of.
    Learnt(Arc<Vocabulary>),
}

/// What prompts are made of.
#[derive(Clone)]
pub(super) struct Prompts {
    pub(super) words: Words,
    /// Ids to choose from, when prompts go as ids.
    pub(super) ids: Option<Arc<Vocabulary>>,
    /// Makes the first block of every generated prompt this run's own.
    pub(super) nonce: Option<u64>,
}

impl Words {
    fn text_of(&self, tokens: u32, seed: u64) -> String {
        match self {
            Self::Tokenizer(tokenizer) => tokenizer.text_of(tokens, seed),
            Self::Learnt(vocabulary) => vocabulary.text_of(tokens, seed),
        }
    }
}

impl Prompts {
    /// The prompt of a completion: ids where it is generated and there are ids to choose from, else its text.
    pub(super) fn completion(&self, recipe: &Recipe) -> Value {
        match (&recipe.prompt, &self.ids) {
            (PromptRecipe::Text { .. } | PromptRecipe::Chat { .. }, _) | (_, None) => {
                self.text(recipe).into()
            }
            (_, Some(vocabulary)) => {
                let mut ids: Vec<u32> = Vec::with_capacity(recipe.prompt.tokens() as usize);
                for (tokens, seed) in self.parts(recipe) {
                    vocabulary.draw(tokens, seed, &mut ids);
                }
                ids.into()
            }
        }
    }

    /// The prompt as a text.
    pub(super) fn text(&self, recipe: &Recipe) -> String {
        match &recipe.prompt {
            PromptRecipe::Text { text, .. } => text.to_string(),
            PromptRecipe::Chat { messages, .. } => chat_text(messages, &mut self.words()),
            _ => join(self.parts(recipe), |tokens, seed| self.words.text_of(tokens, seed)),
        }
    }

    /// The prompt as messages.
    pub(super) fn messages(&self, recipe: &Recipe) -> Vec<Value> {
        match &recipe.prompt {
            PromptRecipe::Chat { messages, .. } => wire_messages(messages, &mut self.words()),
            _ => vec![json!({ "role": "user", "content": self.text(recipe) })],
        }
    }

    /// Makes the generated texts of a conversation, the head of the first one this run's own if it has to be.
    fn words(&self) -> impl FnMut(u32, u64) -> String {
        let mut nonce = self.nonce;
        move |tokens, seed| match nonce.take() {
            Some(nonce) => {
                let own = NONCE_TOKENS.min(tokens);
                let parts = [(own, key(&[nonce, seed])), (tokens - own, seed)];
                let parts = parts.into_iter().filter(|(tokens, _)| *tokens > 0);
                join(parts, |tokens, seed| self.words.text_of(tokens, seed))
            }
            None => self.words.text_of(tokens, seed),
        }
    }

    /// The parts of a generated prompt, the head of the first one this run's own if it has to be. Who shared a prefix
    /// still does.
    fn parts(&self, recipe: &Recipe) -> Vec<(u32, u64)> {
        let mut parts = parts(recipe);
        if let (Some(nonce), Some(first)) = (self.nonce, parts.first_mut()) {
            let own = NONCE_TOKENS.min(first.0);
            let head = (own, key(&[nonce, first.1]));
            first.0 -= own;
            parts.insert(0, head);
            parts.retain(|(tokens, _)| *tokens > 0);
        }
        parts
    }
}

impl std::fmt::Debug for Prompts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prompts").field("nonce", &self.nonce).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Content, Message, Prefix, Role};
    use crate::tokenizer::Mock;

    fn recipe(seed: u64, prompt: PromptRecipe) -> Recipe {
        Recipe::new(0, prompt, 1, seed)
    }

    fn prompts(nonce: Option<u64>) -> Prompts {
        Prompts { words: Words::Tokenizer(Arc::new(Mock)), ids: None, nonce }
    }

    #[test]
    fn a_nonce_changes_the_first_block_and_nothing_of_who_shares_what() {
        let shared = |seed| {
            let prefix = Some(Prefix { tokens: 40, seed: 9 });
            recipe(seed, PromptRecipe::Synthetic { tokens: 100, prefix })
        };
        let (cold, again, plain) = (prompts(Some(1)), prompts(Some(2)), prompts(None));
        let texts =
            [cold.text(&shared(1)), cold.text(&shared(2)), again.text(&shared(1)), plain.text(&shared(1))];
        for text in &texts {
            assert_eq!(Mock.count(text), 100);
        }
        let words = |text: &str, range: std::ops::Range<usize>| -> Vec<String> {
            text.split(' ').map(str::to_owned).collect::<Vec<_>>()[range].to_vec()
        };
        assert_eq!(words(&texts[0], 0..40), words(&texts[1], 0..40));
        assert_ne!(words(&texts[0], 40..100), words(&texts[1], 40..100));
        assert_ne!(words(&texts[0], 0..16), words(&texts[2], 0..16));
        assert_eq!(words(&texts[0], 16..100), words(&texts[2], 16..100));
        assert_ne!(words(&texts[0], 0..16), words(&texts[3], 0..16));
    }

    #[test]
    fn a_conversation_goes_as_messages_with_the_answers_that_came() {
        let message = |role, content| Message { role, content };
        let chat = |answer: Option<&str>| {
            let answer = Content::Answer { tokens: 30, seed: 4, text: answer.map(Into::into) };
            let messages = [
                message(Role::System, Content::Synthetic { tokens: 20, seed: 3 }),
                message(Role::User, Content::text("what now", &Mock)),
                message(Role::Assistant, answer),
                message(Role::User, Content::Synthetic { tokens: 5, seed: 6 }),
            ];
            recipe(1, PromptRecipe::chat(messages.as_slice().into(), None))
        };
        let (told, untold) = (chat(Some("go home")), chat(None));
        let sent = prompts(Some(7)).messages(&told);
        let roles: Vec<&str> = sent.iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        assert_eq!((&sent[1]["content"], &sent[2]["content"]), (&json!("what now"), &json!("go home")));
        let plain = prompts(None).messages(&untold);
        assert_ne!(sent[0], plain[0], "the first block is this run's own");
        assert_eq!(sent[3], plain[3]);
        for (message, tokens) in plain.iter().zip([20, 2, 30, 5]) {
            assert_eq!(Mock.count(message["content"].as_str().unwrap()), tokens);
        }
    }

    #[test]
    fn a_given_text_stays_as_it_is() {
        let text = recipe(1, PromptRecipe::text("as it is".into(), &Mock));
        assert_eq!(prompts(Some(5)).completion(&text), "as it is");
    }
}

//! What the model answered, for the turns that follow.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::plan::{Content, PromptRecipe, Recipe};
use crate::record::Phase;

/// The answers of the sessions that are going on.
#[derive(Debug, Default)]
pub(super) struct Conversations(FxHashMap<(Phase, u64), Vec<Answer>>);

/// One answer, as it came.
#[derive(Debug)]
struct Answer {
    tokens: u32,
    /// Its text, where the backend tells it.
    text: Option<Arc<str>>,
}

impl Conversations {
    /// Puts what was really answered into the history of a later turn.
    pub(super) fn fill(&self, recipe: &mut Recipe) {
        let Some(turn) = recipe.session.filter(|turn| turn.turn > 1) else { return };
        let Some(answers) = self.0.get(&(recipe.phase, turn.session)) else { return };
        let PromptRecipe::Chat { messages, body, .. } = &recipe.prompt else { return };
        let planned = messages.iter().filter_map(|message| match &message.content {
            Content::Answer { tokens, .. } => Some(*tokens),
            _ => None,
        });
        if planned.zip(answers).all(|(tokens, came)| tokens == came.tokens && came.text.is_none()) {
            return;
        }
        let mut messages = messages.to_vec();
        let mut came = answers.iter();
        for message in &mut messages {
            if let Content::Answer { tokens, text, .. } = &mut message.content
                && let Some(answer) = came.next()
            {
                (*tokens, *text) = (answer.tokens, answer.text.clone());
            }
        }
        recipe.prompt = PromptRecipe::chat(messages.into(), body.clone());
    }

    /// A request has ended with so many tokens; `goes_on` says that what follows it is sent.
    pub(super) fn hear(&mut self, recipe: &Recipe, tokens: u32, text: Option<Arc<str>>, goes_on: bool) {
        let Some(turn) = recipe.session else { return };
        let key = (recipe.phase, turn.session);
        if goes_on && turn.has_next() {
            self.0.entry(key).or_default().push(Answer { tokens, text });
        } else {
            self.0.remove(&key);
        }
    }
}

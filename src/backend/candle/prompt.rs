//! From a recipe to the token ids that a model reads.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::live::Session;
use super::template::flat;
use super::{ChatTemplate, Conversation};
use crate::plan::{Content, Message, PromptRecipe, Recipe, chat_text, text, wire_messages};
use crate::tokenizer::{Hf, Tokenizer};

/// Makes prompts, and remembers what was said in sessions.
#[derive(Debug)]
pub(super) struct Prompts {
    tokenizer: Arc<Hf>,
    template: Option<Arc<ChatTemplate>>,
    /// Prompts and answers of the sessions that go on, token by token: the next turn finds its blocks.
    said: FxHashMap<Session, Vec<u32>>,
}

impl Prompts {
    pub(super) fn new(tokenizer: Arc<Hf>, template: Option<Arc<ChatTemplate>>) -> Self {
        Self { tokenizer, template, said: FxHashMap::default() }
    }

    /// The prompt's token ids. What is generated has exactly its tokens, and a later turn of a generated session begins with
    /// the very tokens of those before. A given text also has the special tokens that the model expects around it, and a
    /// conversation of given texts what the model's chat template puts around its messages.
    pub(super) fn ids(&self, recipe: &Recipe) -> Result<Vec<u32>, String> {
        let tokenizer = &*self.tokenizer;
        let ids = match &recipe.prompt {
            PromptRecipe::Text { text, ids, .. } if text.is_empty() => return Ok(ids.to_vec()),
            PromptRecipe::Text { text, .. } => return Ok(tokenizer.encode_whole(text)),
            PromptRecipe::Chat { messages, body, .. } if is_given(messages) => {
                let tools = body.as_ref().and_then(|body| body.get("tools"));
                return self.templated(messages, tools);
            }
            PromptRecipe::Chat { messages, .. } => {
                match session(recipe).and_then(|key| self.said.get(&key)) {
                    Some(said) => {
                        let is_answer = |message: &Message| matches!(message.content, Content::Answer { .. });
                        let new = messages.iter().rposition(is_answer).map_or(0, |at| at + 1);
                        let mut text_of = |tokens, seed| tokenizer.text_of(tokens, seed);
                        let text = chat_text(&messages[new..], &mut text_of);
                        let mut ids = said.clone();
                        ids.extend(tokenizer.encode(&format!(" {text}")));
                        ids
                    }
                    None => tokenizer.encode(&text(recipe, tokenizer)),
                }
            }
            _ => tokenizer.encode(&text(recipe, tokenizer)),
        };
        if ids.len() == recipe.prompt.tokens() as usize {
            return Ok(ids);
        }
        Err(format!(
            "the prompt was to have {} tokens and has {}: the tokenizer joins words in a way that was not foreseen",
            recipe.prompt.tokens(),
            ids.len()
        ))
    }

    fn templated(&self, messages: &[Message], tools: Option<&serde_json::Value>) -> Result<Vec<u32>, String> {
        let template = self.template.as_ref().ok_or("the model has no chat template")?;
        let mut text_of = |tokens, seed| self.tokenizer.text_of(tokens, seed);
        let messages = wire_messages(messages, &mut text_of);
        let messages = messages.iter().map(flat).collect::<Result<Vec<_>, _>>()?;
        let conversation = Conversation { messages: &messages, tools, variables: None, answers: true };
        Ok(self.tokenizer.encode(&template.render(&conversation)?))
    }

    /// A request begins: what was said before it is in its prompt. The session that it is a turn of.
    pub(super) fn begin(&mut self, recipe: &Recipe) -> Option<Session> {
        let session = session(recipe);
        if let Some(key) = &session {
            self.said.remove(key);
        }
        session
    }

    /// A session goes on behind these tokens.
    pub(super) fn said(&mut self, session: Session, ids: Vec<u32>) {
        self.said.insert(session, ids);
    }
}

/// Whether somebody wrote a message: it means something, and goes through the chat template. Generated ones say nothing, so
/// that nothing is lost without a template around them.
pub fn is_given(messages: &[Message]) -> bool {
    let is_given =
        |message: &Message| matches!(message.content, Content::Text { .. } | Content::Given { .. });
    messages.iter().any(is_given)
}

/// The session that a request is a turn of, named by its workload, phase and number.
fn session(recipe: &Recipe) -> Option<Session> {
    recipe.session.map(|turn| (recipe.lane, recipe.phase, turn.session))
}

//! From what a client asks for to what the engine plays and what the answer says.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::answer::{Answer, Reason};
use super::error::ApiError;
use super::protocol::{Asked, Prompt, conversation};
use super::{House, Mind};
use crate::backend::candle::{ChatTemplate, Conversation, flat};
use crate::backend::config::FaultAction;
use crate::backend::mock::{Answers, FaultPlan};
use crate::backend::{Drawing, Ends};
use crate::plan::{PromptRecipe, Recipe};
use crate::sample::{key, name_key};
use crate::tokenizer::{Hf, Tokenizer as _};

/// How long an answer of a chat is that asks for no length, at most, where it does not end by itself.
const CHAT_TOKENS: u64 = 256;
/// Texts that are longer are cut on a thread of their own, so that nobody else waits for it.
const LONG: usize = 1 << 14;

/// A request that is ready for the engine.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) recipe: Recipe,
    pub(super) drawing: Option<Box<Drawing>>,
    pub(super) answer: Answer,
    /// The prompt's token ids.
    pub(super) ids: Arc<[u32]>,
}

impl House {
    /// The token ids of a prompt.
    pub(super) async fn ids(&self, prompt: &Prompt, told: bool) -> Result<Arc<[u32]>, ApiError> {
        match (&self.mind, prompt) {
            (Mind::Simulated { .. }, Prompt::Ids(ids)) => Ok(Arc::clone(ids)),
            (Mind::Computed { tokenizer, .. }, Prompt::Ids(ids)) => {
                let known = tokenizer.vocabulary();
                match ids.iter().find(|id| **id >= known) {
                    None => Ok(Arc::clone(ids)),
                    Some(id) => Err(ApiError::bad(
                        "prompt",
                        format!("token id {id} is unknown: the model's are below {known}"),
                    )),
                }
            }
            (Mind::Simulated { .. }, Prompt::Text(text)) => Ok(self.vocabulary.ids(text, told).into()),
            (Mind::Simulated { .. }, Prompt::Chat { messages, .. }) => {
                Ok(self.vocabulary.ids(&conversation(messages)?, told).into())
            }
            (Mind::Computed { tokenizer, .. }, Prompt::Text(text)) => {
                Ok(cut(tokenizer, text.clone(), true).await?.into())
            }
            (Mind::Computed { tokenizer, template }, Prompt::Chat { messages, variables }) => {
                let text = templated(template, messages, variables.as_ref())?;
                Ok(cut(tokenizer, text, false).await?.into())
            }
        }
    }

    /// What the engine plays and what the answer says.
    pub(super) fn ready(&self, asked: &Asked, ids: Arc<[u32]>) -> Result<Ready, ApiError> {
        let (prompt, longest) = (ids.len() as u64, u64::from(self.max_model_len));
        let room = longest.saturating_sub(prompt);
        let usual = match &self.mind {
            Mind::Simulated { .. } => room.clamp(1, CHAT_TOKENS),
            Mind::Computed { .. } => room.max(1),
        };
        let wanted = asked.max_tokens.unwrap_or(usual).max(asked.min_tokens);
        if wanted > room {
            let message = format!(
                "This model's maximum context length is {longest} tokens. However, you requested {} tokens ({prompt} in the prompt, {wanted} for the output). Please shorten one of them.",
                prompt + wanted
            );
            return Err(ApiError::bad("max_tokens", message));
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let seed = key(&[self.seed, index]);
        let given = PromptRecipe::Text { tokens: ids.len() as u32, text: "".into(), ids: Arc::clone(&ids) };
        let recipe = Recipe { forced: asked.ignore_eos, ..Recipe::new(index, given, wanted as u32, seed) };
        match &self.mind {
            Mind::Simulated { answers, faults } => Ok(self.simulated(asked, recipe, ids, (answers, faults))),
            Mind::Computed { tokenizer, .. } => {
                let drawing = Drawing {
                    temperature: asked.temperature.unwrap_or(1.0),
                    top_p: asked.top_p.unwrap_or(1.0),
                    seed: asked.seed.map_or(seed, i64::cast_unsigned),
                    ends: asked.ends.clone(),
                    salt: asked.salt.as_deref().map_or(0, name_key),
                };
                let answer = Answer::decoded(Arc::clone(tokenizer), &asked.ends);
                Ok(Ready { recipe, drawing: Some(Box::new(drawing)), answer, ids })
            }
        }
    }

    fn simulated(
        &self,
        asked: &Asked,
        mut recipe: Recipe,
        ids: Arc<[u32]>,
        (answers, faults): (&Answers, &FaultPlan),
    ) -> Ready {
        // The engine only compares ids, so a salt keeps prefixes apart by changing all of them.
        if let (Some(salt), PromptRecipe::Text { ids, .. }) = (&asked.salt, &mut recipe.prompt) {
            let mask = name_key(salt) as u32;
            *ids = ids.iter().map(|id| id ^ mask).collect();
        }
        if let PromptRecipe::Text { text, .. } = &mut recipe.prompt {
            *text = match &asked.prompt {
                Prompt::Text(given) => given.as_str().into(),
                Prompt::Chat { messages, .. } => conversation(messages).unwrap_or_default().into(),
                Prompt::Ids(_) => "".into(),
            };
        }
        recipe.forced |= asked.min_tokens == u64::from(recipe.output_tokens);
        let mut recipe = answers.own(&recipe);
        let told = answers.whole(&recipe);
        let reason =
            if told.finish_reason.as_deref() == Some("stop") { Reason::Stop } else { Reason::Length };
        let (mut answer, tokens) = Answer::told(told.text, reason, &asked.ends, self.vocabulary.clone());
        recipe.output_tokens = tokens;
        // The engine plays the length that was worked out here.
        recipe.forced = true;
        let action = faults.action(recipe.index, 0, recipe.prompt.tokens());
        if let Some(FaultAction::DuplicateToken(fault)) = action {
            answer.repeat(fault.token);
        }
        Ready { recipe, drawing: None, answer, ids }
    }

    /// What goes wrong with a request on purpose.
    pub(super) fn fault(&self, recipe: &Recipe) -> Option<FaultAction> {
        match &self.mind {
            Mind::Simulated { faults, .. } => faults.action(recipe.index, 0, recipe.prompt.tokens()).cloned(),
            Mind::Computed { .. } => None,
        }
    }
}

/// The ids of a text, with the special tokens around it where `whole` says so.
async fn cut(tokenizer: &Arc<Hf>, text: String, whole: bool) -> Result<Vec<u32>, ApiError> {
    let cut = move |tokenizer: &Hf, text: &str| {
        if whole { tokenizer.encode_whole(text) } else { tokenizer.encode(text) }
    };
    if text.len() <= LONG {
        return Ok(cut(tokenizer, &text));
    }
    let tokenizer = Arc::clone(tokenizer);
    let cutting = tokio::task::spawn_blocking(move || cut(&tokenizer, &text));
    cutting.await.map_err(|_| {
        ApiError::new(hyper::StatusCode::INTERNAL_SERVER_ERROR, "the prompt can not be cut into tokens")
    })
}

/// The text of a conversation by the model's chat template.
fn templated(
    template: &Result<Option<Arc<ChatTemplate>>, String>,
    messages: &[serde_json::Value],
    variables: Option<&serde_json::Map<String, serde_json::Value>>,
) -> Result<String, ApiError> {
    let bad = |message: String| ApiError::bad("messages", message);
    let template = template.as_ref().map_err(|problem| bad(problem.clone()))?;
    let template = template.as_ref().ok_or_else(|| {
        bad("the model has no chat template; ask /v1/completions, or serve a model that has one".into())
    })?;
    let messages = messages.iter().map(flat).collect::<Result<Vec<_>, _>>().map_err(bad)?;
    let conversation = Conversation { messages: &messages, tools: None, variables, answers: true };
    template.render(&conversation).map_err(bad)
}

/// Texts that end an answer, as a client asked for them.
pub(super) fn ends(texts: Vec<String>, kept: bool, min_tokens: u64) -> Ends {
    Ends { texts, kept, least: u32::try_from(min_tokens).unwrap_or(u32::MAX) }
}

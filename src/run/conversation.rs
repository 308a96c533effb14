//! What was said in the sessions that are going on, for the turns that follow.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::flight::unsent;
use super::load::Start;
use crate::plan::{Content, Hooked, Message, PromptRecipe, Recipe, Role, WorkloadPlan};
use crate::record::{Outcome, Phase, Record, Turn};
use crate::units::Ns;

/// The sessions that are going on.
#[derive(Debug)]
pub(super) struct Conversations<'a> {
    said: FxHashMap<(Phase, u64), Said>,
    /// The hooks, where they say what users say.
    hooked: Option<&'a Hooked>,
}

/// What one session has come to beside its plan.
#[derive(Debug, Default)]
struct Said {
    answers: Vec<Answer>,
    /// What a hook had the user say, turn by turn.
    asked: Vec<Content>,
}

/// One answer, as it came.
#[derive(Debug)]
struct Answer {
    tokens: u32,
    /// Its text, where the backend tells it.
    text: Option<Arc<str>>,
}

impl<'a> Conversations<'a> {
    pub(super) fn new(plan: &'a WorkloadPlan) -> Self {
        let hooked = plan.hooked.as_deref().filter(|hooked| hooked.makes_turns());
        Self { said: FxHashMap::default(), hooked }
    }

    /// Puts what was really said into a turn that is about to be sent. A turn that a hook does not want to be sent, or can not
    /// make, comes back as its record.
    pub(super) fn fill(&mut self, start: &mut Start, at: Ns) -> Option<Record> {
        let turn = start.recipe.session?;
        let key = (start.recipe.phase, turn.session);
        if let Some(said) = self.said.get(&key) {
            said.fill(&mut start.recipe);
        }
        let hooked = self.hooked?;
        let (outcome, message) = match ask(hooked, &mut start.recipe, turn) {
            Ok(Some(asked)) => {
                self.said.entry(key).or_default().asked.push(asked);
                return None;
            }
            Ok(None) => (Outcome::Skipped, "its hook ended the session".into()),
            Err(reason) => (Outcome::HookFailed, reason),
        };
        self.said.remove(&key);
        let mut record = unsent(&start.recipe, start.due, at);
        record.cap_wait = start.cap_wait;
        (record.outcome, record.message) = (outcome, Some(message.as_ref().into()));
        Some(record)
    }

    /// A request has ended with so many tokens; `goes_on` says that what follows it is sent.
    pub(super) fn hear(&mut self, recipe: &Recipe, tokens: u32, text: Option<Arc<str>>, goes_on: bool) {
        let Some(turn) = recipe.session else { return };
        let key = (recipe.phase, turn.session);
        if goes_on && turn.has_next() {
            self.said.entry(key).or_default().answers.push(Answer { tokens, text });
        } else {
            self.said.remove(&key);
        }
    }
}

impl Said {
    /// Puts what was asked and answered in the place of what was planned.
    fn fill(&self, recipe: &mut Recipe) {
        let PromptRecipe::Chat { messages, body, .. } = &recipe.prompt else { return };
        let planned = messages.iter().filter_map(|message| match &message.content {
            Content::Answer { tokens, .. } => Some(*tokens),
            _ => None,
        });
        let as_planned = |(tokens, came): (u32, &Answer)| tokens == came.tokens && came.text.is_none();
        if self.asked.is_empty() && planned.zip(&self.answers).all(as_planned) {
            return;
        }
        let mut messages = messages.to_vec();
        let (mut came, mut asked) = (self.answers.iter(), self.asked.iter());
        for message in &mut messages {
            if let Content::Answer { tokens, text, .. } = &mut message.content {
                if let Some(answer) = came.next() {
                    (*tokens, *text) = (answer.tokens, answer.text.clone());
                }
            } else if message.role == Role::User
                && let Some(asked) = asked.next()
            {
                message.content = asked.clone();
            }
        }
        recipe.prompt = PromptRecipe::chat(messages.into(), body.clone());
    }
}

/// Has a hook say what the user says in this turn; `None` when it ends the session.
fn ask(hooked: &Hooked, recipe: &mut Recipe, turn: Turn) -> Result<Option<Content>, Arc<str>> {
    let PromptRecipe::Chat { messages, body, .. } = &recipe.prompt else {
        return Err(
            "`next_turn` has no conversation to go on with: `request` has put another prompt in its place"
                .into(),
        );
    };
    let (mut messages, body) = (messages.to_vec(), body.clone());
    messages.pop();
    let Some(made) = hooked.next_turn(recipe, turn, &messages)? else { return Ok(None) };
    messages.push(Message { role: Role::User, content: made.content.clone() });
    recipe.prompt = PromptRecipe::chat(messages.into(), body);
    recipe.output_tokens = made.output_tokens.unwrap_or(recipe.output_tokens);
    Ok(Some(made.content))
}

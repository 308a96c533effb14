//! Where a scenario's hooks take part in a plan: prompts that they make, requests that they change.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::chat::{Content, Message};
use super::config::Prompt;
use super::source::Problem;
use super::{Point, PromptRecipe, Recipe};
use crate::hook::config::Hooks;
use crate::hook::{Context, HookError, Request, Script, Session, Site, Text};
use crate::record::{Phase, Turn};
use crate::scenario::{Scenario, Workload};
use crate::tokenizer::Tokenizer;
use crate::units::TokenCount;

/// The hooks of one workload.
#[derive(Clone)]
pub struct Hooked {
    script: Arc<Script>,
    site: Arc<Site>,
    tokenizer: Arc<dyn Tokenizer>,
    /// Whether `request(req)` is there.
    changes_requests: bool,
    /// Whether `next_turn(session)` is there.
    makes_turns: bool,
    /// Requests that were made when the plan was looked at.
    kept: Arc<OnceLock<Keeper>>,
}

/// Keeps what hooks made, so that they are called once for each request, up to so many bytes in all.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// Each at the place of its index.
    warmup: Vec<Recipe>,
    measured: Vec<Recipe>,
    bytes: usize,
    is_full: bool,
}

impl Keeper {
    const MOST: usize = 128 << 20;
    /// About what an entry of a JSON object takes.
    const ENTRY: usize = 128;

    /// For about so many recipes.
    pub(super) fn new(recipes: usize) -> Self {
        let most = Self::MOST / size_of::<Recipe>();
        Self { measured: Vec::with_capacity(recipes.min(most)), ..Self::default() }
    }

    /// Takes the recipe behind the last one of its phase. One must stand alone: turns of sessions depend on those before
    /// them.
    pub(super) fn take(&mut self, recipe: Recipe) {
        let text = match &recipe.prompt {
            PromptRecipe::Text { text, tokens, .. } => text.len() + 4 * *tokens as usize,
            _ => 0,
        };
        let body = recipe.body.as_ref().map_or(0, |body| body.len() * Self::ENTRY);
        self.bytes += size_of::<Recipe>() + text + body;
        let recipes = match recipe.phase {
            Phase::Warmup => &mut self.warmup,
            Phase::Measured => &mut self.measured,
        };
        self.is_full |=
            self.bytes > Self::MOST || recipe.session.is_some() || recipe.index != recipes.len() as u64;
        if !self.is_full {
            recipes.push(recipe);
        }
    }

    /// The recipe at this place, if it is the one with this seed: other repeats have others.
    fn get(&self, phase: Phase, index: u64, seed: u64) -> Option<&Recipe> {
        let recipes = match phase {
            Phase::Warmup => &self.warmup,
            Phase::Measured => &self.measured,
        };
        recipes.get(usize::try_from(index).ok()?).filter(|recipe| recipe.seed == seed)
    }
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooked").field("script", &self.script).finish_non_exhaustive()
    }
}

/// The scripts of a scenario, each compiled once.
pub(super) struct Scripts<'a> {
    scenario: &'a Scenario,
    dir: &'a Path,
    tokenizer: Arc<dyn Tokenizer>,
    metrics: Arc<[String]>,
    compiled: Vec<(&'a Hooks, Option<Arc<Script>>)>,
}

/// The hooks of a workload do not compile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unusable;

impl<'a> Scripts<'a> {
    pub(super) fn new(scenario: &'a Scenario, dir: &'a Path, tokenizer: &dyn Tokenizer) -> Self {
        let metrics = scenario.metrics.keys().cloned().collect();
        Self { scenario, dir, tokenizer: tokenizer.shared(), metrics, compiled: Vec::new() }
    }

    /// The hooks of one workload. What is wrong with them is told where they are met first.
    pub(super) fn of(
        &mut self,
        workload: &'a Workload,
        name: &str,
        point: &Point,
        problems: &mut Vec<Problem>,
    ) -> Result<Option<Arc<Hooked>>, Unusable> {
        let Some(hooks) = workload.hooks.as_ref().or(self.scenario.hooks.as_ref()) else { return Ok(None) };
        let known = self.compiled.iter().find(|(known, _)| *known == hooks).map(|(_, script)| script.clone());
        let script = known.unwrap_or_else(|| self.compile(hooks, problems)).ok_or(Unusable)?;
        let site = Site::new(name, point.iter(), workload.tags.iter());
        Ok(Some(Arc::new(Hooked::new(script, site, Arc::clone(&self.tokenizer)))))
    }

    fn compile(&mut self, hooks: &'a Hooks, problems: &mut Vec<Problem>) -> Option<Arc<Script>> {
        let compiled =
            Script::compile(hooks, self.dir, Arc::clone(&self.metrics), Arc::clone(&self.tokenizer));
        let (script, faults) = match compiled {
            Ok(script) => {
                let faults = script.misnamed(&named(self.scenario));
                (Some(Arc::new(script)), faults)
            }
            Err(faults) => (None, faults),
        };
        let key = if hooks.file.is_some() { "hooks.file" } else { "hooks.inline" };
        problems.extend(faults.into_iter().map(|fault| Problem::script(key, fault)));
        self.compiled.push((hooks, script.clone()));
        script
    }
}

/// The functions of scripts that a scenario names itself.
fn named(scenario: &Scenario) -> Vec<&str> {
    let mut names = Vec::new();
    for workload in scenario.workloads.values() {
        if let Prompt::Script(script) = &workload.prompt {
            names.push(script.function.as_str());
        }
        for check in &workload.expect {
            names.extend(check.function());
        }
    }
    names
}

impl Hooked {
    pub(super) fn new(script: Arc<Script>, site: Site, tokenizer: Arc<dyn Tokenizer>) -> Self {
        let (changes_requests, makes_turns) = (script.has("request"), script.has("next_turn"));
        let kept = Arc::default();
        Self { script, site: Arc::new(site), tokenizer, changes_requests, makes_turns, kept }
    }

    /// Whether `request(req)` is there.
    pub(super) fn changes_requests(&self) -> bool {
        self.changes_requests
    }

    /// Requests that need not be made again.
    pub(super) fn keep(&self, keeper: Keeper) {
        // The plan is looked at once.
        let _ = self.kept.set(keeper);
    }

    /// The request at this place with this seed, where it is kept.
    pub(super) fn kept(&self, phase: Phase, index: u64, seed: u64) -> Option<Recipe> {
        self.kept.get()?.get(phase, index, seed).cloned()
    }

    /// Hash over the texts of the script and of all that it imports. Hex.
    pub(super) fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("sagebench hooks");
        for text in self.script.texts() {
            hasher.update(&(text.text.len() as u64).to_le_bytes());
            hasher.update(text.text.as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// The compiled script.
    pub fn script(&self) -> &Arc<Script> {
        &self.script
    }

    /// The prompt of a request by `function(ctx)`, and its output tokens where the hook says them.
    pub(super) fn prompt(
        &self,
        function: &str,
        index: u64,
        phase: Phase,
        seed: u64,
    ) -> Result<(PromptRecipe, Option<u32>), Arc<str>> {
        let context = Context { site: Arc::clone(&self.site), index, phase, seed };
        let made = self.script.prompt(function, &context).map_err(|error| message(&error))?;
        Ok((self.given(&made.text)?, made.output_tokens))
    }

    fn given(&self, text: &str) -> Result<PromptRecipe, Arc<str>> {
        let prompt = PromptRecipe::text(Arc::from(text), &*self.tokenizer);
        in_range(prompt.tokens())?;
        Ok(prompt)
    }

    /// A request as its hook wants it. Where the hook fails the recipe says so, and is not sent.
    pub(super) fn changed(&self, recipe: Recipe) -> Recipe {
        if !self.changes_requests || recipe.failed.is_some() {
            return recipe;
        }
        let mut recipe = recipe;
        if let Err(failed) = self.change(&mut recipe) {
            recipe.failed = Some(failed);
        }
        recipe
    }

    fn change(&self, recipe: &mut Recipe) -> Result<(), Arc<str>> {
        let mut wanted = self.script.request(self.request(recipe)).map_err(|error| message(&error))?;
        if let Some(prompt) = wanted.new_prompt.take() {
            recipe.prompt = self.given(&prompt)?;
        }
        recipe.output_tokens = wanted.output_tokens as u32;
        recipe.body = wanted.body_as_json().map(Arc::new);
        Ok(())
    }

    /// Whether they say what users say in the turns of sessions.
    pub fn makes_turns(&self) -> bool {
        self.makes_turns
    }

    /// What the user says in this turn, after these messages; `None` when the hook ends the session.
    ///
    /// # Errors
    /// The hook's own, and when it makes a message of no or too many tokens.
    pub fn next_turn(
        &self,
        recipe: &Recipe,
        turn: Turn,
        messages: &[Message],
    ) -> Result<Option<MadeTurn>, Arc<str>> {
        let mut text_of = |tokens, seed| self.tokenizer.text_of(tokens, seed);
        let told = messages
            .iter()
            .map(|message| (message.role.name().into(), message.content.render(&mut text_of).into()));
        let session = Session {
            context: Context {
                site: Arc::clone(&self.site),
                index: turn.session,
                phase: recipe.phase,
                seed: recipe.seed,
            },
            turn: turn.turn,
            messages: told.collect(),
        };
        let made = self.script.next_turn(&session).map_err(|error| message(&error))?;
        made.map(|made| {
            let content = Content::text(&made.text, &*self.tokenizer);
            in_range(content.tokens())?;
            Ok(MadeTurn { content, output_tokens: made.output_tokens })
        })
        .transpose()
    }

    /// What hooks see of a request.
    pub fn request(&self, recipe: &Recipe) -> Request {
        let (own, tokenizer) = (recipe.clone(), Arc::clone(&self.tokenizer));
        Request {
            context: Context {
                site: Arc::clone(&self.site),
                index: recipe.index,
                phase: recipe.phase,
                seed: recipe.seed,
            },
            text: Text::new(move || super::text(&own, &*tokenizer)),
            prompt_tokens: recipe.prompt.tokens(),
            output_tokens: i64::from(recipe.output_tokens),
            forced: recipe.forced,
            new_prompt: None,
            body: recipe.body.as_ref().map(|body| crate::hook::map_of(body)).unwrap_or_default(),
        }
    }
}

/// Whether a prompt may have so many tokens.
fn in_range(tokens: u32) -> Result<(), Arc<str>> {
    match tokens {
        1..=TokenCount::MAX => Ok(()),
        0 => Err("a hook made a prompt without a token".into()),
        _ => Err(format!("a hook made a prompt of {tokens} tokens, more than {}", TokenCount::MAX).into()),
    }
}

/// What a hook had a user say.
#[derive(Debug, Clone, PartialEq)]
pub struct MadeTurn {
    /// The message.
    pub content: Content,
    /// Output tokens, in the place of the planned number.
    pub output_tokens: Option<u32>,
}

fn message(error: &HookError) -> Arc<str> {
    error.to_string().into()
}

//! What two plans must share: hashes over recipes, so that a plan that is generated and the same plan read from a file
//! have the same.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use blake3::Hasher;
use rustc_hash::FxHashMap;

use super::generator::GENERATOR_VERSION;
use super::hooked::Keeper;
use super::summary::{Gathered, Spread};
use super::{
    Content, GroupPlan, LoadPlan, MemberPlan, Plan, PromptRecipe, Recipe, RecipeSource, Sampling, WarmupPlan,
    WorkloadPlan,
};
use crate::plan::config::Tags;
use crate::record::{Basis, Phase, Turn};

/// Recipes that are hashed of a plan that has an end. Beyond, the law and these decide the rest.
const HASHED: usize = 1 << 20;
/// Recipes that are hashed, beside the law, where only time ends the load.
const HASHED_OF_ENDLESS: usize = 1000;
/// Bytes gathered before they are hashed.
const CHUNK: usize = 1 << 16;
/// Hexadecimal digits of a digest: 128 bits.
const DIGITS: usize = 32;

impl Plan {
    /// Puts workloads together and computes both digests. `tokenizer` is the name of the one that counted the texts.
    pub(super) fn new(
        seed: u64,
        workloads: Vec<WorkloadPlan>,
        groups: Vec<(String, Vec<MemberPlan>)>,
        tokenizer: &str,
    ) -> Self {
        let mut schedule = Hasher::new_derive_key("sagebench schedule");
        let mut content = Hasher::new_derive_key("sagebench content");
        content.update(&GENERATOR_VERSION.to_le_bytes());
        content.update(tokenizer.as_bytes());
        let mut workload_digests = Vec::new();
        for workload in &workloads {
            let survey = workload.survey();
            workload_digests.push(survey.schedule.to_hex()[..DIGITS].to_owned());
            schedule.update(survey.schedule.as_bytes());
            content.update(survey.content.as_bytes());
        }
        let mut pooled = Vec::new();
        for (name, members) in groups {
            let mut own = Hasher::new_derive_key("sagebench group");
            // Names and numbers always have a JSON form.
            own.update(&serde_json::to_vec(&(&name, &members)).unwrap_or_default());
            for member in &members {
                own.update(workload_digests[member.workload].as_bytes());
            }
            schedule.update(own.finalize().as_bytes());
            workload_digests.push(hex(&own));
            let own = WorkloadPlan::pooled(&name, &members, &workloads);
            pooled.push(GroupPlan { name, members, pooled: Arc::new(own) });
        }
        Self {
            seed,
            workloads,
            groups: pooled,
            workload_digests,
            schedule_digest: hex(&schedule),
            content_digest: hex(&content),
        }
    }
}

impl WorkloadPlan {
    /// What stands for a group: latency counts from when requests are due where it does for one of its workloads.
    fn pooled(name: &str, members: &[MemberPlan], workloads: &[Self]) -> Self {
        let members = || members.iter().map(|member| &workloads[member.workload]);
        let open = members().find(|own| own.load.basis() == Basis::Due).or(members().next());
        let first = open.expect("a group has members, which is checked where it is read");
        Self {
            name: name.to_owned(),
            family: name.to_owned(),
            tags: Tags::new(),
            recipes: RecipeSource::Listed(Arc::from([])),
            requests: Some(0),
            skipped_rows: members().map(|own| own.skipped_rows).sum(),
            search: None,
            hooked: None,
            checks: None,
            hook_digest: None,
            survey: OnceLock::new(),
            ..first.clone()
        }
    }

    /// What its recipes tell. They are looked at once.
    pub(super) fn survey(&self) -> &Survey {
        self.survey.get_or_init(|| survey(self))
    }

    /// Whether only time ends the stream of recipes, so that it has no last one before it runs.
    pub fn is_endless(&self) -> bool {
        let users = matches!(self.load, LoadPlan::Closed { .. });
        let counted = self.requests.is_some() || self.sessions.is_some();
        let timed = users && (!counted || matches!(self.warmup, WarmupPlan::Duration(_)));
        // Arrivals go on until another workload of the group is over.
        timed || (self.follows && !counted && self.duration.is_none())
    }

    /// Whether its requests are turns of sessions.
    pub fn is_sessions(&self) -> bool {
        match &self.recipes {
            RecipeSource::Generated(generator) => generator.source.is_sessions(),
            RecipeSource::Listed(recipes) => recipes.iter().any(|recipe| recipe.session.is_some()),
        }
    }

    /// Whether what was answered is part of later prompts.
    pub fn has_history(&self) -> bool {
        match &self.recipes {
            RecipeSource::Generated(generator) => generator.has_history(),
            RecipeSource::Listed(recipes) => recipes.iter().any(|recipe| match &recipe.prompt {
                PromptRecipe::Chat { messages, .. } => {
                    messages.iter().any(|message| matches!(message.content, Content::Answer { .. }))
                }
                _ => false,
            }),
        }
    }

    /// How many recipes stand for all of them where they have to be looked at.
    pub(super) fn looked_at(&self) -> usize {
        if self.is_endless() { HASHED_OF_ENDLESS } else { HASHED }
    }
}

fn hex(hasher: &Hasher) -> String {
    hasher.finalize().to_hex()[..DIGITS].to_owned()
}

/// What looking at the recipes of one workload tells, over its first run.
#[derive(Debug, Clone, Copy)]
pub struct Survey {
    schedule: blake3::Hash,
    content: blake3::Hash,
    /// Tokens of the measured prompts.
    pub(super) prompt: Spread,
    /// Output tokens that they ask for.
    pub(super) output: Spread,
}

fn survey(plan: &WorkloadPlan) -> Survey {
    let mut hash = Hashes::default();
    let (mut prompt, mut output) = (Gathered::default(), Gathered::default());
    if let Some(hooks) = &plan.hook_digest {
        hash.content.extend(hooks.as_bytes());
    }
    let settings = (&plan.name, &plan.load, plan.requests, plan.duration, plan.warmup);
    // Names, numbers and enums always have a JSON form.
    hash.schedule.extend(serde_json::to_vec(&settings).unwrap_or_default());
    if plan.sampling != Sampling::default() {
        hash.schedule.extend(serde_json::to_vec(&plan.sampling).unwrap_or_default());
    }
    if let Some(sessions) = plan.sessions {
        hash.schedule.extend(sessions.to_le_bytes());
    }
    if plan.retries > 0 {
        hash.schedule.extend(b"retries");
        hash.schedule.extend(plan.retries.to_le_bytes());
    }
    if plan.follows {
        hash.schedule.extend(b"follows");
    }
    if let Some(search) = &plan.search {
        hash.schedule.extend(serde_json::to_vec(search).unwrap_or_default());
    }
    if let RecipeSource::Generated(generator) = &plan.recipes
        && (plan.is_endless() || plan.search.is_some())
    {
        hash.schedule.extend(generator.law.as_bytes());
    }
    let mut stream = plan.stream(0);
    let mut left = plan.looked_at();
    if plan.is_endless() && !matches!(plan.warmup, WarmupPlan::Requests(_)) {
        // A warm-up that only time ends would never come to what is measured.
        stream.start_measuring();
    }
    let calling = match &plan.recipes {
        RecipeSource::Generated(generator) => generator.calling(),
        RecipeSource::Listed(_) => None,
    };
    let recipes = calling.and(plan.requests).unwrap_or(0);
    let mut keeper = Keeper::new(plan.looked_at().min(recipes as usize));
    for recipe in stream.by_ref() {
        hash.recipe(&recipe);
        if recipe.phase == Phase::Measured {
            prompt.add(recipe.prompt.tokens());
            output.add(recipe.output_tokens);
        }
        if calling.is_some() {
            keeper.take(recipe);
        }
        left -= 1;
        if left == 0 {
            break;
        }
    }
    if let Some(hooked) = calling {
        hooked.keep(keeper);
    }
    hash.flush(0);
    if prompt.is_empty() {
        // The warm-up alone was as long as is looked at.
        stream.start_measuring();
        for recipe in stream.take(plan.looked_at()) {
            prompt.add(recipe.prompt.tokens());
            output.add(recipe.output_tokens);
        }
    }
    let (schedule, content) = (hash.schedule_hasher.finalize(), hash.content_hasher.finalize());
    Survey { schedule, content, prompt: prompt.spread(), output: output.spread() }
}

#[derive(Default)]
struct Hashes {
    schedule_hasher: Hasher,
    content_hasher: Hasher,
    schedule: Vec<u8>,
    content: Vec<u8>,
    /// Prefix seed to its number, in order of first appearance: the schedule is who shares, not what.
    groups: FxHashMap<u64, u64>,
    /// Hashes of texts and messages by their address: rows of a file are used again and again, and outlive this.
    texts: FxHashMap<(usize, usize), [u8; 32]>,
}

impl Hashes {
    fn recipe(&mut self, recipe: &Recipe) {
        let number = |value: Option<u64>| value.map_or(0, |value| value.saturating_add(1));
        let fields = [
            u64::from(recipe.phase == Phase::Measured),
            recipe.index,
            number(recipe.arrival),
            number(recipe.after.map(|after| after.index)),
            recipe.after.map_or(0, |after| after.delay),
            recipe.think,
            u64::from(recipe.prompt.tokens()),
            u64::from(recipe.output_tokens),
            u64::from(recipe.forced),
            number(recipe.cancel_after.map(u64::from)),
        ];
        self.schedule.extend(fields.into_iter().flat_map(u64::to_le_bytes));
        if let Some(Turn { session, turn, turns }) = recipe.session {
            self.schedule.extend(session.to_le_bytes());
            self.schedule.extend([turn, turns].into_iter().flat_map(u32::to_le_bytes));
        }
        self.content.extend(recipe.seed.to_le_bytes());
        if let Some(failed) = &recipe.failed {
            self.content.push(1);
            self.content.extend(failed.as_bytes());
        }
        if let Some(body) = &recipe.body {
            self.content.push(2);
            // Texts and numbers always have a JSON form.
            self.content.extend(serde_json::to_vec(&**body).unwrap_or_default());
        }
        if let Some(recorded) = recipe.recorded {
            self.content.push(3);
            self.content.extend(recorded.ttft.to_le_bytes());
            self.content.extend(recorded.rest.to_le_bytes());
        }
        self.prompt(&recipe.prompt);
        self.flush(CHUNK);
    }

    fn prompt(&mut self, prompt: &PromptRecipe) {
        match prompt {
            PromptRecipe::Synthetic { prefix: None, .. } => self.schedule.push(0),
            PromptRecipe::Synthetic { prefix: Some(prefix), .. } => {
                self.schedule.push(1);
                self.schedule.extend(prefix.tokens.to_le_bytes());
                self.group(prefix.seed);
            }
            PromptRecipe::Text { text, .. } => {
                self.schedule.push(2);
                self.text(text);
            }
            PromptRecipe::Blocks { block_tokens, ids, .. } => {
                self.schedule.push(3);
                self.blocks(*block_tokens, ids);
            }
            PromptRecipe::Chat { messages, body, .. } => {
                self.schedule.push(4);
                self.schedule.extend((messages.len() as u64).to_le_bytes());
                for message in messages.iter() {
                    self.content.push(message.role as u8);
                    self.message(&message.content);
                }
                if let Some(body) = body {
                    // What is passed through decides what is asked: tools, the response format, sampling.
                    let text = serde_json::to_vec(&**body).unwrap_or_default();
                    self.schedule.extend(blake3::hash(&text).as_bytes());
                }
            }
        }
    }

    fn message(&mut self, content: &Content) {
        self.schedule.extend(content.tokens().to_le_bytes());
        match content {
            Content::Synthetic { seed, .. } => {
                self.schedule.push(1);
                self.group(*seed);
            }
            Content::Text { text, .. } => {
                self.schedule.push(2);
                self.text(text);
            }
            Content::Blocks { block_tokens, ids, .. } => {
                self.schedule.push(3);
                self.blocks(*block_tokens, ids);
            }
            Content::Given { message, .. } => {
                self.schedule.push(4);
                let address = (Arc::as_ptr(message) as usize, usize::MAX);
                let kept = Arc::strong_count(message) > 1;
                self.given(address, kept, || Cow::Owned(message.to_string().into_bytes()));
            }
            Content::Answer { seed, .. } => {
                self.schedule.push(5);
                self.group(*seed);
            }
        }
    }

    /// Content that may be shared.
    fn group(&mut self, seed: u64) {
        let next = self.groups.len() as u64;
        let group = *self.groups.entry(seed).or_insert(next);
        self.schedule.extend(group.to_le_bytes());
        self.content.extend(seed.to_le_bytes());
    }

    fn text(&mut self, text: &Arc<str>) {
        let address = (text.as_ptr() as usize, text.len());
        self.given(address, Arc::strong_count(text) > 1, || Cow::Borrowed(text.as_bytes()));
    }

    /// Content that a file gives. What its source keeps as well is hashed once.
    fn given<'t>(&mut self, address: (usize, usize), kept: bool, bytes: impl FnOnce() -> Cow<'t, [u8]>) {
        let known = if kept { self.texts.get(&address).copied() } else { None };
        let hash = known.unwrap_or_else(|| *blake3::hash(&bytes()).as_bytes());
        if kept {
            self.texts.insert(address, hash);
        }
        self.content.extend(hash);
    }

    fn blocks(&mut self, block_tokens: u32, ids: &[u64]) {
        self.schedule.extend(block_tokens.to_le_bytes());
        self.schedule.extend((ids.len() as u64).to_le_bytes());
        self.schedule.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    }

    /// Hashes what has gathered when it is more than `most` bytes.
    fn flush(&mut self, most: usize) {
        for (bytes, hasher) in
            [(&mut self.schedule, &mut self.schedule_hasher), (&mut self.content, &mut self.content_hasher)]
        {
            if bytes.len() > most {
                hasher.update(bytes);
                bytes.clear();
            }
        }
    }
}

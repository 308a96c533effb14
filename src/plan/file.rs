//! Plan files: a header line, then one recipe per line.
//!
//! The header holds the resolved scenario, both digests and each workload's settings; a recipe's line names its workload
//! and repeat. A file that is read must be whole: every count, number, reference and digest is checked, so that what is
//! played is what was planned. A plan that was edited on purpose drops the two digests from its header; they are then
//! computed anew.

use std::io::{BufRead, Write};
use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Content, LoadPlan, MemberPlan, Message, Plan, Point, PromptRecipe, Recipe, RecipeSource, Sampling,
    WarmupPlan, WorkloadPlan,
};
use crate::plan::config::Tags;
use crate::record::Phase;
use crate::sample::json_fault;
use crate::tokenizer::Tokenizer;
use crate::units::{Ns, TokenCount};

/// The version of the format.
const VERSION: u32 = 1;
/// The longest line that is read.
const LONGEST_LINE: u64 = 256 << 20;

/// The first line of a plan file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version of the format, 1.
    pub schema_version: u32,
    /// The scenario's seed.
    pub seed: u64,
    /// The name of the tokenizer that counted the texts.
    pub tokenizer: String,
    /// The plan's schedule digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_digest: Option<String>,
    /// The plan's content digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_digest: Option<String>,
    /// The resolved scenario.
    pub scenario: Value,
    /// Each workload's settings.
    workloads: Vec<Settings>,
    /// The groups, by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    groups: IndexMap<String, Vec<MemberPlan>>,
}

/// A [`WorkloadPlan`] without its recipes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    name: String,
    family: String,
    #[serde(default, skip_serializing_if = "Point::is_empty")]
    point: Point,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    tags: Tags,
    load: LoadPlan,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sessions: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    duration_ns: Option<Ns>,
    warmup: WarmupPlan,
    timeout_ns: Ns,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total_timeout_ns: Option<Ns>,
    repeats: u32,
    #[serde(default, skip_serializing_if = "is_none")]
    retries: u32,
    skipped_rows: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    sampling: Sampling,
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    cold_cache: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hook_digest: Option<String>,
    /// Recipes in the file, over all repeats.
    recipes: u64,
}

fn is_default(sampling: &Sampling) -> bool {
    *sampling == Sampling::default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_none(retries: &u32) -> bool {
    *retries == 0
}

fn yes() -> bool {
    true
}

#[derive(Serialize)]
struct LineOut<'a> {
    workload: &'a str,
    repeat: u32,
    recipe: &'a Recipe,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineIn {
    workload: String,
    repeat: u32,
    recipe: Recipe,
}

/// Why a plan can not be written.
#[derive(Debug, thiserror::Error)]
pub enum PlanWriteError {
    /// Only time ends it, so it has no last recipe.
    #[error(
        "workload `{0}` can not be written as a plan file, because only time ends it or its warm-up; set `requests` there"
    )]
    Endless(String),
    /// What it sends depends on what is answered.
    #[error(
        "workload `{0}` can not be written as a plan file, because it searches: what it sends is decided while it runs; leave it out with `--only`"
    )]
    Search(String),
    /// The file can not be written.
    #[error("the plan file can not be written: {0}")]
    Io(#[from] std::io::Error),
}

/// What is wrong with a plan file, and in which line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct PlanFileError {
    /// The line, from 1; the one after the last where the file ends too early.
    pub line: u64,
    /// What is wrong.
    pub message: String,
}

/// Writes a plan with all its repeats. `scenario` is the resolved scenario, `tokenizer` the name of the one it was
/// planned with. A plan without a last recipe is an error before anything is written.
pub fn write(
    plan: &Plan,
    scenario: Value,
    tokenizer: &str,
    out: &mut dyn Write,
) -> Result<(), PlanWriteError> {
    let mut workloads = Vec::with_capacity(plan.workloads.len());
    for workload in &plan.workloads {
        if workload.search.is_some() {
            return Err(PlanWriteError::Search(workload.name.clone()));
        }
        if workload.is_endless() {
            return Err(PlanWriteError::Endless(workload.name.clone()));
        }
        workloads.push(settings(workload));
    }
    let header = Header {
        schema_version: VERSION,
        seed: plan.seed,
        tokenizer: tokenizer.to_owned(),
        schedule_digest: Some(plan.schedule_digest.clone()),
        content_digest: Some(plan.content_digest.clone()),
        scenario,
        workloads,
        groups: plan.groups.iter().map(|group| (group.name.clone(), group.members.clone())).collect(),
    };
    json_line(&header, out)?;
    for workload in &plan.workloads {
        for repeat in 0..workload.repeats {
            for recipe in workload.stream(repeat) {
                json_line(&LineOut { workload: &workload.name, repeat, recipe: &recipe }, out)?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

fn json_line(value: &impl Serialize, out: &mut dyn Write) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    out.write_all(b"\n")
}

fn settings(plan: &WorkloadPlan) -> Settings {
    let count = |repeat| {
        let count = plan.count(repeat, u64::MAX);
        count.warmup + count.measured
    };
    Settings {
        name: plan.name.clone(),
        family: plan.family.clone(),
        point: plan.point.clone(),
        tags: plan.tags.clone(),
        load: plan.load.clone(),
        requests: plan.requests,
        sessions: plan.sessions,
        duration_ns: plan.duration,
        warmup: plan.warmup,
        timeout_ns: plan.timeout,
        total_timeout_ns: plan.total_timeout,
        repeats: plan.repeats,
        retries: plan.retries,
        skipped_rows: plan.skipped_rows,
        sampling: plan.sampling.clone(),
        cold_cache: plan.cold_cache,
        hook_digest: plan.hook_digest.clone(),
        recipes: (0..plan.repeats).map(count).sum(),
    }
}

/// Reads a plan file back. `tokenizer` must be the one it was written with.
pub fn read(input: impl BufRead, tokenizer: &dyn Tokenizer) -> Result<(Header, Plan), PlanFileError> {
    let mut lines = NumberedLines { input, line: 0, buffer: String::new() };
    let header = next_header(&mut lines)?;
    if header.tokenizer != tokenizer.name() {
        let (written, used) = (&header.tokenizer, tokenizer.name());
        return Err(lines.error(format!("the plan was made with the tokenizer `{written}`, not `{used}`")));
    }
    let mut lists: Vec<List> = header.workloads.iter().map(|_| List::default()).collect();
    while let Some(text) = lines.read()? {
        let mut line: LineIn = serde_json::from_str(text).map_err(|e| lines.json_error(&e))?;
        let known = header.workloads.iter().position(|workload| workload.name == line.workload);
        let Some(at) = known else {
            return Err(lines.error(format!("the header has no workload `{}`", line.workload)));
        };
        fill_ids(&mut line.recipe.prompt, tokenizer).map_err(|message| lines.error(message))?;
        lists[at].push(&header.workloads[at], line).map_err(|message| lines.error(message))?;
    }
    let mut workloads: Vec<WorkloadPlan> = Vec::with_capacity(lists.len());
    for (settings, list) in header.workloads.iter().zip(lists) {
        let (found, wanted) = (list.recipes.len() as u64, settings.recipes);
        if found != wanted {
            let name = &settings.name;
            let message =
                format!("the file ends with {found} of the {wanted} recipes of `{name}`; it is cut off");
            return Err(lines.error(message));
        }
        workloads.push(workload_plan(settings.clone(), list.recipes));
    }
    for members in header.groups.values() {
        for (lane, member) in (0..).zip(members) {
            let own = &mut workloads[member.workload];
            (own.lane, own.follows) = (lane, member.until.is_some());
        }
    }
    let groups = header.groups.clone().into_iter().collect();
    let plan = Plan::new(header.seed, workloads, groups, &header.tokenizer);
    for (name, written, found) in [
        ("schedule_digest", &header.schedule_digest, &plan.schedule_digest),
        ("content_digest", &header.content_digest, &plan.content_digest),
    ] {
        if written.as_ref().is_some_and(|written| written != found) {
            let message = format!(
                "the recipes do not have the header's `{name}`; if the plan was edited on purpose, remove the \
                 digests from the header"
            );
            return Err(PlanFileError { line: 1, message });
        }
    }
    Ok((header, plan))
}

fn workload_plan(settings: Settings, recipes: Vec<Recipe>) -> WorkloadPlan {
    WorkloadPlan {
        name: settings.name,
        family: settings.family,
        point: settings.point,
        tags: settings.tags,
        load: settings.load,
        recipes: RecipeSource::Listed(recipes.into()),
        requests: settings.requests,
        sessions: settings.sessions,
        duration: settings.duration_ns,
        warmup: settings.warmup,
        timeout: settings.timeout_ns,
        total_timeout: settings.total_timeout_ns,
        repeats: settings.repeats,
        retries: settings.retries,
        lane: 0,
        follows: false,
        search: None,
        skipped_rows: settings.skipped_rows,
        sampling: settings.sampling,
        cold_cache: settings.cold_cache,
        hook_digest: settings.hook_digest,
        hooked: None,
        checks: None,
        survey: OnceLock::new(),
    }
}

/// The header of a plan file alone, from which its scenario and its tokenizer are known.
pub fn read_header(input: impl BufRead) -> Result<Header, PlanFileError> {
    next_header(&mut NumberedLines { input, line: 0, buffer: String::new() })
}

fn next_header<R: BufRead>(lines: &mut NumberedLines<R>) -> Result<Header, PlanFileError> {
    let Some(text) = lines.read()? else {
        return Err(lines.error("the file is empty; a plan file begins with a header line"));
    };
    let value: Value = serde_json::from_str(text).map_err(|error| lines.json_error(&error))?;
    match value.get("schema_version").map(Value::as_u64) {
        Some(Some(version)) if version == u64::from(VERSION) => {}
        Some(_) => {
            let found = &value["schema_version"];
            return Err(
                lines.error(format!("this is version {found} of the plan format; version {VERSION} is read"))
            );
        }
        None => {
            return Err(lines.error("this is no header: a plan file begins with one, `schema_version` in it"));
        }
    }
    let header: Header = serde_json::from_value(value).map_err(|error| lines.json_error(&error))?;
    for (at, settings) in header.workloads.iter().enumerate() {
        let name = &settings.name;
        if header.workloads[..at].iter().any(|earlier| earlier.name == *name) {
            return Err(lines.error(format!("two workloads are named `{name}`")));
        }
        if settings.repeats == 0 || settings.timeout_ns == 0 {
            return Err(lines.error(format!("`repeats` and `timeout_ns` of `{name}` must be above 0")));
        }
    }
    for (name, members) in &header.groups {
        let fits = |member: &MemberPlan| {
            let until = member.until.is_none_or(|until| until < members.len());
            member.workload < header.workloads.len() && until
        };
        if members.is_empty() || !members.iter().all(fits) {
            return Err(lines.error(format!("the group `{name}` names workloads that are not there")));
        }
    }
    Ok(header)
}

/// Finds the tokens of given texts, which are not in the file.
fn fill_ids(prompt: &mut PromptRecipe, tokenizer: &dyn Tokenizer) -> Result<(), String> {
    if let PromptRecipe::Chat { tokens, messages, .. } = prompt {
        return fill_messages(*tokens, messages, tokenizer);
    }
    let PromptRecipe::Text { tokens, text, .. } = prompt else { return Ok(()) };
    let (tokens, filled) = (*tokens, PromptRecipe::text(text.clone(), tokenizer));
    if filled.tokens() != tokens {
        let found = filled.tokens();
        return Err(format!("the text has {found} tokens by `{}`, not {tokens}", tokenizer.name()));
    }
    *prompt = filled;
    Ok(())
}

fn fill_messages(
    tokens: u32,
    messages: &mut Arc<[Message]>,
    tokenizer: &dyn Tokenizer,
) -> Result<(), String> {
    let mut filled = messages.to_vec();
    let mut sum = 0_u64;
    for (at, message) in filled.iter_mut().enumerate() {
        let written = message.content.tokens();
        let content = match &message.content {
            Content::Text { text, .. } => Some(Content::text(text, tokenizer)),
            Content::Given { message, .. } => Some(Content::given(Arc::clone(message), tokenizer)),
            Content::Synthetic { .. } | Content::Blocks { .. } | Content::Answer { .. } => None,
        };
        message.content = content.unwrap_or_else(|| message.content.clone());
        let found = message.content.tokens();
        if found != written {
            return Err(format!("message {at} has {found} tokens by `{}`, not {written}", tokenizer.name()));
        }
        sum += u64::from(found);
    }
    if sum != u64::from(tokens) {
        return Err(format!("the messages have {sum} tokens together, not {tokens}"));
    }
    *messages = filled.into();
    Ok(())
}

/// The recipes of one workload as they come.
#[derive(Default)]
struct List {
    recipes: Vec<Recipe>,
    repeat: u32,
    /// Place in the run: whether measured, and the number wanted next.
    measured: bool,
    next: u64,
    /// The last due time of the run.
    due: Ns,
    /// The index from which all recipes up to here follow another one; what a follower may point to.
    chain: Option<u64>,
}

impl List {
    fn push(&mut self, settings: &Settings, line: LineIn) -> Result<(), String> {
        let recipe = line.recipe;
        let measured = recipe.phase == Phase::Measured;
        if line.repeat == self.repeat && self.measured && !measured {
            return Err("warm-up stands behind what is measured".into());
        }
        if line.repeat != self.repeat {
            let next = if self.recipes.is_empty() { 0 } else { self.repeat + 1 };
            let repeats = settings.repeats;
            if next >= repeats {
                return Err(format!("repeat {} stands behind the last of {repeats}", line.repeat));
            }
            if line.repeat != next {
                return Err(format!("repeat {} stands where repeat {next} is next", line.repeat));
            }
            *self = Self { recipes: std::mem::take(&mut self.recipes), repeat: next, ..Self::default() };
        }
        if measured && !self.measured {
            (self.measured, self.next, self.chain) = (true, 0, None);
        }
        if recipe.index != self.next {
            return Err(format!("index {} stands where {} is next", recipe.index, self.next));
        }
        if measured && settings.requests.is_some_and(|most| recipe.index >= most) {
            return Err(format!("index {} is more than the header's `requests` allow", recipe.index));
        }
        check_lengths(&recipe)?;
        self.check_time(settings, &recipe)?;
        self.next += 1;
        self.recipes.push(recipe);
        Ok(())
    }

    fn check_time(&mut self, settings: &Settings, recipe: &Recipe) -> Result<(), String> {
        if let Some(after) = recipe.after {
            if recipe.arrival.is_some() {
                return Err("a recipe with `after` has no `arrival`".into());
            }
            // A load reads on from a request to the next that does not wait for another, so followers stand there.
            if self.chain.is_none_or(|first| !(first..recipe.index).contains(&after.index)) {
                return Err(format!(
                    "`after` points to {}, which is not the last recipe above without `after`, nor one behind it",
                    after.index
                ));
            }
            return Ok(());
        }
        self.chain = Some(recipe.index);
        match (&settings.load, recipe.arrival) {
            (LoadPlan::Open { .. }, None) => Err("a recipe of an open load has `arrival` or `after`".into()),
            (LoadPlan::Closed { .. }, Some(_)) => Err("a recipe of a closed load has no `arrival`".into()),
            (LoadPlan::Open { .. }, Some(at)) if at < self.due => {
                Err(format!("it is due at {at} ns, before the recipe above it ({} ns)", self.due))
            }
            (_, arrival) => {
                self.due = arrival.unwrap_or(0);
                Ok(())
            }
        }
    }
}

fn check_lengths(recipe: &Recipe) -> Result<(), String> {
    let fits = |tokens: u32| (1..=TokenCount::MAX).contains(&tokens);
    let tokens = recipe.prompt.tokens();
    if recipe.failed.is_none() && (!fits(tokens) || !fits(recipe.output_tokens)) {
        return Err(format!("prompt and output have from 1 to {} tokens", TokenCount::MAX));
    }
    match &recipe.prompt {
        PromptRecipe::Synthetic { prefix: Some(prefix), .. } if prefix.tokens > tokens => {
            Err(format!("the prefix has {} tokens, the prompt only {tokens}", prefix.tokens))
        }
        PromptRecipe::Blocks { block_tokens: 0, .. } => Err("a block has at least 1 token".into()),
        PromptRecipe::Blocks { block_tokens, ids, .. }
            if ids.len() as u64 != u64::from(tokens.div_ceil(*block_tokens)) =>
        {
            Err(format!("{} block ids for {tokens} tokens in blocks of {block_tokens}", ids.len()))
        }
        PromptRecipe::Chat { messages, .. } => messages.iter().try_for_each(check_message),
        _ => Ok(()),
    }
}

fn check_message(message: &Message) -> Result<(), String> {
    match &message.content {
        Content::Blocks { block_tokens: 0, .. } => Err("a block has at least 1 token".into()),
        Content::Blocks { tokens, block_tokens, ids }
            if ids.len() as u64 != u64::from(tokens.div_ceil(*block_tokens)) =>
        {
            Err(format!("{} block ids for {tokens} tokens in blocks of {block_tokens}", ids.len()))
        }
        _ => Ok(()),
    }
}

struct NumberedLines<R> {
    input: R,
    line: u64,
    buffer: String,
}

impl<R: BufRead> NumberedLines<R> {
    /// The next line; blank ones are no part of a plan file.
    fn read(&mut self) -> Result<Option<&str>, PlanFileError> {
        self.buffer.clear();
        self.line += 1;
        let read = std::io::Read::take(&mut self.input, LONGEST_LINE).read_line(&mut self.buffer);
        match read {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(self.buffer.trim_end())),
            Err(error) => Err(self.error(format!("can not be read: {error}"))),
        }
    }

    fn error(&self, message: impl Into<String>) -> PlanFileError {
        PlanFileError { line: self.line, message: message.into() }
    }

    fn json_error(&self, error: &serde_json::Error) -> PlanFileError {
        self.error(format!("is no line of a plan: {}", json_fault(error)))
    }
}

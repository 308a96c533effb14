//! Whether backends can play a plan at all.

use super::prepare::Chosen;
use crate::backend::candle::{flat, is_given};
use crate::backend::config::{Backend, Clock, Endpoint, Mode};
use crate::gate::config::Confidence;
use crate::plan::config::Variable;
use crate::plan::{Content, EXTENSIONS, Plan, PromptRecipe, WorkloadPlan, table};
use crate::stats;
use crate::units::human;

/// Workloads with requests that are longer than the context of a model, and what to say about each.
pub(super) fn too_long(plan: &Plan, backends: &[Chosen]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (chosen, source) in backends.iter().filter_map(|chosen| Some((chosen, chosen.source.as_ref()?))) {
        let Some(context) = source.context() else { continue };
        for row in table(plan) {
            let (prompt, output) = (&row.prompt_tokens, &row.output_tokens);
            // Only what is sure: the longest prompt and the longest answer may belong to two requests.
            let pairs = [(prompt.max, output.min), (prompt.min, output.max)];
            let long =
                pairs.into_iter().find(|(prompt, output)| u64::from(*prompt) + u64::from(*output) > context);
            if let Some((prompt, output)) = long {
                found.push((
                    row.workload.clone(),
                    format!(
                        "a prompt of {prompt} and an answer of {output} tokens are more than the context of {context} of `{}`",
                        chosen.model()
                    ),
                ));
            }
        }
    }
    found
}

/// Workloads that search with probes that are too small to pass at the lowest level, however long they are extended, and what
/// to say about each.
pub(super) fn too_small(plan: &Plan, backends: &[Chosen], confidence: Confidence) -> Vec<(String, String)> {
    let Confidence::Level(level) = confidence else { return Vec::new() };
    if backends.iter().all(|chosen| chosen.clock() == Clock::Virtual) {
        return Vec::new();
    }
    let small = |workload: &WorkloadPlan| {
        let search = workload.search.as_ref().filter(|search| search.variable == Variable::Rate)?;
        let needed = stats::smallest_n(1.0 - search.share, 1.0 - level)?;
        let most = workload.probe(search.low, EXTENSIONS)?.expected().measured?;
        let message = format!(
            "a share of {} needs {needed} requests to pass at {}, and a probe at {} has {most}, extended as far as it may be",
            human(search.share, "%"),
            human(level, "%"),
            search.variable.level(search.low)
        );
        (most < needed).then(|| (workload.name.clone(), message))
    };
    plan.workloads.iter().filter_map(small).collect()
}

/// Workloads with prompts that a backend can not take as they are, and what to say about each.
pub(super) fn not_for(plan: &Plan, backends: &[Chosen]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for chosen in backends {
        if let Backend::Mock(config) = &chosen.config
            && config.mode == Mode::Replay
        {
            found.extend(plan.workloads.iter().filter_map(|workload| without_times(workload, &chosen.name)));
            continue;
        }
        let unfit: &dyn Fn(&PromptRecipe) -> Option<String> = match chosen.config.server() {
            Some((server, _)) if server.endpoint == Some(Endpoint::Chat) => continue,
            Some(_) => &|prompt| not_for_texts(prompt, &chosen.name),
            None if matches!(chosen.config, Backend::Mock(_)) => continue,
            None => &|prompt| not_for_model(prompt, chosen),
        };
        for workload in &plan.workloads {
            let prompts = workload.stream(0).map(|recipe| recipe.prompt);
            let mut looked_at = prompts.take(if workload.is_endless() { 1000 } else { 1_000_000 });
            if let Some(message) = looked_at.find_map(|prompt| unfit(&prompt)) {
                found.push((workload.name.clone(), message));
            }
        }
    }
    found
}

/// Why a server that is sent texts can not take a prompt.
fn not_for_texts(prompt: &PromptRecipe, backend: &str) -> Option<String> {
    let PromptRecipe::Chat { messages, .. } = prompt else { return None };
    messages.iter().any(|message| message.content.is_given()).then(|| {
        format!(
            "some messages have parts, images or tool calls, which only the chat API takes; write `endpoint: chat` at backend `{backend}`"
        )
    })
}

/// What a request of a file may ask of a model that is computed here, beside its messages.
const KNOWN: [&str; 4] = ["tools", "temperature", "top_p", "seed"];

/// Why a model that is computed here can not take a prompt. Generated messages say nothing, so nothing is lost without a
/// template around them; what somebody wrote goes through the model's own.
fn not_for_model(prompt: &PromptRecipe, chosen: &Chosen) -> Option<String> {
    let PromptRecipe::Chat { messages, body, .. } = prompt else { return None };
    if !is_given(messages) {
        return None;
    }
    let (name, source) = (&chosen.name, chosen.source.as_ref()?);
    let template = match &source.template {
        Err(problem) => return Some(format!("backend `{name}` can not play conversations: {problem}")),
        Ok(template) => template,
    };
    if template.is_none() {
        return Some(format!(
            "backend `{name}` computes prompts of text: its model has no chat template to play conversations with; name one that was trained for chat"
        ));
    }
    let parts = messages.iter().find_map(|message| match &message.content {
        Content::Given { message, .. } => flat(message).err(),
        _ => None,
    });
    if let Some(problem) = parts {
        return Some(format!("backend `{name}` can not play some conversations: {problem}"));
    }
    let other = body.iter().flat_map(|body| body.keys()).find(|key| !KNOWN.contains(&key.as_str()))?;
    Some(format!(
        "some requests ask for `{other}`, which backend `{name}` does not know; leave it out, or measure a server"
    ))
}

/// A workload whose requests do not tell when they were answered, and what to say about it.
fn without_times(workload: &WorkloadPlan, backend: &str) -> Option<(String, String)> {
    let mut recipes = workload.stream(0).take(if workload.is_endless() { 1000 } else { 1_000_000 });
    recipes.any(|recipe| recipe.recorded.is_none()).then(|| {
        let message = format!(
            "backend `{backend}` replays recorded times, and this workload's prompts tell none: they must be a trace in \
             `format: jsonl` whose `fields` name `first` and `last`, or `ttft` and `tpot`"
        );
        (workload.name.clone(), message)
    })
}

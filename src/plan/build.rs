//! From a scenario to its plan.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;
use serde_json::Value;

use super::config::{Cache, Group, Load, Member, Output, Prompt};
use super::generator::{Clock, Generator, OutputLength};
use super::hooked::{Hooked, Scripts, Unusable};
use super::load::{self, Law};
use super::source::{Problem, Source};
use super::{LoadPlan, MemberPlan, Plan, Point, RecipeSource, Sampling, WarmupPlan, WorkloadPlan};
use crate::check::{Checks, Flaw};
use crate::hook::Fault;
use crate::sample::{key, name_key};
use crate::scenario::{Scenario, Workload};
use crate::tokenizer::Tokenizer;

/// Why a scenario has no plan, at its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("workloads.{workload}.{path}: {message}")]
pub struct PlanError {
    /// The workload, by its full name.
    pub workload: String,
    /// The path inside the workload, such as `prompt.path`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
    /// The place in the hooks' script, where it is there.
    pub fault: Option<Box<Fault>>,
}

/// Decides everything about every request of a scenario whose matrix is expanded.
///
/// `families` tells for each workload which one it comes from and at which point; a workload that it does not name is
/// its own family. Paths are relative to `dir`. All workloads are looked at, and each that can not be planned is told.
pub fn plan(
    scenario: &Scenario,
    families: &IndexMap<String, (String, Point)>,
    dir: &Path,
    tokenizer: &dyn Tokenizer,
) -> Result<Plan, Vec<PlanError>> {
    let mut workloads = Vec::with_capacity(scenario.workloads.len());
    let mut errors = Vec::new();
    let mut failed = false;
    let mut scripts = Scripts::new(scenario, dir, tokenizer);
    for (name, workload) in &scenario.workloads {
        let own = || (name.clone(), Point::new());
        let (family, point) = families.get(name).cloned().unwrap_or_else(own);
        let mut problems = Vec::new();
        let hooked = scripts.of(workload, name, &point, &mut problems);
        let checks = checks(workload, &hooked, dir).map_err(|flaws| problems.extend(flaws)).ok().flatten();
        problems.extend(held_to_something(workload, scenario).err());
        let plan = match hooked {
            // Without them it can not be told what such a prompt is.
            Err(Unusable) if matches!(workload.prompt, Prompt::Script(_)) => None,
            hooked => {
                let hooked = hooked.ok().flatten();
                let plan = workload_plan(scenario, name, (family, point), dir, tokenizer, hooked);
                plan.map_err(|problem| problems.push(problem)).ok()
            }
        };
        failed |= plan.is_none() || !problems.is_empty();
        workloads.extend(plan.map(|plan| WorkloadPlan { checks, ..plan }));
        errors.extend(problems.into_iter().map(|problem| problem.of(name)));
    }
    if failed {
        return Err(errors);
    }
    Ok(Plan::new(scenario.seed, workloads, groups(scenario), tokenizer.name()))
}

/// The groups of a scenario whose names are checked.
fn groups(scenario: &Scenario) -> Vec<(String, Vec<MemberPlan>)> {
    let group = |(name, members): (&String, &Group)| {
        let member = |(workload, member): (&String, &Member)| {
            Some(MemberPlan {
                workload: scenario.workloads.get_index_of(workload)?,
                start: member.start.map_or(0, |start| start.0),
                until: member.until.as_ref().and_then(|leader| members.get_index_of(leader)),
            })
        };
        (name.clone(), members.iter().filter_map(member).collect())
    };
    scenario.parallel.iter().map(group).filter(|(_, members): &(_, Vec<_>)| !members.is_empty()).collect()
}

fn workload_plan(
    scenario: &Scenario,
    name: &str,
    (family, point): (String, Point),
    dir: &Path,
    tokenizer: &dyn Tokenizer,
    hooked: Option<Arc<Hooked>>,
) -> Result<WorkloadPlan, Problem> {
    let (seed, workload) = (scenario.seed, &scenario.workloads[name]);
    let member = scenario.member(name);
    let follows = member.is_some_and(|(_, member)| member.until.is_some());
    let traced = matches!(workload.prompt, Prompt::Trace(_));
    let law = load::read(&workload.load, workload.warmup.as_ref(), (traced, follows), dir)?;
    if traced && workload.output.is_some() {
        return Err(Problem::new("output", "a trace supplies the length of each answer", "remove `output`"));
    }
    let output = workload.output.as_ref().map(|output| OutputLength::read(output, dir)).transpose()?;
    check_times(workload)?;
    let source = Source::read(&workload.prompt, workload.output.as_ref(), dir, tokenizer)?;
    if output.is_none() && !source.gives_lengths() {
        let message = match source.lacking() {
            Some(row) => row.to_string(),
            None => "nothing says how long answers are".to_owned(),
        };
        return Err(Problem::new(
            "output",
            message,
            "set `output: { tokens: 128 }`, or `max_tokens` as a limit",
        ));
    }
    if let Source::Script(function) = &source {
        called(function, hooked.as_deref())?;
    }
    let (skipped_rows, rows) = (source.skipped(), source.rows());
    let Law { load, clock, think, requests, sessions, duration, warmup, words, search } = law;
    if sessions.is_some() && !source.is_sessions() {
        return Err(Problem::new(
            "load.sessions",
            "these prompts are single requests, not sessions",
            "write `requests`, or use `prompt: { kind: sessions, .. }`",
        ));
    }
    let generator = Generator {
        root: key(&[seed, name_key(&family)]),
        source: Arc::new(source),
        hooked: hooked.clone(),
        output,
        cancel: workload.cancel.as_ref().map(|cancel| (cancel.rate.0, cancel.after_tokens.0)),
        think,
        clock,
        words,
        law: law_text(workload),
    };
    let mut plan = WorkloadPlan {
        name: name.to_owned(),
        family,
        point,
        tags: workload.tags.clone(),
        load,
        recipes: RecipeSource::Generated(Arc::new(generator)),
        requests,
        sessions,
        duration,
        warmup,
        timeout: workload.timeout.0,
        total_timeout: workload.total_timeout.map(|length| length.0),
        repeats: workload.repeats,
        retries: workload.retries,
        lane: member.map_or(0, |(at, _)| at as u32),
        follows,
        search,
        skipped_rows,
        sampling: workload.output.as_ref().map(sampling).unwrap_or_default(),
        cold_cache: workload.cache == Cache::Cold,
        hook_digest: hooked.as_ref().map(|hooked| hooked.digest()),
        hooked,
        checks: None,
        survey: OnceLock::new(),
    };
    if let Some(rows) = rows {
        hold_to_rows(&mut plan, rows)?;
        if let Some(mut most) = plan.search.as_ref().and_then(|search| plan.probe(search.high, 0)) {
            hold_to_rows(&mut most, rows)?;
        }
    }
    drop_idle_duration(&mut plan);
    if let Some(repeat) = (0..plan.repeats).find(|repeat| !plan.sends(*repeat)) {
        let which = if repeat == 0 { String::new() } else { format!(" in repeat {repeat}") };
        let message = format!("the load measures no request{which}");
        return Err(Problem::new("load", message, "raise its rate or its duration, or shorten the warm-up"));
    }
    Ok(plan)
}

fn sampling(output: &Output) -> Sampling {
    Sampling {
        temperature: output.temperature,
        top_p: output.top_p,
        seed: output.seed,
        stop: output.stop.clone(),
        stream: output.stream,
        extra: output.extra.clone().into_iter().collect(),
    }
}

/// What is expected of a workload's responses, compiled. Of hooks that can not be used nothing more is said.
fn checks(
    workload: &Workload,
    hooked: &Result<Option<Arc<Hooked>>, Unusable>,
    dir: &Path,
) -> Result<Option<Arc<Checks>>, Vec<Problem>> {
    let script = hooked.as_ref().ok().and_then(Option::as_ref).map(|hooked| hooked.script());
    let checks = Checks::compile(&workload.expect, script, dir);
    let is_told = |flaw: &Flaw| hooked.is_ok() || workload.expect[flaw.index].function().is_none();
    let problem = |flaw: Flaw| {
        let path = format!("expect.{}.{}", flaw.index, flaw.key);
        Problem { fault: flaw.fault, ..Problem::new(path, flaw.message, flaw.help) }
    };
    let told = |flaws: Vec<Flaw>| flaws.into_iter().filter(is_told).map(problem).collect();
    checks.map(|checks| checks.map(Arc::new)).map_err(told)
}

/// Gives a plan that was read from a file what its scenario expects of responses, and the hooks that look at them. Paths are
/// relative to `dir`.
pub fn expect(
    plan: &mut Plan,
    scenario: &Scenario,
    dir: &Path,
    tokenizer: &dyn Tokenizer,
) -> Result<(), Vec<PlanError>> {
    let mut scripts = Scripts::new(scenario, dir, tokenizer);
    let mut errors = Vec::new();
    for planned in &mut plan.workloads {
        let Some(workload) = scenario.workloads.get(&planned.name) else { continue };
        let mut problems = Vec::new();
        let hooked = scripts.of(workload, &planned.name, &planned.point, &mut problems);
        match checks(workload, &hooked, dir) {
            Ok(checks) => planned.checks = checks,
            Err(flaws) => problems.extend(flaws),
        }
        if let Ok(hooked) = hooked {
            let digest = hooked.as_ref().map(|hooked| hooked.digest());
            if digest != planned.hook_digest {
                let message = "the hooks are not those that the plan was made with";
                problems.push(Problem::new("hooks", message, "make the plan again"));
            }
            planned.hooked = hooked;
        }
        errors.extend(problems.into_iter().map(|problem| problem.of(&planned.name)));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// What a search needs: limits that requests keep or do not. Its own budget is the only end that it has.
fn held_to_something(workload: &Workload, scenario: &Scenario) -> Result<(), Problem> {
    let Load::Search(_) = &workload.load else { return Ok(()) };
    if workload.slo.as_ref().unwrap_or(&scenario.slo).is_empty() {
        let message = "a search looks for the most load that keeps the `slo`, and there is none";
        return Err(Problem::new("load.kind", message, "write its limits, such as `slo: [ttft <= 500ms]`"));
    }
    if workload.total_timeout.is_some() {
        let message = "a search has `load.budget` for this";
        return Err(Problem::new("total_timeout", message, "remove `total_timeout`, and set `load.budget`"));
    }
    Ok(())
}

/// Whether there is a function to make the prompts.
fn called(function: &str, hooked: Option<&Hooked>) -> Result<(), Problem> {
    let Some(hooked) = hooked else {
        let help = "write them: `hooks: { file: hooks.rhai }`, or `inline`";
        return Err(Problem::new("prompt.function", "the workload has no hooks", help));
    };
    let lacks = hooked.script().lacks(function, &["ctx"]);
    lacks.map_or(Ok(()), |fault| Err(Problem::script("prompt.function", fault)))
}

fn check_times(workload: &Workload) -> Result<(), Problem> {
    if workload.repeats == 0 {
        return Err(Problem::new("repeats", "a workload is played at least once", "raise `repeats`"));
    }
    if workload.timeout.0 == 0 {
        return Err(Problem::new("timeout", "a request can not be answered in no time", "raise `timeout`"));
    }
    if workload.total_timeout.is_some_and(|length| length.0 == 0) {
        return Err(Problem::new(
            "total_timeout",
            "nothing can be played in no time",
            "raise `total_timeout`",
        ));
    }
    Ok(())
}

/// Holds a plan to a source that has only so many rows: a number that is known to be too large is an error, one that
/// only time decides is bounded.
fn hold_to_rows(plan: &mut WorkloadPlan, rows: u64) -> Result<(), Problem> {
    let RecipeSource::Generated(generator) = &plan.recipes else { return Ok(()) };
    if let Clock::Trace { .. } = generator.clock {
        return Ok(());
    }
    let too_many = |path: &str, needed: String| {
        let message = format!("the plan needs {needed} rows, but the file of `prompt.path` has {rows}");
        Problem::new(path, message, "send fewer requests, or name a longer file; a file may also `wrap`")
    };
    let counts_sessions = generator.source.is_sessions();
    let warmup = match plan.warmup {
        WarmupPlan::Requests(count) => {
            let of = |repeat| generator.rows_of_warmup(&generator.keys(repeat), count);
            (0..plan.repeats).map(of).max().unwrap_or(count)
        }
        WarmupPlan::Duration(_) if matches!(plan.load, LoadPlan::Closed { .. }) => {
            let message = "how many rows a warm-up of users takes in that time is not known";
            return Err(Problem::new("warmup.duration", message, "set `warmup.requests` instead"));
        }
        WarmupPlan::None | WarmupPlan::Duration(_) => 0,
    };
    let left = rows.saturating_sub(warmup);
    if left == 0 {
        return Err(too_many("warmup.requests", format!("{} or more", warmup.saturating_add(1))));
    }
    if let LoadPlan::Open { .. } = plan.load {
        for repeat in 0..plan.repeats {
            if plan.count(repeat, rows.saturating_add(1)).arrivals > rows {
                return Err(too_many("load", format!("more than {rows}")));
            }
        }
        return Ok(());
    }
    let (most, key) = if counts_sessions {
        (&mut plan.sessions, "load.sessions")
    } else {
        (&mut plan.requests, "load.requests")
    };
    match *most {
        Some(wanted) if wanted > left => Err(too_many(key, wanted.saturating_add(warmup).to_string())),
        Some(_) => Ok(()),
        None => {
            *most = Some(left);
            Ok(())
        }
    }
}

/// A replay whose trace ends before its duration ends with the trace: there is nothing to wait for.
fn drop_idle_duration(plan: &mut WorkloadPlan) {
    let RecipeSource::Generated(generator) = &plan.recipes else { return };
    if plan.duration.is_none() || !matches!(generator.clock, Clock::Trace { .. }) {
        return;
    }
    let cut = plan.count(0, u64::MAX);
    let duration = plan.duration.take();
    if plan.count(0, u64::MAX) != cut {
        plan.duration = duration;
    }
}

/// What decides lengths and arrivals, without paths and texts.
fn law_text(workload: &Workload) -> String {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|key, _| !matches!(key.as_str(), "path" | "text" | "column" | "fields"));
                map.values_mut().for_each(strip);
            }
            Value::Array(list) => list.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let parts = (&workload.prompt, &workload.output, &workload.load, &workload.cancel);
    // These types have string keys and finite numbers only, which always have a JSON form.
    let mut law = serde_json::to_value(parts).unwrap_or_default();
    strip(&mut law);
    law.to_string()
}

//! From played cells to the report: metrics, verdicts, and what the run comes to.

use std::borrow::Cow;

use indexmap::IndexMap;

use super::cell::Cell;
use super::conduct::{Campaign, Settings};
use super::judging;
use super::prepare::{Chosen, Prepared};
use crate::backend::candle::Local;
use crate::backend::config::{Backend, Clock};
use crate::gate::{Facts, exit, outcome};
use crate::measure::{
    Capacity, CellInput, Metrics, Reason, Reuse, Samples, Setting, Validity, check_reports, curves, errors,
    host, metrics, own_memory, rounded, timeline, validity,
};
use crate::plan::config::Load;
use crate::plan::{WorkloadPlan, table};
use crate::report::{
    BackendReport, CellReport, Environment, FaultEntry, RunReport, RunVerdict, Segment, Series, TokenLog,
};
use crate::run::{Played, ProcessorUse};
use crate::units::ms;

/// The records of one cell, for the request log.
#[derive(Debug)]
pub struct CellRecords {
    /// The workload's full name.
    pub workload: String,
    /// The backend's name.
    pub backend: String,
    /// Which repeat.
    pub repeat: u32,
    /// When measuring started: Unix seconds, or seconds since the run's start on the virtual clock.
    pub start_time: f64,
    /// When it ended.
    pub end_time: f64,
    /// Its requests.
    pub samples: Samples,
    /// When their tokens came, as a part of the token log; empty where nobody asked for it.
    pub tokens: Vec<u8>,
}

/// One workload on one backend with all its repeats.
pub(super) struct Group<'a> {
    pub(super) workload: usize,
    pub(super) backend: usize,
    pub(super) plan: &'a WorkloadPlan,
    pub(super) chosen: &'a Chosen,
    pub(super) cells: Vec<&'a Cell>,
    /// Those of its only cell, or of all of them pooled.
    pub(super) samples: Cow<'a, Samples>,
    pub(super) validity: Validity,
    pub(super) metrics: Metrics,
    /// The metrics of each repeat, where there are several.
    pub(super) repeats: Vec<Metrics>,
}

/// Judges what was measured and makes the report.
pub fn assemble(
    campaign: Campaign<'_>,
    settings: &Settings<'_>,
    complete: bool,
) -> (Vec<CellRecords>, RunReport) {
    let prepared = campaign.prepared;
    let groups = group(&campaign);
    let judgements = judging::judge_all(prepared, &groups);
    let mut report = RunReport::new();
    report.name = Some(prepared.name.clone());
    report.description.clone_from(&prepared.scenario.description);
    report.clock = prepared.backends.first().map(Chosen::clock);
    report.clock_speed = prepared.backends.first().and_then(Chosen::speed);
    report.simulated = Some(prepared.is_virtual());
    report.complete = Some(complete);
    report.stopped_early = campaign.fired().is_some();
    report.interruption = interruption(&campaign, complete);
    report.seed = Some(prepared.plan.seed);
    report.schedule_digest = Some(prepared.plan.schedule_digest.clone());
    report.content_digest = Some(prepared.plan.content_digest.clone());
    report.backends =
        (0..).zip(&prepared.backends).map(|(at, own)| backend_report(&campaign, at, own)).collect();
    let rows = table(&prepared.plan);
    let load =
        |position: usize| match (prepared.plan.group(position as u32), prepared.plan.group_of(position)) {
            (Some(group), _) => group.words(&prepared.plan.workloads),
            (None, Some(group)) => {
                format!("{}; in {}", rows[position].load, prepared.plan.groups[group].name)
            }
            (None, None) => rows[position].load.clone(),
        };
    report.cells = groups.iter().map(|group| cell_report(&campaign, group, load(group.workload))).collect();
    let facts = Facts {
        judgements: &judgements,
        inconclusive: prepared.scenario.gates.inconclusive,
        strict: settings.strict,
        invalid: groups.iter().filter(|group| !group.validity.valid).count(),
        // An error that ended the run early counts like a workload that could not be run.
        broken: groups.iter().filter(|group| is_broken(&group.metrics)).count()
            + usize::from(!complete && campaign.signal.is_none() && campaign.fired().is_none()),
        signal: campaign.signal,
    };
    let outcome = outcome(&facts);
    report.judgements = judgements;
    report.segments = campaign
        .segments
        .iter()
        .map(|segment| Segment {
            start_time: rounded(segment.start_time),
            requests: segment.requests,
            ended_by: segment.ended_by.clone(),
        })
        .collect();
    report.warnings.extend(prepared.backends.iter().filter_map(unchecked));
    report.warnings.extend(server_notes(&campaign));
    if report.segments.len() > 1 {
        report.warnings.push(
            "the run was resumed: the backend's cache was cold again at the start of each segment".into(),
        );
    }
    report.conclude(verdict_of(outcome.code), outcome.code);
    drop(groups);
    let client = campaign.cells.iter().filter_map(|cell| cell.played.processor).reduce(ProcessorUse::worst);
    let records = records_of(prepared, campaign.cells);
    report.environment = Environment {
        client,
        host: Some(host()),
        own: campaign.resources.map_or_else(own_memory, crate::measure::Resources::stop),
        started_at: Some(rfc3339(campaign.started)),
        wall_s: Some(rounded(campaign.begun.elapsed().as_secs_f64())),
        command: Some(settings.command.to_owned()),
    };
    (records, report)
}

pub(super) fn rfc3339(time: std::time::SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| "unknown".into(), |at| format!("{at:.0}"))
}

fn interruption(campaign: &Campaign<'_>, complete: bool) -> Option<String> {
    if let Some(fired) = campaign.fired() {
        let rule = &campaign.prepared.gates.rules[fired.rule].text;
        return Some(format!("stopped early, since `{rule}` is certain to fail: {}", fired.why));
    }
    match campaign.signal {
        Some(signal) => Some(format!("stopped by signal {signal}")),
        None => (!complete).then(|| "an error ended the run early".to_owned()),
    }
}

pub(super) fn is_broken(metrics: &Metrics) -> bool {
    metrics.get("total_requests").is_some_and(|n| n > 0.0) && metrics.get("successful_requests") == Some(0.0)
}

/// The run's verdict by its exit code.
pub fn verdict_of(code: u8) -> RunVerdict {
    match code {
        exit::PASS => RunVerdict::Pass,
        exit::FAILED => RunVerdict::Fail,
        exit::INCONCLUSIVE => RunVerdict::Inconclusive,
        exit::INVALID => RunVerdict::Invalid,
        exit::INTERRUPTED | exit::TERMINATED => RunVerdict::Interrupted,
        _ => RunVerdict::Error,
    }
}

/// What to know of a backend whose numbers were never held against a real server.
fn unchecked(chosen: &Chosen) -> Option<String> {
    let Backend::Mock(mock) = &chosen.config else { return None };
    let preset = mock.preset.filter(|preset| !preset.is_checked())?;
    let name = serde_json::to_value(preset).ok()?.as_str()?.to_owned();
    let backend = &chosen.name;
    let parallel =
        if preset.is_parallel() { " and leaves out what its GPUs spend on communication" } else { "" };
    Some(format!(
        "backend `{backend}`: the preset {name} is a fit to kernel tables that was never checked end to end{parallel}; use it to compare loads, not to promise latencies"
    ))
}

fn backend_report(campaign: &Campaign<'_>, at: usize, chosen: &Chosen) -> BackendReport {
    BackendReport {
        name: chosen.name.clone(),
        kind: chosen.config.kind().to_owned(),
        model: model(campaign, at).to_owned(),
        server: campaign.identities.get(at).cloned().flatten(),
        details: campaign.models.get(at).and_then(Option::as_ref).map(Local::details).unwrap_or_default(),
    }
}

/// The model of the chosen backend `at`: of a server, the one that it was found to serve.
fn model<'a>(campaign: &'a Campaign<'_>, at: usize) -> &'a str {
    let found = campaign.identities.get(at).and_then(Option::as_ref);
    found.map_or_else(|| campaign.prepared.backends[at].model(), |identity| &identity.model)
}

/// What to know of the servers.
fn server_notes(campaign: &Campaign<'_>) -> Vec<String> {
    let named = campaign.prepared.backends.iter().zip(&campaign.identities);
    let notes = named.filter_map(|(chosen, identity)| Some((&chosen.name, identity.as_ref()?)));
    notes
        .flat_map(|(name, identity)| {
            identity.notes.iter().map(move |note| format!("backend `{name}`: {note}"))
        })
        .collect()
}

/// The cells by workload and backend, in the order of the plan.
fn group<'a>(campaign: &'a Campaign<'_>) -> Vec<Group<'a>> {
    let mut keyed: IndexMap<(usize, usize), Vec<&Cell>> = IndexMap::new();
    for cell in &campaign.cells {
        keyed.entry((cell.key.workload as usize, cell.key.backend as usize)).or_default().push(cell);
    }
    keyed.sort_unstable_keys();
    // What stands for groups comes behind all workloads, and looks at those.
    let mut groups = Vec::with_capacity(keyed.len());
    for ((workload, backend), cells) in keyed {
        groups.push(pooled(campaign, workload, backend, cells, &groups));
    }
    groups
}

/// What stands against the measurement of a group: whatever does against one of its workloads.
fn of_members(campaign: &Campaign<'_>, workload: usize, backend: usize, groups: &[Group<'_>]) -> Vec<Reason> {
    let Some(own) = campaign.prepared.plan.group(workload as u32) else { return Vec::new() };
    let is_own = |group: &&Group<'_>| {
        group.backend == backend && own.members.iter().any(|member| member.workload == group.workload)
    };
    let invalid = groups.iter().filter(is_own).filter(|group| !group.validity.valid);
    let reasons = invalid.flat_map(|group| {
        let named = |reason: &Reason| Reason {
            name: reason.name.clone(),
            text: format!("{}: {}", group.plan.name, reason.text),
        };
        group.validity.reasons.iter().map(named).collect::<Vec<_>>()
    });
    reasons.collect()
}

fn pooled<'a>(
    campaign: &'a Campaign<'_>,
    workload: usize,
    backend: usize,
    cells: Vec<&'a Cell>,
    before: &[Group<'a>],
) -> Group<'a> {
    let prepared = campaign.prepared;
    let plan = prepared.plan.at(workload as u32);
    let chosen = &prepared.backends[backend];
    let samples = if let [cell] = cells.as_slice() {
        Cow::Borrowed(&cell.taken.samples)
    } else {
        let mut pooled = Samples::new(plan.load.basis());
        for cell in &cells {
            pooled.merge(&cell.taken.samples);
        }
        Cow::Owned(pooled)
    };
    let played: Vec<&Samples> = cells.iter().map(|cell| &cell.taken.samples).collect();
    let setting = Setting {
        clock: chosen.clock(),
        repeats: &played,
        is_constant: prepared
            .scenario
            .workloads
            .get(&plan.name)
            .is_some_and(|workload| matches!(workload.load, Load::Closed(_) | Load::Open(_))),
        processor: cells.iter().filter_map(|cell| cell.played.processor).reduce(ProcessorUse::worst),
        faulted: &cells
            .iter()
            .enumerate()
            .flat_map(|(repeat, cell)| {
                cell.played.stats.faults.iter().filter_map(move |fault| Some((repeat, fault.index?)))
            })
            .collect(),
        // A group sends nothing of its own plan.
        reuse: chosen
            .config
            .server()
            .filter(|_| prepared.plan.group(workload as u32).is_none())
            .and_then(|_| reuse(plan, &cells)),
    };
    let mut validity = validity(&setting, &samples, &prepared.scenario.validity);
    let reasons = of_members(campaign, workload, backend, before);
    validity.valid &= reasons.is_empty();
    validity.reasons.extend(reasons);
    let metrics = cell_metrics(campaign, plan, backend, &cells, &samples, &validity);
    let single =
        |cell: &&Cell| cell_metrics(campaign, plan, backend, &[*cell], &cell.taken.samples, &validity);
    let repeats = if cells.len() > 1 { cells.iter().map(single).collect() } else { Vec::new() };
    Group { workload, backend, plan, chosen, cells, samples, validity, metrics, repeats }
}

/// What a server's prefix cache gave that was to be cold, and what it could give by the plan.
fn reuse(plan: &WorkloadPlan, cells: &[&Cell]) -> Option<Reuse> {
    if !plan.cold_cache || plan.search.is_some() {
        return None;
    }
    let mut all = Reuse::default();
    for cell in cells {
        let (stats, records) = (&cell.played.stats, cell.taken.samples.records());
        let planned = plan.shared_tokens(cell.key.repeat, records.len() as u64)?;
        all.requests += records.len() as u64;
        all.queried += stats.prefix_queried_tokens?;
        all.found += stats.prefix_hit_tokens?;
        all.planned += planned.prompt;
        all.shared += planned.shared;
    }
    Some(all)
}

fn cell_metrics(
    campaign: &Campaign<'_>,
    plan: &WorkloadPlan,
    backend: usize,
    cells: &[&Cell],
    samples: &Samples,
    validity: &Validity,
) -> Metrics {
    let prepared = campaign.prepared;
    let chosen = &prepared.backends[backend];
    let played: Vec<Played> = cells.iter().map(|cell| cell.played.clone()).collect();
    let end = cells.last().map(|cell| cell.end_time).filter(|_| chosen.clock() != Clock::Virtual);
    metrics(&CellInput {
        workload: &plan.name,
        backend: &chosen.name,
        model: model(campaign, backend),
        clock: chosen.clock(),
        samples,
        played: &played,
        slo: prepared.gates.slos.get(&plan.name).map_or(&[], Vec::as_slice),
        tags: &plan.tags,
        start_time: cells.first().map_or(0.0, |cell| cell.start_time),
        end_time: end,
        seed: prepared.plan.seed,
        schedule_digest: &prepared.plan.schedule_digest,
        content_digest: &prepared.plan.content_digest,
        trace_rows_skipped: plan.skipped_rows,
        validity,
        capacity: capacity(cells).as_ref(),
        checks: &checks_of(plan),
        custom: &prepared.scenario.custom_metrics(),
    })
}

/// What the searches of some repeats found: the mean; or the first reason why there is none.
fn capacity(cells: &[&Cell]) -> Option<Capacity> {
    let searched: Option<Vec<_>> = cells.iter().map(|cell| cell.searched.as_ref()).collect();
    let searched = searched.filter(|searched| !searched.is_empty())?;
    let found: Result<Vec<f64>, String> = searched.iter().map(|searched| searched.found.clone()).collect();
    let name = searched[0].report.variable.metric();
    Some(Capacity { name, found: found.map(|levels| levels.iter().sum::<f64>() / levels.len() as f64) })
}

/// Names and kinds of a workload's checks, in order.
fn checks_of(plan: &WorkloadPlan) -> Vec<(String, String)> {
    let kinds = plan.checks.iter().flat_map(|checks| checks.kinds());
    kinds.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

fn cell_report(campaign: &Campaign<'_>, group: &Group<'_>, load: String) -> CellReport {
    let prepared = campaign.prepared;
    let plan = group.plan;
    let first = group.cells.first();
    CellReport {
        workload: plan.name.clone(),
        family: plan.family.clone(),
        backend: Some(group.chosen.name.clone()),
        point: plan.point.clone(),
        description: prepared.scenario.workloads.get(&plan.name).and_then(|w| w.description.clone()),
        load: Some(load),
        group: prepared.plan.group_of(group.workload).map(|at| prepared.plan.groups[at].name.clone()),
        members: match prepared.plan.group(group.workload as u32) {
            Some(own) => {
                own.members.iter().map(|at| prepared.plan.workloads[at.workload].name.clone()).collect()
            }
            None => Vec::new(),
        },
        schedule_digest: Some(prepared.plan.workload_digests[group.workload].clone()),
        metrics: group.metrics.flat(),
        repeats: group.repeats.iter().map(Metrics::flat).collect(),
        intervals: judging::intervals(prepared, group),
        validity: Some(group.validity.clone()),
        errors: errors(&group.samples),
        checks: check_reports(&group.samples, &checks_of(plan)),
        searches: group
            .cells
            .iter()
            .filter_map(|cell| Some(cell.searched.as_ref()?.report.clone()))
            .collect(),
        curves: curves(&group.samples),
        timeline: first.map(|cell| timeline(&cell.taken.samples)).unwrap_or_default(),
        batch_size: first.and_then(|cell| cell.played.stats.batch.as_ref()).map(|batch| Series {
            step_ms: ms(batch.width),
            values: batch.series.iter().map(|mean| rounded(*mean)).collect(),
        }),
        faults: group.cells.iter().flat_map(|cell| faults(cell)).collect(),
    }
}

fn faults(cell: &Cell) -> impl Iterator<Item = FaultEntry> {
    cell.played.stats.faults.iter().map(|fault| FaultEntry {
        repeat: cell.key.repeat,
        index: fault.index,
        action: fault.action.clone(),
        at_ms: rounded(ms(fault.at_ns)),
    })
}

/// The cells' requests, with the names they are written under.
fn records_of(prepared: &Prepared, cells: Vec<Cell>) -> Vec<CellRecords> {
    // What stands for a group has the requests of its workloads.
    let own = cells.into_iter().filter(|cell| prepared.plan.group(cell.key.workload).is_none());
    let named = own.map(|cell| CellRecords {
        workload: prepared.plan.workloads[cell.key.workload as usize].name.clone(),
        backend: prepared.backends[cell.key.backend as usize].name.clone(),
        repeat: cell.key.repeat,
        start_time: cell.start_time,
        end_time: cell.end_time,
        samples: cell.taken.samples,
        tokens: cell.taken.tokens.map(TokenLog::finish).unwrap_or_default(),
    });
    named.collect()
}

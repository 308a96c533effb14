//! From what other tools measured to a run: metrics under our definitions, judged by a scenario's rules.

mod cell;
mod evidence;

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::Value;

use self::cell::{Cell, Group, Judged};
use self::evidence::Told;
use super::assemble::{CellRecords, is_broken, rfc3339, verdict_of};
use super::baselines::{self, Baselines};
use super::conduct::CampaignError;
use super::folder::Folder;
use super::judging::{against_baseline, place_of};
use super::output;
use super::prepare::{Content, Rejected, Reports, incomparable, reports, rule_at};
use crate::backend::config::Clock;
use crate::gate::{
    Checked, Facts, Judgement, Planned, PlannedBackend, PlannedWorkload, Scope, ScopedRule, Side, check,
    judge, outcome, side,
};
use crate::import::{Imported, ImportedCell, Measured, Tool};
use crate::report::{BackendReport, Environment, RunReport, STANDARD, find, plain};
use crate::rule::Limit;
use crate::scenario::Loaded;

/// What a run is made from.
#[derive(Debug)]
pub struct Importing {
    /// The files with what they hold. Equal loads are repeats of each other.
    pub files: Vec<(PathBuf, Imported)>,
    /// The workload's name; else that of the scenario's only one, else the tool's.
    pub workload: Option<String>,
    /// The backend's name; else `imported`.
    pub backend: Option<String>,
    /// The scenario whose rules judge it.
    pub gates: Option<Loaded>,
    /// Let inconclusive rules fail.
    pub strict: bool,
    /// The command line, for the record.
    pub command: String,
}

/// A run that was imported.
#[derive(Debug)]
pub struct ImportedRun {
    /// The report.
    pub report: RunReport,
    /// The rules that judged it.
    pub rules: Vec<ScopedRule>,
    records: Vec<CellRecords>,
    reports: Reports,
}

impl ImportedRun {
    /// Writes everything that a run of our own has into a folder.
    pub fn write(&self, folder: &Folder) -> Result<(), CampaignError> {
        let contract = output::files(&self.report, Path::new(""));
        let first =
            output::write_run(folder, contract, &self.reports, Vec::new(), &self.records, &self.report);
        first.map_or(Ok(()), Err)
    }
}

/// Makes the run.
///
/// # Errors
/// The files do not go together, a rule can not be judged on them, or a template is wrong.
pub fn import_run(importing: &Importing) -> Result<ImportedRun, Rejected> {
    let tool = one_tool(&importing.files)?;
    let gates = importing.gates.as_ref();
    let families = families(gates);
    let base = match (&importing.workload, families.as_slice()) {
        (Some(name), _) => name.clone(),
        (None, [only]) => only.clone(),
        (None, _) => tool.name().to_owned(),
    };
    let groups = grouped(importing, &base)?;
    let backend = importing.backend.clone().unwrap_or_else(|| "imported".to_owned());
    let (checked, baselines) = match gates {
        Some(loaded) => rules(loaded, &planned(&groups, &backend), &families)?,
        None => (Checked { rules: Vec::new(), slos: IndexMap::new() }, Baselines::new()),
    };
    let cells: Vec<Cell<'_>> = groups
        .iter()
        .map(|group| {
            let judged = Judged {
                slo: checked.slos.get(&group.workload).map_or(&[], Vec::as_slice),
                validity: gates.map(|loaded| loaded.scenario.validity.clone()).unwrap_or_default(),
            };
            Cell::new(group, &backend, tool, &judged)
        })
        .collect();
    let judging = Judging { cells: &cells, baselines: &baselines, gates };
    let judgements = checked.rules.iter().flat_map(|rule| judging.rule(rule)).collect();
    let report = report(importing, tool, &backend, &cells, judgements, &checked.rules);
    let records = cells.into_iter().flat_map(Cell::into_records).collect();
    let reports = reports_of(gates).map_err(Rejected::Message)?;
    Ok(ImportedRun { report, rules: checked.rules, records, reports })
}

/// The standard reports, and those of the scenario.
fn reports_of(gates: Option<&Loaded>) -> Result<Reports, String> {
    if let Some(loaded) = gates {
        let texts =
            |errors: Vec<(usize, String)>| errors.into_iter().map(|(_, error)| error).collect::<Vec<_>>();
        return reports(&loaded.scenario, &loaded.dir).map_err(|errors| texts(errors).join("; "));
    }
    let standard = STANDARD.iter().map(|(out, name)| {
        let template = find(name, Path::new("")).map_err(|error| error.to_string())?;
        Ok((out.into(), Content::Template(template)))
    });
    standard.collect()
}

/// The names of the scenario's workloads, without their matrix points.
fn families(gates: Option<&Loaded>) -> Vec<String> {
    let families = gates.into_iter().flat_map(|loaded| loaded.families.values());
    let mut names: Vec<String> = families.map(|family| family.name.clone()).collect();
    names.dedup();
    names
}

fn one_tool(files: &[(PathBuf, Imported)]) -> Result<Tool, Rejected> {
    let Some((first, imported)) = files.first() else {
        return Err(Rejected::Message("there is no file to import".into()));
    };
    match files.iter().find(|(_, other)| other.tool != imported.tool) {
        None => Ok(imported.tool),
        Some((path, other)) => Err(Rejected::Message(format!(
            "{} is of {}, {} of {}; several files are repeats of one load, so import each tool's files on their own",
            first.display(),
            imported.tool.name(),
            path.display(),
            other.tool.name()
        ))),
    }
}

/// The loads of all files. What is the same in all of them names none; equal loads are repeats.
fn grouped(importing: &Importing, base: &str) -> Result<Vec<Group>, Rejected> {
    let all: Vec<&ImportedCell> = importing.files.iter().flat_map(|(_, imported)| &imported.cells).collect();
    let varies = |key: &str| all.iter().any(|cell| cell.point.get(key) != all[0].point.get(key));
    let mut names: Vec<&str> =
        all.iter().map(|cell| cell.name.as_str()).filter(|name| !name.is_empty()).collect();
    names.dedup();
    let mut groups: IndexMap<String, Group> = IndexMap::new();
    for cell in &all {
        let point = cell.point.iter().filter(|(key, _)| varies(key));
        let point: IndexMap<String, Value> = point.map(|(key, value)| (key.clone(), value.clone())).collect();
        // A single workload takes the name that is asked for.
        let is_named = !cell.name.is_empty() && (importing.workload.is_none() || names.len() > 1);
        let name = if is_named { cell.name.as_str() } else { base };
        let family = name.split('@').next().unwrap_or(name).to_owned();
        let parts: Vec<String> = point.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
        let workload =
            if parts.is_empty() { name.to_owned() } else { format!("{family}@{}", parts.join("+")) };
        let tags = importing.gates.as_ref().and_then(|loaded| loaded.scenario.workloads.get(&family));
        let tags = tags.map(|workload| workload.tags.clone()).unwrap_or_default();
        let new = || Group { workload: workload.clone(), family, point, tags, repeats: Vec::new() };
        groups.entry(workload.clone()).or_insert_with(new).repeats.push((*cell).clone());
    }
    let is_whole = |cell: &&ImportedCell| matches!(cell.measured, Measured::Requests(_));
    for group in groups.values() {
        let whole = group.repeats.iter().filter(is_whole).count();
        if whole > 0 && whole < group.repeats.len() {
            return Err(Rejected::Message(format!(
                "of `{}` some files have the requests one by one and others only statistics, which do not pool; import the one or the other",
                group.workload
            )));
        }
    }
    Ok(groups.into_values().collect())
}

/// What the rules are checked against. That a rule needs more samples than were taken is no mistake of the scenario here,
/// so their number is left out: such a rule is INCONCLUSIVE.
fn planned(groups: &[Group], backend: &str) -> Planned {
    let workloads = groups.iter().map(|group| PlannedWorkload {
        name: group.workload.clone(),
        tags: group.tags.clone(),
        sessions: group.has_sessions(),
        ..PlannedWorkload::default()
    });
    let backends = vec![PlannedBackend { name: backend.to_owned(), deterministic: false }];
    Planned { workloads: workloads.collect(), backends }
}

fn rules(loaded: &Loaded, planned: &Planned, families: &[String]) -> Result<(Checked, Baselines), Rejected> {
    let checked = check(&loaded.scenario, planned).map_err(|findings| {
        Rejected::at(loaded, findings.iter().map(|found| rule_at(loaded, found)).collect())
    })?;
    let written = checked.rules.iter().filter(|rule| rule.index.is_some());
    let is_judged = |rule: &&ScopedRule| !rule.scope.names().is_empty() && !rule.backends.is_empty();
    if written.clone().count() > 0 && !written.clone().any(|rule| is_judged(&rule)) {
        let names: Vec<&str> = planned.workloads.iter().map(|workload| workload.name.as_str()).collect();
        return Err(Rejected::Message(format!(
            "none of the scenario's rules is for `{}` on `{}`; its workloads are {}: say which one this is with --workload, and which of its backends with --backend",
            names.join("`, `"),
            planned.backends[0].name,
            families.join(", ")
        )));
    }
    let (baselines, problems) = baselines::load(&loaded.scenario, &checked, None, &loaded.dir);
    if problems.is_empty() { Ok((checked, baselines)) } else { Err(incomparable(loaded, &problems)) }
}

/// The rules over what was imported.
struct Judging<'a> {
    cells: &'a [Cell<'a>],
    baselines: &'a Baselines,
    gates: Option<&'a Loaded>,
}

impl Judging<'_> {
    fn rule(&self, rule: &ScopedRule) -> Vec<Judgement> {
        if rule.backends.is_empty() {
            return Vec::new();
        }
        let own: Vec<&Cell<'_>> =
            self.cells.iter().filter(|cell| rule.scope.names().contains(&cell.group.workload)).collect();
        match &rule.scope {
            Scope::Each(_) => own.iter().map(|cell| self.on(rule, &cell.group.workload, &[cell])).collect(),
            Scope::Pooled(_) if own.is_empty() => Vec::new(),
            Scope::Pooled(_) => vec![self.on(rule, "all", &own)],
        }
    }

    fn on(&self, rule: &ScopedRule, workload: &str, cells: &[&Cell<'_>]) -> Judgement {
        let backend = cells.first().map_or("", |cell| cell.backend);
        let mut case = rule.case(workload, backend);
        let theirs = match &rule.rule.limit {
            Limit::Number(_) => Err("nothing is referred to".to_owned()),
            Limit::Reference(reference) => match self.baselines.get(&reference.name) {
                Some(None) => {
                    case.no_data = crate::gate::config::NoData::Skip;
                    Err("the baseline does not exist yet".to_owned())
                }
                Some(Some(baseline)) => against_baseline(baseline, &rule.rule, workload, backend),
                None => self.other(rule, &reference.name),
            },
        };
        let mut judgement = judge(&case, &Told::of(cells), theirs.as_ref().map_err(String::as_str));
        judgement.suspended = cells.iter().any(|cell| !cell.validity.valid);
        judgement.place = self.gates.and_then(|loaded| place_of(loaded, rule));
        judgement
    }

    /// Another workload that was imported.
    fn other(&self, rule: &ScopedRule, name: &str) -> Result<Side, String> {
        let is_meant = |cell: &&Cell<'_>| cell.group.workload == name || cell.group.family == name;
        match self.cells.iter().filter(is_meant).collect::<Vec<_>>().as_slice() {
            [one] => side(&rule.rule, &Told::of(&[one])).map_err(|why| format!("`{name}`: {why}")),
            [] => Err(format!("`{name}` is not among what was imported")),
            _ => Err(format!("`{name}` was imported at several points")),
        }
    }
}

fn report(
    importing: &Importing,
    tool: Tool,
    backend: &str,
    cells: &[Cell<'_>],
    judgements: Vec<Judgement>,
    rules: &[ScopedRule],
) -> RunReport {
    let mut report = RunReport::new();
    let scenario = importing.gates.as_ref().map(|loaded| &loaded.scenario);
    report.name =
        scenario.and_then(|scenario| scenario.name.clone()).or_else(|| Some(tool.name().to_owned()));
    report.clock = Some(Clock::Real);
    report.simulated = Some(false);
    report.complete = Some(true);
    let files: Vec<String> = importing.files.iter().map(|(path, _)| path.display().to_string()).collect();
    let mut models = importing.files.iter().flat_map(|(_, imported)| &imported.cells);
    report.backends = vec![BackendReport {
        name: backend.to_owned(),
        kind: "imported".to_owned(),
        model: models.find_map(|cell| cell.model.clone()).unwrap_or_else(|| "unknown".to_owned()),
        server: None,
        details: [
            ("measured by".to_owned(), tool.name().to_owned()),
            ("imported from".to_owned(), files.join(", ")),
        ]
        .into(),
    }];
    report.cells = cells.iter().map(Cell::report).collect();
    report.warnings = unjudged(rules);
    let facts = Facts {
        judgements: &judgements,
        inconclusive: scenario.map(|scenario| scenario.gates.inconclusive).unwrap_or_default(),
        strict: importing.strict,
        invalid: cells.iter().filter(|cell| !cell.validity.valid).count(),
        broken: cells.iter().filter(|cell| is_broken(&cell.metrics)).count(),
        signal: None,
    };
    let code = outcome(&facts).code;
    report.judgements = judgements;
    report.conclude(verdict_of(code), code);
    report.environment = Environment {
        started_at: Some(rfc3339(std::time::SystemTime::now())),
        command: Some(importing.command.clone()),
        ..Environment::default()
    };
    report
}

/// What to say of rules that nothing imported is meant by.
fn unjudged(rules: &[ScopedRule]) -> Vec<String> {
    let idle = rules.iter().filter(|rule| rule.scope.names().is_empty() || rule.backends.is_empty());
    let texts: Vec<String> = idle.map(|rule| format!("`{}`", rule.text)).collect();
    if texts.is_empty() {
        return Vec::new();
    }
    vec![format!("not judged, since they are for other workloads or backends: {}", texts.join(", "))]
}

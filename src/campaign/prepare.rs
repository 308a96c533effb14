//! From a scenario's name to everything a run needs: read, changed by the command line, planned, its rules checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use super::baselines::{self, Problem};
use super::changes::{Changes, keep_only, make_smoke};
use super::fit::{not_for, too_long, too_small};
use super::folder::is_inside;
use super::shipped::{SHIPPED, Shipped};
use crate::backend::candle::Source;
use crate::backend::config::{Backend, Clock};
use crate::backend::mock;
use crate::gate::{Checked, Finding, Planned, PlannedBackend, PlannedWorkload, Site, check};
use crate::nearest::nearest;
use crate::plan::{Plan, PlanError, plan, table};
use crate::report::config::Export;
use crate::report::{Baseline, STANDARD, Template, find};
use crate::run::Pace;
use crate::scenario::{Diagnostic, Failed, Format, Loaded, Options, Scenario, load, load_text, read_file};
use crate::tokenizer::{Mock, Tokenizer};

/// A backend that will run.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// Its name in the scenario.
    pub name: String,
    /// Its settings.
    pub config: Backend,
    /// The model's files, for one that computes here.
    pub source: Option<Arc<Source>>,
}

impl Chosen {
    /// The clock it runs on.
    pub fn clock(&self) -> Clock {
        match &self.config {
            Backend::Mock(mock) => mock.clock,
            _ => Clock::Real,
        }
    }

    /// Modelled seconds in a second of the machine's clock, where it is scaled.
    pub fn speed(&self) -> Option<f64> {
        match self.pace() {
            Pace::Scaled(speed) => Some(speed),
            Pace::Virtual | Pace::Real => None,
        }
    }

    /// How time passes on it.
    pub fn pace(&self) -> Pace {
        match &self.config {
            Backend::Mock(mock) => match (mock.clock, mock.speed) {
                (Clock::Virtual, _) => Pace::Virtual,
                (Clock::Scaled, Some(speed)) => Pace::Scaled(speed),
                (Clock::Real | Clock::Scaled, _) => Pace::Real,
            },
            _ => Pace::Real,
        }
    }

    /// Whether this program starts it.
    pub fn is_launched(&self) -> bool {
        self.config.server().is_some_and(|(server, _)| !server.launch.is_empty())
    }

    /// The model it reports; of a server, the one that it is asked for.
    pub fn model(&self) -> &str {
        match &self.config {
            Backend::Mock(mock) => &mock.model,
            Backend::Candle(local) => &local.model,
            other => other.server().and_then(|(server, _)| server.model.as_deref()).unwrap_or("unknown"),
        }
    }
}

/// Reports to write: the file in the results folder, and what it is made of.
pub type Reports = Vec<(PathBuf, Content)>;

/// What a report is made of.
#[derive(Debug)]
pub enum Content {
    /// A template over the run.
    Template(Template),
    /// A format of another tool.
    Export(Export),
}

/// Everything a run needs.
#[derive(Debug)]
pub struct Prepared {
    /// The scenario's name.
    pub name: String,
    /// The scenario with the command line's changes.
    pub scenario: Scenario,
    /// The backends that will run, in order.
    pub backends: Vec<Chosen>,
    /// What prompts are made of and counted by.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// What will be played.
    pub plan: Plan,
    /// The parsed rules and SLOs.
    pub gates: Checked,
    /// The baselines by name; `None` for one that does not exist and may be missing.
    pub baselines: IndexMap<String, Option<Baseline>>,
    /// The standard reports and the scenario's own: where each goes, and its template.
    pub reports: Reports,
    /// Where texts stand; absent for a run of a plan file.
    pub loaded: Option<Loaded>,
}

/// Why nothing runs.
#[derive(Debug)]
pub enum Rejected {
    /// The scenario is wrong, at these places.
    Invalid(Box<Failed>),
    /// A baseline is of other work, at these places.
    NotComparable(Box<Failed>),
    /// Something else is, in one message.
    Message(String),
}

impl Prepared {
    /// Whether every backend runs on the virtual clock.
    pub fn is_virtual(&self) -> bool {
        self.backends.iter().all(|chosen| chosen.clock() == Clock::Virtual)
    }

    /// The folder that the scenario's relative paths start from.
    pub fn dir(&self) -> PathBuf {
        self.loaded.as_ref().map(|loaded| loaded.dir.clone()).unwrap_or_default()
    }
}

impl Rejected {
    pub(super) fn at(loaded: &Loaded, diagnostics: Vec<Diagnostic>) -> Self {
        let mut diagnostics = diagnostics;
        crate::scenario::sort(&mut diagnostics);
        Self::Invalid(Box::new(Failed { sources: loaded.sources.clone(), diagnostics }))
    }
}

/// Reads a scenario file, or the shipped scenario of that name where there is no such file. `set` are `PATH=VALUE`
/// arguments; `backend_chosen` says that the command line names the backends.
pub fn read(path: &Path, set: &[String], backend_chosen: bool) -> Result<Loaded, Failed> {
    let shipped = path.to_str().filter(|_| !path.is_file()).and_then(Shipped::named);
    let Some(shipped) = shipped else {
        let options = Options { backend_chosen, ..Options::process(set) };
        return load(path, &options).map_err(|failed| suggest_shipped(path, failed));
    };
    let read = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        SHIPPED
            .iter()
            .find(|shipped| shipped.file == name)
            .map_or_else(|| read_file(path), |shipped| Ok(shipped.text.as_bytes().to_vec()))
    };
    let options = Options { read: &read, backend_chosen, ..Options::process(set) };
    load_text(shipped.file, shipped.text, Format::Yaml, Path::new(""), &options)
}

/// A name without an ending that is no file was probably meant to be a shipped scenario.
fn suggest_shipped(path: &Path, mut failed: Failed) -> Failed {
    if path.extension().is_none() && !path.exists() {
        let names: Vec<&str> = SHIPPED.iter().map(Shipped::name).collect();
        if let Some(diagnostic) = failed.diagnostics.first_mut() {
            let near = path.to_str().and_then(|name| nearest(name, names.iter().copied()));
            diagnostic.help.extend(near.map(|near| format!("did you mean `{near}`?")));
            diagnostic.help.push(format!("scenarios that ship with the program: {}", names.join(", ")));
        }
    }
    failed
}

/// Reads, changes, plans and checks a scenario.
pub fn prepare(path: &Path, changes: &Changes) -> Result<Prepared, Rejected> {
    let mut set = changes.set.clone();
    set.extend(changes.seed.map(|seed| format!("seed={seed}")));
    let loaded = read(path, &set, !changes.backends.is_empty())
        .map_err(|failed| Rejected::Invalid(Box::new(failed)))?;
    complete(loaded, changes)
}

/// What follows once a scenario is read: everything that can be told before a run is told here.
pub fn complete(mut loaded: Loaded, changes: &Changes) -> Result<Prepared, Rejected> {
    let name = loaded.scenario.name.clone().unwrap_or_else(|| "scenario".to_owned());
    let mut backends = choose(&loaded.scenario, changes)?;
    let dir = loaded.dir.clone();
    let find = |chosen: &mut Chosen| find_source(chosen, &dir).err();
    let unusable: Vec<Diagnostic> = backends
        .iter_mut()
        .filter_map(|chosen| {
            let (path, message) = unusable(&loaded, chosen).or_else(|| find(chosen))?;
            let pointer = format!("/backends/{}{path}", escape(&chosen.name));
            // A model that the command line names stands nowhere in the file.
            let is_elsewhere = path == "/model" && changes.model.is_some();
            let span = if is_elsewhere { None } else { loaded.span_of(&pointer) };
            Some(Diagnostic::error(span, message))
        })
        .collect();
    if !unusable.is_empty() {
        return Err(Rejected::at(&loaded, unusable));
    }
    keep_only(&mut loaded, &changes.only)?;
    if changes.smoke {
        make_smoke(&mut loaded.scenario);
    }
    let families = loaded
        .families
        .iter()
        .map(|(full, family)| (full.clone(), (family.name.clone(), family.point.clone())));
    let tokenizer = tokenizer_of(&backends);
    let planned_or_not = plan(&loaded.scenario, &families.collect(), &loaded.dir, &*tokenizer);
    let plan = planned_or_not.map_err(|errors| {
        let diagnostics = errors.iter().map(|error| located(&mut loaded, error)).collect();
        Rejected::at(&loaded, diagnostics)
    })?;
    let unfit = too_long(&plan, &backends).into_iter().chain(not_for(&plan, &backends));
    let long = unfit.map(|(workload, message)| {
        let pointer = format!("/workloads/{}/prompt", escape(&workload));
        Diagnostic::error(loaded.span_of(&pointer), message)
    });
    let long: Vec<Diagnostic> = long.collect();
    if !long.is_empty() {
        return Err(Rejected::at(&loaded, long));
    }
    let small = too_small(&plan, &backends, loaded.scenario.gates.confidence);
    let small = small.into_iter().map(|(workload, message)| {
        let pointer = format!("/workloads/{}/load/probe", escape(&workload));
        let help = "raise `probe.duration` or the bottom of the range, lower `share`, or set `gates: { confidence: none }`";
        Diagnostic::error(loaded.span_of(&pointer), message).help(help.to_owned())
    });
    let small: Vec<Diagnostic> = small.collect();
    if !small.is_empty() {
        return Err(Rejected::at(&loaded, small));
    }
    let mut gates = check(&loaded.scenario, &planned(&plan, &backends))
        .map_err(|findings| Rejected::at(&loaded, findings.iter().map(|f| rule_at(&loaded, f)).collect()))?;
    if changes.smoke {
        gates.rules.clear();
    }
    let reports = reports(&loaded.scenario, &loaded.dir).map_err(|errors| {
        let at = |(index, message): (usize, String)| {
            Diagnostic::error(loaded.span_of(&format!("/reports/{index}")), message)
        };
        Rejected::at(&loaded, errors.into_iter().map(at).collect())
    })?;
    let (baselines, problems) = baselines::load(&loaded.scenario, &gates, Some(&plan), &loaded.dir);
    if !problems.is_empty() {
        return Err(incomparable(&loaded, &problems));
    }
    Ok(Prepared {
        name,
        scenario: loaded.scenario.clone(),
        backends,
        tokenizer,
        plan,
        gates,
        baselines,
        reports,
        loaded: Some(loaded),
    })
}

/// Prepares the run of a plan file. Its scenario says the backends and the gates; the recipes are those of the file.
pub fn prepare_plan(path: &Path, changes: &Changes) -> Result<Prepared, Rejected> {
    let message = |error: &dyn std::fmt::Display| Rejected::Message(error.to_string());
    let at = |error: &dyn std::fmt::Display| message(&format!("{}: {error}", path.display()));
    let open = || std::fs::File::open(path).map(std::io::BufReader::new).map_err(|error| at(&error));
    let header = crate::plan::read_header(open()?).map_err(|error| at(&error))?;
    let scenario: Scenario = serde_json::from_value(header.scenario)
        .map_err(|error| message(&format!("{}: the scenario in its first line: {error}", path.display())))?;
    let mut backends = choose(&scenario, changes)?;
    for chosen in &mut backends {
        find_source(chosen, Path::new(""))
            .map_err(|(_, error)| message(&format!("backend `{}`: {error}", chosen.name)))?;
    }
    // A plan that the mock's tokenizer counted is read with it on any backend: what is generated is as long by all.
    let is_mock = header.tokenizer == Mock.name();
    let tokenizer = if is_mock { Arc::new(Mock) } else { tokenizer_of(&backends) };
    let (_, mut plan) = crate::plan::read(open()?, &*tokenizer).map_err(|error| at(&error))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    crate::plan::expect(&mut plan, &scenario, folder, &*tokenizer).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        message(&format!("{}: {}", path.display(), lines.join("; ")))
    })?;
    let unfit = too_long(&plan, &backends).into_iter().chain(not_for(&plan, &backends)).next();
    if let Some((workload, error)) = unfit {
        return Err(message(&format!("{}: workload `{workload}`: {error}", path.display())));
    }
    let gates = check(&scenario, &planned(&plan, &backends)).map_err(|findings| {
        let lines: Vec<String> = findings.iter().map(|finding| finding.message.clone()).collect();
        message(&format!("{}: {}", path.display(), lines.join("; ")))
    })?;
    let reports = reports(&scenario, path.parent().unwrap_or(Path::new(""))).map_err(|errors| {
        message(&errors.into_iter().map(|(_, error)| error).collect::<Vec<_>>().join("; "))
    })?;
    let name = scenario.name.clone().unwrap_or_else(|| stem(path));
    let dir = path.parent().unwrap_or(Path::new(""));
    let (baselines, problems) = baselines::load(&scenario, &gates, Some(&plan), dir);
    if let Some(problem) = problems.into_iter().next() {
        return Err(message(&format!("{}: {}; {}", path.display(), problem.message, problem.help)));
    }
    Ok(Prepared { name, scenario, backends, tokenizer, plan, gates, baselines, reports, loaded: None })
}

/// The templates of the standard reports and of the scenario's own, found and compiled before anything runs. An error
/// carries the position in `reports`; one in a standard report's template stands at the first.
pub(super) fn reports(scenario: &Scenario, dir: &Path) -> Result<Reports, Vec<(usize, String)>> {
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for (out, template) in STANDARD {
        match find(template, dir).and_then(|template| template.check().map(|()| template)) {
            Ok(template) => found.push((out.into(), Content::Template(template))),
            Err(error) => errors.push((0, error.to_string())),
        }
    }
    for (index, report) in scenario.reports.iter().enumerate() {
        if !is_inside(&report.out) {
            let out = report.out.display();
            errors.push((
                index,
                format!("`{out}` is not inside the results folder; name a relative path without `..`"),
            ));
        }
        let template = match (&report.template, report.export) {
            (Some(template), None) => template,
            (None, Some(export)) => {
                found.push((report.out.clone(), Content::Export(export)));
                continue;
            }
            _ => {
                errors.push((index, "a report needs one of `template` and `export`".into()));
                continue;
            }
        };
        match find(template, dir).and_then(|template| template.check().map(|()| template)) {
            Ok(template) => found.push((report.out.clone(), Content::Template(template))),
            Err(error) => errors.push((index, error.to_string())),
        }
    }
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "scenario".into(), |stem| stem.to_string_lossy().into_owned())
}

/// The backends that run, with the command line's model and clock.
fn choose(scenario: &Scenario, changes: &Changes) -> Result<Vec<Chosen>, Rejected> {
    let names = if changes.backends.is_empty() {
        match &scenario.backend {
            Some(choice) => choice.0.clone(),
            None => scenario.backends.keys().take(1).cloned().collect(),
        }
    } else {
        changes.backends.clone()
    };
    names
        .into_iter()
        .map(|name| {
            let mut config = scenario.backends.get(&name).cloned().ok_or_else(|| {
                Rejected::Message(unknown("backend", &name, scenario.backends.keys().map(String::as_str)))
            })?;
            if let Backend::Mock(mock) = &mut config {
                mock.clock = changes.clock.unwrap_or(mock.clock);
                mock.model = changes.model.clone().unwrap_or_else(|| mock.model.clone());
            }
            if let Backend::Candle(local) = &mut config {
                if changes.clock == Some(Clock::Virtual) {
                    let message = format!(
                        "backend `{name}` computes a real model, which takes real time; only a mock can be played on the virtual clock"
                    );
                    return Err(Rejected::Message(message));
                }
                local.model = changes.model.clone().unwrap_or_else(|| local.model.clone());
            }
            if let Some(server) = config.server_mut() {
                if changes.clock == Some(Clock::Virtual) {
                    let message = format!(
                        "backend `{name}` is a server; only a mock can be played on the virtual clock"
                    );
                    return Err(Rejected::Message(message));
                }
                server.model = changes.model.clone().or_else(|| server.model.take());
            }
            Ok(Chosen { name, config, source: None })
        })
        .collect()
}

/// What keeps a backend from being built, told before anything runs: the path below the backend, and a message.
fn unusable(loaded: &Loaded, chosen: &Chosen) -> Option<(&'static str, String)> {
    let Backend::Mock(config) = &chosen.config else { return None };
    let error = mock::open(config, "", loaded.scenario.seed, &loaded.dir).err()?;
    Some(("", error.to_string()))
}

/// Finds the files of a model that is computed here.
fn find_source(chosen: &mut Chosen, dir: &Path) -> Result<(), (&'static str, String)> {
    if let Backend::Candle(config) = &chosen.config {
        let source = Source::find(config, dir).map_err(|error| ("/model", error.to_string()))?;
        chosen.source = Some(Arc::new(source));
    }
    Ok(())
}

/// What prompts are made of and counted by: the model's own tokenizer where all backends share one, else the mock's, which
/// is the same everywhere.
fn tokenizer_of(backends: &[Chosen]) -> Arc<dyn Tokenizer> {
    let own = |chosen: &Chosen| chosen.source.as_ref().map(|source| source.tokenizer.shared());
    let first = backends.first().and_then(own);
    let is_shared = |first: &Arc<dyn Tokenizer>| {
        backends.iter().all(|chosen| own(chosen).is_some_and(|other| other.name() == first.name()))
    };
    first.filter(is_shared).unwrap_or_else(|| Arc::new(Mock))
}

pub(super) fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let meant = nearest(name, known.iter().copied())
        .map(|near| format!("; did you mean `{near}`?"))
        .unwrap_or_default();
    format!(
        "no {what} `{name}` in the scenario{meant} (there {} {})",
        if known.len() == 1 { "is" } else { "are" },
        known.join(", ")
    )
}

/// What the gates need to know of the plan.
fn planned(plan: &Plan, backends: &[Chosen]) -> Planned {
    let workloads = plan.workloads.iter().zip(table(plan)).map(|(workload, row)| {
        let repeats = u64::from(workload.repeats);
        let requests = row.expected.measured.map(|n| n * repeats);
        PlannedWorkload {
            name: workload.name.clone(),
            tags: workload.tags.clone(),
            sessions: workload.is_sessions(),
            requests,
            gaps: requests.map(|n| (n as f64 * (row.output_tokens.mean - 1.0).max(0.0)) as u64),
            pooled: false,
            searches: workload.search.as_ref().map(|search| search.variable.metric()),
            checks: workload.checks.iter().flat_map(|checks| checks.names()).map(str::to_owned).collect(),
        }
    });
    let mut workloads: Vec<PlannedWorkload> = workloads.collect();
    let groups = plan.groups.iter().map(|group| {
        let members = || group.members.iter().map(|member| &workloads[member.workload]);
        PlannedWorkload {
            name: group.name.clone(),
            pooled: true,
            sessions: members().any(|member| member.sessions),
            requests: members().map(|member| member.requests).sum(),
            gaps: members().map(|member| member.gaps).sum(),
            ..PlannedWorkload::default()
        }
    });
    let groups: Vec<PlannedWorkload> = groups.collect();
    workloads.extend(groups);
    let backends = backends.iter().map(|chosen| PlannedBackend {
        name: chosen.name.clone(),
        deterministic: chosen.clock() == Clock::Virtual,
    });
    Planned { workloads, backends: backends.collect() }
}

/// Baselines that can not be used, at their places. That they are of other work is what is told by the exit code, where
/// nothing else is wrong.
pub(super) fn incomparable(loaded: &Loaded, problems: &[Problem]) -> Rejected {
    let mut diagnostics: Vec<Diagnostic> = problems
        .iter()
        .map(|problem| {
            let span = loaded.span_of(&format!("/baselines/{}/path", escape(&problem.baseline)));
            Diagnostic::error(span, problem.message.clone()).help(problem.help.clone())
        })
        .collect();
    crate::scenario::sort(&mut diagnostics);
    let failed = Box::new(Failed { sources: loaded.sources.clone(), diagnostics });
    if problems.iter().all(|problem| problem.is_other_work) {
        Rejected::NotComparable(failed)
    } else {
        Rejected::Invalid(failed)
    }
}

/// A plan's error at its place in the scenario.
fn located(loaded: &mut Loaded, error: &PlanError) -> Diagnostic {
    let steps = error.path.split('.').filter(|step| !step.is_empty());
    let own: String = steps.flat_map(|step| ["/".to_owned(), escape(step)]).collect();
    let workload = format!("/workloads/{}", escape(&error.workload));
    let mut pointer = format!("{workload}{own}");
    if own.starts_with("/hooks") && loaded.span_of(&pointer).is_none() {
        pointer.clone_from(&own);
    }
    // A key with a default may not be there: what it belongs to is.
    while loaded.span_of(&pointer).is_none()
        && let Some(up) = pointer.rfind('/')
    {
        pointer.truncate(up);
    }
    let mut span = loaded.span_of(&pointer);
    let mut related = None;
    if let Some((fault, at)) = error.fault.as_ref().and_then(|fault| Some((fault, fault.at?))) {
        let source = &fault.source;
        let file = (!source.inline).then_some((source.name.as_str(), source.text.as_str()));
        let hooks = [format!("{workload}/hooks/inline"), "/hooks/inline".to_owned()];
        let hooks = hooks.iter().find(|pointer| loaded.span_of(pointer).is_some()).unwrap_or(&pointer);
        let offset = source.offset;
        // An inline script that does not stand literally in the file has its fault at the whole text.
        if file.is_some() || offset.0 > 0 {
            if !own.starts_with("/hooks") {
                related = span;
            }
            span = loaded.script_span(file, hooks, (at.0 + offset.0, at.1 + offset.1)).or(span);
        }
    }
    let mut diagnostic = Diagnostic::error(span, error.message.clone());
    diagnostic.help.extend(Some(error.help.clone()).filter(|help| !help.is_empty()));
    if related.is_some() {
        diagnostic = diagnostic.related(related, "named here");
    }
    diagnostic
}

/// A rule's error at its place in the scenario.
pub(super) fn rule_at(loaded: &Loaded, finding: &Finding) -> Diagnostic {
    let span = match &finding.site {
        Site::Rule(index) => loaded.rule_span(*index, finding.at.clone()),
        Site::Slo(index) => loaded.text_span_of(&format!("/slo/{index}"), finding.at.clone()),
        Site::WorkloadSlo(name, index) => {
            loaded.text_span_of(&format!("/workloads/{}/slo/{index}", escape(name)), finding.at.clone())
        }
    };
    let mut diagnostic = Diagnostic::error(span, finding.message.clone());
    diagnostic.help.push(finding.help.clone());
    diagnostic
}

fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

/// Folders that do not clash for several scenarios of one command: by name, numbered where two are equal.
pub fn folders(output: &Path, prepared: &[Prepared]) -> Vec<PathBuf> {
    if prepared.len() == 1 {
        return vec![output.to_owned()];
    }
    let mut seen: IndexMap<String, u32> = IndexMap::new();
    prepared
        .iter()
        .map(|one| {
            let count = seen.entry(one.name.clone()).or_default();
            *count += 1;
            output.join(if *count == 1 { one.name.clone() } else { format!("{}-{count}", one.name) })
        })
        .collect()
}

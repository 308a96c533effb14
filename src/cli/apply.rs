//! `apply` and `run`: from scenario files to an exit code.

use std::path::{Path, PathBuf};

use super::args::{ApplyArgs, ContractWorkload, Results, RunArgs};
use super::error::CliError;
use super::progress::Shown;
use super::{documents, log, signals, terminal};
use crate::campaign::{
    Changes, Folder, Prepared, Rejected, Settings, conduct, folders, prepare, prepare_plan,
};
use crate::gate::config::NoData;
use crate::gate::{ScopedRule, Verdict, exit, explain};
use crate::report::{self, RunReport};
use crate::run::Stop;
use crate::scenario::render::{Render, render};
use crate::scenario::{Diagnostic, Loaded, Severity, Sources};

/// `run`: `apply`, with the contract's old names for its workloads.
pub fn run(args: &RunArgs) -> Result<u8, CliError> {
    let mut apply_args = ApplyArgs {
        files: args.files.clone(),
        changes: args.changes.clone(),
        results: args.results.clone(),
        plan: None,
        dry_run: false,
    };
    if let Some(workload) = args.workload {
        apply_args.files = vec![PathBuf::from("year1")];
        let only = match workload {
            ContractWorkload::Year1 => None,
            ContractWorkload::Short => Some("short_input"),
            ContractWorkload::Long => Some("long_input"),
            ContractWorkload::Stress => Some("stress_test"),
        };
        apply_args.changes.only.extend(only.map(str::to_owned));
    }
    apply(&apply_args)
}

/// `apply`: everything is checked before anything runs.
pub fn apply(args: &ApplyArgs) -> Result<u8, CliError> {
    log(args.results.voice.verbose);
    let changes = Changes::from(&args.changes);
    let mut prepared = Vec::new();
    let mut rejected = Vec::new();
    let sources = args.files.iter().map(|file| prepare(file, &changes));
    for result in sources.chain(args.plan.iter().map(|plan| prepare_plan(plan, &changes))) {
        match result {
            Ok(one) => prepared.push(one),
            Err(error) => rejected.push(error),
        }
    }
    report_all(rejected)?;
    warn(&prepared, args.results.voice.quiet);
    if args.dry_run {
        return documents::dry_run(&prepared);
    }
    play_all(&prepared, &args.results)
}

/// Plays scenarios one after another.
pub(super) fn play_all(prepared: &[Prepared], results: &Results) -> Result<u8, CliError> {
    let stop = Stop::default();
    signals::connect(&stop)?;
    let places = folders(&results.output, prepared);
    let mut codes = Vec::new();
    for (one, dir) in prepared.iter().zip(&places) {
        codes.push(play(one, dir, results, &stop)?);
        if stop.requested().is_some() {
            break;
        }
    }
    Ok(exit::strongest(codes))
}

/// All but the last are printed here; the last is the command's error.
fn report_all(mut rejected: Vec<Rejected>) -> Result<(), CliError> {
    let Some(last) = rejected.pop() else { return Ok(()) };
    for error in rejected {
        CliError::from(error).report();
    }
    Err(last.into())
}

fn warn(prepared: &[Prepared], quiet: bool) {
    if quiet {
        return;
    }
    let format = Render::Text { color: terminal::error_colour() };
    for loaded in prepared.iter().filter_map(|one| one.loaded.as_ref()) {
        if !loaded.warnings.is_empty() {
            terminal::say(render(&loaded.sources, &loaded.warnings, format).trim_end());
        }
    }
}

/// Plays one scenario and says what it came to.
fn play(prepared: &Prepared, dir: &Path, results: &Results, stop: &Stop) -> Result<u8, CliError> {
    let folder = Folder::open(dir)?;
    let mut shown = Shown::new(results.voice.quiet);
    let settings = Settings {
        folder: &folder,
        resume: results.resume,
        force: results.force,
        strict: results.strict,
        allow_exec: results.allow_exec,
        stop,
        command: &std::env::args().collect::<Vec<_>>().join(" "),
        threads: results.threads.map_or(0, |threads| threads.get().into()),
    };
    let conducted = conduct(prepared, &settings, &mut shown)?;
    let run = &conducted.report;
    let summary = report::render_standard(run, "summary.txt").map_err(|e| CliError::Input(e.to_string()))?;
    terminal::print(&painted(&summary))?;
    if !results.voice.quiet {
        terminal::say(&format!("results in {}", dir.display()));
    }
    let loaded = prepared.loaded.as_ref();
    let failures = failures(&prepared.gates.rules, loaded, run);
    show_failures(loaded, &failures);
    for_github(loaded, run, &failures)?;
    match conducted.problem {
        Some(problem) => Err(problem.into()),
        None => Ok(run.exit_code.unwrap_or(exit::BUG)),
    }
}

/// Verdict words in colour on a terminal.
pub(super) fn painted(text: &str) -> String {
    if !terminal::output_colour() {
        return text.to_owned();
    }
    let mut painted = text.to_owned();
    for (word, colour) in
        [("PASS", 32), ("FAIL", 31), ("INVALID", 31), ("ERROR", 31), ("NO_DATA", 31), ("INCONCLUSIVE", 33)]
    {
        painted = painted.replace(word, &format!("\u{1b}[1;{colour}m{word}\u{1b}[0m"));
    }
    painted
}

/// Each rule that did not pass at its own line in the scenario, with what was measured under the caret.
pub(super) fn failures(rules: &[ScopedRule], loaded: Option<&Loaded>, run: &RunReport) -> Vec<Diagnostic> {
    let not_passed = run.judgements.iter().filter(|judgement| judgement.verdict != Verdict::Pass);
    let diagnostics = not_passed.filter_map(|judgement| {
        let scoped = rules.iter().find(|rule| {
            let workload = judgement.workload == "all" || rule.scope.names().contains(&judgement.workload);
            rule.text == judgement.rule && workload && rule.backends.contains(&judgement.backend)
        });
        if judgement.verdict == Verdict::NoData && scoped.is_some_and(|rule| rule.no_data == NoData::Skip) {
            return None;
        }
        let span = loaded
            .zip(scoped.and_then(|rule| rule.index))
            .and_then(|(loaded, index)| loaded.rule_span(index, 0..judgement.rule.len()));
        let implicit = if judgement.implicit { " (implicit)" } else { "" };
        let what = format!(
            "{}: {}{implicit} for `{}` on `{}`",
            judgement.verdict, judgement.rule, judgement.workload, judgement.backend
        );
        let found = if judgement.decides && !judgement.suspended {
            Diagnostic::error(span, what)
        } else {
            Diagnostic::warning(span, what)
        };
        Some(if span.is_some() { found.label(explain(judgement)) } else { found.note(explain(judgement)) })
    });
    diagnostics.collect()
}

pub(super) fn show_failures(loaded: Option<&Loaded>, failures: &[Diagnostic]) {
    if !failures.is_empty() {
        let none = Sources::default();
        let sources = loaded.map_or(&none, |loaded| &loaded.sources);
        let text = render(sources, failures, Render::Text { color: terminal::error_colour() });
        terminal::say(text.trim_end());
    }
}

/// GitHub shows ten annotations of a kind per step.
const ANNOTATIONS: usize = 10;

/// At most ten of each kind; the last one says how many more there are.
fn annotated(failures: &[Diagnostic]) -> Vec<Diagnostic> {
    let mut shown = Vec::new();
    for severity in [Severity::Error, Severity::Warning] {
        let own: Vec<_> = failures.iter().filter(|one| one.severity == severity).cloned().collect();
        let fits = own.len() <= ANNOTATIONS;
        let count = if fits { own.len() } else { ANNOTATIONS - 1 };
        shown.extend(own.iter().take(count).cloned());
        if !fits {
            let more = format!("and {} more", own.len() - count);
            shown.push(Diagnostic { severity, ..Diagnostic::error(None, more) });
        }
    }
    shown
}

/// Annotations and the step summary of a GitHub workflow.
pub(super) fn for_github(
    loaded: Option<&Loaded>,
    run: &RunReport,
    failures: &[Diagnostic],
) -> Result<(), CliError> {
    if std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true") {
        let none = Sources::default();
        let sources = loaded.map_or(&none, |loaded| &loaded.sources);
        terminal::print(&render(sources, &annotated(failures), Render::Github))?;
    }
    let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let path = PathBuf::from(path);
    let text = report::render_standard(run, "step-summary.md").map_err(|e| CliError::Input(e.to_string()))?;
    let appended = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    appended.map_err(|source| CliError::Write { path, source })
}

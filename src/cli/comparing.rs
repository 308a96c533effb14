//! `compare` and `baseline`: runs beside runs.

use std::path::{Path, PathBuf};

use super::args::{BaselineArgs, BaselineCommand, CompareArgs, ComparisonFormat};
use super::error::CliError;
use super::terminal;
use crate::campaign::{Comparing, Named, compare, halves, write_whole};
use crate::gate::exit;
use crate::report::{self, Baseline, RunVerdict, read_baseline, render_comparison};

/// A baseline that grows beyond this is no longer a few numbers.
const LARGE: usize = 100_000;

fn input(error: &dyn std::fmt::Display) -> CliError {
    CliError::Input(error.to_string())
}

/// Reads what is compared. Its name in tables is the path as it was written.
fn named(path: &Path) -> Result<Named, CliError> {
    let run = read_baseline(path).map_err(|error| input(&error))?;
    Ok(Named { name: path.display().to_string(), run })
}

/// `compare`: runs against a base.
pub fn comparison(args: &CompareArgs) -> Result<u8, CliError> {
    let mut base = named(&args.base)?;
    let mut runs = args.runs.iter().map(|path| named(path)).collect::<Result<Vec<Named>, CliError>>()?;
    if args.noise {
        let [odd, even] = halves(&base).map_err(|error| input(&error))?;
        (base, runs) = (odd, vec![even]);
    }
    let comparing = Comparing {
        allow: args.allow,
        confidence: args.confidence,
        metrics: args.metrics.clone(),
        allow_single_run: args.allow_single_run,
        strict: args.strict,
    };
    let comparison = compare(&base, &runs, &comparing).map_err(|error| input(&error))?;
    let with = |name: &str| {
        let template = report::find(name, Path::new(""));
        template.and_then(|template| render_comparison(&comparison, &template)).map_err(|error| input(&error))
    };
    let text = match args.format {
        ComparisonFormat::Table => with("compare.txt")?,
        ComparisonFormat::Markdown => with("compare.md")?,
        ComparisonFormat::Json => {
            let json = serde_json::to_string_pretty(&comparison).map_err(|error| input(&error))?;
            format!("{json}\n")
        }
    };
    match &args.out {
        Some(out) => write_whole(out, text.as_bytes())?,
        None => terminal::print(&text)?,
    }
    Ok(comparison.exit_code)
}

/// `baseline save`: a run's numbers in a small file.
pub fn baseline(args: &BaselineArgs) -> Result<u8, CliError> {
    let BaselineCommand::Save { name, run, out, force } = &args.command;
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
    if name.is_empty() || !name.chars().all(legal) {
        let message =
            format!("`{name}` is no name; it is made of lower-case letters, digits, `_`, `.` and `-`");
        return Err(CliError::Input(message));
    }
    let report = report::read(run).map_err(|error| input(&error))?;
    let baseline = Baseline::of(&report);
    let doubt = match report.verdict {
        _ if report.complete == Some(false) => Some("it is incomplete".to_owned()),
        Some(RunVerdict::Pass | RunVerdict::Inconclusive) | None => {
            let unfit = baseline.cells.iter().find_map(|cell| Some((cell, cell.unfit.as_ref()?)));
            unfit.map(|(cell, why)| format!("of `{}`, {why}", cell.workload))
        }
        Some(verdict) => Some(format!("its verdict is {}", verdict.word())),
    };
    if let Some(doubt) = doubt.filter(|_| !force) {
        let message =
            format!("{} is no standard for later runs: {doubt}; --force saves it anyway", run.display());
        return Err(CliError::Input(message));
    }
    let path = out.clone().unwrap_or_else(|| PathBuf::from("baselines").join(format!("{name}.json")));
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)
            .map_err(|source| CliError::Write { path: parent.to_owned(), source })?;
    }
    let json = serde_json::to_string(&baseline).map_err(|error| input(&error))?;
    write_whole(&path, format!("{json}\n").as_bytes())?;
    if json.len() > LARGE {
        terminal::say(&format!(
            "note: the baseline is {} kB large; fewer matrix points make it smaller",
            json.len() / 1000
        ));
    }
    terminal::print(&format!("saved {}\n", path.display()))?;
    Ok(exit::PASS)
}

//! The commands that run nothing: they check, print or write texts.

use std::fmt::Write as _;
use std::path::Path;

use clap::CommandFactory;

use super::args::{
    Changes as ChangeArgs, Cli, DiagnosticFormat, PlanArgs, ReportArgs, ReportFormat, SchemaArgs, SchemaName,
    ValidateArgs,
};
use super::error::CliError;
use super::terminal;
use crate::campaign::{Changes, Prepared, Rejected, prepare, write_whole};
use crate::gate::exit;
use crate::plan;
use crate::report::{self, Dialect, RunReport};
use crate::scenario::{
    Diagnostic, Sources, editor_schema,
    render::{Render, render, render_json},
};
use crate::units::Duration;

impl From<&ChangeArgs> for Changes {
    fn from(args: &ChangeArgs) -> Self {
        Self {
            set: args.set.clone(),
            backends: args.backend.clone(),
            model: args.model.clone(),
            only: args.only.clone(),
            seed: args.seed,
            clock: args.clock.map(Into::into),
            smoke: args.smoke,
        }
    }
}

/// `validate`: every error of every file.
pub fn validate(args: &ValidateArgs) -> Result<u8, CliError> {
    let changes = Changes { set: args.set.clone(), ..Changes::default() };
    let mut found: Vec<(Sources, Vec<Diagnostic>)> = Vec::new();
    let mut wrong = 0;
    for file in &args.files {
        match prepare(file, &changes) {
            Ok(prepared) => {
                if let Some(loaded) = prepared.loaded {
                    found.push((loaded.sources, loaded.warnings));
                }
            }
            Err(Rejected::Invalid(failed) | Rejected::NotComparable(failed)) => {
                wrong += 1;
                found.push((failed.sources, failed.diagnostics));
            }
            Err(Rejected::Message(message)) => {
                wrong += 1;
                let message = format!("{}: {message}", file.display());
                found.push((Sources::default(), vec![Diagnostic::error(None, message)]));
            }
        }
    }
    let groups: Vec<(&Sources, &[Diagnostic])> = found.iter().map(|(s, d)| (s, d.as_slice())).collect();
    let each =
        |format| groups.iter().map(|(sources, found)| render(sources, found, format)).collect::<String>();
    terminal::print(&match args.format {
        DiagnosticFormat::Text => each(Render::Text { color: terminal::output_colour() }),
        DiagnosticFormat::Github => each(Render::Github),
        DiagnosticFormat::Json => render_json(&groups),
    })?;
    if args.format == DiagnosticFormat::Text {
        let files = args.files.len();
        let noun = if files == 1 { "file" } else { "files" };
        terminal::say(&if wrong == 0 {
            format!("{files} {noun} valid")
        } else {
            format!("{wrong} of {files} {noun} can not be used")
        });
    }
    Ok(if wrong == 0 { exit::PASS } else { exit::USAGE })
}

/// `plan`: the expanded plan, printed or written.
pub fn plan(args: &PlanArgs) -> Result<u8, CliError> {
    let prepared = prepare(&args.file, &Changes::from(&args.changes))?;
    if let Some(out) = &args.out {
        let mut text = Vec::new();
        plan::write(&prepared.plan, resolved(&prepared)?, prepared.tokenizer.name(), &mut text)
            .map_err(|error| CliError::Input(error.to_string()))?;
        write_whole(out, &text)?;
        terminal::say(&format!("{} written", out.display()));
    } else if let Some(count) = args.prompts {
        terminal::print(&prompts(&prepared, count))?;
    } else {
        terminal::print(&plan_table(&prepared))?;
    }
    Ok(exit::PASS)
}

/// The scenario with everything resolved, as a plan file carries it.
fn resolved(prepared: &Prepared) -> Result<serde_json::Value, CliError> {
    let mut scenario = prepared.scenario.clone();
    scenario.name = Some(prepared.name.clone());
    for chosen in &prepared.backends {
        scenario.backends.insert(chosen.name.clone(), chosen.config.clone());
    }
    scenario.backend =
        Some(crate::scenario::BackendChoice(prepared.backends.iter().map(|b| b.name.clone()).collect()));
    serde_json::to_value(&scenario).map_err(|error| CliError::Input(error.to_string()))
}

/// The first prompts of each workload as they would be sent.
fn prompts(prepared: &Prepared, count: usize) -> String {
    let mut out = String::new();
    for workload in &prepared.plan.workloads {
        for recipe in workload.stream(0).take(count) {
            let text = plan::text(&recipe, &*prepared.tokenizer);
            let tokens = recipe.prompt.tokens();
            let _ = writeln!(out, "--- {} #{}: {tokens} tokens\n{text}", workload.name, recipe.index);
        }
    }
    out
}

/// The plan as a table.
pub fn plan_table(prepared: &Prepared) -> String {
    let mut out = format!(
        "{}: seed {}, schedule {}, content {}\n",
        prepared.name, prepared.plan.seed, prepared.plan.schedule_digest, prepared.plan.content_digest
    );
    let rows = plan::table(&prepared.plan);
    let groups = prepared.plan.groups.iter().map(|group| group.name.chars().count());
    let width = rows
        .iter()
        .map(|row| row.workload.chars().count())
        .chain(groups)
        .max()
        .unwrap_or(0)
        .max("workload".len());
    let line = |cells: [&str; 7]| {
        let [workload, requests, warmup, prompt, output, duration, load] = cells;
        format!(
            "{workload:<width$}  {requests:>9}  {warmup:>7}  {prompt:>18}  {output:>18}  {duration:>9}  {load}\n"
        )
    };
    let heads = ["workload", "requests", "warm-up", "prompt tokens", "output tokens", "duration", "load"];
    out.push_str(&line(heads));
    for row in &rows {
        let count = |n: Option<u64>| n.map_or_else(|| "by time".into(), |n| n.to_string());
        let times = if row.repeats > 1 { format!(" x{}", row.repeats) } else { String::new() };
        let duration = row.expected.duration.map_or_else(|| "-".into(), |ns| Duration(ns).to_string());
        out.push_str(&line([
            &row.workload,
            &format!("{}{times}", count(row.expected.measured)),
            &count(row.expected.warmup),
            &spread(&row.prompt_tokens),
            &spread(&row.output_tokens),
            &duration,
            &row.load,
        ]));
        if row.skipped_rows > 0 {
            let _ = writeln!(
                out,
                "{:width$}  {} rows of the trace are left out as too long",
                "", row.skipped_rows
            );
        }
    }
    for group in &prepared.plan.groups {
        let _ = writeln!(out, "{:<width$}  {}", group.name, group.words(&prepared.plan.workloads));
    }
    out
}

/// `128`, or `16 .. 503.2 .. 2048`: the least, the mean and the most.
fn spread(spread: &plan::Spread) -> String {
    if spread.min == spread.max {
        spread.min.to_string()
    } else {
        format!("{} .. {:.1} .. {}", spread.min, spread.mean, spread.max)
    }
}

/// `report`: a finished run through a template.
pub fn report(args: &ReportArgs) -> Result<u8, CliError> {
    let input = |error: &dyn std::fmt::Display| CliError::Input(error.to_string());
    let path = args.run.as_deref().or(args.input.as_deref()).unwrap_or(Path::new("."));
    let run = report::read(path).map_err(|error| input(&error))?;
    if let Some(choice) = args.dialect {
        return dialect(choice.into(), args, path, &run);
    }
    let text = match &args.template {
        Some(template) => {
            report::find(template, Path::new("")).and_then(|template| report::render(&run, &template))
        }
        None => match args.format {
            ReportFormat::Table => report::render_standard(&run, "table.txt"),
            ReportFormat::Markdown => report::render_standard(&run, "report.md"),
            ReportFormat::Html => report::render_standard(&run, "report.html"),
            ReportFormat::Junit => report::render_standard(&run, "junit.xml"),
            ReportFormat::Json => Ok(String::from_utf8_lossy(&report::run_json(&run).bytes).into_owned()),
        },
    }
    .map_err(|error| input(&error))?;
    match &args.out {
        Some(out) => write_whole(out, text.as_bytes())?,
        None => terminal::print(&text)?,
    }
    Ok(exit::PASS)
}

/// `report --dialect`: the requests of a run under another tool's definitions.
fn dialect(dialect: Dialect, args: &ReportArgs, path: &Path, run: &RunReport) -> Result<u8, CliError> {
    let input = |error: &dyn std::fmt::Display| CliError::Input(error.to_string());
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let told = dialect.translate(run, folder).map_err(|error| input(&error))?;
    let with = |name: &str| {
        let template = report::find(name, Path::new(""));
        template
            .and_then(|template| report::render_translation(&told, &template))
            .map_err(|error| input(&error))
    };
    let text = match args.format {
        ReportFormat::Table => with("dialect.txt")?,
        ReportFormat::Markdown => with("dialect.md")?,
        ReportFormat::Json => {
            let json = serde_json::to_string_pretty(&told).map_err(|error| input(&error))?;
            format!("{json}\n")
        }
        ReportFormat::Html | ReportFormat::Junit => {
            return Err(input(&"a dialect is told as --format table, markdown or json"));
        }
    };
    match &args.out {
        Some(out) => write_whole(out, text.as_bytes())?,
        None => terminal::print(&text)?,
    }
    Ok(exit::PASS)
}

/// `schema`: a JSON Schema on standard output.
pub fn schema(args: &SchemaArgs) -> Result<u8, CliError> {
    let schema = match args.name {
        SchemaName::Scenario => editor_schema(),
        SchemaName::Run => report::run_schema().to_value(),
        SchemaName::Metrics => crate::measure::metrics_schema().to_value(),
    };
    terminal::print(&format!("{schema:#}\n"))?;
    Ok(exit::PASS)
}

/// `completions`: a script for a shell.
pub fn completions(shell: clap_complete::Shell) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sagebench", &mut script);
    terminal::print(&String::from_utf8_lossy(&script))?;
    Ok(exit::PASS)
}

/// `man`: the manual page.
pub fn man() -> Result<u8, CliError> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    terminal::print(&String::from_utf8_lossy(&page))?;
    Ok(exit::PASS)
}

/// `apply --dry-run`: the plans, one after another.
pub fn dry_run(prepared: &[Prepared]) -> Result<u8, CliError> {
    for one in prepared {
        terminal::print(&plan_table(one))?;
    }
    Ok(exit::PASS)
}

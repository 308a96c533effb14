//! `import`: result files of other tools become a run, judged where rules are given.

use std::path::Path;

use super::apply::{failures, for_github, painted, show_failures};
use super::args::ImportArgs;
use super::error::CliError;
use super::terminal;
use crate::campaign::{Folder, Importing, Rejected, import_run, read, write_whole};
use crate::gate::exit;
use crate::import::command::scenario;
use crate::import::{Tool, import};
use crate::report;
use crate::scenario::{Format, Loaded, Options, load_text};

/// `import`: reads, judges, writes and says what it came to.
pub fn run(args: &ImportArgs) -> Result<u8, CliError> {
    let input = |error: &dyn std::fmt::Display| CliError::Input(error.to_string());
    let tool = args.format.as_deref().map(Tool::named).transpose().map_err(|error| input(&error))?;
    for (name, what) in [(&args.workload, "workload"), (&args.backend, "backend")] {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-@=+".contains(c);
        if let Some(name) = name.as_ref().filter(|name| name.is_empty() || !name.chars().all(legal)) {
            let message = format!(
                "`{name}` is no name of a {what}; it is made of lower-case letters, digits, `_`, `.` and `-`"
            );
            return Err(CliError::Input(message));
        }
    }
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for path in &args.files {
        match import(path, tool) {
            Ok(imported) => files.push((path.clone(), imported)),
            Err(problem) => problems.push(problem.to_string()),
        }
    }
    if !problems.is_empty() {
        return Err(CliError::Input(problems.join("\nerror: ")));
    }
    let name = args.workload.as_deref().or(files.first().map(|(_, imported)| imported.tool.name()));
    let name = name.and_then(|name| name.split('@').next()).unwrap_or("imported");
    let importing = Importing {
        files,
        workload: args.workload.clone(),
        backend: args.backend.clone(),
        gates: gates(args, name)?,
        strict: args.strict,
        command: std::env::args().collect::<Vec<_>>().join(" "),
    };
    let run = import_run(&importing)?;
    let folder = Folder::open(&args.output)?;
    folder.make_room(args.force)?;
    run.write(&folder)?;
    let summary = report::render_standard(&run.report, "summary.txt").map_err(|error| input(&error))?;
    terminal::print(&painted(&summary))?;
    terminal::say(&format!("results in {}", args.output.display()));
    let loaded = importing.gates.as_ref();
    let failures = failures(&run.rules, loaded, &run.report);
    show_failures(loaded, &failures);
    for_github(loaded, &run.report, &failures)?;
    Ok(run.report.exit_code.unwrap_or(exit::BUG))
}

/// The scenario that judges: the one that is named, or one made of the rules on the command line.
fn gates(args: &ImportArgs, workload: &str) -> Result<Option<Loaded>, CliError> {
    let rejected = |failed| CliError::from(Rejected::Invalid(Box::new(failed)));
    if let Some(path) = &args.gates {
        return read(path, &[], true).map(Some).map_err(rejected);
    }
    if args.rules.is_empty() && args.slo.is_empty() {
        return Ok(None);
    }
    let list = |key: &str, texts: &[String]| {
        let items = texts.iter().map(|text| serde_json::Value::from(text.as_str()));
        items.fold(key.to_owned(), |list, item| [list.as_str(), &item.to_string()].join("\n    - ")) + "\n"
    };
    let given = [("gates:\n  rules:", &args.rules), ("slo:", &args.slo)];
    let given = given.into_iter().filter(|(_, texts)| !texts.is_empty());
    let rules: String = given.map(|(key, texts)| list(key, texts)).collect();
    let options = Options { backend_chosen: true, ..Options::process(&[]) };
    // What is never played: rules need a scenario to stand in.
    let text = format!(
        "{rules}version: 1
name: import
backends: {{ imported: {{ kind: mock, ttft: 1ms, tbt: 1ms }} }}
workloads:
  {workload}: {{ prompt: {{ kind: synthetic, tokens: 1 }}, output: {{ tokens: 1 }}, load: {{ kind: closed, concurrency: 1, requests: 1 }} }}
"
    );
    let loaded = load_text("command line", &text, Format::Yaml, Path::new(""), &options).map_err(rejected)?;
    Ok(Some(loaded))
}

/// `init --from`: a scenario from another tool's command line.
pub fn init_from(line: &str, out: &Path, force: bool) -> Result<u8, CliError> {
    if out.exists() && !force {
        let message =
            format!("{} exists already; --force replaces it, --out names another file", out.display());
        return Err(CliError::Input(message));
    }
    let made = scenario(line).map_err(CliError::Input)?;
    if Format::of(out) == Format::Toml {
        let message =
            format!("{} would be TOML; --from writes YAML, so name a file that ends in .yaml", out.display());
        return Err(CliError::Input(message));
    }
    write_whole(out, made.text.as_bytes())?;
    for flag in &made.unknown {
        terminal::say(&format!("warning: {flag} is not known; it stands in a comment of the scenario"));
    }
    let out = out.display();
    terminal::say(&format!(
        "{out} written; `sagebench validate {out}` checks it, `sagebench apply {out}` runs it"
    ));
    Ok(exit::PASS)
}

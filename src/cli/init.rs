//! `init`: a commented scenario to start from.

use std::path::Path;

use super::args::{InitArgs, Purpose};
use super::error::CliError;
use super::terminal;
use crate::campaign::write_whole;
use crate::gate::exit;

/// The trace that the scenario for traces replays, written beside it.
const TRACE: (&str, &str) = ("trace.jsonl", include_str!("starters/trace.jsonl"));

fn starter(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Chat => include_str!("starters/chat.yaml"),
        Purpose::Rag => include_str!("starters/rag.yaml"),
        Purpose::Batch => include_str!("starters/batch.yaml"),
        Purpose::CiGate => include_str!("starters/ci-gate.yaml"),
        Purpose::Trace => include_str!("starters/trace.yaml"),
        Purpose::Sweep => include_str!("starters/sweep.yaml"),
        Purpose::Server => include_str!("starters/server.yaml"),
    }
}

/// Writes the scenario, and what it needs beside it. Nothing is replaced without `--force`.
pub fn init(args: &InitArgs) -> Result<u8, CliError> {
    if let Some(line) = &args.from {
        return super::import::init_from(line, &args.out, args.force);
    }
    let is_toml = args.out.extension().is_some_and(|extension| extension == "toml");
    let text = match args.purpose {
        None if is_toml => include_str!("starters/scenario.toml"),
        None => include_str!("starters/scenario.yaml"),
        Some(_) if is_toml => {
            let message =
                "the scenarios for a purpose are YAML; let --out end in .yaml, or leave the purpose out";
            return Err(CliError::Input(message.into()));
        }
        Some(purpose) => starter(purpose),
    };
    let mut files = vec![(args.out.clone(), text)];
    if args.purpose == Some(Purpose::Trace) {
        files.push((args.out.parent().unwrap_or(Path::new("")).join(TRACE.0), TRACE.1));
    }
    if let Some((file, _)) = files.iter().find(|(file, _)| file.exists() && !args.force) {
        return Err(CliError::Input(format!(
            "{} exists already; --force replaces it, --out names another file",
            file.display()
        )));
    }
    for (file, text) in &files {
        write_whole(file, text.as_bytes())?;
    }
    let names: Vec<String> = files.iter().map(|(file, _)| file.display().to_string()).collect();
    terminal::say(&format!("{} written; `sagebench apply {}` runs it", names.join(" and "), names[0]));
    Ok(exit::PASS)
}

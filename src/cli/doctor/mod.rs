//! `doctor`: whether this machine can measure, and what a server does.

mod client;
mod machine;
mod server;

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::args::{DoctorArgs, DoctorFormat};
use super::error::CliError;
use super::{log, terminal};
use crate::campaign::{Rejected, Shipped};
use crate::gate::exit;
use crate::report::columns;

/// One line of what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: &'static str,
    found: String,
    /// How it stands with it.
    mark: Mark,
    /// What to do about it, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Mark {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// In the way of a measurement.
    Bad,
}

impl Finding {
    fn new(what: &'static str, found: impl Into<String>, mark: Mark) -> Self {
        Self { what, found: found.into(), mark, advice: None }
    }

    fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// What was looked at, and what was found.
#[derive(Debug, Serialize)]
struct Diagnosis {
    /// This machine, or a server.
    subject: String,
    findings: Vec<Finding>,
    /// A `backends` map that fits the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
}

/// Looks at this machine, or at a server or the servers of a scenario. Exit code 5 where something is in the way of a
/// measurement.
pub fn doctor(args: &DoctorArgs) -> Result<u8, CliError> {
    log(args.voice.verbose);
    let diagnoses = match args.target.as_deref() {
        None => vec![machine::look()],
        Some(target) if target.contains("://") => vec![server::look_at_url(target, args)?],
        Some(target) if Path::new(target).exists() || Shipped::named(target).is_some() => {
            server::look_at_scenario(Path::new(target), args)?
        }
        Some(target) => {
            let message = format!(
                "`{target}` is neither a file nor a URL; write `http://127.0.0.1:8000/v1`, a scenario, or nothing for this machine"
            );
            return Err(Rejected::Message(message).into());
        }
    };
    match args.format {
        DoctorFormat::Table => {
            let texts: Vec<String> = diagnoses.iter().map(table).collect();
            terminal::print(&texts.join("\n"))?;
        }
        DoctorFormat::Json => {
            let text = serde_json::to_string_pretty(&diagnoses).unwrap_or_default();
            terminal::print(&format!("{text}\n"))?;
        }
    }
    let is_bad = diagnoses.iter().flat_map(|diagnosis| &diagnosis.findings).any(|one| one.mark == Mark::Bad);
    Ok(if is_bad { exit::INVALID } else { exit::PASS })
}

fn table(diagnosis: &Diagnosis) -> String {
    let mut rows = String::new();
    for Finding { what, found, mark, .. } in &diagnosis.findings {
        let sign = match mark {
            Mark::Good => "ok",
            Mark::Note => "note",
            Mark::Bad => "BAD",
        };
        let _ = writeln!(rows, "{sign} ¦ {what} ¦ {found}");
    }
    let mut text = format!("{}\n\n{}", diagnosis.subject, columns(&rows));
    let advice = diagnosis.findings.iter().filter_map(|one| Some((one.what, one.advice.as_ref()?)));
    for (at, (what, advice)) in advice.enumerate() {
        let gap = if at == 0 { "\n" } else { "" };
        let _ = writeln!(text, "{gap}- {what}: {advice}");
    }
    if let Some(backend) = &diagnosis.backend {
        let _ = write!(text, "\n{backend}");
    }
    text
}

//! Reading a report back.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use super::{CellReport, Overall, RUN_VERSION, RunReport, RunVerdict, sweeps};
use crate::gate::Judgement;
use crate::measure::Flat;

/// Why a report could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("can not read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The folder holds no report.
    #[error("{} holds neither run.json nor benchmark_summary.json; name the folder that `apply --output` wrote", .0.display())]
    NoReport(PathBuf),
    /// It is no JSON, or JSON of another shape.
    #[error("{}: {problem}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads a run folder, a `run.json`, or a summary of the shape `{"workloads": {...}, "overall": {...}}`.
///
/// A summary says little: what it does not say is absent from the report, not invented.
pub fn read(path: &Path) -> Result<RunReport, ReadError> {
    let file = if path.is_dir() {
        ["run.json", "benchmark_summary.json"]
            .iter()
            .map(|name| path.join(name))
            .find(|file| file.is_file())
            .ok_or_else(|| ReadError::NoReport(path.to_owned()))?
    } else {
        path.to_owned()
    };
    let bytes = std::fs::read(&file).map_err(|source| ReadError::Io { path: file.clone(), source })?;
    let shape = |problem: String| ReadError::Shape { path: file.clone(), problem };
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| shape(format!("no JSON: {error}")))?;
    if !value.is_object() {
        return Err(shape("neither a run.json nor a benchmark_summary.json: it is no JSON object".into()));
    }
    if value.get("cells").is_some() {
        let version = value.get("schema_version").and_then(Value::as_u64);
        if version != Some(u64::from(RUN_VERSION)) {
            let found = version.map_or_else(|| "none".into(), |version| version.to_string());
            return Err(shape(format!(
                "its schema_version is {found}, this program reads {RUN_VERSION}; use the version of sagebench that wrote it"
            )));
        }
        return serde_path_to_error::deserialize(value)
            .map_err(|error| shape(format!("no run report, at `{}`: {}", error.path(), error.inner())));
    }
    let summary: Summary = serde_path_to_error::deserialize(value).map_err(|error| {
        shape(format!(
            "neither a run.json nor a benchmark_summary.json, at `{}`: {}",
            error.path(),
            error.inner()
        ))
    })?;
    Ok(summary.into_report())
}

/// What is read of a summary; other keys are left alone.
#[derive(Deserialize)]
struct Summary {
    workloads: IndexMap<String, Flat>,
    #[serde(default)]
    overall: Flat,
    #[serde(default)]
    gates: Vec<Judgement>,
    #[serde(default)]
    run: SummaryRun,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SummaryRun {
    generator: Option<String>,
    name: Option<String>,
    clock: Option<crate::backend::config::Clock>,
    seed: Option<u64>,
    schedule_digest: Option<String>,
    content_digest: Option<String>,
    complete: Option<bool>,
    verdict: Option<RunVerdict>,
    exit_code: Option<u8>,
}

impl Summary {
    fn into_report(self) -> RunReport {
        let cells: Vec<CellReport> =
            self.workloads.into_iter().map(|(name, metrics)| cell(name, metrics)).collect();
        let own = Overall::of(&cells, self.overall.get("passed").and_then(Value::as_bool));
        let whole = |key: &str| self.overall.get(key).and_then(Value::as_u64);
        let number = |key: &str| self.overall.get(key).and_then(Value::as_f64);
        let overall = Overall {
            total_workloads: whole("total_workloads").unwrap_or(own.total_workloads),
            total_requests: whole("total_requests").or(own.total_requests),
            successful_requests: whole("successful_requests").or(own.successful_requests),
            failed_requests: whole("failed_requests").or(own.failed_requests),
            error_rate: number("error_rate").or(own.error_rate),
            total_time_s: number("total_time_s").or(own.total_time_s),
            passed: own.passed,
        };
        let run = self.run;
        RunReport {
            generator: run.generator,
            name: run.name,
            clock: run.clock,
            simulated: run.clock.map(|clock| clock == crate::backend::config::Clock::Virtual),
            complete: run.complete,
            seed: run.seed,
            schedule_digest: run.schedule_digest,
            content_digest: run.content_digest,
            verdict: run.verdict,
            exit_code: run.exit_code,
            sweeps: sweeps(&cells, &self.gates),
            cells,
            judgements: self.gates,
            overall,
            ..RunReport::unknown()
        }
    }
}

fn cell(name: String, metrics: Flat) -> CellReport {
    CellReport {
        family: name.split('@').next().unwrap_or(&name).to_owned(),
        backend: metrics.get("backend").and_then(Value::as_str).map(str::to_owned),
        workload: name,
        metrics,
        ..CellReport::default()
    }
}

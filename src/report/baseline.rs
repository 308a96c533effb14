//! What of a run is kept to compare later runs with: a few numbers for each repeat, and no requests.

use std::path::Path;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::read::{ReadError, read};
use super::{CellReport, RunReport, RunVerdict};
use crate::backend::config::Clock;
use crate::measure::Host;
use crate::metric::judged_names;

/// The version of baseline files.
pub const BASELINE_VERSION: u32 = 1;

/// A run in few numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// The version of this format.
    pub baseline_version: u32,
    /// The program that wrote it, with its version.
    pub generator: Option<String>,
    /// The scenario's name.
    pub scenario: Option<String>,
    /// The clock of the run.
    pub clock: Option<Clock>,
    /// Hash over all workloads: what two runs must share to be comparable as a whole.
    pub schedule_digest: Option<String>,
    /// Prompt sources, generator version and tokenizer.
    pub content_digest: Option<String>,
    /// The machine, in a few words.
    pub host: Option<String>,
    /// The workloads on each backend.
    pub cells: Vec<BaselineCell>,
}

/// One workload on one backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BaselineCell {
    /// The workload's full name.
    pub workload: String,
    /// The backend's name.
    pub backend: Option<String>,
    /// What two runs of this workload must share to be comparable.
    pub schedule_digest: Option<String>,
    /// Why its numbers are no standard for others; `None` when they are.
    pub unfit: Option<String>,
    /// Each metric by its flat name, once for each repeat; `null` where a repeat has no value.
    pub metrics: IndexMap<String, Vec<Option<f64>>>,
    /// Bounds on the true value of a statistic, each wrong with 5 % probability, as far as one run tells.
    pub intervals: IndexMap<String, [f64; 2]>,
}

/// Reads a baseline: the file that `baseline save` wrote, a run folder, a `run.json`, or a bare summary.
pub fn read_baseline(path: &Path) -> Result<Baseline, ReadError> {
    if !path.is_dir() {
        let bytes = std::fs::read(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        let shape = |problem: String| ReadError::Shape { path: path.to_owned(), problem };
        let value: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|error| shape(format!("no JSON: {error}")))?;
        if let Some(version) = value.get("baseline_version") {
            if version.as_u64() != Some(u64::from(BASELINE_VERSION)) {
                return Err(shape(format!(
                    "its baseline_version is {version}, this program reads {BASELINE_VERSION}; save it again"
                )));
            }
            return serde_path_to_error::deserialize(value)
                .map_err(|error| shape(format!("no baseline, at `{}`: {}", error.path(), error.inner())));
        }
    }
    read(path).map(|report| Baseline::of(&report))
}

impl Baseline {
    /// What is kept of a run.
    pub fn of(report: &RunReport) -> Self {
        Self {
            baseline_version: BASELINE_VERSION,
            generator: report.generator.clone(),
            scenario: report.name.clone(),
            clock: report.clock,
            schedule_digest: report.schedule_digest.clone(),
            content_digest: report.content_digest.clone(),
            host: report.environment.host.as_ref().and_then(host),
            cells: report.cells.iter().map(|cell| BaselineCell::of(report, cell)).collect(),
        }
    }

    /// Whether the same plan gives the same numbers again.
    pub fn is_exact(&self) -> bool {
        self.clock == Some(Clock::Virtual)
    }

    /// The cell of a workload on a backend; where the backend has another name here, the only cell of that workload.
    pub fn cell(&self, workload: &str, backend: Option<&str>) -> Option<&BaselineCell> {
        let of_workload = || self.cells.iter().filter(|cell| cell.workload == workload);
        let named = of_workload().find(|cell| cell.backend.as_deref() == backend);
        named.or_else(|| of_workload().next().filter(|_| of_workload().count() == 1))
    }
}

impl BaselineCell {
    fn of(report: &RunReport, cell: &CellReport) -> Self {
        let repeats =
            if cell.repeats.is_empty() { vec![&cell.metrics] } else { cell.repeats.iter().collect() };
        let of = |name: &str| -> Vec<Option<f64>> {
            repeats.iter().map(|flat| flat.get(name).and_then(serde_json::Value::as_f64)).collect()
        };
        let metrics: IndexMap<String, Vec<Option<f64>>> = judged_names()
            .map(|(name, _)| (name.clone(), of(&name)))
            .filter(|(_, values)| values.iter().any(Option::is_some))
            .collect();
        // Of several repeats only how they differ is asked.
        let intervals = if repeats.len() > 1 { IndexMap::new() } else { cell.intervals.clone() };
        Self {
            workload: cell.workload.clone(),
            backend: cell.backend.clone(),
            schedule_digest: cell.schedule_digest.clone(),
            unfit: unfit(report, cell),
            metrics,
            intervals,
        }
    }

    /// The values of a statistic in each repeat, all of them or none.
    pub fn values(&self, name: &str) -> Option<Vec<f64>> {
        self.metrics.get(name)?.iter().copied().collect()
    }
}

/// `AMD EPYC 7B13, 2 cores, 24 GiB, Linux`.
fn host(host: &Host) -> Option<String> {
    let parts = [
        host.cpu.clone(),
        host.cores.map(|cores| format!("{cores} cores")),
        host.memory_mb.map(|memory| format!("{} GiB", memory.div_ceil(1024))),
        host.os.clone(),
    ];
    let known: Vec<String> = parts.into_iter().flatten().collect();
    (!known.is_empty()).then(|| known.join(", "))
}

/// Why nobody should be measured by this cell.
fn unfit(report: &RunReport, cell: &CellReport) -> Option<String> {
    match cell.verdict(&report.judgements) {
        Some(RunVerdict::Error) => Some("not one request succeeded".to_owned()),
        Some(RunVerdict::Invalid) => Some("its measurement is INVALID".to_owned()),
        _ if cell.number("total_requests") == Some(0.0) => Some("nothing was measured".to_owned()),
        _ if report.complete == Some(false) => Some("its run is incomplete".to_owned()),
        _ => None,
    }
}

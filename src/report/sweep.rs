//! The table of a workload with a matrix.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CellReport, RunVerdict};
use crate::gate::{Judgement, Verdict};

/// All points of one workload on one backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// The workload's name in the scenario.
    pub workload: String,
    /// The backend's name.
    pub backend: Option<String>,
    /// The names of the coordinates, in the order of the axes.
    pub axes: Vec<String>,
    /// The points, in the order they were played.
    pub rows: Vec<SweepRow>,
    /// The full name of the best point that passes: the highest output throughput among those whose verdict is PASS,
    /// the first of equals. `None` when none passes.
    pub best: Option<String>,
}

/// One point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepRow {
    /// The point's full name.
    pub workload: String,
    /// Its coordinates.
    pub point: IndexMap<String, Value>,
    /// Successful requests per second.
    pub request_rate_rps: Option<f64>,
    /// Output tokens per second.
    pub output_throughput_tps: Option<f64>,
    /// Median time to first token.
    pub p50_ttft_ms: Option<f64>,
    /// Its 95th percentile.
    pub p95_ttft_ms: Option<f64>,
    /// Its 99th percentile.
    pub p99_ttft_ms: Option<f64>,
    /// Median time per output token.
    pub p50_tpot_ms: Option<f64>,
    /// Its 99th percentile.
    pub p99_tpot_ms: Option<f64>,
    /// Successful requests per second that met the SLO.
    #[serde(default)]
    pub goodput_rps: Option<f64>,
    /// Share of requests that met the SLO.
    pub slo_share: Option<f64>,
    /// What the point comes to, rules that only warn included; `None` when no rule was judged for it.
    pub verdict: Option<RunVerdict>,
}

/// The tables of all workloads that have a matrix, in the order they were played.
pub fn sweeps(cells: &[CellReport], judgements: &[Judgement]) -> Vec<Sweep> {
    let mut sweeps: Vec<Sweep> = Vec::new();
    for cell in cells.iter().filter(|cell| !cell.point.is_empty()) {
        let known =
            sweeps.iter().position(|sweep| sweep.workload == cell.family && sweep.backend == cell.backend);
        let at = known.unwrap_or_else(|| {
            sweeps.push(Sweep {
                workload: cell.family.clone(),
                backend: cell.backend.clone(),
                axes: Vec::new(),
                rows: Vec::new(),
                best: None,
            });
            sweeps.len() - 1
        });
        for axis in cell.point.keys() {
            if !sweeps[at].axes.contains(axis) {
                sweeps[at].axes.push(axis.clone());
            }
        }
        sweeps[at].rows.push(row(cell, judgements));
    }
    for sweep in &mut sweeps {
        sweep.best = best(&sweep.rows);
    }
    sweeps
}

fn row(cell: &CellReport, judgements: &[Judgement]) -> SweepRow {
    SweepRow {
        workload: cell.workload.clone(),
        point: cell.point.clone(),
        request_rate_rps: cell.number("request_rate_rps"),
        output_throughput_tps: cell.number("output_throughput_tps"),
        p50_ttft_ms: cell.number("p50_ttft_ms"),
        p95_ttft_ms: cell.number("p95_ttft_ms"),
        p99_ttft_ms: cell.number("p99_ttft_ms"),
        p50_tpot_ms: cell.number("p50_tpot_ms"),
        p99_tpot_ms: cell.number("p99_tpot_ms"),
        goodput_rps: cell.number("goodput_rps"),
        slo_share: cell.number("slo_share"),
        verdict: point_verdict(cell, judgements),
    }
}

/// What a point comes to. Rules that only warn count here: a sweep looks for the points that keep to all of them, and
/// does not fail for those that do not.
fn point_verdict(cell: &CellReport, judgements: &[Judgement]) -> Option<RunVerdict> {
    let verdict = cell.verdict(judgements);
    let breaks = judgements.iter().any(|own| cell.is_of(own) && own.verdict == Verdict::Fail);
    if breaks && verdict == Some(RunVerdict::Pass) { Some(RunVerdict::Fail) } else { verdict }
}

fn best(rows: &[SweepRow]) -> Option<String> {
    let mut best: Option<(&SweepRow, f64)> = None;
    for row in rows.iter().filter(|row| row.verdict == Some(RunVerdict::Pass)) {
        let Some(throughput) = row.output_throughput_tps else { continue };
        if best.is_none_or(|(_, highest)| throughput > highest) {
            best = Some((row, throughput));
        }
    }
    best.map(|(row, _)| row.workload.clone())
}

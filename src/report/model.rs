//! The report model.

use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sweep::{Sweep, sweeps};
use crate::backend::config::Clock;
use crate::gate::{Judgement, Verdict};
use crate::measure::{CheckReport, Curves, ErrorCount, Flat, Host, ResourceUse, Timeline, Validity};
use crate::plan::config::Variable;

/// The version of `run.json`.
pub const RUN_VERSION: u32 = 1;

/// Everything that a run came to. `run.json` is this, serialised.
///
/// An option that is `None` is not known (a predecessor's summary says little) or does not apply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunReport {
    /// The version of this format.
    pub schema_version: u32,
    /// The program that wrote it, with its version.
    pub generator: Option<String>,
    /// The scenario's name.
    pub name: Option<String>,
    /// What the scenario is for.
    pub description: Option<String>,
    /// Which clock the run was played on; with several backends, the clock of the first.
    pub clock: Option<Clock>,
    /// On a scaled clock, modelled seconds in a second of the machine's. Every time and rate is modelled time; only
    /// `start_time` and `end_time` are the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_speed: Option<f64>,
    /// Whether everything was simulated, on the virtual clock.
    #[serde(rename = "virtual")]
    pub simulated: Option<bool>,
    /// Whether everything that was planned was measured.
    pub complete: Option<bool>,
    /// Why not: which signal, which abort rule.
    pub interruption: Option<String>,
    /// Whether a rule with `abort_on_fail` ended the run. Such a run is finished, though not complete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped_early: bool,
    /// The seed of the plan.
    pub seed: Option<u64>,
    /// What two runs must share to be comparable.
    pub schedule_digest: Option<String>,
    /// Prompt sources, generator version and tokenizer.
    pub content_digest: Option<String>,
    /// What the run comes to.
    pub verdict: Option<RunVerdict>,
    /// The process's exit code.
    pub exit_code: Option<u8>,
    /// The backends, in the order they were played.
    pub backends: Vec<BackendReport>,
    /// What was measured, one cell for each workload, backend and matrix point, in the order they were played.
    pub cells: Vec<CellReport>,
    /// The rules, judged.
    pub judgements: Vec<Judgement>,
    /// Totals over all cells.
    pub overall: Overall,
    /// A table for each workload with a matrix.
    pub sweeps: Vec<Sweep>,
    /// What to know before trusting the run as a whole.
    pub warnings: Vec<String>,
    /// The stretches in which the run was played: more than one after a resume.
    pub segments: Vec<Segment>,
    /// The files beside this one that belong to the run, relative to its folder.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    /// What can not repeat: the machine, own memory, wall times.
    pub environment: Environment,
}

/// What a run as a whole comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunVerdict {
    /// No rule that decides is violated.
    Pass,
    /// A rule that decides is violated.
    Fail,
    /// The samples are too few to tell.
    Inconclusive,
    /// The measurement can not be trusted.
    Invalid,
    /// It could not be run.
    Error,
    /// It was interrupted.
    Interrupted,
}

impl RunVerdict {
    /// The word that stands in every output.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::Invalid => "INVALID",
            Self::Error => "ERROR",
            Self::Interrupted => "INTERRUPTED",
        }
    }
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendReport {
    /// Its name in the scenario.
    pub name: String,
    /// Its kind, such as `mock`.
    pub kind: String,
    /// The model it answered with.
    pub model: String,
    /// What the server said it is; absent for what runs in this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<crate::backend::openai::Identity>,
    /// What else is known of it, in order: name to text.
    #[serde(default)]
    pub details: IndexMap<String, String>,
}

/// One workload at one matrix point on one backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CellReport {
    /// The workload's full name, such as `chat@concurrency=4`.
    pub workload: String,
    /// Its name in the scenario, `chat`.
    pub family: String,
    /// The backend's name; `None` when a summary does not say.
    pub backend: Option<String>,
    /// The matrix point; empty without a matrix.
    pub point: IndexMap<String, Value>,
    /// What the workload is for.
    pub description: Option<String>,
    /// The load in a few words, such as `closed, concurrency 10, 10 requests`.
    pub load: Option<String>,
    /// The group that it was played in, beside other workloads.
    #[serde(default)]
    pub group: Option<String>,
    /// Of what stands for a group: its workloads, whose requests are pooled here and counted there.
    #[serde(default)]
    pub members: Vec<String>,
    /// What two runs of this workload must share to be comparable.
    pub schedule_digest: Option<String>,
    /// The metrics of all repeats pooled: the flat object of the workload's result file.
    pub metrics: Flat,
    /// The metrics of each repeat, when there are several.
    pub repeats: Vec<Flat>,
    /// Bounds on the true value of a statistic by its flat name, each of the two wrong with 5 % probability: order
    /// statistics for quantiles, batch means for means, Clopper and Pearson's for shares, t over repeats where there are
    /// three or more. Empty on the virtual clock, where nothing varies.
    #[serde(default)]
    pub intervals: IndexMap<String, [f64; 2]>,
    /// The verdict on the measurement.
    pub validity: Option<Validity>,
    /// Failures by kind, each with a sample message.
    pub errors: Vec<ErrorCount>,
    /// What is expected of responses, and how many met it.
    #[serde(default)]
    pub checks: Vec<CheckReport>,
    /// Quantile curves.
    pub curves: Curves,
    /// The search for its capacity, of each repeat; empty where it does not search.
    #[serde(default)]
    pub searches: Vec<SearchReport>,
    /// The first requests over time (of the first repeat).
    pub timeline: Timeline,
    /// Requests that the engine computed at once, over time (of the first repeat); `None` where the backend does not tell.
    #[serde(default)]
    pub batch_size: Option<Series>,
    /// Faults that were injected, in order.
    pub faults: Vec<FaultEntry>,
}

/// How a search for capacity went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchReport {
    /// What was looked for. Levels are requests per second, or users.
    pub variable: Variable,
    /// The share of requests that must keep the SLO.
    pub share: f64,
    /// The relative gap between `lo` and `hi` that was aimed at.
    pub tolerance: f64,
    /// The highest level that passed; `None` when none did.
    pub lo: Option<f64>,
    /// The lowest level above it that did not; `None` when none was met.
    pub hi: Option<f64>,
    /// Whether `lo` passed again with draws of its own.
    pub confirmed: bool,
    /// How it ended, in a sentence.
    pub ending: String,
    /// Everything that was tried, in order.
    pub probes: Vec<ProbeReport>,
}

/// One probe of a search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeReport {
    /// Requests per second, or users.
    pub level: f64,
    /// Why it was played.
    pub purpose: Purpose,
    /// How long requests that count were sent, in seconds: the time of one probe, or a multiple where it was extended.
    pub duration_s: f64,
    /// Requests that were counted.
    pub requests: u64,
    /// The share of them that kept the SLO.
    pub slo_share: Option<f64>,
    /// Median time to first token.
    pub p50_ttft_ms: Option<f64>,
    /// Its 99th percentile.
    pub p99_ttft_ms: Option<f64>,
    /// 99th percentile of the time per output token.
    pub p99_tpot_ms: Option<f64>,
    /// What it comes to.
    pub verdict: Verdict,
    /// What needs saying about that.
    #[serde(default)]
    pub note: Option<String>,
}

/// Why a probe of a search is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To find a level that fails.
    Double,
    /// To narrow the gap.
    Bisect,
    /// To see what was found once more.
    Confirm,
}

/// A number over time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// How long each stretch is, in milliseconds; the last one may be shorter.
    pub step_ms: f64,
    /// The mean in successive stretches since measuring started.
    pub values: Vec<f64>,
}

/// One injected fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultEntry {
    /// The repeat, from 0.
    pub repeat: u32,
    /// The number in the plan of the request that it hit; `None` when it struck the engine as a whole.
    pub index: Option<u64>,
    /// The action's kind, such as `http_status`.
    pub action: String,
    /// When it struck, in milliseconds since the cell's T0.
    pub at_ms: f64,
}

/// Totals over all cells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Overall {
    /// How many workloads (cells) there are.
    pub total_workloads: u64,
    /// Successful plus failed requests.
    pub total_requests: Option<u64>,
    /// Requests answered completely.
    pub successful_requests: Option<u64>,
    /// Requests that failed.
    pub failed_requests: Option<u64>,
    /// Failed divided by total requests.
    pub error_rate: Option<f64>,
    /// The measured seconds of all cells added up.
    pub total_time_s: Option<f64>,
    /// Whether the run passes; `None` when no verdict is known.
    pub passed: Option<bool>,
}

/// One stretch of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// When it began, Unix seconds; 0 on the virtual clock.
    pub start_time: f64,
    /// How many requests ended in it.
    pub requests: u64,
    /// Why it ended before everything was done.
    pub ended_by: Option<String>,
}

/// What can not repeat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// The machine.
    pub host: Option<Host>,
    /// What this process used.
    pub own: Option<ResourceUse>,
    /// What the threads that send and stamp got of the machine, in the worst cell; `None` where the system does not tell.
    #[serde(default)]
    pub client: Option<crate::run::ProcessorUse>,
    /// When the command started, RFC 3339.
    pub started_at: Option<String>,
    /// How long the command took, in seconds.
    pub wall_s: Option<f64>,
    /// The command line.
    pub command: Option<String>,
}

impl RunReport {
    /// An empty report of this program, to be filled.
    pub fn new() -> Self {
        Self {
            schema_version: RUN_VERSION,
            generator: Some(concat!("sagebench ", env!("CARGO_PKG_VERSION")).into()),
            ..Self::unknown()
        }
    }

    /// A report in which nothing is known.
    pub(super) fn unknown() -> Self {
        Self {
            schema_version: RUN_VERSION,
            generator: None,
            name: None,
            description: None,
            clock: None,
            clock_speed: None,
            simulated: None,
            complete: None,
            interruption: None,
            stopped_early: false,
            seed: None,
            schedule_digest: None,
            content_digest: None,
            verdict: None,
            exit_code: None,
            backends: Vec::new(),
            cells: Vec::new(),
            judgements: Vec::new(),
            overall: Overall::default(),
            sweeps: Vec::new(),
            warnings: Vec::new(),
            segments: Vec::new(),
            files: Vec::new(),
            environment: Environment::default(),
        }
    }

    /// Sets the verdict and the exit code, and computes `overall` and `sweeps` from the cells and judgements.
    pub fn conclude(&mut self, verdict: RunVerdict, exit_code: u8) {
        self.verdict = Some(verdict);
        self.exit_code = Some(exit_code);
        self.overall = Overall::of(&self.cells, Some(exit_code == 0));
        self.sweeps = sweeps(&self.cells, &self.judgements);
    }

    /// The part that concerns one backend, under the verdict that its own rules come to.
    #[must_use]
    pub fn only(&self, backend: &str, verdict: RunVerdict, exit_code: u8) -> Self {
        let mut part = self.clone();
        part.backends.retain(|own| own.name == backend);
        part.cells.retain(|cell| cell.backend.as_deref() == Some(backend));
        part.judgements.retain(|judgement| judgement.backend == backend);
        part.conclude(verdict, exit_code);
        part
    }

    /// The judgements of one cell.
    pub fn judged<'a>(&'a self, cell: &'a CellReport) -> impl Iterator<Item = &'a Judgement> {
        self.judgements.iter().filter(|judgement| cell.is_of(judgement))
    }
}

impl Default for RunReport {
    fn default() -> Self {
        Self::new()
    }
}

impl Overall {
    /// Adds the cells up. A total that one cell does not know is not known.
    pub fn of(cells: &[CellReport], passed: Option<bool>) -> Self {
        // A group's requests are those of its workloads, and its time is what passed.
        let own = || cells.iter().filter(|cell| cell.members.is_empty());
        let alone = cells.iter().filter(|cell| cell.group.is_none());
        let count = |name: &str| own().map(|cell| cell.metrics.get(name)?.as_u64()).sum::<Option<u64>>();
        let (total, failed) = (count("total_requests"), count("failed_requests"));
        let time = alone.map(|cell| cell.number("total_time_s")).sum::<Option<f64>>();
        Self {
            total_workloads: own().count() as u64,
            total_requests: total,
            successful_requests: count("successful_requests"),
            failed_requests: failed,
            error_rate: total
                .zip(failed)
                .filter(|(total, _)| *total > 0)
                .map(|(total, failed)| crate::measure::rounded(failed as f64 / total as f64)),
            total_time_s: time.map(crate::measure::rounded),
            passed,
        }
    }
}

impl CellReport {
    /// A metric as a number; `None` when it is null, absent or no number.
    pub fn number(&self, flat: &str) -> Option<f64> {
        self.metrics.get(flat)?.as_f64()
    }

    /// Whether a judgement is about this cell.
    pub fn is_of(&self, judgement: &Judgement) -> bool {
        judgement.workload == self.workload && self.backend.as_deref() == Some(judgement.backend.as_str())
    }

    /// What this cell comes to; `None` when no rule was judged for it.
    pub fn verdict(&self, judgements: &[Judgement]) -> Option<RunVerdict> {
        if self.validity.as_ref().is_some_and(|validity| !validity.valid) {
            return Some(RunVerdict::Invalid);
        }
        if self.number("total_requests").is_some_and(|n| n > 0.0)
            && self.number("successful_requests") == Some(0.0)
        {
            return Some(RunVerdict::Error);
        }
        let own: Vec<&Judgement> = judgements.iter().filter(|judgement| self.is_of(judgement)).collect();
        let violated = |j: &&Judgement| j.decides && matches!(j.verdict, Verdict::Fail | Verdict::NoData);
        if own.is_empty() {
            None
        } else if own.iter().any(violated) {
            Some(RunVerdict::Fail)
        } else if own.iter().any(|j| j.decides && j.verdict == Verdict::Inconclusive) {
            Some(RunVerdict::Inconclusive)
        } else {
            Some(RunVerdict::Pass)
        }
    }
}

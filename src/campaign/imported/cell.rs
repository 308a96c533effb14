//! One imported load under our definitions.

use std::collections::HashSet;

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::evidence::Told;
use crate::backend::EngineStats;
use crate::backend::config::Clock;
use crate::campaign::assemble::CellRecords;
use crate::campaign::judging::bounds;
use crate::gate::config::ValidityRules;
use crate::import::{ImportedCell, Measured, Requests, Summary, Tool};
use crate::measure::{
    CellInput, METRICS_VERSION, Metrics, Reason, Samples, Setting, Type, Validity, curves, errors, fields,
    metrics, rounded, timeline, validity,
};
use crate::metric::{KEPT, Kind, Metric};
use crate::plan::config::Tags;
use crate::record::Phase;
use crate::report::CellReport;
use crate::rule::Condition;
use crate::run::{Ending, Played};
use crate::units::seconds;

/// A load with its repeats.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) workload: String,
    pub(super) family: String,
    pub(super) point: IndexMap<String, Value>,
    pub(super) tags: Tags,
    pub(super) repeats: Vec<ImportedCell>,
}

/// What a scenario adds to what was measured.
pub(super) struct Judged<'a> {
    pub(super) slo: &'a [Condition],
    pub(super) validity: ValidityRules,
}

/// A load under our definitions.
pub(super) struct Cell<'a> {
    pub(super) group: &'a Group,
    pub(super) backend: &'a str,
    /// The requests of all repeats; `None` where there are only statistics.
    pub(super) samples: Option<Samples>,
    pub(super) each: Vec<Samples>,
    pub(super) metrics: Metrics,
    /// The metrics of each repeat, where there are several.
    pub(super) repeats: Vec<Metrics>,
    /// Metrics that are not known of each request, and why.
    pub(super) unknown: IndexMap<&'static str, String>,
    pub(super) validity: Validity,
    pub(super) slo: &'a [Condition],
}

/// Fields of which the file of another tool can not speak.
const NOT_OURS: [&str; 6] = [
    "avg_asked_tokens",
    "length_mismatches",
    "trace_rows_skipped",
    "seed",
    "skipped_requests",
    "warmup_requests",
];

impl Group {
    fn requests(&self) -> impl Iterator<Item = &Requests> {
        self.repeats.iter().filter_map(|cell| match &cell.measured {
            Measured::Requests(requests) => Some(requests),
            Measured::Summary(_) => None,
        })
    }

    pub(super) fn has_sessions(&self) -> bool {
        self.requests().flat_map(|requests| &requests.records).any(|(record, _)| record.session.is_some())
    }

    fn model(&self) -> &str {
        self.repeats.iter().find_map(|cell| cell.model.as_deref()).unwrap_or("unknown")
    }

    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.repeats.iter().flat_map(|cell| cell.notes.clone()).collect();
        notes.dedup();
        notes
    }
}

impl<'a> Cell<'a> {
    pub(super) fn new(group: &'a Group, backend: &'a str, tool: Tool, judged: &Judged<'a>) -> Self {
        let summaries: Vec<&Summary> = group
            .repeats
            .iter()
            .filter_map(|cell| match &cell.measured {
                Measured::Summary(summary) => Some(summary),
                Measured::Requests(_) => None,
            })
            .collect();
        if summaries.is_empty() {
            Self::of_requests(group, backend, tool, judged)
        } else {
            Self::of_statistics(group, backend, tool, &summaries, judged)
        }
    }

    fn of_requests(group: &'a Group, backend: &'a str, tool: Tool, judged: &Judged<'a>) -> Self {
        let sampled = |requests: &Requests| {
            let mut samples = Samples::new(requests.basis);
            for (record, gaps) in &requests.records {
                samples.push(record.clone(), gaps);
            }
            samples
        };
        let each: Vec<Samples> = group.requests().map(sampled).collect();
        let mut pooled = each.first().map_or_else(|| Samples::new(crate::record::Basis::Sent), Clone::clone);
        for other in each.iter().skip(1) {
            pooled.merge(other);
        }
        let mut unknown: IndexMap<&'static str, String> = IndexMap::new();
        for requests in group.requests() {
            unknown.extend(requests.unknown.clone());
        }
        let setting = Setting {
            clock: Clock::Real,
            repeats: &each.iter().collect::<Vec<_>>(),
            // How the load pressed is not known well enough to hold it against itself.
            is_constant: false,
            processor: None,
            faulted: &HashSet::new(),
            reuse: None,
        };
        let validity = validity(&setting, &pooled, &judged.validity);
        let played: Vec<Played> = group.requests().map(played).collect();
        let input = |samples: &Samples, played: &[Played], at: usize| {
            let mut metrics = metrics(&CellInput {
                workload: &group.workload,
                backend,
                model: group.model(),
                clock: Clock::Real,
                samples,
                played,
                slo: judged.slo,
                tags: &group.tags,
                start_time: group.repeats[at].start_time.unwrap_or(0.0),
                end_time: None,
                seed: 0,
                schedule_digest: "unknown",
                content_digest: "unknown",
                trace_rows_skipped: 0,
                validity: &validity,
                capacity: None,
                checks: &[],
                custom: &[],
            });
            unknown_out(&mut metrics, &unknown, tool, judged.slo);
            if group.repeats[at].start_time.is_none() {
                for name in ["start_time", "end_time"] {
                    blank(&mut metrics, name, "the file does not say when it was");
                }
            }
            metrics.warnings.extend(group.notes());
            metrics
        };
        let repeats = match each.len() {
            1 => Vec::new(),
            n => (0..n).map(|at| input(&each[at], std::slice::from_ref(&played[at]), at)).collect(),
        };
        let metrics = input(&pooled, &played, 0);
        Self {
            group,
            backend,
            samples: Some(pooled),
            each,
            metrics,
            repeats,
            unknown,
            validity,
            slo: judged.slo,
        }
    }

    fn of_statistics(
        group: &'a Group,
        backend: &'a str,
        tool: Tool,
        summaries: &[&Summary],
        judged: &Judged<'a>,
    ) -> Self {
        let mut validity = Validity::default();
        let text =
            "the file has statistics only, so whether the client kept up with its load can not be told";
        validity.warnings.push(Reason { name: "unknown".into(), text: text.into() });
        let mut each: Vec<Metrics> =
            summaries.iter().map(|summary| told(summary, group, backend, tool)).collect();
        let metrics = if each.len() == 1 { each.remove(0) } else { pooled(&each) };
        Self {
            group,
            backend,
            samples: None,
            each: Vec::new(),
            metrics,
            repeats: each,
            unknown: IndexMap::new(),
            validity,
            slo: judged.slo,
        }
    }

    pub(super) fn report(&self) -> CellReport {
        let samples = self.samples.as_ref();
        CellReport {
            workload: self.group.workload.clone(),
            family: self.group.family.clone(),
            backend: Some(self.backend.to_owned()),
            point: self.group.point.clone(),
            load: self.group.repeats.iter().find_map(|cell| cell.load.clone()),
            metrics: self.metrics.flat(),
            repeats: self.repeats.iter().map(Metrics::flat).collect(),
            intervals: bounds(&Told::of(&[self]), &self.repeats),
            validity: Some(self.validity.clone()),
            errors: samples.map(errors).unwrap_or_default(),
            curves: samples.map(curves).unwrap_or_default(),
            timeline: self.each.first().map(timeline).unwrap_or_default(),
            ..CellReport::default()
        }
    }

    pub(super) fn into_records(self) -> impl Iterator<Item = CellRecords> {
        let (group, backend) = (self.group, self.backend);
        (0..).zip(self.each).map(move |(repeat, samples)| {
            let own = &group.repeats[repeat as usize];
            let length = samples.records().iter().map(|record| record.end).max().unwrap_or(0);
            let start_time = own.start_time.unwrap_or(0.0);
            CellRecords {
                workload: group.workload.clone(),
                backend: backend.to_owned(),
                repeat,
                start_time,
                end_time: start_time + seconds(length),
                samples,
                tokens: Vec::new(),
            }
        })
    }
}

/// What playing came to, as far as the requests tell.
fn played(requests: &Requests) -> Played {
    let measured =
        || requests.records.iter().map(|(record, _)| record).filter(|r| r.phase == Phase::Measured);
    let mut moments: Vec<(u64, i32)> = measured()
        .filter_map(|record| Some((record.sent?, record.end)))
        .flat_map(|(sent, end)| [(sent, 1), (end.max(sent + 1), -1)])
        .collect();
    moments.sort_unstable();
    let in_flight = moments.iter().scan(0_i32, |now, (_, change)| {
        *now += change;
        Some(*now)
    });
    let last = measured().map(|record| record.end).max().unwrap_or(0);
    Played {
        measure_start: 0,
        measure_end: requests.duration.unwrap_or(last),
        max_in_flight: in_flight.max().unwrap_or(0).unsigned_abs(),
        stats: EngineStats::default(),
        processor: None,
        ending: Ending::Complete,
    }
}

fn blank(metrics: &mut Metrics, name: &str, why: &str) {
    if let Some(value) = metrics.values.get_mut(name) {
        *value = Value::Null;
        metrics.unavailable.insert(name.to_owned(), why.to_owned());
    }
}

/// Takes out what the file does not say.
fn unknown_out(
    metrics: &mut Metrics,
    unknown: &IndexMap<&'static str, String>,
    tool: Tool,
    slo: &[Condition],
) {
    for (name, why) in unknown {
        let Some(metric) = Metric::named(name) else { continue };
        if metric.kind == Kind::Samples {
            for aggregate in KEPT {
                blank(metrics, &metric.flat_of(aggregate), why);
            }
        } else {
            blank(metrics, &metric.flat(), why);
        }
        let more: &[&str] = match *name {
            "ttft" => &["ttft_ci95_ms"],
            "tbt" => {
                &["tbt_sample_count", "p50_itl_ms", "p90_itl_ms", "p95_itl_ms", "p99_itl_ms", "max_itl_ms"]
            }
            "output_throughput" => &["total_output_tokens", "total_tokens"],
            "input_throughput" => &["total_prompt_tokens", "total_tokens"],
            _ => &[],
        };
        for name in more {
            blank(metrics, name, why);
        }
    }
    if let Some(why) = unknown_in(unknown, slo) {
        blank(metrics, "slo_share", why);
        blank(metrics, "goodput_rps", why);
    }
    let why = format!("the file of {} does not say", tool.name());
    for name in NOT_OURS {
        blank(metrics, name, &why);
    }
    let ours = "the backend does not report it";
    for reason in metrics.unavailable.values_mut().filter(|reason| *reason == ours) {
        reason.clone_from(&why);
    }
}

/// Why one of the conditions can not be held against each request, if so.
pub(super) fn unknown_in<'a>(
    unknown: &'a IndexMap<&'static str, String>,
    conditions: &[Condition],
) -> Option<&'a str> {
    conditions.iter().find_map(|condition| match &condition.on {
        crate::rule::On::Metric(metric, _) => unknown.get(metric.name).map(String::as_str),
        crate::rule::On::Tag(..) => None,
    })
}

/// The statistics of a file as our flat object; what it does not have is null.
fn told(summary: &Summary, group: &Group, backend: &str, tool: Tool) -> Metrics {
    let mut metrics = Metrics { warnings: group.notes(), ..Metrics::default() };
    let default = format!("the file of {} does not say", tool.name());
    for field in fields() {
        let name = field.name.as_str();
        if matches!(name, "unavailable" | "warnings") {
            continue;
        }
        let value = match (name, field.of) {
            ("schema_version", _) => json!(METRICS_VERSION),
            ("workload", _) => json!(group.workload),
            ("backend", _) => json!(backend),
            ("model", _) => json!(group.model()),
            ("clock", _) => json!("real"),
            ("percentile_method", _) => json!(summary.percentiles),
            ("repeats", _) => json!(1),
            (_, Type::Text) => json!("unknown"),
            (_, Type::Flag) => json!(true),
            (_, Type::Counts | Type::Reasons | Type::Ratios | Type::Recorded) => json!({}),
            (_, Type::Texts) => json!([]),
            (_, Type::Integer | Type::Number | Type::Ratio | Type::Interval) => {
                let known = summary.values.get(name).cloned().or_else(|| derived(summary, name));
                if known.is_none() {
                    let reason = summary.reasons.get(name).unwrap_or(&default);
                    metrics.unavailable.insert(name.to_owned(), reason.clone());
                }
                known.unwrap_or_default()
            }
        };
        metrics.values.insert(name.to_owned(), value);
    }
    metrics
}

/// What follows from what the file says.
fn derived(summary: &Summary, name: &str) -> Option<Value> {
    let number = |name: &str| summary.values.get(name)?.as_f64();
    match name {
        "end_time" => Some(json!(rounded(number("start_time")? + number("total_time_s")?))),
        "total_tokens" => {
            let count = |name: &str| summary.values.get(name)?.as_u64();
            Some(json!(count("total_prompt_tokens")? + count("total_output_tokens")?))
        }
        // The inter-token latency of the flat file is its TBT by another name.
        _ => summary
            .values
            .get(&name.replace("_itl_ms", "_tbt_ms"))
            .filter(|_| name.ends_with("_itl_ms"))
            .cloned(),
    }
}

/// Statistics of several repeats as one: counts and times add, everything else is the mean of the repeats' own.
fn pooled(each: &[Metrics]) -> Metrics {
    let mut metrics = each[0].clone();
    let adds = |name: &str| {
        name.ends_with("_requests")
            || name.starts_with("total_") && !name.ends_with("_tps")
            || name == "sample_count"
    };
    for field in fields() {
        let name = field.name.as_str();
        let values: Option<Vec<f64>> = each.iter().map(|one| one.values.get(name)?.as_f64()).collect();
        let Some(values) = values else {
            if matches!(field.of, Type::Integer | Type::Number | Type::Ratio) && name != "repeats" {
                let why = each.iter().find_map(|one| one.unavailable.get(name).cloned());
                if let Some(why) = why {
                    blank(&mut metrics, name, &why);
                }
            }
            continue;
        };
        let sum: f64 = values.iter().sum();
        let value = match name {
            "schema_version" | "start_time" | "end_time" => continue,
            "repeats" => json!(each.len()),
            name if adds(name) && field.of == Type::Integer => json!(sum as u64),
            name if adds(name) => json!(rounded(sum)),
            _ if field.of == Type::Integer => json!((sum / values.len() as f64) as u64),
            _ => json!(rounded(sum / values.len() as f64)),
        };
        metrics.values.insert(name.to_owned(), value);
    }
    let (failed, total) = (metrics.get("failed_requests"), metrics.get("total_requests"));
    if let Some((failed, total)) = failed.zip(total).filter(|(_, total)| *total > 0.0) {
        metrics.values.insert("error_rate".to_owned(), json!(rounded(failed / total)));
    }
    metrics.warnings.push(format!(
        "{} repeats: counts and times are added up, every other number is the mean of the repeats' own",
        each.len()
    ));
    metrics
}

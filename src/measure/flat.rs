//! A cell's metrics as one flat object.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::checks::{check_reports, recorded};
use super::fields::{AGGREGATIONS, Aggregated, fields};
use super::totals::Engines;
use super::{Distribution, Samples, Totals, Validity, median_interval, meets};
use crate::backend::config::Clock;
use crate::metric::{Kind, METRICS, Metric};
use crate::plan::config::Tags;
use crate::record::{Outcome, Record, TokenSource};
use crate::rule::Condition;
use crate::run::{Ending, Played};
use crate::units::{MIB, Ns, ms, seconds};

/// The version of the flat result file.
pub const METRICS_VERSION: u32 = 1;

/// A flat object: field to value, in the order of the file.
pub type Flat = IndexMap<String, Value>;

/// Everything that a cell's metrics are computed from. For several repeats: their samples merged, all their [`Played`].
#[derive(Debug, Clone, Copy)]
pub struct CellInput<'a> {
    /// The workload's full name.
    pub workload: &'a str,
    /// The backend's name.
    pub backend: &'a str,
    /// The model's name.
    pub model: &'a str,
    /// Which clock it was played on.
    pub clock: Clock,
    /// The records and gaps.
    pub samples: &'a Samples,
    /// What each repeat came to.
    pub played: &'a [Played],
    /// The limits one request must keep to count for goodput; empty when the scenario sets none.
    pub slo: &'a [Condition],
    /// The workload's tags, for conditions on them.
    pub tags: &'a Tags,
    /// When measuring started: Unix seconds on the real clock, 0 on the virtual one (its epoch).
    pub start_time: f64,
    /// When measuring ended on the real clock; without it, `start_time` plus the measured seconds.
    pub end_time: Option<f64>,
    /// The plan's seed.
    pub seed: u64,
    /// The plan's schedule digest.
    pub schedule_digest: &'a str,
    /// The plan's content digest.
    pub content_digest: &'a str,
    /// Rows of a trace that the plan left out.
    pub trace_rows_skipped: u64,
    /// The verdict on the measurement.
    pub validity: &'a Validity,
    /// What its search came to, where it searches.
    pub capacity: Option<&'a Capacity>,
    /// Names and kinds of the workload's checks, in order.
    pub checks: &'a [(String, String)],
    /// The metrics that the scenario declares, in order.
    pub custom: &'a [&'static Metric],
}

/// What a search for capacity found: the flat name of its metric, and the value or the reason why there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Capacity {
    /// `capacity_rps` or `capacity_concurrency`.
    pub name: &'static str,
    /// The level that was found.
    pub found: Result<f64, String>,
}

/// A cell's metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// Every field of the flat file except `unavailable` and `warnings`, in order; null where unknown.
    pub values: Flat,
    /// Why a value is null, by field.
    pub unavailable: IndexMap<String, String>,
    /// What to know before trusting a number.
    pub warnings: Vec<String>,
}

impl Metrics {
    /// A number by its flat name; `None` when it is null or no number.
    pub fn get(&self, flat: &str) -> Option<f64> {
        self.values.get(flat)?.as_f64()
    }

    /// The flat object as it stands in the file.
    pub fn flat(&self) -> Flat {
        let fields = fields().iter().map(|field| {
            let value = match field.name.as_str() {
                "unavailable" => json!(self.unavailable),
                "warnings" => json!(self.warnings),
                name => self.values.get(name).cloned().unwrap_or(Value::Null),
            };
            (field.name.clone(), value)
        });
        fields.collect()
    }
}

/// Six decimals: a nanosecond in milliseconds, a microsecond in seconds. What is no finite number becomes 0.
pub fn rounded(value: f64) -> f64 {
    let scaled = libm::round(value * 1e6) / 1e6;
    // Adding 0 turns −0 into 0; numbers too large to scale have no such decimals to round.
    if scaled.is_finite() {
        scaled + 0.0
    } else if value.is_finite() {
        value
    } else {
        0.0
    }
}

/// Computes a cell's metrics, as defined in [`METRICS`].
///
/// Averages: TTFT, TPOT, E2E and throughput are means over successful requests; TBT is the mean of the pooled gaps.
/// Throughputs and rates divide by the measured seconds, which for several repeats are added up.
/// `offered_rate` is the number of intervals between due times, divided by the time from the first to the last.
pub fn metrics(cell: &CellInput<'_>) -> Metrics {
    let mut draft = Draft::default();
    let totals = Totals::of(cell.samples);
    let engines = Engines::of(cell.played);
    draft.header(cell, &totals);
    draft.latencies(cell.samples);
    draft.counts(&totals);
    draft.rates(cell, &totals, engines.measured);
    draft.engine(cell.played, &engines);
    draft.capacity(cell.capacity);
    draft.lengths(cell, &totals);
    draft.checks(cell);
    draft.closing(cell);
    draft.finish(warnings(cell, &totals))
}

/// Values as they are found, before they are put in order.
#[derive(Default)]
struct Draft {
    known: FxHashMap<String, Value>,
    reasons: FxHashMap<String, String>,
}

impl Draft {
    fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.known.insert(name.into(), value.into());
    }

    /// A float, rounded; or the reason why there is none.
    fn float(&mut self, name: impl Into<String>, value: Option<f64>, reason: &str) {
        match value.filter(|value| value.is_finite()) {
            Some(value) => self.set(name, rounded(value)),
            None => self.missing(name, reason),
        }
    }

    fn missing(&mut self, name: impl Into<String>, reason: &str) {
        self.reasons.insert(name.into(), reason.to_owned());
    }

    fn header(&mut self, cell: &CellInput<'_>, totals: &Totals) {
        self.set("schema_version", METRICS_VERSION);
        self.set("workload", cell.workload);
        self.set("backend", cell.backend);
        self.set("model", cell.model);
        self.set("clock", cell.clock.word());
        self.set("sample_count", totals.successful);
        let method = "nearest rank on raw values";
        let method = if cell.samples.gaps().is_exact() {
            method.to_owned()
        } else {
            format!("{method}; tbt: HdrHistogram with 3 significant digits")
        };
        self.set("percentile_method", method);
    }

    fn latencies(&mut self, samples: &Samples) {
        for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Samples && metric.name != "tbt") {
            let values = Distribution::of(samples.values(metric));
            for (aggregation, how) in AGGREGATIONS {
                let value = match how {
                    Aggregated::Mean => values.mean(),
                    Aggregated::Quantile(q) => values.quantile(q),
                    Aggregated::Max => values.max(),
                };
                self.float(metric.flat_of(aggregation), value, lacking(metric));
            }
            if metric.name == "ttft" {
                self.median_interval(&values);
            }
        }
        self.gaps(samples);
    }

    fn gaps(&mut self, samples: &Samples) {
        let pool = samples.gaps();
        let reason = "no request produced a second token";
        let quantiles: Vec<f64> = AGGREGATIONS
            .iter()
            .filter_map(|(_, how)| if let Aggregated::Quantile(q) = how { Some(*q) } else { None })
            .collect();
        let mut at = pool.quantiles(&quantiles).unwrap_or_default().into_iter();
        for (aggregation, how) in AGGREGATIONS {
            let value = match how {
                Aggregated::Mean => pool.mean().map(|ns| ns / 1e6),
                Aggregated::Quantile(_) => at.next().map(ms),
                Aggregated::Max => pool.max().map(ms),
            };
            self.float(format!("{aggregation}_tbt_ms"), value, reason);
            if how != Aggregated::Mean {
                self.float(format!("{aggregation}_itl_ms"), value, reason);
            }
        }
        self.set("tbt_sample_count", pool.count());
    }

    fn median_interval(&mut self, ttft: &Distribution) {
        let values = ttft.sorted();
        match median_interval(ttft.count()) {
            Some((lower, upper)) => {
                let ends = [values[lower as usize - 1], values[upper as usize - 1]].map(rounded);
                self.set("ttft_ci95_ms", json!(ends));
            }
            None => self.missing("ttft_ci95_ms", "fewer than 6 requests succeeded"),
        }
    }

    fn counts(&mut self, totals: &Totals) {
        self.set("total_requests", totals.counted());
        self.set("successful_requests", totals.successful);
        self.set("failed_requests", totals.failed);
        self.set("cancelled_requests", totals.cancelled);
        self.set("retried_requests", totals.retried);
        self.set("skipped_requests", totals.skipped);
        self.set("interrupted_requests", totals.interrupted);
        self.set("errors", json!(totals.errors));
        let rate = ratio(totals.failed, totals.counted());
        self.float("error_rate", rate, "no request was counted");
    }

    fn rates(&mut self, cell: &CellInput<'_>, totals: &Totals, measured: Ns) {
        let time = seconds(measured);
        let per_second = |amount: u64| (measured > 0).then(|| amount as f64 / time);
        let nothing = "nothing was measured";
        self.float("total_time_s", Some(time), nothing);
        self.float("start_time", Some(cell.start_time), nothing);
        self.float("end_time", Some(cell.end_time.unwrap_or(cell.start_time + time)), nothing);
        self.float("output_throughput_tps", per_second(totals.output_tokens), nothing);
        self.float("input_throughput_tps", per_second(totals.prompt_tokens), nothing);
        let tokens = totals.prompt_tokens + totals.output_tokens;
        self.float("total_throughput_tps", per_second(tokens), nothing);
        self.float("request_rate_rps", per_second(totals.successful), nothing);
        self.float("offered_rate_rps", offered(cell.samples), "all requests were due at the same time");
        if cell.slo.is_empty() {
            self.missing("slo_share", "the scenario sets no slo");
            self.missing("goodput_rps", "the scenario sets no slo");
            return;
        }
        let good = cell.samples.records().iter().filter(|record| {
            record.outcome == Outcome::Success && meets(record, cell.samples.basis(), cell.tags, cell.slo)
        });
        let good = good.count() as u64;
        self.float("slo_share", ratio(good, totals.counted()), "no request was counted");
        self.float("goodput_rps", per_second(good), nothing);
    }

    fn engine(&mut self, played: &[Played], engines: &Engines) {
        // The backend knows best why it cannot know; the first repeat speaks for all.
        for (name, reason) in played.iter().rev().flat_map(|run| &run.stats.unavailable) {
            self.missing(name.as_ref(), reason);
        }
        let whole = [
            ("kv_used_tokens", engines.kv_used_tokens),
            ("kv_capacity_tokens", engines.kv_capacity_tokens),
            ("kv_total_tokens", engines.kv_total_tokens),
            ("evict_count", engines.evict_count),
            ("preempt_count", engines.preempt_count),
            ("max_batch_size", engines.max_batch_size),
            (
                "kv_used_bytes",
                engines.kv_used_tokens.zip(engines.kv_bytes_per_token).map(|(n, size)| n * size),
            ),
            ("peak_mem_mb", engines.peak_mem_bytes.map(|bytes| (bytes + MIB / 2) / MIB)),
        ];
        for (name, value) in whole {
            if let Some(value) = value {
                self.set(name, value);
            }
        }
        let floats = [
            ("evict_ms", engines.evict_ns.map(ms)),
            ("avg_batch_size", engines.avg_batch_size),
            ("avg_mem_mb", engines.avg_mem_bytes.map(|bytes| bytes / MIB as f64)),
            ("prefix_hit_rate", share(engines.prefix_hit_tokens, engines.prefix_queried_tokens)),
            (
                "spec_accept_rate",
                share(engines.accepted_tokens, engines.draft_tokens).or(engines.spec_accept_share),
            ),
        ];
        for (name, value) in floats {
            if let Some(value) = value {
                self.set(name, rounded(value));
            }
        }
        if engines.prefix_queried_tokens == Some(0) {
            self.missing("prefix_hit_rate", "no prompt token was looked up in the prefix cache");
        }
        if engines.draft_tokens == Some(0) {
            self.missing("spec_accept_rate", "no token was drafted");
        }
        self.set("max_in_flight", engines.max_in_flight);
    }

    fn capacity(&mut self, capacity: Option<&Capacity>) {
        for metric in METRICS.iter().filter(|metric| metric.is_capacity()) {
            match capacity {
                None => self.missing(metric.flat(), "the load does not search for a capacity"),
                Some(own) if own.name != metric.flat() => {
                    self.missing(metric.flat(), "the load searches for another capacity");
                }
                Some(Capacity { found: Ok(level), .. }) => self.set(metric.flat(), rounded(*level)),
                Some(Capacity { found: Err(reason), .. }) => self.missing(metric.flat(), reason),
            }
        }
    }

    fn lengths(&mut self, cell: &CellInput<'_>, totals: &Totals) {
        self.set("total_prompt_tokens", totals.prompt_tokens);
        self.set("total_output_tokens", totals.output_tokens);
        self.set("total_tokens", totals.prompt_tokens + totals.output_tokens);
        self.float("avg_asked_tokens", mean(totals.asked_tokens, totals.successful), "no request succeeded");
        self.set("length_mismatches", totals.length_mismatches);
        self.set("warmup_requests", cell.samples.warmup());
        self.set("trace_rows_skipped", cell.trace_rows_skipped);
        self.set("repeats", cell.played.len() as u64);
    }

    fn checks(&mut self, cell: &CellInput<'_>) {
        let checked = || cell.samples.records().iter().filter_map(|record| record.checked.as_ref());
        let looked_at = checked().count() as u64;
        self.set("checked_responses", looked_at);
        let rates = check_reports(cell.samples, cell.checks).into_iter();
        self.set("check_pass_rates", json!(rates.map(|c| (c.name, c.pass_rate)).collect::<IndexMap<_, _>>()));
        self.set("custom_metrics", recorded(cell.samples, cell.custom));
        let passed = checked().filter(|checked| checked.failed == 0).count() as u64;
        let why = if cell.checks.is_empty() {
            "the workload has no checks"
        } else {
            "no request succeeded, so no response was checked"
        };
        self.float("checks_pass_rate", ratio(passed, looked_at), why);
    }

    fn closing(&mut self, cell: &CellInput<'_>) {
        self.set("seed", cell.seed);
        self.set("schedule_digest", cell.schedule_digest);
        self.set("content_digest", cell.content_digest);
        self.set("valid", cell.validity.valid);
        let reasons: Vec<&str> = cell.validity.reasons.iter().map(|reason| reason.text.as_str()).collect();
        self.set("invalid_reasons", json!(reasons));
    }

    /// Puts the values in the order of the file; what no one set is what the backend did not report.
    fn finish(mut self, warnings: Vec<String>) -> Metrics {
        let mut metrics = Metrics { warnings, ..Metrics::default() };
        for field in fields() {
            if field.name == "unavailable" || field.name == "warnings" {
                continue;
            }
            let value = self.known.remove(&field.name).unwrap_or_else(|| {
                let reason = self.reasons.remove(&field.name);
                let reason = reason.unwrap_or_else(|| "the backend does not report it".into());
                metrics.unavailable.insert(field.name.clone(), reason);
                Value::Null
            });
            metrics.values.insert(field.name.clone(), value);
        }
        metrics
    }
}

/// Why a metric of kind `Samples` has no value.
fn lacking(metric: &Metric) -> &'static str {
    match metric.name {
        "tpot" => "no successful request produced a second token",
        "queue_time" => "no request succeeded of which the backend says when it was scheduled",
        "queue_delay" | "prompt_tokens" => "no request was sent",
        _ => "no request succeeded",
    }
}

fn mean(sum: u64, n: u64) -> Option<f64> {
    (n > 0).then(|| sum as f64 / n as f64)
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    mean(part, whole)
}

fn share(part: Option<u64>, whole: Option<u64>) -> Option<f64> {
    ratio(part?, whole?)
}

fn offered(samples: &Samples) -> Option<f64> {
    let intervals: u64 = samples.dues().iter().map(|span| span.requests - 1).sum();
    let time: Ns = samples.dues().iter().map(|span| span.last - span.first).sum();
    (time > 0).then(|| intervals as f64 / seconds(time))
}

fn warnings(cell: &CellInput<'_>, totals: &Totals) -> Vec<String> {
    let mut warnings = Vec::new();
    let n = totals.successful;
    // x_(ceil(q·n)) is the largest value as long as q·n > n − 1.
    if n > 0 && n < 100 {
        let which = if n < 20 { "p95 and p99 are" } else { "p99 is" };
        let requests = if n == 1 { "1 request".into() } else { format!("{n} requests") };
        let needed = if n < 20 { "p95 needs 20 requests, p99 needs 100" } else { "p99 needs 100 requests" };
        warnings.push(format!(
            "{requests} succeeded, so {which} the largest value; {needed} to be more than that"
        ));
    }
    if totals.retried > 0 {
        let requests = if totals.retried == 1 { "request was" } else { "requests were" };
        warnings.push(format!(
            "{} {requests} sent again after a failure, {} times in all; latency counts from the first attempt",
            totals.retried, totals.retries
        ));
    }
    if totals.length_mismatches > 0 {
        warnings.push(format!(
            "{} of {n} successful requests came out longer or shorter than the length they were forced to",
            totals.length_mismatches
        ));
    }
    let counted = |record: &&Record| record.sent.is_some() && record.output_tokens > 0;
    let sources: BTreeSet<TokenSource> =
        cell.samples.records().iter().filter(counted).map(|record| record.token_source).collect();
    if sources.contains(&TokenSource::Events) {
        warnings.push(
            "nobody counted the tokens of some answers: each of their events counts as one token".into(),
        );
    }
    if sources.len() > 1 {
        warnings.push("the tokens of some answers were counted by other means than those of others".into());
    }
    if cell.trace_rows_skipped > 0 {
        warnings.push(format!(
            "{} rows of the trace were left out, because they are longer than max_tokens",
            cell.trace_rows_skipped
        ));
    }
    for run in cell.played {
        match &run.ending {
            Ending::Complete => {}
            Ending::TimedOut => {
                warnings.push("total_timeout cut the workload off; requests after it were not sent".into());
            }
            Ending::Aborted(reason) => warnings.push(format!("the workload was aborted: {reason}")),
            Ending::Interrupted(signal) => {
                warnings.push(format!("the workload was interrupted by signal {signal}; what was measured until then is reported"));
            }
        }
    }
    warnings.extend(cell.validity.warnings.iter().map(|reason| reason.text.clone()));
    warnings
}

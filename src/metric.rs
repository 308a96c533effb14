//! The table of metrics: one row each. The rule checker, the result files, reports and docs follow from it.

use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The unit a metric is kept in outside the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds; flat names end in `_ms`.
    Milliseconds,
    /// Seconds; flat names end in `_s`.
    Seconds,
    /// Tokens per second; flat names end in `_tps`.
    TokensPerSecond,
    /// Requests per second; flat names end in `_rps`.
    RequestsPerSecond,
    /// A share between 0 and 1.
    Ratio,
    /// MiB; flat names end in `_mb`.
    Mebibytes,
    /// Bytes.
    Bytes,
    /// Tokens.
    Tokens,
    /// A plain number.
    Count,
    /// A mean of plain numbers, with decimals.
    Mean,
}

impl Unit {
    /// How it is printed behind a number; nothing for a plain one. A ratio is printed as a percentage.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::TokensPerSecond => "tok/s",
            Self::RequestsPerSecond => "req/s",
            Self::Ratio => "%",
            Self::Mebibytes => "MiB",
            Self::Bytes => "B",
            Self::Tokens => "tokens",
            Self::Count | Self::Mean => "",
        }
    }

    /// What a flat name ends in.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Milliseconds => "_ms",
            Self::Seconds => "_s",
            Self::TokensPerSecond => "_tps",
            Self::RequestsPerSecond => "_rps",
            Self::Mebibytes => "_mb",
            Self::Ratio | Self::Bytes | Self::Tokens | Self::Count | Self::Mean => "",
        }
    }
}

/// What kind of number a metric is, which decides how a rule may ask for it and how it is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One value per request or per token: needs an aggregation such as `p99(...)`.
    Samples,
    /// A share of requests or events; stands bare in a rule.
    Rate,
    /// A count or total; stands bare.
    Count,
    /// One number per workload; stands bare.
    Value,
}

/// Which direction is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
    /// Neither is.
    Neither,
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name in rules: `ttft`, `error_rate`.
    pub name: &'static str,
    /// Other names for the same: `itl`.
    pub aliases: &'static [&'static str],
    /// Its unit in files.
    pub unit: Unit,
    /// What kind of number it is.
    pub kind: Kind,
    /// Which direction is better.
    pub better: Better,
    /// Its definition.
    pub doc: &'static str,
    /// Of a metric that a scenario declares and hooks record: its position among them.
    pub custom: Option<u16>,
}

macro_rules! metrics {
    ($($name:literal $([$($alias:literal),+])? $unit:ident $kind:ident $better:ident $doc:literal;)+) => {
        /// Every metric, in the order of the documentation.
        pub static METRICS: &[Metric] = &[$(Metric {
            name: $name, aliases: &[$($($alias),+)?], unit: Unit::$unit, kind: Kind::$kind, better: Better::$better, doc: $doc, custom: None,
        }),+];
    };
}

metrics! {
    "ttft" Milliseconds Samples Lower "Time to first token: first content minus sent (closed loop) or minus due (open loop).";
    "answer_ttft" Milliseconds Samples Lower "Time to the first token of the answer itself, of requests that reasoned before; counted as `ttft`.";
    "tbt" ["itl"] Milliseconds Samples Lower "Time between tokens: the gaps between successive tokens, pooled over all requests.";
    "tpot" Milliseconds Samples Lower "Time per output token: (end − first) / (output tokens − tokens of the first event), per request.";
    "e2e" ["latency"] Milliseconds Samples Lower "End to end: last content minus sent (closed loop) or minus due (open loop).";
    "queue_delay" Milliseconds Samples Lower "Sent minus due: how late a request left the client, waiting under `max_in_flight` included.";
    "queue_time" Milliseconds Samples Lower "Time in the engine's queue: scheduled for the first time minus sent. Known of engines in this process.";
    "throughput" TokensPerSecond Samples Higher "Output tokens divided by end-to-end time, per successful request.";
    "prompt_tokens" Tokens Samples Neither "Prompt tokens per request.";
    "output_tokens" Tokens Samples Neither "Output tokens per successful request.";
    "error_rate" Ratio Rate Lower "Failed requests divided by all counted requests.";
    "slo_share" Ratio Rate Higher "Counted requests that succeeded and met every SLO limit.";
    "checks_pass_rate" Ratio Rate Higher "Responses that passed every check of their workload, divided by those that were checked: the responses of successful requests.";
    "prefix_hit_rate" Ratio Rate Higher "Prompt tokens served from the prefix cache divided by prompt tokens looked up, at first admissions.";
    "spec_accept_rate" Ratio Rate Higher "Accepted draft tokens divided by draft tokens.";
    "total_requests" Count Count Neither "Successful plus failed requests.";
    "successful_requests" Count Count Higher "Requests answered completely.";
    "failed_requests" Count Count Lower "Requests refused, timed out, cut off, malformed or answered with an error.";
    "cancelled_requests" Count Count Neither "Requests that the client cancelled because the scenario asks for it.";
    "retried_requests" Count Count Lower "Successful and failed requests that were sent more than once (`retries`).";
    "kv_used_tokens" Tokens Value Lower "Peak of tokens resident in referenced KV blocks.";
    "kv_used_bytes" Bytes Value Lower "`kv_used_tokens` times the model's bytes per token.";
    "kv_capacity_tokens" Tokens Value Neither "Tokens that the KV cache can hold.";
    "kv_total_tokens" Tokens Count Neither "Tokens whose keys and values were written, recomputed ones included.";
    "evict_count" Count Count Lower "Cached blocks whose content was dropped for reuse.";
    "evict_ms" Milliseconds Value Lower "The time those evictions took.";
    "preempt_count" Count Count Lower "Times a running request lost its KV blocks and had to be computed again.";
    "peak_mem" Mebibytes Value Lower "Peak memory of the server (modelled device memory on the mock), in MiB.";
    "avg_mem" Mebibytes Value Lower "Mean memory of the server over time, in MiB.";
    "output_throughput" TokensPerSecond Value Higher "All output tokens divided by the measured seconds.";
    "input_throughput" TokensPerSecond Value Higher "All prompt tokens of successful requests divided by the measured seconds.";
    "total_throughput" TokensPerSecond Value Higher "Prompt and output tokens divided by the measured seconds.";
    "request_rate" RequestsPerSecond Value Higher "Successful requests divided by the measured seconds.";
    "offered_rate" RequestsPerSecond Value Neither "Requests due divided by the time over which they were due.";
    "goodput" RequestsPerSecond Value Higher "Successful requests that met every SLO limit divided by the measured seconds.";
    "capacity_rps" RequestsPerSecond Value Higher "The highest rate that a search (`load: { kind: search, variable: rate }`) found to keep the SLO, and confirmed; of sessions, those that begin per second.";
    "capacity_concurrency" Mean Value Higher "The most users that a search (`load: { kind: search, variable: concurrency }`) found to keep the SLO, and confirmed.";
    "max_in_flight" Count Value Neither "The most requests that were in flight at once.";
    "avg_batch_size" Mean Value Neither "Requests that the engine computed at once: the mean over the measured time, in which idle counts as 0.";
    "max_batch_size" Count Value Neither "The most requests that the engine computed at once.";
    "total_time" Seconds Value Lower "The measured seconds: from the first measured request due to the last one ended.";
}

/// Which turn of its session a request is, from 1: what conditions can look at beside the metrics. It measures nothing, so
/// it stands in no result file; a request outside sessions has none.
pub static TURN: Metric = Metric {
    name: "turn",
    aliases: &[],
    unit: Unit::Count,
    kind: Kind::Samples,
    better: Better::Neither,
    doc: "The turn of its session that a request is, from 1.",
    custom: None,
};

impl Metric {
    /// A metric that a scenario declares at this position: one value for each request that hooks recorded one for.
    ///
    /// Metrics live as long as the process; the same declaration gives the same one.
    pub fn declared(place: u16, name: &str, unit: Unit, better: Better, doc: &str) -> &'static Self {
        static DECLARED: Mutex<Vec<&'static Metric>> = Mutex::new(Vec::new());
        let mut declared = DECLARED.lock().unwrap_or_else(PoisonError::into_inner);
        let known = declared.iter().find(|known| {
            (known.custom, known.name, known.unit, known.better, known.doc)
                == (Some(place), name, unit, better, doc)
        });
        if let Some(known) = known {
            return known;
        }
        let kept = |text: &str| -> &'static str { Box::leak(text.into()) };
        let metric: &'static Self = Box::leak(Box::new(Self {
            name: kept(name),
            aliases: &[],
            unit,
            kind: Kind::Samples,
            better,
            doc: kept(doc),
            custom: Some(place),
        }));
        declared.push(metric);
        metric
    }

    /// Whether it is what a search for capacity finds.
    pub fn is_capacity(&self) -> bool {
        self.name.starts_with("capacity_")
    }

    /// The metric of this name or alias.
    pub fn named(name: &str) -> Option<&'static Self> {
        METRICS.iter().find(|metric| metric.name == name || metric.aliases.contains(&name))
    }

    /// Its name in the flat result files without an aggregation: `output_throughput_tps`. `evict_ms` carries its unit already.
    pub fn flat(&self) -> String {
        let suffix = self.unit.suffix();
        format!("{}{suffix}", self.name.strip_suffix(suffix).unwrap_or(self.name))
    }

    /// Its name in the flat result files under an aggregation: `p99_ttft_ms`.
    pub fn flat_of(&self, aggregation: &str) -> String {
        format!("{aggregation}_{}{}", self.name, self.unit.suffix())
    }
}

/// The aggregates of a metric of many values that result files and baselines keep.
pub const KEPT: [&str; 6] = ["avg", "p50", "p90", "p95", "p99", "max"];

/// The flat names of everything that has a better direction, with that direction.
pub fn judged_names() -> impl Iterator<Item = (String, &'static Metric)> {
    METRICS.iter().filter(|metric| metric.better != Better::Neither).flat_map(|metric| {
        let names: Vec<String> = match metric.kind {
            Kind::Samples => KEPT.iter().map(|aggregate| metric.flat_of(aggregate)).collect(),
            Kind::Rate | Kind::Count | Kind::Value => vec![metric.flat()],
        };
        names.into_iter().map(move |name| (name, metric))
    })
}

//! The metrics page: vLLM's names, in Prometheus' text format. Times are the engine's own: modelled or measured
//! ones.

use std::fmt::Write as _;

use rustc_hash::FxHashMap;

use crate::backend::{EngineStats, RequestId, Standing};
use crate::plan::Recipe;
use crate::record::Outcome;
use crate::units::{Ns, from_seconds, seconds};

/// vLLM's buckets of time to first token, in seconds.
const TTFT: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
/// Its buckets of time between tokens.
const TOKEN: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
/// Its buckets of whole requests and their phases.
const REQUEST: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];

/// Counts of times by bucket.
#[derive(Debug)]
struct Histogram {
    name: &'static str,
    help: &'static str,
    bounds: &'static [f64],
    /// The same in nanoseconds.
    limits: Vec<Ns>,
    /// One more than bounds: the last one is above all.
    counts: Vec<u64>,
    sum: Ns,
}

impl Histogram {
    fn new(name: &'static str, bounds: &'static [f64], help: &'static str) -> Self {
        let limits = bounds.iter().map(|bound| from_seconds(*bound)).collect();
        Self { name, help, bounds, limits, counts: vec![0; bounds.len() + 1], sum: 0 }
    }

    fn observe(&mut self, value: Ns, times: u64) {
        let bucket = self.limits.partition_point(|limit| *limit < value);
        self.counts[bucket] += times;
        self.sum = self.sum.saturating_add(value.saturating_mul(times));
    }

    fn write(&self, out: &mut String, labels: &str) {
        head(out, self.name, "histogram", self.help);
        let name = self.name;
        let mut below = 0;
        for (bound, count) in self.bounds.iter().map(f64::to_string).chain(["+Inf".into()]).zip(&self.counts)
        {
            below += count;
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
        }
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", seconds(self.sum));
        let _ = writeln!(out, "{name}_count{{{labels}}} {below}");
    }
}

/// A request in flight.
#[derive(Debug)]
struct Open {
    submitted: Ns,
    scheduled: Option<Ns>,
    first: Option<Ns>,
    last: Ns,
    tokens: u64,
    prompt: u64,
    stops: bool,
}

/// Everything that is counted here rather than in the engine.
#[derive(Debug)]
pub(super) struct Metrics {
    labels: String,
    open: FxHashMap<RequestId, Open>,
    last: Ns,
    prompt_tokens: u64,
    generation_tokens: u64,
    /// By how they ended: stop, length, abort, error.
    ended: [u64; 4],
    ttft: Histogram,
    between: Histogram,
    per_output: Histogram,
    mean_output: Histogram,
    whole: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
}

const ENDED: [&str; 4] = ["stop", "length", "abort", "error"];

impl Metrics {
    pub(super) fn new(model: &str) -> Self {
        let model = model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let histogram = Histogram::new;
        Self {
            labels: format!("engine=\"0\",model_name=\"{model}\""),
            open: FxHashMap::default(),
            last: 0,
            prompt_tokens: 0,
            generation_tokens: 0,
            ended: [0; 4],
            ttft: histogram("vllm:time_to_first_token_seconds", TTFT, "Time to first token in seconds."),
            between: histogram(
                "vllm:inter_token_latency_seconds",
                TOKEN,
                "Time between two tokens of a request in seconds.",
            ),
            per_output: histogram(
                "vllm:time_per_output_token_seconds",
                TOKEN,
                "Time between two tokens of a request in seconds, by its older name.",
            ),
            mean_output: histogram(
                "vllm:request_time_per_output_token_seconds",
                TOKEN,
                "Mean time per output token of a request after its first, in seconds.",
            ),
            whole: histogram(
                "vllm:e2e_request_latency_seconds",
                REQUEST,
                "Time of a whole request in seconds.",
            ),
            queue: histogram("vllm:request_queue_time_seconds", REQUEST, "Time in the queue in seconds."),
            prefill: histogram(
                "vllm:request_prefill_time_seconds",
                REQUEST,
                "Time from leaving the queue to the first token in seconds.",
            ),
            decode: histogram(
                "vllm:request_decode_time_seconds",
                REQUEST,
                "Time from the first token to the last in seconds.",
            ),
        }
    }

    /// The last moment that was heard of.
    pub(super) fn last(&self) -> Ns {
        self.last
    }

    pub(super) fn submitted(&mut self, id: RequestId, at: Ns, recipe: &Recipe, stops: bool) {
        self.last = self.last.max(at);
        let open = Open {
            submitted: at,
            scheduled: None,
            first: None,
            last: at,
            tokens: 0,
            prompt: u64::from(recipe.prompt.tokens()),
            stops,
        };
        self.open.insert(id, open);
    }

    pub(super) fn scheduled(&mut self, id: RequestId, at: Ns) {
        self.last = self.last.max(at);
        if let Some(open) = self.open.get_mut(&id) {
            open.scheduled.get_or_insert(at);
            self.queue.observe(at.saturating_sub(open.submitted), 1);
        }
    }

    pub(super) fn tokens(&mut self, id: RequestId, at: Ns, gap: Ns, count: u32) {
        let Some(open) = self.open.get_mut(&id) else { return };
        let rest = u64::from(count.saturating_sub(1));
        if open.first.is_none() {
            open.first = Some(at);
            self.prompt_tokens += open.prompt;
            self.ttft.observe(at.saturating_sub(open.submitted), 1);
            if let Some(scheduled) = open.scheduled {
                self.prefill.observe(at.saturating_sub(scheduled), 1);
            }
        } else {
            let before = at.saturating_sub(open.last);
            self.between.observe(before, 1);
            self.per_output.observe(before, 1);
        }
        self.between.observe(gap, rest);
        self.per_output.observe(gap, rest);
        open.last = at.saturating_add(gap.saturating_mul(rest));
        open.tokens += u64::from(count);
        self.generation_tokens += u64::from(count);
        self.last = self.last.max(open.last);
    }

    /// A request ended. `stopped` says that its answer ended by itself, where that was not known from the start.
    pub(super) fn finished(&mut self, id: RequestId, at: Ns, outcome: Outcome, stopped: bool) {
        self.last = self.last.max(at);
        let Some(open) = self.open.remove(&id) else { return };
        let how = match outcome {
            Outcome::Success if open.stops || stopped => 0,
            Outcome::Success => 1,
            Outcome::Cancelled => 2,
            _ => 3,
        };
        self.ended[how] += 1;
        if how > 1 {
            return;
        }
        self.whole.observe(at.saturating_sub(open.submitted), 1);
        let decode = open.last.saturating_sub(open.first.unwrap_or(open.last));
        self.decode.observe(decode, 1);
        if let Some(mean) = decode.checked_div(open.tokens.saturating_sub(1)) {
            self.mean_output.observe(mean, 1);
        }
    }

    /// The page. What the engine does not know is left out.
    pub(super) fn page(&self, stats: &EngineStats, standing: Option<&Standing>) -> String {
        let mut out = String::with_capacity(16 << 10);
        let labels = &self.labels;
        if let Some(standing) = standing {
            let gauges = [
                ("vllm:num_requests_running", standing.running, "Requests that are being computed."),
                ("vllm:num_requests_waiting", standing.waiting, "Requests that wait to be computed."),
            ];
            for (name, value, help) in gauges {
                head(&mut out, name, "gauge", help);
                let _ = writeln!(out, "{name}{{{labels}}} {value}");
            }
            if let Some(kv) = standing.kv {
                let used = f64::from(kv.used_blocks) / f64::from(kv.total_blocks.max(1));
                let name = "vllm:kv_cache_usage_perc";
                head(&mut out, name, "gauge", "The share of the KV cache that is in use, from 0 to 1.");
                let _ = writeln!(out, "{name}{{{labels}}} {used}");
                let name = "vllm:cache_config_info";
                head(&mut out, name, "gauge", "The KV cache's settings, as labels.");
                let (size, blocks) = (kv.block_tokens, kv.total_blocks);
                let reuses = if kv.reuses { "True" } else { "False" };
                let settings = format!(
                    "block_size=\"{size}\",enable_prefix_caching=\"{reuses}\",num_gpu_blocks=\"{blocks}\""
                );
                let _ = writeln!(out, "{name}{{{labels},{settings}}} 1");
            }
        }
        let counters = [
            (
                "vllm:prompt_tokens_total",
                Some(self.prompt_tokens),
                "Prompt tokens that were computed or found.",
            ),
            ("vllm:generation_tokens_total", Some(self.generation_tokens), "Output tokens."),
            ("vllm:num_preemptions_total", stats.preempt_count, "Preemptions."),
            (
                "vllm:prefix_cache_queries_total",
                stats.prefix_queried_tokens,
                "Prompt tokens that were looked up in the prefix cache.",
            ),
            (
                "vllm:prefix_cache_hits_total",
                stats.prefix_hit_tokens,
                "Prompt tokens that were found in the prefix cache.",
            ),
            ("vllm:spec_decode_num_draft_tokens_total", stats.draft_tokens, "Draft tokens."),
            (
                "vllm:spec_decode_num_accepted_tokens_total",
                stats.accepted_tokens,
                "Draft tokens that were accepted.",
            ),
        ];
        for (name, value, help) in counters {
            if let Some(value) = value {
                head(&mut out, name, "counter", help);
                let _ = writeln!(out, "{name}{{{labels}}} {value}");
            }
        }
        let name = "vllm:request_success_total";
        head(&mut out, name, "counter", "Requests that ended, by why they did.");
        for (how, count) in ENDED.iter().zip(self.ended) {
            let _ = writeln!(out, "{name}{{{labels},finished_reason=\"{how}\"}} {count}");
        }
        let histograms = [
            &self.ttft,
            &self.between,
            &self.per_output,
            &self.mean_output,
            &self.whole,
            &self.queue,
            &self.prefill,
            &self.decode,
        ];
        for histogram in histograms {
            histogram.write(&mut out, labels);
        }
        out
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

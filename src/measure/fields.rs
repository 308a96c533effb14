//! The fields of a workload's flat result file, in order, and their schema.

use std::sync::LazyLock;

use schemars::{Schema, json_schema};
use serde_json::{Map, Value, json};

use crate::metric::{Kind, METRICS, Metric, Unit};

/// The type of a field. Every number may be null; then its name stands in `unavailable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A whole number, at least 0.
    Integer,
    /// A number.
    Number,
    /// A number from 0 to 1.
    Ratio,
    /// A text.
    Text,
    /// True or false.
    Flag,
    /// Two numbers: the ends of an interval.
    Interval,
    /// A map from name to whole number.
    Counts,
    /// A map from name to text.
    Reasons,
    /// A list of texts.
    Texts,
    /// A map from name to a number from 0 to 1, null where it is not known.
    Ratios,
    /// A map from name to what hooks recorded.
    Recorded,
}

/// One field of the flat result file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its key.
    pub name: String,
    /// Its type.
    pub of: Type,
    /// What it is.
    pub doc: String,
}

/// The predecessor's fields: first in every file, in this order, always present.
pub const CONTRACT: [(&str, Type); 22] = [
    ("avg_ttft_ms", Type::Number),
    ("p50_ttft_ms", Type::Number),
    ("p95_ttft_ms", Type::Number),
    ("p99_ttft_ms", Type::Number),
    ("avg_tbt_ms", Type::Number),
    ("avg_tpot_ms", Type::Number),
    ("avg_throughput_tps", Type::Number),
    ("peak_mem_mb", Type::Integer),
    ("avg_mem_mb", Type::Number),
    ("error_rate", Type::Ratio),
    ("total_requests", Type::Integer),
    ("successful_requests", Type::Integer),
    ("failed_requests", Type::Integer),
    ("kv_used_tokens", Type::Integer),
    ("kv_used_bytes", Type::Integer),
    ("prefix_hit_rate", Type::Ratio),
    ("evict_count", Type::Integer),
    ("evict_ms", Type::Number),
    ("spec_accept_rate", Type::Ratio),
    ("total_time_s", Type::Number),
    ("start_time", Type::Number),
    ("end_time", Type::Number),
];

/// The aggregations under which every metric of kind `Samples` stands in the file, and their quantiles.
pub(super) const AGGREGATIONS: [(&str, Aggregated); 6] = [
    ("avg", Aggregated::Mean),
    ("p50", Aggregated::Quantile(0.5)),
    ("p90", Aggregated::Quantile(0.9)),
    ("p95", Aggregated::Quantile(0.95)),
    ("p99", Aggregated::Quantile(0.99)),
    ("max", Aggregated::Max),
];

/// How many values become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Aggregated {
    Mean,
    Quantile(f64),
    Max,
}

/// What the file says about itself.
const HEADER: [(&str, Type, &str); 9] = [
    ("schema_version", Type::Integer, "The version of this file's format."),
    ("workload", Type::Text, "The workload's full name."),
    ("backend", Type::Text, "The backend's name."),
    ("model", Type::Text, "The model's name."),
    ("clock", Type::Text, "`virtual` (simulated time) or `real`."),
    ("sample_count", Type::Integer, "Successful requests: the samples behind TTFT, TPOT and E2E."),
    ("percentile_method", Type::Text, "How percentiles are taken."),
    ("unavailable", Type::Reasons, "Why a field is null: its name and the reason."),
    ("warnings", Type::Texts, "What to know before trusting a number."),
];

/// What is neither in the contract nor in the table of metrics.
const REST: [(&str, Type, &str); 20] = [
    ("p50_itl_ms", Type::Number, "Inter-token latency, the same as `p50_tbt_ms`."),
    ("p90_itl_ms", Type::Number, "Inter-token latency, the same as `p90_tbt_ms`."),
    ("p95_itl_ms", Type::Number, "Inter-token latency, the same as `p95_tbt_ms`."),
    ("p99_itl_ms", Type::Number, "Inter-token latency, the same as `p99_tbt_ms`."),
    ("max_itl_ms", Type::Number, "Inter-token latency, the same as `max_tbt_ms`."),
    ("tbt_sample_count", Type::Integer, "Gaps between tokens: the samples behind TBT."),
    (
        "ttft_ci95_ms",
        Type::Interval,
        "Two order statistics of TTFT that enclose its median with at least 95 % probability, whatever the distribution.",
    ),
    ("total_prompt_tokens", Type::Integer, "Prompt tokens of successful requests."),
    ("total_output_tokens", Type::Integer, "Output tokens that came, of every measured request."),
    ("total_tokens", Type::Integer, "`total_prompt_tokens` plus `total_output_tokens`."),
    ("avg_asked_tokens", Type::Number, "Output tokens asked for, per successful request."),
    (
        "length_mismatches",
        Type::Integer,
        "Successful requests whose length was forced and came out otherwise.",
    ),
    ("errors", Type::Counts, "Failed requests by kind."),
    ("warmup_requests", Type::Integer, "Requests sent to warm up; they are in no metric."),
    ("skipped_requests", Type::Integer, "Requests never sent, because the one they follow failed."),
    ("interrupted_requests", Type::Integer, "Requests in flight when the run was interrupted."),
    ("trace_rows_skipped", Type::Integer, "Rows of a trace that were left out as too long."),
    ("repeats", Type::Integer, "How many plays of the workload are pooled here."),
    ("seed", Type::Integer, "The seed of the plan."),
    (
        "schedule_digest",
        Type::Text,
        "What two runs must share to be comparable: lengths, load law, arrivals, groups, sampling.",
    ),
];

/// What checks and hooks found.
const CHECKS: [(&str, Type, &str); 3] = [
    (
        "checked_responses",
        Type::Integer,
        "Responses that the checks looked at: those of successful requests.",
    ),
    (
        "check_pass_rates",
        Type::Ratios,
        "For each check by name, the responses that passed it, divided by those that were checked.",
    ),
    (
        "custom_metrics",
        Type::Recorded,
        "For each metric that the scenario declares, what hooks recorded: one value for each request.",
    ),
];

/// The last fields of the file.
const CLOSING: [(&str, Type, &str); 3] = [
    ("content_digest", Type::Text, "Prompt sources, the generator's version and the tokenizer."),
    ("valid", Type::Flag, "Whether the measurement itself can be trusted."),
    ("invalid_reasons", Type::Texts, "Why not, and what to do."),
];

/// Every field of the flat result file, in order.
pub fn fields() -> &'static [Field] {
    static FIELDS: LazyLock<Vec<Field>> = LazyLock::new(all);
    &FIELDS
}

fn all() -> Vec<Field> {
    let mut fields: Vec<Field> = CONTRACT
        .iter()
        .map(|(name, of)| Field { name: (*name).into(), of: *of, doc: contract_doc(name) })
        .collect();
    let fixed = |rows: &[(&str, Type, &str)]| -> Vec<Field> {
        rows.iter()
            .map(|(name, of, doc)| Field { name: (*name).into(), of: *of, doc: (*doc).into() })
            .collect()
    };
    fields.extend(fixed(&HEADER));
    for metric in METRICS {
        for field in of_metric(metric) {
            if fields.iter().all(|known| known.name != field.name) {
                fields.push(field);
            }
        }
    }
    fields.extend(fixed(&REST));
    fields.extend(fixed(&CHECKS));
    fields.extend(fixed(&CLOSING));
    fields
}

fn of_metric(metric: &Metric) -> Vec<Field> {
    if metric.kind == Kind::Samples {
        let aggregated = AGGREGATIONS.iter().map(|(aggregation, _)| Field {
            name: metric.flat_of(aggregation),
            of: Type::Number,
            doc: format!("{aggregation} of: {}", metric.doc),
        });
        return aggregated.collect();
    }
    let of = match metric.unit {
        Unit::Ratio => Type::Ratio,
        Unit::Bytes | Unit::Tokens | Unit::Count => Type::Integer,
        _ => Type::Number,
    };
    vec![Field { name: metric.flat(), of, doc: metric.doc.into() }]
}

fn contract_doc(name: &str) -> String {
    match name {
        "start_time" => {
            return "When measuring started: Unix seconds on the real clock, 0 on the virtual one.".into();
        }
        "end_time" => {
            return "When measuring ended; on the virtual clock `start_time` plus `total_time_s`.".into();
        }
        _ => {}
    }
    METRICS
        .iter()
        .flat_map(of_metric)
        .find(|field| field.name == name)
        .map(|field| field.doc)
        .unwrap_or_default()
}

/// The JSON Schema of a workload's flat result file, from [`fields`].
pub fn metrics_schema() -> Schema {
    let mut properties = Map::new();
    let fields = fields();
    for field in fields {
        let mut schema = match field.of {
            Type::Integer => json!({ "type": ["integer", "null"], "minimum": 0 }),
            Type::Number => json!({ "type": ["number", "null"] }),
            Type::Ratio => json!({ "type": ["number", "null"], "minimum": 0, "maximum": 1 }),
            Type::Text => json!({ "type": "string" }),
            Type::Flag => json!({ "type": "boolean" }),
            Type::Interval => {
                json!({ "type": ["array", "null"], "items": { "type": "number" }, "minItems": 2, "maxItems": 2 })
            }
            Type::Counts => {
                json!({ "type": "object", "additionalProperties": { "type": "integer", "minimum": 1 } })
            }
            Type::Reasons => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            Type::Texts => json!({ "type": "array", "items": { "type": "string" } }),
            Type::Ratios => json!({
                "type": "object",
                "additionalProperties": { "type": ["number", "null"], "minimum": 0, "maximum": 1 },
            }),
            Type::Recorded => recorded_schema(),
        };
        schema["description"] = Value::String(field.doc.clone());
        properties.insert(field.name.clone(), schema);
    }
    let required: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Metrics",
        "description": "The metrics of one workload: a flat object. A value that is not known is null, and `unavailable` says why.",
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// What stands under the name of one metric that hooks recorded.
fn recorded_schema() -> Value {
    let mut properties = Map::new();
    properties.insert(
        "unit".into(),
        json!({ "type": "string", "description": "The unit; empty for a plain number." }),
    );
    properties.insert(
        "count".into(),
        json!({ "type": "integer", "minimum": 0, "description": "Requests with a value." }),
    );
    for name in AGGREGATIONS.iter().map(|(name, _)| *name).chain(["sum"]) {
        let description = format!("{name} over the requests.");
        properties.insert(name.into(), json!({ "type": ["number", "null"], "description": description }));
    }
    let required: Vec<String> = properties.keys().cloned().collect();
    let one = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    json!({ "type": "object", "additionalProperties": one })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_of_metrics_has_its_fields() {
        let names: Vec<String> = fields().iter().map(|field| field.name.clone()).collect();
        for metric in METRICS {
            if metric.kind == Kind::Samples {
                for aggregation in ["avg", "p50", "p90", "p95", "p99", "max"] {
                    assert!(names.contains(&metric.flat_of(aggregation)), "{aggregation} {}", metric.name);
                }
            } else {
                assert!(names.contains(&metric.flat()), "{}", metric.name);
            }
        }
    }

    #[test]
    fn no_field_stands_twice_and_each_has_a_doc() {
        let fields = fields();
        let mut names: Vec<_> = fields.iter().map(|field| &field.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), fields.len());
        assert_eq!(fields.iter().find(|field| field.doc.is_empty()), None);
    }

    #[test]
    fn the_contract_comes_first() {
        let first: Vec<String> = fields().iter().take(22).map(|field| field.name.clone()).collect();
        let contract = "avg_ttft_ms p50_ttft_ms p95_ttft_ms p99_ttft_ms avg_tbt_ms avg_tpot_ms avg_throughput_tps \
            peak_mem_mb avg_mem_mb error_rate total_requests successful_requests failed_requests kv_used_tokens \
            kv_used_bytes prefix_hit_rate evict_count evict_ms spec_accept_rate total_time_s start_time end_time";
        assert_eq!(first.join(" "), contract);
    }
}

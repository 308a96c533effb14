//! What checks and hooks found, over a cell's requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::fields::{AGGREGATIONS, Aggregated};
use super::{Distribution, Samples, rounded};
use crate::metric::Metric;
use crate::record::Record;

/// How many failures of a check are shown.
const SHOWN: usize = 3;

/// What one check of a workload came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckReport {
    /// Its name.
    pub name: String,
    /// Its kind, such as `json`.
    pub kind: String,
    /// Responses that it looked at: those of successful requests.
    pub checked: u64,
    /// Responses that passed it.
    pub passed: u64,
    /// `passed` divided by `checked`; `None` where it looked at none.
    pub pass_rate: Option<f64>,
    /// The first responses that did not pass.
    pub failures: Vec<FailedResponse>,
}

/// A response that a check did not let pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FailedResponse {
    /// The request's number in the plan.
    pub index: u64,
    /// Why.
    pub reason: String,
    /// The start of the response.
    pub text: String,
}

/// Each check with what it came to. `checks` are names and kinds in the order of the plan.
pub fn check_reports(samples: &Samples, checks: &[(String, String)]) -> Vec<CheckReport> {
    let found: Vec<&Record> = samples.records().iter().filter(|record| record.checked.is_some()).collect();
    let report = |(at, (name, kind)): (usize, &(String, String))| {
        let passed = found.iter().filter(|record| record.passes(at)).count() as u64;
        let checked = found.len() as u64;
        let failures = found.iter().flat_map(|record| {
            let own = record.checked.iter().flat_map(|checked| &checked.failures);
            own.filter(|failure| usize::from(failure.check) == at).map(|failure| FailedResponse {
                index: record.index,
                reason: failure.reason.clone(),
                text: failure.text.clone(),
            })
        });
        CheckReport {
            name: name.clone(),
            kind: kind.clone(),
            checked,
            passed,
            pass_rate: (checked > 0).then(|| rounded(passed as f64 / checked as f64)),
            failures: failures.take(SHOWN).collect(),
        }
    };
    checks.iter().enumerate().map(report).collect()
}

/// What hooks recorded: for each metric its unit and its aggregations, null where nothing was recorded.
pub(super) fn recorded(samples: &Samples, declared: &[&'static Metric]) -> Value {
    let all = declared.iter().map(|metric| {
        let values = samples.values(metric);
        let sum: f64 = values.iter().sum();
        let values = Distribution::of(values);
        let number = |value: Option<f64>| value.map(rounded);
        let mut fields = Map::new();
        fields.insert("unit".into(), metric.unit.symbol().into());
        fields.insert("count".into(), json!(values.count()));
        for (name, how) in AGGREGATIONS {
            let value = match how {
                Aggregated::Mean => values.mean(),
                Aggregated::Quantile(q) => values.quantile(q),
                Aggregated::Max => values.max(),
            };
            fields.insert(name.into(), json!(number(value)));
        }
        fields.insert("sum".into(), json!(number((values.count() > 0).then_some(sum))));
        (metric.name.to_owned(), Value::Object(fields))
    });
    Value::Object(all.collect())
}

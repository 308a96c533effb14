//! The scenario as written: every field of the language. Doc comments here are the user manual.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backend::config::Backend;
use crate::check::config::Check;
use crate::gate::config::{Baseline, Gates, ValidityRules};
use crate::hook::config::{CustomMetric, Hooks};
use crate::metric::Metric;
use crate::plan::config::{Cache, Cancel, Group, Load, Member, Output, Prompt, Tags, Warmup};
use crate::report::config::{Records, ReportFile};
use crate::units::Duration;

/// A benchmark: which workloads are played against which backends, and when the result passes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Only for editors that read the schema's address from the file.
    #[serde(default, rename = "$schema", skip_serializing)]
    pub schema: Option<String>,
    /// The version of the scenario language; this is 1.
    #[schemars(extend("const" = 1))]
    pub version: u32,
    /// The scenario's name. Default: the file's name without its extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is for, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Another scenario file that this one builds on, relative to this file. Maps merge; scalars and lists are replaced.
    #[serde(default, skip_serializing)]
    #[schemars(extend("examples" = ["base.yaml"]))]
    pub extends: Option<String>,
    /// Seeds every draw. The same scenario and seed give the same plan everywhere. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// The backends by name.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z0-9_.-]+$"}, "minProperties" = 1))]
    pub backends: IndexMap<String, Backend>,
    /// Which backend runs, or a list of them. Default: the only one there is. `--backend` picks another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendChoice>,
    /// What every workload starts from: a workload's own keys go over it.
    #[serde(default, skip_serializing)]
    #[schemars(with = "Option<Workload>")]
    pub defaults: Option<Value>,
    /// The workloads by name; they run one after another in this order, but for those of a group under `parallel`.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z0-9_.-]+$"}, "minProperties" = 1))]
    pub workloads: IndexMap<String, Workload>,
    /// Groups of workloads that run at once on one backend, by name: `mixed: { chat: { start: 30s }, batch: { until: chat } }`.
    /// Each workload has its own metrics and rules; the group's name stands for all of them pooled, beside them in every
    /// report, and in rules that name it. What only the engine counts (its cache, its batches, its memory) is known of the
    /// group alone. A workload is in one group at most, has no matrix and does not search, and all of a group have the
    /// same `repeats`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z0-9_.-]+$"}))]
    pub parallel: IndexMap<String, Group>,
    /// Functions that make prompts, change requests and judge responses. A workload's own hooks replace them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// The metrics that hooks record, by name: `record("lines", 3)` in `check(req, res)` adds to the metric `lines`, which
    /// rules and reports then know.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub metrics: IndexMap<String, CustomMetric>,
    /// The limits one request must keep to count for goodput, such as `ttft <= 500ms`. A workload's own list replaces it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("examples" = [["ttft <= 500ms", "tpot <= 30ms"]]))]
    pub slo: Vec<String>,
    /// When the run passes.
    #[serde(default)]
    pub gates: Gates,
    /// Results of earlier runs by name, for rules such as `avg(tpot) <= main + 5%`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z0-9_.-]+$"}))]
    pub baselines: IndexMap<String, Baseline>,
    /// What makes a run invalid.
    #[serde(default)]
    pub validity: ValidityRules,
    /// How much of each request is kept. Default `requests`.
    #[serde(default, skip_serializing_if = "Records::is_default")]
    pub records: Records,
    /// Reports beside the standard ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reports: Vec<ReportFile>,
}

impl Scenario {
    /// The place of a workload in its group, and what that says of it; `None` outside groups.
    pub fn member(&self, workload: &str) -> Option<(usize, &Member)> {
        self.parallel.values().find_map(|group| {
            let (at, _, member) = group.get_full(workload)?;
            Some((at, member))
        })
    }

    /// The metrics that it declares, in order.
    pub fn custom_metrics(&self) -> Vec<&'static Metric> {
        let places = self.metrics.iter().zip(0..);
        places.map(|((name, metric), place)| metric.metric(place, name)).collect()
    }
}

/// One backend's name or a list of names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct BackendChoice(pub Vec<String>);

impl<'de> Deserialize<'de> for BackendChoice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let list = if value.is_string() { Value::Array(vec![value]) } else { value };
        serde_json::from_value(list).map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for BackendChoice {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BackendChoice".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "One backend's name or a list of names.",
            "oneOf": [
                { "type": "string", "description": "The backend that runs." },
                { "type": "array", "items": { "type": "string" }, "minItems": 1, "uniqueItems": true, "description": "The backends that run, one after another." },
            ],
        })
    }
}

/// One kind of traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "prompt": { "kind": "synthetic", "tokens": 512 }, "output": { "tokens": 128 }, "load": { "kind": "open", "rate": "8/s", "duration": "60s" } }]))]
pub struct Workload {
    /// What it is for, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where prompts come from.
    pub prompt: Prompt,
    /// How long answers are. A trace supplies its own lengths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// How requests are sent.
    pub load: Load,
    /// What is sent before measuring starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Warmup>,
    /// The longest that one request may take, from when it is sent. Default 10m.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// The longest that the whole workload may take; what is in flight then is cut off and counts as timed out, and what was not yet sent is not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_timeout: Option<Duration>,
    /// Play the workload so many times, each with draws of its own. Default 1.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 1000))]
    pub repeats: u32,
    /// Send a request that failed again, so many times at most: where no connection could be opened or it broke before the
    /// answer, on HTTP 429, 408 and 5xx. The next attempt waits as long as the server's `Retry-After` asks, and at least half
    /// a second, which doubles with each attempt up to 8 s (up to a quarter less, drawn from the seed). All attempts are one
    /// request: it keeps its place in the load, its latency counts from the first attempt, its `timeout` covers all of them,
    /// and how often it was sent is in `requests.jsonl` and in the report. Default 0: a failure is a failure.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(max = 100))]
    pub retries: u32,
    /// What is expected of each response. A check that no rule names must pass every time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub expect: Vec<Check>,
    /// Functions that make prompts, change requests and judge responses; they replace the scenario's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Requests that the client gives up on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Cancel>,
    /// What a server's prefix cache knows before: `cold` (the default), so that a second run measures what the first did,
    /// or `keep`. A mock starts cold.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cache: Cache,
    /// Free labels that rules (`where`) and reports can use.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("examples" = [{ "tier": "gold" }]))]
    pub tags: Tags,
    /// The limits one request must keep to count for goodput; replaces the scenario's own list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [["ttft <= 500ms", "tpot <= 30ms"]]))]
    pub slo: Option<Vec<String>>,
    /// Run the workload at several points: a list of axes that multiply; the keys inside one axis walk together.
    #[serde(default, skip_serializing)]
    #[schemars(with = "Option<Vec<IndexMap<String, AxisValues>>>", length(min = 1), extend("examples" = [[{ "load.concurrency": [1, 4, 16] }, { "prompt.tokens": [128, 1024], "output.tokens": [128, 256] }]]))]
    pub matrix: Option<Value>,
}

/// The values of one key of a matrix axis, or a map of longer paths (TOML's dotted keys).
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used: the matrix is expanded on the tree, before typing")]
enum AxisValues {
    /// The values, in order.
    List(Vec<Value>),
    /// Longer paths.
    Nested(IndexMap<String, Value>),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn default_timeout() -> Duration {
    Duration(600 * crate::units::SECOND)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn once() -> u32 {
    1
}

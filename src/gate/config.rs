//! What a scenario says about its verdict. Doc comments here are the user manual.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Duration;

/// When the run passes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("examples" = [{ "confidence": "none", "rules": ["p99(ttft) < 80ms", "error_rate <= 1%"] }]))]
pub struct Gates {
    /// How sure a verdict about a quantile or a rate must be, such as `95%`; `none` lets the point value decide.
    /// Deterministic runs (mock on the virtual clock) are judged exactly whatever stands here. Default `95%`.
    pub confidence: Confidence,
    /// What an inconclusive rule does to the run. Default `warn`.
    pub inconclusive: Inconclusive,
    /// Let a rule with a reference decide even where each side is a single run. How much runs differ is not known then: two
    /// runs of the same thing are often further apart than what they hold suggests, so such a rule only warns. Default false.
    pub allow_single_run: bool,
    /// The rules.
    pub rules: Vec<GateRule>,
}

/// A confidence level, or `none`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Confidence {
    /// The point value decides.
    None,
    /// Between 0.5 and 1, exclusive.
    Level(f64),
}

impl Default for Confidence {
    fn default() -> Self {
        Self::Level(0.95)
    }
}

impl Serialize for Confidence {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Level(level) => serializer.serialize_f64(*level),
        }
    }
}

impl<'de> Deserialize<'de> for Confidence {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let value = serde_json::Value::deserialize(deserializer)?;
        if value == "none" {
            return Ok(Self::None);
        }
        let ratio: crate::units::Ratio = serde_json::from_value(value.clone())
            .map_err(|_| D::Error::custom(format!("{value} is no confidence; write 95% or none")))?;
        if ratio.0 > 0.5 && ratio.0 < 1.0 {
            Ok(Self::Level(ratio.0))
        } else {
            Err(D::Error::custom(format!(
                "{value} is no confidence; it lies above 50% and below 100%, such as 95%"
            )))
        }
    }
}

impl JsonSchema for Confidence {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Confidence".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["number", "string"],
            "exclusiveMinimum": 0.5,
            "exclusiveMaximum": 1,
            "pattern": r"^(none|[0-9]+(\.[0-9]+)?%)$",
            "description": "A confidence level such as 95%, or none.",
            "examples": ["95%", "none"],
        })
    }
}

/// What an inconclusive rule does to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Inconclusive {
    /// Nothing.
    Pass,
    /// It is said, and the run still passes.
    #[default]
    Warn,
    /// The run ends with exit code 4.
    Fail,
}

/// One rule, as text or as a map with options.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateRule {
    /// The rule, such as `p99(ttft) < 80ms`.
    pub rule: String,
    /// The workloads it is judged for, each on its own. Default: every one. A name stands for all its matrix points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workloads: Option<WorkloadScope>,
    /// The backends it is judged for. Default: every one that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<String>>,
    /// Whether a violation fails the run.
    pub severity: Severity,
    /// What a metric without a value does.
    pub no_data: NoData,
    /// Overrides the confidence of all gates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// Whether a violation that is certain before the end stops the run.
    pub abort_on_fail: bool,
    /// From when on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_after: Option<Duration>,
}

/// The map form of a rule.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "GateRuleMap")]
#[schemars(extend("examples" = [{ "rule": "p95(ttft) <= 400ms", "workloads": ["chat"], "severity": "warn" }, { "rule": "peak_mem <= 32GiB", "no_data": "skip" }]))]
struct GateRuleMap {
    /// The rule, such as `p99(ttft) < 80ms`.
    rule: String,
    /// The workloads it is judged for, each on its own; `all` pools every workload into one sample. Default: every workload on its own. A name stands for all its matrix points.
    #[serde(default)]
    workloads: Option<WorkloadScope>,
    /// The backends it is judged for. Default: every one that runs.
    #[serde(default)]
    backends: Option<Vec<String>>,
    /// Whether a violation fails the run. Default `fail`.
    #[serde(default)]
    severity: Severity,
    /// What a metric without a value does. Default `fail`.
    #[serde(default)]
    no_data: NoData,
    /// Overrides the confidence of all gates for this rule.
    #[serde(default)]
    confidence: Option<Confidence>,
    /// Stop the run as soon as it is certain that this rule fails; what was measured until then is reported. A count, an
    /// extreme or a rate of 0 % is certain at the first event that breaks it. A quantile, share or rate is watched by a
    /// test that stays honest however often it looks: it stops a healthy run at most once in a hundred. Default false.
    #[serde(default)]
    abort_on_fail: bool,
    /// Do not stop the workload for this rule before so much of it was measured, such as `10s`. Default: at once.
    #[serde(default)]
    abort_after: Option<Duration>,
}

impl<'de> Deserialize<'de> for GateRule {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if let serde_json::Value::String(rule) = value {
            return Ok(Self {
                rule,
                workloads: None,
                backends: None,
                severity: Severity::default(),
                no_data: NoData::default(),
                confidence: None,
                abort_on_fail: false,
                abort_after: None,
            });
        }
        let map: GateRuleMap = serde_json::from_value(value).map_err(serde::de::Error::custom)?;
        Ok(Self {
            rule: map.rule,
            workloads: map.workloads,
            backends: map.backends,
            severity: map.severity,
            no_data: map.no_data,
            confidence: map.confidence,
            abort_on_fail: map.abort_on_fail,
            abort_after: map.abort_after,
        })
    }
}

impl JsonSchema for GateRule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GateRule".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let map = GateRuleMap::json_schema(generator);
        schemars::json_schema!({ "description": "One rule, as text or as a map with options.", "oneOf": [
            { "type": "string", "description": "A rule, such as `p99(ttft) < 80ms`.", "examples": ["p99(ttft) < 80ms", "error_rate <= 1%"] },
            map,
        ] })
    }
}

/// Which workloads a rule is judged for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkloadScope {
    /// Each of these on its own.
    Named(Vec<String>),
    /// All pooled into one sample.
    All,
}

impl Serialize for WorkloadScope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(names) => names.serialize(serializer),
            Self::All => serializer.serialize_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for WorkloadScope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if value == "all" {
            return Ok(Self::All);
        }
        serde_json::from_value(value)
            .map(Self::Named)
            .map_err(|_| serde::de::Error::custom("a list of workload names, or `all`"))
    }
}

impl JsonSchema for WorkloadScope {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WorkloadScope".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Which workloads a rule is judged for.",
            "oneOf": [
                { "type": "string", "enum": ["all"], "description": "All workloads pooled into one sample." },
                { "type": "array", "items": { "type": "string" }, "minItems": 1, "description": "Each of these workloads on its own." },
            ],
        })
    }
}

/// Whether a violation fails the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The run fails with exit code 99.
    #[default]
    Fail,
    /// It is said, and the run still passes.
    Warn,
}

/// What a metric without a value does to its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoData {
    /// The rule fails.
    #[default]
    Fail,
    /// It is said, and the run still passes.
    Warn,
    /// The rule is left out.
    Skip,
}

/// Results of an earlier run that rules can refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "path": "baselines/main.json", "missing": "skip" }]))]
pub struct Baseline {
    /// The file that `sagebench baseline save` wrote, relative to this file.
    pub path: std::path::PathBuf,
    /// What happens to rules that refer to it while the file does not exist: `fail` refuses to run, `skip` leaves them
    /// out, as on the first night of a nightly gate. Default `fail`.
    #[serde(default)]
    pub missing: Missing,
}

/// What a baseline that does not exist does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Nothing runs.
    #[default]
    Fail,
    /// Rules that refer to it are left out, and the report says so.
    Skip,
}

/// What each threat to a run's validity does: `fail` makes the workload INVALID (exit code 5), `warn` says so, `off` does not look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("examples" = [{ "steady_state": "off", "rate": "warn" }]))]
pub struct ValidityRules {
    /// The client sent requests late: p99 of sent − due (without `cap_wait` and opening a connection) over 1 ms or 5 % of the median TTFT, whichever is more.
    /// With fewer than 100 requests it only warns. Never on the virtual clock. Default `fail`.
    pub lag: Threat,
    /// The threads that send and stamp had no processor to spare: the busiest ran for over 90 % of the time, or when one had
    /// something to do it waited for a processor on average for over 1 ms or 5 % of the median TTFT, whichever is more. The
    /// threads that compute a model here are not among them. With fewer than 100 requests it only warns. On Linux, never on
    /// the virtual clock. Default `fail`.
    pub busy: Threat,
    /// The host of this virtual machine gave over 5 % of its processor time to others. On Linux, never on the virtual clock.
    /// Default `warn`.
    pub steal: Threat,
    /// When the last request of an open load was due, fewer than 95 % of all that were due had been sent: the load was not
    /// the one that was planned. What waited under `max_in_flight`, and what was never to be sent, is not missing. Looked at
    /// from 100 requests on. Never on the virtual clock. Default `fail`.
    pub rate: Threat,
    /// The latency of a constant load had not settled: MSER-5 would cut more than a third of the requests. Looked at from 200
    /// requests on; only for closed and open loads, whose pressure is constant. Nothing is ever cut. Default `warn`.
    pub steady_state: Threat,
    /// Of the successful requests whose length was forced, more than 1 % came out otherwise, so that two runs are not of
    /// the same work. Lengths that a fault changed on purpose do not count. Default `fail`.
    pub length: Threat,
    /// A server found more prompt tokens in its prefix cache than the planned prompts share, although the cache was to be
    /// cold: it was warm from before, or others use it too. Default `warn`.
    pub cache: Threat,
    /// The mean number of requests in flight is more than 5 % off the rate times the mean end-to-end time (Little's law), in a
    /// run long enough for it to hold: something in the measurement itself is wrong. Default `warn`.
    pub littles_law: Threat,
}

impl Default for ValidityRules {
    fn default() -> Self {
        Self {
            lag: Threat::Fail,
            busy: Threat::Fail,
            steal: Threat::Warn,
            rate: Threat::Fail,
            steady_state: Threat::Warn,
            length: Threat::Fail,
            cache: Threat::Warn,
            littles_law: Threat::Warn,
        }
    }
}

/// What a threat to validity does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Threat {
    /// The workload is INVALID and its gates are not judged.
    Fail,
    /// It is said.
    Warn,
    /// It is not looked for.
    Off,
}

//! A scenario while it is being put together.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::words::Flags;

/// What is known of the scenario. Values are JSON, which is YAML.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) kind: &'static str,
    pub(super) backend: Map<String, Value>,
    pub(super) prompt: Value,
    pub(super) output: Map<String, Value>,
    pub(super) load: Map<String, Value>,
    /// One axis of the matrix: its path and its values.
    pub(super) axis: Option<(&'static str, Vec<Value>)>,
    pub(super) warmup: Option<u64>,
    pub(super) timeout: Option<String>,
    pub(super) seed: Option<u64>,
    pub(super) slo: Vec<String>,
    notes: Vec<(String, String)>,
}

impl Draft {
    /// Says of a flag why it stands nowhere in the scenario.
    pub(super) fn note(&mut self, flag: &str, why: &str) {
        self.notes.push((flag.to_owned(), why.to_owned()));
    }

    /// Says so of every flag of a list that stands in the command line.
    pub(super) fn leave_out(&mut self, flags: &mut Flags, names: &[&str], why: &str) {
        for name in names {
            if let Some(values) = flags.values(&[name]) {
                let flag = std::iter::once(format!("--{name}")).chain(values).collect::<Vec<_>>().join(" ");
                self.note(&flag, why);
            }
        }
    }

    /// Fields of each request's JSON.
    pub(super) fn extra(&mut self, name: &str, value: Value) {
        let extra = self.output.entry("extra").or_insert_with(|| json!({}));
        extra[name] = value;
    }

    /// A closed loop.
    pub(super) fn closed(&mut self, concurrency: u64) {
        self.load.insert("kind".into(), json!("closed"));
        self.load.insert("concurrency".into(), json!(concurrency.max(1)));
    }

    /// An open loop at a rate per second.
    pub(super) fn open(&mut self, rate: f64, arrival: Value, cap: Option<u64>) {
        self.load.insert("kind".into(), json!("open"));
        self.load.insert("rate".into(), json!(per_second(rate)));
        self.load.insert("arrival".into(), arrival);
        self.load.extend(cap.map(|cap| ("max_in_flight".to_owned(), json!(cap))));
    }

    /// The scenario as a file.
    pub(super) fn text(&self, line: &str) -> String {
        let mut text = format!("# Made from: {}\n", line.trim());
        if !self.notes.is_empty() {
            text.push_str("#\n# What differs, and what has no equal here:\n");
        }
        for (flag, why) in &self.notes {
            let flag = flag.replace('\n', " ");
            let _ = writeln!(text, "#   {flag}: {why}");
        }
        text.push_str("version: 1\n");
        if let Some(seed) = self.seed {
            let _ = writeln!(text, "seed: {seed}");
        }
        let _ = writeln!(text, "\nbackends:\n  server:\n    kind: {}", self.kind);
        for (key, value) in &self.backend {
            let _ = writeln!(text, "    {key}: {value}");
        }
        text.push_str("  # The same work on a simulated server: `--backend mock`.\n  mock: { kind: mock, ttft: 50ms, tbt: 10ms }\nbackend: server\n");
        let _ = writeln!(text, "\nworkloads:\n  bench:\n    prompt: {}", flow(&self.prompt));
        if !self.output.is_empty() {
            let _ = writeln!(text, "    output: {}", flow(&Value::Object(self.output.clone())));
        }
        let _ = writeln!(text, "    load: {}", flow(&Value::Object(self.load.clone())));
        if let Some(warmup) = self.warmup.filter(|warmup| *warmup > 0) {
            let _ = writeln!(text, "    warmup: {{ requests: {warmup} }}");
        }
        if let Some(timeout) = &self.timeout {
            let _ = writeln!(text, "    timeout: {timeout}");
        }
        if let Some((path, values)) = &self.axis {
            let values: Vec<String> = values.iter().map(flow).collect();
            let _ = writeln!(text, "    matrix:\n      - {{ {path}: [{}] }}", values.join(", "));
        }
        if !self.slo.is_empty() {
            let limits: Vec<String> = self.slo.iter().map(|limit| json!(limit).to_string()).collect();
            let _ = writeln!(text, "\nslo: [{}]", limits.join(", "));
        }
        text.push_str("\n# What must hold beside `error_rate <= 1%`, which holds by itself:\n# gates:\n#   rules:\n#     - p99(ttft) <= 500ms\n");
        text
    }
}

/// A value on one line, with words unquoted where YAML reads them back as they are.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a text means itself without quotes.
fn is_plain(text: &str) -> bool {
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c))
        && text.parse::<f64>().is_err()
        && !words.contains(&text.to_lowercase().as_str())
}

/// `8/s`.
pub(super) fn per_second(rate: f64) -> String {
    format!("{rate}/s")
}

/// So many tokens, or so many by a uniform law of this relative width: `range` 0.5 is half to one and a half.
pub(super) fn around(tokens: u64, range: f64) -> Value {
    let (low, high) = (tokens as f64 * (1.0 - range), tokens as f64 * (1.0 + range));
    between(low as u64, high as u64)
}

/// Tokens from a least to a most.
pub(super) fn between(low: u64, high: u64) -> Value {
    let low = low.max(1);
    if low >= high { json!(low) } else { json!({ "kind": "uniform", "min": low, "max": high }) }
}

/// Tokens by a normal law.
pub(super) fn normal(mean: u64, std: f64) -> Value {
    if std >= 0.5 {
        json!({ "kind": "normal", "mean": mean, "std": libm::round(std) as u64, "min": 1 })
    } else {
        json!(mean)
    }
}

/// The address of the API: what the tool appends itself is left out.
pub(super) fn base_url(url: &str) -> String {
    let url = url.trim_end_matches('/');
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    if path.is_empty() { format!("{url}/v1") } else { url }
}

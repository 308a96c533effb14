//! Reads recorded requests from JSON lines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::{CalibrateError, Recorded, Request};
use crate::sample::{FileError, Lines, json_fault};
use crate::units::Ns;

/// The unit of recorded times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl Unit {
    fn nanoseconds(self) -> f64 {
        match self {
            Self::S => 1e9,
            Self::Ms => 1e6,
            Self::Us => 1e3,
            Self::Ns => 1.0,
        }
    }
}

/// Which key of a row holds what. The defaults are those of this program's `requests.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// When the request reached the server.
    pub arrival: String,
    /// Tokens of the prompt.
    pub prompt: String,
    /// Tokens of the answer.
    pub output: String,
    /// When the first token came.
    pub first: String,
    /// When the last one came.
    pub last: String,
    /// A list of block ids of the prompt, where there is one.
    pub blocks: Option<String>,
    /// Tokens in one of these blocks.
    pub block_tokens: u32,
    /// The unit of the times.
    pub unit: Unit,
    /// Only rows whose `workload` is this.
    pub workload: Option<String>,
    /// Only rows whose `backend` is this.
    pub backend: Option<String>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            arrival: "sent_ms".into(),
            prompt: "prompt_tokens".into(),
            output: "output_tokens".into(),
            first: "first_ms".into(),
            last: "end_ms".into(),
            blocks: None,
            block_tokens: 16,
            unit: Unit::Ms,
            workload: None,
            backend: None,
        }
    }
}

impl Fields {
    /// Sets the key of one role, `arrival=queued_ts`.
    ///
    /// # Errors
    /// When it has another form or names no role.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let roles = "arrival, prompt, output, first, last, blocks";
        let Some((role, key)) = text.split_once('=').filter(|(_, key)| !key.is_empty()) else {
            return Err(format!("`{text}` is no field: write ROLE=KEY; roles are {roles}"));
        };
        match role {
            "arrival" => self.arrival = key.into(),
            "prompt" => self.prompt = key.into(),
            "output" => self.output = key.into(),
            "first" => self.first = key.into(),
            "last" => self.last = key.into(),
            "blocks" => self.blocks = Some(key.into()),
            _ => return Err(format!("there is no role `{role}`; roles are {roles}")),
        }
        Ok(())
    }
}

/// A row with its times as they are written.
struct Row {
    times: [f64; 3],
    prompt: u32,
    output: u32,
    blocks: Arc<[u64]>,
}

pub(super) fn read(path: &Path, fields: &Fields) -> Result<Recorded, CalibrateError> {
    let file: PathBuf = if path.is_dir() { path.join("requests.jsonl") } else { path.to_owned() };
    let mut lines = Lines::open(Path::new(""), &file)?;
    let mut runs: BTreeMap<(String, u64), Vec<Row>> = BTreeMap::new();
    let mut backends: Vec<String> = Vec::new();
    let mut left_out = 0;
    loop {
        let parsed = match lines.read()? {
            None => break,
            Some((_, line)) => serde_json::from_str::<Value>(line).map_err(|error| json_fault(&error)),
        };
        let value = parsed.map_err(|fault| lines.error(fault))?;
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let (workload, backend) = (text("workload"), text("backend"));
        let other =
            |wanted: &Option<String>, own: &str| wanted.as_deref().is_some_and(|wanted| wanted != own);
        if other(&fields.workload, &workload) || other(&fields.backend, &backend) {
            continue;
        }
        if !backends.contains(&backend) {
            backends.push(backend);
        }
        if value.get("outcome").is_some_and(|outcome| outcome != "success") {
            left_out += 1;
            continue;
        }
        let row = row(&value, fields, &lines)?;
        runs.entry((workload, value["repeat"].as_u64().unwrap_or(0))).or_default().push(row);
    }
    if backends.len() > 1 {
        return Err(CalibrateError::Backends(backends));
    }
    let unit = fields.unit.nanoseconds();
    let runs = runs.into_values().map(|rows| run(rows, unit)).collect();
    Ok(Recorded { runs, left_out, block_tokens: fields.block_tokens })
}

fn row(value: &Value, fields: &Fields, lines: &Lines) -> Result<Row, FileError> {
    let number = |key: &str| {
        let number = value[key].as_f64().filter(|number| number.is_finite());
        number.ok_or_else(|| {
            lines.error(format!("has no number `{key}`; name the key that holds it with --field"))
        })
    };
    let tokens = |key: &str| {
        let tokens =
            value[key].as_u64().and_then(|tokens| u32::try_from(tokens).ok()).filter(|tokens| *tokens > 0);
        tokens.ok_or_else(|| lines.error(format!("has no number of tokens `{key}`, at least 1")))
    };
    let times = [number(&fields.arrival)?, number(&fields.first)?, number(&fields.last)?];
    if times[0] > times[1] || times[1] > times[2] {
        return Err(lines.error("its arrival, first and last token do not follow each other"));
    }
    let blocks = match &fields.blocks {
        None => Arc::from([]),
        Some(key) => {
            let list = value[key]
                .as_array()
                .and_then(|list| list.iter().map(Value::as_u64).collect::<Option<Vec<_>>>());
            list.ok_or_else(|| lines.error(format!("has no list of block ids `{key}`")))?.into()
        }
    };
    Ok(Row { times, prompt: tokens(&fields.prompt)?, output: tokens(&fields.output)?, blocks })
}

/// The rows of one run, by arrival, from its first one on.
fn run(mut rows: Vec<Row>, unit: f64) -> Vec<Request> {
    rows.sort_by(|a, b| a.times[0].total_cmp(&b.times[0]));
    let start = rows.first().map_or(0.0, |row| row.times[0]);
    let since = |time: f64| libm::round((time - start) * unit) as Ns;
    let request = |row: Row| Request {
        arrival: since(row.times[0]),
        first: since(row.times[1]),
        last: since(row.times[2]),
        prompt: row.prompt,
        output: row.output,
        blocks: row.blocks,
    };
    rows.into_iter().map(request).collect()
}

//! The contract's own files, by whoever wrote them: `benchmark_summary.json` with every workload, and the flat
//! `<workload>_metrics.json` of one.

use indexmap::IndexMap;
use serde_json::Value;

use super::summary::Summary;
use super::text::Document;
use super::value::At;
use super::{ImportedCell, Measured};
use crate::measure::{Type, fields};
use crate::sample::FileError;

pub(super) fn cells(document: &Document) -> Result<Vec<ImportedCell>, FileError> {
    let mut cells = Vec::new();
    for value in document.values() {
        match value.get("workloads") {
            Some(workloads) => {
                for (name, flat) in workloads.entries()? {
                    cells.push(cell(name, &flat)?);
                }
            }
            None => cells.push(cell("", &value)?),
        }
    }
    Ok(cells)
}

fn cell(name: &str, flat: &At<'_>) -> Result<ImportedCell, FileError> {
    let mut summary = Summary::new("as the file has it");
    let mut foreign = Vec::new();
    let text = |key: &str| flat.get(key).and_then(|at| at.text().map(str::to_owned));
    for (key, at) in flat.entries()? {
        let Some(field) = fields().iter().find(|field| field.name == key) else {
            foreign.push(key);
            continue;
        };
        match field.of {
            _ if at.value.is_null() => {}
            Type::Integer => {
                // The contract's integers are integers; a byte count of an older program may have a point.
                summary.set_count(key, at.count()?);
            }
            Type::Ratio if at.amount()? > 1.0 => {
                return Err(at.problem(format!("is a share and lies between 0 and 1, not {}", at.value)));
            }
            Type::Number | Type::Ratio => summary.set(key, at.number()?),
            _ => {}
        }
    }
    if let Some(reasons) = flat.get("unavailable") {
        for (key, at) in reasons.entries()? {
            summary.lacks_number(key, at.text().unwrap_or("the file does not say"));
        }
    }
    let mut notes = Vec::new();
    if !foreign.is_empty() {
        notes.push(format!("left out what has no name here: {}", foreign.join(", ")));
    }
    let start = summary.values.get("start_time").and_then(Value::as_f64);
    Ok(ImportedCell {
        name: if name.is_empty() { text("workload").unwrap_or_default() } else { name.to_owned() },
        point: IndexMap::new(),
        model: text("model"),
        load: None,
        start_time: start,
        measured: Measured::Summary(summary),
        notes,
    })
}

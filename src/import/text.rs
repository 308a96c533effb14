//! The JSON of a result file: one document, or one in each line.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Tool;
use super::value::At;
use crate::sample::{FileError, json_fault};

/// A value, and the line it stands in.
type Row = (Option<u64>, Value);

/// What stands in a file.
#[derive(Debug)]
pub(super) struct Document {
    file: PathBuf,
    /// The values with their lines; no line for a file that is one value.
    values: Vec<Row>,
}

impl Document {
    /// Reads a file of one JSON value, or of one in each line.
    pub(super) fn read(path: &Path) -> Result<Self, FileError> {
        let problem = |line, message: String| FileError { file: path.to_owned(), line, message };
        let meta = std::fs::metadata(path).map_err(|e| problem(None, format!("can not be read: {e}")))?;
        if !meta.is_file() {
            let message = "is not a file; name the result file that the tool wrote";
            return Err(problem(None, message.to_owned()));
        }
        let bytes = std::fs::read(path).map_err(|e| problem(None, format!("can not be read: {e}")))?;
        let text =
            String::from_utf8(bytes).map_err(|_| problem(None, "is no text (UTF-8), so no JSON".into()))?;
        let text = text.trim_start_matches('\u{feff}');
        if text.trim().is_empty() {
            return Err(problem(None, "is empty; did the tool finish?".into()));
        }
        let clean = without_python(text);
        let text = clean.as_deref().unwrap_or(text);
        let whole = match serde_json::from_str(text) {
            Ok(value) => vec![(None, value)],
            Err(error) if !error.is_eof() && text.trim().contains('\n') => {
                lines(text).map_err(|(line, fault)| {
                    // The first fault of a document that is spread over lines is the one to tell.
                    let is_lines = line > 1;
                    let (line, fault) =
                        if is_lines { (line, fault) } else { (error.line() as u64, json_fault(&error)) };
                    problem(Some(line), format!("is no JSON: {fault}"))
                })?
            }
            Err(error) => {
                let end = if error.is_eof() {
                    "ends in the middle of its JSON; it was cut off, perhaps the tool was stopped while it wrote"
                        .to_owned()
                } else {
                    format!("is no JSON: {}", json_fault(&error))
                };
                return Err(problem(Some(error.line() as u64), end));
            }
        };
        // An array of rows is read as rows are.
        let values = match whole.as_slice() {
            [(None, Value::Array(rows))] => rows.iter().map(|row| (None, row.clone())).collect(),
            _ => whole,
        };
        if values.is_empty() {
            return Err(problem(None, "holds an empty list".into()));
        }
        Ok(Self { file: path.to_owned(), values })
    }

    /// The values, each with its place.
    pub(super) fn values(&self) -> impl Iterator<Item = At<'_>> {
        let several = self.values.len() > 1;
        self.values.iter().enumerate().map(move |(index, (line, value))| {
            let path = if several && line.is_none() { format!("[{index}]") } else { String::new() };
            At::new(&self.file, *line, path, value)
        })
    }

    pub(super) fn first(&self) -> Option<&Value> {
        self.values.first().map(|(_, value)| value)
    }

    /// Whether the first value has a key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.first().is_some_and(|value| value.get(key).is_some())
    }

    pub(super) fn problem(&self, line: Option<u64>, message: impl Into<String>) -> FileError {
        FileError { file: self.file.clone(), line, message: message.into() }
    }

    /// What to say of a document that no tool wrote.
    pub(super) fn foreign(&self) -> FileError {
        let keys: Vec<&str> = self
            .first()
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(key, _)| key.as_str())
            .collect();
        let found = match keys.as_slice() {
            [] => "it holds no JSON object".to_owned(),
            keys => {
                let more = if keys.len() > 6 { ", ..." } else { "" };
                format!("its keys are {}{more}", keys[..keys.len().min(6)].join(", "))
            }
        };
        let names = Tool::ALL.map(Tool::name).join(", ");
        self.problem(
            None,
            format!(
                "is of no format that can be imported: {found}; formats are {names}, and --format forces one"
            ),
        )
    }
}

/// One value in each line; blank lines are skipped.
fn lines(text: &str) -> Result<Vec<Row>, (u64, String)> {
    let mut values = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let value = serde_json::from_str(line).map_err(|error| {
            let cut = if error.is_eof() { "; the line is cut off" } else { "" };
            (number, format!("{}{cut}", json_fault(&error)))
        })?;
        values.push((Some(number), value));
    }
    Ok(values)
}

/// Python writes `NaN` and `Infinity` where JSON has no such numbers; they mean that there is no value. `None` where there
/// are none.
fn without_python(text: &str) -> Option<String> {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    if !WORDS.iter().any(|word| text.contains(word)) {
        return None;
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        if in_string && c == '\\' {
            let two: String = rest.chars().take(2).collect();
            clean.push_str(&two);
            rest = &rest[two.len()..];
            continue;
        }
        in_string ^= c == '"';
        if !in_string && let Some(word) = WORDS.iter().find(|word| rest.starts_with(*word)) {
            clean.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        clean.push(c);
        rest = &rest[c.len_utf8()..];
    }
    Some(clean)
}

//! Values of a document with their place, so that what is wrong is told where it is.

use std::path::Path;

use serde_json::Value;

use crate::sample::FileError;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<'a> {
    file: &'a Path,
    line: Option<u64>,
    /// The path inside the document, such as `benchmarks[0].duration`; empty at its root.
    path: String,
    pub(super) value: &'a Value,
}

impl<'a> At<'a> {
    pub(super) fn new(file: &'a Path, line: Option<u64>, path: String, value: &'a Value) -> Self {
        Self { file, line, path, value }
    }

    /// An error here.
    pub(super) fn problem(&self, message: impl Into<String>) -> FileError {
        let message = message.into();
        let message = if self.path.is_empty() { message } else { format!("`{}` {message}", self.path) };
        FileError { file: self.file.to_owned(), line: self.line, message }
    }

    fn inner(&self, step: &str, value: &'a Value) -> Self {
        let dot = if self.path.is_empty() || step.starts_with('[') { "" } else { "." };
        Self { path: format!("{}{dot}{step}", self.path), value, ..self.clone() }
    }

    /// What stands under a key; `None` where there is nothing, or null.
    pub(super) fn get(&self, key: &str) -> Option<Self> {
        self.value.get(key).filter(|value| !value.is_null()).map(|value| self.inner(key, value))
    }

    /// What stands under the first of these keys that is there: tools rename them.
    pub(super) fn any(&self, keys: &[&str]) -> Option<Self> {
        keys.iter().find_map(|key| self.get(key))
    }

    /// What stands at the end of a way of keys.
    pub(super) fn way(&self, keys: &[&str]) -> Option<Self> {
        keys.iter().try_fold(self.clone(), |at, key| at.get(key))
    }

    /// What must stand under a key.
    pub(super) fn need(&self, key: &str) -> Result<Self, FileError> {
        self.get(key).ok_or_else(|| {
            let kind = if self.value.is_object() { "" } else { "is no object, so it " };
            self.problem(format!("{kind}lacks `{key}`"))
        })
    }

    pub(super) fn number(&self) -> Result<f64, FileError> {
        let number = self.value.as_f64().filter(|number| number.is_finite());
        number.ok_or_else(|| self.problem(format!("is no number: {}", shown(self.value))))
    }

    /// A number of 0 or more.
    pub(super) fn amount(&self) -> Result<f64, FileError> {
        let number = self.number()?;
        if number < 0.0 { Err(self.problem(format!("is negative: {number}"))) } else { Ok(number) }
    }

    /// A whole number of 0 or more; some tools write it with a point.
    pub(super) fn count(&self) -> Result<u64, FileError> {
        let amount = self.amount()?;
        if amount.fract() == 0.0 && amount < 9e15 {
            Ok(amount as u64)
        } else {
            Err(self.problem(format!("is no whole number: {amount}")))
        }
    }

    pub(super) fn tokens(&self) -> Result<u32, FileError> {
        u32::try_from(self.count()?).map_err(|_| self.problem("is more tokens than any request has"))
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Result<Vec<Self>, FileError> {
        let list = self.value.as_array();
        let list = list.ok_or_else(|| self.problem(format!("is no list: {}", shown(self.value))))?;
        Ok(list.iter().enumerate().map(|(at, value)| self.inner(&format!("[{at}]"), value)).collect())
    }

    /// The entries of a map.
    pub(super) fn entries(&self) -> Result<Vec<(&'a str, Self)>, FileError> {
        let map = self.value.as_object();
        let map = map.ok_or_else(|| self.problem(format!("is no object: {}", shown(self.value))))?;
        Ok(map.iter().map(|(key, value)| (key.as_str(), self.inner(key, value))).collect())
    }
}

/// A number without a point where it is whole.
pub(super) fn short(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 { (number as i64).into() } else { number.into() }
}

/// The start of a value.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 40 { text.chars().take(40).chain(['…']).collect() } else { text }
}

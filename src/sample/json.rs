//! Files of JSON values: one per line, or one array.

use std::path::Path;

use serde_json::Value;

use super::{FileError, Lines, json_fault, line_ends};

/// Reads the values of a file one by one. A file that begins with `[` is one array, any other has a value in each line.
#[derive(Debug)]
pub struct JsonRows(Form);

#[derive(Debug)]
enum Form {
    Lines(Lines),
    Array(Array),
}

/// An array with the place up to which it is read.
#[derive(Debug)]
struct Array {
    file: std::path::PathBuf,
    text: String,
    at: usize,
    /// The line that `at` is in.
    line: u64,
    /// The line in which the value that was read last begins.
    begin: u64,
    first: bool,
}

impl JsonRows {
    /// Opens `path`, which is relative to `dir`.
    pub fn open(dir: &Path, path: &Path) -> Result<Self, FileError> {
        let mut lines = Lines::open(dir, path)?;
        if lines.read()?.is_some_and(|(_, line)| line.trim_start().starts_with('[')) {
            let problem = |message: String| FileError { file: path.to_owned(), line: None, message };
            let bytes =
                std::fs::read(dir.join(path)).map_err(|e| problem(format!("can not be read: {e}")))?;
            let text = String::from_utf8(bytes).map_err(|_| problem("is not valid UTF-8".into()))?;
            let at = text.find('[').map_or(text.len(), |at| at + 1);
            let line = 1 + line_ends(&text.as_bytes()[..at]);
            let array = Array { file: path.to_owned(), text, at, line, begin: line, first: true };
            return Ok(Self(Form::Array(array)));
        }
        Ok(Self(Form::Lines(Lines::open(dir, path)?)))
    }

    /// The next value.
    pub fn read(&mut self) -> Result<Option<Value>, FileError> {
        match &mut self.0 {
            Form::Array(array) => array.read(),
            Form::Lines(lines) => {
                let Some((_, line)) = lines.read()? else { return Ok(None) };
                match serde_json::from_str(line) {
                    Ok(value) => Ok(Some(value)),
                    Err(error) => Err(lines.error(format!("is not JSON: {}", json_fault(&error)))),
                }
            }
        }
    }

    /// An error at the value that was read last.
    pub fn error(&self, message: impl Into<String>) -> FileError {
        match &self.0 {
            Form::Array(array) => array.error(array.begin, message),
            Form::Lines(lines) => lines.error(message),
        }
    }

    /// An error of the file as a whole.
    pub fn file_error(&self, message: impl Into<String>) -> FileError {
        match &self.0 {
            Form::Array(array) => FileError { line: None, ..array.error(0, message) },
            Form::Lines(lines) => lines.file_error(message),
        }
    }
}

impl Array {
    fn error(&self, line: u64, message: impl Into<String>) -> FileError {
        FileError { file: self.file.clone(), line: Some(line), message: message.into() }
    }

    /// Goes on to the next byte that is no white space.
    fn skip_space(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at).filter(|byte| byte.is_ascii_whitespace()) {
            self.line += u64::from(*byte == b'\n');
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn read(&mut self) -> Result<Option<Value>, FileError> {
        match (self.skip_space(), self.first) {
            (Some(b']'), _) => {
                self.at += 1;
                let rest = self.skip_space();
                self.at = self.text.len();
                return match rest {
                    None => Ok(None),
                    Some(_) => Err(self.error(self.line, "goes on behind the end of its array")),
                };
            }
            (None, _) if self.at == self.text.len() && !self.text.trim_end().ends_with(']') => {
                return Err(self.error(self.line, "ends inside its array; it is cut off"));
            }
            (None, _) => return Ok(None),
            (Some(b','), false) => {
                self.at += 1;
                self.skip_space();
            }
            (Some(_), true) => {}
            (Some(_), false) => return Err(self.error(self.line, "lacks a comma between two values")),
        }
        self.first = false;
        self.begin = self.line;
        let mut values = serde_json::Deserializer::from_str(&self.text[self.at..]).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                let read = values.byte_offset();
                let part = &self.text.as_bytes()[self.at..self.at + read];
                self.line += line_ends(part);
                self.at += read;
                Ok(Some(value))
            }
            Some(Err(error)) => {
                let line = self.line + (error.line() as u64).saturating_sub(1);
                Err(self.error(line, format!("is not JSON: {}", json_fault(&error))))
            }
            None => Err(self.error(self.line, "ends inside its array; it is cut off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Value>, Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x"), text).unwrap();
        let mut rows = JsonRows::open(dir.path(), Path::new("x")).unwrap();
        let mut values = Vec::new();
        loop {
            match rows.read() {
                Ok(Some(value)) => values.push(value),
                Ok(None) => return (values, None),
                Err(error) => return (values, Some(error.to_string())),
            }
        }
    }

    #[test]
    fn arrays_and_lines_give_the_same_values() {
        let wanted: Vec<Value> = vec![1.into(), "[".into()];
        for text in ["1\n\"[\"\n", "[1, \"[\"]", " \n[\n1,\n\n\"[\"\n]\n"] {
            assert_eq!(read(text), (wanted.clone(), None), "{text}");
        }
        assert_eq!(read("[]"), (Vec::new(), None));
        assert_eq!(read(""), (Vec::new(), None));
    }

    #[test]
    fn faults_are_told_at_their_line() {
        for (text, at) in [
            ("[1,\n2,\n{\"a\": ]\n]", "x:3: is not JSON: expected value at column 7"),
            ("[1,\n2", "x:2: ends inside its array; it is cut off"),
            ("[1,\n", "x:2: ends inside its array; it is cut off"),
            ("[1\n2]", "x:2: lacks a comma between two values"),
            ("[1]\n\n5", "x:3: goes on behind the end of its array"),
            ("1\n{", "x:2: is not JSON: EOF while parsing an object at column 1"),
        ] {
            assert_eq!(read(text).1.as_deref(), Some(at), "{text}");
        }
    }
}

//! Text files read line by line: every problem is told with its file and line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// The longest line that is read; what is longer is no text file of rows.
const LONGEST_LINE: u64 = 64 << 20;

/// What is wrong with a file, and where. The file is named as the scenario names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {message}", file.display(), line.map(|n| format!(":{n}")).unwrap_or_default())]
pub struct FileError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; `None` when the whole file is meant.
    pub line: Option<u64>,
    /// What is wrong.
    pub message: String,
}

/// Reads a file line by line, skipping blank lines, a byte order mark and carriage returns.
#[derive(Debug)]
pub struct Lines {
    reader: BufReader<File>,
    file: PathBuf,
    number: u64,
    buffer: Vec<u8>,
}

impl Lines {
    /// Opens `path`, which is relative to `dir`. Only regular files: a pipe or a device could block for ever.
    pub fn open(dir: &Path, path: &Path) -> Result<Self, FileError> {
        let problem = |message: String| FileError { file: path.to_owned(), line: None, message };
        let full = dir.join(path);
        let meta = std::fs::metadata(&full).map_err(|e| problem(format!("can not be read: {e}")))?;
        if !meta.is_file() {
            return Err(problem("is not a regular file".into()));
        }
        let file = File::open(&full).map_err(|e| problem(format!("can not be read: {e}")))?;
        Ok(Self { reader: BufReader::new(file), file: path.to_owned(), number: 0, buffer: Vec::new() })
    }

    /// The next line that is not blank, with its line number from 1.
    pub fn read(&mut self) -> Result<Option<(u64, &str)>, FileError> {
        loop {
            self.buffer.clear();
            let read = self.reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut self.buffer);
            self.number += 1;
            match read {
                Err(error) => return Err(self.error(format!("can not be read: {error}"))),
                Ok(0) => return Ok(None),
                Ok(n) if n as u64 == LONGEST_LINE => return Err(self.error("the line is longer than 64 MiB")),
                Ok(_) => {}
            }
            if self.number == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
                self.buffer.drain(..3);
            }
            if !self.buffer.iter().all(u8::is_ascii_whitespace) {
                break;
            }
        }
        match std::str::from_utf8(&self.buffer) {
            Ok(line) => Ok(Some((self.number, line.trim_end_matches(['\n', '\r'])))),
            Err(_) => Err(self.error("is not valid UTF-8")),
        }
    }

    /// An error at the line that was read last.
    pub fn error(&self, message: impl Into<String>) -> FileError {
        FileError { file: self.file.clone(), line: Some(self.number), message: message.into() }
    }

    /// An error of the file as a whole.
    pub fn file_error(&self, message: impl Into<String>) -> FileError {
        FileError { file: self.file.clone(), line: None, message: message.into() }
    }
}

/// How many lines end in these bytes.
pub fn line_ends(bytes: &[u8]) -> u64 {
    bytes.split(|byte| *byte == b'\n').count() as u64 - 1
}

/// What is wrong with the JSON of one line, by column where it is known: the line is told by whoever read it.
pub fn json_fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let fault = text.rsplit_once(" at line ").map_or(text.as_str(), |(fault, _)| fault);
    match error.column() {
        0 => fault.to_owned(),
        column => format!("{fault} at column {column}"),
    }
}

/// The fields of one CSV line (RFC 4180 without line breaks inside quotes). `None` when a quote is not closed.
pub fn csv_fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let field = fields.last_mut()?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary(bytes: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rows"), bytes).unwrap();
        dir
    }

    #[test]
    fn reads_past_marks_blanks_and_carriage_returns() {
        let dir = temporary(b"\xef\xbb\xbfa\r\n\n  \nb");
        let mut lines = Lines::open(dir.path(), Path::new("rows")).unwrap();
        assert_eq!(lines.read().unwrap(), Some((1, "a")));
        assert_eq!(lines.read().unwrap(), Some((4, "b")));
        assert_eq!(lines.read().unwrap(), None);
    }

    #[test]
    fn names_file_and_line() {
        let dir = temporary(b"a\n\xff\n");
        let mut lines = Lines::open(dir.path(), Path::new("rows")).unwrap();
        lines.read().unwrap();
        assert_eq!(lines.read().unwrap_err().to_string(), "rows:2: is not valid UTF-8");
        assert_eq!(
            Lines::open(dir.path(), Path::new(".")).unwrap_err().to_string(),
            ".: is not a regular file"
        );
        let missing = Lines::open(dir.path(), Path::new("no/rows")).unwrap_err().to_string();
        assert!(missing.starts_with("no/rows: can not be read: "), "{missing}");
    }

    #[test]
    fn csv_quotes() {
        assert_eq!(csv_fields(r#"a,"b,""c",,d"#).unwrap(), ["a", "b,\"c", "", "d"]);
        assert_eq!(csv_fields(r#"a,"b"#), None);
    }
}

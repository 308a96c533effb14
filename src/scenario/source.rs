//! Every text that took part in a scenario, and places in them.

use std::ops::Range;

/// One text among [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u32);

/// Bytes of one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Which text.
    pub file: FileId,
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    /// From the start of this span to the end of another one in the same text.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        if self.file == other.file { Self { end: self.end.max(other.end), ..self } } else { self }
    }

    /// Whether another span lies within this one.
    pub fn covers(self, other: Self) -> bool {
        self.file == other.file && self.start <= other.start && other.end <= self.end
    }

    /// A part of this span: bytes counted from its start.
    #[must_use]
    pub fn part(self, bytes: Range<usize>) -> Self {
        Self { start: self.start + bytes.start, end: self.start + bytes.end, ..self }
    }
}

/// A place that a person can go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named; `None` for an argument of the command line.
    pub file: Option<String>,
    /// 1-based line.
    pub line: u32,
    /// 1-based column, in characters.
    pub column: u32,
    /// Line of the end.
    pub end_line: u32,
    /// Column just after the last character.
    pub end_column: u32,
}

/// Whether a text is a file or an argument of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File,
    /// `--set ..`
    Argument,
}

/// One text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// How it is named in messages.
    pub name: String,
    /// Its text without a byte order mark; empty when it could not be read as text.
    pub text: String,
    /// What it is.
    pub origin: Origin,
    /// Its folder relative to the scenario's own, with `/` between names; empty for the scenario's own.
    pub folder: String,
}

/// Every text that took part: the scenario's file first, then the files it extends and the `--set` arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Adds a text.
    pub fn add(&mut self, source: Source) -> FileId {
        self.0.push(source);
        FileId(u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX))
    }

    /// Gives a text that was added empty its content.
    pub fn set_text(&mut self, file: FileId, text: String) {
        self.0[file.0 as usize].text = text;
    }

    /// The text behind an id of this collection.
    pub fn get(&self, file: FileId) -> &Source {
        &self.0[file.0 as usize]
    }

    /// All texts with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (FileId, &Source)> {
        self.0.iter().enumerate().map(|(index, source)| (FileId(index as u32), source))
    }

    /// What stands at a span.
    pub fn text(&self, span: Span) -> &str {
        self.get(span.file).text.get(span.start..span.end).unwrap_or("")
    }

    /// Line and column of a span.
    pub fn place(&self, span: Span) -> Place {
        let source = self.get(span.file);
        let (line, column) = position(&source.text, span.start);
        let (end_line, end_column) = position(&source.text, span.end.max(span.start));
        let file = (source.origin == Origin::File).then(|| source.name.clone());
        Place { file, line, column, end_line, end_column }
    }

    /// Makes a span safe to cut the text with: inside the text and between characters.
    #[must_use]
    pub fn clamp(&self, span: Span) -> Span {
        let text = &self.get(span.file).text;
        let start = floor(text, span.start);
        Span { start, end: floor(text, span.end).max(start), ..span }
    }
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// 1-based line and column (in characters) of a byte.
fn position(text: &str, at: usize) -> (u32, u32) {
    let before = &text[..floor(text, at)];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (line as u32, before[line_start..].chars().count() as u32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_end_at_newlines() {
        let mut sources = Sources::default();
        let text = "a: 日本\r\nb: x".to_owned();
        let file =
            sources.add(Source { name: "x.yaml".into(), text, origin: Origin::File, folder: String::new() });
        let place = |start, end| {
            let place = sources.place(Span { file, start, end });
            (place.line, place.column, place.end_line, place.end_column)
        };
        assert_eq!(place(3, 9), (1, 4, 1, 6));
        assert_eq!(place(14, 15), (2, 4, 2, 5));
        assert_eq!(place(4, 5), (1, 4, 1, 4), "inside a character is that character");
        assert_eq!(place(99, 120), (2, 5, 2, 5));
    }
}

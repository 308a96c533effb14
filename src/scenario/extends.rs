//! Reads a file and the files that it extends, one over the other.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, quote};
use super::found::Found;
use super::load::{Format, MAX_FILE, Options};
use super::node::{Node, Tree, merge};
use super::source::{FileId, Origin, Source, Sources, Span};
use super::{toml, yaml};

/// How many files may build on one another.
const MAX_CHAIN: usize = 16;

/// Reads files for one load.
pub struct Reader<'a, 'o> {
    /// What the load depends on.
    pub options: &'a Options<'o>,
    /// Every text so far.
    pub sources: &'a mut Sources,
    /// Every finding so far.
    pub found: &'a mut Found,
    /// The folder of the scenario's own file.
    pub dir: &'a Path,
}

/// A file on the way: its path from the scenario's folder, and where it was named.
type Chain = Vec<String>;

impl Reader<'_, '_> {
    /// The tree of the scenario's own file with everything it extends below it.
    pub fn root(&mut self, path: &Path, name: &str) -> Option<Node> {
        let relative =
            path.file_name().map_or_else(|| name.to_owned(), |name| name.to_string_lossy().into_owned());
        let bytes = (self.options.read)(path);
        let source = self.source(name.to_owned(), String::new());
        let text = match bytes.map_err(|error| reason(&error)).and_then(|bytes| decode(&bytes)) {
            Ok(text) => text,
            Err(reason) => {
                let span = Span { file: source, start: 0, end: 0 };
                self.found.push(Diagnostic::error(span, format!("can not read {}: {reason}", quote(name))));
                return None;
            }
        };
        self.sources.set_text(source, text);
        self.parsed(source, Format::of(path), &mut vec![relative])
    }

    /// The same for a text that is already here.
    pub fn given(&mut self, name: &str, text: &str, format: Format) -> Option<Node> {
        let source = self.source(name.to_owned(), String::new());
        self.sources.set_text(source, text.strip_prefix('\u{feff}').unwrap_or(text).to_owned());
        let relative = Path::new(name).file_name().map(|name| name.to_string_lossy().into_owned());
        self.parsed(source, format, &mut vec![relative.unwrap_or_default()])
    }

    fn source(&mut self, name: String, folder: String) -> FileId {
        self.sources.add(Source { name, text: String::new(), origin: Origin::File, folder })
    }

    fn parsed(&mut self, file: FileId, format: Format, chain: &mut Chain) -> Option<Node> {
        let text = self.sources.get(file).text.clone();
        let tree = match format {
            Format::Yaml => yaml::read(file, &text, 0, &mut self.found.diagnostics),
            Format::Toml => toml::read(file, &text, &mut self.found.diagnostics),
        };
        let mut tree = tree?;
        let whole = Span { file, start: 0, end: 0 };
        match &tree.tree {
            Tree::Map(map) if !map.is_empty() => {}
            Tree::Null | Tree::Map(_) => {
                let message =
                    if text.trim().is_empty() { "the file is empty" } else { "the file holds no scenario" };
                self.found.push(
                    Diagnostic::error(whole, message)
                        .help("`sagebench init` writes a scenario to start from"),
                );
                return None;
            }
            _ => {
                let message =
                    format!("a scenario is a map with keys such as `workloads`, not {}", tree.described());
                self.found.push(Diagnostic::error(tree.span, message));
                return None;
            }
        }
        let extends = tree.map_mut().and_then(|map| match map.get("extends") {
            Some(entry) if entry.node.text().is_some() => map.shift_remove("extends"),
            _ => None,
        });
        let Some(extends) = extends else { return Some(tree) };
        let (at, path) = (extends.node.span, extends.node.text().unwrap_or_default().to_owned());
        if let Some(base) = self.base(at, &path, chain) {
            return Some(merge(base, tree));
        }
        self.found.incomplete = true;
        Some(tree)
    }

    /// The tree of a file that the text at `at` names.
    fn base(&mut self, at: Span, written: &str, chain: &mut Chain) -> Option<Node> {
        let folder = self.sources.get(at.file).folder.clone();
        let relative = join(&folder, written);
        if let Some(first) = chain.iter().position(|link| *link == relative) {
            let mut round: Vec<&str> = chain[first..].iter().map(String::as_str).collect();
            round.push(&relative);
            let message = format!("`extends` goes round in a circle: {}", round.join(" → "));
            self.found.push(Diagnostic::error(at, message));
            return None;
        }
        if chain.len() >= MAX_CHAIN {
            let message = format!("more than {MAX_CHAIN} files extend one another");
            self.found.push(Diagnostic::error(at, message));
            return None;
        }
        let path: PathBuf = self.dir.join(&relative);
        let text =
            (self.options.read)(&path).map_err(|error| reason(&error)).and_then(|bytes| decode(&bytes));
        let text = match text {
            Ok(text) => text,
            Err(reason) => {
                let mut diagnostic =
                    Diagnostic::error(at, format!("can not read {}: {reason}", quote(written)))
                        .note(format!("looked for it at {}", path.display()));
                if written.contains("${") {
                    diagnostic = diagnostic.note("variables are not replaced in `extends`");
                }
                self.found.push(diagnostic);
                return None;
            }
        };
        let parent = relative.rfind('/').map_or("", |at| &relative[..at.max(1)]);
        let source = self.source(path.display().to_string(), parent.to_owned());
        self.sources.set_text(source, text);
        chain.push(relative);
        let tree = self.parsed(source, Format::of(&path), chain);
        chain.pop();
        tree
    }
}

/// Joins a folder and a path, both with `/`, and removes `.` and `x/..`.
pub fn join(folder: &str, path: &str) -> String {
    let absolute = path.starts_with('/') || (folder.starts_with('/') && !path.starts_with('/'));
    let full =
        if path.starts_with('/') || folder.is_empty() { path.to_owned() } else { format!("{folder}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in full.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("{}{}", if absolute { "/" } else { "" }, parts.join("/"))
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".into(),
        ErrorKind::IsADirectory => "it is a folder, and a scenario is a file".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// The text of a file, without a byte order mark.
fn decode(bytes: &[u8]) -> Result<String, String> {
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it is larger than {} MiB, and a scenario is a short text", MAX_FILE >> 20));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("it is UTF-16; save it as UTF-8".into());
    }
    if bytes.contains(&0) {
        return Err("it is a binary file, and a scenario is a text".into());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        let byte = bytes[error.valid_up_to()];
        format!("byte 0x{byte:02x} in line {line} is not UTF-8; save the file as UTF-8")
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_without_dots() {
        assert_eq!(join("", "a/b.yaml"), "a/b.yaml");
        assert_eq!(join("a", "./b.yaml"), "a/b.yaml");
        assert_eq!(join("a/b", "../c.yaml"), "a/c.yaml");
        assert_eq!(join("", "../c.yaml"), "../c.yaml");
        assert_eq!(join("..", "../c.yaml"), "../../c.yaml");
        assert_eq!(join("a", "/x/../c.yaml"), "/c.yaml");
        assert_eq!(join("/x", "c.yaml"), "/x/c.yaml");
    }

    #[test]
    fn only_utf8_text_is_a_scenario() {
        assert_eq!(decode(b"\xef\xbb\xbfa: 1"), Ok("a: 1".into()));
        assert_eq!(
            decode(b"a: 1\nb: \xe9"),
            Err("byte 0xe9 in line 2 is not UTF-8; save the file as UTF-8".into())
        );
        assert_eq!(decode(b"\xff\xfea\0"), Err("it is UTF-16; save it as UTF-8".into()));
        assert_eq!(decode(b"\x7fELF\0"), Err("it is a binary file, and a scenario is a text".into()));
    }
}

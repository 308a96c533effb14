//! From a file to a checked scenario: the order of the steps.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::Value;

use super::diagnostic::{Diagnostic, sort};
use super::node::Node;
use super::source::{Origin, Place, Source, Sources, Span};
use super::types::Scenario;
use super::{toml, yaml};

/// The coordinates of a matrix point: path suffix to value, in the order of the axes. Empty without a matrix.
pub type Point = IndexMap<String, Value>;

/// How a text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2.
    Yaml,
    /// TOML 1.1.
    Toml,
}

impl Format {
    /// By the file's extension: `.toml` is TOML, everything else YAML (of which JSON is a part).
    pub fn of(path: &Path) -> Self {
        let toml = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
        if toml { Self::Toml } else { Self::Yaml }
    }
}

/// What a load depends on besides the file, so that it is a pure function of its inputs.
pub struct Options<'a> {
    /// `PATH=VALUE`, as given to `--set`.
    pub set: &'a [String],
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file.
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
}

impl<'a> Options<'a> {
    /// This process's environment and files.
    pub fn process(set: &'a [String]) -> Self {
        Self { set, env: &|name| std::env::var(name).ok(), read: &read_file }
    }
}

/// The largest file that is read as a scenario.
pub const MAX_FILE: u64 = 4 << 20;

/// Reads a file of at most 4 MiB and a byte, so that a device or a data file does not fill the memory.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where an expanded workload comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Its name in the scenario.
    pub name: String,
    /// Its coordinates; empty without a matrix.
    pub point: Point,
}

/// A scenario that is valid, with all its texts.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The scenario, expanded: no `extends`, `defaults` or `matrix` is left in it.
    pub scenario: Scenario,
    /// Every workload's origin, by its expanded name.
    pub families: IndexMap<String, Family>,
    /// Every text that took part.
    pub sources: Sources,
    /// The folder that relative paths in the scenario start from.
    pub dir: PathBuf,
    /// What deserves a look.
    pub warnings: Vec<Diagnostic>,
    tree: Node,
}

/// A scenario that can not be used.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Every text that took part.
    pub sources: Sources,
    /// Everything that is wrong, in the order of its places.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// Where the value at a JSON pointer (`/workloads/chat/load`) stands.
    pub fn span_of(&self, pointer: &str) -> Option<Span> {
        let steps = pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
        let mut node = &self.tree;
        for step in steps {
            node = node.step(&step)?.0;
        }
        Some(node.span)
    }

    /// Line and column of a span.
    pub fn place(&self, span: Span) -> Place {
        self.sources.place(span)
    }

    /// Where bytes of the text of a rule (`gates.rules`) stand; the whole rule where they do not stand there literally.
    pub fn rule_span(&self, index: usize, bytes: std::ops::Range<usize>) -> Option<Span> {
        let rule = self.tree.at(["gates", "rules", &index.to_string()])?;
        self.text_span(rule.get("rule").map_or(rule, |entry| &entry.node), bytes)
    }

    /// Where bytes of the text at a JSON pointer stand (an `slo` limit, say).
    pub fn text_span_of(&self, pointer: &str, bytes: std::ops::Range<usize>) -> Option<Span> {
        let steps: Vec<String> =
            pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
        self.text_span(self.tree.at(steps.iter().map(String::as_str))?, bytes)
    }

    fn text_span(&self, node: &Node, bytes: std::ops::Range<usize>) -> Option<Span> {
        let text = node.text()?;
        let start = self.sources.text(node.span).find(text);
        Some(match start {
            Some(start) if text.get(bytes.clone()).is_some() => {
                node.span.part(start + bytes.start..start + bytes.end)
            }
            _ => node.span,
        })
    }
}

/// Loads a file.
pub fn load(path: &Path, options: &Options<'_>) -> Result<Loaded, Failed> {
    let text = String::from_utf8_lossy(&(options.read)(path).unwrap_or_default()).into_owned();
    let dir = path.parent().unwrap_or(Path::new("")).to_owned();
    load_text(&path.display().to_string(), &text, Format::of(path), &dir, options)
}

/// Loads a text that stands for a file of this name in the folder `dir`.
pub fn load_text(
    name: &str,
    text: &str,
    format: Format,
    dir: &Path,
    _options: &Options<'_>,
) -> Result<Loaded, Failed> {
    let mut sources = Sources::default();
    let mut found = Vec::new();
    let file = sources.add(Source {
        name: name.into(),
        text: text.into(),
        origin: Origin::File,
        folder: String::new(),
    });
    let tree = match format {
        Format::Yaml => yaml::read(file, text, 0, &mut found),
        Format::Toml => toml::read(file, text, &mut found),
    };
    let scenario = tree.as_ref().and_then(|tree| {
        serde_json::from_value::<Scenario>(tree.to_json())
            .map_err(|error| found.push(Diagnostic::error(None, error.to_string())))
            .ok()
    });
    sort(&mut found);
    match (tree, scenario) {
        (Some(tree), Some(scenario)) => {
            let families = scenario
                .workloads
                .keys()
                .map(|name| (name.clone(), Family { name: name.clone(), point: Point::new() }))
                .collect();
            Ok(Loaded { scenario, families, sources, dir: dir.to_owned(), warnings: found, tree })
        }
        _ => Err(Failed { sources, diagnostics: found }),
    }
}

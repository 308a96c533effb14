//! From a file to a checked scenario: the order of the steps.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::Value;

use super::diagnostic::{Diagnostic, Severity, sort};
use super::extends::Reader;
use super::found::Found;
use super::node::Node;
use super::source::{Origin, Place, Source, Sources, Span};
use super::types::Scenario;
use super::{files, matrix, references, scripts, set, validate, variables};

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
    /// Whether the command line names the backends, so that the scenario need not.
    pub backend_chosen: bool,
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file.
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
}

impl<'a> Options<'a> {
    /// This process's environment and files.
    pub fn process(set: &'a [String]) -> Self {
        Self { set, backend_chosen: false, env: &|name| std::env::var(name).ok(), read: &read_file }
    }
}

/// The largest file that is read as a scenario.
pub const MAX_FILE: u64 = 8 << 20;

/// Reads a file of at most 8 MiB and a byte, so that a device or a data file does not fill the memory.
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
        Some(self.node(pointer)?.span)
    }

    fn node(&self, pointer: &str) -> Option<&Node> {
        pointer.split('/').skip(1).try_fold(&self.tree, |node, step| Some(node.step(&unescape(step))?.0))
    }

    /// Line and column of a span.
    pub fn place(&self, span: Span) -> Place {
        self.sources.place(span)
    }

    /// Where bytes of the text of a rule (`gates.rules`) stand; the whole rule where they do not stand there literally.
    pub fn rule_span(&self, index: usize, bytes: std::ops::Range<usize>) -> Option<Span> {
        let rule = self.tree.at(["gates", "rules", &index.to_string()])?;
        Some(rule.get("rule").map_or(rule, |entry| &entry.node).part_of_text(&self.sources, bytes))
    }

    /// The place of a script's line and column (1-based), and the name of the file it stands in, where it is not in the
    /// scenario itself but in a file of this name (relative to the scenario) with this text.
    pub fn script_span(&mut self, file: Option<(&str, &str)>, pointer: &str, at: (u32, u32)) -> Option<Span> {
        let Some((name, text)) = file else {
            let file = self.span_of(pointer)?.file;
            return Some(scripts::word_at(&self.sources, file, at.0, at.1));
        };
        let name = self.dir.join(name).display().to_string();
        let known = self.sources.iter().find(|(_, source)| source.name == name).map(|(file, _)| file);
        let file = known.unwrap_or_else(|| {
            let (text, folder) = (text.to_owned(), String::new());
            self.sources.add(Source { name, text, origin: Origin::File, folder })
        });
        Some(scripts::word_at(&self.sources, file, at.0, at.1))
    }

    /// Where bytes of the text at a JSON pointer stand (an `slo` limit, say).
    pub fn text_span_of(&self, pointer: &str, bytes: std::ops::Range<usize>) -> Option<Span> {
        Some(self.node(pointer)?.part_of_text(&self.sources, bytes))
    }
}

/// One step of a JSON pointer.
pub(super) fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// Loads a file.
pub fn load(path: &Path, options: &Options<'_>) -> Result<Loaded, Failed> {
    let name = path.display().to_string();
    let dir = path.parent().unwrap_or(Path::new(""));
    run(&name, dir, options, |reader| reader.root(path, &name))
}

/// Loads a text that stands for a file of this name in the folder `dir`.
pub fn load_text(
    name: &str,
    text: &str,
    format: Format,
    dir: &Path,
    options: &Options<'_>,
) -> Result<Loaded, Failed> {
    run(name, dir, options, |reader| reader.given(name, text, format))
}

fn run(
    name: &str,
    dir: &Path,
    options: &Options<'_>,
    read: impl FnOnce(&mut Reader<'_, '_>) -> Option<Node>,
) -> Result<Loaded, Failed> {
    let mut sources = Sources::default();
    let mut found = Found::default();
    let tree = read(&mut Reader { options, sources: &mut sources, found: &mut found, dir });
    let checked = tree.and_then(|tree| checked(tree, dir, options, &mut sources, &mut found));
    let mut diagnostics = found.diagnostics;
    sort(&mut diagnostics);
    let failed = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    match checked {
        Some((tree, mut scenario, families)) if !failed => {
            scripts::place(&tree, &sources, &mut scenario);
            scenario.name.get_or_insert_with(|| {
                Path::new(name)
                    .file_stem()
                    .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
            });
            Ok(Loaded { scenario, families, sources, dir: dir.to_owned(), warnings: diagnostics, tree })
        }
        _ => Err(Failed { sources, diagnostics }),
    }
}

/// All steps after reading, in the order that the language promises.
fn checked(
    mut tree: Node,
    dir: &Path,
    options: &Options<'_>,
    sources: &mut Sources,
    found: &mut Found,
) -> Option<(Node, Scenario, IndexMap<String, Family>)> {
    variables::replace(&mut tree, options.env, sources, found);
    set::apply(&mut tree, options.set, sources, found);
    files::relocate(&mut tree, sources, dir, options);
    references::names(&tree, found);
    matrix::apply_defaults(&mut tree, found);
    let families = matrix::expand(&mut tree, sources, found);
    let value = tree.to_json();
    validate::check(&tree, &value, found);
    references::check(&tree, &value, &families, options.backend_chosen, sources, found);
    if found.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return None;
    }
    match serde_path_to_error::deserialize::<_, Scenario>(&value) {
        Ok(scenario) => Some((tree, scenario, families)),
        Err(error) => {
            let path = error.path().to_string();
            let steps =
                path.split('.').flat_map(|step| step.split('[')).map(|step| step.trim_end_matches(']'));
            let mut node = &tree;
            for step in steps {
                node = node.step(step).map_or(node, |(below, _)| below);
            }
            found.push(Diagnostic::error(node.span, error.into_inner().to_string()));
            None
        }
    }
}

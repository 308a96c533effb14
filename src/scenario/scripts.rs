//! Where the lines of a script stand that is written into a scenario.

use super::node::Node;
use super::source::{Sources, Span};
use super::types::Scenario;
use crate::hook::config::{Hooks, Origin};

/// Tells every inline script of a typed scenario where its lines stand.
pub fn place(tree: &Node, sources: &Sources, scenario: &mut Scenario) {
    let set = |hooks: Option<&mut Hooks>, path: &[&str]| {
        let Some(hooks) = hooks else { return };
        let node = tree.at(path.iter().copied().chain(["hooks", "inline"]));
        hooks.origin = node.and_then(|node| origin(node, sources));
    };
    set(scenario.hooks.as_mut(), &[]);
    for (name, workload) in &mut scenario.workloads {
        set(workload.hooks.as_mut(), &["workloads", name]);
    }
}

/// The offset of a text that stands literally in its file: in a block of YAML, a multi-line string of TOML, or on one line.
fn origin(node: &Node, sources: &Sources) -> Option<Origin> {
    let text = node.text()?;
    let source = sources.get(node.span.file);
    let wanted: Vec<&str> = text.lines().map(str::trim_end).collect();
    let first = wanted.iter().position(|line| !line.is_empty())?;
    let start = source.text[..sources.clamp(node.span).start].matches('\n').count();
    let lines: Vec<&str> = source.text.lines().map(str::trim_end).collect();
    // The text begins on the line of its key, or behind the line that opens it.
    let found = (start..lines.len().min(start + 3)).find_map(|line| {
        let indent = lines.get(line + first)?.find(wanted[first])?;
        let is_there = |(at, wanted): (usize, &&str)| {
            let own = lines.get(line + at);
            wanted.is_empty()
                || own.is_some_and(|own| own.get(indent..).is_some_and(|own| own.starts_with(wanted)))
        };
        wanted.iter().enumerate().skip(first).all(is_there).then_some((line, indent))
    });
    let (line, indent) = found?;
    let column = lines[line + first][..indent].chars().count();
    Some(Origin { file: source.name.clone(), line: line as u32, column: column as u32 })
}

/// The word at a line and column (1-based, in characters) of a text.
pub fn word_at(sources: &Sources, file: super::FileId, line: u32, column: u32) -> Span {
    let text = &sources.get(file).text;
    let start: usize = text.split_inclusive('\n').take(line as usize - 1).map(str::len).sum();
    let rest = text.get(start..).unwrap_or("");
    let line = rest.lines().next().unwrap_or("");
    let from = line.char_indices().nth(column as usize - 1).map_or(line.len(), |(at, _)| at);
    let word: usize =
        line[from..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').map(char::len_utf8).sum();
    let one = line[from..].chars().next().map_or(0, char::len_utf8);
    Span { file, start: start + from, end: start + from + word.max(one) }
}

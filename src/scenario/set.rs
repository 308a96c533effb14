//! `--set PATH=VALUE`: values that go over those of the file.

use super::diagnostic::{Diagnostic, quote};
use super::found::Found;
use super::node::{Node, Tree, merge};
use super::path::{Step, put, split};
use super::source::{Origin, Source, Sources, Span};
use super::yaml;

/// Applies every argument in order. A value is read as YAML; maps merge, everything else is replaced.
pub fn apply(tree: &mut Node, arguments: &[String], sources: &mut Sources, found: &mut Found) {
    for argument in arguments {
        if let Err(diagnostic) = one(tree, argument, sources, found) {
            found.push(*diagnostic);
        }
    }
}

fn one(
    tree: &mut Node,
    argument: &str,
    sources: &mut Sources,
    found: &mut Found,
) -> Result<(), Box<Diagnostic>> {
    let option = "--set ";
    let file = sources.add(Source {
        name: "command line".into(),
        text: format!("{option}{argument}"),
        origin: Origin::Argument,
        folder: String::new(),
    });
    let at = |start: usize, end: usize| Span { file, start: option.len() + start, end: option.len() + end };
    let Some((path, written)) = argument.split_once('=') else {
        return Err(Box::new(
            Diagnostic::error(at(0, argument.len()), "expected PATH=VALUE")
                .help("for example `--set workloads.chat.load.concurrency=4`"),
        ));
    };
    let steps = split(path, at(0, path.len()), sources);
    if let Some(empty) = steps.iter().find(|step| step.name.trim().is_empty()) {
        return Err(Box::new(Diagnostic::error(empty.span, format!("{} is no path", quote(path)))));
    }
    if steps[0].name == "extends" {
        return Err(Box::new(Diagnostic::error(
            steps[0].span,
            "`extends` can not be set; it is read before `--set`",
        )));
    }
    stranger(tree, &steps)?;
    let start = path.len() + 1;
    let before = found.diagnostics.len();
    let value = yaml::read(file, written, option.len() + start, &mut found.diagnostics);
    let (Some(mut value), true) = (value, found.diagnostics.len() == before) else { return Ok(()) };
    if value.tree == Tree::Null && written.trim().is_empty() {
        value = Node { span: at(path.len(), start), tree: Tree::Text(String::new()) };
    }
    put(tree, &steps, value, merge).map_err(|dead_end| {
        Box::new(Diagnostic::error(
            dead_end.span,
            format!("{} leads nowhere: {}", quote(path), dead_end.reason),
        ))
    })
}

/// A path into a workload or backend that does not exist would make half of one: better to ask which was meant.
fn stranger(tree: &Node, steps: &[Step]) -> Result<(), Box<Diagnostic>> {
    let [group, name, _, ..] = steps else { return Ok(()) };
    let what = match group.name.as_str() {
        "workloads" => "workload",
        "backends" => "backend",
        _ => return Ok(()),
    };
    let Some(map) = tree.get(&group.name).and_then(|entry| entry.node.map()) else { return Ok(()) };
    let rest: Vec<&str> = steps[1..].iter().map(|step| step.name.as_str()).collect();
    let rest = rest.join(".");
    let known =
        map.keys().any(|key| rest.strip_prefix(key.as_str()).is_some_and(|tail| tail.starts_with('.')));
    if known {
        return Ok(());
    }
    let names: Vec<&str> = map.keys().map(String::as_str).collect();
    Err(Box::new(
        Diagnostic::error(name.span, format!("there is no {what} {}", quote(&name.name)))
            .suggest(&name.name, names.iter().copied())
            .note(format!("{what}s: {}", names.join(", "))),
    ))
}

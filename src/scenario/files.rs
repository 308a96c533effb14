//! Paths in a file are relative to that file. What another folder's file says is rewritten to be relative to the
//! scenario's own folder, so that a plan does not depend on where the scenarios lie on a disk.

use std::path::Path;

use super::extends::join;
use super::load::Options;
use super::node::{Node, Tree};
use super::source::Sources;

/// Rewrites `path` of prompts and distributions, and the templates of reports, where they stand in another folder's file.
pub fn relocate(tree: &mut Node, sources: &Sources, dir: &Path, options: &Options<'_>) {
    tree.walk(&mut |node| {
        let Some(map) = node.map_mut() else { return };
        let kind = map.get("kind").and_then(|entry| entry.node.text());
        if matches!(kind, Some("file" | "trace" | "empirical" | "json_schema"))
            && let Some(entry) = map.get_mut("path")
        {
            rewrite(&mut entry.node, sources, |folder, path| Some(join(folder, path)));
        }
        if let Some(file) = map.get_mut("hooks").and_then(|hooks| hooks.node.map_mut()?.get_mut("file")) {
            rewrite(&mut file.node, sources, |folder, path| Some(join(folder, path)));
        }
    });
    let reports = tree.map_mut().and_then(|map| map.get_mut("reports"));
    let Some(Tree::List(reports)) = reports.map(|entry| &mut entry.node.tree) else { return };
    for report in reports {
        let Some(entry) = report.map_mut().and_then(|map| map.get_mut("template")) else { continue };
        // beside the file or in its `templates` folder; else it is a template that ships with the program
        rewrite(&mut entry.node, sources, |folder, template| {
            let places = [join(folder, template), join(folder, &format!("templates/{template}"))];
            places.into_iter().find(|place| (options.read)(&dir.join(place)).is_ok())
        });
    }
}

fn rewrite(node: &mut Node, sources: &Sources, place: impl Fn(&str, &str) -> Option<String>) {
    let folder = &sources.get(node.span.file).folder;
    if folder.is_empty() {
        return;
    }
    if let Tree::Text(path) = &mut node.tree
        && !path.starts_with('/')
        && let Some(moved) = place(folder, path)
    {
        *path = moved;
    }
}

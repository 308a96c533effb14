//! `defaults` under every workload, and `matrix`: one workload becomes its points.

use indexmap::IndexMap;
use serde_json::Value;

use super::diagnostic::{Diagnostic, quote};
use super::found::Found;
use super::load::{Family, Point};
use super::node::{Entry, Map, Node, Tree, merge};
use super::path::{Step, put, split};
use super::source::{Sources, Span};

/// The most values that `defaults` or a matrix may make of a file.
const MAX_VALUES: usize = 2_000_000;
/// The most points that one matrix may have.
const MAX_POINTS: usize = 10_000;

/// Lays `defaults` under every workload and takes it out of the tree.
pub fn apply_defaults(tree: &mut Node, found: &mut Found) {
    let Some(map) = tree.map_mut() else { return };
    let defaults = map.shift_remove("defaults");
    let Some(workloads) = map.get_mut("workloads").and_then(|entry| entry.node.map_mut()) else { return };
    for entry in workloads.values_mut().filter(|entry| entry.node.tree == Tree::Null) {
        entry.node = Node::empty_map(entry.node.span);
    }
    let Some(defaults) = defaults else { return };
    if defaults.node.map().is_none() {
        let message = format!("`defaults` is a map of a workload's keys, not {}", defaults.node.described());
        found.push(Diagnostic::error(defaults.node.span, message));
        found.incomplete = true;
        return;
    }
    if defaults.node.count().saturating_mul(workloads.len()) > MAX_VALUES {
        found.push(Diagnostic::error(defaults.key, "`defaults` is too large for so many workloads"));
        found.incomplete = true;
        return;
    }
    for entry in workloads.values_mut().filter(|entry| entry.node.map().is_some()) {
        let own = std::mem::replace(&mut entry.node, Node { span: entry.key, tree: Tree::Null });
        entry.node = merge(defaults.node.clone(), own);
    }
}

/// Replaces every workload that has a `matrix` by its points.
pub fn expand(tree: &mut Node, sources: &Sources, found: &mut Found) -> IndexMap<String, Family> {
    let mut families = IndexMap::new();
    let Some(entry) = tree.map_mut().and_then(|map| map.get_mut("workloads")) else { return families };
    let Some(workloads) = entry.node.map_mut() else { return families };
    let mut expanded = Map::new();
    for (name, mut entry) in std::mem::take(workloads) {
        let matrix = entry.node.map_mut().and_then(|map| map.shift_remove("matrix"));
        let points =
            matrix.map(|matrix| Expansion { workload: &name, sources, found }.points(&matrix, &entry.node));
        for (full, point, node) in points.unwrap_or_else(|| vec![(name.clone(), Point::new(), entry.node)]) {
            families.insert(full.clone(), Family { name: name.clone(), point });
            expanded.insert(full, Entry { key: entry.key, node });
        }
    }
    *workloads = expanded;
    families
}

/// One path of an axis and the values it takes.
struct Track {
    path: String,
    steps: Vec<Step>,
    at: Span,
    values: Vec<Node>,
}

/// Paths that walk together.
type Axis = Vec<Track>;

struct Expansion<'a> {
    workload: &'a str,
    sources: &'a Sources,
    found: &'a mut Found,
}

impl Expansion<'_> {
    /// The points as (name, coordinates, workload). With an error in the matrix, one point with the first value of each
    /// path, so that the rest of the workload can still be checked.
    fn points(&mut self, matrix: &Entry, workload: &Node) -> Vec<(String, Point, Node)> {
        let before = self.found.diagnostics.len();
        let axes = self.axes(matrix);
        let count =
            axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.first().map_or(0, |t| t.values.len())));
        if count.is_none_or(|count| count > MAX_POINTS) {
            let message = format!("the matrix has more than {MAX_POINTS} points");
            self.found.push(Diagnostic::error(matrix.key, message));
        } else if count.unwrap_or(0).saturating_mul(workload.count()) > MAX_VALUES {
            self.found.push(Diagnostic::error(matrix.key, "the workload is too large for so many points"));
        }
        if self.found.diagnostics.len() > before {
            let mut node = workload.clone();
            for track in axes.iter().flatten() {
                if let Some(value) = track.values.first() {
                    let _ = put(&mut node, &track.steps, value.clone(), |_, new| new);
                }
            }
            return vec![(self.workload.to_owned(), Point::new(), node)];
        }
        let labels = labels(&axes);
        let mut points = Vec::new();
        for index in 0..count.unwrap_or(0) {
            points.push(self.point(index, &axes, &labels, workload));
        }
        self.distinct(matrix, &points);
        points
    }

    fn point(
        &mut self,
        index: usize,
        axes: &[Axis],
        labels: &[Vec<Label>],
        workload: &Node,
    ) -> (String, Point, Node) {
        let mut node = workload.clone();
        let mut point = Point::new();
        let mut parts = Vec::new();
        // the last axis walks fastest
        let mut stride = axes.iter().map(|axis| axis[0].values.len()).product::<usize>();
        for (axis, labels) in axes.iter().zip(labels) {
            stride /= axis[0].values.len();
            let at = index / stride % axis[0].values.len();
            for (track, label) in axis.iter().zip(labels) {
                point.insert(label.suffix.clone(), track.values[at].to_json());
                if label.named {
                    parts.push(format!("{}={}", label.suffix, shown(&track.values[at].to_json(), at)));
                }
                if let Err(dead_end) = put(&mut node, &track.steps, track.values[at].clone(), |_, new| new) {
                    let message = format!("{} leads nowhere: {}", quote(&track.path), dead_end.reason);
                    self.found.push(Diagnostic::error(dead_end.span, message));
                }
            }
        }
        (format!("{}@{}", self.workload, parts.join("+")), point, node)
    }

    fn distinct(&mut self, matrix: &Entry, points: &[(String, Point, Node)]) {
        let mut seen = IndexMap::new();
        for (name, point, _) in points {
            if seen.insert(name, point).is_some() {
                let message = format!("the matrix has the point {} twice", quote(name));
                self.found.push(Diagnostic::error(matrix.key, message));
                return;
            }
        }
    }

    fn axes(&mut self, matrix: &Entry) -> Vec<Axis> {
        let example = "an axis is a map of paths to lists, such as `- { load.concurrency: [1, 4, 16] }`";
        let Some(list) = matrix.node.list() else {
            let message = format!("`matrix` is a list of axes, not {}", matrix.node.described());
            self.found.push(Diagnostic::error(matrix.key, message).help(example));
            return Vec::new();
        };
        if list.is_empty() {
            self.found.push(Diagnostic::error(matrix.node.span, "the matrix has no axis").help(example));
        }
        let mut axes: Vec<Axis> = Vec::new();
        for axis in list {
            let Some(map) = axis.map().filter(|map| !map.is_empty()) else {
                let message = format!("an axis is a map of paths to lists, not {}", axis.described());
                self.found.push(Diagnostic::error(axis.span, message).help(example));
                continue;
            };
            let mut tracks = Axis::new();
            self.tracks(map, &[], &mut tracks);
            self.check(&tracks, &axes);
            axes.push(tracks);
        }
        axes
    }

    /// Collects the paths of an axis. A map where a list is expected holds longer paths: TOML's dotted keys nest.
    fn tracks(&mut self, map: &Map, above: &[Step], tracks: &mut Axis) {
        for (key, entry) in map {
            let mut steps = above.to_vec();
            steps.extend(split(key, entry.key, self.sources));
            let path: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
            let path = path.join(".");
            if let Some(nested) = entry.node.map() {
                self.tracks(nested, &steps, tracks);
                continue;
            }
            let values = match entry.node.list() {
                Some([]) => {
                    let message = format!("{} has no values", quote(&path));
                    self.found.push(Diagnostic::error(entry.node.span, message));
                    Vec::new()
                }
                Some(list) => list.to_vec(),
                None => {
                    let message =
                        format!("{} needs a list of values, not {}", quote(&path), entry.node.described());
                    let written = self.sources.text(entry.node.span);
                    self.found.push(
                        Diagnostic::error(entry.node.span, message).help(format!("write `[{written}]`")),
                    );
                    vec![entry.node.clone()]
                }
            };
            if steps[0].name == "matrix" || steps.iter().any(|step| step.name.is_empty()) {
                let message = format!("{} is no path into a workload", quote(&path));
                self.found.push(Diagnostic::error(entry.key, message));
                continue;
            }
            tracks.push(Track { path, steps, at: entry.key, values });
        }
    }

    /// The keys of one axis are equally long, and no path is varied twice.
    fn check(&mut self, tracks: &[Track], earlier: &[Axis]) {
        for (index, track) in tracks.iter().enumerate() {
            let first = &tracks[0];
            if track.values.len() != first.values.len() {
                let message = format!(
                    "the keys of one axis walk together, but {} has {} and {} has {}",
                    quote(&first.path),
                    values(first.values.len()),
                    quote(&track.path),
                    values(track.values.len())
                );
                let diagnostic = Diagnostic::error(track.at, message)
                    .related(Some(first.at), values(first.values.len()))
                    .label(values(track.values.len()))
                    .help("axes that multiply are items of their own in the list");
                self.found.push(diagnostic);
            }
            let same = |other: &&Track| {
                let (short, long) = if other.path.len() < track.path.len() {
                    (&other.path, &track.path)
                } else {
                    (&track.path, &other.path)
                };
                long.strip_prefix(short.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            if let Some(other) = earlier.iter().flatten().chain(&tracks[..index]).find(same) {
                let message = format!("{} is varied twice", quote(&track.path));
                self.found.push(Diagnostic::error(track.at, message).related(Some(other.at), "here first"));
            }
        }
    }
}

fn values(count: usize) -> String {
    format!("{count} value{}", if count == 1 { "" } else { "s" })
}

/// How a path appears in the names of points.
struct Label {
    suffix: String,
    named: bool,
}

/// The shortest suffix of each path that no other path of the matrix ends in. Of an axis only so many paths are named as
/// it takes to tell its values apart.
fn labels(axes: &[Axis]) -> Vec<Vec<Label>> {
    let paths: Vec<&str> = axes.iter().flatten().map(|track| track.path.as_str()).collect();
    let suffix = |path: &str| {
        let names: Vec<&str> = path.split('.').collect();
        let mut suffixes = (0..names.len()).rev().map(|start| names[start..].join("."));
        let alone = |suffix: &String| {
            let ending = format!(".{suffix}");
            paths.iter().filter(|other| **other == suffix.as_str() || other.ends_with(&ending)).count() == 1
        };
        suffixes.find(alone).unwrap_or_else(|| path.to_owned())
    };
    axes.iter()
        .map(|axis| {
            let mut told: Vec<Vec<String>> = vec![Vec::new(); axis[0].values.len()];
            let mut labels = Vec::new();
            for track in axis {
                let mut unique = told.clone();
                unique.sort();
                unique.dedup();
                let named = labels.is_empty() || unique.len() < told.len();
                for (row, value) in told.iter_mut().zip(&track.values) {
                    if named {
                        row.push(value.to_json().to_string());
                    }
                }
                labels.push(Label { suffix: suffix(&track.path), named });
            }
            labels
        })
        .collect()
}

/// A value inside a name: short and without blanks.
fn shown(value: &Value, index: usize) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(|value| shown(value, index)).collect::<Vec<_>>().join(","),
        Value::Object(map) => {
            let part = |(key, value): (&String, &Value)| {
                let value = shown(value, index);
                if key == "kind" { value } else { format!("{key}:{value}") }
            };
            map.iter().map(part).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    };
    let clean: String =
        text.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect();
    if clean.chars().count() <= 40 {
        return clean;
    }
    format!("{}~{}", clean.chars().take(32).collect::<String>(), index + 1)
}

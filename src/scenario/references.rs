//! Names: legal where they are given, known where they are used.

use serde_json::Value;

use super::check::{Part, below};
use super::diagnostic::{Diagnostic, quote};
use super::found::Found;
use super::load::Family;
use super::node::Node;
use super::parallel;
use super::source::{Sources, Span};
use super::types::Workload;
use crate::backend::config::Backend;
use crate::hook::config::{CustomMetric, Hooks};
use crate::metric::Metric;
use crate::nearest::nearest;
use crate::rule::{Limit, Rule, RuleError};

/// Names of workloads, backends, baselines and metrics, as they are written.
pub fn names(tree: &Node, found: &mut Found) {
    for group in ["workloads", "parallel", "backends", "baselines", "metrics"] {
        let Some(map) = tree.get(group).and_then(|entry| entry.node.map()) else { continue };
        for (name, entry) in map {
            if let Some(diagnostic) = no_name(name, entry.key) {
                found.push(diagnostic);
            }
        }
    }
}

/// What is wrong with a name, if something is.
pub fn no_name(name: &str, at: impl Into<Option<Span>>) -> Option<Diagnostic> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
    if !name.is_empty() && name.chars().all(legal) {
        return None;
    }
    let better: String = name.trim().to_lowercase().chars().map(|c| if legal(c) { c } else { '_' }).collect();
    let diagnostic = Diagnostic::error(at, format!("{} is no name", quote(name)))
        .note("a name is made of lower-case letters, digits, `_`, `.` and `-`");
    let usable = better.chars().any(|c| c.is_ascii_alphanumeric());
    Some(if usable { diagnostic.help(format!("write `{better}`")) } else { diagnostic })
}

/// Checks an expanded tree. Parts that the schema already refused are left out.
pub fn check(
    tree: &Node,
    value: &Value,
    families: &indexmap::IndexMap<String, Family>,
    backend_chosen: bool,
    sources: &Sources,
    found: &mut Found,
) {
    if found.incomplete {
        return;
    }
    let keys = |group: &str| -> Vec<&str> {
        value[group].as_object().map(|map| map.keys().map(String::as_str).collect()).unwrap_or_default()
    };
    let mut workloads: Vec<&str> = families.values().map(|family| family.name.as_str()).collect();
    workloads.dedup();
    let points = families.keys().map(String::as_str).filter(|name| !workloads.contains(name));
    let points = points.chain(keys("parallel")).collect();
    parallel::check(tree, value, families, found);
    let names = Names { workloads, points, backends: keys("backends"), baselines: keys("baselines") };
    let mut checker = Checker { tree, declared: declared(value), names, sources, found };
    checker.chosen_backends(value, backend_chosen);
    checker.rules(value);
    checker.slo(&["slo"], &value["slo"]);
    checker.at(&[]).hooks(serde_json::from_value::<Hooks>(value["hooks"].clone()).ok().as_ref());
    for name in keys("metrics") {
        checker.new_metric(name);
    }
    for name in keys("backends") {
        checker.matched_workloads(&value["backends"][name], name);
        match serde_json::from_value(value["backends"][name].clone()) {
            Ok(Backend::Mock(mock)) => checker.at(&["backends", name]).mock(&mock),
            Ok(Backend::Candle(local)) => checker.at(&["backends", name]).candle(&local),
            Ok(backend) => checker.at(&["backends", name]).server(&backend),
            Err(_) => {}
        }
    }
    for name in keys("workloads") {
        checker.slo(&["workloads", name, "slo"], &value["workloads"][name]["slo"]);
        if let Ok(workload) = serde_json::from_value::<Workload>(value["workloads"][name].clone()) {
            checker.at(&["workloads", name]).workload(&workload, parallel::follows(value, name));
        }
    }
}

/// The metrics that a scenario declares, as far as they can be read.
fn declared(value: &Value) -> Vec<&'static Metric> {
    let metrics = value["metrics"].as_object().into_iter().flatten().zip(0..);
    let metric = |((name, metric), place): ((&String, &Value), u16)| {
        Some(serde_json::from_value::<CustomMetric>(metric.clone()).ok()?.metric(place, name))
    };
    metrics.filter_map(metric).collect()
}

struct Names<'a> {
    workloads: Vec<&'a str>,
    points: Vec<&'a str>,
    backends: Vec<&'a str>,
    baselines: Vec<&'a str>,
}

struct Checker<'a> {
    tree: &'a Node,
    /// The metrics that the scenario declares.
    declared: Vec<&'static Metric>,
    names: Names<'a>,
    sources: &'a Sources,
    found: &'a mut Found,
}

impl Checker<'_> {
    fn at<'b>(&'b mut self, path: &[&str]) -> Part<'b> {
        let (mut node, mut key) = (Some(self.tree), None);
        for step in path {
            (node, key) = below(node, step);
        }
        Part { node, key, found: self.found }
    }

    /// A metric of the scenario must not be named like one that is there anyway.
    fn new_metric(&mut self, name: &str) {
        if Metric::named(name).is_some() {
            let key = self.at(&["metrics", name]).key;
            let diagnostic = Diagnostic::error(key, format!("there is a metric `{name}` already"))
                .help("give it another name");
            self.found.push(diagnostic);
        }
    }

    fn chosen_backends(&mut self, value: &Value, elsewhere: bool) {
        let names = self.names.backends.clone();
        match &value["backend"] {
            Value::Null if names.len() > 1 && !elsewhere => {
                let span = self.at(&["backends"]).key;
                self.found.push(
                    Diagnostic::error(span, "several backends, and none is chosen")
                        .help(format!("write `backend: {}`, or a list of names", names[0])),
                );
            }
            Value::String(name) => self.backend(&["backend"], name),
            Value::Array(list) => {
                for (index, name) in list.iter().enumerate() {
                    self.backend(&["backend", &index.to_string()], name.as_str().unwrap_or_default());
                }
            }
            _ => {}
        }
    }

    fn backend(&mut self, path: &[&str], name: &str) {
        let names = self.names.backends.clone();
        if !names.contains(&name) {
            self.at(path).stranger("backend", name, &names);
        }
    }

    fn workload(&mut self, path: &[&str], name: &str) {
        if self.names.workloads.contains(&name) || self.names.points.contains(&name) {
            return;
        }
        let names = self.names.workloads.clone();
        self.at(path).stranger("workload", name, &names);
    }

    fn rules(&mut self, value: &Value) {
        let rules = value["gates"]["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (index, rule) in rules.iter().enumerate() {
            let index = index.to_string();
            match rule {
                Value::String(text) => self.rule_text(&["gates", "rules", &index], text),
                rule => {
                    let text = rule["rule"].as_str().unwrap_or_default();
                    self.rule_text(&["gates", "rules", &index, "rule"], text);
                }
            }
            for (group, key) in [(true, "workloads"), (false, "backends")] {
                for (at, name) in rule[key].as_array().into_iter().flatten().enumerate() {
                    let (at, name) = (at.to_string(), name.as_str().unwrap_or_default());
                    let path = ["gates", "rules", &index, key, &at];
                    if group { self.workload(&path, name) } else { self.backend(&path, name) }
                }
            }
        }
    }

    /// What is wrong with a rule whatever the plan is, told together with everything else.
    fn rule_text(&mut self, path: &[&str], text: &str) {
        let Some(node) = self.tree.at(path.iter().copied()).filter(|_| !text.is_empty()) else { return };
        let errors = match crate::rule::parse_with(text, &self.declared) {
            Ok(rule) => self.reference(&rule).into_iter().collect(),
            Err(errors) => errors,
        };
        for error in errors {
            let span = node.part_of_text(self.sources, error.at);
            self.found.push(Diagnostic::error(span, error.message).help(error.help));
        }
    }

    /// What a rule refers to must be there, and only once.
    fn reference(&self, rule: &Rule) -> Option<RuleError> {
        let Limit::Reference(reference) = &rule.limit else { return None };
        let name = reference.name.as_str();
        let Names { workloads, points, backends, baselines } = &self.names;
        let kinds = [
            ("baseline", baselines.contains(&name)),
            ("workload", workloads.contains(&name) || points.contains(&name)),
            ("backend", backends.contains(&name)),
        ];
        let found: Vec<&str> = kinds.iter().filter(|(_, is)| *is).map(|(kind, _)| *kind).collect();
        let (message, help) = match found.as_slice() {
            [_] => return None,
            [] => {
                let known: Vec<&str> =
                    baselines.iter().chain(workloads).chain(points).chain(backends).copied().collect();
                let help = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => crate::rule::LIMIT.to_owned(),
                };
                (format!("`{name}` is neither a baseline nor a workload nor a backend"), help)
            }
            several => (
                format!("`{name}` may be the {} of that name", several.join(" or the ")),
                "give one of them another name".to_owned(),
            ),
        };
        Some(RuleError::new(rule.limit_at.clone(), message, help))
    }

    /// The same for the limits of an SLO.
    fn slo(&mut self, path: &[&str], limits: &Value) {
        for (index, limit) in limits.as_array().into_iter().flatten().enumerate() {
            let (index, text) = (index.to_string(), limit.as_str().unwrap_or_default());
            let at: Vec<&str> = path.iter().copied().chain([index.as_str()]).collect();
            let Some(node) = self.tree.at(at).filter(|_| !text.is_empty()) else { continue };
            if let Err(error) = crate::rule::condition(text, &self.declared) {
                let span = node.part_of_text(self.sources, error.at);
                self.found.push(Diagnostic::error(span, error.message).help(error.help));
            }
        }
    }

    /// The workloads that faults and responses of a mock are for.
    fn matched_workloads(&mut self, backend: &Value, name: &str) {
        for list in ["faults", "responses"] {
            for (index, rule) in backend[list].as_array().into_iter().flatten().enumerate() {
                if let Some(workload) = rule["match"]["workload"].as_str() {
                    self.workload(
                        &["backends", name, list, &index.to_string(), "match", "workload"],
                        workload,
                    );
                }
            }
        }
    }
}

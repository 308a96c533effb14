//! Groups of workloads that run at once: whom they name, and what can not run in one.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::check::{Part, below};
use super::diagnostic::{Diagnostic, quote};
use super::found::Found;
use super::load::Family;
use super::node::Node;

/// Whether another workload of its group ends a workload.
pub fn follows(value: &Value, workload: &str) -> bool {
    let groups = value["parallel"].as_object().into_iter().flat_map(Map::values);
    groups.filter_map(|group| group.get(workload)).any(|member| member.get("until").is_some())
}

/// Checks the groups of an expanded tree.
pub fn check(tree: &Node, value: &Value, families: &IndexMap<String, Family>, found: &mut Found) {
    let Some(groups) = value["parallel"].as_object() else { return };
    let mut taken: IndexMap<&str, &str> = IndexMap::new();
    for (name, group) in groups {
        let Some(members) = group.as_object() else { continue };
        let mut checker = Checker { tree, value, families, found: &mut *found, name, members };
        checker.name();
        for member in members.keys() {
            if let Some(other) = taken.insert(member, name) {
                let message = format!("{} is in the group {} already", quote(member), quote(other));
                checker.at_key(&["parallel", name, member], message, "a workload is played once");
            }
            checker.member(member);
        }
        checker.circle();
    }
}

struct Checker<'a> {
    tree: &'a Node,
    value: &'a Value,
    families: &'a IndexMap<String, Family>,
    found: &'a mut Found,
    name: &'a str,
    members: &'a Map<String, Value>,
}

impl Checker<'_> {
    fn at(&mut self, path: &[&str]) -> Part<'_> {
        let (mut node, mut key) = (Some(self.tree), None);
        for step in path {
            (node, key) = below(node, step);
        }
        Part { node, key, found: self.found }
    }

    fn at_key(&mut self, path: &[&str], message: impl Into<String>, help: &str) {
        let mut part = self.at(path);
        let diagnostic = Diagnostic::error(part.key_span(), message).help(help);
        part.report(diagnostic);
    }

    fn name(&mut self) {
        let name = self.name;
        let is_workload = self.families.iter().any(|(full, family)| full == name || family.name == name);
        let kinds = [
            ("workload", is_workload),
            ("backend", self.value["backends"].get(name).is_some()),
            ("baseline", self.value["baselines"].get(name).is_some()),
        ];
        if let Some((kind, _)) = kinds.iter().find(|(_, is)| *is) {
            let message = format!("there is a {kind} of that name too");
            self.at_key(&["parallel", name], message, "give the group another name");
        }
        if self.members.len() < 2 {
            self.at_key(
                &["parallel", name],
                "a group has two workloads or more",
                "name those that run at once",
            );
        }
    }

    fn member(&mut self, member: &str) {
        let (name, families) = (self.name, self.families);
        let path = ["parallel", name, member];
        if !families.contains_key(member) {
            if families.values().any(|family| family.name == member) {
                let help = "write its points as workloads of their own, in groups of their own";
                self.at_key(
                    &path,
                    format!("{} has a matrix, which a group can not have", quote(member)),
                    help,
                );
                return;
            }
            let mut known: Vec<&str> = families.keys().map(String::as_str).collect();
            known.sort_unstable();
            let mut part = self.at(&path);
            let diagnostic =
                Diagnostic::error(part.key_span(), format!("there is no workload {}", quote(member)))
                    .suggest(member, known.iter().copied())
                    .note(format!("workloads: {}", known.join(", ")));
            part.report(diagnostic);
            return;
        }
        let workloads = &self.value["workloads"];
        if workloads[member]["load"]["kind"] == "search" {
            let help =
                "search for its capacity on its own, or set its load and search for that of another run";
            self.at_key(
                &path,
                format!("{} searches for its load, which a group can not do", quote(member)),
                help,
            );
        }
        let repeats = |workload: &str| workloads[workload]["repeats"].as_u64().unwrap_or(1);
        let first = self.members.keys().next().map_or(member, String::as_str);
        if families.contains_key(first) && repeats(member) != repeats(first) {
            let message = format!(
                "{} has {} repeats and {} has {}: a group is played as a whole",
                quote(member),
                repeats(member),
                quote(first),
                repeats(first)
            );
            self.at_key(&path, message, "give all of them the same `repeats`");
        }
        if let Some(leader) = self.members[member]["until"].as_str() {
            let others: Vec<&str> =
                self.members.keys().map(String::as_str).filter(|other| *other != member).collect();
            if leader == member {
                let message = "a workload can not last as long as itself";
                self.at(&["parallel", name, member, "until"]).wrong(message);
            } else if !others.contains(&leader) {
                self.at(&["parallel", name, member, "until"]).stranger("other workload", leader, &others);
            }
        }
    }

    /// Workloads that wait for each other would never end.
    fn circle(&mut self) {
        for member in self.members.keys() {
            let leader = |of: &str| self.members.get(of).and_then(|own| own["until"].as_str());
            let mut at = leader(member);
            for _ in 0..self.members.len() {
                if at == Some(member) && leader(member) != Some(member) {
                    let message =
                        format!("{} lasts as long as a workload that lasts as long as it", quote(member));
                    self.at(&["parallel", self.name, member, "until"]).wrong(message);
                    return;
                }
                at = at.and_then(leader);
            }
        }
    }
}

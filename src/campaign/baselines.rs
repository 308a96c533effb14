//! Baselines: read before anything runs, and held against the plan.

use std::path::Path;

use indexmap::IndexMap;

use crate::gate::Checked;
use crate::gate::config::Missing;
use crate::plan::Plan;
use crate::report::{Baseline, ReadError, read_baseline};
use crate::rule::Limit;
use crate::scenario::Scenario;

/// The baselines by name; `None` for one that does not exist and may be missing.
pub type Baselines = IndexMap<String, Option<Baseline>>;

/// Why a baseline can not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its name.
    pub baseline: String,
    /// What is wrong, a lower-case fragment.
    pub message: String,
    /// What to do.
    pub help: String,
    /// Whether it is of other work than the plan: both are fine by themselves.
    pub is_other_work: bool,
}

/// Reads the baselines that a rule refers to and says which are of other work than the plan, where there is one.
pub fn load(
    scenario: &Scenario,
    gates: &Checked,
    plan: Option<&Plan>,
    dir: &Path,
) -> (Baselines, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut baselines = Baselines::new();
    for (name, config) in &scenario.baselines {
        let is_referred = gates
            .rules
            .iter()
            .any(|rule| matches!(&rule.rule.limit, Limit::Reference(reference) if reference.name == *name));
        if !is_referred {
            continue;
        }
        let path = dir.join(&config.path);
        let problem = |message: String, help: String, is_other_work| Problem {
            baseline: name.clone(),
            message,
            help,
            is_other_work,
        };
        match read_baseline(&path) {
            Ok(baseline) => {
                problems.extend(plan.and_then(|plan| other_work(&baseline, plan)).map(|message| {
                    let help =
                        "save a new baseline with `sagebench baseline save`, or run what it was taken from";
                    problem(message, help.to_owned(), true)
                }));
                baselines.insert(name.clone(), Some(baseline));
            }
            Err(ReadError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                if config.missing == Missing::Fail {
                    let message = format!("there is no baseline at {}", path.display());
                    let help = format!(
                        "save one with `sagebench baseline save {name}`, or write `missing: skip` until there is one"
                    );
                    problems.push(problem(message, help, false));
                }
                baselines.insert(name.clone(), None);
            }
            Err(error) => {
                problems.push(problem(
                    error.to_string(),
                    "save it again, or name another file".to_owned(),
                    false,
                ));
            }
        }
    }
    (baselines, problems)
}

/// What of the plan the baseline played otherwise.
fn other_work(baseline: &Baseline, plan: &Plan) -> Option<String> {
    let differs = plan.workloads.iter().zip(&plan.workload_digests).filter(|(workload, digest)| {
        let digests = baseline.cells.iter().filter(|cell| cell.workload == workload.name);
        digests.filter_map(|cell| cell.schedule_digest.as_ref()).any(|theirs| theirs != *digest)
    });
    let names: Vec<String> = differs.map(|(workload, _)| format!("`{}`", workload.name)).collect();
    (!names.is_empty()).then(|| {
        format!(
            "not comparable: the baseline was taken with other lengths, arrivals or load than this plan has for {}",
            names.join(", ")
        )
    })
}

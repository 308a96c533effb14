//! What the command line changes in a scenario before it is planned.

use super::prepare::{Rejected, unknown};
use crate::backend::config::Clock;
use crate::plan::config::{ClosedLoad, Level, Load, OpenLoad, Requests, SearchLoad};
use crate::scenario::{Loaded, Scenario};

/// What the command line changes in a scenario.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// `PATH=VALUE` arguments.
    pub set: Vec<String>,
    /// Run on these backends; empty leaves the scenario's choice.
    pub backends: Vec<String>,
    /// The model of the chosen backends.
    pub model: Option<String>,
    /// Run only these workloads (full or family names); empty runs all.
    pub only: Vec<String>,
    /// The seed.
    pub seed: Option<u64>,
    /// The clock of the chosen backends.
    pub clock: Option<Clock>,
    /// Three requests per workload, no gates.
    pub smoke: bool,
}

/// Leaves only the workloads of these names; a family's name stands for all its points, a group's for its workloads.
pub(super) fn keep_only(loaded: &mut Loaded, only: &[String]) -> Result<(), Rejected> {
    if only.is_empty() {
        return Ok(());
    }
    let families = loaded.families.clone();
    let groups = loaded.scenario.parallel.clone();
    let is_named = |workload: &str, name: &str| {
        let in_group = groups.get(name).is_some_and(|group| group.contains_key(workload));
        workload == name || in_group || families.get(workload).is_some_and(|f| f.name == name)
    };
    for name in only {
        if !families.keys().any(|workload| is_named(workload, name)) {
            let mut known: Vec<&str> =
                families.iter().flat_map(|(full, f)| [f.name.as_str(), full.as_str()]).collect();
            known.dedup();
            known.extend(groups.keys().map(String::as_str));
            return Err(Rejected::Message(unknown("workload", name, known.into_iter())));
        }
    }
    let keep = |workload: &String| only.iter().any(|name| is_named(workload, name));
    loaded.scenario.workloads.retain(|workload, _| keep(workload));
    loaded.families.retain(|workload, _| keep(workload));
    for (name, group) in &mut loaded.scenario.parallel {
        group.retain(|workload, _| keep(workload));
        for (workload, member) in &*group {
            if let Some(leader) = member.until.as_ref().filter(|leader| !group.contains_key(*leader)) {
                return Err(Rejected::Message(format!(
                    "workload `{workload}` lasts until `{leader}` is over, which --only leaves out; --only {name} keeps the group"
                )));
            }
        }
    }
    // One workload that is left of a group is alone, and begins at once.
    loaded.scenario.parallel.retain(|_, group| group.len() > 1);
    Ok(())
}

/// Three requests per workload, without warm-up, repeats or gates.
pub(super) fn make_smoke(scenario: &mut Scenario) {
    scenario.gates.rules.clear();
    for workload in scenario.workloads.values_mut() {
        workload.warmup = None;
        workload.repeats = 1;
        match &mut workload.load {
            Load::Closed(load) => load.requests = Some(Requests::Total(3)),
            Load::Open(load) => load.requests = Some(3),
            Load::Stages(load) => load.requests = Some(3),
            Load::Replay(load) => load.requests = Some(3),
            Load::Search(search) => workload.load = lowest(search),
        }
    }
}

/// Three requests at the lowest level of a search.
fn lowest(search: &SearchLoad) -> Load {
    match search.range[0] {
        Level::Rate(rate) => Load::Open(OpenLoad {
            rate,
            arrival: search.arrival.clone().unwrap_or_default(),
            max_in_flight: None,
            requests: Some(3),
            sessions: None,
            duration: None,
        }),
        Level::Users(concurrency) => Load::Closed(ClosedLoad {
            concurrency,
            think_time: search.think_time.clone(),
            ramp_up: None,
            requests: Some(Requests::Total(3)),
            sessions: None,
            duration: None,
        }),
    }
}

//! Tests of whole plans: from the text of a workload to its recipes.

mod errors;
mod files;
mod sources;
mod streams;

use std::path::Path;

use indexmap::IndexMap;

use super::{Plan, PlanError, Recipe, WorkloadPlan, plan};
use crate::record::Phase;
use crate::scenario::Scenario;
use crate::tokenizer::Mock;
use crate::units::Ns;

/// A scenario of one workload `load`, given as JSON.
fn scenario(workload: &str) -> Scenario {
    let text = format!(
        r#"{{"version": 1, "seed": 42, "backends": {{"mock": {{"kind": "mock", "ttft": "10ms", "tbt": "5ms"}}}},
            "workloads": {{"load": {workload}}}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn try_plan(workload: &str, dir: &Path) -> Result<Plan, Vec<PlanError>> {
    plan(&scenario(workload), &IndexMap::new(), dir, &Mock)
}

/// The plan of one workload, with paths relative to the crate.
fn planned(workload: &str) -> WorkloadPlan {
    try_plan(workload, Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap().workloads.remove(0)
}

/// A workload with a synthetic prompt under this load, with further keys.
fn under(load: &str, more: &str) -> String {
    format!(
        r#"{{"prompt": {{"kind": "synthetic", "tokens": {{"kind": "uniform", "min": 8, "max": 99}}}},
            "output": {{"tokens": {{"kind": "uniform", "min": 1, "max": 50}}}}, "load": {load}{more}}}"#
    )
}

fn all(plan: &WorkloadPlan) -> Vec<Recipe> {
    plan.stream(0).collect()
}

fn measured(recipes: &[Recipe]) -> Vec<Recipe> {
    recipes.iter().filter(|recipe| recipe.phase == Phase::Measured).cloned().collect()
}

fn arrivals(recipes: &[Recipe]) -> Vec<Ns> {
    recipes.iter().map(|recipe| recipe.arrival.unwrap()).collect()
}

//! What the contract's scenarios say they expect of their gates is what happens, on every mock that they name.
//!
//! Above each rule stands `# expected on BACKEND: VERDICT, why`, or where only some workloads have that verdict
//! `# expected on BACKEND: VERDICT for WORKLOAD and WORKLOAD: why`; the others pass.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::common::{json, repo, run};
use sagebench::backend::config::Backend;
use sagebench::campaign::{Changes, prepare};

/// What stands above one rule: backend to the verdict, and the workloads that have it (all where none is named).
type Expected = BTreeMap<String, (String, Vec<String>)>;

fn expectations(text: &str) -> Vec<Expected> {
    let (mut rules, mut above) = (Vec::new(), Expected::new());
    for line in text.lines().skip_while(|line| line.trim() != "rules:").skip(1) {
        let line = line.trim();
        if let Some((backend, says)) =
            line.strip_prefix("# expected on ").and_then(|rest| rest.split_once(": "))
        {
            let end = says.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(says.len());
            let (verdict, why) = says.split_at(end);
            let named = why.strip_prefix(" for ").map(|rest| rest.split(':').next().unwrap_or_default());
            let names = named.map(|names| names.replace(" and ", ", "));
            let names = names.iter().flat_map(|names| names.split(", ")).map(str::to_owned).collect();
            assert!(above.insert(backend.into(), (verdict.into(), names)).is_none(), "twice: {line}");
        } else if line.starts_with("- ") {
            rules.push(std::mem::take(&mut above));
        }
    }
    rules
}

#[test]
fn every_expectation_is_met() {
    // The promises of year1-full are those of the file that it extends.
    for (name, promises) in
        [("year1", "year1"), ("year1-full", "year1"), ("year2", "year2"), ("year3", "year3")]
    {
        let path = repo("scenarios").join(format!("{name}.yaml"));
        let prepared = prepare(&path, &Changes::default()).unwrap_or_else(|_| panic!("{name} is valid"));
        let is_mock = |backend: &Backend| matches!(backend, Backend::Mock(_));
        let mocks = prepared.scenario.backends.iter().filter(|(_, backend)| is_mock(backend));
        let mocks: BTreeSet<&String> = mocks.map(|(name, _)| name).collect();
        let promises = repo("scenarios").join(format!("{promises}.yaml"));
        let expected = expectations(&fs::read_to_string(promises).unwrap());
        for mock in &mocks {
            let dir = tempfile::tempdir().unwrap();
            run(dir.path(), ["apply", name, "--backend", mock.as_str(), "-q"]);
            let report = json(dir.path().join("benchmark_results/run.json"));
            let mut rules: Vec<(String, Vec<(String, String)>)> = Vec::new();
            for judgement in report["judgements"].as_array().unwrap() {
                let text = |key: &str| judgement[key].as_str().unwrap().to_owned();
                let verdict = (text("workload"), text("verdict"));
                match rules.last_mut().filter(|(rule, _)| *rule == text("rule")) {
                    Some((_, verdicts)) => verdicts.push(verdict),
                    None => rules.push((text("rule"), vec![verdict])),
                }
            }
            assert_eq!(rules.len(), expected.len(), "{name}: a rule without its comment");
            for ((rule, verdicts), expected) in rules.iter().zip(&expected) {
                assert_eq!(expected.keys().collect::<BTreeSet<_>>(), mocks, "{name}: above `{rule}`");
                let (verdict, workloads) = &expected[*mock];
                let known = workloads.iter().all(|named| verdicts.iter().any(|(name, _)| name == named));
                assert!(known, "{name}: a workload above `{rule}` for {mock}: {workloads:?}");
                for (workload, judged) in verdicts {
                    let is_named = workloads.is_empty() || workloads.contains(workload);
                    let wanted = if is_named { verdict.as_str() } else { "PASS" };
                    assert_eq!(judged, wanted, "{name}: `{rule}` for {workload} on {mock}");
                }
            }
        }
    }
}

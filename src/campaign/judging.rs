//! The rules of a scenario, held against what was measured.

use indexmap::IndexMap;

use super::assemble::Group;
use super::evidence::{Measured, Part};
use super::prepare::Prepared;
use crate::backend::config::Clock;
use crate::gate::{self, Evidence, Judgement, Place, Scope, ScopedRule, Side, Verdict, judge};
use crate::measure::Metrics;
use crate::metric::judged_names;
use crate::report::Baseline;
use crate::rule::{Limit, Rule, Subject};
use crate::scenario::Loaded;
use crate::stats;

/// Every rule for everyone it is judged for, as far as they were played.
pub fn judge_all(prepared: &Prepared, groups: &[Group<'_>]) -> Vec<Judgement> {
    let mut judgements = Vec::new();
    for (index, rule) in prepared.gates.rules.iter().enumerate() {
        for name in &rule.backends {
            let Some(backend) = prepared.backends.iter().position(|chosen| chosen.name == *name) else {
                continue;
            };
            let judged = Judged { prepared, groups, rule, index };
            let own: Vec<&Group<'_>> = groups
                .iter()
                .filter(|group| group.backend == backend && rule.scope.names().contains(&group.plan.name))
                .filter(|group| !judged.is_itself(group))
                .collect();
            match &rule.scope {
                Scope::Each(_) => {
                    judgements.extend(own.iter().map(|group| judged.on(&group.plan.name, &[group])));
                }
                Scope::Pooled(_) if own.is_empty() => {}
                Scope::Pooled(_) => judgements.push(judged.on("all", &own)),
            }
        }
    }
    judgements
}

/// Bounds on each statistic of the flat file within one workload, by its name.
pub fn intervals(prepared: &Prepared, group: &Group<'_>) -> IndexMap<String, [f64; 2]> {
    if group.chosen.clock() == Clock::Virtual {
        return IndexMap::new();
    }
    bounds(&evidence(prepared, &[group]), &group.repeats)
}

/// Bounds on each statistic of the flat file, by its name. `repeats` are the metrics of each repeat, where there are several.
pub(super) fn bounds(evidence: &dyn Evidence, repeats: &[Metrics]) -> IndexMap<String, [f64; 2]> {
    let interval = |name: &str| {
        let subject = crate::rule::subject(name, &[])?;
        let bounds = match &subject {
            Subject::Plain(_) if !repeats.is_empty() => {
                let values: Option<Vec<f64>> = repeats.iter().map(|repeat| repeat.get(name)).collect();
                let estimate = stats::mean_of_independent(&values?).filter(|_| repeats.len() > 2);
                estimate.map(|estimate| estimate.bounds(gate::INTERVAL_ALPHA))
            }
            _ => gate::interval(&subject, &[], evidence),
        };
        bounds.map(|bounds| (name.to_owned(), bounds.map(crate::measure::rounded)))
    };
    judged_names().filter_map(|(name, _)| interval(&name)).collect()
}

/// What rules see of workloads on one backend.
fn evidence<'a>(prepared: &'a Prepared, groups: &[&'a Group<'_>]) -> Measured<'a> {
    let slo = |group: &Group<'_>| prepared.gates.slos.get(&group.plan.name).map_or(&[][..], Vec::as_slice);
    let parts = groups.iter().map(|group| Part {
        samples: &group.samples,
        metrics: &group.metrics,
        tags: &group.plan.tags,
        slo: slo(group),
        checks: group.plan.checks.as_deref(),
    });
    let repeats = match groups {
        [group] => group
            .cells
            .iter()
            .zip(&group.repeats)
            .map(|(cell, metrics)| Part {
                samples: &cell.taken.samples,
                metrics,
                tags: &group.plan.tags,
                slo: slo(group),
                checks: group.plan.checks.as_deref(),
            })
            .collect(),
        _ => Vec::new(),
    };
    Measured {
        parts: parts.collect(),
        deterministic: groups.iter().all(|group| group.chosen.clock() == Clock::Virtual),
        repeats,
    }
}

/// One rule about to be judged.
struct Judged<'a> {
    prepared: &'a Prepared,
    groups: &'a [Group<'a>],
    rule: &'a ScopedRule,
    index: usize,
}

impl Judged<'_> {
    fn on(&self, workload: &str, groups: &[&Group<'_>]) -> Judgement {
        let backend = groups.first().map_or("", |group| &group.chosen.name);
        let mut case = self.rule.case(workload, backend);
        if self.lacks_its_baseline() {
            case.no_data = gate::config::NoData::Skip;
        }
        let theirs = self.theirs(groups);
        let measured = evidence(self.prepared, groups);
        let mut judgement = judge(&case, &measured, theirs.as_ref().map_err(String::as_str));
        judgement.suspended = groups.iter().any(|group| !group.validity.valid);
        judgement.place = self.place();
        let fired = groups.iter().flat_map(|group| &group.cells).find_map(|cell| cell.fired.as_ref());
        if let Some(fired) = fired.filter(|fired| fired.rule == self.index) {
            judgement.verdict = Verdict::Fail;
            "stopped early".clone_into(&mut judgement.method);
            judgement.reason = Some(format!("{}, so the run was stopped", fired.why));
        }
        judgement
    }

    fn reference(&self) -> Option<&str> {
        match &self.rule.rule.limit {
            Limit::Number(_) => None,
            Limit::Reference(reference) => Some(&reference.name),
        }
    }

    /// Whether the rule refers to this very workload or backend.
    fn is_itself(&self, group: &Group<'_>) -> bool {
        self.reference().is_some_and(|name| {
            !self.prepared.baselines.contains_key(name)
                && [&group.plan.name, &group.plan.family, &group.chosen.name].iter().any(|own| *own == name)
        })
    }

    /// Whether the rule refers to a baseline that does not exist yet, which the scenario allows.
    fn lacks_its_baseline(&self) -> bool {
        self.reference().is_some_and(|name| self.prepared.baselines.get(name).is_some_and(Option::is_none))
    }

    /// The other side of a rule with a reference.
    fn theirs(&self, groups: &[&Group<'_>]) -> Result<Side, String> {
        let (Some(name), Some(group)) = (self.reference(), groups.first()) else {
            return Err("nothing is referred to".to_owned());
        };
        match self.prepared.baselines.get(name) {
            Some(Some(baseline)) => {
                against_baseline(baseline, &self.rule.rule, &group.plan.name, &group.chosen.name)
            }
            Some(None) => Err("the baseline does not exist yet".to_owned()),
            None => self.of_this_run(name, groups),
        }
    }

    /// Another workload on the same backend (at the same matrix point where it has points), or the same workloads on another
    /// backend.
    fn of_this_run(&self, name: &str, groups: &[&Group<'_>]) -> Result<Side, String> {
        let others: Vec<&Group<'_>> = groups
            .iter()
            .filter_map(|own| {
                let there = |group: &&Group<'_>| group.backend == own.backend;
                let whole = self.groups.iter().filter(there).find(|group| group.plan.name == name);
                let points = || self.groups.iter().filter(there).filter(|group| group.plan.family == name);
                let point = || {
                    points()
                        .find(|group| group.plan.point == own.plan.point)
                        .or_else(|| points().next().filter(|_| points().count() == 1))
                };
                let elsewhere = || {
                    self.groups
                        .iter()
                        .find(|group| group.chosen.name == name && group.workload == own.workload)
                };
                whole.or_else(point).or_else(elsewhere)
            })
            .collect();
        if others.len() < groups.len() {
            return Err(format!("`{name}` was not measured at the same point"));
        }
        if others.iter().any(|group| !group.validity.valid) {
            return Err(format!("the measurement of `{name}` is INVALID"));
        }
        gate::side(&self.rule.rule, &evidence(self.prepared, &others))
            .map_err(|why| format!("`{name}`: {why}"))
    }

    /// Where the rule stands in its file.
    fn place(&self) -> Option<Place> {
        place_of(self.prepared.loaded.as_ref()?, self.rule)
    }
}

/// Where a rule stands in its file.
pub(super) fn place_of(loaded: &Loaded, rule: &ScopedRule) -> Option<Place> {
    let place = loaded.place(loaded.rule_span(rule.index?, 0..rule.text.len())?);
    Some(Place { file: place.file?, line: place.line, column: place.column })
}

/// What a rule's subject comes to in a baseline.
pub(super) fn against_baseline(
    baseline: &Baseline,
    rule: &Rule,
    workload: &str,
    backend: &str,
) -> Result<Side, String> {
    let missing = || format!("the baseline has no {} for this workload", rule.subject);
    let cell = baseline.cell(workload, Some(backend)).ok_or("the baseline does not have this workload")?;
    if let Some(why) = &cell.unfit {
        return Err(format!("the baseline is no standard: {why}"));
    }
    let flat = rule.subject.flat().ok_or_else(missing)?;
    Ok(Side {
        values: cell.values(&flat).ok_or_else(missing)?,
        interval: cell.intervals.get(&flat).copied(),
        exact: baseline.is_exact(),
    })
}

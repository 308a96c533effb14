//! The search of a workload for its capacity: which level is tried next, and when it is over.

use std::collections::HashSet;

use super::cell::Searched;
use super::conduct::CampaignError;
use super::evidence::{Measured, Part};
use super::prepare::{Chosen, Prepared};
use super::recorder::Recorded;
use crate::backend::config::Clock;
use crate::gate::config::{Confidence, NoData, Severity};
use crate::gate::{Case, Verdict, judge};
use crate::measure::{Distribution, Metrics, Samples, Setting, Totals, rounded, validity, value_of};
use crate::metric::Metric;
use crate::plan::{EXTENSIONS, SearchPlan, WorkloadPlan};
use crate::report::{ProbeReport, Purpose, SearchReport};
use crate::rule;
use crate::run::Ending;
use crate::units::{Duration, Ns, seconds};

/// A probe that is to be played.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Trial {
    level: f64,
    purpose: Purpose,
    /// Which confirmation it is, from 1; 0 before.
    confirmation: u32,
}

/// Where a search stands.
#[derive(Debug)]
struct Bracket<'a> {
    plan: &'a SearchPlan,
    /// The highest level that passed and was not refuted.
    lo: Option<f64>,
    /// The lowest level above it that did not pass.
    hi: Option<f64>,
    /// Confirmations so far, where they have begun.
    confirming: Option<u32>,
    end: Option<End>,
}

/// Why a search is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A level passed and was confirmed.
    Found,
    /// The lowest level of the range does not pass.
    Below,
}

impl<'a> Bracket<'a> {
    fn new(plan: &'a SearchPlan) -> Self {
        Self { plan, lo: None, hi: None, confirming: None, end: None }
    }

    /// What is to be tried next; `None` when it is over.
    fn next(&self) -> Option<Trial> {
        if self.end.is_some() {
            return None;
        }
        let trial = |level, purpose| Some(Trial { level, purpose, confirmation: 0 });
        match (self.lo, self.hi) {
            (Some(level), _) if self.confirming.is_some() => {
                let confirmation = self.confirming.unwrap_or(0) + 1;
                Some(Trial { level, purpose: Purpose::Confirm, confirmation })
            }
            (None, _) => trial(self.plan.low, Purpose::Double),
            (Some(lo), None) => trial((2.0 * lo).min(self.plan.high), Purpose::Double),
            (Some(lo), Some(hi)) => trial(self.plan.between(lo, hi), Purpose::Bisect),
        }
    }

    /// What a trial came to.
    fn tell(&mut self, trial: Trial, passed: bool) {
        match (trial.purpose, passed) {
            (Purpose::Confirm, true) => self.end = Some(End::Found),
            (Purpose::Confirm, false) => {
                self.confirming = Some(trial.confirmation);
                self.hi = Some(trial.level);
                self.lo = self.plan.below(trial.level);
            }
            (_, true) => self.lo = Some(trial.level),
            (_, false) => self.hi = Some(trial.level),
        }
        if self.end.is_none() && self.hi.is_some() && self.lo.is_none() {
            self.end = Some(End::Below);
        }
        let is_narrow = match (self.lo, self.hi) {
            (Some(lo), Some(hi)) => self.plan.is_narrow(lo, hi),
            (Some(lo), None) => lo >= self.plan.high,
            _ => false,
        };
        if is_narrow {
            self.confirm();
        }
    }

    /// Looks no closer.
    fn confirm(&mut self) {
        self.confirming.get_or_insert(0);
    }
}

/// Plays a probe: its plan, its number from 1, and the run of the plan that it takes its draws from.
pub(super) type Play<'a> = dyn FnMut(&WorkloadPlan, u32, u32, &str) -> Result<Recorded, CampaignError> + 'a;

/// Searches for the capacity of a workload. What is handed back holds the requests of the probe that stands for it: the one
/// that confirmed it; else the best one that passed; else the last one.
pub(super) fn search(
    prepared: &Prepared,
    chosen: &Chosen,
    workload: &WorkloadPlan,
    repeat: u32,
    play: &mut Play<'_>,
) -> Result<(Recorded, Searched), CampaignError> {
    let plan = workload.search.as_ref().expect("only a workload that searches comes here");
    let mut run = Run {
        prepared,
        chosen,
        workload,
        plan,
        repeat,
        spent: 0,
        bracket: Bracket::new(plan),
        probes: Vec::new(),
        count: 0,
        best: None,
        cut: None,
        interrupted: false,
    };
    while let Some(trial) = run.bracket.next() {
        if run.is_over_budget(trial) {
            if trial.purpose == Purpose::Confirm || run.bracket.lo.is_none() {
                run.cut.get_or_insert_with(|| "the budget was spent before".to_owned());
                break;
            }
            run.cut = Some("the budget ended it".to_owned());
            run.bracket.confirm();
            continue;
        }
        let Some(passed) = run.try_level(trial, play)? else { break };
        run.bracket.tell(trial, passed);
    }
    Ok(run.finish())
}

struct Run<'a> {
    prepared: &'a Prepared,
    chosen: &'a Chosen,
    workload: &'a WorkloadPlan,
    plan: &'a SearchPlan,
    repeat: u32,
    /// What the probes took so far.
    spent: Ns,
    bracket: Bracket<'a>,
    probes: Vec<ProbeReport>,
    /// Requests that got their record.
    count: u64,
    /// The requests that stand for the workload, with the level at which they passed.
    best: Option<(Recorded, Option<f64>)>,
    /// What ended it, where that is not the search itself.
    cut: Option<String>,
    interrupted: bool,
}

impl Run<'_> {
    fn fits(&self, length: Ns, reserve: bool) -> bool {
        let kept = if reserve { self.plan.length(0) } else { 0 };
        let needed = self.spent.saturating_add(length).saturating_add(kept);
        self.plan.budget.is_none_or(|budget| needed <= budget)
    }

    fn is_over_budget(&self, trial: Trial) -> bool {
        !self.fits(self.plan.length(0), trial.purpose != Purpose::Confirm)
    }

    /// Plays a level, longer and longer until it is decided. `None` when the search can not go on.
    fn try_level(&mut self, trial: Trial, play: &mut Play<'_>) -> Result<Option<bool>, CampaignError> {
        let seeds = WorkloadPlan::seeds_of_probe(self.repeat, trial.confirmation);
        let mut extensions = 0;
        loop {
            let plan = self.workload.probe(trial.level, extensions).expect("who searches has probes");
            let number = self.probes.len() as u32 + 1;
            let recorded = play(&plan, number, seeds, &self.plan.level(trial.level))?;
            self.spent = self.spent.saturating_add(recorded.played.measure_end);
            self.count += recorded.count;
            let (mut probe, is_valid) = self.judged(trial, extensions, &recorded);
            let is_whole = matches!(recorded.played.ending, Ending::Complete);
            let reserve = trial.purpose != Purpose::Confirm;
            let longer = extensions < EXTENSIONS && self.fits(self.plan.length(extensions + 1), reserve);
            let decided = match probe.verdict {
                _ if !is_whole || !is_valid => None,
                Verdict::Pass => Some(true),
                Verdict::Fail => Some(false),
                Verdict::Inconclusive | Verdict::NoData => (!longer).then_some(false),
            };
            let is_open = matches!(probe.verdict, Verdict::Inconclusive | Verdict::NoData);
            let note = match decided {
                _ if !is_whole => {
                    probe.verdict = Verdict::Inconclusive;
                    self.interrupted = true;
                    self.cut = Some("the run was interrupted".to_owned());
                    "it was cut off"
                }
                _ if !is_valid => {
                    self.cut = Some("a probe is INVALID".to_owned());
                    "INVALID"
                }
                None => "undecided, so it is played again for twice as long",
                Some(_) if is_open => "undecided, which counts as not passed",
                Some(_) => "",
            };
            probe.note = (!note.is_empty()).then(|| note.to_owned());
            self.probes.push(probe);
            self.keep(recorded, trial, decided == Some(true));
            if decided.is_some() || !is_whole || !is_valid {
                return Ok(decided);
            }
            extensions += 1;
        }
    }

    /// Keeps a probe's requests where they stand for more than those before: an invalid probe stands for all, a confirmation
    /// for what it confirms, and otherwise the highest level that passed.
    fn keep(&mut self, recorded: Recorded, trial: Trial, passed: bool) {
        let level = passed.then_some(trial.level);
        let is_invalid = self.cut.is_some() && !self.interrupted;
        let is_better = match (&self.best, level) {
            (None | Some((_, None)), _) => true,
            (Some((_, Some(_))), None) => is_invalid,
            (Some((_, Some(best))), Some(level)) => trial.purpose == Purpose::Confirm || level >= *best,
        };
        if is_better {
            self.best = Some((recorded, level));
        }
    }

    /// The probe as it is reported, and whether its measurement can be trusted.
    fn judged(&self, trial: Trial, extensions: u32, recorded: &Recorded) -> (ProbeReport, bool) {
        let samples = &recorded.taken.samples;
        let confidence = self.prepared.scenario.gates.confidence;
        let (verdict, value) = self.verdict(samples, confidence);
        let faulted: HashSet<(usize, u64)> =
            recorded.played.stats.faults.iter().filter_map(|fault| Some((0, fault.index?))).collect();
        let setting = Setting {
            clock: self.chosen.clock(),
            repeats: &[samples],
            is_constant: false,
            processor: recorded.played.processor,
            faulted: &faulted,
            reuse: None,
        };
        let found = validity(&setting, samples, &self.prepared.scenario.validity);
        let quantile = |name: &str, q: f64| {
            let metric = Metric::named(name)?;
            let values = samples.records().iter().filter_map(|r| value_of(r, metric, samples.basis()));
            Distribution::of(values.collect()).quantile(q).map(rounded)
        };
        let probe = ProbeReport {
            level: trial.level,
            purpose: trial.purpose,
            duration_s: rounded(seconds(self.plan.probe << extensions)),
            requests: Totals::of(samples).counted(),
            slo_share: value.map(rounded),
            p50_ttft_ms: quantile("ttft", 0.5),
            p99_ttft_ms: quantile("ttft", 0.99),
            p99_tpot_ms: quantile("tpot", 0.99),
            verdict,
            note: None,
        };
        (probe, found.valid)
    }

    /// Whether enough of the requests kept the SLO, and how many did.
    fn verdict(&self, samples: &Samples, confidence: Confidence) -> (Verdict, Option<f64>) {
        let name = &self.workload.name;
        let metrics = Metrics::default();
        let measured = Measured {
            parts: vec![Part {
                samples,
                metrics: &metrics,
                tags: &self.workload.tags,
                slo: self.prepared.gates.slos.get(name).map_or(&[], Vec::as_slice),
                checks: self.workload.checks.as_deref(),
            }],
            deterministic: self.chosen.clock() == Clock::Virtual,
            repeats: Vec::new(),
        };
        let text = format!("slo_share >= {}%", 100.0 * self.plan.share);
        let rule = rule::parse(&text).expect("a share between 0 and 1 is a limit of this rule");
        let case = Case {
            rule: &rule,
            text: &text,
            workload: name,
            backend: &self.chosen.name,
            confidence,
            severity: Severity::Fail,
            no_data: NoData::Fail,
            implicit: true,
            allow_single_run: false,
        };
        let judgement = judge(&case, &measured, Err("nothing is referred to"));
        (judgement.verdict, judgement.value)
    }

    fn finish(self) -> (Recorded, Searched) {
        let Bracket { plan, lo, hi, end, .. } = self.bracket;
        let confirmed = end == Some(End::Found);
        let lo = lo.filter(|_| end != Some(End::Below));
        let text = |level: f64| plan.level(level);
        let after = |why: &str, what: &str| format!("{why} {what}");
        let ending = match (end, &self.cut, lo, hi) {
            (Some(End::Below), ..) => {
                format!("not even {} passes, the lowest level of the range", text(plan.low))
            }
            (Some(End::Found), _, Some(lo), None) => {
                format!("{} passes, the highest level of the range: the capacity is that or more", text(lo))
            }
            (Some(End::Found), Some(cut), Some(lo), Some(hi)) => {
                format!(
                    "{} passes and {} does not; {cut} before the gap was within the tolerance",
                    text(lo),
                    text(hi)
                )
            }
            (Some(End::Found), None, Some(lo), Some(hi)) => {
                format!("{} passes and {} does not", text(lo), text(hi))
            }
            (_, Some(cut), Some(lo), _) => after(cut, &format!("before {} was confirmed", text(lo))),
            (_, cut, ..) => after(cut.as_deref().unwrap_or("it ended"), "before anything passed"),
        };
        let found = match (confirmed, lo) {
            (true, Some(lo)) => Ok(lo),
            _ => Err(ending.clone()),
        };
        let report = SearchReport {
            variable: plan.variable,
            share: plan.share,
            tolerance: plan.tolerance,
            lo,
            hi,
            confirmed,
            ending,
            probes: self.probes,
        };
        let (mut recorded, _) =
            self.best.expect("the first probe always fits into the budget, which is checked before");
        recorded.count = self.count;
        (recorded, Searched { report, found, interrupted: self.interrupted })
    }
}

/// What one probe is announced as.
pub(super) fn probe_name(level: &str, plan: &WorkloadPlan) -> String {
    let length = plan.duration.map(|length| format!(" for {}", Duration(length))).unwrap_or_default();
    format!("{level}{length}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;
    use crate::scenario::{Format, Options, load_text};
    use crate::tokenizer::Mock;

    fn searched(load: &str) -> SearchPlan {
        let text = format!(
            "version: 1\nbackends: {{ m: {{ kind: mock, ttft: 1ms, tbt: 1ms }} }}\nworkloads:\n  w:\n    prompt: {{ kind: synthetic, tokens: 8 }}\n    output: {{ tokens: 2 }}\n    slo: [ ttft <= 1s ]\n    load: {{ kind: search, {load} }}\n"
        );
        let loaded =
            load_text("s.yaml", &text, Format::Yaml, std::path::Path::new(""), &Options::process(&[]))
                .unwrap();
        let plan =
            plan(&loaded.scenario, &indexmap::IndexMap::new(), std::path::Path::new(""), &Mock).unwrap();
        plan.workloads[0].search.clone().unwrap()
    }

    /// Searches against a capacity that answers each probe; refuses the first so many confirmations.
    fn levels(plan: &SearchPlan, capacity: f64, refuse: u32) -> (Vec<(f64, Purpose)>, Option<f64>) {
        let mut bracket = Bracket::new(plan);
        let mut tried = Vec::new();
        while let Some(trial) = bracket.next() {
            tried.push((trial.level, trial.purpose));
            assert!(tried.len() < 100, "{tried:?}");
            let refused = trial.purpose == Purpose::Confirm && trial.confirmation <= refuse;
            bracket.tell(trial, trial.level <= capacity && !refused);
        }
        (tried, bracket.lo.filter(|_| bracket.end == Some(End::Found)))
    }

    #[test]
    fn doubles_halves_and_confirms() {
        use Purpose::{Bisect, Confirm, Double};
        let plan = searched("variable: concurrency, range: [1, 64], probe: { duration: 1s }");
        let (tried, found) = levels(&plan, 11.0, 0);
        let doubled = [1.0, 2.0, 4.0, 8.0, 16.0].map(|level| (level, Double));
        assert_eq!(tried[..5], doubled);
        assert_eq!(tried[5..], [(11.0, Bisect), (13.0, Bisect), (12.0, Bisect), (11.0, Confirm)]);
        assert_eq!(found, Some(11.0));
        // What is not confirmed is given up step by step.
        let (tried, found) = levels(&plan, 11.0, 2);
        assert_eq!(tried[8..], [(11.0, Confirm), (10.0, Confirm), (9.0, Confirm)]);
        assert_eq!(found, Some(9.0));
        assert_eq!(levels(&plan, 0.5, 0), (vec![(1.0, Double)], None));
        assert_eq!(levels(&plan, 1.0, 1).1, None, "there is no level below the range");
        assert_eq!(levels(&plan, 1000.0, 0).1, Some(64.0));
    }

    #[test]
    fn finds_any_capacity_within_the_tolerance_in_as_many_probes_as_are_promised() {
        for (load, tolerance) in [("tolerance: 5%", 0.05), ("tolerance: 0.5%", 0.005)] {
            let plan =
                searched(&format!("variable: rate, range: [1/s, 700/s], probe: {{ duration: 1s }}, {load}"));
            for step in 0..400 {
                let capacity = libm::pow(700.0, f64::from(step) / 400.0);
                let (tried, found) = levels(&plan, capacity, 0);
                let found = found.unwrap();
                assert!(found <= capacity && capacity < found * (1.0 + tolerance), "{capacity}: {found}");
                let budget = plan.length(0) * tried.len() as u64;
                // The fewest that the check of the budget asks for is enough for all of them.
                let text = format!(
                    "variable: rate, range: [1/s, 700/s], probe: {{ duration: 1s }}, {load}, budget: {}",
                    Duration(budget)
                );
                if step % 40 == 0 && tried.len() < 12 {
                    assert!(
                        std::panic::catch_unwind(|| searched(&text)).is_err(),
                        "{budget} is too little for the worst case"
                    );
                }
                assert!(tried.len() <= 25, "{tried:?}");
            }
        }
    }
}

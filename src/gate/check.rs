//! Whether the rules can be judged at all, told before the first request.

use indexmap::IndexMap;

use super::abort::watchable;
use super::config::{Confidence, GateRule, NoData, Severity, WorkloadScope};
use super::judge::{Case, allowed, tested_at};
use crate::metric::{Kind, METRICS, TURN, judged_names};
use crate::nearest::nearest;
use crate::rule::{self, Aggregate, Bytes, Condition, Limit, On, Op, Rule, RuleError, Subject};
use crate::scenario::Scenario;
use crate::stats;
use crate::units::{Ns, human};

/// The limit on failures that holds where no rule names `error_rate`.
const IMPLICIT: &str = "error_rate <= 1%";

/// What is known of a run before it starts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Planned {
    /// The workloads that will be played, in order; each matrix point is one.
    pub workloads: Vec<PlannedWorkload>,
    /// The backends that will run, in order.
    pub backends: Vec<PlannedBackend>,
}

/// One workload, or one matrix point of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlannedWorkload {
    /// Its full name, such as `chat@concurrency=4`; what stands before `@` is its family.
    pub name: String,
    /// Its tags.
    pub tags: IndexMap<String, String>,
    /// Whether its requests are turns of sessions.
    pub sessions: bool,
    /// Measured requests over all repeats; `None` when only time ends it.
    pub requests: Option<u64>,
    /// Gaps between tokens over all repeats: output tokens less requests; `None` when that is not known.
    pub gaps: Option<u64>,
    /// Whether it stands for a group, whose workloads are here too: only rules that name it are about it.
    pub pooled: bool,
    /// The metric that its search finds, where it searches.
    pub searches: Option<&'static str>,
    /// The names of its checks.
    pub checks: Vec<String>,
}

/// One backend.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlannedBackend {
    /// Its name.
    pub name: String,
    /// Whether it gives the same numbers again.
    pub deterministic: bool,
}

/// A parsed rule with whom it is judged for.
#[derive(Debug, Clone, PartialEq)]
pub struct ScopedRule {
    /// Its position in `gates.rules`; `None` for an implicit rule.
    pub index: Option<usize>,
    /// The rule as written.
    pub text: String,
    /// The rule.
    pub rule: Rule,
    /// The workloads it is judged for.
    pub scope: Scope,
    /// The backends it is judged for, each on its own.
    pub backends: Vec<String>,
    /// How sure its verdict must be.
    pub confidence: Confidence,
    /// Whether a violation fails the run.
    pub severity: Severity,
    /// What a metric without a value does.
    pub no_data: NoData,
    /// Whether a comparison of one run with one other may decide.
    pub allow_single_run: bool,
    /// From when on a violation stops the run, in nanoseconds of measured time; `None` when it does not.
    pub abort_after: Option<Ns>,
}

/// The workloads of a rule, by full name. May be empty when `--only` left none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Each on its own.
    Each(Vec<String>),
    /// All pooled into one sample.
    Pooled(Vec<String>),
}

impl Scope {
    /// The workloads' full names.
    pub fn names(&self) -> &[String] {
        let (Self::Each(names) | Self::Pooled(names)) = self;
        names
    }
}

impl ScopedRule {
    /// The rule for one workload (or `all`) on one backend, ready to be judged.
    pub fn case<'a>(&'a self, workload: &'a str, backend: &'a str) -> Case<'a> {
        Case {
            rule: &self.rule,
            text: &self.text,
            workload,
            backend,
            confidence: self.confidence,
            severity: self.severity,
            no_data: self.no_data,
            implicit: self.index.is_none(),
            allow_single_run: self.allow_single_run,
        }
    }
}

/// Everything that the gates need to know, parsed once.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The rules in their order, the implicit ones last.
    pub rules: Vec<ScopedRule>,
    /// For each planned workload by full name, the limits one request must keep; empty without an SLO.
    pub slos: IndexMap<String, Vec<Condition>>,
}

/// Which text of the scenario something is said about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// `gates.rules[i]`, its text or its `rule`.
    Rule(usize),
    /// `slo[i]`.
    Slo(usize),
    /// `workloads.NAME.slo[i]`, by the name of the workload in [`Scenario::workloads`].
    WorkloadSlo(String, usize),
}

/// Something wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whose text it is about.
    pub site: Site,
    /// The bytes of that text.
    pub at: Bytes,
    /// What is wrong, a lower-case fragment.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Finding {
    fn new(site: &Site, error: RuleError) -> Self {
        Self { site: site.clone(), at: error.at, message: error.message, help: error.help }
    }

    /// Whether both say the same about the same entry of one family's SLO.
    fn is_same(&self, other: &Self) -> bool {
        let entry = |site: &Site| match site {
            Site::WorkloadSlo(name, index) => Some((family(name).to_owned(), *index)),
            Site::Rule(_) | Site::Slo(_) => None,
        };
        entry(&self.site).is_some_and(|own| Some(own) == entry(&other.site))
            && (&self.at, &self.message) == (&other.at, &other.message)
    }
}

/// Parses every rule and SLO, resolves whom each is judged for, and holds them against the plan: tags exist, an SLO is
/// there where one is needed, and each rule can pass with as many samples as the plan has. Whether a rule's `workloads` and
/// `backends` exist is checked where the scenario is read.
///
/// Where no rule names `error_rate` for a workload on a backend, `error_rate <= 1%` is added. Nobody chose it, so it takes
/// no number of samples to pass: the point decides, and ten requests without a failure are enough.
///
/// # Errors
/// Everything that is wrong, in the order of the scenario.
pub fn check(scenario: &Scenario, planned: &Planned) -> Result<Checked, Vec<Finding>> {
    let mut findings = Vec::new();
    let slos = slos(scenario, planned, &mut findings);
    let declared = scenario.custom_metrics();
    let mut rules = Vec::new();
    for (index, gate) in scenario.gates.rules.iter().enumerate() {
        let site = Site::Rule(index);
        match rule::parse_with(&gate.rule, &declared) {
            Ok(parsed) => {
                let checker = Checker { scenario, planned, gate, rule: &parsed, slos: &slos };
                findings.extend(checker.findings().into_iter().map(|error| Finding::new(&site, error)));
                rules.push(checker.scoped(index));
            }
            Err(errors) => findings.extend(errors.into_iter().map(|error| Finding::new(&site, error))),
        }
    }
    if findings.is_empty() {
        let unsaid = implicit(planned, &rules);
        let checks = implicit_checks(planned, &rules);
        rules.extend(unsaid.into_iter().chain(checks));
        Ok(Checked { rules, slos })
    } else {
        Err(findings)
    }
}

/// What stands before the `@` of a matrix point's name.
fn family(name: &str) -> &str {
    name.split_once('@').map_or(name, |(family, _)| family)
}

/// The SLO of each planned workload.
fn slos(
    scenario: &Scenario,
    planned: &Planned,
    findings: &mut Vec<Finding>,
) -> IndexMap<String, Vec<Condition>> {
    let declared = scenario.custom_metrics();
    let mut parse = |texts: &[String], site: &dyn Fn(usize) -> Site| -> Vec<Condition> {
        let mut conditions = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match rule::condition(text, &declared) {
                Ok(condition) => conditions.push(condition),
                Err(error) => {
                    let finding = Finding::new(&site(index), error);
                    // The points of a matrix share their list; what is wrong with it is said once.
                    if !findings.iter().any(|said| said.is_same(&finding)) {
                        findings.push(finding);
                    }
                }
            }
        }
        conditions
    };
    let common = parse(&scenario.slo, &Site::Slo);
    let mut own: IndexMap<&str, Vec<Condition>> = IndexMap::new();
    for (name, workload) in &scenario.workloads {
        if let Some(texts) = &workload.slo {
            own.insert(name, parse(texts, &|index| Site::WorkloadSlo(name.clone(), index)));
        }
    }
    let of = |name: &str| own.get(name).or_else(|| own.get(family(name))).unwrap_or(&common).clone();
    planned.workloads.iter().map(|workload| (workload.name.clone(), of(&workload.name))).collect()
}

/// The implicit rules: one for each set of workloads that lacks one on the same backends.
fn implicit(planned: &Planned, rules: &[ScopedRule]) -> Vec<ScopedRule> {
    let Ok(rule) = rule::parse(IMPLICIT) else { return Vec::new() };
    let is_named = |backend: &String, workload: &String| {
        rules.iter().any(|scoped| {
            matches!(scoped.rule.subject, Subject::Plain(metric) if metric.name == "error_rate")
                && scoped.backends.contains(backend)
                && scoped.scope.names().contains(workload)
        })
    };
    let mut missing: IndexMap<Vec<String>, Vec<String>> = IndexMap::new();
    for backend in planned.backends.iter().map(|backend| &backend.name) {
        let own = planned.workloads.iter().filter(|workload| !workload.pooled);
        let names = own.map(|workload| &workload.name);
        let workloads: Vec<String> = names.filter(|name| !is_named(backend, name)).cloned().collect();
        if !workloads.is_empty() {
            missing.entry(workloads).or_default().push(backend.clone());
        }
    }
    let scoped = missing
        .into_iter()
        .map(|(workloads, backends)| unsaid(IMPLICIT.to_owned(), &rule, workloads, backends));
    scoped.collect()
}

/// A rule that nobody wrote.
fn unsaid(text: String, rule: &Rule, workloads: Vec<String>, backends: Vec<String>) -> ScopedRule {
    ScopedRule {
        index: None,
        text,
        rule: rule.clone(),
        scope: Scope::Each(workloads),
        backends,
        confidence: Confidence::None,
        severity: Severity::Fail,
        no_data: NoData::Fail,
        allow_single_run: false,
        abort_after: None,
    }
}

/// Every check that no rule is about must pass each time. A rule about `checks_pass_rate` is about all of a workload's.
fn implicit_checks(planned: &Planned, rules: &[ScopedRule]) -> Vec<ScopedRule> {
    let is_named = |check: &str, backend: &String, workload: &String| {
        rules.iter().any(|scoped| {
            let about = match &scoped.rule.subject {
                Subject::Check(name) => name == check,
                Subject::Plain(metric) => metric.name == "checks_pass_rate",
                _ => false,
            };
            about && scoped.backends.contains(backend) && scoped.scope.names().contains(workload)
        })
    };
    // By check and backends, the workloads that lack a rule.
    let mut missing: IndexMap<(&str, Vec<String>), Vec<String>> = IndexMap::new();
    for workload in &planned.workloads {
        for check in &workload.checks {
            let names = planned.backends.iter().map(|backend| backend.name.clone());
            let backends: Vec<String> =
                names.filter(|backend| !is_named(check, backend, &workload.name)).collect();
            if !backends.is_empty() {
                missing.entry((check, backends)).or_default().push(workload.name.clone());
            }
        }
    }
    let scoped = missing.into_iter().filter_map(|((check, backends), workloads)| {
        let text = format!("check({check}) == 100%");
        let rule = rule::parse(&text).ok()?;
        Some(unsaid(text, &rule, workloads, backends))
    });
    scoped.collect()
}

/// The fewest samples with which a rule can pass; `None` where any number will do.
fn needed(rule: &Rule, alpha: f64) -> Option<u64> {
    match (&rule.limit, &rule.subject) {
        // One value has no spread.
        (Limit::Number(_), Subject::Aggregate(Aggregate::Avg, _)) => Some(2),
        (Limit::Number(_), _) => stats::smallest_n(allowed(rule)?, alpha),
        (Limit::Reference(_), _) => None,
    }
}

/// One rule against the plan.
struct Checker<'a> {
    scenario: &'a Scenario,
    planned: &'a Planned,
    gate: &'a GateRule,
    rule: &'a Rule,
    slos: &'a IndexMap<String, Vec<Condition>>,
}

impl<'a> Checker<'a> {
    fn confidence(&self) -> Confidence {
        self.gate.confidence.unwrap_or(self.scenario.gates.confidence)
    }

    fn backends(&self) -> impl Iterator<Item = &'a PlannedBackend> {
        let chosen = self.gate.backends.as_ref();
        self.planned.backends.iter().filter(move |b| chosen.is_none_or(|names| names.contains(&b.name)))
    }

    /// Whether the rule's `workloads` name it.
    fn names(&self, workload: &str) -> bool {
        match &self.gate.workloads {
            None | Some(WorkloadScope::All) => true,
            Some(WorkloadScope::Named(names)) => {
                names.iter().any(|name| name == workload || name == family(workload))
            }
        }
    }

    /// Whether all conditions on tags hold. A workload without the tag is `!=` any word.
    fn fits(&self, tags: &IndexMap<String, String>) -> bool {
        self.rule.filter.iter().all(|condition| match &condition.on {
            On::Metric(..) => true,
            On::Tag(tag, word) => (tags.get(tag) == Some(word)) == (condition.op == Op::Eq),
        })
    }

    fn workloads(&self) -> impl Iterator<Item = &'a PlannedWorkload> {
        self.planned
            .workloads
            .iter()
            .filter(|workload| {
                !workload.pooled || matches!(self.gate.workloads, Some(WorkloadScope::Named(_)))
            })
            .filter(|workload| {
                self.names(&workload.name) && self.fits(&workload.tags) && self.is_checked(workload)
            })
            .filter(|workload| workload.sessions || self.on_turns().is_none())
            .filter(|workload| self.finds(workload))
    }

    /// The first condition on the turn of a session. Requests outside sessions have none.
    fn on_turns(&self) -> Option<&'a Condition> {
        self.rule.filter.iter().find(|on| matches!(on.on, On::Metric(metric, _) if metric.name == TURN.name))
    }

    /// The capacity that the rule is about, if it is about one.
    fn capacity(&self) -> Option<&'static str> {
        match self.rule.subject {
            Subject::Plain(metric) if metric.is_capacity() => Some(metric.name),
            _ => None,
        }
    }

    /// Whether a workload has what the rule is about, where that is a capacity.
    fn finds(&self, workload: &PlannedWorkload) -> bool {
        self.capacity().is_none_or(|name| workload.searches == Some(name))
    }

    fn scoped(&self, index: usize) -> ScopedRule {
        let names = self.workloads().map(|workload| workload.name.clone()).collect();
        ScopedRule {
            index: Some(index),
            text: self.gate.rule.clone(),
            rule: self.rule.clone(),
            scope: match self.gate.workloads {
                Some(WorkloadScope::All) => Scope::Pooled(names),
                Some(WorkloadScope::Named(_)) | None => Scope::Each(names),
            },
            backends: self.backends().map(|backend| backend.name.clone()).collect(),
            confidence: self.confidence(),
            severity: self.gate.severity,
            no_data: self.gate.no_data,
            allow_single_run: self.scenario.gates.allow_single_run,
            abort_after: self.gate.abort_on_fail.then(|| self.gate.abort_after.map_or(0, |after| after.0)),
        }
    }

    fn findings(&self) -> Vec<RuleError> {
        let unknown = self.unknown_tags();
        if !unknown.is_empty() {
            return unknown;
        }
        self.nobody()
            .into_iter()
            .chain(self.missing_check())
            .chain(self.no_turns())
            .chain(self.no_search())
            .chain(self.missing_slo())
            .chain(self.out_of_reach())
            .chain(self.unlike_a_baseline())
            .chain(self.unwatchable())
            .collect()
    }

    /// Tags of every workload that the scenario or the plan has, with its name.
    fn tags(&self) -> Vec<(&'a str, &'a IndexMap<String, String>)> {
        let written = self.scenario.workloads.iter().map(|(name, workload)| (name.as_str(), &workload.tags));
        written.chain(self.planned.workloads.iter().map(|w| (w.name.as_str(), &w.tags))).collect()
    }

    /// Conditions on tags or values that no workload has.
    fn unknown_tags(&self) -> Vec<RuleError> {
        let tags = self.tags();
        let mut errors = Vec::new();
        for condition in &self.rule.filter {
            let On::Tag(tag, word) = &condition.on else { continue };
            let mut values: Vec<&str> =
                tags.iter().filter_map(|(_, t)| t.get(tag)).map(String::as_str).collect();
            values.sort_unstable();
            values.dedup();
            if values.is_empty() {
                let per_request = METRICS.iter().filter(|m| m.kind == Kind::Samples).map(|m| m.name);
                let known = tags.iter().flat_map(|(_, t)| t.keys()).map(String::as_str).chain(per_request);
                let help = match nearest(tag, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("give a workload `tags: {{ {tag}: ... }}`"),
                };
                let message = format!("`{tag}` is neither a metric of a request nor a tag of any workload");
                errors.push(RuleError::new(condition.at.clone(), message, help));
            } else if !values.contains(&word.as_str()) {
                let message = format!("no workload has the tag `{tag}: {word}`");
                let help = match nearest(word, values.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the values of `{tag}` are {}", values.join(", ")),
                };
                errors.push(RuleError::new(condition.at.clone(), message, help));
            }
        }
        errors
    }

    /// `where` leaves none of the rule's workloads, even without `--only`.
    fn nobody(&self) -> Option<RuleError> {
        let tagged = self.rule.filter.iter().find(|condition| matches!(condition.on, On::Tag(..)))?;
        let last = self.rule.filter.last()?;
        let any = self.tags().iter().any(|(name, tags)| self.names(name) && self.fits(tags));
        let help = "name other `workloads`, or other tags";
        let at = tagged.at.start..last.at.end;
        (!any).then(|| RuleError::new(at, "none of the rule's workloads has these tags", help))
    }

    /// Whether a workload has what the rule is about, where that is a check.
    fn is_checked(&self, workload: &PlannedWorkload) -> bool {
        match &self.rule.subject {
            Subject::Check(name) => workload.checks.contains(name),
            Subject::Plain(metric) if metric.name == "checks_pass_rate" => !workload.checks.is_empty(),
            _ => true,
        }
    }

    /// A check that no workload has, among those that the rule is for.
    fn missing_check(&self) -> Option<RuleError> {
        let about_checks = match &self.rule.subject {
            Subject::Check(_) => true,
            Subject::Plain(metric) => metric.name == "checks_pass_rate",
            _ => false,
        };
        let own = || self.planned.workloads.iter().filter(|workload| self.names(&workload.name));
        if !about_checks || own().next().is_none() || own().any(|workload| self.is_checked(workload)) {
            return None;
        }
        let mut known: Vec<&str> = own().flat_map(|w| w.checks.iter().map(String::as_str)).collect();
        known.sort_unstable();
        known.dedup();
        let (message, near) = match &self.rule.subject {
            Subject::Check(name) => (
                format!("no workload of the rule has a check `{name}`"),
                nearest(name, known.iter().copied()),
            ),
            _ => ("no workload of the rule has checks".to_owned(), None),
        };
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "write them in the workload's `expect`".to_owned(),
            None => format!("the checks are {}", known.join(", ")),
        };
        Some(RuleError::new(self.rule.subject_at.clone(), message, help))
    }

    /// `where turn ..` leaves none of the rule's workloads, even without `--only`.
    fn no_turns(&self) -> Option<RuleError> {
        let condition = self.on_turns()?;
        let written = self.scenario.workloads.iter();
        let any = written.filter(|(name, _)| self.names(name)).any(|(_, w)| w.prompt.may_be_sessions())
            || self.planned.workloads.iter().any(|w| self.names(&w.name) && w.sessions);
        let message =
            "only requests of sessions have a `turn`, and none of the rule's workloads has sessions";
        let help = "leave the condition out, or use `prompt: { kind: sessions, .. }`";
        (!any).then(|| RuleError::new(condition.at.clone(), message, help))
    }

    /// A capacity that nobody looks for.
    fn no_search(&self) -> Option<RuleError> {
        let own = || self.planned.workloads.iter().filter(|workload| self.names(&workload.name));
        let name = self.capacity()?;
        if own().next().is_none() || own().any(|workload| self.finds(workload)) {
            return None;
        }
        let variable = if name == "capacity_rps" { "rate" } else { "concurrency" };
        let message =
            format!("`{name}` is what a search finds, and none of the rule's workloads searches for it");
        let help =
            format!("use `load: {{ kind: search, variable: {variable}, .. }}`, or name other `workloads`");
        Some(RuleError::new(self.rule.subject_at.clone(), message, help))
    }

    /// A metric of the SLO where there is none.
    fn missing_slo(&self) -> Option<RuleError> {
        let Subject::Plain(metric) = self.rule.subject else { return None };
        if !matches!(metric.name, "slo_share" | "goodput") {
            return None;
        }
        let without = self.workloads().find(|w| self.slos.get(&w.name).is_none_or(Vec::is_empty))?;
        let message = format!(
            "`{}` counts requests within the SLO, and workload `{}` has none",
            metric.name, without.name
        );
        let help = "write its limits, such as `slo: [ttft <= 500ms]`, or name the rule's `workloads`";
        Some(RuleError::new(self.rule.subject_at.clone(), message, help))
    }

    /// How many samples a workload can give to this rule at most.
    fn samples(&self, workload: &PlannedWorkload) -> Option<u64> {
        if self.is_of_gaps() { workload.gaps } else { workload.requests }
    }

    /// Whether its samples are gaps between tokens rather than requests.
    fn is_of_gaps(&self) -> bool {
        matches!(self.rule.subject, Subject::Aggregate(_, metric) if metric.name == "tbt")
    }

    /// A baseline keeps few numbers, and the rule asks for another.
    fn unlike_a_baseline(&self) -> Option<RuleError> {
        let Limit::Reference(reference) = &self.rule.limit else { return None };
        if !self.scenario.baselines.contains_key(&reference.name) {
            return None;
        }
        let error = |at: Bytes, message: &str, help: &str| Some(RuleError::new(at, message, help));
        if let Some(condition) = self.rule.filter_on_metrics().first() {
            let message = "a baseline keeps no requests, so it can not be narrowed to some of them";
            return error(
                condition.at.clone(),
                message,
                "leave the condition out, or refer to a workload of this run",
            );
        }
        if self.gate.workloads == Some(WorkloadScope::All) {
            let message = "a baseline keeps each workload on its own, so a pooled rule has nothing there";
            return error(self.rule.limit_at.clone(), message, "leave `workloads: all` out");
        }
        if self.rule.subject.flat().is_none_or(|name| !judged_names().any(|(kept, _)| kept == name)) {
            let message = "a baseline does not keep this";
            let help = "it keeps avg, p50, p90, p95, p99 and max of a metric, and every rate, count and value that has a better direction";
            return error(self.rule.subject_at.clone(), message, help);
        }
        None
    }

    /// `abort_on_fail` on a rule whose failure is never certain before the end.
    fn unwatchable(&self) -> Option<RuleError> {
        if !self.gate.abort_on_fail {
            return self.gate.abort_after.map(|_| {
                let help = "add `abort_on_fail: true`, or leave `abort_after` out";
                RuleError::new(
                    self.rule.subject_at.clone(),
                    "`abort_after` does nothing without `abort_on_fail`",
                    help,
                )
            });
        }
        let message = if self.gate.workloads == Some(WorkloadScope::All) {
            "a rule over all workloads is not certain before the last of them"
        } else if self.workloads().any(|workload| workload.searches.is_some()) {
            "a search goes beyond what the rule allows on purpose, so nothing stops it"
        } else if watchable(self.rule) {
            return None;
        } else {
            "nothing is certain about this before the end"
        };
        let help = "`abort_on_fail` watches quantiles of a request's metrics, error_rate, slo_share, share(...), check(...), checks_pass_rate, upper limits on failed_requests, and max(...) and min(...)";
        Some(RuleError::new(self.rule.subject_at.clone(), message, help))
    }

    /// The rule can not pass on this plan, whatever is measured.
    fn out_of_reach(&self) -> Option<RuleError> {
        let alpha = tested_at(self.confidence())?;
        let needed = needed(self.rule, alpha)?;
        if self.backends().all(|backend| backend.deterministic) {
            return None;
        }
        let lacking = if self.gate.workloads == Some(WorkloadScope::All) {
            let all: Option<u64> = self.workloads().map(|workload| self.samples(workload)).sum();
            all.filter(|n| *n < needed && self.workloads().next().is_some())
                .map(|n| (n, "this plan".to_owned()))
        } else {
            self.workloads().find_map(|workload| {
                let n = self.samples(workload).filter(|n| *n < needed)?;
                Some((n, format!("workload `{}`", workload.name)))
            })
        };
        let (n, who) = lacking?;
        let subject = &self.gate.rule[self.rule.subject_at.clone()];
        let level = human(1.0 - alpha, "%");
        let message = format!("`{subject}` needs {needed} samples to pass at {level}, {who} has {n}");
        let raise = if self.is_of_gaps() {
            "raise its requests or its output tokens".to_owned()
        } else {
            format!("raise its requests to {needed}")
        };
        let help = format!("{raise}, or set `confidence: none` and let the point decide");
        Some(RuleError::new(self.rule.subject_at.clone(), message, help))
    }
}

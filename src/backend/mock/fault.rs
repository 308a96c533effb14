//! Which requests go wrong on purpose.

use std::collections::BTreeMap;

use crate::backend::config::{Fault, FaultAction, RequestMatch};
use crate::sample::key;

/// Which requests of one cell a scenario's faults hit, and how: known before the run, from the plan alone.
///
/// The engine plays the times and outcomes of what [`Self::action`] says. Whoever puts it behind a wire asks here too, for
/// what only bytes can show: how a connection is closed, which event is broken, what a header or the usage says.
#[derive(Debug, Clone)]
pub struct FaultPlan {
    /// Each rule that can hit this cell, with its number in the scenario.
    rules: Vec<(u64, Fault)>,
    seed: u64,
}

impl FaultPlan {
    /// The rules for the workload `family`. `seed` is the scenario's: together with a rule's number and a request's it
    /// decides draws.
    pub fn new(rules: &[Fault], family: &str, seed: u64) -> Self {
        let here = |rule: &Fault| rule.matches.workload.as_deref().is_none_or(|name| name == family);
        let rules = (0..).zip(rules).filter(|(_, rule)| here(rule));
        Self { rules: rules.map(|(number, rule)| (number, rule.clone())).collect(), seed }
    }

    /// Whether nothing can go wrong.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What happens to the measured request `index` with a prompt of so many tokens, after so many attempts at it that failed:
    /// the first rule that matches decides.
    pub fn action(&self, index: u64, attempt: u32, prompt_tokens: u32) -> Option<&FaultAction> {
        let own = self.rules.iter().filter(|(_, rule)| !rule.action.is_of_engine());
        let mut hit = own.filter(|(number, rule)| {
            hits(&rule.matches, (index, attempt), prompt_tokens, [self.seed, *number])
        });
        hit.next().map(|(_, rule)| &rule.action)
    }

    /// What happens to an engine that several workloads share, as [`Self::of_engine`]: a rule for all of them once.
    pub(super) fn of_shared_engine(plans: &[Self]) -> Vec<FaultAction> {
        let rules = plans.iter().flat_map(|plan| &plan.rules).filter(|(_, rule)| rule.action.is_of_engine());
        let rules: BTreeMap<u64, &FaultAction> = rules.map(|(at, rule)| (*at, &rule.action)).collect();
        rules.into_values().cloned().collect()
    }

    /// What happens to the engine as a whole, in the order of the scenario.
    pub fn of_engine(&self) -> impl Iterator<Item = &FaultAction> {
        self.rules.iter().map(|(_, rule)| &rule.action).filter(|action| action.is_of_engine())
    }
}

/// Whether a rule is for the request `index` with a prompt of so many tokens, whatever its workload, after so many failed
/// attempts. `draw` names the rule's draws.
pub(super) fn hits(
    matches: &RequestMatch,
    (index, attempt): (u64, u32),
    prompt_tokens: u32,
    draw: [u64; 2],
) -> bool {
    let drawn = || match attempt {
        0 => key(&[draw[0], draw[1], index]),
        _ => key(&[draw[0], draw[1], index, attempt.into()]),
    };
    matches.index.as_ref().is_none_or(|list| list.0.contains(&index))
        && matches.every.is_none_or(|n| (index + 1).is_multiple_of(n))
        && matches.first.is_none_or(|n| index < n)
        && matches.prompt_tokens.is_none_or(|range| range.contains(prompt_tokens))
        && matches.attempts.is_none_or(|n| attempt < n)
        && matches.rate.is_none_or(|rate| unit(drawn()) < rate.0)
}

/// A uniform number in [0, 1) from 64 bits.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::config::{IndexList, StartupFault, StatusFault, TimeoutFault, TokenRange};
    use crate::units::{Duration, Ratio, TokenCount};

    fn status(code: u16, matches: RequestMatch) -> Fault {
        Fault { matches, action: FaultAction::HttpStatus(StatusFault { code, retry_after: None }) }
    }

    fn hit(faults: &FaultPlan, n: u64) -> Vec<u64> {
        (0..n).filter(|index| faults.action(*index, 0, 8).is_some()).collect()
    }

    #[test]
    fn all_conditions_must_hold_and_the_first_rule_decides() {
        let every = RequestMatch { every: Some(3), first: Some(7), ..RequestMatch::default() };
        let named = RequestMatch { index: Some(IndexList(vec![5, 9])), ..RequestMatch::default() };
        let timeout = Fault { matches: named, action: FaultAction::Timeout(TimeoutFault {}) };
        let faults = FaultPlan::new(&[status(503, every), timeout], "chat", 1);
        assert_eq!(hit(&faults, 20), [2, 5, 9]);
        assert_eq!(faults.action(5, 0, 8).unwrap().kind(), "http_status");
        assert_eq!(faults.action(9, 0, 8).unwrap().kind(), "timeout");
    }

    #[test]
    fn a_length_of_the_prompt_is_a_condition() {
        let tokens = |n| Some(TokenCount(n));
        let range = |min, max| RequestMatch {
            prompt_tokens: Some(TokenRange { min, max }),
            ..RequestMatch::default()
        };
        let faults = FaultPlan::new(
            &[status(500, range(tokens(100), tokens(200))), status(501, range(tokens(1000), None))],
            "chat",
            1,
        );
        let code = |prompt| match faults.action(0, 0, prompt) {
            Some(FaultAction::HttpStatus(status)) => status.code,
            _ => 0,
        };
        assert_eq!([99, 100, 200, 201, 999, 1000].map(code), [0, 500, 500, 0, 0, 501]);
    }

    #[test]
    fn a_rule_for_another_workload_hits_nothing() {
        let other = RequestMatch { workload: Some("batch".into()), ..RequestMatch::default() };
        assert!(hit(&FaultPlan::new(&[status(500, other.clone())], "chat", 1), 9).is_empty());
        assert_eq!(hit(&FaultPlan::new(&[status(500, other)], "batch", 1), 9).len(), 9);
    }

    #[test]
    fn what_happens_to_the_engine_hits_no_request() {
        let startup = FaultAction::StartupDelay(StartupFault { delay: Duration(1) });
        let rule = Fault { matches: RequestMatch::default(), action: startup.clone() };
        let faults = FaultPlan::new(&[rule, status(500, RequestMatch::default())], "chat", 1);
        assert_eq!(faults.action(0, 0, 8).unwrap().kind(), "http_status");
        assert_eq!(faults.of_engine().collect::<Vec<_>>(), [&startup]);
    }

    #[test]
    fn a_rate_is_drawn_for_each_request_and_rule() {
        let rate = |rate| RequestMatch { rate: Some(Ratio(rate)), ..RequestMatch::default() };
        let third = FaultPlan::new(&[status(500, rate(0.3))], "chat", 1);
        let count = hit(&third, 10_000).len() as f64;
        assert!((count - 3_000.0).abs() < 5.0 * (10_000.0_f64 * 0.3 * 0.7).sqrt(), "{count} of 10000 at 30%");
        assert_ne!(hit(&third, 100), hit(&FaultPlan::new(&[status(500, rate(0.3))], "chat", 2), 100));
        assert!(hit(&FaultPlan::new(&[status(500, rate(0.0))], "chat", 1), 1_000).is_empty());
        assert_eq!(hit(&FaultPlan::new(&[status(500, rate(1.0))], "chat", 1), 1_000).len(), 1_000);
    }
}

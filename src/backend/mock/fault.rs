//! Which requests go wrong on purpose.

use crate::backend::InjectedFault;
use crate::backend::config::{Fault, FaultAction, RequestMatch};
use crate::plan::Recipe;
use crate::sample::key;
use crate::units::Ns;

/// The rules that can hit a request of this cell, each with its number in the scenario.
#[derive(Debug)]
pub(super) struct Faults {
    rules: Vec<(u64, Fault)>,
    seed: u64,
}

impl Faults {
    pub(super) fn new(rules: &[Fault], family: &str, seed: u64) -> Self {
        let here = |rule: &Fault| rule.matches.workload.as_deref().is_none_or(|name| name == family);
        let rules = (0..).zip(rules).filter(|(_, rule)| here(rule));
        Self { rules: rules.map(|(number, rule)| (number, rule.clone())).collect(), seed }
    }

    /// What happens to the measured request `index`: the first rule that matches decides.
    pub(super) fn of(&self, index: u64) -> Option<FaultAction> {
        let rule = self.rules.iter().find(|(number, rule)| hits(&rule.matches, index, &[self.seed, *number]));
        rule.map(|(_, rule)| rule.action.clone())
    }
}

/// Whether a rule is for the request `index`, whatever its workload. `draw` names the rule's draws.
pub(super) fn hits(matches: &RequestMatch, index: u64, draw: &[u64; 2]) -> bool {
    matches.index.as_ref().is_none_or(|list| list.0.contains(&index))
        && matches.every.is_none_or(|n| (index + 1).is_multiple_of(n))
        && matches.first.is_none_or(|n| index < n)
        && matches.rate.is_none_or(|rate| unit(key(&[draw[0], draw[1], index])) < rate.0)
}

/// A uniform number in [0, 1) from 64 bits.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// The log's line about a fault that struck.
pub(super) fn entry(recipe: &Recipe, action: &FaultAction, at: Ns) -> InjectedFault {
    InjectedFault { index: recipe.index, action: action.kind().into(), at_ns: at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::config::{IndexList, StatusFault, TimeoutFault};
    use crate::units::Ratio;

    fn status(code: u16, matches: RequestMatch) -> Fault {
        Fault { matches, action: FaultAction::HttpStatus(StatusFault { code }) }
    }

    fn hit(faults: &Faults, n: u64) -> Vec<u64> {
        (0..n).filter(|index| faults.of(*index).is_some()).collect()
    }

    #[test]
    fn all_conditions_must_hold_and_the_first_rule_decides() {
        let every = RequestMatch { every: Some(3), first: Some(7), ..RequestMatch::default() };
        let named = RequestMatch { index: Some(IndexList(vec![5, 9])), ..RequestMatch::default() };
        let timeout = Fault { matches: named, action: FaultAction::Timeout(TimeoutFault {}) };
        let faults = Faults::new(&[status(503, every), timeout], "chat", 1);
        assert_eq!(hit(&faults, 20), [2, 5, 9]);
        assert_eq!(faults.of(5).unwrap().kind(), "http_status");
        assert_eq!(faults.of(9).unwrap().kind(), "timeout");
    }

    #[test]
    fn a_rule_for_another_workload_hits_nothing() {
        let other = RequestMatch { workload: Some("batch".into()), ..RequestMatch::default() };
        assert!(hit(&Faults::new(&[status(500, other.clone())], "chat", 1), 9).is_empty());
        assert_eq!(hit(&Faults::new(&[status(500, other)], "batch", 1), 9).len(), 9);
    }

    #[test]
    fn a_rate_is_drawn_for_each_request_and_rule() {
        let rate = |rate| RequestMatch { rate: Some(Ratio(rate)), ..RequestMatch::default() };
        let third = Faults::new(&[status(500, rate(0.3))], "chat", 1);
        let count = hit(&third, 10_000).len() as f64;
        assert!((count - 3_000.0).abs() < 5.0 * (10_000.0_f64 * 0.3 * 0.7).sqrt(), "{count} of 10000 at 30%");
        assert_ne!(hit(&third, 100), hit(&Faults::new(&[status(500, rate(0.3))], "chat", 2), 100));
        assert!(hit(&Faults::new(&[status(500, rate(0.0))], "chat", 1), 1_000).is_empty());
        assert_eq!(hit(&Faults::new(&[status(500, rate(1.0))], "chat", 1), 1_000).len(), 1_000);
    }
}

//! What a run as a whole comes to.

use super::config::Inconclusive;
use super::exit;
use super::judgement::{Judgement, Verdict};

/// Everything that decides over a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// Every rule judged. Suspended ones and those that do not decide change nothing.
    pub judgements: &'a [Judgement],
    /// What an inconclusive rule does.
    pub inconclusive: Inconclusive,
    /// `--strict`: an inconclusive rule fails the run whatever the scenario says.
    pub strict: bool,
    /// Workloads that are INVALID.
    pub invalid: usize,
    /// Workloads that could not be run, and those without one success.
    pub broken: usize,
    /// The signal that interrupted the run.
    pub signal: Option<u8>,
}

/// A run's outcome in a word and as an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Outcome {
    /// `passed`, `failed`, `inconclusive`, `invalid`, `not run` or `interrupted`.
    pub word: &'static str,
    /// One of [`exit`]'s constants.
    pub code: u8,
}

/// What a run comes to: the strongest of all that happened, as [`exit::PRECEDENCE`] has it.
pub fn outcome(facts: &Facts<'_>) -> Outcome {
    let mut codes = vec![exit::PASS];
    if let Some(signal) = facts.signal {
        // SIGTERM is 15; whatever else asked for a stop counts as Ctrl-C.
        codes.push(if signal == 15 { exit::TERMINATED } else { exit::INTERRUPTED });
    }
    if facts.broken > 0 {
        codes.push(exit::RUN);
    }
    if facts.invalid > 0 {
        codes.push(exit::INVALID);
    }
    let certain = facts.strict || facts.inconclusive == Inconclusive::Fail;
    codes.extend(facts.judgements.iter().filter(|j| j.decides && !j.suspended).map(|j| match j.verdict {
        Verdict::Fail | Verdict::NoData => exit::FAILED,
        Verdict::Inconclusive if certain => exit::INCONCLUSIVE,
        Verdict::Pass | Verdict::Inconclusive => exit::PASS,
    }));
    let code = exit::strongest(codes);
    let word = match code {
        exit::PASS => "passed",
        exit::INCONCLUSIVE => "inconclusive",
        exit::FAILED => "failed",
        exit::INVALID => "invalid",
        exit::RUN => "not run",
        _ => "interrupted",
    };
    Outcome { word, code }
}

//! Further attempts at requests that failed in a way that may pass.

use std::collections::BTreeMap;

use super::load::Start;
use crate::record::{Attempt, Outcome};
use crate::sample::Draws;
use crate::units::{MILLISECOND, Ns, SECOND};

/// The wait before the first further attempt, where the server does not say; it doubles with each.
const FIRST_WAIT: Ns = 500 * MILLISECOND;
/// The longest wait that a server did not ask for.
const LONGEST_WAIT: Ns = 8 * SECOND;
/// A wait that a server did not ask for is up to this share shorter, so that those who failed together do not come back
/// together.
const JITTER: f64 = 0.25;

/// What a request has behind it that is sent again.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    /// The attempts so far, at least one.
    pub(super) attempts: Vec<Attempt>,
    /// When the request times out, whatever the attempt.
    pub(super) deadline: Ns,
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed {
    pub(super) attempt: Attempt,
    /// Whether a part of the answer came.
    pub(super) has_tokens: bool,
    /// How long the server asks to wait.
    pub(super) retry_after: Option<Ns>,
}

/// The requests of one workload that wait to be sent again. They count as in flight.
#[derive(Debug)]
pub(super) struct Retries {
    /// Further attempts that a request has.
    most: u32,
    timeout: Ns,
    /// By when they are sent, then in the order in which they failed.
    waiting: BTreeMap<(Ns, u64), Start>,
    scheduled: u64,
}

impl Retries {
    pub(super) fn new(most: u32, timeout: Ns) -> Self {
        Self { most, timeout, waiting: BTreeMap::new(), scheduled: 0 }
    }

    /// When a request that failed so is sent again; `None` where it is not: another attempt would fail as well, there is none
    /// left, or the request would time out before.
    pub(super) fn when(&self, start: &Start, failed: &Failed) -> Option<Ns> {
        let Attempt { outcome, end, .. } = failed.attempt;
        let passes = match outcome {
            Outcome::Disconnected => !failed.has_tokens,
            _ => outcome.may_pass() || failed.retry_after.is_some(),
        };
        let count = start.tried.as_ref().map_or(0, |tried| tried.attempts.len() as u32);
        if !passes || count >= self.most {
            return None;
        }
        let doubled = FIRST_WAIT.saturating_mul(1 << count.min(16)).min(LONGEST_WAIT);
        let draw = Draws::new(start.recipe.seed, "retry", u64::from(count)).unit();
        let own = (doubled as f64 * (1.0 - JITTER * draw)) as Ns;
        let at = end.saturating_add(failed.retry_after.unwrap_or(0).max(own));
        (at < self.deadline(start, failed)).then_some(at)
    }

    fn deadline(&self, start: &Start, failed: &Failed) -> Ns {
        let first = || failed.attempt.sent.saturating_add(self.timeout);
        start.tried.as_ref().map_or_else(first, |tried| tried.deadline)
    }

    /// A request waits until `at` to be sent again.
    pub(super) fn wait(&mut self, mut start: Start, failed: &Failed, at: Ns) {
        let deadline = self.deadline(&start, failed);
        let tried = start.tried.get_or_insert_with(|| Box::new(Tried { attempts: Vec::new(), deadline }));
        tried.attempts.push(failed.attempt);
        start.recipe.attempt = tried.attempts.len() as u32;
        self.waiting.insert((at, self.scheduled), start);
        self.scheduled += 1;
    }

    /// When the next one is sent.
    pub(super) fn next(&self) -> Option<Ns> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// The one that is sent next.
    pub(super) fn pop(&mut self) -> Option<Start> {
        self.waiting.pop_first().map(|(_, start)| start)
    }
}

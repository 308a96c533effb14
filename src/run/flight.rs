//! A request between being sent and its record.

use super::load::Start;
use super::retry::Failed;
use super::steps::Steps;
use crate::backend::Finish;
use crate::record::{Attempt, GapRun, Outcome, Record, Response, Retried, TokenSource, TokenTimes};
use crate::units::Ns;

/// What is known of a request that is in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) start: Start,
    pub(super) sent: Ns,
    scheduled: Option<Ns>,
    times: TokenTimes,
    /// What the backend's usage says, where that is another number than came.
    usage: Option<u32>,
    /// How many steps there were when it began to ride, while it does.
    boarded: Option<u64>,
}

/// How a request ended, as this side sees it.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) at: Ns,
    pub(super) outcome: Outcome,
    pub(super) message: Option<Box<str>>,
    /// How long the backend asks to wait before another attempt.
    pub(super) retry_after: Option<Ns>,
    /// What was answered, where the backend tells it.
    pub(super) response: Option<Box<Response>>,
    prompt_tokens: Option<u32>,
    preemptions: u32,
    token_source: TokenSource,
}

impl Ended {
    /// The backend said so.
    pub(super) fn told(at: Ns, finish: Finish) -> Self {
        Self {
            at,
            outcome: finish.outcome,
            message: finish.message,
            retry_after: finish.retry_after,
            response: finish.response,
            prompt_tokens: Some(finish.prompt_tokens),
            preemptions: finish.preemptions,
            token_source: finish.token_source,
        }
    }

    /// This side ended it.
    pub(super) fn here(at: Ns, outcome: Outcome, message: Option<Box<str>>) -> Self {
        let token_source = TokenSource::Engine;
        Self {
            at,
            outcome,
            message,
            retry_after: None,
            prompt_tokens: None,
            preemptions: 0,
            token_source,
            response: None,
        }
    }
}

impl Flight {
    /// `gaps` is empty; only its memory is used.
    pub(super) fn new(start: Start, sent: Ns, gaps: Vec<GapRun>) -> Self {
        Self { start, sent, scheduled: None, times: TokenTimes::new(gaps), usage: None, boarded: None }
    }

    /// How it failed, as `ended` says.
    pub(super) fn failed(&self, ended: &Ended) -> Failed {
        Failed {
            attempt: Attempt { sent: self.sent, end: ended.at, outcome: ended.outcome },
            has_tokens: self.times.tokens > 0,
            retry_after: ended.retry_after,
        }
    }

    /// What was to be sent, and its list of gaps, emptied.
    pub(super) fn give_back(self) -> (Start, Vec<GapRun>) {
        let mut gaps = self.times.gaps;
        gaps.clear();
        (self.start, gaps)
    }

    /// From here on it has one token in each of the steps.
    pub(super) fn board(&mut self, steps: &Steps) {
        self.boarded = Some(steps.count());
    }

    /// Takes the tokens of the steps it rode along. Whether it did.
    pub(super) fn alight(&mut self, steps: &Steps) -> bool {
        let Some(boarded) = self.boarded.take() else { return false };
        let tokens = (steps.count() - boarded) as u32;
        if tokens > 0 {
            self.times.tokens += tokens;
            self.times.events += tokens;
            self.times.last = steps.last();
            self.times.longest_gap = self.times.longest_gap.max(steps.longest_since(boarded));
        }
        true
    }

    /// How many steps there were when it began to ride.
    pub(super) fn boarded(&self) -> Option<u64> {
        self.boarded
    }

    /// Whether our side has had all the tokens it wanted and now cancels.
    pub(super) fn is_cancelled(&self) -> bool {
        self.start.recipe.cancel_after.is_some_and(|after| self.times.tokens >= after)
    }

    /// `count` tokens: one event at `at`, or with a `gap` one event each. What comes after cancelling is not heard.
    pub(super) fn on_tokens(&mut self, at: Ns, gap: Ns, count: u32) {
        let left = |after: u32| after.saturating_sub(self.times.tokens);
        let wanted = self.start.recipe.cancel_after.map_or(u32::MAX, left);
        self.times.on_tokens(at, gap, count.min(wanted));
    }

    /// The engine took it out of its queue.
    pub(super) fn on_scheduled(&mut self, at: Ns) {
        self.scheduled.get_or_insert(at);
    }

    /// The usage says so many tokens.
    pub(super) fn on_usage(&mut self, tokens: u32) {
        self.usage = Some(tokens);
    }

    /// The record and the gaps between its tokens.
    pub(super) fn close(self, ended: Ended) -> (Record, Vec<GapRun>, Start) {
        let mut record = sent_record(&self.start, self.sent, ended.at, &self.times);
        record.scheduled = self.scheduled;
        record.prompt_tokens = ended.prompt_tokens.unwrap_or(record.prompt_tokens);
        record.preemptions = ended.preemptions;
        record.token_source = ended.token_source;
        (record.outcome, record.message) = (ended.outcome, ended.message);
        hold_to_length(&mut record);
        // The server's usage is the first source of a count, also where it is wrong.
        if let Some(usage) = self.usage {
            record.output_tokens = usage;
        }
        (record, self.times.gaps, self.start)
    }
}

/// A success that lacks tokens is none.
pub(super) fn hold_to_length(record: &mut Record) {
    let (came, asked) = (record.output_tokens, record.asked_tokens);
    let shortfall = if record.outcome != Outcome::Success {
        None
    } else if came == 0 {
        Some("the answer has no token".into())
    } else if record.forced && came != asked {
        Some(format!("the answer has {came} tokens, {asked} were asked for"))
    } else {
        None
    };
    if let Some(shortfall) = shortfall {
        (record.outcome, record.message) = (Outcome::Truncated, Some(shortfall.into()));
    }
}

/// The record of a request that was sent and whose outcome was known at `at`.
pub(super) fn sent_record(start: &Start, sent: Ns, at: Ns, times: &TokenTimes) -> Record {
    let mut record = unsent(&start.recipe, start.due, at);
    record.sent = Some(sent);
    if let Some(tried) = &start.tried {
        record.sent = tried.attempts.first().map(|first| first.sent);
        record.retried = Some(Box::new(Retried { attempts: tried.attempts.clone(), sent }));
    }
    record.first = times.first;
    if times.first.is_some() {
        record.end = times.last;
    }
    record.cap_wait = start.cap_wait;
    record.longest_gap = times.longest_gap;
    record.output_tokens = times.tokens;
    record.first_event_tokens = times.first_event_tokens;
    (record.events, record.stream) = (times.events, times.stream.map(Box::new));
    record
}

/// The record of a request that was due and not sent, known at `at`.
pub(super) fn unsent(recipe: &crate::plan::Recipe, due: Ns, at: Ns) -> Record {
    Record {
        index: recipe.index,
        phase: recipe.phase,
        session: recipe.session,
        due,
        sent: None,
        connect: 0,
        scheduled: None,
        first: None,
        first_answer: None,
        end: at,
        cap_wait: 0,
        longest_gap: 0,
        prompt_tokens: recipe.prompt.tokens(),
        asked_tokens: recipe.output_tokens,
        forced: recipe.forced,
        output_tokens: 0,
        first_event_tokens: 0,
        events: 0,
        stream: None,
        preemptions: 0,
        token_source: TokenSource::Engine,
        outcome: Outcome::Interrupted,
        message: None,
        checked: None,
        retried: None,
    }
}

//! A request between being sent and its record.

use super::load::Start;
use super::steps::Steps;
use crate::backend::Finish;
use crate::record::{GapRun, Outcome, Record, TokenSource};
use crate::units::Ns;

/// What is known of a request that is in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) start: Start,
    pub(super) sent: Ns,
    first: Option<Ns>,
    last: Ns,
    tokens: u32,
    first_event_tokens: u32,
    longest_gap: Ns,
    gaps: Vec<GapRun>,
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
            prompt_tokens: Some(finish.prompt_tokens),
            preemptions: finish.preemptions,
            token_source: finish.token_source,
        }
    }

    /// This side ended it.
    pub(super) fn here(at: Ns, outcome: Outcome, message: Option<Box<str>>) -> Self {
        Self { at, outcome, message, prompt_tokens: None, preemptions: 0, token_source: TokenSource::Engine }
    }
}

impl Flight {
    /// `gaps` is empty; only its memory is used.
    pub(super) fn new(start: Start, sent: Ns, gaps: Vec<GapRun>) -> Self {
        Self {
            start,
            sent,
            first: None,
            last: 0,
            tokens: 0,
            first_event_tokens: 0,
            longest_gap: 0,
            gaps,
            usage: None,
            boarded: None,
        }
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
            self.tokens += tokens;
            self.last = steps.last();
            self.longest_gap = self.longest_gap.max(steps.longest_since(boarded));
        }
        true
    }

    /// How many steps there were when it began to ride.
    pub(super) fn boarded(&self) -> Option<u64> {
        self.boarded
    }

    /// Whether our side has had all the tokens it wanted and now cancels.
    pub(super) fn is_cancelled(&self) -> bool {
        self.start.recipe.cancel_after.is_some_and(|after| self.tokens >= after)
    }

    /// `count` tokens: one event at `at`, or with a `gap` one event each. What comes after cancelling is not heard.
    pub(super) fn on_tokens(&mut self, at: Ns, gap: Ns, count: u32) {
        let wanted =
            self.start.recipe.cancel_after.map_or(u32::MAX, |after| after.saturating_sub(self.tokens));
        let count = count.min(wanted);
        match (count, gap) {
            (0, _) => {}
            (_, 0) => self.on_event(at, count),
            (_, gap) => {
                self.on_event(at, 1);
                self.add_gaps(gap, count - 1);
                self.tokens += count - 1;
                self.last = at.saturating_add(gap.saturating_mul(Ns::from(count - 1)));
            }
        }
    }

    /// An event with `count` tokens, at least one. It ends as many gaps, each an equal part of the time since the event
    /// before; the nanoseconds that do not divide go to the last one.
    fn on_event(&mut self, at: Ns, count: u32) {
        if self.first.is_none() {
            self.first = Some(at);
            self.first_event_tokens = count;
        } else {
            let time = at.saturating_sub(self.last);
            let part = time / Ns::from(count);
            self.add_gaps(part, count - 1);
            self.add_gaps(time - part * Ns::from(count - 1), 1);
        }
        self.tokens += count;
        self.last = at;
    }

    fn add_gaps(&mut self, gap: Ns, count: u32) {
        if count == 0 {
            return;
        }
        self.longest_gap = self.longest_gap.max(gap);
        match self.gaps.last_mut() {
            Some(run) if run.gap == gap => run.count += count,
            _ => self.gaps.push(GapRun { gap, count }),
        }
    }

    /// The usage says so many tokens.
    pub(super) fn on_usage(&mut self, tokens: u32) {
        self.usage = Some(tokens);
    }

    /// What a success lacks.
    fn shortfall(&self) -> Option<String> {
        let (came, asked) = (self.tokens, self.start.recipe.output_tokens);
        if came == 0 {
            Some("the answer has no token".into())
        } else if self.start.recipe.forced && came != asked {
            Some(format!("the answer has {came} tokens, {asked} were asked for"))
        } else {
            None
        }
    }

    /// The record and the gaps between its tokens.
    pub(super) fn close(self, ended: Ended) -> (Record, Vec<GapRun>, Start) {
        let mut record = unsent(&self.start.recipe, self.start.due, ended.at);
        record.sent = Some(self.sent);
        record.first = self.first;
        if self.first.is_some() {
            record.end = self.last;
        }
        record.cap_wait = self.start.cap_wait;
        record.longest_gap = self.longest_gap;
        record.prompt_tokens = ended.prompt_tokens.unwrap_or(record.prompt_tokens);
        record.output_tokens = self.tokens;
        record.first_event_tokens = self.first_event_tokens;
        record.preemptions = ended.preemptions;
        record.token_source = ended.token_source;
        (record.outcome, record.message) = (ended.outcome, ended.message);
        if ended.outcome == Outcome::Success
            && let Some(shortfall) = self.shortfall()
        {
            (record.outcome, record.message) = (Outcome::Truncated, Some(shortfall.into()));
        }
        // The server's usage is the first source of a count, also where it is wrong.
        if let Some(usage) = self.usage {
            record.output_tokens = usage;
        }
        (record, self.gaps, self.start)
    }
}

/// The record of a request that was due and not sent, known at `at`.
pub(super) fn unsent(recipe: &crate::plan::Recipe, due: Ns, at: Ns) -> Record {
    Record {
        index: recipe.index,
        phase: recipe.phase,
        due,
        sent: None,
        first: None,
        end: at,
        cap_wait: 0,
        longest_gap: 0,
        prompt_tokens: recipe.prompt.tokens(),
        asked_tokens: recipe.output_tokens,
        forced: recipe.forced,
        output_tokens: 0,
        first_event_tokens: 0,
        preemptions: 0,
        token_source: TokenSource::Engine,
        outcome: Outcome::Interrupted,
        message: None,
    }
}

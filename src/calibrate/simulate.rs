//! Plays recorded requests on the mock.

use super::{CalibrateError, Recorded, Request};
use crate::backend::config::MockBackend;
use crate::backend::mock::Batched;
use crate::backend::{Finish, RequestId, Sink, Stepped};
use crate::plan::{PromptRecipe, Recipe};
use crate::record::Outcome;
use crate::units::Ns;

/// The first and the last token of each request, run by run.
pub(super) type Outcomes = Vec<Vec<(Ns, Ns)>>;

struct Times {
    times: Vec<(Ns, Ns)>,
    refused: Option<String>,
}

impl Sink for Times {
    fn tokens(&mut self, id: RequestId, at: Ns, gap: Ns, count: u32) {
        let (first, last) = &mut self.times[id as usize];
        if *first == Ns::MAX {
            *first = at;
        }
        *last = at.saturating_add(gap.saturating_mul(Ns::from(count.saturating_sub(1))));
    }

    fn finished(&mut self, _: RequestId, _: Ns, end: Finish) {
        if end.outcome != Outcome::Success {
            self.refused = Some(end.message.map_or_else(|| end.outcome.label(), Into::into));
        }
    }
}

/// Plays every run from its start.
pub(super) fn simulate(mock: &MockBackend, recorded: &Recorded) -> Result<Outcomes, CalibrateError> {
    recorded.runs.iter().map(|run| play(mock, run, recorded.block_tokens)).collect()
}

fn play(mock: &MockBackend, run: &[Request], block_tokens: u32) -> Result<Vec<(Ns, Ns)>, CalibrateError> {
    let mut engine = Batched::open(mock, &["calibrate"], 0)?;
    let mut heard = Times { times: vec![(Ns::MAX, 0); run.len()], refused: None };
    for (id, request) in (0..).zip(run) {
        while engine.next_event().is_some_and(|next| next <= request.arrival) {
            engine.advance(request.arrival, &mut heard);
        }
        engine.submit(id, &recipe(id, request, block_tokens), request.arrival);
    }
    while let Some(next) = engine.next_event() {
        engine.advance(next, &mut heard);
    }
    match heard.refused {
        Some(message) => Err(CalibrateError::Refused(message)),
        None => Ok(heard.times),
    }
}

fn recipe(index: u64, request: &Request, block_tokens: u32) -> Recipe {
    let prompt = if request.blocks.is_empty() {
        PromptRecipe::Synthetic { tokens: request.prompt, prefix: None }
    } else {
        PromptRecipe::Blocks { tokens: request.prompt, block_tokens, ids: request.blocks.clone() }
    };
    Recipe {
        arrival: Some(request.arrival),
        ..Recipe::new(index, prompt, request.output, crate::sample::key(&[0x6361_6c69, index]))
    }
}

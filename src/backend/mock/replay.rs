//! The mock's replay mode: each request is answered when its trace says that it was.
//!
//! Nothing is computed and nothing queues: what a recorded server did is played back, request by request, counted from
//! when each is sent. A cache, a batch and their numbers are unknown.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::Engine;
use super::answer::Answers;
use crate::backend::config::MockBackend;
use crate::backend::{CACHE_METRICS, EngineStats, Finish, MEMORY_METRICS, RequestId, Sink, Stepped};
use crate::engine::KvCache;
use crate::plan::Recipe;
use crate::record::Outcome;
use crate::units::Ns;

/// What a replay knows nothing of besides.
const UNKNOWN: [&str; 3] = ["spec_accept_rate", "avg_batch_size", "max_batch_size"];

/// The next token of a request: when, and which request. Ordered by time, then by request.
type Due = (Ns, RequestId);

/// An answer that is being played.
#[derive(Debug)]
struct Playing {
    recipe: Recipe,
    /// From when its recorded times count.
    from: Ns,
    emitted: u32,
    /// Why it is not answered.
    refusal: Option<Box<str>>,
}

impl Playing {
    /// When the next token comes, or the end where there is none.
    fn next(&self) -> Ns {
        let after = self.recipe.recorded.and_then(|recorded| recorded.at(self.emitted));
        let after = after.filter(|_| self.refusal.is_none() && self.recipe.output_tokens > 0);
        self.from.saturating_add(after.unwrap_or(0))
    }
}

/// The mock's replay mode. One per cell.
#[derive(Debug)]
pub struct Replay {
    answers: Answers,
    playing: FxHashMap<RequestId, Playing>,
    /// One entry for each request that is played; those of ended ones are passed over.
    due: BinaryHeap<Reverse<Due>>,
    /// Nothing comes before this.
    held: Ns,
}

impl Replay {
    /// A mock for one cell. `families` are the names in the scenario of the workloads that it serves, in the order of
    /// [`Recipe::lane`], `seed` the scenario's: they decide what answers say.
    pub fn open(config: &MockBackend, families: &[&str], seed: u64) -> Self {
        Self {
            answers: Answers::group(&config.responses, families, seed),
            playing: FxHashMap::default(),
            due: BinaryHeap::new(),
            held: 0,
        }
    }

    /// Why a request has no times to play, if it has none.
    fn refusal(recipe: &Recipe) -> Option<Box<str>> {
        match &recipe.recorded {
            None => Some("the request has no recorded times to replay".into()),
            Some(recorded) if recipe.output_tokens > 1 && recorded.tokens < 2 => Some(
                format!(
                    "{} tokens are asked for, and the recorded answer has one: nothing tells the time between two",
                    recipe.output_tokens
                )
                .into(),
            ),
            Some(_) => None,
        }
    }

    /// Drops entries of requests that are not played any more from the front.
    fn prune(&mut self) {
        while self.due.peek().is_some_and(|Reverse((_, id))| !self.playing.contains_key(id)) {
            self.due.pop();
        }
    }

    /// A request's token, or its end.
    fn tell(&mut self, at: Ns, id: RequestId, sink: &mut dyn Sink) {
        let Some(playing) = self.playing.get_mut(&id) else { return };
        if playing.refusal.is_none() && playing.recipe.output_tokens > 0 {
            playing.emitted += 1;
            sink.tokens(id, at, 0, 1);
        }
        if playing.refusal.is_none() && playing.emitted < playing.recipe.output_tokens {
            self.due.push(Reverse((playing.next().max(at), id)));
            return;
        }
        let Some(Playing { recipe, refusal, .. }) = self.playing.remove(&id) else { return };
        let outcome = if refusal.is_some() { Outcome::Refused } else { Outcome::Success };
        let end = Finish {
            response: self.answers.response(&recipe, outcome),
            ..Finish::new(recipe.prompt.tokens(), 0, outcome, refusal)
        };
        sink.finished(id, at, end);
    }
}

impl Stepped for Replay {
    fn keep_responses(&mut self) {
        self.answers.keep();
    }

    fn submit(&mut self, id: RequestId, recipe: &Recipe, now: Ns) {
        let recipe = self.answers.own(recipe);
        let refusal = Self::refusal(&recipe);
        let playing = Playing { recipe, from: now.max(self.held), emitted: 0, refusal };
        self.due.push(Reverse((playing.next(), id)));
        self.playing.insert(id, playing);
    }

    fn cancel(&mut self, id: RequestId, _now: Ns) {
        self.playing.remove(&id);
        self.prune();
    }

    fn next_event(&self) -> Option<Ns> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    fn advance(&mut self, to: Ns, sink: &mut dyn Sink) {
        while let Some(Reverse((at, id))) = self.due.peek().copied().filter(|Reverse((at, _))| *at <= to) {
            self.due.pop();
            self.tell(at, id, sink);
            self.prune();
        }
    }

    fn start_measuring(&mut self, _now: Ns) {}

    fn stats(&self, _now: Ns) -> EngineStats {
        let reason = "the mock replays recorded times, which do not tell it";
        EngineStats {
            unavailable: CACHE_METRICS
                .into_iter()
                .chain(MEMORY_METRICS)
                .chain(UNKNOWN)
                .map(|name| (name.into(), reason.to_owned()))
                .collect(),
            ..EngineStats::default()
        }
    }

    fn forget_prefixes(&mut self) -> bool {
        true
    }
}

impl Engine for Replay {
    fn hold(&mut self, now: Ns, until: Ns) {
        let by = until.saturating_sub(now);
        for playing in self.playing.values_mut() {
            playing.from = playing.from.saturating_add(by);
        }
        let later = |Reverse((at, id)): Reverse<Due>| Reverse((at.saturating_add(by), id));
        self.due = std::mem::take(&mut self.due).into_iter().map(later).collect();
        self.held = self.held.max(until);
    }

    fn cache_mut(&mut self) -> Option<&mut KvCache> {
        None
    }

    fn preemptions(&self, _id: RequestId) -> u32 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::mock::fixed::tests::recipe;
    use crate::plan::Recorded;

    #[derive(Default)]
    struct Heard(Vec<(RequestId, Ns, Option<Outcome>)>);

    impl Sink for Heard {
        fn tokens(&mut self, id: RequestId, at: Ns, gap: Ns, count: u32) {
            assert_eq!((gap, count), (0, 1), "token by token");
            self.0.push((id, at, None));
        }
        fn finished(&mut self, id: RequestId, at: Ns, end: Finish) {
            self.0.push((id, at, Some(end.outcome)));
        }
    }

    fn replay() -> Replay {
        let config = serde_json::json!({ "mode": "replay" });
        Replay::open(&serde_json::from_value(config).unwrap(), &["w"], 1)
    }

    fn recorded(index: u64, output: u32, times: (Ns, Ns, u32)) -> Recipe {
        let recorded = Recorded { ttft: times.0, rest: times.1, tokens: times.2 };
        Recipe { recorded: Some(recorded), ..recipe(index, 4, output) }
    }

    #[test]
    fn tokens_come_evenly_between_the_recorded_first_and_last() {
        let (mut replay, mut heard) = (replay(), Heard::default());
        replay.submit(0, &recorded(0, 4, (10, 20, 4)), 100);
        replay.submit(1, &recorded(1, 1, (7, 0, 1)), 105);
        replay.advance(Ns::MAX, &mut heard);
        let success = Some(Outcome::Success);
        // 20 over 3 gaps: whole nanoseconds, and the last one exactly where it was.
        let first = [(0, 110, None), (1, 112, None), (1, 112, success), (0, 116, None), (0, 123, None)];
        assert_eq!(heard.0[..5], first);
        assert_eq!(heard.0[5..], [(0, 130, None), (0, 130, success)]);
        assert_eq!(replay.next_event(), None);
    }

    #[test]
    fn another_length_goes_on_at_the_recorded_pace() {
        let (mut replay, mut heard) = (replay(), Heard::default());
        replay.submit(0, &recorded(0, 5, (10, 20, 3)), 0);
        replay.submit(1, &recorded(1, 2, (10, 0, 1)), 0);
        replay.submit(2, &recipe(2, 4, 2), 0);
        replay.advance(Ns::MAX, &mut heard);
        let refused = Some(Outcome::Refused);
        assert_eq!(heard.0[..2], [(1, 0, refused), (2, 0, refused)], "nothing tells when their tokens came");
        let times: Vec<Ns> = heard.0[2..].iter().map(|(_, at, _)| *at).collect();
        assert_eq!(times, [10, 20, 30, 40, 50, 50]);
    }

    #[test]
    fn what_is_cancelled_is_not_heard_and_a_stall_moves_the_rest() {
        let (mut replay, mut heard) = (replay(), Heard::default());
        replay.submit(0, &recorded(0, 3, (10, 20, 3)), 0);
        replay.submit(1, &recorded(1, 3, (10, 20, 3)), 5);
        replay.advance(12, &mut heard);
        replay.cancel(1, 12);
        replay.hold(12, 100);
        replay.submit(2, &recorded(2, 1, (1, 0, 1)), 13);
        replay.advance(Ns::MAX, &mut heard);
        let times: Vec<(RequestId, Ns)> = heard.0.iter().map(|(id, at, _)| (*id, *at)).collect();
        assert_eq!(times, [(0, 10), (2, 101), (2, 101), (0, 108), (0, 118), (0, 118)]);
    }
}

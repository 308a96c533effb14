//! Every fault on both engines: what comes out, when, and what is logged.

use proptest::prelude::*;
use rustc_hash::FxHashMap;

use super::super::{Batched, Laws, Mock};
use super::*;
use crate::backend::config::{
    CrashFault, CutFault, DisconnectFault, DuplicateFault, EngineStallFault, Fault, IndexList, MockBackend,
    RejectFault, RequestMatch, ShrinkFault, SlowTtftFault, StallFault, StartupFault, StatusFault,
    TimeoutFault, UsageFault,
};
use crate::plan::PromptRecipe;
use crate::sample::{Sampler, key};
use crate::units::{Duration, Ratio, TokenCount};

/// What was heard, with the rules that hold at each call.
#[derive(Default)]
struct Heard {
    now: Ns,
    tokens: FxHashMap<RequestId, Vec<Ns>>,
    usage: FxHashMap<RequestId, u32>,
    ended: FxHashMap<RequestId, (Ns, Outcome)>,
}

impl Sink for Heard {
    fn tokens(&mut self, id: RequestId, at: Ns, _: Ns, count: u32) {
        assert!(at >= self.now, "time goes back");
        assert!(!self.ended.contains_key(&id), "a token after the end");
        self.now = at;
        self.tokens.entry(id).or_default().extend((0..count).map(|_| at));
    }

    fn usage(&mut self, id: RequestId, tokens: u32) {
        self.usage.insert(id, tokens);
    }

    fn finished(&mut self, id: RequestId, at: Ns, end: Finish) {
        assert!(at >= self.now, "time goes back");
        self.now = at;
        assert_eq!(self.ended.insert(id, (at, end.outcome)), None, "a second end");
    }
}

fn recipe(index: u64, prompt: u32, output: u32) -> Recipe {
    Recipe::new(index, PromptRecipe::Synthetic { tokens: prompt, prefix: None }, output, key(&[3, index]))
}

fn config(mode: &str, blocks: u32) -> MockBackend {
    let own = match mode {
        "fixed" => serde_json::json!({ "ttft": "10ms", "tbt": "5ms" }),
        _ => serde_json::json!({
            "mode": "batched",
            "cost": { "base_ms": 5.0, "weights_ms": 0.0, "token_us": 0.0, "knee": 1.0 },
            "engine": { "max_num_seqs": 4 },
        }),
    };
    let mut config = own.as_object().unwrap().clone();
    config.insert("kv".into(), serde_json::json!({ "blocks": blocks, "block_tokens": 4 }));
    serde_json::from_value(config.into()).unwrap()
}

fn fixed(blocks: u32) -> Mock {
    let laws = Laws { ttft: Sampler::Constant(10e6), tbt: Sampler::Constant(5e6) };
    Mock::new(&config("fixed", blocks), laws, &["w"], 1).unwrap()
}

fn batched(blocks: u32) -> Batched {
    Batched::open(&config("batched", blocks), &["w"], 1).unwrap()
}

fn plan(actions: &[(Option<u64>, FaultAction)]) -> FaultPlan {
    let rules: Vec<Fault> = actions
        .iter()
        .map(|(index, action)| {
            let index = index.map(|index| IndexList(vec![index]));
            Fault { matches: RequestMatch { index, ..RequestMatch::default() }, action: action.clone() }
        })
        .collect();
    FaultPlan::new(&rules, "w", 1)
}

/// Plays requests of 4 prompt and 6 output tokens that arrive at these milliseconds.
fn play<E: Engine>(
    engine: E,
    actions: &[(Option<u64>, FaultAction)],
    arrivals: &[u64],
) -> (Heard, Faulty<E>) {
    let mut faulty = Faulty::new(engine, plan(actions));
    let mut heard = Heard::default();
    for (index, at) in (0..).zip(arrivals) {
        let at = at * MS;
        while faulty.next_event().is_some_and(|next| next <= at) {
            faulty.advance(at, &mut heard);
        }
        faulty.submit(index, &recipe(index, 4, 6), at);
    }
    while let Some(next) = faulty.next_event() {
        faulty.advance(next, &mut heard);
    }
    (heard, faulty)
}

const MS: Ns = crate::units::MILLISECOND;

/// Who was hit, by what, in which millisecond.
type Log = Vec<(Option<u64>, String, u64)>;

fn log<E: Engine>(faulty: &Faulty<E>) -> Log {
    faulty.stats(0).faults.into_iter().map(|f| (f.index, f.action, f.at_ns / MS)).collect()
}

fn in_ms(times: &[Ns]) -> Vec<u64> {
    times.iter().map(|at| at / MS).collect()
}

/// One request with a fault, alone on the fixed engine: its tokens, its end, the log.
fn alone(action: FaultAction) -> (Vec<u64>, Option<(u64, Outcome)>, Log) {
    let (heard, faulty) = play(fixed(64), &[(Some(0), action)], &[0]);
    let tokens = heard.tokens.get(&0).map(|times| in_ms(times)).unwrap_or_default();
    (tokens, heard.ended.get(&0).map(|(at, outcome)| (at / MS, *outcome)), log(&faulty))
}

#[test]
fn each_fault_of_a_request_has_its_times_its_outcome_and_its_line_in_the_log() {
    let whole = vec![10, 15, 20, 25, 30, 35];
    let line = |action: &str, at| vec![(Some(0), action.to_owned(), at)];
    let cases = [
        (
            FaultAction::HttpStatus(StatusFault { code: 503, retry_after: Some(Duration(2_000 * MS)) }),
            vec![],
            Some((0, Outcome::HttpStatus(503))),
            line("http_status", 0),
        ),
        (FaultAction::Reject(RejectFault {}), vec![], Some((0, Outcome::Refused)), line("reject", 0)),
        (FaultAction::Timeout(TimeoutFault {}), vec![], None, line("timeout", 0)),
        (
            FaultAction::SlowTtft(SlowTtftFault { delay: Duration(7 * MS) }),
            whole.iter().map(|at| at + 7).collect(),
            Some((42, Outcome::Success)),
            line("slow_ttft", 10),
        ),
        (
            FaultAction::Stall(StallFault { after_tokens: 2, pause: Duration(30 * MS) }),
            vec![10, 15, 50, 55, 60, 65],
            Some((65, Outcome::Success)),
            line("stall", 20),
        ),
        (
            FaultAction::Disconnect(DisconnectFault { after_tokens: 3, close: CloseBy::Rst }),
            vec![10, 15, 20],
            Some((25, Outcome::Disconnected)),
            line("disconnect", 25),
        ),
        (
            FaultAction::Truncate(CutFault { after_tokens: 5 }),
            vec![10, 15, 20, 25, 30],
            Some((35, Outcome::Truncated)),
            line("truncate", 35),
        ),
        (
            FaultAction::Malformed(CutFault { after_tokens: 0 }),
            vec![],
            Some((10, Outcome::Malformed)),
            line("malformed", 10),
        ),
        // An answer that is not longer is left alone, and nothing is logged.
        (
            FaultAction::Malformed(CutFault { after_tokens: 6 }),
            whole.clone(),
            Some((35, Outcome::Success)),
            vec![],
        ),
        (
            FaultAction::DuplicateToken(DuplicateFault { token: 2 }),
            vec![10, 15, 15, 20, 25, 30, 35],
            Some((35, Outcome::Success)),
            line("duplicate_token", 15),
        ),
        (
            FaultAction::WrongUsage(UsageFault { completion_tokens: 9 }),
            whole.clone(),
            Some((35, Outcome::Success)),
            line("wrong_usage", 35),
        ),
    ];
    for (action, tokens, end, logged) in cases {
        let kind = action.kind();
        assert_eq!(alone(action), (tokens, end, logged), "{kind}");
    }
}

#[test]
fn a_wrong_usage_is_told_before_the_end() {
    let usage = FaultAction::WrongUsage(UsageFault { completion_tokens: 9 });
    let (heard, _) = play(batched(64), &[(Some(1), usage)], &[0, 0]);
    assert_eq!(heard.usage.into_iter().collect::<Vec<_>>(), [(1, 9)]);
}

#[test]
fn a_stall_of_the_engine_moves_everything_behind_it() {
    let stall =
        FaultAction::EngineStall(EngineStallFault { at: Duration(17 * MS), pause: Duration(100 * MS) });
    let (heard, faulty) = play(fixed(64), &[(None, stall.clone())], &[0, 50]);
    assert_eq!(in_ms(&heard.tokens[&0]), [10, 15, 120, 125, 130, 135]);
    assert_eq!(in_ms(&heard.tokens[&1])[0], 127, "it is admitted when the engine goes on, at 117 ms");
    assert_eq!(log(&faulty), [(None, "engine_stall".into(), 17)]);
    let (heard, _) = play(batched(64), &[(None, stall)], &[0, 50]);
    // A step of 5 ms each: the fourth, from 15 to 20 ms, ends at 120 ms; the second request is in the one behind it.
    assert_eq!(in_ms(&heard.tokens[&0]), [5, 10, 15, 120, 125, 130]);
    assert_eq!(in_ms(&heard.tokens[&1])[0], 125);
}

#[test]
fn an_engine_that_starts_late_lets_requests_wait() {
    let late = FaultAction::StartupDelay(StartupFault { delay: Duration(40 * MS) });
    let (heard, faulty) = play(fixed(64), &[(None, late.clone())], &[0]);
    assert_eq!(in_ms(&heard.tokens[&0])[0], 50);
    assert_eq!(log(&faulty), [(None, "startup_delay".into(), 0)]);
    let (heard, _) = play(batched(64), &[(None, late)], &[0, 58]);
    assert_eq!((in_ms(&heard.tokens[&0])[0], in_ms(&heard.tokens[&1])[0]), (45, 65));
}

fn crashes<E: Engine>(engine: E) {
    let crash = FaultAction::EngineCrash(CrashFault { at: Duration(21 * MS), restart: Duration(50 * MS) });
    let (heard, mut faulty) = play(engine, &[(None, crash)], &[0, 1, 30, 71]);
    let outcome = |id: u64| (heard.ended[&id].0 / MS, heard.ended[&id].1);
    assert_eq!(outcome(0), (21, Outcome::Disconnected));
    assert_eq!(outcome(1), (21, Outcome::Disconnected));
    assert_eq!(outcome(2), (30, Outcome::Refused));
    assert_eq!(heard.ended[&3].1, Outcome::Success);
    let line = |index, at| (index, "engine_crash".to_owned(), at);
    assert_eq!(log(&faulty), [line(None, 21), line(Some(0), 21), line(Some(1), 21), line(Some(2), 30)]);
    assert_eq!(faulty.engine.cache_mut().unwrap().pool().used(), 0);
}

#[test]
fn a_crash_loses_what_is_in_the_engine_and_refuses_until_it_is_back() {
    crashes(fixed(64));
    crashes(batched(64));
}

#[test]
fn after_a_crash_the_cache_is_cold() {
    let same = |index| Recipe { seed: 5, ..recipe(index, 16, 2) };
    let crash = FaultAction::EngineCrash(CrashFault { at: Duration(50 * MS), restart: Duration(0) });
    let hits = |actions: &[(Option<u64>, FaultAction)]| {
        let mut faulty = Faulty::new(batched(64), plan(actions));
        let mut heard = Heard::default();
        for (id, at) in [(0, 0), (1, 60 * MS)] {
            while faulty.next_event().is_some_and(|next| next <= at) {
                faulty.advance(at, &mut heard);
            }
            faulty.submit(id, &same(id), at);
        }
        while let Some(next) = faulty.next_event() {
            faulty.advance(next, &mut heard);
        }
        faulty.stats(heard.now).prefix_hit_tokens
    };
    assert_eq!(hits(&[]), Some(12));
    assert_eq!(hits(&[(None, crash)]), Some(0));
}

fn shrinks<E: Engine>(engine: E) {
    // Each request needs three blocks of four tokens; five hold one, and two of the second.
    let shrink = |to| FaultAction::KvShrink(ShrinkFault { at: Duration(11 * MS), to: TokenCount(to) });
    let mut faulty = Faulty::new(engine, plan(&[(None, shrink(20))]));
    let mut heard = Heard::default();
    faulty.submit(0, &recipe(0, 4, 6), 0);
    faulty.submit(1, &recipe(1, 4, 6), 0);
    faulty.submit(2, &recipe(2, 18, 8), 0);
    while let Some(next) = faulty.next_event() {
        faulty.advance(next, &mut heard);
    }
    assert_eq!(heard.ended[&2], (11 * MS, Outcome::CancelledByServer));
    assert_eq!((heard.ended[&0].1, heard.ended[&1].1), (Outcome::Success, Outcome::Success));
    assert!(heard.ended[&0].0 < heard.ended[&1].0, "the second has to wait for the first");
    faulty.submit(3, &recipe(3, 18, 8), heard.now);
    faulty.submit(4, &recipe(4, 180, 80), heard.now);
    while let Some(next) = faulty.next_event() {
        faulty.advance(next, &mut heard);
    }
    assert_eq!((heard.ended[&3].1, heard.ended[&4].1), (Outcome::Refused, Outcome::Refused));
    let indexes: Vec<_> = log(&faulty).into_iter().map(|(index, ..)| index).collect();
    assert_eq!(indexes, [None, Some(2), Some(3)], "the last never fitted");
    let cache = faulty.engine.cache_mut().unwrap();
    assert_eq!((cache.pool().total(), cache.pool().used()), (5, 0));
    assert_eq!(faulty.stats(heard.now).kv_capacity_tokens, Some(64));
}

#[test]
fn a_cache_that_shrinks_preempts_and_ends_what_can_never_fit() {
    shrinks(fixed(16));
    shrinks(batched(16));
}

fn action() -> impl Strategy<Value = FaultAction> {
    let after = 0_u32..8;
    let time = (0_u64..60).prop_map(|ms| Duration(ms * MS));
    prop_oneof![
        Just(FaultAction::HttpStatus(StatusFault { code: 500, retry_after: None })),
        Just(FaultAction::Reject(RejectFault {})),
        Just(FaultAction::Timeout(TimeoutFault {})),
        time.clone().prop_map(|delay| FaultAction::SlowTtft(SlowTtftFault { delay })),
        (1_u32..8, time.clone())
            .prop_map(|(after_tokens, pause)| FaultAction::Stall(StallFault { after_tokens, pause })),
        after.clone().prop_map(|after_tokens| {
            FaultAction::Disconnect(DisconnectFault { after_tokens, close: CloseBy::Fin })
        }),
        after.clone().prop_map(|after_tokens| FaultAction::Truncate(CutFault { after_tokens })),
        after.clone().prop_map(|after_tokens| FaultAction::Malformed(CutFault { after_tokens })),
        (1_u32..8).prop_map(|token| FaultAction::DuplicateToken(DuplicateFault { token })),
        after.prop_map(|n| FaultAction::WrongUsage(UsageFault { completion_tokens: n })),
        (time.clone(), time.clone())
            .prop_map(|(at, pause)| FaultAction::EngineStall(EngineStallFault { at, pause })),
        (time.clone(), time.clone())
            .prop_map(|(at, restart)| FaultAction::EngineCrash(CrashFault { at, restart })),
        (time.clone(), 4_u32..40)
            .prop_map(|(at, to)| FaultAction::KvShrink(ShrinkFault { at, to: TokenCount(to) })),
        time.prop_map(|delay| FaultAction::StartupDelay(StartupFault { delay })),
    ]
}

/// A request of random traffic: its pause after the one before, prompt, output, and when it is cancelled.
type Asked = (u64, u32, u32, Option<u64>);

fn any_traffic<E: Engine>(
    engine: E,
    rules: &[Fault],
    asked: &[Asked],
    check: impl Fn(&mut E) -> Result<(), String>,
) -> Result<(), TestCaseError> {
    let plan = FaultPlan::new(rules, "w", 1);
    let mut faulty = Faulty::new(engine, plan.clone());
    let mut heard = Heard::default();
    let mut todo: Vec<(Ns, bool, u64)> = Vec::new();
    let mut at = 0;
    for (id, (pause, _, _, cancel)) in (0..).zip(asked) {
        at += pause * MS;
        todo.push((at, false, id));
        // What is never answered is cancelled in the end.
        todo.push((at + cancel.map_or(1_000_000, |after| after) * MS, true, id));
    }
    todo.sort_unstable();
    let mut todo: VecDeque<_> = todo.into();
    let mut cancelled = std::collections::HashSet::new();
    for turn in 0.. {
        prop_assert!(turn < 100_000, "it never ends");
        let own = todo.front().map(|(at, ..)| *at);
        let Some(now) = [faulty.next_event(), own].into_iter().flatten().min() else { break };
        faulty.advance(now, &mut heard);
        prop_assert_eq!(check(&mut faulty.engine), Ok(()));
        if faulty.next_event().is_some_and(|next| next <= now) {
            continue;
        }
        while let Some((_, cancels, id)) = todo.pop_front_if(|(at, ..)| *at <= now) {
            let (_, prompt, output, _) = asked[id as usize];
            if cancels {
                if !heard.ended.contains_key(&id) {
                    cancelled.insert(id);
                }
                faulty.cancel(id, now);
            } else {
                faulty.submit(id, &recipe(id, prompt, output), now);
            }
        }
    }
    prop_assert!(faulty.books.live.is_empty());
    let used = faulty.engine.cache_mut().map(|cache| cache.pool().used());
    prop_assert_eq!(used, Some(0));
    for (id, (_, prompt, output, _)) in (0..).zip(asked) {
        let end = heard.ended.get(&id).map(|(_, outcome)| *outcome);
        prop_assert!(end.is_some() != cancelled.contains(&id), "request {} ends once", id);
        let came = heard.tokens.get(&id).map_or(0, Vec::len) as u32;
        let action = plan.action(id, 0, *prompt);
        let twice = matches!(action, Some(FaultAction::DuplicateToken(fault)) if fault.token <= *output);
        match end {
            Some(Outcome::Success) => prop_assert_eq!(came, output + u32::from(twice)),
            Some(Outcome::HttpStatus(_) | Outcome::Refused) => prop_assert_eq!(came, 0),
            Some(Outcome::Truncated | Outcome::Malformed) => {
                prop_assert_eq!(Some(came), cut(action.unwrap()).map(|(after, ..)| after));
            }
            _ => {}
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_goes_wrong_every_request_ends_once_and_the_engine_stays_whole(
        mode: bool,
        blocks in 2_u32..12,
        actions in prop::collection::vec((0.05_f64..1.0, action()), 0..6),
        asked in prop::collection::vec((0_u64..12, 1_u32..24, 1_u32..9, prop::option::of(0_u64..80)), 1..16),
    ) {
        let rules: Vec<Fault> = actions
            .into_iter()
            .map(|(rate, action)| {
                let rate = (!action.is_of_engine()).then_some(Ratio(rate));
                Fault { matches: RequestMatch { rate, ..RequestMatch::default() }, action }
            })
            .collect();
        if mode {
            any_traffic(fixed(blocks), &rules, &asked, |mock| mock.check())?;
        } else {
            any_traffic(batched(blocks), &rules, &asked, Batched::check)?;
        }
    }
}

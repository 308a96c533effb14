//! Steps that are told whole against steps that are told token by token: the same records in the same order, the same
//! pool of gaps, the same counters.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::backend::config::{EngineLimits, Preset, StallFault, TimeoutFault};
use crate::backend::mock;
use crate::units::Ratio;

/// Keeps the records, and pools the gaps by the step or by the record.
struct Pooled {
    records: Vec<Record>,
    gaps: BTreeMap<Ns, u64>,
    by_step: bool,
    steps: u64,
}

impl Observer for Pooled {
    fn on_record(&mut self, record: &Record, gaps: &[GapRun]) -> Flow {
        self.records.push(record.clone());
        let measured = gaps.iter().filter(|_| record.phase == Phase::Measured);
        measured.for_each(|run| *self.gaps.entry(run.gap).or_default() += u64::from(run.count));
        Flow::Continue
    }

    fn pools_gaps(&self) -> bool {
        self.by_step
    }

    fn on_step(&mut self, gap: Ns, requests: u32) {
        self.steps += 1;
        *self.gaps.entry(gap).or_default() += u64::from(requests);
    }
}

fn played(plan: &WorkloadPlan, recipes: &[Recipe], config: &MockBackend, by_step: bool) -> (Played, Pooled) {
    let mut batched = mock::open(config, "w", 1, Path::new(".")).unwrap();
    let mut pooled = Pooled { records: Vec::new(), gaps: BTreeMap::new(), by_step, steps: 0 };
    let (stop, resume, recipes) = (Stop::default(), Resume::default(), Listed(recipes.to_vec().into()));
    let played = play(plan, recipes, batched.as_mut(), Pace::Virtual, &stop, &mut pooled, &resume).unwrap();
    (played, pooled)
}

fn batched(blocks: u32, engine: EngineLimits) -> MockBackend {
    let kv = Kv { tokens: None, blocks: Some(blocks), ..kv(0) };
    MockBackend {
        mode: Mode::Batched,
        ttft: None,
        tbt: None,
        preset: Some(Preset::Rtx4090Of8b),
        engine: Some(engine),
        kv: Some(kv),
        ..config(0, 0)
    }
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let action = prop_oneof![
        Just(FaultAction::Timeout(TimeoutFault {})),
        (0_u32..40, 0..2 * SECOND).prop_map(|(after_tokens, pause)| {
            FaultAction::Stall(StallFault { after_tokens, pause: Duration(pause) })
        }),
    ];
    let fault = (0.0..0.2_f64, action).prop_map(|(rate, action)| {
        fault(RequestMatch { rate: Some(Ratio(rate)), ..RequestMatch::default() }, action)
    });
    prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(fault, 1..3)]
}

fn loads() -> impl Strategy<Value = LoadPlan> {
    prop_oneof![(1_u32..20).prop_map(closed), prop::option::of(1_u32..20).prop_map(open)]
}

/// `SAGEBENCH_STEPS` is about the number of steps in all.
fn cases() -> u32 {
    let steps =
        std::env::var("SAGEBENCH_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(60_000_u32);
    u32::max(steps / 300, 1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn told_by_the_step_or_by_the_token(
        load in loads(),
        blocks in prop_oneof![8_u32..60, 60_u32..600],
        (max_num_seqs, max_num_batched_tokens, chunked_prefill) in (1_u32..20, 4_u32..600, any::<bool>()),
        faults in faults(),
        warm_up in 0_usize..4,
        timeout in prop_oneof![Just(600 * SECOND), 100 * MS..5 * SECOND],
        total_timeout in prop::option::weighted(0.2, MS..20 * SECOND),
        requests in prop::collection::vec((0..200 * MS, 1_u32..300, 1_u32..120, prop::option::weighted(0.1, 1_u32..80)), 1..50),
    ) {
        let mut at = 0;
        let recipes: Vec<Recipe> = (0_u64..).zip(&requests).map(|(index, (gap, prompt, output, cancel_after))| {
            at += gap;
            let warming = index < warm_up as u64;
            let own = index - if warming { 0 } else { warm_up.min(requests.len()) as u64 };
            let phase = if warming { Phase::Warmup } else { Phase::Measured };
            Recipe { arrival: Some(at), phase, cancel_after: *cancel_after, ..recipe(own, *prompt, *output) }
        }).collect();
        let warmup = if warm_up == 0 { WarmupPlan::None } else { WarmupPlan::Requests(warm_up as u64) };
        let plan = WorkloadPlan { load: load.clone(), warmup, timeout, total_timeout, ..plan(load) };
        let engine = EngineLimits { max_num_seqs, max_num_batched_tokens, chunked_prefill, ..EngineLimits::default() };
        let config = MockBackend { faults, ..batched(blocks, engine) };
        let (by_token, told) = played(&plan, &recipes, &config, false);
        let (by_step, folded) = played(&plan, &recipes, &config, true);
        prop_assert_eq!(told.steps, 0);
        prop_assert_eq!(by_token, by_step);
        prop_assert_eq!(told.records, folded.records);
        prop_assert_eq!(told.gaps, folded.gaps);
    }
}

#[test]
fn most_gaps_are_told_by_the_step() {
    let recipes = recipes(30, 100, 100);
    let (_, folded) = played(&plan(closed(5)), &recipes, &batched(600, EngineLimits::default()), true);
    assert_eq!(folded.gaps.values().sum::<u64>(), 30 * 99);
    assert!(folded.steps > 500, "{}", folded.steps);
}

/// Its recompute leaves just one token to compute, so that it looks like one that decodes on.
#[test]
fn a_preempted_request_has_its_whole_gap() {
    let recipe = |index, prompt, output| Recipe { arrival: Some(0), ..recipe(index, prompt, output) };
    let recipes = [recipe(0, 234, 104), recipe(1, 57, 25)];
    let limits = EngineLimits { max_num_seqs: 2, max_num_batched_tokens: 10, ..EngineLimits::default() };
    let config = batched(22, EngineLimits { chunked_prefill: true, ..limits });
    let (_, told) = played(&plan(closed(5)), &recipes, &config, false);
    let (_, folded) = played(&plan(closed(5)), &recipes, &config, true);
    assert_eq!((told.records, &told.gaps), (folded.records, &folded.gaps));
    assert!(told.gaps.keys().any(|gap| *gap > SECOND), "it was preempted for long");
}

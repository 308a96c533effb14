//! The scheduler's rules, by closed forms and under random traffic.

use proptest::prelude::*;

use super::*;
use crate::engine::Speculation;
use crate::sample::key;

mod wheel;

/// Content of its own but for a shared prefix of so many blocks.
#[derive(Debug, Clone)]
struct Own {
    seed: u64,
    shared: u64,
}

impl Content for Own {
    fn block(&self, index: u64) -> u64 {
        if index < self.shared { key(&[1, index]) } else { key(&[2, self.seed, index]) }
    }
}

fn limits() -> Limits {
    Limits { sequences: 64, tokens: 512, chunked_prefill: true, watermark: 0, drafts: 0 }
}

fn scheduler(limits: Limits, blocks: u32) -> Scheduler<Own> {
    Scheduler::new(limits, KvCache::new(blocks, 16, true))
}

fn request(id: u64, prompt: u32, output: u32) -> Request<Own> {
    let content = Own { seed: id, shared: 0 };
    Request { id, seed: id, prompt_tokens: prompt, output_tokens: output, content }
}

/// Plays until nothing is left: the tokens computed in each step, and what came out.
fn play(scheduler: &mut Scheduler<Own>) -> (Vec<u32>, Vec<Emission>) {
    let (mut steps, mut out) = (Vec::new(), Vec::new());
    while let Some(step) = scheduler.next_step().unwrap() {
        steps.push(step.tokens);
        scheduler.finish_step(|_| 0, |emission| out.push(emission));
        scheduler.check().unwrap();
    }
    (steps, out)
}

#[test]
fn one_request_takes_its_prompt_in_chunks_and_then_one_token_a_step() {
    let mut scheduler = scheduler(limits(), 200);
    scheduler.submit(request(0, 1200, 5)).unwrap();
    let (steps, out) = play(&mut scheduler);
    // ceil(1200 / 512) = 3 chunks; the last one emits the first token.
    assert_eq!(steps, [512, 512, 176, 1, 1, 1, 1]);
    assert_eq!(out.len(), 5);
    assert!(out[0].first && out[4].last && out.iter().all(|emission| emission.tokens == 1));
    assert_eq!(scheduler.counters().computed_tokens, 1200 + 4);
}

#[test]
fn equal_requests_that_fit_run_in_one_batch() {
    let mut scheduler = scheduler(limits(), 200);
    for id in 0..8 {
        scheduler.submit(request(id, 64, 10)).unwrap();
    }
    let (steps, out) = play(&mut scheduler);
    assert_eq!(steps, [vec![512], vec![8; 9]].concat());
    assert_eq!(out.len(), 80);
    assert_eq!((scheduler.counters().max_batch, scheduler.counters().preemptions), (8, 0));
}

#[test]
fn the_budget_is_filled_with_a_piece_of_the_next_prompt() {
    let mut scheduler = scheduler(limits(), 200);
    scheduler.submit(request(0, 500, 2)).unwrap();
    scheduler.submit(request(1, 100, 2)).unwrap();
    let (steps, _) = play(&mut scheduler);
    // 500 + 12; then 1 to decode + 88; then the second's last token.
    assert_eq!(steps, [512, 89, 1]);
}

#[test]
fn without_chunks_a_prompt_waits_for_a_step_of_its_own() {
    let mut scheduler = scheduler(Limits { chunked_prefill: false, ..limits() }, 200);
    scheduler.submit(request(0, 500, 2)).unwrap();
    scheduler.submit(request(1, 100, 2)).unwrap();
    assert!(matches!(scheduler.submit(request(2, 600, 2)), Err(Rejection::Step { .. })));
    let (steps, _) = play(&mut scheduler);
    assert_eq!(steps, [500, 101, 1]);
}

#[test]
fn the_last_admitted_gives_its_blocks_up_and_comes_back_first() {
    // 8 blocks hold 128 tokens: two requests of 48 + 32 tokens take 10 blocks at their end.
    let mut scheduler = scheduler(limits(), 8);
    scheduler.submit(request(0, 48, 32)).unwrap();
    scheduler.submit(request(1, 48, 32)).unwrap();
    scheduler.submit(request(2, 16, 1)).unwrap();
    let (_, out) = play(&mut scheduler);
    let ends: Vec<(u64, u32)> = out.iter().filter(|e| e.last).map(|e| (e.id, e.preemptions)).collect();
    assert_eq!(ends.iter().find(|(id, _)| *id == 0), Some(&(0, 0)));
    assert!(ends.iter().any(|(id, preemptions)| *id == 1 && *preemptions >= 1), "{ends:?}");
    assert_eq!(out.iter().map(|emission| emission.tokens).sum::<u32>(), 32 + 32 + 1);
    assert!(scheduler.counters().preemptions >= 1);
}

#[test]
fn a_prefix_is_found_once_it_is_computed_and_never_the_whole_prompt() {
    let mut scheduler = scheduler(limits(), 200);
    let shared = |id| Request { content: Own { seed: id, shared: 4 }, ..request(id, 64, 1) };
    scheduler.submit(shared(0)).unwrap();
    play(&mut scheduler);
    scheduler.submit(shared(1)).unwrap();
    play(&mut scheduler);
    // Four blocks are equal, and the last token has to be computed: three are taken.
    assert_eq!((scheduler.counters().queried_tokens, scheduler.counters().hit_tokens), (128, 48));
}

#[test]
fn accepted_drafts_shorten_the_decode_exactly() {
    for (accept, steps) in [(1.0, 1 + 20 / 5), (0.0, 1 + 20)] {
        let law = Speculation::new(vec![accept; 4]);
        let mut scheduler = scheduler(Limits { drafts: 4, ..limits() }, 200);
        scheduler.submit(request(0, 32, 21)).unwrap();
        let mut count = 0;
        let mut tokens = 0;
        while scheduler.next_step().unwrap().is_some() {
            count += 1;
            scheduler.finish_step(
                |s| law.accepted(s.seed, s.position, s.drafts),
                |emission| tokens += emission.tokens,
            );
            scheduler.check().unwrap();
        }
        assert_eq!((count, tokens), (steps, 21));
        let counters = scheduler.counters();
        assert_eq!(counters.accepted_tokens, if accept > 0.5 { counters.draft_tokens } else { 0 });
    }
}

/// Cases of the random test; each plays about 50 steps. `SAGEBENCH_STEPS` is the number of steps in all.
fn cases() -> u32 {
    let steps = std::env::var("SAGEBENCH_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(60_000);
    u32::max(steps / 50, 1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Tiny pools, huge prompts, drafts, cancels at any step: no rule breaks, and everyone gets exactly what was asked for.
    #[test]
    fn no_rule_breaks_under_random_traffic(
        blocks in 1_u32..40,
        sequences in 1_u32..8,
        tokens in 1_u32..96,
        chunked in any::<bool>(),
        watermark in 0_u32..3,
        drafts in 0_u32..4,
        accept in 0.0..1.0_f64,
        requests in prop::collection::vec((1_u32..300, 1_u32..40, 0_u64..4, prop::option::of(0_u32..200)), 1..24),
    ) {
        let limits = Limits { sequences, tokens, chunked_prefill: chunked, watermark, drafts };
        let mut scheduler = scheduler(limits, blocks);
        let law = Speculation::new(vec![accept; drafts as usize]);
        let mut wanted = std::collections::BTreeMap::new();
        let mut cancels = Vec::new();
        for (id, (prompt, output, shared, cancel)) in (0..).zip(requests) {
            let content = Own { seed: id, shared };
            let one = Request { id, seed: id, prompt_tokens: prompt, output_tokens: output, content };
            if scheduler.submit(one).is_ok() {
                wanted.insert(id, output);
                cancels.extend(cancel.map(|step| (step, id)));
            }
            scheduler.check().map_err(TestCaseError::fail)?;
        }
        let mut at = 0;
        loop {
            for (_, id) in cancels.iter().filter(|(step, _)| *step == at) {
                scheduler.cancel(*id);
                wanted.remove(id);
            }
            scheduler.check().map_err(TestCaseError::fail)?;
            let ran = scheduler.running();
            let Some(step) = scheduler.next_step().map_err(|stuck| TestCaseError::fail(stuck.to_string()))? else { break };
            prop_assert!(step.tokens <= tokens && step.sequences.len() <= sequences as usize);
            let preempted = step.preemptions as usize;
            prop_assert!(preempted == 0 || scheduler.running() + preempted == ran, "admitted beside a preemption");
            scheduler.check().map_err(TestCaseError::fail)?;
            let mut out = Vec::new();
            scheduler.finish_step(|s| law.accepted(s.seed, s.position, s.drafts), |emission| out.push(emission));
            for emission in out {
                let left = wanted.get_mut(&emission.id).expect("only who is in flight emits");
                prop_assert!(emission.tokens <= *left, "more than was asked for");
                *left -= emission.tokens;
                prop_assert_eq!(*left == 0, emission.last);
            }
            scheduler.check().map_err(TestCaseError::fail)?;
            at += 1;
            prop_assert!(at < 1_000_000, "it does not end");
        }
        prop_assert!(wanted.values().all(|left| *left == 0), "{wanted:?}");
        prop_assert_eq!(scheduler.cache().pool().used(), 0);
    }
}

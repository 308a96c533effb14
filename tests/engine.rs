//! The engine's scheduler from outside: random traffic that comes and goes in the middle of steps, what more blocks do, and
//! the reuse in a real trace against an independent count. The trace is not part of this repository: see `SAGEBENCH_TRACES`.

mod real;

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use sagebench::engine::{Content, KvCache, Limits, Request, Scheduler, Speculation};
use sagebench::plan::{PromptRecipe, Recipe};
use serde_json::Value;

/// Content of its own behind a prefix that a group shares.
#[derive(Debug, Clone, Copy)]
struct Grouped {
    group: u64,
    shared: u64,
    own: u64,
}

impl Content for Grouped {
    fn block(&self, index: u64) -> u64 {
        if index < self.shared { (self.group << 32) | index } else { (1 << 63) | (self.own << 32) | index }
    }
}

fn wide() -> Limits {
    Limits { sequences: 64, tokens: 512, chunked_prefill: true, watermark: 0, drafts: 0 }
}

/// Plays until nothing is left.
fn drain<C: Content>(scheduler: &mut Scheduler<C>) {
    while scheduler.next_step().unwrap().is_some() {
        scheduler.finish_step(|_| 0, |_| {});
    }
}

/// What may happen between two calls of the scheduler.
#[derive(Debug, Clone)]
enum Action {
    Submit {
        prompt: u32,
        output: u32,
        group: u64,
        shared: u64,
    },
    /// One of those in flight, by its place.
    Cancel(usize),
    Step,
    Finish,
}

fn action() -> impl Strategy<Value = Action> {
    let submit = (1_u32..200, 1_u32..24, 0_u64..3, 0_u64..12);
    prop_oneof![
        2 => submit.prop_map(|(prompt, output, group, shared)| Action::Submit { prompt, output, group, shared }),
        1 => (0_usize..8).prop_map(Action::Cancel),
        4 => Just(Action::Step),
        4 => Just(Action::Finish),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (1_u32..6, 1_u32..64, any::<bool>(), 0_u32..4, 0_u32..5).prop_map(
        |(sequences, tokens, chunked_prefill, watermark, drafts)| Limits {
            sequences,
            tokens,
            chunked_prefill,
            watermark,
            drafts,
        },
    )
}

/// A scheduler beside what each request in flight still has to emit.
struct Traffic {
    scheduler: Scheduler<Grouped>,
    left: BTreeMap<u64, u32>,
    next: u64,
}

impl Traffic {
    fn apply(&mut self, action: &Action, law: &Speculation) -> Result<(), TestCaseError> {
        match *action {
            Action::Submit { prompt, output, group, shared } => {
                let id = self.next;
                self.next += 1;
                let content = Grouped { group, shared, own: id };
                let request = Request { id, seed: id, prompt_tokens: prompt, output_tokens: output, content };
                if self.scheduler.submit(request).is_ok() {
                    self.left.insert(id, output);
                }
            }
            Action::Cancel(at) => {
                if let Some(id) = self.left.keys().nth(at).copied() {
                    self.scheduler.cancel(id);
                    self.left.remove(&id);
                }
            }
            Action::Step => {
                let step =
                    self.scheduler.next_step().map_err(|stuck| TestCaseError::fail(stuck.to_string()))?;
                prop_assert!(step.is_none_or(|step| step.tokens > 0), "a step computes nothing");
            }
            Action::Finish => self.finish(law)?,
        }
        self.scheduler.check().map_err(TestCaseError::fail)
    }

    fn finish(&mut self, law: &Speculation) -> Result<(), TestCaseError> {
        let mut heard = Vec::new();
        let accepted = |s: &sagebench::engine::Scheduled| law.accepted(s.seed, s.position, s.drafts);
        self.scheduler.finish_step(accepted, |emission| heard.push(emission));
        for emission in heard {
            let left = self.left.get_mut(&emission.id);
            prop_assert!(left.is_some(), "{} is cancelled or done and emits", emission.id);
            let left = left.unwrap();
            prop_assert!(emission.tokens <= *left);
            *left -= emission.tokens;
            prop_assert_eq!(emission.last, *left == 0);
            if emission.last {
                self.left.remove(&emission.id);
            }
        }
        Ok(())
    }
}

/// Cases of the random traffic; each plays 50 steps on average. `SAGEBENCH_STEPS` is the number of steps in all.
fn cases() -> u32 {
    let steps = std::env::var("SAGEBENCH_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    u32::max(steps / 50, 1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Requests come and are given up before, in and after steps. No rule breaks, nothing is heard of who is gone, and in
    /// the end everyone else has exactly what was asked for.
    #[test]
    fn requests_come_and_go_in_the_middle_of_steps(
        limits in limits(),
        blocks in 1_u32..40,
        block_tokens in 1_u32..17,
        reuse: bool,
        p in 0.0..1.0_f64,
        actions in prop::collection::vec(action(), 1..160),
    ) {
        let law = Speculation::new(vec![p; limits.drafts as usize]);
        let scheduler = Scheduler::new(limits, KvCache::new(blocks, block_tokens, reuse));
        let mut traffic = Traffic { scheduler, left: BTreeMap::new(), next: 0 };
        for action in &actions {
            traffic.apply(action, &law)?;
        }
        let mut steps = 0;
        while traffic.scheduler.has_work() {
            traffic.apply(&Action::Step, &law)?;
            traffic.apply(&Action::Finish, &law)?;
            steps += 1;
            prop_assert!(steps < 1_000_000, "it does not end");
        }
        prop_assert!(traffic.left.is_empty(), "{:?} never came", traffic.left);
        prop_assert_eq!(traffic.scheduler.cache().pool().used(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// One request at a time: a larger cache holds everything that a smaller one does, so it never finds less and never
    /// drops more.
    #[test]
    fn more_blocks_never_find_less_and_never_drop_more(
        requests in prop::collection::vec((1_u32..150, 1_u32..40, 0_u64..4, 0_u64..10), 2..40),
    ) {
        let mut before = (0, u64::MAX);
        for blocks in 12..40 {
            let mut scheduler = Scheduler::new(wide(), KvCache::new(blocks, 16, true));
            for (id, (prompt, output, group, shared)) in (0..).zip(&requests) {
                let content = Grouped { group: *group, shared: *shared, own: id };
                let request =
                    Request { id, seed: id, prompt_tokens: *prompt, output_tokens: *output, content };
                prop_assert!(scheduler.submit(request).is_ok());
                drain(&mut scheduler);
            }
            let counters = scheduler.counters();
            prop_assert!(counters.hit_tokens >= before.0, "{blocks} blocks find less");
            prop_assert!(counters.evictions <= before.1, "{blocks} blocks drop more");
            before = (counters.hit_tokens, counters.evictions);
        }
    }
}

struct Planned(Recipe);

impl Content for Planned {
    fn block(&self, index: u64) -> u64 {
        self.0.block(index, 16)
    }
}

/// One row of a Mooncake trace: tokens of prompt and output, and the ids of its 512-token blocks.
struct Row {
    prompt: u32,
    output: u32,
    ids: Vec<u64>,
}

impl Row {
    fn parse(line: &str) -> Self {
        let row: Value = serde_json::from_str(line).unwrap();
        let number = |value: &Value| value.as_u64().unwrap();
        Self {
            prompt: number(&row["input_length"]) as u32,
            output: number(&row["output_length"]) as u32,
            ids: row["hash_ids"].as_array().unwrap().iter().map(number).collect(),
        }
    }

    /// Tokens of full 16-token blocks with which this prompt begins as the other does.
    fn common(&self, other: &Self) -> u32 {
        let ids = self.ids.iter().zip(&other.ids).take_while(|(a, b)| a == b).count() as u32;
        (ids * 32).min(other.prompt / 16).min((self.prompt - 1) / 16) * 16
    }

    fn request(&self, id: u64) -> Request<Planned> {
        let prompt =
            PromptRecipe::Blocks { tokens: self.prompt, block_tokens: 512, ids: self.ids.as_slice().into() };
        let recipe = Recipe::new(id, prompt, self.output, id);
        let (prompt_tokens, output_tokens) = (self.prompt, self.output);
        Request { id, seed: id, prompt_tokens, output_tokens, content: Planned(recipe) }
    }
}

#[test]
fn an_endless_cache_finds_what_an_independent_count_of_the_trace_finds() {
    let Some(folder) = real::folder("the count of Mooncake's reuse") else { return };
    for name in ["conversation", "synthetic"] {
        let text = fs::read_to_string(folder.join(format!("mooncake/{name}_1000.jsonl"))).unwrap();
        let rows: Vec<Row> = text.lines().map(Row::parse).collect();
        // Every token of the sample has room, so nothing is ever dropped.
        let limits = Limits { tokens: 1 << 20, ..wide() };
        let mut scheduler = Scheduler::new(limits, KvCache::new(1 << 20, 16, true));
        let (mut queried, mut found) = (0, 0);
        for (at, row) in rows.iter().enumerate() {
            scheduler.submit(row.request(at as u64)).unwrap();
            drain(&mut scheduler);
            queried += u64::from(row.prompt);
            found += u64::from(rows[..at].iter().map(|other| row.common(other)).max().unwrap_or(0));
        }
        let counters = scheduler.counters();
        println!(
            "{name}: {found} of {queried} prompt tokens, {:.2} %",
            found as f64 / queried as f64 * 100.0
        );
        assert!(found > 0 && counters.evictions == 0 && counters.preemptions == 0);
        assert_eq!((counters.queried_tokens, counters.hit_tokens), (queried, found), "{name}");
        scheduler.check().unwrap();
    }
}

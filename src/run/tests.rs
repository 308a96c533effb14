//! Whole cells on the mock: golden numbers, closed forms, and both clocks against each other.

mod folding;
mod golden;
mod loads;
mod outcomes;
mod retries;

use std::sync::Arc;

use indexmap::IndexMap;

use super::*;
use crate::backend::Stepped;
use crate::backend::config::{Clock, Fault, FaultAction, Kv, MockBackend, Mode, RequestMatch};
use crate::backend::mock::{FaultPlan, Faulty, Laws, Mock};
use crate::plan::{LoadPlan, PromptRecipe, RecipeSource, Sampling, UserCurve, WarmupPlan, WorkloadPlan};
use crate::record::Outcome;
use crate::sample::{Fixed, Sampler, Time, key};
use crate::units::{MILLISECOND as MS, SECOND, TokenCount};

/// Keeps everything.
#[derive(Default)]
struct Kept(Vec<(Record, Vec<GapRun>)>);

impl Observer for Kept {
    fn on_record(&mut self, record: &Record, gaps: &[GapRun]) -> Flow {
        self.0.push((record.clone(), gaps.to_vec()));
        Flow::Continue
    }
}

/// Recipes from a list.
struct Listed(std::collections::VecDeque<Recipe>);

impl Iterator for Listed {
    type Item = Recipe;
    fn next(&mut self) -> Option<Recipe> {
        self.0.pop_front()
    }
}

impl Recipes for Listed {
    fn start_measuring(&mut self) {
        self.0.retain(|recipe| recipe.phase == Phase::Measured);
    }
}

fn recipe(index: u64, prompt: u32, output: u32) -> Recipe {
    Recipe::new(index, PromptRecipe::Synthetic { tokens: prompt, prefix: None }, output, key(&[7, index]))
}

fn recipes(count: u64, prompt: u32, output: u32) -> Vec<Recipe> {
    (0..count).map(|index| recipe(index, prompt, output)).collect()
}

fn arriving(at: &[Ns], output: u32) -> Vec<Recipe> {
    (0..).zip(at).map(|(index, at)| Recipe { arrival: Some(*at), ..recipe(index, 16, output) }).collect()
}

fn warm(recipe: Recipe) -> Recipe {
    Recipe { phase: Phase::Warmup, ..recipe }
}

fn closed(users: u32) -> LoadPlan {
    LoadPlan::Closed { users: UserCurve::Constant(users), ramp_up: 0 }
}

fn open(max_in_flight: Option<u32>) -> LoadPlan {
    LoadPlan::Open { max_in_flight }
}

fn plan(load: LoadPlan) -> WorkloadPlan {
    WorkloadPlan {
        name: "w".into(),
        family: "w".into(),
        point: IndexMap::new(),
        tags: IndexMap::new(),
        load,
        recipes: RecipeSource::Listed(Arc::from([])),
        requests: None,
        sessions: None,
        duration: None,
        warmup: WarmupPlan::None,
        timeout: 600 * SECOND,
        total_timeout: None,
        repeats: 1,
        lane: 0,
        follows: false,
        retries: 0,
        search: None,
        skipped_rows: 0,
        sampling: Sampling::default(),
        cold_cache: true,
        hooked: None,
        checks: None,
        hook_digest: None,
        survey: std::sync::OnceLock::new(),
    }
}

fn config(ttft: Ns, tbt: Ns) -> MockBackend {
    let fixed = |value| Time::Fixed(Fixed { value: Duration(value) });
    MockBackend {
        mode: Mode::Fixed,
        ttft: Some(fixed(ttft)),
        tbt: Some(fixed(tbt)),
        preset: None,
        cost: None,
        engine: None,
        speculative: None,
        kv: None,
        rate_cap: None,
        clock: Clock::Virtual,
        speed: None,
        model: "mock".into(),
        weights: None,
        faults: Vec::new(),
        responses: Vec::new(),
    }
}

fn kv(tokens: u32) -> Kv {
    Kv {
        tokens: Some(TokenCount(tokens)),
        blocks: None,
        bytes: None,
        block_tokens: 16,
        bytes_per_token: Some(32_768),
        prefix_cache: true,
        evict: None,
    }
}

fn fault(matches: RequestMatch, action: FaultAction) -> Fault {
    Fault { matches, action }
}

fn mock(config: &MockBackend) -> Mock {
    let constant = |time: &Time| match time {
        Time::Fixed(fixed) => Sampler::Constant(fixed.value.0 as f64),
        other => panic!("{} is not fixed", other.kind()),
    };
    let laws =
        Laws { ttft: constant(config.ttft.as_ref().unwrap()), tbt: constant(config.tbt.as_ref().unwrap()) };
    Mock::new(config, laws, &["w"], 1).unwrap()
}

/// The mock with its faults.
fn faulty(config: &MockBackend) -> Faulty<Mock> {
    Faulty::new(mock(config), FaultPlan::new(&config.faults, "w", 1))
}

fn run_on(
    plan: &WorkloadPlan,
    recipes: Vec<Recipe>,
    backend: &mut dyn Stepped,
    clock: Pace,
) -> (Played, Kept) {
    let mut kept = Kept::default();
    let (stop, resume) = (Stop::default(), Resume::default());
    let played = play(plan, Listed(recipes.into()), backend, clock, &stop, &mut kept, &resume).unwrap();
    (played, kept)
}

/// Plays on the 10 ms / 5 ms mock without a cache limit.
fn run(plan: &WorkloadPlan, recipes: Vec<Recipe>) -> (Played, Kept) {
    run_on(plan, recipes, &mut mock(&config(10 * MS, 5 * MS)), Pace::Virtual)
}

impl Kept {
    fn records(&self) -> Vec<&Record> {
        let mut records: Vec<&Record> = self.0.iter().map(|(record, _)| record).collect();
        records.sort_by_key(|record| (record.phase == Phase::Measured, record.index));
        records
    }

    fn each<T>(&self, value: impl Fn(&Record) -> T) -> Vec<T> {
        self.records().into_iter().map(value).collect()
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.each(|record| record.outcome)
    }

    /// When each was sent, in milliseconds.
    fn sent(&self) -> Vec<Option<u64>> {
        self.each(|record| record.sent.map(|at| at / MS))
    }

    fn ends(&self) -> Vec<u64> {
        self.each(|record| record.end / MS)
    }
}

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use proptest::prelude::*;

use super::worker::Drafter;
use super::*;
use crate::backend::config::{DraftModel, Drafting, PromptLookup};
use crate::backend::{Finish, RequestId, Sink, Stepped};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::random::{Like, Random, Stored};
use crate::engine::{KvCache, Limits};
use crate::plan::{Content, Message, PromptRecipe, Recipe, Role, Sampling};
use crate::record::{Outcome, Turn};
use crate::sample::key;
use crate::tokenizer::{Hf, Tokenizer};
use crate::units::Ns;

static TOKENIZER: LazyLock<Arc<Hf>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    Random { like: Like::Gpt2, tiny: true, stored: Stored::F32, seed: 1 }.write(dir.path()).unwrap();
    let checkpoint = Checkpoint { name: "tiny".into(), path: dir.path().to_owned(), revision: None };
    Arc::new(Hf::open(&checkpoint).unwrap())
});

const BLOCK: u32 = 4;
const VOCABULARY: u64 = 512;

/// A model whose keys and values are the tokens themselves, and whose next token is a function of all that it sees in the
/// blocks: what is missing, stale or in the wrong place changes the answer.
struct Fake {
    slots: Vec<u32>,
    logits: Vec<f32>,
    steps: Arc<Mutex<Vec<usize>>>,
    /// After so many steps it fails.
    fails_after: usize,
    /// One token in so many is another one: a model that is nearly as good.
    errs: u64,
}

fn next(seen: &[u32]) -> u32 {
    let hash = seen.iter().fold(7, |hash, token| key(&[hash, u64::from(*token)]));
    // Mostly what stood seven tokens before, so that drafts are accepted now and then.
    match seen.len().checked_sub(7) {
        Some(at) if !hash.is_multiple_of(4) => seen[at],
        _ => (hash / 4 % (VOCABULARY - 1)) as u32,
    }
}

impl Forward for Fake {
    fn step(
        &mut self,
        rows: &[Row],
        tables: &[&[u32]],
        wanted: &[u32],
        then: &mut dyn FnMut(&[f32]) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut steps = self.steps.lock().unwrap();
        if steps.len() == self.fails_after {
            return Err("the model is broken".into());
        }
        steps.push(tables.len());
        let slot = |sequence: u32, position: u32| {
            let block = tables[sequence as usize][(position / BLOCK) as usize];
            (block * BLOCK + position % BLOCK) as usize
        };
        for row in rows {
            self.slots[slot(row.sequence, row.position)] = row.token;
        }
        self.logits.clear();
        for row in wanted.iter().map(|row| rows[*row as usize]) {
            let seen: Vec<u32> =
                (0..=row.position).map(|position| self.slots[slot(row.sequence, position)]).collect();
            let start = self.logits.len();
            self.logits.resize(start + VOCABULARY as usize, 0.0);
            let errs = self.errs != 0 && (seen.len() as u64).is_multiple_of(self.errs);
            self.logits[start + (u64::from(next(&seen)) + u64::from(errs)) as usize] = 1.0;
        }
        then(&self.logits)
    }
}

/// The answer to a prompt, without an engine.
fn oracle(prompt: &[u32], tokens: u32) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    for _ in 0..tokens {
        ids.push(next(&ids));
    }
    ids.split_off(prompt.len())
}

#[derive(Debug, Clone)]
struct Setup {
    blocks: u32,
    reuse: bool,
    speculative: bool,
    /// Drafts come from a model, which errs as [`Fake::errs`] says.
    draft_errs: Option<u64>,
    sequences: u32,
    budget: u32,
    sampling: Sampling,
    end_tokens: Vec<u32>,
    fails_after: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            blocks: 256,
            reuse: true,
            speculative: false,
            draft_errs: None,
            sequences: 16,
            budget: 64,
            sampling: Sampling::default(),
            end_tokens: Vec::new(),
            fails_after: usize::MAX,
        }
    }
}

impl Setup {
    fn start(&self) -> (Engine, Arc<Mutex<Vec<usize>>>) {
        let steps = Arc::new(Mutex::new(Vec::new()));
        let fake = |errs, steps| Fake {
            slots: vec![u32::MAX; (self.blocks * BLOCK) as usize],
            logits: Vec::new(),
            steps,
            fails_after: self.fails_after,
            errs,
        };
        let drafter = self.draft_errs.map(|errs| Drafter {
            forward: Box::new(fake(errs, Arc::default())),
            proposes: VOCABULARY as u32,
            reads: VOCABULARY as u32,
        });
        let model = DraftModel { model: "smaller".into(), revision: None, tokens: 3 };
        let lookup = PromptLookup { tokens: 4, max_ngram: 3, min_ngram: 2 };
        let parts = Parts {
            limits: Limits {
                sequences: self.sequences,
                tokens: self.budget,
                chunked_prefill: true,
                watermark: 0,
                drafts: 0,
            },
            cache: KvCache::new(self.blocks, BLOCK, self.reuse),
            tokenizer: Arc::clone(&TOKENIZER),
            template: None,
            context: 512,
            end_tokens: self.end_tokens.clone(),
            bytes_per_token: 4,
            speculative: match (self.speculative, self.draft_errs) {
                (false, _) => None,
                (true, None) => Some(Drafting::PromptLookup(lookup)),
                (true, Some(_)) => Some(Drafting::Model(model)),
            },
            sampling: vec![self.sampling.clone()],
        };
        let fake = Box::new(fake(0, Arc::clone(&steps)));
        let mut engine = Engine::start(parts, fake, drafter.filter(|_| self.speculative)).unwrap();
        engine.keep_responses();
        (engine, steps)
    }
}

fn recipe(index: u64, prompt: u32, output: u32) -> Recipe {
    Recipe::new(index, PromptRecipe::Synthetic { tokens: prompt, prefix: None }, output, index / 2)
}

fn prompt_ids(recipe: &Recipe) -> Vec<u32> {
    TOKENIZER.encode(&crate::plan::text(recipe, &**TOKENIZER))
}

#[derive(Default)]
struct Heard {
    tokens: BTreeMap<RequestId, Vec<u32>>,
    ends: BTreeMap<RequestId, Finish>,
}

impl Sink for Heard {
    fn tokens(&mut self, id: RequestId, _: Ns, gap: Ns, count: u32) {
        assert_eq!(gap, 0, "times are those at which a step is heard of");
        assert!(!self.ends.contains_key(&id), "nothing comes behind the end");
        self.tokens.entry(id).or_default().push(count);
    }

    fn finished(&mut self, id: RequestId, _: Ns, end: Finish) {
        assert!(self.ends.insert(id, end).is_none(), "a request ends once");
    }
}

impl Heard {
    fn count(&self, id: RequestId) -> u32 {
        self.tokens.get(&id).map_or(0, |counts| counts.iter().sum())
    }

    fn text(&self, id: RequestId) -> &str {
        &self.ends[&id].response.as_ref().unwrap().text
    }
}

/// Drives an engine until it has nothing to do. Times are steps.
fn drive(engine: &mut Engine, heard: &mut Heard) {
    for now in 0.. {
        while engine.next_event().is_some() {
            engine.advance(now, heard);
        }
        while engine.next_event().is_none() {
            if !engine.wait(std::time::Duration::from_secs(10)) {
                return;
            }
        }
    }
}

fn play(setup: &Setup, recipes: &[Recipe]) -> (Engine, Heard, Vec<usize>) {
    let (mut engine, steps) = setup.start();
    let mut heard = Heard::default();
    for (id, recipe) in (0..).zip(recipes) {
        engine.submit(id, recipe, 0);
    }
    drive(&mut engine, &mut heard);
    let steps = steps.lock().unwrap().clone();
    (engine, heard, steps)
}

fn assert_answers(heard: &Heard, recipes: &[Recipe]) {
    for (id, recipe) in (0..).zip(recipes) {
        assert_eq!(heard.ends[&id].outcome, Outcome::Success, "{:?}", heard.ends[&id].message);
        assert_eq!(heard.count(id), recipe.output_tokens);
        let answer = oracle(&prompt_ids(recipe), recipe.output_tokens);
        assert_eq!(heard.text(id), TOKENIZER.decode(&answer), "request {id}");
        assert_eq!(heard.ends[&id].prompt_tokens, recipe.prompt.tokens());
    }
}

#[test]
fn ten_requests_are_one_batch() {
    let recipes: Vec<Recipe> = (0..10).map(|index| recipe(index, 20, 30)).collect();
    let (engine, heard, steps) = play(&Setup { budget: 1000, ..Setup::default() }, &recipes);
    assert_answers(&heard, &recipes);
    assert_eq!(steps, [10; 30], "a step each for the prompts and every token");
    let stats = engine.stats(0);
    assert_eq!(
        stats.kv_total_tokens,
        Some(10 * 49 - 5 * 16),
        "of two equal prompts 16 tokens are in the cache"
    );
    assert_eq!((stats.evict_count, stats.preempt_count), (Some(0), Some(0)));
    assert_eq!(stats.prefix_hit_tokens, Some(5 * 16));
}

#[test]
fn a_pool_that_is_too_small_evicts_and_preempts_and_answers_all_the_same() {
    let recipes: Vec<Recipe> = (0..10).map(|index| recipe(index, 24, 24)).collect();
    let (engine, heard, _) = play(&Setup { blocks: 40, ..Setup::default() }, &recipes);
    assert_answers(&heard, &recipes);
    let stats = engine.stats(0);
    assert!(stats.evict_count > Some(0) && stats.preempt_count > Some(0), "{stats:?}");
    assert!(stats.evict_ns > Some(0), "evicting takes time");
    assert!(stats.kv_used_tokens <= stats.kv_capacity_tokens, "{stats:?}");
    assert!(heard.ends.values().any(|end| end.preemptions > 0));
}

#[test]
fn drafts_change_how_tokens_come_and_not_which() {
    let recipes: Vec<Recipe> = (0..6).map(|index| recipe(index, 24, 60)).collect();
    let (plain, heard, slow) = play(&Setup::default(), &recipes);
    assert_answers(&heard, &recipes);
    let (engine, heard, fast) = play(&Setup { speculative: true, ..Setup::default() }, &recipes);
    assert_answers(&heard, &recipes);
    assert!(fast.len() < slow.len(), "{} steps with drafts, {} without", fast.len(), slow.len());
    let stats = engine.stats(0);
    assert!(stats.accepted_tokens > Some(0) && stats.accepted_tokens < stats.draft_tokens, "{stats:?}");
    assert_eq!(plain.stats(0).draft_tokens, None);
}

#[test]
fn a_draft_model_sees_what_the_model_sees() {
    let recipes: Vec<Recipe> = (0..6).map(|index| recipe(index, 24, 60)).collect();
    // One that is as good as the model: every draft is accepted, so none of its keys and values is missing or stale. Prompts
    // come twice, from the cache the second time.
    let setup = Setup { speculative: true, draft_errs: Some(0), ..Setup::default() };
    let (engine, heard, steps) = play(&setup, &recipes);
    assert_answers(&heard, &recipes);
    let stats = engine.stats(0);
    assert_eq!(stats.accepted_tokens, stats.draft_tokens, "{stats:?}");
    assert!(stats.prefix_hit_tokens > Some(0), "{stats:?}");
    // 60 tokens are 1 and 15 times 4.
    assert!(steps.len() < 30, "{} steps", steps.len());
    // One that errs at every fifth position.
    let setup = Setup { draft_errs: Some(5), blocks: 60, ..setup };
    let (engine, heard, _) = play(&setup, &recipes);
    assert_answers(&heard, &recipes);
    let stats = engine.stats(0);
    assert!(stats.accepted_tokens > Some(0) && stats.accepted_tokens < stats.draft_tokens, "{stats:?}");
    assert!(stats.preempt_count > Some(0), "the pool is small: {stats:?}");
}

#[test]
fn an_answer_that_is_not_forced_ends_with_its_own_end() {
    let mut one = recipe(0, 24, 60);
    let answer = oracle(&prompt_ids(&one), 60);
    let end = answer[40];
    let first = answer.iter().position(|token| *token == end).unwrap() as u32;
    for speculative in [false, true] {
        let setup = Setup { end_tokens: vec![end], speculative, ..Setup::default() };
        let (_, heard, _) = play(&setup, std::slice::from_ref(&one));
        assert_eq!(heard.count(0), 60, "a forced length goes on");
        one.forced = false;
        let (engine, heard, _) = play(&setup, std::slice::from_ref(&one));
        assert_eq!(heard.count(0), first + 1);
        let response = heard.ends[&0].response.as_ref().unwrap();
        assert_eq!(response.finish_reason.as_deref(), Some("stop"));
        assert_eq!(heard.text(0), TOKENIZER.decode(&answer[..=first as usize]));
        assert_eq!(engine.scheduler.cache().pool().used(), 0, "nothing is held behind the end");
        one.forced = true;
    }
}

#[test]
fn a_text_that_stops_an_answer_is_not_in_it() {
    let mut one = recipe(0, 24, 60);
    one.forced = false;
    let whole = TOKENIZER.decode(&oracle(&prompt_ids(&one), 60));
    let middle = whole.char_indices().nth(whole.chars().count() / 2).unwrap().0;
    let stop: String = whole[middle..].chars().take(3).collect();
    let begins = whole.find(&stop).unwrap();
    for speculative in [false, true] {
        let sampling = Sampling { stop: vec!["never there".into(), stop.clone()], ..Sampling::default() };
        let (_, heard, _) =
            play(&Setup { speculative, sampling, ..Setup::default() }, std::slice::from_ref(&one));
        assert_eq!(heard.text(0), &whole[..begins]);
        assert!(heard.count(0) < 60);
        assert_eq!(heard.ends[&0].response.as_ref().unwrap().finish_reason.as_deref(), Some("stop"));
    }
}

#[test]
fn what_can_not_be_answered_is_refused_with_its_reason() {
    let setup = Setup { blocks: 10, ..Setup::default() };
    let (_, heard, _) = play(&setup, &[recipe(0, 24, 24), recipe(1, 500, 24), recipe(2, 8, 8)]);
    let message = |id| (heard.ends[&id].outcome, heard.ends[&id].message.as_deref().unwrap_or_default());
    assert_eq!(
        message(0),
        (Outcome::Refused, "24 prompt and 24 output tokens can never fit in a KV cache of 40")
    );
    assert_eq!(
        message(1),
        (Outcome::Refused, "500 prompt and 24 output tokens are more than the model's context of 512")
    );
    assert_eq!(message(2).0, Outcome::Success);
}

#[test]
fn a_model_that_fails_ends_what_is_in_flight() {
    let recipes: Vec<Recipe> = (0..3).map(|index| recipe(index, 20, 30)).collect();
    let (engine, heard, _) = play(&Setup { fails_after: 5, ..Setup::default() }, &recipes);
    for end in heard.ends.values() {
        assert_eq!(end.outcome, Outcome::CancelledByServer);
        assert_eq!(end.message.as_deref(), Some("the model is broken"));
    }
    assert_eq!(heard.ends.len(), 3);
    assert_eq!(engine.scheduler.cache().pool().used(), 0);
}

#[test]
fn a_cancelled_request_lets_go_while_it_is_computed() {
    let recipes: Vec<Recipe> = (0..4).map(|index| recipe(index, 20, 30)).collect();
    let (mut engine, _) = Setup::default().start();
    let mut heard = Heard::default();
    for (id, recipe) in (0..).zip(&recipes) {
        engine.submit(id, recipe, 0);
    }
    assert!(engine.wait(std::time::Duration::ZERO), "a step is under way");
    engine.cancel(1, 1);
    engine.cancel(77, 1);
    drive(&mut engine, &mut heard);
    assert!(!heard.ends.contains_key(&1) && heard.count(1) == 0);
    assert_eq!(heard.ends.len(), 3);
    for id in [0, 2, 3] {
        let answer = oracle(&prompt_ids(&recipes[id as usize]), 30);
        assert_eq!(heard.text(id), TOKENIZER.decode(&answer));
    }
    assert_eq!(engine.scheduler.cache().pool().used(), 0);
}

#[test]
fn a_later_turn_of_a_session_begins_with_the_tokens_of_those_before() {
    let user = |seed| Message { role: Role::User, content: Content::Synthetic { tokens: 11, seed } };
    let answer = Message {
        role: Role::Assistant,
        content: Content::Answer { tokens: 13, seed: 1, text: Some("not what is read".into()) },
    };
    let turn = |turn, messages: Vec<Message>| Recipe {
        session: Some(Turn { session: 4, turn, turns: 2 }),
        prompt: PromptRecipe::chat(messages.into(), None),
        ..recipe(u64::from(turn), 0, 13)
    };
    let (first, second) = (turn(1, vec![user(1)]), turn(2, vec![user(1), answer, user(2)]));
    let (mut engine, _) = Setup::default().start();
    let mut heard = Heard::default();
    for (id, recipe) in [(1, &first), (2, &second)] {
        engine.submit(id, recipe, 0);
        drive(&mut engine, &mut heard);
    }
    let ids = |seed| TOKENIZER.encode(&TOKENIZER.text_of(11, seed));
    let mut whole = ids(1);
    whole.extend(oracle(&whole, 13));
    whole.extend(TOKENIZER.encode(&format!(" {}", TOKENIZER.text_of(11, 2))));
    assert_eq!(heard.ends[&2].prompt_tokens, 35);
    assert_eq!(heard.text(2), TOKENIZER.decode(&oracle(&whole, 13)));
    // Blocks of four: 24 tokens of the first turn, less the last, which was never computed.
    assert_eq!(engine.stats(0).prefix_hit_tokens, Some(20));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn answers_do_not_depend_on_what_else_is_computed(
        lengths in prop::collection::vec((1_u32..60, 1_u32..40), 1..12),
        blocks in 30_u32..80,
        sequences in 1_u32..12,
        budget in 1_u32..80,
        reuse: bool,
        speculative: bool,
        draft_errs in prop::option::of(0_u64..6),
    ) {
        let recipes: Vec<Recipe> =
            (0..).zip(&lengths).map(|(index, (prompt, output))| recipe(index, *prompt, *output)).collect();
        let setup = Setup { blocks, reuse, speculative, draft_errs, sequences, budget, ..Setup::default() };
        let (mut engine, heard, _) = play(&setup, &recipes);
        assert_answers(&heard, &recipes);
        prop_assert_eq!(engine.scheduler.check(), Ok(()));
    }

    #[test]
    fn draws_do_not_depend_on_the_batch_either(
        seed: i64,
        speculative: bool,
        draft_errs in prop::option::of(0_u64..6),
        sequences in 1_u32..4,
    ) {
        let recipes: Vec<Recipe> = (0..3).map(|index| recipe(index, 24, 30)).collect();
        let sampling = Sampling { temperature: Some(0.3), top_p: Some(0.95), seed: Some(seed), ..Sampling::default() };
        let texts = |setup: Setup| {
            let (_, heard, _) = play(&setup, &recipes);
            (0..3).map(|id| heard.text(id).to_owned()).collect::<Vec<_>>()
        };
        let alone = texts(Setup { sequences: 1, sampling: sampling.clone(), ..Setup::default() });
        let batched = texts(Setup { speculative, draft_errs, sequences, sampling, ..Setup::default() });
        prop_assert_eq!(alone, batched);
    }
}

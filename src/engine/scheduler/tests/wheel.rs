//! The folded form against the simple one: step by step the same totals, tokens, counters and blocks.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Two schedulers that get the same requests: one visits every sequence in every step, the other one folds.
struct Pair {
    simple: Scheduler<Own>,
    folded: Scheduler<Own>,
    /// Who rides.
    riding: BTreeSet<u64>,
    followed: BTreeSet<u64>,
    /// Output tokens of each request by both accounts.
    tokens: BTreeMap<u64, [u32; 2]>,
    steps: u64,
    /// Steps in which somebody rode.
    ridden: u64,
}

/// What may happen between two calls.
#[derive(Debug, Clone)]
enum Action {
    Submit { prompt: u32, output: u32, shared: u64, followed: bool },
    Cancel(usize),
    Begin,
    Finish,
    Play(u8),
}

impl Pair {
    fn new(limits: Limits, cache: &KvCache) -> Self {
        let mut folded = Scheduler::new(limits, cache.clone());
        folded.fold_steps();
        Self {
            simple: Scheduler::new(limits, cache.clone()),
            folded,
            riding: BTreeSet::new(),
            followed: BTreeSet::new(),
            tokens: BTreeMap::new(),
            steps: 0,
            ridden: 0,
        }
    }

    fn apply(&mut self, action: &Action, law: &Speculation) -> Result<(), TestCaseError> {
        match *action {
            Action::Submit { prompt, output, shared, followed } => {
                let id = self.simple.ledger.submitted;
                let content = Own { seed: id, shared };
                let request = Request { id, seed: id, prompt_tokens: prompt, output_tokens: output, content };
                let taken = self.simple.submit(request.clone());
                prop_assert_eq!(&self.folded.submit(request), &taken);
                if followed && taken.is_ok() {
                    self.folded.follow(id);
                    self.followed.insert(id);
                }
            }
            Action::Cancel(at) => {
                let mut ids: Vec<u64> = self.simple.ids.keys().copied().collect();
                ids.sort_unstable();
                if let Some(id) = ids.get(at) {
                    self.simple.cancel(*id);
                    self.folded.cancel(*id);
                    self.riding.remove(id);
                }
            }
            Action::Begin => self.begin()?,
            Action::Finish => self.finish(law)?,
            Action::Play(steps) => {
                for _ in 0..steps {
                    self.begin()?;
                    self.finish(law)?;
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), TestCaseError> {
        let fresh = !self.simple.in_flight;
        let simple =
            self.simple.next_step().map_err(|stuck| TestCaseError::fail(stuck.to_string()))?.cloned();
        let folded =
            self.folded.next_step().map_err(|stuck| TestCaseError::fail(stuck.to_string()))?.cloned();
        prop_assert_eq!(simple.is_some(), folded.is_some());
        let (Some(simple), Some(folded)) = (simple, folded) else { return Ok(()) };
        if fresh {
            for id in self.folded.alighted() {
                self.riding.remove(id);
            }
            self.steps += 1;
            self.ridden += u64::from(folded.riding > 0);
        }
        prop_assert_eq!(folded.batch(), simple.batch());
        // Who is listed by both does the same; slots and serials are equal too, since both were asked the same.
        prop_assert_eq!(&folded.sequences[..], &simple.sequences[folded.riding as usize..]);
        let totals = |step: &Step| Step { sequences: Vec::new(), riding: 0, ..step.clone() };
        prop_assert_eq!(totals(&folded), totals(&simple));
        Ok(())
    }

    fn finish(&mut self, law: &Speculation) -> Result<(), TestCaseError> {
        let (mut all, mut told) = (Vec::new(), Vec::new());
        let in_flight = self.simple.in_flight;
        self.simple
            .finish_step(|s| law.accepted(s.seed, s.position, s.drafts), |emission| all.push(emission));
        self.folded
            .finish_step(|s| law.accepted(s.seed, s.position, s.drafts), |emission| told.push(emission));
        for emission in &all {
            self.tokens.entry(emission.id).or_default()[0] += emission.tokens;
        }
        if in_flight {
            for id in &self.riding {
                self.tokens.entry(*id).or_default()[1] += 1;
            }
        }
        let silent = |emission: &&Emission| self.riding.contains(&emission.id) && !emission.last;
        let rode = |emission: &Emission| Emission { rode: self.riding.contains(&emission.id), ..*emission };
        let expected: Vec<Emission> = all.iter().filter(|emission| !silent(emission)).map(rode).collect();
        prop_assert_eq!(&told, &expected);
        for emission in told {
            if !self.riding.remove(&emission.id) {
                self.tokens.entry(emission.id).or_default()[1] += emission.tokens;
            }
        }
        if in_flight {
            self.riding.extend(self.folded.boarded());
        }
        prop_assert!(self.riding.is_disjoint(&self.followed));
        for (id, [simple, folded]) in &self.tokens {
            prop_assert_eq!(simple, folded, "tokens of request {}", id);
        }
        self.tokens.retain(|id, _| self.simple.ids.contains_key(id));
        prop_assert_eq!(self.simple.counters(), self.folded.counters());
        let (simple, folded) = (self.simple.cache().pool(), self.folded.cache().pool());
        prop_assert_eq!(simple.resident_tokens(), folded.resident_tokens());
        prop_assert_eq!(simple.free(), folded.free());
        Ok(())
    }

    /// Both keep their rules, and hold the same in the same blocks.
    fn compare(&mut self) -> Result<(), TestCaseError> {
        self.simple.check().map_err(TestCaseError::fail)?;
        self.folded.check().map_err(TestCaseError::fail)?;
        prop_assert_eq!(self.simple.cache(), self.folded.cache());
        Ok(())
    }
}

fn action() -> impl Strategy<Value = Action> {
    let submit = (1_u32..200, 1_u32..60, 0_u64..12, prop::bool::weighted(0.1));
    prop_oneof![
        4 => submit.prop_map(|(prompt, output, shared, followed)| Action::Submit { prompt, output, shared, followed }),
        1 => (0_usize..8).prop_map(Action::Cancel),
        2 => Just(Action::Begin),
        2 => Just(Action::Finish),
        4 => (1_u8..40).prop_map(Action::Play),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases() / 2 + 1, ..ProptestConfig::default() })]

    /// Tiny pools, huge prompts, drafts, cancels at any moment: the folded form is the simple one, to the last block.
    #[test]
    fn the_folded_form_is_the_simple_one(
        sequences in 1_u32..12,
        tokens in prop_oneof![1_u32..16, 16_u32..256],
        chunked_prefill: bool,
        watermark in 0_u32..3,
        drafts in prop_oneof![4 => Just(0_u32), 1 => 1_u32..4],
        p in 0.0..1.0_f64,
        blocks in prop_oneof![1_u32..40, 40_u32..200],
        block_tokens in prop_oneof![1_u32..17, Just(16_u32)],
        reuse: bool,
        every in 1_usize..20,
        actions in prop::collection::vec(action(), 1..40),
    ) {
        let limits = Limits { sequences, tokens, chunked_prefill, watermark, drafts };
        let law = Speculation::new(vec![p; drafts as usize]);
        let mut pair = Pair::new(limits, &KvCache::new(blocks, block_tokens, reuse));
        for (at, action) in actions.iter().enumerate() {
            pair.apply(action, &law)?;
            if at % every == 0 {
                pair.compare()?;
            }
        }
        while pair.simple.has_work() || pair.simple.in_flight {
            pair.apply(&Action::Play(1), &law)?;
            prop_assert!(pair.steps < 1_000_000, "it does not end");
        }
        pair.compare()?;
        prop_assert!(!pair.folded.has_work() && pair.riding.is_empty());
        prop_assert_eq!(pair.folded.cache().pool().used(), 0);
    }
}

/// Where nothing is scarce, nearly every step is ridden: else the test above would compare the simple form with itself.
#[test]
fn a_batch_that_fits_rides() {
    let limits = Limits { sequences: 16, tokens: 512, chunked_prefill: true, watermark: 0, drafts: 0 };
    let mut pair = Pair::new(limits, &KvCache::new(1000, 16, true));
    let law = Speculation::new(Vec::new());
    for _ in 0..9 {
        let submit = Action::Submit { prompt: 100, output: 200, shared: 2, followed: false };
        pair.apply(&submit, &law).unwrap();
    }
    pair.apply(&Action::Play(250), &law).unwrap();
    pair.compare().unwrap();
    assert!(!pair.simple.has_work());
    assert!(pair.ridden + 3 >= pair.steps, "{} of {} steps", pair.ridden, pair.steps);
    assert_eq!(pair.folded.counters().max_batch, 9);
}

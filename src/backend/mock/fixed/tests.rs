//! The mock's rules under random traffic on small pools, and the parts that whole cells do not show.

use proptest::prelude::*;

use super::*;
use crate::backend::config::{Clock, Kv, Mode};
use crate::plan::{Prefix, PromptRecipe};
use crate::sample::key;
use crate::sample::{Fixed, Time};
use crate::units::{MILLISECOND as MS, Rate};

/// What was heard, with the rules that hold at each call.
#[derive(Default)]
struct Heard {
    now: Ns,
    tokens: FxHashMap<RequestId, u32>,
    ended: FxHashMap<RequestId, Outcome>,
    calls: Vec<(Ns, RequestId)>,
}

impl Sink for Heard {
    fn tokens(&mut self, id: RequestId, at: Ns, _: Ns, count: u32) {
        assert!(at >= self.now, "time goes back");
        assert!(!self.ended.contains_key(&id), "a token after the end");
        self.now = at;
        *self.tokens.entry(id).or_default() += count;
        self.calls.push((at, id));
    }

    fn finished(&mut self, id: RequestId, at: Ns, end: Finish) {
        assert!(at >= self.now, "time goes back");
        self.now = at;
        assert_eq!(self.ended.insert(id, end.outcome), None, "a second end");
    }
}

fn config(blocks: u32) -> MockBackend {
    let fixed = |value| Time::Fixed(Fixed { value: Duration(value) });
    MockBackend {
        mode: Mode::Fixed,
        ttft: Some(fixed(10 * MS)),
        tbt: Some(fixed(5 * MS)),
        preset: None,
        cost: None,
        engine: None,
        speculative: None,
        kv: Some(Kv {
            tokens: None,
            blocks: Some(blocks),
            bytes: None,
            block_tokens: 4,
            bytes_per_token: Some(2),
            prefix_cache: true,
            evict: None,
        }),
        rate_cap: None,
        clock: Clock::Virtual,
        speed: None,
        model: "mock".into(),
        weights: None,
        faults: Vec::new(),
        responses: Vec::new(),
    }
}

fn constant(ttft: Ns, tbt: Ns) -> Laws {
    Laws { ttft: Sampler::Constant(ttft as f64), tbt: Sampler::Constant(tbt as f64) }
}

pub(in crate::backend::mock) fn recipe(index: u64, prompt: u32, output: u32) -> Recipe {
    Recipe::new(
        index,
        PromptRecipe::Synthetic {
            tokens: prompt,
            prefix: Some(Prefix { tokens: prompt.min(10), seed: index % 2 }),
        },
        output,
        key(&[11, index]),
    )
}

impl Mock {
    pub(in crate::backend::mock) fn check(&self) -> Result<(), String> {
        let live = |sequence: &&Sequence| sequence.state != State::Gone;
        let live: Vec<&Sequence> = self.sequences.iter().filter(live).collect();
        for sequence in &live {
            if sequence.state != State::Running && !sequence.table.blocks().is_empty() {
                return Err(format!("{:?} holds blocks", sequence.state));
            }
        }
        if live.len() != self.ids.len() {
            return Err(format!("{} sequences, {} names", live.len(), self.ids.len()));
        }
        self.kv.as_ref().map_or(Ok(()), |kv| kv.check(live.iter().map(|sequence| &sequence.table)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_request_ends_once_and_the_pool_stays_whole(
        blocks in 2_u32..10,
        (ttft, tbt) in (0_u64..20, 0_u64..4),
        (prefix_cache, capped) in any::<(bool, bool)>(),
        evict in prop::option::of(0_u64..5),
        requests in prop::collection::vec((0_u64..12, 0_u32..24, 1_u32..16, prop::option::of(0_u64..80)), 1..24),
    ) {
        let mut config = config(blocks);
        config.rate_cap = capped.then_some(Rate(4e8));
        if let Some(kv) = &mut config.kv {
            kv.evict = evict.map(Duration);
            kv.prefix_cache = prefix_cache;
        }
        let mut mock = Mock::new(&config, constant(ttft, tbt), &["w"], 1).unwrap();
        let mut heard = Heard::default();
        let mut cancels: Vec<(Ns, RequestId)> = Vec::new();
        let mut cancelled = std::collections::HashSet::new();
        let mut submissions = VecDeque::new();
        let mut at = 0;
        for (id, (pause, prompt, output, cancel)) in (0..).zip(requests.iter().copied()) {
            at += pause;
            submissions.push_back((at, id, recipe(id, prompt, output)));
            cancels.extend(cancel.map(|after| (at + after, id)));
        }
        cancels.sort_unstable();
        let mut cancels: VecDeque<_> = cancels.into();
        loop {
            let load = submissions.front().map(|(at, ..)| *at);
            let cancel = cancels.front().map(|(at, _)| *at);
            let Some(now) = [mock.next_event(), load, cancel].into_iter().flatten().min() else { break };
            mock.advance(now, &mut heard);
            prop_assert_eq!(mock.check(), Ok(()));
            while let Some((_, id, recipe)) = submissions.pop_front_if(|(at, ..)| *at <= now) {
                mock.submit(id, &recipe, now);
            }
            while let Some((_, id)) = cancels.pop_front_if(|(at, _)| *at <= now) {
                if !heard.ended.contains_key(&id) {
                    cancelled.insert(id);
                }
                mock.cancel(id, now);
                prop_assert_eq!(mock.check(), Ok(()));
            }
        }
        prop_assert!(mock.ids.is_empty() && mock.waiting.is_empty() && mock.running.is_empty());
        prop_assert_eq!(mock.cache().unwrap().pool().used(), 0);
        for (id, (_, prompt, output, cancel)) in (0..).zip(requests.iter().copied()) {
            let end = heard.ended.get(&id);
            prop_assert!(end.is_some() != cancelled.contains(&id), "request {} ends once", id);
            let came = heard.tokens.get(&id).copied().unwrap_or(0);
            let fits = (prompt + output).div_ceil(4) <= blocks;
            match end {
                Some(Outcome::Success) => prop_assert!(fits && came == output),
                Some(Outcome::Refused) => prop_assert!(!fits && came == 0),
                Some(other) => prop_assert!(false, "{:?}", other),
                None => prop_assert!(came < output && cancel.is_some()),
            }
        }
        let stats = mock.stats(heard.now);
        prop_assert!(stats.kv_used_tokens.unwrap() <= u64::from(blocks) * 4);
        prop_assert_eq!(stats.evict_ns, evict.map(|cost| cost * stats.evict_count.unwrap()));
        prop_assert!(stats.prefix_hit_tokens <= stats.prefix_queried_tokens);
        if !prefix_cache {
            prop_assert_eq!(stats.evict_count, Some(0));
        }
        if capped {
            let spaced = heard.calls.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 3);
            prop_assert!(spaced, "one in 2.5 ns, rounded");
        }
    }
}

#[test]
fn tokens_of_one_instant_come_in_the_order_of_ids() {
    let mut mock = Mock::new(&config(64), constant(10, 5), &["w"], 1).unwrap();
    let mut heard = Heard::default();
    for id in [2, 0, 1] {
        mock.submit(id, &recipe(id, 8, 2), 0);
    }
    mock.advance(15, &mut heard);
    assert_eq!(heard.calls, [(10, 0), (10, 1), (10, 2), (15, 0), (15, 1), (15, 2)]);
    assert_eq!(mock.next_event(), None);
}

#[test]
fn drawn_times_depend_on_the_request_alone() {
    let laws = Laws { ttft: Sampler::Uniform(1e6, 9e6), tbt: Sampler::Uniform(1e6, 2e6) };
    let times = |ids: &[u64]| {
        let mut mock = Mock::new(&config(64), laws.clone(), &["w"], 1).unwrap();
        let mut heard = Heard::default();
        for id in ids {
            mock.submit(*id, &recipe(*id, 8, 5), 0);
        }
        mock.advance(Ns::MAX, &mut heard);
        heard.calls.into_iter().filter(|(_, id)| *id == 3).map(|(at, _)| at).collect::<Vec<Ns>>()
    };
    let alone = times(&[3]);
    assert_eq!(times(&[0, 1, 3, 4]), alone);
    assert!((1_000_000..=9_000_000).contains(&alone[0]));
    let gaps: Vec<Ns> = alone.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (1_000_000..=2_000_000).contains(gap)));
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]));
}

#[test]
fn sizes_that_hold_nothing_are_errors() {
    let error = |change: fn(&mut MockBackend)| {
        let mut config = config(4);
        change(&mut config);
        Mock::new(&config, constant(1, 1), &["w"], 1).unwrap_err().to_string()
    };
    assert_eq!(
        error(|c| c.kv.as_mut().unwrap().bytes = Some(crate::units::Size(64))),
        "`kv` takes exactly one of `tokens`, `blocks` and `bytes`, 2 are given"
    );
    assert_eq!(
        error(|c| {
            let kv = c.kv.as_mut().unwrap();
            (kv.blocks, kv.bytes, kv.bytes_per_token) = (None, Some(crate::units::Size(64)), None);
        }),
        "`kv.bytes` needs `kv.bytes_per_token`, at least 1"
    );
    assert_eq!(
        error(|c| {
            let kv = c.kv.as_mut().unwrap();
            (kv.blocks, kv.bytes) = (None, Some(crate::units::Size(7)));
        }),
        "`kv` holds 3 tokens, less than one block of 4; make it larger"
    );
    assert_eq!(error(|c| c.rate_cap = Some(Rate(0.0))), "`rate_cap` must be above 0");
}

#[test]
fn counters_start_with_measuring() {
    let mut mock = Mock::new(&config(8), constant(10, 5), &["w"], 1).unwrap();
    let mut heard = Heard::default();
    mock.submit(0, &recipe(0, 8, 2), 0);
    mock.advance(15, &mut heard);
    mock.start_measuring(20);
    let stats = mock.stats(20);
    assert_eq!((stats.kv_used_tokens, stats.kv_total_tokens), (Some(0), Some(0)));
    assert_eq!((stats.prefix_queried_tokens, stats.avg_mem_bytes), (Some(0), Some(0.0)));
    mock.submit(2, &recipe(2, 8, 2), 20);
    mock.advance(35, &mut heard);
    // Of eight prompt tokens the first block is found: the second holds the last token, which is computed again.
    assert_eq!(mock.stats(35).prefix_hit_tokens, Some(4));
    assert_eq!(mock.stats(35).kv_total_tokens, Some(4 + 1));
}

//! The numbers that a hand calculation and a small independent simulation give for a full cache.

use super::*;

/// Ten requests of 256/256 at once on 256 blocks of 16 tokens.
fn stress() -> (Played, Kept, Mock) {
    let mut backend = mock(&MockBackend { kv: Some(kv(4096)), ..config(10 * MS, 5 * MS) });
    let plan = WorkloadPlan { requests: Some(10), ..plan(closed(10)) };
    let (played, kept) = run_on(&plan, recipes(10, 256, 256), &mut backend, Pace::Virtual);
    (played, kept, backend)
}

#[test]
fn a_full_cache_preempts_the_last_and_evicts_the_oldest() {
    let (played, kept, backend) = stress();
    assert_eq!(kept.outcomes(), [Outcome::Success; 10]);
    assert_eq!(kept.each(|record| record.first), [Some(10 * MS); 10], "a first token stays where it was");
    let mut ends = [1285; 10];
    (ends[8], ends[9]) = (1605, 1845);
    assert_eq!(kept.ends(), ends);
    let mut longest = [5 * MS; 10];
    (longest[8], longest[9]) = (325 * MS, 565 * MS);
    assert_eq!(kept.each(|record| record.longest_gap), longest);
    assert_eq!(kept.each(|record| record.preemptions), [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    assert_eq!(played.stats.preempt_count, Some(2));
    assert_eq!(played.stats.kv_used_tokens, Some(4088));
    assert_eq!(played.stats.kv_capacity_tokens, Some(4096));
    assert_eq!(played.stats.evict_count, Some(115));
    assert_eq!(played.stats.prefix_queried_tokens, Some(2560));
    assert_eq!(played.stats.prefix_hit_tokens, Some(0));
    assert_eq!(played.stats.peak_mem_bytes, Some(4096 * 32_768));
    assert_eq!((played.measure_start, played.measure_end), (0, 1845 * MS));
    assert_eq!(played.max_in_flight, 10);
    assert_eq!(backend.cache().unwrap().pool().used(), 0);
}

#[test]
fn the_averages_of_a_full_cache() {
    let (_, kept, _) = stress();
    let gaps = kept.0.iter().flat_map(|(_, gaps)| gaps);
    let (time, count) =
        gaps.fold((0, 0), |(t, n), run| (t + run.gap * u64::from(run.count), n + u64::from(run.count)));
    assert_eq!(count, 2550);
    assert_eq!(format!("{:.3}", time as f64 / count as f64 / MS as f64), "5.345");
    let tpot: f64 = kept.each(|record| record.tpot().unwrap()).into_iter().sum();
    assert_eq!(format!("{:.3}", tpot / 10.0 / MS as f64), "5.345");
    let tps = kept.each(|record| f64::from(record.output_tokens) / (record.end as f64 / SECOND as f64));
    assert_eq!(format!("{:.1}", tps.iter().sum::<f64>() / 10.0), "189.2");
}

#[test]
fn gaps_are_joined_around_the_preemption() {
    let (_, kept, _) = stress();
    let ninth = kept.0.iter().find(|(record, _)| record.index == 8).unwrap();
    let run = |gap, count| GapRun { gap: gap * MS, count };
    // 193 tokens by 970 ms, the 194th at 1295 ms.
    assert_eq!(ninth.1, [run(5, 192), run(325, 1), run(5, 62)]);
}

#[test]
fn one_user_pays_ttft_and_one_tbt_per_further_token() {
    let plan = WorkloadPlan { requests: Some(3), ..plan(closed(1)) };
    let (played, kept) = run(&plan, recipes(3, 128, 128));
    let e2e = 10 + 127 * 5;
    assert_eq!(kept.ends(), [e2e, 2 * e2e, 3 * e2e]);
    assert_eq!(kept.sent(), [Some(0), Some(e2e), Some(2 * e2e)]);
    assert_eq!(kept.0[1].1, [GapRun { gap: 5 * MS, count: 127 }]);
    assert_eq!(kept.each(|record| record.first_event_tokens), [1; 3]);
    assert_eq!(played.measure_end, 3 * e2e * MS);
    assert_eq!(played.ending, Ending::Complete);
    assert_eq!(played.stats.kv_used_tokens, None);
}

#[test]
fn waiting_for_the_only_place_follows_the_lindley_recursion() {
    // One place in the cache, one token each: W(k+1) = max(0, W(k) + S - A(k)).
    let mut backend = mock(&MockBackend { kv: Some(kv(32)), ..config(10 * MS, 0) });
    let mut at = 0;
    let arrivals: Vec<Ns> = (0..200)
        .map(|k| {
            at += key(&[3, k]) % (21 * MS);
            at
        })
        .collect();
    let mut wanted = arriving(&arrivals, 1);
    for recipe in &mut wanted {
        recipe.prompt = PromptRecipe::Synthetic { tokens: 17, prefix: None };
    }
    let (_, kept) = run_on(&plan(open(None)), wanted, &mut backend, Pace::Virtual);
    let mut wait = 0;
    for (k, record) in kept.records().into_iter().enumerate() {
        if k > 0 {
            wait = (wait + 10 * MS).saturating_sub(arrivals[k] - arrivals[k - 1]);
        }
        assert_eq!(record.ttft(crate::record::Basis::Due), Some(wait + 10 * MS), "request {k}");
    }
    assert_eq!(kept.0.len(), 200);
}

#[test]
fn memory_is_weighted_by_time() {
    // 16 + 1 tokens hold one block until the first token comes and one more until the second; then nothing.
    let weights = Some(crate::units::Size(1000));
    let mut backend = mock(&MockBackend { kv: Some(kv(64)), weights, ..config(10 * MS, 5 * MS) });
    let (played, _) = run_on(&plan(open(None)), arriving(&[0, 85 * MS], 2), &mut backend, Pace::Virtual);
    let block = 16.0 * 32_768.0;
    // Two requests of 10 ms × 1 block + 5 ms × 2 blocks over 100 ms.
    assert_eq!(played.stats.avg_mem_bytes, Some(1000.0 + block * 2.0 * 20.0 / 100.0));
    assert_eq!(played.stats.peak_mem_bytes, Some(1000 + 2 * 16 * 32_768));
}

#[test]
fn a_rate_cap_spaces_all_tokens() {
    let cap = MockBackend { rate_cap: Some(crate::units::Rate(100.0)), ..config(10 * MS, 5 * MS) };
    let (_, kept) = run_on(&plan(closed(2)), recipes(2, 16, 3), &mut mock(&cap), Pace::Virtual);
    // Tokens at 10, 20, 30, ... in turn.
    assert_eq!(kept.each(|record| record.first.unwrap() / MS), [10, 20]);
    assert_eq!(kept.ends(), [50, 60]);
}

#[test]
fn evictions_cost_the_token_that_needs_the_block() {
    let cache = Kv { evict: Some(Duration(MS)), ..kv(48) };
    let mut backend = mock(&MockBackend { kv: Some(cache), ..config(10 * MS, 5 * MS) });
    // The first fills three blocks of 16 and leaves two full ones and a partial one; the second needs all three.
    let (played, kept) = run_on(&plan(closed(1)), recipes(2, 32, 3), &mut backend, Pace::Virtual);
    assert_eq!(kept.ends(), [20, 20 + 20 + 2]);
    // The partial block and one full one at admission, the other for the second token.
    assert_eq!(kept.records()[1].first, Some((20 + 11) * MS));
    assert_eq!(kept.records()[1].longest_gap, 6 * MS);
    assert_eq!((played.stats.evict_count, played.stats.evict_ns), (Some(2), Some(2 * MS)));
}

#[test]
fn what_is_not_modelled_has_a_reason() {
    let names = |stats: &crate::backend::EngineStats| -> Vec<String> {
        stats.unavailable.iter().map(|(name, _)| name.to_string()).collect()
    };
    let plain = mock(&config(MS, MS)).stats(0);
    assert_eq!(names(&plain).len(), 11);
    let bare = Kv { bytes_per_token: None, prefix_cache: false, ..kv(64) };
    let bare = mock(&MockBackend { kv: Some(bare), ..config(MS, MS) }).stats(0);
    assert_eq!(
        names(&bare),
        ["spec_accept_rate", "prefix_hit_rate", "evict_ms", "kv_used_bytes", "peak_mem_mb", "avg_mem_mb"]
    );
    let full = Kv { evict: Some(Duration(0)), ..kv(64) };
    let full = mock(&MockBackend { kv: Some(full), ..config(MS, MS) }).stats(0);
    assert_eq!(names(&full), ["spec_accept_rate"]);
}

#[test]
fn a_shared_prefix_is_computed_once() {
    let shared = |index| Recipe {
        prompt: PromptRecipe::Synthetic {
            tokens: 64,
            prefix: Some(crate::plan::Prefix { tokens: 40, seed: 5 }),
        },
        ..recipe(index, 64, 2)
    };
    let mut backend = mock(&MockBackend { kv: Some(kv(1024)), ..config(10 * MS, 5 * MS) });
    let (played, _) = run_on(&plan(closed(1)), (0..5).map(shared).collect(), &mut backend, Pace::Virtual);
    // Two of the prefix's blocks are full and shared; each of four later requests finds 32 of its 64 tokens.
    assert_eq!(played.stats.prefix_queried_tokens, Some(5 * 64));
    assert_eq!(played.stats.prefix_hit_tokens, Some(4 * 32));
    // Two tokens come out, the first of which is written.
    assert_eq!(played.stats.kv_total_tokens, Some(5 * (64 + 1) - 4 * 32));
}

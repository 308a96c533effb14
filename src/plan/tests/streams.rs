//! Loads: when requests are due, how many there are, and what does not change them.

use std::path::Path;

use proptest::prelude::*;

use super::{all, arrivals, measured, planned, scenario, try_plan, under};
use crate::plan::{Expected, LoadPlan, Recipe, RecipeStream, UserCurve, WarmupPlan, plan};
use crate::record::Phase;
use crate::units::{MILLISECOND, SECOND, seconds};

#[test]
fn constant_arrivals_are_evenly_spaced_from_zero() {
    let load = r#"{"kind": "open", "rate": "10/s", "arrival": "constant", "duration": "1s"}"#;
    let recipes = all(&planned(&under(load, "")));
    assert_eq!(arrivals(&recipes), (0..10).map(|k| k * 100 * MILLISECOND).collect::<Vec<_>>());
}

#[test]
fn constant_arrivals_do_not_drift() {
    let load = r#"{"kind": "open", "rate": "3000/s", "arrival": "constant", "requests": 30001}"#;
    let due = arrivals(&all(&planned(&under(load, ""))));
    assert_eq!(due[1], 333_333);
    assert_eq!(due[30_000], 10 * SECOND);
}

#[test]
fn poisson_has_its_mean_and_its_variance() {
    let load = r#"{"kind": "open", "rate": "50/s", "requests": 40000}"#;
    let due = arrivals(&all(&planned(&under(load, ""))));
    // The time of the n-th arrival has mean n/rate and standard deviation sqrt(n)/rate.
    assert!((seconds(due[39_999]) - 800.0).abs() < 3.0 * 200.0 / 50.0, "{}", due[39_999]);
    let (mean, variance) = gap_moments(&due);
    assert!((variance / (mean * mean) - 1.0).abs() < 0.05, "{variance} against {mean}");
}

#[test]
fn gamma_gaps_have_variance_mean_squared_over_shape() {
    for shape in [0.25, 0.5, 4.0] {
        let load = format!(
            r#"{{"kind": "open", "rate": "50/s", "arrival": {{"kind": "gamma", "burstiness": {shape}}}, "requests": 40000}}"#
        );
        let due = arrivals(&all(&planned(&under(&load, ""))));
        let (mean, variance) = gap_moments(&due);
        assert!((mean * 50.0 - 1.0).abs() < 3.0 / (200.0 * f64::sqrt(shape)), "shape {shape}: mean {mean}");
        assert!((variance * shape / (mean * mean) - 1.0).abs() < 0.1, "shape {shape}: {variance}");
    }
}

/// Mean and variance of the gaps, in seconds.
fn gap_moments(due: &[u64]) -> (f64, f64) {
    let gaps: Vec<f64> = due.windows(2).map(|pair| seconds(pair[1] - pair[0])).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|gap| (gap - mean) * (gap - mean)).sum::<f64>() / gaps.len() as f64;
    (mean, variance)
}

#[test]
fn stages_of_rates() {
    let load = r#"{"kind": "stages", "arrival": "constant", "stages": [
        {"duration": "2s", "rate": "5/s"}, {"duration": "1s", "rate": "0/s"}, {"duration": "1s", "rate": "20/s"}]}"#;
    let plan = planned(&under(load, ""));
    let due = arrivals(&all(&plan));
    let first = (0..10).map(|k| k * 200 * MILLISECOND);
    let last = (0..20).map(|k| 3 * SECOND + k * 50 * MILLISECOND);
    assert_eq!(due, first.chain(last).collect::<Vec<_>>());
    let expected = Expected { warmup: Some(0), measured: Some(30), duration: Some(4 * SECOND) };
    assert_eq!(plan.expected(), expected);
}

#[test]
fn linear_stages_follow_the_inverse_cumulative_rate() {
    let load = r#"{"kind": "stages", "arrival": "constant", "stages": [
        {"duration": "10s", "rate": "10/s", "shape": "linear"}, {"duration": "10s", "rate": "0/s", "shape": "linear"}]}"#;
    let due = arrivals(&all(&planned(&under(load, ""))));
    assert_eq!(due.len(), 100);
    for (k, at) in due.iter().enumerate() {
        // Rising: k = t^2 / 2. Falling: the mirror image about 10 s.
        let k = k as f64;
        let closed = if k <= 50.0 { f64::sqrt(2.0 * k) } else { 20.0 - f64::sqrt(2.0 * (100.0 - k)) };
        assert!((seconds(*at) - closed).abs() < 2e-9, "{k}: {at} against {closed}");
    }
}

#[test]
fn stages_of_users_are_a_curve() {
    let load = r#"{"kind": "stages", "stages": [
        {"duration": "1s", "concurrency": 4}, {"duration": "2s", "concurrency": 10, "shape": "linear"}]}"#;
    let plan = planned(&under(load, r#", "warmup": {"duration": "3s"}"#));
    let curve = UserCurve::Pieces(vec![(3 * SECOND, 4, 4), (SECOND, 4, 4), (2 * SECOND, 4, 10)]);
    assert_eq!(plan.load, LoadPlan::Closed { users: curve, ramp_up: 0 });
    assert_eq!((plan.duration, plan.requests), (Some(3 * SECOND), None));
    assert_eq!(plan.expected().duration, Some(6 * SECOND));
}

#[test]
fn closed_loops_count_requests_per_user() {
    let load = r#"{"kind": "closed", "concurrency": 4, "requests": "20x", "ramp_up": "1s"}"#;
    let plan = planned(&under(load, r#", "warmup": {"requests": 5}"#));
    assert_eq!(plan.load, LoadPlan::Closed { users: UserCurve::Constant(4), ramp_up: SECOND });
    let recipes = all(&plan);
    assert_eq!(recipes.len(), 85);
    assert!(recipes.iter().all(|recipe| recipe.arrival.is_none()));
    assert_eq!(measured(&recipes).len(), 80);
    assert_eq!(plan.expected(), Expected { warmup: Some(5), measured: Some(80), duration: None });
}

#[test]
fn a_loop_that_only_time_ends_never_runs_out() {
    let load = r#"{"kind": "closed", "concurrency": 1, "duration": "1m", "think_time": "3ms"}"#;
    let plan = planned(&under(load, r#", "warmup": {"duration": "1s"}"#));
    let mut stream = plan.stream(0);
    assert!(
        stream.by_ref().take(5000).all(|recipe| recipe.phase == Phase::Warmup && recipe.think == 3_000_000)
    );
    stream.start_measuring();
    let next: Vec<Recipe> = stream.take(5000).collect();
    assert!(next.iter().zip(0..).all(|(recipe, k)| recipe.phase == Phase::Measured && recipe.index == k));
    let expected = Expected { warmup: None, measured: None, duration: Some(61 * SECOND) };
    assert_eq!(plan.expected(), expected);
}

#[test]
fn what_is_measured_does_not_depend_on_the_warmup() {
    let closed = r#"{"kind": "closed", "concurrency": 2, "requests": 50}"#;
    let plain = all(&planned(&under(closed, "")));
    let warmed = all(&planned(&under(closed, r#", "warmup": {"requests": 7}"#)));
    assert_eq!(plain, measured(&warmed));
    assert_ne!(plain[0].seed, warmed[0].seed, "the warm-up has content of its own");

    for arrival in ["\"constant\"", "\"poisson\"", r#"{"kind": "gamma", "burstiness": 0.5}"#] {
        let load = format!(r#"{{"kind": "open", "rate": "100/s", "arrival": {arrival}, "requests": 50}}"#);
        let plain = all(&planned(&under(&load, "")));
        for warmup in [r#"{"requests": 7}"#, r#"{"duration": "700ms"}"#] {
            let warmed = all(&planned(&under(&load, &format!(r#", "warmup": {warmup}"#))));
            let mut after = measured(&warmed);
            let shift = after[0].arrival.unwrap() - plain[0].arrival.unwrap();
            for recipe in &mut after {
                let moved = recipe.arrival.unwrap() - shift;
                let own = plain[recipe.index as usize].arrival.unwrap();
                assert!(moved.abs_diff(own) <= 1, "rounded at another place: {moved} against {own}");
                recipe.arrival = Some(own);
            }
            assert_eq!(plain, after);
        }
    }
}

#[test]
fn the_duration_of_an_open_load_starts_after_its_warmup() {
    let load = r#"{"kind": "open", "rate": "10/s", "arrival": "constant", "duration": "1s"}"#;
    for warmup in [r#"{"requests": 5}"#, r#"{"duration": "500ms"}"#] {
        let recipes = all(&planned(&under(load, &format!(r#", "warmup": {warmup}"#))));
        assert_eq!(arrivals(&recipes), (0..15).map(|k| k * 100 * MILLISECOND).collect::<Vec<_>>());
        assert_eq!(measured(&recipes).len(), 10);
    }
}

#[test]
fn whatever_ends_first_ends_the_load() {
    let both = |requests: u64| {
        let load = format!(
            r#"{{"kind": "open", "rate": "10/s", "arrival": "constant", "duration": "1s", "requests": {requests}}}"#
        );
        let plan = planned(&under(&load, ""));
        (all(&plan).len(), plan.expected())
    };
    let expected =
        |count, duration| Expected { warmup: Some(0), measured: Some(count), duration: Some(duration) };
    assert_eq!(both(4), (4, expected(4, 300 * MILLISECOND)));
    assert_eq!(both(40), (10, expected(10, SECOND)));
}

#[test]
fn more_than_is_worth_counting_is_told_by_its_mean() {
    let workload = r#"{"prompt": {"kind": "text", "text": "hello"}, "output": {"tokens": 1},
        "load": {"kind": "open", "rate": "1000/s", "arrival": "constant", "duration": "24h"}, "warmup": {"duration": "10s"}}"#;
    let expected = planned(workload).expected();
    let day = 86_400;
    let wanted =
        Expected { warmup: Some(10_000), measured: Some(1000 * day), duration: Some((day + 10) * SECOND) };
    assert_eq!(expected, wanted);
}

#[test]
fn repeats_draw_their_own_and_the_first_is_the_only_one() {
    let load = r#"{"kind": "open", "rate": "100/s", "requests": 20}"#;
    let (once, thrice) = (planned(&under(load, "")), planned(&under(load, r#", "repeats": 3"#)));
    assert_eq!(all(&once), all(&thrice));
    let second: Vec<Recipe> = thrice.stream(1).collect();
    assert_ne!(arrivals(&all(&thrice)), arrivals(&second));
    assert!(all(&thrice).iter().zip(&second).all(|(a, b)| a.seed != b.seed));
    let digest = |more: &str| try_plan(&under(load, more), Path::new("")).unwrap().workload_digests;
    assert_eq!(digest(""), digest(r#", "repeats": 3"#));
}

#[test]
fn points_of_a_matrix_send_the_same_prompts() {
    let mut scenario = scenario(&under(r#"{"kind": "closed", "concurrency": 1, "requests": 9}"#, ""));
    let workload = scenario.workloads["load"].clone();
    for name in ["load@1", "load@2", "other"] {
        scenario.workloads.insert(name.into(), workload.clone());
    }
    let family = |name: &str| (name.to_owned(), ("load".to_owned(), crate::plan::Point::new()));
    let families = [family("load@1"), family("load@2")].into_iter().collect();
    let plan = plan(&scenario, &families, std::path::Path::new("."), &crate::tokenizer::Mock).unwrap();
    let streams: Vec<Vec<Recipe>> = plan.workloads.iter().map(all).collect();
    assert_eq!(streams[0], streams[1]);
    assert_eq!(streams[1], streams[2]);
    assert_ne!(streams[2], streams[3]);
}

#[test]
fn cancels_come_at_their_rate_and_not_on_short_answers() {
    let load = r#"{"kind": "closed", "concurrency": 1, "requests": 4000}"#;
    let recipes = all(&planned(&under(load, r#", "cancel": {"rate": "30%", "after_tokens": 10}"#)));
    assert!(recipes.iter().all(|r| r.cancel_after.is_none_or(|after| after == 10 && r.output_tokens > 10)));
    let long = recipes.iter().filter(|recipe| recipe.output_tokens > 10).count() as f64;
    let cancelled = recipes.iter().filter(|recipe| recipe.cancel_after.is_some()).count() as f64;
    assert!((cancelled / long - 0.3).abs() < 3.0 * f64::sqrt(0.21 / long), "{cancelled} of {long}");
}

#[test]
fn a_listed_run_is_found_by_its_numbers() {
    let load = r#"{"kind": "closed", "concurrency": 1, "requests": 3}"#;
    let mut plan = planned(&under(load, r#", "repeats": 3, "warmup": {"requests": 2}"#));
    let runs: Vec<Vec<Recipe>> = (0..3).map(|repeat| plan.stream(repeat).collect()).collect();
    plan.recipes = crate::plan::RecipeSource::Listed(runs.concat().into());
    for (repeat, run) in (0..).zip(&runs) {
        assert_eq!(&plan.stream(repeat).collect::<Vec<_>>(), run);
    }
    assert_eq!(plan.stream(9).collect::<Vec<_>>(), runs[2]);
    let mut stream = plan.stream(1);
    stream.start_measuring();
    assert_eq!(stream.collect::<Vec<_>>(), measured(&runs[1]));
    plan.recipes = crate::plan::RecipeSource::Listed(Vec::new().into());
    assert_eq!(plan.stream(0).count(), 0);
}

fn loads() -> impl Strategy<Value = String> {
    let arrival = prop_oneof![
        Just("\"constant\"".to_owned()),
        Just("\"poisson\"".to_owned()),
        (0.1..5.0).prop_map(|shape| format!(r#"{{"kind": "gamma", "burstiness": {shape}}}"#)),
    ];
    let open = (1..2000_u32, arrival.clone(), 1..300_u64, 1..3000_u64).prop_map(|(rate, arrival, n, ms)| {
        format!(r#"{{"kind": "open", "rate": "{rate}/s", "arrival": {arrival}, "requests": {n}, "duration": "{ms}ms"}}"#)
    });
    let stage = (1..500_u64, 1..300_u32, prop::bool::ANY).prop_map(|(ms, rate, linear)| {
        let shape = if linear { "linear" } else { "step" };
        format!(r#"{{"duration": "{ms}ms", "rate": "{rate}/s", "shape": "{shape}"}}"#)
    });
    let stages = (prop::collection::vec(stage, 1..5), arrival).prop_map(|(stages, arrival)| {
        let stages = stages.join(", ");
        // A step in front, so that there is something to warm up with and something is sent.
        format!(
            r#"{{"kind": "stages", "arrival": {arrival}, "stages": [{{"duration": "1s", "rate": "50/s"}}, {stages}]}}"#
        )
    });
    prop_oneof![open, stages]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn open_streams_are_in_order_and_end(
        load in loads(),
        warmup in prop_oneof![
            Just(String::new()),
            (1..40_u64).prop_map(|n| format!(r#", "warmup": {{"requests": {n}}}"#)),
            (1..400_u64).prop_map(|ms| format!(r#", "warmup": {{"duration": "{ms}ms"}}"#)),
        ],
    ) {
        let text = under(&load, &warmup);
        // A short load may send nothing, which is an error of its own.
        let Ok(plan) = super::try_plan(&text, std::path::Path::new(".")) else { return Ok(()) };
        let plan = &plan.workloads[0];
        let recipes: Vec<Recipe> = plan.stream(0).take(100_000).collect();
        prop_assert!(recipes.len() < 100_000);
        let again: Vec<Recipe> = plan.stream(0).collect();
        prop_assert_eq!(&again, &recipes);
        prop_assert!(recipes.is_sorted_by_key(|recipe| recipe.arrival));
        prop_assert!(recipes.is_sorted_by_key(|recipe| recipe.phase == Phase::Measured));
        let after = measured(&recipes);
        for (at, recipe) in after.iter().enumerate() {
            prop_assert_eq!(recipe.index, at as u64);
        }
        let warm = (recipes.len() - after.len()) as u64;
        let start = match plan.warmup {
            WarmupPlan::None => 0,
            WarmupPlan::Duration(length) => length,
            WarmupPlan::Requests(count) => {
                prop_assert_eq!(warm, count);
                after[0].arrival.unwrap()
            }
        };
        for recipe in &recipes {
            let at = recipe.arrival.unwrap();
            if recipe.phase == Phase::Warmup {
                prop_assert!(at <= start);
            } else {
                prop_assert!(at >= start && at < start + plan.duration.unwrap());
            }
        }
        prop_assert!(plan.requests.is_none_or(|most| after.len() as u64 <= most));
        let expected = plan.expected();
        prop_assert_eq!(expected.measured, Some(after.len() as u64));
        prop_assert_eq!(expected.warmup, Some(warm));
    }
}

#[test]
fn a_stream_is_small() {
    assert!(size_of::<RecipeStream>() <= 256, "{}", size_of::<RecipeStream>());
}

#[test]
fn what_the_prompts_of_a_workload_share() {
    let shared = |prompt: &str, warmup: u32, measured: u64| {
        let load = r#"{"kind": "closed", "concurrency": 1, "requests": 50}"#;
        let before =
            if warmup == 0 { String::new() } else { format!(r#", "warmup": {{"requests": {warmup}}}"#) };
        let plan = planned(&format!(
            r#"{{"prompt": {prompt}, "output": {{"tokens": 40}}, "load": {load}{before}}}"#
        ));
        plan.shared_tokens(0, measured).map(|tokens| (tokens.prompt, tokens.shared))
    };
    let alone = r#"{"kind": "synthetic", "tokens": 256}"#;
    assert_eq!(shared(alone, 0, 50), Some((12_800, 0)));
    // Eight full blocks of a prefix of 130 tokens; the first request of the group finds nothing.
    let group = r#"{"kind": "synthetic", "tokens": 256, "prefix": {"tokens": 130, "groups": 1}}"#;
    assert_eq!(shared(group, 0, 50), Some((12_800, 49 * 128)));
    assert_eq!(shared(group, 0, 10), Some((2_560, 9 * 128)));
    assert_eq!(shared(group, 3, 10), Some((2_560, 10 * 128)), "the warm-up has filled the cache");
    let text = r#"{"kind": "text", "text": "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"}"#;
    let (prompt, found) = shared(text, 0, 3).unwrap();
    assert_eq!((prompt % 3, found), (0, 2 * (prompt / 3 / 16 * 16)), "a text is its own prefix");
}

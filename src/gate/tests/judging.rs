//! Verdicts on single rules.

use super::super::Verdict::{self, Fail, Inconclusive, NoData as Nothing, Pass};
use super::super::config::{Confidence, NoData};
use super::super::{Side, explain, judge};
use super::{Made, judged, judged_at};
use crate::rule::{Op, parse};
use crate::sample::Draws;
use crate::stats;

/// P(K ≤ k) and P(K ≥ k) for K hits of probability p among n, by going through all 2^n sequences.
fn enumerated(n: u32, p: f64, k: u32) -> (f64, f64) {
    let (mut below, mut above) = (0.0, 0.0);
    for sequence in 0..1_u32 << n {
        let hits = sequence.count_ones();
        let probability = libm::pow(p, f64::from(hits)) * libm::pow(1.0 - p, f64::from(n - hits));
        below += if hits <= k { probability } else { 0.0 };
        above += if hits >= k { probability } else { 0.0 };
    }
    (below, above)
}

#[test]
fn quantile_verdicts_are_those_of_direct_enumeration() {
    for n in 1..=10_u32 {
        for (q, name) in [(0.5, "p50"), (0.9, "p90"), (0.05, "p5"), (0.3, "p30")] {
            for (op, strict) in [("<", true), ("<=", false), (">", false), (">=", true)] {
                for under in 0..=n {
                    // `under` values under the limit of 10, the rest on its other side: exactly at it where that matters.
                    let (low, high) = if strict { (9.0, 10.0) } else { (10.0, 11.0) };
                    let values = (0..n).map(|at| if at < under { low } else { high });
                    let found = judged(&format!("{name}(ttft) {op} 10ms"), &Made::of_samples(values));
                    // At the edge a value is under the limit with probability q. That many or more under it speak for
                    // an upper limit, that many or fewer for a lower one.
                    let (fewer, more) = enumerated(n, q, under);
                    let (speaks_for, speaks_against) =
                        if op.starts_with('<') { (more, fewer) } else { (fewer, more) };
                    let expected =
                        match (stats::is_within(speaks_for, 0.05), stats::is_within(speaks_against, 0.05)) {
                            (true, _) => Pass,
                            (_, true) => Fail,
                            _ => Inconclusive,
                        };
                    assert_eq!(found.verdict, expected, "{name} {op}, {under} of {n} under");
                    assert_eq!(found.reason.is_some(), expected == Inconclusive);
                }
            }
        }
    }
}

#[test]
fn share_verdicts_are_those_of_direct_enumeration() {
    for n in 1..=10_u32 {
        for (limit, text) in [(0.1, "10%"), (0.5, "50%"), (0.8, "80%")] {
            for op in ["<", "<=", ">", ">="] {
                for hits in 0..=n {
                    let found = judged(
                        &format!("error_rate {op} {text}"),
                        &Made::of_events(hits as usize, n as usize),
                    );
                    let (fewer, more) = enumerated(n, limit, hits);
                    let (speaks_for, speaks_against) =
                        if op.starts_with('<') { (fewer, more) } else { (more, fewer) };
                    let expected =
                        match (stats::is_within(speaks_for, 0.05), stats::is_within(speaks_against, 0.05)) {
                            (true, _) => Pass,
                            (_, true) => Fail,
                            _ => Inconclusive,
                        };
                    assert_eq!(found.verdict, expected, "error_rate {op} {text}, {hits} of {n}");
                }
            }
        }
    }
}

#[test]
fn a_limit_and_its_contrary_never_agree() {
    for under in 0..=80 {
        let made = Made::of_samples((0..80).map(|at| if at < under { 9.0 } else { 10.0 }));
        for (one, other) in
            [("p90(ttft) < 10ms", "p90(ttft) >= 10ms"), ("p5(ttft) <= 9.5ms", "p5(ttft) > 9.5ms")]
        {
            let pair = (judged(one, &made).verdict, judged(other, &made).verdict);
            assert!(
                matches!(pair, (Pass, Fail) | (Fail, Pass) | (Inconclusive, Inconclusive)),
                "{one}: {pair:?}"
            );
        }
    }
}

#[test]
fn the_smallest_samples_that_pass() {
    let of = |n| Made::of_samples(std::iter::repeat_n(5.0, n));
    let reach = |rule: &str, n: usize| {
        assert_eq!(judged(rule, &of(n)).verdict, Pass, "{rule} at {n}");
        let short = judged(rule, &of(n - 1));
        assert_eq!(short.verdict, Inconclusive, "{rule} at {}", n - 1);
        let expected = format!("{} samples are too few to pass at 95%, which takes {n}", n - 1);
        assert_eq!(short.reason.as_deref(), Some(expected.as_str()));
    };
    reach("p95(ttft) < 10ms", 59);
    reach("p99(ttft) <= 10ms", 299);
    reach("p5(ttft) >= 1ms", 59);
    reach("med(ttft) < 10ms", 5);
    assert_eq!(judged("error_rate <= 1%", &Made::of_events(0, 299)).verdict, Pass);
    assert_eq!(judged("error_rate <= 1%", &Made::of_events(0, 298)).verdict, Inconclusive);
    assert_eq!(judged("share(ttft <= 1s) >= 99%", &Made::of_events(299, 299)).verdict, Pass);
}

#[test]
fn an_inconclusive_rule_says_what_a_verdict_takes() {
    let made = Made::of_samples((0..150).map(|at| if at % 50 == 49 { 20.0 } else { 5.0 }));
    let found = judged("p95(ttft) < 10ms", &made);
    assert_eq!(found.verdict, Inconclusive);
    assert_eq!(
        found.reason.as_deref(),
        Some("3 of 150 break the limit; at 95% a pass allows 2 at most and a failure takes 13")
    );
    let with = |over: usize| {
        judged("p95(ttft) < 10ms", &Made::of_samples((0..150).map(|at| if at < over { 20.0 } else { 5.0 })))
    };
    let verdicts = [2, 3, 12, 13].map(|over| with(over).verdict);
    assert_eq!(verdicts, [Pass, Inconclusive, Inconclusive, Fail]);
}

#[test]
fn a_decided_rule_has_its_limit_outside_the_interval() {
    let mut draws = Draws::new(3, "values", 0);
    for round in 0..60 {
        let made = Made::of_samples((0..150).map(|_| draws.exponential() * 10.0));
        let limit = 10.0 + f64::from(round);
        for rule in [format!("p90(ttft) < {limit}ms"), format!("p90(ttft) >= {limit}ms")] {
            let found = judged(&rule, &made);
            let [low, high] = found.interval.unwrap();
            assert!(low <= found.value.unwrap() && found.value.unwrap() <= high);
            assert_eq!(found.verdict == Inconclusive, low < limit && limit <= high, "{rule}: {found:?}");
            assert!((found.interval_level.unwrap() - 0.9).abs() < 1e-12);
        }
        let found = judged("error_rate <= 20%", &Made::of_events(round as usize, 120));
        let [low, high] = found.interval.unwrap();
        assert_eq!(found.verdict == Inconclusive, low < 0.2 && 0.2 < high, "{found:?}");
    }
}

#[test]
fn nothing_and_everything_are_exact() {
    for (rule, hits, verdict) in [
        ("error_rate == 0", 0, Pass),
        ("error_rate == 0", 1, Fail),
        ("error_rate <= 0%", 0, Pass),
        ("error_rate <= 0%", 1, Fail),
        ("error_rate > 0%", 1, Pass),
        ("error_rate != 0", 0, Fail),
        ("slo_share == 100%", 20, Pass),
        ("slo_share >= 100%", 19, Fail),
        ("slo_share < 100%", 19, Pass),
    ] {
        let found = judged(rule, &Made::of_events(hits, 20));
        assert_eq!((found.verdict, found.method.as_str()), (verdict, "exact"), "{rule} with {hits} of 20");
    }
    // None of 20 failed: the true rate is below 1 − 0.05^(1/20), about 3/20.
    let [low, high] = judged("error_rate == 0", &Made::of_events(0, 20)).interval.unwrap();
    assert!(low.abs() < 1e-12 && (high - (1.0 - libm::pow(0.05, 0.05))).abs() < 1e-9, "{low} {high}");
}

#[test]
fn a_deterministic_run_is_judged_exactly() {
    let made =
        Made { deterministic: true, events: vec![false; 5], ..Made::of_samples([1.0, 2.0, 3.0, 4.0, 5.0]) };
    for (rule, verdict) in [
        ("p99(ttft) <= 5ms", Pass),
        ("p99(ttft) < 5ms", Fail),
        ("error_rate <= 1%", Pass),
        ("avg(ttft) < 3ms", Fail),
    ] {
        let found = judged(rule, &made);
        assert_eq!(
            (found.verdict, found.method.as_str(), found.interval),
            (verdict, "exact", None),
            "{rule}"
        );
    }
}

#[test]
fn without_confidence_the_point_decides_and_the_interval_is_still_given() {
    let made = Made::of_samples((0..100).map(f64::from));
    let found = judged_at("p50(ttft) < 50ms", Confidence::None, NoData::Fail, &made);
    assert_eq!((found.verdict, found.method.as_str(), found.value), (Pass, "point", Some(49.0)));
    assert_eq!(found.interval, Some([41.0, 58.0]));
    let few = judged_at("p99(ttft) < 5ms", Confidence::None, NoData::Fail, &Made::of_samples([1.0, 2.0]));
    assert_eq!((few.verdict, few.interval, few.interval_level, few.samples), (Pass, None, None, Some(2)));
}

#[test]
fn aggregates() {
    let made = Made { samples: vec![(2.0, 1), (4.0, 3), (5.0, 2), (7.0, 1), (9.0, 1)], ..Made::default() };
    let root = libm::sqrt(32.0 / 7.0);
    for (rule, value, method) in [
        ("avg(ttft) <= 9ms", 5.0, "t, approximate at 95%"),
        ("stddev(ttft) <= 5ms", root, "point"),
        ("min(ttft) <= 5ms", 2.0, "exact"),
        ("max(ttft) <= 9ms", 9.0, "exact"),
        ("sum(ttft) <= 40ms", 40.0, "exact"),
        ("count(ttft) <= 8", 8.0, "exact"),
    ] {
        let found = judged(rule, &made);
        assert_eq!(
            (found.verdict, found.value, found.method.as_str()),
            (Pass, Some(value), method),
            "{rule}"
        );
        assert_eq!(found.samples, Some(8));
    }
    let units = ["avg(ttft) <= 5ms", "count(ttft) <= 8", "sum(output_tokens) >= 1", "avg(throughput) > 1/s"];
    assert_eq!(units.map(|rule| judged(rule, &made).unit), ["ms", "", "tokens", "tok/s"]);
}

#[test]
fn one_number_is_judged_by_the_point_and_a_count_exactly() {
    let made = Made { number: Some(0.0), ..Made::default() };
    let of = |rule: &str| {
        let found = judged(rule, &made);
        (found.verdict, found.method, found.samples)
    };
    assert_eq!(of("peak_mem <= 32GiB"), (Pass, "point (1 run)".to_owned(), None));
    assert_eq!(of("evict_count == 0"), (Pass, "exact".to_owned(), None));
    assert_eq!(of("prefix_hit_rate >= 70%"), (Fail, "point (1 run)".to_owned(), None));
}

#[test]
fn one_number_is_judged_by_how_repeats_differ() {
    let of = |repeats: &[f64], rule: &str| {
        let made = Made { number: Some(100.0), repeats: repeats.to_vec(), ..Made::default() };
        let found = judged(rule, &made);
        (found.verdict, found.method)
    };
    // The mean is 100 and its 95 % bound t(0.05, 4)·s/√5 = 2.132 · 2/√5 = 1.907 away.
    let five = [98.0, 102.0, 98.0, 102.0, 100.0];
    assert_eq!(of(&five, "output_throughput >= 98/s"), (Pass, "t over 5 runs at 95%".to_owned()));
    assert_eq!(of(&five, "output_throughput >= 98.2/s").0, Inconclusive);
    assert_eq!(of(&five, "output_throughput >= 101.8/s").0, Inconclusive);
    assert_eq!(of(&five, "output_throughput >= 102/s").0, Fail);
    assert_eq!(of(&five[..2], "output_throughput >= 100/s"), (Pass, "point (2 runs)".to_owned()));
}

#[test]
fn means_pass_and_fail_by_their_interval() {
    // Mean 10, s = 2.108 (sum of squares 40 over 9), error 0.667: 95 % bounds 10 ± 1.833 · 0.667 = 1.222.
    let ten = Made::of_samples((0..10).map(|at| if at % 2 == 0 { 8.0 } else { 12.0 }));
    for (limit, expected) in [(8.7, Fail), (8.9, Inconclusive), (11.2, Inconclusive), (11.3, Pass)] {
        let found = judged(&format!("avg(ttft) <= {limit}ms"), &ten);
        assert_eq!((found.verdict, found.reason.is_some()), (expected, expected == Inconclusive), "{limit}");
    }
    assert_eq!(judged("avg(ttft) >= 8.7ms", &ten).verdict, Pass);
    assert_eq!(judged("avg(ttft) <= 5ms", &Made::of_samples([5.0])).verdict, Inconclusive);
    assert_eq!(
        judged_at("avg(ttft) <= 5ms", Confidence::None, NoData::Fail, &Made::of_samples([5.0])).verdict,
        Pass
    );
    let many = Made::of_samples((0..400).map(|at| f64::from(at % 7)));
    assert_eq!(judged("avg(ttft) <= 4ms", &many).method, "batch means at 95%");
    let gaps = Made { unordered: true, ..Made::of_samples((0..50).map(|at| f64::from(at % 3))) };
    assert_eq!(judged("avg(tbt) <= 2ms", &gaps).method, "t over requests at 95%");
}

#[test]
fn references_in_words() {
    let side = |values: &[f64]| Side { values: values.to_vec(), interval: None, exact: false };
    let of = |rule: &str, repeats: &[f64], theirs: &[f64]| {
        let made = Made { number: repeats.first().copied(), repeats: repeats.to_vec(), ..Made::default() };
        let parsed = parse(rule).unwrap();
        let case = super::case(&parsed, rule);
        let found = judge(&case, &made, Ok(&side(theirs)));
        format!("{} {} {}", found.verdict, if found.decides { "decides" } else { "warns" }, explain(&found))
    };
    let lines = [
        of("output_throughput >= main - 3%", &[97.0, 98.5, 96.0], &[99.0, 101.0, 100.0]),
        of("output_throughput >= main - 10%", &[97.0, 98.5, 96.0], &[99.0, 101.0, 100.0]),
        of("peak_mem <= main + 1GiB", &[9000.0, 9000.0], &[7000.0, 7000.0]),
        of("peak_mem <= main", &[9000.0], &[7000.0]),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r"
    INCONCLUSIVE decides measured 97.17 tok/s against 100 tok/s in `main`, -2.833% (90% interval -4.807% to -0.8235%; Welch's t over repeats, 3 runs against 3): what is allowed lies within the interval; more `repeats` on both sides narrow it
    PASS decides measured 97.17 tok/s against 100 tok/s in `main`, -2.833% (90% interval -4.807% to -0.8235%; Welch's t over repeats, 3 runs against 3)
    FAIL decides measured 9,000 MiB against 7,000 MiB in `main`, +28.57% (Welch's t over repeats, 2 runs against 2)
    FAIL warns measured 9,000 MiB against 7,000 MiB in `main`, +28.57% (point, 1 run against 1): how much runs differ is not known from one on each side, so this only warns; set `repeats` on both, or `allow_single_run: true`
    ");
}

#[test]
fn nothing_measured_is_never_a_pass() {
    let nothing = Made::default();
    for rule in [
        "p99(ttft) < 1s",
        "avg(ttft) < 1s",
        "sum(ttft) < 1s",
        "max(ttft) < 1s",
        "error_rate <= 5%",
        "peak_mem <= 1GiB",
    ] {
        let found = judged(rule, &nothing);
        assert_eq!((found.verdict, found.value, found.decides), (Nothing, None, true), "{rule}");
        assert!(found.reason.is_some() && found.interval.is_none());
    }
    let one = judged("stddev(ttft) < 1s", &Made::of_samples([1.0]));
    assert_eq!(one.reason.as_deref(), Some("a standard deviation needs two values, and there is one"));
    // A count of nothing is a number.
    assert_eq!(judged("count(ttft) <= 5 where ttft > 1s", &nothing).verdict, Pass);
    for (no_data, reason) in [
        (NoData::Warn, "the server does not export it"),
        (NoData::Skip, "the server does not export it; left out, as the rule says `no_data: skip`"),
    ] {
        let found = judged_at("peak_mem <= 1GiB", Confidence::None, no_data, &nothing);
        assert_eq!((found.verdict, found.decides, found.reason.as_deref()), (Nothing, false, Some(reason)));
    }
}

#[test]
fn alike_neighbours_count_for_less() {
    // 30 of 1000 over the limit of a p95: spread evenly that passes, in one stretch it says little.
    let spread = Made::of_samples((0..1000).map(|at| if at % 33 == 0 && at > 0 { 20.0 } else { 5.0 }));
    let stretch = Made::of_samples((0..1000).map(|at| if (480..510).contains(&at) { 20.0 } else { 5.0 }));
    let rule = "p95(ttft) < 10ms";
    let (free, bound) = (judged(rule, &spread), judged(rule, &stretch));
    assert_eq!((free.verdict, free.effective_samples), (Pass, None));
    assert_eq!(free.method, "binomial test at 95%");
    assert_eq!(bound.verdict, Inconclusive);
    let effective = bound.effective_samples.unwrap();
    assert!(effective < 100, "{effective}");
    assert_eq!(bound.method, format!("binomial test at 95%, n = 1000 (effective {effective})"));
    assert_eq!(bound.samples, Some(1000));
    // Below 200 nobody looks.
    let few = Made::of_samples((0..199).map(|at| if at < 3 { 20.0 } else { 5.0 }));
    assert_eq!(judged(rule, &few).effective_samples, None);
}

#[test]
fn pooled_gaps_count_as_often_as_they_say() {
    let made = Made { samples: vec![(5.0, 296), (5.1, 300), (50.0, 1)], ..Made::default() };
    let found = judged("p99(tbt) < 10ms", &made);
    assert_eq!((found.samples, found.value), (Some(597), Some(5.1)));
    assert_eq!((found.verdict, found.method.as_str()), (Pass, "binomial test at 95%"));
    let found = judged("p99(tbt) < 10ms", &Made { unordered: true, ..made });
    assert_eq!((found.verdict, found.method.as_str(), found.interval), (Pass, "point", None));
}

/// How often a rule passes and fails over seeded rounds.
fn curve(rounds: u64, rule: &str, sample: impl Fn(&mut Draws) -> Made) -> (f64, f64) {
    let (mut passed, mut failed) = (0, 0);
    for round in 0..rounds {
        match judged(rule, &sample(&mut Draws::new(round, "curve", 0))).verdict {
            Pass => passed += 1,
            Fail => failed += 1,
            Inconclusive | Nothing => {}
        }
    }
    (f64::from(passed) / rounds as f64, f64::from(failed) / rounds as f64)
}

#[test]
fn errors_are_as_rare_as_promised() {
    let exponential =
        |mean: f64| move |draws: &mut Draws| Made::of_samples((0..150).map(|_| mean * draws.exponential()));
    // The p90 of an exponential is its mean times ln 10.
    let edge = 10.0 / libm::log(10.0);
    let rule = "p90(ttft) <= 10ms";
    let (passed, failed) = curve(400, rule, exponential(edge));
    // 5 % and two standard errors of 400 rounds.
    assert!(passed <= 0.072 && failed <= 0.072, "at the edge {passed} pass and {failed} fail");
    let (passed, failed) = curve(100, rule, exponential(edge * 0.6));
    assert!(passed >= 0.95 && failed == 0.0, "well inside {passed} pass and {failed} fail");
    let (passed, failed) = curve(100, rule, exponential(edge * 1.6));
    assert!(passed == 0.0 && failed >= 0.95, "well outside {passed} pass and {failed} fail");
}

#[test]
fn shares_means_and_repeats_are_seldom_wrong_at_the_edge() {
    const ROUNDS: u64 = 400;
    let edge = |name: &str, (passed, failed): (f64, f64), allowed: f64| {
        assert!(passed <= allowed && failed <= allowed, "{name}: {passed} pass and {failed} fail");
    };
    let failing = |draws: &mut Draws| {
        let events = (0..300).map(|_| draws.unit() < 0.05).collect();
        Made { events, ..Made::default() }
    };
    edge("error_rate", curve(ROUNDS, "error_rate <= 5%", failing), 0.072);
    let normal =
        |n: usize| move |draws: &mut Draws| Made::of_samples((0..n).map(|_| 100.0 + 5.0 * draws.normal()));
    edge("a mean of 30", curve(ROUNDS, "avg(ttft) <= 100ms", normal(30)), 0.072);
    edge("a mean of 400", curve(ROUNDS, "avg(ttft) <= 100ms", normal(400)), 0.072);
    // Five runs whose throughput differs by 3 %.
    let five = |draws: &mut Draws| {
        let repeats = (0..5).map(|_| 100.0 + 3.0 * draws.normal()).collect();
        Made { number: Some(100.0), repeats, ..Made::default() }
    };
    edge("repeats", curve(ROUNDS, "output_throughput >= 100/s", five), 0.072);
    let (passed, failed) = curve(ROUNDS, "output_throughput >= 90/s", five);
    assert!(passed >= 0.95 && failed == 0.0, "well inside {passed} pass and {failed} fail");
}

/// Waits of M/M/1 by Lindley's recursion, after 500 that are left out.
fn queue(load: f64, n: usize) -> impl Fn(&mut Draws) -> Made {
    move |draws| {
        let mut wait = 0.0_f64;
        let mut waits = Vec::new();
        for at in 0..n + 500 {
            if at >= 500 {
                waits.push(wait);
            }
            wait = (wait + draws.exponential() - draws.exponential() / load).max(0.0);
        }
        Made::of_samples(waits)
    }
}

#[test]
fn in_a_queue_errors_are_as_rare_as_promised() {
    const ROUNDS: u64 = 200;
    for (load, n) in [(0.8, 1000), (0.5, 1000)] {
        for (name, over) in [("p50", 0.5), ("p90", 0.1), ("p99", 0.01)] {
            // P(W > t) = load · exp(−(1 − load) t).
            let limit = libm::log(load / over) / (1.0 - load);
            if limit <= 0.0 {
                continue;
            }
            let rule = format!("{name}(queue_delay) <= {limit}ms");
            let naive = std::cell::Cell::new(0);
            let (passed, failed) = curve(ROUNDS, &rule, |draws| {
                let made = queue(load, n)(draws);
                let t = made.samples.iter().filter(|(wait, _)| *wait > limit).count() as u64;
                let (n, alpha) = (n as u64, 0.05);
                let decided = stats::at_most(n, over, t) <= alpha || stats::at_least(n, over, t) <= alpha;
                naive.set(naive.get() + u32::from(decided));
                made
            });
            // 5 % and two and a half standard errors of 200 rounds.
            assert!(passed <= 0.089 && failed <= 0.089, "{name} at {load}: {passed} pass and {failed} fail");
            let naive = f64::from(naive.get()) / ROUNDS as f64;
            assert!(naive >= 0.25, "{name} at {load}: without the design effect {naive} are decided");
            println!(
                "{name} at load {load}: {passed} pass, {failed} fail; {naive} without the design effect"
            );
        }
    }
    // With the smallest sample that can pass, three requests are expected beyond the limit: too few to show that they come
    // together. A share of requests within the limit asks the same.
    for (load, n) in [(0.3, 300), (0.5, 300), (0.8, 300), (0.8, 1000)] {
        let limit = libm::log(load / 0.01) / (1.0 - load);
        let (passed, failed) = curve(ROUNDS, &format!("p99(queue_delay) <= {limit}ms"), queue(load, n));
        println!("p99 of {n} at load {load}: {passed} pass, {failed} fail");
        assert!(passed <= 0.089 && failed <= 0.089, "p99 of {n} at {load}: {passed} pass and {failed} fail");
        let share = format!("share(queue_delay <= {limit}ms) >= 99%");
        let (passed, failed) = curve(ROUNDS, &share, |draws| {
            let made = queue(load, n)(draws);
            Made { events: made.samples.iter().map(|(wait, _)| *wait <= limit).collect(), ..made }
        });
        println!("share of {n} at load {load}: {passed} pass, {failed} fail");
        assert!(
            passed <= 0.089 && failed <= 0.089,
            "share of {n} at {load}: {passed} pass and {failed} fail"
        );
    }
    // A mean: that of W is load/(1 − load).
    let (passed, failed) = curve(ROUNDS, "avg(queue_delay) <= 4ms", queue(0.8, 1000));
    assert!(passed <= 0.1 && failed <= 0.081, "avg: {passed} pass and {failed} fail");
    println!("avg at load 0.8: {passed} pass, {failed} fail");
    let (passed, failed) = curve(ROUNDS, "avg(queue_delay) <= 1ms", queue(0.5, 1000));
    assert!(passed <= 0.081 && failed <= 0.081, "avg at 0.5: {passed} pass and {failed} fail");
    let (passed, failed) = curve(ROUNDS, "avg(queue_delay) <= 3ms", queue(0.5, 1000));
    assert!(passed >= 0.9 && failed == 0.0, "avg well inside: {passed} pass and {failed} fail");
}

#[test]
fn every_comparison_of_a_number() {
    let of = |op: &str, value: f64| {
        judged(&format!("evict_count {op} 3"), &Made { number: Some(value), ..Made::default() }).verdict
    };
    for (op, kind) in
        [("<", Op::Lt), ("<=", Op::Le), (">", Op::Gt), (">=", Op::Ge), ("==", Op::Eq), ("!=", Op::Ne)]
    {
        for value in [2.0, 3.0, 4.0] {
            let expected: Verdict = if kind.holds(value, 3.0) { Pass } else { Fail };
            assert_eq!(of(op, value), expected, "{value} {op} 3");
        }
    }
}

/// The table of the documentation: rule, requests, how many of them are beyond the limit, verdict.
#[test]
fn the_documented_verdicts_are_those_that_are_given() {
    let page = include_str!("../../../docs/verdicts.md");
    let mut rows = 0;
    for line in page.lines().filter(|line| line.starts_with("| p9") || line.starts_with("| error_rate")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [rule, n, beyond, verdict] = cells[..] else { panic!("{line}") };
        let (n, beyond): (usize, usize) = (n.parse().unwrap(), beyond.parse().unwrap());
        let made = if rule.starts_with("error_rate") {
            Made::of_events(beyond, n)
        } else {
            Made::of_samples((0..n).map(|at| if at < beyond { 300.0 } else { 100.0 }))
        };
        assert_eq!(judged(rule, &made).verdict.to_string(), verdict, "{line}");
        rows += 1;
    }
    assert_eq!(rows, 13);
    // The worked comparison.
    let ours = [20.1, 20.9, 19.8, 20.4, 20.6];
    let theirs = Side { values: vec![18.9, 19.3, 19.1, 18.7, 19.0], interval: None, exact: false };
    for (rule, verdict) in
        [("avg_mem <= main", Fail), ("avg_mem <= main + 12%", Pass), ("avg_mem <= main + 5%", Inconclusive)]
    {
        let made = Made { number: Some(20.0), repeats: ours.to_vec(), ..Made::default() };
        let parsed = parse(rule).unwrap();
        assert_eq!(judge(&super::case(&parsed, rule), &made, Ok(&theirs)).verdict, verdict, "{rule}");
    }
}

//! Prompts: lengths, rows, traces, texts and digests.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::{all, arrivals, measured, planned, scenario, try_plan, under};
use crate::plan::{Plan, Prefix, PromptRecipe, Recipe, Recorded, WorkloadPlan, plan, table, text};
use crate::tokenizer::{Mock, Tokenizer};
use crate::units::{MILLISECOND, SECOND};

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn in_folder(files: &[(&str, &str)], workload: &str) -> WorkloadPlan {
    let dir = folder(files);
    try_plan(workload, dir.path()).unwrap().workloads.remove(0)
}

fn texts(recipes: &[Recipe]) -> Vec<String> {
    recipes.iter().map(|recipe| text(recipe, &Mock)).collect()
}

#[test]
fn synthetic_texts_have_exactly_the_tokens_asked_for() {
    let load = r#"{"kind": "closed", "concurrency": 1, "requests": 200}"#;
    let recipes = all(&planned(&under(load, "")));
    let texts = texts(&recipes);
    for (recipe, text) in recipes.iter().zip(&texts) {
        assert_eq!(Mock.count(text), recipe.prompt.tokens());
    }
    assert_eq!(texts.iter().collect::<BTreeSet<_>>().len(), 200, "no two are equal");
}

#[test]
fn groups_share_text_and_blocks() {
    let recipes = all(&planned(
        r#"{"prompt": {"kind": "synthetic", "tokens": 96, "prefix": {"tokens": 40, "groups": 3}},
            "output": {"max_tokens": 7}, "load": {"kind": "closed", "concurrency": 1, "requests": 60},
            "warmup": {"requests": 20}}"#,
    ));
    let texts = texts(&recipes);
    let prefixes: Vec<Prefix> = recipes
        .iter()
        .map(|recipe| match recipe.prompt {
            PromptRecipe::Synthetic { prefix: Some(prefix), .. } => prefix,
            _ => panic!("a prefix was asked for"),
        })
        .collect();
    let groups: BTreeSet<u64> = prefixes.iter().map(|prefix| prefix.seed).collect();
    assert_eq!(groups.len(), 3, "warm-up and measuring draw from the same groups");
    assert!(recipes.iter().all(|recipe| !recipe.forced && recipe.output_tokens == 7));
    for a in 0..recipes.len() {
        assert_eq!(Mock.count(&texts[a]), 96);
        for b in 0..a {
            let (left, right) = (Mock.encode(&texts[a]), Mock.encode(&texts[b]));
            let common = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
            if prefixes[a].seed == prefixes[b].seed {
                assert!((40..48).contains(&common), "{common} tokens in common");
            } else {
                assert!(common < 8, "{common} tokens in common");
            }
            for block in 0..6 {
                let same = recipes[a].block(block, 16) == recipes[b].block(block, 16);
                assert_eq!(same, block < 2 && prefixes[a].seed == prefixes[b].seed);
            }
        }
    }
}

#[test]
fn trace_blocks_render_to_shared_text() {
    let rows = r#"{"timestamp": 0, "input_length": 40, "output_length": 3, "hash_ids": [1, 2, 3]}
{"timestamp": 5, "input_length": 45, "output_length": 4, "hash_ids": [1, 2, 9]}"#;
    let recipes = all(&in_folder(&[("t", rows)], &replay(r#""format": "mooncake", "block_tokens": 16"#, "")));
    let texts = texts(&recipes);
    assert_eq!((Mock.count(&texts[0]), Mock.count(&texts[1])), (40, 45));
    let (left, right) = (Mock.encode(&texts[0]), Mock.encode(&texts[1]));
    assert_eq!(left[..32], right[..32]);
    assert_ne!(left[32..40], right[32..40]);
    assert_eq!(recipes[0].block(1, 16), recipes[1].block(1, 16));
    assert_eq!((recipes[0].output_tokens, recipes[0].forced), (3, true));
}

/// A replay of the trace `t`.
fn replay(prompt: &str, load: &str) -> String {
    format!(r#"{{"prompt": {{"kind": "trace", "path": "t", {prompt}}}, "load": {{"kind": "replay"{load}}}}}"#)
}

fn file_workload(prompt: &str, requests: u64, more: &str) -> String {
    format!(
        r#"{{"prompt": {{"kind": "file", "path": "p", "format": "jsonl"{prompt}}}, "output": {{"tokens": 5}},
            "load": {{"kind": "closed", "concurrency": 1, "requests": {requests}}}{more}}}"#
    )
}

fn ten_rows() -> String {
    (0..10).fold(String::new(), |mut rows, row| {
        writeln!(rows, r#"{{"prompt": "row {row}", "n": {}}}"#, row + 20).unwrap();
        rows
    })
}

#[test]
fn rows_come_in_order_again_and_again() {
    let rows = ten_rows();
    let recipes = all(&in_folder(&[("p", &rows)], &file_workload("", 23, r#", "warmup": {"requests": 2}"#)));
    let texts = texts(&recipes);
    assert_eq!(texts[..2], ["row 9", "row 8"], "the warm-up takes the last rows");
    let wanted: Vec<String> = (0..23).map(|k| format!("row {}", k % 10)).collect();
    assert_eq!(texts[2..], wanted[..]);
    assert!(recipes.iter().all(|recipe| recipe.output_tokens == 5 && recipe.forced));
    assert_eq!(recipes[0].prompt.tokens(), 3);
}

#[test]
fn each_pass_shuffles_anew() {
    let rows = ten_rows();
    let prompt = r#", "order": "shuffle", "fields": {"output_tokens": "n"}"#;
    let plan = in_folder(&[("p", &rows)], &file_workload(prompt, 30, r#", "warmup": {"requests": 10}"#));
    let recipes = all(&plan);
    for recipe in &recipes {
        let row: u32 = text(recipe, &Mock)[4..].parse().unwrap();
        assert_eq!(recipe.output_tokens, row + 20);
    }
    let passes: Vec<Vec<u32>> = recipes
        .chunks(10)
        .map(|pass| pass.iter().map(|recipe| recipe.output_tokens - 20).collect())
        .collect();
    for pass in &passes {
        assert_eq!(pass.iter().collect::<BTreeSet<_>>().len(), 10);
        assert!(!pass.is_sorted());
    }
    assert_ne!(passes[1], passes[2]);
    let reversed: Vec<u32> = passes[0].iter().rev().copied().collect();
    assert_eq!(reversed, passes[1], "the warm-up takes the first pass from its end");
    assert_eq!(recipes, all(&plan));
}

#[test]
fn rows_that_do_not_wrap_bound_the_plan() {
    let rows = ten_rows();
    let once = r#", "wrap": false"#;
    let recipes = all(&in_folder(&[("p", &rows)], &file_workload(once, 8, r#", "warmup": {"requests": 2}"#)));
    assert_eq!(texts(&recipes).iter().collect::<BTreeSet<_>>().len(), 10);
    let by_time = file_workload(once, 8, "").replace(r#""requests": 8"#, r#""duration": "1m""#);
    assert_eq!(in_folder(&[("p", &rows)], &by_time).requests, Some(10));
}

const SECONDS: &str = r#""format": "jsonl", "fields": {"timestamp": "t", "timestamp_unit": "s", "prompt_tokens": "p", "output_tokens": "o"}"#;

/// Ten rows, one a second from 100 s, of 10 + k prompt and 20 output tokens.
fn ten_seconds() -> String {
    (0..10).fold(String::new(), |mut rows, k| {
        writeln!(rows, r#"{{"t": {}, "p": {}, "o": 20}}"#, 100 + k, 10 + k).unwrap();
        rows
    })
}

fn prompt_tokens(recipes: &[Recipe]) -> Vec<u32> {
    recipes.iter().map(|recipe| recipe.prompt.tokens()).collect()
}

#[test]
fn replay_keeps_the_times_and_divides_them_by_its_speed() {
    let rows = ten_seconds();
    let recipes = all(&in_folder(&[("t", &rows)], &replay(SECONDS, "")));
    assert_eq!(arrivals(&recipes), (0..10).map(|k| k * SECOND).collect::<Vec<_>>());
    assert_eq!(prompt_tokens(&recipes), (10..20).collect::<Vec<_>>());
    let recipes = all(&in_folder(&[("t", &rows)], &replay(SECONDS, r#", "speed": 4, "duration": "1s""#)));
    assert_eq!(arrivals(&recipes), (0..4).map(|k| k * 250 * MILLISECOND).collect::<Vec<_>>());
    let ends = |load: &str| {
        let plan = in_folder(&[("t", &rows)], &replay(SECONDS, load));
        (plan.duration, plan.expected().duration)
    };
    assert_eq!(ends(r#", "duration": "8500ms""#), (Some(8500 * MILLISECOND), Some(8500 * MILLISECOND)));
    assert_eq!(ends(r#", "duration": "1h""#), (None, Some(9 * SECOND)), "the trace ends first");
    assert_eq!(ends(r#", "requests": 4"#), (None, Some(3 * SECOND)));
}

#[test]
fn a_replay_warms_up_with_its_first_part() {
    let rows = ten_seconds();
    for warmup in [r#"{"requests": 3}"#, r#"{"duration": "3s"}"#] {
        let workload = replay(SECONDS, r#", "duration": "5s""#);
        let workload = format!(r#"{}, "warmup": {warmup}}}"#, workload.strip_suffix('}').unwrap());
        let recipes = all(&in_folder(&[("t", &rows)], &workload));
        assert_eq!(arrivals(&recipes), (0..8).map(|k| k * SECOND).collect::<Vec<_>>());
        assert_eq!(prompt_tokens(&recipes), (10..18).collect::<Vec<_>>());
        assert_eq!(measured(&recipes).iter().map(|recipe| recipe.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}

#[test]
fn windows_limits_and_long_rows() {
    let rows = ten_seconds();
    let with = |more: &str| in_folder(&[("t", &rows)], &replay(&format!("{SECONDS}, {more}"), ""));
    let recipes = all(&with(r#""window": ["2s", "6s"], "limit": 3"#));
    assert_eq!(arrivals(&recipes), [0, SECOND, 2 * SECOND]);
    assert_eq!(prompt_tokens(&recipes), [12, 13, 14]);

    let plan = with(r#""too_long": "skip", "max_tokens": 32, "limit": 5"#);
    assert_eq!((prompt_tokens(&all(&plan)), plan.skipped_rows), (vec![10, 11, 12], 2));

    let plan = with(r#""too_long": "clip", "max_tokens": 32"#);
    assert_eq!(prompt_tokens(&all(&plan)), [10, 11, 12, 12, 12, 12, 12, 12, 12, 12]);
    assert!(all(&plan).iter().all(|recipe| recipe.output_tokens == 20));

    let recipes = all(&with(r#""too_long": "clip", "max_tokens": 15"#));
    assert!(recipes.iter().all(|recipe| (recipe.prompt.tokens(), recipe.output_tokens) == (1, 14)));
}

#[test]
fn a_trace_gives_lengths_to_other_loads_once() {
    let rows = ten_seconds();
    let workload =
        replay(SECONDS, "").replace(r#""kind": "replay""#, r#""kind": "closed", "concurrency": 2"#);
    let plan = in_folder(&[("t", &rows)], &workload);
    assert_eq!((prompt_tokens(&all(&plan)), plan.requests), ((10..20).collect(), Some(10)));
}

#[test]
fn small_traces_of_every_format() {
    let rows = |format: &str, path: &str| {
        let workload = format!(
            r#"{{"prompt": {{"kind": "trace", "path": "tests/fixtures/{path}", "format": "{format}"}}, "load": {{"kind": "replay"}}}}"#
        );
        let recipes = all(&planned(&workload));
        let row = |r: &Recipe| (r.arrival.unwrap(), r.prompt.tokens(), r.output_tokens);
        recipes.iter().map(row).collect::<Vec<_>>()
    };
    let azure = [(0, 374, 44), (4_314_579_100, 396, 109), (4_541_877_000, 879, 55)];
    assert_eq!(rows("azure", "azure-2023.csv"), azure);
    assert_eq!(
        rows("azure", "azure-2024.csv"),
        [(0, 2162, 5), (1_234_567_000, 2399, 6), (86_399_990_069_000, 76, 15)]
    );
    assert_eq!(rows("burstgpt", "burstgpt-6.csv"), [(0, 472, 18), (40 * SECOND, 1087, 230)]);
    assert_eq!(rows("burstgpt", "burstgpt-8.csv"), [(0, 906, 446), (51 * SECOND, 36, 29)]);
    let mooncake = [(0, 1100, 7), (0, 700, 3), (27_500 * MILLISECOND, 512, 2)];
    assert_eq!(rows("mooncake", "mooncake.jsonl"), mooncake);
}

/// Times of answers are the same whichever way the rows tell them, and a clipped answer keeps its pace.
#[test]
fn answers_have_the_times_that_the_trace_recorded() {
    let recorded = |fields: &str, more: &str| {
        let workload = format!(
            r#"{{"prompt": {{"kind": "trace", "path": "tests/fixtures/recorded.jsonl", "format": "jsonl",
                "fields": {{"timestamp": "sent_ms", {fields}}} {more}}}, "load": {{"kind": "replay", "speed": 2}}}}"#
        );
        all(&planned(&workload)).into_iter().map(|recipe| recipe.recorded).collect::<Vec<_>>()
    };
    let times =
        |ttft: u64, rest: u64, tokens| Some(Recorded { ttft: ttft * 1000, rest: rest * MILLISECOND, tokens });
    let expected = [times(100_250, 300, 3), times(50_000, 0, 1), times(80_000, 1000, 11)];
    assert_eq!(
        recorded(r#""first": "first_ms", "last": "end_ms""#, ""),
        expected,
        "speed is of arrivals alone"
    );
    assert_eq!(recorded(r#""ttft": "ttft_ms", "tpot": "tpot_ms""#, ""), expected);
    let thousandth = r#""ttft": "ttft_ms", "tpot": "tpot_ms", "latency_unit": "us""#;
    assert_eq!(recorded(thousandth, "")[2].map(|times| (times.ttft, times.rest)), Some((80_000, 1_000_000)));
    let clipped =
        recorded(r#""first": "first_ms", "last": "end_ms""#, r#", "too_long": "clip", "max_tokens": 10"#);
    assert_eq!(clipped[2].and_then(|times| times.at(8)), Some(880 * MILLISECOND));
    assert_eq!(
        (clipped[2].and_then(|times| times.at(0)), clipped[1].and_then(|times| times.at(1))),
        (Some(80 * MILLISECOND), None)
    );
    assert_eq!(recorded(r#""timestamp_unit": "ms""#, ""), [None, None, None]);
}

#[test]
fn lengths_can_come_from_a_column() {
    let files = [("l.csv", "id,tokens\n1,5\n2,9\n"), ("l.jsonl", "{\"tokens\": 5}\n{\"tokens\": 9}\n")];
    let drawn = ["l.csv", "l.jsonl"].map(|path| {
        let workload = format!(
            r#"{{"prompt": {{"kind": "synthetic", "tokens": {{"kind": "empirical", "path": "{path}", "column": "tokens"}}}},
                "output": {{"tokens": 1}}, "load": {{"kind": "closed", "concurrency": 1, "requests": 100}}}}"#
        );
        prompt_tokens(&all(&in_folder(&files, &workload)))
    });
    assert_eq!(drawn[0], drawn[1]);
    assert_eq!(drawn[0].iter().collect::<BTreeSet<_>>(), BTreeSet::from([&5, &9]));
}

/// The plan of a workload over files in a folder of its own.
fn whole_plan(files: &[(&str, &str)], workload: &str) -> Plan {
    let dir = folder(files);
    try_plan(workload, dir.path()).unwrap()
}

#[test]
fn digests_are_what_they_were() {
    let load = r#"{"kind": "open", "rate": "20/s", "requests": 1000}"#;
    let plan = whole_plan(&[], &under(load, ""));
    insta::assert_snapshot!(plan.schedule_digest, @"b4092168b79c6f64faf01379dfdf1f26");
    insta::assert_snapshot!(plan.content_digest, @"64fe4143559fd2fd119e81dad3b1c67d");
}

#[test]
fn digests_cover_what_they_say() {
    let load = r#"{"kind": "open", "rate": "20/s", "requests": 100}"#;
    let base = whole_plan(&[], &under(load, ""));
    let digests = |plan: &Plan| (plan.schedule_digest.clone(), plan.content_digest.clone());
    for more in [
        r#", "description": "words""#,
        r#", "repeats": 4"#,
        r#", "tags": {"a": "b"}"#,
        r#", "slo": ["ttft < 1s"]"#,
    ] {
        assert_eq!(digests(&base), digests(&whole_plan(&[], &under(load, more))), "{more}");
    }
    for other in [
        under(&load.replace("20/s", "21/s"), ""),
        under(load, r#", "cancel": {"rate": "50%", "after_tokens": 1}"#),
        under(load, r#", "warmup": {"requests": 1}"#),
        under(&load.replace('}', r#", "max_in_flight": 3}"#), ""),
    ] {
        assert_ne!(base.schedule_digest, whole_plan(&[], &other).schedule_digest, "{other}");
    }
    // The same lengths and load from another seed differ in content only.
    let fixed = r#"{"prompt": {"kind": "synthetic", "tokens": 128}, "output": {"tokens": 128},
        "load": {"kind": "closed", "concurrency": 1, "requests": 5}}"#;
    let mut other = scenario(fixed);
    other.seed = 43;
    let other = plan(&other, &indexmap::IndexMap::new(), Path::new("."), &Mock).unwrap();
    let fixed = whole_plan(&[], fixed);
    assert_eq!(fixed.schedule_digest, other.schedule_digest);
    assert_ne!(fixed.content_digest, other.content_digest);
}

#[test]
fn digests_do_not_know_where_files_are() {
    let rows = ten_rows();
    let here = whole_plan(&[("p", &rows)], &file_workload("", 12, ""));
    let there = whole_plan(&[("q", &rows)], &file_workload("", 12, "").replace(r#""p""#, r#""q""#));
    assert_eq!(here.content_digest, there.content_digest);
    assert_eq!(here.schedule_digest, there.schedule_digest);
    let changed = whole_plan(&[("p", &rows.replace("row 3", "row 8"))], &file_workload("", 12, ""));
    assert_eq!(here.schedule_digest, changed.schedule_digest, "as many tokens");
    assert_ne!(here.content_digest, changed.content_digest);
}

#[test]
fn endless_plans_are_told_apart_by_their_law() {
    let workload = |max: u32| {
        under(r#"{"kind": "closed", "concurrency": 1, "duration": "1m"}"#, "")
            .replace("\"max\": 99", &format!("\"max\": {max}"))
    };
    assert_ne!(
        whole_plan(&[], &workload(99)).schedule_digest,
        whole_plan(&[], &workload(98)).schedule_digest
    );
    let law = |text: &str| {
        let workload = format!(
            r#"{{"prompt": {{"kind": "text", "text": "{text}"}}, "output": {{"tokens": 2}},
            "load": {{"kind": "closed", "concurrency": 1, "duration": "1m"}}}}"#
        );
        whole_plan(&[], &workload)
    };
    let (a, b) = (law("one two"), law("one six"));
    assert_eq!(a.schedule_digest, b.schedule_digest);
    assert_ne!(a.content_digest, b.content_digest);
}

#[test]
fn the_table_of_a_plan() {
    let rows = ten_seconds();
    let workload = replay(&format!(r#"{SECONDS}, "too_long": "skip", "max_tokens": 38"#), r#", "speed": 2"#);
    let plan = whole_plan(&[("t", &rows)], &workload);
    insta::assert_debug_snapshot!(table(&plan), @r#"
    [
        Row {
            workload: "load",
            load: "replay, 2 times as fast",
            expected: Expected {
                warmup: Some(
                    0,
                ),
                measured: Some(
                    9,
                ),
                duration: Some(
                    4000000000,
                ),
            },
            repeats: 1,
            prompt_tokens: Spread {
                min: 10,
                mean: 14.0,
                max: 18,
            },
            output_tokens: Spread {
                min: 20,
                mean: 20.0,
                max: 20,
            },
            skipped_rows: 1,
            digest: "efaba11dfd0bd0ecf8d6cd915c4524d8",
        },
    ]
    "#);
    let plan = whole_plan(&[], &under(r#"{"kind": "closed", "concurrency": 8, "duration": "1m"}"#, ""));
    let row = &table(&plan)[0];
    assert_eq!((row.load.as_str(), row.expected.measured), ("closed, 8 users", None));
    assert!((row.prompt_tokens.mean - 53.5).abs() < 3.0, "{:?}", row.prompt_tokens);
}

#[test]
fn a_given_text_is_sent_as_it_stands() {
    let given = "  Hello, wörld!\n\n1234567 日本語 ";
    let recipe = Recipe {
        prompt: PromptRecipe::text(Arc::from(given), &Mock),
        ..all(&planned(&under(r#"{"kind": "closed", "concurrency": 1, "requests": 1}"#, "")))[0].clone()
    };
    assert_eq!(text(&recipe, &Mock), given);
    assert_eq!(recipe.prompt.tokens(), Mock.count(given));
}

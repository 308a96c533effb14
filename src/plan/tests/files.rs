//! Plan files: written, read back equal, and refused when damaged.

use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::{try_plan, under};
use crate::plan::{Plan, Recipe, read, write};
use crate::tokenizer::Mock;

fn written(plan: &Plan) -> String {
    let mut out = Vec::new();
    write(plan, json!({"name": "test"}), "mock", &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn plan_of(workload: &str) -> Plan {
    try_plan(workload, Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn open() -> Plan {
    plan_of(&under(
        r#"{"kind": "open", "rate": "20/s", "requests": 6, "max_in_flight": 3}"#,
        r#", "warmup": {"requests": 2}, "repeats": 2, "tags": {"a": "b"}, "cancel": {"rate": 0.5, "after_tokens": 2}"#,
    ))
}

fn error(text: &str) -> String {
    read(text.as_bytes(), &Mock).expect_err("the file is damaged").to_string()
}

#[test]
fn what_was_written_is_read() {
    let traced = r#"{"prompt": {"kind": "trace", "path": "tests/fixtures/mooncake.jsonl", "format": "mooncake"}, "load": {"kind": "replay"}}"#;
    let text = r#"{"prompt": {"kind": "text", "text": "hello there"}, "output": {"max_tokens": 4},
        "load": {"kind": "closed", "concurrency": 2, "requests": "3x"}, "timeout": "3s", "total_timeout": "1m"}"#;
    let prefixed = r#"{"prompt": {"kind": "synthetic", "tokens": 50, "prefix": {"tokens": 20, "groups": 4}}, "output": {"tokens": 4},
        "load": {"kind": "stages", "stages": [{"duration": "1s", "rate": "20/s"}]}, "warmup": {"duration": "1s"}}"#;
    for plan in [open(), plan_of(traced), plan_of(text), plan_of(prefixed)] {
        let file = written(&plan);
        let (header, back) = read(file.as_bytes(), &Mock).unwrap();
        assert_eq!(header.scenario, json!({"name": "test"}));
        assert_eq!(
            (&plan.schedule_digest, &plan.content_digest),
            (&back.schedule_digest, &back.content_digest)
        );
        assert_eq!(plan.seed, back.seed);
        for (plan, back) in plan.workloads.iter().zip(&back.workloads) {
            for repeat in 0..plan.repeats {
                let (left, right): (Vec<Recipe>, Vec<Recipe>) =
                    (plan.stream(repeat).collect(), back.stream(repeat).collect());
                assert_eq!(left, right);
            }
            assert_eq!(plan.expected(), back.expected());
            assert_eq!((&plan.load, &plan.tags, plan.timeout), (&back.load, &back.tags, back.timeout));
            assert_eq!(
                (plan.requests, plan.duration, plan.warmup),
                (back.requests, back.duration, back.warmup)
            );
        }
        assert_eq!(file, written(&back), "and written again it is the same");
    }
}

#[test]
fn a_plan_without_an_end_is_not_written() {
    let plan = plan_of(&under(r#"{"kind": "closed", "concurrency": 1, "duration": "1s"}"#, ""));
    let mut out = Vec::new();
    let error = write(&plan, json!({}), "mock", &mut out).unwrap_err().to_string();
    insta::assert_snapshot!(error, @"workload `load` can not be written as a plan file, because only time ends it or its warm-up; set `requests` there");
    assert!(out.is_empty());
}

#[test]
fn damage_is_told_with_its_line() {
    let file = written(&open());
    let lines: Vec<&str> = file.lines().collect();
    let with = |line: usize, path: &str, value: serde_json::Value| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let mut changed: serde_json::Value = serde_json::from_str(&lines[line - 1]).unwrap();
        let (parent, key) = path.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[key] = value;
        lines[line - 1] = changed.to_string();
        error(&lines.join("\n"))
    };
    let after = |index: u64| json!({"index": index, "delay": 1});
    let all = [
        error(""),
        error("\n"),
        error(&lines[1..].join("\n")),
        error(&lines[..9].join("\n")),
        error(&file[..file.len() - 9]),
        error(&[&lines[..3], &lines[4..]].concat().join("\n")),
        error(&[&lines[..], &lines[3..4]].concat().join("\n")),
        error(&file.replacen('}', "}}", 1)),
        with(1, "/schema_version", json!(2)),
        with(1, "/tokenizer", json!("gpt2")),
        with(1, "/workloads", json!([])),
        with(1, "/extra", json!(1)),
        with(2, "/workload", json!("lead")),
        with(2, "/recipe/extra", json!(1)),
        with(2, "/recipe/prompt/extra", json!(1)),
        with(4, "/recipe/phase", json!("warmup")),
        with(5, "/recipe/index", json!(2)),
        with(5, "/recipe/phase", json!("warmup")),
        with(5, "/recipe/arrival", json!(1)),
        with(5, "/recipe/arrival", json!(null)),
        with(5, "/recipe/seed", json!(1)),
        with(5, "/recipe/output_tokens", json!(77)),
        with(5, "/recipe/prompt/tokens", json!(0)),
        with(5, "/recipe/prompt", json!({"kind": "text", "tokens": 3, "text": "one two"})),
        with(5, "/recipe/prompt", json!({"kind": "blocks", "tokens": 33, "block_tokens": 16, "ids": [1, 2]})),
        with(
            5,
            "/recipe/prompt",
            json!({"kind": "synthetic", "tokens": 3, "prefix": {"tokens": 4, "seed": 1}}),
        ),
        with(5, "/recipe/after", after(0)),
        with(3, "/recipe/after", after(0)),
        with(8, "/repeat", json!(2)),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    line 1: the file is empty; a plan file begins with a header line
    line 1: is no line of a plan: EOF while parsing a value
    line 1: this is no header: a plan file begins with one, `schema_version` in it
    line 10: the file ends with 8 of the 16 recipes of `load`; it is cut off
    line 17: is no line of a plan: EOF while parsing an object at column 211
    line 4: index 1 stands where 0 is next
    line 18: repeat 0 stands behind the last of 2
    line 1: is no line of a plan: trailing characters at column 182
    line 1: this is version 2 of the plan format; version 1 is read
    line 1: the plan was made with the tokenizer `gpt2`, not `mock`
    line 2: the header has no workload `load`
    line 1: is no line of a plan: unknown field `extra`, expected one of `schema_version`, `seed`, `tokenizer`, `schedule_digest`, `content_digest`, `scenario`, `workloads`, `groups`
    line 2: the header has no workload `lead`
    line 2: is no line of a plan: unknown field `extra`, expected one of `index`, `phase`, `arrival`, `after`, `session`, `think`, `prompt`, `output_tokens`, `forced`, `cancel_after`, `seed`, `body`, `failed`, `recorded` at column 222
    line 2: is no line of a plan: unknown field `extra`, expected `tokens` or `prefix` at column 147
    line 4: index 0 stands where 2 is next
    line 5: index 2 stands where 1 is next
    line 5: warm-up stands behind what is measured
    line 5: it is due at 1 ns, before the recipe above it (239221741 ns)
    line 5: a recipe of an open load has `arrival` or `after`
    line 1: the recipes do not have the header's `content_digest`; if the plan was edited on purpose, remove the digests from the header
    line 1: the recipes do not have the header's `schedule_digest`; if the plan was edited on purpose, remove the digests from the header
    line 5: prompt and output have from 1 to 16777216 tokens
    line 5: the text has 2 tokens by `mock`, not 3
    line 5: 2 block ids for 33 tokens in blocks of 16
    line 5: the prefix has 4 tokens, the prompt only 3
    line 5: a recipe with `after` has no `arrival`
    line 3: a recipe with `after` has no `arrival`
    line 8: repeat 2 stands where repeat 1 is next
    "#);
}

#[test]
fn followers_stand_behind_what_they_follow() {
    let plan =
        plan_of(&under(r#"{"kind": "open", "rate": "20/s", "arrival": "constant", "requests": 5}"#, ""));
    let file = written(&plan);
    let follow = |changes: &[(usize, u64)]| {
        let lines = file.lines().enumerate().map(|(at, line)| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            if at == 0 {
                line.as_object_mut().unwrap().retain(|key, _| !key.ends_with("_digest"));
            } else if let Some((_, index)) = changes.iter().find(|(index, _)| *index == at - 1) {
                line["recipe"]["arrival"] = serde_json::Value::Null;
                line["recipe"]["after"] = json!({"index": index, "delay": 1000});
            }
            line.to_string() + "\n"
        });
        read(lines.collect::<String>().as_bytes(), &Mock)
    };
    let (_, plan) = follow(&[(2, 1), (3, 2)]).unwrap();
    let after: Vec<Option<u64>> =
        plan.workloads[0].stream(0).map(|recipe| recipe.after.map(|after| after.index)).collect();
    assert_eq!(after, [None, None, Some(1), Some(2), None]);
    for bad in [&[(2, 0)][..], &[(2, 2)], &[(2, 3)], &[(0, 0)], &[(1, 0), (4, 0)]] {
        let error = follow(bad).expect_err("points to no request that it can follow").to_string();
        assert!(error.contains("`after` points to"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_damage_panics(at in 0..100_000_usize, byte: u8, cut in prop::bool::ANY) {
        let mut file = written(&open()).into_bytes();
        let at = at % file.len();
        if cut { file.truncate(at) } else { file[at] = byte }
        if let Err(error) = read(&file[..], &Mock) {
            prop_assert!(!error.message.is_empty() && error.line > 0);
        }
    }
}

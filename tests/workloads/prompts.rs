//! Prompt files, mixtures and passages: what is sent, and what is said about a broken file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sagebench::campaign::{Changes, prepare};
use sagebench::plan::{PromptRecipe, Recipe, text, wire_messages};
use sagebench::tokenizer::{Mock, Tokenizer};
use serde_json::{Value, json};

use crate::common::{errors_in, on_mock, play_in};

const MOCK: &str = "ttft: 10ms, tbt: 5ms, kv: { tokens: 100000, block_tokens: 4 }";

fn messages(recipe: &Recipe) -> Vec<Value> {
    let PromptRecipe::Chat { messages, .. } = &recipe.prompt else { panic!("no chat") };
    wire_messages(messages, &mut |tokens, seed| Mock.text_of(tokens, seed))
}

struct Case {
    dir: tempfile::TempDir,
}

fn with(files: &[(&str, &str)]) -> Case {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    Case { dir }
}

impl Case {
    fn recipes(&self, workload: &str) -> Vec<Recipe> {
        let path = self.dir.path().join("scenario.yaml");
        std::fs::write(&path, on_mock(MOCK, workload, "")).unwrap();
        let prepared = prepare(&path, &Changes::default()).unwrap_or_else(|error| panic!("{error:?}"));
        prepared.plan.workloads[0].stream(0).collect()
    }

    fn error(&self, workload: &str) -> String {
        errors_in(self.dir.path(), &on_mock(MOCK, workload, "")).join("\n")
    }
}

const OPENAI: &str = r#"{"model": "x", "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "how tall is it"}], "max_tokens": 9, "temperature": 0.5}
{"custom_id": "b", "body": {"messages": [{"role": "user", "content": [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}]}], "max_completion_tokens": 5}}
{"messages": [{"role": "user", "content": "weather"}, {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "w", "arguments": "{}"}}]}, {"role": "tool", "tool_call_id": "1", "content": "rain all day"}], "max_tokens": 7, "tools": [{"type": "function", "function": {"name": "w"}}], "response_format": {"type": "json_object"}}
"#;

#[test]
fn requests_of_an_openai_file_are_passed_through() {
    let case = with(&[("rows.jsonl", OPENAI)]);
    let recipes = case.recipes(
        "prompt: { kind: file, path: rows.jsonl, format: openai }, load: { kind: closed, concurrency: 1, requests: 3 }",
    );
    let sent: Vec<Vec<Value>> = recipes.iter().map(messages).collect();
    let rows: Vec<Value> = OPENAI.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json!(sent[0]), rows[0]["messages"]);
    assert_eq!(json!(sent[1]), rows[1]["body"]["messages"], "an image is passed by reference");
    assert_eq!(json!(sent[2]), rows[2]["messages"], "tool calls are passed");
    let bodies: Vec<Value> = recipes
        .iter()
        .map(|recipe| match &recipe.prompt {
            PromptRecipe::Chat { body, .. } => json!(body.as_deref()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(bodies[0], json!({"temperature": 0.5}));
    assert_eq!(bodies[1], Value::Null);
    assert_eq!(bodies[2], json!({"tools": rows[2]["tools"], "response_format": rows[2]["response_format"]}));
    let lengths: Vec<_> = recipes.iter().map(|r| (r.prompt.tokens(), r.output_tokens, r.forced)).collect();
    assert_eq!(lengths, [(6, 9, false), (3, 5, false), (Mock.count("weather") + 3, 7, false)]);
}

#[test]
fn a_mixed_file_is_one_request_a_row_on_the_wire_of_the_mock() {
    let case = with(&[("rows.jsonl", OPENAI)]);
    let scenario = on_mock(
        MOCK,
        "prompt: { kind: file, path: rows.jsonl, format: openai }, load: { kind: closed, concurrency: 1, requests: 6 }",
        "",
    );
    let results = play_in(case.dir.path(), &scenario);
    assert_eq!(results.metric("total_requests") as u64, 6);
    assert_eq!(results.metric("total_output_tokens") as u64, 2 * (9 + 5 + 7));
}

const SHAREGPT: &str = r#"[
  {"id": "1", "conversations": [{"from": "human", "value": "one two"}, {"from": "gpt", "value": "three four five"},
                                 {"from": "human", "value": "six"}, {"from": "gpt", "value": "seven eight"},
                                 {"from": "human", "value": "unanswered"}]},
  {"id": "2", "conversations": [{"from": "human", "value": "nobody answers"}]},
  {"id": "3", "conversations": [{"from": "system", "value": "be good"}, {"from": "user", "value": "hello"}, {"from": "assistant", "value": "hi"}]}
]"#;

#[test]
fn conversations_of_sharegpt_are_requests_or_sessions() {
    let case = with(&[("chats.json", SHAREGPT)]);
    let single = case.recipes(
        "prompt: { kind: file, path: chats.json, format: sharegpt }, load: { kind: closed, concurrency: 1, requests: 2 }",
    );
    let seen: Vec<_> = single.iter().map(|r| (text(r, &Mock), r.output_tokens, r.forced)).collect();
    assert_eq!(seen, [("one two".into(), 3, true), ("be good hello".into(), 1, true)]);

    let sessions = |history: &str| {
        case.recipes(&format!(
            "prompt: {{ kind: file, path: chats.json, format: sharegpt, sessions: {{ history: {history} }} }},
             load: {{ kind: closed, concurrency: 1, sessions: 2 }}"
        ))
    };
    let recorded = sessions("recorded");
    let seen: Vec<_> =
        recorded.iter().map(|r| (r.session.unwrap().session, text(r, &Mock), r.output_tokens)).collect();
    assert_eq!(
        seen,
        [
            (0, "one two".to_owned(), 3),
            (0, "one two three four five six".to_owned(), 2),
            (1, "be good hello".to_owned(), 1),
        ]
    );
    let answered = sessions("answered");
    assert_eq!(answered[1].prompt.tokens(), recorded[1].prompt.tokens());
    let roles: Vec<Value> = messages(&answered[1]).iter().map(|message| message["role"].clone()).collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
    assert_ne!(messages(&answered[1])[1], messages(&recorded[1])[1]);
}

#[test]
fn every_answer_of_an_openai_row_can_be_a_turn() {
    let case = with(&[("rows.jsonl", OPENAI)]);
    let recipes = case.recipes(
        "prompt: { kind: file, path: rows.jsonl, format: openai, sessions: { history: recorded } },
         load: { kind: closed, concurrency: 1, sessions: 3 }",
    );
    let turns: Vec<_> =
        recipes.iter().map(|r| r.session.map(|s| (s.session, s.turn, s.turns)).unwrap()).collect();
    assert_eq!(
        turns,
        [(0, 1, 1), (1, 1, 1), (2, 1, 2), (2, 2, 2)],
        "the tool's answer is what the second turn brings"
    );
    assert_eq!(messages(&recipes[3]).len(), 3);
}

#[test]
fn custom_rows_of_vllm_give_their_lengths_unless_the_workload_does() {
    let case = with(&[(
        "rows.jsonl",
        "{\"prompt\": \"one two\", \"output_tokens\": 11}\n{\"prompt\": \"three\"}\n",
    )]);
    let load = "load: { kind: closed, concurrency: 1, requests: 2 }";
    let prompt = "prompt: { kind: file, path: rows.jsonl, format: vllm }";
    let lengths =
        |workload: &str| -> Vec<u32> { case.recipes(workload).iter().map(|r| r.output_tokens).collect() };
    assert_eq!(lengths(&format!("{prompt}, output: {{ tokens: 4 }}, {load}")), [4, 4]);
    assert_eq!(
        case.error(&format!("{prompt}, {load}")),
        "rows.jsonl:2: does not say how long its answer is, and neither does `output`"
    );
}

#[test]
fn broken_rows_are_told_at_their_own_line() {
    let good = r#"{"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}"#;
    let mut said = String::new();
    for (format, row) in [
        ("openai", r#"{"messages": [{"role": "user", "content": "#),
        ("openai", r#"{"prompt": "x"}"#),
        ("openai", r#"{"messages": []}"#),
        ("openai", r#"{"messages": [{"role": "robot", "content": "x"}]}"#),
        ("openai", r#"{"messages": [{"role": "user"}]}"#),
        ("openai", r#"{"messages": [{"role": "user", "content": [{"text": "x"}]}]}"#),
        ("openai", r#"{"messages": [{"role": "user", "content": ""}]}"#),
        ("openai", r#"{"messages": [{"role": "user", "content": "x"}], "max_tokens": "many"}"#),
        ("sharegpt", r#"{"text": "x"}"#),
        (
            "sharegpt",
            r#"{"conversations": [{"from": "human", "value": "x"}, {"from": "crowd", "value": "x"}]}"#,
        ),
        ("sharegpt", r#"{"conversations": [{"from": "human"}]}"#),
        ("vllm", r#"{"prompt": 5}"#),
        ("vllm", r#"{"prompt": "x", "output_tokens": 0}"#),
    ] {
        let first = match format {
            "openai" => good,
            "sharegpt" => {
                r#"{"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}"#
            }
            _ => r#"{"prompt": "x", "output_tokens": 1}"#,
        };
        let case = with(&[("rows.jsonl", &format!("{first}\n\n{row}\n"))]);
        let error = case.error(&format!(
            "prompt: {{ kind: file, path: rows.jsonl, format: {format} }}, load: {{ kind: closed, concurrency: 1, requests: 2 }}"
        ));
        writeln!(said, "{error}").unwrap();
    }
    insta::assert_snapshot!(said);
}

#[test]
fn a_forced_length_and_a_response_format_contradict_each_other() {
    let case = with(&[("rows.jsonl", OPENAI)]);
    let error = case.error(
        "prompt: { kind: file, path: rows.jsonl, format: openai }, output: { tokens: 9 }, load: { kind: closed, concurrency: 1, requests: 3 }",
    );
    assert!(error.starts_with("rows.jsonl:3: has a `response_format`"), "{error}");
}

#[test]
fn a_mixture_has_its_weights_and_each_part_its_own_lengths() {
    let case = with(&[(
        "rows.jsonl",
        "{\"prompt\": \"a b\"}\n{\"prompt\": \"a b c\"}\n{\"prompt\": \"a b c d\"}\n",
    )]);
    let recipes = case.recipes(
        "prompt: { kind: mix, parts: [
           { weight: 3, prompt: { kind: synthetic, tokens: 50 }, output: { tokens: 5 } },
           { weight: 1, prompt: { kind: file, path: rows.jsonl, format: jsonl } } ] },
         output: { max_tokens: 9 }, load: { kind: closed, concurrency: 1, requests: 4000 }",
    );
    let mut counts: BTreeMap<(u32, u32, bool), u64> = BTreeMap::new();
    for recipe in &recipes {
        *counts.entry((recipe.prompt.tokens(), recipe.output_tokens, recipe.forced)).or_default() += 1;
    }
    let of_file: Vec<u64> = [2, 3, 4].map(|tokens| counts[&(tokens, 9, false)]).to_vec();
    assert_eq!(counts.len(), 4);
    // Three standard deviations of a binomial count: sqrt(4000 · 0.75 · 0.25) = 27.
    assert!(counts[&(50, 5, true)].abs_diff(3000) < 82, "{counts:?}");
    assert!(
        of_file.iter().max().unwrap() - of_file.iter().min().unwrap() <= 1,
        "rows come in turn: {of_file:?}"
    );
}

#[test]
fn passages_come_from_the_text_and_have_their_length() {
    let words: String = (0..500).fold(String::new(), |mut text, n| {
        let _ = write!(text, "word{} ", n * n);
        text
    });
    let case = with(&[("book.txt", &words)]);
    let recipes = case.recipes(
        "prompt: { kind: corpus, path: book.txt, tokens: { kind: uniform, min: 3, max: 60 } }, output: { tokens: 3 },
         load: { kind: closed, concurrency: 1, requests: 200 }",
    );
    let texts: Vec<String> = recipes.iter().map(|recipe| text(recipe, &Mock)).collect();
    for (recipe, text) in recipes.iter().zip(&texts) {
        assert!((3..=60).contains(&recipe.prompt.tokens()));
        assert_eq!(Mock.count(text), recipe.prompt.tokens());
        assert!(words.contains(text.as_str()));
    }
    assert!(case.recipes("prompt: { kind: text, text: x }, output: { tokens: 3 }, load: { kind: closed, concurrency: 1, requests: 1 }").len() == 1);
    let error = case.error(
        "prompt: { kind: corpus, path: book.txt, tokens: 90000 }, output: { tokens: 3 }, load: { kind: closed, concurrency: 1, requests: 1 }",
    );
    assert!(error.contains("a prompt has at least 90000 tokens, but the text has"), "{error}");
}

#[test]
fn loads_that_count_sessions_need_them() {
    let case = with(&[]);
    let error = case.error(
        "prompt: { kind: synthetic, tokens: 5 }, output: { tokens: 3 }, load: { kind: closed, concurrency: 1, sessions: 3 }",
    );
    assert_eq!(error, "these prompts are single requests, not sessions");
}

#[test]
fn plan_files_keep_conversations() {
    let case = with(&[("rows.jsonl", OPENAI)]);
    for workload in [
        "prompt: { kind: file, path: rows.jsonl, format: openai, sessions: {} }, load: { kind: closed, concurrency: 1, sessions: 3 }",
        "prompt: { kind: sessions, turns: 3, system: { tokens: 9, groups: 2 }, user: { tokens: 8 } }, output: { tokens: 4 },
         warmup: { requests: 4 }, load: { kind: open, rate: 3/s, sessions: 5 }, repeats: 2",
    ] {
        let path = case.dir.path().join("scenario.yaml");
        std::fs::write(&path, on_mock(MOCK, workload, "")).unwrap();
        let plan = prepare(&path, &Changes::default()).unwrap_or_else(|error| panic!("{error:?}")).plan;
        let mut file = Vec::new();
        sagebench::plan::write(&plan, json!({}), "mock", &mut file).unwrap();
        let (_, back) = sagebench::plan::read(file.as_slice(), &Mock).unwrap();
        assert_eq!((&plan.schedule_digest, &plan.content_digest), (&back.schedule_digest, &back.content_digest));
        let all = |plan: &sagebench::plan::WorkloadPlan| -> Vec<Recipe> {
            (0..plan.repeats).flat_map(|repeat| plan.stream(repeat)).collect()
        };
        assert_eq!(all(&plan.workloads[0]), all(&back.workloads[0]));
        assert_eq!(plan.workloads[0].expected(), back.workloads[0].expected());
    }
}

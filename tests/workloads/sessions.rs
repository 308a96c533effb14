//! Sessions: who sends what when, what a history finds in the cache, and what a failed turn does.

use std::collections::BTreeMap;

use sagebench::tokenizer::{Mock, Tokenizer as _};
use serde_json::Value;

use crate::common::{Results, number, on_mock, play, play_in};

const MOCK: &str = "ttft: 10ms, tbt: 5ms, kv: { tokens: 1000000, block_tokens: 16 }";

fn by_session(rows: &[Value]) -> BTreeMap<u64, Vec<&Value>> {
    let mut sessions: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for row in rows {
        sessions.entry(row["session"].as_u64().unwrap()).or_default().push(row);
    }
    for turns in sessions.values_mut() {
        turns.sort_by_key(|row| row["turn"].as_u64());
    }
    sessions
}

fn turn(row: &Value) -> u64 {
    row["turn"].as_u64().unwrap()
}

#[test]
fn a_turn_is_due_when_the_last_one_ended_and_its_user_has_thought() {
    let results = play(&on_mock(
        MOCK,
        "prompt: { kind: sessions, turns: { kind: uniform, min: 1, max: 5 }, system: { tokens: 40 },
           user: { tokens: { kind: uniform, min: 5, max: 30 } }, think_time: 300ms },
         output: { tokens: { kind: uniform, min: 2, max: 40 } }, load: { kind: open, rate: 20/s, sessions: 60 }",
        "",
    ));
    let sessions = by_session(&results.requests);
    assert_eq!(sessions.len(), 60);
    for turns in sessions.values() {
        for (at, row) in turns.iter().enumerate() {
            assert_eq!(turn(row), at as u64 + 1);
            if let Some(before) = at.checked_sub(1).map(|at| turns[at]) {
                let due = number(before, "end_ms") + 300.0;
                assert!((number(row, "due_ms") - due).abs() < 1e-5, "{row}");
                // The whole conversation, and at least 5 tokens more.
                let said = number(before, "prompt_tokens") + number(before, "output_tokens");
                assert!((5.0..=30.0).contains(&(number(row, "prompt_tokens") - said)), "{row}");
            } else {
                assert!((45.0..=70.0).contains(&number(row, "prompt_tokens")));
            }
        }
    }
}

#[test]
fn a_user_plays_whole_sessions() {
    let results = play(&on_mock(
        MOCK,
        "prompt: { kind: sessions, turns: 3, user: { tokens: 20 }, think_time: 1s }, output: { tokens: 2 },
         load: { kind: closed, concurrency: 2, sessions: 4x, think_time: 5s }",
        "",
    ));
    assert_eq!(results.requests.len(), 24);
    assert_eq!(results.metric("max_in_flight") as u64, 2);
    // A session takes three answers of 15 ms and two pauses; the next one begins five seconds later.
    let starts: Vec<f64> =
        by_session(&results.requests).values().map(|turns| number(turns[0], "due_ms")).collect();
    let wanted = [0.0, 0.0, 7045.0, 7045.0, 14090.0, 14090.0, 21135.0, 21135.0];
    assert_eq!(starts, wanted);
}

/// What the cache serves, counted block by block from the lengths alone. All but the last token of what came before is
/// computed and full blocks of it are found; so is a system message that another session has brought.
fn expected_hits(results: &Results, answered: bool, system: u64) -> (u64, u64) {
    let (mut hits, mut looked_up) = (0, 0);
    for turns in by_session(&results.requests).values() {
        for (at, row) in turns.iter().enumerate() {
            looked_up += row["prompt_tokens"].as_u64().unwrap();
            let known = match at.checked_sub(1).map(|at| turns[at]) {
                None => {
                    if number(row, "due_ms") > 0.0 {
                        system
                    } else {
                        0
                    }
                }
                Some(before) => {
                    let answer = before["output_tokens"].as_u64().unwrap() - 1;
                    before["prompt_tokens"].as_u64().unwrap() + if answered { answer } else { 0 }
                }
            };
            hits += known / 16 * 16;
        }
    }
    (hits, looked_up)
}

#[test]
fn a_history_hits_its_cache_as_far_as_it_was_answered() {
    for history in ["answered", "recorded"] {
        let results = play(&on_mock(
            MOCK,
            &format!(
                "prompt: {{ kind: sessions, turns: 4, system: {{ tokens: 100 }}, history: {history},
                   user: {{ tokens: {{ kind: uniform, min: 20, max: 90 }} }} }},
                 output: {{ tokens: {{ kind: uniform, min: 20, max: 90 }} }},
                 load: {{ kind: closed, concurrency: 1, sessions: 25 }}"
            ),
            "",
        ));
        let (hits, looked_up) = expected_hits(&results, history == "answered", 100);
        let rate = hits as f64 / looked_up as f64;
        assert!((results.metric("prefix_hit_rate") - rate).abs() < 1e-6, "{history}: {rate}");
    }
}

#[test]
fn what_was_cut_off_is_what_the_history_holds() {
    let results = play(&on_mock(
        MOCK,
        "prompt: { kind: sessions, turns: 2, user: { tokens: 10 } }, output: { tokens: 30 },
         cancel: { rate: 100%, after_tokens: 7 }, load: { kind: closed, concurrency: 1, sessions: 3 }",
        "gates: { rules: [{ rule: error_rate == 0, no_data: skip }] }",
    ));
    for turns in by_session(&results.requests).values() {
        assert_eq!(turns[0]["outcome"], "cancelled");
        assert_eq!(turns[1]["prompt_tokens"], 10 + 7 + 10);
    }
}

#[test]
fn a_failed_turn_ends_its_session_and_rules_look_at_turns() {
    let results = play(&on_mock(
        &format!(
            "{MOCK}, faults: [{{ match: {{ index: [4] }}, action: {{ kind: http_status, code: 503 }} }}]"
        ),
        "prompt: { kind: sessions, turns: 3, user: { tokens: 20 } }, output: { tokens: 4 },
         load: { kind: closed, concurrency: 1, sessions: 3 }",
        "gates: { rules: [error_rate <= 20%, total_requests == 5 where turn >= 2, p99(ttft) <= 10ms where turn == 3] }",
    ));
    let outcomes: Vec<_> = by_session(&results.requests)
        .values()
        .map(|turns| turns.iter().map(|row| row["outcome"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
        .collect();
    let good = vec!["success"; 3];
    assert_eq!(outcomes, [good.clone(), vec!["success", "http_503", "skipped"], good]);
    assert_eq!(results.metric("total_requests") as u64, 8, "what was skipped is outside the totals");
    assert_eq!(results.metric("skipped_requests") as u64, 1);
    assert!(results.verdicts().iter().all(|(_, verdict)| verdict == "PASS"), "{:?}", results.verdicts());
}

#[test]
fn the_sessions_of_a_trace_wait_for_their_turns() {
    let dir = tempfile::tempdir().unwrap();
    let rows = r#"{"session_id": "a", "timestamp": 0, "input_length": 64, "output_length": 16, "hash_ids": [1, 2, 3, 4]}
{"timestamp": 100, "input_length": 32, "output_length": 4, "hash_ids": [1, 2]}
{"session_id": "a", "delay": 500, "input_length": 20, "output_length": 5}
{"session_id": "b", "timestamp": 200, "input_length": 10, "output_length": 5}
{"session_id": "a", "input_length": 30, "output_length": 5}
"#;
    std::fs::write(dir.path().join("trace.jsonl"), rows).unwrap();
    let scenario = on_mock(
        MOCK,
        "prompt: { kind: trace, format: mooncake, path: trace.jsonl, block_tokens: 16 }, load: { kind: replay, speed: 2 }",
        "",
    );
    let results = play_in(dir.path(), &scenario);
    let seen: Vec<_> = results
        .requests
        .iter()
        .map(|row| {
            (row["session"].as_u64().unwrap(), turn(row), number(row, "due_ms"), number(row, "prompt_tokens"))
        })
        .collect();
    // Turn 1 of session 0 ends at 10 + 15 · 5 = 85 ms; time runs twice as fast, so its user waits for 250 ms.
    let wanted = [
        (0, 1, 0.0, 64.0),
        (1, 1, 50.0, 32.0),
        (2, 1, 100.0, 10.0),
        (0, 2, 335.0, 64.0 + 16.0 + 20.0),
        (0, 3, 365.0, 100.0 + 5.0 + 30.0),
    ];
    assert_eq!(seen, wanted);
}

/// What `next_turn` is told, written into what it makes: the turn, the roles so far, and how long the last answer was.
const TURNS: &str = "hooks:
  inline: |
    fn next_turn(session) {
        if session.turn == 1 { return `hello ${session.index}`; }
        if session.turn == 4 || session.index == 2 { return; }
        let words = tokens(session.last);
        #{ prompt: `turn ${session.turn} after ${words} tokens`, output_tokens: words + 1 }
    }
";

#[test]
fn a_hook_says_what_users_say_and_when_a_session_ends() {
    let results = play(&on_mock(
        MOCK,
        "prompt: { kind: sessions, turns: 5, system: { tokens: 40 }, user: { tokens: 500 }, think_time: 1s },
         output: { tokens: 6 }, load: { kind: closed, concurrency: 1, sessions: 3 }",
        TURNS,
    ));
    let seen: Vec<Vec<(String, u64, u64)>> = by_session(&results.requests)
        .values()
        .map(|turns| {
            let count = |row: &Value, name: &str| row[name].as_u64().unwrap();
            let row = |row: &&Value| {
                (
                    row["outcome"].as_str().unwrap().to_owned(),
                    count(row, "prompt_tokens"),
                    count(row, "output_tokens"),
                )
            };
            turns.iter().map(row).collect()
        })
        .collect();
    let (hello, later) = (Mock.count("hello 0"), Mock.count("turn 2 after 6 tokens"));
    let first = u64::from(40 + hello);
    let (second, third) = (first + 6 + u64::from(later), first + 6 + 7 + 2 * u64::from(later));
    for (session, turns) in seen.iter().enumerate() {
        let sent: Vec<_> = turns.iter().filter(|(outcome, ..)| outcome == "success").collect();
        let wanted = [
            ("success".to_owned(), first, 6),
            ("success".to_owned(), second, 7),
            ("success".to_owned(), third, 8),
        ];
        let most = if session == 2 { 1 } else { 3 };
        assert_eq!(sent, wanted[..most].iter().collect::<Vec<_>>(), "{turns:?}");
        assert_eq!(turns[most..].iter().filter(|(outcome, ..)| outcome == "skipped").count(), 5 - most);
    }
    let said =
        |index: usize| results.requests.iter().find(|row| row["index"] == index).unwrap()["message"].clone();
    assert_eq!(
        (said(3), said(4)),
        ("its hook ended the session".into(), "the session ended before it".into())
    );
    assert_eq!(results.metric("total_requests") as u64, 7, "what was not to be sent is outside the totals");
    assert_eq!(results.metric("failed_requests") as u64, 0);
    // Turn 2 finds the system message, the greeting and the answer but for its last token; so does turn 3.
    let known = |tokens: u64| tokens / 16 * 16;
    let own: u64 = 2 * (known(first + 5) + known(second + 6));
    let hits = own + 2 * known(40);
    let looked_up = 3 * first + 2 * second + 2 * third;
    assert!((results.metric("prefix_hit_rate") - hits as f64 / looked_up as f64).abs() < 1e-6);
}

#[test]
fn a_turn_that_its_hook_can_not_make_fails_and_ends_its_session_alone() {
    let results = play(&on_mock(
        MOCK,
        "prompt: { kind: sessions, turns: 3, user: { tokens: 20 } }, output: { tokens: 4 },
         load: { kind: open, rate: 1/s, sessions: 3 }",
        "hooks:
  inline: |
    fn next_turn(session) {
        if session.index == 1 && session.turn == 2 { loop { } }
        \"go on\"
    }
gates: { rules: [error_rate <= 20%] }
",
    ));
    let outcomes: Vec<_> = by_session(&results.requests)
        .values()
        .map(|turns| turns.iter().map(|row| row["outcome"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
        .collect();
    assert_eq!(outcomes, [vec!["success"; 3], vec!["success", "hook_failed", "skipped"], vec!["success"; 3]]);
    let failed = results.requests.iter().find(|row| row["outcome"] == "hook_failed").unwrap();
    let message = failed["message"].as_str().unwrap();
    assert!(
        message.contains("scenario.yaml:8:8: next_turn(session): it takes more than 1000000 operations"),
        "{message}"
    );
    assert!(message.contains("turn 2 of session 1 of w"), "{message}");
}

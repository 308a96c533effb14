use serde_json::json;

use super::*;
use crate::record::{Outcome, Phase, TokenSource};

fn record(tokens: u32) -> Record {
    Record {
        index: 0,
        phase: Phase::Measured,
        session: None,
        due: 0,
        sent: Some(0),
        first: Some(10),
        end: 20,
        cap_wait: 0,
        longest_gap: 0,
        prompt_tokens: 4,
        asked_tokens: tokens,
        forced: false,
        output_tokens: tokens,
        first_event_tokens: 1,
        events: tokens,
        stream: None,
        preemptions: 0,
        token_source: TokenSource::Engine,
        outcome: Outcome::Success,
        message: None,
        checked: None,
        retried: None,
        connect: 0,
        scheduled: None,
        first_answer: None,
    }
}

fn said(text: &str) -> Response {
    Response { text: text.into(), finish_reason: Some("stop".into()) }
}

fn no_request() -> Option<Request> {
    None
}

/// What one check says of a response: nothing when it passes.
fn fault(check: serde_json::Value, text: &str) -> Option<String> {
    let check: Check = serde_json::from_value(check).unwrap();
    let checks = Checks::compile(&[check], None, Path::new("")).unwrap().unwrap();
    let tokens = text.split(' ').count() as u32;
    let checked =
        checks.judge(no_request, &said(text), &record(tokens), Basis::Sent, &mut Vec::new()).unwrap();
    assert_eq!(checked.failed, checked.failures.len() as u64);
    checked.failures.into_iter().next().map(|failure| failure.reason)
}

fn flaw(check: serde_json::Value) -> String {
    let check: Check = serde_json::from_value(check).unwrap();
    let flaws = Checks::compile(&[check], None, Path::new("")).unwrap_err();
    format!("{}: {}", flaws[0].key, flaws[0].message)
}

#[test]
fn texts_and_patterns_are_found_or_must_not_be() {
    let contains = |more: &str| -> serde_json::Value {
        serde_json::from_str(&format!(r#"{{"kind": "contains", "text": "Paris"{more}}}"#)).unwrap()
    };
    assert_eq!(fault(contains(""), "in Paris"), None);
    assert_eq!(fault(contains(""), "in paris").unwrap(), "does not contain \"Paris\"");
    assert_eq!(fault(contains(r#", "ignore_case": true"#), "in pARIS"), None);
    assert_eq!(fault(contains(r#", "negate": true"#), "in Paris").unwrap(), "contains \"Paris\"");
    let regex = |negate: bool| json!({"kind": "regex", "pattern": "^[0-9]+$", "negate": negate});
    assert_eq!(fault(regex(false), "123"), None);
    assert_eq!(fault(regex(false), "12a").unwrap(), "does not match ^[0-9]+$");
    assert_eq!(fault(regex(true), "123").unwrap(), "matches ^[0-9]+$");
    assert_eq!(
        flaw(json!({"kind": "regex", "pattern": "("})),
        "pattern: this is no regular expression: unclosed group"
    );
}

#[test]
fn json_is_whole_and_fences_are_allowed_where_it_says_so() {
    let plain = json!({"kind": "json"});
    assert_eq!(fault(plain.clone(), " {\"a\": [1]}\n"), None);
    assert_eq!(fault(plain.clone(), "").unwrap(), "is empty, which is no JSON");
    assert!(fault(plain.clone(), "{\"a\": 1").unwrap().starts_with("is not JSON: EOF"));
    assert!(fault(plain.clone(), "{} and more").unwrap().contains("trailing characters"));
    let fenced = "```json\n{\"a\": 1}\n```";
    assert!(fault(plain, fenced).is_some());
    assert_eq!(fault(json!({"kind": "json", "allow_fence": true}), fenced), None);
    assert_eq!(fault(json!({"kind": "json", "allow_fence": true}), "{}"), None);
}

#[test]
fn a_schema_says_what_it_misses_and_where() {
    let schema = json!({"type": "object", "required": ["city"], "properties": {"n": {"type": "integer", "minimum": 1}}});
    let check = json!({"kind": "json_schema", "schema": schema});
    assert_eq!(fault(check.clone(), r#"{"city": "Paris", "n": 2}"#), None);
    insta::assert_snapshot!(fault(check.clone(), r#"{"n": 2}"#).unwrap(), @r#""city" is a required property"#);
    insta::assert_snapshot!(fault(check.clone(), r#"{"city": "Paris", "n": 0}"#).unwrap(), @"at /n: 0 is less than the minimum of 1");
    insta::assert_snapshot!(fault(check, "no").unwrap(), @"is not JSON: expected ident at line 1 column 2");
    insta::assert_snapshot!(flaw(json!({"kind": "json_schema", "schema": {"type": "objekt"}})), @r#"schema: this is no JSON Schema at /type: "objekt" is not valid under any of the schemas listed in the 'anyOf' keyword"#);
    insta::assert_snapshot!(flaw(json!({"kind": "json_schema", "schema": {"$ref": "https://example.com/x.json"}})), @"schema: this is no JSON Schema: it refers to https://example.com/x.json");
    insta::assert_snapshot!(flaw(json!({"kind": "json_schema", "path": "/no/such/file.json"})), @"path: /no/such/file.json: No such file or directory (os error 2)");
}

#[test]
fn lengths_and_reasons() {
    assert_eq!(fault(json!({"kind": "min_tokens", "tokens": 3}), "one two three"), None);
    assert_eq!(
        fault(json!({"kind": "min_tokens", "tokens": 4}), "one two three").unwrap(),
        "has 3 tokens, fewer than 4"
    );
    assert_eq!(
        fault(json!({"kind": "max_tokens", "tokens": 2}), "one two three").unwrap(),
        "has 3 tokens, more than 2"
    );
    assert_eq!(fault(json!({"kind": "finish_reason", "reasons": ["stop", "length"]}), ""), None);
    assert_eq!(
        fault(json!({"kind": "finish_reason", "reasons": ["length"]}), "").unwrap(),
        "ended by `stop`, not by length"
    );
}

#[test]
fn of_each_check_the_first_failures_are_kept() {
    let expect: Vec<Check> =
        [json!({"kind": "contains", "text": "x"}), json!({"kind": "min_tokens", "tokens": 1})]
            .into_iter()
            .map(|check| serde_json::from_value(check).unwrap())
            .collect();
    let checks = Checks::compile(&expect, None, Path::new("")).unwrap().unwrap();
    let mut kept = Vec::new();
    let long = "a".repeat(5000);
    let failed: Vec<Checked> = (0..9)
        .map(|n| checks.judge(no_request, &said(&long), &record(n % 2), Basis::Sent, &mut kept).unwrap())
        .collect();
    assert_eq!(failed.iter().map(|checked| checked.failed).collect::<Vec<_>>(), [3, 1, 3, 1, 3, 1, 3, 1, 3]);
    let of = |check| failed.iter().flat_map(|c| &c.failures).filter(|f| f.check == check).count();
    assert_eq!((of(0), of(1)), (3, 3));
    assert_eq!(failed[0].failures[0].text.chars().count(), EXCERPT + 2);
}

//! A scenario's faults as bytes.

use std::io::ErrorKind;

use sagebench::serve::Server;
use serde_json::{Value, json};

use crate::client::{Answer, metric, post, start};

fn server(action: Value) -> Server {
    start(json!({ "ttft": "1ms", "tbt": "1ms", "faults": [{ "match": { "index": 1 }, "action": action }] }))
}

/// The answers to three streamed requests, of which the second goes wrong.
fn streamed(server: &Server) -> Answer {
    let options = json!({ "include_usage": true });
    let asked = json!({ "prompt": "a b", "max_tokens": 5, "stream": true, "stream_options": options });
    let ask = || post(server, "/v1/completions", &asked);
    let (before, hit, after) = (ask(), ask(), ask());
    for sound in [before, after] {
        assert_eq!((sound.broken, sound.chunks().len()), (None, 6));
    }
    hit
}

/// The same without streaming.
fn whole(server: &Server) -> Answer {
    let asked = json!({ "prompt": "a b", "max_tokens": 5 });
    assert_eq!(post(server, "/v1/completions", &asked).status, 200);
    post(server, "/v1/completions", &asked)
}

#[test]
fn a_status_comes_in_place_of_an_answer() {
    let action = json!({ "kind": "http_status", "code": 503, "retry_after": "1500ms" });
    for hit in [streamed(&server(action.clone())), whole(&server(action))] {
        assert_eq!((hit.status, hit.header("retry-after")), (503, Some("2")));
        assert!(hit.json()["error"]["message"].as_str().unwrap().contains("injected"));
    }
    let hit = streamed(&server(json!({ "kind": "reject" })));
    assert_eq!((hit.status, hit.header("retry-after")), (429, Some("1")));
}

#[test]
fn a_connection_ends_in_order_or_by_a_reset() {
    for (close, kind) in [("fin", ErrorKind::UnexpectedEof), ("rst", ErrorKind::ConnectionReset)] {
        let action = json!({ "kind": "disconnect", "after_tokens": 3, "close": close });
        let hit = streamed(&server(action.clone()));
        assert_eq!((hit.status, hit.broken, hit.chunks().len()), (200, Some(kind), 3), "{close}");
        let hit = whole(&server(action));
        assert_eq!((hit.status, hit.broken), (0, Some(kind)));
    }
}

#[test]
fn a_stream_is_truncated_or_malformed() {
    let hit = streamed(&server(json!({ "kind": "truncate", "after_tokens": 3 })));
    assert_eq!((hit.broken, hit.chunks().len()), (None, 3));
    assert!(!hit.body.contains("[DONE]") && hit.chunks()[2]["choices"][0]["finish_reason"].is_null());
    let hit = whole(&server(json!({ "kind": "truncate", "after_tokens": 3 })));
    assert!(hit.json()["usage"].is_null() && hit.json()["choices"][0]["finish_reason"].is_null());

    let hit = streamed(&server(json!({ "kind": "malformed", "after_tokens": 3 })));
    let events = hit.events();
    assert_eq!((hit.broken, events.len()), (None, 4));
    assert!(serde_json::from_str::<Value>(events[2]).is_ok());
    assert!(serde_json::from_str::<Value>(events[3]).is_err(), "{}", events[3]);
    let hit = whole(&server(json!({ "kind": "malformed", "after_tokens": 3 })));
    assert!(hit.status == 200 && serde_json::from_str::<Value>(&hit.body).is_err());
}

#[test]
fn usage_lies_and_tokens_come_twice() {
    let action = json!({ "kind": "wrong_usage", "completion_tokens": 77 });
    let hit = streamed(&server(action.clone()));
    assert_eq!((hit.chunks().len(), hit.chunks()[5]["usage"]["completion_tokens"].as_u64()), (6, Some(77)));
    assert_eq!(hit.times()["output_tokens"], 5, "the truth does not lie");
    assert_eq!(whole(&server(action)).json()["usage"]["completion_tokens"], 77);

    let hit = streamed(&server(json!({ "kind": "duplicate_token", "token": 2 })));
    let chunks = hit.chunks();
    assert_eq!(chunks.len(), 7);
    let texts: Vec<_> = chunks[..6].iter().map(|chunk| chunk["choices"][0]["text"].clone()).collect();
    assert!(texts[1] == texts[2] && texts[2] != texts[3]);
    assert_eq!(chunks[6]["usage"]["completion_tokens"], 6);
}

#[test]
fn an_answer_is_late_and_says_so() {
    let hit = streamed(&server(json!({ "kind": "stall", "after_tokens": 2, "for": "30ms" })));
    assert_eq!(
        (hit.times()["longest_gap_ms"].as_f64(), hit.times()["e2e_ms"].as_f64()),
        (Some(31.0), Some(35.0))
    );
    let hit = streamed(&server(json!({ "kind": "slow_ttft", "for": "30ms" })));
    assert_eq!(hit.times()["ttft_ms"], 31);
}

#[test]
fn a_crash_ends_what_runs_and_refuses_what_comes() {
    let faults = json!([{ "action": { "kind": "engine_crash", "at": "1s", "restart": "1h" } }]);
    let server = start(json!({ "ttft": "1ms", "tbt": "50ms", "faults": faults }));
    let asked = json!({ "prompt": "a b", "max_tokens": 4000, "stream": true });
    let cut = post(&server, "/v1/completions", &asked);
    assert_eq!((cut.status, cut.broken), (200, Some(ErrorKind::UnexpectedEof)));
    let refused = post(&server, "/v1/completions", &asked);
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(
        metric(
            &server,
            "vllm:request_success_total{engine=\"0\",model_name=\"mock\",finished_reason=\"error\"}"
        ),
        2.0
    );
}

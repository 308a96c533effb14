//! Streams: what stands in them, and when it comes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::time::Instant;

use serde_json::json;

use crate::client::{connect, post, read, request, start};

#[test]
fn a_stream_has_an_event_per_token_and_ends_with_its_times() {
    let server = start(json!({ "ttft": "2ms", "tbt": "1ms" }));
    let options = json!({ "include_usage": true });
    let asked = json!({ "prompt": "a b c", "max_tokens": 6, "stream": true, "stream_options": options });
    let answer = post(&server, "/v1/completions", &asked);
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let chunks = answer.chunks();
    assert_eq!(chunks.len(), 7, "{}", answer.body);
    let text: String =
        chunks[..6].iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(text.split(' ').count(), 6);
    let reasons: Vec<_> =
        chunks[..6].iter().map(|chunk| chunk["choices"][0]["finish_reason"].as_str()).collect();
    assert_eq!(reasons, [None, None, None, None, None, Some("length")]);
    assert_eq!(chunks[6]["choices"], json!([]));
    assert_eq!(chunks[6]["usage"], json!({ "prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9 }));
    assert_eq!(answer.events().last(), Some(&"[DONE]"));
    let times = answer.times();
    assert_eq!(
        times,
        json!({ "queue_ms": 0, "ttft_ms": 2, "e2e_ms": 7, "longest_gap_ms": 1, "prompt_tokens": 3,
                "output_tokens": 6, "preemptions": 0 })
    );
}

#[test]
fn a_chat_begins_with_its_role() {
    let server = start(json!({}));
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let options = json!({ "include_usage": true, "continuous_usage_stats": true });
    let asked = json!({ "messages": messages, "max_tokens": 2, "stream": true, "stream_options": options,
        "return_token_ids": true });
    let chunks = post(&server, "/v1/chat/completions", &asked).chunks();
    assert_eq!(chunks.len(), 4);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    assert_eq!(chunks[0]["prompt_token_ids"].as_array().unwrap().len(), 7);
    let delta = &chunks[1]["choices"][0]["delta"];
    assert!(delta["role"].is_null() && !delta["content"].as_str().unwrap().is_empty());
    let used: Vec<_> = chunks.iter().map(|chunk| chunk["usage"]["completion_tokens"].as_u64()).collect();
    assert_eq!(used, [Some(0), Some(1), Some(2), Some(2)]);
    assert_eq!(chunks[2]["choices"][0]["token_ids"].as_array().unwrap().len(), 1);
    assert_eq!(chunks[2]["choices"][0]["finish_reason"], "length");
}

#[test]
fn one_token_is_first_and_last() {
    let server = start(json!({ "ttft": "0ms", "tbt": "0ms" }));
    let asked = json!({ "prompt": "a", "max_tokens": 1, "stream": true, "return_token_ids": true });
    let answer = post(&server, "/v1/completions", &asked);
    let chunk = &answer.chunks()[0];
    assert_eq!(chunk["choices"][0]["finish_reason"], "length");
    assert_eq!(chunk["choices"][0]["prompt_token_ids"].as_array().unwrap().len(), 1);
    assert_eq!(answer.times()["ttft_ms"], 0);
}

#[test]
fn a_step_with_drafts_is_one_event() {
    let cost = json!({ "base_ms": 1, "weights_ms": 0, "token_us": 0, "knee": 1 });
    let server =
        start(json!({ "mode": "batched", "cost": cost, "ttft": null, "tbt": null, "kv": { "tokens": 4096 },
        "speculative": { "tokens": 3, "accept": 1 } }));
    let asked = json!({ "prompt": "a", "max_tokens": 9, "stream": true, "return_token_ids": true });
    let answer = post(&server, "/v1/completions", &asked);
    let counts: Vec<_> = answer
        .chunks()
        .iter()
        .map(|chunk| chunk["choices"][0]["token_ids"].as_array().unwrap().len())
        .collect();
    assert_eq!(counts, [1, 4, 4]);
    assert_eq!(answer.times()["e2e_ms"], 3);
}

#[test]
fn no_token_comes_before_its_time() {
    let server = start(json!({ "ttft": "20ms", "tbt": "10ms" }));
    let asked = json!({ "prompt": "a", "max_tokens": 5, "stream": true }).to_string();
    let mut stream = connect(&server);
    let sent = Instant::now();
    stream.write_all(&request("POST", "/v1/completions", &asked)).unwrap();
    let mut reader = BufReader::new(stream);
    let (mut line, mut seen) = (String::new(), Vec::new());
    while !line.contains("[DONE]") {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if line.contains("\"text\":") {
            seen.push(sent.elapsed().as_secs_f64() * 1e3);
        }
    }
    assert_eq!(seen.len(), 5);
    for (seen, modelled) in seen.iter().zip([20.0, 30.0, 40.0, 50.0, 60.0]) {
        assert!(*seen >= modelled, "{seen} ms, modelled {modelled}");
    }
}

#[test]
fn many_streams_at_once_come_out_whole_and_apart() {
    let server = start(json!({ "ttft": "1ms", "tbt": "100us", "kv": { "tokens": 2048 } }));
    let streams: Vec<_> = (0..40)
        .map(|n| {
            let asked = json!({ "prompt": vec![n; 30], "max_tokens": 50, "stream": true,
                "stream_options": { "include_usage": true } });
            let mut stream = connect(&server);
            stream.write_all(&request("POST", "/v1/completions", &asked.to_string())).unwrap();
            stream
        })
        .collect();
    let mut names = std::collections::BTreeSet::new();
    for mut stream in streams {
        let answer = read(&mut stream);
        let chunks = answer.chunks();
        assert_eq!(chunks.len(), 51);
        assert_eq!(chunks[50]["usage"]["completion_tokens"], 50);
        assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"]));
        names.insert(chunks[0]["id"].to_string());
    }
    assert_eq!(names.len(), 40);
    assert_eq!(crate::client::metric(&server, "vllm:generation_tokens_total"), 2000.0);
}

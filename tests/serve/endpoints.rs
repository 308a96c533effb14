//! Endpoints, and what they refuse.

use std::io::Write as _;

use sagebench::serve::Limits;
use serde_json::{Value, json};

use crate::client::{any, ask, connect, get, metric, mock, post, read, request, start, start_with};

#[test]
fn small_endpoints_answer() {
    let server = start(json!({}));
    let models = get(&server, "/v1/models").json();
    assert_eq!(models["data"][0]["id"], "mock");
    assert_eq!(models["data"][0]["max_model_len"], 4096);
    assert_eq!(get(&server, "/health").status, 200);
    assert!(get(&server, "/version").json()["version"].as_str().unwrap().starts_with("sagebench-"));
    assert_eq!(get(&server, "/nowhere").status, 404);
    let wrong = get(&server, "/v1/completions");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
    assert_eq!(post(&server, "/v1/models", &json!({})).header("allow"), Some("GET"));
}

#[test]
fn a_whole_answer_has_its_usage_and_its_times() {
    let server = start(json!({}));
    let answer = post(&server, "/v1/completions", &json!({ "prompt": "one two three", "max_tokens": 5 }));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let body = answer.json();
    assert_eq!(body["object"], "text_completion");
    assert_eq!(body["usage"], json!({ "prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8 }));
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["choices"][0]["text"].as_str().unwrap().split(' ').count(), 5);
    let times = answer.times();
    assert_eq!((times["ttft_ms"].as_f64(), times["e2e_ms"].as_f64()), (Some(3.0), Some(7.0)));

    let messages = json!([{ "role": "user", "content": [{ "type": "text", "text": "hello" }] }]);
    let chat = json!({ "model": "mock", "messages": messages, "max_completion_tokens": 2 });
    let body = post(&server, "/v1/chat/completions", &chat).json();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["choices"][0]["message"]["role"], "assistant");
    assert_eq!(body["usage"]["completion_tokens"], 2);
    let open = json!({ "messages": [{ "role": "user", "content": "hello" }] });
    assert_eq!(post(&server, "/v1/chat/completions", &open).json()["usage"]["completion_tokens"], 256);
    let open = json!({ "prompt": "hello" });
    assert_eq!(post(&server, "/v1/completions", &open).json()["usage"]["completion_tokens"], 16);
}

#[test]
fn texts_that_end_an_answer_end_it() {
    let responses = json!([{ "text": "one two three four" }]);
    let server = start(json!({ "responses": responses }));
    let ask = |stop: Value, more: Value| {
        let mut body = json!({ "prompt": "x", "max_tokens": 9, "stop": stop });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        let body = post(&server, "/v1/completions", &body).json();
        let choice = &body["choices"][0];
        let text = choice["text"].as_str().unwrap().to_owned();
        let reason = choice["finish_reason"].as_str().unwrap().to_owned();
        (text, reason, body["usage"]["completion_tokens"].as_u64().unwrap())
    };
    let expect = |text: &str, tokens| (text.to_owned(), "stop".to_owned(), tokens);
    assert_eq!(ask(json!(null), json!({})), expect("one two three four", 4));
    assert_eq!(ask(json!(" thr"), json!({})), expect("one two", 3));
    assert_eq!(ask(json!(["four", "two"]), json!({})), expect("one ", 2));
    assert_eq!(ask(json!("two"), json!({ "include_stop_str_in_output": true })), expect("one two", 2));
    assert_eq!(ask(json!("o"), json!({ "min_tokens": 2 })), expect("one two three f", 4));
    let forced = ask(json!(null), json!({ "ignore_eos": true }));
    assert_eq!((forced.1.as_str(), forced.2), ("length", 9));
}

#[test]
fn ids_go_in_and_out_and_back() {
    let server = start(json!({}));
    let told =
        post(&server, "/tokenize", &json!({ "prompt": "hello world, 12345", "return_token_strs": true }));
    let told = told.json();
    assert_eq!(told["token_strs"], json!(["hello", " world", ",", " ", "123", "45"]));
    assert_eq!((told["count"].as_u64(), told["max_model_len"].as_u64()), (Some(6), Some(4096)));
    let back = post(&server, "/detokenize", &json!({ "tokens": told["tokens"] })).json();
    assert_eq!(back["prompt"], "hello world, 12345");
    let asked = json!({ "prompt": told["tokens"], "max_tokens": 4, "return_token_ids": true });
    let answer = post(&server, "/v1/completions", &asked).json();
    let choice = &answer["choices"][0];
    assert_eq!(answer["usage"]["prompt_tokens"], 6);
    assert_eq!(choice["prompt_token_ids"], told["tokens"]);
    let back = post(&server, "/detokenize", &json!({ "tokens": choice["token_ids"] })).json();
    assert_eq!(back["prompt"], choice["text"]);
    let unknown = post(&server, "/detokenize", &json!({ "tokens": [1] }));
    assert_eq!((unknown.status, unknown.json()["error"]["param"].as_str()), (400, Some("tokens")));
    let chat = json!({ "messages": [{ "role": "user", "content": "hello" }] });
    assert_eq!(post(&server, "/tokenize", &chat).json()["count"], 7);
}

#[test]
fn a_prefix_is_found_until_it_is_forgotten() {
    let server = start(json!({ "kv": { "tokens": 4096 } }));
    let prompt = "word ".repeat(64);
    let hits = || {
        let before = metric(&server, "vllm:prefix_cache_hits_total");
        post(&server, "/v1/completions", &json!({ "prompt": prompt, "max_tokens": 1 }));
        metric(&server, "vllm:prefix_cache_hits_total") - before
    };
    assert_eq!([hits(), hits()], [0.0, 64.0]);
    assert_eq!(post(&server, "/reset_prefix_cache", &json!({})).status, 200);
    assert_eq!([hits(), hits()], [0.0, 64.0]);
    let salted = |salt: &str| {
        let before = metric(&server, "vllm:prefix_cache_hits_total");
        let asked = json!({ "prompt": prompt, "max_tokens": 1, "cache_salt": salt });
        post(&server, "/v1/completions", &asked);
        metric(&server, "vllm:prefix_cache_hits_total") - before
    };
    assert_eq!([salted("a"), salted("b"), salted("a")], [0.0, 0.0, 64.0]);
}

#[test]
fn what_is_wrong_is_said_in_the_apis_shape() {
    let server = start(json!({}));
    let long = "a ".repeat(5000);
    let chat = "/v1/chat/completions";
    let text = "/v1/completions";
    let wrong: &[(&str, &str, u16, Option<&str>)] = &[
        (text, "{", 400, None),
        (text, "[]", 400, None),
        (text, "", 400, None),
        (text, r#"{"prompt":"x","max_tokens":"many"}"#, 400, None),
        (text, r#"{"prompt":"x","max_tokens":-1}"#, 400, None),
        (text, r#"{"prompt":"x","max_tokens":0}"#, 400, Some("max_tokens")),
        (text, r#"{"prompt":"x","max_tokens":5000}"#, 400, Some("max_tokens")),
        (text, &format!(r#"{{"prompt":"{long}"}}"#), 400, Some("max_tokens")),
        (text, r#"{"prompt":"x","max_tokens":2,"min_tokens":3}"#, 400, Some("min_tokens")),
        (text, r#"{"model":"gpt-5","prompt":"x"}"#, 404, Some("model")),
        (text, "{}", 400, Some("prompt")),
        (text, r#"{"prompt":""}"#, 400, Some("prompt")),
        (text, r#"{"prompt":[]}"#, 400, Some("prompt")),
        (text, r#"{"prompt":[1,"a"]}"#, 400, Some("prompt")),
        (text, r#"{"prompt":[-1]}"#, 400, Some("prompt")),
        (text, r#"{"prompt":["a","b"]}"#, 400, Some("prompt")),
        (text, r#"{"prompt":"x","n":2}"#, 400, Some("n")),
        (text, r#"{"prompt":"x","best_of":2}"#, 400, Some("best_of")),
        (text, r#"{"prompt":"x","echo":true}"#, 400, Some("echo")),
        (text, r#"{"prompt":"x","logprobs":5}"#, 400, Some("logprobs")),
        (text, r#"{"prompt":"x","suffix":"y"}"#, 400, Some("suffix")),
        (text, r#"{"prompt":"x","stop":[""]}"#, 400, Some("stop")),
        (text, r#"{"prompt":"x","stop":7}"#, 400, Some("stop")),
        (text, r#"{"prompt":"x","stop_token_ids":[7]}"#, 400, Some("stop_token_ids")),
        (text, r#"{"prompt":"x","stream_options":{}}"#, 400, Some("stream_options")),
        (chat, r#"{"prompt":"x"}"#, 400, Some("messages")),
        (chat, r#"{"messages":[]}"#, 400, Some("messages")),
        (chat, r#"{"messages":[{"role":"user","content":7}]}"#, 400, Some("messages")),
        (chat, r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#, 400, Some("messages")),
        (chat, r#"{"messages":[{"role":"user","content":"x"}],"tools":[{}]}"#, 400, Some("tools")),
        (
            chat,
            r#"{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_object"}}"#,
            400,
            Some("response_format"),
        ),
        ("/tokenize", "{}", 400, Some("prompt")),
        ("/detokenize", "{}", 400, None),
    ];
    for (path, body, status, param) in wrong {
        let answer = ask(&server, "POST", path, body);
        let error = &answer.json()["error"];
        assert_eq!((answer.status, error["param"].as_str()), (*status, *param), "{path} {body}: {error}");
        assert_eq!(error["code"], *status);
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{error}");
        assert!(error["type"].is_string());
    }
    assert_eq!(metric(&server, "vllm:prompt_tokens_total"), 0.0, "no request was let in");
}

#[test]
fn too_much_is_turned_away() {
    let limits = Limits { max_requests: 1, max_body: 2000, ..Limits::default() };
    let server = start_with(&mock(json!({ "ttft": "1h" })), limits, &any());
    let body = json!({ "prompt": "x" }).to_string();
    let mut waits = connect(&server);
    waits.write_all(&request("POST", "/v1/completions", &body)).unwrap();
    while metric(&server, "vllm:num_requests_running") < 1.0 {
        std::thread::yield_now();
    }
    let refused = ask(&server, "POST", "/v1/completions", &body);
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.json()["error"]["type"], "RateLimitError");
    let long = ask(&server, "POST", "/v1/completions", &json!({ "prompt": "x".repeat(3000) }).to_string());
    assert_eq!((long.status, long.json()["error"]["code"].as_u64()), (413, Some(413)));
    drop(waits);
    // The place is free again when the hang-up was noticed.
    while metric(&server, "vllm:num_requests_running") > 0.0 {
        std::thread::yield_now();
    }
}

#[test]
fn one_connection_serves_many_requests_however_they_are_cut() {
    let server = start(json!({}));
    let mut stream = connect(&server);
    let body = json!({ "prompt": "a b", "max_tokens": 2 }).to_string();
    let one = request("POST", "/v1/completions", &body);
    for byte in &one {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read(&mut stream).json()["usage"]["total_tokens"], 4);
    // Two requests in one segment.
    stream.write_all(&[one.clone(), one].concat()).unwrap();
    for _ in 0..2 {
        assert_eq!(read(&mut stream).json()["usage"]["total_tokens"], 4);
    }
    stream.write_all(b"nonsense\r\n\r\n").unwrap();
    assert_eq!(read(&mut stream).status, 400);
}

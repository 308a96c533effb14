//! Models that are computed, as their clients see them: tiny ones with random weights.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use sagebench::backend::candle::{Local, Source};
use sagebench::backend::config::Backend;
use sagebench::checkpoint::random::{Like, Random, Stored};
use sagebench::plan::Sampling;
use sagebench::serve::{Limits, Mind, Offer, Server};
use sagebench::tokenizer::{Hf, Tokenizer as _};
use serde_json::{Value, json};

use crate::client::{Answer, any, connect, get, metric, post, read, request};

/// Roles and contents on lines, in the marks of a special token.
const TEMPLATE: &str = "{% if messages[0].role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}{% for m in messages %}{{ eos_token }}{{ m.role }}
{{ m.content | trim }}
{% endfor %}{% if add_generation_prompt %}{{ eos_token }}assistant
{% endif %}";

struct Served {
    server: Server,
    tokenizer: Arc<Hf>,
    _dir: tempfile::TempDir,
}

/// A server of a tiny model. `change` looks at its folder first.
fn serve(change: impl FnOnce(&Path)) -> Served {
    let dir = tempfile::tempdir().unwrap();
    Random { like: Like::Gpt2, tiny: true, stored: Stored::F32, seed: 5 }.write(dir.path()).unwrap();
    change(dir.path());
    let settings = json!({ "kind": "candle", "model": dir.path(), "threads": 1, "kv": { "tokens": 2048 } });
    let Backend::Candle(config) = serde_json::from_value(settings).unwrap() else { panic!("no model") };
    let source = Arc::new(Source::find(&config, dir.path()).unwrap());
    let engine = Local::open(&config, &source).unwrap().engine(vec![Sampling::default()]).unwrap();
    let tokenizer = Arc::clone(&source.tokenizer);
    let mind = Mind::Computed { tokenizer: Arc::clone(&tokenizer), template: source.template.clone() };
    let offer = Offer { model: "tiny".into(), max_model_len: 1024, mind, seed: 7 };
    let server = Server::start(&any(), Box::new(engine), offer, Limits::default()).unwrap();
    Served { server, tokenizer, _dir: dir }
}

fn chat_model(dir: &Path) {
    let config = json!({ "eos_token": "<|endoftext|>", "chat_template": TEMPLATE });
    std::fs::write(dir.join("tokenizer_config.json"), config.to_string()).unwrap();
}

impl Served {
    fn complete(&self, prompt: Value, more: Value) -> Answer {
        let mut body = json!({ "prompt": prompt, "max_tokens": 12, "temperature": 0 });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        post(&self.server, "/v1/completions", &body)
    }

    /// Text, reason and output tokens of a whole answer.
    fn whole(&self, more: Value) -> (String, String, u64) {
        let answer = self.complete(json!("kibo bani la"), more);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let body = answer.json();
        let choice = &body["choices"][0];
        let text = choice["text"].as_str().unwrap().to_owned();
        let reason = choice["finish_reason"].as_str().unwrap().to_owned();
        (text, reason, body["usage"]["completion_tokens"].as_u64().unwrap())
    }

    /// The same of a stream.
    fn streamed(&self, mut more: Value) -> (String, String, u64) {
        more["stream"] = true.into();
        more["stream_options"] = json!({ "include_usage": true });
        let answer = self.complete(json!("kibo bani la"), more);
        assert_eq!((answer.status, answer.events().last()), (200, Some(&"[DONE]")), "{}", answer.body);
        let chunks = answer.chunks();
        let (usage, events) = chunks.split_last().unwrap();
        let text = events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
        let reason = events.last().unwrap()["choices"][0]["finish_reason"].as_str().unwrap();
        (text, reason.to_owned(), usage["usage"]["completion_tokens"].as_u64().unwrap())
    }

    fn refused(&self, path: &str, body: &Value) -> String {
        let answer = post(&self.server, path, body);
        assert_eq!(answer.status, 400, "{}", answer.body);
        answer.json()["error"]["message"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_stream_says_what_a_whole_answer_says() {
    let served = serve(|_| {});
    let whole = served.whole(json!({}));
    assert_eq!((whole.1.as_str(), whole.2), ("length", 12));
    assert_eq!(served.streamed(json!({})), whole);
    let answer = served.complete(json!("kibo bani la"), json!({ "return_token_ids": true }));
    let body = answer.json();
    let choice = &body["choices"][0];
    let ids: Vec<u32> = serde_json::from_value(choice["token_ids"].clone()).unwrap();
    assert_eq!((ids.len(), served.tokenizer.decode(&ids)), (12, whole.0.clone()));
    let prompt: Vec<u32> = serde_json::from_value(choice["prompt_token_ids"].clone()).unwrap();
    assert_eq!(prompt, served.tokenizer.encode_whole("kibo bani la"));
    assert_eq!(body["usage"]["prompt_tokens"], prompt.len());
    let times = answer.times();
    assert_eq!(times["output_tokens"], 12);
    assert!(times["ttft_ms"].as_f64().unwrap() > 0.0 && times["queue_ms"].as_f64().unwrap() >= 0.0);
    // The same prompt by its ids.
    let answer = served.complete(json!(prompt), json!({}));
    assert_eq!(answer.json()["choices"][0]["text"], whole.0);
}

#[test]
fn draws_follow_their_seed() {
    let served = serve(|_| {});
    let draw = |seed: Value| served.whole(json!({ "temperature": 1.5, "top_p": 0.95, "seed": seed })).0;
    assert_eq!(draw(json!(1)), draw(json!(1)));
    assert_ne!(draw(json!(1)), draw(json!(2)));
    assert_ne!(draw(json!(null)), draw(json!(null)), "without a seed each request has its own");
}

#[test]
fn an_answer_ends_where_it_should() {
    let mut ids = Vec::new();
    let first = serve(|_| {});
    let body = first.complete(json!("kibo bani la"), json!({ "return_token_ids": true })).json();
    ids.extend(body["choices"][0]["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()));
    let text = body["choices"][0]["text"].as_str().unwrap().to_owned();
    // A text in the middle of the answer ends it, and is not shown.
    let middle: Vec<char> = text.chars().collect();
    let stop: String = middle[middle.len() / 2..].iter().take(2).collect();
    let cut = text.find(&stop).unwrap();
    for answer in [first.whole(json!({ "stop": stop })), first.streamed(json!({ "stop": [stop, "zzzz"] }))] {
        assert_eq!((answer.0.as_str(), answer.1.as_str()), (&text[..cut], "stop"));
    }
    let kept = first.streamed(json!({ "stop": stop, "include_stop_str_in_output": true }));
    assert_eq!(kept.0, text[..cut + stop.len()]);
    assert_eq!(first.whole(json!({ "stop": stop, "min_tokens": 12 })), (text, "length".into(), 12));

    // A model whose answer ends with a token that it says.
    let end = ids[4];
    let place = ids.iter().position(|id| *id == end).unwrap() as u64 + 1;
    let served = serve(|dir| {
        let path = dir.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["eos_token_id"] = end.into();
        std::fs::write(path, config.to_string()).unwrap();
    });
    for answer in [served.whole(json!({})), served.streamed(json!({}))] {
        assert_eq!((answer.1.as_str(), answer.2), ("stop", place));
    }
    assert_eq!(served.whole(json!({ "ignore_eos": true })).2, 12);
    let body = json!({ "min_tokens": 8, "return_token_ids": true });
    let late = served.complete(json!("kibo bani la"), body).json();
    let late: Vec<u64> = serde_json::from_value(late["choices"][0]["token_ids"].clone()).unwrap();
    assert!(late.len() >= 8 && !late[..8].contains(&end), "{late:?} without {end} among the first 8");
}

#[test]
fn a_chat_goes_through_the_models_template() {
    let served = serve(chat_model);
    let messages = json!([
        { "role": "system", "content": " kibo " },
        { "role": "user", "content": [{ "type": "text", "text": "bani" }, { "type": "text", "text": "la" }] },
    ]);
    let text = "<|endoftext|>system\nkibo\n<|endoftext|>user\nbani\nla\n<|endoftext|>assistant\n";
    let ids = served.tokenizer.encode(text);
    let asked = json!({ "messages": messages, "max_tokens": 6, "temperature": 0 });
    let body = post(&served.server, "/v1/chat/completions", &asked).json();
    assert_eq!(body["usage"]["prompt_tokens"], ids.len(), "{body}");
    let plain = served.complete(json!(ids), json!({ "max_tokens": 6 })).json();
    assert_eq!(body["choices"][0]["message"]["content"], plain["choices"][0]["text"]);
    let told = post(&served.server, "/tokenize", &json!({ "messages": messages })).json();
    assert_eq!(told["tokens"], json!(ids));
    let told = post(&served.server, "/detokenize", &json!({ "tokens": served.tokenizer.encode("bani la") }));
    assert_eq!(told.json()["prompt"], "bani la");
}

#[test]
fn what_can_not_be_answered_is_refused_by_name() {
    let served = serve(chat_model);
    let chat = |messages: Value| served.refused("/v1/chat/completions", &json!({ "messages": messages }));
    let complete = |more: Value| {
        let mut body = json!({ "prompt": "bani" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        served.refused("/v1/completions", &body)
    };
    let image = json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }]);
    assert_eq!(chat(image), "a message has a part of type `image_url`, and the model reads texts only");
    assert_eq!(
        chat(json!([{ "role": "tool", "content": "x" }])),
        "the chat template refuses this conversation: no tools here"
    );
    assert_eq!(complete(json!({ "top_k": 5 })), "`top_k` is not served here");
    assert_eq!(complete(json!({ "temperature": -1 })), "`temperature` must be from 0 to 100, it is -1");
    assert_eq!(complete(json!({ "top_p": 0 })), "`top_p` must be above 0 and at most 1, it is 0");
    assert_eq!(
        complete(json!({ "prompt": [1, 99_999] })),
        "token id 99999 is unknown: the model's are below 512"
    );
    assert!(complete(json!({ "max_tokens": 2000 })).contains("maximum context length is 1024"));
    let plain = serve(|_| {});
    let asked = json!({ "messages": [{ "role": "user", "content": "bani" }] });
    assert_eq!(
        plain.refused("/v1/chat/completions", &asked),
        "the model has no chat template; ask /v1/completions, or serve a model that has one"
    );
    let broken = serve(|dir| {
        let config = json!({ "chat_template": "{% if %}" });
        std::fs::write(dir.join("tokenizer_config.json"), config.to_string()).unwrap();
    });
    let message = broken.refused("/v1/chat/completions", &asked);
    assert!(message.contains("tokenizer_config.json: the chat template, line 1: "), "{message}");
    assert_eq!(broken.whole(json!({})).2, 12, "completions need no template");
}

fn label(how: &str) -> String {
    format!("vllm:request_success_total{{engine=\"0\",model_name=\"tiny\",finished_reason=\"{how}\"}}")
}

#[test]
fn the_metrics_page_counts_what_was_computed() {
    let served = serve(|_| {});
    let server = &served.server;
    let prompt = served.tokenizer.text_of(64, 3);
    for _ in 0..2 {
        served.complete(json!(prompt), json!({}));
    }
    assert_eq!(metric(server, "vllm:prompt_tokens_total"), 128.0);
    assert_eq!(metric(server, "vllm:generation_tokens_total"), 24.0);
    assert_eq!(metric(server, "vllm:prefix_cache_hits_total"), 48.0, "three whole blocks");
    assert_eq!(metric(server, "vllm:request_queue_time_seconds_count"), 2.0);
    assert_eq!(metric(server, "vllm:time_to_first_token_seconds_count"), 2.0);
    assert!(metric(server, "vllm:time_to_first_token_seconds_sum") > 0.0);
    assert_eq!(metric(server, &label("length")), 2.0);
    served.complete(json!(prompt), json!({ "cache_salt": "other" }));
    assert_eq!(metric(server, "vllm:prefix_cache_hits_total"), 48.0, "other salt, other blocks");
    assert_eq!(post(server, "/reset_prefix_cache", &json!({})).status, 200);
    served.complete(json!(prompt), json!({}));
    assert_eq!(metric(server, "vllm:prefix_cache_hits_total"), 48.0, "forgotten");
    assert!(get(server, "/metrics").body.contains("num_gpu_blocks=\"128\""));
}

const LONG: &str = r#"{"prompt":"bani","max_tokens":1000,"ignore_eos":true,"temperature":0,"stream":true}"#;

#[test]
fn a_client_that_hangs_up_is_given_up() {
    let served = serve(|_| {});
    let mut stream = connect(&served.server);
    stream.write_all(&request("POST", "/v1/completions", LONG)).unwrap();
    stream.read_exact(&mut [0; 600]).unwrap();
    drop(stream);
    while metric(&served.server, &label("abort")) < 1.0 {
        std::thread::yield_now();
    }
    assert_eq!(metric(&served.server, "vllm:num_requests_running"), 0.0);
    assert_eq!(served.whole(json!({})).2, 12, "and the next one is answered");
}

#[test]
fn a_server_that_ends_finishes_what_it_answers() {
    let Served { server, _dir, .. } = serve(|_| {});
    let mut stream = connect(&server);
    let asked = LONG.replace("1000", "200");
    stream.write_all(&request("POST", "/v1/completions", &asked)).unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    let ending = std::thread::spawn(move || server.shut_down());
    let rest = read(&mut std::io::Cursor::new(byte).chain(&mut stream));
    assert_eq!(rest.broken, None);
    assert_eq!((rest.chunks().len(), rest.events().last()), (200, Some(&"[DONE]")));
    ending.join().unwrap();
}

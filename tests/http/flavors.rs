//! Servers by name: their metrics pages and their way to stream, written down from their public documentation.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::program::{json_file, repo, sagebench};
use crate::server::*;

fn fixture(flavor: &str, file: &str) -> String {
    fs::read_to_string(repo(&format!("tests/fixtures/servers/{flavor}/{file}"))).unwrap()
}

/// One id for each word.
fn ids(text: &str) -> Vec<u32> {
    text.split(' ')
        .map(|word| word.bytes().fold(7, |hash: u32, byte| hash.wrapping_mul(31) + u32::from(byte)) % 50_000)
        .collect()
}

/// A server that answers as `flavor` does; its counters stand still before the first completion and have moved after it.
fn flavored(flavor: &'static str) -> Server {
    let asked_once = Arc::new(AtomicBool::new(false));
    Server::start(move |asked| {
        let page = |file: &str| status(200, "OK", "", &fixture(flavor, file));
        match (flavor, asked.path.as_str()) {
            (_, "/v1/models") => page("models.json"),
            ("vllm", "/version") | ("sglang", "/get_server_info") | ("llamacpp", "/props") => {
                page("info.json")
            }
            (_, "/metrics") if asked_once.load(Ordering::Relaxed) => page("metrics-after.txt"),
            (_, "/metrics") => page("metrics-before.txt"),
            ("vllm" | "sglang", "/tokenize") => {
                assert_eq!(asked.body["add_special_tokens"], false);
                let tokens = ids(asked.body["prompt"].as_str().unwrap());
                status(
                    200,
                    "OK",
                    "",
                    &json!({ "count": tokens.len(), "max_model_len": 8192, "tokens": tokens }).to_string(),
                )
            }
            ("llamacpp", "/tokenize") => status(
                200,
                "OK",
                "",
                &json!({ "tokens": ids(asked.body["content"].as_str().unwrap()) }).to_string(),
            ),
            ("lmdeploy", "/v1/encode") => {
                let tokens = ids(asked.body["input"].as_str().unwrap());
                status(200, "OK", "", &json!({ "input_ids": tokens, "length": tokens.len() }).to_string())
            }
            ("sglang", "/flush_cache") => status(200, "OK", "", ""),
            (_, "/v1/completions") => {
                asked_once.store(true, Ordering::Relaxed);
                completion(flavor, &asked.body)
            }
            _ => Vec::new(),
        }
    })
}

/// As many tokens as asked for, in this server's dialect.
fn completion(flavor: &str, body: &Value) -> Vec<Step> {
    let wanted = body["max_tokens"].as_u64().unwrap();
    let prompt = &body["prompt"];
    let length = prompt.as_array().map_or_else(|| ids(prompt.as_str().unwrap()).len(), Vec::len) as u64;
    let dialect = fixture(flavor, "stream.txt");
    let mut steps = vec![head()];
    for line in dialect.lines() {
        let (kind, text) = line.split_once(": ").unwrap();
        let text = text
            .replace("$P", &length.to_string())
            .replace("$N", &wanted.to_string())
            .replace("$T", &(length + wanted).to_string());
        let times = if kind == "token" { wanted - 1 } else { 1 };
        steps.extend((0..times).map(|_| piece(format!("data: {text}\n\n"))));
    }
    steps.extend([piece("data: [DONE]\n\n"), end()]);
    steps
}

/// Applies the worked scenario of a flavor to its server, shortened.
fn applied(flavor: &'static str, variable: &str) -> (Server, Value, Value) {
    let server = flavored(flavor);
    let dir = tempfile::tempdir().unwrap();
    let scenario = repo(&format!("scenarios/{flavor}.yaml"));
    let said = sagebench(dir.path())
        .env(variable, server.url())
        .arg("apply")
        .arg(&scenario)
        .args(["--only", "together", "-q"])
        .args(["--set", "workloads.together.load.requests=6", "--set", "validity.lag=off"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(0), "{}\n{error}", String::from_utf8_lossy(&said.stdout));
    let metrics = json_file(dir.path().join("benchmark_results/together_metrics.json"));
    let run = json_file(dir.path().join("benchmark_results/run.json"));
    assert_eq!(metrics["successful_requests"], 6);
    assert_eq!((&metrics["avg_output_tokens"], &metrics["avg_prompt_tokens"]), (&json!(64.0), &json!(256.0)));
    (server, metrics, run)
}

fn reason<'a>(metrics: &'a Value, name: &str) -> &'a str {
    assert_eq!(metrics[name], Value::Null, "{name}");
    metrics["unavailable"][name].as_str().unwrap_or_default()
}

#[test]
fn vllm() {
    let (server, metrics, run) = applied("vllm", "VLLM_URL");
    assert_eq!(metrics["prefix_hit_rate"], 0.75);
    assert_eq!((&metrics["kv_used_tokens"], &metrics["kv_capacity_tokens"]), (&json!(8000), &json!(64000)));
    assert_eq!((&metrics["preempt_count"], &metrics["spec_accept_rate"]), (&json!(2), &json!(0.6)));
    assert!(reason(&metrics, "evict_count").contains("do not export"));
    assert!(reason(&metrics, "peak_mem_mb").contains("launch"));
    assert_eq!(metrics["model"], "meta-llama/Llama-3.1-8B-Instruct");
    let own = &run["backends"][0]["server"];
    assert_eq!((&own["version"], &own["max_model_len"]), (&json!("0.10.1"), &json!(8192)));
    assert_eq!((&own["flavor"], &own["exact_prompts"]), (&json!("vllm"), &json!(true)));
    let bodies = server.bodies();
    assert!(
        bodies.iter().all(|body| body["prompt"].as_array().unwrap().len() == 256),
        "ids, exactly as many"
    );
    let forced = json!([true, 64, 64, { "include_usage": true }]);
    let fields = |body: &Value| {
        json!([body["ignore_eos"], body["min_tokens"], body["max_tokens"], body["stream_options"]])
    };
    assert!(bodies.iter().all(|body| fields(body) == forced), "{}", bodies[0]);
    let salt = bodies[0]["cache_salt"].as_str().unwrap();
    assert!(salt.len() == 16 && bodies.iter().all(|body| body["cache_salt"] == salt));
}

#[test]
fn sglang() {
    let (server, metrics, run) = applied("sglang", "SGLANG_URL");
    assert_eq!(metrics["prefix_hit_rate"], 0.25);
    assert_eq!((&metrics["kv_used_tokens"], &metrics["kv_capacity_tokens"]), (&json!(4321), &json!(100_000)));
    assert_eq!((&metrics["preempt_count"], &metrics["spec_accept_rate"]), (&json!(1), &json!(0.75)));
    assert_eq!(run["backends"][0]["server"]["version"], "0.5.2");
    assert!(
        server
            .asked
            .lock()
            .unwrap()
            .iter()
            .any(|asked| asked.path == "/flush_cache" && asked.method == "POST")
    );
    assert!(server.bodies().iter().all(|body| body.get("cache_salt").is_none() && body["min_tokens"] == 64));
}

#[test]
fn lmdeploy() {
    let (server, metrics, run) = applied("lmdeploy", "LMDEPLOY_URL");
    assert!(reason(&metrics, "kv_used_tokens").contains("not its size"));
    assert!(reason(&metrics, "prefix_hit_rate").contains("does not export"));
    assert_eq!(metrics["spec_accept_rate"], 0.75);
    assert_eq!(run["backends"][0]["server"]["prompts"], "words of one token each");
    let bodies = server.bodies();
    assert!(bodies.iter().all(|body| body["prompt"].is_string() && body["min_new_tokens"] == 64));
}

#[test]
fn llamacpp() {
    let (server, metrics, run) = applied("llamacpp", "LLAMACPP_URL");
    assert_eq!(metrics["kv_used_tokens"], 1234);
    let own = &run["backends"][0]["server"];
    assert_eq!((&own["version"], &own["max_model_len"]), (&json!("b6123-79c1160b"), &json!(4096)));
    assert!(
        server.bodies().iter().all(|body| body["ignore_eos"] == true && body.get("min_tokens").is_none())
    );
}

#[test]
fn who_it_is_is_found_out() {
    for flavor in ["vllm", "sglang", "lmdeploy", "llamacpp"] {
        let server = flavored(flavor);
        let mut wanted = crate::play::scenario(&server.url(), 1, 4);
        wanted["backends"]["s"]["flavor"] = json!("auto");
        let found = crate::play::open(&wanted).unwrap().identity().clone();
        assert_eq!(found.flavor.name(), flavor);
    }
    let plain = Server::start(|asked| if asked.path == "/v1/models" { models() } else { Vec::new() });
    let mut wanted = crate::play::scenario(&plain.url(), 1, 4);
    wanted["backends"]["s"]["flavor"] = json!("auto");
    let found = crate::play::open(&wanted).unwrap().identity().clone();
    assert_eq!((found.flavor.name(), found.exact_prompts), ("generic", false));
    assert!(found.notes[0].contains("inexact"), "{:?}", found.notes);
}

//! The metrics page, read by the rules of Prometheus' text format.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::client::{get, post, start};

/// Name, labels, value.
type Sample = (String, String, f64);

/// Every sample by its name and labels; each belongs to a family that has its type before it.
fn parse(page: &str) -> (BTreeMap<String, String>, Vec<Sample>) {
    let (mut types, mut samples) = (BTreeMap::new(), Vec::new());
    let mut helped = String::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(text.ends_with('.'), "{line}");
            name.clone_into(&mut helped);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, helped);
            assert!(["counter", "gauge", "histogram"].contains(&kind));
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
        } else {
            let (name, rest) = line.split_once('{').unwrap();
            let (labels, value) = rest.rsplit_once("} ").unwrap();
            for label in labels.split(',') {
                let (key, value) = label.split_once('=').unwrap();
                assert!(key.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
                assert!(value.starts_with('"') && value.ends_with('"'), "{line}");
            }
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| {
                    name.strip_suffix(end)
                        .filter(|family| types.get(*family).is_some_and(|t| t == "histogram"))
                })
                .unwrap_or(name);
            assert_eq!(family, helped, "{line} stands in another family");
            assert_eq!(types[family] == "counter", name.ends_with("_total"), "{line}");
            samples.push((name.to_owned(), labels.to_owned(), value.parse().unwrap()));
        }
    }
    (types, samples)
}

/// What Prometheus' own `promtool` finds wrong with a page, beside the colons in vLLM's names. Nothing where it is not
/// installed.
fn found_by_promtool(page: &str) -> Vec<String> {
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut tool) = tool else {
        eprintln!("promtool did not look at the page: it is not installed");
        return Vec::new();
    };
    tool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = tool.wait_with_output().unwrap();
    let text = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
    text.lines().filter(|line| !line.contains("should not contain ':'")).map(str::to_owned).collect()
}

#[test]
fn the_page_is_well_formed_and_counts_right() {
    let server = start(json!({ "mode": "batched", "preset": "h100-8b", "ttft": null, "tbt": null,
        "kv": { "tokens": 4096 }, "speculative": { "tokens": 2, "accept": 0.5 }, "model": "a \"model\"\\" }));
    for _ in 0..3 {
        post(&server, "/v1/completions", &json!({ "prompt": "one two three", "max_tokens": 10 }));
    }
    let answer = get(&server, "/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(found_by_promtool(&answer.body), Vec::<String>::new());
    let (types, samples) = parse(&answer.body);
    for name in [
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "cache_config_info",
        "prefix_cache_queries_total",
        "prefix_cache_hits_total",
        "prompt_tokens_total",
        "generation_tokens_total",
        "num_preemptions_total",
        "request_success_total",
        "spec_decode_num_draft_tokens_total",
        "spec_decode_num_accepted_tokens_total",
        "time_to_first_token_seconds",
        "inter_token_latency_seconds",
        "time_per_output_token_seconds",
        "e2e_request_latency_seconds",
        "request_queue_time_seconds",
        "request_prefill_time_seconds",
        "request_decode_time_seconds",
    ] {
        assert!(types.contains_key(&format!("vllm:{name}")), "{name}");
    }
    let value = |name: &str| samples.iter().find(|(known, ..)| known == name).unwrap().2;
    assert_eq!(value("vllm:prompt_tokens_total"), 9.0);
    assert_eq!(value("vllm:generation_tokens_total"), 30.0);
    assert_eq!(value("vllm:time_to_first_token_seconds_count"), 3.0);
    assert_eq!(value("vllm:inter_token_latency_seconds_count"), 27.0);
    for (name, kind) in types {
        if kind != "histogram" {
            continue;
        }
        let buckets: Vec<f64> = samples
            .iter()
            .filter(|(known, ..)| *known == format!("{name}_bucket"))
            .map(|(.., n)| *n)
            .collect();
        assert!(buckets.is_sorted(), "{name}: {buckets:?}");
        assert_eq!(buckets.last(), Some(&value(&format!("{name}_count"))), "{name}");
    }
}

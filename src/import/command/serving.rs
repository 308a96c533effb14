//! `vllm bench serve` and `SGLang`'s `bench_serving`, whose flags have the same root.

use serde_json::{Value, json};

use super::draft::{Draft, around, base_url, between};
use super::words::{Flags, number};

const WRITING: &str = "results are always written, with every request; `report` renders them";
const PERCENTILES: &str = "avg, p50, p90, p95, p99 and max of every metric are in the results";
const PROFILER: &str = "the server's profiler is left alone";
const SCREEN: &str = "progress shows on a terminal only";
const TOKENIZER: &str =
    "the server's own tokenizer makes the prompts; `tokenizer` of the backend names another";

/// Where the server is and which API is asked.
fn server(flags: &mut Flags, draft: &mut Draft, port: u64) -> Result<(), String> {
    let host = flags.value(&["host"])?.unwrap_or_else(|| "127.0.0.1".to_owned());
    let port = flags.count(&["port"], 1)?.unwrap_or(port);
    let base = flags.value(&["base-url"])?.unwrap_or_else(|| format!("http://{host}:{port}"));
    let endpoint = flags.value(&["endpoint"])?;
    let url = match &endpoint {
        Some(path) => {
            let root = path.trim_end_matches("/chat/completions").trim_end_matches("/completions");
            format!("{}{root}", base.trim_end_matches('/'))
        }
        None => base,
    };
    draft.backend.insert("base_url".into(), json!(base_url(&url)));
    if endpoint.is_some_and(|path| path.contains("/chat/")) {
        draft.backend.insert("endpoint".into(), json!("chat"));
    }
    let model = flags.value(&["model"])?;
    if let Some(model) = flags.value(&["served-model-name"])?.or(model) {
        draft.backend.insert("model".into(), json!(model));
    }
    Ok(())
}

/// How many requests are sent, and when.
fn load(flags: &mut Flags, draft: &mut Draft) -> Result<(), String> {
    let requests = flags.count(&["num-prompts"], 1)?.unwrap_or(1000);
    let rate = flags.number(&["request-rate"])?.filter(|rate| rate.is_finite());
    let burstiness = flags.number(&["burstiness"])?;
    let cap = flags.count(&["max-concurrency"], 1)?;
    match (rate.filter(|rate| *rate > 0.0), cap) {
        (Some(rate), cap) => {
            let arrival = match burstiness {
                Some(shape) if shape > 0.0 && (shape - 1.0).abs() > f64::EPSILON => {
                    json!({ "kind": "gamma", "burstiness": shape })
                }
                _ => json!("poisson"),
            };
            draft.open(rate, arrival, cap);
            draft.note(
                "--request-rate",
                "is an open load; TTFT then counts from when a request was due, not from the send",
            );
        }
        (None, Some(cap)) => draft.closed(cap),
        (None, None) => {
            draft.closed(requests);
            draft.note("--request-rate inf", "all requests at once are as many users with one request each");
        }
    }
    draft.load.insert("requests".into(), json!(requests));
    draft.seed = flags.count(&["seed"], 0)?;
    for (flag, field) in [("temperature", "temperature"), ("top-p", "top_p")] {
        let value = flags.number(&[flag])?;
        draft.output.extend(value.map(|value| (field.to_owned(), json!(value))));
    }
    for (flag, field) in [
        ("top-k", "top_k"),
        ("min-p", "min_p"),
        ("frequency-penalty", "frequency_penalty"),
        ("presence-penalty", "presence_penalty"),
        ("repetition-penalty", "repetition_penalty"),
        ("logprobs", "logprobs"),
    ] {
        if let Some(value) = flags.value(&[flag])? {
            draft.extra(field, serde_json::from_str(&value).unwrap_or(json!(value)));
        }
    }
    for text in flags.every(&["extra-body", "extra-request-body"]) {
        let fields: Value = serde_json::from_str(&text)
            .map_err(|error| format!("--extra-body takes a JSON object, not {text}: {error}"))?;
        let fields =
            fields.as_object().ok_or_else(|| format!("--extra-body takes a JSON object, not {text}"))?;
        for (name, value) in fields {
            draft.extra(name, value.clone());
        }
    }
    Ok(())
}

/// A length that is forced, or only limited.
fn output(draft: &mut Draft, tokens: Value, forced: bool) {
    draft.output.insert(if forced { "tokens" } else { "max_tokens" }.into(), tokens);
}

/// A file of prompts.
fn file(draft: &mut Draft, path: Option<String>, format: &str, flag: &str) -> Result<(), String> {
    let path = path.ok_or_else(|| format!("{flag} needs --dataset-path, the file with its prompts"))?;
    draft.prompt = json!({ "kind": "file", "path": path, "format": format });
    Ok(())
}

pub(super) fn vllm(flags: &mut Flags, draft: &mut Draft) -> Result<(), String> {
    draft.kind = "vllm";
    let backend = flags.value(&["backend", "endpoint-type"])?;
    server(flags, draft, 8000)?;
    match backend.as_deref() {
        Some("openai-chat" | "vllm-chat") => {
            draft.backend.insert("endpoint".into(), json!("chat"));
        }
        Some("sglang") => draft.kind = "sglang",
        Some("lmdeploy") => draft.kind = "lmdeploy",
        Some("llama.cpp") => draft.kind = "llamacpp",
        None | Some("openai" | "openai-comp" | "vllm") => {}
        Some(other) => {
            draft.note(
                &format!("--backend {other}"),
                "only OpenAI's chat and completions APIs are spoken here",
            );
        }
    }
    load(flags, draft)?;
    vllm_work(flags, draft)?;
    vllm_limits(flags, draft)?;
    vllm_rest(flags, draft);
    Ok(())
}

/// What requests are made of.
fn vllm_work(flags: &mut Flags, draft: &mut Draft) -> Result<(), String> {
    let forced = flags.is_there(&["ignore-eos"]);
    let (input, output_len) = (flags.count(&["input-len"], 1)?, flags.count(&["output-len"], 1)?);
    let path = flags.value(&["dataset-path"])?;
    let name = flags.value(&["dataset-name"])?.unwrap_or_else(|| "random".to_owned());
    let length = |flags: &mut Flags, flag: &str, general: Option<u64>, default: u64| {
        Ok::<u64, String>(flags.count(&[flag], 1)?.or(general).unwrap_or(default))
    };
    match name.as_str() {
        "prefix_repetition" => {
            let prefix = length(flags, "prefix-repetition-prefix-len", None, 256)?;
            let suffix = length(flags, "prefix-repetition-suffix-len", input, 256)?;
            let groups = length(flags, "prefix-repetition-num-prefixes", None, 10)?;
            draft.prompt = synthetic(prefix + suffix, prefix, groups);
            let tokens = length(flags, "prefix-repetition-output-len", output_len, 128)?;
            output(draft, json!(tokens), forced);
        }
        "sharegpt" | "custom" => {
            file(
                draft,
                path,
                if name == "custom" { "vllm" } else { "sharegpt" },
                &format!("--dataset-name {name}"),
            )?;
            let tokens = flags.count(&[&format!("{name}-output-len")], 1)?.or(output_len);
            output(draft, json!(tokens.unwrap_or(256)), forced);
            if tokens.is_none() {
                draft.note(
                    "--dataset-name",
                    "answers are as long as the file says there; here they have at most 256 tokens",
                );
            }
        }
        "sonnet" => {
            let prompt = length(flags, "sonnet-input-len", input, 550)?;
            let prefix = length(flags, "sonnet-prefix-len", None, 200)?;
            draft.prompt = synthetic(prompt, prefix, 1);
            let tokens = length(flags, "sonnet-output-len", output_len, 150)?;
            output(draft, json!(tokens), forced);
            draft.note("--dataset-name sonnet", "made-up words of these lengths stand for the poem");
        }
        other => {
            if other != "random" {
                draft.note(
                    &format!("--dataset-name {other}"),
                    "not read here; made-up prompts of equal length stand for it",
                );
            }
            let range = flags.number(&["random-range-ratio"])?.unwrap_or(0.0).min(1.0);
            let prompt = length(flags, "random-input-len", input, 1024)?;
            let tokens = length(flags, "random-output-len", output_len, 128)?;
            let prefix = flags.count(&["random-prefix-len"], 0)?.unwrap_or(0);
            draft.prompt = if prefix > 0 && range == 0.0 {
                synthetic(prefix + prompt, prefix, 1)
            } else {
                if prefix > 0 {
                    draft.note("--random-prefix-len", "a shared prefix needs prompts of one length");
                }
                json!({ "kind": "synthetic", "tokens": around(prompt, range) })
            };
            output(draft, around(tokens, range), forced);
        }
    }
    Ok(())
}

/// What surrounds the load.
fn vllm_limits(flags: &mut Flags, draft: &mut Draft) -> Result<(), String> {
    draft.warmup = flags.count(&["num-warmups"], 0)?;
    for pair in flags.values(&["goodput"]).unwrap_or_default() {
        let (metric, limit) =
            pair.split_once(':').ok_or_else(|| format!("--goodput takes NAME:MS, not {pair}"))?;
        let metric = match metric {
            "e2el" => "e2e",
            "ttft" | "tpot" => metric,
            other => return Err(format!("--goodput knows ttft, tpot and e2el, not {other}")),
        };
        draft.slo.push(format!("{metric} <= {}ms", number("goodput", limit)?));
    }
    if let Some(seconds) = flags.number(&["ready-check-timeout-sec"])? {
        draft.backend.insert("wait_ready".into(), json!(format!("{seconds}s")));
    }
    Ok(())
}

/// What stands in no scenario.
fn vllm_rest(flags: &mut Flags, draft: &mut Draft) {
    for pair in flags.values(&["header"]).unwrap_or_default() {
        let name = pair.split_once('=').map_or(pair.as_str(), |(name, _)| name);
        draft.note(
            &format!("--header {name}=..."),
            "write it under `headers` of the backend; a key belongs in `api_key_env`",
        );
    }
    draft.leave_out(
        flags,
        &[
            "save-result",
            "save-detailed",
            "append-result",
            "result-dir",
            "result-filename",
            "metadata",
            "label",
            "plot-timeline",
            "plot-dataset-stats",
            "timeline-itl-thresholds",
        ],
        WRITING,
    );
    draft.leave_out(flags, &["percentile-metrics", "metric-percentiles"], PERCENTILES);
    draft.leave_out(
        flags,
        &["tokenizer", "tokenizer-mode", "trust-remote-code", "skip-tokenizer-init"],
        TOKENIZER,
    );
    draft.leave_out(flags, &["profile", "profile-num-steps"], PROFILER);
    draft.leave_out(
        flags,
        &["disable-tqdm", "disable-shuffle", "no-oversample", "request-id-prefix", "no-stream"],
        "changes nothing that is measured here",
    );
    draft.leave_out(
        flags,
        &["use-beam-search", "lora-modules", "lora-assignment", "skip-chat-template"],
        "not asked for here",
    );
    draft.leave_out(
        flags,
        &["ramp-up-strategy", "ramp-up-start-rps", "ramp-up-end-rps"],
        "write `load: { kind: stages, stages: [...] }`, with `shape: linear` for a ramp",
    );
}

pub(super) fn sglang(flags: &mut Flags, draft: &mut Draft) -> Result<(), String> {
    let backend = flags.value(&["backend"])?.unwrap_or_else(|| "sglang".to_owned());
    let (kind, port) = match backend.as_str() {
        "sglang" | "sglang-native" | "sglang-oai" | "sglang-oai-chat" => ("sglang", 30000),
        "vllm" | "vllm-chat" => ("vllm", 8000),
        "lmdeploy" | "lmdeploy-chat" => ("lmdeploy", 23333),
        _ => ("openai", 8000),
    };
    draft.kind = kind;
    server(flags, draft, port)?;
    if backend.ends_with("-chat") || flags.is_there(&["apply-chat-template"]) {
        draft.backend.insert("endpoint".into(), json!("chat"));
    }
    if kind == "openai" || matches!(backend.as_str(), "sglang" | "sglang-native") {
        draft.note(&format!("--backend {backend}"), "asked through its OpenAI API");
    }
    load(flags, draft)?;
    let forced = !flags.is_there(&["disable-ignore-eos"]);
    let path = flags.value(&["dataset-path"])?.filter(|path| !path.is_empty());
    let name = flags.value(&["dataset-name"])?.unwrap_or_else(|| "sharegpt".to_owned());
    let count = |flags: &mut Flags, flag: &str, default: u64| {
        Ok::<u64, String>(flags.count(&[flag], 1)?.unwrap_or(default))
    };
    match name.as_str() {
        "sharegpt" | "custom" | "openai" if path.is_some() => {
            let format = if name == "custom" { "jsonl" } else { name.as_str() };
            file(draft, path, format, "--dataset-name")?;
            let tokens = flags.count(&["sharegpt-output-len"], 1)?;
            output(draft, json!(tokens.unwrap_or(256)), forced && tokens.is_some());
            if tokens.is_none() {
                draft.note(
                    "--dataset-name",
                    "answers are as long as the file says there; here they have at most 256 tokens",
                );
            }
            draft.leave_out(flags, &["sharegpt-context-len"], "no prompt is left out for its length");
        }
        "generated-shared-prefix" => {
            let groups = count(flags, "gsp-num-groups", 64)?;
            let each = count(flags, "gsp-prompts-per-group", 16)?;
            let system = count(flags, "gsp-system-prompt-len", 2048)?;
            let question = count(flags, "gsp-question-len", 128)?;
            let tokens = count(flags, "gsp-output-len", 256)?;
            draft.prompt = synthetic(system + question, system, groups);
            output(draft, json!(tokens), forced);
            draft.load.insert("requests".into(), json!(groups * each));
        }
        other => {
            if !other.starts_with("random") {
                let flag = format!("--dataset-name {other}");
                draft.note(&flag, "not read here; made-up prompts of 1024 tokens stand for it");
            }
            // From this share of the length up to the length itself.
            let ratio = flags.number(&["random-range-ratio"])?.unwrap_or(0.0).min(1.0);
            let law = |length: u64| between((length as f64 * ratio) as u64, length);
            let (prompt, tokens) =
                (count(flags, "random-input-len", 1024)?, count(flags, "random-output-len", 1024)?);
            draft.prompt = json!({ "kind": "synthetic", "tokens": law(prompt) });
            output(draft, law(tokens), forced);
        }
    }
    draft.warmup = Some(flags.count(&["warmup-requests"], 0)?.unwrap_or(1));
    if flags.is_there(&["disable-stream"]) {
        draft.output.insert("stream".into(), json!(false));
    }
    draft.leave_out(flags, &["output-file", "output-details", "tag", "plot-throughput"], WRITING);
    draft.leave_out(
        flags,
        &["flush-cache"],
        "the prefix cache is cold at the start of each workload unless `cache: keep` says otherwise",
    );
    draft.leave_out(
        flags,
        &["profile", "profile-activities", "profile-num-steps", "profile-by-stage"],
        PROFILER,
    );
    draft.leave_out(flags, &["disable-tqdm"], SCREEN);
    draft.leave_out(flags, &["tokenizer", "tokenize-prompt"], TOKENIZER);
    draft.leave_out(
        flags,
        &["return-logprob", "return-routed-experts", "prompt-suffix", "pd-separated", "lora-name"],
        "not asked for here",
    );
    Ok(())
}

/// Made-up prompts that share a prefix.
fn synthetic(tokens: u64, prefix: u64, groups: u64) -> Value {
    json!({ "kind": "synthetic", "tokens": tokens, "prefix": { "tokens": prefix, "groups": groups } })
}

//! NVIDIA `aiperf profile`.

use serde_json::{Value, json};

use super::draft::{Draft, base_url, normal};
use super::words::{Flags, number};

pub(super) fn fill(flags: &mut Flags, draft: &mut Draft) -> Result<(), String> {
    draft.kind = "openai";
    let url = flags.value(&["url", "u"])?.unwrap_or_else(|| "localhost:8000".to_owned());
    draft.backend.insert("base_url".into(), json!(base_url(&url)));
    if let Some(models) = flags.values(&["model", "model-names", "m"]) {
        if models.len() > 1 || models.iter().any(|model| model.contains(',')) {
            draft.note("--model", "several take turns there; here the first is asked");
        }
        let first = models.first().and_then(|model| model.split(',').next()).unwrap_or_default();
        draft.backend.insert("model".into(), json!(first));
    }
    match flags.value(&["endpoint-type"])?.as_deref() {
        Some("chat") | None => {
            draft.backend.insert("endpoint".into(), json!("chat"));
        }
        Some("completions") => {
            draft.backend.insert("endpoint".into(), json!("completions"));
        }
        Some(other) => draft.note(
            &format!("--endpoint-type {other}"),
            "only OpenAI's chat and completions APIs are spoken here",
        ),
    }
    if !flags.is_there(&["streaming"]) {
        draft.output.insert("stream".into(), json!(false));
        draft.note(
            "without --streaming",
            "answers come whole, so there is no time to first token; `stream: true` changes that",
        );
    }
    work(flags, draft)?;
    load(flags, draft)?;
    for pair in flags.every(&["goodput"]).iter().flat_map(|text| text.split_whitespace()) {
        limit(pair, draft)?;
    }
    draft.seed = flags.count(&["random-seed"], 0)?;
    draft.warmup = flags.count(&["warmup-request-count", "num-warmup-requests"], 0)?;
    draft.timeout = flags.number(&["request-timeout-seconds"])?.map(|seconds| format!("{seconds}s"));
    if flags.is_there(&["api-key"]) {
        draft.note("--api-key ...", "set it in a variable and name that under `api_key_env` of the backend");
    }
    if !flags.every(&["header", "H"]).is_empty() {
        draft.note("--header ...", "write it under `headers` of the backend");
    }
    let written = "results are always written, with every request; `report` renders them";
    draft.leave_out(
        flags,
        &[
            "artifact-dir",
            "output-artifact-dir",
            "profile-export-prefix",
            "profile-export-file",
            "export-level",
            "slice-duration",
        ],
        written,
    );
    draft.leave_out(
        flags,
        &["tokenizer", "tokenizer-revision", "tokenizer-trust-remote-code", "use-server-token-count"],
        "tokens are counted by the server's usage; `tokenizer` of the backend names a tokenizer",
    );
    let process = "how the client is built does not matter here";
    let names = [
        "ui",
        "ui-type",
        "log-level",
        "verbose",
        "extra-verbose",
        "v",
        "vv",
        "record-processor-service-count",
        "record-processors",
        "workers-max",
        "max-workers",
        "zmq-host",
        "zmq-ipc-path",
        "connection-reuse-strategy",
    ];
    draft.leave_out(flags, &names, process);
    let telemetry = "the server's own counters are read from its metrics page; a GPU's are not";
    draft.leave_out(
        flags,
        &["gpu-telemetry", "no-gpu-telemetry", "server-metrics", "no-server-metrics"],
        telemetry,
    );
    draft.leave_out(
        flags,
        &["endpoint", "custom-endpoint"],
        "requests go to /chat/completions or /completions below `base_url`; put another root there",
    );
    Ok(())
}

/// What requests are made of.
fn work(flags: &mut Flags, draft: &mut Draft) -> Result<(), String> {
    let input = flags.count(&["synthetic-input-tokens-mean", "prompt-input-tokens-mean", "isl"], 1)?;
    let spread =
        flags.number(&["synthetic-input-tokens-stddev", "prompt-input-tokens-stddev", "isl-stddev"])?;
    let output = flags.count(&["output-tokens-mean", "prompt-output-tokens-mean", "osl"], 1)?;
    let output_spread =
        flags.number(&["output-tokens-stddev", "prompt-output-tokens-stddev", "osl-stddev"])?;
    let prompt = normal(input.unwrap_or(550), spread.unwrap_or(0.0));
    let prefix = flags.count(&["prompt-prefix-length", "prefix-prompt-length"], 0)?.unwrap_or(0);
    let groups =
        flags.count(&["prompt-prefix-pool-size", "num-prefix-prompts", "prefix-prompt-pool-size"], 0)?;
    draft.prompt = match prompt.as_u64() {
        Some(tokens) if prefix > 0 => json!({
            "kind": "synthetic", "tokens": tokens + prefix,
            "prefix": { "tokens": prefix, "groups": groups.unwrap_or(1).max(1) },
        }),
        _ => {
            if prefix > 0 {
                draft.note("--prompt-prefix-length", "a shared prefix needs prompts of one length");
            }
            json!({ "kind": "synthetic", "tokens": prompt })
        }
    };
    let mut forced = false;
    for text in flags.every(&["extra-inputs"]) {
        let parsed = serde_json::from_str::<Value>(&text).ok().and_then(|value| value.as_object().cloned());
        let pairs: Vec<(String, Value)> = match (parsed, text.split_once(':')) {
            (Some(map), _) => map.into_iter().collect(),
            (None, Some((name, value))) => {
                vec![(name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| json!(value)))]
            }
            (None, None) => {
                return Err(format!("--extra-inputs takes NAME:VALUE or a JSON object, not {text}"));
            }
        };
        for (name, value) in pairs {
            // A forced length says both by itself.
            match name.as_str() {
                "ignore_eos" => forced |= value == true,
                "min_tokens" | "max_tokens" => {}
                _ => draft.extra(&name, value),
            }
        }
    }
    let answer = normal(output.unwrap_or(256), output_spread.unwrap_or(0.0));
    if output.is_none() {
        draft.note(
            "--output-tokens-mean",
            "not given, so answers end where the model ends them; here at most 256 tokens on",
        );
    }
    draft.output.insert(if forced && output.is_some() { "tokens" } else { "max_tokens" }.into(), answer);
    if let Some(path) = flags.value(&["input-file"])? {
        let kind = flags.value(&["custom-dataset-type"])?.unwrap_or_else(|| "single_turn".to_owned());
        if kind == "mooncake_trace" {
            draft.prompt = json!({ "kind": "trace", "path": path, "format": "mooncake" });
            // The trace says how long answers are, and takes nothing beside that.
            draft.output.clear();
        } else {
            draft.note(
                &format!("--custom-dataset-type {kind}"),
                "read as rows with a prompt; set `fields` where it has another name",
            );
            draft.prompt = json!({ "kind": "file", "path": path, "format": "jsonl" });
        }
    }
    let sessions = [
        "conversation-num",
        "num-conversations",
        "num-sessions",
        "session-concurrency",
        "num-dataset-entries",
        "num-prompts",
        "conversation-turn-mean",
        "session-turns-mean",
        "conversation-turn-stddev",
        "session-turns-stddev",
        "conversation-turn-delay-mean",
        "session-turn-delay-mean",
        "conversation-turn-delay-stddev",
        "session-turn-delay-stddev",
    ];
    draft.leave_out(flags, &sessions, "write `prompt: { kind: sessions, turns, user, think_time }`");
    draft.leave_out(
        flags,
        &["public-dataset", "dataset-sampling-strategy", "prompt-batch-size", "batch-size-text"],
        "not read here",
    );
    Ok(())
}

fn load(flags: &mut Flags, draft: &mut Draft) -> Result<(), String> {
    let concurrency = flags.count(&["concurrency"], 1)?;
    let rate = flags.number(&["request-rate"])?.filter(|rate| rate.is_finite() && *rate > 0.0);
    let mode =
        flags.value(&["request-rate-mode", "arrival-pattern"])?.unwrap_or_else(|| "poisson".to_owned());
    let smoothness = flags.number(&["arrival-smoothness", "vllm-burstiness"])?;
    match rate {
        Some(rate) => {
            let arrival = match (mode.as_str(), smoothness) {
                ("gamma", shape) => json!({ "kind": "gamma", "burstiness": shape.unwrap_or(1.0) }),
                ("constant", _) => json!("constant"),
                _ => json!("poisson"),
            };
            draft.open(rate, arrival, concurrency);
            draft.note(
                "--request-rate",
                "is an open load; TTFT then counts from when a request was due, not from the send",
            );
        }
        None if flags.is_there(&["fixed-schedule"]) => {
            draft.load.insert("kind".into(), json!("replay"));
        }
        None => draft.closed(concurrency.unwrap_or(1)),
    }
    let requests = flags.count(&["request-count", "num-requests"], 1)?;
    let seconds = flags.number(&["benchmark-duration"])?;
    draft.load.extend(requests.map(|requests| ("requests".to_owned(), json!(requests))));
    draft.load.extend(seconds.map(|seconds| ("duration".to_owned(), json!(format!("{seconds}s")))));
    let is_replay = draft.load.get("kind") == Some(&json!("replay"));
    if requests.is_none() && seconds.is_none() && !is_replay {
        // The tool's default.
        draft.load.insert("requests".into(), json!((2 * concurrency.unwrap_or(1)).max(10)));
    }
    let later = [
        "benchmark-grace-period",
        "fixed-schedule-auto-offset",
        "fixed-schedule-start-offset",
        "fixed-schedule-end-offset",
        "request-cancellation-rate",
        "request-cancellation-delay",
        "warmup-duration",
        "warmup-concurrency",
        "warmup-request-rate",
        "concurrency-ramp-duration",
        "request-rate-ramp-duration",
        "prefill-concurrency",
    ];
    draft.leave_out(flags, &later, "see `cancel`, `warmup`, `ramp_up` and the trace's `window`");
    Ok(())
}

/// `time_to_first_token:500`, in the tool's units: milliseconds, and tokens per second.
fn limit(pair: &str, draft: &mut Draft) -> Result<(), String> {
    let (name, value) =
        pair.split_once(':').ok_or_else(|| format!("--goodput takes NAME:VALUE, not {pair}"))?;
    let value = number("goodput", value)?;
    let metric = match name {
        "time_to_first_token" => "ttft",
        // Theirs is one mean for each request.
        "inter_token_latency" => "tpot",
        "request_latency" => "e2e",
        _ => {
            draft.note(&format!("--goodput {pair}"), "an slo limits ttft, tpot, e2e and their like");
            return Ok(());
        }
    };
    draft.slo.push(format!("{metric} <= {value}ms"));
    Ok(())
}

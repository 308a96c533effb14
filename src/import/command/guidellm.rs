//! `guidellm benchmark`.

use serde_json::{Value, json};

use super::draft::{Draft, base_url, normal, per_second};
use super::words::{Flags, number};

pub(super) fn fill(flags: &mut Flags, draft: &mut Draft) -> Result<(), String> {
    draft.kind = "openai";
    let target = flags.value(&["target"])?.unwrap_or_else(|| "http://localhost:8000".to_owned());
    draft.backend.insert("base_url".into(), json!(base_url(&target)));
    if let Some(model) = flags.value(&["model"])? {
        draft.backend.insert("model".into(), json!(model));
    }
    if let Some(kind) = flags.value(&["request-type", "request-format"])? {
        let endpoint = if kind.contains("chat") { "chat" } else { "completions" };
        draft.backend.insert("endpoint".into(), json!(endpoint));
    }
    load(flags, draft)?;
    let data = flags.every(&["data"]);
    if let [data] = data.as_slice() {
        lengths(data, draft)?;
    } else {
        let why = if data.is_empty() { "not given" } else { "several are mixed there" };
        draft
            .note("--data", &format!("{why}; made-up prompts of 256 tokens and answers of 128 stand for it"));
        draft.prompt = json!({ "kind": "synthetic", "tokens": 256 });
        draft.output.insert("tokens".into(), json!(128));
    }
    draft.seed = flags.count(&["random-seed"], 0)?;
    let warmup =
        "write `warmup: { duration }` or `{ requests }`; a share of the run is not known before it ends";
    draft.leave_out(flags, &["warmup", "warmup-percent", "cooldown", "cooldown-percent", "rampup"], warmup);
    let written = "results are always written, with every request; `report` renders them";
    let names =
        ["output-path", "output-dir", "outputs", "output-extras", "output-sampling", "sample-requests"];
    draft.leave_out(flags, &names, written);
    draft.leave_out(
        flags,
        &["processor", "processor-args"],
        "tokens are counted by the server; `tokenizer` of the backend names a tokenizer",
    );
    let data = "prompts are made here from their lengths alone";
    let names = [
        "data-args",
        "data-samples",
        "data-sampler",
        "data-column-mapper",
        "data-request-formatter",
        "data-num-workers",
        "dataloader-kwargs",
    ];
    draft.leave_out(flags, &names, data);
    draft.leave_out(flags, &["backend", "backend-type", "backend-kwargs", "backend-args"], "servers are asked through OpenAI's API; `headers`, `extra` and `api_key_env` of the backend add to it");
    draft.leave_out(
        flags,
        &[
            "disable-progress",
            "disable-console",
            "disable-console-outputs",
            "disable-console-interactive",
            "display-scheduler-stats",
        ],
        "`--quiet` prints results only",
    );
    draft.leave_out(
        flags,
        &["max-errors", "max-error-rate", "max-global-error-rate"],
        "write it as a rule, such as `error_rate <= 5%` with `abort_on_fail: true`",
    );
    draft.leave_out(
        flags,
        &["detect-saturation", "over-saturation", "stop-over-saturated", "scenario"],
        "has no equal",
    );
    Ok(())
}

fn load(flags: &mut Flags, draft: &mut Draft) -> Result<(), String> {
    let profile = flags.value(&["profile", "rate-type"])?.unwrap_or_else(|| "sweep".to_owned());
    let mut rates = Vec::new();
    for text in flags.every(&["rate"]) {
        for part in text.trim_matches(['[', ']']).split(',').filter(|part| !part.trim().is_empty()) {
            rates.push(number("rate", part)?);
        }
    }
    let need = || format!("--profile {profile} needs --rate");
    match profile.as_str() {
        "synchronous" => draft.closed(1),
        "concurrent" => {
            draft.closed(*rates.first().ok_or_else(need)? as u64);
            if rates.len() > 1 {
                let levels = rates.iter().map(|rate| json!(*rate as u64));
                draft.axis = Some(("load.concurrency", levels.collect()));
            }
        }
        "throughput" => {
            draft.closed(rates.first().map_or(512, |rate| *rate as u64));
            draft.note(
                "--profile throughput",
                "as many requests at once as the server takes; here so many users",
            );
        }
        "constant" | "poisson" | "async" => {
            let law = if profile == "poisson" { "poisson" } else { "constant" };
            draft.open(*rates.first().ok_or_else(need)?, json!(law), None);
            if rates.len() > 1 {
                let levels = rates.iter().map(|rate| json!(per_second(*rate)));
                draft.axis = Some(("load.rate", levels.collect()));
            }
        }
        "sweep" => {
            draft.closed(1);
            draft.axis = Some(("load.concurrency", [1, 2, 4, 8, 16, 32, 64].map(Value::from).to_vec()));
            draft.note("--profile sweep", "finds its rates by itself; here it is a sweep over users");
        }
        other => {
            return Err(format!(
                "--profile knows synchronous, concurrent, throughput, constant, poisson and sweep, not {other}"
            ));
        }
    }
    let requests = flags.count(&["max-requests"], 1)?;
    let seconds = flags.number(&["max-seconds"])?;
    draft.load.extend(requests.map(|requests| ("requests".to_owned(), json!(requests))));
    draft.load.extend(seconds.map(|seconds| ("duration".to_owned(), json!(format!("{seconds}s")))));
    if requests.is_none() && seconds.is_none() {
        draft.load.insert("duration".into(), json!("60s"));
        draft.note("--max-seconds", "neither it nor --max-requests is given; here each load lasts a minute");
    }
    Ok(())
}

/// Lengths such as `prompt_tokens=256,output_tokens=128`, or the same as JSON.
fn lengths(data: &str, draft: &mut Draft) -> Result<(), String> {
    let fields: Option<Vec<(String, String)>> = match serde_json::from_str::<Value>(data) {
        Ok(Value::Object(map)) => {
            Some(map.into_iter().map(|(key, value)| (key, value.to_string())).collect())
        }
        _ => data
            .split(',')
            .map(|pair| pair.split_once('=').map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned())))
            .collect(),
    };
    let Some(fields) = fields else {
        let (format, why) = if std::path::Path::new(data)
            .extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("jsonl"))
        {
            ("jsonl", "a file of prompts; set `fields` where its column is not `prompt`")
        } else {
            draft.note(
                &format!("--data {data}"),
                "not read here; made-up prompts of 256 tokens and answers of 128 stand for it",
            );
            draft.prompt = json!({ "kind": "synthetic", "tokens": 256 });
            draft.output.insert("tokens".into(), json!(128));
            return Ok(());
        };
        draft.note(&format!("--data {data}"), why);
        draft.prompt = json!({ "kind": "file", "path": data, "format": format });
        draft.output.insert("max_tokens".into(), json!(128));
        return Ok(());
    };
    let mut left: Vec<(String, String)> = fields;
    let mut take = |name: &str| -> Result<Option<f64>, String> {
        let Some(at) = left.iter().position(|(key, _)| key == name) else { return Ok(None) };
        let (_, text) = left.remove(at);
        number("data", &text).map(Some)
    };
    let law = |mean: f64, std: Option<f64>, low: Option<f64>, high: Option<f64>| {
        let mut law = normal(mean as u64, std.unwrap_or(0.0));
        if let (Some(map), Some(low)) = (law.as_object_mut(), low) {
            map.insert("min".into(), json!(low as u64));
        }
        if let (Some(map), Some(high)) = (law.as_object_mut(), high) {
            map.insert("max".into(), json!(high as u64));
        }
        law
    };
    let mut side = |name: &str, default: f64| -> Result<Value, String> {
        let mean = take(&format!("{name}_tokens"))?.unwrap_or(default);
        let std = take(&format!("{name}_tokens_stdev"))?;
        Ok(law(mean, std, take(&format!("{name}_tokens_min"))?, take(&format!("{name}_tokens_max"))?))
    };
    let (prompt, output) = (side("prompt", 256.0)?, side("output", 128.0)?);
    let prefix = take("prefix_tokens")?.unwrap_or(0.0) as u64;
    draft.prompt = match prompt.as_u64() {
        Some(tokens) if prefix > 0 => {
            json!({ "kind": "synthetic", "tokens": tokens + prefix, "prefix": { "tokens": prefix } })
        }
        _ => json!({ "kind": "synthetic", "tokens": prompt }),
    };
    draft.output.insert("tokens".into(), output);
    for (key, value) in left {
        draft.note(&format!("--data {key}={value}"), "has no equal");
    }
    Ok(())
}

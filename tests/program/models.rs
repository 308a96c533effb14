//! Models on the CPU, from the command line.

use std::fs;
use std::path::Path;

use crate::common::{Said, json, sagebench};

/// Runs the binary offline, with an empty cache of the hub.
fn offline(dir: &Path, args: &[&str]) -> Said {
    let mut command = sagebench(dir);
    command.env("HF_HUB_OFFLINE", "1").env("HF_HUB_CACHE", dir.join("cache"));
    command.args(args).output().unwrap().into()
}

fn tiny(dir: &Path) {
    let said = offline(dir, &["model", "random", "--like", "gpt2", "--tiny", "--out", "tiny"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
}

#[test]
fn a_random_model_is_written_once_and_tells_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    tiny(dir.path());
    let again = offline(dir.path(), &["model", "random", "--like", "gpt2", "--tiny", "--out", "tiny"]);
    insta::assert_snapshot!(again.err.trim(), @"error: tiny holds a model already; --force replaces it, --out names another folder");
    assert_eq!(again.code, Some(2));
    let info = offline(dir.path(), &["model", "info", "tiny"]);
    insta::assert_snapshot!(info.out, @r"
    path         tiny
    architecture gpt2
    layers       2
    hidden       64
    heads        4, 4 of keys and values
    context      2048 tokens
    vocabulary   512
    tokenizer    hf:3ff21d3ca7ffd680, 512 tokens
    parameters   0.2M (0.2M f32)
    weights      0 MiB
    ends with    token 511
    ");
}

#[test]
fn the_cache_is_listed_with_what_is_missing_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let said = offline(dir.path(), &["model", "list"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""));
    assert!(said.err.starts_with("no models in "), "{}", said.err);
    tiny(dir.path());
    let snapshots = dir.path().join("cache/models--owner--tiny/snapshots");
    fs::create_dir_all(&snapshots).unwrap();
    fs::rename(dir.path().join("tiny"), snapshots.join("0123456789abcdef")).unwrap();
    fs::create_dir_all(dir.path().join("cache/models--owner--other/snapshots/fedc")).unwrap();
    let said = offline(dir.path(), &["model", "list"]);
    insta::assert_snapshot!(said.out, @r"
    owner/other                                   fedc          incomplete: config.json is missing
    owner/tiny                                    0123456789ab  gpt2, 0.2M parameters, 0 MiB
    ");
}

#[test]
fn a_model_that_is_not_there_ends_the_run_before_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    for (model, says) in [
        ("openai-community/gpt2", "is not in the cache, and the hub is offline (HF_HUB_OFFLINE)"),
        ("./nothing", "there is no model `./nothing`: ./nothing does not exist"),
    ] {
        let said = offline(dir.path(), &["apply", "year1", "--backend", "cpu", "--model", model]);
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains(says), "{}", said.err);
        assert!(!dir.path().join("benchmark_results").exists(), "nothing was begun");
    }
}

#[cfg(feature = "candle")]
#[test]
fn the_contract_is_measured_on_a_model_and_its_latency_is_reported_and_not_gated() {
    let dir = tempfile::tempdir().unwrap();
    tiny(dir.path());
    let mut args = vec!["run", "--workload", "year1", "--backend", "cpu", "--model", "tiny"];
    // Short, since this is the slow build.
    args.extend(["--set", "backends.cpu.speculative={kind: prompt_lookup}"]);
    args.extend([
        "--set",
        "workloads.short_input.output.tokens=24",
        "--set",
        "workloads.long_input.output.tokens=24",
    ]);
    args.extend([
        "--set",
        "workloads.stress_test.output.tokens=24",
        "--set",
        "workloads.stress_test.prompt.tokens=32",
    ]);
    let said = offline(dir.path(), &args);
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    let results = dir.path().join("benchmark_results");
    for workload in ["short_input", "long_input", "stress_test"] {
        let file = json(results.join(format!("{workload}_metrics.json")));
        for (key, value) in file.as_object().unwrap().iter().take(22) {
            assert!(value.is_number(), "{workload}.{key} is {value}: {}", file["unavailable"][key]);
        }
        assert_eq!((&file["failed_requests"], &file["clock"]), (&0.into(), &"real".into()));
        assert!(file["avg_ttft_ms"].as_f64() > Some(0.0) && file["avg_tbt_ms"].as_f64() > Some(0.0));
        assert!(file["peak_mem_mb"].as_u64() > Some(0), "{}", file["peak_mem_mb"]);
        assert!(file["start_time"].as_f64() > Some(1.7e9), "seconds since 1970");
    }
    let run = json(results.join("run.json"));
    let rules: Vec<&str> =
        run["judgements"].as_array().unwrap().iter().map(|one| one["rule"].as_str().unwrap()).collect();
    assert!(
        rules.iter().all(|rule| rule.starts_with("error_rate") || rule.starts_with("peak_mem")),
        "{rules:?}"
    );
    let report = fs::read_to_string(results.join("REPORT.md")).unwrap();
    for line in
        ["| Backend | cpu (candle, model tiny) |", "| Architecture | gpt2 |", "| KV cache | 4096 tokens, "]
    {
        assert!(report.contains(line), "{line}\n{report}");
    }
}

//! `import` and `init --from`: what other tools measured, and what they were told to measure.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Said, json, repo, run};

fn fixture(name: &str) -> String {
    repo("tests/fixtures/import").join(name).display().to_string()
}

fn import(dir: &Path, name: &str, more: &[&str]) -> Said {
    let file = fixture(name);
    run(dir, ["import", &file].into_iter().chain(more.iter().copied()))
}

fn close(found: &Value, expected: f64) {
    assert!((found.as_f64().unwrap() - expected).abs() < 1e-6, "{found} {expected}");
}

#[test]
fn requests_of_another_tool_become_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let said = import(dir, "vllm-detailed.json", &[]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let metrics = json(dir.join("benchmark_results/vllm_metrics.json"));
    close(&metrics["avg_ttft_ms"], 35.0 / 3.0);
    close(&metrics["avg_e2e_ms"], 125.0 / 3.0);
    close(&metrics["avg_tpot_ms"], 10.0);
    close(&metrics["output_throughput_tps"], 6.0);
    close(&metrics["request_rate_rps"], 1.5);
    close(&metrics["error_rate"], 0.25);
    close(&metrics["max_in_flight"], 3.0);
    for name in ["seed", "kv_used_tokens", "queue_delay", "start_time", "offered_rate_rps"] {
        let name = if name == "queue_delay" { "p99_queue_delay_ms" } else { name };
        assert!(
            metrics[name].is_null() && metrics["unavailable"][name].is_string(),
            "{name}: {}",
            metrics[name]
        );
    }
    assert!(!metrics.to_string().contains("the backend does not report it"));
    for name in
        ["run.json", "requests.jsonl", "REPORT.md", "report.html", "junit.xml", "benchmark_summary.json"]
    {
        assert!(dir.join("benchmark_results").join(name).is_file(), "{name}");
    }
    // What works on a run of our own works on it.
    assert_eq!(run(dir, ["report", "benchmark_results"]).code, Some(0));
    let told = run(dir, ["report", "benchmark_results", "--dialect", "vllm", "--format", "json"]);
    let told: Value = serde_json::from_str(&told.out).unwrap();
    let lines = told["cells"][0]["lines"].as_array().unwrap();
    let itl = lines.iter().find(|line| line["name"] == "mean_itl_ms").unwrap();
    close(&itl["value"], 10.0);
    let saved = run(dir, ["baseline", "save", "main"]);
    assert_eq!(saved.code, Some(0), "{}", saved.err);
    let same = run(dir, ["compare", "baselines/main.json", "benchmark_results"]);
    assert_eq!(same.code, Some(0), "{}{}", same.out, same.err);
}

#[test]
fn a_wrong_rule_is_shown_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let said = import(
        dir.path(),
        "vllm-detailed.json",
        &["--rule", "avg(ttft) <= 20ms", "--rule", "p99(tttf) <= 20ms", "--slo", "ttft <= 2"],
    );
    insta::assert_snapshot!(said.err);
    assert_eq!(said.code, Some(2));
}

#[test]
fn rules_judge_what_was_imported() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let judged = |file: &str, rules: &[&str]| {
        let rules = rules.iter().flat_map(|rule| ["--rule", rule]);
        let args: Vec<&str> = ["--output", "out"].into_iter().chain(rules).collect();
        import(dir, file, &args)
    };
    let said = judged("vllm-detailed.json", &["max(ttft) <= 20ms", "error_rate <= 50%"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let said = judged("vllm-detailed.json", &["max(ttft) <= 15ms", "error_rate <= 50%"]);
    assert_eq!(said.code, Some(99), "{}{}", said.out, said.err);
    assert!(said.err.contains("FAIL: max(ttft) <= 15ms for `vllm` on `imported`"), "{}", said.err);
    // Too few requests to tell, which is no error here.
    let said = judged("vllm-detailed.json", &["p99(ttft) <= 50ms", "error_rate <= 50%"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("INCONCLUSIVE"), "{}", said.err);
    // Nobody wrote a rule on failures: a quarter of them is too much.
    let said = judged("vllm-detailed.json", &["max(ttft) <= 20ms"]);
    assert!(said.code == Some(99) && said.err.contains("error_rate <= 1% (implicit)"), "{}", said.err);
    let said = judged("vllm-detailed.json", &["kv_used_tokens <= 1", "error_rate <= 50%"]);
    assert!(said.code == Some(99) && said.err.contains("the file of vllm does not say"), "{}", said.err);
    // Statistics are judged as they stand; what needs the requests is not judged.
    let said = judged(
        "vllm-summary.json",
        &["p99(ttft) <= 20ms", "output_throughput >= 5tok/s", "error_rate <= 50%"],
    );
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.out.contains("point of a statistic"), "{}", said.out);
    for rule in
        ["p95(ttft) <= 20ms", "share(ttft <= 20ms) >= 50%", "p99(ttft) <= 20ms where prompt_tokens > 5"]
    {
        let said = judged("vllm-summary.json", &[rule, "error_rate <= 50%"]);
        assert!(said.code == Some(99) && said.err.contains("NO_DATA"), "{rule}: {}", said.err);
    }
    let said = judged("vllm-summary.json", &["p99(tfft) <= 20ms"]);
    assert!(said.code == Some(2) && said.err.contains("did you mean `ttft`?"), "{}", said.err);
}

#[test]
fn an_slo_gives_goodput_where_each_request_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    import(dir, "vllm-detailed.json", &["--slo", "ttft <= 15ms"]);
    let metrics = json(dir.join("benchmark_results/vllm_metrics.json"));
    close(&metrics["slo_share"], 0.5);
    close(&metrics["goodput_rps"], 1.0);
    import(dir, "vllm-detailed.json", &["--slo", "queue_delay <= 15ms", "--output", "late"]);
    let metrics = json(dir.join("late/vllm_metrics.json"));
    assert!(metrics["goodput_rps"].is_null(), "{metrics}");
    assert!(metrics["unavailable"]["goodput_rps"].as_str().unwrap().contains("when each request was due"));
}

#[test]
fn a_scenarios_rules_judge_its_workload() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let scenario = |workloads: &str| {
        format!(
            "version: 1
name: nightly
backends: {{ server: {{ kind: mock, ttft: 10ms, tbt: 5ms }} }}
workloads:
{workloads}
gates:
  confidence: none
  rules:
    - {{ rule: p99(ttft) <= 25ms, workloads: [chat] }}
    - error_rate <= 50%
"
        )
    };
    let one = |name: &str| {
        format!(
            "  {name}: {{ prompt: {{ kind: synthetic, tokens: 8 }}, output: {{ tokens: 8 }}, load: {{ kind: closed, concurrency: 1, requests: 9 }} }}\n"
        )
    };
    fs::write(dir.join("one.yaml"), scenario(&one("chat"))).unwrap();
    fs::write(dir.join("two.yaml"), scenario(&([one("chat"), one("batch")].concat()))).unwrap();
    let said = import(dir, "vllm-detailed.json", &["--gates", "one.yaml"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(dir.join("benchmark_results/chat_metrics.json").is_file());
    let said = import(dir, "vllm-detailed.json", &["--gates", "two.yaml", "--workload", "batch"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(
        said.out.contains("not judged, since they are for other workloads or backends: `p99(ttft) <= 25ms`"),
        "{}",
        said.out
    );
    let said = import(dir, "vllm-detailed.json", &["--gates", "two.yaml", "--workload", "chat"]);
    assert!(said.code == Some(0) && said.out.contains("p99(ttft) <= 25ms"), "{}", said.out);
    fs::write(
        dir.join("only.yaml"),
        scenario(&([one("chat"), one("batch")].concat())).replace("    - error_rate <= 50%\n", ""),
    )
    .unwrap();
    let said = import(dir, "vllm-detailed.json", &["--gates", "only.yaml"]);
    assert!(said.code == Some(2) && said.err.contains("its workloads are chat, batch"), "{}", said.err);
}

#[test]
fn equal_files_are_repeats_and_loads_of_one_file_are_points() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for name in ["a", "b", "c"] {
        fs::copy(fixture("vllm-detailed.json"), dir.join(format!("{name}.json"))).unwrap();
    }
    let said = run(dir, ["import", "a.json", "b.json", "c.json", "--workload", "chat"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let report = json(dir.join("benchmark_results/run.json"));
    assert_eq!(report["cells"].as_array().unwrap().len(), 1);
    assert_eq!(report["cells"][0]["repeats"].as_array().unwrap().len(), 3);
    assert_eq!(report["cells"][0]["metrics"]["total_requests"], 12);
    let said = import(dir, "guidellm.json", &["--output", "g"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let sweep = fs::read_to_string(dir.join("g/sweep.csv")).unwrap();
    assert!(sweep.contains("guidellm@strategy=constant+rate=10"), "{sweep}");
    let said = import(dir, "vllm-appended.jsonl", &["--output", "v", "--workload", "chat"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let report = json(dir.join("v/run.json"));
    let names: Vec<&str> =
        report["cells"].as_array().unwrap().iter().map(|cell| cell["workload"].as_str().unwrap()).collect();
    assert_eq!(names, ["chat@concurrency=1", "chat@concurrency=4"]);
    assert_eq!(report["cells"][1]["metrics"]["total_requests"], 8, "two runs at one point are repeats");
    close(&report["cells"][1]["metrics"]["avg_ttft_ms"], 14.0);
    let (a, b) = (fixture("vllm-detailed.json"), fixture("aiperf.jsonl"));
    let said = run(dir, ["import", &a, &b, "--output", "x"]);
    assert!(
        said.code == Some(2) && said.err.contains("import each tool's files on their own"),
        "{}",
        said.err
    );
    let (a, b) = (fixture("vllm-detailed.json"), fixture("vllm-summary.json"));
    let said = run(dir, ["import", &a, &b, "--output", "x"]);
    assert!(said.code == Some(2) && said.err.contains("do not pool"), "{}", said.err);
    assert!(!dir.join("x").exists());
}

#[test]
fn every_format_comes_in_and_its_files_follow_their_schemas() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let schema: Value = serde_json::from_str(&run(dir, ["schema", "metrics"]).out).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut seen = 0;
    let mut files: Vec<_> =
        fs::read_dir(repo("tests/fixtures/import")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let out = file.file_stem().unwrap().to_str().unwrap().to_owned() + "-out";
        let said = run(dir, ["import", file.to_str().unwrap(), "--output", &out]);
        assert_eq!(said.code, Some(0), "{}: {}", file.display(), said.err);
        let report = json(dir.join(&out).join("run.json"));
        for cell in report["cells"].as_array().unwrap() {
            let faults: Vec<String> =
                validator.iter_errors(&cell["metrics"]).map(|error| error.to_string()).collect();
            assert!(faults.is_empty(), "{}: {}", file.display(), faults.join("\n"));
        }
        for format in ["table", "markdown", "html", "junit", "json"] {
            assert_eq!(run(dir, ["report", &out, "--format", format]).code, Some(0), "{out} {format}");
        }
        seen += 1;
    }
    assert_eq!(seen, 13);
}

#[test]
fn a_broken_file_is_told_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("a.json"), "{\"duration\": 1, ").unwrap();
    fs::write(dir.join("b.json"), "{\"x\": 1}").unwrap();
    let said = run(dir, ["import", "a.json", "b.json", "gone.json"]);
    assert_eq!(said.code, Some(2));
    for expected in ["a.json:1: ends in the middle", "b.json: is of no format", "gone.json: can not be read"]
    {
        assert!(said.err.contains(expected), "{}", said.err);
    }
    assert!(!dir.join("benchmark_results").exists());
    let said = run(dir, ["import", "b.json", "--format", "vlm"]);
    assert!(said.code == Some(2) && said.err.contains("is `vllm` meant?"), "{}", said.err);
    let said = run(dir, ["import", "b.json", "--format", "vllm"]);
    assert!(said.code == Some(2) && said.err.contains("b.json: lacks `duration`"), "{}", said.err);
}

#[test]
fn another_tools_command_line_becomes_a_scenario() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let line = "vllm bench serve --model m --dataset-name random --random-input-len 64 --random-output-len 8 --num-prompts 20 --max-concurrency 4 --ignore-eos --goodput ttft:100 --novelty 3";
    let said = run(dir, ["init", "--from", line, "--out", "s.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("warning: --novelty 3 is not known"), "{}", said.err);
    let valid = run(dir, ["validate", "s.yaml"]);
    assert_eq!(valid.code, Some(0), "{}{}", valid.out, valid.err);
    let played = run(dir, ["apply", "s.yaml", "--backend", "mock"]);
    assert_eq!(played.code, Some(0), "{}{}", played.out, played.err);
    let metrics = json(dir.join("benchmark_results/bench_metrics.json"));
    assert_eq!((&metrics["total_requests"], &metrics["total_output_tokens"]), (&20.into(), &160.into()));
    close(&metrics["slo_share"], 1.0);
    let said = run(dir, ["init", "--from", line, "--out", "s.yaml"]);
    assert!(said.code == Some(2) && said.err.contains("exists already"), "{}", said.err);
    let said = run(dir, ["init", "--from", "wrk http://x", "--out", "t.yaml"]);
    assert!(
        said.code == Some(2) && said.err.contains("begins no command line that is known"),
        "{}",
        said.err
    );
    assert!(!dir.join("t.yaml").exists());
}

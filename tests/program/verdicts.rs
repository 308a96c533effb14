//! Exit codes and what is said with them.

use std::fs;
use std::path::Path;

use crate::common::{Said, json, repo, run};
use serde_json::Value;

fn apply(dir: &Path, scenario: &str, more: &[&str]) -> Said {
    fs::write(dir.join("s.yaml"), scenario).unwrap();
    run(dir, ["apply", "s.yaml"].iter().chain(more))
}

fn ten_requests(faults: &str, rules: &str) -> String {
    format!(
        "version: 1
backends:
  mock: {{ kind: mock, ttft: 10ms, tbt: 5ms, faults: [{faults}] }}
workloads:
  chat:
    prompt: {{ kind: synthetic, tokens: 32 }}
    output: {{ tokens: 16 }}
    load: {{ kind: closed, concurrency: 3, requests: 10 }}
    timeout: 2s
gates: {{ confidence: none, rules: [{rules}] }}
"
    )
}

#[test]
fn three_named_failures_of_ten_are_thirty_percent_and_fail_the_gate() {
    let dir = tempfile::tempdir().unwrap();
    let faults = "{ match: { index: [1, 4, 7] }, action: { kind: http_status, code: 500 } }";
    let said = apply(dir.path(), &ten_requests(faults, "error_rate <= 5%"), &[]);
    assert_eq!(said.code, Some(99), "{}", said.err);
    let metrics = json(dir.path().join("benchmark_results/chat_metrics.json"));
    assert_eq!(metrics["error_rate"], 0.3);
    assert_eq!(metrics["failed_requests"], 3);
    assert_eq!(metrics["errors"], serde_json::json!({"http_500": 3}));
    // The failed gate is shown at its own line, with what was measured.
    assert!(said.err.contains("s.yaml:10:"), "{}", said.err);
    assert!(said.err.contains("30%"), "{}", said.err);
}

#[test]
fn a_workload_without_one_success_could_not_be_run() {
    let dir = tempfile::tempdir().unwrap();
    for action in
        ["{ kind: timeout }", "{ kind: http_status, code: 503 }", "{ kind: disconnect, after_tokens: 3 }"]
    {
        let faults = format!("{{ match: {{ every: 1 }}, action: {action} }}");
        let said = apply(dir.path(), &ten_requests(&faults, ""), &["--force"]);
        assert_eq!(said.code, Some(3), "{action}: {}", said.err);
        let metrics = json(dir.path().join("benchmark_results/chat_metrics.json"));
        assert_eq!(metrics["error_rate"], 1.0, "{action}");
        assert!(metrics["avg_ttft_ms"].is_null(), "{action}: a failed side has no latency");
    }
}

#[test]
fn the_error_rate_of_drawn_faults_is_what_the_fault_log_says() {
    let dir = tempfile::tempdir().unwrap();
    let scenario = ten_requests(
        "{ match: { rate: 20% }, action: { kind: http_status, code: 429 } }",
        "error_rate <= 50%",
    )
    .replace("requests: 10", "requests: 500");
    let said = apply(dir.path(), &scenario, &[]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let run = json(dir.path().join("benchmark_results/run.json"));
    let log: Vec<u64> =
        run["cells"][0]["faults"].as_array().unwrap().iter().map(|f| f["index"].as_u64().unwrap()).collect();
    let rows = fs::read_to_string(dir.path().join("benchmark_results/requests.jsonl")).unwrap();
    let mut failed: Vec<u64> = rows
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|row| row["outcome"] != "success")
        .map(|row| row["index"].as_u64().unwrap())
        .collect();
    failed.sort_unstable();
    let mut log_sorted = log.clone();
    log_sorted.sort_unstable();
    assert_eq!(failed, log_sorted);
    // 500 draws at 20 %: five standard deviations are 45.
    assert!((55..=145).contains(&log.len()), "{}", log.len());

    // The same requests fail at any concurrency.
    let said = apply(dir.path(), &scenario.replace("concurrency: 3", "concurrency: 50"), &[]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let run = json(dir.path().join("benchmark_results/run.json"));
    let mut again: Vec<u64> =
        run["cells"][0]["faults"].as_array().unwrap().iter().map(|f| f["index"].as_u64().unwrap()).collect();
    again.sort_unstable();
    assert_eq!(again, log_sorted);
}

#[test]
fn the_strongest_exit_code_wins_over_all_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("fails.yaml"), ten_requests("", "avg(ttft) <= 1ms")).unwrap();
    fs::write(dir.path().join("passes.yaml"), ten_requests("", "avg(ttft) <= 1s")).unwrap();
    let said = run(dir.path(), ["apply", "passes.yaml", "fails.yaml"]);
    assert_eq!(said.code, Some(99), "{}", said.err);
    for name in ["passes", "fails"] {
        assert!(dir.path().join(format!("benchmark_results/{name}/chat_metrics.json")).is_file());
    }
    // A file that does not validate stops all of them before anything runs.
    fs::write(dir.path().join("broken.yaml"), "version: 2\n").unwrap();
    let said = run(dir.path(), ["apply", "-o", "other", "passes.yaml", "broken.yaml"]);
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert!(!dir.path().join("other").exists());
}

#[test]
fn a_metric_that_is_not_known_fails_its_rule_unless_it_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    for (rule, code) in [
        ("prefix_hit_rate >= 10%", 99),
        ("{ rule: prefix_hit_rate >= 10%, no_data: warn }", 0),
        ("{ rule: prefix_hit_rate >= 10%, no_data: skip }", 0),
        ("{ rule: prefix_hit_rate >= 10%, severity: warn }", 0),
    ] {
        let said = apply(dir.path(), &ten_requests("", rule), &[]);
        assert_eq!(said.code, Some(code), "{rule}: {}", said.err);
    }
}

#[test]
fn smoke_runs_three_requests_and_no_gates() {
    let dir = tempfile::tempdir().unwrap();
    let said = apply(dir.path(), &ten_requests("", "avg(ttft) <= 1ms"), &["--smoke"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let summary = json(dir.path().join("benchmark_results/benchmark_summary.json"));
    assert_eq!(summary["overall"]["total_requests"], 3);
}

#[test]
fn changes_on_the_command_line_reach_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let scenario = ten_requests("", "");
    let digest = |more: &[&str]| {
        fs::write(dir.path().join("s.yaml"), &scenario).unwrap();
        let said = run(dir.path(), ["plan", "s.yaml", "--out", "p.jsonl"].iter().chain(more));
        assert_eq!(said.code, Some(0), "{}", said.err);
        let text = fs::read_to_string(dir.path().join("p.jsonl")).unwrap();
        let header: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        ["schedule_digest", "content_digest"].map(|name| header[name].as_str().unwrap().to_owned())
    };
    let plain = digest(&[]);
    assert_eq!(plain, digest(&[]));
    assert_eq!(plain, digest(&["--clock", "real"]), "the clock is no part of the schedule");
    assert_ne!(plain, digest(&["--seed", "9"]));
    assert_ne!(plain, digest(&["--set", "workloads.chat.load.concurrency=4"]));
    assert_ne!(plain, digest(&["--smoke"]));
}

#[test]
fn a_plan_file_replays_the_run_it_was_made_from() {
    let dir = tempfile::tempdir().unwrap();
    let file = repo("scenarios/sweep.yaml");
    let said = run(dir.path(), ["plan".as_ref(), file.as_os_str(), "--out".as_ref(), "plan.jsonl".as_ref()]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let direct = run(dir.path(), ["apply".as_ref(), file.as_os_str(), "-o".as_ref(), "direct".as_ref()]);
    let replayed = run(dir.path(), ["apply", "--plan", "plan.jsonl", "-o", "replayed"]);
    assert_eq!((direct.code, replayed.code), (Some(0), Some(0)), "{}\n{}", direct.err, replayed.err);
    for name in ["requests.jsonl", "sweep.csv"] {
        let [a, b] =
            ["direct", "replayed"].map(|d| fs::read_to_string(dir.path().join(d).join(name)).unwrap());
        assert_eq!(a, b, "{name}");
    }
    let [a, b] = ["direct", "replayed"].map(|d| {
        let mut summary = json(dir.path().join(d).join("benchmark_summary.json"));
        // A plan file keeps the rules, and not where they stand.
        for gate in summary["gates"].as_array_mut().unwrap() {
            gate["place"] = Value::Null;
        }
        summary
    });
    assert_eq!(a, b);
}

#[test]
fn usage_errors_exit_2_and_help_exits_0() {
    let dir = tempfile::tempdir().unwrap();
    for (args, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["apply", "--help"], 0),
        (&["completions", "bash"], 0),
        (&["man"], 0),
        (&[], 2),
        (&["aply"], 2),
        (&["apply"], 2),
        (&["apply", "missing.yaml"], 2),
        (&["apply", "year1", "--only", "nothing"], 2),
        (&["apply", "year1", "--backend", "nothing"], 2),
        (&["apply", "year1", "--set", "workloads.nothing"], 2),
        (&["report", "nothing"], 2),
        (&["plan", "year9"], 2),
    ] {
        let said = run(dir.path(), args);
        assert_eq!(said.code, Some(code), "{args:?}: {}", said.err);
        assert!(code == 0 || !said.err.is_empty(), "{args:?} says nothing");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "usage errors leave nothing behind");
}

#[test]
fn two_backends_get_a_folder_each_and_their_own_verdicts() {
    let dir = tempfile::tempdir().unwrap();
    let slow = "backends.slow={ kind: mock, ttft: 60ms, tbt: 5ms }";
    let scenario =
        ten_requests("", "{ rule: avg(ttft) <= 50ms }, { rule: avg(ttft) <= 80ms, backends: [slow] }");
    let said = apply(dir.path(), &scenario, &["--set", slow, "--backend", "mock,slow"]);
    assert_eq!(said.code, Some(99), "{}", said.err);
    assert!(said.err.contains("for `chat` on `slow`") && !said.err.contains("on `mock`"), "{}", said.err);
    let results = dir.path().join("benchmark_results");
    for (backend, ttft, passed) in [("mock", 10.0, true), ("slow", 60.0, false)] {
        let summary = json(results.join(backend).join("benchmark_summary.json"));
        assert_eq!(summary["workloads"]["chat"]["avg_ttft_ms"], ttft);
        assert_eq!(summary["overall"]["passed"], passed);
        assert_eq!(json(results.join(backend).join("chat_metrics.json")), summary["workloads"]["chat"]);
    }
    assert_eq!(json(results.join("run.json"))["cells"].as_array().unwrap().len(), 2);
}

#[test]
fn a_github_workflow_gets_annotations_and_a_summary() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.yaml"), ten_requests("", "avg(ttft) <= 1ms")).unwrap();
    let said: Said = crate::common::sagebench(dir.path())
        .args(["apply", "s.yaml", "--quiet"])
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_STEP_SUMMARY", dir.path().join("summary.md"))
        .output()
        .unwrap()
        .into();
    assert_eq!(said.code, Some(99));
    let annotation = "::error file=s.yaml,line=10,endLine=10,col=36,endColumn=52::FAIL: avg(ttft) <= 1ms for `chat` on \
                      `mock`: measured 10 ms (n = 10)";
    assert!(said.out.lines().any(|line| line == annotation), "{}", said.out);
    let summary = fs::read_to_string(dir.path().join("summary.md")).unwrap();
    assert!(summary.starts_with("## FAIL") && summary.contains("avg(ttft) <= 1ms"), "{summary}");
}

#[test]
fn a_second_run_moves_the_first_to_the_history() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        assert_eq!(apply(dir.path(), &ten_requests("", ""), &[]).code, Some(0));
    }
    let history = fs::read_dir(dir.path().join("benchmark_results/history")).unwrap();
    let runs: Vec<_> = history.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(runs.len(), 2);
    for run in runs {
        assert_eq!(json(run.join("run.json"))["complete"], true);
        assert!(run.join("chat_metrics.json").is_file() && run.join("REPORT.md").is_file());
    }
}

/// `repeats` play the workload again with draws of their own; the contract file pools them.
#[test]
fn repeats_are_pooled_and_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let scenario = ten_requests("", "")
        .replace("tokens: 32", "tokens: { kind: uniform, min: 16, max: 64 }")
        .replace("    timeout: 2s", "    repeats: 3");
    let said = apply(dir.path(), &scenario, &[]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let run = json(dir.path().join("benchmark_results/run.json"));
    let cell = &run["cells"][0];
    assert_eq!(cell["metrics"]["total_requests"], 30);
    let repeats = cell["repeats"].as_array().unwrap();
    assert_eq!(repeats.len(), 3);
    let prompts: Vec<_> = repeats.iter().map(|one| one["avg_prompt_tokens"].to_string()).collect();
    assert!(prompts[0] != prompts[1] && prompts[1] != prompts[2], "{prompts:?}");
}

#[test]
fn a_rule_that_is_lost_stops_the_run_and_what_was_measured_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let faults = "{ match: { index: [4, 6] }, action: { kind: http_status, code: 500 } }";
    let scenario = ten_requests(faults, "{ rule: error_rate == 0, abort_on_fail: true }")
        .replace("  chat:", "  first: &it")
        .replace("concurrency: 3", "concurrency: 1")
        .replace("gates:", "  second: *it\ngates:");
    let said = apply(dir.path(), &scenario, &[]);
    assert_eq!(said.code, Some(99), "{}", said.err);
    let report = json(dir.path().join("benchmark_results/run.json"));
    assert_eq!((&report["complete"], &report["stopped_early"]), (&Value::Bool(false), &Value::Bool(true)));
    let cells = report["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 1, "the second workload is not played");
    assert_eq!(cells[0]["metrics"]["total_requests"], 5);
    let reason = report["interruption"].as_str().unwrap();
    assert!(reason.contains("1 of 5 requests are beyond the limit, and 0 may be"), "{reason}");
    // It is finished: the next run needs no word about it.
    assert_eq!(apply(dir.path(), &scenario, &[]).code, Some(99));
    assert!(dir.path().join("benchmark_results/history").is_dir());
    // Not before so much was measured: the second failure comes at 4 · 85 + 2 · 10 ms.
    let late = scenario.replace("abort_on_fail: true", "abort_on_fail: true, abort_after: 500ms");
    apply(dir.path(), &late, &[]);
    let report = json(dir.path().join("benchmark_results/run.json"));
    assert_eq!(report["cells"][0]["metrics"]["total_requests"], 8);
}

#[test]
fn a_rule_can_hold_a_workload_or_a_backend_against_another() {
    let dir = tempfile::tempdir().unwrap();
    let scenario = |change: &str| {
        format!(
            "version: 1
backends:
  fast: {{ kind: mock, ttft: 10ms, tbt: 5ms }}
  slow: {{ kind: mock, ttft: 10ms, tbt: 5.5ms }}
backend: [fast, slow]
workloads:
  alone:
    prompt: {{ kind: synthetic, tokens: 32 }}
    output: {{ tokens: 16 }}
    load: {{ kind: closed, concurrency: 1, requests: 10 }}
  crowd:
    prompt: {{ kind: synthetic, tokens: 32 }}
    output: {{ tokens: 16 }}
    load: {{ kind: closed, concurrency: 4, requests: 10 }}
gates: {{ rules: [avg(tpot) <= fast {change}, p99(ttft) <= alone + 25%] }}
"
        )
    };
    let said = apply(dir.path(), &scenario("+ 5%"), &[]);
    assert_eq!(said.code, Some(99), "{}", said.err);
    assert!(said.err.contains("measured 5.5 ms against 5 ms in `fast`, +10% (exact)"), "{}", said.err);
    let report = json(dir.path().join("benchmark_results/run.json"));
    let judged: Vec<String> = report["judgements"].as_array().unwrap()[..4]
        .iter()
        .map(|j| {
            format!("{} {} {} {}", j["rule"], j["workload"], j["backend"], j["verdict"]).replace('"', "")
        })
        .collect();
    // Nobody is held against itself.
    assert_eq!(
        judged,
        [
            "avg(tpot) <= fast + 5% alone slow FAIL",
            "avg(tpot) <= fast + 5% crowd slow FAIL",
            "p99(ttft) <= alone + 25% crowd fast PASS",
            "p99(ttft) <= alone + 25% crowd slow PASS",
        ]
    );
    assert_eq!(apply(dir.path(), &scenario("+ 10%"), &[]).code, Some(0));
}

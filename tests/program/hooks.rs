//! Hooks and checks, from the scenario to the results.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Said, json as read, run};

/// A run of twelve requests with these hooks, checks and rules.
fn apply(dir: &Path, hooks: &str, expect: &str, rules: &str) -> Said {
    let indented = hooks.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n");
    let scenario = format!(
        "version: 1
seed: 7
backends:
  mock:
    kind: mock
    ttft: 10ms
    tbt: 5ms
    responses:
      - {{ match: {{ every: 4 }}, text: 'Sorry, I can not.' }}
      - {{ text: '{{\"city\": \"Paris\", \"n\": 2}}' }}
metrics: {{ length: {{ unit: \"1\", better: lower, description: Characters. }} }}
hooks:
  inline: |
{indented}
workloads:
  chat:
    prompt: {{ kind: script }}
    output: {{ max_tokens: 64 }}
    load: {{ kind: closed, concurrency: 2, requests: 12 }}
    expect: [{expect}]
gates: {{ confidence: none, rules: [{rules}] }}
"
    );
    fs::write(dir.join("s.yaml"), scenario).unwrap();
    run(dir, ["apply", "s.yaml", "--force"])
}

fn results(dir: &Path) -> (Value, Value) {
    let folder = dir.join("benchmark_results");
    (read(folder.join("chat_metrics.json")), read(folder.join("run.json")))
}

const PROMPT: &str = "fn prompt(ctx) { `question ${ctx.index}: ${rng.text(5)}` }";

#[test]
fn checks_are_counted_judged_and_shown_with_the_response() {
    let dir = tempfile::tempdir().unwrap();
    let hooks = format!("{PROMPT}\nfn check(req, res) {{ record(\"length\", res.text.len()); true }}");
    let expect = "{ kind: json }, { name: says_paris, kind: contains, text: Paris }";
    let rules = "check(json) >= 70%, avg(length) <= 25, p99(length) < 30";
    let said = apply(dir.path(), &hooks, expect, rules);
    // Three of twelve responses are no JSON: 75 % meet the rule, and the check without a rule must always pass.
    assert_eq!(said.code, Some(99), "{}", said.err);
    let (metrics, run) = results(dir.path());
    assert_eq!(metrics["check_pass_rates"], json!({ "json": 0.75, "says_paris": 0.75, "hook": 1.0 }));
    assert_eq!((&metrics["checks_pass_rate"], &metrics["checked_responses"]), (&json!(0.75), &json!(12)));
    assert_eq!(metrics["custom_metrics"]["length"]["count"], 12);
    assert_eq!(metrics["custom_metrics"]["length"]["sum"], 9.0 * 25.0 + 3.0 * 17.0);
    let judged: Vec<String> = run["judgements"]
        .as_array()
        .unwrap()
        .iter()
        .map(|j| {
            format!("{} {} {}", j["rule"].as_str().unwrap(), j["verdict"].as_str().unwrap(), j["implicit"])
        })
        .collect();
    assert_eq!(
        judged,
        [
            "check(json) >= 70% PASS false",
            "avg(length) <= 25 PASS false",
            "p99(length) < 30 PASS false",
            "error_rate <= 1% PASS true",
            "check(says_paris) == 100% FAIL true",
            "check(hook) == 100% PASS true",
        ]
    );
    let first = &run["cells"][0]["checks"][0]["failures"][0];
    assert_eq!(first["index"], 3);
    assert_eq!(first["text"], "Sorry, I can not.");
    let report = fs::read_to_string(dir.path().join("benchmark_results/REPORT.md")).unwrap();
    assert!(report.contains("| says_paris | contains | 12 | 9 | 75% |"), "{report}");
    assert!(report.contains("Sorry, I can not."), "{report}");
}

#[test]
fn a_hook_that_fails_fails_its_own_request_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let hooks = "fn prompt(ctx) {
    if ctx.index == 2 { loop { } }
    if ctx.index == 5 { return 42; }
    \"hello\"
}

fn request(req) {
    if req.index == 7 { req.output_tokens = 0; }
    req
}

fn check(req, res) {
    if req.index == 9 { return res.txt; }
    true
}";
    let said = apply(dir.path(), hooks, "", "error_rate <= 40%");
    assert_eq!(said.code, Some(0), "{}", said.err);
    let (metrics, run) = results(dir.path());
    assert_eq!(metrics["errors"], json!({ "hook_failed": 4 }));
    assert_eq!((&metrics["successful_requests"], &metrics["checked_responses"]), (&json!(8), &json!(8)));
    assert_eq!(metrics["avg_ttft_ms"], 10.0);
    let message = run["cells"][0]["errors"][0]["message"].as_str().unwrap();
    assert_eq!(
        message,
        "s.yaml:14:8: prompt(ctx): it takes more than 1000000 operations; does a loop end? (it received request 2 of chat)"
    );
    let log = fs::read_to_string(dir.path().join("benchmark_results/requests.jsonl")).unwrap();
    let said: Vec<String> = log
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["message"].as_str().map(str::to_owned)
        })
        .collect();
    let places: Vec<&str> = said.iter().map(|message| message.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["s.yaml:14:8", "s.yaml:14:8", "s.yaml:20:8", "s.yaml:26:40"]);
}

#[test]
fn the_same_scenario_gives_the_same_bytes_and_other_hooks_another_digest() {
    let dir = tempfile::tempdir().unwrap();
    let of = |hooks: &str| {
        apply(dir.path(), hooks, "", "");
        fs::read_to_string(dir.path().join("benchmark_results/chat_metrics.json")).unwrap()
    };
    let first = of(PROMPT);
    assert_eq!(first, of(PROMPT));
    let digests = |text: &str| {
        let metrics: Value = serde_json::from_str(text).unwrap();
        (metrics["schedule_digest"].clone(), metrics["content_digest"].clone())
    };
    let other = of(&format!("{PROMPT} // the same prompts"));
    assert_eq!(digests(&first).0, digests(&other).0);
    assert_ne!(digests(&first).1, digests(&other).1, "the sources of hooks are content");
}

#[test]
fn a_plan_file_keeps_what_hooks_made_and_is_checked_by_them() {
    let dir = tempfile::tempdir().unwrap();
    let hooks = format!("{PROMPT}\nfn check(req, res) {{ req.prompt.starts_with(\"question\") }}");
    apply(dir.path(), &hooks, "", "");
    let (played, _) = results(dir.path());
    let said = run(dir.path(), ["plan", "s.yaml", "--out", "plan.jsonl"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let said = run(dir.path(), ["apply", "--plan", "plan.jsonl", "--force"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(results(dir.path()).0, played);
}

/// What a hook must not be able to do, one by one: each ends its own request with a message at its line.
const HOSTILE: [(&str, &str); 14] = [
    ("loop { }", "more than 1000000 operations"),
    ("endless(0)", "functions call each other more than 16 deep"),
    ("let s = \"x\"; loop { s += s; }", "a text grows too large"),
    ("let a = [1]; loop { a += a; }", "a list grows too large"),
    ("let m = #{}; let i = 0; loop { m[`${i}`] = i; i += 1; }", "more than 1000000 operations"),
    ("rng.text(100000000)", "a text has 0 to"),
    ("sleep(3600); \"x\"", "`sleep` is not there"),
    ("timestamp().to_string()", "`timestamp` is not there"),
    ("exit(0)", "`exit` is not there"),
    ("open(\"/etc/passwd\")", "there is no function `open(string)`"),
    ("42", "it gives back `42`"),
    ("\"\"", "an empty prompt"),
    ("(9223372036854775807 + ctx.index).to_string()", "addition overflow"),
    ("(1 / (ctx.index - 26)).to_string()", "division by zero"),
];

#[test]
fn hostile_hooks_end_within_their_limits_and_harm_no_other_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut hooks = "fn endless(n) { endless(n + 1) }\nfn prompt(ctx) {\n".to_owned();
    for (at, (body, _)) in HOSTILE.iter().enumerate() {
        writeln!(hooks, "    if ctx.index == {} {{ return {{ {body} }}; }}", 2 * at).unwrap();
    }
    hooks.push_str("    \"hello\"\n}");
    let requests = 2 * HOSTILE.len();
    apply(dir.path(), &hooks, "", "error_rate <= 50%");
    let said = run(
        dir.path(),
        ["apply", "s.yaml", "--force", "--set", &format!("workloads.chat.load.requests={requests}")],
    );
    assert_eq!(said.code, Some(0), "{}", said.err);
    let (metrics, _) = results(dir.path());
    assert_eq!(metrics["errors"], json!({ "hook_failed": HOSTILE.len() }));
    assert_eq!(metrics["successful_requests"], HOSTILE.len());
    assert_eq!((&metrics["avg_ttft_ms"], &metrics["max_ttft_ms"]), (&json!(10.0), &json!(10.0)));
    let log = fs::read_to_string(dir.path().join("benchmark_results/requests.jsonl")).unwrap();
    let rows: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (at, (body, wanted)) in HOSTILE.iter().enumerate() {
        let row = rows.iter().find(|row| row["index"] == 2 * at).unwrap();
        let message = row["message"].as_str().unwrap();
        assert!(message.starts_with("s.yaml:") && message.contains(wanted), "{body}: {message}");
    }
}

#[test]
fn a_check_that_fails_too_often_stops_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "{ rule: check(json) >= 90%, abort_on_fail: true }";
    let said = apply(dir.path(), PROMPT, "{ kind: json }", rules);
    assert_eq!(said.code, Some(99), "{}", said.err);
    let (metrics, run) = results(dir.path());
    // One of twelve may fail; every fourth does.
    assert_eq!((&run["complete"], &run["stopped_early"]), (&json!(false), &json!(true)));
    let reason = run["interruption"].as_str().unwrap();
    assert!(reason.contains("check(json) >= 90%") && reason.contains("2 of 8 requests"), "{reason}");
    assert!(metrics["checked_responses"].as_u64() < Some(12), "{metrics}");
    // Where as many may fail as do, it goes on to its end.
    let said = apply(dir.path(), PROMPT, "{ kind: json }", &rules.replace("90%", "75%"));
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(results(dir.path()).1["complete"], true);
}

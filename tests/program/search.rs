//! The search for capacity, held against capacities that are known otherwise.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{Said, json, run, sagebench};
use serde_json::Value;

/// A scenario of one workload that searches.
fn scenario(backend: &str, prompt: u32, output: u32, slo: &str, load: &str, more: &str) -> String {
    format!(
        "
version: 1
seed: 3
backends:
  mock: {backend}
workloads:
  chat:
    prompt: {{ kind: synthetic, tokens: {prompt} }}
    output: {{ tokens: {output} }}
    slo: [ {slo} ]
    load: {{ {load} }}
{more}"
    )
}

fn apply(dir: &Path, text: &str, args: &[&str]) -> (Said, Value) {
    fs::write(dir.join("search.yaml"), text).unwrap();
    let said = run(dir, ["apply", "search.yaml", "--force"].iter().chain(args));
    let report = json(dir.join("benchmark_results/run.json"));
    (said, report)
}

fn searched(text: &str) -> (Said, Value) {
    let dir = tempfile::tempdir().unwrap();
    let (said, report) = apply(dir.path(), text, &[]);
    let cell = report["cells"][0].clone();
    (said, cell)
}

fn number(cell: &Value, metric: &str) -> f64 {
    cell["metrics"][metric]
        .as_f64()
        .unwrap_or_else(|| panic!("{metric}: {}", cell["metrics"]["unavailable"][metric]))
}

fn levels(cell: &Value, purpose: &str) -> Vec<f64> {
    let probes = cell["searches"][0]["probes"].as_array().unwrap();
    probes.iter().filter(|p| p["purpose"] == purpose).map(|p| p["level"].as_f64().unwrap()).collect()
}

/// Each request needs 100 steps of 10 ms, and 8 run at once: 8 requests a second, whatever their order.
const STEPS: &str = "{ kind: mock, mode: batched, cost: { base_ms: 10, weights_ms: 0, token_us: 0, knee: 1 }, engine: { max_num_seqs: 8 }, kv: { tokens: 65536 } }";

#[test]
fn a_rate_that_the_cost_model_gives() {
    let load = "kind: search, variable: rate, range: [1/s, 64/s], arrival: constant, tolerance: 2%, probe: { duration: 60s, warmup: 5s }, budget: 3h";
    let gates =
        "gates: { rules: [ capacity_rps >= 7.6, { rule: capacity_rps <= 8.4 }, capacity_rps >= 8.5 ] }\n";
    let (said, cell) = searched(&scenario(STEPS, 16, 100, "ttft <= 500ms", load, gates));
    assert_eq!(said.code, Some(99), "{}", said.err);
    let capacity = number(&cell, "capacity_rps");
    assert!((7.6..=8.4).contains(&capacity), "{capacity}");
    let search = &cell["searches"][0];
    let (lo, hi) = (search["lo"].as_f64().unwrap(), search["hi"].as_f64().unwrap());
    assert!(lo <= 8.1 && 8.0 <= hi && hi <= lo * 1.0201, "{lo} {hi}");
    assert!((capacity - lo).abs() < 1e-9 && search["confirmed"] == true);
    assert_eq!(levels(&cell, "double"), [1.0, 2.0, 4.0, 8.0, 16.0]);
    // What stands for the workload is what the confirmation measured.
    assert!((number(&cell, "offered_rate_rps") - capacity).abs() < 0.01);
    assert!(said.out.contains("passes and"), "{}", said.out);
    let verdicts: Vec<_> = said.err.lines().filter(|line| line.contains("FAIL: ")).collect();
    assert_eq!(verdicts.len(), 1, "{verdicts:?}");
    assert!(
        cell["metrics"]["unavailable"]["capacity_concurrency"].as_str().unwrap().contains("another capacity")
    );
}

#[test]
fn a_rate_under_a_cap_of_tokens() {
    // 2000 tokens a second, 50 for each request: 40 requests a second.
    let backend = "{ kind: mock, ttft: 10ms, tbt: 1ms, rate_cap: 2000/s }";
    let load = "kind: search, variable: rate, range: [5/s, 100/s], probe: { duration: 40s, warmup: 5s }";
    let (said, cell) = searched(&scenario(backend, 16, 50, "e2e <= 2s", load, ""));
    assert_eq!(said.code, Some(0), "{}", said.err);
    let capacity = number(&cell, "capacity_rps");
    assert!((38.0..=42.0).contains(&capacity), "{capacity}");
}

#[test]
fn users_that_the_cost_model_gives() {
    // A step of n sequences takes 5 ms and 0.5 ms for each of them; a token of each comes with every step. 20 ms are 30.
    let backend = "{ kind: mock, mode: batched, cost: { base_ms: 5, weights_ms: 0, token_us: 0, knee: 1, sequence_us: 500 }, kv: { tokens: 65536 } }";
    let load = "kind: search, variable: concurrency, range: [1, 256], tolerance: 1%, share: 100%, probe: { duration: 20s, warmup: 2s }";
    let (said, cell) = searched(&scenario(
        backend,
        8,
        64,
        "tpot <= 20ms",
        load,
        "gates: { rules: [ capacity_concurrency >= 30 ] }\n",
    ));
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    assert_eq!(levels(&cell, "confirm"), [30.0]);
    assert_eq!(cell["searches"][0]["hi"], 31.0);
}

#[test]
fn a_sweep_of_open_loads_finds_the_same() {
    let backend = "{ kind: mock, mode: batched, preset: rtx4090-8b, kv: { tokens: 32768 } }";
    let slo = "ttft <= 500ms, tpot <= 40ms";
    let probe = "duration: 40s, warmup: 5s";
    let load = format!("kind: search, variable: rate, range: [1/s, 64/s], share: 95%, probe: {{ {probe} }}");
    let (_, cell) = searched(&scenario(backend, 256, 64, slo, &load, ""));
    let search = &cell["searches"][0];
    let (lo, hi) = (search["lo"].as_f64().unwrap(), search["hi"].as_f64().unwrap());
    // Ordinary loads with the same draws.
    let share = |rate: f64| {
        let load = format!("kind: open, rate: {rate:.4}/s, duration: 40s");
        let text = scenario(backend, 256, 64, slo, &load, "    warmup: { duration: 5s }\n");
        number(&searched(&text).1, "slo_share")
    };
    let highest = (0..7).map(|step| lo * (0.88 + 0.04 * f64::from(step))).filter(|rate| share(*rate) >= 0.95);
    let highest = highest.fold(0.0, f64::max);
    assert!((highest / lo - 1.0).abs() <= 0.05, "the sweep's {highest}, the search's {lo} to {hi}");
    assert!(share(hi) < 0.95 || levels(&cell, "confirm").len() > 1);
}

#[test]
fn ends_of_a_search() {
    let load = |range: &str, more: &str| {
        format!(
            "kind: search, variable: rate, range: {range}, arrival: constant, probe: {{ duration: 30s }}{more}"
        )
    };
    let rule = "gates: { rules: [ capacity_rps >= 1 ] }\n";
    let (said, cell) = searched(&scenario(STEPS, 16, 100, "ttft <= 500ms", &load("[20/s, 40/s]", ""), rule));
    assert_eq!(said.code, Some(99), "{}", said.err);
    assert!(said.err.contains("not even 20/s passes"), "{}", said.err);
    assert_eq!((&cell["searches"][0]["lo"], &cell["metrics"]["capacity_rps"]), (&Value::Null, &Value::Null));
    let (said, cell) = searched(&scenario(STEPS, 16, 100, "ttft <= 500ms", &load("[1/s, 3/s]", ""), rule));
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!((&cell["searches"][0]["hi"], number(&cell, "capacity_rps")), (&Value::Null, 3.0));
    // Probes under overload take longer than they send, so the budget ends the search before the gap is narrow.
    let (said, cell) =
        searched(&scenario(STEPS, 16, 100, "ttft <= 500ms", &load("[1/s, 16/s]", ", budget: 320s"), rule));
    assert_eq!(said.code, Some(0), "{}", said.err);
    let search = &cell["searches"][0];
    assert!(search["ending"].as_str().unwrap().contains("the budget ended it"), "{search}");
    assert_eq!(search["confirmed"], true);
}

#[test]
fn the_same_bytes_again_and_on_any_number_of_threads() {
    let load = "kind: search, variable: rate, range: [1/s, 64/s], probe: { duration: 20s }";
    let text = scenario(STEPS, 16, 100, "ttft <= 500ms", load, "    repeats: 3\n");
    let dir = tempfile::tempdir().unwrap();
    let mut reports = Vec::new();
    for threads in ["1", "4"] {
        let (said, mut report) = apply(dir.path(), &text, &["--threads", threads]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        report.as_object_mut().unwrap().remove("environment");
        let log = fs::read_to_string(dir.path().join("benchmark_results/requests.jsonl")).unwrap();
        reports.push((report, log));
    }
    assert!(reports[0] == reports[1]);
    let cell = &reports[0].0["cells"][0];
    let found: Vec<f64> =
        cell["repeats"].as_array().unwrap().iter().map(|own| own["capacity_rps"].as_f64().unwrap()).collect();
    assert_eq!(found.len(), 3);
    let apart = found.windows(2).any(|pair| (pair[0] - pair[1]).abs() > 1e-9);
    assert!(apart, "each repeat has draws of its own: {found:?}");
    assert!((number(cell, "capacity_rps") - found.iter().sum::<f64>() / 3.0).abs() < 1e-5);
}

/// Probes of a third of a second: levels 1, 2 and 4, and the confirmation.
const SHORT: &str = "kind: search, variable: concurrency, range: [1, 4], probe: { duration: 300ms }";

#[test]
fn interrupted_it_keeps_its_probes_and_goes_on_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    let backend = "{ kind: mock, clock: real, ttft: 4ms, tbt: 1ms }";
    let text = scenario(
        backend,
        16,
        8,
        "ttft <= 1s",
        SHORT,
        "gates: { confidence: none }\nvalidity: { lag: off }\n",
    );
    fs::write(dir.path().join("search.yaml"), &text).unwrap();
    let child = sagebench(dir.path())
        .args(["apply", "search.yaml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Each request is some 50 bytes; the second probe is under way when the first one has its 25 or more.
    let journal = dir.path().join("benchmark_results/journal.bin");
    while fs::metadata(&journal).map_or(0, |file| file.len()) < 3500 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let said: Said = child.wait_with_output().unwrap().into();
    assert_eq!(said.code, Some(130), "{}\n{}", said.out, said.err);
    let partial = json(dir.path().join("benchmark_results/run.json"));
    let probes = |report: &Value| report["cells"][0]["searches"][0]["probes"].as_array().unwrap().clone();
    let before = probes(&partial);
    assert_eq!(partial["cells"][0]["metrics"]["capacity_concurrency"], Value::Null);
    assert!(!before.is_empty() && before.len() < 4, "{before:?}");
    let (cut, whole) = before.split_last().unwrap();
    assert_eq!(cut["note"], "it was cut off");
    let said = run(dir.path(), ["apply", "search.yaml", "--resume"]);
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    let full = json(dir.path().join("benchmark_results/run.json"));
    let after = probes(&full);
    assert_eq!(
        after.iter().map(|probe| probe["level"].as_f64().unwrap()).collect::<Vec<_>>(),
        [1.0, 2.0, 4.0, 4.0]
    );
    assert_eq!(&after[..whole.len()], whole, "what was probed is not played again");
    assert!((number(&full["cells"][0], "capacity_concurrency") - 4.0).abs() < 1e-9);
}

#[test]
fn on_a_server_and_on_a_model() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("s.yaml"),
        scenario("{ kind: mock, ttft: 4ms, tbt: 1ms }", 8, 8, "ttft <= 1s", SHORT, ""),
    )
    .unwrap();
    let mut server = sagebench(dir.path());
    let mut server =
        server.args(["serve", "s.yaml", "--listen", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let url = line[line.find("http://").unwrap()..].trim();
    let said = run(dir.path(), ["model", "random", "--like", "gpt2", "--tiny", "--out", "tiny"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    for (backend, output) in [
        (format!("{{ kind: openai, base_url: \"{url}\" }}"), "server"),
        ("{ kind: candle, model: ./tiny, kv: { tokens: 2048 } }".to_owned(), "model"),
    ] {
        let more =
            "gates: { confidence: none, rules: [ capacity_concurrency >= 4 ] }\nvalidity: { lag: off }\n";
        let text = scenario(&backend, 8, 8, "e2e <= 60s", SHORT, more).replace("mock:", "own:");
        fs::write(dir.path().join("search.yaml"), text).unwrap();
        let said = run(dir.path(), ["apply", "search.yaml", "--output", output]);
        assert_eq!(said.code, Some(0), "{output}: {}\n{}", said.out, said.err);
        let report = json(dir.path().join(output).join("run.json"));
        let probes = report["cells"][0]["searches"][0]["probes"].as_array().unwrap();
        assert_eq!(probes.len(), 4, "{probes:?}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

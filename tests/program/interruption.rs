//! What was measured is never lost: signals, kills, full disks and closed pipes.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::common::{Said, json, run, sagebench};
use serde_json::Value;

/// 120 requests, four at a time, in real time: about 0.4 s.
const LONG: &str = "
version: 1
seed: 5
backends:
  mock: { kind: mock, clock: real, ttft: 4ms, tbt: 1ms, kv: { tokens: 4096 } }
workloads:
  first:
    prompt: { kind: synthetic, tokens: 64 }
    output: { tokens: 8 }
    load: { kind: closed, concurrency: 4, requests: 60 }
  second:
    prompt: { kind: synthetic, tokens: 32 }
    output: { tokens: 8 }
    load: { kind: open, rate: 300/s, requests: 60 }
gates: { confidence: none }
validity: { lag: off, busy: off }
records: tokens
";

/// The same with ten times the requests, so that a signal comes in the middle even on a busy machine.
fn longer() -> String {
    LONG.replace("requests: 60", "requests: 600")
}

fn start(dir: &Path, args: &[&str]) -> Child {
    sagebench(dir).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub fn signal(child: &Child, name: &str) {
    let status =
        std::process::Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
    assert!(status.unwrap().success());
}

fn finish(child: Child) -> Said {
    child.wait_with_output().unwrap().into()
}

/// Waits until the run has recorded something.
pub fn wait_for_journal(dir: &Path, bytes: u64) {
    let journal = dir.join("benchmark_results/journal.bin");
    while fs::metadata(&journal).map_or(0, |m| m.len()) < bytes {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn counts(dir: &Path) -> Vec<(String, Value)> {
    ["first", "second"]
        .iter()
        .map(|name| {
            let metrics = json(dir.join(format!("benchmark_results/{name}_metrics.json")));
            ((*name).to_owned(), metrics["total_requests"].clone())
        })
        .collect()
}

#[test]
fn a_signal_keeps_what_was_measured_and_resume_finishes_it() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("long.yaml"), longer()).unwrap();
        let child = start(dir.path(), &["apply", "long.yaml"]);
        wait_for_journal(dir.path(), 1500);
        signal(&child, name);
        let said = finish(child);
        assert_eq!(said.code, Some(code), "{}\n{}", said.out, said.err);
        let partial = json(dir.path().join("benchmark_results/run.json"));
        assert_eq!(partial["complete"], false);
        let measured = partial["overall"]["total_requests"].as_u64().unwrap();
        assert!(measured > 0 && measured < 1200, "{measured}");

        // Without a word, the partial results are neither resumed nor thrown away.
        let said = run(dir.path(), ["apply", "long.yaml"]);
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains("--resume") && said.err.contains("--force"), "{}", said.err);

        let said = run(dir.path(), ["apply", "long.yaml", "--resume"]);
        assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
        let full = json(dir.path().join("benchmark_results/run.json"));
        assert_eq!(full["complete"], true);
        assert_eq!(full["segments"].as_array().unwrap().len(), 2);
        assert_eq!(counts(dir.path()), [("first".to_owned(), 600.into()), ("second".to_owned(), 600.into())]);
        let tokens = crate::records::tokens(&dir.path().join("benchmark_results"));
        assert_eq!(tokens.len(), 1200, "each request's, of both segments");
        assert!(!dir.path().join("benchmark_results/journal.bin").exists());
    }
}

#[test]
fn resume_refuses_another_plan() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("long.yaml"), longer()).unwrap();
    let said = run(dir.path(), ["apply", "long.yaml", "--resume"]);
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert!(said.err.contains("no incomplete run"), "{}", said.err);
    let child = start(dir.path(), &["apply", "long.yaml"]);
    wait_for_journal(dir.path(), 1500);
    signal(&child, "INT");
    finish(child);
    let said = run(dir.path(), ["apply", "long.yaml", "--resume", "--seed", "6"]);
    assert_eq!(said.code, Some(5), "{}", said.err);
    assert!(said.err.contains("another plan"), "{}", said.err);
}

#[test]
fn killed_at_any_point_and_resumed_the_counts_are_those_of_a_whole_run() {
    // A fixed sequence of moments spread over the run, so that a failure can be repeated.
    for round in 0..20_u64 {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("long.yaml"), LONG).unwrap();
        let mut child = start(dir.path(), &["apply", "long.yaml"]);
        std::thread::sleep(Duration::from_millis(10 + (round * 7919) % 350));
        signal(&child, "KILL");
        child.wait().unwrap();
        let results = dir.path().join("benchmark_results");
        let resumable = results.join("journal.bin").exists();
        let args: &[&str] =
            if resumable { &["apply", "long.yaml", "--resume"] } else { &["apply", "long.yaml"] };
        let said = run(dir.path(), args);
        assert_eq!(said.code, Some(0), "round {round}: {}\n{}", said.out, said.err);
        assert_eq!(
            counts(dir.path()),
            [("first".to_owned(), 60.into()), ("second".to_owned(), 60.into())],
            "round {round}"
        );
        let requests = fs::read_to_string(results.join("requests.jsonl")).unwrap();
        assert_eq!(requests.lines().count(), 120, "round {round}");
    }
}

/// 40 sessions of three turns, eight at a time, in real time: about half a second.
const SESSIONS: &str = "
version: 1
seed: 5
backends:
  mock: { kind: mock, clock: real, ttft: 4ms, tbt: 1ms, kv: { tokens: 65536 } }
workloads:
  first:
    prompt: { kind: sessions, turns: 3, user: { tokens: 16 }, think_time: 10ms }
    output: { tokens: 8 }
    load: { kind: closed, concurrency: 8, sessions: 40 }
gates: { confidence: none }
validity: { lag: off, busy: off }
";

#[test]
fn sessions_that_were_cut_off_are_played_again_from_their_start() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("long.yaml"), SESSIONS).unwrap();
    let child = start(dir.path(), &["apply", "long.yaml"]);
    wait_for_journal(dir.path(), 1500);
    signal(&child, "INT");
    assert_eq!(finish(child).code, Some(130));
    let said = run(dir.path(), ["apply", "long.yaml", "--resume"]);
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    let requests = fs::read_to_string(dir.path().join("benchmark_results/requests.jsonl")).unwrap();
    let rows: Vec<Value> = requests.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 120);
    for session in 0..40 {
        let of =
            |turn: u64| rows.iter().find(|row| row["session"] == session && row["turn"] == turn).unwrap();
        for turn in 2..=3 {
            let (before, own) = (of(turn - 1), of(turn));
            let pause = own["due_ms"].as_f64().unwrap() - before["end_ms"].as_f64().unwrap();
            assert!(pause >= 9.9, "{own}");
        }
    }
    // All turns of a session are from one segment.
    let run = json(dir.path().join("benchmark_results/run.json"));
    let resumed = run["segments"][1]["requests"].as_u64().unwrap();
    assert!(resumed > 0 && resumed.is_multiple_of(3), "{}", run["segments"]);
}

#[test]
fn an_unwritable_folder_is_refused_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let said = run(dir.path(), ["apply", "year1", "--output", "file/results"]);
    assert_eq!(said.code, Some(3));
    assert!(said.err.contains("cannot make the results folder file/results"), "{}", said.err);
}

#[test]
fn a_full_disk_is_an_error_with_the_file_that_did_not_fit() {
    // A file size limit makes writes fail in the middle as a full disk does.
    let dir = tempfile::tempdir().unwrap();
    let said: Said = std::process::Command::new("bash")
        .current_dir(dir.path())
        .args(["-c", "ulimit -f 8; exec \"$0\" apply year1"])
        .arg(env!("CARGO_BIN_EXE_sagebench"))
        .output()
        .unwrap()
        .into();
    assert_eq!(said.code, Some(3), "{}\n{}", said.out, said.err);
    assert!(said.err.contains("cannot write benchmark_results/"), "{}", said.err);
    // What fits is there and whole.
    let metrics = json(dir.path().join("benchmark_results/short_input_metrics.json"));
    assert_eq!(metrics["total_requests"], 5);
    let leftovers: Vec<_> = fs::read_dir(dir.path().join("benchmark_results"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"))
        .collect();
    assert!(leftovers.is_empty());
}

#[test]
fn a_disk_that_fills_during_a_real_time_run_ends_it_with_what_was_measured() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("long.yaml"), LONG).unwrap();
    let said: Said = std::process::Command::new("bash")
        .current_dir(dir.path())
        .args(["-c", "ulimit -f 7; exec \"$0\" apply long.yaml"])
        .arg(env!("CARGO_BIN_EXE_sagebench"))
        .output()
        .unwrap()
        .into();
    assert_eq!(said.code, Some(3), "{}\n{}", said.out, said.err);
    assert!(said.err.contains("cannot write benchmark_results/journal.bin"), "{}", said.err);
    assert!(said.out.contains("ERROR"), "{}", said.out);
    let metrics = json(dir.path().join("benchmark_results/first_metrics.json"));
    assert!(metrics["total_requests"].as_u64().unwrap() > 0);
    // With room again, the run goes on from what the journal kept.
    let said = run(dir.path(), ["apply", "long.yaml", "--resume"]);
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    assert_eq!(counts(dir.path()), [("first".to_owned(), 60.into()), ("second".to_owned(), 60.into())]);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start(dir.path(), &["schema"]);
    let mut first = [0];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    let said = finish(child);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(said.err, "");
}

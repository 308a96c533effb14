//! Cells that share nothing are played at once: the bytes are those of one after another.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::common::{json, run, sagebench};

/// Twelve points of very different lengths, on two backends, one of them with faults and preemptions.
const SWEEP: &str = "
version: 1
seed: 11
backends:
  one: { kind: mock, mode: batched, preset: rtx4090-8b, kv: { tokens: 8192 } }
  two:
    kind: mock
    ttft: 10ms
    tbt: 5ms
    kv: { tokens: 4096 }
    faults: [ { match: { every: 7 }, action: { kind: http_status, code: 503 } } ]
backend: [one, two]
workloads:
  chat:
    prompt: { kind: synthetic, tokens: 256 }
    output: { tokens: 64 }
    load: { kind: closed, concurrency: 4, requests: 40 }
    matrix: [ { load.concurrency: [32, 1, 8] }, { prompt.tokens: [512, 16] } ]
    repeats: 2
";

/// Every file of a run but for what the machine and the moment decide.
fn files(dir: &Path, under: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir.join(under)).unwrap() {
        let entry = entry.unwrap();
        let name = under.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            files(dir, &name, found);
        } else if name == Path::new("run.json") {
            let mut report = json(dir.join(&name));
            report.as_object_mut().unwrap().remove("environment");
            found.insert("run.json".into(), report.to_string());
        } else if name.extension().is_some_and(|end| end == "json" || end == "jsonl" || end == "csv") {
            found.insert(name.display().to_string(), fs::read_to_string(dir.join(&name)).unwrap());
        }
    }
}

#[test]
fn the_bytes_are_the_same_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("sweep.yaml"), SWEEP).unwrap();
    let mut results = Vec::new();
    for threads in ["1", "2", "7"] {
        let said = run(dir.path(), ["apply", "sweep.yaml", "--threads", threads, "--output", threads]);
        let mut found = BTreeMap::new();
        files(&dir.path().join(threads), Path::new(""), &mut found);
        results.push((said.code, found, said.out, said.err.replace(threads, "N")));
    }
    assert!(results[0].1.len() > 12, "{:?}", results[0].1.keys());
    assert_eq!(results[0].3.lines().filter(|line| line.contains("virtual time")).count(), 24);
    let (one, more) = results.split_first().unwrap();
    for other in more {
        assert_eq!(one.0, other.0);
        for (name, text) in &one.1 {
            assert_eq!(other.1.get(name), Some(text), "{name}");
        }
        assert_eq!(one.1.len(), other.1.len());
        assert_eq!(one.2, other.2);
    }
}

#[test]
fn a_signal_ends_all_threads_and_leaves_whole_files() {
    let dir = tempfile::tempdir().unwrap();
    let endless = SWEEP.replace("requests: 40", "duration: 9999h").replace("repeats: 2", "repeats: 1");
    fs::write(dir.path().join("sweep.yaml"), endless).unwrap();
    let mut child = sagebench(dir.path())
        .args(["apply", "sweep.yaml", "--threads", "2", "--quiet", "--only", "chat@concurrency=32+tokens=16"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The folder is made just before the first cell.
    while !dir.path().join("benchmark_results").is_dir() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let report = json(dir.path().join("benchmark_results/run.json"));
    assert_eq!((&report["complete"], &report["cells"].as_array().unwrap().len()), (&false.into(), &2));
    assert!(report["overall"]["total_requests"].as_u64().unwrap() > 0);
    assert_eq!(report["segments"][0]["ended_by"], "signal 2");
}

//! `serve` as a command: what it says, and how it ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use crate::common::{json, repo, run, sagebench};

const SCENARIO: &str = "
version: 1
backends:
  mock: { kind: mock, ttft: 5ms, tbt: 5ms }
  other: { kind: mock, ttft: 5ms, tbt: 5ms, model: other }
backend: [mock, other]
workloads:
  chat: { prompt: { kind: synthetic, tokens: 8 }, output: { tokens: 8 }, load: { kind: closed, concurrency: 1, requests: 1 } }
";

/// A server that runs, and its address.
pub fn start(
    dir: &tempfile::TempDir,
    args: &[&str],
) -> (Child, BufReader<std::process::ChildStderr>, String) {
    std::fs::write(dir.path().join("s.yaml"), SCENARIO).unwrap();
    let mut command = sagebench(dir.path());
    command.args(["serve", "s.yaml", "--listen", "127.0.0.1:0"]).args(args).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).unwrap_or_else(|| panic!("{line}")).trim();
    let address = address.trim_end_matches("/v1").to_owned();
    (child, said, address)
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args([format!("-{name}"), id]).status().unwrap().success());
}

/// A stream of so many tokens, read up to its first.
fn stream(address: &str, tokens: u32) -> TcpStream {
    let body = format!(r#"{{"model":"other","prompt":"a","max_tokens":{tokens},"stream":true}}"#);
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    stream.read_exact(&mut [0; 300]).unwrap();
    stream
}

#[test]
fn a_signal_lets_it_finish_and_a_second_one_does_not() {
    for (name, code) in [("TERM", 0), ("INT", 0)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, mut said, address) = start(&dir, &["--backend", "other"]);
        let mut client = stream(&address, 60);
        signal(&child, name);
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("data: [DONE]"));
        assert_eq!(child.wait().unwrap().code(), Some(code));
        rest.clear();
        said.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("finishing what is being answered"), "{rest}");
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut child, mut said, address) = start(&dir, &["--backend", "other"]);
    let _client = stream(&address, 100_000);
    signal(&child, "TERM");
    said.read_line(&mut String::new()).unwrap();
    signal(&child, "TERM");
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
}

#[test]
fn what_can_not_be_served_is_said() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("s.yaml"), SCENARIO).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let year1 = repo("scenarios/year1.yaml");
    let year1 = year1.to_str().unwrap();
    let recorded = repo("scenarios/recorded.yaml");
    let recorded = recorded.to_str().unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (&[recorded], 2, "requests from elsewhere have no recorded times"),
        (&["s.yaml"], 2, "the scenario chooses 2 backends; name one: `--backend mock|other`"),
        (&["s.yaml", "--backend", "mok"], 2, "did you mean `mock`?"),
        (
            &["s.yaml", "--backend", "mock", "--workload", "chit"],
            2,
            "no workload `chit` in the scenario (there: chat)",
        ),
        (&["s.yaml", "--backend", "mock", "--listen", "example"], 2, "`example` is no address"),
        (&["s.yaml", "--backend", "mock", "--speed", "0"], 2, "write a number from 0.001"),
        (&["missing.yaml"], 2, "missing.yaml"),
        (&[year1, "--backend", "mock", "--listen", &address], 3, "cannot listen at http://"),
    ];
    for (args, code, message) in cases {
        let said = run(dir.path(), ["serve"].iter().chain(*args));
        assert_eq!(said.code, Some(*code), "{args:?}: {}", said.err);
        assert!(said.err.contains(message), "{args:?}: {}", said.err);
    }
}

/// The contract's workloads, shortened, from the project's own client over loopback.
const CLIENT: &str = "
version: 1
seed: 42
backends:
  served: { kind: vllm, base_url: \"${SERVED}/v1\" }
workloads:
  short_input: { prompt: { kind: synthetic, tokens: 128 }, output: { tokens: 32 }, load: { kind: closed, concurrency: 1, requests: 5 } }
  stress_test: { prompt: { kind: synthetic, tokens: 256 }, output: { tokens: 64 }, load: { kind: closed, concurrency: 10, requests: 20 } }
  chat: { prompt: { kind: synthetic, tokens: 64 }, output: { tokens: 16 }, load: { kind: open, rate: 50/s, requests: 20 } }
gates: { confidence: none, rules: [error_rate <= 0%] }
validity: { lag: off, busy: off }
";

/// A GET of the server's own.
fn page(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

#[test]
fn the_projects_own_client_finds_what_was_served() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _said, address) = start(&dir, &["--backend", "other"]);
    std::fs::write(dir.path().join("client.yaml"), CLIENT).unwrap();
    let mut client = sagebench(dir.path());
    client.args(["apply", "client.yaml"]).env("SERVED", format!("http://{address}"));
    let said = crate::common::Said::from(client.output().unwrap());
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let mut tokens = 0;
    for (workload, requests, output) in [("short_input", 5, 32), ("stress_test", 20, 64), ("chat", 20, 16)] {
        let metrics = json(dir.path().join(format!("benchmark_results/{workload}_metrics.json")));
        assert_eq!(metrics["successful_requests"], requests, "{workload}");
        assert_eq!(metrics["total_output_tokens"], requests * output, "{workload}");
        // Never early: the model says 5 ms to the first token.
        assert!(metrics["avg_ttft_ms"].as_f64().unwrap() >= 5.0);
        tokens += requests * output;
    }
    let page = page(&address, "/metrics");
    let value = |name: &str| -> u64 {
        let line = page.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(value("vllm:generation_tokens_total"), tokens);
    assert_eq!(value("vllm:prompt_tokens_total"), 5 * 128 + 20 * 256 + 20 * 64);
    assert!(page.contains("finished_reason=\"abort\"} 0"));
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_starter_for_servers_runs_against_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _said, address) = start(&dir, &["--backend", "mock", "--speed", "20"]);
    let own = tempfile::tempdir().unwrap();
    assert_eq!(run(own.path(), ["init", "server"]).code, Some(0));
    let output = sagebench(own.path())
        .args(["apply", "scenario.yaml", "--smoke"])
        .env("BASE_URL", format!("http://{address}/v1"))
        .output()
        .unwrap();
    signal(&child, "TERM");
    child.wait().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["single", "many"] {
        let metrics = json(own.path().join(format!("benchmark_results/{name}_metrics.json")));
        assert_eq!((&metrics["successful_requests"], &metrics["failed_requests"]), (&3.into(), &0.into()));
    }
}

#[test]
fn a_served_backend_is_examined() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _said, address) = start(&dir, &["--backend", "other"]);
    let said = run(dir.path(), ["doctor", &format!("http://{address}/v1"), "--format", "json"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let row = |what: &str| {
        let rows = found[0]["findings"].as_array().unwrap();
        rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("{what}: {}", said.out)).clone()
    };
    for (what, words) in [
        ("HTTP/2", "yes"),
        ("completions", "16 events, 16 tokens by its usage, ends with a finish_reason and [DONE]"),
        ("chat completions", "the first one is empty, ends with a finish_reason and [DONE]"),
        ("ignore_eos", "48 of 48 tokens came"),
        ("min_tokens", "48 of 48 tokens came"),
        ("prompts of token ids", "taken: 7 of 7 tokens"),
        ("token ids in answers", "yes, on request"),
        ("tokenizer", "7 tokens by it and by the usage"),
    ] {
        assert!(row(what)["found"].as_str().unwrap().contains(words), "{what}: {}", said.out);
        assert_eq!(row(what)["mark"], "good", "{what}");
    }
    // The block is a backend that works.
    let block = found[0]["backend"].as_str().unwrap();
    let workload = "version: 1\nworkloads:\n  w: { prompt: { kind: synthetic, tokens: 16 }, output: { tokens: 4 }, load: { kind: closed, concurrency: 1, requests: 2 } }\n";
    std::fs::write(dir.path().join("block.yaml"), format!("{workload}{block}")).unwrap();
    let applied = run(dir.path(), ["apply", "block.yaml", "-q"]);
    assert_eq!(applied.code, Some(0), "{}{}", applied.out, applied.err);
    let by_file = run(dir.path(), ["doctor", "block.yaml"]);
    assert_eq!(by_file.code, Some(0), "{}{}", by_file.out, by_file.err);
    signal(&child, "TERM");
    child.wait().unwrap();
}

#[test]
fn a_machine_is_examined_and_wrong_targets_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let said = run(dir.path(), ["doctor", "--format", "json"]);
    // A busy machine is told as such.
    assert!(matches!(said.code, Some(0 | 5)), "{}{}", said.out, said.err);
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let rows = found[0]["findings"].as_array().unwrap();
    for what in ["timers", "load", "open files", "client"] {
        let row =
            rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("{what}: {}", said.out));
        assert!(!row["found"].as_str().unwrap().contains("could not"), "{row}");
    }
    let is_bad = rows.iter().any(|row| row["mark"] == "bad");
    assert_eq!(said.code, Some(if is_bad { 5 } else { 0 }));
    for (target, code, words) in [
        ("nothing.yaml", 2, "neither a file nor a URL"),
        ("http://127.0.0.1:1/v1", 3, "can not be reached"),
        ("year1", 2, "are no servers"),
    ] {
        let said = run(dir.path(), ["doctor", target]);
        assert_eq!(said.code, Some(code), "{target}: {}", said.err);
        assert!(said.err.contains(words), "{target}: {}", said.err);
    }
}

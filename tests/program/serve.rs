//! `serve` as a command: what it says, and how it ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use crate::common::{repo, run, sagebench};

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
fn start(dir: &tempfile::TempDir, args: &[&str]) -> (Child, BufReader<std::process::ChildStderr>, String) {
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
    let cases: &[(&[&str], i32, &str)] = &[
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

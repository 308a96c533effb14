//! The program in front of servers: exit codes, interruptions, several backends, servers of its own, `quick`.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::server::*;

pub fn repo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn json_file(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The binary, in a folder of its own.
pub fn sagebench(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sagebench"));
    command.current_dir(dir);
    for name in ["GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "SAGEBENCH_LOG"] {
        command.env_remove(name);
    }
    command
}

pub fn said(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Answers after `pause` with eight tokens.
fn answering(pause: u64) -> Server {
    Server::start(move |asked| match asked.path.as_str() {
        "/v1/models" => models(),
        "/v1/chat/completions" => {
            let mut steps = vec![wait(pause), head()];
            steps.extend((0..8).map(|_| piece(format!("data: {}\n\n", content("x")))));
            steps.extend([
                piece(format!("data: {}\n\ndata: {}\n\ndata: [DONE]\n\n", finish(), usage(16, 8))),
                end(),
            ]);
            steps
        }
        _ => Vec::new(),
    })
}

pub fn scenario(backends: &Value, requests: u64) -> String {
    json!({
        "version": 1,
        "backends": backends,
        "backend": backends.as_object().unwrap().keys().collect::<Vec<_>>(),
        "workloads": { "w": {
            "prompt": { "kind": "synthetic", "tokens": 16 },
            "output": { "max_tokens": 8 },
            "load": { "kind": "closed", "concurrency": 2, "requests": requests },
        } },
        "validity": { "lag": "off", "busy": "off" },
    })
    .to_string()
}

#[test]
fn a_dead_server_ends_with_3_its_url_and_the_reason_and_leaves_nothing() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("http://{free}/v1");
    fs::write(dir.path().join("s.yaml"), scenario(&json!({ "s": { "kind": "vllm", "base_url": url } }), 4))
        .unwrap();
    let (code, out, err) = said(sagebench(dir.path()).args(["apply", "s.yaml"]));
    assert_eq!((code, out.as_str()), (Some(3), ""), "{err}");
    assert!(err.contains(&url) && err.contains("Connection refused") && err.contains("backend `s`"), "{err}");
    assert!(!dir.path().join("benchmark_results/run.json").exists());
    let (code, _, err) = said(sagebench(dir.path()).args(["apply", "s.yaml", "--clock", "virtual"]));
    assert!(code == Some(2) && err.contains("virtual clock"), "{err}");
}

#[test]
fn several_backends_in_one_scenario() {
    let (left, right) = (answering(1), answering(2));
    let dir = tempfile::tempdir().unwrap();
    let backends = json!({
        "left": { "kind": "openai", "base_url": left.url() },
        "right": { "kind": "openai", "base_url": right.url() },
        "mock": { "kind": "mock", "ttft": "1ms", "tbt": "1ms" },
    });
    fs::write(dir.path().join("s.yaml"), scenario(&backends, 6)).unwrap();
    let (code, _, err) = said(sagebench(dir.path()).args(["apply", "s.yaml", "-q"]));
    assert_eq!(code, Some(0), "{err}");
    for name in ["left", "right", "mock"] {
        let metrics = json_file(dir.path().join(format!("benchmark_results/{name}/w_metrics.json")));
        assert_eq!(metrics["successful_requests"], 6, "{name}");
    }
    assert_eq!((left.bodies().len(), right.bodies().len()), (6, 6));
}

#[test]
fn an_interrupted_run_keeps_what_was_measured_and_is_resumed() {
    let server = answering(20);
    let dir = tempfile::tempdir().unwrap();
    let backends = json!({ "s": { "kind": "openai", "base_url": server.url() } });
    fs::write(dir.path().join("s.yaml"), scenario(&backends, 60)).unwrap();
    let child =
        sagebench(dir.path()).args(["apply", "s.yaml"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap();
    while server.bodies().len() < 10 {
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let partial = json_file(dir.path().join("benchmark_results/w_metrics.json"));
    let before = partial["successful_requests"].as_u64().unwrap();
    assert!((1..60).contains(&before), "{before}");
    assert!(partial["interrupted_requests"].as_u64().unwrap() <= 2);
    let (code, _, err) = said(sagebench(dir.path()).args(["apply", "s.yaml", "--resume"]));
    assert_eq!(code, Some(0), "{err}");
    let whole = json_file(dir.path().join("benchmark_results/w_metrics.json"));
    assert_eq!((&whole["successful_requests"], &whole["failed_requests"]), (&json!(60), &json!(0)));
    let answered = server.bodies().len() as u64;
    assert!(answered <= 60 + 2, "only what was cut off is sent again: {answered}");
}

#[test]
fn a_server_is_started_only_with_leave_and_stopped_after() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let server = answering(1);
    // The command stands for a server: it runs until it is stopped. Who answers was there before.
    let command = format!("echo started at $0 with $1 $2; echo $$ > {}; exec sleep 600", pid.display());
    let words = json!(["sh", "-c", command, "${PORT:-8000}", 0.9, true]);
    let launched = json!({ "s": { "kind": "openai", "base_url": server.url(), "launch": words } });
    fs::write(dir.path().join("s.yaml"), scenario(&launched, 4)).unwrap();
    let (code, _, err) = said(sagebench(dir.path()).args(["apply", "s.yaml"]));
    assert!(code == Some(2) && err.contains("--allow-exec") && !pid.exists(), "{err}");
    let (code, _, err) = said(sagebench(dir.path()).args(["apply", "s.yaml", "--allow-exec", "-q"]));
    assert_eq!(code, Some(0), "{err}");
    let log = fs::read_to_string(dir.path().join("benchmark_results/server-s.log")).unwrap();
    assert_eq!(log, "started at 8000 with 0.9 true\n", "numbers are words as well");
    let number = fs::read_to_string(&pid).unwrap();
    assert!(!Path::new(&format!("/proc/{}", number.trim())).exists(), "it is stopped");
    let broken = json!({ "s": { "kind": "openai", "base_url": "http://127.0.0.1:9/v1", "launch": ["sh", "-c", "echo no GPU; exit 7"] } });
    fs::write(dir.path().join("b.yaml"), scenario(&broken, 4)).unwrap();
    let (code, _, err) = said(sagebench(dir.path()).args(["apply", "b.yaml", "--allow-exec", "-o", "other"]));
    assert!(code == Some(3) && err.contains("exit status: 7") && err.contains("no GPU"), "{err}");
}

#[test]
fn quick_is_a_sweep_in_one_line_and_a_scenario_to_keep() {
    let server = answering(1);
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--prompt", "16", "--output", "8", "--concurrency", "1,3", "--duration", "150ms"];
    let (code, out, err) = said(
        sagebench(dir.path()).args(["quick", &server.url()]).args(arguments).args(["--save", "sweep.yaml"]),
    );
    assert!(code == Some(0) || code == Some(5), "{code:?} {err}");
    let saved = fs::read_to_string(dir.path().join("sweep.yaml")).unwrap();
    assert!(out.starts_with(&saved), "{out}");
    let rows = fs::read_to_string(dir.path().join("benchmark_results/sweep.csv")).unwrap();
    assert_eq!(rows.lines().count(), 3, "{rows}");
    let (code, _, err) = said(sagebench(dir.path()).args(["validate", "sweep.yaml"]));
    assert_eq!(code, Some(0), "{err}");
    let (code, _, err) = said(sagebench(dir.path()).args(["quick", "localhost:8000"]));
    assert!(code == Some(2) && err.contains("no base URL"), "{err}");
}

#[test]
fn quirks_of_a_server_are_told() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(),
        // Two tokens an event, no usage, and an end without a word.
        "/v1/completions" if asked.body["stream"] == true => {
            let event = r#"{"choices":[{"text":"a b"}]}"#;
            stream([event, event])
        }
        // It stops when it likes, counts, and takes no `min_tokens`.
        "/v1/completions" | "/v1/chat/completions" if asked.body["min_tokens"].is_u64() => {
            status(400, "Bad Request", "", r#"{"error":{"message":"unknown field min_tokens"}}"#)
        }
        "/v1/chat/completions" if asked.body["stream"] != true => status(
            200,
            "OK",
            "",
            r#"{"choices":[{"message":{"content":"4"}}],"usage":{"prompt_tokens":9,"completion_tokens":2}}"#,
        ),
        _ => Vec::new(),
    });
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = said(sagebench(dir.path()).args(["doctor", &server.url()]));
    assert_eq!(code, Some(5), "{out}{err}");
    for words in [
        "BAD   completions           2 events, no usage, ends without a word",
        "note  chat completions      no: it answers 404",
        "note  ignore_eos            2 of 48 tokens came",
        "note  min_tokens            not known: it answers 400: unknown field min_tokens",
        "note  prompts of token ids  no: its tokenizer lends no ids to try with",
        "note  counters              none: /metrics answers 404",
        "- completions: an answer that was cut off can not be told from a whole one",
        "    kind: openai\n",
        "    metrics: \"off\"\n",
    ] {
        assert!(out.contains(words), "{words}\n{out}");
    }
}

/// A proxy that hands everything on: what its clients asked it for.
fn proxy(
    target: std::net::SocketAddr,
) -> (std::net::SocketAddr, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = std::sync::Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), std::net::TcpStream::connect(target).unwrap());
            let (mut back, mut from) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut back));
            let told = std::sync::Arc::clone(&told);
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(read @ 1..) = client.read(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                    let own = text.find("http://").filter(|at| *at < 8).map_or_else(
                        || text.clone(),
                        |at| {
                            let path = text[at + 7..].find('/').unwrap();
                            format!("{}{}", &text[..at], &text[at + 7 + path..])
                        },
                    );
                    if text.contains(" HTTP/1.1\r\n") {
                        told.lock().unwrap().push(text);
                    }
                    server.write_all(own.as_bytes()).unwrap();
                }
            });
        }
    });
    (address, asked)
}

#[test]
fn a_proxy_stands_between_only_where_the_scenario_asks_for_it() {
    let server = answering(1);
    let (proxy, asked) = proxy(server.address);
    let dir = tempfile::tempdir().unwrap();
    let url = format!("http://model.invalid:{}/v1", server.address.port());
    let backends = json!({ "s": { "kind": "openai", "base_url": url, "proxy": "env" } });
    fs::write(dir.path().join("s.yaml"), scenario(&backends, 3)).unwrap();
    let run = |file: &str| {
        let proxy = format!("http://me:secret@{proxy}");
        said(
            sagebench(dir.path())
                .env("http_proxy", proxy)
                .env_remove("no_proxy")
                .env_remove("NO_PROXY")
                .env_remove("HTTP_PROXY")
                .args(["apply", file, "-q"]),
        )
    };
    let (code, _, err) = run("s.yaml");
    assert_eq!(code, Some(0), "{err}");
    let asked = asked.lock().unwrap().clone();
    let line = format!("POST {url}/chat/completions HTTP/1.1\r\n");
    let posts: Vec<&String> = asked.iter().filter(|text| text.starts_with(&line)).collect();
    assert_eq!(posts.len(), 3, "{asked:?}");
    let key = "proxy-authorization: Basic bWU6c2VjcmV0\r\n";
    assert!(asked.iter().all(|text| text.contains(key)), "{asked:?}");
    let run_file = fs::read_to_string(dir.path().join("benchmark_results/run.json")).unwrap();
    assert!(
        run_file.contains(&format!("the proxy at {proxy} stands between")) && !run_file.contains("secret")
    );
    // Nobody asked: the name is looked up, and there is none.
    let direct =
        json!({ "s": { "kind": "openai", "base_url": format!("http://{}.invalid/v1", "x".repeat(64)) } });
    fs::write(dir.path().join("d.yaml"), scenario(&direct, 3)).unwrap();
    let (code, _, err) = run("d.yaml");
    assert!(code == Some(3) && err.contains("lookup"), "{err}");
}

//! Hang-ups, the end of a server, and its addresses.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use sagebench::serve::{Address, Limits, ServeError, Server};
use serde_json::json;

use crate::client::{any, connect, get, metric, mock, read, request, start, start_with};

const LONG: &str = r#"{"prompt":"a b c","max_tokens":4000,"stream":true}"#;

fn label(how: &str) -> String {
    format!("vllm:request_success_total{{engine=\"0\",model_name=\"mock\",finished_reason=\"{how}\"}}")
}

#[test]
fn a_client_that_hangs_up_is_given_up() {
    let server = start(json!({ "kv": { "tokens": 4096 }, "tbt": "2ms" }));
    let mut streaming = connect(&server);
    streaming.write_all(&request("POST", "/v1/completions", LONG)).unwrap();
    streaming.read_exact(&mut [0; 600]).unwrap();
    let mut waiting = connect(&server);
    waiting.write_all(&request("POST", "/v1/completions", &LONG.replace("true", "false"))).unwrap();
    while metric(&server, "vllm:num_requests_running") + metric(&server, "vllm:num_requests_waiting") < 2.0 {
        std::thread::yield_now();
    }
    assert!(metric(&server, "vllm:kv_cache_usage_perc") > 0.0);
    drop((streaming, waiting));
    while metric(&server, &label("abort")) < 2.0 {
        std::thread::yield_now();
    }
    assert_eq!(metric(&server, "vllm:num_requests_running"), 0.0);
    assert_eq!(metric(&server, "vllm:kv_cache_usage_perc"), 0.0);
    assert_eq!(metric(&server, &label("length")), 0.0);
}

fn taken(server: &Server) -> std::net::SocketAddr {
    let Address::Tcp(address) = server.address() else { panic!("no port") };
    *address
}

#[test]
fn a_server_that_ends_finishes_what_it_answers() {
    let server = start(json!({ "ttft": "5ms", "tbt": "5ms" }));
    let address = taken(&server);
    let asked = r#"{"prompt":"a","max_tokens":40,"stream":true}"#;
    let mut stream = connect(&server);
    let mut idle = connect(&server);
    idle.write_all(&request("GET", "/health", "")).unwrap();
    assert_eq!(read(&mut idle).status, 200);
    stream.write_all(&request("POST", "/v1/completions", asked)).unwrap();
    let mut first = vec![0; 300];
    stream.read_exact(&mut first).unwrap();
    let ending = std::thread::spawn(move || server.shut_down());
    assert_eq!(idle.read(&mut [0; 10]).unwrap(), 0, "an idle connection is closed at once");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let all = String::from_utf8([first, rest].concat()).unwrap();
    assert_eq!(all.matches("\"text\":").count(), 40);
    assert!(all.contains("data: [DONE]") && all.ends_with("0\r\n\r\n"));
    ending.join().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_server_that_is_dropped_drops_its_clients() {
    let server = start(json!({ "ttft": "1h" }));
    let mut stream = connect(&server);
    stream.write_all(&request("POST", "/v1/completions", LONG)).unwrap();
    while metric(&server, "vllm:num_requests_running") < 1.0 {
        std::thread::yield_now();
    }
    drop(server);
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    assert!(end.is_err() || !String::from_utf8_lossy(&rest).contains("[DONE]"));
}

#[test]
fn an_address_is_taken_once() {
    let server = start(json!({}));
    let config = mock(json!({}));
    let engine = sagebench::backend::mock::open(&config, "", 1, std::path::Path::new("")).unwrap();
    let offer = sagebench::serve::Offer::mock(&config, "", 1, 1);
    let error = Server::start(server.address(), engine, offer, Limits::default()).unwrap_err();
    assert!(matches!(error, ServeError::Listen { .. }), "{error}");
}

#[test]
fn a_unix_socket_serves_too_and_is_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    // A socket that nobody listens at is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = Address::Unix(path.clone());
    let server = start_with(&mock(json!({})), Limits::default(), &address);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(&request("POST", "/v1/completions", r#"{"prompt":"a","max_tokens":2}"#)).unwrap();
    assert_eq!(read(&mut stream).json()["usage"]["completion_tokens"], 2);
    drop(stream);
    server.shut_down();
    assert!(!path.exists());
}

#[test]
fn several_threads_share_one_engine() {
    let server = start_with(&mock(json!({})), Limits { threads: 3, ..Limits::default() }, &any());
    let streams: Vec<_> = (0..9)
        .map(|_| {
            let mut stream = connect(&server);
            let asked = r#"{"prompt":"a","max_tokens":5,"stream":true}"#;
            stream.write_all(&request("POST", "/v1/completions", asked)).unwrap();
            stream
        })
        .collect();
    for mut stream in streams {
        assert_eq!(read(&mut stream).chunks().len(), 5);
    }
    assert_eq!(metric(&server, &label("length")), 9.0);
}

#[test]
fn a_fast_clock_leaves_the_modelled_times_as_they_are() {
    let limits = Limits { speed: 1000.0, ..Limits::default() };
    let server = start_with(&mock(json!({ "ttft": "10s", "tbt": "1s" })), limits, &any());
    let answer = crate::client::post(&server, "/v1/completions", &json!({ "prompt": "a", "max_tokens": 3 }));
    assert_eq!(
        (answer.times()["ttft_ms"].as_f64(), answer.times()["e2e_ms"].as_f64()),
        (Some(1e4), Some(1.2e4))
    );
    assert_eq!(get(&server, "/health").status, 200);
}

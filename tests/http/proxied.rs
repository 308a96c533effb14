//! A server with TLS behind a proxy: `CONNECT`, and everything behind it unseen.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::program::{json_file, sagebench, said, scenario};
use crate::secure::{certificate, serve};

/// A proxy that opens ways to `target`, whatever name it is asked for; where `status` is given, it answers that instead. The heads
/// of what it was asked, and whether anything behind them could be read as HTTP.
fn proxy(target: SocketAddr, status: Option<&'static str>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, told) = (client.unwrap(), Arc::clone(&told));
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.push(byte[0]);
                }
                told.lock().unwrap().push(String::from_utf8(head).unwrap());
                let answer = status.unwrap_or("200 Connection established");
                client.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).unwrap();
                if status.is_some() {
                    return;
                }
                let mut server = TcpStream::connect(target).unwrap();
                let (mut back, mut from) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut back);
                });
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = client.read(&mut buffer) {
                    if String::from_utf8_lossy(&buffer[..read]).contains("HTTP/1.1") {
                        told.lock().unwrap().push("readable".into());
                    }
                    if server.write_all(&buffer[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, asked)
}

#[test]
fn a_server_with_tls_is_reached_through_a_tunnel() {
    let (config, pem) = certificate(b"http/1.1");
    let server = serve(Some((config, false)), false);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), pem).unwrap();
    let place = format!("model.invalid:{}", server.port());
    let url = format!("https://{place}/v1");
    let backends = json!({ "s": { "kind": "openai", "base_url": url, "proxy": "env", "ca": "ca.pem" } });
    fs::write(dir.path().join("s.yaml"), scenario(&backends, 3)).unwrap();
    let run = |proxy: SocketAddr| {
        let mut program = sagebench(dir.path());
        for name in
            ["no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"]
        {
            program.env_remove(name);
        }
        program.env("https_proxy", format!("http://me:secret@{proxy}"));
        said(program.args(["apply", "s.yaml", "-q"]))
    };
    let (open, asked) = proxy(server, None);
    let (code, _, err) = run(open);
    assert_eq!(code, Some(0), "{err}");
    let found = json_file(dir.path().join("benchmark_results/w_metrics.json"));
    assert_eq!(
        (found["successful_requests"].as_u64(), found["failed_requests"].as_u64()),
        (Some(3), Some(0))
    );
    let head = format!(
        "CONNECT {place} HTTP/1.1\r\nHost: {place}\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n"
    );
    let asked = asked.lock().unwrap().clone();
    assert!(!asked.is_empty() && asked.iter().all(|text| *text == head), "{asked:?}");
    let run_file = fs::read_to_string(dir.path().join("benchmark_results/run.json")).unwrap();
    assert!(
        run_file.contains(&format!("the proxy at {open} stands between")) && !run_file.contains("secret")
    );

    let (closed, _) = proxy(server, Some("407 Proxy Authentication Required"));
    let (code, _, err) = run(closed);
    let why =
        format!("the proxy at {closed} opens no way to it: it answers 407 Proxy Authentication Required");
    assert!(code == Some(3) && err.contains(&why) && err.contains(&url), "{err}");
}

//! A server for a test, and a client that hides nothing.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use sagebench::backend::config::{Backend, MockBackend};
use sagebench::backend::mock;
use sagebench::serve::{Address, Limits, Offer, Server};
use serde_json::{Value, json};

/// A mock as a scenario has it.
pub fn mock(settings: Value) -> MockBackend {
    let mut config = json!({ "kind": "mock", "ttft": "3ms", "tbt": "1ms" });
    for (key, value) in settings.as_object().unwrap() {
        config[key] = value.clone();
    }
    let Backend::Mock(config) = serde_json::from_value(config).unwrap() else { panic!("no mock") };
    config
}

/// A server of this mock at a free port.
pub fn start_with(config: &MockBackend, limits: Limits, address: &Address) -> Server {
    let engine = mock::open(config, "", 7, Path::new("")).unwrap();
    let offer = Offer::mock(config, "", 7, 4096);
    Server::start(address, engine, offer, limits).unwrap()
}

pub fn start(settings: Value) -> Server {
    start_with(&mock(settings), Limits::default(), &any())
}

/// A free port of this machine.
pub fn any() -> Address {
    "127.0.0.1:0".parse().unwrap()
}

pub fn connect(server: &Server) -> TcpStream {
    let Address::Tcp(address) = server.address() else { panic!("no port") };
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    // A test that hangs says nothing.
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    stream
}

/// A request as it goes over the wire.
pub fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into()
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// How the body ended, where it is not as its headers say.
    pub broken: Option<io::ErrorKind>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The events of a stream: what stands behind `data: `.
    pub fn events(&self) -> Vec<&str> {
        self.body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect()
    }

    /// The events that are JSON.
    pub fn chunks(&self) -> Vec<Value> {
        let events = self.events().into_iter().filter(|event| *event != "[DONE]");
        events.map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    /// The modelled times, from the comment or the header.
    pub fn times(&self) -> Value {
        let comment = self.body.split("\n\n").find_map(|event| event.strip_prefix(": sagebench "));
        serde_json::from_str(comment.or(self.header("x-sagebench-times")).unwrap()).unwrap()
    }
}

/// Reads one answer from a connection, and leaves what comes behind it.
pub fn read(stream: &mut impl Read) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            end => {
                let broken = end.err().map_or(io::ErrorKind::UnexpectedEof, |error| error.kind());
                return Answer { status: 0, headers: Vec::new(), body: String::new(), broken: Some(broken) };
            }
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut answer = Answer { status, headers, body: String::new(), broken: None };
    let mut body = Vec::new();
    let read = if answer.header("transfer-encoding") == Some("chunked") {
        chunked(stream, &mut body)
    } else {
        let length = answer.header("content-length").unwrap().parse().unwrap();
        body.resize(length, 0);
        stream.read_exact(&mut body)
    };
    answer.broken = read.err().map(|error| error.kind());
    answer.body = String::from_utf8(body).unwrap();
    answer
}

fn chunked(stream: &mut impl Read, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let mut chunk = vec![0; length + 2];
        stream.read_exact(&mut chunk)?;
        assert!(chunk.ends_with(b"\r\n"));
        if length == 0 {
            return Ok(());
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

/// One request on a connection of its own.
pub fn ask(server: &Server, method: &str, path: &str, body: &str) -> Answer {
    let mut stream = connect(server);
    stream.write_all(&request(method, path, body)).unwrap();
    read(&mut stream)
}

pub fn get(server: &Server, path: &str) -> Answer {
    ask(server, "GET", path, "")
}

pub fn post(server: &Server, path: &str, body: &Value) -> Answer {
    ask(server, "POST", path, &body.to_string())
}

/// A value of the metrics page.
pub fn metric(server: &Server, name: &str) -> f64 {
    let page = get(server, "/metrics").body;
    let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

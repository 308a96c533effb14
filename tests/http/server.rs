//! A small server that says exactly the bytes it is told to, piece by piece, and nothing of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

/// One step of a response.
#[derive(Debug, Clone)]
pub enum Step {
    /// Write these bytes, in one write.
    Send(Vec<u8>),
    /// Wait.
    Wait(Duration),
    /// End the connection in an orderly way.
    Close,
    /// End it by a reset.
    Reset,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its number among the POSTs to a completions endpoint, from 0; among all others too.
    pub number: usize,
    pub method: String,
    pub path: String,
    pub head: String,
    pub body: Value,
}

type Script = dyn Fn(&Asked) -> Vec<Step> + Send + Sync;

/// The server; it ends when it is dropped.
pub struct Server {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    pub connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers every request by `script`; what the script has no steps for is answered with a 404.
    pub fn start(script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    pub fn on(listener: TcpListener, script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let (asked, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let script: Arc<Script> = Arc::new(script);
        let (own_asked, own_stop, own_connections) =
            (Arc::clone(&asked), Arc::clone(&stop), Arc::clone(&connections));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if own_stop.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), script, asked) = (stream, Arc::clone(&script), Arc::clone(&own_asked))
                else {
                    continue;
                };
                own_connections.fetch_add(1, Ordering::Relaxed);
                stream.set_nodelay(true).unwrap();
                std::thread::spawn(move || serve(Wire::Tcp(stream), &*script, &asked));
            }
        });
        Self { address, asked, connections, stop, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The bodies of all completions that were asked for.
    pub fn bodies(&self) -> Vec<Value> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| asked.path.ends_with("completions"))
            .map(|asked| asked.body.clone())
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The same behind a socket in the file system; it serves until the process ends.
pub fn start_unix(path: &Path, script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    let script: Arc<Script> = Arc::new(script);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), script) = (stream, Arc::clone(&script)) else { return };
            std::thread::spawn(move || serve(Wire::Unix(stream), &*script, &Mutex::default()));
        }
    });
}

enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn serve(mut wire: Wire, script: &Script, asked: &Mutex<Vec<Asked>>) {
    let mut buffer = Vec::new();
    while let Some((method, path, head, body)) = request(&mut wire, &mut buffer) {
        let one = {
            let mut all = asked.lock().unwrap();
            let is_completion = |path: &str| path.ends_with("completions");
            let number = all.iter().filter(|one| is_completion(&one.path) == is_completion(&path)).count();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            all.push(Asked { number, method, path, head, body });
            all.last().unwrap().clone()
        };
        let mut steps = script(&one);
        if steps.is_empty() {
            steps = status(404, "Not Found", "", r#"{"detail":"Not Found"}"#);
        }
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    if wire.write_all(&bytes).is_err() {
                        return;
                    }
                }
                Step::Wait(time) => std::thread::sleep(time),
                Step::Close => return,
                Step::Reset => return reset(wire),
            }
        }
    }
}

/// The next request; `None` at the end of the connection.
fn request(wire: &mut Wire, buffer: &mut Vec<u8>) -> Option<(String, String, String, Vec<u8>)> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        more(wire, buffer)?;
    };
    let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.trim().parse().ok())
        .unwrap_or(0_usize);
    while buffer.len() < end + length {
        more(wire, buffer)?;
    }
    let body = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    let mut words = head.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some((method, path, head, body))
}

fn more(wire: &mut Wire, buffer: &mut Vec<u8>) -> Option<()> {
    let mut piece = vec![0; 1 << 16];
    let read = wire.read(&mut piece).ok().filter(|read| *read > 0)?;
    buffer.extend_from_slice(&piece[..read]);
    Some(())
}

/// Closing with a linger time of zero sends a reset.
fn reset(wire: Wire) {
    let Wire::Tcp(stream) = wire else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        #[expect(deprecated, reason = "a linger time of zero never blocks")]
        stream.set_linger(Some(Duration::ZERO)).unwrap();
    });
}

/// A whole response with a body of a known length.
pub fn status(code: u16, reason: &str, headers: &str, body: &str) -> Vec<Step> {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {code} {reason}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    vec![Step::Send(text.into_bytes())]
}

/// The head of a stream of events.
pub fn head() -> Step {
    Step::Send(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec(),
    )
}

/// One piece of a body, in one write.
pub fn piece(bytes: impl AsRef<[u8]>) -> Step {
    let bytes = bytes.as_ref();
    Step::Send([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
}

/// The end of a body.
pub fn end() -> Step {
    Step::Send(b"0\r\n\r\n".to_vec())
}

pub fn wait(ms: u64) -> Step {
    Step::Wait(Duration::from_millis(ms))
}

/// A whole stream of these events, each in a write of its own.
pub fn stream<T: AsRef<str>>(events: impl IntoIterator<Item = T>) -> Vec<Step> {
    let mut steps = vec![head()];
    steps.extend(events.into_iter().map(|event| piece(format!("data: {}\n\n", event.as_ref()))));
    steps.push(end());
    steps
}

/// A chunk of a chat answer with a delta, as JSON.
pub fn delta(delta: &str) -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null}}]}}"#
    )
}

/// A chunk with content.
pub fn content(text: &str) -> String {
    delta(&format!(r#"{{"content":{}}}"#, Value::from(text)))
}

/// The last chunk of a chat answer.
pub fn finish() -> String {
    r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#.into()
}

/// The chunk with usage.
pub fn usage(prompt: u32, completion: u32) -> String {
    let total = prompt + completion;
    format!(
        r#"{{"id":"c","choices":[],"usage":{{"prompt_tokens":{prompt},"total_tokens":{total},"completion_tokens":{completion}}}}}"#
    )
}

/// Says that the model `m` is served.
pub fn models() -> Vec<Step> {
    status(200, "OK", "", r#"{"object":"list","data":[{"id":"m","object":"model","owned_by":"tests"}]}"#)
}

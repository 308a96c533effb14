//! What the HTTP client costs and how true its times are, beside a bare hyper client that does nothing but read and parse.
//!
//! Both are fed by a server of this bench's own: a process on another core that writes prepared bytes at absolute times.
//! Not a test: a loaded machine is late, and that is what it shows. The ratios are what to look at.
//!
//! `cargo bench --bench http [-- cost | accuracy | lag | held | memory]`

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use indexmap::IndexMap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use sagebench::backend::openai::{OpenAi, Setup};
use sagebench::measure::{Distribution, Samples};
use sagebench::metric::Metric;
use sagebench::plan::{Plan, plan};
use sagebench::record::{GapRun, Outcome, Record};
use sagebench::run::{Flow, Observer, Resume, Stop, play_live};
use sagebench::scenario::Scenario;
use sagebench::tokenizer;
use sagebench::units::ms;
use serde_json::json;

/// Tokens of each answer where the cost is measured.
const TOKENS: usize = 128;
/// How often each figure is taken; the median is shown.
const RUNS: usize = 7;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|word| word == "--serve") {
        return serve(&arguments[2]);
    }
    let wanted = arguments.iter().skip(1).find(|word| !word.starts_with('-')).cloned();
    let runs = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("more files");
    pin(0);
    if runs("cost") {
        cost();
    }
    if runs("accuracy") {
        accuracy();
    }
    if runs("lag") {
        lag();
    }
    if runs("held") {
        held();
    }
    if runs("memory") {
        memory();
    }
}

/// Keeps this process (and the threads it starts from here on) on one core.
fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    // A machine of one core has no other to be kept from.
    let _ = sched_setaffinity(None, &set);
}

// --- the server --------------------------------------------------------------------------------------------------------

/// A server in a process of its own.
struct Fed {
    child: Child,
    address: SocketAddr,
}

impl Fed {
    /// `ttft` and `tbt` in microseconds; with both 0 an answer is written at once, in one write or in one per token.
    fn start(ttft: u64, tbt: u64, whole: bool) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this bench"))
            .args(["--serve", &format!("{ttft},{tbt},{whole}")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().expect("its output"));
        std::io::BufRead::read_line(&mut out, &mut line).expect("its address");
        Self { child, address: line.trim().parse().expect("an address") }
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One token's event, as vLLM writes it.
fn event(index: usize, last: bool) -> String {
    let finish = if last { "\"length\"" } else { "null" };
    format!(
        "data: {{\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1750000000,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{index}\"}},\"logprobs\":null,\"finish_reason\":{finish}}}]}}\n\n"
    )
}

fn chunked(text: &str) -> Vec<u8> {
    [format!("{:x}\r\n", text.len()).as_bytes(), text.as_bytes(), b"\r\n"].concat()
}

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

fn last_events() -> String {
    format!(
        "data: {{\"id\":\"c\",\"choices\":[],\"usage\":{{\"prompt_tokens\":16,\"total_tokens\":{},\"completion_tokens\":{TOKENS}}}}}\n\ndata: [DONE]\n\n",
        16 + TOKENS
    )
}

/// The writes of one answer, the first with the head.
fn writes(whole: bool) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = (0..TOKENS).map(|at| chunked(&event(at, at + 1 == TOKENS))).collect();
    parts[0].splice(0..0, HEAD.iter().copied());
    let end = [chunked(&last_events()).as_slice(), b"0\r\n\r\n"].concat();
    parts[TOKENS - 1].extend(end);
    if whole { vec![parts.concat()] } else { parts }
}

/// The server's process: one thread, one event loop, absolute times.
fn serve(spec: &str) {
    let words: Vec<&str> = spec.split(',').collect();
    let [ttft, tbt] = [0, 1].map(|at| Duration::from_micros(words[at].parse().expect("microseconds")));
    let parts: std::rc::Rc<Vec<Bytes>> =
        std::rc::Rc::new(writes(words[2] == "true").into_iter().map(Bytes::from).collect());
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("more files");
    pin(1);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("its address"));
    listener.set_nonblocking(true).expect("it waits in the event loop");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("it listens");
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("no delay");
            tokio::task::spawn_local(answer(stream, std::rc::Rc::clone(&parts), ttft, tbt));
        }
    });
}

async fn answer(
    mut stream: tokio::net::TcpStream,
    parts: std::rc::Rc<Vec<Bytes>>,
    ttft: Duration,
    tbt: Duration,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 1 << 16];
    loop {
        let mut have = 0;
        let is_models = loop {
            let Ok(read) = stream.read(&mut buffer[have..]).await else { return };
            if read == 0 {
                return;
            }
            have += read;
            if let Some(whole) = request(&buffer[..have]) {
                break whole;
            }
        };
        if is_models {
            let body = r#"{"data":[{"id":"m"}]}"#;
            let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(reply.as_bytes()).await.is_err() {
                return;
            }
            continue;
        }
        let begun = Instant::now();
        let mut due = begun + ttft;
        for part in parts.iter() {
            if !ttft.is_zero() {
                tokio::time::sleep_until(due.into()).await;
            }
            due += tbt;
            if stream.write_all(part).await.is_err() {
                return;
            }
        }
    }
}

/// Whether the bytes are a whole request, and whether it is the one for the models.
fn request(bytes: &[u8]) -> Option<bool> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    (bytes.len() >= end + length.unwrap_or(0)).then(|| head.starts_with("GET"))
}

// --- the bare client ---------------------------------------------------------------------------------------------------

/// What a bare client saw: times to first token and gaps, in milliseconds.
#[derive(Default)]
struct Seen {
    tokens: u64,
    ttft: Vec<f64>,
    gaps: Vec<f64>,
}

/// `users` tasks on one thread, each with a connection of its own: hyper, and every event parsed as a JSON value.
fn bare(address: SocketAddr, users: usize, requests: usize) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    let local = tokio::task::LocalSet::new();
    let left = std::rc::Rc::new(std::cell::Cell::new(requests));
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Seen::default()));
    local.block_on(&runtime, async {
        let tasks: Vec<_> = (0..users)
            .map(|_| {
                tokio::task::spawn_local(bare_user(
                    address,
                    std::rc::Rc::clone(&left),
                    std::rc::Rc::clone(&seen),
                ))
            })
            .collect();
        for task in tasks {
            task.await.expect("a user of the bare client");
        }
    });
    seen.take()
}

async fn bare_user(
    address: SocketAddr,
    left: std::rc::Rc<std::cell::Cell<usize>>,
    seen: std::rc::Rc<std::cell::RefCell<Seen>>,
) {
    let stream = tokio::net::TcpStream::connect(address).await.expect("the server is there");
    stream.set_nodelay(true).expect("no delay");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::task::spawn_local(connection);
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "w ".repeat(16) }], "max_tokens": TOKENS, "stream": true });
    let body = Bytes::from(body.to_string());
    while left.get() > 0 {
        left.set(left.get() - 1);
        let request = hyper::Request::post("/v1/chat/completions")
            .header("host", address.to_string())
            .header("content-type", "application/json")
            .body(Full::new(body.clone()))
            .expect("a request");
        let sent = Instant::now();
        sender.ready().await.expect("the connection is kept");
        let mut response = sender.send_request(request).await.expect("a response");
        let (mut buffer, mut last) = (Vec::new(), None::<Instant>);
        while let Some(frame) = response.body_mut().frame().await {
            let Some(data) = frame.expect("a frame").into_data().ok() else { continue };
            let now = Instant::now();
            buffer.extend_from_slice(&data);
            let mut start = 0;
            while let Some(length) = buffer[start..].windows(2).position(|two| two == b"\n\n") {
                let line = &buffer[start..start + length];
                start += length + 2;
                let Some(text) = line.strip_prefix(b"data: ") else { continue };
                if text == b"[DONE]" {
                    continue;
                }
                let value: serde_json::Value = serde_json::from_slice(text).expect("a chunk");
                if value["choices"][0]["delta"]["content"].is_string() {
                    let mut seen = seen.borrow_mut();
                    seen.tokens += 1;
                    match last {
                        None => seen.ttft.push((now - sent).as_secs_f64() * 1e3),
                        Some(last) => seen.gaps.push((now - last).as_secs_f64() * 1e3),
                    }
                    last = Some(now);
                }
            }
            buffer.drain(..start);
        }
    }
}

// --- this client -------------------------------------------------------------------------------------------------------

struct Keep {
    samples: Samples,
    failed: Vec<String>,
}

impl Observer for Keep {
    fn on_record(&mut self, record: &Record, gaps: &[GapRun]) -> Flow {
        if record.outcome != Outcome::Success {
            self.failed.push(format!("{:?} {:?}", record.outcome, record.message));
        }
        self.samples.push(record.clone(), gaps);
        Flow::Continue
    }
}

/// Plays a load against the server, on one thread of the client.
fn ours(address: SocketAddr, load: &serde_json::Value) -> Samples {
    let scenario: Scenario = serde_json::from_value(json!({
        "version": 1,
        "backends": { "s": { "kind": "openai", "base_url": format!("http://{address}"), "flavor": "generic", "threads": 1, "metrics": "off" } },
        "workloads": { "w": { "prompt": { "kind": "synthetic", "tokens": 16 }, "output": { "tokens": TOKENS }, "load": load } },
    }))
    .expect("the scenario in this bench is valid");
    let plan: Plan =
        plan(&scenario, &IndexMap::new(), Path::new("."), &tokenizer::Mock).expect("it has a plan");
    let workload = &plan.workloads[0];
    let (config, flavor) = scenario.backends["s"].server().expect("a server");
    let mut setup = Setup { dir: Path::new("."), log: None, nonce: 1, say: &mut |_| {}, stopped: &|| false };
    let mut server = OpenAi::open(config, flavor, &mut setup).expect("the server is there");
    let mut keep = Keep { samples: Samples::new(workload.load.basis()), failed: Vec::new() };
    let (stop, resume) = (Stop::default(), Resume::default());
    play_live(workload, workload.stream(0), &mut server, &stop, &mut keep, &resume).expect("it plays");
    assert!(keep.failed.is_empty(), "{} failed: {}", keep.failed.len(), keep.failed[0]);
    keep.samples
}

fn closed(users: usize, requests: usize) -> serde_json::Value {
    json!({ "kind": "closed", "concurrency": users, "requests": requests })
}

// --- figures -----------------------------------------------------------------------------------------------------------

/// Processor time of all threads that ran during `work`, those that ended included, in microseconds.
fn cpu_of<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let total = || {
        let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) * 1e4
    };
    let before = total();
    let done = work();
    (total() - before, done)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn cost() {
    println!(
        "cost: µs of client CPU per token, 64 users, {TOKENS} tokens a request, median of {RUNS} interleaved runs"
    );
    for (name, whole) in [("whole reply in one write", true), ("one write per token", false)] {
        let server = Fed::start(0, 0, whole);
        let requests = 3000;
        let tokens = (requests * TOKENS) as f64;
        let (mut theirs, mut own) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let (used, seen) = cpu_of(|| bare(server.address, 64, requests));
            assert_eq!(seen.tokens as usize, requests * TOKENS);
            theirs.push(used / tokens);
            let (used, samples) = cpu_of(|| ours(server.address, &closed(64, requests)));
            assert_eq!(samples.records().len(), requests);
            own.push(used / tokens);
        }
        let (theirs, own) = (median(theirs), median(own));
        println!("  {name:26} bare {theirs:.2}  this client {own:.2}  ratio {:.2}", own / theirs);
    }
}

fn accuracy() {
    println!(
        "accuracy: server's TTFT 50 ms, then 10 ms a token; ms as reported (bare / this client / ratio)"
    );
    for users in [128, 512] {
        let server = Fed::start(50_000, 10_000, false);
        let requests = users * 3;
        let seen = bare(server.address, users, requests);
        let samples = ours(server.address, &closed(users, requests));
        let ttft = Metric::named("ttft").expect("a metric of the table");
        let own = Distribution::of(samples.values(ttft));
        let (bare_ttft, bare_gaps) = (Distribution::of(seen.ttft), Distribution::of(seen.gaps));
        let row = |name: &str, theirs: Option<f64>, own: Option<f64>| {
            let (theirs, own) = (theirs.unwrap_or(f64::NAN), own.unwrap_or(f64::NAN));
            println!("  {users:4} streams  {name:8} {theirs:8.2} {own:8.2}  {:.2}", own / theirs);
        };
        for q in [0.5, 0.99] {
            row(&format!("TTFT p{:.0}", q * 100.0), bare_ttft.quantile(q), own.quantile(q));
        }
        for q in [0.5, 0.99] {
            let gap = samples.gaps().quantile(q).map(ms);
            row(&format!("ITL p{:.0}", q * 100.0), bare_gaps.quantile(q), gap);
        }
    }
}

fn lag() {
    let server = Fed::start(20_000, 1000, false);
    let floor = timer_floor();
    let load = json!({ "kind": "open", "rate": "200/s", "arrival": "poisson", "requests": 2000 });
    let samples = ours(server.address, &load);
    let lags = samples.records().iter().filter_map(|record| {
        Some(ms(record.sent?.saturating_sub(record.due).saturating_sub(record.connect)))
    });
    let lags = Distribution::of(lags.collect());
    let of = |q: f64| lags.quantile(q).unwrap_or(f64::NAN);
    println!(
        "lag: sent − due at 200/s Poisson, ms: p50 {:.3} p99 {:.3} max {:.3} (the timer's own: p50 {:.3} p99 {:.3})",
        of(0.5),
        of(0.99),
        of(1.0),
        floor[0],
        floor[1]
    );
}

/// How late a bare sleep ends on this machine, p50 and p99 in milliseconds.
fn timer_floor() -> [f64; 2] {
    let late = (0..400).map(|_| {
        let due = Instant::now() + Duration::from_millis(5);
        std::thread::sleep(due - Instant::now());
        due.elapsed().as_secs_f64() * 1e3
    });
    let late = Distribution::of(late.collect());
    [0.5, 0.99].map(|q| late.quantile(q).unwrap_or(f64::NAN))
}

fn held() {
    let server = Fed::start(2_000_000, 20_000, false);
    let begun = Instant::now();
    let samples = ours(server.address, &closed(2000, 2000));
    let first = samples.records().iter().filter_map(|record| record.first).max().unwrap_or(0);
    let end = samples.records().iter().map(|record| record.end).min().unwrap_or(0);
    println!(
        "held: 2000 streams, {} answered; all had their first token {:.2} s before the first one ended; {:.1} s in all",
        samples.records().len(),
        (end as f64 - first as f64) / 1e9,
        begun.elapsed().as_secs_f64()
    );
}

fn rss() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0
}

fn memory() {
    let server = Fed::start(0, 0, true);
    print!("memory: resident MiB after so many million tokens:");
    let mut total = 0;
    for requests in [4000, 20_000, 54_125] {
        let samples = ours(server.address, &closed(64, requests));
        total += samples.records().len() * TOKENS;
        drop(samples);
        print!("  {:.1}: {:.1}", total as f64 / 1e6, rss());
        std::io::stdout().flush().expect("the terminal");
    }
    println!();
    // The last connection is the bench's own goodbye; the server ends with it.
    let _ = TcpStream::connect(server.address);
}

//! What the HTTP client costs and how true its times are, beside a bare hyper client that does nothing but read and parse.
//!
//! Both are fed by a server of this bench's own: a process on another core that writes prepared bytes at absolute times.
//! Not a test: a loaded machine is late, and that is what it shows. The ratios are what to look at. Every figure is the
//! median of seven runs, and where there are two clients they take turns.
//!
//! `cargo bench --bench http [-- cost | accuracy | lag | held | memory | serve]`

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
use rustix::time::{ClockId, clock_gettime};
use sagebench::backend::config::Backend;
use sagebench::backend::mock;
use sagebench::backend::openai::{OpenAi, Setup};
use sagebench::measure::{Distribution, Samples};
use sagebench::metric::Metric;
use sagebench::plan::{Plan, plan};
use sagebench::record::{Basis, GapRun, Outcome, Record};
use sagebench::run::{Flow, Observer, Resume, Stop, play_live};
use sagebench::scenario::Scenario;
use sagebench::serve::{Address, Limits, Offer, Server};
use sagebench::tokenizer;
use sagebench::units::ms;
use serde_json::json;

/// Tokens of each answer where the cost is measured.
const TOKENS: usize = 128;
/// How often each figure is taken; the median is shown.
const RUNS: usize = 7;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("--feed") => return feed(&arguments[2]),
        Some("--serve") => return serve_mock(&arguments[2]),
        _ => {}
    }
    let wanted = arguments.iter().skip(1).find(|word| !word.starts_with('-')).cloned();
    let runs = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    more_files();
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
    if runs("serve") {
        serve();
    }
}

fn more_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("the limit may be raised to its maximum");
}

/// Keeps this thread (and those it starts from here on) on one core.
fn pin(core: usize) {
    keep_on(core..core + 1);
}

fn keep_on(cores: std::ops::Range<usize>) {
    let mut set = CpuSet::new();
    cores.for_each(|core| set.set(core));
    // A machine of one core has no other to be kept from.
    let _ = sched_setaffinity(None, &set);
}

// --- the server --------------------------------------------------------------------------------------------------------

/// A server in a process of its own.
struct Fed {
    child: Child,
    /// Where it listens: a port, or `unix:` and a path.
    place: String,
}

impl Fed {
    /// `ttft` and `tbt` in microseconds; with both 0 an answer is written at once, in one write or in one per token.
    fn start(ttft: u64, tbt: u64, whole: bool) -> Self {
        Self::run(&["--feed", &format!("{ttft},{tbt},{whole}")])
    }

    fn run(arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this bench"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().expect("its output"));
        std::io::BufRead::read_line(&mut out, &mut line).expect("its address");
        Self { child, place: line.trim().to_owned() }
    }

    fn address(&self) -> SocketAddr {
        self.place.parse().expect("the address of a port")
    }

    fn url(&self) -> String {
        if self.place.starts_with("unix:") { self.place.clone() } else { format!("http://{}", self.place) }
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
fn feed(spec: &str) {
    let words: Vec<&str> = spec.split(',').collect();
    let [ttft, tbt] = [0, 1].map(|at| Duration::from_micros(words[at].parse().expect("microseconds")));
    let parts: std::rc::Rc<Vec<Bytes>> =
        std::rc::Rc::new(writes(words[2] == "true").into_iter().map(Bytes::from).collect());
    more_files();
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
            if ttft.is_zero() {
                // The streams take turns, token by token, as those of a batch do: a client that keeps up reads each write
                // by itself.
                tokio::task::yield_now().await;
            } else {
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

/// The process of the `serve` command's server: engine and clients on one core.
fn serve_mock(place: &str) {
    pin(1);
    let config = json!({ "kind": "mock", "ttft": "0s", "tbt": "0s" });
    let Ok(Backend::Mock(config)) = serde_json::from_value(config) else {
        panic!("the mock in this bench is valid")
    };
    let engine = mock::open(&config, "", 1, Path::new(".")).expect("the mock in this bench is valid");
    let offer = Offer::mock(&config, "", 1, 8192);
    let address: Address = place.parse().expect("an address");
    let server = Server::start(&address, engine, offer, Limits::default()).expect("it listens");
    println!("{}", server.address().to_string().trim_start_matches("http://"));
    loop {
        std::thread::park();
    }
}

// --- the bare client ---------------------------------------------------------------------------------------------------

/// What a bare client saw: times to first token and gaps, in milliseconds.
#[derive(Default)]
struct Seen {
    tokens: u64,
    ttft: Vec<f64>,
    gaps: Vec<f64>,
}

/// The part of an event that is of interest; the rest of it is parsed and passed over.
#[derive(serde::Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
}

#[derive(serde::Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Delta<'a>,
}

#[derive(serde::Deserialize)]
struct Delta<'a> {
    content: Option<&'a str>,
}

/// `users` tasks on one thread, each with a connection of its own: hyper, and every event parsed as JSON.
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
            while let Some(length) = memchr::memchr(b'\n', &buffer[start..]) {
                let line = &buffer[start..start + length];
                start += length + 1;
                let Some(text) = line.strip_prefix(b"data: ") else { continue };
                if text == b"[DONE]" {
                    continue;
                }
                let chunk: Chunk<'_> = serde_json::from_slice(text).expect("a chunk");
                if chunk.choices.first().is_some_and(|choice| choice.delta.content.is_some()) {
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
fn ours(server: &Fed, load: &serde_json::Value) -> Samples {
    let mut keep = Keep { samples: Samples::new(Basis::Sent), failed: Vec::new() };
    watched(server, load, &mut keep);
    assert!(keep.failed.is_empty(), "{} failed: {}", keep.failed.len(), keep.failed[0]);
    keep.samples
}

/// The same, with each answer told to `observer`.
fn watched(server: &Fed, load: &serde_json::Value, observer: &mut dyn Observer) {
    let scenario: Scenario = serde_json::from_value(json!({
        "version": 1,
        "backends": { "s": { "kind": "openai", "base_url": server.url(), "flavor": "generic", "threads": 1, "metrics": "off" } },
        "workloads": { "w": { "prompt": { "kind": "synthetic", "tokens": 16 }, "output": { "tokens": TOKENS }, "load": load } },
    }))
    .expect("the scenario in this bench is valid");
    let plan: Plan =
        plan(&scenario, &IndexMap::new(), Path::new("."), &tokenizer::Mock).expect("it has a plan");
    let workload = &plan.workloads[0];
    let (config, flavor) = scenario.backends["s"].server().expect("a server");
    let mut setup = Setup { dir: Path::new("."), log: None, nonce: 1, say: &mut |_| {}, stopped: &|| false };
    let mut server = OpenAi::open(config, flavor, &mut setup).expect("the server is there");
    let (stop, resume) = (Stop::default(), Resume::default());
    play_live(workload, workload.stream(0), &mut server, &stop, observer, &resume).expect("it plays");
}

fn closed(users: usize, requests: usize) -> serde_json::Value {
    json!({ "kind": "closed", "concurrency": users, "requests": requests })
}

// --- figures -----------------------------------------------------------------------------------------------------------

/// Processor time of all threads of this process during `work`, those that ended included, in microseconds.
fn cpu_of<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let total = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
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
            let (used, seen) = cpu_of(|| bare(server.address(), 64, requests));
            assert_eq!(seen.tokens as usize, requests * TOKENS);
            theirs.push(used / tokens);
            let (used, samples) = cpu_of(|| ours(&server, &closed(64, requests)));
            assert_eq!(samples.records().len(), requests);
            own.push(used / tokens);
        }
        let (theirs, own) = (median(theirs), median(own));
        println!("  {name:26} bare {theirs:.2}  this client {own:.2}  ratio {:.2}", own / theirs);
    }
}

/// TTFT p50 and p99, then gaps p50 and p99, in milliseconds.
fn quartet(ttft: &Distribution, gap: impl Fn(f64) -> Option<f64>) -> [f64; 4] {
    let or_nan = |value: Option<f64>| value.unwrap_or(f64::NAN);
    [or_nan(ttft.quantile(0.5)), or_nan(ttft.quantile(0.99)), or_nan(gap(0.5)), or_nan(gap(0.99))]
}

fn accuracy() {
    println!(
        "accuracy: server's TTFT 50 ms, then 10 ms a token; ms as reported, medians of {RUNS} interleaved runs"
    );
    let named = Metric::named("ttft").expect("a metric of the table");
    for users in [128, 512] {
        let server = Fed::start(50_000, 10_000, false);
        let requests = users * 3;
        let (mut theirs, mut own) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let seen = bare(server.address(), users, requests);
            let gaps = Distribution::of(seen.gaps);
            theirs.push(quartet(&Distribution::of(seen.ttft), |q| gaps.quantile(q)));
            let samples = ours(&server, &closed(users, requests));
            own.push(quartet(&Distribution::of(samples.values(named)), |q| {
                samples.gaps().quantile(q).map(ms)
            }));
        }
        for (at, name) in ["TTFT p50", "TTFT p99", "ITL p50", "ITL p99"].into_iter().enumerate() {
            let of = |runs: &[[f64; 4]]| median(runs.iter().map(|run| run[at]).collect());
            let (theirs, own) = (of(&theirs), of(&own));
            println!(
                "  {users:4} streams  {name:8}  bare {theirs:7.2}  this client {own:7.2}  ratio {:.3}",
                own / theirs
            );
        }
    }
}

/// As the program runs: the thread that paces and the one that sends have two cores, one of them beside the server.
fn lag() {
    let server = Fed::start(20_000, 1000, false);
    keep_on(0..2);
    let load = json!({ "kind": "open", "rate": "200/s", "arrival": "poisson", "requests": 1000 });
    let (mut floors, mut lags) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        floors.push(timer_floor());
        let samples = ours(&server, &load);
        let lag = |record: &Record| {
            Some(ms(record.sent?.saturating_sub(record.due).saturating_sub(record.connect)))
        };
        lags.push(late(samples.records().iter().filter_map(lag).collect()));
    }
    let of = |runs: &[[f64; 2]], at: usize| median(runs.iter().map(|run| run[at]).collect());
    println!(
        "lag: sent − due at 200/s Poisson, ms: p50 {:.3} p99 {:.3}; a bare timer's: p50 {:.3} p99 {:.3}",
        of(&lags, 0),
        of(&lags, 1),
        of(&floors, 0),
        of(&floors, 1)
    );
    pin(0);
}

/// p50 and p99.
fn late(times: Vec<f64>) -> [f64; 2] {
    let times = Distribution::of(times);
    [0.5, 0.99].map(|q| times.quantile(q).unwrap_or(f64::NAN))
}

/// How late a bare sleep until an absolute time ends on this machine, in milliseconds.
fn timer_floor() -> [f64; 2] {
    // As fine as the kernel's timers get, where it lets them.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let times = (0..400).map(|_| {
        let due = Instant::now() + Duration::from_millis(5);
        std::thread::sleep(due - Instant::now());
        due.elapsed().as_secs_f64() * 1e3
    });
    late(times.collect())
}

fn held() {
    let server = Fed::start(2_000_000, 20_000, false);
    let begun = Instant::now();
    let samples = ours(&server, &closed(2000, 2000));
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

/// Counts tokens and keeps nothing: what grows is the client's.
#[derive(Default)]
struct Count {
    tokens: u64,
    next: u64,
}

impl Observer for Count {
    fn on_record(&mut self, record: &Record, _: &[GapRun]) -> Flow {
        assert_eq!(record.outcome, Outcome::Success, "{:?}", record.message);
        self.tokens += u64::from(record.output_tokens);
        if self.tokens >= self.next {
            print!("  {:.1}: {:.1}", self.tokens as f64 / 1e6, rss());
            std::io::stdout().flush().expect("the terminal");
            self.next += 1_000_000;
        }
        Flow::Continue
    }
}

fn memory() {
    let server = Fed::start(0, 0, true);
    print!("memory: resident MiB after so many million tokens:");
    let mut count = Count::default();
    watched(&server, &closed(64, 10_100_000 / TOKENS), &mut count);
    println!();
    // The last connection is the bench's own goodbye; the server ends with it.
    let _ = TcpStream::connect(server.address());
}

/// What `serve` gives out on one core at TTFT 0 and TBT 0, one write per token, to this client on the other; beside a server
/// that only writes what it has prepared. Its streams take turns, while `serve` writes what is due of a stream in a row.
fn serve() {
    let path = std::env::temp_dir().join(format!("sagebench-bench-{}.sock", std::process::id()));
    let unix = format!("unix:{}", path.display());
    let servers = [
        ("a bare writer, TCP", Fed::start(0, 0, false)),
        ("serve, TCP", Fed::run(&["--serve", "127.0.0.1:0"])),
        ("serve, Unix socket", Fed::run(&["--serve", &unix])),
    ];
    let requests = 2000;
    let tokens = (requests * TOKENS) as f64;
    let mut rates = servers.each_ref().map(|_| Vec::new());
    for _ in 0..RUNS {
        for ((_, server), rates) in servers.iter().zip(&mut rates) {
            let used = cpu_of_process(server.child.id());
            let samples = ours(server, &closed(64, requests));
            rates.push(tokens / (cpu_of_process(server.child.id()) - used) / 1e3);
            assert!(samples.records().iter().all(|record| record.output_tokens as usize == TOKENS));
        }
    }
    println!("serve: thousand tokens per second of the server's one core, one write per token");
    for ((name, _), rates) in servers.iter().zip(rates) {
        println!("  {name:20} {:.0}", median(rates));
    }
}

/// Processor time of another process, in seconds.
fn cpu_of_process(id: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
    // The kernel counts in hundredths of a second here, whatever its own ticks are.
    (ticks(11) + ticks(12)) / 100.0
}

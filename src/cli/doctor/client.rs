//! What this client costs here: a second and a half against a server in this process.

use std::path::Path;

use crate::backend::config::{Backend, MockBackend};
use crate::backend::mock;
use crate::backend::openai::{OpenAi, Setup};
use crate::campaign::{Changes, complete};
use crate::record::{GapRun, Record};
use crate::run::{Flow, Observer, Resume, Stop, play_live, watch_processor};
use crate::scenario::{Format, Options, load_text};
use crate::serve::{Limits, Offer, Server};

/// The share of the time for which a thread that sends may run before it is the bottleneck.
const BUSY: f64 = 0.9;

/// What one thread of the client can take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    pub(super) micros_per_token: f64,
    /// On one thread that is busy for nine tenths of the time.
    pub(super) tokens_per_second: f64,
    /// Threads that it would use.
    pub(super) threads: usize,
}

/// Tokens of successful requests.
#[derive(Default)]
struct Tokens(u64);

impl Observer for Tokens {
    fn on_record(&mut self, record: &Record, _: &[GapRun]) -> Flow {
        self.0 += u64::from(record.output_tokens);
        Flow::Continue
    }
}

/// Plays a closed loop of 32 users over the loopback, one token a write.
pub(super) fn capacity() -> Result<Capacity, String> {
    let config: MockBackend = serde_json::from_value(serde_json::json!({ "ttft": "1ms", "tbt": "1ms" }))
        .map_err(|error| error.to_string())?;
    let engine = mock::open(&config, "", 0, Path::new("")).map_err(|error| error.to_string())?;
    let offer = Offer::mock(&config, "", 0, 4096);
    let listen = "127.0.0.1:0".parse().map_err(|why: String| why)?;
    let server =
        Server::start(&listen, engine, offer, Limits::default()).map_err(|error| error.to_string())?;
    let text = format!(
        "version: 1\nbackends:\n  served: {{ kind: vllm, base_url: \"{}/v1\", threads: 1, metrics: \"off\" }}\nworkloads:\n  \
         w:\n    prompt: {{ kind: synthetic, tokens: 16 }}\n    output: {{ tokens: 128 }}\n    \
         load: {{ kind: closed, concurrency: 32, duration: 1500ms }}\n",
        server.address()
    );
    let loaded = load_text("doctor.yaml", &text, Format::Yaml, Path::new(""), &Options::process(&[]));
    let prepared = complete(loaded.map_err(|_| "the scenario is broken")?, &Changes::default())
        .map_err(|_| "the scenario is broken")?;
    let Backend::Vllm(config) = &prepared.backends[0].config else {
        return Err("the backend is no server".into());
    };
    let flavor = prepared.backends[0].config.server().map(|(_, flavor)| flavor).unwrap_or_default();
    let mut setup = Setup { dir: Path::new(""), log: None, nonce: 0, say: &mut |_| {}, stopped: &|| false };
    let mut client = OpenAi::open(config, flavor, &mut setup)?;
    let plan = &prepared.plan.workloads[0];
    let mut tokens = Tokens::default();
    let (threads, begun) = (client.threads(), std::time::Instant::now());
    let (played, used) = watch_processor(&threads, || {
        play_live(plan, plan.stream(0), &mut client, &Stop::default(), &mut tokens, &Resume::default())
    });
    let time = begun.elapsed().as_secs_f64();
    played.map_err(|error| error.to_string())?;
    let used = used.ok_or("the system does not tell how much its threads run")?;
    if tokens.0 == 0 {
        return Err("no token came".into());
    }
    let micros_per_token = used.busy * time * 1e6 / tokens.0 as f64;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Capacity { micros_per_token, tokens_per_second: BUSY * 1e6 / micros_per_token, threads })
}

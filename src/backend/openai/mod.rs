//! Any server with the API of `OpenAI`.
//!
//! - **Threads**: each of a few threads owns its connections and the requests on them, from the first byte out to the last
//!   one in (`worker`, `pool`, `connect`), and sends them in time by a timer of its own (`alarm`). Whoever drives the load
//!   sends orders a little ahead and gets whole answers back: nothing is handed from thread to thread per token. Another
//!   thread makes the bodies of requests ahead of time (`body`, `prompt`).
//! - **Stamps**: a token's time is when its bytes were read from the connection.
//! - **Reading**: [`reading`] makes of bytes what they say (`sse`, `chunk`), without a clock or a socket, in bounded memory.
//! - **The server**: what it is and serves (`server`), how its tokenizer cuts (`vocabulary`).

mod alarm;
mod ask;
mod body;
mod chunk;
mod connect;
mod examine;
mod launch;
mod metrics;
mod pool;
mod prompt;
mod proxy;
pub mod reading;
mod server;
mod sse;

mod vocabulary;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use hyper::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;

use self::ask::{Asker, uri};
use self::body::{Form, Kitchen, Work};
use self::connect::{Dialer, dialer};
pub use self::examine::{Examination, Length, Stream};
use self::launch::Launched;
use self::metrics::{Scraper, unavailable};
use self::prompt::Prompts;
use self::reading::Expected;
pub use self::server::Identity;
use self::worker::{Done, Job, Shared, Task, Worker, header};

use super::config::{Endpoint, Flavor, MetricsPages, OpenAiBackend, Url};
use super::{Answer, EngineStats, Live, Render, RequestId};
use crate::plan::{Recipe, WorkloadPlan};
use crate::sample::key;
use crate::units::Ns;

/// Threads beyond this number only get into each other's way.
const MOST_THREADS: usize = 16;

/// What opening a server needs to know, and whom it tells how that goes.
pub struct Setup<'a> {
    /// The folder that relative paths start from.
    pub dir: &'a Path,
    /// Where the output of a server that is started goes; `None` where none may be started.
    pub log: Option<&'a Path>,
    /// Different in every run.
    pub nonce: u64,
    /// Hears, in a few words, what is waited for.
    pub say: &'a mut dyn FnMut(&str),
    /// Whether to give up.
    pub stopped: &'a dyn Fn() -> bool,
}

/// A server, ready to be sent requests.
pub struct OpenAi {
    identity: Identity,
    config: OpenAiBackend,
    /// The folder that its paths start from.
    dir: PathBuf,
    asker: Asker,
    prompts: Prompts,
    kitchen: Arc<Kitchen>,
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    answers: Receiver<Done>,
    /// Reads the server's own counters; or why nobody does.
    scraper: Result<Scraper, &'static str>,
    /// Dropped last of all: the server itself.
    launched: Option<Launched>,
    t0: Instant,
    /// The longest that a request may take, of each workload.
    timeouts: Vec<Ns>,
    nonce: u64,
    cells: u64,
    keep_responses: bool,
    cached: Cached,
}

/// What usages say of the server's prefix cache, since measuring began.
#[derive(Debug, Clone, Copy, Default)]
struct Cached {
    /// Whether any of them says how many prompt tokens were in the cache.
    is_told: bool,
    /// Prompt tokens.
    prompt_tokens: u64,
    /// Those of them that were in the cache. vLLM leaves the number out where it is 0.
    tokens: u64,
}

impl OpenAi {
    /// Finds out what the server is, as far as the settings do not say, and makes ready to talk to it.
    ///
    /// # Errors
    /// One message that says which server, what is wrong with it, and what to do.
    pub fn open(config: &OpenAiBackend, flavor: Flavor, setup: &mut Setup<'_>) -> Result<Self, String> {
        let urls = base_urls(config)?;
        let headers = headers(config)?;
        let (pages, optional) = pages(config, &urls)?;
        let dialer = dialer(config, urls.iter().chain(&pages), setup.dir)?;
        raise_open_files();
        let roots = urls.iter().map(Url::root).collect();
        let failed = |error: std::io::Error| format!("no thread can be started: {error}");
        let asker = Asker::new(&dialer, roots, &headers).map_err(failed)?;
        let mut launched = match setup.log {
            Some(log) if !config.launch.is_empty() => Some(Launched::start(&config.launch, setup.dir, log)?),
            _ => None,
        };
        let found = server::find(&asker, config, flavor, &urls, setup, launched.as_mut())?;
        let scraper = scraper(pages, optional, &dialer, &headers)?;
        let path = match found.identity.endpoint {
            Endpoint::Completions => "/completions",
            Endpoint::Chat => "/chat/completions",
        };
        let targets = urls.iter().map(|url| uri(url, path, &dialer)).collect::<Result<_, _>>()?;
        let headers = urls.iter().map(|url| dialer.headers(url, &headers)).collect();
        let shared = Arc::new(Shared {
            urls,
            targets,
            headers,
            dialer,
            no_usage: AtomicBool::new(false),
            tokenizer: found.counter,
        });
        let (sender, answers) = channel();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = config.threads.map_or(cores.min(MOST_THREADS), |threads| threads as usize);
        let workers = (0..threads)
            .map(|at| Worker::start(Arc::clone(&shared), sender.clone(), format!("client-{at}")))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        Ok(Self {
            identity: found.identity,
            config: config.clone(),
            dir: setup.dir.to_owned(),
            asker,
            prompts: found.prompts,
            kitchen: Kitchen::open().map_err(failed)?,
            shared,
            workers,
            answers,
            scraper,
            launched,
            t0: Instant::now(),
            timeouts: Vec::new(),
            nonce: setup.nonce,
            cells: 0,
            keep_responses: false,
            cached: Cached::default(),
        })
    }

    /// What the server is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The system's numbers of the threads that send and stamp.
    pub fn threads(&self) -> Vec<u32> {
        self.workers.iter().filter_map(Worker::number).collect()
    }

    /// What keeps the server's cache cold for a cell: a salt, or a nonce in the prompts; nothing when it was told to forget.
    fn chill(&self, cold: bool) -> (Option<String>, Option<u64>) {
        if !cold {
            return (None, None);
        }
        let nonce = key(&[self.nonce, self.cells]);
        match self.identity.flavor {
            Flavor::Vllm if self.identity.takes_salt() => (Some(format!("{nonce:016x}")), None),
            Flavor::Sglang if self.forget() => (None, None),
            _ => (None, Some(nonce)),
        }
    }

    /// Tells every server to drop its prefix cache; false when one does not.
    fn forget(&self) -> bool {
        (0..self.shared.urls.len())
            .all(|server| self.asker.post(server, "/flush_cache", &Value::Null).is_ok_and(|r| r.is_success()))
    }

    fn remaining(&self, until: Ns) -> Duration {
        (self.t0 + Duration::from_nanos(until)).saturating_duration_since(Instant::now())
    }

    fn keep(&mut self, (answer, cached): Done) -> Answer {
        if let Some(prompt) = answer.prompt_tokens {
            self.cached.is_told |= cached.is_some();
            self.cached.prompt_tokens += u64::from(prompt);
            self.cached.tokens += u64::from(cached.unwrap_or(0));
        }
        answer
    }
}

impl Cached {
    /// Where no metrics page told it, usages tell what was found in the prefix cache.
    fn complete(self, stats: &mut EngineStats) {
        let is_known = stats.prefix_queried_tokens.is_some() && stats.prefix_hit_tokens.is_some();
        if is_known || !self.is_told {
            return;
        }
        (stats.prefix_queried_tokens, stats.prefix_hit_tokens) =
            (Some(self.prompt_tokens), Some(self.tokens));
        stats.unavailable.retain(|(name, _)| name != "prefix_hit_rate");
    }
}

impl Live for OpenAi {
    fn begin(&mut self, plans: &[&WorkloadPlan], keep_responses: bool) {
        self.cells += 1;
        self.keep_responses = keep_responses;
        self.timeouts = plans.iter().map(|plan| plan.timeout).collect();
        // What one of them wants cold is cold for all: they share the cache.
        let (salt, nonce) = self.chill(plans.iter().any(|plan| plan.cold_cache));
        let form = |plan: &&WorkloadPlan| Form {
            model: self.identity.model.clone(),
            flavor: self.identity.flavor,
            endpoint: self.identity.endpoint,
            length: self.config.length_field,
            sampling: plan.sampling.clone(),
            salt: salt.clone(),
            extra: self.config.extra.clone().into_iter().collect(),
        };
        let prompts = Arc::new(Prompts { nonce, ..self.prompts.clone() });
        let work = |plan| Arc::new(Work { form: form(plan), prompts: Arc::clone(&prompts) });
        self.kitchen.begin(plans.iter().map(work).collect());
        self.cached = Cached::default();
        self.count_from_here(true);
    }

    fn renderer(&self) -> Arc<dyn Render> {
        Arc::clone(&self.kitchen) as Arc<dyn Render>
    }

    fn threads(&self) -> Vec<u32> {
        OpenAi::threads(self)
    }

    fn start(&mut self, t0: Instant) {
        self.t0 = t0;
        for worker in &self.workers {
            worker.tell(Task::Start(t0));
        }
    }

    fn submit(&mut self, id: RequestId, recipe: &Recipe, at: Ns, deadline: Ns) {
        let Some(order) = self.kitchen.take(recipe) else { return };
        let expected = Expected {
            asked_tokens: recipe.output_tokens,
            cancel_after: recipe.cancel_after,
            keep_text: self.keep_responses || self.shared.tokenizer.is_some(),
        };
        let servers = self.shared.urls.len() as u64;
        let timeout = self.timeouts.get(recipe.lane as usize).copied().unwrap_or(Ns::MAX);
        let job = Job { id, target: (id % servers) as usize, order, at, deadline, timeout, expected };
        // A dead thread is found out in `next`.
        let _ = self.worker(id).tell(Task::Send(job));
    }

    fn cancel(&mut self, id: RequestId) {
        let _ = self.worker(id).tell(Task::Cancel(id));
    }

    fn next(&mut self, until: Ns) -> Result<Option<Answer>, String> {
        loop {
            let left = self.remaining(until);
            if let Ok(done) = self.answers.recv_timeout(left) {
                return Ok(Some(self.keep(done)));
            }
            if self.workers.iter().any(Worker::is_dead) {
                return Err("a thread of the HTTP client died; this is a bug in the client".into());
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }

    fn start_measuring(&mut self, now: Ns) {
        // Without a warm-up the counters that stand from before T0 are the right ones.
        if now > 0 {
            self.cached = Cached::default();
            self.count_from_here(false);
        }
    }

    fn finish(&mut self) -> EngineStats {
        let mut stats = match &self.scraper {
            Ok(scraper) => scraper.end(),
            Err(why) => EngineStats { unavailable: unavailable(why), ..EngineStats::default() },
        };
        self.cached.complete(&mut stats);
        if let Some(launched) = &self.launched {
            let memory = launched.take_memory();
            if memory.readings > 0 {
                (stats.peak_mem_bytes, stats.avg_mem_bytes) = (Some(memory.peak), Some(memory.mean()));
                stats.unavailable.retain(|(name, _)| !matches!(name.as_ref(), "peak_mem_mb" | "avg_mem_mb"));
            }
        }
        stats
    }
}

impl OpenAi {
    /// The server's counters and memory count from here; with `wait` they are read before it returns.
    fn count_from_here(&self, wait: bool) {
        if let Ok(scraper) = &self.scraper {
            scraper.begin(wait);
        }
        if let Some(launched) = &self.launched {
            launched.take_memory();
        }
    }

    fn worker(&self, id: RequestId) -> &Worker {
        let turn = id / self.shared.urls.len() as u64;
        &self.workers[(turn % self.workers.len() as u64) as usize]
    }
}

/// The metrics pages, and whether it is an error when one is not there.
fn pages(config: &OpenAiBackend, urls: &[Url]) -> Result<(Vec<Url>, bool), String> {
    match &config.metrics {
        MetricsPages::Off => Ok((Vec::new(), true)),
        MetricsPages::Auto => {
            let page = |url: &Url| {
                let root = url.root();
                Url { path: format!("{}/metrics", root.path), ..root }
            };
            Ok((urls.iter().map(page).collect(), true))
        }
        MetricsPages::Pages(pages) => {
            let read = |text: &String| Url::parse(text).map_err(|why| format!("`metrics` {text}: {why}"));
            Ok((pages.iter().map(read).collect::<Result<_, _>>()?, false))
        }
    }
}

/// What reads the server's counters, or why nobody does.
fn scraper(
    pages: Vec<Url>,
    optional: bool,
    dialer: &Dialer,
    headers: &HeaderMap,
) -> Result<Result<Scraper, &'static str>, String> {
    if pages.is_empty() {
        return Ok(Err("`metrics: off`"));
    }
    let (dialer, headers) = (dialer.clone(), headers.clone());
    let started = Scraper::start(move || Asker::new(&dialer, pages, &headers), optional)?;
    Ok(started.ok_or("the server has no metrics page beside its base URL; name those it has in `metrics`"))
}

/// The base URLs of a backend, taken apart.
///
/// # Errors
/// Which one is none, and why.
pub fn base_urls(config: &OpenAiBackend) -> Result<Vec<Url>, String> {
    let read = |text: &String| Url::parse_base(text).map_err(|why| format!("`base_url` {text}: {why}"));
    config.base_url.0.iter().map(read).collect()
}

/// The headers of every request. The key is marked so that nothing prints it.
fn headers(config: &OpenAiBackend) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(variable) = &config.api_key_env {
        let key = std::env::var(variable)
            .map_err(|_| format!("`api_key_env` names the variable {variable}, which is not set"))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", key.trim())).map_err(|_| {
            format!("the key in the variable {variable} has characters that no header can carry")
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    for (name, value) in &config.headers {
        let (name, value) = header(name, value)?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// As many open files as the system allows: each connection is one.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, connections beyond the limit fail and say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

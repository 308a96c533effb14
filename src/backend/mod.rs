//! What answers requests. A backend knows recipes and time; it knows nothing of loads, metrics or reports.
//!
//! Engines that live in this process implement [`Stepped`]: they are told what time it is and hand back what happened.
//! The same implementation is driven in virtual time by jumping from event to event, and in real time by sleeping between them.
//!
//! Servers implement [`Live`]: time passes by itself, and what they answered is heard of.

pub mod candle;
pub mod config;
pub mod mock;
pub mod openai;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::plan::{Recipe, WorkloadPlan};
use crate::record::{Outcome, Response, TokenSource, TokenTimes};
use crate::units::Ns;

/// Names a request within its cell: its position in the order of submission, from 0.
pub type RequestId = u64;

/// An engine that is advanced from outside. All times are nanoseconds since the cell's T0.
pub trait Stepped: Send {
    /// Called once, before the first request, where something looks at responses (checks, hooks): each success is then told
    /// with its [`Response`]. Without it no backend makes texts.
    fn keep_responses(&mut self);

    /// Accepts a request at `now`. `now` never goes back, and is never later than the next event unless [`Self::advance`] was called.
    fn submit(&mut self, id: RequestId, recipe: &Recipe, now: Ns);

    /// How the answer to this request, which is submitted next, is chosen and where it ends, in place of what its workload says;
    /// the tokens of its answer are told by their ids ([`Sink::ids`]). An engine that simulates answers passes over it.
    fn draw(&mut self, id: RequestId, drawing: Drawing) {
        let _ = (id, drawing);
    }

    /// Gives a request up at `now`: its blocks are released and nothing more is heard of it. Unknown ids are ignored.
    fn cancel(&mut self, id: RequestId, now: Ns);

    /// When something will happen next if nothing is submitted; `None` when idle (or when all that is left never answers).
    fn next_event(&self) -> Option<Ns>;

    /// Plays everything up to and including `to`, telling `sink` in order of time.
    fn advance(&mut self, to: Ns, sink: &mut dyn Sink);

    /// Plays the next instant at which something happens, if it is before `end`: when it was. An engine may go on with further
    /// ones as long as nothing is told of a request by name ([`Sink::tokens`], [`Sink::finished`]), since nobody can answer
    /// to it; the time is then that of the last one.
    fn glide(&mut self, end: Ns, sink: &mut dyn Sink) -> Option<Ns> {
        let at = self.next_event().filter(|at| *at < end)?;
        self.advance(at, sink);
        Some(at)
    }

    /// Allows the engine to tell whole steps ([`Sink::step`]) in place of each request's token. For a caller that does not
    /// look at tokens one by one. An engine without steps goes on as before.
    fn fold_steps(&mut self) {}

    /// Waits on the real clock until something happens or the thread is unparked, at most so long. Whoever drives an engine
    /// in real time calls it when everything that is due was sent, and sleeps by itself where the answer is false. An engine
    /// that computes elsewhere, and so does not know ahead when something happens, waits here; while it computes,
    /// [`Self::next_event`] says nothing.
    fn wait(&mut self, most: Duration) -> bool {
        let _ = most;
        false
    }

    /// Called once when measuring starts at `now`: counters, peaks and averages of [`Self::stats`] count from here.
    fn start_measuring(&mut self, now: Ns);

    /// What the engine counted since measuring started, up to `now`.
    fn stats(&self, now: Ns) -> EngineStats;

    /// How the engine stands at this moment; `None` where it does not say.
    fn standing(&self) -> Option<Standing> {
        None
    }

    /// Makes what the prefix cache holds impossible to find, so that nothing that comes is a hit on what was before. False
    /// where the engine can not.
    fn forget_prefixes(&mut self) -> bool {
        false
    }
}

/// How the answer to one request is chosen, and where it ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawing {
    /// 0 takes the most likely token.
    pub temperature: f64,
    /// Only the most likely tokens of this probability together; 1 takes all.
    pub top_p: f64,
    /// Seeds the draws.
    pub seed: u64,
    /// What ends it.
    pub ends: Ends,
    /// Requests find the prefixes of those with the same salt only.
    pub salt: u64,
}

/// Texts that end an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ends {
    /// The texts.
    pub texts: Vec<String>,
    /// Whether the one that ended it is part of the answer.
    pub kept: bool,
    /// Nothing ends an answer that has fewer tokens; until then none is chosen that would.
    pub least: u32,
}

impl Ends {
    /// Where in an answer the text that ends it begins and ends: of those that are complete behind the byte `after`, the one that
    /// is complete first; of two, the longer one.
    pub fn find(&self, answer: &str, after: usize) -> Option<(usize, usize)> {
        let found = self.texts.iter().filter_map(|text| {
            let mut matches = answer.match_indices(text.as_str()).map(|(at, _)| (at, at + text.len()));
            matches.find(|(_, end)| *end > after)
        });
        found.min_by_key(|(at, end)| (*end, *at))
    }
}

/// How an engine stands at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Requests that are being computed.
    pub running: u32,
    /// Requests that wait to be, preempted ones included.
    pub waiting: u32,
    /// The KV cache, if it is modelled.
    pub kv: Option<KvStanding>,
}

/// How a KV cache stands at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvStanding {
    /// Blocks that somebody holds.
    pub used_blocks: u32,
    /// Blocks in all.
    pub total_blocks: u32,
    /// Tokens in one block.
    pub block_tokens: u32,
    /// Whether full blocks are found again by later requests.
    pub reuses: bool,
}

impl From<&crate::engine::KvCache> for KvStanding {
    fn from(cache: &crate::engine::KvCache) -> Self {
        Self {
            used_blocks: cache.pool().used(),
            total_blocks: cache.pool().total(),
            block_tokens: cache.block_tokens(),
            reuses: cache.reuses(),
        }
    }
}

/// A server. Requests go out and answers come in on threads of its own; whoever drives it sleeps in [`Self::next`].
/// All times are nanoseconds since the T0 of [`Self::begin`].
pub trait Live {
    /// A cell begins, of these workloads in the order of [`Recipe::lane`]. Nothing is in flight. With `keep_responses`, each
    /// success is told with its [`Response`].
    fn begin(&mut self, plans: &[&WorkloadPlan], keep_responses: bool);

    /// What makes the bytes of requests ahead of the time at which they are sent.
    fn renderer(&self) -> Arc<dyn Render>;

    /// The system's numbers of the threads that send and stamp; none where the system does not number them.
    fn threads(&self) -> Vec<u32>;

    /// T0 of the cell is `t0`.
    fn start(&mut self, t0: Instant);

    /// Sends a request at `at`, or now when that is past, on whichever thread is its own. It ends with an [`Answer`], at the
    /// latest at `deadline`.
    fn submit(&mut self, id: RequestId, recipe: &Recipe, at: Ns, deadline: Ns);

    /// Gives a request up: its [`Answer`] comes at once with what has arrived, and the connection is dropped.
    fn cancel(&mut self, id: RequestId);

    /// The next answer, waited for until `until` at most.
    ///
    /// # Errors
    /// When a thread of the client died, which is a bug.
    fn next(&mut self, until: Ns) -> Result<Option<Answer>, String>;

    /// Called once when measuring starts: what [`Self::finish`] tells counts from here.
    fn start_measuring(&mut self, now: Ns);

    /// The cell is over, and nothing is in flight: what the server says of itself.
    fn finish(&mut self) -> EngineStats;
}

/// The system's number of the calling thread; `None` where threads have none that the system's account of them knows.
pub fn own_thread() -> Option<u32> {
    #[cfg(target_os = "linux")]
    return u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).ok();
    #[cfg(not(target_os = "linux"))]
    None
}

/// Makes the bytes of requests. Threads share it.
pub trait Render: Send + Sync {
    /// This request will be sent before long.
    fn ahead(&self, recipe: &Recipe);

    /// Waits until everything that was announced is made.
    fn settle(&self);
}

/// How a request to a server ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Which request.
    pub id: RequestId,
    /// Just before its first byte was written, on the connection that it was answered on; when its outcome was known,
    /// for one that was never written.
    pub sent: Ns,
    /// How long opening that connection took; 0 on one that was open.
    pub connect: Ns,
    /// When its tokens came.
    pub times: TokenTimes,
    /// The first content that is no reasoning, where reasoning came before it.
    pub first_answer: Option<Ns>,
    /// When its outcome was known: the end of the response, trailing events included.
    pub closed: Ns,
    /// Prompt tokens as the server counts them.
    pub prompt_tokens: Option<u32>,
    /// Who counted the output tokens.
    pub token_source: TokenSource,
    /// How it ended.
    pub outcome: Outcome,
    /// What is to be said about that.
    pub message: Option<Box<str>>,
    /// How long the server asks to wait before another attempt (`Retry-After`).
    pub retry_after: Option<Ns>,
    /// What was answered: of a success, where responses are kept.
    pub response: Option<Box<Response>>,
}

/// Hears what happens to requests. Called once per step and request, never once per token of a burst; from an engine that
/// folds its steps ([`Stepped::fold_steps`]) once per step.
pub trait Sink {
    /// `count` tokens of a request: the first at `at`, each further one `gap` later.
    fn tokens(&mut self, id: RequestId, at: Ns, gap: Ns, count: u32);
    /// The ids of the tokens of a request that are told next. Only of one that was told how its answer is chosen
    /// ([`Stepped::draw`]).
    fn ids(&mut self, _id: RequestId, _ids: &[u32]) {}
    /// A request was scheduled for the first time at `at`: it left the queue that it was in since it was submitted. Told by
    /// engines that know it, before any of its tokens.
    fn scheduled(&mut self, _id: RequestId, _at: Ns) {}
    /// The usage of a request that is about to end says so many output tokens. Told only where that is another number than
    /// came.
    fn usage(&mut self, _id: RequestId, _output_tokens: u32) {}
    /// A request ended at `at`. For a success this is the time of its last token.
    fn finished(&mut self, id: RequestId, at: Ns, end: Finish);
    /// One token of every request that rides came at `at`, `gap` after its one before.
    fn step(&mut self, at: Ns, gap: Ns) {
        let _ = (at, gap);
    }
    /// From here on the request rides: its tokens come with [`Self::step`], until it alights or something is told of it.
    fn board(&mut self, id: RequestId) {
        let _ = id;
    }
    /// The request rides no more: its tokens are told again.
    fn alight(&mut self, id: RequestId) {
        let _ = id;
    }
}

/// How a request ended, as the backend tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// The outcome.
    pub outcome: Outcome,
    /// What the backend says about a failure.
    pub message: Option<Box<str>>,
    /// How long the backend asks to wait before another attempt, where it says that another one may pass.
    pub retry_after: Option<Ns>,
    /// Prompt tokens as the backend counts them.
    pub prompt_tokens: u32,
    /// Times it was preempted.
    pub preemptions: u32,
    /// Who counted the tokens.
    pub token_source: TokenSource,
    /// What was answered: of a success, where responses are kept ([`Stepped::keep_responses`]).
    pub response: Option<Box<Response>>,
}

impl Finish {
    /// The end of a request with so many prompt tokens that was preempted so often, whose tokens the engine counts.
    pub fn new(
        prompt_tokens: u32,
        preemptions: u32,
        outcome: Outcome,
        message: Option<impl Into<Box<str>>>,
    ) -> Self {
        Self {
            outcome,
            message: message.map(Into::into),
            retry_after: None,
            prompt_tokens,
            preemptions,
            token_source: TokenSource::Engine,
            response: None,
        }
    }
}

/// What only an engine with a cache knows, by the names of metrics.
pub const CACHE_METRICS: [&str; 8] = [
    "kv_used_tokens",
    "kv_used_bytes",
    "kv_capacity_tokens",
    "kv_total_tokens",
    "prefix_hit_rate",
    "evict_count",
    "evict_ms",
    "preempt_count",
];

/// The memory of an engine, by the names of metrics.
pub const MEMORY_METRICS: [&str; 2] = ["peak_mem_mb", "avg_mem_mb"];

/// What an engine knows of itself. `None` is what it cannot know; the reason stands in `unavailable`.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EngineStats {
    /// Peak of tokens resident in referenced blocks.
    pub kv_used_tokens: Option<u64>,
    /// Tokens the cache can hold.
    pub kv_capacity_tokens: Option<u64>,
    /// Tokens whose keys and values were written, recomputed ones included.
    pub kv_total_tokens: Option<u64>,
    /// Bytes of keys and values per token.
    pub kv_bytes_per_token: Option<u64>,
    /// Prompt tokens looked up in the prefix cache at first admissions.
    pub prefix_queried_tokens: Option<u64>,
    /// Prompt tokens served from it at first admissions.
    pub prefix_hit_tokens: Option<u64>,
    /// Cached blocks dropped for reuse.
    pub evict_count: Option<u64>,
    /// The time that took, in nanoseconds.
    pub evict_ns: Option<u64>,
    /// Preemptions.
    pub preempt_count: Option<u64>,
    /// Draft tokens proposed.
    pub draft_tokens: Option<u64>,
    /// Draft tokens accepted.
    pub accepted_tokens: Option<u64>,
    /// The share of draft tokens that were accepted, where only that is known.
    pub spec_accept_share: Option<f64>,
    /// Peak memory of the (modelled) device in bytes.
    pub peak_mem_bytes: Option<u64>,
    /// Mean memory over time in bytes.
    pub avg_mem_bytes: Option<f64>,
    /// How many requests ran at once.
    pub batch: Option<BatchSize>,
    /// Faults that were injected, in order.
    pub faults: Vec<InjectedFault>,
    /// Why a field above is `None`: flat metric name (`evict_ms`) to reason.
    pub unavailable: Vec<(Cow<'static, str>, String)>,
}

/// How many requests an engine computed at once, over the measured time. Where it was idle they are 0.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BatchSize {
    /// The mean over time.
    pub mean: f64,
    /// The largest.
    pub max: u32,
    /// How long each stretch of the series is, in nanoseconds; the last one may be shorter.
    pub width: Ns,
    /// The mean in successive stretches since measuring started.
    pub series: Vec<f64>,
}

/// One fault that was injected.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InjectedFault {
    /// The index of the request that it hit, in the measured phase; `None` when it struck the engine as a whole.
    pub index: Option<u64>,
    /// The place of that request's workload in its group; 0 outside groups.
    pub lane: u32,
    /// The action's kind, such as `http_status`.
    pub action: String,
    /// When it struck.
    pub at_ns: Ns,
}

//! An OpenAI-compatible server in front of an engine that lives in this process.
//!
//! One thread plays the engine on the machine's clock (`pacer`); one or more talk to clients, each with a single-threaded
//! runtime; the thread that started the server hands them connections. A request's tokens are written when they are due,
//! one write per step, and its answer ends with the times that the engine meant, so that any client can be measured
//! against the truth. A mock's answers are known from the start; a model's are told token by token, and become text here.

mod answer;
mod asking;
mod clock;
mod decoded;
mod desk;
mod error;
mod http;
mod metrics;
mod pacer;
mod protocol;
mod reply;
mod server;
mod truth;
mod vocabulary;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

pub use self::server::{ServeError, Server};
pub use self::wire::Address;
use crate::backend::candle::ChatTemplate;
use crate::backend::config::MockBackend;
use crate::backend::mock::{Answers, FaultPlan};
use crate::tokenizer::Hf;
use clock::Clock;
use vocabulary::Vocabulary;

/// What is served.
#[derive(Debug)]
pub struct Offer {
    /// The model's name, as clients ask for it.
    pub model: String,
    /// The longest prompt and answer together, in tokens.
    pub max_model_len: u32,
    /// Where answers come from.
    pub mind: Mind,
    /// Together with a request's number it decides what its answer says, where the request does not.
    pub seed: u64,
}

/// Where answers come from.
#[derive(Debug)]
pub enum Mind {
    /// The engine is a mock: it says when tokens come, and what they say is known from the start.
    Simulated {
        /// What answers say.
        answers: Answers,
        /// What goes wrong on purpose: the engine's own plan of it, for what only bytes can show.
        faults: FaultPlan,
    },
    /// The engine computes a model, and tells which tokens came.
    Computed {
        /// The model's tokenizer.
        tokenizer: Arc<Hf>,
        /// Its chat template, if it has one; else what is wrong with it.
        template: Result<Option<Arc<ChatTemplate>>, String>,
    },
}

impl Offer {
    /// Offers a mock, with the faults of the workload `family`.
    pub fn mock(config: &MockBackend, family: &str, seed: u64, max_model_len: u32) -> Self {
        let mind = Mind::Simulated {
            answers: Answers::new(&config.responses, family, seed),
            faults: FaultPlan::new(&config.faults, family, seed),
        };
        Self { model: config.model.clone(), max_model_len, mind, seed }
    }
}

/// What a server takes, and how it goes about it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At most so many requests at once; others are turned away with status 429.
    pub max_requests: usize,
    /// The longest body of a request, in bytes.
    pub max_body: usize,
    /// Threads that talk to clients.
    pub threads: usize,
    /// How many times as fast as the machine's clock modelled time passes; above 0.
    pub speed: f64,
    /// Whether answers end with their modelled times.
    pub times: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_requests: 4096, max_body: 16 << 20, threads: 1, speed: 1.0, times: true }
    }
}

/// What all threads know.
#[derive(Debug)]
struct House {
    model: Arc<str>,
    max_model_len: u32,
    mind: Mind,
    seed: u64,
    limits: Limits,
    clock: Clock,
    vocabulary: Vocabulary,
    /// The number of the next request, in the order of arrival.
    next: AtomicU64,
    /// Requests that are being answered.
    taken: Arc<AtomicUsize>,
    /// Tells this server's answers from those of another.
    boot: u64,
    /// When the server started, in seconds since 1970.
    created: u64,
}

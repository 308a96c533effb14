//! One request inside the engine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::lookup::Reach;
use super::sampler::Choice;
use crate::backend::Ends;
use crate::engine::Content;
use crate::record::Phase;
use crate::sample::key;

/// A session: the [lane](crate::plan::Recipe::lane) of its workload, its phase and its number.
pub(super) type Session = (u32, Phase, u64);

/// The tokens of one request: the engine that computes them and the scheduler that names their blocks share them.
#[derive(Debug, Clone)]
pub struct Tokens(Arc<Mutex<Held>>);

/// What is known of a request's tokens.
#[derive(Debug, Default)]
pub struct Held {
    /// Prompt and answer so far.
    pub ids: Vec<u32>,
    /// What may come next.
    pub drafts: Vec<u32>,
    block_tokens: u32,
    /// Keeps apart what else would be the same.
    salt: u64,
}

impl Tokens {
    /// Those of a prompt, in blocks of so many tokens. Blocks of different salts are never the same.
    pub fn new(prompt: Vec<u32>, block_tokens: u32, salt: u64) -> Self {
        Self(Arc::new(Mutex::new(Held { ids: prompt, drafts: Vec::new(), block_tokens, salt })))
    }

    /// Looks at them. One thread does at a time.
    pub fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing is half done between two of its operations.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content for Tokens {
    /// A hash of the block's tokens.
    fn block(&self, index: u64) -> u64 {
        let held = self.held();
        let size = held.block_tokens as usize;
        let start = index as usize * size;
        held.ids[start..start + size].iter().fold(held.salt, |hash, token| key(&[hash, u64::from(*token)]))
    }

    fn drafts(&self, most: u32) -> u32 {
        most.min(self.held().drafts.len() as u32)
    }
}

/// A request in flight.
#[derive(Debug)]
pub struct Live {
    pub(super) tokens: Tokens,
    pub(super) prompt: u32,
    /// Whether its length is forced: it goes on behind the tokens that end an answer.
    pub(super) forced: bool,
    /// The session that it is a turn of, if another turn follows.
    pub(super) session: Option<Session>,
    pub(super) choice: Choice,
    /// How many drafts it tries.
    pub(super) reach: Reach,
    /// Of the step in flight: drafts that were accepted.
    pub(super) kept: u32,
    /// Of the step in flight: how many of its tokens count, when the answer ends with them.
    pub(super) stop: Option<Stop>,
    /// The texts that end it.
    pub(super) ends: Arc<Ends>,
    /// Whether its tokens are told by their ids.
    pub(super) tells_ids: bool,
}

/// Where an answer ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// So many of the step's tokens belong to it.
    pub(super) tokens: u32,
}

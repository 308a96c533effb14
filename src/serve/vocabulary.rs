//! The mock's tokenizer behind the wire: ids in, ids out, and back.

use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use crate::tokenizer::{self, Tokenizer as _};

/// At most so many tokens are remembered.
const REMEMBERED: usize = 1 << 20;

/// Remembers which texts its ids stand for: the mock's ids are hashes, which nothing can be read back from.
#[derive(Debug, Clone, Default)]
pub(super) struct Vocabulary(Arc<Mutex<FxHashMap<u32, Box<str>>>>);

impl Vocabulary {
    /// The id of one token, remembered.
    pub(super) fn learn(&self, piece: &str) -> u32 {
        let id = tokenizer::Mock.encode(piece).first().copied().unwrap_or(0);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < REMEMBERED {
            known.entry(id).or_insert_with(|| piece.into());
        }
        id
    }

    /// The ids of a text and their pieces, remembered.
    pub(super) fn encode(&self, text: &str) -> (Vec<u32>, Vec<String>) {
        tokenizer::Mock::pieces(text).map(|piece| (self.learn(piece), piece.to_owned())).unzip()
    }

    /// The text of these ids, or the first one that this server has not told.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String, u32> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.iter().map(|id| known.get(id).map(|piece| &**piece).ok_or(*id)).collect()
    }
}

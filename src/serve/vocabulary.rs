//! A tokenizer behind the wire: ids in, ids out, and back.

use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use crate::tokenizer::{self, Hf, Tokenizer as _};

/// At most so many tokens are remembered.
const REMEMBERED: usize = 1 << 20;

/// The mock's tokenizer, or that of a model.
#[derive(Debug, Clone)]
pub(super) enum Vocabulary {
    /// Remembers which texts its ids stand for: the mock's ids are hashes, which nothing can be read back from.
    Mock(Arc<Mutex<FxHashMap<u32, Box<str>>>>),
    Model(Arc<Hf>),
}

impl Vocabulary {
    /// The ids of a text without special tokens. With `told`, ids of the mock are remembered.
    pub(super) fn ids(&self, text: &str, told: bool) -> Vec<u32> {
        match self {
            Self::Mock(_) if told => tokenizer::Mock::pieces(text).map(|piece| self.learn(piece)).collect(),
            Self::Mock(_) => tokenizer::Mock.encode(text),
            Self::Model(tokenizer) => tokenizer.encode(text),
        }
    }

    /// The id of one token of the mock, remembered.
    pub(super) fn learn(&self, piece: &str) -> u32 {
        let id = tokenizer::Mock.encode(piece).first().copied().unwrap_or(0);
        if let Self::Mock(known) = self {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() < REMEMBERED {
                known.entry(id).or_insert_with(|| piece.into());
            }
        }
        id
    }

    /// The text of each of these ids, or the first one that is not known.
    pub(super) fn pieces(&self, ids: &[u32]) -> Result<Vec<String>, u32> {
        match self {
            Self::Mock(known) => {
                let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                ids.iter().map(|id| known.get(id).map(ToString::to_string).ok_or(*id)).collect()
            }
            Self::Model(tokenizer) => {
                known(tokenizer, ids)?;
                Ok(ids.iter().map(|id| tokenizer.decode(&[*id])).collect())
            }
        }
    }

    /// The text of these ids together, or the first one that is not known.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String, u32> {
        match self {
            Self::Mock(_) => Ok(self.pieces(ids)?.concat()),
            Self::Model(tokenizer) => {
                known(tokenizer, ids)?;
                Ok(tokenizer.decode(ids))
            }
        }
    }
}

fn known(tokenizer: &Hf, ids: &[u32]) -> Result<(), u32> {
    ids.iter().find(|id| **id >= tokenizer.vocabulary()).map_or(Ok(()), |id| Err(*id))
}

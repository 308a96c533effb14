//! Tokenizers: what a text is in tokens, and which text has exactly n of them.

mod definition;
mod hf;
mod mock;

use std::fmt;
use std::sync::Arc;

pub use hf::Hf;
pub use mock::Mock;

/// Turns text into token ids, and makes texts of a given length.
pub trait Tokenizer: Send + Sync + fmt::Debug {
    /// A name for reports and digests, such as `mock`. It changes when the tokens of any text change.
    fn name(&self) -> &str;
    /// The same tokenizer, to keep.
    fn shared(&self) -> Arc<dyn Tokenizer>;
    /// The token ids of a text.
    fn encode(&self, text: &str) -> Vec<u32>;
    /// A text of exactly `tokens` tokens, a pure function of `seed`. It neither starts nor ends with white space, a
    /// shorter text of the same seed is a prefix of a longer one, and two texts joined by one space have the sum of
    /// their tokens.
    fn text_of(&self, tokens: u32, seed: u64) -> String;
    /// How many tokens a text has.
    fn count(&self, text: &str) -> u32 {
        self.encode(text).len() as u32
    }
}

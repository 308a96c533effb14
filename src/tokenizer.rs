//! Tokenizers: what a text is in tokens, and which text has exactly n of them.

/// Turns text into token ids and back.
pub trait Tokenizer: Send + Sync {
    /// A name for reports and digests, such as `mock`.
    fn name(&self) -> &str;
    /// The token ids of a text.
    fn encode(&self, text: &str) -> Vec<u32>;
    /// A text of exactly `tokens` tokens, a pure function of `seed`, verified by encoding it again.
    fn text_of(&self, tokens: u32, seed: u64) -> String;
    /// How many tokens a text has.
    fn count(&self, text: &str) -> u32 {
        self.encode(text).len() as u32
    }
}

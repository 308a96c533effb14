//! What the user wrote: the language's types, and the way from text to a checked scenario.

mod types;

pub use types::*;

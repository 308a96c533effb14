//! Seeded draws: where randomness comes from and which laws numbers follow.
//!
//! Every draw is a pure function of (seed, purpose, index), so a request's numbers do not depend on how many others
//! were drawn before it, and all arithmetic goes through `libm`, so they are equal on every platform.

mod chacha;
mod distribution;
mod json;
mod lines;
mod sampler;
mod seed;

pub use distribution::{Empirical, Fixed, Lognormal, Normal, Quantity, Time, Tokens, Uniform, Zipf};
pub use json::JsonRows;
pub use lines::{FileError, Lines, csv_fields, json_fault, line_ends};
pub use sampler::{BadLaw, Sampler};
pub use seed::{Draws, key, mix, name_key, permuted};

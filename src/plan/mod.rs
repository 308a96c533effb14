//! What will happen, decided before it does: lengths, arrivals, seeds and sources of every request.
//!
//! Pure: no clock, no network. The only files read are the scenario's own prompt sources.
//!
//! Every draw is a pure function of (scenario seed, workload family, repeat, phase, index, purpose). The points of one
//! matrix therefore see the same prompts, and what is measured does not depend on whether there is a warm-up.

mod arrival;
mod block;
pub mod config;
mod generator;
mod recipe;
mod source;
mod stream;

pub use generator::Generator;
pub use recipe::*;
pub use stream::RecipeStream;

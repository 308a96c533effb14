//! What will happen, decided before it does: lengths, arrivals, seeds and sources of every request.
//!
//! Pure: no clock, no network. The only files read are the scenario's own prompt sources.
//!
//! Every draw is a pure function of (scenario seed, workload family, repeat, phase, index, purpose). The points of one
//! matrix therefore see the same prompts, and what is measured does not depend on whether there is a warm-up.

mod arrival;
mod block;
mod build;
mod chat;
pub mod config;
mod corpus;
mod digest;
mod file;
mod generator;
mod hooked;
mod load;
mod recipe;
mod rows;
mod search;
mod session;
mod shared;
mod source;
mod stream;
mod summary;
mod text;
mod trace;

pub use build::{PlanError, expect, plan};
pub use chat::{Body, Content, Message, Role, wire_messages};
pub use digest::Survey;
pub use file::{Header, PlanFileError, PlanWriteError, read, read_header, write};
pub use generator::{GENERATOR_VERSION, Generator};
pub use hooked::{Hooked, MadeTurn};
pub use recipe::*;
pub use search::{EXTENSIONS, SearchPlan};
pub use shared::SharedTokens;
pub use stream::RecipeStream;
pub use summary::{Expected, Row, Spread, table};
pub use text::{chat_text, join, parts, text};

#[cfg(test)]
mod tests;

//! Real models on the CPU, in this process.
//!
//! [`Engine`] schedules, batches and caches by the project's [`engine`](crate::engine), and computes on a thread of its own.
//! It runs on the real clock only.

#[cfg(not(feature = "candle"))]
mod closed;
mod engine;
mod live;
mod lookup;
mod memory;
#[cfg(feature = "candle")]
pub mod model;
#[cfg(feature = "candle")]
mod open;
mod pool;
mod prompt;
mod sampler;
mod source;
mod template;
#[cfg(test)]
mod tests;
mod worker;

#[cfg(not(feature = "candle"))]
pub use self::closed::{Local, Row};
pub use self::engine::{Engine, Parts};
#[cfg(feature = "candle")]
pub use self::model::Row;
#[cfg(feature = "candle")]
pub use self::open::Local;
pub use self::prompt::is_given;
pub use self::source::{OpenError, Source};
pub use self::template::{ChatTemplate, Conversation, flat};
pub use self::worker::Forward;

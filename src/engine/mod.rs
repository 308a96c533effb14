//! The deterministic core of an inference engine: which KV blocks a sequence holds, what is a prefix hit, what is
//! evicted, and which sequences compute which tokens in one step of a continuous batch.
//!
//! Pure: it reads no clock, sleeps never and multiplies nothing. Who uses it says when things happen.

mod cache;
mod pool;
mod prefix;
mod scheduler;
mod speculation;
mod step;

pub use cache::{Admission, BlockTable, KvCache, Prefix};
pub use pool::{BlockId, BlockPool};
pub use prefix::{BlockHash, PrefixIndex, chain};
pub use scheduler::{Content, Counters, Limits, Rejection, Request, Scheduler, Stuck};
pub use speculation::Speculation;
pub use step::{Emission, Scheduled, Step};

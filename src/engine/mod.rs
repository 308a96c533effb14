//! The deterministic core of an inference engine: which KV blocks a sequence holds, what is a prefix hit, what is evicted.
//!
//! Pure: it reads no clock, sleeps never and multiplies nothing. Who uses it says when things happen.

mod cache;
mod pool;
mod prefix;

pub use cache::{Admission, BlockTable, KvCache};
pub use pool::{BlockId, BlockPool};
pub use prefix::{BlockHash, PrefixIndex, chain};

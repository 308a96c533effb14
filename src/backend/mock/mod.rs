//! A simulated inference engine: [`Mock`] is its fixed mode and [`Batched`] its batched one, both over a real block pool;
//! [`Replay`] plays recorded times back.

mod answer;
mod batched;
mod cost;
mod counters;
mod fault;
mod faulty;
mod fixed;
mod occupancy;
mod replay;

use std::path::Path;

pub use self::answer::Answers;
pub use self::batched::Batched;
pub use self::fault::FaultPlan;
pub use self::faulty::Faulty;
pub use self::fixed::{Laws, Mock};
pub use self::replay::Replay;
use super::config::{Kv, MockBackend, Mode};
use super::{RequestId, Stepped};
use crate::engine::KvCache;
use crate::sample::BadLaw;
use crate::units::Ns;

/// A mock for one cell, in the mode of its configuration. `family` is the workload's name in the scenario, `seed` the
/// scenario's; files that the configuration names are relative to `dir`.
///
/// # Errors
/// When the configuration can not be used.
pub fn open(
    config: &MockBackend,
    family: &str,
    seed: u64,
    dir: &Path,
) -> Result<Box<dyn Stepped>, MockError> {
    open_shared(config, &[family], seed, dir)
}

/// A mock that several workloads share, in the order of [`Recipe::lane`](crate::plan::Recipe::lane).
///
/// # Errors
/// When the configuration can not be used.
pub fn open_shared(
    config: &MockBackend,
    families: &[&str],
    seed: u64,
    dir: &Path,
) -> Result<Box<dyn Stepped>, MockError> {
    let faults = families.iter().map(|family| FaultPlan::new(&config.faults, family, seed)).collect();
    Ok(match config.mode {
        Mode::Fixed => with_faults(Mock::open(config, families, seed, dir)?, faults),
        Mode::Batched => with_faults(Batched::open(config, families, seed)?, faults),
        Mode::Replay => with_faults(Replay::open(config, families, seed), faults),
    })
}

fn with_faults(engine: impl Engine + 'static, faults: Vec<FaultPlan>) -> Box<dyn Stepped> {
    let harmless = faults.iter().all(FaultPlan::is_empty);
    if harmless { Box::new(engine) } else { Box::new(Faulty::group(engine, faults)) }
}

/// What can be done to an engine as a whole.
pub trait Engine: Stepped {
    /// The engine stands still from `now` until `until`: what is under way takes that much longer, and nothing new begins.
    fn hold(&mut self, now: Ns, until: Ns);

    /// The KV cache, if there is one.
    fn cache_mut(&mut self) -> Option<&mut KvCache>;

    /// How often a request that is in the engine was preempted; 0 for an unknown one.
    fn preemptions(&self, id: RequestId) -> u32;
}

/// Why a mock can not be built from its configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MockError {
    /// Not exactly one size.
    #[error("`kv` takes exactly one of `tokens`, `blocks` and `bytes`, {0} are given")]
    Sizes(usize),
    /// A size in bytes, and no way to count tokens in it.
    #[error("`kv.bytes` needs `kv.bytes_per_token`, at least 1")]
    BytesPerToken,
    /// Nothing fits.
    #[error("`kv` holds {tokens} tokens, less than one block of {block_tokens}; make it larger")]
    Empty {
        /// Tokens that fit.
        tokens: u64,
        /// Tokens in one block.
        block_tokens: u32,
    },
    /// More blocks than the pool numbers.
    #[error("`kv` has {0} blocks, more than 16777216; make it smaller or `block_tokens` larger")]
    TooLarge(u64),
    /// A law can not be drawn from.
    #[error("`{0}`: {1}")]
    Law(&'static str, BadLaw),
    /// The mode needs a key.
    #[error("this mode of the mock needs `{0}`")]
    Missing(&'static str),
    /// No token would ever come.
    #[error("`rate_cap` must be above 0")]
    RateCap,
}

/// Builds the cache that a scenario asks for.
fn cache(kv: &Kv) -> Result<KvCache, MockError> {
    let block_tokens = kv.block_tokens.max(1);
    let size = u64::from(block_tokens);
    let tokens = match (kv.tokens, kv.blocks, kv.bytes) {
        (Some(tokens), None, None) => u64::from(tokens.0),
        (None, Some(blocks), None) => u64::from(blocks) * size,
        (None, None, Some(bytes)) => {
            bytes.0 / kv.bytes_per_token.filter(|n| *n > 0).ok_or(MockError::BytesPerToken)?
        }
        (tokens, blocks, bytes) => {
            let given = [tokens.is_some(), blocks.is_some(), bytes.is_some()];
            return Err(MockError::Sizes(given.into_iter().filter(|given| *given).count()));
        }
    };
    match tokens / size {
        0 => Err(MockError::Empty { tokens, block_tokens }),
        blocks if blocks > 1 << 24 => Err(MockError::TooLarge(blocks)),
        blocks => Ok(KvCache::new(blocks as u32, block_tokens, kv.prefix_cache)),
    }
}

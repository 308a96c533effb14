//! How large the KV cache is.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::OpenError;
use crate::backend::config::CandleKv;
use crate::units::MIB;

/// The largest number of blocks.
const MOST: u64 = 1 << 24;

/// The most bytes that are taken unasked: all of them are touched.
const LARGEST: u64 = 1024 * MIB;

/// Blocks of the KV cache that a scenario asks for, given the bytes of keys and values per token, the memory that is free
/// (where that is known), and how many tokens could be in use at most.
pub fn blocks(kv: &CandleKv, bytes_per_token: u64, free: Option<u64>, useful: u64) -> Result<u32, OpenError> {
    let size = u64::from(kv.block_tokens.max(1));
    let per_token = bytes_per_token.max(1);
    let tokens = match (kv.tokens, kv.blocks, kv.bytes) {
        (Some(tokens), ..) => u64::from(tokens.0),
        (_, Some(blocks), _) => u64::from(blocks).saturating_mul(size),
        (.., Some(bytes)) => bytes.0 / per_token,
        (None, None, None) => {
            let most = free.map_or(LARGEST, |free| (free / 4).min(LARGEST)) / per_token;
            let most = most.min(useful);
            // Whole blocks, so that a context that ends in the middle of one still fits.
            most.next_multiple_of(size).min(MOST * size)
        }
    };
    let wanted = tokens.saturating_mul(per_token);
    if let Some(free) = free.filter(|free| wanted > *free) {
        return Err(OpenError::Memory { tokens, wanted_mib: wanted.div_ceil(MIB), free_mib: free / MIB });
    }
    match tokens / size {
        0 => Err(OpenError::EmptyPool { tokens, block_tokens: kv.block_tokens }),
        blocks if blocks > MOST => Err(OpenError::LargePool(blocks)),
        blocks => Ok(blocks as u32),
    }
}

/// Memory that this process may still take, in bytes; `None` where the system does not tell.
pub fn free_memory() -> Option<u64> {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kind).ok()?;
    // A container may hold less than the machine.
    let limit = system.cgroup_limits().map(|limits| limits.free_memory);
    [Some(system.available_memory()), limit].into_iter().flatten().filter(|bytes| *bytes > 0).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Size, TokenCount};

    #[test]
    fn a_size_is_rounded_down_to_whole_blocks() {
        let kv = CandleKv::default();
        let of = |kv: CandleKv| blocks(&kv, 1024, Some(1 << 30), 1 << 20).map_err(|error| error.to_string());
        assert_eq!(of(CandleKv { tokens: Some(TokenCount(4097)), ..kv.clone() }), Ok(256));
        assert_eq!(of(CandleKv { blocks: Some(7), ..kv.clone() }), Ok(7));
        assert_eq!(of(CandleKv { bytes: Some(Size(MIB)), ..kv.clone() }), Ok(64));
        let error = of(CandleKv { tokens: Some(TokenCount(15)), ..kv.clone() }).unwrap_err();
        assert_eq!(error, "`kv` holds 15 tokens, less than one block of 16; make it larger");
        let error = of(CandleKv { bytes: Some(Size(3 << 30)), ..kv }).unwrap_err();
        assert_eq!(
            error,
            "a KV cache of 3145728 tokens takes 3072 MiB, and 1024 MiB of memory are free; make `kv` smaller"
        );
    }

    #[test]
    fn without_a_size_it_follows_the_free_memory_and_what_is_useful() {
        let kv = CandleKv::default();
        assert_eq!(blocks(&kv, 1024, Some(1 << 30), 1 << 30).unwrap(), (1 << 18) / 16);
        assert_eq!(blocks(&kv, 1024, Some(1 << 30), 100).unwrap(), 7);
        assert_eq!(blocks(&kv, 1024, None, 100).unwrap(), 7);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(free_memory().is_some_and(|bytes| bytes > MIB));
    }
}

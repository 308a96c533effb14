//! What a step computes with: products with stored weights, attention over paged keys and values, and the pool of threads.
//!
//! All `unsafe` code of the models is in this folder. The order of every sum is fixed ([`scalar`]), so that a row's result is the
//! same to the bit whatever else is in the step.

#![expect(
    clippy::inline_always,
    reason = "a body is compiled once more for AVX2 only where it is inlined into a function with that feature"
)]
#![expect(clippy::needless_range_loop, reason = "loops over lanes of fixed length, which become vectors")]

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod mapped;
mod math;
mod matrix;
mod pool;
mod product;
mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub use attention::{Attention, Cells, Geometry};
pub use mapped::Mapped;
pub use math::{Activation, Norm, activate, add, gate, norm, rotate};
pub use matrix::{Activations, Bytes, GROUP, Kind, Matrix};
pub use pool::Pool;
pub use product::{Product, products};
pub use scalar::widen;

/// Which instructions are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The portable kernels; on aarch64 the compiler makes NEON of them.
    Portable,
    /// AVX2, FMA and F16C: only [`Level::best`] answers it, after asking the processor.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// These and AVX-512 F, BW, DQ, VL and VNNI: only [`Level::best`] answers it.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The fastest this processor has.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            let is_wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            return if is_wide { Self::Avx512 } else { Self::Avx2 };
        }
        Self::Portable
    }
}

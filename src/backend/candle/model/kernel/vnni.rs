//! Products of quantised rows with AVX-512 and its products of bytes. [`super::scalar`] says what is computed and in which order:
//! a vector holds a group, or the eight lanes of its sums, of two rows of weights.
//!
//! Weights are taken as unsigned bytes. `Q8_0` has signed ones, which are offset: what that adds to the sums depends on the
//! activation alone, and the sums begin with its negative. A tile is eight rows by up to four activations.

#![expect(
    unsafe_code,
    reason = "vector loads; every pointer is derived from a slice whose length is asserted in `avx512::chunk`"
)]

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_add_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_storeu_ps, _mm512_add_epi32, _mm512_and_si512, _mm512_broadcast_f32x8,
    _mm512_broadcast_i64x2, _mm512_broadcast_i64x4, _mm512_castps256_ps512, _mm512_castsi256_si512,
    _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_insertf32x8, _mm512_inserti64x4, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_add_epi32,
    _mm512_mask_broadcast_i64x2, _mm512_mask_i32gather_epi32, _mm512_mul_ps, _mm512_mullo_epi32,
    _mm512_permutexvar_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32,
    _mm512_setr_epi64, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_srli_epi16, _mm512_srli_epi32,
    _mm512_srlv_epi64, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_epi32, _mm512_xor_si512,
};
use std::mem::MaybeUninit;
use std::ops::Range;

use super::avx2::{self, KEPT, PANEL, Q4_0, Q4_1, Q8_0};
use super::avx512::{PAIRS, TILE, reduce};
use super::matrix::{Activations, GROUP, Matrix, RUN};
use super::product::Out;

/// Activations in a tile.
const WIDTH: usize = 4;

/// With fewer activations, weights are unpacked where they are used.
const LEAST: usize = 3;

/// The rows of a tile, unpacked, with their scales and minima: the vectors of all pairs of rows, of a group or of a run of
/// groups, one after another.
#[repr(align(64))]
struct Kept {
    bytes: [MaybeUninit<u8>; KEPT * GROUP * TILE],
    scales: [MaybeUninit<f32>; KEPT * TILE],
    minima: [MaybeUninit<f32>; KEPT * TILE],
}

/// What a tile is computed from.
struct Tile<'a> {
    w: [*const u8; TILE],
    input: &'a Activations,
    kept: Option<&'a Kept>,
    /// Bytes to the rows that are asked for, or none are.
    ahead: Option<usize>,
}

/// Writes the products of whole tiles.
///
/// # Safety
/// The processor has AVX2, FMA, F16C and AVX-512 F, BW, DQ, VL and VNNI; `avx512::chunk` has checked the bounds.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[expect(
    clippy::large_stack_arrays,
    reason = "the longest rows that are kept; nothing is written before it is needed"
)]
pub unsafe fn quants<const KIND: u8>(
    matrix: &Matrix,
    rows: Range<usize>,
    input: &Activations,
    out: &Out<'_>,
) {
    let (size, groups) = (matrix.row_size(), input.cols / GROUP);
    let weights = matrix.bytes().as_ptr();
    let mut kept = Kept {
        bytes: [MaybeUninit::uninit(); KEPT * GROUP * TILE],
        scales: [MaybeUninit::uninit(); KEPT * TILE],
        minima: [MaybeUninit::uninit(); KEPT * TILE],
    };
    for first in (0..input.rows).step_by(PANEL) {
        let end = input.rows.min(first + PANEL);
        for row in rows.clone().step_by(TILE) {
            // SAFETY: `row + TILE <= matrix.rows()` and `c + C <= input.rows`; `groups <= KEPT` where they are kept.
            unsafe {
                let w: [*const u8; TILE] = std::array::from_fn(|r| weights.add((row + r) * size));
                let keeps = end - first >= LEAST && groups <= KEPT;
                if keeps {
                    keep::<KIND>(w, groups, &mut kept);
                }
                let kept = keeps.then_some(&kept);
                let mut c = first;
                while c < end {
                    let left = end - c;
                    let take = left.div_ceil(left.div_ceil(WIDTH));
                    let ahead = (c == first).then_some(TILE * size);
                    let tile = Tile { w, input, kept, ahead };
                    let to = (out.at(c, row), out.stride());
                    match take {
                        1 => compute::<KIND, 1>(&tile, c, to),
                        2 => compute::<KIND, 2>(&tile, c, to),
                        3 => compute::<KIND, 3>(&tile, c, to),
                        _ => compute::<KIND, 4>(&tile, c, to),
                    }
                    c += take;
                }
            }
        }
    }
}

/// Bytes of a run of groups.
const fn run_size(kind: u8) -> usize {
    match kind {
        Q8_0 => 272,
        Q4_1 => 160,
        _ => 144,
    }
}

/// Group `at` of two rows, as unsigned bytes.
///
/// # Safety
/// The rows have at least `at + 1` groups in whole blocks.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn unpack<const KIND: u8>(a: *const u8, b: *const u8, at: usize) -> __m512i {
    // SAFETY: offsets stay below the size of the block that holds the group.
    unsafe {
        let both = |offset: usize| {
            let low = _mm512_castsi256_si512(_mm256_loadu_si256(a.add(offset).cast()));
            _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(b.add(offset).cast()))
        };
        let nibble = _mm512_set1_epi8(15);
        match KIND {
            Q8_0 => _mm512_xor_si512(both(at * 34 + 2), _mm512_set1_epi8(-128)),
            Q4_0 | Q4_1 => {
                let offset = if KIND == Q4_0 { at * 18 + 2 } else { at * 20 + 4 };
                let low = _mm512_broadcast_i64x2(_mm_loadu_si128(a.add(offset).cast()));
                let high = _mm_loadu_si128(b.add(offset).cast());
                let bytes = _mm512_mask_broadcast_i64x2(low, 0b1111_0000, high);
                let shifts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
                _mm512_and_si512(_mm512_srlv_epi64(bytes, shifts), nibble)
            }
            _ => {
                let within = at % 8;
                let bytes = both(at / 8 * 144 + 16 + within / 2 * 32);
                let bytes = if within.is_multiple_of(2) { bytes } else { _mm512_srli_epi16::<4>(bytes) };
                _mm512_and_si512(bytes, nibble)
            }
        }
    }
}

/// Scales and minima of the groups `at..at + count` of two rows, at most [`RUN`]; what is beyond is zero.
///
/// # Safety
/// As `avx2::scales`, for both.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn scales<const KIND: u8>(a: *const u8, b: *const u8, at: usize, count: usize) -> (__m512, __m512) {
    let size = match KIND {
        Q8_0 => 34,
        Q4_0 => 18,
        Q4_1 => 20,
        _ => {
            // SAFETY: the caller's bound.
            let (of_a, of_b) =
                unsafe { (avx2::scales::<KIND>(a, at, count), avx2::scales::<KIND>(b, at, count)) };
            let both = |low, high| _mm512_insertf32x8::<1>(_mm512_castps256_ps512(low), high);
            return (both(of_a.0, of_b.0), both(of_a.1, of_b.1));
        }
    };
    let far = (b.addr() - a.addr()) as u32;
    let places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
    let places = _mm512_mullo_epi32(places, _mm512_set1_epi32(size));
    let places = _mm512_mask_add_epi32(places, 0xff00, places, _mm512_set1_epi32(far.cast_signed()));
    let there = ((1_u16 << count) - 1) * 0x0101;
    // SAFETY: four bytes at the beginning of each block, which has more; the rows are less than 2 GiB apart, by an assert of
    // `avx512::chunk`.
    let bits = unsafe {
        let from = a.add(at * size as usize).cast();
        _mm512_mask_i32gather_epi32::<1>(_mm512_setzero_si512(), there, places, from)
    };
    let scale = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(bits));
    let minimum = match KIND {
        Q8_0 => _mm512_setzero_ps(),
        Q4_0 => _mm512_mul_ps(scale, _mm512_set1_ps(-8.0)),
        _ => _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(bits))),
    };
    (scale, minimum)
}

/// Fills what is kept.
///
/// # Safety
/// Each `w` is a row of `groups` groups of `KIND`, at most [`KEPT`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn keep<const KIND: u8>(w: [*const u8; TILE], groups: usize, kept: &mut Kept) {
    let bytes = kept.bytes.as_mut_ptr().cast::<u8>();
    let factors = (kept.scales.as_mut_ptr().cast::<f32>(), kept.minima.as_mut_ptr().cast::<f32>());
    // SAFETY: vectors of pairs of `groups` groups, and of as many scales in whole runs; `KEPT` is a multiple of `RUN`.
    unsafe {
        for first in (0..groups).step_by(RUN) {
            let count = RUN.min(groups - first);
            for p in 0..PAIRS {
                let (scale, minimum) = scales::<KIND>(w[p], w[p + PAIRS], first, count);
                _mm512_storeu_ps(factors.0.add(first * TILE + p * 16), scale);
                _mm512_storeu_ps(factors.1.add(first * TILE + p * 16), minimum);
            }
            for g in first..first + count {
                for p in 0..PAIRS {
                    let quants = unpack::<KIND>(w[p], w[p + PAIRS], g);
                    _mm512_storeu_si512(bytes.add((g * PAIRS + p) * 64).cast(), quants);
                }
            }
        }
    }
}

/// A tile of the activations `at..at + C`.
///
/// # Safety
/// The tile's rows have `input.cols` numbers of `KIND`; `at + C <= input.rows`; each of `C` outputs has room for a tile.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn compute<const KIND: u8, const C: usize>(tile: &Tile<'_>, at: usize, out: (*mut f32, usize)) {
    let input = tile.input;
    let (groups, stride) = (input.cols / GROUP, input.stride());
    let mut sums = [[_mm512_setzero_ps(); PAIRS]; C];
    let mut minima = [[_mm512_setzero_ps(); PAIRS]; C];
    // SAFETY: groups of every activation are below those of `input.rows`, whose arrays `chunk` checked; scales and sums are read
    // `RUN` at a time, and their stride is whole runs.
    unsafe {
        for first in (0..groups).step_by(RUN) {
            let count = RUN.min(groups - first);
            if let Some(ahead) = tile.ahead {
                for r in 0..TILE {
                    for line in (0..run_size(KIND)).step_by(64) {
                        let at = tile.w[r].wrapping_add(ahead + first / RUN * run_size(KIND) + line);
                        _mm_prefetch::<_MM_HINT_T0>(at.cast());
                    }
                }
            }
            let mut factors = [[[0.0_f32; 16]; PAIRS]; C];
            for p in 0..PAIRS {
                let (scale, minimum) = match tile.kept {
                    Some(kept) => (
                        _mm512_loadu_ps(kept.scales.as_ptr().add(first * TILE + p * 16).cast()),
                        _mm512_loadu_ps(kept.minima.as_ptr().add(first * TILE + p * 16).cast()),
                    ),
                    None => scales::<KIND>(tile.w[p], tile.w[p + PAIRS], first, count),
                };
                for c in 0..C {
                    let place = (at + c) * stride + first;
                    let eight =
                        |from: &[f32]| _mm512_broadcast_f32x8(_mm256_loadu_ps(from.as_ptr().add(place)));
                    _mm512_storeu_ps(factors[c][p].as_mut_ptr(), _mm512_mul_ps(scale, eight(&input.scales)));
                    if KIND != Q8_0 {
                        minima[c][p] = _mm512_fmadd_ps(minimum, eight(&input.sums), minima[c][p]);
                    }
                }
            }
            let one = _mm512_set1_epi32(1);
            let mut lane = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8, 8, 8, 8, 8);
            for g in first..first + count {
                let xs: [__m512i; C] = std::array::from_fn(|c| {
                    let from = input.bytes.as_ptr().add((at + c) * input.cols + g * GROUP);
                    _mm512_broadcast_i64x4(_mm256_loadu_si256(from.cast()))
                });
                let starts: [__m512i; C] = std::array::from_fn(|c| {
                    let zero = _mm512_setzero_si512();
                    if KIND != Q8_0 {
                        return zero;
                    }
                    _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(-128), xs[c]))
                });
                for p in 0..PAIRS {
                    let quants = match tile.kept {
                        Some(kept) => {
                            _mm512_loadu_si512(kept.bytes.as_ptr().add((g * PAIRS + p) * 64).cast())
                        }
                        None => unpack::<KIND>(tile.w[p], tile.w[p + PAIRS], g),
                    };
                    for c in 0..C {
                        let integers = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(starts[c], quants, xs[c]));
                        let factors = _mm512_loadu_ps(factors[c][p].as_ptr());
                        let factor = _mm512_permutexvar_ps(lane, factors);
                        sums[c][p] = _mm512_fmadd_ps(integers, factor, sums[c][p]);
                    }
                }
                lane = _mm512_add_epi32(lane, one);
            }
        }
        for c in 0..C {
            let mut total = reduce(sums[c]);
            if KIND != Q8_0 {
                total = _mm256_add_ps(total, reduce(minima[c]));
            }
            _mm256_storeu_ps(out.0.add(c * out.1), total);
        }
    }
}

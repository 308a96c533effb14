//! Matrix products with AVX2, FMA and F16C. [`super::scalar`] says what is computed and in which order.
//!
//! A tile is four rows of weights by up to three activations: the weights of a span lie in the first cache and are read once per
//! tile of activations, twelve sums hide the latency of the multiply-add.

#![expect(
    unsafe_code,
    reason = "vector loads; every pointer is derived from a slice whose length is asserted in `chunk`"
)]

use std::arch::x86_64::{
    __m128, __m256, __m256i, _MM_HINT_T0, _mm_add_ps, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtsi64_si128,
    _mm_cvtss_f32, _mm_loadu_si128, _mm_prefetch, _mm_set1_epi16, _mm_setzero_si128, _mm_srli_epi16,
    _mm_storeu_ps, _mm_unpacklo_epi16, _mm_unpacklo_epi32, _mm_unpacklo_epi64, _mm256_abs_epi8,
    _mm256_and_si256, _mm256_castps256_ps128, _mm256_castsi128_si256, _mm256_castsi256_ps,
    _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_extractf128_ps,
    _mm256_fmadd_ps, _mm256_hadd_ps, _mm256_inserti128_si256, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_or_si256, _mm256_set_m128i,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_ps, _mm256_setzero_ps, _mm256_sign_epi8,
    _mm256_slli_epi16, _mm256_slli_epi32, _mm256_srli_epi16, _mm256_storeu_ps, _mm256_sub_epi8,
    _mm256_xor_ps,
};
use std::mem::MaybeUninit;
use std::ops::Range;

use super::matrix::{Activations, GROUP, Kind, Matrix, RUN};
use super::product::Out;
use super::scalar::SPAN;

pub(super) const F32: u8 = 0;
pub(super) const F16: u8 = 1;
pub(super) const BF16: u8 = 2;
pub(super) const Q8_0: u8 = 3;
pub(super) const Q4_0: u8 = 4;
pub(super) const Q4_1: u8 = 5;
pub(super) const Q4K: u8 = 6;
const Q6K: u8 = 7;

/// Weight rows in a tile.
const TILE: usize = 4;

/// The most activations that share one pass over the weights: their spans of 4 KiB fit in the second cache.
pub(super) const PANEL: usize = 129;

/// Writes the products of weight rows `rows` with every activation to `out`.
///
/// # Safety
/// The processor has AVX2, FMA and F16C.
pub unsafe fn chunk(matrix: &Matrix, rows: Range<usize>, input: &Activations, out: &Out<'_>) {
    assert!(rows.start <= rows.end && rows.end <= matrix.rows() && matrix.cols() == input.cols);
    assert!(input.values.len() >= input.rows * input.cols && out.fits(input.rows, &rows));
    if matrix.kind().quantised() {
        let factors = input.rows * input.stride();
        assert!(input.cols.is_multiple_of(matrix.kind().block()));
        assert!(input.bytes.len() >= input.rows * input.cols);
        assert!(input.scales.len() >= factors && input.sums.len() >= factors);
    }
    // SAFETY: the features are the caller's promise; the asserts are the bounds that the functions state.
    unsafe {
        match matrix.kind() {
            Kind::F32 => floats::<F32>(matrix, rows, input, out),
            Kind::F16 => floats::<F16>(matrix, rows, input, out),
            Kind::Bf16 => floats::<BF16>(matrix, rows, input, out),
            Kind::Q8_0 => quants::<Q8_0>(matrix, rows, input, out),
            Kind::Q4_0 => quants::<Q4_0>(matrix, rows, input, out),
            Kind::Q4_1 => quants::<Q4_1>(matrix, rows, input, out),
            Kind::Q4K => quants::<Q4K>(matrix, rows, input, out),
            Kind::Q6K => quants::<Q6K>(matrix, rows, input, out),
        }
    }
}

/// Asks for the cache line of `at`, which need not be in bounds: nothing is read.
///
/// Rows are short, so that the processor's own prefetching has hardly seen where a tile's rows go when they end; without this,
/// formats that take several instructions for a few bytes wait for memory most of the time.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn prefetch(at: *const u8) {
    _mm_prefetch::<_MM_HINT_T0>(at.cast());
}

/// Eight numbers. Reads 32 bytes (f32) or 16 (16-bit kinds) from `at`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn load<const KIND: u8>(at: *const u8) -> __m256 {
    // SAFETY: the caller's bound, above.
    unsafe {
        match KIND {
            F32 => _mm256_loadu_ps(at.cast()),
            F16 => _mm256_cvtph_ps(_mm_loadu_si128(at.cast())),
            _ => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(
                at.cast(),
            )))),
        }
    }
}

/// The sums of four vectors' lanes, in the order of [`super::scalar::reduce`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn reduce(a: __m256, b: __m256, c: __m256, d: __m256) -> __m128 {
    let pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs))
}

/// Eight numbers of `R` rows times those of `C` activations, added to the sums' lanes.
///
/// # Safety
/// Each `w` has `i + 8` numbers of `KIND`, each `x` has `i + 8` floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn eight<const KIND: u8, const R: usize, const C: usize>(
    w: [*const u8; R],
    x: [*const f32; C],
    i: usize,
    sums: &mut [[__m256; R]; C],
) {
    let size = if KIND == F32 { 4 } else { 2 };
    // SAFETY: the caller's bound.
    unsafe {
        let values: [__m256; C] = std::array::from_fn(|c| _mm256_loadu_ps(x[c].add(i)));
        for r in 0..R {
            let weights = load::<KIND>(w[r].add(i * size));
            for c in 0..C {
                sums[c][r] = _mm256_fmadd_ps(weights, values[c], sums[c][r]);
            }
        }
    }
}

/// Bytes between what is read and what is asked for: enough for the latency of memory, and so little that four rows of it leave
/// the first cache to what is computed with.
const DISTANCE: usize = 512;

/// Where to ask for weights when byte `at` of `len` is read: behind it in the same row, or, when that ends, at the place that is
/// read next, `ahead` bytes behind the row's beginning.
#[inline(always)]
fn near(at: usize, len: usize, ahead: usize) -> usize {
    let behind = at + DISTANCE;
    if behind < len { behind } else { behind - len + ahead }
}

/// `R` rows by `C` activations over `len` inputs, to `out` (added when `add`). With `AHEAD`, weights are asked for before they are
/// read; what lies `ahead` bytes behind these is read next.
///
/// # Safety
/// Each `w` has `len` numbers of `KIND`, each `x` has `len` floats, `out[c]` has room for `R` floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<const KIND: u8, const R: usize, const C: usize, const AHEAD: bool>(
    w: [*const u8; R],
    x: [*const f32; C],
    len: usize,
    out: [*mut f32; C],
    add: bool,
    ahead: usize,
) {
    let size = if KIND == F32 { 4 } else { 2 };
    let mut sums = [[_mm256_setzero_ps(); R]; C];
    // SAFETY: `i + 8 <= len`, then the rest through zero-padded copies of `len % 8` numbers.
    unsafe {
        let mut i = 0;
        while i + 16 <= len {
            if AHEAD {
                let behind = near(i * size, len * size, ahead);
                for r in 0..R {
                    prefetch(w[r].wrapping_add(behind));
                }
            }
            eight::<KIND, R, C>(w, x, i, &mut sums);
            eight::<KIND, R, C>(w, x, i + 8, &mut sums);
            i += 16;
        }
        if i + 8 <= len {
            eight::<KIND, R, C>(w, x, i, &mut sums);
            i += 8;
        }
        if i < len {
            let rest = len - i;
            for c in 0..C {
                let mut padded = [0.0_f32; 8];
                std::ptr::copy_nonoverlapping(x[c].add(i), padded.as_mut_ptr(), rest);
                let values = _mm256_loadu_ps(padded.as_ptr());
                for r in 0..R {
                    let mut padded = [0_u8; 32];
                    std::ptr::copy_nonoverlapping(w[r].add(i * size), padded.as_mut_ptr(), rest * size);
                    sums[c][r] = _mm256_fmadd_ps(load::<KIND>(padded.as_ptr()), values, sums[c][r]);
                }
            }
        }
        for c in 0..C {
            store::<R>(sums[c], None, out[c], add);
        }
    }
}

/// Reduces and writes (or adds) `R` sums, each the lanes of one vector and then those of another.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn store<const R: usize>(sums: [__m256; R], more: Option<[__m256; R]>, out: *mut f32, add: bool) {
    let zero = _mm256_setzero_ps();
    let reduced = |v: [__m256; R]| {
        if R == TILE { reduce(v[0], v[1], v[2], v[3]) } else { reduce(v[0], zero, zero, zero) }
    };
    let mut total = reduced(sums);
    if let Some(more) = more {
        total = _mm_add_ps(total, reduced(more));
    }
    // SAFETY: `out` has room for `R` floats, the caller's bound.
    unsafe {
        if R == TILE {
            let total = if add { _mm_add_ps(std::arch::x86_64::_mm_loadu_ps(out), total) } else { total };
            _mm_storeu_ps(out, total);
        } else {
            let total = _mm_cvtss_f32(total);
            *out = if add { *out + total } else { total };
        }
    }
}

/// The activations `from..to` against `R` weight rows over one span.
///
/// # Safety
/// As [`tile`], for every activation; `x` and `out` point to the first of them, `stride`s are floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn strip<const KIND: u8, const R: usize>(
    w: [*const u8; R],
    x: (*const f32, usize),
    count: usize,
    len: usize,
    out: (*mut f32, usize),
    add: bool,
    ahead: usize,
) {
    // SAFETY: `c + n <= count`.
    unsafe {
        let mut c = 0;
        while c < count {
            let xs = |i: usize| x.0.add((c + i) * x.1);
            let os = |i: usize| out.0.add((c + i) * out.1);
            let (x3, o3) = (|| [xs(0), xs(1), xs(2)], || [os(0), os(1), os(2)]);
            match (count - c, c == 0 && ahead > 0) {
                (1, true) => tile::<KIND, R, 1, true>(w, [xs(0)], len, [os(0)], add, ahead),
                (1, false) => tile::<KIND, R, 1, false>(w, [xs(0)], len, [os(0)], add, ahead),
                (2 | 4, true) => {
                    tile::<KIND, R, 2, true>(w, [xs(0), xs(1)], len, [os(0), os(1)], add, ahead);
                }
                (2 | 4, false) => {
                    tile::<KIND, R, 2, false>(w, [xs(0), xs(1)], len, [os(0), os(1)], add, ahead);
                }
                (_, true) => tile::<KIND, R, 3, true>(w, x3(), len, o3(), add, ahead),
                (_, false) => tile::<KIND, R, 3, false>(w, x3(), len, o3(), add, ahead),
            }
            c += match count - c {
                1 => 1,
                2 | 4 => 2,
                _ => 3,
            };
        }
    }
}

/// One tile of weight rows over one span, widened to f32 first where several activations share it.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn span<const KIND: u8, const R: usize>(
    w: [*const u8; R],
    x: (*const f32, usize),
    count: usize,
    len: usize,
    out: (*mut f32, usize),
    add: bool,
    ahead: usize,
) {
    // SAFETY: `len <= SPAN`; widening writes whole vectors below `len` and single numbers for the rest.
    unsafe {
        if KIND == F32 || count <= 10 {
            return strip::<KIND, R>(w, x, count, len, out, add, ahead);
        }
        let mut wide = [[MaybeUninit::<f32>::uninit(); SPAN]; R];
        for r in 0..R {
            let to = wide[r].as_mut_ptr().cast::<f32>();
            let mut i = 0;
            while i + 8 <= len {
                if ahead > 0 && i.is_multiple_of(32) {
                    prefetch(w[r].wrapping_add(near(i * 2, len * 2, ahead)));
                }
                _mm256_storeu_ps(to.add(i), load::<KIND>(w[r].add(i * 2)));
                i += 8;
            }
            let mut rest = [0_u8; 32];
            std::ptr::copy_nonoverlapping(w[r].add(i * 2), rest.as_mut_ptr(), (len - i) * 2);
            let mut last = [0.0_f32; 8];
            _mm256_storeu_ps(last.as_mut_ptr(), load::<KIND>(rest.as_ptr()));
            std::ptr::copy_nonoverlapping(last.as_ptr(), to.add(i), len - i);
        }
        strip::<F32, R>(std::array::from_fn(|r| wide[r].as_ptr().cast()), x, count, len, out, add, 0);
    }
}

/// Activations that share one pass over the weights: whole tiles, in parts of about one size.
fn panel(rows: usize) -> usize {
    rows.div_ceil(rows.div_ceil(PANEL)).next_multiple_of(3)
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn floats<const KIND: u8>(matrix: &Matrix, rows: Range<usize>, input: &Activations, out: &Out<'_>) {
    let (cols, size) = (input.cols, matrix.row_size());
    let weights = matrix.bytes().as_ptr();
    let number = if KIND == F32 { 4 } else { 2 };
    // SAFETY: `row < matrix.rows()` and `from + len <= cols`, so every row's span lies in `bytes` (whose length `Matrix::new`
    // checked); `first + count <= input.rows` for activations and outputs.
    let one = |row: usize, first: usize, count: usize, from: usize| unsafe {
        let len = SPAN.min(cols - from);
        let x = (input.values.as_ptr().add(first * cols + from), cols);
        let o = (out.at(first, row), out.stride());
        let w = |r: usize| weights.add((row + r) * size + from * number);
        // The next span of these rows, or the first of the next ones.
        let ahead = if input.rows > 16 {
            0
        } else if from + len < cols {
            SPAN * number
        } else {
            TILE * size - from * number
        };
        if row + TILE <= rows.end {
            span::<KIND, TILE>([w(0), w(1), w(2), w(3)], x, count, len, o, from > 0, ahead);
            TILE
        } else {
            span::<KIND, 1>([w(0)], x, count, len, o, from > 0, ahead);
            1
        }
    };
    if input.rows <= 16 {
        let mut row = rows.start;
        while row < rows.end {
            let mut step = 1;
            for from in (0..cols).step_by(SPAN) {
                step = one(row, 0, input.rows, from);
            }
            row += step;
        }
    } else {
        // Spans go outermost, so that a panel's span of activations stays in the second cache for all rows of the chunk.
        let panel = panel(input.rows);
        for first in (0..input.rows).step_by(panel) {
            let count = panel.min(input.rows - first);
            for from in (0..cols).step_by(SPAN) {
                let mut row = rows.start;
                while row < rows.end {
                    row += one(row, first, count, from);
                }
            }
        }
    }
}

/// An f16 as f32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn half(at: *const u8) -> f32 {
    // SAFETY: two bytes are read, the caller's bound.
    let bits = unsafe { at.cast::<u16>().read_unaligned() };
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
}

/// `count` f16 numbers, `stride` bytes apart, as f32; the rest of eight is zero.
///
/// # Safety
/// Two bytes can be read at each.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn halves(at: *const u8, stride: usize, count: usize) -> __m256 {
    // SAFETY: the caller's bound.
    let one = |i: usize| {
        if i < count {
            let bits = unsafe { at.add(i * stride).cast::<u16>().read_unaligned() };
            _mm_cvtsi32_si128(i32::from(bits))
        } else {
            _mm_setzero_si128()
        }
    };
    let two = |i: usize| _mm_unpacklo_epi16(one(i), one(i + 1));
    let four = |i: usize| _mm_unpacklo_epi32(two(i), two(i + 2));
    _mm256_cvtph_ps(_mm_unpacklo_epi64(four(0), four(4)))
}

/// Scales and minima of the groups `at..at + count`, at most [`RUN`]; those of [`super::scalar::group`], to the bit. What is beyond
/// `count` is zero.
///
/// # Safety
/// The row has at least `at + count` groups in whole blocks; of formats with blocks of 256 numbers, `at` begins one.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn scales<const KIND: u8>(row: *const u8, at: usize, count: usize) -> (__m256, __m256) {
    let zero = _mm256_setzero_ps();
    // SAFETY: offsets stay below the size of the block.
    unsafe {
        match KIND {
            Q8_0 => (halves(row.add(at * 34), 34, count), zero),
            Q4_0 => {
                let scale = halves(row.add(at * 18), 18, count);
                (scale, _mm256_mul_ps(scale, _mm256_set1_ps(-8.0)))
            }
            Q4_1 => (halves(row.add(at * 20), 20, count), halves(row.add(at * 20 + 2), 20, count)),
            Q4K => {
                let block = row.add(at / 8 * 144);
                // Eight 6-bit scales and eight minima in 12 bytes: the first four of both are the lower six bits of bytes 0 to 3
                // and 4 to 7, whose upper two bits belong to the last four, of which bytes 8 to 11 have the lower four.
                let word = |at: usize| block.add(4 + at).cast::<u32>().read_unaligned();
                let (first, second, third) = (word(0), word(4), word(8));
                let six = 0x3f3f_3f3f;
                let late_scale = (third & 0x0f0f_0f0f) | ((first >> 6 & 0x0303_0303) << 4);
                let late_minimum = (third >> 4 & 0x0f0f_0f0f) | ((second >> 6 & 0x0303_0303) << 4);
                let wide = |early: u32, late: u32| {
                    let bytes = (u64::from(early & six) | (u64::from(late) << 32)).cast_signed();
                    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes)))
                };
                let by = |at: usize| _mm256_set1_ps(half(block.add(at)));
                let minima = _mm256_mul_ps(by(2), wide(second, late_minimum));
                let negative = _mm256_xor_ps(minima, _mm256_set1_ps(-0.0));
                (_mm256_mul_ps(by(0), wide(first, late_scale)), negative)
            }
            _ => (_mm256_set1_ps(half(row.add(at / 8 * 210 + 208))), zero),
        }
    }
}

/// The 32 numbers of group `at` of a row, and a factor for each half where the format has one.
///
/// # Safety
/// The row has at least `at + 1` groups in whole blocks.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn group<const KIND: u8>(row: *const u8, at: usize) -> (__m256i, __m256i) {
    let ones = _mm256_set1_epi16(1);
    let nibble = _mm256_set1_epi8(15);
    // SAFETY: offsets stay below the size of the block that holds the group.
    unsafe {
        match KIND {
            Q8_0 => (_mm256_loadu_si256(row.add(at * 34 + 2).cast()), ones),
            Q4_0 | Q4_1 => {
                let (size, skip) = if KIND == Q4_0 { (18, 2) } else { (20, 4) };
                let bytes = _mm_loadu_si128(row.add(at * size + skip).cast());
                let both = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
                (_mm256_and_si256(both, nibble), ones)
            }
            Q4K => {
                let within = at % 8;
                let bytes = _mm256_loadu_si256(row.add(at / 8 * 144 + 16 + within / 2 * 32).cast());
                let bytes = if within.is_multiple_of(2) { bytes } else { _mm256_srli_epi16::<4>(bytes) };
                (_mm256_and_si256(bytes, nibble), ones)
            }
            _ => {
                let block = row.add(at / 8 * 210);
                let (part, quarter) = (at % 8 / 4, at % 4);
                let low = _mm256_loadu_si256(block.add(part * 64 + quarter % 2 * 32).cast());
                let low = if quarter < 2 { low } else { _mm256_srli_epi16::<4>(low) };
                let high = _mm256_loadu_si256(block.add(128 + part * 32).cast());
                // The two upper bits end up at bit 4 and 5 of their byte.
                let high = match quarter {
                    0 => _mm256_slli_epi16::<4>(high),
                    1 => _mm256_slli_epi16::<2>(high),
                    2 => high,
                    _ => _mm256_srli_epi16::<2>(high),
                };
                let high = _mm256_and_si256(high, _mm256_set1_epi8(0x30));
                let six = _mm256_or_si256(_mm256_and_si256(low, nibble), high);
                let factors = block.add(192 + at % 8 * 2).cast::<i8>();
                let first = _mm_set1_epi16(i16::from(*factors));
                let second = _mm_set1_epi16(i16::from(*factors.add(1)));
                let lanes = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(first), second);
                (_mm256_sub_epi8(six, _mm256_set1_epi8(32)), lanes)
            }
        }
    }
}

/// Groups of a row whose scales are kept while several activations are multiplied with it: 16,384 inputs.
pub(super) const KEPT: usize = 512;

/// Scales and minima of the groups of a tile's rows.
type Kept = [[[MaybeUninit<f32>; KEPT]; 2]; TILE];

/// Fills what is kept of `R` rows.
///
/// # Safety
/// Each `w` is a row of `groups` groups of `KIND`, at most [`KEPT`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn keep<const KIND: u8, const R: usize>(w: [*const u8; R], groups: usize, kept: &mut Kept) {
    // SAFETY: `first + RUN <= KEPT`, which is a multiple of `RUN`.
    unsafe {
        for first in (0..groups).step_by(RUN) {
            for r in 0..R {
                let (scale, minimum) = scales::<KIND>(w[r], first, RUN.min(groups - first));
                _mm256_storeu_ps(kept[r][0].as_mut_ptr().add(first).cast(), scale);
                _mm256_storeu_ps(kept[r][1].as_mut_ptr().add(first).cast(), minimum);
            }
        }
    }
}

/// `R` quantised rows by the activations `at..at + C`. With `AHEAD`, the rows behind these are asked for, because they are read
/// next.
///
/// # Safety
/// Each `w` is a row of `input.cols` numbers of `KIND`; `at + C <= input.rows`; `out[c]` has room for `R` floats; `kept` is filled
/// for these rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn quant_tile<const KIND: u8, const R: usize, const C: usize, const AHEAD: bool>(
    w: [*const u8; R],
    input: &Activations,
    at: usize,
    out: [*mut f32; C],
    size: usize,
    kept: Option<&Kept>,
) {
    let (groups, stride) = (input.cols / GROUP, input.stride());
    let signed = KIND == Q8_0 || KIND == Q6K;
    // Bytes of eight groups.
    let block = match KIND {
        Q8_0 => 272,
        Q4_0 | Q4K => 144,
        Q4_1 => 160,
        _ => 210,
    };
    let mut sums = [[_mm256_setzero_ps(); R]; C];
    let mut minima = [[_mm256_setzero_ps(); R]; C];
    // SAFETY: groups of every activation are below those of `input.rows`, whose arrays `chunk` checked; scales and sums are read
    // `RUN` at a time, and their stride is whole runs.
    unsafe {
        let bytes: [*const i8; C] =
            std::array::from_fn(|c| input.bytes.as_ptr().add((at + c) * groups * GROUP));
        let factors: [*const f32; C] = std::array::from_fn(|c| input.scales.as_ptr().add((at + c) * stride));
        let totals: [*const f32; C] = std::array::from_fn(|c| input.sums.as_ptr().add((at + c) * stride));
        for first in (0..groups).step_by(RUN) {
            let count = if groups - first >= RUN { RUN } else { groups - first };
            if AHEAD {
                for r in 0..R {
                    for line in (0..block).step_by(64) {
                        prefetch(w[r].wrapping_add(R * size + first / RUN * block + line));
                    }
                }
            }
            // What a group's integers are multiplied with, for each pair of a row and an activation: read from memory below, which
            // costs less than to compute it between the integers.
            let mut factor = [[[0.0_f32; RUN]; R]; C];
            for r in 0..R {
                let (scale, minimum) = match kept {
                    Some(kept) => (
                        _mm256_loadu_ps(kept[r][0].as_ptr().add(first).cast()),
                        _mm256_loadu_ps(kept[r][1].as_ptr().add(first).cast()),
                    ),
                    None => scales::<KIND>(w[r], first, count),
                };
                for c in 0..C {
                    let both = _mm256_mul_ps(scale, _mm256_loadu_ps(factors[c].add(first)));
                    _mm256_storeu_ps(factor[c][r].as_mut_ptr(), both);
                    if !signed {
                        let totals = _mm256_loadu_ps(totals[c].add(first));
                        minima[c][r] = _mm256_fmadd_ps(minimum, totals, minima[c][r]);
                    }
                }
            }
            for g in 0..count {
                let xs: [__m256i; C] =
                    std::array::from_fn(|c| _mm256_loadu_si256(bytes[c].add((first + g) * GROUP).cast()));
                for r in 0..R {
                    let (quants, lanes) = group::<KIND>(w[r], first + g);
                    let absolute = if signed { _mm256_abs_epi8(quants) } else { quants };
                    for c in 0..C {
                        let x = if signed { _mm256_sign_epi8(xs[c], quants) } else { xs[c] };
                        let pairs = _mm256_maddubs_epi16(absolute, x);
                        let integers = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, lanes));
                        let scale = _mm256_set1_ps(factor[c][r][g]);
                        sums[c][r] = _mm256_fmadd_ps(integers, scale, sums[c][r]);
                    }
                }
            }
        }
        for c in 0..C {
            store::<R>(sums[c], (!signed).then_some(minima[c]), out[c], false);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn quants<const KIND: u8>(matrix: &Matrix, rows: Range<usize>, input: &Activations, out: &Out<'_>) {
    let size = matrix.row_size();
    let weights = matrix.bytes().as_ptr();
    let groups = input.cols / GROUP;
    let mut kept: Kept = [[[MaybeUninit::uninit(); KEPT]; 2]; TILE];
    for first in (0..input.rows).step_by(PANEL) {
        let end = input.rows.min(first + PANEL);
        let mut row = rows.start;
        while row < rows.end {
            // SAFETY: `row + R <= matrix.rows()` and `c + C <= input.rows`.
            unsafe {
                let w = |r: usize| weights.add((row + r) * size);
                if row + TILE <= rows.end {
                    let w = [w(0), w(1), w(2), w(3)];
                    let keeps = end - first > 2 && groups <= KEPT;
                    if keeps {
                        keep::<KIND, TILE>(w, groups, &mut kept);
                    }
                    let kept = keeps.then_some(&kept);
                    for c in (first..end).step_by(2) {
                        let (o, one) = (|i: usize| out.at(c + i, row), end - c == 1);
                        match (one, c == first) {
                            (true, true) => {
                                quant_tile::<KIND, TILE, 1, true>(w, input, c, [o(0)], size, kept);
                            }
                            (true, _) => quant_tile::<KIND, TILE, 1, false>(w, input, c, [o(0)], size, kept),
                            (_, true) => {
                                quant_tile::<KIND, TILE, 2, true>(w, input, c, [o(0), o(1)], size, kept);
                            }
                            _ => quant_tile::<KIND, TILE, 2, false>(w, input, c, [o(0), o(1)], size, kept),
                        }
                    }
                    row += TILE;
                } else {
                    for c in first..end {
                        quant_tile::<KIND, 1, 1, false>([w(0)], input, c, [out.at(c, row)], size, None);
                    }
                    row += 1;
                }
            }
        }
    }
}

//! Matrix products with AVX-512, of steps with several rows: one row waits for memory, and AVX2 is enough for that.
//! [`super::scalar`] says what is computed and in which order: a vector of sixteen holds the eight lanes of two rows of weights.
//!
//! A tile is eight rows of weights by up to six activations. The rows' span is laid out in vectors first, in the first cache:
//! twenty-four sums hide the latency of the multiply-add, and each is fed by one load in memory order.

#![expect(
    unsafe_code,
    reason = "vector loads; every pointer is derived from a slice whose length is asserted in `chunk`"
)]

use std::arch::x86_64::{
    __m256, __m512, _MM_HINT_T1, _mm_prefetch, _mm256_add_ps, _mm256_loadu_ps, _mm256_storeu_ps,
    _mm512_add_ps, _mm512_broadcast_f32x8, _mm512_castps256_ps512, _mm512_castps512_ps256, _mm512_fmadd_ps,
    _mm512_insertf32x8, _mm512_loadu_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_shuffle_ps,
};
use std::mem::MaybeUninit;
use std::ops::Range;

use super::avx2::{self, BF16, F16, F32, PANEL, Q4_0, Q4_1, Q4K, Q8_0};
use super::matrix::{Activations, Kind, Matrix};
use super::product::Out;
use super::scalar::SPAN;
use super::vnni::quants;

/// Weight rows in a tile.
pub(super) const TILE: usize = 8;

/// Vectors of two rows in a tile: row `p` and row `p + 4`.
pub(super) const PAIRS: usize = TILE / 2;

/// Activations in a tile.
const WIDTH: usize = 6;

/// Rows of a step that are computed before the next weights are read.
const SKINNY: usize = 16;

/// With fewer rows, memory is what takes time.
const LEAST: usize = 3;

/// The span of a tile's rows as f32: of each eight numbers the pairs one after another.
#[repr(align(64))]
struct Wide([MaybeUninit<f32>; TILE * SPAN]);

/// Writes the products of weight rows `rows` with every activation to `out`.
///
/// # Safety
/// The processor has AVX2, FMA, F16C and AVX-512 F, BW, DQ, VL and VNNI.
pub unsafe fn chunk(matrix: &Matrix, rows: Range<usize>, input: &Activations, out: &Out<'_>) {
    assert!(rows.start <= rows.end && rows.end <= matrix.rows() && matrix.cols() == input.cols);
    assert!(input.values.len() >= input.rows * input.cols && out.fits(input.rows, &rows));
    if matrix.kind().quantised() {
        let factors = input.rows * input.stride();
        assert!(
            input.cols.is_multiple_of(matrix.kind().block()) && input.bytes.len() >= input.rows * input.cols
        );
        assert!(input.scales.len() >= factors && input.sums.len() >= factors);
        assert!(matrix.row_size() < 1 << 28);
    }
    let is_float_alone = !matrix.kind().quantised() && (input.rows < LEAST || !input.cols.is_multiple_of(8));
    let tiles = rows.len() / TILE * TILE;
    let tiles = if is_float_alone || matrix.kind() == Kind::Q6K { 0 } else { tiles };
    let (whole, rest) = (rows.start..rows.start + tiles, rows.start + tiles..rows.end);
    // SAFETY: the features are the caller's promise; the asserts are the bounds that the functions state.
    unsafe {
        match matrix.kind() {
            Kind::F32 => floats::<F32>(matrix, whole, input, out),
            Kind::F16 => floats::<F16>(matrix, whole, input, out),
            Kind::Bf16 => floats::<BF16>(matrix, whole, input, out),
            Kind::Q8_0 => quants::<Q8_0>(matrix, whole, input, out),
            Kind::Q4_0 => quants::<Q4_0>(matrix, whole, input, out),
            Kind::Q4_1 => quants::<Q4_1>(matrix, whole, input, out),
            Kind::Q4K => quants::<Q4K>(matrix, whole, input, out),
            Kind::Q6K => {}
        }
        avx2::chunk(matrix, rest, input, out);
    }
}

/// Stands for the kind of rows that were laid out by [`spread`].
const WIDE: u8 = 255;

/// What is read after the tile that is computed, and asked for meanwhile: the rows of the next one, from front to back.
struct Ahead {
    at: *const u8,
    /// Cache lines that are left, and how many are asked for in each step of eight numbers.
    lines: usize,
    each: usize,
}

impl Ahead {
    #[inline(always)]
    fn ask(&mut self) {
        let count = self.each.min(self.lines);
        for _ in 0..count {
            // SAFETY: nothing is read.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(self.at.cast()) };
            self.at = self.at.wrapping_add(64);
        }
        self.lines -= count;
    }
}

/// Whole tiles.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq")]
#[expect(clippy::large_stack_arrays, reason = "a tile, which is written before it is read")]
unsafe fn floats<const KIND: u8>(matrix: &Matrix, rows: Range<usize>, input: &Activations, out: &Out<'_>) {
    let (cols, size) = (input.cols, matrix.row_size());
    let weights = matrix.bytes().as_ptr();
    let number = if KIND == F32 { 4 } else { 2 };
    let mut wide = Wide([MaybeUninit::uninit(); TILE * SPAN]);
    let strips = input.rows.div_ceil(WIDTH);
    // What is used once need not be laid out, and f32 is as it has to be.
    let spreads = input.rows > SKINNY || (KIND != F32 && strips > 1);
    // SAFETY: `row + TILE <= matrix.rows()` and `from + len <= cols`, so every row's span lies in `bytes` (whose length
    // `Matrix::new` checked); `first + count <= input.rows` for activations and outputs.
    let mut one = |row: usize, first: usize, count: usize, from: usize, ahead: &mut Ahead| unsafe {
        let len = SPAN.min(cols - from);
        let w: [*const u8; TILE] = std::array::from_fn(|r| weights.add((row + r) * size + from * number));
        let x = (input.values.as_ptr().add(first * cols + from), cols);
        let out = (out.at(first, row), out.stride());
        if spreads {
            spread::<KIND>(w, len, &mut wide);
            let wide = [wide.0.as_ptr().cast(); TILE];
            strip::<WIDE>(wide, x, count, len / 8, out, from > 0, ahead);
        } else {
            strip::<KIND>(w, x, count, len / 8, out, from > 0, ahead);
        }
    };
    if input.rows <= SKINNY {
        for row in rows.step_by(TILE) {
            let next = weights.wrapping_add((row + TILE) * size);
            let mut ahead = Ahead { at: next, lines: TILE * size / 64, each: number.div_ceil(strips) };
            for from in (0..cols).step_by(SPAN) {
                one(row, 0, input.rows, from, &mut ahead);
            }
        }
    } else {
        let mut ahead = Ahead { at: weights, lines: 0, each: 0 };
        // Spans go outermost, so that a panel's span of activations stays in the second cache for all rows of the chunk.
        let panel = panel(input.rows);
        for first in (0..input.rows).step_by(panel) {
            let count = panel.min(input.rows - first);
            for from in (0..cols).step_by(SPAN) {
                for row in rows.clone().step_by(TILE) {
                    one(row, first, count, from, &mut ahead);
                }
            }
        }
    }
}

/// Activations that share one pass over the weights: whole tiles, in parts of about one size.
fn panel(rows: usize) -> usize {
    rows.div_ceil(rows.div_ceil(PANEL)).next_multiple_of(WIDTH)
}

/// Lays out `len` numbers of each row, a multiple of eight, at most [`SPAN`].
///
/// # Safety
/// Each `w` has `len` numbers of `KIND`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq")]
unsafe fn spread<const KIND: u8>(w: [*const u8; TILE], len: usize, wide: &mut Wide) {
    let size = if KIND == F32 { 4 } else { 2 };
    let to = wide.0.as_mut_ptr().cast::<f32>();
    // SAFETY: `TILE` vectors of eight for each eight numbers, of which there are `SPAN / 8` at most.
    unsafe {
        for i in (0..len).step_by(8) {
            for r in 0..TILE {
                let at = i * TILE + (r % PAIRS * 2 + r / PAIRS) * 8;
                _mm256_storeu_ps(to.add(at), avx2::load::<KIND>(w[r].add(i * size)));
            }
        }
    }
}

/// The numbers `i * 8..i * 8 + 8` of all pairs of rows.
///
/// # Safety
/// Each `w` has so many numbers of `KIND`, or is where they are laid out.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq")]
unsafe fn pairs<const KIND: u8>(w: [*const u8; TILE], i: usize) -> [__m512; PAIRS] {
    let size = if KIND == F32 { 4 } else { 2 };
    // SAFETY: the caller's bound.
    std::array::from_fn(|p| unsafe {
        if KIND == WIDE {
            _mm512_loadu_ps(w[0].add((i * PAIRS + p) * 64).cast())
        } else {
            let half = |r: usize| avx2::load::<KIND>(w[r].add(i * 8 * size));
            _mm512_insertf32x8::<1>(_mm512_castps256_ps512(half(p)), half(p + PAIRS))
        }
    })
}

/// `count` activations by the rows of a tile over a span of `steps` times eight numbers, to `out` (added when `add`).
///
/// # Safety
/// As [`pairs`]; `x` and `out` point to the first activation and its outputs, and their strides are floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq")]
unsafe fn strip<const KIND: u8>(
    w: [*const u8; TILE],
    x: (*const f32, usize),
    count: usize,
    steps: usize,
    out: (*mut f32, usize),
    add: bool,
    ahead: &mut Ahead,
) {
    let mut c = 0;
    // SAFETY: `c + C <= count`.
    unsafe {
        while c < count {
            let x = (x.0.add(c * x.1), x.1);
            let out = (out.0.add(c * out.1), out.1);
            let left = count - c;
            // Ten are twice five, and so on: tiles of about one size.
            let take = left.div_ceil(left.div_ceil(WIDTH));
            match take {
                1 => tile::<KIND, 1>(w, x, steps, out, add, ahead),
                2 => tile::<KIND, 2>(w, x, steps, out, add, ahead),
                3 => tile::<KIND, 3>(w, x, steps, out, add, ahead),
                4 => tile::<KIND, 4>(w, x, steps, out, add, ahead),
                5 => tile::<KIND, 5>(w, x, steps, out, add, ahead),
                _ => tile::<KIND, 6>(w, x, steps, out, add, ahead),
            }
            c += take;
        }
    }
}

/// [`strip`] of `C` activations.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq")]
unsafe fn tile<const KIND: u8, const C: usize>(
    w: [*const u8; TILE],
    x: (*const f32, usize),
    steps: usize,
    out: (*mut f32, usize),
    add: bool,
    ahead: &mut Ahead,
) {
    let mut sums = [[_mm512_setzero_ps(); PAIRS]; C];
    // SAFETY: steps of `x` and `w` are below their lengths.
    unsafe {
        for i in 0..steps {
            ahead.ask();
            let weights = pairs::<KIND>(w, i);
            for c in 0..C {
                let values = _mm512_broadcast_f32x8(_mm256_loadu_ps(x.0.add(c * x.1 + i * 8)));
                for p in 0..PAIRS {
                    sums[c][p] = _mm512_fmadd_ps(weights[p], values, sums[c][p]);
                }
            }
        }
        for c in 0..C {
            let out = out.0.add(c * out.1);
            let mut total = reduce(sums[c]);
            if add {
                total = _mm256_add_ps(_mm256_loadu_ps(out), total);
            }
            _mm256_storeu_ps(out, total);
        }
    }
}

/// The sums of eight rows' lanes, in the order of [`super::scalar::reduce`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq")]
pub(super) fn reduce(v: [__m512; PAIRS]) -> __m256 {
    // Of each quarter of the lanes: sums of neighbours, of `a` and then of `b`.
    let pairs = |a: __m512, b: __m512| {
        _mm512_add_ps(_mm512_shuffle_ps::<0b10_00_10_00>(a, b), _mm512_shuffle_ps::<0b11_01_11_01>(a, b))
    };
    let fours = pairs(pairs(v[0], v[1]), pairs(v[2], v[3]));
    let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(fours, fours);
    let odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(fours, fours);
    _mm256_add_ps(_mm512_castps512_ps256(even), _mm512_castps512_ps256(odd))
}

//! Attention over paged keys and values.
//!
//! A block holds, for each head of keys and values, its keys as `[head, tokens]` and its values as `[tokens, head]`: scores of eight
//! tokens are then one multiply-add for each dimension of a head, without adding across lanes, and all query heads of a group use a
//! key while it is in registers.

#![expect(
    unsafe_code,
    reason = "threads write disjoint columns; calls of functions compiled for found instructions"
)]

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::math::{exp, fma};
use super::product::Out;
use super::scalar::reduce;
use super::{Level, Pool};

/// Keys or values of one layer.
pub enum Cells {
    /// As computed.
    Full(Vec<f32>),
    /// Rounded to f16.
    Half(Vec<u16>),
}

/// Shapes that keys and values share.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Query heads for each of them.
    pub group: usize,
    /// The length of a head; a multiple of 8.
    pub head: usize,
    /// Tokens of a block.
    pub block_tokens: usize,
}

impl Geometry {
    /// Tokens of a block as stored: whole vectors.
    pub fn padded(&self) -> usize {
        self.block_tokens.next_multiple_of(8)
    }

    /// Cells of one head in one block.
    fn cells(&self) -> usize {
        self.head * self.padded()
    }

    /// Cells of one block.
    pub fn block(&self) -> usize {
        self.kv_heads * self.cells()
    }
}

/// A stored number.
pub trait Cell: Copy + Sync {
    /// Rounds.
    fn store(value: f32) -> Self;
    /// Eight at once; `FAST` where F16C is there.
    fn load<const FAST: bool>(cells: &[Self; 8]) -> [f32; 8];
}

impl Cell for f32 {
    fn store(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn load<const FAST: bool>(cells: &[Self; 8]) -> [f32; 8] {
        *cells
    }
}

impl Cell for u16 {
    fn store(value: f32) -> Self {
        half::f16::from_f32(value).to_bits()
    }
    #[inline(always)]
    fn load<const FAST: bool>(cells: &[Self; 8]) -> [f32; 8] {
        #[cfg(target_arch = "x86_64")]
        if FAST {
            let mut wide = [0.0; 8];
            // SAFETY: `FAST` is set only inside functions compiled for F16C; 16 bytes are read, 32 written.
            unsafe {
                use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
                let bits = _mm_loadu_si128(cells.as_ptr().cast());
                _mm256_storeu_ps(wide.as_mut_ptr(), _mm256_cvtph_ps(bits));
            }
            return wide;
        }
        cells.map(|bits| half::f16::from_bits(bits).to_f32())
    }
}

/// Where a row's keys and values lie.
pub struct Attention<'a> {
    /// Shapes.
    pub geometry: Geometry,
    /// Block tables, by sequence.
    pub tables: &'a [&'a [u32]],
    /// Each row's sequence and the positions it attends to.
    pub spans: &'a [(u32, Range<usize>)],
}

impl Attention<'_> {
    /// Writes the keys and values of row `row` to its own position, the last it attends to.
    pub fn write(&self, keys: &mut Cells, values: &mut Cells, row: usize, key: &[f32], value: &[f32]) {
        match (keys, values) {
            (Cells::Full(keys), Cells::Full(values)) => self.put(keys, values, row, key, value),
            (Cells::Half(keys), Cells::Half(values)) => self.put(keys, values, row, key, value),
            _ => unreachable!("keys and values of a pool have one type"),
        }
    }

    fn put<T: Cell>(&self, keys: &mut [T], values: &mut [T], row: usize, key: &[f32], value: &[f32]) {
        let g = self.geometry;
        let (sequence, span) = &self.spans[row];
        let position = span.end - 1;
        let block = self.tables[*sequence as usize][position / g.block_tokens] as usize;
        let slot = position % g.block_tokens;
        for h in 0..g.kv_heads {
            let base = block * g.block() + h * g.cells();
            let keys = &mut keys[base..base + g.cells()];
            for (d, key) in key[h * g.head..(h + 1) * g.head].iter().enumerate() {
                keys[d * g.padded() + slot] = T::store(*key);
            }
            let values = &mut values[base + slot * g.head..][..g.head];
            values.iter_mut().zip(&value[h * g.head..]).for_each(|(c, v)| *c = T::store(*v));
        }
    }

    /// `out[row][head] = Σ softmax(q · k) v`, with `queries` `[rows, stride]` scaled already, `out` `[rows, heads × head]`.
    /// `scratch` has a buffer for each thread.
    pub fn attend(
        &self,
        pool: &mut Pool,
        level: Level,
        cells: (&Cells, &Cells),
        queries: (&[f32], usize),
        scratch: &[Mutex<Vec<f32>>],
        out: &mut [f32],
    ) {
        let g = self.geometry;
        let width = g.group * g.head;
        let out = Out::new(out, g.kv_heads * width, 0);
        let tasks = self.spans.len() * g.kv_heads;
        let next = AtomicUsize::new(0);
        pool.run(&|thread| {
            let mut scores = scratch[thread].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                // Long rows first: the last rows of a chunk see most.
                let (row, h) = (self.spans.len() - 1 - task / g.kv_heads, task % g.kv_heads);
                let query = &queries.0[row * queries.1 + h * width..][..width];
                // SAFETY: each task has columns of its own, and is handed out once.
                let out = unsafe { out.columns(row, h * width..(h + 1) * width) };
                match cells {
                    (Cells::Full(k), Cells::Full(v)) => {
                        self.dispatch(level, (k, v), row, h, query, &mut scores, out);
                    }
                    (Cells::Half(k), Cells::Half(v)) => {
                        self.dispatch(level, (k, v), row, h, query, &mut scores, out);
                    }
                    _ => unreachable!("keys and values of a pool have one type"),
                }
            }
        });
    }

    #[expect(clippy::too_many_arguments, reason = "one task of `attend`")]
    fn dispatch<T: Cell>(
        &self,
        level: Level,
        cells: (&[T], &[T]),
        row: usize,
        h: usize,
        query: &[f32],
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma,f16c")]
            fn fast<T: Cell>(
                attention: &Attention<'_>,
                cells: (&[T], &[T]),
                row: usize,
                h: usize,
                query: &[f32],
                scores: &mut Vec<f32>,
                out: &mut [f32],
            ) {
                attention.task::<T, true>(cells, row, h, query, scores, out);
            }
            if level == Level::Avx2 {
                // SAFETY: `Level::best` asked for the features.
                return unsafe { fast(self, cells, row, h, query, scores, out) };
            }
        }
        let _ = level;
        self.task::<T, false>(cells, row, h, query, scores, out);
    }

    /// One row and one head of keys and values.
    #[inline(always)]
    fn task<T: Cell, const FAST: bool>(
        &self,
        (keys, values): (&[T], &[T]),
        row: usize,
        h: usize,
        query: &[f32],
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let g = self.geometry;
        let padded = g.padded();
        let (sequence, span) = &self.spans[row];
        let (first, last) = (span.start / g.block_tokens, (span.end - 1) / g.block_tokens);
        let table = &self.tables[*sequence as usize][first..=last];
        let width = table.len() * padded;
        scores.clear();
        scores.resize(width * g.group, f32::NEG_INFINITY);
        let base = |block: u32| block as usize * g.block() + h * g.cells();
        // The slots of a block that are attended to.
        let slots = |at: usize| {
            let start = (first + at) * g.block_tokens;
            span.start.saturating_sub(start)..g.block_tokens.min(span.end - start)
        };
        for (at, block) in table.iter().enumerate() {
            let keys = &keys[base(*block)..][..g.cells()];
            let mut j = 0;
            while j < g.group {
                let take = (g.group - j).min(3);
                let queries = &query[j * g.head..];
                let mut into = |q: usize, lane: usize, sums: [f32; 8]| {
                    scores[(j + q) * width + at * padded + lane..][..8].copy_from_slice(&sums);
                };
                match take {
                    1 => score::<T, FAST, 1>(keys, padded, queries, g.head, &mut into),
                    2 => score::<T, FAST, 2>(keys, padded, queries, g.head, &mut into),
                    _ => score::<T, FAST, 3>(keys, padded, queries, g.head, &mut into),
                }
                j += take;
            }
            let slots = slots(at);
            for scores in scores.chunks_exact_mut(width) {
                let block = &mut scores[at * padded..(at + 1) * padded];
                block[..slots.start].fill(f32::NEG_INFINITY);
                block[slots.end..].fill(f32::NEG_INFINITY);
            }
        }
        for (scores, out) in scores.chunks_exact_mut(width).zip(out.chunks_exact_mut(g.head)) {
            let inverse = softmax::<FAST>(scores);
            weigh::<T, FAST>(
                &table.iter().enumerate().flat_map(|(at, block)| {
                    let base = base(*block);
                    slots(at).map(move |slot| (at * padded + slot, base + slot * g.head))
                }),
                scores,
                values,
                inverse,
                out,
            );
        }
    }
}

/// Scores of `Q` queries with all tokens of a block, eight tokens at a time. Even and odd dimensions are summed apart.
#[inline(always)]
fn score<T: Cell, const FAST: bool, const Q: usize>(
    keys: &[T],
    padded: usize,
    queries: &[f32],
    head: usize,
    into: &mut impl FnMut(usize, usize, [f32; 8]),
) {
    let queries: [&[f32]; Q] = std::array::from_fn(|q| &queries[q * head..(q + 1) * head]);
    for lane in (0..padded).step_by(8) {
        let mut sums = [[[0.0_f32; 8]; 2]; Q];
        for pair in 0..head / 2 {
            for odd in 0..2 {
                let d = pair * 2 + odd;
                let Some(keys) = keys[d * padded + lane..].first_chunk::<8>() else { return };
                let keys = T::load::<FAST>(keys);
                for q in 0..Q {
                    let query = queries[q][d];
                    for i in 0..8 {
                        sums[q][odd][i] = fma::<FAST>(query, keys[i], sums[q][odd][i]);
                    }
                }
            }
        }
        for (q, [even, odd]) in sums.into_iter().enumerate() {
            into(q, lane, std::array::from_fn(|i| even[i] + odd[i]));
        }
    }
}

/// Replaces scores by `e^(score - largest)` and answers the inverse of their sum. The length is a multiple of 8.
#[inline(always)]
fn softmax<const FAST: bool>(scores: &mut [f32]) -> f32 {
    let (chunks, _) = scores.as_chunks_mut::<8>();
    let mut largest = [f32::NEG_INFINITY; 8];
    for chunk in chunks.iter() {
        for i in 0..8 {
            largest[i] = if chunk[i] > largest[i] { chunk[i] } else { largest[i] };
        }
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; 8];
    for chunk in chunks {
        for i in 0..8 {
            // What is masked counts nothing, exactly.
            let masked = chunk[i] == f32::NEG_INFINITY;
            let e = exp::<FAST>(chunk[i] - largest);
            chunk[i] = if masked { 0.0 } else { e };
            sums[i] += chunk[i];
        }
    }
    1.0 / reduce(sums)
}

/// `out = inverse × Σ weight × value`, over (index of the weight, offset of the value).
#[inline(always)]
fn weigh<T: Cell, const FAST: bool>(
    places: &(impl Iterator<Item = (usize, usize)> + Clone),
    weights: &[f32],
    values: &[T],
    inverse: f32,
    out: &mut [f32],
) {
    let mut d = 0;
    while d < out.len() {
        if out.len() - d >= 64 {
            weighed::<T, FAST, 8>(places.clone(), weights, values, inverse, d, out);
            d += 64;
        } else if out.len() - d >= 32 {
            weighed::<T, FAST, 4>(places.clone(), weights, values, inverse, d, out);
            d += 32;
        } else {
            weighed::<T, FAST, 1>(places.clone(), weights, values, inverse, d, out);
            d += 8;
        }
    }
}

/// `V` vectors of eight dimensions from `d`.
#[inline(always)]
fn weighed<T: Cell, const FAST: bool, const V: usize>(
    places: impl Iterator<Item = (usize, usize)>,
    weights: &[f32],
    values: &[T],
    inverse: f32,
    d: usize,
    out: &mut [f32],
) {
    let mut sums = [[0.0_f32; 8]; V];
    for (index, offset) in places {
        let weight = weights[index];
        let (values, _) = values[offset + d..][..V * 8].as_chunks::<8>();
        for v in 0..V {
            let values = T::load::<FAST>(&values[v]);
            for i in 0..8 {
                sums[v][i] = fma::<FAST>(weight, values[i], sums[v][i]);
            }
        }
    }
    let (out, _) = out[d..][..V * 8].as_chunks_mut::<8>();
    for (out, sums) in out.iter_mut().zip(sums) {
        *out = sums.map(|s| s * inverse);
    }
}

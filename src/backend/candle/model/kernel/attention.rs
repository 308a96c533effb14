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
        let out = Out::new(out, g.kv_heads * g.group * g.head, 0);
        let tasks = self.spans.len().div_ceil(TOGETHER) * g.kv_heads;
        let next = AtomicUsize::new(0);
        pool.run(&|thread| {
            let mut scores = scratch[thread].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                // Long rows first: the last rows of a chunk see most.
                let (last, h) = ((tasks - 1 - task) / g.kv_heads, task % g.kv_heads);
                let end = self.spans.len().min((last + 1) * TOGETHER);
                let mut first = last * TOGETHER;
                while first < end {
                    // Each head of each row has columns of its own, and is handed out once.
                    let run = Run { rows: first..self.alike(first, end), h, queries, out: &out };
                    first = run.rows.end;
                    match cells {
                        (Cells::Full(k), Cells::Full(v)) => self.dispatch(level, (k, v), &run, &mut scores),
                        (Cells::Half(k), Cells::Half(v)) => self.dispatch(level, (k, v), &run, &mut scores),
                        _ => unreachable!("keys and values of a pool have one type"),
                    }
                }
            }
        });
    }

    /// The end of the rows from `first` on that follow one another in one sequence and see it from its beginning.
    fn alike(&self, first: usize, end: usize) -> usize {
        let follows = |row: usize| {
            let ((before, a), (sequence, b)) = (&self.spans[row - 1], &self.spans[row]);
            before == sequence && a.start == 0 && b.start == 0 && a.end + 1 == b.end
        };
        (first + 1..end).find(|row| !follows(*row)).unwrap_or(end)
    }

    fn dispatch<T: Cell>(&self, level: Level, cells: (&[T], &[T]), run: &Run<'_>, scores: &mut Vec<f32>) {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma,f16c")]
            fn fast<T: Cell>(
                attention: &Attention<'_>,
                cells: (&[T], &[T]),
                run: &Run<'_>,
                scores: &mut Vec<f32>,
            ) {
                attention.task::<T, true>(cells, run, scores);
            }
            /// Twice as many registers.
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            fn faster<T: Cell>(
                attention: &Attention<'_>,
                cells: (&[T], &[T]),
                run: &Run<'_>,
                scores: &mut Vec<f32>,
            ) {
                attention.task::<T, true>(cells, run, scores);
            }
            match level {
                Level::Portable => {}
                // SAFETY: `Level::best` asked for the features.
                Level::Avx2 => return unsafe { fast(self, cells, run, scores) },
                // SAFETY: as above.
                Level::Avx512 => return unsafe { faster(self, cells, run, scores) },
            }
        }
        let _ = level;
        self.task::<T, false>(cells, run, scores);
    }

    /// Rows that follow one another and one head of keys and values.
    #[inline(always)]
    fn task<T: Cell, const FAST: bool>(
        &self,
        (keys, values): (&[T], &[T]),
        run: &Run<'_>,
        scores: &mut Vec<f32>,
    ) {
        let g = self.geometry;
        let (tokens, padded) = (g.block_tokens, g.padded());
        let (sequence, longest) = &self.spans[run.rows.end - 1];
        let (first, last) = (longest.start / tokens, (longest.end - 1) / tokens);
        let table = &self.tables[*sequence as usize][first..=last];
        let (width, count) = (table.len() * padded, run.rows.len() * g.group);
        // What query `q` attends to, in tokens behind the first block of the table.
        let seen = |q: usize| {
            let span = &self.spans[run.rows.start + q / g.group].1;
            span.start - first * tokens..span.end - first * tokens
        };
        let query = |q: usize| {
            let row = run.rows.start + q / g.group;
            &run.queries.0[row * run.queries.1 + (run.h * g.group + q % g.group) * g.head..][..g.head]
        };
        scores.clear();
        scores.resize(width * count, f32::NEG_INFINITY);
        let base = |at: usize| table[at] as usize * g.block() + run.h * g.cells();
        for at in 0..table.len() {
            let keys = &keys[base(at)..][..g.cells()];
            let mut q = 0;
            while q < count {
                let take = (count - q).min(QUERIES);
                let mut into = |i: usize, lane: usize, sums: [f32; 8]| {
                    scores[(q + i) * width + at * padded + lane..][..8].copy_from_slice(&sums);
                };
                match take {
                    1 => score::<T, FAST, 1>(keys, padded, [query(q)], &mut into),
                    2 => score::<T, FAST, 2>(keys, padded, [query(q), query(q + 1)], &mut into),
                    _ => score::<T, FAST, 3>(keys, padded, [query(q), query(q + 1), query(q + 2)], &mut into),
                }
                q += take;
            }
            for (q, scores) in scores.chunks_exact_mut(width).enumerate() {
                let block = &mut scores[at * padded..(at + 1) * padded];
                let seen = seen(q);
                let inside = |token: usize| token.saturating_sub(at * tokens).min(tokens);
                block[..inside(seen.start)].fill(f32::NEG_INFINITY);
                block[inside(seen.end)..].fill(f32::NEG_INFINITY);
            }
        }
        let place = |token: usize| {
            let (at, slot) = (token / tokens, token % tokens);
            (at * padded + slot, base(at) + slot * g.head, tokens - slot)
        };
        let mut q = 0;
        while q < count {
            let take = (count - q).min(QUERIES);
            let scores = &mut scores[q * width..(q + take) * width];
            let mut inverses = [0.0; QUERIES];
            for (scores, inverse) in scores.chunks_exact_mut(width).zip(&mut inverses) {
                *inverse = softmax::<FAST>(scores);
            }
            let weights = |i: usize| &scores[i * width..(i + 1) * width];
            let outs = |i: usize| {
                let (row, column) = (run.rows.start + (q + i) / g.group, run.h * g.group + (q + i) % g.group);
                // SAFETY: one head of one row, which is handed out once.
                unsafe { run.out.columns(row, column * g.head..(column + 1) * g.head) }
            };
            let values = Values { cells: values, head: g.head, place: &place };
            match take {
                1 => values.weigh::<FAST, 1>(&[seen(q)], [weights(0)], inverses, [outs(0)]),
                2 => values.weigh::<FAST, 2>(
                    &[seen(q), seen(q + 1)],
                    [weights(0), weights(1)],
                    inverses,
                    [outs(0), outs(1)],
                ),
                _ => values.weigh::<FAST, 3>(
                    &[seen(q), seen(q + 1), seen(q + 2)],
                    [weights(0), weights(1), weights(2)],
                    inverses,
                    [outs(0), outs(1), outs(2)],
                ),
            }
            q += take;
        }
    }
}

/// Rows of a step that share a pass over their keys and values where they follow one another.
const TOGETHER: usize = 3;

/// Queries that share what is loaded.
const QUERIES: usize = 3;

/// A part of [`Attention::attend`].
struct Run<'a> {
    /// Rows that follow one another in one sequence.
    rows: Range<usize>,
    /// The head of keys and values.
    h: usize,
    queries: (&'a [f32], usize),
    out: &'a Out<'a>,
}

/// Scores of `Q` queries with all tokens of a block, eight tokens at a time. Even and odd dimensions are summed apart.
#[inline(always)]
fn score<T: Cell, const FAST: bool, const Q: usize>(
    keys: &[T],
    padded: usize,
    queries: [&[f32]; Q],
    into: &mut impl FnMut(usize, usize, [f32; 8]),
) {
    for lane in (0..padded).step_by(8) {
        let mut sums = [[[0.0_f32; 8]; 2]; Q];
        for pair in 0..queries[0].len() / 2 {
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

/// Values of one head of a sequence.
struct Values<'a, T, P> {
    cells: &'a [T],
    head: usize,
    /// Where a token's weight and its value are, and how many tokens lie behind one another from there on.
    place: &'a P,
}

impl<T: Cell, P: Fn(usize) -> (usize, usize, usize)> Values<'_, T, P> {
    /// `out = inverse × Σ weight × value`, over the tokens that each query has seen: all of them what the first one has, and the
    /// others some more behind that.
    #[inline(always)]
    fn weigh<const FAST: bool, const Q: usize>(
        &self,
        seen: &[Range<usize>; Q],
        weights: [&[f32]; Q],
        inverses: [f32; QUERIES],
        mut outs: [&mut [f32]; Q],
    ) {
        let mut d = 0;
        while d < outs[0].len() {
            if outs[0].len() - d >= 32 {
                self.part::<FAST, Q, 4>(seen, weights, inverses, d, &mut outs);
                d += 32;
            } else {
                self.part::<FAST, Q, 1>(seen, weights, inverses, d, &mut outs);
                d += 8;
            }
        }
    }

    /// `V` vectors of eight dimensions from `d`.
    #[inline(always)]
    fn part<const FAST: bool, const Q: usize, const V: usize>(
        &self,
        seen: &[Range<usize>; Q],
        weights: [&[f32]; Q],
        inverses: [f32; QUERIES],
        d: usize,
        outs: &mut [&mut [f32]; Q],
    ) {
        let mut sums = [[[0.0_f32; 8]; V]; Q];
        self.add::<FAST, Q, V>(seen[0].clone(), weights, d, &mut sums);
        for q in 1..Q {
            let mut one = [sums[q]];
            self.add::<FAST, 1, V>(seen[0].end..seen[q].end, [weights[q]], d, &mut one);
            [sums[q]] = one;
        }
        for q in 0..Q {
            let (out, _) = outs[q][d..][..V * 8].as_chunks_mut::<8>();
            for (out, sums) in out.iter_mut().zip(sums[q]) {
                *out = sums.map(|s| s * inverses[q]);
            }
        }
    }

    #[inline(always)]
    fn add<const FAST: bool, const Q: usize, const V: usize>(
        &self,
        tokens: Range<usize>,
        weights: [&[f32]; Q],
        d: usize,
        sums: &mut [[[f32; 8]; V]; Q],
    ) {
        let mut held = *sums;
        let mut token = tokens.start;
        while token < tokens.end {
            let (weight, value, count) = (self.place)(token);
            let count = count.min(tokens.end - token);
            for i in 0..count {
                let (values, _) = self.cells[value + i * self.head + d..][..V * 8].as_chunks::<8>();
                let values: [[f32; 8]; V] = std::array::from_fn(|v| T::load::<FAST>(&values[v]));
                for q in 0..Q {
                    let weight = weights[q][weight + i];
                    for v in 0..V {
                        for lane in 0..8 {
                            held[q][v][lane] = fma::<FAST>(weight, values[v][lane], held[q][v][lane]);
                        }
                    }
                }
            }
            token += count;
        }
        *sums = held;
    }
}

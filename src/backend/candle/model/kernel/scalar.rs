//! The portable kernels. They define the order of every sum: eight lanes over a span of [`SPAN`] inputs, the lanes added by
//! [`reduce`], the spans added in turn; of quantised formats, whole rows in lanes, and the minima of every eighth group in a
//! lane. The vector kernels do the same, so that a result depends neither on the machine's vectors nor on how many rows a step
//! has.

use super::matrix::{Activations, GROUP, Kind, Matrix};

/// Inputs that are summed in lanes before the lanes are added: 4 KiB of a row, so that a tile's rows stay in the first cache.
pub const SPAN: usize = 1024;

/// `a × b + c`, rounded once where the processor does that; elsewhere a call would cost more than the last bit is worth.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
}

/// Adds eight lanes: neighbours, then pairs, then halves.
#[inline(always)]
pub fn reduce(l: [f32; 8]) -> f32 {
    ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]))
}

/// An f16 as f32.
pub fn half(bits: [u8; 2]) -> f32 {
    half::f16::from_le_bytes(bits).to_f32()
}

/// The number at `index` of a row that is not quantised.
fn number(kind: Kind, row: &[u8], index: usize) -> f32 {
    match kind {
        Kind::F32 => {
            f32::from_le_bytes([row[index * 4], row[index * 4 + 1], row[index * 4 + 2], row[index * 4 + 3]])
        }
        Kind::F16 => half([row[index * 2], row[index * 2 + 1]]),
        _ => f32::from_bits(u32::from(u16::from_le_bytes([row[index * 2], row[index * 2 + 1]])) << 16),
    }
}

/// 32 numbers of a quantised row: number `i` is `quants[i] × lanes[i / 16] × scale + minimum`.
pub struct Group {
    /// As stored, less a fixed offset.
    pub quants: [i8; GROUP],
    /// A factor for each half.
    pub lanes: [i8; 2],
    /// The common factor.
    pub scale: f32,
    /// What is added.
    pub minimum: f32,
}

/// The scale and minimum of sub-block `at` (0..8) in the 12 bytes of a `Q4K` block, 6 bits each.
#[inline(always)]
pub fn scale_and_minimum(packed: &[u8], at: usize) -> (u8, u8) {
    if at < 4 {
        (packed[at] & 63, packed[at + 4] & 63)
    } else {
        let (low, high) = (packed[at + 4], (packed[at - 4] >> 6, packed[at] >> 6));
        ((low & 15) | (high.0 << 4), (low >> 4) | (high.1 << 4))
    }
}

/// Group `at` of a quantised row.
pub fn group(kind: Kind, row: &[u8], at: usize) -> Group {
    let size = kind.size();
    let per_block = kind.block() / GROUP;
    let block = &row[at / per_block * size..][..size];
    let within = at % per_block;
    let mut quants = [0_i8; GROUP];
    let mut lanes = [1, 1];
    let (scale, minimum);
    match kind {
        Kind::Q8_0 => {
            scale = half([block[0], block[1]]);
            minimum = 0.0;
            quants.iter_mut().zip(&block[2..]).for_each(|(q, b)| *q = b.cast_signed());
        }
        Kind::Q4_0 | Kind::Q4_1 => {
            scale = half([block[0], block[1]]);
            let four_one = kind == Kind::Q4_1;
            minimum = if four_one { half([block[2], block[3]]) } else { -8.0 * scale };
            let nibbles = &block[if four_one { 4 } else { 2 }..];
            for (i, byte) in nibbles.iter().enumerate() {
                quants[i] = (byte & 15).cast_signed();
                quants[i + 16] = (byte >> 4).cast_signed();
            }
        }
        Kind::Q4K => {
            let (s, m) = scale_and_minimum(&block[4..16], within);
            scale = half([block[0], block[1]]) * f32::from(s);
            minimum = -(half([block[2], block[3]]) * f32::from(m));
            let nibbles = &block[16 + within / 2 * 32..];
            for (q, byte) in quants.iter_mut().zip(nibbles) {
                *q = if within.is_multiple_of(2) { byte & 15 } else { byte >> 4 }.cast_signed();
            }
        }
        // Q6K; floats have no groups.
        _ => {
            let (part, quarter) = (within / 4, within % 4);
            let low = &block[part * 64 + quarter % 2 * 32..];
            let high = &block[128 + part * 32..];
            for (i, q) in quants.iter_mut().enumerate() {
                let nibble = if quarter < 2 { low[i] & 15 } else { low[i] >> 4 };
                *q = (nibble | (high[i] >> (2 * quarter) & 3) << 4).cast_signed() - 32;
            }
            lanes = [block[192 + within * 2].cast_signed(), block[193 + within * 2].cast_signed()];
            scale = half([block[208], block[209]]);
            minimum = 0.0;
        }
    }
    Group { quants, lanes, scale, minimum }
}

/// A row as f32.
pub fn widen(kind: Kind, row: &[u8], out: &mut [f32]) {
    if kind.quantised() {
        for (at, out) in out.chunks_exact_mut(GROUP).enumerate() {
            let g = group(kind, row, at);
            for (i, out) in out.iter_mut().enumerate() {
                *out = f32::from(g.quants[i]) * (f32::from(g.lanes[i / 16]) * g.scale) + g.minimum;
            }
        }
    } else {
        out.iter_mut().enumerate().for_each(|(i, out)| *out = number(kind, row, i));
    }
}

/// The product of one row of weights and one activation.
pub fn dot(matrix: &Matrix, row: usize, input: &Activations, at: usize) -> f32 {
    let (kind, cols) = (matrix.kind(), matrix.cols());
    let weights = matrix.row(row);
    if kind.quantised() {
        return dot_quantised(kind, weights, input, at);
    }
    let values = &input.values[at * cols..][..cols];
    let mut total = 0.0;
    for (span, values) in values.chunks(SPAN).enumerate() {
        let mut lanes = [0.0; 8];
        for (i, value) in values.iter().enumerate() {
            lanes[i % 8] = fma(number(kind, weights, span * SPAN + i), *value, lanes[i % 8]);
        }
        let sum = reduce(lanes);
        total = if span == 0 { sum } else { total + sum };
    }
    total
}

fn dot_quantised(kind: Kind, weights: &[u8], input: &Activations, at: usize) -> f32 {
    let groups = input.cols / GROUP;
    let mut lanes = [0.0; 8];
    let mut minima = [0.0; 8];
    for g in 0..groups {
        let weights = group(kind, weights, g);
        let index = at * input.stride() + g;
        let bytes = &input.bytes[(at * groups + g) * GROUP..][..GROUP];
        let scale = weights.scale * input.scales[index];
        for (lane, sum) in lanes.iter_mut().enumerate() {
            let mut integer = 0;
            for i in lane * 4..lane * 4 + 4 {
                integer +=
                    i32::from(weights.quants[i]) * i32::from(bytes[i]) * i32::from(weights.lanes[i / 16]);
            }
            *sum = fma(integer as f32, scale, *sum);
        }
        minima[g % 8] = fma(weights.minimum, input.sums[index], minima[g % 8]);
    }
    let total = reduce(lanes);
    if matches!(kind, Kind::Q8_0 | Kind::Q6K) { total } else { total + reduce(minima) }
}

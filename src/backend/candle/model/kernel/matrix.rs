//! A weight matrix in one of the stored formats, and the activations that are multiplied with it.

use std::ops::Range;
use std::sync::Arc;

use candle_core::quantized::GgmlDType;

use super::mapped::Mapped;

/// How the numbers of a matrix are stored. Quantised rows are blocks in ggml's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Little-endian binary32.
    F32,
    /// Little-endian binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// 32 signed bytes and one f16 scale.
    Q8_0,
    /// 32 nibbles less 8, and one f16 scale.
    Q4_0,
    /// 32 nibbles, one f16 scale and one f16 minimum.
    Q4_1,
    /// 256 nibbles: one f16 scale, one f16 minimum, and 6-bit scales and minima for each 32.
    Q4K,
    /// 256 six-bit numbers less 32: one f16 scale and a signed byte for each 16.
    Q6K,
}

impl Kind {
    /// Numbers in one block.
    pub const fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of one block.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Whether the products with it take quantised activations.
    pub const fn quantised(self) -> bool {
        self.block() > 1
    }

    /// The name in candle.
    pub const fn ggml(self) -> GgmlDType {
        match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::Bf16 => GgmlDType::BF16,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q6K => GgmlDType::Q6K,
        }
    }
}

/// Bytes in a mapped file or in memory of our own.
#[derive(Clone)]
pub enum Bytes {
    /// A range of a file.
    Mapped(Arc<Mapped>, Range<usize>),
    /// Converted while loading.
    Owned(Arc<Vec<u8>>),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Mapped(map, range) => &map.bytes()[range.clone()],
            Self::Owned(bytes) => bytes,
        }
    }
}

/// `[rows, cols]`, row after row: an output is the product of a row with an activation.
#[derive(Clone)]
pub struct Matrix {
    kind: Kind,
    rows: usize,
    cols: usize,
    bytes: Bytes,
}

impl Matrix {
    /// `None` unless `bytes` hold exactly `rows × cols` numbers of `kind` in whole blocks.
    pub fn new(kind: Kind, rows: usize, cols: usize, bytes: Bytes) -> Option<Self> {
        let whole = cols.is_multiple_of(kind.block());
        let size = (cols / kind.block()).checked_mul(kind.size())?.checked_mul(rows)?;
        (whole && bytes.get().len() == size).then_some(Self { kind, rows, cols, bytes })
    }

    /// How it is stored.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of one row.
    pub fn row_size(&self) -> usize {
        self.cols / self.kind.block() * self.kind.size()
    }

    /// All rows.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get()
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[u8] {
        let size = self.row_size();
        &self.bytes()[row * size..(row + 1) * size]
    }
}

/// Numbers of one scale in quantised activations.
pub const GROUP: usize = 32;

/// Groups whose scales are read at once: those of a block of the formats that share scales among several.
pub const RUN: usize = 8;

/// Activations `[rows, cols]`, and the same in signed bytes where a product needs them.
#[derive(Default)]
pub struct Activations {
    /// As computed.
    pub values: Vec<f32>,
    /// How many.
    pub rows: usize,
    /// The length of one.
    pub cols: usize,
    /// `round(value / scale)`, at most ±127.
    pub bytes: Vec<i8>,
    /// One scale for each [`GROUP`] of a row, and zeros up to the next multiple of [`RUN`].
    pub scales: Vec<f32>,
    /// The sum of each group's bytes times its scale: what a minimum of the weights is multiplied with. Laid out as scales
    /// are.
    pub sums: Vec<f32>,
}

impl Activations {
    /// Makes room for `rows × cols` values; memory is kept from step to step.
    pub fn resize(&mut self, rows: usize, cols: usize) {
        self.values.resize(rows * cols, 0.0);
        (self.rows, self.cols) = (rows, cols);
    }

    /// Scales, and sums, from a row to the next.
    pub fn stride(&self) -> usize {
        (self.cols / GROUP).next_multiple_of(RUN)
    }

    /// Fills the quantised side. `cols` is a multiple of [`GROUP`].
    pub fn quantise(&mut self) {
        let (groups, stride) = (self.cols / GROUP, self.stride());
        self.bytes.resize(self.rows * self.cols, 0);
        self.scales.resize(self.rows * stride, 0.0);
        self.sums.resize(self.rows * stride, 0.0);
        let rows = self.values.chunks_exact(self.cols).zip(self.bytes.chunks_exact_mut(self.cols));
        let factors = self.scales.chunks_exact_mut(stride).zip(self.sums.chunks_exact_mut(stride));
        for ((values, bytes), (scales, sums)) in rows.zip(factors) {
            quantise_row(values, bytes, scales, sums);
            // Other shapes have left their numbers here.
            scales[groups..].fill(0.0);
            sums[groups..].fill(0.0);
        }
    }
}

/// The quantised side of one row.
fn quantise_row(values: &[f32], bytes: &mut [i8], scales: &mut [f32], sums: &mut [f32]) {
    let (values, bytes) = (values.as_chunks::<GROUP>().0, bytes.as_chunks_mut::<GROUP>().0);
    for (((values, bytes), scale), sum) in values.iter().zip(bytes).zip(scales).zip(sums) {
        let largest = values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        *scale = largest / 127.0;
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let mut total = 0_i32;
        for (byte, value) in bytes.iter_mut().zip(values) {
            // Adding and taking away 1.5 × 2²³ rounds to the nearest integer without a call.
            *byte = ((value * inverse + 12_582_912.0) - 12_582_912.0) as i8;
            total += i32::from(*byte);
        }
        *sum = total as f32 * *scale;
    }
}

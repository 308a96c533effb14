//! Products of activations with one or more matrices, divided over the threads by rows of weights.

#![expect(
    unsafe_code,
    reason = "threads write disjoint columns of one row-major output, which no safe slice can express"
)]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::matrix::{Activations, Matrix};
use super::{Level, Pool, scalar};

/// A row-major `[rows, stride]` output of which each thread writes columns of its own.
pub struct Out<'a> {
    data: *mut f32,
    len: usize,
    stride: usize,
    column: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: threads that share an `Out` write disjoint columns: `products` and `Attention::attend` hand every part out once.
unsafe impl Sync for Out<'_> {}

impl<'a> Out<'a> {
    /// Outputs begin at `column` of every row of `stride` floats.
    pub fn new(data: &'a mut [f32], stride: usize, column: usize) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), stride, column, borrow: PhantomData }
    }

    /// Whether `columns` of the first `rows` rows lie inside.
    pub fn fits(&self, rows: usize, columns: &Range<usize>) -> bool {
        self.column + columns.end <= self.stride && rows * self.stride <= self.len
    }

    /// Floats from a row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Where column `column` of `row` is. In bounds when [`Self::fits`] said so.
    pub fn at(&self, row: usize, column: usize) -> *mut f32 {
        self.data.wrapping_add(row * self.stride + self.column + column)
    }

    /// Columns of a row.
    ///
    /// # Safety
    /// No other thread reads or writes them while the slice lives.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub unsafe fn columns(&self, row: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(self.fits(row + 1, &columns));
        // SAFETY: in bounds by the assert, unshared by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(row, columns.start), columns.len()) }
    }
}

/// One matrix of a call to [`products`].
pub struct Product<'a> {
    /// The weights.
    pub matrix: &'a Matrix,
    /// Added to every output.
    pub bias: Option<&'a [f32]>,
    /// The column of the output where this matrix's rows begin.
    pub column: usize,
}

/// `out[t][column + n] = Σ_k matrix[n][k] × input[t][k] + bias[n]` for every product. Columns of different products are disjoint.
pub fn products(
    pool: &mut Pool,
    level: Level,
    input: &Activations,
    list: &[Product<'_>],
    out: &mut [f32],
    stride: usize,
) {
    let total: usize = list.iter().map(|p| p.matrix.rows()).sum();
    // Several pieces for each thread, because the machine gives them unequal time; whole tiles, because those are fast.
    let piece = (total / (pool.threads() * 8)).next_multiple_of(8).max(16);
    let pieces: usize = list.iter().map(|p| p.matrix.rows().div_ceil(piece)).sum();
    let outs: Vec<Out> = {
        let base = Out::new(out, stride, 0);
        list.iter()
            .map(|p| Out { column: p.column, data: base.data, len: base.len, stride, borrow: PhantomData })
            .collect()
    };
    let next = AtomicUsize::new(0);
    pool.run(&|_| {
        loop {
            let mut index = next.fetch_add(1, Ordering::Relaxed);
            if index >= pieces {
                return;
            }
            for (product, out) in list.iter().zip(&outs) {
                let here = product.matrix.rows().div_ceil(piece);
                if index >= here {
                    index -= here;
                    continue;
                }
                let rows = index * piece..product.matrix.rows().min((index + 1) * piece);
                one(level, product, rows, input, out);
                break;
            }
        }
    });
}

/// The outputs of `rows` of one matrix.
pub(super) fn one(
    level: Level,
    product: &Product<'_>,
    rows: Range<usize>,
    input: &Activations,
    out: &Out<'_>,
) {
    assert!(out.fits(input.rows, &rows) && rows.end <= product.matrix.rows());
    match level {
        Level::Portable => {
            for t in 0..input.rows {
                // SAFETY: this piece's columns are written by this thread only.
                let columns = unsafe { out.columns(t, rows.clone()) };
                for (out, row) in columns.iter_mut().zip(rows.clone()) {
                    *out = scalar::dot(product.matrix, row, input, t);
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Level::best` asked for the features.
        Level::Avx2 => unsafe { super::avx2::chunk(product.matrix, rows.clone(), input, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 => unsafe { super::avx512::chunk(product.matrix, rows.clone(), input, out) },
    }
    if let Some(bias) = product.bias {
        for t in 0..input.rows {
            // SAFETY: as above.
            let columns = unsafe { out.columns(t, rows.clone()) };
            columns.iter_mut().zip(&bias[rows.clone()]).for_each(|(out, bias)| *out += bias);
        }
    }
}

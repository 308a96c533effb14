//! The vector kernels against the portable ones, which say what is computed.

use std::sync::Arc;

use super::product::Out;
use super::product::one;
use super::{Activations, Bytes, Kind, Level, Matrix, Pool, Product, products, scalar};

const KINDS: [Kind; 8] =
    [Kind::F32, Kind::F16, Kind::Bf16, Kind::Q8_0, Kind::Q4_0, Kind::Q4_1, Kind::Q4K, Kind::Q6K];

struct Noise(u64);

impl Noise {
    fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 56) as u8
    }
    fn unit(&mut self) -> f32 {
        (f32::from(self.byte()) + f32::from(self.byte()) / 256.0) / 128.0 - 1.0
    }
}

/// Random bytes are random weights, but for scales, which must be finite.
fn matrix(kind: Kind, rows: usize, cols: usize, noise: &mut Noise) -> Matrix {
    let mut bytes = Vec::new();
    for _ in 0..rows * cols / kind.block() {
        let block: Vec<u8> = match kind {
            Kind::F32 => noise.unit().to_le_bytes().to_vec(),
            Kind::F16 => half::f16::from_f32(noise.unit()).to_le_bytes().to_vec(),
            Kind::Bf16 => half::bf16::from_f32(noise.unit()).to_le_bytes().to_vec(),
            _ => {
                let mut block: Vec<u8> = (0..kind.size()).map(|_| noise.byte()).collect();
                let scale = |noise: &mut Noise| half::f16::from_f32(noise.unit() / 64.0).to_le_bytes();
                let at: &[usize] = match kind {
                    Kind::Q4_1 | Kind::Q4K => &[0, 2],
                    Kind::Q6K => &[208],
                    _ => &[0],
                };
                for at in at {
                    block[*at..at + 2].copy_from_slice(&scale(noise));
                }
                // -128 does not occur: quantising is symmetric.
                if kind == Kind::Q8_0 {
                    block[2..].iter_mut().for_each(|b| *b = if *b == 128 { 129 } else { *b });
                }
                block
            }
        };
        bytes.extend(block);
    }
    Matrix::new(kind, rows, cols, Bytes::Owned(Arc::new(bytes))).unwrap()
}

fn activations(rows: usize, cols: usize, noise: &mut Noise) -> Activations {
    let mut input = Activations::default();
    input.resize(rows, cols);
    input.values.iter_mut().for_each(|x| *x = noise.unit());
    if cols.is_multiple_of(super::GROUP) {
        input.quantise();
    }
    input
}

fn bound(matrix: &Matrix, row: usize, input: &Activations, t: usize) -> f32 {
    let mut weights = vec![0.0; matrix.cols()];
    scalar::widen(matrix.kind(), matrix.row(row), &mut weights);
    let values = &input.values[t * matrix.cols()..][..matrix.cols()];
    weights.iter().zip(values).map(|(w, x)| (w * x).abs()).sum()
}

/// The vector kernels of this processor.
fn levels() -> Vec<Level> {
    match Level::best() {
        Level::Portable => Vec::new(),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => vec![Level::Avx2],
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => vec![Level::Avx2, Level::Avx512],
    }
}

#[test]
fn all_levels_agree_for_every_kind_and_shape() {
    let mut noise = Noise(1);
    for kind in KINDS {
        // The last is longer than the scales that are kept.
        for (rows, cols) in [(4, 256), (7, 768), (9, 1280), (19, 2304), (4, 16_640)] {
            let cols = if kind.quantised() || rows > 8 { cols } else { cols - 3 };
            let matrix = matrix(kind, rows, cols, &mut noise);
            for t in [1, 2, 3, 4, 5, 10, 11, 17, 131].into_iter().filter(|t| cols < 4096 || *t < 4) {
                let input = activations(t, cols, &mut noise);
                let product = Product { matrix: &matrix, bias: None, column: 1 };
                let outputs = |level| {
                    let mut found = vec![0.0; t * (rows + 2)];
                    one(level, &product, 0..rows, &input, &Out::new(&mut found, rows + 2, 1));
                    found
                };
                let found = outputs(Level::best());
                for level in levels() {
                    assert!(outputs(level) == found, "{kind:?} {rows}x{cols}, {t} activations, {level:?}");
                }
                for (at, found) in found.chunks(rows + 2).enumerate() {
                    assert!(
                        found[0] == 0.0 && found[rows + 1] == 0.0,
                        "{kind:?}: writes outside its columns"
                    );
                    for (row, found) in found[1..=rows].iter().enumerate() {
                        let expected = scalar::dot(&matrix, row, &input, at);
                        let bound = bound(&matrix, row, &input, at);
                        assert!(
                            (found - expected).abs() <= 1e-6 * bound,
                            "{kind:?} {rows}x{cols}, {t} activations, row {row}: {found} and {expected} of {bound}"
                        );
                        if kind.quantised() {
                            // The exact product with weights as f32 is near: groups and minima are read as they are meant.
                            let mut weights = vec![0.0; cols];
                            scalar::widen(kind, matrix.row(row), &mut weights);
                            let values = &input.values[at * cols..][..cols];
                            let exact: f32 = weights.iter().zip(values).map(|(w, x)| w * x).sum();
                            assert!((found - exact).abs() <= 0.01 * bound, "{kind:?}: {found} and {exact}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_result_does_not_depend_on_its_neighbours() {
    let mut noise = Noise(2);
    for kind in KINDS {
        let cols = 1280;
        let matrix = matrix(kind, 23, cols, &mut noise);
        let input = activations(132, cols, &mut noise);
        let mut pool = Pool::new(2).unwrap();
        let bias: Vec<f32> = (0..23).map(|_| noise.unit()).collect();
        let list = [Product { matrix: &matrix, bias: Some(&bias), column: 0 }];
        let mut all = vec![0.0; 132 * 23];
        products(&mut pool, Level::best(), &input, &list, &mut all, 23);
        for t in [0, 1, 33, 129, 131] {
            let mut alone = Activations::default();
            alone.resize(1, cols);
            alone.values.copy_from_slice(&input.values[t * cols..][..cols]);
            alone.quantise();
            let mut found = vec![0.0; 23];
            products(&mut pool, Level::best(), &alone, &list, &mut found, 23);
            assert_eq!(found, all[t * 23..][..23], "{kind:?}");
        }
    }
}

#[test]
fn what_is_not_finite_stays_in_its_row() {
    let mut noise = Noise(3);
    // 18 groups: no whole number of runs.
    let cols = 576;
    for kind in [Kind::F32, Kind::F16, Kind::Bf16, Kind::Q8_0, Kind::Q4_0, Kind::Q4_1] {
        let matrix = matrix(kind, 21, cols, &mut noise);
        let product = Product { matrix: &matrix, bias: None, column: 0 };
        for rows in [2, 5, 12, 40] {
            let mut input = activations(rows, cols, &mut noise);
            let outputs = |input: &Activations| {
                let mut found = vec![0.0; rows * 21];
                one(Level::best(), &product, 0..21, input, &Out::new(&mut found, 21, 0));
                found
            };
            let clean = outputs(&input);
            for bad in (1..rows).step_by(2) {
                input.values[bad * cols..][..cols].fill(f32::INFINITY);
            }
            input.quantise();
            for (at, (found, clean)) in outputs(&input).chunks(21).zip(clean.chunks(21)).enumerate() {
                let same = found == clean;
                assert!(same || at % 2 == 1, "{kind:?}, row {at} of {rows}: {found:?} and {clean:?}");
                assert!(at % 2 == 0 || !found[0].is_finite(), "{kind:?}, row {at} of {rows}: {found:?}");
            }
        }
    }
}

#[test]
fn matrices_of_a_wrong_size_are_not_made() {
    let bytes = || Bytes::Owned(Arc::new(vec![0; 34]));
    assert!(Matrix::new(Kind::Q8_0, 1, 32, bytes()).is_some());
    assert!(Matrix::new(Kind::Q8_0, 1, 64, bytes()).is_none());
    assert!(Matrix::new(Kind::Q8_0, usize::MAX, 32, bytes()).is_none());
    assert!(Matrix::new(Kind::F32, 1, 34, bytes()).is_none());
}

#[test]
fn elementwise_functions_are_near_those_of_libm() {
    use super::{Activation, activate};
    for level in [Level::Portable, Level::best()] {
        let values: Vec<f32> = (-2000..2000).map(|i| i as f32 / 100.0).collect();
        for kind in [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
            let mut found = values.clone();
            activate(level, kind, &mut found);
            for (x, found) in values.iter().map(|x| f64::from(*x)).zip(found) {
                let expected = match kind {
                    Activation::Relu => x.max(0.0),
                    Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
                    Activation::GeluTanh => {
                        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                        0.5 * x * (1.0 + libm::tanh(u))
                    }
                    Activation::Silu => x / (1.0 + libm::exp(-x)),
                };
                let off = (f64::from(found) - expected).abs();
                assert!(off <= 1e-6 * x.abs().max(1.0), "{kind:?} of {x}: {found} and {expected}");
            }
        }
    }
}

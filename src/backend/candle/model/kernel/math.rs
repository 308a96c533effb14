//! Element-wise parts of a layer. Each is plain code that is compiled a second time for AVX2 and FMA.

#![expect(
    unsafe_code,
    reason = "calls of functions that are compiled for instructions that `Level` has found"
)]

use super::Level;
use super::scalar::reduce;

/// What an MLP does between its products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x × Φ(x)` by the error function.
    Gelu,
    /// `x × Φ(x)` by the tanh formula (Hendrycks and Gimpel, 2016), as GPT-2 and Gemma have it.
    GeluTanh,
    /// `x / (1 + e^-x)`.
    Silu,
}

/// The two families of norms.
#[derive(Debug, Clone)]
pub enum Norm {
    /// Less the mean, over the deviation, times weight, plus bias.
    Layer { weight: Vec<f32>, bias: Vec<f32>, epsilon: f32 },
    /// Over the root of the mean square, times weight.
    Rms { weight: Vec<f32>, epsilon: f32 },
}

/// Defines a public function with two compilations of one body.
macro_rules! twice {
    ($(#[$doc:meta])* $name:ident, $body:ident, ($($arg:ident: $type:ty),*)) => {
        $(#[$doc])*
        pub fn $name(level: Level, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn fast($($arg: $type),*) {
                    $body::<true>($($arg),*);
                }
                if level != Level::Portable {
                    // SAFETY: `Level::best` asked for the features.
                    return unsafe { fast($($arg),*) };
                }
            }
            let _ = level;
            $body::<false>($($arg),*);
        }
    };
}

/// `a × b + c`; one rounding where `FMA`.
#[inline(always)]
pub(super) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA || cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` to about two units in the last place: `x = n ln 2 + r`, a polynomial for `e^r` (coefficients of Cephes' expf), `2^n` by bits.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, 12_582_912.0);
    let n = shifted - 12_582_912.0;
    let r = fma::<FMA>(n, 2.121_944_4e-4, fma::<FMA>(n, -0.693_359_4, x));
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = fma::<FMA>(p, r, c);
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    fma::<FMA>(p, r * r, r + 1.0) * power
}

#[inline(always)]
fn activated<const FMA: bool>(kind: Activation, values: &mut [f32]) {
    match kind {
        Activation::Relu => values.iter_mut().for_each(|x| *x = x.max(0.0)),
        Activation::Gelu => values
            .iter_mut()
            .for_each(|x| *x = 0.5 * *x * (1.0 + libm::erff(*x * std::f32::consts::FRAC_1_SQRT_2))),
        // ½ (1 + tanh u) = 1 / (1 + e^-2u).
        Activation::GeluTanh => values.iter_mut().for_each(|x| {
            let u = 0.797_884_6 * (*x + 0.044_715 * *x * *x * *x);
            *x /= 1.0 + exp::<FMA>(-2.0 * u);
        }),
        Activation::Silu => values.iter_mut().for_each(|x| *x /= 1.0 + exp::<FMA>(-*x)),
    }
}

twice!(
    /// Applies `kind` in place.
    activate, activated, (kind: Activation, values: &mut [f32])
);

#[inline(always)]
fn gated<const FMA: bool>(kind: Activation, both: &mut [f32], out: &mut [f32]) {
    let (gate, up) = both.split_at_mut(out.len());
    activated::<FMA>(kind, gate);
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = *gate * *up;
    }
}

twice!(
    /// `out = kind(gate) × up`, of a row `gate | up`; the gate is overwritten.
    gate, gated, (kind: Activation, both: &mut [f32], out: &mut [f32])
);

/// The sum of `f(x)` in eight lanes.
#[inline(always)]
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; 8];
    let (whole, rest) = values.as_chunks::<8>();
    for values in whole {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane += f(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f(*value);
    }
    reduce(lanes)
}

#[inline(always)]
fn normed<const FMA: bool>(norm: &Norm, values: &[f32], out: &mut [f32]) {
    let n = values.len() as f32;
    match norm {
        Norm::Layer { weight, bias, epsilon } => {
            let mean = sum(values, |x| x) / n;
            let variance = sum(values, |x| (x - mean) * (x - mean)) / n;
            let scale = 1.0 / (variance + epsilon).sqrt();
            for (((out, x), w), b) in out.iter_mut().zip(values).zip(weight).zip(bias) {
                *out = fma::<FMA>((x - mean) * scale, *w, *b);
            }
        }
        Norm::Rms { weight, epsilon } => {
            let scale = 1.0 / (sum(values, |x| x * x) / n + epsilon).sqrt();
            for ((out, x), w) in out.iter_mut().zip(values).zip(weight) {
                *out = x * scale * w;
            }
        }
    }
}

twice!(
    /// Normalises one vector.
    norm, normed, (norm: &Norm, values: &[f32], out: &mut [f32])
);

#[inline(always)]
fn added<const FMA: bool>(into: &mut [f32], values: &[f32]) {
    into.iter_mut().zip(values).for_each(|(a, b)| *a += b);
}

twice!(
    /// `into += values`.
    add, added, (into: &mut [f32], values: &[f32])
);

#[inline(always)]
fn rotated<const FMA: bool>(head: &mut [f32], cos: &[f32], sin: &[f32], interleaved: bool) {
    if interleaved {
        let (pairs, _) = head.as_chunks_mut::<2>();
        for ((pair, c), s) in pairs.iter_mut().zip(cos).zip(sin) {
            let [a, b] = *pair;
            *pair = [a * c - b * s, b * c + a * s];
        }
    } else {
        let (low, high) = head.split_at_mut(cos.len());
        for (((a, b), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
        }
    }
}

twice!(
    /// Turns each pair of a head by its angle: number `i` with number `i + half`, or neighbours when `interleaved`.
    rotate, rotated, (head: &mut [f32], cos: &[f32], sin: &[f32], interleaved: bool)
);

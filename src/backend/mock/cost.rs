//! What a step costs: a smooth roofline over the work in it.

use crate::backend::config::{Comm, Preset, StepCost};
use crate::engine::Step;
use crate::units::Ns;

/// Rooflines of steps of so many tokens are kept.
const KEPT: u32 = 1 << 16;

/// Times steps by one cost. Its two powers are most of the work, and depend on the number of tokens alone: they are
/// computed once for each.
#[derive(Debug)]
pub(super) struct Stopwatch {
    cost: StepCost,
    /// By tokens; NaN where it is not known yet.
    rooflines: Vec<f64>,
}

impl Stopwatch {
    pub(super) fn new(cost: StepCost) -> Self {
        Self { cost, rooflines: Vec::new() }
    }

    /// The same as [`StepCost::duration`].
    pub(super) fn duration(&mut self, step: &Step) -> Ns {
        let (cost, at) = (&self.cost, step.tokens as usize);
        if step.tokens >= KEPT {
            return cost.duration(step);
        }
        if self.rooflines.len() <= at {
            self.rooflines.resize(at + 1, f64::NAN);
        }
        let kept = &mut self.rooflines[at];
        if kept.is_nan() {
            *kept = cost.roofline(step.tokens);
        }
        cost.with_roofline(*kept, step)
    }
}

impl StepCost {
    /// How long a step takes, in nanoseconds, rounded. The formula is the type's own doc; arithmetic goes through `libm`,
    /// so it is the same on every platform.
    pub fn duration(&self, step: &Step) -> Ns {
        self.with_roofline(self.roofline(step.tokens), step)
    }

    /// Reading the weights or computing so many tokens, whichever is longer.
    fn roofline(&self, tokens: u32) -> f64 {
        smooth_max(self.weights_ms * 1e6, self.token_us * 1e3 * f64::from(tokens), self.knee)
    }

    fn with_roofline(&self, roofline: f64, step: &Step) -> Ns {
        let ns = self.base_ms * 1e6
            + roofline
            + self.sequence_us * 1e3 * f64::from(step.batch())
            + self.kv_token_ns * step.kv_tokens as f64
            + self.prefill_pair_ps * 1e-3 * step.prefill_pairs as f64
            + self.comm.map_or(0.0, |comm| comm.nanoseconds(step.tokens));
        libm::round(ns) as Ns
    }
}

impl Comm {
    /// What a step of so many tokens spends. A ring moves each byte 2 (g − 1) / g times over every link (Patarasuk and Yuan,
    /// *Bandwidth optimal all-reduce algorithms for clusters of workstations*, 2009).
    fn nanoseconds(&self, tokens: u32) -> f64 {
        let gpus = f64::from(self.gpus);
        let bytes = 2.0 * (gpus - 1.0) / gpus * f64::from(tokens) * f64::from(self.hidden) * 2.0;
        // A gigabyte a second is a byte a nanosecond.
        2.0 * f64::from(self.layers) * (self.alpha_us * 1e3 + bytes / self.beta_gb_s)
    }
}

/// `(a^q + b^q)^(1/q)`, computed from the larger one so that nothing overflows.
fn smooth_max(a: f64, b: f64, q: f64) -> f64 {
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    if large == 0.0 { 0.0 } else { large * libm::pow(1.0 + libm::pow(small / large, q), 1.0 / q) }
}

/// Bytes of keys and values per token in bf16: 8B parameters with 8 KV heads in 32 layers, and 70B in 80.
const KV_8B: u64 = 131_072;
const KV_70B: u64 = 327_680;

impl Preset {
    /// The coefficients of a step, and the bytes of keys and values per token.
    ///
    /// Fitted to the kernel tables of `AIConfigurator` (Apache-2.0), with a host share of 1.5 ms and, for 8B, the floor of
    /// attention and the output head in `base`. `rtx4090-8b` is fitted to the kernel tables published with `LLMServingSim` (MIT).
    pub fn parameters(self) -> (StepCost, u64) {
        let of = |base_ms, weights_ms, token_us, knee, kv_token_ns, prefill_pair_ps| StepCost {
            base_ms,
            weights_ms,
            token_us,
            knee,
            sequence_us: 0.0,
            kv_token_ns,
            prefill_pair_ps,
            comm: None,
        };
        match self {
            Self::A100Of8b => (of(1.5 + 0.76 + 0.66, 9.57, 52.4, 1.71, 85.1, 3018.0), KV_8B),
            Self::H100Of8b => (of(1.5 + 0.58 + 0.43, 5.48, 17.8, 2.20, 46.9, 836.0), KV_8B),
            Self::H200Of8b => (of(1.5 + 0.55 + 0.26, 4.05, 18.1, 2.12, 32.1, 848.0), KV_8B),
            Self::B200Of8b => (of(1.5 + 0.34 + 0.17, 2.68, 8.7, 1.67, 18.3, 449.0), KV_8B),
            Self::L40sOf8b => (of(1.5 + 0.11 + 1.64, 21.1, 60.4, 1.68, 206.0, 2818.0), KV_8B),
            Self::A100Of70bTp8 => (of(1.5, 13.6, 67.9, 1.50, 27.5, 2022.0), KV_70B),
            Self::H100Of70bTp4 => (of(1.5, 12.9, 43.5, 3.15, 29.0, 1059.0), KV_70B),
            Self::H100Of70bTp8 => (of(1.5, 6.98, 21.7, 2.17, 14.7, 502.0), KV_70B),
            Self::H200Of70bTp8 => (of(1.5, 5.35, 22.2, 2.24, 11.2, 505.0), KV_70B),
            Self::B200Of70bTp8 => (of(1.5, 3.85, 10.8, 1.38, 6.1, 339.0), KV_70B),
            Self::Rtx4090Of8b => {
                (StepCost { sequence_us: 3.0, ..of(3.0, 15.65, 89.9, 1.92, 154.7, 4937.0) }, KV_8B)
            }
        }
    }

    /// Whether it is several GPUs, whose communication the coefficients leave out.
    pub fn is_parallel(self) -> bool {
        matches!(
            self,
            Self::A100Of70bTp8
                | Self::H100Of70bTp4
                | Self::H100Of70bTp8
                | Self::H200Of70bTp8
                | Self::B200Of70bTp8
        )
    }

    /// Whether it was held against a real server's run.
    pub fn is_checked(self) -> bool {
        self == Self::Rtx4090Of8b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_costs_what_the_formula_says() {
        let cost = StepCost {
            base_ms: 1.0,
            weights_ms: 3.0,
            token_us: 40.0,
            knee: 2.0,
            sequence_us: 5.0,
            kv_token_ns: 100.0,
            prefill_pair_ps: 2000.0,
            comm: None,
        };
        let step = Step { tokens: 100, kv_tokens: 1_000, prefill_pairs: 50_000, ..Step::default() };
        // 1 ms + sqrt(3² + 4²) ms + 0 sequences + 0.1 ms + 0.1 ms
        assert_eq!(cost.duration(&step), 6_200_000);
        assert_eq!(StepCost { knee: 1.0, ..cost }.duration(&step), 8_200_000);
    }

    #[test]
    fn several_gpus_talk_in_every_layer() {
        let comm = Comm { gpus: 4, layers: 80, hidden: 8192, alpha_us: 10.0, beta_gb_s: 100.0 };
        // 160 all-reduces, each 10 us and 1.5 × 64 × 8192 × 2 bytes at 100 bytes a nanosecond: 15.72864 us.
        assert!((comm.nanoseconds(64) - 160.0 * (10_000.0 + 15_728.64)).abs() < 1e-6);
        let cost = StepCost {
            base_ms: 1.0,
            weights_ms: 0.0,
            token_us: 0.0,
            knee: 1.0,
            sequence_us: 0.0,
            kv_token_ns: 0.0,
            prefill_pair_ps: 0.0,
            comm: Some(comm),
        };
        let step = Step { tokens: 64, ..Step::default() };
        assert_eq!(cost.duration(&step), 1_000_000 + 4_116_582);
    }

    #[test]
    fn a_stopwatch_remembers_and_changes_nothing() {
        let (cost, _) = Preset::H100Of8b.parameters();
        let mut watch = Stopwatch::new(cost);
        for tokens in [9, 2048, 9, KEPT, 1, 2048, 9] {
            let step = Step { tokens, kv_tokens: u64::from(tokens) * 31, ..Step::default() };
            assert_eq!(watch.duration(&step), cost.duration(&step), "{tokens}");
        }
    }

    #[test]
    fn the_roofline_is_smooth_and_never_overflows() {
        assert!((smooth_max(1e300, 1e300, 100.0) - 1e300 * 2f64.powf(0.01)).abs() < 1e286);
        assert!(smooth_max(0.0, 0.0, 2.0).abs() < f64::EPSILON);
        assert!((smooth_max(0.0, 7.0, 3.0) - 7.0).abs() < 1e-12);
    }
}

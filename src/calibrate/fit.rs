//! The search: damped least squares (Levenberg and Marquardt) on the logarithms of modelled over recorded times.
//!
//! Each fitted request gives two residuals, of its time to the first token and of the time from there to its last one,
//! each cut at a factor of e so that a request which the model orders otherwise does not decide alone. Derivatives are
//! differences of two simulations. How far a parameter may be wrong is told by `margin`, for 95 % of the possible values,
//! and by how far from it other searches ended that fit as well; the larger of the two counts. Where that is more than a
//! quarter of the parameter, the data does not tell it.

use super::margin::{clusters, margins};
use super::{CalibrateError, Outcomes, Recorded, Request, simulate};
use crate::backend::config::{MockBackend, StepCost};
use crate::units::Ns;

/// A coefficient of the step cost.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its key in `cost`.
    pub name: &'static str,
    read: fn(&StepCost) -> f64,
    write: fn(&mut StepCost, f64),
    /// What it may be at least.
    least: f64,
    /// What it may be at most.
    most: f64,
    /// A usual size, for a search that begins at 0.
    usual: f64,
}

macro_rules! parameters {
    ($($name:ident: $least:literal ..= $most:literal, $usual:literal;)+) => {
        /// Every coefficient that can be fitted, in the order of the formula.
        pub const PARAMETERS: &[Parameter] = &[$(Parameter {
            name: stringify!($name), read: |cost| cost.$name, write: |cost, value| cost.$name = value,
            least: $least, most: $most, usual: $usual,
        }),+];
    };
}

parameters! {
    base_ms: 0.0..=1e6, 1.0;
    weights_ms: 0.0..=1e6, 5.0;
    token_us: 0.0..=1e6, 20.0;
    knee: 1.0..=20.0, 2.0;
    sequence_us: 0.0..=1e6, 3.0;
    kv_token_ns: 0.0..=1e6, 50.0;
    prefill_pair_ps: 0.0..=1e9, 1000.0;
}

impl Parameter {
    /// The parameter of this name.
    pub fn named(name: &str) -> Option<Self> {
        PARAMETERS.iter().find(|parameter| parameter.name == name).copied()
    }

    /// Its value.
    pub fn of(&self, cost: &StepCost) -> f64 {
        (self.read)(cost)
    }
}

/// A fitted parameter.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Which.
    pub parameter: Parameter,
    /// Where the search began.
    pub start: f64,
    /// Where it ended.
    pub value: f64,
    /// How far it may be wrong.
    pub margin: f64,
    /// Whether the data tells it.
    pub is_known: bool,
}

/// How far modelled times are from recorded ones, over some requests. Shares, not percentages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Score {
    /// How many requests.
    pub requests: usize,
    /// The mean absolute relative error of latency, TTFT and TPOT.
    pub mape: [f64; 3],
    /// The relative error of their means.
    pub mean: [f64; 3],
}

/// What a fit came to.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The mock with its fitted cost.
    pub mock: MockBackend,
    /// The parameters that were fitted.
    pub found: Vec<Found>,
    /// Over the requests that were fitted, with the parameters of the start.
    pub before: Score,
    /// Over the same ones, with the fitted parameters.
    pub fitted: Score,
    /// Over the others.
    pub held_out: Score,
    /// How many requests did not succeed and were left out.
    pub left_out: u64,
    /// How often the run was simulated.
    pub simulations: u32,
    /// Whether the mock's engine and cache were given, and not guessed.
    pub is_started: bool,
}

/// A fit to be made.
#[derive(Debug)]
pub struct Fit<'a> {
    /// What was recorded.
    pub recorded: &'a Recorded,
    /// The mock, with the cost to begin at.
    pub mock: MockBackend,
    /// What may change.
    pub parameters: Vec<Parameter>,
}

/// Turns of the search at most, at each difference, and tries in each.
const TURNS: u32 = 6;
const TRIES: u32 = 6;
/// A turn that makes the sum of squares less by a smaller share than this is the last one.
const LEAST_GAIN: f64 = 0.01;
/// The differences of derivatives, as shares of a parameter. A small change can move a request to another step, which
/// changes its times by much more: only over wide differences does that average out. Near the end there is less of it.
const DIFFERENCES: [f64; 4] = [0.3, 0.1, 0.03, 0.01];
/// A parameter is known when its margin is at most this share of it.
const KNOWN: f64 = 0.25;
/// How far from the start the other searches begin, in turn to both sides.
const ELSEWHERE: f64 = 1.6;
/// The residuals that a perfect model would leave: times repeat to about a hundredth.
const NOISE: f64 = 0.01;

/// One point of the search.
struct Point {
    /// Parameters over their scales.
    at: Vec<f64>,
    residuals: Vec<f64>,
    sum: f64,
}

impl Fit<'_> {
    /// Searches, scores and describes.
    pub(super) fn run(self, is_started: bool) -> Result<Fitted, CalibrateError> {
        let start = self.mock.cost.unwrap_or_else(|| unreachable!("the caller has given the mock a cost"));
        let scales: Vec<f64> =
            self.parameters.iter().map(|p| if p.of(&start) > 0.0 { p.of(&start) } else { p.usual }).collect();
        let mut simulations = 0;
        let begin: Vec<f64> =
            self.parameters.iter().zip(&scales).map(|(p, scale)| p.of(&start) / scale).collect();
        let mut best = self.point(&start, &scales, begin.clone(), &mut simulations)?;
        let before = self.score(&self.with(&start), 0)?;
        self.search(&start, &scales, &mut best, &mut simulations)?;
        // Two more searches, from elsewhere: where they end as low, the data does not tell the places apart.
        let mut ends = Vec::new();
        for factor in [ELSEWHERE, 1.0 / ELSEWHERE] {
            let turned = |k: usize| if k.is_multiple_of(2) { factor } else { 1.0 / factor };
            let at =
                (0..scales.len()).map(|k| self.clamp(k, &scales, begin[k].max(0.5) * turned(k))).collect();
            let mut other = self.point(&start, &scales, at, &mut simulations)?;
            self.search(&start, &scales, &mut other, &mut simulations)?;
            if other.sum < best.sum {
                std::mem::swap(&mut best, &mut other);
            }
            ends.push(other);
        }
        let floor = best.residuals.len() as f64 * NOISE * NOISE;
        ends.retain(|end| end.sum <= 2.0 * best.sum + floor);
        // The margins are those at the place where the search ended.
        let jacobian = self.jacobian(&start, &scales, &best, DIFFERENCES[0], &mut simulations)?;
        let cost = self.cost(&start, &scales, &best.at);
        let found = self.found(&start, &scales, &best, &ends, &jacobian);
        let mock = self.with(&cost);
        Ok(Fitted {
            before,
            fitted: self.score(&mock, 0)?,
            held_out: self.score(&mock, 1)?,
            left_out: self.recorded.left_out,
            mock,
            found,
            simulations,
            is_started,
        })
    }

    fn search(
        &self,
        start: &StepCost,
        scales: &[f64],
        best: &mut Point,
        simulations: &mut u32,
    ) -> Result<(), CalibrateError> {
        DIFFERENCES
            .iter()
            .try_for_each(|difference| self.descend(start, scales, best, *difference, simulations))
    }

    /// Goes down from `best` as far as derivatives over this difference lead.
    fn descend(
        &self,
        start: &StepCost,
        scales: &[f64],
        best: &mut Point,
        difference: f64,
        simulations: &mut u32,
    ) -> Result<(), CalibrateError> {
        let mut damping = 1e-2;
        for _ in 0..TURNS {
            let jacobian = self.jacobian(start, scales, best, difference, simulations)?;
            let before = best.sum;
            for _ in 0..TRIES {
                let step = solve(&normal(&jacobian, damping), &gradient(&jacobian, &best.residuals));
                let moved = best.at.iter().zip(&step).enumerate();
                let at = moved.map(|(k, (x, d))| self.clamp(k, scales, x - d)).collect();
                let next = self.point(start, scales, at, simulations)?;
                if next.sum < best.sum {
                    *best = next;
                    damping /= 10.0;
                    break;
                }
                damping *= 10.0;
            }
            if best.sum > before * (1.0 - LEAST_GAIN) {
                break;
            }
        }
        Ok(())
    }

    fn clamp(&self, k: usize, scales: &[f64], x: f64) -> f64 {
        let Parameter { least, most, .. } = self.parameters[k];
        x.clamp(least / scales[k], most / scales[k])
    }

    fn cost(&self, start: &StepCost, scales: &[f64], at: &[f64]) -> StepCost {
        let mut cost = *start;
        for ((parameter, scale), x) in self.parameters.iter().zip(scales).zip(at) {
            (parameter.write)(&mut cost, x * scale);
        }
        cost
    }

    fn with(&self, cost: &StepCost) -> MockBackend {
        MockBackend { cost: Some(*cost), ..self.mock.clone() }
    }

    fn point(
        &self,
        start: &StepCost,
        scales: &[f64],
        at: Vec<f64>,
        simulations: &mut u32,
    ) -> Result<Point, CalibrateError> {
        *simulations += 1;
        let outcomes = simulate(&self.with(&self.cost(start, scales, &at)), self.recorded)?;
        let mut residuals = Vec::new();
        for (request, times) in self.pairs(&outcomes, 0) {
            residuals.push(log_ratio(times.0 - request.arrival, request.first - request.arrival));
            if request.output > 1 {
                residuals.push(log_ratio(times.1 - times.0, request.last - request.first));
            }
        }
        let sum = residuals.iter().map(|r| r * r).sum();
        Ok(Point { at, residuals, sum })
    }

    /// Every second request over all runs, beginning at `from`, with its modelled times.
    fn pairs<'b>(
        &'b self,
        outcomes: &'b Outcomes,
        from: usize,
    ) -> impl Iterator<Item = (&'b Request, (Ns, Ns))> {
        let all = self.recorded.runs.iter().flatten().zip(outcomes.iter().flatten().copied());
        all.skip(from).step_by(2)
    }

    /// The derivatives of every residual, one row for each parameter: central differences over this share of it.
    fn jacobian(
        &self,
        start: &StepCost,
        scales: &[f64],
        point: &Point,
        difference: f64,
        simulations: &mut u32,
    ) -> Result<Vec<Vec<f64>>, CalibrateError> {
        let mut rows = Vec::new();
        for k in 0..self.parameters.len() {
            // Below a tenth of the scale the step is a share of that tenth: a parameter at 0 has to move too.
            let step = difference * point.at[k].max(0.1);
            let [low, high] = [-step, step].map(|step| {
                let mut at = point.at.clone();
                at[k] = self.clamp(k, scales, at[k] + step);
                at
            });
            let width = high[k] - low[k];
            let (low, high) =
                (self.point(start, scales, low, simulations)?, self.point(start, scales, high, simulations)?);
            rows.push(high.residuals.iter().zip(&low.residuals).map(|(a, b)| (a - b) / width).collect());
        }
        Ok(rows)
    }

    fn found(
        &self,
        start: &StepCost,
        scales: &[f64],
        point: &Point,
        ends: &[Point],
        jacobian: &[Vec<f64>],
    ) -> Vec<Found> {
        let margins = margins(jacobian, &point.residuals, &clusters(self.recorded), NOISE);
        let of = |k: usize| {
            let margin = margins[k];
            let parameter = self.parameters[k];
            let apart = ends.iter().map(|end| (end.at[k] - point.at[k]).abs()).fold(0.0, f64::max);
            let margin = margin.max(apart);
            let is_known = margin <= KNOWN * point.at[k];
            Found {
                parameter,
                start: parameter.of(start),
                value: point.at[k] * scales[k],
                margin: margin * scales[k],
                is_known,
            }
        };
        (0..self.parameters.len()).map(of).collect()
    }

    fn score(&self, mock: &MockBackend, from: usize) -> Result<Score, CalibrateError> {
        let outcomes = simulate(mock, self.recorded)?;
        let mut errors: [Vec<f64>; 3] = Default::default();
        let mut means: [(Vec<f64>, Vec<f64>); 3] = Default::default();
        let mut requests = 0;
        for (request, (first, last)) in self.pairs(&outcomes, from) {
            requests += 1;
            let per = |from: Ns, to: Ns| {
                (request.output > 1).then(|| (to - from) as f64 / f64::from(request.output - 1))
            };
            let pairs = [
                (Some((last - request.arrival) as f64), Some((request.last - request.arrival) as f64)),
                (Some((first - request.arrival) as f64), Some((request.first - request.arrival) as f64)),
                (per(first, last), per(request.first, request.last)),
            ];
            for (k, (model, real)) in pairs.into_iter().enumerate() {
                let (Some(model), Some(real)) = (model, real.filter(|real| *real > 0.0)) else { continue };
                errors[k].push((model - real).abs() / real);
                means[k].0.push(model);
                means[k].1.push(real);
            }
        }
        // Nothing to score is no error; both lists are of one length.
        let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len().max(1) as f64;
        let of_means = |(model, real): (Vec<f64>, Vec<f64>)| {
            if real.is_empty() { 0.0 } else { mean(&model) / mean(&real) - 1.0 }
        };
        Ok(Score { requests, mape: errors.map(|list| mean(&list)), mean: means.map(of_means) })
    }
}

fn log_ratio(model: Ns, real: Ns) -> f64 {
    // A microsecond keeps what takes no time from deciding everything.
    let log = libm::log((model as f64 + 1e3) / (real as f64 + 1e3));
    log.clamp(-1.0, 1.0)
}

/// `JᵀJ`, its diagonal raised by `damping` times itself and by so little that it can be inverted.
pub(super) fn normal(jacobian: &[Vec<f64>], damping: f64) -> Vec<Vec<f64>> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut matrix: Vec<Vec<f64>> =
        jacobian.iter().map(|row| jacobian.iter().map(|other| dot(row, other)).collect()).collect();
    for (k, row) in matrix.iter_mut().enumerate() {
        row[k] += row[k] * damping + 1e-9;
    }
    matrix
}

pub(super) fn gradient(jacobian: &[Vec<f64>], residuals: &[f64]) -> Vec<f64> {
    jacobian.iter().map(|row| row.iter().zip(residuals).map(|(a, b)| a * b).sum()).collect()
}

/// Solves a small linear system by elimination with the largest pivot. Without one, what it would decide is 0.
pub(super) fn solve(matrix: &[Vec<f64>], right: &[f64]) -> Vec<f64> {
    let n = right.len();
    let mut rows: Vec<Vec<f64>> =
        matrix.iter().zip(right).map(|(row, r)| [row.as_slice(), &[*r]].concat()).collect();
    for k in 0..n {
        let pivot = (k..n).max_by(|a, b| rows[*a][k].abs().total_cmp(&rows[*b][k].abs())).unwrap_or(k);
        rows.swap(k, pivot);
        let head = rows[k].clone();
        if head[k].abs() < 1e-300 {
            continue;
        }
        for (other, row) in rows.iter_mut().enumerate() {
            let factor = row[k] / head[k];
            if other != k {
                row.iter_mut().zip(&head).for_each(|(value, head)| *value -= factor * head);
            }
        }
    }
    (0..n).map(|k| if rows[k][k].abs() < 1e-300 { 0.0 } else { rows[k][n] / rows[k][k] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_system_is_solved() {
        let matrix = [vec![0.0, 2.0, 1.0], vec![1.0, -1.0, 0.0], vec![3.0, 0.0, -2.0]];
        let solved = solve(&matrix, &[7.0, -1.0, -3.0]);
        for (found, right) in solved.iter().zip([1.0, 2.0, 3.0]) {
            assert!((found - right).abs() < 1e-12, "{solved:?}");
        }
        assert_eq!(solve(&[vec![0.0]], &[1.0]), [0.0], "nothing is decided");
    }
}

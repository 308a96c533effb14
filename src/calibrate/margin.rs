//! How far fitted parameters may be wrong.
//!
//! Requests that a server computed together are late together, so their residuals are not as many observations as there
//! are of them. What is taken as independent are stretches of the run: busy periods, and where one of them is long, pieces of it that
//! are twice as long as the requests that are in flight at once. The margin is that of the jackknife over stretches: how
//! much the parameters move when each of them is left out, to first order (Bell and `McCaffrey`, *Bias reduction in standard
//! errors for linear regression with multi-stage samples*, 2002, whose estimate this is without their small correction:
//! with few stretches it errs to the safe side), times Student's t for as many stretches as tell the parameter.

use super::fit::{gradient, normal, solve};
use super::{Recorded, Request};
use crate::stats::t_exceeded;

/// By how much the margins of the linear theory are widened. A simulation is no linear function: derivatives over wide
/// differences promise more than the data tells near the place where the search ends. Over noisy runs of a known mock (the
/// test in `tests.rs`) the plain margins hold the truth in five of six cases, and where they do not they are short by a
/// factor of up to 1.8.
const WIDENED: f64 = 2.0;

/// With fewer stretches nothing is said about margins.
const LEAST: usize = 4;

/// Which stretch each residual of the fitted requests belongs to, in their order.
pub(super) fn clusters(recorded: &Recorded) -> Vec<usize> {
    let (mut clusters, mut cluster, mut number) = (Vec::new(), 0, 0_usize);
    for run in &recorded.runs {
        let longest = longest(run);
        let (mut busy_until, mut members) = (0, 0);
        for request in run {
            if members > 0 && (request.arrival >= busy_until || members >= longest) {
                (cluster, members) = (cluster + 1, 0);
            }
            busy_until = busy_until.max(request.last);
            members += 1;
            // Every second request is fitted; one of a single token has one residual.
            if number.is_multiple_of(2) {
                clusters.push(cluster);
                if request.output > 1 {
                    clusters.push(cluster);
                }
            }
            number += 1;
        }
        cluster += 1;
    }
    clusters
}

/// The most requests of one stretch: twice those in flight at once, over the run.
fn longest(run: &[Request]) -> usize {
    let end = run.iter().map(|request| request.last).max().unwrap_or(0);
    let spent: u128 = run.iter().map(|request| u128::from(request.last - request.arrival)).sum();
    let in_flight = spent as f64 / end.max(1) as f64;
    (2.0 * in_flight).max(4.0) as usize
}

/// The margin of each parameter, in the jacobian's units: that of [`linear`], widened.
pub(super) fn margins(jacobian: &[Vec<f64>], residuals: &[f64], clusters: &[usize], noise: f64) -> Vec<f64> {
    linear(jacobian, residuals, clusters, noise).into_iter().map(|margin| WIDENED * margin).collect()
}

/// The margin of each parameter of a linear model; infinite where the data can not tell it. `jacobian` has one row
/// of derivatives for each parameter, `clusters` the stretch of each residual, `noise` is what a perfect model would leave.
fn linear(jacobian: &[Vec<f64>], residuals: &[f64], clusters: &[usize], noise: f64) -> Vec<f64> {
    let (parameters, n) = (jacobian.len(), residuals.len());
    let mut stretches: Vec<Vec<usize>> = Vec::new();
    for (at, cluster) in clusters.iter().enumerate() {
        stretches.resize_with(stretches.len().max(cluster + 1), Vec::new);
        stretches[*cluster].push(at);
    }
    stretches.retain(|stretch| !stretch.is_empty());
    if stretches.len() < LEAST {
        return vec![f64::INFINITY; parameters];
    }
    let whole = normal(jacobian, 0.0);
    let downhill = gradient(jacobian, residuals);
    let moved: Vec<Vec<f64>> = stretches
        .iter()
        .map(|stretch| solution_without(&whole, &downhill, stretch, jacobian, residuals))
        .collect();
    let count = stretches.len() as f64;
    // What is left of the way down: a search that ended early is off by it, and each of `moved` goes it too.
    let left = solve(&whole, &downhill);
    // Where a stretch happens to agree with the model to the last bit, times still repeat no better than this.
    let free = n.saturating_sub(parameters).max(1) as f64;
    let least = f64::max(residuals.iter().map(|r| r * r).sum::<f64>() / free, noise * noise);
    let of = |k: usize| {
        let mean = moved.iter().map(|own| own[k]).sum::<f64>() / count;
        let jackknife = moved.iter().map(|own| (own[k] - mean) * (own[k] - mean)).sum::<f64>();
        let mut unit = vec![0.0; parameters];
        unit[k] = 1.0;
        let row = solve(&whole, &unit);
        let independent = row[k] * least;
        let variance = f64::max(jackknife * (count - 1.0) / count, independent);
        // A parameter that few stretches tell is known as if there were only these: the degrees of freedom of a sum of
        // squares by Satterthwaite, each stretch with the weight that an error of all its residuals has.
        let weights = stretches.iter().map(|stretch| {
            let weight: f64 =
                stretch.iter().map(|at| row.iter().zip(jacobian).map(|(a, j)| a * j[*at]).sum::<f64>()).sum();
            weight * weight
        });
        let (sum, squares) = weights.fold((0.0, 0.0), |(sum, squares), w| (sum + w, squares + w * w));
        let t = t_exceeded(0.025, (sum * sum / squares - 1.0).max(1.0));
        let margin = libm::sqrt(t * t * variance + left[k] * left[k]);
        if margin.is_finite() && independent > 0.0 { margin } else { f64::INFINITY }
    };
    (0..parameters).map(of).collect()
}

/// How far the parameters move when one stretch is left out.
fn solution_without(
    whole: &[Vec<f64>],
    downhill: &[f64],
    stretch: &[usize],
    jacobian: &[Vec<f64>],
    residuals: &[f64],
) -> Vec<f64> {
    let own: Vec<Vec<f64>> = jacobian.iter().map(|row| stretch.iter().map(|at| row[*at]).collect()).collect();
    let rest: Vec<f64> = stretch.iter().map(|at| residuals[*at]).collect();
    let (theirs, slope) = (product(&own), gradient(&own, &rest));
    let mut without = whole.to_vec();
    for (row, theirs) in without.iter_mut().zip(&theirs) {
        for (all, own) in row.iter_mut().zip(theirs) {
            *all -= own;
        }
    }
    let left: Vec<f64> = downhill.iter().zip(&slope).map(|(all, own)| all - own).collect();
    solve(&without, &left)
}

/// `JᵀJ` of some residuals.
fn product(jacobian: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    jacobian.iter().map(|row| jacobian.iter().map(|other| dot(row, other)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sample::Draws;

    fn request(arrival: u64, last: u64, output: u32) -> Request {
        Request { arrival, first: last, last, prompt: 1, output, blocks: Arc::from([]) }
    }

    #[test]
    fn busy_periods_stand_alone_and_long_ones_are_cut() {
        let lone = vec![
            request(0, 5, 2),
            request(5, 9, 2),
            request(7, 20, 1),
            request(30, 40, 1),
            request(50, 60, 2),
        ];
        // Fitted are the first, the third and the fifth; the second and the third overlap.
        assert_eq!(clusters(&Recorded { runs: vec![lone], ..Recorded::default() }), [0, 0, 1, 3, 3]);
        let crowd = (0..80).map(|at| request(at, at + 10, 1)).collect();
        let cut = clusters(&Recorded { runs: vec![crowd, vec![request(0, 5, 1)]], ..Recorded::default() });
        // About nine are in flight, so a stretch has 17 of which every second is fitted; the last one is another run.
        assert_eq!(cut.len(), 41);
        assert_eq!(cut.iter().filter(|cluster| **cluster == 0).count(), 9);
        assert_eq!((cut[39], cut[40]), (4, 5));
    }

    /// A straight line through points whose errors are shared within stretches: the intervals hold the truth as often as
    /// they say, where those for independent errors are far too narrow.
    #[test]
    fn shared_errors_are_no_independent_observations() {
        let (stretches, each) = (16, 20);
        let clusters: Vec<usize> = (0..stretches * each).map(|at| at / each).collect();
        let (mut held, mut naive) = (0, 0);
        let runs = 400;
        for run in 0..runs {
            let mut draws = Draws::new(7, "shared errors", run);
            // What is derived varies between stretches, as a load does.
            let level: Vec<f64> = (0..stretches).map(|_| draws.normal()).collect();
            let error: Vec<f64> = (0..stretches).map(|_| draws.normal()).collect();
            let slope = vec![
                vec![1.0; stretches * each],
                clusters.iter().map(|at| level[*at] + 0.1 * draws.normal()).collect(),
            ];
            let noise: Vec<f64> = clusters.iter().map(|at| error[*at] + 0.3 * draws.normal()).collect();
            // The fit: residuals are what the best line leaves of the noise, and the line is off by `wrong`.
            let wrong = solve(&normal(&slope, 0.0), &gradient(&slope, &noise));
            let residuals: Vec<f64> = (0..noise.len())
                .map(|at| noise[at] - wrong[0] * slope[0][at] - wrong[1] * slope[1][at])
                .collect();
            let margin = linear(&slope, &residuals, &clusters, 0.0)[1];
            held += u32::from(wrong[1].abs() <= margin);
            let alone: Vec<usize> = (0..noise.len()).collect();
            naive += u32::from(wrong[1].abs() <= linear(&slope, &residuals, &alone, 0.0)[1]);
        }
        let share = |n: u32| f64::from(n) / runs as f64;
        assert!((0.93..=0.999).contains(&share(held)), "{}", share(held));
        assert!(share(naive) < 0.6, "{}", share(naive));
    }

    #[test]
    fn too_few_stretches_tell_nothing() {
        let jacobian = vec![vec![1.0; 12]];
        assert_eq!(
            linear(&jacobian, &[0.1; 12], &[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], 0.01),
            [f64::INFINITY]
        );
    }
}

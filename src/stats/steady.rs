//! Where a series comes to its steady state.

/// Values in a batch.
const BATCH: usize = 5;
/// Fewer batches than this say nothing.
const LEAST: usize = 10;

/// How many values at the start MSER-5 would cut: of the truncation points d among the k means of five successive values, the
/// one with the smallest Σ (x − mean)² / (k − d)² over what is left; the first of equals. Only the first half is looked at,
/// since a minimum beyond it is one of too few values (White, *Simulation* 69, 1997; White, Cobb and Spratt, WSC 2000).
/// `None` of fewer than 50 values.
pub fn mser5(values: &[f64]) -> Option<usize> {
    let means: Vec<f64> =
        values.chunks_exact(BATCH).map(|batch| batch.iter().sum::<f64>() / BATCH as f64).collect();
    let k = means.len();
    if k < LEAST {
        return None;
    }
    // From the back, with Welford's update: mean and sum of squares of what is left after each cut.
    let (mut mean, mut squares) = (0.0, 0.0);
    let mut best = (f64::INFINITY, 0);
    for cut in (0..k).rev() {
        let left = (k - cut) as f64;
        let delta = means[cut] - mean;
        mean += delta / left;
        squares += delta * (means[cut] - mean);
        let score = squares / (left * left);
        if cut <= k / 2 && score <= best.0 {
            best = (score, cut);
        }
    }
    Some(best.1 * BATCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Draws;

    /// The definition, one cut after another.
    fn by_definition(values: &[f64]) -> usize {
        let means: Vec<f64> = values.chunks_exact(5).map(|batch| batch.iter().sum::<f64>() / 5.0).collect();
        let score = |cut: usize| {
            let left = &means[cut..];
            let mean = left.iter().sum::<f64>() / left.len() as f64;
            left.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (left.len() * left.len()) as f64
        };
        let cuts = 0..=means.len() / 2;
        5 * cuts.min_by(|a, b| score(*a).total_cmp(&score(*b))).unwrap()
    }

    #[test]
    fn it_is_its_definition() {
        let mut draws = Draws::new(3, "series", 0);
        for ramp in [0, 40, 160, 400] {
            let series: Vec<f64> = (0..500)
                .map(|at| {
                    let rise = if at < ramp { f64::from(ramp - at) / 20.0 } else { 0.0 };
                    rise + draws.unit()
                })
                .collect();
            assert_eq!(mser5(&series), Some(by_definition(&series)), "{ramp}");
        }
    }

    #[test]
    fn a_warm_up_is_cut_and_a_steady_series_is_not() {
        let mut draws = Draws::new(4, "series", 0);
        let steady: Vec<f64> = (0..1000).map(|_| draws.unit()).collect();
        assert!(mser5(&steady).unwrap() < 100);
        let warming: Vec<f64> =
            steady.iter().enumerate().map(|(at, x)| if at < 200 { x + 10.0 } else { *x }).collect();
        assert!((200..260).contains(&mser5(&warming).unwrap()));
        assert_eq!(mser5(&[1.0; 100]), Some(0));
        assert_eq!(mser5(&[1.0; 49]), None);
    }
}

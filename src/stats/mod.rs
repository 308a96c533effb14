//! Statistics as pure functions on slices, each with its source.
//!
//! Samples come as runs `(value, count)`: `count` observations of `value`. Token gaps are kept that way, and a plain
//! sample is a run of one. Nothing here panics on any input; what is undefined is `None`.

mod batch;
mod binomial;
mod moments;
mod quantile;
mod steady;
mod student;

pub use batch::{design_effect, shown_design_effect};
pub use binomial::{at_least, at_most, is_within, pmf, proportion_bounds};
pub use moments::{mean, stddev, sum, total};
pub use quantile::{OrderStatistics, at_rank, nearest_rank, quantile_bounds, smallest_n, sorted};
pub use steady::mser5;
pub use student::{Estimate, mean_of_clusters, mean_of_independent, mean_of_neighbours, t_below, t_exceeded};

/// One value and how often it was observed.
pub type Run = (f64, u64);

//! How many requests run at once, over time.

use crate::backend::BatchSize;
use crate::units::{MILLISECOND, Ns};

/// At most so many stretches of the series; then two become one.
const STRETCHES: usize = 240;

/// A whole number that changes over time: its integral, its largest value, and its mean in stretches of equal length.
///
/// The memory is bounded whatever the time: stretches begin at a millisecond and double when there are too many.
#[derive(Debug, Clone)]
pub(super) struct Occupancy {
    since: Ns,
    last: Ns,
    value: u32,
    max: u32,
    width: Ns,
    /// The integral of each stretch in request-nanoseconds.
    stretches: Vec<u128>,
}

impl Occupancy {
    /// Nothing runs, from time 0.
    pub(super) fn new() -> Self {
        Self { since: 0, last: 0, value: 0, max: 0, width: MILLISECOND, stretches: Vec::new() }
    }

    /// From `at` on so many run.
    pub(super) fn observe(&mut self, at: Ns, value: u32) {
        if value == self.value {
            return;
        }
        self.fill(at);
        self.value = value;
        self.max = self.max.max(value);
    }

    /// Counts from `now` on; what runs goes on running.
    pub(super) fn restart(&mut self, now: Ns) {
        *self = Self { since: now, last: now, value: self.value, max: self.value, ..Self::new() };
    }

    /// Adds the value that holds from the last time up to `to`.
    fn fill(&mut self, to: Ns) {
        while self.last < to {
            let mut at = ((self.last - self.since) / self.width) as usize;
            while at >= STRETCHES {
                let pairs = self.stretches.chunks(2).map(|pair| pair.iter().sum());
                self.stretches = pairs.collect();
                self.width *= 2;
                at = ((self.last - self.since) / self.width) as usize;
            }
            let end = to.min(self.since + (at as u64 + 1) * self.width);
            if self.stretches.len() <= at {
                self.stretches.resize(at + 1, 0);
            }
            self.stretches[at] += u128::from(self.value) * u128::from(end - self.last);
            self.last = end;
        }
    }

    /// What there was up to `now`.
    pub(super) fn summary(&self, now: Ns) -> BatchSize {
        let mut whole = self.clone();
        whole.fill(now);
        let time = whole.last - whole.since;
        let integral: u128 = whole.stretches.iter().sum();
        let mean = if time == 0 { f64::from(self.value) } else { integral as f64 / time as f64 };
        let stretches = time.div_ceil(whole.width) as usize;
        whole.stretches.resize(stretches.min(STRETCHES), 0);
        let mean_of = |(at, sum): (u64, &u128)| {
            let length = whole.width.min(time - at * whole.width);
            *sum as f64 / length as f64
        };
        BatchSize {
            mean,
            max: whole.max,
            width: whole.width,
            series: (0..).zip(&whole.stretches).map(mean_of).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_mean_is_over_time_and_idle_counts() {
        let mut occupancy = Occupancy::new();
        occupancy.observe(1_000_000, 4);
        occupancy.observe(2_500_000, 2);
        occupancy.observe(3_000_000, 0);
        let batch = occupancy.summary(4_000_000);
        assert_eq!((batch.mean, batch.max, batch.width), ((4.0 * 1.5 + 2.0 * 0.5) / 4.0, 4, MILLISECOND));
        assert_eq!(batch.series, [0.0, 4.0, 3.0, 0.0]);
        occupancy.restart(4_000_000);
        assert!(occupancy.summary(4_000_000).mean.abs() < f64::EPSILON);
    }

    proptest! {
        #[test]
        fn the_series_has_the_integral_whatever_its_width(
            changes in prop::collection::vec((0_u64..400_000_000, 0_u32..9), 1..60),
            start in 0_u64..1_000_000_000,
        ) {
            let mut occupancy = Occupancy::new();
            occupancy.restart(start);
            let (mut at, mut before, mut integral, mut max) = (start, 0, 0_u128, 0);
            for (pause, value) in changes {
                integral += u128::from(before) * u128::from(pause);
                at += pause;
                occupancy.observe(at, value);
                before = value;
                max = max.max(value);
            }
            let batch = occupancy.summary(at);
            let time = at - start;
            prop_assert!(batch.series.len() <= STRETCHES && batch.max == max);
            prop_assert_eq!(batch.series.len() as u64, time.div_ceil(batch.width));
            let total: f64 = (0..).zip(&batch.series).map(|(k, mean): (u64, &f64)| {
                mean * batch.width.min(time - k * batch.width) as f64
            }).sum();
            prop_assert!((total - integral as f64).abs() <= 1e-9 * integral as f64, "{} {}", total, integral);
            if time > 0 {
                prop_assert!((batch.mean - integral as f64 / time as f64).abs() < 1e-9);
            }
        }
    }
}

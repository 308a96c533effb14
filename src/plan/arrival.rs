//! When requests of an open load are due.
//!
//! An arrival process of unit rate is stretched by the inverse of the cumulative rate (time rescaling, as in Daley and
//! Vere-Jones, An Introduction to the Theory of Point Processes, section 7.4), so that one law serves constant rates
//! and stages alike. Each due time is rounded from its own exact position, so rounding does not add up.

use super::config::Arrival;
use crate::sample::Draws;
use crate::units::{Ns, from_seconds, seconds};

/// The latest due time: what a duration can be written as.
const LATEST: Ns = 9_000_000_000_000_000_000;

/// The law of the distances between the events of a process of unit rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Gaps {
    /// Always 1; the first event is at 0.
    Even,
    /// Exponential.
    Exponential,
    /// Gamma of this shape and mean 1.
    Gamma(f64),
}

impl From<&Arrival> for Gaps {
    fn from(arrival: &Arrival) -> Self {
        match arrival {
            Arrival::Constant(_) => Self::Even,
            Arrival::Poisson(_) => Self::Exponential,
            Arrival::Gamma(gamma) => Self::Gamma(gamma.burstiness),
        }
    }
}

impl Gaps {
    /// The position of the `index`-th event when the one before it (or the start) was at `last`.
    pub(super) fn next(self, last: f64, index: u64, phase_key: u64) -> f64 {
        match self {
            Self::Even => index as f64,
            Self::Exponential => last + Draws::new(phase_key, "arrival", index).exponential(),
            Self::Gamma(shape) => last + Draws::new(phase_key, "arrival", index).gamma(shape) / shape,
        }
    }
}

/// A rate over time: pieces one after another, straight lines within each.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Profile {
    pieces: Vec<Piece>,
    /// Events up to the end of the last piece.
    total: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Piece {
    /// Seconds before it.
    start: f64,
    /// Events before it.
    before: f64,
    /// Rate at its start, per second.
    rate: f64,
    /// Change of the rate per second.
    slope: f64,
}

impl Profile {
    /// The same rate for ever.
    pub(super) fn constant(rate: f64) -> Self {
        let piece = Piece { start: 0.0, before: 0.0, rate, slope: 0.0 };
        Self { pieces: vec![piece], total: f64::INFINITY }
    }

    /// Pieces of (length, rate at its start, rate at its end), in events per second.
    pub(super) fn pieces(parts: &[(Ns, f64, f64)]) -> Self {
        let (mut start, mut before) = (0, 0.0);
        let mut pieces = Vec::with_capacity(parts.len());
        for &(length, from, to) in parts.iter().filter(|part| part.0 > 0) {
            let long = seconds(length);
            pieces.push(Piece { start: seconds(start), before, rate: from, slope: (to - from) / long });
            start += length;
            before += f64::midpoint(from, to) * long;
        }
        Self { pieces, total: before }
    }

    /// The rate at the start.
    pub(super) fn first_rate(&self) -> f64 {
        self.pieces.first().map_or(0.0, |piece| piece.rate)
    }

    /// Events in all; infinite when it has no end.
    pub(super) fn total(&self) -> f64 {
        self.total
    }

    /// The cumulative rate at a time: the mean number of events until then.
    pub(super) fn events_until(&self, time: Ns) -> f64 {
        let time = seconds(time);
        let Some(piece) = self.pieces.iter().rfind(|piece| piece.start <= time) else { return 0.0 };
        let within = time - piece.start;
        (piece.before + piece.rate * within + piece.slope * within * within / 2.0).min(self.total)
    }

    /// When the cumulative rate reaches `events`; `None` when it never does.
    pub(super) fn time_of(&self, events: f64) -> Option<Ns> {
        if events >= self.total {
            return None;
        }
        let at = self.pieces.partition_point(|piece| piece.before <= events).checked_sub(1)?;
        let piece = &self.pieces[at];
        let rest = events - piece.before;
        // rest = rate t + slope t^2 / 2, solved without cancellation; at rate 0 and rest 0 the event is at the start.
        let root = libm::sqrt((piece.rate * piece.rate + 2.0 * piece.slope * rest).max(0.0));
        let within = if rest > 0.0 { 2.0 * rest / (piece.rate + root) } else { 0.0 };
        Some(from_seconds(piece.start + within).min(LATEST))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::SECOND;

    #[test]
    fn a_pause_is_stepped_over() {
        let profile = Profile::pieces(&[(SECOND, 2.0, 2.0), (SECOND, 0.0, 0.0), (SECOND, 0.0, 4.0)]);
        assert_eq!(profile.time_of(1.5), Some(750_000_000));
        assert_eq!(profile.time_of(2.0), Some(2 * SECOND), "the first moment at which more can come");
        assert_eq!(profile.time_of(2.5), Some(2 * SECOND + SECOND / 2));
        assert_eq!(profile.time_of(4.0), None);
        assert_eq!(Profile::pieces(&[]).time_of(0.0), None);
        assert_eq!(Profile::constant(1e-12).time_of(1.0), Some(LATEST));
    }

    proptest! {
        #[test]
        fn times_invert_the_cumulative_rate(
            parts in prop::collection::vec((1_000_000..10 * SECOND, 0.0..100.0, 0.0..100.0), 1..6),
            share in 0.0..1.0,
        ) {
            let profile = Profile::pieces(&parts);
            let events = share * profile.total();
            let at = profile.time_of(events).unwrap();
            // Half a nanosecond of rounding, at no more than 100 events per second.
            prop_assert!((profile.events_until(at) - events).abs() < 1e-6, "{events} at {at}");
            prop_assert!(profile.time_of(events / 2.0).unwrap() <= at);
        }
    }
}

//! Modelled time on the machine's clock.

use std::time::{Duration, Instant};

use crate::units::Ns;

/// Time since the server started, as the engine sees it: the machine's monotonic clock, or a multiple of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    origin: Instant,
    /// Modelled nanoseconds per nanosecond, where it is not 1.
    speed: Option<f64>,
}

impl Clock {
    /// T0 is now. `speed` is above 0.
    pub(super) fn start(speed: f64) -> Self {
        let speed = Some(speed).filter(|speed| (speed - 1.0).abs() > f64::EPSILON);
        Self { origin: Instant::now(), speed }
    }

    pub(super) fn now(&self) -> Ns {
        let real = self.origin.elapsed().as_nanos() as Ns;
        self.speed.map_or(real, |speed| (real as f64 * speed) as Ns)
    }

    /// How long it takes on the machine's clock until `at`; zero when it is past. Deadlines are absolute: what is left is
    /// worked out from the start each time, so delays do not add up.
    pub(super) fn until(&self, at: Ns) -> Duration {
        let real = self.speed.map_or(at, |speed| libm::ceil(at as f64 / speed) as Ns);
        Duration::from_nanos(real).saturating_sub(self.origin.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::SECOND;

    #[test]
    fn a_scaled_clock_is_a_multiple_of_the_machines() {
        let (real, fast) = (Clock::start(1.0), Clock::start(1000.0));
        std::thread::sleep(Duration::from_millis(2));
        assert!(fast.now() > 500 * real.now(), "{} {}", fast.now(), real.now());
        assert_eq!(real.until(0), Duration::ZERO);
        let left = fast.until(3_600 * SECOND);
        assert!(left <= Duration::from_millis(3_600) && left > Duration::ZERO, "{left:?}");
    }
}

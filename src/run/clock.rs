//! The clocks a run can be played on.

use std::time::Duration;

use super::Stop;
use crate::units::{MICROSECOND, MILLISECOND, Ns};

/// The longest sleep before a run looks whether it is asked to stop.
const LONGEST_SLEEP: Ns = 50 * MILLISECOND;
/// How long before a deadline sleeping gives way to looking at the clock: what a timer may come late.
const SPIN: Ns = 50 * MICROSECOND;

/// How time passes in a run.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Pace {
    /// It jumps from event to event.
    #[default]
    Virtual,
    /// By the machine's monotonic clock.
    Real,
    /// So many times as fast as the machine's monotonic clock; above 0.
    Scaled(f64),
}

/// Time since T0, as the backend and the records see it.
#[derive(Debug)]
pub(super) enum Timeline {
    /// Jumps from event to event.
    Virtual(Ns),
    /// The machine's monotonic clock.
    Real(Scaled),
}

impl Timeline {
    /// T0 is now.
    pub(super) fn start(pace: Pace) -> Self {
        let real = |speed| Self::Real(Scaled { clock: Monotonic::start(), speed });
        match pace {
            Pace::Virtual => Self::Virtual(0),
            Pace::Real => real(None),
            Pace::Scaled(speed) => real(Some(speed)),
        }
    }

    pub(super) fn now(&self) -> Ns {
        match self {
            Self::Virtual(now) => *now,
            Self::Real(clock) => clock.now(),
        }
    }

    /// The time that is recorded for something that the backend says happened at `at`: what it says on the virtual
    /// clock, the time at which it is heard of on the real one.
    pub(super) fn stamp(&self, at: Ns) -> Ns {
        match self {
            Self::Virtual(_) => at,
            Self::Real(clock) => clock.now(),
        }
    }

    /// How long to wait at once for `deadline` where somebody else waits; `None` on the virtual clock.
    pub(super) fn longest_wait(&self, deadline: Ns) -> Option<Duration> {
        match self {
            Self::Virtual(_) => None,
            Self::Real(clock) => {
                let left = clock.on_machine(deadline).saturating_sub(clock.clock.now());
                Some(Duration::from_nanos(left.min(LONGEST_SLEEP)))
            }
        }
    }

    /// Waits until `deadline`, or for a shorter time: the caller looks at the time again. Returns soon after a stop.
    pub(super) fn wait(&mut self, deadline: Ns, stop: &Stop) {
        match self {
            Self::Virtual(now) => *now = deadline.max(*now),
            Self::Real(clock) => {
                let (deadline, clock) = (clock.on_machine(deadline), &clock.clock);
                let sleep = deadline.saturating_sub(SPIN).min(clock.now().saturating_add(LONGEST_SLEEP));
                if clock.now() < sleep {
                    clock.sleep_until(sleep);
                }
                let spin = clock.now().saturating_add(SPIN) >= deadline;
                while spin && clock.now() < deadline && stop.requested().is_none() {
                    std::hint::spin_loop();
                }
            }
        }
    }
}

/// The machine's clock, or a multiple of it.
#[derive(Debug)]
pub(super) struct Scaled {
    clock: Monotonic,
    /// Modelled nanoseconds per nanosecond, where it is not the clock itself.
    speed: Option<f64>,
}

impl Scaled {
    fn now(&self) -> Ns {
        let now = self.clock.now();
        self.speed.map_or(now, |speed| (now as f64 * speed) as Ns)
    }

    /// When a modelled time comes on the machine's clock: never so early that [`Self::now`] is still before it.
    fn on_machine(&self, at: Ns) -> Ns {
        self.speed.map_or(at, |speed| (libm::ceil(at as f64 / speed) as Ns).saturating_add(1))
    }
}

/// How late so many waits end, one after the other and each for `length`, as a run on the real clock waits.
pub fn timer_lateness(count: u32, length: Ns) -> Vec<Ns> {
    let (mut clock, stop) = (Timeline::start(Pace::Real), Stop::default());
    let mut deadline = clock.now();
    let waits = (0..count).map(|_| {
        deadline = clock.now().max(deadline) + length;
        while clock.now() < deadline {
            clock.wait(deadline, &stop);
        }
        clock.now().saturating_sub(deadline)
    });
    waits.collect()
}

#[cfg(target_os = "linux")]
pub(super) use self::linux::{Monotonic, PreciseTimers};

#[cfg(not(target_os = "linux"))]
pub(super) use self::portable::{Monotonic, PreciseTimers};

#[cfg(target_os = "linux")]
mod linux {
    use std::num::NonZeroU64;

    use rustix::thread::{ClockId, clock_nanosleep_absolute, current_timer_slack, set_current_timer_slack};
    use rustix::time::{Timespec, clock_gettime};

    use crate::units::{Ns, SECOND};

    /// While it lives, the kernel does not round the ends of this thread's sleeps.
    #[derive(Debug)]
    pub(in crate::run) struct PreciseTimers {
        /// The thread's timer slack before.
        slack: Option<NonZeroU64>,
    }

    impl PreciseTimers {
        pub(in crate::run) fn new() -> Self {
            let slack = current_timer_slack().ok().and_then(NonZeroU64::new);
            // Without leave to set it, sleeps end up to 50 us late, which the spin before each deadline takes up.
            let _ = set_current_timer_slack(Some(NonZeroU64::MIN));
            Self { slack }
        }
    }

    /// `CLOCK_MONOTONIC` from T0, with absolute sleeps that the kernel does not round.
    #[derive(Debug)]
    pub(in crate::run) struct Monotonic {
        origin: Ns,
        _timers: PreciseTimers,
    }

    impl Monotonic {
        pub(in crate::run) fn start() -> Self {
            Self { origin: read(), _timers: PreciseTimers::new() }
        }

        pub(in crate::run) fn now(&self) -> Ns {
            read().saturating_sub(self.origin)
        }

        /// Sleeps until `at` since T0, or until a signal comes.
        pub(in crate::run) fn sleep_until(&self, at: Ns) {
            let at = self.origin.saturating_add(at);
            let request =
                Timespec { tv_sec: (at / SECOND).cast_signed(), tv_nsec: (at % SECOND).cast_signed() };
            // A signal ends the sleep early; the caller looks at the time again.
            let _ = clock_nanosleep_absolute(ClockId::Monotonic, &request);
        }
    }

    impl Drop for PreciseTimers {
        fn drop(&mut self) {
            if self.slack.is_some() {
                let _ = set_current_timer_slack(self.slack);
            }
        }
    }

    fn read() -> Ns {
        let time = clock_gettime(rustix::time::ClockId::Monotonic);
        time.tv_sec as Ns * SECOND + time.tv_nsec as Ns
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::time::{Duration, Instant};

    use crate::units::Ns;

    /// Timers are as they are.
    #[derive(Debug)]
    pub(in crate::run) struct PreciseTimers;

    impl PreciseTimers {
        pub(in crate::run) fn new() -> Self {
            Self
        }
    }

    /// The standard library's monotonic clock from T0.
    #[derive(Debug)]
    pub(in crate::run) struct Monotonic(Instant);

    impl Monotonic {
        pub(in crate::run) fn start() -> Self {
            Self(Instant::now())
        }

        pub(in crate::run) fn now(&self) -> Ns {
            self.0.elapsed().as_nanos() as Ns
        }

        /// Sleeps until `at` since T0.
        pub(in crate::run) fn sleep_until(&self, at: Ns) {
            std::thread::sleep(Duration::from_nanos(at.saturating_sub(self.now())));
        }
    }
}

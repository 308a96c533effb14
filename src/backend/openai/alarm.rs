//! A timer that a thread waits for together with its connections. The runtime's own timers are rounded to milliseconds.

use std::time::{Duration, Instant};

/// How long before a deadline waiting gives way to looking at the clock: what a timer may come late.
pub(super) const SPIN: Duration = Duration::from_micros(50);

#[cfg(target_os = "linux")]
pub(super) use self::linux::Alarm;
#[cfg(not(target_os = "linux"))]
pub(super) use self::portable::Alarm;

/// What is left until `at`, but for what is spent on looking at the clock.
fn left(at: Instant) -> Option<Duration> {
    let left = at.checked_duration_since(Instant::now())?.checked_sub(SPIN)?;
    Some(left).filter(|left| !left.is_zero())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Instant;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// A timer of the kernel.
    #[derive(Debug)]
    pub(in super::super) struct Alarm(AsyncFd<OwnedFd>);

    impl Alarm {
        /// To be made where a runtime is.
        pub(in super::super) fn new() -> io::Result<Self> {
            let timer =
                timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            #[expect(deprecated, reason = "sound here: the timer is owned, and open as long as this lives")]
            Ok(Self(AsyncFd::with_interest(timer, Interest::READABLE)?))
        }

        /// Waits until it is almost `at`; now and then not as long.
        pub(in super::super) async fn wait(&self, at: Instant) -> io::Result<()> {
            let Some(left) = super::left(at) else { return Ok(()) };
            let it_value =
                Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
            let once = Itimerspec { it_interval: Timespec::default(), it_value };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            self.0.readable().await?.clear_ready();
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::io;
    use std::time::Instant;

    /// The runtime's timer.
    #[derive(Debug)]
    pub(in super::super) struct Alarm;

    impl Alarm {
        pub(in super::super) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        /// Waits until it is almost `at`.
        pub(in super::super) async fn wait(&self, at: Instant) -> io::Result<()> {
            if let Some(left) = super::left(at) {
                tokio::time::sleep(left).await;
            }
            Ok(())
        }
    }
}

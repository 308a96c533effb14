//! This process's resident memory while requests are computed.

use std::time::Instant;

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// The shortest time between two readings, in seconds.
const INTERVAL: f64 = 0.05;

/// Readings of resident memory, weighted by the time until the next one.
#[derive(Debug)]
pub struct Memory {
    /// `None` where the system does not tell.
    probe: Option<(System, Pid)>,
    since: Instant,
    read: Instant,
    last: u64,
    peak: u64,
    integral: f64,
}

impl Memory {
    /// Begins with a first reading.
    pub fn start() -> Self {
        let probe = System::new().ok().zip(sysinfo::get_current_pid().ok());
        let now = Instant::now();
        let mut memory = Self { probe, since: now, read: now, last: 0, peak: 0, integral: 0.0 };
        memory.restart();
        memory
    }

    /// Counts from now on.
    pub fn restart(&mut self) {
        let now = Instant::now();
        self.last = self.resident();
        (self.since, self.read, self.peak, self.integral) = (now, now, self.last, 0.0);
    }

    /// Looks, unless it just has.
    pub fn look(&mut self) {
        let now = Instant::now();
        let passed = (now - self.read).as_secs_f64();
        if passed < INTERVAL {
            return;
        }
        self.integral += self.last as f64 * passed;
        self.read = now;
        self.last = self.resident();
        self.peak = self.peak.max(self.last);
    }

    fn resident(&mut self) -> u64 {
        let Some((system, pid)) = &mut self.probe else { return 0 };
        let kind = ProcessRefreshKind::nothing().with_memory();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[*pid]), false, kind);
        system.process(*pid).map_or(0, sysinfo::Process::memory)
    }

    /// The most and the mean over time, in bytes; `None` where the system does not tell.
    pub fn summary(&self) -> Option<(u64, f64)> {
        let now = Instant::now();
        let tail = self.last as f64 * (now - self.read).as_secs_f64();
        let time = (now - self.since).as_secs_f64();
        let mean = if time > 0.0 { (self.integral + tail) / time } else { self.last as f64 };
        (self.peak > 0).then_some((self.peak, mean))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_touched_is_seen() {
        let mut memory = Memory::start();
        let (before, _) = memory.summary().expect("this system tells");
        let block = vec![1_u8; 64 << 20];
        std::thread::sleep(std::time::Duration::from_secs_f64(1.2 * INTERVAL));
        memory.look();
        let (peak, mean) = memory.summary().expect("this system tells");
        assert!(peak >= before + (60 << 20), "{before} then {peak}");
        assert!(mean <= peak as f64 && mean >= before as f64 * 0.9, "{mean}");
        drop(std::hint::black_box(block));
    }
}

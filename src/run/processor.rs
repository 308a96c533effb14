//! Whether the threads that send and stamp had a processor when they had something to do.

use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backend::own_thread;
use crate::units::{Ns, ms};

/// What the client's own threads got of the machine while a cell was played. Linux tells it, by the kernel's own account
/// (`schedstat` of a thread, `/proc/stat`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessorUse {
    /// How much of the time the busiest of the threads that send and stamp ran, from 0 to 1.
    pub busy: f64,
    /// How long such a thread that had something to do waited for a processor, in milliseconds: the mean over its turns, of
    /// the thread that waited longest. All of its time stamps are as late.
    pub wait_ms: f64,
    /// How much of the machine's processor time its host gave to others, from 0 to 1.
    pub stolen: f64,
}

impl ProcessorUse {
    /// The worse of two stretches in each respect.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        Self {
            busy: self.busy.max(other.busy),
            wait_ms: self.wait_ms.max(other.wait_ms),
            stolen: self.stolen.max(other.stolen),
        }
    }
}

/// A look at the threads that send, from its start to its end.
#[derive(Debug)]
pub(super) struct Watched {
    began: Instant,
    threads: Vec<(u32, Turns)>,
    machine: Shares,
}

/// What the kernel counts of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turns {
    ran: Ns,
    waited: Ns,
    count: u64,
}

/// What the kernel counts of all processors, in its own ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shares {
    stolen: u64,
    total: u64,
}

impl Watched {
    /// Starts with the calling thread and these; `None` where the system does not tell.
    pub(super) fn start(others: &[u32]) -> Option<Self> {
        let own = own_thread()?;
        let threads = std::iter::once(own).chain(others.iter().copied());
        let threads: Vec<_> = threads.filter_map(|thread| Some((thread, turns_of(thread)?))).collect();
        (!threads.is_empty()).then_some(())?;
        Some(Self { began: Instant::now(), threads, machine: machine()? })
    }

    /// What the threads got since the start. A thread that has ended is left out.
    pub(super) fn end(&self) -> Option<ProcessorUse> {
        let time = self.began.elapsed().as_nanos() as f64;
        let spans: Vec<Turns> = self
            .threads
            .iter()
            .filter_map(|(thread, before)| turns_of(*thread).map(|after| after.since(*before)))
            .collect();
        let machine = machine()?;
        let total = machine.total.saturating_sub(self.machine.total);
        let stolen = machine.stolen.saturating_sub(self.machine.stolen);
        let most = |share: fn(&Turns) -> f64| spans.iter().map(share).fold(0.0, f64::max);
        Some(ProcessorUse {
            busy: (most(|turns| turns.ran as f64) / time.max(1.0)).min(1.0),
            wait_ms: most(|turns| ms(turns.waited) / turns.count.max(1) as f64),
            stolen: stolen as f64 / total.max(1) as f64,
        })
    }
}

/// What the calling thread and these get of the machine while something is done; `None` where the system does not tell.
pub fn watch_processor<T>(others: &[u32], during: impl FnOnce() -> T) -> (T, Option<ProcessorUse>) {
    let watched = Watched::start(others);
    let done = during();
    (done, watched.as_ref().and_then(Watched::end))
}

impl Turns {
    fn since(self, before: Self) -> Self {
        Self {
            ran: self.ran.saturating_sub(before.ran),
            waited: self.waited.saturating_sub(before.waited),
            count: self.count.saturating_sub(before.count),
        }
    }

    /// Reads a line of `schedstat`: nanoseconds run, nanoseconds waited, turns.
    fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Self { ran: next()?, waited: next()?, count: next()? })
    }
}

impl Shares {
    /// Reads the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal; guests are in user.
    fn read(text: &str) -> Option<Self> {
        let words = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
        let counts: Vec<u64> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
        Some(Self { stolen: *counts.get(7)?, total: counts.iter().sum() })
    }
}

fn turns_of(thread: u32) -> Option<Turns> {
    let path = format!("/proc/self/task/{thread}/schedstat");
    Turns::read(&std::fs::read_to_string(path).ok()?)
}

fn machine() -> Option<Shares> {
    Shares::read(&std::fs::read_to_string("/proc/stat").ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        assert_eq!(Turns::read("120 3240941 7\n"), Some(Turns { ran: 120, waited: 3_240_941, count: 7 }));
        assert_eq!((Turns::read("120 3"), Turns::read("a b c")), (None, None));
        let text = "cpu  10 20 30 400 5 0 1 34 9 9\ncpu0 1 2 3 4 5 6 7 8 9 9\n";
        assert_eq!(Shares::read(text), Some(Shares { stolen: 34, total: 500 }));
        assert_eq!((Shares::read("cpu  1 2 3"), Shares::read("")), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_computes_is_busy_and_one_that_sleeps_is_not() {
        let idle = Watched::start(&[]).expect("the kernel tells of its threads");
        std::thread::sleep(std::time::Duration::from_millis(30));
        let idle = idle.end().expect("the thread lives");
        let (tell, told) = std::sync::mpsc::channel();
        let computing = std::thread::spawn(move || {
            tell.send(own_thread()).expect("somebody listens");
            let start = Instant::now();
            while start.elapsed().as_millis() < 100 {
                std::hint::spin_loop();
            }
        });
        let thread = told.recv().expect("the thread tells").expect("threads have numbers");
        let busy = Watched::start(&[thread]).expect("the kernel tells of its threads");
        std::thread::sleep(std::time::Duration::from_millis(30));
        let busy = busy.end().expect("the threads live");
        computing.join().expect("it ends");
        assert!(idle.busy < busy.busy, "{idle:?} {busy:?}");
        assert!((0.0..=1.0).contains(&busy.stolen) && busy.busy <= 1.0 && idle.wait_ms >= 0.0);
        assert!(Watched::start(&[u32::MAX]).is_some(), "a thread that is not there is left out");
    }
}

//! The one thread pool: the caller and `threads - 1` workers run the same closure once each.
//!
//! Between two regions a worker spins for some microseconds, because the next one of the same step is near, and then parks:
//! two cores are shared with the scheduler, and a worker that spins on takes one of them.

#![expect(
    unsafe_code,
    reason = "a borrowed closure is handed to threads that outlive the borrow; `run` waits for all of them"
)]

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, Thread};

/// Looks before parking, about ten microseconds.
const SPINS: u32 = 3_000;

type Region = dyn Fn(usize) + Sync;

/// What a worker needs of a region.
struct Job {
    region: *const Region,
    caller: Thread,
}

struct Shared {
    /// Written by the caller before `epoch` moves, read by workers after; `None` between regions.
    job: UnsafeCell<Option<Job>>,
    epoch: AtomicU32,
    pending: AtomicUsize,
    stop: AtomicBool,
    failed: AtomicBool,
}

// SAFETY: `job` is written only by `Pool::run` (which has `&mut Pool`) while no worker is in a region (`pending` is 0), and read
// only between the Release store of `epoch` and the worker's Release decrement of `pending`, for which `run` waits.
unsafe impl Sync for Shared {}
// SAFETY: as above; the raw pointer in `Job` is followed only while its referent is borrowed by `Pool::run`.
unsafe impl Send for Shared {}

/// Threads that wait for regions. See the module.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// `threads` in all, the caller of [`Self::run`] among them; at least 1.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(None),
            epoch: AtomicU32::new(0),
            pending: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        });
        // Dropped on an early return, so that threads already started end.
        let mut pool = Self { shared, workers: Vec::new() };
        for index in 1..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("model-{index}"));
            pool.workers.push(builder.spawn(move || work(&shared, index))?);
        }
        Ok(pool)
    }

    /// How many times a region is called.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `region` once with each of `0..threads`, at the same time, and returns when all have returned.
    pub fn run(&mut self, region: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            region(0);
            return;
        }
        // SAFETY: the lifetime is erased for the time of this call only: `Wait` does not let it end, by return or by panic,
        // before every worker has counted itself out of `pending`, after which none follows the pointer.
        let erased = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync + '_), &'static Region>(region) };
        let job = Job { region: erased, caller: thread::current() };
        // SAFETY: `pending` is 0 here, so no worker reads `job`.
        unsafe { *self.shared.job.get() = Some(job) };
        self.shared.pending.store(self.workers.len(), Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        let wait = Wait(&self.shared);
        region(0);
        drop(wait);
        assert!(!self.shared.failed.load(Ordering::Relaxed), "a worker of the pool panicked");
    }
}

/// Waits even when the caller's own part panics: workers still hold the borrow then.
struct Wait<'a>(&'a Shared);
impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut spins = 0;
        while self.0.pending.load(Ordering::Acquire) != 0 {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                thread::park();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            let _ = worker.join();
        }
    }
}

/// Counts a worker out, by return or by panic, and wakes the caller after the last one.
struct Out<'a> {
    shared: &'a Shared,
    caller: Thread,
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.failed.store(true, Ordering::Relaxed);
        }
        if self.shared.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.caller.unpark();
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.epoch.load(Ordering::Acquire) == seen {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                thread::park();
            }
        }
        seen = seen.wrapping_add(1);
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: `epoch` moved, so `run` has written `job` and waits for this worker's `Out` before it writes again.
        let job = unsafe { (*shared.job.get()).as_ref() };
        if let Some(job) = job {
            let _out = Out { shared, caller: job.caller.clone() };
            // SAFETY: `run` keeps the closure borrowed until `_out` is dropped, which is after the call.
            let _ =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe { (*job.region)(index) }))
                    .map_err(|_| shared.failed.store(true, Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_region_is_run_once_by_each_thread() {
        for threads in [1, 2, 4] {
            let mut pool = Pool::new(threads).unwrap();
            let calls: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..500 {
                let local = [1_usize];
                pool.run(&|index| {
                    calls[index].fetch_add(local[0], Ordering::Relaxed);
                });
            }
            assert!(calls.iter().all(|c| c.load(Ordering::Relaxed) == 500));
        }
    }

    #[test]
    fn a_worker_that_panics_is_noticed_and_does_not_hang_the_caller() {
        let mut pool = Pool::new(2).unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(&|index| assert!(index == 0, "expected in this test"));
        }));
        assert!(result.is_err());
    }
}

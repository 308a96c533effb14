//! What this process and this machine are and use. Nothing here repeats, so it goes under `environment` only.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sysinfo::{
    CpuRefreshKind, MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System,
};

use super::flat::rounded;
use crate::units::MIB;

/// How often the sampler looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// What this process used. Not the server: its memory is in the metrics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceUse {
    /// The largest resident memory seen, in MiB.
    pub peak_rss_mb: f64,
    /// The mean of the readings, in MiB.
    pub mean_rss_mb: f64,
    /// Processor time used since sampling began (since the process began for a single reading), in seconds.
    pub cpu_s: f64,
    /// How many readings.
    pub readings: u64,
}

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// The processor's name.
    pub cpu: Option<String>,
    /// Logical cores.
    pub cores: Option<u64>,
    /// Memory in MiB.
    pub memory_mb: Option<u64>,
    /// The operating system.
    pub os: Option<String>,
    /// Its kernel.
    pub kernel: Option<String>,
}

/// A thread that reads this process's memory and processor time until it is stopped.
#[derive(Debug)]
pub struct Resources {
    stop: Sender<()>,
    thread: JoinHandle<ResourceUse>,
}

impl Resources {
    /// Starts sampling; `None` where the system lends no thread or does not know this process.
    pub fn start() -> Option<Self> {
        let (stop, stopped) = channel();
        let mut probe = Probe::new()?;
        let thread = std::thread::Builder::new()
            .name("resources".into())
            .spawn(move || {
                let mut seen = Readings::starting_at(probe.read().map_or(0, |reading| reading.cpu_ms));
                loop {
                    if let Some(reading) = probe.read() {
                        seen.add(reading);
                    }
                    if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                        if let Some(reading) = probe.read() {
                            seen.add(reading);
                        }
                        return seen.summary();
                    }
                }
            })
            .ok()?;
        Some(Self { stop, thread })
    }

    /// Stops sampling; `None` when nothing could be read.
    pub fn stop(self) -> Option<ResourceUse> {
        drop(self.stop);
        self.thread.join().ok().filter(|used| used.readings > 0)
    }
}

/// One reading of this process, for runs that are over too soon to sample.
pub fn own_memory() -> Option<ResourceUse> {
    let mut seen = Readings::starting_at(0);
    seen.add(Probe::new()?.read()?);
    Some(seen.summary())
}

/// The machine this process runs on. What the system does not tell is `None`.
pub fn host() -> Host {
    let kind = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kind).ok();
    let cpus = system.as_ref().map(System::cpus).unwrap_or_default();
    Host {
        cpu: cpus.first().map(|cpu| cpu.brand().trim().to_owned()).filter(|name| !name.is_empty()),
        cores: Some(cpus.len() as u64).filter(|cores| *cores > 0),
        memory_mb: system.as_ref().map(|system| system.total_memory() / MIB).filter(|memory| *memory > 0),
        os: System::long_os_version().ok(),
        kernel: System::kernel_version().ok(),
    }
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    rss: u64,
    cpu_ms: u64,
}

struct Probe {
    system: System,
    pid: Pid,
}

impl Probe {
    fn new() -> Option<Self> {
        Some(Self { system: System::new().ok()?, pid: sysinfo::get_current_pid().ok()? })
    }

    fn read(&mut self) -> Option<Reading> {
        let kind = ProcessRefreshKind::nothing().with_memory().with_cpu();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.pid]), false, kind);
        let process = self.system.process(self.pid)?;
        Some(Reading { rss: process.memory(), cpu_ms: process.accumulated_cpu_time() })
    }
}

#[derive(Debug, Default)]
struct Readings {
    cpu_start: u64,
    cpu_last: u64,
    peak: u64,
    sum: u128,
    count: u64,
}

impl Readings {
    fn starting_at(cpu_ms: u64) -> Self {
        Self { cpu_start: cpu_ms, cpu_last: cpu_ms, ..Self::default() }
    }

    fn add(&mut self, reading: Reading) {
        self.cpu_last = reading.cpu_ms;
        self.peak = self.peak.max(reading.rss);
        self.sum += u128::from(reading.rss);
        self.count += 1;
    }

    fn summary(&self) -> ResourceUse {
        let mib = |bytes: f64| rounded(bytes / MIB as f64);
        ResourceUse {
            peak_rss_mb: mib(self.peak as f64),
            mean_rss_mb: mib(self.sum as f64 / self.count.max(1) as f64),
            cpu_s: rounded(self.cpu_last.saturating_sub(self.cpu_start) as f64 / 1e3),
            readings: self.count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_this_machine_are_seen() {
        let sampler = Resources::start().expect("sampling starts");
        let used = sampler.stop().expect("something was read");
        assert!(
            used.readings >= 2 && used.peak_rss_mb > 1.0 && used.mean_rss_mb <= used.peak_rss_mb,
            "{used:?}"
        );
        assert!(own_memory().expect("a reading").peak_rss_mb > 1.0);
        let host = host();
        assert!(host.cores.is_some() && host.memory_mb.is_some() && host.kernel.is_some(), "{host:?}");
    }
}

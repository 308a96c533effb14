//! A server that this program starts, watches and stops.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// How often its memory is read.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long it may take to stop when it is asked to.
const GRACE: Duration = Duration::from_secs(20);
/// How much of its log is shown when it fails.
const TAIL: u64 = 2000;

/// A running server. Dropping it stops it and everything that it started.
pub(super) struct Launched {
    child: Child,
    log: PathBuf,
    memory: Arc<Mutex<Memory>>,
    stop: Option<Sender<()>>,
    watch: Option<JoinHandle<()>>,
}

/// Resident memory of the server and of what it started, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    pub(super) peak: u64,
    sum: u128,
    pub(super) readings: u64,
}

impl Memory {
    pub(super) fn mean(&self) -> f64 {
        self.sum as f64 / self.readings.max(1) as f64
    }
}

impl Launched {
    /// Starts the command in a process group of its own, its output in `log`.
    ///
    /// # Errors
    /// Why it can not be started.
    pub(super) fn start(command: &[String], dir: &Path, log: &Path) -> Result<Self, String> {
        let [program, arguments @ ..] = command else { return Err("`launch` names no program".into()) };
        let wrong = |error: &dyn std::fmt::Display| format!("`launch` can not start `{program}`: {error}");
        let file = File::create(log).map_err(|error| wrong(&format!("{}: {error}", log.display())))?;
        let errors = file.try_clone().map_err(|error| wrong(&error))?;
        let mut started = Command::new(program);
        started.args(arguments).stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
        if !dir.as_os_str().is_empty() {
            started.current_dir(dir);
        }
        let child = started.spawn().map_err(|error| wrong(&error))?;
        let memory: Arc<Mutex<Memory>> = Arc::default();
        let (stop, stopped) = channel();
        let (own, root) = (Arc::clone(&memory), child.id());
        let watch = std::thread::Builder::new().name("memory".into()).spawn(move || {
            let Ok(mut system) = System::new() else { return };
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let bytes = tree(&mut system, root);
                let mut memory = own.lock().unwrap_or_else(PoisonError::into_inner);
                memory.peak = memory.peak.max(bytes);
                memory.sum += u128::from(bytes);
                memory.readings += 1;
            }
        });
        Ok(Self { child, log: log.to_owned(), memory, stop: Some(stop), watch: watch.ok() })
    }

    /// Why it has ended, if it has.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let mut text = format!("the server that `launch` started ended with {status}");
        let tail = tail(&self.log);
        if !tail.is_empty() {
            text.push_str("; the end of its log (");
            text.push_str(&self.log.display().to_string());
            text.push_str("):\n");
            text.push_str(&tail);
        }
        Some(text)
    }

    /// Its memory since the last call.
    pub(super) fn take_memory(&self) -> Memory {
        std::mem::take(&mut *self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(watch) = self.watch.take() {
            let _ = watch.join();
        }
        // The group has the child's number. What is gone already can not be stopped, which is no harm.
        let Some(group) = Pid::from_raw(self.child.id().cast_signed()) else { return };
        let _ = kill_process_group(group, Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < GRACE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Resident bytes of a process and all that descend from it.
fn tree(system: &mut System, root: u32) -> u64 {
    let kind = ProcessRefreshKind::nothing().with_memory().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
    let mut known = vec![sysinfo::Pid::from_u32(root)];
    let mut at = 0;
    while at < known.len() {
        let parent = known[at];
        let children = system.processes().iter().filter(|(_, process)| process.parent() == Some(parent));
        known.extend(children.map(|(pid, _)| *pid));
        at += 1;
    }
    known.iter().filter_map(|pid| system.process(*pid)).map(sysinfo::Process::memory).sum()
}

fn tail(log: &Path) -> String {
    let mut text = Vec::new();
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        file.read_to_end(&mut text)?;
        Ok(text)
    };
    // Without a log the exit status has to do.
    String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_owned()
}

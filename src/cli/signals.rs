//! Signals: the first one asks the run to stop and keep what it has; the second ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::run::Stop;

/// Connects SIGINT, SIGTERM and SIGHUP to `stop`.
///
/// A file size limit (SIGXFSZ) would kill the process; with a handler in place the write fails instead, like on a full disk.
pub fn connect(stop: &Stop) -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let asked = Arc::new(AtomicBool::new(false));
        flag::register_conditional_default(signal, Arc::clone(&asked))?;
        flag::register(signal, asked)?;
        flag::register_usize(signal, stop.flag(), signal.unsigned_abs() as usize)?;
    }
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Ok(())
}

//! This machine: its timers, its processors, its limits, and what this client can hold on it.

use super::client::{self, Capacity};
use super::{Diagnosis, Finding, Mark};
use crate::measure::{Distribution, host};
use crate::run::{timer_lateness, watch_processor};
use crate::units::{MILLISECOND, human, ms};

/// How many timers are set.
const TIMERS: u32 = 1000;
/// Files that the program itself and its libraries have open.
const OWN_FILES: u64 = 64;

/// Looks for about four seconds.
pub(super) fn look() -> Diagnosis {
    let host = host();
    let (late, used) = watch_processor(&[], || timer_lateness(TIMERS, MILLISECOND));
    let late = Distribution::of(late.into_iter().map(ms).collect());
    let mut findings = vec![timers(&late)];
    if let Some(used) = used {
        findings.push(waiting(used.wait_ms));
        findings.push(steal(used.stolen));
    }
    findings.extend(load(host.cores));
    findings.extend(governor());
    let files = open_files();
    findings.push(streams(files));
    findings.push(match client::capacity() {
        Ok(capacity) => held(capacity),
        Err(why) => Finding::new("client", format!("could not be measured: {why}"), Mark::Note),
    });
    let name = host.cpu.unwrap_or_else(|| "unknown processor".into());
    let cores = host.cores.map_or_else(String::new, |cores| format!(", {cores} cores"));
    Diagnosis { subject: format!("this machine: {name}{cores}"), findings, backend: None }
}

fn timers(late: &Distribution) -> Finding {
    let [median, p99, max] =
        [late.quantile(0.5), late.quantile(0.99), late.max()].map(Option::unwrap_or_default);
    let words = |value: f64| human(value, "ms");
    let found = format!("p50 {}, p99 {}, at most {} late", words(median), words(p99), words(max));
    if p99 <= 0.25 {
        Finding::new("timers", found, Mark::Good)
    } else if p99 <= 1.0 {
        Finding::new("timers", found, Mark::Note)
            .advise("latencies under 20 ms are measured to a few percent only; a quieter machine does better")
    } else {
        Finding::new("timers", found, Mark::Bad)
            .advise("requests would leave late and runs be INVALID (`lag`); stop what else runs here, or measure from elsewhere")
    }
}

fn waiting(wait_ms: f64) -> Finding {
    let mark = if wait_ms <= 0.1 {
        Mark::Good
    } else if wait_ms <= 1.0 {
        Mark::Note
    } else {
        Mark::Bad
    };
    let finding =
        Finding::new("waiting for a processor", format!("{} each time", human(wait_ms, "ms")), mark);
    if mark == Mark::Good {
        finding
    } else {
        finding.advise("other programs want the processors; every time stamp is as late")
    }
}

fn steal(stolen: f64) -> Finding {
    let found = human(stolen, "%");
    if stolen <= 0.01 {
        Finding::new("stolen by the host", found, Mark::Good)
    } else {
        let mark = if stolen <= 0.05 { Mark::Note } else { Mark::Bad };
        Finding::new("stolen by the host", found, mark)
            .advise("the host of this virtual machine serves others with its processors")
    }
}

fn load(cores: Option<u64>) -> Option<Finding> {
    let load = sysinfo::System::load_average().ok()?.one;
    let cores = cores.unwrap_or(1) as f64;
    let found = format!("{load:.2} over the last minute");
    Some(if load <= 0.5 * cores {
        Finding::new("load", found, Mark::Good)
    } else {
        Finding::new("load", found, Mark::Note).advise("something else is running, or was a moment ago")
    })
}

/// Frequency scaling, where the system shows it.
fn governor() -> Option<Finding> {
    let read =
        |name: &str| std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cpufreq/{name}")).ok();
    let governor = read("scaling_governor")?.trim().to_owned();
    let finding = |mark| Finding::new("frequency scaling", governor.clone(), mark);
    Some(if governor == "performance" {
        finding(Mark::Good)
    } else {
        finding(Mark::Note).advise("the first requests after a pause run slower; `cpupower frequency-set -g performance` keeps the clock up")
    })
}

/// How many files may be open at once; `None` without a limit.
fn open_files() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).maximum
}

fn streams(files: Option<u64>) -> Finding {
    let Some(files) = files else { return Finding::new("open files", "no limit", Mark::Good) };
    let streams = files.saturating_sub(OWN_FILES);
    let found = format!("at most {files}: {streams} streams at once over HTTP/1.1");
    if streams >= 4096 {
        Finding::new("open files", found, Mark::Good)
    } else {
        Finding::new("open files", found, Mark::Note)
            .advise("`ulimit -Hn` sets how many connections this client can hold")
    }
}

fn held(capacity: Capacity) -> Finding {
    let found = format!(
        "{} of processor time per token with one write each: {} on one thread, {} on all {}",
        human(capacity.micros_per_token, "us"),
        human(capacity.tokens_per_second, "tok/s"),
        human(capacity.tokens_per_second * capacity.threads as f64, "tok/s"),
        capacity.threads
    );
    Finding::new("client", found, Mark::Good)
}

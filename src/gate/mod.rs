//! Holds metrics against rules: verdicts, and what a run as a whole comes to.
//!
//! [`check()`] reads every rule before anything runs and says which can not be judged; [`judge()`] gives one rule its verdict
//! for one workload on one backend; [`Watch`] stops a run whose rule is lost; [`outcome()`] makes an exit code of all of them. What is measured comes through
//! [`Evidence`]; nothing here opens a file or prints.

mod abort;
mod check;
pub mod config;
mod evidence;
pub mod exit;
mod explain;
mod judge;
mod judgement;
mod outcome;
#[cfg(test)]
mod tests;

pub use abort::{Fired, Watch, Watched};
pub use check::{Checked, Finding, Planned, PlannedBackend, PlannedWorkload, Scope, ScopedRule, Site, check};
pub use evidence::{Event, Evidence, Samples};
pub use explain::explain;
pub use judge::{Case, Contrast, INTERVAL_ALPHA, Side, contrast, interval, judge, limited, side};
pub use judgement::*;
pub use outcome::{Facts, Outcome, outcome};

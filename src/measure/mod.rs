//! Records to metrics: samples, pooled token gaps, quantiles, validity, resources and the curves that reports draw.
//!
//! Everything here is a function of records and counters: it neither judges a rule nor formats a report.
//! All percentiles are nearest rank, x_(ceil(q·n)); definitions and names follow [`crate::metric::METRICS`].

mod checks;
mod curves;
mod distribution;
mod fields;
#[cfg(test)]
pub(crate) mod fixture;
mod flat;
mod pool;
mod request;
mod resources;
mod samples;
#[cfg(test)]
mod tests;
mod totals;
mod validity;

pub use checks::{CheckReport, FailedResponse, check_reports};
pub use curves::{Bar, Curves, ErrorCount, Timeline, curves, errors, timeline};
pub use distribution::{Distribution, median_interval, rank};
pub use fields::{CONTRACT, Field, Type, fields, metrics_schema};
pub use flat::{Capacity, CellInput, Flat, METRICS_VERSION, Metrics, metrics, rounded};
pub use pool::Pool;
pub use request::{meets, value_of};
pub use resources::{Host, ResourceUse, Resources, host, own_memory};
pub use samples::Samples;
pub use totals::Totals;
pub use validity::{Reason, Reuse, Setting, Validity, validity};

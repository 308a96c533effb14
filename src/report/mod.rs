//! The one model that every output is rendered from, and the templates that render it.
//!
//! Nothing here measures or judges: a [`RunReport`] is filled from what measuring and judging came to, and every
//! output is a pure function of it. What can not repeat stands under `environment` and nowhere else.

mod analysis;
mod baseline;
mod charts;
mod comparison;
pub mod config;
mod context;
mod dialect;
mod files;
#[cfg(test)]
mod fixture;
mod format;
mod hlog;
mod model;
mod read;
mod requests;
mod sweep;
mod templates;
#[cfg(test)]
mod tests;
mod token_log;

pub use baseline::{BASELINE_VERSION, Baseline, BaselineCell, read_baseline};
pub use comparison::{ComparedCell, ComparedRow, ComparedSide, Comparison, render_comparison};
pub use dialect::{Dialect, Line, TranslateError, TranslatedCell, Translation, render_translation};
pub use files::{
    OutputFile, RequestLog, STANDARD, benchmark_summary, metrics_files, plain, requests_jsonl, run_json,
    run_schema, slug, sweep_csv,
};
pub use format::columns;
pub use hlog::{Interval, hlog};
pub use model::*;
pub use read::{ReadError, read};
pub use requests::{LoggedCell, read_requests};
pub use sweep::{Sweep, SweepRow, sweeps};
pub use templates::{EMBEDDED, Kind, RenderError, Template, embedded, find, render, render_standard};
pub use token_log::{TOKENS_FILE, TokenLog};

//! sagebench: a benchmark engine for LLM inference.
//!
//! A scenario is **read, planned, run, measured, judged, reported**. Each verb is one module; data flows one way.
//!
//! ```text
//! scenarios/*.yaml|toml ──► scenario ──► plan ──► run ──► measure ──► gate ──► report ──► files, terminal, exit code
//!                             │                    │
//!                          schema               backend: mock
//!                          + spans                 └─ engine    campaign conducts; cli and serve are the doors
//! ```

#[macro_use]
pub mod union;

pub mod backend;
pub mod calibrate;
pub mod campaign;
pub mod check;
pub mod checkpoint;
pub mod cli;
pub mod engine;
pub mod gate;
#[cfg(test)]
mod generated;
pub mod hook;
pub mod import;
pub mod measure;
pub mod metric;
pub mod nearest;
pub mod plan;
pub mod record;
pub mod report;
pub mod rule;
pub mod run;
pub mod sample;
pub mod scenario;
pub mod serve;
pub mod stats;
pub mod tokenizer;
pub mod units;

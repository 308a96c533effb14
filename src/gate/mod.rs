//! Holds metrics against rules: verdicts, and what a run as a whole comes to.

pub mod config;
mod judgement;

pub use judgement::*;

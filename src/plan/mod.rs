//! What will happen, decided before it does: lengths, arrivals, seeds and sources of every request.
//!
//! Pure: no clock, no network. The only files read are the scenario's own prompt sources.

pub mod config;
mod recipe;

/// Generates recipes on demand: a pure function of (seed, phase, index).
#[derive(Debug)]
pub struct Generator;

pub use recipe::*;

//! Real models on the CPU, in this process.

pub mod model;

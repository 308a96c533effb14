//! The rule language: `p99(ttft) < 80ms where turn >= 2`. A leaf: it knows metrics and units, and no results.

mod ast;

pub use ast::*;

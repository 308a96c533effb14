//! The rule language: `p99(ttft) < 80ms where prompt_tokens >= 1000`. A leaf: it knows metrics and units, and no results.
//!
//! ```text
//! rule    = subject , op , limit , [ "where" , condition , { "and" , condition } ] ;
//! subject = aggregate "(" metric ")" | "share(" condition , { "and" , condition } ")" | metric | flat name ;
//! limit   = number , [ unit ] | name , [ ( "+" | "-" ) , number , [ unit | "%" ] ] ;
//! aggregate = "avg" | "min" | "max" | "med" | "stddev" | "sum" | "count" | "p" number ;
//! op      = "<" | "<=" | ">" | ">=" | "==" | "!=" ;
//! condition = metric , op , number , [ unit ] | tag , ( "==" | "!=" ) , word ;
//! ```
//!
//! A bare metric is a rate, a count or a value; a metric of many values needs an aggregate. A flat name is one of the result
//! files, `p99_ttft_ms` or `peak_mem_mb`; it carries its unit, so its limit may be a bare number. A word is letters, digits,
//! `_`, `.` and `-`, or anything in double quotes; so is the name of a baseline, workload or backend in a limit. Added to a
//! name, `5%` is a share of the value there, but points of 100 % where the value is a share itself. A tag in `where` chooses workloads; a metric there chooses requests.
//!
//! [`parse()`] reports every error it can tell without guessing, each at its bytes of the text.

mod amount;
mod ast;
mod display;
mod error;
mod names;
mod parse;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod tokens;

pub use ast::*;
pub use error::RuleError;
pub use parse::{condition, parse, parse_with, subject};
pub use tokens::LIMIT;

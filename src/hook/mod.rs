//! Hooks: the sandbox in which a scenario's own functions make prompts, change requests and judge responses.
//!
//! A script sees the Rhai language, its standard functions, and what stands in `functions`. It has no clock, no file and
//! no network; whatever it draws is a pure function of the seed; every call ends within the [`limits`]. Hooks run when
//! recipes are made and when a response is complete, never between tokens. This module knows neither plans nor backends.

pub mod config;
mod error;
mod functions;
pub mod limits;
mod modules;
#[cfg(test)]
mod reference;
mod rng;
mod script;
mod values;

pub use error::{Fault, HookError, ScriptText};
pub use functions::Row;
pub use script::{HOOKS, Script};
pub use values::{Context, Finding, Prompt, Request, Response, Session, Site, Text, map_of};

#[cfg(test)]
mod tests;

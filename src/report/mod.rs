//! The one model that every output is rendered from, and the templates that render it.

pub mod config;

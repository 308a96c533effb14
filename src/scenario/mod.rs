//! What the user wrote: the language's types, and the way from text to a checked scenario.
//!
//! A file is read in this order: `extends`, `${NAME}`, `--set`, `defaults`, `matrix`, then it is checked against the
//! schema, typed, and its names are looked up. Everything that is wrong is reported at once, each at its place.
//! Nothing here knows the rule language or reads a data file: that is for `gate` and `plan`.

mod check;
mod diagnostic;
mod extends;
mod files;
mod found;
mod load;
mod matrix;
mod node;
mod parallel;
mod path;
#[cfg(test)]
mod reference;
mod references;
pub mod render;
mod schema;
mod scripts;
mod server;
mod set;
mod source;
#[cfg(test)]
mod tests;
mod toml;
mod types;
mod validate;
mod variables;
mod words;
mod yaml;

pub use diagnostic::{Diagnostic, Label, Severity, sort};
pub use load::{Failed, Family, Format, Loaded, Options, Point, load, load_text, read_file};
pub use schema::{editor_schema, strict_schema};
pub use source::{FileId, Origin, Place, Source, Sources, Span};
pub use types::*;

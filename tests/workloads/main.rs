//! Kinds of workloads, played whole on the mock: sessions, prompt files, mixtures.

mod common;
mod prompts;
mod sessions;

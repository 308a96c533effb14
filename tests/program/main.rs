//! The program as its users see it: files, exit codes and messages.

mod calibrate;
mod commands;
mod common;
mod comparing;
mod contract;
mod dialects;
mod expectations;
mod goodput;
mod hooks;
mod import;
mod interruption;
mod models;
mod parallel;
#[path = "../real/mod.rs"]
mod real;
mod records;
mod replay;
mod retries;
mod scenarios;
mod search;
mod serve;
mod threads;
mod verdicts;

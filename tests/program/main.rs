//! The program as its users see it: files, exit codes and messages.

mod common;
mod contract;
mod interruption;
mod replay;
mod scenarios;
mod verdicts;

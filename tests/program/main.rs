//! The program as its users see it: files, exit codes and messages.

mod commands;
mod common;
mod contract;
mod interruption;
mod replay;
mod scenarios;
mod verdicts;

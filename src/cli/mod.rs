//! The front door: arguments in, exit code out. Nothing below it ends the process or prints.

mod apply;
mod args;
mod calibrate;
mod comparing;
mod doctor;
mod documents;
mod error;
mod import;
mod init;
mod model;
mod progress;
mod quick;
mod serve;
mod signals;
mod terminal;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Cli, Command};
use error::CliError;

use crate::gate::exit;

/// Runs the program with this process's arguments.
pub fn main() -> ExitCode {
    let code = match Cli::try_parse() {
        Ok(cli) => run(cli.command).unwrap_or_else(|error| {
            error.report();
            error.exit_code()
        }),
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Whoever closed the pipe has read enough.
            let _ = error.print();
            if asked { exit::PASS } else { exit::USAGE }
        }
    };
    ExitCode::from(code)
}

fn run(command: Command) -> Result<u8, CliError> {
    match command {
        Command::Apply(args) => apply::apply(&args),
        Command::Run(args) => apply::run(&args),
        Command::Quick(args) => quick::quick(&args),
        Command::Validate(args) => documents::validate(&args),
        Command::Plan(args) => documents::plan(&args),
        Command::Report(args) => documents::report(&args),
        Command::Compare(args) => comparing::comparison(&args),
        Command::Baseline(args) => comparing::baseline(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Serve(args) => serve::serve(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Schema(args) => documents::schema(&args),
        Command::Import(args) => import::run(&args),
        Command::Init(args) => init::init(&args),
        Command::Model(command) => model::model(&command),
        Command::Completions { shell } => documents::completions(shell),
        Command::Man => documents::man(),
    }
}

/// Logging goes to standard error: warnings always, more with `-v`, and what `SAGEBENCH_LOG` asks for.
fn log(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("SAGEBENCH_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // A second subscriber in one process (in tests) is of no consequence.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal::error_colour())
        .without_time()
        .with_target(false)
        .try_init();
}

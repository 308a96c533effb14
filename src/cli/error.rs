//! What goes wrong at the front door, with its exit code.

use std::io;
use std::path::PathBuf;

use super::terminal;
use crate::campaign::{CampaignError, FolderError, Rejected};
use crate::gate::exit;
use crate::scenario::render::{Render, render};
use crate::serve::ServeError;

/// An error that ends a command.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A scenario or a plan can not be used.
    #[error("the scenario can not be used")]
    Rejected(Box<Rejected>),
    /// The results folder can not be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Playing or writing failed.
    #[error(transparent)]
    Campaign(#[from] CampaignError),
    /// A file named on the command line can not be read or rendered.
    #[error("{0}")]
    Input(String),
    /// A file named on the command line can not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A server can not start.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Standard output can not be written to.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl From<Rejected> for CliError {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(Box::new(rejected))
    }
}

impl CliError {
    /// The exit code it ends the process with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Rejected(rejected) if matches!(**rejected, Rejected::NotComparable(_)) => exit::INVALID,
            Self::Rejected(_)
            | Self::Input(_)
            | Self::Folder(FolderError::Incomplete(_) | FolderError::NothingToResume(_)) => exit::USAGE,
            Self::Folder(FolderError::Io { .. }) | Self::Write { .. } | Self::Serve(_) | Self::Output(_) => {
                exit::RUN
            }
            Self::Campaign(error) => error.exit_code(),
        }
    }

    /// Says it on standard error.
    pub fn report(&self) {
        match self {
            Self::Rejected(rejected) => match rejected.as_ref() {
                Rejected::Invalid(failed) | Rejected::NotComparable(failed) => {
                    let style = Render::Text { color: terminal::error_colour() };
                    terminal::say(render(&failed.sources, &failed.diagnostics, style).trim_end());
                }
                Rejected::Message(message) => terminal::say(&format!("error: {message}")),
            },
            other => terminal::say(&format!("error: {other}")),
        }
    }
}

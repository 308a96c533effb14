//! Runs the binary as a user does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The binary, in a folder of its own, without the environment's opinions on colour or CI.
pub fn sagebench(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sagebench"));
    command.current_dir(dir);
    for name in ["GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "CI", "CLICOLOR_FORCE", "NO_COLOR", "SAGEBENCH_LOG"]
    {
        command.env_remove(name);
    }
    command
}

/// What a finished process said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs the binary with these arguments.
pub fn run<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Said {
    sagebench(dir).args(args).output().unwrap().into()
}

/// A file of this repository.
pub fn repo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Reads a JSON file.
pub fn json(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

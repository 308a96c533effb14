//! Where the real traces and measurements are, which are not part of this repository.

use std::path::{Path, PathBuf};

/// Their folder: `SAGEBENCH_TRACES`, else the one that stands beside the crate. Without it the test named says that it did
/// not run; that a file is missing in it is for the test to fail on.
pub fn folder(test: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/traces");
    let folder = std::env::var_os("SAGEBENCH_TRACES").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("{test} did not run: there is no folder {}; set SAGEBENCH_TRACES", folder.display());
    None
}

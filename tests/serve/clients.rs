//! Load generators from elsewhere, where they may be installed.

use std::path::Path;
use std::process::Command;

/// Runs tests/real/clients.py, which installs clients from `PyPI` and fails where one can not do with `serve`. Runs where
/// `SAGEBENCH_CLIENTS` is set.
#[test]
fn clients_from_elsewhere_complete_their_runs() {
    if std::env::var_os("SAGEBENCH_CLIENTS").is_none() {
        eprintln!("did not run: set SAGEBENCH_CLIENTS=1");
        return;
    }
    let repo = Path::new(env!("CARGO_MANIFEST_DIR"));
    let said = Command::new("python3")
        .arg(repo.join("tests/real/clients.py"))
        .arg(env!("CARGO_BIN_EXE_sagebench"))
        .args(["--streams", "4"])
        .arg("--folder")
        .arg(repo.join("target/clients"))
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&said.stdout));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

//! Real servers with a real model, where they may be started.

use std::process::Command;

use crate::program::repo;

/// Runs tests/real/servers.py. `SAGEBENCH_GGUF` names a model that was trained for chat, and `SAGEBENCH_LLAMACPP` a Python that
/// has `llama-cpp-python[server]`; the model is computed here, so tests should be built with `--release`.
#[test]
fn real_servers_are_driven_by_a_scenario() {
    let Some(model) = std::env::var_os("SAGEBENCH_GGUF") else {
        eprintln!(
            "did not run: set SAGEBENCH_GGUF=MODEL.gguf, and SAGEBENCH_LLAMACPP=PYTHON for llama.cpp's server"
        );
        return;
    };
    let mut script = Command::new("python3");
    script.arg(repo("tests/real/servers.py")).arg(env!("CARGO_BIN_EXE_sagebench")).arg(model);
    script.arg("--folder").arg(repo("target/servers"));
    if let Some(python) = std::env::var_os("SAGEBENCH_LLAMACPP") {
        script.arg("--python").arg(python);
    }
    let said = script.output().unwrap();
    println!("{}", String::from_utf8_lossy(&said.stdout));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

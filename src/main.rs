//! The `sagebench` binary.

fn main() -> std::process::ExitCode {
    sagebench::cli::main()
}

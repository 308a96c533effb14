//! The `sagebench` binary.

/// Planning, hooks and reports allocate much and free it in another order.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    sagebench::cli::main()
}

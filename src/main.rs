//! The `sagebench` binary.

fn main() {}

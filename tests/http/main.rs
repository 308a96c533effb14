//! The HTTP client against a server of the tests' own, on the loopback only.

mod conformance;
mod play;
mod server;
mod transport;

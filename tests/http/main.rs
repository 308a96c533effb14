//! The HTTP client against a server of the tests' own, on the loopback only.

mod conformance;
mod flavors;
mod play;
mod program;
mod proxied;
mod reading;
mod secure;
mod server;
mod servers;
mod transport;

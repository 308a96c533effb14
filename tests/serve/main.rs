//! `serve` as its clients see it, down to the bytes: a raw client over sockets, and no library between.

#![expect(clippy::float_cmp, reason = "counts and modelled times are exact")]
#![expect(clippy::needless_pass_by_value, reason = "settings are written in place, as JSON")]

mod client;
mod clients;
#[cfg(feature = "candle")]
mod computed;
mod endpoints;
mod faults;
mod lifecycle;
mod page;
mod streams;

//! Statistics as pure functions on slices, each with its source.

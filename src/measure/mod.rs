//! Records to metrics.

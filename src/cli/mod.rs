//! The front door: arguments in, exit code out.

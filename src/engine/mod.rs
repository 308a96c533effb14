//! A continuous-batching engine core: block pool and prefix index. Pure: no clock, no tensors.

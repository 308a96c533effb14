//! The conductor: which cells are played in which order, and what becomes of their results.

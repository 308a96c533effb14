//! What stands for models where the program was built without them.

use std::convert::Infallible;
use std::sync::Arc;

use indexmap::IndexMap;

use super::{Engine, OpenError, Source};
use crate::backend::config::CandleBackend;
use crate::plan::Sampling;

/// One token to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The token.
    pub token: u32,
    /// Its position in its sequence, from 0.
    pub position: u32,
    /// Whose blocks its keys and values go to: an index into the tables.
    pub sequence: u32,
}

/// No model.
#[derive(Debug)]
pub struct Local(Infallible);

impl Local {
    /// Says that there is none.
    pub fn open(_: &CandleBackend, _: &Arc<Source>) -> Result<Self, OpenError> {
        Err(OpenError::Model(
            "this program was built without the feature `candle`, so it computes no models".into(),
        ))
    }

    /// Never called.
    pub fn engine(&self, _: Vec<Sampling>) -> Result<Engine, OpenError> {
        match self.0 {}
    }

    /// Never called.
    pub fn details(&self) -> IndexMap<String, String> {
        match self.0 {}
    }
}

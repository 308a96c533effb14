//! What a scenario says about its reports. Doc comments here are the user manual.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A report beside the standard ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportFile {
    /// The template: beside the scenario, else in its `templates/` folder, else one that ships with the program under that name.
    pub template: String,
    /// The file to write, inside the output folder.
    pub out: PathBuf,
}

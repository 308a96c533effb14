//! What can be wrong with a model or a step.

use std::path::PathBuf;

/// The architectures of [`super::Model`], as `config.json` and GGUF name them.
pub const KNOWN: &[&str] = &["gpt2", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma3"];

/// The formats of weights that [`super::Model`] reads.
pub const FORMATS: &str = "f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k, q6_k";

/// Each is one message that names the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be opened or read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's word.
        error: std::io::Error,
    },
    /// A folder without weights, or neither a folder nor a GGUF file.
    #[error(
        "{} is not a model: give a folder with config.json and *.safetensors, or a .gguf file{}",
        path.display(),
        if *pickled { " (it has weights in PyTorch's pickle format only: convert them to safetensors)" } else { "" }
    )]
    NotAModel {
        /// What was given.
        path: PathBuf,
        /// Whether there are `.bin` weights.
        pickled: bool,
    },
    /// A file that is not what its name says, or ends too early.
    #[error("{} is corrupt or truncated: {reason}; fetch it again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        reason: String,
    },
    /// A field of the configuration is missing or not usable.
    #[error("{}: `{field}` {reason}", path.display())]
    Config {
        /// `config.json` or the GGUF file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody wrote this one.
    #[error("{}: the architecture `{name}` is not known here; known are {}", path.display(), KNOWN.join(", "))]
    Architecture {
        /// `config.json` or the GGUF file.
        path: PathBuf,
        /// What it names.
        name: String,
    },
    /// The weights lack a tensor that the configuration promises.
    #[error("{}: the tensor `{name}` is missing", path.display())]
    Missing {
        /// The folder or file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor of another shape than the configuration says.
    #[error("{}: the tensor `{name}` has shape {found:?}, and the configuration says {expected:?}", path.display())]
    Dimensions {
        /// The folder or file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// In the file.
        found: Vec<usize>,
        /// By the configuration.
        expected: Vec<usize>,
    },
    /// A number format that cannot be computed with.
    #[error("{}: the tensor `{name}` is stored as {kind}; known are {FORMATS}", path.display())]
    Quantisation {
        /// The folder or file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its format.
        kind: String,
    },
    /// No memory for the pool of keys and values.
    #[error("no memory for {bytes} bytes of keys and values: ask for fewer blocks")]
    Memory {
        /// What was asked for.
        bytes: u64,
    },
    /// No threads.
    #[error("cannot start a thread: {0}")]
    Threads(std::io::Error),
    /// Rows that do not fit the model, the pool or their tables: a mistake of the caller.
    #[error("row {row}: {reason}")]
    Row {
        /// Its index in the step.
        row: usize,
        /// What does not fit.
        reason: String,
    },
}

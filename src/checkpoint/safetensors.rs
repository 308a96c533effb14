//! The header of a safetensors file: names, types and shapes. Format: <https://huggingface.co/docs/safetensors>.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest header that the format allows.
const LONGEST: u64 = 100_000_000;

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    /// Its type, such as `F32`.
    pub dtype: String,
    /// Its dimensions, the outermost first.
    pub shape: Vec<u64>,
    /// Where it lies behind the header: first byte, and the one behind the last.
    pub data_offsets: (u64, u64),
}

impl Tensor {
    /// Numbers in it.
    pub fn count(&self) -> u64 {
        self.shape.iter().fold(1, |all, n| all.saturating_mul(*n))
    }

    /// Bytes of it.
    pub fn bytes(&self) -> u64 {
        self.data_offsets.1.saturating_sub(self.data_offsets.0)
    }
}

/// Reads the header of a file, and holds it against the file's length.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence that names it.
pub fn read(path: &Path) -> Result<IndexMap<String, Tensor>, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(|_| format!("it is truncated: it has {length} bytes"))?;
    let header = u64::from_le_bytes(start);
    if header > LONGEST {
        return Err(format!("it is no safetensors file: its header would have {header} bytes"));
    }
    if header + 8 > length {
        return Err(format!("it is truncated: its header has {header} bytes, and the file {length}"));
    }
    let mut text = vec![0; header as usize];
    file.read_exact(&mut text).map_err(|error| error.to_string())?;
    let entries: IndexMap<String, Value> =
        serde_json::from_slice(&text).map_err(|error| format!("its header is corrupt: {error}"))?;
    let mut tensors = IndexMap::new();
    for (name, value) in entries.into_iter().filter(|(name, _)| name != "__metadata__") {
        let tensor: Tensor = serde_json::from_value(value)
            .map_err(|error| format!("its header is corrupt: tensor `{name}`: {error}"))?;
        let end = tensor.data_offsets.1.saturating_add(8 + header);
        if end > length || tensor.data_offsets.0 > tensor.data_offsets.1 {
            return Err(format!(
                "it is truncated: tensor `{name}` ends at byte {end}, and the file has {length}"
            ));
        }
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

//! Checkpoints with the shapes of real models and random weights: as fast as the real ones, for machines that can not
//! download them. What they answer means nothing.

mod shape;
mod vocabulary;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use indexmap::IndexMap;
use serde_json::{Value, json};

use self::shape::Fill;
pub use self::shape::Like;
use super::CheckpointError;
use super::hub::{TOKENIZER, WEIGHTS};
use super::safetensors::Tensor;
use crate::sample::{key, name_key};

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stored {
    /// 32 bits.
    #[default]
    F32,
    /// The upper 16 bits of those.
    Bf16,
}

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Random {
    /// Whose shapes.
    pub like: Like,
    /// A model of the same architecture that is computed in no time: two narrow layers and 512 tokens.
    pub tiny: bool,
    /// How weights are stored.
    pub stored: Stored,
    /// Decides every weight.
    pub seed: u64,
}

impl Random {
    /// Writes config.json, tokenizer.json and model.safetensors into a folder, which is made.
    pub fn write(&self, folder: &Path) -> Result<(), CheckpointError> {
        let shape = self.like.shape(self.tiny);
        fs::create_dir_all(folder).map_err(|error| CheckpointError::file(folder, error))?;
        let text = |name: &str, value: &Value| {
            let path = folder.join(name);
            fs::write(&path, format!("{value:#}\n")).map_err(|error| CheckpointError::file(&path, error))
        };
        let vocabulary = vocabulary::Vocabulary::of_size(shape.vocabulary);
        let dtype = match self.stored {
            Stored::F32 => "float32",
            Stored::Bf16 => "bfloat16",
        };
        let mut config = shape.config(self.like);
        config["torch_dtype"] = json!(dtype);
        config["bos_token_id"] = json!(vocabulary.end());
        config["eos_token_id"] = json!(vocabulary.end());
        text("config.json", &config)?;
        text(TOKENIZER[0], &vocabulary.json())?;
        let path = folder.join(WEIGHTS);
        self.weights(&shape.tensors(self.like), &path).map_err(|error| CheckpointError::file(&path, error))
    }

    fn weights(&self, tensors: &[(String, Vec<u64>, Fill)], path: &Path) -> std::io::Result<()> {
        let (name, size) = match self.stored {
            Stored::F32 => ("F32", 4),
            Stored::Bf16 => ("BF16", 2),
        };
        let mut at = 0;
        let mut header = IndexMap::new();
        for (tensor, shape, _) in tensors {
            let bytes = shape.iter().product::<u64>() * size;
            let entry = Tensor { dtype: name.into(), shape: shape.clone(), data_offsets: (at, at + bytes) };
            header.insert(tensor.clone(), entry);
            at += bytes;
        }
        let mut header = serde_json::to_vec(&header)?;
        // Weights begin where a vector of numbers may.
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (tensor, shape, fill) in tensors {
            let count = shape.iter().product::<u64>();
            let stream = key(&[self.seed, name_key(tensor)]);
            for index in 0..count {
                let bits = fill.value(stream, index).to_bits();
                match self.stored {
                    Stored::F32 => file.write_all(&bits.to_le_bytes())?,
                    Stored::Bf16 => file.write_all(&((bits >> 16) as u16).to_le_bytes())?,
                }
            }
        }
        file.into_inner()?.sync_all()
    }
}

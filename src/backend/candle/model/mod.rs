//! Decoder models on the CPU: one parameterised core for GPT-2, OPT, Llama, Mistral, Qwen2, Qwen3 and Gemma 3.
//!
//! The core computes ragged steps: prompt chunks, decoded tokens and drafts are rows of one activation, each with a position and a
//! sequence whose block table says where its keys and values lie. It knows nothing of scenarios, clocks or scheduling.
//!
//! A row's logits depend on its sequence's tokens only, to the bit: every sum has one order, whatever else is in the step.

mod error;
mod forward;
mod gguf;
mod kernel;
mod load;
mod rope;
mod source;
mod spec;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

pub use error::{Error, FORMATS, KNOWN};

use forward::Scratch;
use kernel::{Cells, Geometry, Kind, Level, Matrix, Pool};
use load::{Loader, Weights};
use source::Source;
use spec::{Config, Spec};

/// What the weights become when they are loaded. Norms and biases are always f32, and so are sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtype {
    /// As stored. Formats without a kernel of their own become [`Self::Q8_0`].
    #[default]
    Auto,
    /// 32-bit floats; keys and values too, which are f16 otherwise.
    F32,
    /// The upper half of 32-bit floats.
    Bf16,
    /// Blocks of 32 signed bytes with one f16 scale.
    Q8_0,
}

/// How to open a model.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What the weights become.
    pub dtype: Dtype,
    /// Threads that compute, the caller among them; at least 1.
    pub threads: usize,
}

/// What a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// One of [`KNOWN`].
    pub architecture: &'static str,
    /// Decoder layers.
    pub layers: usize,
    /// The length of an activation.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// The length of a head.
    pub head: usize,
    /// Tokens that have a logit.
    pub vocabulary: usize,
    /// Positions the model was made for: a row's position is below.
    pub context: usize,
    /// Bytes of all matrices as they are computed with.
    pub weight_bytes: u64,
}

/// One row of a step: a token at a position of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The token to read.
    pub token: u32,
    /// Its position in the sequence, from 0.
    pub position: u32,
    /// The index of the sequence's block table.
    pub sequence: u32,
}

/// A pool of blocks that hold keys and values. The caller decides who owns a block; the pool is memory only.
pub struct Kv {
    blocks: u32,
    geometry: Geometry,
    layers: Vec<(Cells, Cells)>,
}

impl Kv {
    /// Blocks in the pool.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Positions in a block.
    pub fn block_tokens(&self) -> u32 {
        self.geometry.block_tokens as u32
    }
}

/// Weights and what is needed to compute with them.
pub struct Model {
    shape: Shape,
    spec: Spec,
    weights: Weights,
    half: bool,
    level: Level,
    pool: Pool,
    scratch: Scratch,
}

impl Model {
    /// Opens a folder (`config.json` and safetensors, sharded too) or a GGUF file.
    pub fn open(path: &Path, options: &Options) -> Result<Self, Error> {
        let found = fs::metadata(path).map_err(|error| Error::Read { path: path.to_owned(), error })?;
        let (spec, weights) = if found.is_dir() {
            folder(path, options.dtype)?
        } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
            gguf::open(path, options.dtype)?
        } else {
            return Err(Error::NotAModel { path: path.to_owned(), pickled: false });
        };
        let pool = Pool::new(options.threads).map_err(Error::Threads)?;
        let half = match options.dtype {
            Dtype::F32 => false,
            Dtype::Auto => weights.embedding.kind() != Kind::F32,
            Dtype::Bf16 | Dtype::Q8_0 => true,
        };
        let shape = Shape {
            architecture: spec.architecture,
            layers: spec.layers,
            hidden: spec.hidden,
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head: spec.head,
            vocabulary: spec.vocabulary,
            context: spec.context,
            weight_bytes: weights.matrices().map(|m| m.bytes().len() as u64).sum(),
        };
        let scratch = Scratch::new(pool.threads());
        Ok(Self { shape, spec, weights, half, level: Level::best(), pool, scratch })
    }

    /// What the model is.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Bytes of keys and values for each token, all layers.
    pub fn kv_bytes_per_token(&self) -> u64 {
        let cell = if self.half { 2 } else { 4 };
        (self.shape.layers * 2 * self.shape.kv_heads * self.shape.head * cell) as u64
    }

    /// A pool of `blocks` blocks of `block_tokens` positions. A block takes `block_tokens`, rounded up to a multiple of 8, times
    /// [`Self::kv_bytes_per_token`]; all of it is touched here.
    pub fn kv(&self, blocks: u32, block_tokens: u32) -> Result<Kv, Error> {
        let geometry = Geometry {
            kv_heads: self.spec.kv_heads,
            group: self.spec.heads / self.spec.kv_heads,
            head: self.spec.head,
            block_tokens: block_tokens.max(1) as usize,
        };
        let bytes = u64::from(blocks) * geometry.padded() as u64 * self.kv_bytes_per_token();
        let cells = || {
            let count = usize::try_from(blocks).ok()?.checked_mul(geometry.block())?;
            if self.half {
                let mut cells = Vec::new();
                cells.try_reserve_exact(count).ok()?;
                cells.resize(count, 0);
                Some(Cells::Half(cells))
            } else {
                let mut cells = Vec::new();
                cells.try_reserve_exact(count).ok()?;
                cells.resize(count, 0.0);
                Some(Cells::Full(cells))
            }
        };
        let layers: Option<Vec<_>> = (0..self.spec.layers).map(|_| Some((cells()?, cells()?))).collect();
        Ok(Kv { blocks, geometry, layers: layers.ok_or(Error::Memory { bytes })? })
    }

    /// Computes all rows, writes their keys and values into their sequences' blocks, and returns the logits of the rows whose
    /// indices are `wanted`, as `[wanted, vocabulary]`.
    ///
    /// A row attends to all positions of its sequence up to its own: those before must have been computed, in this step or before
    /// (by this sequence or by another that shares the block). Of one sequence, one step has each position at most once.
    pub fn step(
        &mut self,
        kv: &mut Kv,
        rows: &[Row],
        tables: &[&[u32]],
        wanted: &[u32],
    ) -> Result<&[f32], Error> {
        self.check(kv, rows, tables, wanted)?;
        self.forward(kv, rows, tables, wanted);
        Ok(self.scratch.logits())
    }

    fn check(&self, kv: &Kv, rows: &[Row], tables: &[&[u32]], wanted: &[u32]) -> Result<(), Error> {
        let wrong = |row: usize, reason: String| Err(Error::Row { row, reason });
        for (index, row) in rows.iter().enumerate() {
            if row.token as usize >= self.shape.vocabulary {
                return wrong(
                    index,
                    format!("token {} of a vocabulary of {}", row.token, self.shape.vocabulary),
                );
            }
            if row.position as usize >= self.shape.context {
                return wrong(
                    index,
                    format!("position {} of a context of {}", row.position, self.shape.context),
                );
            }
            let Some(table) = tables.get(row.sequence as usize) else {
                return wrong(index, format!("sequence {} of {} tables", row.sequence, tables.len()));
            };
            let needed = row.position as usize / kv.geometry.block_tokens + 1;
            if table.len() < needed {
                return wrong(index, format!("needs {needed} blocks, and its table has {}", table.len()));
            }
            if let Some(block) = table[..needed].iter().find(|b| **b >= kv.blocks) {
                return wrong(index, format!("block {block} of a pool of {}", kv.blocks));
            }
        }
        match wanted.iter().find(|w| **w as usize >= rows.len()) {
            Some(row) => wrong(*row as usize, format!("is wanted of a step of {} rows", rows.len())),
            None => Ok(()),
        }
    }
}

impl Weights {
    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let layers = self.layers.iter().flat_map(|l| {
            [&l.queries, &l.keys, &l.values, &l.output, &l.up, &l.down]
                .into_iter()
                .chain(&l.gate)
                .map(|l| &l.matrix)
        });
        [&self.embedding].into_iter().chain(&self.positions).chain(&self.head).chain(layers)
    }
}

fn folder(path: &Path, dtype: Dtype) -> Result<(Spec, Weights), Error> {
    let file = path.join("config.json");
    let text = match fs::read_to_string(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NotAModel { path: path.to_owned(), pickled: false });
        }
        other => other.map_err(|error| Error::Read { path: file.clone(), error })?,
    };
    let value: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| Error::Corrupt { path: file.clone(), reason: error.to_string() })?;
    let spec = Spec::read(&Config { path: &file, value: &value })?;
    let source = Source::folder(path, dtype)?;
    let (names, prefixes) = load::names(spec.architecture);
    let embedding = |prefix: &str| format!("{prefix}{}.weight", names.embedding);
    let prefix = prefixes.iter().find(|p| source.has(&embedding(p))).unwrap_or(&prefixes[0]);
    let weights = Loader { source: &source, spec: &spec, names, prefix }.weights()?;
    Ok((spec, weights))
}

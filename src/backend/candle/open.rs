//! A model that is ready to compute.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexMap;

use super::model::{self, Kv, Model, Options, Row};
use super::pool::{blocks, free_memory};
use super::worker::Drafter;
use super::{Engine, Forward, OpenError, Parts, Source};
use crate::backend::config::{CandleBackend, Dtype};
use crate::engine::{KvCache, Limits};
use crate::plan::Sampling;
use crate::units::MIB;

/// A model in memory. Cells play on it one after another, each with a cold KV cache of its own.
pub struct Local {
    config: CandleBackend,
    source: Arc<Source>,
    model: Arc<Mutex<Model>>,
    /// What proposes drafts.
    draft: Option<Arc<Mutex<Model>>>,
    /// Rows of the embeddings of both.
    vocabularies: (u32, u32),
    blocks: u32,
    bytes_per_token: u64,
    weight_bytes: u64,
    threads: u32,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("config", &self.config)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Local {
    /// Opens the model that was found, and decides the size of its KV cache.
    pub fn open(config: &CandleBackend, source: &Arc<Source>) -> Result<Self, OpenError> {
        let threads = config.threads.unwrap_or_else(cores);
        let dtype = match config.dtype {
            Dtype::Auto => model::Dtype::Auto,
            Dtype::F32 => model::Dtype::F32,
            Dtype::Bf16 => model::Dtype::Bf16,
            Dtype::Q8 => model::Dtype::Q8_0,
        };
        let options = Options { dtype, threads: threads as usize };
        let open =
            |path: &Path| Model::open(path, &options).map_err(|error| OpenError::Model(error.to_string()));
        let model = open(&source.checkpoint.path)?;
        let draft = source.draft.as_ref().map(|(checkpoint, _)| open(&checkpoint.path)).transpose()?;
        let (mut bytes_per_token, mut weight_bytes) =
            (model.kv_bytes_per_token(), model.shape().weight_bytes);
        if let Some(draft) = &draft {
            bytes_per_token += draft.kv_bytes_per_token();
            weight_bytes += draft.shape().weight_bytes;
        }
        let rows = |model: &Model| model.shape().vocabulary as u32;
        let vocabularies = (rows(&model), draft.as_ref().map_or(0, rows));
        let useful = u64::from(config.engine.max_num_seqs) * source.context().unwrap_or(4096);
        let blocks = blocks(&config.kv, bytes_per_token, free_memory(), useful)?;
        let (config, source) = (config.clone(), Arc::clone(source));
        let model = Arc::new(Mutex::new(model));
        let draft = draft.map(|draft| Arc::new(Mutex::new(draft)));
        Ok(Self {
            config,
            source,
            model,
            draft,
            vocabularies,
            blocks,
            bytes_per_token,
            weight_bytes,
            threads,
        })
    }

    /// An engine for one cell. `sampling` is for each workload that it serves, in the order of
    /// [`Recipe::lane`](crate::plan::Recipe::lane); there is at least one.
    pub fn engine(&self, sampling: Vec<Sampling>) -> Result<Engine, OpenError> {
        let wrong = |error: String| OpenError::Model(error);
        let size = self.config.kv.block_tokens;
        let computing = |model: &Arc<Mutex<Model>>| {
            let kv = model.lock().unwrap_or_else(PoisonError::into_inner).kv(self.blocks, size);
            let kv = kv.map_err(|error| wrong(error.to_string()))?;
            Ok::<_, OpenError>(Box::new(Computing { model: Arc::clone(model), kv }))
        };
        let forward = computing(&self.model)?;
        let drafter = match &self.draft {
            Some(draft) => {
                let (model, reads) = self.vocabularies;
                Some(Drafter { forward: computing(draft)?, proposes: model.min(reads), reads })
            }
            None => None,
        };
        let limits = &self.config.engine;
        let parts = Parts {
            limits: Limits {
                sequences: limits.max_num_seqs,
                tokens: limits.max_num_batched_tokens,
                chunked_prefill: limits.chunked_prefill,
                watermark: libm::ceil(limits.watermark.0 * f64::from(self.blocks)) as u32,
                drafts: 0,
            },
            cache: KvCache::new(self.blocks, size, self.config.kv.prefix_cache),
            tokenizer: Arc::clone(&self.source.tokenizer),
            template: self.source.template.as_ref().ok().cloned().flatten(),
            context: self.source.context().map_or(u32::MAX, |n| u32::try_from(n).unwrap_or(u32::MAX)),
            end_tokens: self.source.outline.end_tokens.clone(),
            bytes_per_token: self.bytes_per_token,
            speculative: self.config.speculative.clone(),
            sampling,
        };
        Engine::start(parts, forward, drafter).map_err(|error| wrong(format!("no thread: {error}")))
    }

    /// What it is, for reports: name to text, in order.
    pub fn details(&self) -> IndexMap<String, String> {
        let Source { checkpoint, outline, tokenizer, template, draft } = &*self.source;
        let mut details = IndexMap::new();
        let mut put = |name: &str, text: String| details.insert(name.to_owned(), text);
        put("Architecture", outline.architecture.clone());
        put("Parameters", format!("{:.1}M", outline.parameters as f64 / 1e6));
        let stored: Vec<&str> = outline.dtypes.keys().map(String::as_str).collect();
        put("Weights", format!("{} MiB of {}", outline.weight_bytes / MIB, stored.join(", ")));
        let dtype = match self.config.dtype {
            Dtype::Auto => "auto",
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::Q8 => "q8_0",
        };
        put("Computed as", format!("{dtype}, {} MiB", self.weight_bytes.div_ceil(MIB)));
        put("Threads", self.threads.to_string());
        let tokens = u64::from(self.blocks) * u64::from(self.config.kv.block_tokens);
        put("KV cache", format!("{tokens} tokens, {} MiB", (tokens * self.bytes_per_token).div_ceil(MIB)));
        put("Tokenizer", crate::tokenizer::Tokenizer::name(&**tokenizer).to_owned());
        if matches!(template, Ok(Some(_))) {
            put("Chat template", "its own".to_owned());
        }
        if let Some(revision) = &checkpoint.revision {
            put("Revision", revision.clone());
        }
        if let Some((draft, outline)) = draft {
            put("Draft model", format!("{}, {:.1}M parameters", draft.name, outline.parameters as f64 / 1e6));
        }
        let drafting = draft.iter().flat_map(|(draft, _)| draft.weights());
        for file in checkpoint.weights().into_iter().chain(drafting) {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            put(&name, crate::checkpoint::fingerprint(&file).unwrap_or_else(|error| error.to_string()));
        }
        details
    }
}

/// Cores that this process may use.
fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)
}

/// A model and the keys and values of one cell.
struct Computing {
    model: Arc<Mutex<Model>>,
    kv: Kv,
}

impl Forward for Computing {
    fn step(
        &mut self,
        rows: &[Row],
        tables: &[&[u32]],
        wanted: &[u32],
        then: &mut dyn FnMut(&[f32]) -> Result<(), String>,
    ) -> Result<(), String> {
        // Whoever panicked with it left its weights as they were.
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        then(model.step(&mut self.kv, rows, tables, wanted).map_err(|error| error.to_string())?)
    }
}

//! What is looked at before a model is opened: its files, its outline, its tokenizer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ChatTemplate;
use crate::backend::config::{CandleBackend, DraftModel, Drafting};
use crate::checkpoint::{Checkpoint, CheckpointError, Hub, Outline, Wanted};
use crate::tokenizer::Hf;

/// A model that can be opened.
#[derive(Debug)]
pub struct Source {
    /// Its files.
    pub checkpoint: Checkpoint,
    /// What they say of it.
    pub outline: Outline,
    /// Its tokenizer.
    pub tokenizer: Arc<Hf>,
    /// Its chat template, if it has one; else what is wrong with it. Only conversations need it.
    pub template: Result<Option<Arc<ChatTemplate>>, String>,
    /// The model that proposes drafts.
    pub draft: Option<(Checkpoint, Outline)>,
}

/// Why a model can not be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its files can not be found, fetched or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Nobody wrote this one.
    #[error("{}: the architecture `{name}` is not known here; known are {known}", path.display())]
    Architecture {
        /// The folder or file.
        path: PathBuf,
        /// What it names.
        name: String,
        /// What is computed here.
        known: String,
    },
    /// Weights in a format that is not computed with.
    #[error("{}: weights are stored as {kind}; known are {known}", path.display())]
    Quantisation {
        /// The folder or file.
        path: PathBuf,
        /// Their format.
        kind: String,
        /// What is read here.
        known: &'static str,
    },
    /// Its tokenizer has more tokens than its embedding.
    #[error(
        "the tokenizer has ids up to {last}, and the model's embedding has {rows} rows: they do not belong together; name the right one with `tokenizer`"
    )]
    Tokenizer {
        /// The largest id.
        last: u32,
        /// Rows of the embedding.
        rows: u64,
    },
    /// The draft model speaks another language.
    #[error(
        "the draft model `{model}` has another tokenizer, so its tokens mean something else; name a smaller model of the same family"
    )]
    DraftTokenizer {
        /// As the scenario names it.
        model: String,
    },
    /// Nothing fits into the KV cache.
    #[error("`kv` holds {tokens} tokens, less than one block of {block_tokens}; make it larger")]
    EmptyPool {
        /// Tokens that fit.
        tokens: u64,
        /// Tokens in one block.
        block_tokens: u32,
    },
    /// More blocks than can be numbered.
    #[error("`kv` has {0} blocks, more than 16777216; make it smaller or `block_tokens` larger")]
    LargePool(u64),
    /// The KV cache does not fit into memory.
    #[error(
        "a KV cache of {tokens} tokens takes {wanted_mib} MiB, and {free_mib} MiB of memory are free; make `kv` smaller"
    )]
    Memory {
        /// Its tokens.
        tokens: u64,
        /// What it takes.
        wanted_mib: u64,
        /// What is there.
        free_mib: u64,
    },
    /// Its weights can not be computed with.
    #[error("{0}")]
    Model(String),
}

impl Source {
    /// Finds the model that a scenario names, and fetches it where it has to. Relative paths start from `dir`.
    pub fn find(config: &CandleBackend, dir: &Path) -> Result<Self, OpenError> {
        let hub = Hub::from_env();
        // With another tokenizer, the model's own may be missing.
        let checkpoint =
            Checkpoint::find(&config.model, config.revision.as_deref(), dir, &hub, Wanted::Model)?;
        let outline = computed(&checkpoint)?;
        let tokenizer = match &config.tokenizer {
            Some(other) => Hf::find(other, None, dir, &hub)?,
            None => Hf::open(&checkpoint)?,
        };
        if let Some(rows) = outline.vocabulary
            && u64::from(tokenizer.vocabulary()) > rows
        {
            return Err(OpenError::Tokenizer { last: tokenizer.vocabulary() - 1, rows });
        }
        let draft = match &config.speculative {
            Some(Drafting::Model(draft)) => Some(Self::find_draft(draft, &tokenizer, dir, &hub)?),
            _ => None,
        };
        let template = ChatTemplate::find(&checkpoint);
        let template = template.map(|found| found.map(Arc::new)).map_err(|error| error.to_string());
        Ok(Self { checkpoint, outline, tokenizer: Arc::new(tokenizer), template, draft })
    }

    fn find_draft(
        draft: &DraftModel,
        tokenizer: &Hf,
        dir: &Path,
        hub: &Hub,
    ) -> Result<(Checkpoint, Outline), OpenError> {
        let checkpoint = Checkpoint::find(&draft.model, draft.revision.as_deref(), dir, hub, Wanted::Model)?;
        let outline = computed(&checkpoint)?;
        if !Hf::open(&checkpoint)?.is_same(tokenizer) {
            return Err(OpenError::DraftTokenizer { model: draft.model.clone() });
        }
        Ok((checkpoint, outline))
    }

    /// The longest context that all models can compute.
    pub fn context(&self) -> Option<u64> {
        let drafts = self.draft.as_ref().and_then(|(_, outline)| outline.context);
        [self.outline.context, drafts].into_iter().flatten().min()
    }
}

/// The outline of a model that can be computed here.
#[cfg(feature = "candle")]
fn computed(checkpoint: &Checkpoint) -> Result<Outline, OpenError> {
    use super::model::{FORMATS, KNOWN};

    let outline = Outline::read(checkpoint)?;
    let path = || checkpoint.path.clone();
    let name = &outline.architecture;
    if !KNOWN.contains(&name.strip_suffix("_text").unwrap_or(name)) {
        return Err(OpenError::Architecture { path: path(), name: name.clone(), known: KNOWN.join(", ") });
    }
    // Folders hold masks and positions of other types beside their weights.
    let stored = outline.dtypes.keys().find(|kind| {
        let is_known = FORMATS.split(", ").any(|known| known == kind.as_str());
        !is_known && (checkpoint.is_gguf() || kind.starts_with("f8"))
    });
    match stored.or(outline.quantised.as_ref()) {
        Some(kind) => Err(OpenError::Quantisation { path: path(), kind: kind.clone(), known: FORMATS }),
        None => Ok(outline),
    }
}

/// Any outline: the program was built without what computes it, which is told when the model is opened.
#[cfg(not(feature = "candle"))]
fn computed(checkpoint: &Checkpoint) -> Result<Outline, OpenError> {
    Ok(Outline::read(checkpoint)?)
}

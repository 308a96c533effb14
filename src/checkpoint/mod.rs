//! Checkpoints: where the files of a model are, and what they say of it. Nothing here computes with weights.

pub mod gguf;
mod hub;
mod outline;
pub mod random;
pub mod safetensors;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

pub use self::hub::{Hub, TOKENIZER, WEIGHTS, Wanted};
use self::hub::{INDEX, lacking};
pub use self::outline::Outline;

/// The files of one model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// As the user named it.
    pub name: String,
    /// Where it is: a folder or one GGUF file.
    pub path: PathBuf,
    /// The commit, for one from the hub's cache.
    pub revision: Option<String>,
}

/// Why a model's files can not be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// There is nothing of that name.
    #[error("there is no model `{model}`: {looked}")]
    NotFound {
        /// As the user named it.
        model: String,
        /// Where it was looked for, and what to do.
        looked: String,
    },
    /// It is not in the cache, and nothing may be fetched.
    #[error("model `{model}` is not in the cache, and the hub is offline (HF_HUB_OFFLINE): {lacking}")]
    Offline {
        /// Its hub id.
        model: String,
        /// What the cache lacks.
        lacking: String,
    },
    /// It can not be fetched.
    #[error("model `{model}` is not in the cache ({lacking}) and can not be fetched: {reason}")]
    Fetch {
        /// Its hub id.
        model: String,
        /// What the cache lacks.
        lacking: String,
        /// Why not.
        reason: String,
    },
    /// A folder holds no model.
    #[error("{} holds no whole model: it lacks {lacking}", path.display())]
    Incomplete {
        /// The folder.
        path: PathBuf,
        /// The first file that is missing.
        lacking: String,
    },
    /// A file can not be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl CheckpointError {
    pub(crate) fn file(path: &Path, problem: impl fmt::Display) -> Self {
        Self::File { path: path.to_owned(), problem: problem.to_string() }
    }
}

impl Checkpoint {
    /// Finds a model: a folder or GGUF file (relative to `dir`), else a repository of the hub, `ORG/NAME`, or one GGUF file
    /// of it, `ORG/NAME/FILE.gguf`. `revision` is a branch, tag or commit of the hub; default `main`.
    pub fn find(
        model: &str,
        revision: Option<&str>,
        dir: &Path,
        hub: &Hub,
        wanted: Wanted<'_>,
    ) -> Result<Self, CheckpointError> {
        // Without the dots in the middle of it.
        let local: PathBuf = dir.join(model).components().collect();
        if local.exists() {
            return Self::local(model, local, wanted);
        }
        let revision = revision.unwrap_or("main");
        let named = |path: PathBuf, folder: &Path| Self {
            name: model.to_owned(),
            path,
            revision: folder.file_name().map(|name| name.to_string_lossy().into_owned()),
        };
        match hub_name(model) {
            Some((id, Some(file))) => {
                let folder = hub.folder(&id, revision, Wanted::File(file))?;
                Ok(named(folder.join(file), &folder))
            }
            Some((id, None)) => {
                let folder = hub.folder(&id, revision, wanted)?;
                Ok(named(folder.clone(), &folder))
            }
            None => Err(CheckpointError::NotFound {
                model: model.to_owned(),
                looked: format!(
                    "{} does not exist, and it is no hub id, which reads ORG/NAME",
                    local.display()
                ),
            }),
        }
    }

    fn local(model: &str, path: PathBuf, wanted: Wanted<'_>) -> Result<Self, CheckpointError> {
        let checkpoint = |path| Self { name: model.to_owned(), path, revision: None };
        if path.is_file() {
            let is_known = |ending: &str| path.extension().is_some_and(|extension| extension == ending);
            if is_known("gguf") || (wanted == Wanted::Tokenizer && is_known("json")) {
                return Ok(checkpoint(path));
            }
            let problem = "a model is a folder with config.json, or one .gguf file";
            return Err(CheckpointError::file(&path, problem));
        }
        let Some(lacking) = lacking(&path, wanted) else { return Ok(checkpoint(path)) };
        let ggufs: Vec<PathBuf> = std::fs::read_dir(&path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|file| file.extension().is_some_and(|extension| extension == "gguf"))
            .collect();
        match ggufs.as_slice() {
            [one] => Ok(checkpoint(one.clone())),
            [] => Err(CheckpointError::Incomplete { path, lacking }),
            several => Err(CheckpointError::file(
                &path,
                format!("it holds {} .gguf files; name one of them", several.len()),
            )),
        }
    }

    /// Whether it is one GGUF file.
    pub fn is_gguf(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "gguf")
    }

    /// The weight files of a folder.
    pub fn weights(&self) -> Vec<PathBuf> {
        if self.is_gguf() {
            return vec![self.path.clone()];
        }
        let whole = self.path.join(WEIGHTS);
        if whole.is_file() {
            return vec![whole];
        }
        let text = std::fs::read_to_string(self.path.join(INDEX)).unwrap_or_default();
        let index: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let names = index.get("weight_map").and_then(serde_json::Value::as_object).into_iter().flatten();
        let mut files: Vec<PathBuf> =
            names.filter_map(|(_, file)| file.as_str()).map(|file| self.path.join(file)).collect();
        files.sort();
        files.dedup();
        files
    }
}

/// What tells a file from others: the hash that the hub's cache names it by, else its BLAKE3 hash.
///
/// # Errors
/// When it can not be read.
pub fn fingerprint(file: &Path) -> std::io::Result<String> {
    let is_hash = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(name) = std::fs::read_link(file).ok().as_deref().and_then(Path::file_name)
        && let Some(name) = name.to_str().filter(|name| is_hash(name))
    {
        return Ok(format!("sha256:{name}"));
    }
    let mut hasher = blake3::Hasher::new();
    let mut reader = std::fs::File::open(file)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match std::io::Read::read(&mut reader, &mut buffer)? {
            0 => break,
            length => hasher.update(&buffer[..length]),
        };
    }
    Ok(format!("blake3:{}", hasher.finalize().to_hex()))
}

/// A hub id and, behind it, a file; short names of old repositories become their full ones.
fn hub_name(model: &str) -> Option<(String, Option<&str>)> {
    let is_name = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let mut parts = model.splitn(3, '/');
    let (first, second, file) = (parts.next()?, parts.next(), parts.next());
    let is_gguf = |file: &str| Path::new(file).extension().is_some_and(|extension| extension == "gguf");
    match (second, file) {
        (None, None) if ["gpt2", "distilgpt2"].contains(&first) => {
            let owner = if first == "gpt2" { "openai-community" } else { "distilbert" };
            Some((format!("{owner}/{first}"), None))
        }
        (Some(second), file) if is_name(first) && is_name(second) && file.is_none_or(is_gguf) => {
            Some((format!("{first}/{second}"), file))
        }
        _ => None,
    }
}

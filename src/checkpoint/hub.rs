//! The Hugging Face hub and its cache on this machine, laid out as its own libraries do.
//!
//! A repository lies in `models--ORG--NAME`: `refs/REVISION` holds a commit, `snapshots/COMMIT` the files. What is there is
//! taken from there; only what is missing is downloaded, and nothing at all when the hub is offline.

use std::path::{Path, PathBuf};

use super::CheckpointError;

/// Where hub files are kept, and whether and how missing ones are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// The cache's folder.
    pub cache: PathBuf,
    /// Whether nothing may be fetched.
    pub offline: bool,
    /// The hub's address.
    pub endpoint: String,
    /// What opens gated and private repositories.
    token: Option<String>,
}

/// Which files of a repository are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// What makes a tokenizer.
    Tokenizer,
    /// Configuration, tokenizer and weights.
    Model,
    /// This one.
    File(&'a str),
}

/// Files that make a tokenizer: the one that says everything, or the two of the GPT-2 family.
pub const TOKENIZER: [&str; 3] = ["tokenizer.json", "vocab.json", "merges.txt"];
/// Files that say what a model is.
const CONFIGS: [&str; 4] =
    ["config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja"];
/// Weights in one file.
pub const WEIGHTS: &str = "model.safetensors";
/// Says which of several files holds which weights.
pub const INDEX: &str = "model.safetensors.index.json";

impl Hub {
    /// As the environment has it: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`; `HF_HUB_OFFLINE`,
    /// `HF_ENDPOINT`, and `HF_TOKEN`, else the token that lies beside the cache.
    pub fn from_env() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// The same of any lookup of names.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let home = lookup("HF_HOME").map_or_else(
            || {
                let cache = lookup("XDG_CACHE_HOME").map(PathBuf::from);
                let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
                cache.unwrap_or_default().join("huggingface")
            },
            PathBuf::from,
        );
        let is_on =
            |value: String| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on");
        let token = lookup("HF_TOKEN").or_else(|| std::fs::read_to_string(home.join("token")).ok());
        Self {
            cache: lookup("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            offline: lookup("HF_HUB_OFFLINE").is_some_and(is_on),
            endpoint: lookup("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
        }
    }

    fn repository(&self, id: &str) -> PathBuf {
        self.cache.join(format!("models--{}", id.replace('/', "--")))
    }

    /// The folder of a revision, when the cache has one.
    pub fn snapshot(&self, id: &str, revision: &str) -> Option<PathBuf> {
        let repository = self.repository(id);
        let commit = std::fs::read_to_string(repository.join("refs").join(revision));
        let commit = commit.map_or_else(|_| revision.to_owned(), |commit| commit.trim().to_owned());
        Some(repository.join("snapshots").join(commit)).filter(|folder| folder.is_dir())
    }

    /// What of the cache's repositories lies in it: id and the folder of each snapshot, sorted.
    pub fn list(&self) -> Vec<(String, PathBuf)> {
        let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut found = Vec::new();
        for entry in entries(&self.cache) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_prefix("models--") else { continue };
            let snapshots = entries(&entry.path().join("snapshots"));
            found.extend(snapshots.map(|snapshot| (id.replace("--", "/"), snapshot.path())));
        }
        found.sort();
        found
    }

    /// The folder that holds the wanted files of a repository: that of the cache, filled up from the hub where something
    /// is missing.
    pub fn folder(&self, id: &str, revision: &str, wanted: Wanted<'_>) -> Result<PathBuf, CheckpointError> {
        let cached = self.snapshot(id, revision);
        let lacking = match &cached {
            Some(folder) => match lacking(folder, wanted) {
                None => return Ok(folder.clone()),
                Some(lacking) => format!("{} lacks {lacking}", folder.display()),
            },
            None => format!("{} holds no revision `{revision}` of it", self.cache.display()),
        };
        if self.offline {
            return Err(CheckpointError::Offline { model: id.into(), lacking });
        }
        self.fetch(id, revision, wanted).map_err(|reason| CheckpointError::Fetch {
            model: id.into(),
            lacking,
            reason,
        })
    }

    #[cfg(not(feature = "hub"))]
    fn fetch(&self, _: &str, _: &str, _: Wanted<'_>) -> Result<PathBuf, String> {
        Err("this program was built without `hub`, so it downloads nothing".into())
    }

    /// Downloads what is missing; what was cut off before goes on where it stopped.
    #[cfg(feature = "hub")]
    fn fetch(&self, id: &str, revision: &str, wanted: Wanted<'_>) -> Result<PathBuf, String> {
        use std::io::IsTerminal;

        use hf_hub::{Cache, Repo, RepoType, api::sync::ApiBuilder};

        let api = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_progress(std::io::stderr().is_terminal())
            .with_retries(3)
            .build()
            .map_err(|error| error.to_string())?;
        let repo = api.repo(Repo::with_revision(id.into(), RepoType::Model, revision.into()));
        let info = repo.info().map_err(|error| refusal(&error.to_string(), &self.endpoint))?;
        let names: Vec<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
        let mut first = None;
        for name in needed(&names, wanted)? {
            let path = repo.get(name).map_err(|error| format!("{name}: {error}"))?;
            first.get_or_insert(path);
        }
        // The file's own folder, less the folders inside the repository.
        let path = first.ok_or("it holds no file that is needed")?;
        let snapshot = self.repository(id).join("snapshots");
        let folder = path.strip_prefix(&snapshot).ok().and_then(|inner| inner.iter().next());
        Ok(snapshot.join(folder.ok_or("the cache is laid out otherwise")?))
    }
}

/// What the hub's answer means.
#[cfg(feature = "hub")]
fn refusal(error: &str, endpoint: &str) -> String {
    let meaning = if error.contains("401") || error.contains("403") {
        "there is no such repository, or it is gated or private: accept its terms and set HF_TOKEN"
    } else if error.contains("404") {
        "there is no such repository or revision"
    } else {
        "it can not be reached; set HF_HUB_OFFLINE=1 to use the cache only"
    };
    format!("{endpoint}: {meaning} ({error})")
}

/// Which of a repository's files are needed.
#[cfg(feature = "hub")]
fn needed<'a>(names: &[&'a str], wanted: Wanted<'_>) -> Result<Vec<&'a str>, String> {
    let there = |file: &str| names.iter().copied().find(|name| *name == file);
    let tokenizer = || -> Result<Vec<&'a str>, String> {
        match there(TOKENIZER[0]) {
            Some(whole) => Ok(vec![whole]),
            None => [TOKENIZER[1], TOKENIZER[2]]
                .iter()
                .map(|file| there(file))
                .collect::<Option<_>>()
                .ok_or_else(|| "it has neither tokenizer.json nor vocab.json and merges.txt".to_owned()),
        }
    };
    match wanted {
        Wanted::File(file) => {
            let found = there(file).ok_or_else(|| format!("it has no file `{file}`"))?;
            Ok(vec![found])
        }
        Wanted::Tokenizer => tokenizer(),
        Wanted::Model => {
            let mut all = tokenizer()?;
            all.extend(CONFIGS.iter().filter_map(|file| there(file)));
            if there(CONFIGS[0]).is_none() {
                return Err(
                    "it has no config.json; name one of its GGUF files as `ORG/NAME/FILE.gguf`".into()
                );
            }
            let shards = |name: &&&str| {
                let inner = name.strip_prefix("model-").and_then(|name| name.strip_suffix(".safetensors"));
                inner.is_some_and(|inner| inner.contains("-of-"))
            };
            match (there(WEIGHTS), there(INDEX)) {
                (Some(weights), _) => all.push(weights),
                (None, Some(index)) => {
                    all.push(index);
                    all.extend(names.iter().filter(shards));
                }
                (None, None) => {
                    return Err("it has no weights as safetensors; convert them, or use another model".into());
                }
            }
            Ok(all)
        }
    }
}

/// What a folder lacks of what is wanted.
pub fn lacking(folder: &Path, wanted: Wanted<'_>) -> Option<String> {
    let has = |file: &str| folder.join(file).is_file();
    let tokenizer = has(TOKENIZER[0]) || (has(TOKENIZER[1]) && has(TOKENIZER[2]));
    match wanted {
        Wanted::File(file) => (!has(file)).then(|| file.to_owned()),
        Wanted::Tokenizer => (!tokenizer).then(|| TOKENIZER[0].to_owned()),
        Wanted::Model if !has(CONFIGS[0]) => Some(CONFIGS[0].to_owned()),
        Wanted::Model if !tokenizer => Some(TOKENIZER[0].to_owned()),
        Wanted::Model if has(WEIGHTS) => None,
        Wanted::Model if has(INDEX) => {
            let text = std::fs::read_to_string(folder.join(INDEX)).unwrap_or_default();
            let index: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let files = index.get("weight_map").and_then(serde_json::Value::as_object);
            let missing =
                files.into_iter().flatten().filter_map(|(_, file)| file.as_str()).find(|file| !has(file));
            missing.map(str::to_owned)
        }
        Wanted::Model => Some(WEIGHTS.to_owned()),
    }
}

//! What a server is: found out by asking.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Setup;
use super::ask::{Asker, Reply};
use super::launch::Launched;
use super::prompt::{Prompts, Words};
use super::vocabulary::Vocabulary;
use super::worker::said;
use crate::backend::config::{Endpoint, Flavor, OpenAiBackend, ProxyFrom, Url};
use crate::checkpoint::Hub;
use crate::tokenizer::{Hf, Mock, Tokenizer};

/// How long a server that was started for the run may take until it is ready, where nothing else is said.
const LAUNCH_PATIENCE: Duration = Duration::from_mins(10);
/// How often a server that is not ready is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// What a server says it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Identity {
    /// Its base URLs.
    pub urls: Vec<String>,
    /// Which server it is, as set or as found.
    #[schemars(with = "String")]
    pub flavor: Flavor,
    /// Its version, where it tells.
    pub version: Option<String>,
    /// The model that is asked for.
    pub model: String,
    /// The longest prompt plus output in tokens, where it tells.
    pub max_model_len: Option<u64>,
    /// The API that is used.
    #[schemars(with = "String")]
    pub endpoint: Endpoint,
    /// What makes the prompts.
    pub prompts: String,
    /// Whether prompts have exactly the planned lengths, before what the server adds (a chat template, a token that begins
    /// every text).
    pub exact_prompts: bool,
    /// What to know of it.
    pub notes: Vec<String>,
}

impl Identity {
    /// Whether requests may carry a `cache_salt`: vLLM since 0.9.
    pub(super) fn takes_salt(&self) -> bool {
        let Some(version) = &self.version else { return false };
        let mut parts = version.split(['.', '+', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
        let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        self.flavor == Flavor::Vllm && (major, minor) >= (0, 9)
    }
}

/// What was found.
pub(super) struct Found {
    pub(super) identity: Identity,
    pub(super) prompts: Prompts,
    /// Counts texts on this side.
    pub(super) counter: Option<Arc<dyn Tokenizer>>,
}

/// Waits for the server, and finds out what it is.
pub(super) fn find(
    asker: &Asker,
    config: &OpenAiBackend,
    flavor: Flavor,
    urls: &[Url],
    setup: &mut Setup<'_>,
    mut launched: Option<&mut Launched>,
) -> Result<Found, String> {
    let mut models = Value::Null;
    for (server, url) in urls.iter().enumerate() {
        models = wait(asker, config, server, url, setup, launched.as_deref_mut())?;
    }
    let flavor = if flavor == Flavor::Auto { detect(asker, &models) } else { flavor };
    let model = model(config, &models, &urls[0])?;
    let (version, max_model_len) = version(asker, flavor, &models, &model);
    let endpoint = config.endpoint.unwrap_or(match flavor {
        Flavor::Vllm | Flavor::Sglang | Flavor::Lmdeploy | Flavor::Llamacpp => Endpoint::Completions,
        Flavor::Auto | Flavor::Tgi | Flavor::Generic => Endpoint::Chat,
    });
    let mut identity = Identity {
        urls: urls.iter().map(ToString::to_string).collect(),
        flavor,
        version,
        model,
        max_model_len,
        endpoint,
        prompts: String::new(),
        exact_prompts: false,
        notes: Vec::new(),
    };
    if config.insecure {
        identity
            .notes
            .push("`insecure: true`: no certificate is checked, so anybody on the way may answer".into());
    }
    if config.proxy == ProxyFrom::Env {
        identity.notes.push(match asker.proxy(0) {
            Some(place) => {
                format!("`proxy: env`: the proxy at {place} stands between, and its time is measured as well")
            }
            None => "`proxy: env`: the environment names no proxy for it".into(),
        });
    }
    let (prompts, counter) = prompts(asker, config, &mut identity, setup.dir)?;
    Ok(Found { identity, prompts, counter })
}

/// Asks for the models until the server answers.
fn wait(
    asker: &Asker,
    config: &OpenAiBackend,
    server: usize,
    url: &Url,
    setup: &mut Setup<'_>,
    mut launched: Option<&mut Launched>,
) -> Result<Value, String> {
    let default = if launched.is_some() { LAUNCH_PATIENCE } else { Duration::ZERO };
    let patience = config.wait_ready.map_or(default, |wait| Duration::from_nanos(wait.0));
    let begun = Instant::now();
    let path = format!("{}/models", url.path.strip_prefix(&url.root().path).unwrap_or(&url.path));
    loop {
        let problem = match asker.get(server, &path) {
            Ok(reply) if reply.is_success() => return Ok(reply.json().unwrap_or(Value::Null)),
            // It is there and has no list of models: hosted APIs and proxies.
            Ok(reply) if matches!(reply.status, 404 | 405 | 501) && config.model.is_some() => {
                return Ok(Value::Null);
            }
            Ok(reply) if matches!(reply.status, 401 | 403) => return Err(refused(url, &reply)),
            Ok(reply) => refused(url, &reply),
            Err(why) => format!("the server at {url} can not be reached: {why}"),
        };
        if let Some(why) = launched.as_deref_mut().and_then(Launched::ended) {
            return Err(why);
        }
        if begun.elapsed() >= patience || (setup.stopped)() {
            let waited = if patience.is_zero() {
                "; is it running? If it is still starting, `wait_ready: 60s` waits for it".to_owned()
            } else {
                format!(" (after waiting {:.0} s)", begun.elapsed().as_secs_f64())
            };
            return Err(problem + waited.as_str());
        }
        (setup.say)(&format!("waiting for {url}"));
        std::thread::sleep(PAUSE.min(patience.saturating_sub(begun.elapsed())));
    }
}

fn refused(url: &Url, reply: &Reply) -> String {
    let said = said(&reply.body);
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    let key =
        if matches!(reply.status, 401 | 403) { "; name the key's variable in `api_key_env`" } else { "" };
    format!("the server at {url} answers {} to a question for its models{said}{key}", reply.status)
}

/// Who signs the list of models, or answers where only one of them does.
fn detect(asker: &Asker, models: &Value) -> Flavor {
    let owner = models["data"][0]["owned_by"].as_str().unwrap_or_default().to_lowercase();
    match owner.as_str() {
        "vllm" => return Flavor::Vllm,
        "sglang" => return Flavor::Sglang,
        "lmdeploy" => return Flavor::Lmdeploy,
        "llamacpp" | "llama.cpp" => return Flavor::Llamacpp,
        _ => {}
    }
    let answers = |path: &str| asker.get(0, path).ok().and_then(|reply| reply.json());
    if answers("/info").is_some_and(|info| info["model_id"].is_string() && info["version"].is_string()) {
        return Flavor::Tgi;
    }
    if answers("/version").is_some_and(|version| version["version"].is_string()) {
        let page = asker.get(0, "/metrics").map(|reply| String::from_utf8_lossy(&reply.body).into_owned());
        if page.is_ok_and(|page| page.contains("vllm:")) {
            return Flavor::Vllm;
        }
    }
    Flavor::Generic
}

/// The model to ask for.
fn model(config: &OpenAiBackend, models: &Value, url: &Url) -> Result<String, String> {
    let list = models["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = list.iter().filter_map(|model| model["id"].as_str()).collect();
    match (&config.model, names.as_slice()) {
        (Some(model), []) => Ok(model.clone()),
        (Some(model), names) if names.contains(&model.as_str()) => Ok(model.clone()),
        (Some(model), names) => {
            let near = crate::nearest::nearest(model, names.iter().copied());
            let meant = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            Err(format!("the server at {url} does not serve `{model}`{meant} (it serves {})", listed(names)))
        }
        (None, [one]) => Ok((*one).to_owned()),
        (None, []) => Err(format!("the server at {url} does not say which models it serves; set `model`")),
        (None, names) => {
            Err(format!("the server at {url} serves {}; set `model` to one of them", listed(names)))
        }
    }
}

fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(8).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 8 { format!("{shown} and {} more", names.len() - 8) } else { shown }
}

/// The server's version and the longest context it takes.
fn version(asker: &Asker, flavor: Flavor, models: &Value, model: &str) -> (Option<String>, Option<u64>) {
    let list = models["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let own = list.iter().find(|entry| entry["id"] == model).unwrap_or(&Value::Null);
    let length = own["max_model_len"].as_u64();
    let ask = |path: &str| asker.get(0, path).ok().and_then(|reply| reply.json()).unwrap_or(Value::Null);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match flavor {
        Flavor::Vllm => (text(&ask("/version")["version"]), length),
        Flavor::Sglang => {
            let info = ask("/get_server_info");
            (text(&info["version"]), length.or(info["context_length"].as_u64()))
        }
        Flavor::Llamacpp => {
            let props = ask("/props");
            let context = props["default_generation_settings"]["n_ctx"].as_u64();
            (text(&props["build_info"]), context.or(own["meta"]["n_ctx_train"].as_u64()))
        }
        Flavor::Tgi => {
            let info = ask("/info");
            (text(&info["version"]), info["max_total_tokens"].as_u64())
        }
        Flavor::Lmdeploy | Flavor::Generic | Flavor::Auto => (None, length),
    }
}

/// What prompts are made of, and what that makes of their lengths.
fn prompts(
    asker: &Asker,
    config: &OpenAiBackend,
    identity: &mut Identity,
    dir: &Path,
) -> Result<(Prompts, Option<Arc<dyn Tokenizer>>), String> {
    let inexact = || Words::Tokenizer(Arc::new(Mock));
    let wanted = config.tokenizer.as_str();
    let learnt = match wanted {
        "auto" | "server" => Vocabulary::learn(|text| tokenize(asker, identity, text)),
        named => {
            let found = Hf::find(named, None, dir, &Hub::from_env());
            let tokenizer = found.map_err(|error| format!("`tokenizer: {named}`: {error}"))?.shared();
            identity.exact_prompts = true;
            identity.prompts = format!("words of one token each by {named} ({})", tokenizer.name());
            let words = Words::Tokenizer(Arc::clone(&tokenizer));
            return Ok((Prompts { words, ids: None, nonce: None }, Some(tokenizer)));
        }
    };
    match learnt {
        Ok(vocabulary) => {
            let vocabulary = Arc::new(vocabulary);
            let as_ids = identity.endpoint == Endpoint::Completions
                && matches!(identity.flavor, Flavor::Vllm | Flavor::Sglang | Flavor::Llamacpp);
            identity.exact_prompts = true;
            identity.prompts =
                if as_ids { "token ids of the server's tokenizer" } else { "words of one token each" }.into();
            let ids = as_ids.then(|| Arc::clone(&vocabulary));
            Ok((Prompts { words: Words::Learnt(vocabulary), ids, nonce: None }, None))
        }
        Err(why) if wanted == "server" => {
            Err(format!("`tokenizer: server`: the tokenizer of {} can not be used: {why}", identity.urls[0]))
        }
        Err(why) => {
            identity.prompts = "words".into();
            identity.notes.push(format!(
                "prompt lengths are inexact, since the server's tokenizer can not be used ({why}); reported lengths are those of its usage"
            ));
            Ok((Prompts { words: inexact(), ids: None, nonce: None }, None))
        }
    }
}

/// The ids that the server's tokenizer makes of a text.
pub(super) fn tokenize(asker: &Asker, identity: &Identity, text: &str) -> Result<Vec<u32>, String> {
    let (path, body, field) = match identity.flavor {
        Flavor::Vllm | Flavor::Sglang | Flavor::Generic | Flavor::Auto => (
            "/tokenize",
            json!({ "model": identity.model, "prompt": text, "add_special_tokens": false }),
            "tokens",
        ),
        Flavor::Llamacpp => ("/tokenize", json!({ "content": text, "add_special": false }), "tokens"),
        Flavor::Lmdeploy => {
            ("/v1/encode", json!({ "input": text, "do_preprocess": false, "add_bos": false }), "input_ids")
        }
        Flavor::Tgi => ("/tokenize", json!({ "inputs": text, "add_special_tokens": false }), ""),
    };
    let reply = asker.post(0, path, &body)?;
    let value = reply.json().ok_or_else(|| format!("{path} answers {}", reply.status))?;
    let list = if field.is_empty() { &value } else { &value[field] };
    let id =
        |token: &Value| token.as_u64().or_else(|| token["id"].as_u64()).and_then(|id| u32::try_from(id).ok());
    let ids = list.as_array().and_then(|list| list.iter().map(id).collect::<Option<Vec<u32>>>());
    ids.ok_or_else(|| format!("{path} does not answer with a list of ids"))
}

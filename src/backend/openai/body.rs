//! The bytes of requests: made ahead of time, off the threads that send.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use serde_json::{Map, Value, json};

use super::prompt::Prompts;
use crate::backend::Render;
use crate::backend::config::{Endpoint, Flavor, LengthField};
use crate::plan::{PromptRecipe, Recipe, Sampling};
use crate::record::Phase;

/// What every request of a cell says beside its prompt and its length.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) model: String,
    pub(super) flavor: Flavor,
    pub(super) endpoint: Endpoint,
    pub(super) length: LengthField,
    pub(super) sampling: Sampling,
    /// Keeps this run's prefixes apart from those of others in the server's cache.
    pub(super) salt: Option<String>,
    pub(super) extra: Map<String, Value>,
}

/// The bytes of a request's body.
#[derive(Debug, Clone)]
pub(super) struct Bodies {
    /// With `stream_options`, when it streams.
    pub(super) whole: Bytes,
    /// Without.
    plain_length: usize,
}

impl Bodies {
    /// The body without `stream_options`.
    pub(super) fn plain(&self) -> Bytes {
        if self.plain_length == self.whole.len() {
            return self.whole.clone();
        }
        let mut bytes = self.whole[..self.plain_length].to_vec();
        bytes.push(b'}');
        bytes.into()
    }
}

const USAGE: &[u8] = br#","stream_options":{"include_usage":true}}"#;

impl Form {
    /// The body of a request for `recipe`.
    pub(super) fn body(&self, recipe: &Recipe, prompts: &Prompts) -> Bodies {
        let mut fields = Map::new();
        fields.insert("model".into(), self.model.clone().into());
        match self.endpoint {
            Endpoint::Completions => {
                fields.insert("prompt".into(), prompts.completion(recipe));
            }
            Endpoint::Chat => {
                fields.insert("messages".into(), prompts.messages(recipe).into());
            }
        }
        self.lengths(recipe, &mut fields);
        self.sampling(&mut fields);
        if let Some(salt) = &self.salt {
            fields.insert("cache_salt".into(), salt.clone().into());
        }
        fields.insert("stream".into(), self.sampling.stream.into());
        let own = match &recipe.prompt {
            PromptRecipe::Chat { body: Some(body), .. } => Some(&**body),
            _ => None,
        };
        let layers = [Some(&self.sampling.extra), Some(&self.extra), own, recipe.body.as_deref()];
        for (key, value) in layers.into_iter().flatten().flatten() {
            fields.insert(key.clone(), value.clone());
        }
        let streams = fields.get("stream").and_then(Value::as_bool).unwrap_or(false);
        let own = fields.contains_key("stream_options");
        let mut bytes = Value::Object(fields).to_string().into_bytes();
        let mut plain_length = bytes.len();
        if streams && !own {
            bytes.pop();
            plain_length = bytes.len();
            bytes.extend_from_slice(USAGE);
        }
        Bodies { whole: bytes.into(), plain_length }
    }

    /// The length of the answer, and what makes this server keep to it.
    fn lengths(&self, recipe: &Recipe, fields: &mut Map<String, Value>) {
        let tokens = recipe.output_tokens;
        if self.length != LengthField::MaxCompletionTokens {
            fields.insert("max_tokens".into(), tokens.into());
        }
        if self.length != LengthField::MaxTokens {
            fields.insert("max_completion_tokens".into(), tokens.into());
        }
        if !recipe.forced {
            return;
        }
        let least = match self.flavor {
            Flavor::Vllm | Flavor::Sglang => Some("min_tokens"),
            Flavor::Lmdeploy => Some("min_new_tokens"),
            Flavor::Llamacpp => None,
            Flavor::Tgi | Flavor::Generic | Flavor::Auto => return,
        };
        fields.insert("ignore_eos".into(), true.into());
        if let Some(least) = least {
            fields.insert(least.into(), tokens.into());
        }
    }

    fn sampling(&self, fields: &mut Map<String, Value>) {
        let Sampling { temperature, top_p, seed, stop, .. } = &self.sampling;
        if let Some(temperature) = temperature {
            fields.insert("temperature".into(), json!(temperature));
        }
        if let Some(top_p) = top_p {
            fields.insert("top_p".into(), json!(top_p));
        }
        if let Some(seed) = seed {
            fields.insert("seed".into(), json!(seed));
        }
        if !stop.is_empty() {
            fields.insert("stop".into(), json!(stop));
        }
    }
}

/// One request's body, made by whoever needs it first.
#[derive(Debug)]
pub(super) struct Order {
    recipe: Recipe,
    work: Arc<Work>,
    made: OnceLock<Bodies>,
}

/// What makes bodies.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) form: Form,
    pub(super) prompts: Arc<Prompts>,
}

impl Order {
    pub(super) fn new(recipe: &Recipe, work: &Arc<Work>) -> Arc<Self> {
        Arc::new(Self { recipe: recipe.clone(), work: Arc::clone(work), made: OnceLock::new() })
    }

    pub(super) fn bodies(&self) -> &Bodies {
        self.made.get_or_init(|| self.work.form.body(&self.recipe, &self.work.prompts))
    }
}

/// Bodies in the making: a thread of its own makes those that were announced.
pub(super) struct Kitchen {
    state: Mutex<State>,
    done: Condvar,
    orders: Mutex<Sender<Arc<Order>>>,
}

#[derive(Default)]
struct State {
    /// For each workload of the cell.
    work: Vec<Arc<Work>>,
    announced: FxHashMap<(u32, Phase, u64), Arc<Order>>,
    unmade: usize,
}

impl Kitchen {
    /// Starts the thread.
    pub(super) fn open() -> std::io::Result<Arc<Self>> {
        let (orders, received) = channel();
        let kitchen =
            Arc::new(Self { state: Mutex::default(), done: Condvar::new(), orders: Mutex::new(orders) });
        let own = Arc::downgrade(&kitchen);
        std::thread::Builder::new().name("prompts".into()).spawn(move || {
            let received: Receiver<Arc<Order>> = received;
            while let Ok(order) = received.recv() {
                order.bodies();
                let Some(kitchen) = own.upgrade() else { return };
                kitchen.state().unmade -= 1;
                kitchen.done.notify_all();
            }
        })?;
        Ok(kitchen)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // What a panic elsewhere leaves behind is whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cell begins: its requests are made like this.
    pub(super) fn begin(&self, work: Vec<Arc<Work>>) {
        let mut state = self.state();
        state.announced.clear();
        state.work = work;
    }

    /// The body of a request that is sent now.
    pub(super) fn take(&self, recipe: &Recipe) -> Option<Arc<Order>> {
        let mut state = self.state();
        let announced = state.announced.remove(&(recipe.lane, recipe.phase, recipe.index));
        announced.or_else(|| state.work.get(recipe.lane as usize).map(|work| Order::new(recipe, work)))
    }
}

impl Render for Kitchen {
    fn ahead(&self, recipe: &Recipe) {
        let mut state = self.state();
        let Some(work) = state.work.get(recipe.lane as usize) else { return };
        let order = Order::new(recipe, work);
        state.announced.insert((recipe.lane, recipe.phase, recipe.index), Arc::clone(&order));
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.send(order).is_ok() {
            state.unmade += 1;
        }
    }

    fn settle(&self) {
        let mut state = self.state();
        while state.unmade > 0 {
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

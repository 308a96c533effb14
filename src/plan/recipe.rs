//! The plan's own types: no default left, no name left to look up.

use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::chat::{Body, Message};
use super::config::Tags;
use super::digest::Survey;
use super::hooked::Hooked;
use super::search::SearchPlan;
use crate::check::Checks;
use crate::record::{Basis, Phase, Turn};
use crate::tokenizer::Tokenizer;
use crate::units::Ns;

/// The coordinates of a matrix point: path suffix to value, in the order of the axes. Empty without a matrix.
pub type Point = IndexMap<String, Value>;

/// Workloads that run at once.
#[derive(Debug, Clone)]
pub struct GroupPlan {
    /// Its name in the scenario.
    pub name: String,
    /// Its workloads, in the order of their [`WorkloadPlan::lane`].
    pub members: Vec<MemberPlan>,
    /// Stands for all of them where a workload is asked for: it has a name and sends nothing of its own.
    pub pooled: Arc<WorkloadPlan>,
}

/// One workload of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberPlan {
    /// Its position in the plan's workloads.
    pub workload: usize,
    /// How long after the group's start it begins.
    pub start: Ns,
    /// The position among the members of the one that it lasts as long as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<usize>,
}

impl Plan {
    /// The workload that a cell's key names, or what stands for the group that it names.
    pub fn at(&self, position: u32) -> &WorkloadPlan {
        self.group(position).map_or_else(|| &self.workloads[position as usize], |group| &group.pooled)
    }

    /// The group at the position behind the workloads that a cell's key names, if it names one.
    pub fn group(&self, position: u32) -> Option<&GroupPlan> {
        self.groups.get((position as usize).checked_sub(self.workloads.len())?)
    }

    /// The position of the group that a workload is in.
    pub fn group_of(&self, workload: usize) -> Option<usize> {
        let has = |group: &GroupPlan| group.members.iter().any(|member| member.workload == workload);
        self.groups.iter().position(has)
    }
}

/// Everything that will be played, once per backend.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The scenario's seed.
    pub seed: u64,
    /// The workloads (and their matrix points) in order.
    pub workloads: Vec<WorkloadPlan>,
    /// The groups in order. Their workloads are among those above.
    pub groups: Vec<GroupPlan>,
    /// For each workload and then each group in order, the hash over its lengths, load law, arrivals, groups and sampling. Hex.
    pub workload_digests: Vec<String>,
    /// Hash over those of all workloads: what two runs must share to be comparable. Hex.
    pub schedule_digest: String,
    /// Hash over prompt sources, the generator's version and the tokenizer. Hex.
    pub content_digest: String,
}

/// One workload at one point.
#[derive(Debug, Clone)]
pub struct WorkloadPlan {
    /// Its full name, such as `chat@concurrency=4`.
    pub name: String,
    /// The name in the scenario, `chat`.
    pub family: String,
    /// Its coordinates.
    pub point: Point,
    /// Its tags.
    pub tags: Tags,
    /// When requests are sent.
    pub load: LoadPlan,
    /// Where recipes come from.
    pub recipes: RecipeSource,
    /// How many measured requests at most; `None` when only time ends it (or its sessions, or the rows of a replayed
    /// trace).
    pub requests: Option<u64>,
    /// How many measured sessions at most.
    pub sessions: Option<u64>,
    /// After how long nothing new starts, counted from the start of measuring (see [`WarmupPlan`]).
    pub duration: Option<Ns>,
    /// What comes before measuring.
    pub warmup: WarmupPlan,
    /// The longest one request may take from when it is sent.
    pub timeout: Ns,
    /// The longest the whole workload may take.
    pub total_timeout: Option<Ns>,
    /// How often it is played.
    pub repeats: u32,
    /// Further attempts that a failed request has.
    pub retries: u32,
    /// Its place in the group that it is played in; 0 outside groups.
    pub lane: u32,
    /// Whether it also ends when another workload of its group does.
    pub follows: bool,
    /// It looks for its load; all else here is its first probe.
    pub search: Option<SearchPlan>,
    /// How many rows of a trace were left out as too long.
    pub skipped_rows: u64,
    /// What requests say beside their prompt and length, to backends that sample.
    pub sampling: Sampling,
    /// Whether a server's prefix cache is made cold before.
    pub cold_cache: bool,
    /// Its hooks.
    pub hooked: Option<Arc<Hooked>>,
    /// What is expected of its responses.
    pub checks: Option<Arc<Checks>>,
    /// Hash over the sources of its hooks. Hex.
    pub hook_digest: Option<String>,
    /// What looking at all its recipes tells, once somebody has looked.
    pub survey: OnceLock<Survey>,
}

/// What a request says beside its prompt and length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// The temperature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// The sampler's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Texts that end an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Further fields.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub extra: serde_json::Map<String, Value>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: None,
            top_p: None,
            seed: None,
            stop: Vec::new(),
            stream: true,
            extra: serde_json::Map::new(),
        }
    }
}

/// What comes before measuring, and so when measuring starts: with `None` at T0; with `Duration` that long after T0;
/// with `Requests` when the first measured request is due (open loads) or sent (closed loads).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmupPlan {
    /// Nothing.
    None,
    /// So many requests.
    Requests(u64),
    /// What is due in so long.
    Duration(Ns),
}

/// When requests are sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "law", rename_all = "snake_case")]
pub enum LoadPlan {
    /// Users who each wait for their answer. `Recipe::arrival` is `None`; `Recipe::think` is how long the user waits before sending it.
    Closed {
        /// How many users there are, over time; constant for `kind: closed`.
        users: UserCurve,
        /// Over how long the first users arrive.
        ramp_up: Ns,
    },
    /// By the clock: each recipe has its arrival.
    Open {
        /// At most so many in flight.
        max_in_flight: Option<u32>,
    },
}

impl LoadPlan {
    /// From which moment latency counts under this load.
    pub fn basis(&self) -> Basis {
        match self {
            Self::Closed { .. } => Basis::Sent,
            Self::Open { .. } => Basis::Due,
        }
    }
}

/// A number of users over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserCurve {
    /// Always so many.
    Constant(u32),
    /// Pieces one after another: (length, users at its start, users at its end); in a straight line between the two.
    Pieces(Vec<(Ns, u32, u32)>),
}

/// Where recipes come from: generated on demand, or read from a plan file.
#[derive(Debug, Clone)]
pub enum RecipeSource {
    /// A pure function of (seed, family, repeat, phase, index).
    Generated(Arc<super::Generator>),
    /// As written in a plan file: warm-up, then measured, each in order of due time, numbered from 0. A repeat begins
    /// where the numbers start again; when there are fewer runs than repeats, the last one is played again.
    Listed(Arc<[Recipe]>),
}

/// One request to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Its number within its phase, from 0.
    pub index: u64,
    /// The place of its workload in the group that it is played in; 0 outside groups.
    #[serde(skip)]
    pub lane: u32,
    /// How many attempts at it have failed, where it is sent again.
    #[serde(skip)]
    pub attempt: u32,
    /// Warm-up or measured.
    pub phase: Phase,
    /// When it is due, counted from the cell's T0; `None` when a user or another request decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival: Option<Ns>,
    /// It is due so long after the request of that index and the same phase ended. It stands behind that one with only other
    /// followers between, so that a load which reads on to the next request of its own has all that may follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<After>,
    /// Which turn of which session it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Turn>,
    /// How long its user waits before sending it, counted from the end of the user's last request (closed loop). The
    /// first request of each user does not wait.
    #[serde(default)]
    pub think: Ns,
    /// Its prompt.
    pub prompt: PromptRecipe,
    /// Output tokens asked for.
    pub output_tokens: u32,
    /// Whether that length is forced.
    pub forced: bool,
    /// Our side cancels it after so many output tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_after: Option<u32>,
    /// Seeds its content and whatever the backend draws for it.
    pub seed: u64,
    /// Keys that a hook puts into the body of an HTTP request, over those of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Arc<serde_json::Map<String, Value>>>,
    /// Why it can not be sent: a hook failed when it was made. When it is due it is recorded as failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Arc<str>>,
    /// When its answer came where it was recorded, for a backend that plays that back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
}

impl Recipe {
    /// A measured request on its own, with a forced length of its output. It is due when its user or whoever plays it says so.
    pub fn new(index: u64, prompt: PromptRecipe, output_tokens: u32, seed: u64) -> Self {
        Self {
            index,
            lane: 0,
            attempt: 0,
            phase: Phase::Measured,
            arrival: None,
            after: None,
            session: None,
            think: 0,
            prompt,
            output_tokens,
            forced: true,
            cancel_after: None,
            seed,
            body: None,
            failed: None,
            recorded: None,
        }
    }
}

/// The times of an answer as a trace recorded them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// From the request's arrival to its first token.
    pub ttft: Ns,
    /// From the first token to the last one.
    pub rest: Ns,
    /// Tokens of the answer, at least 1.
    pub tokens: u32,
}

impl Recorded {
    /// When token `n` (from 0) came, counted from the request's arrival; tokens behind the first one come evenly. `None`
    /// for one whose time nobody knows, because only one token was recorded.
    pub fn at(&self, n: u32) -> Option<Ns> {
        let gaps = u128::from(self.tokens.saturating_sub(1));
        match (n, gaps) {
            (0, _) => Some(self.ttft),
            (_, 0) => None,
            _ => {
                let since = u128::from(self.rest) * u128::from(n) / gaps;
                Some(self.ttft.saturating_add(Ns::try_from(since).unwrap_or(Ns::MAX)))
            }
        }
    }
}

/// Releases a request when another has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// The index of the request that must end first.
    pub index: u64,
    /// How long after it.
    pub delay: Ns,
}

/// What a prompt is made of, small enough to keep a million of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PromptRecipe {
    /// Generated from the recipe's seed.
    Synthetic {
        /// Tokens in all.
        tokens: u32,
        /// The shared prefix, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<Prefix>,
    },
    /// A text given by the scenario or by a row of a file.
    Text {
        /// Its tokens.
        tokens: u32,
        /// The text.
        text: Arc<str>,
        /// Its token ids, from the plan's tokenizer; what prefix reuse compares. Not written to plan files.
        #[serde(skip)]
        ids: Arc<[u32]>,
    },
    /// Generated, block by block: equal leading ids mean an equal prefix.
    Blocks {
        /// Tokens in all; the last block may be partial.
        tokens: u32,
        /// Tokens in one block.
        block_tokens: u32,
        /// The block ids.
        ids: Arc<[u64]>,
    },
    /// Messages of a conversation, the new ones last.
    Chat {
        /// Tokens of all messages, without what a chat template adds; answers that are not there yet count as planned.
        tokens: u32,
        /// The messages, in order.
        messages: Arc<[Message]>,
        /// Further fields of the request, passed through as they stand: tools, the response format.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<Body>,
    },
}

/// A prefix that requests of one group share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// Tokens of it.
    pub tokens: u32,
    /// Seeds its content; equal within the group.
    pub seed: u64,
}

impl PromptRecipe {
    /// The recipe of a given text.
    pub fn text(text: Arc<str>, tokenizer: &dyn Tokenizer) -> Self {
        let ids: Arc<[u32]> = tokenizer.encode(&text).into();
        Self::Text { tokens: ids.len() as u32, text, ids }
    }

    /// The prompt of a request that is never sent.
    pub(super) fn nothing() -> Self {
        Self::Text { tokens: 0, text: Arc::from(""), ids: Arc::from([]) }
    }

    /// The recipe of a conversation.
    pub fn chat(messages: Arc<[Message]>, body: Option<Body>) -> Self {
        let tokens = messages.iter().map(|message| message.content.tokens()).fold(0, u32::saturating_add);
        Self::Chat { tokens, messages, body }
    }

    /// Tokens of the prompt.
    pub fn tokens(&self) -> u32 {
        match self {
            Self::Synthetic { tokens, .. }
            | Self::Text { tokens, .. }
            | Self::Blocks { tokens, .. }
            | Self::Chat { tokens, .. } => *tokens,
        }
    }
}

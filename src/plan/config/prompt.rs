//! Prompts of several turns, mixtures and passages of a text.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FilePrompt, Output, SyntheticPrompt, TextPrompt};
use crate::sample::{Time, Tokens};
use crate::units::TokenCount;

/// Passages of a plain text, each as long as asked for. A passage starts at a word that is drawn from the seed and ends
/// inside a word where it has to; two passages may overlap. Only the text in the file counts: say where it is from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorpusPrompt {
    /// The text file (UTF-8), relative to the scenario.
    pub path: PathBuf,
    /// Tokens of each prompt, before any chat template.
    pub tokens: Tokens,
}

/// Conversations: each turn's prompt is the whole conversation so far and a new message. The load sends sessions: its
/// `rate` and its users are about sessions, `sessions: 300` ends it after so many, and `requests` counts turns. A turn is
/// due when the last one ended, plus `think_time`. A turn that fails ends its session: later turns are skipped, outside
/// the totals. Rules can look at single turns: `p95(ttft) < 250ms where turn >= 2`.
///
/// Where the hooks have a function `next_turn(session)`, it says what the user says, when a turn is due: `user` is then only
/// what the plan counts with, and `turns` the most there can be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionsPrompt {
    /// How many turns a session has.
    pub turns: Turns,
    /// A system message at the start of each session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemMessage>,
    /// The user's message of each turn.
    pub user: UserMessage,
    /// How long the user thinks between the end of one turn and the next. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think_time: Option<Time>,
    /// What stands in the history where the model answered. Default `answered`.
    #[serde(default)]
    pub history: History,
}

/// The system message that sessions share on purpose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "tokens": 400, "groups": 2 }]))]
pub struct SystemMessage {
    /// Its tokens.
    pub tokens: TokenCount,
    /// How many different system messages there are; each session draws one of them. Default 1.
    #[serde(default = "super::one_group")]
    #[schemars(range(min = 1))]
    pub groups: u32,
}

/// What the user says in a turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "tokens": { "kind": "lognormal", "mean": 60, "std": 50, "max": 500 } }]))]
pub struct UserMessage {
    /// Tokens of each message.
    pub tokens: Tokens,
}

/// What stands in the history where the model answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// What the model really answered in this run, so that its prefix cache can serve it.
    #[default]
    Answered,
    /// What the plan or the file says it answered: every run sends the same prompts, whatever the model says.
    Recorded,
}

crate::union! {
    /// A number of turns, fixed or drawn for each session.
    pub enum Turns {
        "fixed" => Fixed(FixedTurns),
        "uniform" => Uniform(UniformTurns),
        "geometric" => Geometric(GeometricTurns),
    }
    examples [
        { "kind": "fixed", "value": 4 },
        { "kind": "uniform", "min": 2, "max": 6 },
        { "kind": "geometric", "mean": 4, "max": 12 },
    ]
    short { "type": "integer", "minimum": 1, "maximum": 1000, "description": "A fixed number of turns." }
        => |value| serde_json::from_value(value).map(|value| Turns::Fixed(FixedTurns { value })).map_err(|e| e.to_string())
}

/// Always the same number of turns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedTurns {
    /// The number of turns.
    #[schemars(range(min = 1, max = 1000))]
    pub value: u32,
}

/// Every number of turns from `min` to `max`, both included, is equally likely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UniformTurns {
    /// The fewest turns.
    #[schemars(range(min = 1, max = 1000))]
    pub min: u32,
    /// The most turns.
    #[schemars(range(min = 1, max = 1000))]
    pub max: u32,
}

/// After each turn the user goes on with the same probability, as recorded conversations nearly do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GeometricTurns {
    /// The mean number of turns before the longest sessions are cut to `max`.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub mean: f64,
    /// The most turns. Default 100.
    #[serde(default = "longest_session")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: u32,
}

fn longest_session() -> u32 {
    100
}

/// A drawn mixture: each request takes one of the parts. Parts that belong to different users or have limits of their own
/// are better two workloads, run together by `parallel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MixPrompt {
    /// The parts.
    #[schemars(length(min = 1))]
    pub parts: Vec<MixPart>,
}

/// One part of a mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "weight": 3, "prompt": { "kind": "synthetic", "tokens": 200 }, "output": { "tokens": 100 } }]))]
pub struct MixPart {
    /// Its share of the requests, relative to the other parts' weights. Default 1.
    #[serde(default = "even_weight")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub weight: f64,
    /// Where its prompts come from.
    pub prompt: MixedPrompt,
    /// How long its answers are. Default: as the workload's `output` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
}

fn even_weight() -> f64 {
    1.0
}

crate::union! {
    /// Where the prompts of one part of a mixture come from.
    pub enum MixedPrompt {
        "synthetic" => Synthetic(SyntheticPrompt),
        "text" => Text(TextPrompt),
        "file" => File(FilePrompt),
        "corpus" => Corpus(CorpusPrompt),
    }
    examples [
        { "kind": "synthetic", "tokens": 512, "prefix": { "tokens": 256, "groups": 8 } },
        { "kind": "text", "text": "Why is the sky blue?" },
        { "kind": "file", "path": "requests.jsonl", "format": "openai", "order": "shuffle" },
        { "kind": "corpus", "path": "book.txt", "tokens": { "kind": "uniform", "min": 20, "max": 200 } },
    ]
}

impl MixedPrompt {
    /// The same as a workload's own prompt.
    pub fn whole(&self) -> super::Prompt {
        use super::Prompt;
        match self {
            Self::Synthetic(prompt) => Prompt::Synthetic(prompt.clone()),
            Self::Text(prompt) => Prompt::Text(prompt.clone()),
            Self::File(prompt) => Prompt::File(prompt.clone()),
            Self::Corpus(prompt) => Prompt::Corpus(prompt.clone()),
        }
    }
}

/// Plays each conversation of a file as a session, turn by turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
#[schemars(extend("examples" = [{ "think_time": "5s", "history": "recorded" }]))]
pub struct FileSessions {
    /// How long the user thinks between the end of one turn and the next. Default: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub think_time: Option<Time>,
    /// What stands in the history where the model answered. Default `answered`.
    pub history: History,
    /// Play at most so many turns of each conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_turns: Option<u32>,
}

//! Conversations: what their messages are made of, and the text they come to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::text::{block_parts, join};
use crate::tokenizer::Tokenizer;

/// Fields of a request's body beside its messages, by name, as a file gives them.
pub type Body = Arc<Map<String, Value>>;

/// One message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: Content,
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The operator.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// A tool that the model called.
    Tool,
}

impl Role {
    /// Its name in a request.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// What a message is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Content {
    /// Generated from a seed; equal seeds are equal content.
    Synthetic {
        /// Its tokens.
        tokens: u32,
        /// Its seed.
        seed: u64,
    },
    /// A given text.
    Text {
        /// Its tokens.
        tokens: u32,
        /// The text.
        text: Arc<str>,
        /// Its token ids, from the plan's tokenizer. Not written to plan files.
        #[serde(skip)]
        ids: Arc<[u32]>,
    },
    /// Generated, block by block, as in [`super::PromptRecipe::Blocks`].
    Blocks {
        /// Its tokens; the last block may be partial.
        tokens: u32,
        /// Tokens in one block.
        block_tokens: u32,
        /// The block ids.
        ids: Arc<[u64]>,
    },
    /// A whole message as a file gives it: parts, images by reference, tool calls. Passed through.
    Given {
        /// Tokens of the texts in it; what an image comes to is not known.
        tokens: u32,
        /// The message.
        message: Arc<Value>,
        /// The ids of those tokens. Not written to plan files.
        #[serde(skip)]
        ids: Arc<[u32]>,
    },
    /// What the model answered to an earlier turn of the session. Filled in while the run is played.
    Answer {
        /// Its tokens: as planned, and once it is there, as many as came.
        tokens: u32,
        /// The seed of the request that it answers.
        seed: u64,
        /// Its text, once it is there and where the backend tells it.
        #[serde(skip)]
        text: Option<Arc<str>>,
    },
}

impl Content {
    /// Whether it is a whole message of a file, which may hold more than text.
    pub fn is_given(&self) -> bool {
        matches!(self, Self::Given { .. })
    }

    /// A given text.
    pub fn text(text: &str, tokenizer: &dyn Tokenizer) -> Self {
        let ids: Arc<[u32]> = tokenizer.encode(text).into();
        Self::Text { tokens: ids.len() as u32, text: Arc::from(text), ids }
    }

    /// A whole message as it stands.
    pub fn given(message: Arc<Value>, tokenizer: &dyn Tokenizer) -> Self {
        let mut ids = Vec::new();
        for text in texts(&message) {
            ids.extend(tokenizer.encode(text));
        }
        Self::Given { tokens: ids.len() as u32, message, ids: ids.into() }
    }

    /// Its tokens.
    pub fn tokens(&self) -> u32 {
        match self {
            Self::Synthetic { tokens, .. }
            | Self::Text { tokens, .. }
            | Self::Blocks { tokens, .. }
            | Self::Given { tokens, .. }
            | Self::Answer { tokens, .. } => *tokens,
        }
    }

    /// Its text, of exactly as many tokens; `text_of` makes a text of so many tokens from a seed. An answer that nobody told
    /// stands as text of its own seed.
    pub fn render(&self, text_of: &mut dyn FnMut(u32, u64) -> String) -> String {
        match self {
            Self::Synthetic { tokens, seed } | Self::Answer { tokens, seed, text: None } => {
                text_of(*tokens, *seed)
            }
            Self::Text { text, .. } | Self::Answer { text: Some(text), .. } => text.to_string(),
            Self::Blocks { tokens, block_tokens, ids } => {
                join(block_parts(*tokens, *block_tokens, ids), text_of)
            }
            Self::Given { message, .. } => texts(message).join("\n"),
        }
    }
}

/// The texts of a message: its content, or the text parts of it.
fn texts(message: &Value) -> Vec<&str> {
    match &message["content"] {
        Value::String(text) => vec![text],
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => Vec::new(),
    }
}

/// Messages as an OpenAI-compatible server takes them.
pub fn wire_messages(messages: &[Message], text_of: &mut dyn FnMut(u32, u64) -> String) -> Vec<Value> {
    let one = |message: &Message| match &message.content {
        Content::Given { message, .. } => Value::clone(message),
        content => json!({ "role": message.role.name(), "content": content.render(text_of) }),
    };
    messages.iter().map(one).collect()
}

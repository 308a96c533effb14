//! One JSON object of a response, read by borrowing: what matters of a completion, a chat completion, a chunk of either,
//! or an error. Unknown keys are passed over; nothing is allocated but for texts with escapes, which can not be borrowed.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// What matters of a response's object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Chunk<'a> {
    #[serde(borrow, deserialize_with = "first_of")]
    pub(super) choices: Option<Choice<'a>>,
    pub(super) usage: Option<Usage>,
    pub(super) error: Option<Value>,
    /// `error` in the bodies of some servers' errors.
    #[serde(borrow)]
    object: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
}

/// One of a response's choices.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Choice<'a> {
    #[serde(borrow)]
    pub(super) text: Text<'a>,
    #[serde(borrow, alias = "message")]
    pub(super) delta: Option<Delta<'a>>,
    #[serde(borrow)]
    pub(super) finish_reason: Text<'a>,
    pub(super) token_ids: Length,
}

/// The part of a chat answer that an event adds, or all of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Delta<'a> {
    #[serde(borrow)]
    pub(super) content: Text<'a>,
    #[serde(borrow)]
    pub(super) refusal: Text<'a>,
    #[serde(borrow)]
    pub(super) reasoning_content: Text<'a>,
    #[serde(borrow)]
    pub(super) reasoning: Text<'a>,
    pub(super) tool_calls: Length,
}

/// What the server counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Usage {
    pub(super) prompt_tokens: Option<u32>,
    pub(super) completion_tokens: Option<u32>,
    pub(super) prompt_tokens_details: Option<PromptDetails>,
}

/// What the server says of a prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct PromptDetails {
    pub(super) cached_tokens: Option<u32>,
}

/// A text, or nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Text<'a> {
    /// Null, or no such key.
    #[default]
    Absent,
    /// As it stands.
    Borrowed(&'a str),
    /// One with escapes.
    Owned(Box<str>),
}

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Absent => "",
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.as_str().is_empty()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or null")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text::Borrowed(text))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text::Owned(text.into()))
            }
            fn visit_unit<E>(self) -> Result<Text<'de>, E> {
                Ok(Text::Absent)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// How many elements a list has; 0 without one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Length(pub(super) u32);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Length;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list or null")
            }
            fn visit_unit<E>(self) -> Result<Length, E> {
                Ok(Length(0))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Length, A::Error> {
                let mut length = Length(0);
                while list.next_element::<IgnoredAny>()?.is_some() {
                    length.0 = length.0.saturating_add(1);
                }
                Ok(length)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// The first choice of a list: more than one is never asked for.
fn first_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Choice<'de>>, D::Error> {
    struct Reader;
    impl<'de> Visitor<'de> for Reader {
        type Value = Option<Choice<'de>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of choices or null")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let first = list.next_element()?;
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(first)
        }
        fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(serde::de::Error::custom("`choices` is no list"))
        }
    }
    deserializer.deserialize_any(Reader)
}

impl Chunk<'_> {
    /// The message of an error, when this is one.
    pub(super) fn error_message(&self) -> Option<String> {
        match &self.error {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Object(map)) => {
                let message = map.get("message").and_then(Value::as_str).map(str::to_owned);
                Some(message.unwrap_or_else(|| Value::Object(map.clone()).to_string()))
            }
            Some(Value::Null) | None => {
                (self.object.as_str() == "error").then(|| self.message.as_str().to_owned())
            }
            // Some servers write `"error": false`.
            Some(Value::Bool(false)) => None,
            Some(other) => Some(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Chunk<'_> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn texts_without_escapes_are_borrowed() {
        let chunk = read(r#"{"choices":[{"delta":{"content":"naïve","reasoning":null}}],"x":{"y":[1]}}"#);
        let delta = chunk.choices.unwrap().delta.unwrap();
        assert_eq!(delta.content, Text::Borrowed("naïve"));
        assert_eq!(delta.reasoning, Text::Absent);
        let chunk = read(r#"{"choices":[{"text":"a\n"}]}"#);
        assert_eq!(chunk.choices.unwrap().text, Text::Owned("a\n".into()));
    }

    #[test]
    fn errors_come_in_several_shapes() {
        let message = |text: &str| read(text).error_message();
        assert_eq!(message(r#"{"error":{"message":"m","code":5}}"#).as_deref(), Some("m"));
        assert_eq!(message(r#"{"error":"m"}"#).as_deref(), Some("m"));
        assert_eq!(message(r#"{"object":"error","message":"m"}"#).as_deref(), Some("m"));
        assert_eq!(message(r#"{"error":{"code":5}}"#).as_deref(), Some(r#"{"code":5}"#));
        assert_eq!(message(r#"{"error":null,"choices":[]}"#), None);
    }

    #[test]
    fn lists_are_counted() {
        let chunk =
            read(r#"{"choices":[{"token_ids":[1,2,3]},{"text":"other"}],"usage":{"completion_tokens":3}}"#);
        assert_eq!(chunk.choices.unwrap().token_ids, Length(3));
        assert_eq!(chunk.usage.unwrap().completion_tokens, Some(3));
        assert!(read(r#"{"choices":null,"usage":null}"#).choices.is_none());
    }
}

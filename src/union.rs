//! The one macro behind every tagged union of the scenario language.
//!
//! A map of a union always carries `kind`; the macro makes the enum, its `Deserialize`, its `Serialize`, its JSON Schema
//! and the list of its kinds from one line per kind. A short form exists only where its JSON type is not a map.

use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// The schema of one kind: the struct's own, with the `kind` constant in front and those of the union's examples that are of
/// this kind.
///
/// # Panics
/// When the schema of the inner type is not an object: the macro is used on structs only.
pub fn kind_schema(kind: &str, inner: Schema, examples: &[Value]) -> Value {
    let mut inner = inner.to_value();
    let object = inner.as_object_mut().expect("a struct's schema is an object");
    let own: Vec<Value> = examples.iter().filter(|example| example["kind"] == kind).cloned().collect();
    if !own.is_empty() {
        object.insert("examples".into(), own.into());
    }
    let mut properties = Map::new();
    let mut tag = json!({ "const": kind });
    if let Some(description) = object.get("description") {
        tag["description"] = description.clone();
    }
    properties.insert("kind".into(), tag);
    if let Some(Value::Object(own)) = object.remove("properties") {
        properties.extend(own);
    }
    let mut required = vec![json!("kind")];
    if let Some(Value::Array(own)) = object.remove("required") {
        required.extend(own);
    }
    object.insert("type".into(), json!("object"));
    object.insert("properties".into(), properties.into());
    object.insert("required".into(), required.into());
    object.insert("additionalProperties".into(), json!(false));
    object.remove("title");
    inner
}

/// The schema of a struct, written in place rather than referenced.
pub fn inline<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

/// Takes the tag out of a union's map.
pub fn take_kind(map: &mut Map<String, Value>, kinds: &[&str]) -> Result<String, String> {
    match map.remove("kind") {
        Some(Value::String(kind)) => Ok(kind),
        Some(_) => Err(format!("`kind` must be one of {}", kinds.join(", "))),
        None => Err(format!("missing key `kind`; one of {}", kinds.join(", "))),
    }
}

/// Defines a tagged union. See the module's doc.
///
/// ```text
/// union! {
///     /// How requests are sent.
///     pub enum Load {
///         "closed" => Closed(ClosedLoad),
///         "open" => Open(OpenLoad),
///     }
///     // how each kind is written: at least one example of each
///     examples [{ "kind": "closed", "concurrency": 8, "requests": 100 }, { "kind": "open", "rate": "8/s", "duration": "60s" }]
///     // optional: a scalar or list that is sugar for one kind, with its schema and its conversion
///     short { "type": "integer" } => |value| from_number(value)
/// }
/// ```
#[macro_export]
macro_rules! union {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident { $($kind:literal => $variant:ident($inner:ty)),+ $(,)? }
        $(examples [ $($example:tt),+ $(,)? ])?
        $(short $schema:tt => $convert:expr)?
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        #[serde(tag = "kind")]
        pub enum $name {
            $(
                #[doc = concat!("`kind: ", $kind, "`")]
                #[serde(rename = $kind)]
                $variant($inner),
            )+
        }

        impl $name {
            /// Every kind, in the order of the documentation.
            pub const KINDS: &'static [&'static str] = &[$($kind),+];

            /// The kind that this value is.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $kind),+ }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use serde::de::Error as _;
                match serde_json::Value::deserialize(deserializer)? {
                    serde_json::Value::Object(mut map) => {
                        let kind = $crate::union::take_kind(&mut map, Self::KINDS).map_err(D::Error::custom)?;
                        let value = serde_json::Value::Object(map);
                        match kind.as_str() {
                            $($kind => serde_json::from_value(value).map(Self::$variant).map_err(D::Error::custom),)+
                            other => Err(D::Error::custom(format!("unknown kind `{other}`; one of {}", Self::KINDS.join(", ")))),
                        }
                    }
                    $(other => {
                        let convert: fn(serde_json::Value) -> Result<Self, String> = $convert;
                        convert(other).map_err(D::Error::custom)
                    })?
                    #[allow(unreachable_patterns)]
                    other => Err(D::Error::custom(format!("expected a map with `kind`, found {other}"))),
                }
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let examples: Vec<serde_json::Value> = vec![$($(serde_json::json!($example)),+)?];
                let branches = vec![
                    $(serde_json::json!($schema),)?
                    $($crate::union::kind_schema($kind, $crate::union::inline::<$inner>(generator), &examples),)+
                ];
                let lines: &[&str] = &[$($doc.trim_ascii()),*];
                schemars::json_schema!({ "oneOf": branches, "description": lines.join("\n") })
            }
        }
    };
}

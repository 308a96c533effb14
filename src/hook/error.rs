//! What goes wrong in a hook, at its place.

use std::fmt;
use std::sync::Arc;

use rhai::{EvalAltResult, Position};

use super::limits;
use super::script::rows;
use crate::nearest::nearest;

/// Something wrong in a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The text it is in.
    pub source: Arc<ScriptText>,
    /// 1-based line and column (in characters) in that text; `None` where it is about the text as a whole.
    pub at: Option<(u32, u32)>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// The text of a script.
#[derive(Debug, PartialEq, Eq)]
pub struct ScriptText {
    /// The file's name relative to the scenario's folder, or the scenario's own where the script stands in it.
    pub name: String,
    /// Lines of the file before the script's first, and columns before each of its lines.
    pub offset: (u32, u32),
    /// Whether it stands in the scenario itself.
    pub inline: bool,
    /// The text.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.said())
    }
}

impl Fault {
    /// File, line and column.
    pub fn place(&self) -> String {
        let name = &self.source.name;
        match self.at {
            Some((line, column)) => {
                format!("{name}:{}:{}", line + self.source.offset.0, column + self.source.offset.1)
            }
            None => name.clone(),
        }
    }

    fn said(&self) -> String {
        let help = self.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
        format!("{}{help}", self.message)
    }
}

/// A call of a hook that failed, and what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookError {
    /// How the hook is called, such as `check(req, res)`.
    pub hook: String,
    /// What is wrong, and where.
    pub fault: Box<Fault>,
    /// What it received.
    pub received: String,
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {} (it received {})",
            self.fault.place(),
            self.hook,
            self.fault.said(),
            self.received
        )
    }
}

impl std::error::Error for HookError {}

/// The innermost error with the name of the text it is in (empty: the main one) and its place there.
pub(super) fn innermost(error: EvalAltResult) -> (String, Position, EvalAltResult) {
    let mut file = String::new();
    let mut error = error;
    let mut place = Position::NONE;
    loop {
        match error {
            EvalAltResult::ErrorInFunctionCall(_, source, inner, at) => {
                if !source.is_empty() {
                    file = source;
                }
                // A function of the program has no place of its own: the call has one.
                place = at;
                error = *inner;
            }
            EvalAltResult::ErrorInModule(module, inner, at) => {
                if !module.is_empty() {
                    file = module;
                }
                place = at;
                error = *inner;
            }
            mut other => {
                let own = other.take_position();
                return (file, if own.is_none() { place } else { own }, other);
            }
        }
    }
}

/// What an error says, and what to do about it.
pub(super) fn words(error: &EvalAltResult) -> (String, Option<String>) {
    let with = |message: String, help: &str| (message, Some(help.to_owned()));
    match error {
        EvalAltResult::ErrorTooManyOperations(_) => {
            with(format!("it takes more than {} operations", limits::OPERATIONS), "does a loop end?")
        }
        EvalAltResult::ErrorStackOverflow(_) => with(
            format!("functions call each other more than {} deep", limits::CALL_LEVELS),
            "does a function call itself without end?",
        ),
        EvalAltResult::ErrorTooManyVariables(_) => {
            (format!("a function has more than {} variables", limits::VARIABLES), None)
        }
        EvalAltResult::ErrorTooManyModules(_) => {
            (format!("more than {} files are imported", limits::MODULES), None)
        }
        EvalAltResult::ErrorDataTooLarge(what, _) => with(
            format!("a {} grows too large", size_of(what)),
            &format!(
                "a text holds {} bytes, a list {} items, a map {} keys at most, what is inside them included",
                limits::STRING,
                limits::ARRAY,
                limits::MAP
            ),
        ),
        EvalAltResult::ErrorTerminated(..) => {
            (format!("it takes longer than {} s", limits::TIME.as_secs()), None)
        }
        EvalAltResult::ErrorRuntime(value, _) => (value.to_string(), None),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => {
            (format!("there is no function `{}`", plain_signature(signature)), None)
        }
        EvalAltResult::ErrorVariableNotFound(name, _) => (format!("there is no variable `{name}`"), None),
        EvalAltResult::ErrorPropertyNotFound(name, _) => (format!("there is no property `{name}`"), None),
        EvalAltResult::ErrorModuleNotFound(name, _) => (
            format!("there is no module `{name}`"),
            Some("`import` stands at the top of a file, with a literal path".into()),
        ),
        EvalAltResult::ErrorDotExpr(text, _) => match unknown_property(text) {
            Some(said) => said,
            None => (text.clone(), None),
        },
        other => {
            let text = other.to_string();
            let mut letters = text.chars();
            let lower =
                letters.next().map(|first| first.to_lowercase().collect::<String>() + letters.as_str());
            (lower.unwrap_or_default(), None)
        }
    }
}

/// `Unknown property 'txt' - a getter is not registered for type 'Response'`, in our own words.
fn unknown_property(text: &str) -> Option<(String, Option<String>)> {
    let mut quoted = text.split('\'').skip(1).step_by(2);
    let (property, of) = (quoted.next()?, quoted.next()?);
    let own = rows().iter().filter(|row| row.group == of).filter_map(|row| row.written.split_once('.'));
    let known: Vec<&str> = own.map(|(_, property)| property).collect();
    let help = match nearest(property, known.iter().copied()) {
        _ if text.contains("setter") && known.contains(&property) => "it can only be read".to_owned(),
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => return Some((format!("a {of} has no property `{property}`"), None)),
        None => format!("its properties are {}", known.join(", ")),
    };
    Some((format!("a {of} has no such property `{property}`"), Some(help)))
}

/// What Rhai calls the size of, as the language calls it.
fn size_of(what: &str) -> &'static str {
    match what {
        _ if what.contains("string") => "text",
        _ if what.contains("map") => "map",
        _ => "list",
    }
}

/// A signature with the types as hooks know them.
fn plain_signature(signature: &str) -> String {
    let types =
        [("&str | ImmutableString | String", "string"), ("i64", "int"), ("f64", "float"), (" (", "(")];
    types.iter().fold(signature.to_owned(), |text, (from, to)| text.replace(from, to))
}

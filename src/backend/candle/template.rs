//! A model's own chat template: from the messages of a conversation to the text that the model was trained on.
//!
//! Templates are written in Jinja, and rendered here as the models' own library does: blocks are trimmed, Python's methods
//! of strings and maps are there, and so are `raise_exception`, `strftime_now`, `tojson` as Python writes JSON, and `break`
//! and `continue`. Special tokens stand in the template, so its text is encoded without any around it.

use std::fmt;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, State};
use regex::Regex;
use serde_json::{Map, Value};

use crate::checkpoint::gguf::Header;
use crate::checkpoint::{Checkpoint, CheckpointError};

/// The names of a template in the environment: the usual one, and the one for requests with tools.
const USUAL: &str = "chat_template";
const TOOLS: &str = "chat_template:tool_use";
/// The template in a file of its own, which newer models have.
const OWN_FILE: &str = "chat_template.jinja";
/// What else is said of a tokenizer, with the template and the texts of special tokens.
const CONFIG: &str = "tokenizer_config.json";
/// Steps that a template may take: so many, and so many more for each byte of its messages.
const FUEL: (u64, u64) = (10_000_000, 1_000);

/// A chat template and the special tokens that it names.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Texts of special tokens by the name in templates: `bos_token`, `eos_token` and the others.
    special: Map<String, Value>,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("special", &self.special).finish_non_exhaustive()
    }
}

/// A conversation to be rendered.
#[derive(Debug, Clone, Copy)]
pub struct Conversation<'a> {
    /// Its messages, as requests of the chat API have them; each content is a text or null.
    pub messages: &'a [Value],
    /// Tools that the model may call.
    pub tools: Option<&'a Value>,
    /// Further variables of the template.
    pub variables: Option<&'a Map<String, Value>>,
    /// Whether the text goes on to where the model's answer begins.
    pub answers: bool,
}

/// What `raise_exception` was called with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

impl ChatTemplate {
    /// The template that comes with a model; `None` when there is none.
    ///
    /// # Errors
    /// When it can not be read, with its file and line.
    pub fn find(checkpoint: &Checkpoint) -> Result<Option<Self>, CheckpointError> {
        let path = &checkpoint.path;
        if checkpoint.is_gguf() {
            let wrong = |problem: String| CheckpointError::file(path, problem);
            let header = Header::read(path).map_err(|error| wrong(error.to_string()))?;
            let Some(source) = header.text("tokenizer.chat_template") else { return Ok(None) };
            return Self::new(source, None, special_of(&header)).map(Some).map_err(wrong);
        }
        let file = path.join(CONFIG);
        let config = if file.is_file() {
            let text = std::fs::read(&file).map_err(|error| CheckpointError::file(&file, error))?;
            serde_json::from_slice(&text).map_err(|error| CheckpointError::file(&file, error))?
        } else {
            Value::Null
        };
        let special = special_in(&config);
        let own = path.join(OWN_FILE);
        if own.is_file() {
            let source = std::fs::read_to_string(&own).map_err(|error| CheckpointError::file(&own, error))?;
            return found(&own, Self::new(&source, None, special));
        }
        match &config["chat_template"] {
            Value::String(source) => found(&file, Self::new(source, None, special)),
            Value::Array(list) => {
                let named = |name: &str| {
                    let one = list.iter().find(|one| one["name"] == name)?;
                    one["template"].as_str()
                };
                match named("default") {
                    Some(source) => found(&file, Self::new(source, named("tool_use"), special)),
                    None => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    /// A template and, where there is one, that for requests with tools.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn new(source: &str, tools: Option<&str>, special: Map<String, Value>) -> Result<Self, String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| error.to_string())?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, "").with_source(Refusal(message)))
        });
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", to_json);
        for (name, source) in [(USUAL, Some(source)), (TOOLS, tools)] {
            let Some(source) = source else { continue };
            let source = without_marks(source);
            environment.add_template_owned(name, source).map_err(|error| told(&error))?;
        }
        Ok(Self { environment, special })
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// Why the template does not take it.
    pub fn render(&self, conversation: &Conversation<'_>) -> Result<String, String> {
        let Conversation { messages, tools, variables, answers } = *conversation;
        let mut context = self.special.clone();
        context.extend(variables.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
        context.insert("messages".into(), Value::Array(messages.to_vec()));
        context.insert("add_generation_prompt".into(), answers.into());
        context.entry("documents").or_insert(Value::Null);
        context.insert("tools".into(), tools.cloned().unwrap_or(Value::Null));
        let mut environment = self.environment.clone();
        let size = serde_json::to_string(&context).map_or(0, |text| text.len() as u64);
        environment.set_fuel(Some(FUEL.0 + FUEL.1 * size));
        let name = if tools.is_some() && environment.get_template(TOOLS).is_ok() { TOOLS } else { USUAL };
        let template = environment.get_template(name).map_err(|error| told(&error))?;
        template.render(minijinja::value::Serde(&context)).map_err(|error| told(&error))
    }
}

/// A message with its content as one text: parts of text are lines of it.
///
/// # Errors
/// Which of its parts is no text.
pub fn flat(message: &Value) -> Result<Value, String> {
    let Value::Array(parts) = &message["content"] else { return Ok(message.clone()) };
    let text = |part: &Value| {
        part["text"].as_str().map(str::to_owned).ok_or_else(|| {
            let kind = part["type"].as_str().unwrap_or("unknown");
            format!("a message has a part of type `{kind}`, and the model reads texts only")
        })
    };
    let lines = parts.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let mut message = message.clone();
    message["content"] = lines.join("\n").into();
    Ok(message)
}

fn found(
    file: &Path,
    template: Result<ChatTemplate, String>,
) -> Result<Option<ChatTemplate>, CheckpointError> {
    template.map(Some).map_err(|problem| CheckpointError::file(file, problem))
}

/// An error with the template's line.
fn told(error: &Error) -> String {
    if let Some(refusal) =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<Refusal>())
    {
        return format!("the chat template refuses this conversation: {refusal}");
    }
    let line = error.line().map_or_else(String::new, |line| format!(", line {line}"));
    let what = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => "it does not come to an end".to_owned(),
        (kind, None) => kind.to_string(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
    };
    format!("the chat template{line}: {what}")
}

/// The template without the tags around what the model says, which training needs. A comment trims as a tag does.
fn without_marks(source: &str) -> String {
    let marks = Regex::new(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}");
    marks.map_or_else(|_| source.to_owned(), |marks| marks.replace_all(source, "{#$1 $2#}").into_owned())
}

/// The texts of special tokens in a tokenizer's configuration: as a text, or as an object with its `content`.
fn special_in(config: &Value) -> Map<String, Value> {
    let entries = config.as_object().into_iter().flatten();
    let tokens = entries.filter(|(name, _)| name.ends_with("_token"));
    let texts = tokens.filter_map(|(name, value)| {
        let text = value.as_str().or_else(|| value["content"].as_str())?;
        Some((name.clone(), Value::from(text)))
    });
    texts.collect()
}

/// The same of a GGUF file, which names them by their ids.
fn special_of(header: &Header) -> Map<String, Value> {
    let tokens = header.texts("tokenizer.ggml.tokens").unwrap_or_default();
    let ids = [
        ("bos_token", "bos_token_id"),
        ("eos_token", "eos_token_id"),
        ("unk_token", "unknown_token_id"),
        ("pad_token", "padding_token_id"),
    ];
    let text = |key: &str| {
        let id = header.integer(&format!("tokenizer.ggml.{key}"))?;
        tokens.get(usize::try_from(id).ok()?).copied()
    };
    ids.iter().filter_map(|(name, key)| Some(((*name).to_owned(), Value::from(text(key)?)))).collect()
}

/// The time as a template wants it, in UTC.
fn strftime_now(format: &str) -> Result<String, Error> {
    let wrong =
        |error: jiff::Error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}"));
    let mut text = Vec::new();
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let broken = jiff::fmt::strtime::BrokenDownTime::from(&now);
    broken.format(format, jiff::fmt::StdIoWrite(&mut text)).map_err(wrong)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// JSON as Python writes it: with a space behind commas and colons, or indented, and nothing escaped but what must be.
#[expect(clippy::needless_pass_by_value, reason = "filters are called with values")]
fn to_json(_: &State, value: minijinja::Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let wrong = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let value = serde_json::to_value(&value).map_err(wrong)?;
    let mut out = String::new();
    put(&mut out, &value, indent, 0);
    Ok(out)
}

fn put(out: &mut String, value: &Value, indent: Option<usize>, depth: usize) {
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match value {
        Value::Array(list) if !list.is_empty() => {
            out.push('[');
            for (at, one) in list.iter().enumerate() {
                out.push_str(if at > 0 { comma } else { "" });
                line(out, depth + 1);
                put(out, one, indent, depth + 1);
            }
            line(out, depth);
            out.push(']');
        }
        Value::Object(map) if !map.is_empty() => {
            out.push('{');
            for (at, (key, one)) in map.iter().enumerate() {
                out.push_str(if at > 0 { comma } else { "" });
                line(out, depth + 1);
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push_str(": ");
                put(out, one, indent, depth + 1);
            }
            line(out, depth);
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkpoint::gguf::{self, fixture};

    fn template(source: &str) -> ChatTemplate {
        let special =
            special_in(&json!({ "bos_token": "<s>", "eos_token": { "content": "</s>" }, "x": "y" }));
        ChatTemplate::new(source, None, special).unwrap()
    }

    fn render(source: &str, messages: &Value) -> Result<String, String> {
        template(source).render(&Conversation {
            messages: messages.as_array().unwrap(),
            tools: None,
            variables: None,
            answers: true,
        })
    }

    fn hello() -> Value {
        json!([{ "role": "system", "content": " Be kind. " }, { "role": "user", "content": "Hello" }])
    }

    /// As many models have it.
    const CHATML: &str = "{% for message in messages %}
    {% if loop.first and message['role'] != 'system' %}
{{ '<|im_start|>system\nDefault<|im_end|>\n' }}
    {% endif %}
{{'<|im_start|>' + message['role'] + '\n' + message['content'].strip() + '<|im_end|>' + '\n'}}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\n' }}
{%- endif %}";

    #[test]
    fn blocks_are_trimmed_and_strings_have_pythons_methods() {
        let text = render(CHATML, &hello()).unwrap();
        assert_eq!(
            text,
            "<|im_start|>system\nBe kind.<|im_end|>\n\n<|im_start|>user\nHello<|im_end|>\n\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn special_tokens_loops_and_namespaces_are_there() {
        let source = "{{ bos_token }}{% set ns = namespace(n=0) %}{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{% set ns.n = ns.n + 1 %}{% generation %}[{{ m.content[:2] }}]{% endgeneration %}{{ eos_token }}{% endfor %}{{ ns.n }}{{ tools is none }}{{ x is defined }}";
        assert_eq!(render(source, &hello()).unwrap(), "<s>[He]</s>1TrueFalse");
        assert_eq!(render("{{ strftime_now('%Y') | length }}", &hello()).unwrap(), "4");
    }

    #[test]
    fn json_is_pythons() {
        let value = json!([{ "role": "user", "content": { "b": [1, "é\n"], "a": {}, "c": [] } }]);
        assert_eq!(
            render("{{ messages[0].content | tojson }}", &value).unwrap(),
            r#"{"b": [1, "é\n"], "a": {}, "c": []}"#
        );
        assert_eq!(
            render("{{ messages[0].content.b | tojson(indent=2) }}", &value).unwrap(),
            "[\n  1,\n  \"é\\n\"\n]"
        );
    }

    #[test]
    fn what_is_wrong_says_where() {
        let wrong = |source: &str| ChatTemplate::new(source, None, Map::new()).unwrap_err();
        insta::assert_snapshot!(wrong("{{ a }}\n{% if %}"), @"the chat template, line 2: syntax error: unexpected end of block");
        insta::assert_snapshot!(render("\n{{ messages.nope() }}", &hello()).unwrap_err(), @"the chat template, line 2: unknown method: sequence has no method named nope");
        insta::assert_snapshot!(render("{{ raise_exception('roles must alternate') }}", &hello()).unwrap_err(), @"the chat template refuses this conversation: roles must alternate");
        insta::assert_snapshot!(render("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", &hello()).unwrap_err(), @"the chat template, line 1: it does not come to an end");
        insta::assert_snapshot!(render("{{ strftime_now('%!') }}", &hello()).unwrap_err(), @"the chat template, line 1: invalid operation: strftime_now: strftime formatting failed: found unrecognized specifier directive `!`");
    }

    #[test]
    fn a_folder_or_a_gguf_file_brings_it() {
        let dir = tempfile::tempdir().unwrap();
        let of = |path: &Path| {
            let path = path.to_owned();
            ChatTemplate::find(&Checkpoint { name: "test".into(), path, revision: None })
        };
        let messages = hello();
        let conversation = Conversation {
            messages: messages.as_array().unwrap(),
            tools: None,
            variables: None,
            answers: false,
        };
        let shown = |path: &Path| of(path).unwrap().unwrap().render(&conversation).unwrap();
        assert!(of(dir.path()).unwrap().is_none());
        let config = dir.path().join(CONFIG);
        let list = json!([
            { "name": "default", "template": "usual {{ eos_token }}" },
            { "name": "tool_use", "template": "tools {{ tools[0] }}" },
        ]);
        std::fs::write(&config, json!({ "eos_token": "</s>", "chat_template": list }).to_string()).unwrap();
        assert_eq!(shown(dir.path()), "usual </s>");
        let tools = json!(["t"]);
        let with_tools = Conversation { tools: Some(&tools), ..conversation };
        assert_eq!(of(dir.path()).unwrap().unwrap().render(&with_tools).unwrap(), "tools t");
        std::fs::write(&config, json!({ "chat_template": "{{ 1 + }}" }).to_string()).unwrap();
        let error = of(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json: the chat template, line 1: syntax error"), "{error}");
        std::fs::write(dir.path().join(OWN_FILE), "own").unwrap();
        assert_eq!(shown(dir.path()), "own");

        let texts = |texts: &[&str]| {
            gguf::Value::List(texts.iter().map(|text| gguf::Value::Text((*text).into())).collect())
        };
        let file = dir.path().join("model.gguf");
        let values = [
            ("tokenizer.ggml.tokens", texts(&["<a>", "<b>"])),
            ("tokenizer.ggml.bos_token_id", gguf::Value::Integer(1)),
            ("tokenizer.ggml.eos_token_id", gguf::Value::Integer(7)),
            (
                "tokenizer.chat_template",
                gguf::Value::Text("{{ bos_token }}{{ eos_token is defined }}".into()),
            ),
        ];
        std::fs::write(&file, fixture::gguf(&values)).unwrap();
        assert_eq!(shown(&file), "<b>False");
        std::fs::write(&file, fixture::gguf(&values[..1])).unwrap();
        assert!(of(&file).unwrap().is_none());
    }
}

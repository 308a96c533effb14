use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::config::Hooks;
use super::*;
use crate::record::Phase;
use crate::sample::key;
use crate::tokenizer::{Mock, Tokenizer as _};

mod calls;
mod hostile;

fn inline(text: &str) -> Hooks {
    Hooks { file: None, inline: Some(text.into()), origin: None }
}

fn compile(hooks: &Hooks, root: &Path) -> Result<Script, Vec<Fault>> {
    Script::compile(hooks, root, Arc::from(["lines".to_owned(), "score".to_owned()]), Mock.shared())
}

fn script(text: &str) -> Script {
    compile(&inline(text), Path::new("")).unwrap_or_else(|faults| panic!("{}", faults[0]))
}

fn refused(text: &str) -> String {
    let told = |faults: &[Fault]| match faults {
        [] => "compiles".into(),
        _ => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    };
    match compile(&inline(text), Path::new("")) {
        Ok(script) => told(&script.misnamed(&[])),
        Err(faults) => told(&faults),
    }
}

fn context(index: u64) -> Context {
    let point = [("load.concurrency".to_owned(), json!(4))];
    let tags = [("tier".to_owned(), "gold".to_owned())];
    let site = Site::new("chat", point.iter().map(|(k, v)| (k, v)), tags.iter().map(|(k, v)| (k, v)));
    Context { site: Arc::new(site), index, phase: Phase::Measured, seed: key(&[7, index]) }
}

fn request(index: u64) -> Request {
    Request {
        context: context(index),
        text: Text::new(|| "tell me a story".into()),
        prompt_tokens: 4,
        output_tokens: 64,
        forced: true,
        new_prompt: None,
        body: rhai::Map::new(),
    }
}

fn response(text: &str) -> Response {
    Response {
        text: text.into(),
        finish_reason: Some("stop".into()),
        prompt_tokens: 4,
        output_tokens: Mock.count(text),
        ttft_ms: Some(10.0),
        tpot_ms: None,
        e2e_ms: Some(35.5),
    }
}

/// What a body of `check` says of the response `text`.
fn check(body: &str, text: &str) -> Result<Finding, String> {
    let script = script(&format!("fn check(req, res) {{ {body} }}"));
    script.check("check", &request(3), &response(text)).map_err(|error| error.to_string())
}

/// The value of an expression, as text.
fn value(expression: &str) -> String {
    let script = script(&format!("fn prompt(ctx) {{ let value = {{ {expression} }}; value.to_string() }}"));
    match script.prompt("prompt", &context(3)) {
        Ok(prompt) => prompt.text,
        Err(error) => error.to_string(),
    }
}

//! `quick`: the first minute with a server. One line becomes a sweep, played at once and printed as a scenario to keep.

use std::path::Path;

use super::args::{QuickArgs, Results};
use super::error::CliError;
use super::{apply, log, terminal};
use crate::campaign::{Changes, complete, write_whole};
use crate::scenario::{Format, Options, load_text};

/// `quick`: writes the scenario, then plays it.
pub fn quick(args: &QuickArgs) -> Result<u8, CliError> {
    log(args.voice.verbose);
    let text = scenario(args);
    let options = Options::process(&[]);
    let loaded = load_text("quick.yaml", &text, Format::Yaml, Path::new(""), &options)
        .map_err(|failed| CliError::from(crate::campaign::Rejected::Invalid(Box::new(failed))))?;
    let prepared = complete(loaded, &Changes::default())?;
    if let Some(path) = &args.save {
        write_whole(path, text.as_bytes())?;
    }
    if !args.voice.quiet {
        terminal::print(&text)?;
    }
    if let (Some(path), false) = (&args.save, args.voice.quiet) {
        terminal::say(&format!(
            "{} written; `sagebench apply {}` plays it again",
            path.display(),
            path.display()
        ));
    }
    let results =
        Results { output: args.results.clone(), force: args.force, voice: args.voice, ..Results::default() };
    apply::play_all(&[prepared], &results)
}

/// The scenario of the arguments.
fn scenario(args: &QuickArgs) -> String {
    // A JSON string is a YAML string: what the user typed can not become anything else.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let levels: Vec<String> = args.concurrency.iter().map(ToString::to_string).collect();
    let model =
        args.model.as_ref().map(|model| format!("\n    model: {}", quoted(model))).unwrap_or_default();
    let key = args
        .api_key_env
        .as_ref()
        .map(|name| format!("\n    api_key_env: {}", quoted(name)))
        .unwrap_or_default();
    let (url, prompt, output, duration) =
        (quoted(&args.url), args.prompt, args.output, quoted(&args.duration));
    let levels = levels.join(", ");
    let slo: Vec<String> = args.slo.iter().map(|limit| quoted(limit)).collect();
    let slo = if slo.is_empty() { String::new() } else { format!("slo: [{}]\n", slo.join(", ")) };
    format!(
        "version: 1
name: quick
backends:
  server:
    kind: openai
    base_url: {url}{model}{key}
workloads:
  sweep:
    prompt: {{ kind: synthetic, tokens: {prompt} }}
    output: {{ tokens: {output} }}
    load: {{ kind: closed, concurrency: 1, duration: {duration} }}
    matrix:
      - {{ load.concurrency: [{levels}] }}
{slo}"
    )
}

//! A server: what it is, and what it does when it is asked in different ways.

use std::path::Path;

use super::super::args::DoctorArgs;
use super::super::error::CliError;
use super::{Diagnosis, Finding, Mark};
use crate::backend::openai::{Examination, Identity, Length, OpenAi, Setup, Stream};
use crate::campaign::{CampaignError, Changes, Chosen, Prepared, Rejected, complete, prepare};
use crate::scenario::{Format, Options, load_text};
use crate::units::human;

/// The server at a URL.
pub(super) fn look_at_url(url: &str, args: &DoctorArgs) -> Result<Diagnosis, CliError> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let model = args.model.as_ref().map(|model| format!(", model: {}", quoted(model))).unwrap_or_default();
    let key =
        args.api_key_env.as_ref().map(|name| format!(", api_key_env: {}", quoted(name))).unwrap_or_default();
    let text = format!(
        "version: 1\nbackends:\n  server: {{ kind: openai, base_url: {}{model}{key} }}\nworkloads:\n  \
         w: {{ prompt: {{ kind: synthetic, tokens: 16 }}, output: {{ tokens: 1 }}, load: {{ kind: closed, concurrency: 1, requests: 1 }} }}\n",
        quoted(url)
    );
    let loaded = load_text("doctor.yaml", &text, Format::Yaml, Path::new(""), &Options::process(&[]))
        .map_err(|failed| CliError::from(Rejected::Invalid(Box::new(failed))))?;
    let prepared = complete(loaded, &Changes::default())?;
    look_at(&prepared, &prepared.backends[0])
}

/// The servers of a scenario.
pub(super) fn look_at_scenario(file: &Path, args: &DoctorArgs) -> Result<Vec<Diagnosis>, CliError> {
    let changes = Changes {
        set: args.set.clone(),
        backends: args.backend.clone(),
        model: args.model.clone(),
        ..Changes::default()
    };
    let prepared = prepare(file, &changes)?;
    let servers = prepared.backends.iter().filter(|chosen| chosen.config.server().is_some());
    let found = servers.map(|chosen| look_at(&prepared, chosen)).collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() {
        let message = "the scenario's chosen backends are no servers; `--backend NAME` chooses one, and without a file this machine is looked at";
        return Err(Rejected::Message(message.into()).into());
    }
    Ok(found)
}

fn look_at(prepared: &Prepared, chosen: &Chosen) -> Result<Diagnosis, CliError> {
    let Some((config, flavor)) = chosen.config.server() else { unreachable!("who calls this has looked") };
    let dir = prepared.dir();
    let mut setup = Setup { dir: &dir, log: None, nonce: 0, say: &mut |_| {}, stopped: &|| false };
    let server = OpenAi::open(config, flavor, &mut setup)
        .map_err(|message| CampaignError::Backend { backend: chosen.name.clone(), message })?;
    let found = server.examine();
    let identity = server.identity();
    let version = identity.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    let subject = format!(
        "{}: {}{version}, model {}",
        identity.urls.join(", "),
        identity.flavor.name(),
        identity.model
    );
    Ok(Diagnosis {
        subject,
        findings: findings(identity, &found),
        backend: Some(server.backend_block(&found)),
    })
}

fn findings(identity: &Identity, found: &Examination) -> Vec<Finding> {
    let mut all = vec![
        Finding::new("round trip", human(found.round_trip_ms, "ms"), Mark::Good),
        Finding::new("HTTP/2", if found.http2 { "yes" } else { "no" }, Mark::Good),
        Finding::new(
            "longest context",
            identity.max_model_len.map_or_else(|| "not told".into(), |tokens| format!("{tokens} tokens")),
            Mark::Good,
        ),
        streaming("completions", &found.completions),
        streaming("chat completions", &found.chat),
        length("ignore_eos", &found.ignore_eos),
        length("min_tokens", &found.min_tokens),
    ];
    all.push(match &found.ids_in {
        Ok([asked, counted]) if asked == counted => {
            Finding::new("prompts of token ids", format!("taken: {counted} of {asked} tokens"), Mark::Good)
        }
        Ok([asked, counted]) => Finding::new(
            "prompts of token ids",
            format!("taken, and counted as {counted} for {asked}"),
            Mark::Note,
        )
        .advise("the server adds tokens of its own; lengths in reports are those of its usage"),
        Err(why) => Finding::new("prompts of token ids", format!("no: {why}"), Mark::Note),
    });
    all.push(match &found.ids_out {
        Ok(true) => Finding::new("token ids in answers", "yes, on request", Mark::Good),
        Ok(false) => Finding::new("token ids in answers", "no", Mark::Good),
        Err(why) => Finding::new("token ids in answers", format!("no: {why}"), Mark::Good),
    });
    all.push(tokenizer(&found.tokenizer));
    all.push(match &found.counters {
        Ok(names) => Finding::new("counters", names.join(", "), Mark::Good),
        Err(why) => Finding::new("counters", format!("none: {why}"), Mark::Note)
            .advise("KV use, prefix hits, preemptions and speculation stay unknown; `metrics: [URL]` names another page"),
    });
    all.extend(identity.notes.iter().map(|note| Finding::new("note", note.as_str(), Mark::Note)));
    all
}

fn streaming(what: &'static str, found: &Result<Stream, String>) -> Finding {
    let stream = match found {
        Ok(stream) => stream,
        Err(why) => return Finding::new(what, format!("no: {why}"), Mark::Note),
    };
    let mut words = vec![match stream.tokens {
        Some(tokens) => format!("{} events, {tokens} tokens by its usage", stream.events),
        None => format!("{} events, no usage", stream.events),
    }];
    if stream.empty_first {
        words.push("the first one is empty".into());
    }
    words.push(match (stream.finish_reason, stream.done) {
        (true, true) => "ends with a finish_reason and [DONE]".into(),
        (true, false) => "ends with a finish_reason".into(),
        (false, true) => "ends with [DONE]".into(),
        (false, false) => "ends without a word".into(),
    });
    let found = words.join(", ");
    if !stream.finish_reason && !stream.done {
        return Finding::new(what, found, Mark::Bad).advise(
            "an answer that was cut off can not be told from a whole one, so each counts as truncated",
        );
    }
    match stream.tokens {
        None => Finding::new(what, found, Mark::Note)
            .advise("without usage, tokens are counted as ids, by `tokenizer`, or as events"),
        Some(tokens) if tokens != stream.events => Finding::new(what, found, Mark::Note)
            .advise("an event can carry several tokens (or none); their gaps are equal parts of the time between events"),
        Some(_) => Finding::new(what, found, Mark::Good),
    }
}

fn length(what: &'static str, found: &Result<Length, String>) -> Finding {
    match found {
        Ok(Length { asked, came, .. }) if asked != came => {
            Finding::new(what, format!("{came} of {asked} tokens came"), Mark::Note)
                .advise("it does not force the length of answers")
        }
        Ok(Length { asked, came, free }) if free == came => {
            Finding::new(what, format!("{came} of {asked} tokens came, as they do without it"), Mark::Good)
        }
        Ok(Length { asked, came, free }) => {
            Finding::new(what, format!("{came} of {asked} tokens came, {free} without it"), Mark::Good)
        }
        Err(why) => Finding::new(what, format!("not known: {why}"), Mark::Note),
    }
}

fn tokenizer(found: &Result<[u32; 2], String>) -> Finding {
    match found {
        Ok([own, counted]) if own == counted => {
            Finding::new("tokenizer", format!("{own} tokens by it and by the usage"), Mark::Good)
        }
        Ok([own, counted]) => Finding::new(
            "tokenizer",
            format!("{own} tokens by it, {counted} by the usage: what begins every text is added"),
            Mark::Note,
        ),
        Err(why) => Finding::new("tokenizer", format!("not lent: {why}"), Mark::Note)
            .advise("prompt lengths are inexact; `tokenizer: PATH or hub id` makes them exact"),
    }
}

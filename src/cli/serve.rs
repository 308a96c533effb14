//! `serve`: a backend of a scenario behind an endpoint, until a signal.

use std::sync::Arc;
use std::time::Duration;

use super::args::ServeArgs;
use super::error::CliError;
use super::{log, signals, terminal};
use crate::backend::candle::Local;
use crate::backend::config::{Backend, CandleBackend, Clock, MockBackend, Mode};
use crate::backend::{KvStanding, Stepped, mock};
use crate::campaign::{Changes, Chosen, Prepared, Rejected, prepare};
use crate::gate::exit;
use crate::plan::Sampling;
use crate::run::Stop;
use crate::serve::{Limits, Mind, Offer, Server};

/// The longest prompt and answer where nothing bounds them.
const LONGEST: u32 = 131_072;
/// How often the server looks whether it is asked to stop.
const LOOK: Duration = Duration::from_millis(20);

/// Serves until a signal comes.
pub fn serve(args: &ServeArgs) -> Result<u8, CliError> {
    log(args.voice.verbose);
    let changes = Changes {
        set: args.set.clone(),
        backends: args.backend.clone().into_iter().collect(),
        model: args.model.clone(),
        clock: Some(Clock::Real),
        ..Changes::default()
    };
    let prepared = prepare(&args.file, &changes)?;
    let chosen = match prepared.backends.as_slice() {
        [one] => one,
        several => {
            let names: Vec<&str> = several.iter().map(|chosen| chosen.name.as_str()).collect();
            let message = format!(
                "the scenario chooses {} backends; name one: `--backend {}`",
                names.len(),
                names.join("|")
            );
            return Err(Rejected::Message(message).into());
        }
    };
    let (engine, offer) = match &chosen.config {
        Backend::Mock(config) => mocked(args, &prepared, chosen, config)?,
        Backend::Candle(config) => computed(args, &prepared, chosen, config)?,
        _ => {
            let message = format!(
                "backend `{}` is a server already; only what answers in this process is served",
                chosen.name
            );
            return Err(Rejected::Message(message).into());
        }
    };
    let limits = Limits {
        max_requests: args.max_requests,
        max_body: usize::try_from(args.max_body.0).unwrap_or(usize::MAX),
        threads: usize::from(args.threads),
        speed: args.speed,
        times: !args.no_times,
    };
    let stop = Stop::default();
    signals::connect(&stop)?;
    let server = Server::start(&args.listen, engine, offer, limits)?;
    if !args.voice.quiet {
        announce(&server, chosen);
    }
    while stop.requested().is_none() {
        std::thread::sleep(LOOK);
    }
    if !args.voice.quiet {
        terminal::say("finishing what is being answered; a second signal ends at once");
    }
    server.shut_down();
    Ok(exit::PASS)
}

/// The name of the workload whose faults are in force; empty for those of any.
fn workload<'a>(args: &'a ServeArgs, prepared: &Prepared) -> Result<&'a str, CliError> {
    let Some(name) = args.workload.as_deref() else { return Ok("") };
    let known: Vec<&str> = prepared.plan.workloads.iter().map(|workload| workload.family.as_str()).collect();
    if known.contains(&name) {
        return Ok(name);
    }
    Err(Rejected::Message(format!("no workload `{name}` in the scenario (there: {})", known.join(", ")))
        .into())
}

type Served = (Box<dyn Stepped>, Offer);

/// A mock, with the faults of the workload that was asked for.
fn mocked(
    args: &ServeArgs,
    prepared: &Prepared,
    chosen: &Chosen,
    config: &MockBackend,
) -> Result<Served, CliError> {
    if config.mode == Mode::Replay {
        let message = format!(
            "backend `{}` replays what a trace recorded of its own requests; requests from elsewhere have no recorded times",
            chosen.name
        );
        return Err(Rejected::Message(message).into());
    }
    let family = workload(args, prepared)?;
    let seed = prepared.scenario.seed;
    let engine = mock::open(config, family, seed, &prepared.dir())
        .map_err(|error| Rejected::Message(format!("backend `{}`: {error}", chosen.name)))?;
    let longest = longest(args, engine.standing().and_then(|standing| standing.kv), None);
    Ok((engine, Offer::mock(config, family, seed, longest)))
}

/// A real model.
fn computed(
    args: &ServeArgs,
    prepared: &Prepared,
    chosen: &Chosen,
    config: &CandleBackend,
) -> Result<Served, CliError> {
    let wrong = |problem: &dyn std::fmt::Display| {
        CliError::from(Rejected::Message(format!("backend `{}`: {problem}", chosen.name)))
    };
    if (args.speed - 1.0).abs() > f64::EPSILON {
        return Err(wrong(&"it computes, and so has no other time than this machine's: leave out `--speed`"));
    }
    if args.workload.is_some() {
        return Err(wrong(&"`--workload` chooses the faults of a mock, and a model has none: leave it out"));
    }
    let source = chosen.source.as_ref().ok_or_else(|| wrong(&"its model was not looked for"))?;
    let engine = Local::open(config, source)
        .and_then(|local| local.engine(vec![Sampling::default()]))
        .map_err(|error| wrong(&error))?;
    let context = source.context().and_then(|context| u32::try_from(context).ok());
    let offer = Offer {
        model: config.model.clone(),
        max_model_len: longest(args, engine.standing().and_then(|standing| standing.kv), context),
        mind: Mind::Computed { tokenizer: Arc::clone(&source.tokenizer), template: source.template.clone() },
        seed: prepared.scenario.seed,
    };
    Ok((Box::new(engine), offer))
}

/// The longest prompt and answer together: as asked for, and no longer than the KV cache and the model allow.
fn longest(args: &ServeArgs, kv: Option<KvStanding>, context: Option<u32>) -> u32 {
    let holds = kv.map(|kv| kv.total_blocks.saturating_mul(kv.block_tokens));
    let most = holds.into_iter().chain(context).min();
    let asked = args.max_model_len.or(most).unwrap_or(LONGEST);
    most.map_or(asked, |most| asked.min(most))
}

fn announce(server: &Server, chosen: &Chosen) {
    terminal::say(&format!("serving {} (model {}) at {}/v1", chosen.name, chosen.model(), server.address()));
}

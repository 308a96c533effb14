//! `serve`: a backend of a scenario behind an endpoint, until a signal.

use std::time::Duration;

use super::args::ServeArgs;
use super::error::CliError;
use super::{log, signals, terminal};
use crate::backend::config::{Backend, Clock, MockBackend, Mode};
use crate::backend::mock::{self, Answers, FaultPlan};
use crate::campaign::{Changes, Prepared, Rejected, prepare};
use crate::gate::exit;
use crate::run::Stop;
use crate::serve::{Limits, Offer, Server};

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
    let Backend::Mock(config) = &chosen.config else {
        let message =
            format!("backend `{}` is no mock; only what answers in this process is served", chosen.name);
        return Err(Rejected::Message(message).into());
    };
    if config.mode == Mode::Replay {
        let message = format!(
            "backend `{}` replays what a trace recorded of its own requests; requests from elsewhere have no recorded times",
            chosen.name
        );
        return Err(Rejected::Message(message).into());
    }
    let family = workload(args, &prepared)?;
    let seed = prepared.scenario.seed;
    let engine = mock::open(config, family, seed, &prepared.dir())
        .map_err(|error| Rejected::Message(format!("backend `{}`: {error}", chosen.name)))?;
    let offer = Offer {
        model: config.model.clone(),
        max_model_len: longest(args, engine.standing().and_then(|standing| standing.kv)),
        answers: Answers::new(&config.responses, family, seed),
        faults: FaultPlan::new(&config.faults, family, seed),
        seed,
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
        announce(&server, &chosen.name, config);
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

/// The longest prompt and answer together.
fn longest(args: &ServeArgs, kv: Option<crate::backend::KvStanding>) -> u32 {
    let holds = kv.map(|kv| kv.total_blocks.saturating_mul(kv.block_tokens));
    let asked = args.max_model_len.or(holds).unwrap_or(LONGEST);
    holds.map_or(asked, |holds| asked.min(holds))
}

fn announce(server: &Server, name: &str, config: &MockBackend) {
    terminal::say(&format!("serving {name} (model {}) at {}/v1", config.model, server.address()));
}

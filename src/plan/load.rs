//! From the load as written to the law that is played.

use std::path::Path;

use super::arrival::{Gaps, Profile};
use super::config::{
    Arrival, ClosedLoad, Load, OpenLoad, ReplayLoad, Requests, Shape, Stage, StagesLoad, Warmup,
};
use super::generator::Clock;
use super::search::SearchPlan;
use super::source::Problem;
use super::{LoadPlan, UserCurve, WarmupPlan, search};
use crate::sample::Sampler;
use crate::units::{Duration, Ns, Rate};

/// A load made ready.
#[derive(Debug)]
pub(super) struct Law {
    pub(super) load: LoadPlan,
    pub(super) clock: Clock,
    pub(super) think: Option<Sampler>,
    pub(super) requests: Option<u64>,
    pub(super) sessions: Option<u64>,
    pub(super) duration: Option<Ns>,
    pub(super) warmup: WarmupPlan,
    pub(super) words: String,
    /// Of a search; the rest is its first probe.
    pub(super) search: Option<SearchPlan>,
}

/// Checks a load with its warm-up. `traced` says whether the prompts come from a trace, `follows` whether another workload
/// ends it.
pub(super) fn read(
    load: &Load,
    warmup: Option<&Warmup>,
    (traced, follows): (bool, bool),
    dir: &Path,
) -> Result<Law, Problem> {
    let written = warmup;
    let warmup = warmup.map_or(Ok(WarmupPlan::None), read_warmup)?;
    let law = match load {
        Load::Closed(load) => closed(load, warmup, dir),
        Load::Open(load) => open(load, warmup),
        Load::Stages(load) => stages(load, warmup),
        Load::Replay(load) => replay(load, warmup, traced),
        Load::Search(load) => search::read(load, written, dir),
    }?;
    if law.duration == Some(0) {
        return Err(Problem::new("load.duration", "nothing is sent in no time", "raise `duration`"));
    }
    if law.requests == Some(0) {
        return Err(Problem::new("load.requests", "there is at least 1 request", "raise `requests`"));
    }
    if law.sessions == Some(0) {
        return Err(Problem::new("load.sessions", "there is at least 1 session", "raise `sessions`"));
    }
    let endless = law.requests.is_none() && law.sessions.is_none() && law.duration.is_none();
    // A replay ends with its trace, and users stop when its rows are used up; a law of arrivals goes on.
    let rows_end_it = traced && !matches!(law.clock, Clock::Law { .. });
    if endless && !rows_end_it && !follows {
        return Err(Problem::new("load", "the load has no end", "set `requests`, `duration`, or both"));
    }
    Ok(law)
}

fn read_warmup(warmup: &Warmup) -> Result<WarmupPlan, Problem> {
    match (warmup.requests, warmup.duration) {
        (Some(requests @ 1..), None) => Ok(WarmupPlan::Requests(requests)),
        (None, Some(Duration(length @ 1..))) => Ok(WarmupPlan::Duration(length)),
        _ => Err(Problem::new(
            "warmup",
            "a warm-up has either `requests` or `duration`, above 0",
            "set exactly one of them, or remove `warmup`",
        )),
    }
}

fn closed(load: &ClosedLoad, warmup: WarmupPlan, dir: &Path) -> Result<Law, Problem> {
    if load.concurrency == 0 {
        return Err(Problem::new("load.concurrency", "there is at least 1 user", "raise `concurrency`"));
    }
    let think = load.think_time.as_ref().map(|time| time.sampler(dir)).transpose();
    let total = |requests: Option<Requests>, key: &str| match requests {
        None => Ok(None),
        Some(Requests::Total(total)) => Ok(Some(total)),
        Some(Requests::PerUser(each)) => {
            let total = each.checked_mul(u64::from(load.concurrency));
            let message = format!("that many {key} for each user can not be counted");
            total.map(Some).ok_or_else(|| Problem::new(format!("load.{key}"), message, "lower it"))
        }
    };
    Ok(Law {
        load: LoadPlan::Closed {
            users: UserCurve::Constant(load.concurrency),
            ramp_up: load.ramp_up.map_or(0, |length| length.0),
        },
        clock: Clock::Users,
        think: think.map_err(|bad| Problem::law("load.think_time", &bad))?,
        requests: total(load.requests, "requests")?,
        sessions: total(load.sessions, "sessions")?,
        duration: load.duration.map(|length| length.0),
        warmup,
        words: match load.concurrency {
            1 => "closed, 1 user".into(),
            users => format!("closed, {users} users"),
        },
        search: None,
    })
}

fn open(load: &OpenLoad, warmup: WarmupPlan) -> Result<Law, Problem> {
    if load.rate.0 <= 0.0 {
        return Err(Problem::new("load.rate", "nothing arrives at a rate of 0", "raise `rate`"));
    }
    let profile = Profile::constant(load.rate.0);
    Ok(Law {
        load: LoadPlan::Open { max_in_flight: load.max_in_flight },
        clock: Clock::Law { gaps: gaps(&load.arrival)?, warmup: profile.clone(), profile },
        think: None,
        requests: load.requests,
        sessions: load.sessions,
        duration: load.duration.map(|length| length.0),
        warmup,
        words: format!("open, {} {}", load.rate, arrival_words(&load.arrival)),
        search: None,
    })
}

pub(super) fn gaps(arrival: &Arrival) -> Result<Gaps, Problem> {
    if let Arrival::Gamma(gamma) = arrival
        && !(0.001..=1000.0).contains(&gamma.burstiness)
    {
        let message = format!("a burstiness of {} is not between 0.001 and 1000", gamma.burstiness);
        return Err(Problem::new(
            "load.arrival.burstiness",
            message,
            "1 is Poisson; below 1 comes in bursts",
        ));
    }
    Ok(arrival.into())
}

pub(super) fn arrival_words(arrival: &Arrival) -> String {
    match arrival {
        Arrival::Gamma(gamma) => format!("gamma, burstiness {}", gamma.burstiness),
        other => other.kind().into(),
    }
}

fn stages(load: &StagesLoad, warmup: WarmupPlan) -> Result<Law, Problem> {
    let mut total: Ns = 0;
    for (at, stage) in load.stages.iter().enumerate() {
        let path = format!("load.stages.{at}");
        if stage.duration.0 == 0 {
            return Err(Problem::new(
                format!("{path}.duration"),
                "the stage lasts no time",
                "raise `duration`",
            ));
        }
        if stage.rate.is_some() == stage.concurrency.is_some() {
            return Err(Problem::new(path, "a stage sets either `rate` or `concurrency`", "set exactly one"));
        }
        if stage.rate.is_some() != load.stages[0].rate.is_some() {
            let message = "all stages set a rate, or all set a concurrency";
            return Err(Problem::new(path, message, "split them into two workloads"));
        }
        total = total.checked_add(stage.duration.0).filter(|total| *total < 1 << 62).ok_or_else(|| {
            Problem::new(path, "the stages together last more than 140 years", "shorten them")
        })?;
    }
    let first = load.stages.first();
    let first = first.ok_or_else(|| Problem::new("load.stages", "there is no stage", "add one"))?;
    let law = if first.rate.is_some() { rate_stages(load, warmup)? } else { user_stages(load, warmup)? };
    let count = load.stages.len();
    let stages = if count == 1 { "1 stage".to_owned() } else { format!("{count} stages") };
    let words = format!("{stages} of {}, {}", law.words, Duration(total));
    let (requests, sessions) = (load.requests, load.sessions);
    Ok(Law { requests, sessions, duration: Some(total), warmup, words, ..law })
}

/// What a stage leads from and to: (length, value at its start, value at its end).
fn pieces<T: Copy>(stages: &[Stage], zero: T, value: impl Fn(&Stage) -> Option<T>) -> Vec<(Ns, T, T)> {
    let mut last = zero;
    let piece = |stage: &Stage| {
        let to = value(stage).unwrap_or(zero);
        let from = if stage.shape == Shape::Linear { last } else { to };
        last = to;
        (stage.duration.0, from, to)
    };
    stages.iter().map(piece).collect()
}

fn nothing_to_warm_up(warmup: WarmupPlan, starts_at_zero: bool) -> Result<(), Problem> {
    if warmup == WarmupPlan::None || !starts_at_zero {
        return Ok(());
    }
    Err(Problem::new(
        "warmup",
        "a warm-up holds the value that the first stage starts with, and that is 0",
        "begin with a stage of `shape: step` above 0, or remove `warmup`",
    ))
}

fn rate_stages(load: &StagesLoad, warmup: WarmupPlan) -> Result<Law, Problem> {
    let parts = pieces(&load.stages, 0.0, |stage| stage.rate.map(|Rate(rate)| rate));
    let profile = Profile::pieces(&parts);
    if profile.total() <= 0.0 {
        return Err(Problem::new(
            "load.stages",
            "nothing arrives at a rate of 0",
            "raise the rate of a stage",
        ));
    }
    nothing_to_warm_up(warmup, profile.first_rate() <= 0.0)?;
    let arrival = load.arrival.clone().unwrap_or_default();
    Ok(Law {
        load: LoadPlan::Open { max_in_flight: load.max_in_flight },
        clock: Clock::Law { gaps: gaps(&arrival)?, warmup: Profile::constant(profile.first_rate()), profile },
        think: None,
        requests: None,
        sessions: None,
        duration: None,
        warmup,
        words: format!("a rate, {}", arrival_words(&arrival)),
        search: None,
    })
}

fn user_stages(load: &StagesLoad, warmup: WarmupPlan) -> Result<Law, Problem> {
    for (key, given) in [("arrival", load.arrival.is_some()), ("max_in_flight", load.max_in_flight.is_some())]
    {
        if given {
            let message = format!("`{key}` is for stages that set a rate; these set a concurrency");
            return Err(Problem::new(format!("load.{key}"), message, format!("remove `{key}`")));
        }
    }
    let mut parts = pieces(&load.stages, 0, |stage| stage.concurrency);
    if parts.iter().all(|&(_, from, to)| from == 0 && to == 0) {
        return Err(Problem::new("load.stages", "there are no users", "raise the concurrency of a stage"));
    }
    nothing_to_warm_up(warmup, parts[0].1 == 0)?;
    match warmup {
        WarmupPlan::None => {}
        WarmupPlan::Duration(length) => parts.insert(0, (length, parts[0].1, parts[0].1)),
        WarmupPlan::Requests(_) => {
            return Err(Problem::new(
                "warmup.requests",
                "stages of users follow the clock, so their warm-up must be a time",
                "set `warmup.duration` instead",
            ));
        }
    }
    Ok(Law {
        load: LoadPlan::Closed { users: UserCurve::Pieces(parts), ramp_up: 0 },
        clock: Clock::Users,
        think: None,
        requests: None,
        sessions: None,
        duration: None,
        warmup,
        words: "users".into(),
        search: None,
    })
}

fn replay(load: &ReplayLoad, warmup: WarmupPlan, traced: bool) -> Result<Law, Problem> {
    if !traced {
        let message = "`replay` sends at the times of a trace, but the prompts come from no trace";
        return Err(Problem::new("load.kind", message, "use `prompt: { kind: trace, .. }`, or another load"));
    }
    if !(load.speed > 0.0 && load.speed <= 1e6) {
        let message = format!("a speed of {} is not above 0 and at most 1000000", load.speed);
        return Err(Problem::new("load.speed", message, "1 is the trace's own speed, 2 is twice as fast"));
    }
    let as_recorded = (load.speed - 1.0).abs() < f64::EPSILON;
    Ok(Law {
        load: LoadPlan::Open { max_in_flight: load.max_in_flight },
        clock: Clock::Trace { speed: load.speed },
        think: None,
        requests: load.requests,
        sessions: load.sessions,
        duration: load.duration.map(|length| length.0),
        warmup,
        words: if as_recorded { "replay".into() } else { format!("replay, {} times as fast", load.speed) },
        search: None,
    })
}

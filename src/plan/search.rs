//! A search for capacity as it will be played: its bounds, and the plan of a probe at any level.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use super::arrival::{Gaps, Profile};
use super::config::{Level, SearchLoad, Variable, Warmup};
use super::generator::{Clock, Generator};
use super::load::{Law, arrival_words, gaps};
use super::source::Problem;
use super::{LoadPlan, RecipeSource, UserCurve, WarmupPlan, WorkloadPlan};
use crate::units::{Duration, Ns};

/// An undecided probe is played again for twice as long, so often at most.
pub const EXTENSIONS: u32 = 3;
/// More levels than a search ever needs: seeds of one repeat of the workload begin so far behind those of the one before.
const SEEDS: u32 = 1000;

/// A search for capacity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SearchPlan {
    /// What is changed.
    pub variable: Variable,
    /// The lowest level: per second, or users.
    pub low: f64,
    /// The highest.
    pub high: f64,
    /// The share of requests that must keep the SLO.
    pub share: f64,
    /// The relative gap that is narrow enough.
    pub tolerance: f64,
    /// How long a probe measures before it is extended.
    pub probe: Ns,
    /// How long it warms up.
    pub warmup: Ns,
    /// What all probes may take together.
    pub budget: Option<Ns>,
    /// The arrival law; of no use to users.
    #[serde(skip)]
    gaps: Gaps,
}

impl SearchPlan {
    /// Whether two levels are close enough, the first of which passes.
    pub fn is_narrow(&self, low: f64, high: f64) -> bool {
        high <= low * (1.0 + self.tolerance) || (self.variable == Variable::Concurrency && high - low <= 1.0)
    }

    /// The level between two, on the log scale: five significant digits, or whole users.
    pub fn between(&self, low: f64, high: f64) -> f64 {
        let middle = (low * high).sqrt();
        match self.variable {
            Variable::Concurrency => libm::round(middle).clamp(low + 1.0, high - 1.0),
            Variable::Rate => five_digits(middle),
        }
    }

    /// The next level below one that was not confirmed; `None` below the range.
    pub fn below(&self, level: f64) -> Option<f64> {
        let less = level / (1.0 + self.tolerance);
        let less = match self.variable {
            Variable::Concurrency => libm::floor(less).min(level - 1.0),
            Variable::Rate => five_digits(less),
        };
        (level > self.low).then_some(less.max(self.low))
    }

    /// What one probe takes at least.
    pub fn length(&self, extensions: u32) -> Ns {
        self.warmup.saturating_add(self.probe << extensions)
    }

    /// The most probes that are needed when none is extended and the first confirmation passes.
    fn probes(&self) -> u32 {
        let mut count = 1;
        let mut level = self.low;
        while level < self.high {
            level = (2.0 * level).min(self.high);
            count += 1;
        }
        // The widest gap is a doubling; of users, there is none between two neighbours.
        let (mut low, mut high) = ((self.high / 2.0).max(self.low), self.high);
        if self.variable == Variable::Concurrency {
            low = libm::floor(low);
        }
        while !self.is_narrow(low, high) {
            let middle = self.between(low, high);
            // The wider half is left.
            (low, high) = if middle / low > high / middle { (low, middle) } else { (middle, high) };
            count += 1;
        }
        count + 1
    }

    /// A level as it is written.
    pub fn level(&self, level: f64) -> String {
        self.variable.level(level)
    }
}

fn five_digits(value: f64) -> f64 {
    let scale = libm::pow(10.0, libm::floor(libm::log10(value)) - 4.0);
    // Dividing by a power of ten gives the float that is nearest to the decimal number; multiplying by 0.001 does not.
    if scale < 1.0 {
        libm::round(value / scale) / libm::round(1.0 / scale)
    } else {
        libm::round(value / scale) * scale
    }
}

/// A problem below `load`.
fn problem(key: &str, message: impl Into<String>, help: &str) -> Problem {
    Problem::new(format!("load.{key}"), message, help)
}

/// Checks a search. The law is that of its first probe.
pub(super) fn read(load: &SearchLoad, warmup: Option<&Warmup>, dir: &Path) -> Result<Law, Problem> {
    if warmup.is_some() {
        let message = "each probe of a search warms up on its own";
        return Err(Problem::new("warmup", message, "write `load.probe.warmup` instead"));
    }
    let (low, high) = range(load)?;
    check_options(load)?;
    let think = load.think_time.as_ref().map(|time| time.sampler(dir)).transpose();
    let think = think.map_err(|bad| Problem::law("load.think_time", &bad))?;
    let arrival = load.arrival.clone().unwrap_or_default();
    let search = SearchPlan {
        variable: load.variable,
        low,
        high,
        share: load.share.0,
        tolerance: load.tolerance.0,
        probe: load.probe.duration.0,
        warmup: load.probe.warmup.map_or(0, |length| length.0),
        budget: load.budget.map(|budget| budget.0),
        gaps: gaps(&arrival)?,
    };
    if search.length(EXTENSIONS) > 1 << 60 {
        let message = "a probe is longer than 30 years when it is extended";
        return Err(problem("probe.duration", message, "shorten it"));
    }
    check_budget(&search)?;
    let what = match load.variable {
        Variable::Rate => format!("rate, {}", arrival_words(&arrival)),
        Variable::Concurrency => "number of users".to_owned(),
    };
    let words = format!("search from {} to {}: {what}", search.level(low), search.level(high));
    let (plan, clock) = search.load(low);
    Ok(Law {
        load: plan,
        clock,
        think,
        requests: None,
        sessions: None,
        duration: Some(search.probe),
        warmup: search.warmup_plan(),
        words,
        search: Some(search),
    })
}

/// The lowest and the highest level.
fn range(load: &SearchLoad) -> Result<(f64, f64), Problem> {
    for (at, level) in load.range.iter().enumerate() {
        let message = match (load.variable, level) {
            (Variable::Rate, Level::Users(users)) => format!("{users} is no rate"),
            (Variable::Concurrency, Level::Rate(rate)) => format!("{rate} is no number of users"),
            (Variable::Rate, Level::Rate(_)) | (Variable::Concurrency, Level::Users(_)) => continue,
        };
        let help = "a rate is written as 8/s, a number of users as 16";
        return Err(problem(&format!("range.{at}"), message, help));
    }
    let [low, high] = load.range.map(Level::number);
    if low >= high {
        let message = "the range is empty: its second level is not above the first";
        return Err(problem("range", message, "write the lowest level, then the highest"));
    }
    if high > 1e6 {
        return Err(problem("range.1", "the highest level is above 1000000", "lower it"));
    }
    Ok((low, high))
}

fn check_options(load: &SearchLoad) -> Result<(), Problem> {
    if load.share.0 <= 0.0 {
        let message = "a share is above 0 and at most 100 %";
        return Err(problem("share", message, "99% is usual"));
    }
    if !(0.001..=1.0).contains(&load.tolerance.0) {
        let message = "a tolerance is between 0.1 % and 100 %";
        return Err(problem("tolerance", message, "5% is usual"));
    }
    if load.probe.duration.0 == 0 {
        return Err(problem("probe.duration", "nothing is sent in no time", "raise it"));
    }
    match load.variable {
        Variable::Rate if load.think_time.is_some() => {
            let message = "`think_time` is for users; this search is for a rate";
            Err(problem("think_time", message, "remove it"))
        }
        Variable::Concurrency if load.arrival.is_some() => {
            let message = "`arrival` is for a rate; this search is for users";
            Err(problem("arrival", message, "remove it"))
        }
        Variable::Rate | Variable::Concurrency => Ok(()),
    }
}

fn check_budget(search: &SearchPlan) -> Result<(), Problem> {
    let needed = search.length(0).saturating_mul(u64::from(search.probes()));
    let Some(budget) = search.budget.filter(|budget| *budget < needed) else { return Ok(()) };
    let message = format!(
        "this search may need {} probes of {}, which is {}; its budget is {}",
        search.probes(),
        Duration(search.length(0)),
        Duration(needed),
        Duration(budget)
    );
    let help = "raise it, shorten the probes, narrow the range, or allow more `tolerance`";
    Err(problem("budget", message, help))
}

impl SearchPlan {
    fn warmup_plan(&self) -> WarmupPlan {
        if self.warmup == 0 { WarmupPlan::None } else { WarmupPlan::Duration(self.warmup) }
    }

    fn load(&self, level: f64) -> (LoadPlan, Clock) {
        match self.variable {
            Variable::Rate => {
                let profile = Profile::constant(level);
                let clock = Clock::Law { gaps: self.gaps, warmup: profile.clone(), profile };
                (LoadPlan::Open { max_in_flight: None }, clock)
            }
            Variable::Concurrency => {
                let users = UserCurve::Constant(level as u32);
                (LoadPlan::Closed { users, ramp_up: 0 }, Clock::Users)
            }
        }
    }
}

impl WorkloadPlan {
    /// A probe of its search at `level`, `extensions` times twice as long. `None` where it does not search.
    pub fn probe(&self, level: f64, extensions: u32) -> Option<Self> {
        let search = self.search.as_ref()?;
        let RecipeSource::Generated(generator) = &self.recipes else { return None };
        let (load, clock) = search.load(level);
        Some(Self {
            load,
            recipes: RecipeSource::Generated(Arc::new(Generator { clock, ..Generator::clone(generator) })),
            duration: Some(search.probe << extensions),
            search: None,
            survey: OnceLock::new(),
            ..self.clone()
        })
    }

    /// Which run of the plan gives a probe its draws: levels are looked for with the same ones, and each confirmation has its
    /// own.
    pub fn seeds_of_probe(repeat: u32, confirmation: u32) -> u32 {
        repeat * SEEDS + confirmation.min(SEEDS - 1)
    }
}

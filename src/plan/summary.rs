//! What a plan comes to, before it runs.

use super::generator::Clock;
use super::{GroupPlan, LoadPlan, MemberPlan, Plan, RecipeSource, UserCurve, WarmupPlan, WorkloadPlan};
use crate::units::{Duration, Ns};

/// Arrivals that are counted one by one; an open load that sends more is told by its law's mean.
const COUNTED: u64 = 1 << 20;

/// What one run of a workload sends and how long it takes, as far as that is decided before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Warm-up requests; `None` when users decide how many fit into its time.
    pub warmup: Option<u64>,
    /// Measured requests, or the most there can be where time may end a closed load earlier; `None` when only time ends it.
    pub measured: Option<u64>,
    /// From T0 until nothing new starts; `None` when the backend's speed decides.
    pub duration: Option<Ns>,
}

impl WorkloadPlan {
    /// What the first run sends. Repeats of a drawn arrival law differ a little. What a search sends is not known.
    pub fn expected(&self) -> Expected {
        if self.search.is_some() {
            return Expected { warmup: None, measured: None, duration: None };
        }
        match &self.load {
            LoadPlan::Open { .. } if self.is_endless() => {
                Expected { warmup: None, measured: None, duration: None }
            }
            LoadPlan::Open { .. } => self.expected_by_clock(),
            LoadPlan::Closed { .. } => {
                let warmup_time = match self.warmup {
                    WarmupPlan::None => Some(0),
                    WarmupPlan::Duration(length) => Some(length),
                    WarmupPlan::Requests(_) => None,
                };
                Expected {
                    warmup: match self.warmup {
                        WarmupPlan::None => Some(0),
                        WarmupPlan::Requests(count) => Some(count),
                        WarmupPlan::Duration(_) => None,
                    },
                    measured: self.expected_of_users(),
                    duration: warmup_time.zip(self.duration).map(|(warmup, own)| warmup.saturating_add(own)),
                }
            }
        }
    }

    /// The most requests that users send; `None` when only time ends it.
    fn expected_of_users(&self) -> Option<u64> {
        if self.sessions.is_none() || self.is_endless() {
            return self.requests;
        }
        let count = self.count(0, COUNTED);
        count.ended.then_some(count.measured)
    }

    fn expected_by_clock(&self) -> Expected {
        let count = self.count(0, COUNTED);
        if !count.ended {
            return self.expected_by_law();
        }
        let by_requests = self.requests.is_some_and(|requests| count.measured >= requests)
            || self.sessions.is_some_and(|sessions| count.sessions >= sessions);
        let start = match self.warmup {
            WarmupPlan::None => Some(0),
            WarmupPlan::Duration(length) => Some(length),
            WarmupPlan::Requests(_) => None,
        };
        // A load that its duration ends lasts to that end; one that its requests or its trace end, to the last of them.
        let to_the_end = start.zip(self.duration).map(|(start, own)| start.saturating_add(own));
        Expected {
            warmup: Some(count.warmup),
            measured: Some(count.measured),
            duration: Some(match to_the_end {
                Some(end) if !by_requests => end,
                _ => count.last,
            }),
        }
    }

    /// The mean of a law that sends more than is worth counting.
    fn expected_by_law(&self) -> Expected {
        let law = match &self.recipes {
            RecipeSource::Generated(generator) => match &generator.clock {
                Clock::Law { profile, warmup, .. } => Some((profile, warmup)),
                Clock::Users | Clock::Trace { .. } => None,
            },
            RecipeSource::Listed(_) => None,
        };
        let Some((profile, warmup)) = law else {
            // A list is as long as it is: count it to its end.
            let count = self.count(0, u64::MAX);
            let (warmup, measured) = (Some(count.warmup), Some(count.measured));
            return Expected { warmup, measured, duration: Some(count.last) };
        };
        let (warm_count, start) = match self.warmup {
            WarmupPlan::None => (0, 0),
            WarmupPlan::Duration(length) => (warmup.events_until(length) as u64, length),
            WarmupPlan::Requests(count) => (count, warmup.time_of(count as f64).unwrap_or(0)),
        };
        let in_time = self.duration.map_or(u64::MAX, |length| profile.events_until(length) as u64);
        let measured = in_time.min(self.requests.unwrap_or(u64::MAX));
        let length = if measured < in_time { profile.time_of(measured as f64) } else { self.duration };
        Expected {
            warmup: Some(warm_count),
            measured: Some(measured),
            duration: length.map(|length| start.saturating_add(length)),
        }
    }
}

/// The least, the mean and the most of a number of tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The least.
    pub min: u32,
    /// The mean.
    pub mean: f64,
    /// The most.
    pub max: u32,
}

/// One workload's row in the table of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The workload's full name.
    pub workload: String,
    /// The load in words, such as `open, 8/s poisson`.
    pub load: String,
    /// Counts and duration.
    pub expected: Expected,
    /// How often it is played.
    pub repeats: u32,
    /// Tokens of the measured prompts, over the first run (its first 1,000 requests when only time ends it).
    pub prompt_tokens: Spread,
    /// Output tokens asked for, over the same requests.
    pub output_tokens: Spread,
    /// Rows of a trace that were left out.
    pub skipped_rows: u64,
    /// This workload's part of the schedule digest.
    pub digest: String,
}

impl GroupPlan {
    /// Who runs at once, such as `at once: chat from 30s, batch until chat is over`.
    pub fn words(&self, workloads: &[WorkloadPlan]) -> String {
        let name = |member: &MemberPlan| workloads[member.workload].name.as_str();
        let member = |member: &MemberPlan| {
            let from =
                if member.start > 0 { format!(" from {}", Duration(member.start)) } else { String::new() };
            let leader = member.until.map(|at| name(&self.members[at]));
            let until = leader.map(|leader| format!(" until {leader} is over")).unwrap_or_default();
            format!("{}{from}{until}", name(member))
        };
        format!("at once: {}", self.members.iter().map(member).collect::<Vec<_>>().join(", "))
    }
}

/// A row for each workload, in order.
pub fn table(plan: &Plan) -> Vec<Row> {
    plan.workloads
        .iter()
        .zip(&plan.workload_digests)
        .map(|(workload, digest)| row(workload, digest))
        .collect()
}

fn row(plan: &WorkloadPlan, digest: &str) -> Row {
    let survey = plan.survey();
    Row {
        workload: plan.name.clone(),
        load: match &plan.recipes {
            RecipeSource::Generated(generator) => generator.words.clone(),
            RecipeSource::Listed(_) => listed_words(&plan.load),
        },
        expected: plan.expected(),
        repeats: plan.repeats,
        prompt_tokens: survey.prompt,
        output_tokens: survey.output,
        skipped_rows: plan.skipped_rows,
        digest: digest.to_owned(),
    }
}

fn listed_words(load: &LoadPlan) -> String {
    match load {
        LoadPlan::Open { .. } => "open, as listed".into(),
        LoadPlan::Closed { users: UserCurve::Constant(1), .. } => "closed, 1 user".into(),
        LoadPlan::Closed { users: UserCurve::Constant(users), .. } => format!("closed, {users} users"),
        LoadPlan::Closed { users: UserCurve::Pieces(pieces), .. } => {
            let total = pieces.iter().map(|piece| piece.0).sum();
            format!("{} stages of users, {}", pieces.len(), Duration(total))
        }
    }
}

#[derive(Default)]
pub(super) struct Gathered {
    count: u64,
    sum: u64,
    min: u32,
    max: u32,
}

impl Gathered {
    pub(super) fn add(&mut self, tokens: u32) {
        self.min = if self.count == 0 { tokens } else { self.min.min(tokens) };
        self.max = self.max.max(tokens);
        self.sum += u64::from(tokens);
        self.count += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn spread(&self) -> Spread {
        Spread { min: self.min, mean: self.sum as f64 / self.count.max(1) as f64, max: self.max }
    }
}

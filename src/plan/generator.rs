//! Recipes as a pure function of (seed, family, repeat, phase, index).

use std::sync::Arc;

use super::arrival::{Gaps, Profile};
use super::hooked::Hooked;
use super::source::Source;
use super::stream::Slot;
use super::{Prefix, PromptRecipe, Recipe};
use crate::record::Phase;
use crate::sample::{Draws, Sampler, key, permuted};
use crate::units::Ns;

/// The version of everything that turns a seed into a text; part of the content digest.
pub const GENERATOR_VERSION: u32 = 1;

/// Generates the recipes of one workload on demand.
#[derive(Debug)]
pub struct Generator {
    /// Mixes the scenario's seed and the workload's family.
    pub(super) root: u64,
    pub(super) source: Source,
    pub(super) hooked: Option<Arc<Hooked>>,
    /// `None` when the source gives every length.
    pub(super) output: Option<OutputLength>,
    /// The share of requests that are cancelled, and after how many tokens.
    pub(super) cancel: Option<(f64, u32)>,
    pub(super) think: Option<Sampler>,
    pub(super) clock: Clock,
    /// The load in words.
    pub(super) words: String,
    /// Everything that decides lengths and arrivals, as text: stands in for the recipes where they never end.
    pub(super) law: String,
}

/// How long answers are.
#[derive(Debug)]
pub(super) struct OutputLength {
    pub(super) tokens: Sampler,
    pub(super) forced: bool,
}

/// What decides when requests are due.
#[derive(Debug)]
pub(super) enum Clock {
    /// Users who are free.
    Users,
    /// An arrival law under a rate, and the rate of the warm-up.
    Law { gaps: Gaps, profile: Profile, warmup: Profile },
    /// The trace's own arrivals, so many times faster.
    Trace { speed: f64 },
}

impl Clock {
    /// Where the measured arrival process begins after `count` warm-up requests, the last at `events`.
    pub(super) fn end_of_warmup(&self, count: u64, events: f64) -> Ns {
        match self {
            Self::Law { gaps: Gaps::Even, warmup, .. } => warmup.time_of(count as f64).unwrap_or(0),
            Self::Law { warmup, .. } => warmup.time_of(events).unwrap_or(0),
            Self::Users | Self::Trace { .. } => 0,
        }
    }
}

/// The keys of one repeat.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// Both phases share what comes from here: prefixes, and the order of rows.
    shared: u64,
    warmup: u64,
    measured: u64,
}

impl Keys {
    pub(super) fn phase(&self, phase: Phase) -> u64 {
        match phase {
            Phase::Warmup => self.warmup,
            Phase::Measured => self.measured,
        }
    }
}

impl Generator {
    pub(super) fn keys(&self, repeat: u32) -> Keys {
        let shared = key(&[self.root, u64::from(repeat)]);
        Keys { shared, warmup: key(&[shared, 1]), measured: key(&[shared, 2]) }
    }

    /// When a row of the trace is due; `None` when there is no such row, or no replay.
    pub(super) fn trace_arrival(&self, row: u64) -> Option<Ns> {
        let (Source::Trace(trace), Clock::Trace { speed }) = (&self.source, &self.clock) else { return None };
        trace.rows.get(usize::try_from(row).ok()?).map(|row| sped_up(row.at, *speed))
    }

    /// How many rows of a replayed trace are due before a time; 0 for every other load.
    pub(super) fn trace_rows_before(&self, time: Ns) -> u64 {
        match (&self.source, &self.clock) {
            (Source::Trace(trace), Clock::Trace { speed }) => {
                trace.rows.partition_point(|row| sped_up(row.at, *speed) < time) as u64
            }
            _ => 0,
        }
    }

    /// The recipe for one place in a stream. `None` when the source has no such row.
    pub(super) fn recipe(&self, keys: &Keys, slot: &Slot) -> Option<Recipe> {
        let &Slot { phase, index, arrival, .. } = slot;
        let phase_key = keys.phase(phase);
        let mut failed = None;
        let (prompt, given) = match &self.source {
            Source::Script(function) => {
                let seed = key(&[phase_key, index]);
                self.hooked.as_ref()?.prompt(function, index, phase, seed).unwrap_or_else(|reason| {
                    failed = Some(reason);
                    (PromptRecipe::nothing(), None)
                })
            }
            _ => self.prompt(keys, slot)?,
        };
        let (output_tokens, forced) = match (given, &self.output) {
            (Some(tokens), output) => (tokens, output.as_ref().is_none_or(|output| output.forced)),
            (None, Some(output)) => (draw(&output.tokens, phase_key, "output", index), output.forced),
            (None, None) => return None,
        };
        let cancel_after = self.cancel.and_then(|(rate, after)| {
            // An answer that is no longer than that ends by itself.
            let cancelled = after < output_tokens && Draws::new(phase_key, "cancel", index).unit() < rate;
            cancelled.then_some(after)
        });
        let think = self.think.as_ref().map_or(0, |think| match think.constant() {
            Some(ns) => ns as Ns,
            None => think.ns(&mut Draws::new(phase_key, "think", index)),
        });
        let seed = key(&[phase_key, index]);
        let recipe = Recipe {
            index,
            phase,
            arrival,
            after: None,
            think,
            prompt,
            output_tokens,
            forced,
            cancel_after,
            seed,
            body: None,
            failed,
        };
        Some(match &self.hooked {
            Some(hooked) => hooked.changed(recipe),
            None => recipe,
        })
    }

    /// The prompt, and the output's length where the source gives it.
    fn prompt(&self, keys: &Keys, slot: &Slot) -> Option<(PromptRecipe, Option<u32>)> {
        let &Slot { phase, index, warmed, .. } = slot;
        match &self.source {
            Source::Synthetic { tokens, prefix } => {
                let phase_key = keys.phase(phase);
                let tokens = draw(tokens, phase_key, "prompt", index);
                let prefix = prefix.map(|(tokens, groups)| {
                    let group = match groups {
                        1 => 0,
                        _ => Draws::new(phase_key, "group", index).below(u64::from(groups)),
                    };
                    Prefix { tokens, seed: key(&[keys.shared, 3, group]) }
                });
                Some((PromptRecipe::Synthetic { tokens, prefix }, None))
            }
            Source::Text(prompt) => Some((prompt.clone(), None)),
            Source::Script(_) => None,
            Source::File(file) => {
                let count = file.rows.len() as u64;
                let (pass, position) = (index / count, index % count);
                if pass > 0 && !file.wrap {
                    return None;
                }
                let place = from_end(phase, position, count);
                let row =
                    if file.shuffle { permuted(place, count, key(&[keys.shared, 4, pass])) } else { place };
                let row = &file.rows[row as usize];
                Some((row.prompt.clone(), row.output_tokens))
            }
            Source::Trace(trace) => {
                let count = trace.rows.len() as u64;
                let row = match self.clock {
                    Clock::Trace { .. } => warmed.saturating_add(index),
                    Clock::Users | Clock::Law { .. } if index >= count => return None,
                    Clock::Users | Clock::Law { .. } => from_end(phase, index, count),
                };
                let row = trace.rows.get(row as usize)?;
                Some((trace.prompt(row), Some(row.output)))
            }
        }
    }
}

/// A time of the trace in a replay. A speed of 1 keeps the trace's integers as they are.
fn sped_up(at: Ns, speed: f64) -> Ns {
    if (speed - 1.0).abs() < f64::EPSILON { at } else { libm::round(at as f64 / speed) as Ns }
}

/// Measuring takes rows from the front, warm-up from the back, so that what is measured does not depend on the warm-up
/// and does not find its own texts in the cache.
fn from_end(phase: Phase, position: u64, count: u64) -> u64 {
    match phase {
        Phase::Measured => position,
        Phase::Warmup => count - 1 - position,
    }
}

fn draw(sampler: &Sampler, phase_key: u64, purpose: &str, index: u64) -> u32 {
    match sampler.constant() {
        Some(tokens) => tokens as u32,
        None => sampler.tokens(&mut Draws::new(phase_key, purpose, index)),
    }
}

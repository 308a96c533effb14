//! Recipes as a pure function of (seed, family, repeat, phase, index).

use std::path::Path;
use std::sync::Arc;

use super::arrival::{Gaps, Profile};
use super::chat::{Content, Message, Role};
use super::config::{History, Output};
use super::hooked::Hooked;
use super::rows::{Length, Rows};
use super::session::answered;
use super::source::{MixPart, Problem, Source, TraceRow, TraceRows};
use super::stream::Slot;
use super::{After, Prefix, PromptRecipe, Recipe, Recorded};
use crate::record::Phase;
use crate::sample::{Draws, Sampler, key, permuted};
use crate::units::Ns;

/// The version of everything that turns a seed into a text; part of the content digest.
pub const GENERATOR_VERSION: u32 = 1;

/// Generates the recipes of one workload on demand.
#[derive(Debug, Clone)]
pub struct Generator {
    /// Mixes the scenario's seed and the workload's family.
    pub(super) root: u64,
    pub(super) source: Arc<Source>,
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
#[derive(Debug, Clone)]
pub(super) struct OutputLength {
    pub(super) tokens: Sampler,
    pub(super) forced: bool,
}

impl OutputLength {
    /// Checks what a scenario says about answers.
    pub(super) fn read(output: &Output, dir: &Path) -> Result<Self, Problem> {
        let (tokens, path, forced) = match (&output.tokens, &output.max_tokens) {
            (Some(tokens), None) => (tokens, "output.tokens", true),
            (None, Some(tokens)) => (tokens, "output.max_tokens", false),
            _ => {
                let message = "an output has either `tokens` (forced) or `max_tokens` (a limit)";
                return Err(Problem::new("output", message, "set exactly one of them"));
            }
        };
        let tokens = tokens.sampler(dir).map_err(|bad| Problem::law(path, &bad))?;
        Ok(Self { tokens, forced })
    }

    fn draw(&self, phase_key: u64, index: u64) -> Length {
        Length { tokens: draw(&self.tokens, phase_key, "output", index), forced: self.forced }
    }
}

/// What decides when requests are due.
#[derive(Debug, Clone)]
pub(super) enum Clock {
    /// Users who are free.
    Users,
    /// An arrival law under a rate, and the rate of the warm-up.
    Law { gaps: Gaps, profile: Profile, warmup: Profile },
    /// The trace's own arrivals, so many times faster.
    Trace { speed: f64 },
}

impl Clock {
    /// Where the measured arrival process begins after `count` warm-up arrivals, the last at `events`.
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

    /// The seed of the group that a request or session draws.
    fn group(&self, phase: Phase, index: u64, groups: u32) -> u64 {
        let group = match groups {
            1 => 0,
            _ => Draws::new(self.phase(phase), "group", index).below(u64::from(groups)),
        };
        key(&[self.shared, 3, group])
    }
}

impl Generator {
    pub(super) fn keys(&self, repeat: u32) -> Keys {
        let shared = key(&[self.root, u64::from(repeat)]);
        Keys { shared, warmup: key(&[shared, 1]), measured: key(&[shared, 2]) }
    }

    /// The hooks, where they are called for each recipe.
    pub(super) fn calling(&self) -> Option<&Hooked> {
        let makes_prompts = match &*self.source {
            Source::Script(_) => true,
            Source::Mix(parts) => parts.iter().any(|part| matches!(part.source, Source::Script(_))),
            _ => false,
        };
        self.hooked.as_deref().filter(|hooked| makes_prompts || hooked.changes_requests())
    }

    /// When a row of the trace is due; `None` when there is no such row, or no replay.
    pub(super) fn trace_arrival(&self, row: u64) -> Option<Ns> {
        let (Source::Trace(trace), Clock::Trace { speed }) = (&*self.source, &self.clock) else {
            return None;
        };
        trace.rows.get(usize::try_from(row).ok()?).map(|row| sped_up(row.at, *speed))
    }

    /// How many rows of a replayed trace are due before a time; 0 for every other load.
    pub(super) fn trace_rows_before(&self, time: Ns) -> u64 {
        match (&*self.source, &self.clock) {
            (Source::Trace(trace), Clock::Trace { speed }) => {
                trace.rows.partition_point(|row| sped_up(row.at, *speed) < time) as u64
            }
            _ => 0,
        }
    }

    /// Whether what was answered is part of later prompts.
    pub(super) fn has_history(&self) -> bool {
        match &*self.source {
            Source::Sessions(sessions) => sessions.history == History::Answered,
            Source::Dialogues(_, playing) => playing.history == History::Answered,
            source @ Source::Trace(_) => source.is_sessions(),
            _ => false,
        }
    }

    /// How many turns a session has; `None` where requests stand alone.
    pub(super) fn turns(&self, keys: &Keys, phase: Phase, row: u64) -> Option<u32> {
        match &*self.source {
            Source::Sessions(sessions) => Some(sessions.turns.draw(keys.phase(phase), row)),
            Source::Dialogues(file, _) => Some(file.pick(keys, phase, row)?.turns.len() as u32),
            Source::Trace(trace) if self.source.is_sessions() => {
                Some(1 + self.trace_row(trace, phase, row)?.later.len() as u32)
            }
            _ => None,
        }
    }

    /// How many rows a warm-up of so many requests takes.
    pub(super) fn rows_of_warmup(&self, keys: &Keys, requests: u64) -> u64 {
        if !self.source.is_sessions() {
            return requests;
        }
        let (mut row, mut left) = (0, requests);
        while left > 0 {
            let Some(turns) = self.turns(keys, Phase::Warmup, row) else { return row + left };
            left = left.saturating_sub(u64::from(turns));
            row += 1;
        }
        row
    }

    /// The recipe for one place in a stream. `None` when the source has no such row. `said` is what the places before it
    /// left, in order.
    pub(super) fn recipe(&self, keys: &Keys, slot: &Slot, said: &mut Said) -> Option<Recipe> {
        let &Slot { phase, index, arrival, session, .. } = slot;
        let phase_key = keys.phase(phase);
        let mut failed = None;
        let seed = key(&[phase_key, index]);
        if session.is_none()
            && let Some(kept) = self.hooked.as_ref().and_then(|hooked| hooked.kept(phase, index, seed))
        {
            return Some(Recipe { arrival, ..kept });
        }
        let (prompt, length) = match &*self.source {
            Source::Script(function) => {
                let made = self.hooked.as_ref()?.prompt(function, index, phase, seed);
                let (prompt, given) = made.unwrap_or_else(|reason| {
                    failed = Some(reason);
                    (PromptRecipe::nothing(), None)
                });
                let forced = self.output.as_ref().is_none_or(|output| output.forced);
                let given = given.map(|tokens| Length { tokens, forced });
                (prompt, given.or_else(|| self.output.as_ref().map(|output| output.draw(phase_key, index)))?)
            }
            Source::Mix(parts) => self.mixed(parts, keys, slot, said)?,
            _ if session.is_some() => self.turn(keys, slot, seed, said)?,
            source => self.single(source, self.output.as_ref(), keys, slot)?,
        };
        let Length { tokens: output_tokens, forced } = length;
        said.before = Some((output_tokens, seed));
        let cancel_after = self.cancel.and_then(|(rate, after)| {
            // An answer that is no longer than that ends by itself.
            let cancelled = after < output_tokens && Draws::new(phase_key, "cancel", index).unit() < rate;
            cancelled.then_some(after)
        });
        let after = session.filter(|session| session.turn > 1);
        let after = after.map(|_| After { index: index - 1, delay: self.delay(phase_key, slot) });
        let think = self.think.as_ref().filter(|_| after.is_none());
        let think = think.map_or(0, |think| draw_ns(think, phase_key, "think", index));
        let recipe = Recipe {
            lane: 0,
            attempt: 0,
            index,
            phase,
            arrival,
            after,
            session,
            think,
            prompt,
            output_tokens,
            forced,
            cancel_after,
            seed,
            body: None,
            failed,
            recorded: self.recorded(slot),
        };
        Some(match &self.hooked {
            Some(hooked) => hooked.changed(recipe),
            None => recipe,
        })
    }

    /// When the answer came where it was recorded.
    fn recorded(&self, slot: &Slot) -> Option<Recorded> {
        let Source::Trace(trace) = &*self.source else { return None };
        self.trace_row(trace, slot.phase, slot.row)?.recorded
    }

    /// How long a later turn waits for after the end of the one before it.
    fn delay(&self, phase_key: u64, slot: &Slot) -> Ns {
        let think = match &*self.source {
            Source::Sessions(sessions) => sessions.think.as_ref(),
            Source::Dialogues(_, playing) => playing.think.as_ref(),
            Source::Trace(trace) => {
                let turn = slot.session.map_or(0, |session| session.turn as usize);
                let row = self.trace_row(trace, slot.phase, slot.row);
                let at = row.and_then(|row| row.later.get(turn.checked_sub(2)?)).map_or(0, |row| row.at);
                return match self.clock {
                    Clock::Trace { speed } => sped_up(at, speed),
                    Clock::Users | Clock::Law { .. } => at,
                };
            }
            _ => None,
        };
        think.map_or(0, |think| draw_ns(think, phase_key, "turn", slot.index))
    }

    fn trace_row<'t>(&self, trace: &'t TraceRows, phase: Phase, row: u64) -> Option<&'t TraceRow> {
        let count = trace.rows.len() as u64;
        let place = match self.clock {
            Clock::Trace { .. } => row,
            Clock::Users | Clock::Law { .. } if row >= count => return None,
            Clock::Users | Clock::Law { .. } => from_end(phase, row, count),
        };
        trace.rows.get(usize::try_from(place).ok()?)
    }

    /// A request that stands alone, and how long its answer is.
    fn single(
        &self,
        source: &Source,
        output: Option<&OutputLength>,
        keys: &Keys,
        slot: &Slot,
    ) -> Option<(PromptRecipe, Length)> {
        let &Slot { phase, index, row, .. } = slot;
        let phase_key = keys.phase(phase);
        let (prompt, given) = match source {
            Source::Synthetic { tokens, prefix } => {
                let tokens = draw(tokens, phase_key, "prompt", index);
                let prefix =
                    prefix.map(|(tokens, groups)| Prefix { tokens, seed: keys.group(phase, index, groups) });
                (PromptRecipe::Synthetic { tokens, prefix }, None)
            }
            Source::Text(prompt) => (prompt.clone(), None),
            Source::File(file) => {
                let row = file.pick(keys, phase, row)?;
                (row.prompt.clone(), row.output)
            }
            Source::Corpus(corpus, tokens) => {
                let tokens = draw(tokens, phase_key, "prompt", index);
                let place = |places| Draws::new(phase_key, "passage", index).below(places);
                (corpus.passage(tokens, place), None)
            }
            Source::Trace(trace) => {
                let row = self.trace_row(trace, phase, row)?;
                (trace.prompt(row), Some(Length { tokens: row.output, forced: true }))
            }
            Source::Sessions(_) | Source::Dialogues(..) | Source::Mix(_) | Source::Script(_) => return None,
        };
        let length = given.or_else(|| output.map(|output| output.draw(phase_key, index)))?;
        Some((prompt, length))
    }

    /// A request of one of the parts.
    fn mixed(
        &self,
        parts: &[MixPart],
        keys: &Keys,
        slot: &Slot,
        said: &mut Said,
    ) -> Option<(PromptRecipe, Length)> {
        let total = parts.last()?.until;
        let at = Draws::new(keys.phase(slot.phase), "mix", slot.index).unit() * total;
        let part = parts.iter().position(|part| at < part.until).unwrap_or(parts.len() - 1);
        said.taken.resize(parts.len(), 0);
        // The rows of a file come in their order, whatever was drawn between them.
        let slot = Slot { row: said.taken[part], ..*slot };
        said.taken[part] += 1;
        let part = &parts[part];
        self.single(&part.source, part.output.as_ref().or(self.output.as_ref()), keys, &slot)
    }

    /// A turn of a session: the conversation so far, what was answered last, and what is new.
    fn turn(&self, keys: &Keys, slot: &Slot, seed: u64, said: &mut Said) -> Option<(PromptRecipe, Length)> {
        let &Slot { phase, index, row, session, .. } = slot;
        let turn = session?.turn;
        let phase_key = keys.phase(phase);
        let drawn = || self.output.as_ref().map(|output| output.draw(phase_key, index));
        if turn == 1 {
            said.messages.clear();
        }
        let before = said.before.take().filter(|_| turn > 1);
        let (mut body, mut given) = (None, None);
        match &*self.source {
            Source::Sessions(sessions) => {
                if let Some((tokens, groups)) = sessions.system.filter(|_| turn == 1) {
                    let seed = keys.group(phase, row, groups);
                    said.push(Role::System, Content::Synthetic { tokens, seed });
                }
                said.messages.extend(before.map(|(tokens, seed)| answered(sessions.history, tokens, seed)));
                let tokens = draw(&sessions.user, phase_key, "prompt", index);
                said.push(Role::User, Content::Synthetic { tokens, seed });
            }
            Source::Dialogues(file, playing) => {
                let dialogue = file.pick(keys, phase, row)?;
                let at = turn as usize - 1;
                if let Some((tokens, seed)) = before {
                    let recorded = dialogue.turns[at - 1].answer.clone();
                    let recorded = recorded.filter(|_| playing.history == History::Recorded);
                    said.messages.push(recorded.unwrap_or_else(|| answered(History::Answered, tokens, seed)));
                }
                let own = dialogue.turns.get(at)?;
                said.messages.extend_from_slice(&own.messages);
                (body, given) = (dialogue.body.clone(), own.output);
            }
            Source::Trace(trace) => {
                let first = self.trace_row(trace, phase, row)?;
                let own = if turn == 1 { first } else { first.later.get(turn as usize - 2)? };
                said.messages.extend(before.map(|(tokens, seed)| answered(History::Answered, tokens, seed)));
                said.push(Role::User, trace.message(own, seed));
                given = Some(Length { tokens: own.output, forced: true });
            }
            _ => return None,
        }
        let prompt = PromptRecipe::chat(said.messages.as_slice().into(), body);
        Some((prompt, given.or_else(drawn)?))
    }
}

/// What the places of a stream leave for those behind them.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    /// The conversation of the session so far.
    messages: Vec<Message>,
    /// Output tokens and seed of the request before.
    before: Option<(u32, u64)>,
    /// How many requests each part of a mixture has had.
    taken: Vec<u64>,
}

impl Said {
    fn push(&mut self, role: Role, content: Content) {
        self.messages.push(Message { role, content });
    }
}

impl<T> Rows<T> {
    /// The row of one place: rows are used again, in another order where they are shuffled. `None` when they are used up.
    fn pick(&self, keys: &Keys, phase: Phase, row: u64) -> Option<&T> {
        let count = self.all.len() as u64;
        let (pass, position) = (row / count, row % count);
        if pass > 0 && !self.wrap {
            return None;
        }
        let place = from_end(phase, position, count);
        let place = if self.shuffle { permuted(place, count, key(&[keys.shared, 4, pass])) } else { place };
        self.all.get(place as usize)
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

fn draw_ns(sampler: &Sampler, phase_key: u64, purpose: &str, index: u64) -> Ns {
    match sampler.constant() {
        Some(ns) => ns as Ns,
        None => sampler.ns(&mut Draws::new(phase_key, purpose, index)),
    }
}

fn draw(sampler: &Sampler, phase_key: u64, purpose: &str, index: u64) -> u32 {
    match sampler.constant() {
        Some(tokens) => tokens as u32,
        None => sampler.tokens(&mut Draws::new(phase_key, purpose, index)),
    }
}

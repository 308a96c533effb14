//! Sessions: who says what in which turn.

use std::path::Path;

use super::chat::{Content, Message, Role};
use super::config::{History, SessionsPrompt, Turns};
use super::source::Problem;
use crate::sample::{Draws, Sampler, key};

/// Generated conversations.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) turns: TurnLaw,
    /// Tokens and groups of the system message.
    pub(super) system: Option<(u32, u32)>,
    pub(super) user: Sampler,
    pub(super) think: Option<Sampler>,
    pub(super) history: History,
}

/// How many turns a session has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TurnLaw {
    Fixed(u32),
    Uniform(u32, u32),
    /// The rate of the exponential law whose whole part is geometric, and the most turns. Infinite where one turn is all.
    Geometric(f64, u32),
}

impl TurnLaw {
    /// The number of turns of one session.
    pub(super) fn draw(self, phase_key: u64, session: u64) -> u32 {
        let mut draws = Draws::new(phase_key, "turns", session);
        match self {
            Self::Fixed(turns) => turns,
            Self::Uniform(min, max) => min + draws.below(u64::from(max - min) + 1) as u32,
            Self::Geometric(rate, max) => {
                let more = libm::floor(draws.exponential() / rate);
                (more.min(f64::from(max)) as u32 + 1).min(max)
            }
        }
    }
}

/// Reads and checks the sessions that a scenario describes.
pub(super) fn read(prompt: &SessionsPrompt, dir: &Path) -> Result<Sessions, Problem> {
    let user = prompt.user.tokens.sampler(dir).map_err(|bad| Problem::law("prompt.user.tokens", &bad))?;
    let think = prompt.think_time.as_ref().map(|time| time.sampler(dir)).transpose();
    let think = think.map_err(|bad| Problem::law("prompt.think_time", &bad))?;
    if let Some(system) = &prompt.system {
        if system.tokens.0 == 0 {
            return Err(Problem::new("prompt.system.tokens", "a message has at least 1 token", "raise it"));
        }
        if system.groups == 0 {
            return Err(Problem::new("prompt.system.groups", "there is at least 1 group", "raise it"));
        }
    }
    Ok(Sessions {
        turns: turn_law(&prompt.turns)?,
        system: prompt.system.as_ref().map(|system| (system.tokens.0, system.groups)),
        user,
        think,
        history: prompt.history,
    })
}

fn turn_law(turns: &Turns) -> Result<TurnLaw, Problem> {
    let range = |key: &str, value: u32| {
        if (1..=1000).contains(&value) {
            return Ok(value);
        }
        let message = format!("{value} is no number of turns");
        Err(Problem::new(format!("prompt.turns.{key}"), message, "write a number from 1 to 1000"))
    };
    Ok(match turns {
        Turns::Fixed(law) => TurnLaw::Fixed(range("value", law.value)?),
        Turns::Uniform(law) => {
            let (min, max) = (range("min", law.min)?, range("max", law.max)?);
            if min > max {
                return Err(Problem::new(
                    "prompt.turns.min",
                    "`min` is larger than `max`",
                    "exchange the two",
                ));
            }
            TurnLaw::Uniform(min, max)
        }
        Turns::Geometric(law) => {
            if !(1.0..=1000.0).contains(&law.mean) {
                let message = format!("a mean of {} turns is not between 1 and 1000", law.mean);
                return Err(Problem::new("prompt.turns.mean", message, "a session has at least 1 turn"));
            }
            // P(more than k turns) = (1 - 1/mean)^k.
            TurnLaw::Geometric(-libm::log1p(-1.0 / law.mean), range("max", law.max)?)
        }
    })
}

/// What stands in the history for the answer to a request of this seed.
pub(super) fn answered(history: History, tokens: u32, seed: u64) -> Message {
    let content = match history {
        History::Answered => Content::Answer { tokens, seed, text: None },
        History::Recorded => Content::Synthetic { tokens, seed: key(&[seed, RECORDED]) },
    };
    Message { role: Role::Assistant, content }
}

/// Keeps a planned answer apart from the model's own.
const RECORDED: u64 = 0x7265_636f_7264;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_their_law() {
        let drawn = |law: TurnLaw| (0..20_000).map(move |session| law.draw(7, session));
        let mean = |law| drawn(law).map(f64::from).sum::<f64>() / 20_000.0;
        let geometric = |mean: f64, max| TurnLaw::Geometric(-libm::log1p(-1.0 / mean), max);
        assert!(drawn(TurnLaw::Uniform(2, 4)).all(|turns| (2..=4).contains(&turns)));
        assert!((mean(TurnLaw::Uniform(2, 4)) - 3.0).abs() < 0.02);
        // Standard deviation of the mean: sqrt(mean (mean - 1) / n) = 0.03.
        assert!((mean(geometric(5.0, 1000)) - 5.0).abs() < 0.1);
        assert!(drawn(geometric(5.0, 3)).all(|turns| (1..=3).contains(&turns)));
        assert!(drawn(geometric(1.0, 9)).all(|turns| turns == 1));
    }
}

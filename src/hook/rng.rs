//! What a hook draws.

use std::sync::{Arc, Mutex, PoisonError};

use rhai::{Array, Dynamic, EvalAltResult, Position};

use crate::sample::{Draws, key, name_key};
use crate::tokenizer::Tokenizer;

/// The draws of one call of a hook: a pure function of the scenario's seed, the request and the hook. Clones draw on from
/// one another.
#[derive(Clone)]
pub struct Rng(Arc<Drawing>);

struct Drawing {
    key: u64,
    /// Made when the first draw is asked for: most calls draw nothing, or little.
    draws: Mutex<Option<Draws>>,
    tokenizer: Arc<dyn Tokenizer>,
}

impl std::fmt::Debug for Rng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("rng")
    }
}

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// An error at the place of the call.
pub(super) fn refuse<T>(message: impl Into<String>) -> Result<T> {
    Err(EvalAltResult::ErrorRuntime(message.into().into(), Position::NONE).into())
}

impl Rng {
    pub(super) fn new(seed: u64, hook: &str, tokenizer: Arc<dyn Tokenizer>) -> Self {
        let key = key(&[seed, name_key(hook), 0]);
        Self(Arc::new(Drawing { key, draws: Mutex::new(None), tokenizer }))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut Draws) -> T) -> T {
        let mut draws = self.0.draws.lock().unwrap_or_else(PoisonError::into_inner);
        draw(draws.get_or_insert_with(|| Draws::keyed(self.0.key)))
    }

    pub(super) fn unit(&self) -> f64 {
        self.with(Draws::unit)
    }

    pub(super) fn int(&self, from: i64, to: i64) -> Result<i64> {
        if from > to {
            return refuse(format!("rng.int({from}, {to}): the first number is larger than the second"));
        }
        let span = to.abs_diff(from);
        let drawn = self.with(|draws| if span == u64::MAX { draws.bits() } else { draws.below(span + 1) });
        Ok(from.wrapping_add_unsigned(drawn))
    }

    pub(super) fn chance(&self, share: f64) -> bool {
        self.unit() < share
    }

    pub(super) fn normal(&self, mean: f64, std: f64) -> f64 {
        mean + std * self.with(Draws::normal)
    }

    pub(super) fn exponential(&self, mean: f64) -> f64 {
        mean * self.with(Draws::exponential)
    }

    pub(super) fn pick(&self, list: Array) -> Result<Dynamic> {
        let mut list = list;
        if list.is_empty() {
            return refuse("rng.pick: the list is empty");
        }
        let at = self.with(|draws| draws.below(list.len() as u64));
        Ok(list.swap_remove(at as usize))
    }

    /// Fisher and Yates.
    pub(super) fn shuffle(&self, list: Array) -> Array {
        let mut list = list;
        for last in (1..list.len()).rev() {
            let at = self.with(|draws| draws.below(last as u64 + 1));
            list.swap(last, at as usize);
        }
        list
    }

    pub(super) fn text(&self, tokens: i64) -> Result<String> {
        // A token of invented text is at most a word of a few letters.
        match u32::try_from(tokens) {
            Ok(tokens) if tokens as usize <= super::limits::STRING / 8 => {
                Ok(self.0.tokenizer.text_of(tokens, self.with(Draws::bits)))
            }
            _ => refuse(format!("rng.text({tokens}): a text has 0 to {} tokens", super::limits::STRING / 8)),
        }
    }

    pub(super) fn count(&self, text: &str) -> u32 {
        self.0.tokenizer.count(text)
    }
}

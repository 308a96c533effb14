//! Laws made ready for drawing.

use std::path::Path;

use serde_json::Value;

use super::{Draws, Empirical, FileError, Lines, Quantity, Time, Tokens, Zipf, csv_fields, json_fault};
use crate::units::{Duration, MILLISECOND, Ns, TokenCount};

/// How many different values a Zipf law may have: its table is kept in memory.
const ZIPF_VALUES: u32 = 1 << 20;
/// The longest time that is drawn: what a duration can be written as.
const LONGEST: f64 = 9e18;

/// Why a law can not be drawn from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadLaw {
    /// The key of the law that is wrong, such as `min`; empty when it is the law itself.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl BadLaw {
    fn new(key: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { key, message: message.into(), help: help.into() }
    }
}

/// A distribution made ready for drawing: in tokens, or in nanoseconds.
#[derive(Debug, Clone, PartialEq)]
pub enum Sampler {
    /// Always this.
    Constant(f64),
    /// Uniform over the integers of a closed range.
    Uniform(f64, f64),
    /// Mean, standard deviation, lower and upper bound.
    Normal(f64, f64, f64, f64),
    /// Location and scale of the logarithm, lower and upper bound.
    Lognormal(f64, f64, f64, f64),
    /// Cumulative weights over values that start at `.0`.
    Zipf(u32, Vec<f64>),
    /// One of these, each as likely; never empty.
    Empirical(Vec<f64>),
}

impl Tokens {
    /// Checks the law and makes it ready. `dir` is the folder that paths are relative to; draws are tokens.
    pub fn sampler(&self, dir: &Path) -> Result<Sampler, BadLaw> {
        let bounds = (1.0, f64::from(TokenCount::MAX));
        match self {
            Self::Fixed(law) => {
                token_count("value", law.value)?;
                Ok(Sampler::Constant(law.value.to_float()))
            }
            Self::Uniform(law) => {
                token_count("min", law.min)?;
                token_count("max", law.max)?;
                uniform(law.min.to_float(), law.max.to_float())
            }
            Self::Normal(law) => {
                let (min, max) = cut(law.min, law.max, bounds)?;
                Ok(Sampler::Normal(law.mean.to_float(), law.std.to_float(), min, max))
            }
            Self::Lognormal(law) => {
                let (min, max) = cut(law.min, law.max, bounds)?;
                lognormal(law.mean.to_float(), law.std.to_float(), min, max)
            }
            Self::Zipf(law) => zipf(law),
            Self::Empirical(law) => empirical(law, dir, |value| {
                let whole = value.as_u64().filter(|n| (1..=u64::from(TokenCount::MAX)).contains(n));
                whole.map(|n| n as f64).ok_or("a number of tokens: a whole number from 1 to 16777216")
            }),
        }
    }
}

impl Time {
    /// Checks the law and makes it ready. `dir` is the folder that paths are relative to; draws are nanoseconds.
    pub fn sampler(&self, dir: &Path) -> Result<Sampler, BadLaw> {
        match self {
            Self::Fixed(law) => Ok(Sampler::Constant(law.value.to_float())),
            Self::Uniform(law) => uniform(law.min.to_float(), law.max.to_float()),
            Self::Normal(law) => {
                let (min, max) = cut(law.min, law.max, (0.0, LONGEST))?;
                Ok(Sampler::Normal(law.mean.to_float(), law.std.to_float(), min, max))
            }
            Self::Lognormal(law) => {
                let (min, max) = cut(law.min, law.max, (0.0, LONGEST))?;
                lognormal(law.mean.to_float(), law.std.to_float(), min, max)
            }
            Self::Empirical(law) => empirical(law, dir, |value| {
                let ns = value.as_f64().map(|ms| libm::round(ms * MILLISECOND as f64));
                ns.filter(|ns| (0.0..=LONGEST).contains(ns)).ok_or("a time in milliseconds, 0 or more")
            }),
        }
    }
}

fn token_count(key: &'static str, count: TokenCount) -> Result<(), BadLaw> {
    if (1..=TokenCount::MAX).contains(&count.0) {
        return Ok(());
    }
    Err(BadLaw::new(
        key,
        format!("{} is no number of tokens", count.0),
        format!("write a number from 1 to {}", TokenCount::MAX),
    ))
}

fn uniform(min: f64, max: f64) -> Result<Sampler, BadLaw> {
    ordered(min, max)?;
    Ok(Sampler::Uniform(min, max))
}

fn ordered(min: f64, max: f64) -> Result<(), BadLaw> {
    if min > max {
        return Err(BadLaw::new("min", "`min` is larger than `max`", "exchange the two"));
    }
    Ok(())
}

/// The bounds of a law that is cut: as written, else the widest possible.
fn cut<T: Quantity>(min: Option<T>, max: Option<T>, widest: (f64, f64)) -> Result<(f64, f64), BadLaw> {
    let min = min.map_or(widest.0, |bound| bound.to_float().max(widest.0));
    let max = max.map_or(widest.1, |bound| bound.to_float().min(widest.1));
    ordered(min, max)?;
    Ok((min, max))
}

/// From the mean m and standard deviation s of the values: sigma^2 = ln(1 + s^2/m^2), mu = ln m - sigma^2/2.
fn lognormal(mean: f64, std: f64, min: f64, max: f64) -> Result<Sampler, BadLaw> {
    if mean <= 0.0 {
        return Err(BadLaw::new("mean", "the mean of a log-normal law is above 0", "raise `mean`"));
    }
    let ratio = std / mean;
    let variance = libm::log1p(ratio * ratio);
    Ok(Sampler::Lognormal(libm::log(mean) - variance / 2.0, libm::sqrt(variance), min, max))
}

fn zipf(law: &Zipf) -> Result<Sampler, BadLaw> {
    token_count("min", law.min)?;
    token_count("max", law.max)?;
    ordered(law.min.to_float(), law.max.to_float())?;
    if !(law.exponent > 0.0 && law.exponent <= 20.0) {
        let message = format!("the exponent {} is not above 0 and at most 20", law.exponent);
        return Err(BadLaw::new("exponent", message, "1 is the classical law"));
    }
    let values = law.max.0 - law.min.0 + 1;
    if values > ZIPF_VALUES {
        let message =
            format!("{values} different values are more than the {ZIPF_VALUES} a Zipf law may have");
        return Err(BadLaw::new("max", message, "bring `min` and `max` closer together"));
    }
    let mut sum = 0.0;
    let weights = (1..=values).map(|k| {
        sum += libm::pow(f64::from(k), -law.exponent);
        sum
    });
    Ok(Sampler::Zipf(law.min.0, weights.collect()))
}

type Convert = fn(&Value) -> Result<f64, &'static str>;

fn empirical(law: &Empirical, dir: &Path, convert: Convert) -> Result<Sampler, BadLaw> {
    let values = column(law, dir, convert).map_err(|error| {
        BadLaw::new("path", error.to_string(), "name a CSV or JSONL file with such a column")
    })?;
    Ok(Sampler::Empirical(values))
}

/// Reads one column. A file whose first line starts with `{` is JSONL, any other is CSV with a header line.
fn column(law: &Empirical, dir: &Path, convert: Convert) -> Result<Vec<f64>, FileError> {
    let mut lines = Lines::open(dir, &law.path)?;
    let mut values = Vec::new();
    let mut csv_column = None;
    while let Some((number, line)) = lines.read()? {
        if values.is_empty() && csv_column.is_none() && !line.trim_start().starts_with('{') {
            let header = csv_fields(line).unwrap_or_default();
            csv_column = header.iter().position(|name| name.trim() == law.column);
            if csv_column.is_none() {
                let message = format!("has no column `{}`; it has {}", law.column, header.join(", "));
                return Err(lines.error(message));
            }
            continue;
        }
        let found = match csv_column {
            Some(at) => csv_fields(line).and_then(|fields| {
                let text = fields.get(at)?.trim();
                Some(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())))
            }),
            None => match serde_json::from_str::<Value>(line) {
                Ok(mut row) => row.get_mut(&law.column).map(Value::take),
                Err(error) => return Err(lines.error(format!("is not JSON: {}", json_fault(&error)))),
            },
        };
        let Some(found) = found else {
            return Err(lines.error(format!("has no `{}`", law.column)));
        };
        let value = convert(&found).map_err(|wanted| FileError {
            file: law.path.clone(),
            line: Some(number),
            message: format!("`{}` is {found}, which is not {wanted}", law.column),
        })?;
        values.push(value);
    }
    if values.is_empty() {
        return Err(lines.file_error("has no rows"));
    }
    Ok(values)
}

impl Sampler {
    /// Draws one value, unrounded.
    pub fn draw(&self, draws: &mut Draws) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Uniform(min, max) => min + draws.below((max - min) as u64 + 1) as f64,
            Self::Normal(mean, std, min, max) => (mean + std * draws.normal()).clamp(*min, *max),
            Self::Lognormal(mu, sigma, min, max) => libm::exp(mu + sigma * draws.normal()).clamp(*min, *max),
            Self::Zipf(first, cumulative) => {
                let total = cumulative.last().copied().unwrap_or(0.0);
                let target = draws.unit() * total;
                f64::from(*first) + cumulative.partition_point(|c| *c <= target) as f64
            }
            Self::Empirical(values) => values[draws.below(values.len() as u64) as usize],
        }
    }

    /// Draws a number of tokens: rounded to the nearest, at least 1.
    pub fn tokens(&self, draws: &mut Draws) -> u32 {
        TokenCount::from_float(self.draw(draws)).0
    }

    /// Draws a length of time in nanoseconds, rounded to the nearest.
    pub fn ns(&self, draws: &mut Draws) -> Ns {
        Duration::from_float(self.draw(draws)).0
    }

    /// Whether every draw gives the same, so that none has to be made.
    pub fn constant(&self) -> Option<f64> {
        match self {
            Self::Constant(value) => Some(*value),
            _ => None,
        }
    }

    /// The smallest value that a draw can give.
    pub fn least(&self) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Uniform(min, _) | Self::Normal(_, _, min, _) | Self::Lognormal(_, _, min, _) => *min,
            Self::Zipf(first, _) => f64::from(*first),
            Self::Empirical(values) => values.iter().copied().fold(f64::INFINITY, f64::min),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DRAWS: u64 = 40_000;

    fn sampler(law: &str) -> Sampler {
        let law: Tokens = serde_json::from_str(law).unwrap();
        law.sampler(Path::new(".")).unwrap()
    }

    fn draws(sampler: &Sampler) -> Vec<f64> {
        (0..DRAWS).map(|index| sampler.draw(&mut Draws::new(9, "test", index))).collect()
    }

    fn moments(values: &[f64]) -> (f64, f64) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64;
        (mean, f64::sqrt(variance))
    }

    #[test]
    fn moments_are_the_ones_written() {
        let error = |std: f64| 4.0 * std / f64::sqrt(DRAWS as f64);
        for law in ["normal", "lognormal"] {
            let text = format!(r#"{{"kind": "{law}", "mean": 1000, "std": 100}}"#);
            let (mean, std) = moments(&draws(&sampler(&text)));
            assert!((mean - 1000.0).abs() < error(100.0), "{law}: {mean}");
            assert!((std - 100.0).abs() < 3.0, "{law}: {std}");
        }
        let (mean, std) = moments(&draws(&sampler(r#"{"kind": "uniform", "min": 1, "max": 9}"#)));
        assert!((mean - 5.0).abs() < error(2.582), "{mean}");
        assert!((std - f64::sqrt(80.0 / 12.0)).abs() < 0.03, "{std}");
    }

    #[test]
    fn zipf_has_its_probabilities() {
        let values = draws(&sampler(r#"{"kind": "zipf", "min": 10, "max": 14, "exponent": 1.5}"#));
        let total: f64 = (1..=5).map(|k| f64::powf(f64::from(k), -1.5)).sum();
        for k in 1..=5 {
            let p = f64::powf(f64::from(k), -1.5) / total;
            let share = values.iter().filter(|v| **v as u32 == 9 + k as u32).count() as f64 / DRAWS as f64;
            assert!(
                (share - p).abs() < 4.0 * f64::sqrt(p * (1.0 - p) / DRAWS as f64),
                "{k}: {share} against {p}"
            );
        }
    }

    #[test]
    fn a_spread_of_nothing_is_the_mean() {
        for law in ["normal", "lognormal"] {
            let sampler = sampler(&format!(r#"{{"kind": "{law}", "mean": 77, "std": 0}}"#));
            assert_eq!(sampler.tokens(&mut Draws::new(1, "test", 1)), 77);
        }
    }

    #[test]
    fn times_are_nanoseconds() {
        let time = |law: &str| {
            let law: Time = serde_json::from_str(law).unwrap();
            law.sampler(Path::new(".")).unwrap().ns(&mut Draws::new(1, "test", 1))
        };
        assert_eq!(time(r#""10ms""#), 10_000_000);
        let drawn = time(r#"{"kind": "uniform", "min": "1ms", "max": "2ms"}"#);
        assert!((1_000_000..=2_000_000).contains(&drawn));
        assert_eq!(time(r#"{"kind": "normal", "mean": "0s", "std": "0s"}"#), 0);
    }

    #[test]
    fn times_can_come_from_a_column_in_milliseconds() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("t.csv"), "ms\n1.5\n").unwrap();
        let law = |path: &str| Time::Empirical(Empirical { path: path.into(), column: "ms".into() });
        assert_eq!(law("t.csv").sampler(dir.path()).unwrap(), Sampler::Empirical(vec![1_500_000.0]));
        std::fs::write(dir.path().join("bad.csv"), "ms\n1.5\n-1\n").unwrap();
        insta::assert_snapshot!(law("bad.csv").sampler(dir.path()).unwrap_err(), @"bad.csv:3: `ms` is -1, which is not a time in milliseconds, 0 or more");
    }

    proptest! {
        #[test]
        fn draws_keep_their_bounds(min in 1..500_u32, span in 0..500_u32, mean in 1..1000_u32, std in 0..900_u32, index: u64) {
            let max = min + span;
            for law in [
                format!(r#"{{"kind": "uniform", "min": {min}, "max": {max}}}"#),
                format!(r#"{{"kind": "normal", "mean": {mean}, "std": {std}, "min": {min}, "max": {max}}}"#),
                format!(r#"{{"kind": "lognormal", "mean": {mean}, "std": {std}, "min": {min}, "max": {max}}}"#),
                format!(r#"{{"kind": "zipf", "min": {min}, "max": {max}, "exponent": 1.1}}"#),
            ] {
                let sampler = sampler(&law);
                let tokens = sampler.tokens(&mut Draws::new(3, "test", index));
                prop_assert!((min..=max).contains(&tokens), "{law}: {tokens}");
                prop_assert!(sampler.least() >= f64::from(min));
            }
        }
    }
}

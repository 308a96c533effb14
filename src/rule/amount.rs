//! Numbers with units: what a limit is worth in the unit of what it limits.

use super::error::RuleError;
use super::{Bytes, Op};
use crate::metric::Unit;
use crate::units::{Duration, MIB, Rate, Size, ms, seconds};

/// A number and its unit as they stand in the text.
#[derive(Debug, Clone)]
pub(super) struct Amount<'t> {
    /// Digits with a decimal point at most.
    pub(super) number: &'t str,
    /// The unit; empty without one.
    pub(super) unit: &'t str,
    /// Where both stand.
    pub(super) at: Bytes,
    /// Where the unit stands.
    pub(super) unit_at: Bytes,
}

/// What a unit of the metric table measures: a noun, the ways to write it, and an example.
pub(super) struct Dimension {
    pub(super) noun: &'static str,
    pub(super) units: &'static [&'static str],
    pub(super) example: &'static str,
}

const TIME: &[&str] = &["ns", "us", "ms", "s", "m", "h"];
const SIZE: &[&str] = &["B", "KiB", "MiB", "GiB", "TiB", "KB", "MB", "GB", "TB"];

pub(super) fn dimension(unit: Unit) -> Dimension {
    let (noun, units, example) = match unit {
        Unit::Milliseconds => ("a time", TIME, "ms"),
        Unit::Seconds => ("a time", TIME, "s"),
        Unit::Mebibytes | Unit::Bytes => ("a size", SIZE, "MiB"),
        Unit::TokensPerSecond => ("a rate of tokens", &["tok/s", "/s"][..], "tok/s"),
        Unit::RequestsPerSecond => ("a rate of requests", &["/s", "/m", "/h", "req/s"][..], "/s"),
        Unit::Ratio => ("a share", &["%"][..], "%"),
        Unit::Tokens => ("a number of tokens", &[][..], ""),
        Unit::Count | Unit::Mean => ("a plain number", &[][..], ""),
    };
    Dimension { noun, units, example }
}

impl Amount<'_> {
    /// What it is worth in `unit`. `of` is what it limits, as written; `bare` says whether `of` carries the unit itself.
    pub(super) fn in_unit(&self, unit: Unit, of: &str, bare: bool) -> Result<f64, RuleError> {
        let number: f64 = self.number.parse().unwrap_or(f64::INFINITY);
        if !number.is_finite() {
            return Err(RuleError::new(
                self.at.clone(),
                "this number is too large",
                "write one that can be reached",
            ));
        }
        match (unit, self.unit) {
            (Unit::Ratio, "") => return self.bare_ratio(number),
            (Unit::Ratio, "%") => return self.percentage(),
            (Unit::Tokens | Unit::Count | Unit::Mean, "") => return Ok(number),
            (_, "") if bare => return Ok(number),
            (_, "") => {
                let Dimension { noun, example, .. } = dimension(unit);
                let message = format!("{} what? `{of}` is {noun} and needs a unit", self.number);
                return Err(RuleError::new(
                    self.at.clone(),
                    message,
                    format!("write `{}{example}`", self.number),
                ));
            }
            _ => {}
        }
        // µ and μ are two characters for the same prefix.
        let written = if matches!(self.unit, "µs" | "μs") { "us" } else { self.unit };
        let text = format!("{}{written}", self.number);
        let value = match unit {
            Unit::Milliseconds => text.parse().ok().map(|Duration(ns)| ms(ns)),
            Unit::Seconds => text.parse().ok().map(|Duration(ns)| seconds(ns)),
            Unit::Mebibytes => text.parse().ok().map(|Size(bytes)| bytes as f64 / MIB as f64),
            Unit::Bytes => text.parse().ok().map(|Size(bytes)| bytes as f64),
            Unit::TokensPerSecond => matches!(written, "tok/s" | "/s").then_some(number),
            Unit::RequestsPerSecond if written == "req/s" => Some(number),
            Unit::RequestsPerSecond => text.parse().ok().map(|Rate(per_second)| per_second),
            Unit::Ratio | Unit::Tokens | Unit::Count | Unit::Mean => None,
        };
        value.ok_or_else(|| self.misfit(unit, of))
    }

    /// The unit is another one's, unknown, or too large with this number.
    fn misfit(&self, unit: Unit, of: &str) -> RuleError {
        let Dimension { noun, units, example } = dimension(unit);
        if units.contains(&self.unit) {
            return RuleError::new(
                self.at.clone(),
                "this number is too large",
                "write one that can be reached",
            );
        }
        let is_known = [TIME, SIZE, &["%", "/s", "/m", "/h", "tok/s", "req/s"]].concat().contains(&self.unit);
        let message = if is_known {
            format!("`{}` does not fit `{of}`, which is {noun}", self.unit)
        } else {
            format!("unknown unit `{}`; `{of}` is {noun}", self.unit)
        };
        let same = units.iter().copied().find(|unit| unit.eq_ignore_ascii_case(self.unit));
        let near = same.or_else(|| crate::nearest::nearest(self.unit, units.iter().copied()));
        let help = match near.filter(|_| !is_known) {
            Some(near) => format!("did you mean `{}{near}`?", self.number),
            None if units.len() > 2 => {
                format!("write `{}{example}`; the units are {}", self.number, units.join(", "))
            }
            None => format!("write `{}{example}`", self.number),
        };
        RuleError::new(self.unit_at.clone(), message, help)
    }

    /// A share written as a plain number. 1 is refused: it would be 100 %, and mostly 1 % is meant.
    fn bare_ratio(&self, number: f64) -> Result<f64, RuleError> {
        if number < 1.0 {
            return Ok(number);
        }
        let message = if number > 1.0 {
            format!("{} is more than 100%", self.number)
        } else {
            format!("{} is 100%, which may not be meant", self.number)
        };
        let help = if number > 100.0 {
            "a share lies between 0% and 100%".to_owned()
        } else if number > 1.0 {
            format!("is {}% meant?", self.number)
        } else {
            format!("write {0}% or 100%", self.number)
        };
        Err(RuleError::new(self.at.clone(), message, help))
    }

    /// A percentage, shifted as a decimal so that 99.9% is the float nearest to 0.999.
    fn percentage(&self) -> Result<f64, RuleError> {
        let ratio = format!("{}e-2", self.number).parse().unwrap_or(f64::INFINITY);
        if ratio <= 1.0 {
            return Ok(ratio);
        }
        let message = format!("{}% is more than 100%", self.number);
        Err(RuleError::new(self.at.clone(), message, "a share lies between 0% and 100%"))
    }
}

/// Whether `value op limit` is the same for every value that the unit allows: it always holds, or never.
pub(super) fn foregone(unit: Unit, op: Op, limit: f64) -> Option<&'static str> {
    let at_least = limit <= 0.0;
    let at_most = unit == Unit::Ratio && limit >= 1.0;
    match op {
        Op::Lt if at_least => Some("can never hold"),
        Op::Gt if at_most => Some("can never hold"),
        Op::Ge if at_least => Some("always holds"),
        Op::Le if at_most => Some("always holds"),
        _ => None,
    }
}

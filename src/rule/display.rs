//! A rule as text in its plainest form. Parsing that text gives the same rule.

use std::fmt;

use super::{Aggregate, Change, Condition, Limit, On, Op, Reference, Rule, Subject};
use crate::metric::Unit;

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::Eq => "==",
            Self::Ne => "!=",
        })
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Med => "med",
            Self::Stddev => "stddev",
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Quantile(q) => return write!(f, "p{}", percent(*q)),
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aggregate(aggregate, metric) => write!(f, "{aggregate}({})", metric.name),
            Self::Share(conditions) => {
                f.write_str("share(")?;
                joined(f, conditions)?;
                f.write_str(")")
            }
            Self::Check(name) if !name.is_empty() && name.chars().all(super::tokens::is_word) => {
                write!(f, "check({name})")
            }
            Self::Check(name) => write!(f, "check(\"{name}\")"),
            Self::Plain(metric) => f.write_str(metric.name),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.on {
            On::Metric(metric, limit) => {
                write!(f, "{} {} {}", metric.name, self.op, amount(metric.unit, *limit))
            }
            On::Tag(tag, word) if !word.is_empty() && word.chars().all(super::tokens::is_word) => {
                write!(f, "{tag} {} {word}", self.op)
            }
            On::Tag(tag, word) => write!(f, "{tag} {} \"{word}\"", self.op),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.subject, self.op)?;
        match &self.limit {
            Limit::Number(number) => f.write_str(&amount(self.subject.unit(), *number))?,
            Limit::Reference(reference) => f.write_str(&referred(self.subject.unit(), reference))?,
        }
        if !self.filter.is_empty() {
            f.write_str(" where ")?;
            joined(f, &self.filter)?;
        }
        Ok(())
    }
}

fn joined(f: &mut fmt::Formatter<'_>, conditions: &[Condition]) -> fmt::Result {
    for (at, condition) in conditions.iter().enumerate() {
        if at > 0 {
            f.write_str(" and ")?;
        }
        write!(f, "{condition}")?;
    }
    Ok(())
}

/// A reference with its change.
fn referred(unit: Unit, reference: &Reference) -> String {
    let name = &reference.name;
    let plain = name.starts_with(char::is_alphabetic) && name.chars().all(super::tokens::is_word);
    let name = if plain { name.clone() } else { format!("\"{name}\"") };
    let (change, size) = match reference.change {
        Change::None => return name,
        Change::By(more) => (more, amount(unit, more.abs())),
        Change::Share(share) => (share, format!("{}%", percent(share.abs()))),
    };
    format!("{name} {} {size}", if change < 0.0 { '-' } else { '+' })
}

/// A limit in its unit.
fn amount(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Milliseconds => format!("{value}ms"),
        Unit::Seconds => format!("{value}s"),
        Unit::TokensPerSecond => format!("{value}tok/s"),
        Unit::RequestsPerSecond => format!("{value}/s"),
        Unit::Ratio => format!("{}%", percent(value)),
        Unit::Mebibytes => format!("{value}MiB"),
        Unit::Bytes => format!("{value}B"),
        Unit::Tokens | Unit::Count | Unit::Mean => format!("{value}"),
    }
}

/// A ratio between 0 and 1 times 100, by moving the point of its shortest decimal: 0.999 is 99.9, never 99.90000000000001.
fn percent(ratio: f64) -> String {
    let text = format!("{ratio}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let padded = format!("{whole}{fraction:0<2}");
    let (left, right) = padded.split_at(whole.len() + 2);
    let left = left.trim_start_matches('0');
    let left = if left.is_empty() { "0" } else { left };
    if right.is_empty() { left.to_owned() } else { format!("{left}.{right}") }
}

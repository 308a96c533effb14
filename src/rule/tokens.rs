//! The parser's lower half: words, comparisons, numbers with units.

use super::amount::Amount;
use super::error::RuleError;
use super::names::{is_number, names};
use super::{Bytes, Op};
use crate::metric::Metric;

/// What a limit is, for those who wrote something else.
pub const LIMIT: &str = "a limit is a number with a unit, such as 80ms or 5%, or the name of a baseline, workload or backend, such as `main + 5%`";

/// Whether a character may stand in a word.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// Parsing can not go on. The error is noted.
pub(super) struct Stop;

/// A text, how far it is read, and what was wrong with it so far.
pub(super) struct Parser<'t> {
    pub(super) text: &'t str,
    pub(super) at: usize,
    pub(super) errors: Vec<RuleError>,
    /// The metrics that the scenario declares.
    pub(super) declared: &'t [&'static Metric],
}

impl<'t> Parser<'t> {
    pub(super) fn new(text: &'t str, declared: &'t [&'static Metric]) -> Self {
        Self { text, at: 0, errors: Vec::new(), declared }
    }

    /// The metric of this name or alias.
    pub(super) fn metric(&self, name: &str) -> Option<&'static Metric> {
        Metric::named(name).or_else(|| self.declared.iter().find(|metric| metric.name == name).copied())
    }

    /// Names and aliases of metrics that satisfy a condition.
    pub(super) fn names(&self, which: fn(&Metric) -> bool) -> Vec<&'static str> {
        let own = self.declared.iter().filter(|metric| which(metric)).map(|metric| metric.name);
        names(which).into_iter().chain(own).collect()
    }

    /// What a tag is compared with.
    pub(super) fn tag_word(&mut self) -> Result<String, Stop> {
        self.space();
        let start = self.at;
        if self.eat("\"") {
            let inside = self.take(|c| c != '"');
            let word = self.text[inside].to_owned();
            if self.eat("\"") {
                return Ok(word);
            }
            return self.stop(start..self.at, "this quote is not closed", "end the word with `\"`");
        }
        let at = self.take(is_word);
        if at.is_empty() {
            let at = self.next_at();
            return self.stop(at, "expected a word", "a tag is compared with a word, such as `tier == gold`");
        }
        Ok(self.text[at].to_owned())
    }

    pub(super) fn op(&mut self) -> Result<(Op, Bytes), Stop> {
        self.space();
        let start = self.at;
        let ops = [
            ("<=", Op::Le),
            (">=", Op::Ge),
            ("==", Op::Eq),
            ("!=", Op::Ne),
            ("=<", Op::Le),
            ("=>", Op::Ge),
            ("<>", Op::Ne),
            ("<", Op::Lt),
            (">", Op::Gt),
            ("=", Op::Eq),
            ("≤", Op::Le),
            ("≥", Op::Ge),
            ("≠", Op::Ne),
        ];
        for (text, op) in ops {
            if self.eat(text) {
                let at = start..self.at;
                let written = op.to_string();
                if written != text {
                    self.errors.push(RuleError::new(
                        at.clone(),
                        format!("`{text}` is no comparison"),
                        format!("write `{written}`"),
                    ));
                }
                return Ok((op, at));
            }
        }
        let at = self.next_at();
        self.stop(at, "expected a comparison", "write one of <, <=, >, >=, ==, !=")
    }

    pub(super) fn amount(&mut self) -> Result<Amount<'t>, Stop> {
        self.space();
        let start = self.at;
        let number_at = self.take(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '_'));
        if number_at.is_empty() {
            if self.text[start..].starts_with('-') {
                self.at += 1;
                let end = self.take(|c| is_word(c) || c == '%').end;
                return self.stop(start..end, "no metric is ever negative", "write a limit of 0 or more");
            }
            let at = self.take(is_word);
            let (at, message) = match &self.text[at.clone()] {
                "" => (self.next_at(), "expected a limit".to_owned()),
                name => (at, format!("`{name}` is no limit")),
            };
            return self.stop(at, message, LIMIT);
        }
        let number = &self.text[number_at.clone()];
        if !is_number(number) {
            return self.stop(
                number_at,
                format!("`{number}` is no number"),
                "write digits and at most one point, such as 1000 or 0.5",
            );
        }
        let unit_at = self.unit();
        let end = if unit_at.is_empty() { number_at.end } else { unit_at.end };
        Ok(Amount { number, unit: &self.text[unit_at.clone()], at: start..end, unit_at })
    }

    /// A unit, directly behind its number or after a space.
    fn unit(&mut self) -> Bytes {
        let behind = self.at;
        self.space();
        let at = self.take(|c| c.is_alphabetic() || matches!(c, '%' | '/'));
        if at.is_empty() || (at.start > behind && matches!(&self.text[at.clone()], "where" | "and")) {
            self.at = behind;
            return behind..behind;
        }
        at
    }

    /// Notes an error of form.
    pub(super) fn stop<T>(
        &mut self,
        at: Bytes,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Result<T, Stop> {
        self.errors.push(RuleError::new(at, message, help));
        Err(Stop)
    }

    pub(super) fn space(&mut self) {
        self.take(char::is_whitespace);
    }

    /// Takes characters for as long as they fit.
    pub(super) fn take(&mut self, fits: impl Fn(char) -> bool) -> Bytes {
        let start = self.at;
        let rest = &self.text[start..];
        self.at += rest.find(|c| !fits(c)).unwrap_or(rest.len());
        start..self.at
    }

    /// The word that comes next.
    pub(super) fn word(&mut self) -> Option<(&'t str, Bytes)> {
        self.space();
        if !self.text[self.at..].starts_with(|c: char| c.is_alphabetic() || c == '_') {
            return None;
        }
        let at = self.take(is_word);
        Some((&self.text[at.clone()], at))
    }

    /// Takes a text if it comes next.
    pub(super) fn eat(&mut self, text: &str) -> bool {
        self.space();
        let found = self.text[self.at..].starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// Takes a whole word if it comes next.
    pub(super) fn keyword(&mut self, keyword: &str) -> bool {
        let before = self.at;
        let found = self.word().is_some_and(|(word, _)| word == keyword);
        if !found {
            self.at = before;
        }
        found
    }

    /// The character that comes next, or the end.
    pub(super) fn next_at(&mut self) -> Bytes {
        self.space();
        let width = self.text[self.at..].chars().next().map_or(0, char::len_utf8);
        self.at..self.at + width
    }
}

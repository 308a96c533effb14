//! The recursive-descent parser.
//!
//! Errors of meaning (an unknown metric, a unit that does not fit) are noted and parsing goes on, so that one pass finds
//! them all; an error of form ends it, since what follows would be guesswork.

use super::amount::{Amount, foregone};
use super::error::RuleError;
use super::names::{flat, flat_names, is_per_request, names, nearest};
use super::{Aggregate, Bytes, Condition, On, Op, Rule, Subject, counts_requests};
use crate::metric::{Kind, Metric, Unit};

const AGGREGATES: &str = "avg, min, max, med, stddev, sum, count, or a percentile such as p99";
const LIMIT: &str =
    "a limit is a number with a unit, such as 80ms or 5%; it can not refer to a baseline or another workload";

/// Parses a rule.
///
/// # Errors
/// All that can be told about the text, in its order; at least one.
pub fn parse(text: &str) -> Result<Rule, Vec<RuleError>> {
    let mut parser = Parser { text, at: 0, errors: Vec::new() };
    match parser.rule() {
        Ok(Some(rule)) if parser.errors.is_empty() => Ok(rule),
        _ => {
            parser.errors.sort_by_key(|error| error.at.start);
            Err(parser.errors)
        }
    }
}

/// Parses one limit on a request, as in `slo`: `ttft <= 500ms`.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn condition(text: &str) -> Result<Condition, RuleError> {
    let mut parser = Parser { text, at: 0, errors: Vec::new() };
    let parsed = parser.condition(Part::Slo).and_then(|condition| parser.end(Part::Slo).map(|()| condition));
    parser.errors.sort_by_key(|error| error.at.start);
    match (parsed, parser.errors.into_iter().next()) {
        (Ok(Some(condition)), None) => Ok(condition),
        (_, Some(error)) => Err(error),
        (_, None) => {
            Err(RuleError::new(0..text.len(), "this is no condition", "write one such as `ttft <= 500ms`"))
        }
    }
}

impl Aggregate {
    /// The aggregate of this name.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub(super) fn named(name: &str) -> Result<Self, (String, String)> {
        Ok(match name {
            "avg" => Self::Avg,
            "min" => Self::Min,
            "max" => Self::Max,
            "med" => Self::Med,
            "stddev" => Self::Stddev,
            "sum" => Self::Sum,
            "count" => Self::Count,
            _ => match name.strip_prefix('p').filter(|number| is_number(number)) {
                Some(number) => return percentile(number),
                None => {
                    let meant = match name {
                        "mean" | "average" => Some("avg"),
                        "median" => Some("med"),
                        "std" | "stdev" | "sd" => Some("stddev"),
                        "total" => Some("sum"),
                        _ => nearest(name, ["avg", "min", "max", "med", "stddev", "sum", "count", "share"]),
                    };
                    let help = match meant {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => format!("write one of {AGGREGATES}"),
                    };
                    return Err((format!("unknown aggregation `{name}`"), help));
                }
            },
        })
    }
}

/// p50 as the quantile 0.5. The point is moved in the text, so that p99.9 is the float nearest to 0.999.
fn percentile(number: &str) -> Result<Aggregate, (String, String)> {
    let q: f64 = format!("{number}e-2").parse().unwrap_or(f64::INFINITY);
    if q > 0.0 && q < 1.0 {
        return Ok(Aggregate::Quantile(q));
    }
    Err(if q <= 0.0 {
        (format!("`p{number}` is the smallest value"), "write `min(...)`".to_owned())
    } else if q <= 1.0 {
        (format!("`p{number}` is the largest value"), "write `max(...)`".to_owned())
    } else {
        (
            format!("there is no percentile {number}"),
            "a percentile lies between 0 and 100, such as p99".to_owned(),
        )
    })
}

/// Digits, with one point between them at most.
fn is_number(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    digits(whole) && digits(fraction)
}

/// The error for a name that no metric has.
fn unknown(name: &str, at: Bytes, candidates: &[&str]) -> RuleError {
    let help = match nearest(name, candidates.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let metrics = candidates
                .iter()
                .copied()
                .filter(|name| Metric::named(name).is_some_and(|m| m.name == *name));
            format!("the metrics are {}", metrics.collect::<Vec<_>>().join(", "))
        }
    };
    RuleError::new(at, format!("unknown metric `{name}`"), help)
}

/// Whether a character may stand in a word.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// Parsing can not go on. The error is noted.
struct Stop;

/// Where a condition stands.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Slo,
    Share,
    Where,
}

/// A subject as written.
struct Written {
    subject: Subject,
    /// Its name carries the unit, so that the limit may do without.
    has_unit: bool,
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    errors: Vec<RuleError>,
}

impl<'t> Parser<'t> {
    fn rule(&mut self) -> Result<Option<Rule>, Stop> {
        if self.text.trim().is_empty() {
            return self.stop(
                0..self.text.len(),
                "this rule is empty",
                "write one such as `p99(ttft) < 80ms`",
            );
        }
        let (written, subject_at) = self.subject()?;
        let (op, op_at) = self.op()?;
        let amount = self.amount()?;
        let limit = written.as_ref().and_then(|written| {
            let of = &self.text[subject_at.clone()];
            let unit = written.subject.unit();
            self.check_op(of, &op_at, op, written.subject.continuous(), unit, &amount);
            self.limit(&amount, unit, of, written.has_unit, op)
        });
        let mut filter = Vec::new();
        if self.keyword("where") {
            filter = self.conditions(Part::Where)?;
        }
        self.end(Part::Where)?;
        if let Some(Written { subject: Subject::Plain(metric), .. }) = &written {
            self.check_filter(metric, &filter);
        }
        Ok(written.zip(limit).map(|(Written { subject, .. }, limit)| Rule {
            subject,
            subject_at,
            op,
            limit,
            limit_at: amount.at,
            filter,
        }))
    }

    fn subject(&mut self) -> Result<(Option<Written>, Bytes), Stop> {
        let Some((name, name_at)) = self.word() else {
            let at = self.next_at();
            return self.stop(
                at,
                "expected what is measured",
                "a rule starts with it, such as `p99(ttft)` or `error_rate`",
            );
        };
        if !self.eat("(") {
            return Ok((self.bare(name, &name_at), name_at));
        }
        let written = match name {
            "share" => {
                let before = self.errors.len();
                let conditions = self.conditions(Part::Share)?;
                // A condition that is wrong is noted already; without it the share would be another.
                (self.errors.len() == before).then_some(Subject::Share(conditions))
            }
            "check" => {
                let help = "rules judge metrics, such as `error_rate <= 1%`";
                return self.stop(
                    name_at,
                    "scenarios have no checks, so `check(...)` has nothing to judge",
                    help,
                );
            }
            _ => self.aggregate(name, name_at.clone())?,
        };
        if !self.eat(")") {
            let at = self.next_at();
            return self.stop(at, "expected `)`", format!("close the parenthesis of `{name}(`"));
        }
        Ok((written.map(|subject| Written { subject, has_unit: false }), name_at.start..self.at))
    }

    /// The metric inside `p99(...)`.
    fn aggregate(&mut self, name: &str, name_at: Bytes) -> Result<Option<Subject>, Stop> {
        let aggregate =
            Aggregate::named(name).map_err(|(message, help)| RuleError::new(name_at, message, help));
        let Some((inner, inner_at)) = self.word() else {
            let at = self.next_at();
            return self.stop(at, "expected a metric", format!("write one such as `{name}(ttft)`"));
        };
        let metric = match Metric::named(inner) {
            Some(metric) if metric.kind == Kind::Samples => Ok(metric),
            Some(_) => Err(RuleError::new(
                inner_at,
                format!("`{inner}` is one number for the whole workload, not one for each request"),
                format!("write it bare: `{inner}`"),
            )),
            None => Err(unknown(inner, inner_at, &names(|metric| metric.kind == Kind::Samples))),
        };
        Ok(match (aggregate, metric) {
            (Ok(aggregate), Ok(metric)) => Some(Subject::Aggregate(aggregate, metric)),
            (aggregate, metric) => {
                self.errors.extend(aggregate.err());
                self.errors.extend(metric.err());
                None
            }
        })
    }

    /// A name without parentheses.
    fn bare(&mut self, name: &str, at: &Bytes) -> Option<Written> {
        if let Some((aggregate, metric)) = flat(name) {
            let subject = match aggregate {
                Some(aggregate) => Subject::Aggregate(aggregate, metric),
                None => Subject::Plain(metric),
            };
            return Some(Written { subject, has_unit: true });
        }
        match Metric::named(name) {
            Some(metric) if metric.kind != Kind::Samples => {
                return Some(Written { subject: Subject::Plain(metric), has_unit: false });
            }
            Some(metric) => self.errors.push(RuleError::new(
                at.clone(),
                format!(
                    "`{name}` is one value for each {}",
                    if metric.name == "tbt" { "token" } else { "request" }
                ),
                format!(
                    "say which, such as `{}({name})`",
                    if metric.name == "throughput" { "avg" } else { "p99" }
                ),
            )),
            None if Aggregate::named(name).is_ok() => self.errors.push(RuleError::new(
                at.clone(),
                format!("`{name}` needs the metric that it is of"),
                format!("write `{name}(ttft)`"),
            )),
            None => {
                let flat_names = flat_names();
                let mut candidates = names(|_| true);
                candidates.extend(flat_names.iter().map(String::as_str));
                let mut error = unknown(name, at.clone(), &candidates);
                let near = nearest(name, candidates.iter().copied());
                if let Some(near) =
                    near.filter(|near| Metric::named(near).is_some_and(|m| m.kind == Kind::Samples))
                {
                    error.help = Some(format!("did you mean `{near}`, as in `p99({near})`?"));
                }
                self.errors.push(error);
            }
        }
        None
    }

    fn conditions(&mut self, part: Part) -> Result<Vec<Condition>, Stop> {
        let mut conditions = Vec::new();
        loop {
            conditions.extend(self.condition(part)?);
            if !self.keyword("and") {
                return Ok(conditions);
            }
        }
    }

    /// One condition; `None` when it has an error of meaning.
    fn condition(&mut self, part: Part) -> Result<Option<Condition>, Stop> {
        let Some((name, name_at)) = self.word() else {
            let at = self.next_at();
            return self.stop(at, "expected a condition", "write one such as `ttft <= 500ms`");
        };
        let (op, op_at) = self.op()?;
        let metric = Metric::named(name);
        if part == Part::Where && metric.is_none() && op.is_equality() {
            let word = self.tag_word()?;
            return Ok(Some(Condition {
                on: On::Tag(name.to_owned(), word),
                op,
                at: name_at.start..self.at,
            }));
        }
        let amount = self.amount()?;
        let at = name_at.start..amount.at.end;
        match metric {
            Some(metric) if is_per_request(metric) => {
                let continuous = !matches!(metric.unit, Unit::Tokens);
                self.check_op(name, &op_at, op, continuous, metric.unit, &amount);
                let limit = self.limit(&amount, metric.unit, name, false, op);
                Ok(limit.map(|limit| Condition { on: On::Metric(metric, limit), op, at }))
            }
            Some(metric) => {
                let message = if metric.name == "tbt" {
                    format!("`{name}` is one value for each token, so no single request has it")
                } else {
                    format!("`{name}` is one number for the whole workload, not one for each request")
                };
                let help = if metric.name == "tbt" {
                    "write `tpot`, a request's own mean".to_owned()
                } else {
                    format!("a condition looks at {}", names(is_per_request).join(", "))
                };
                self.errors.push(RuleError::new(name_at, message, help));
                Ok(None)
            }
            None => {
                let mut error = unknown(name, name_at, &names(is_per_request));
                if part == Part::Where {
                    error.help = error.help.map(|help| format!("{help}; a tag is compared with == or !="));
                }
                self.errors.push(error);
                Ok(None)
            }
        }
    }

    /// What a tag is compared with.
    fn tag_word(&mut self) -> Result<String, Stop> {
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

    fn op(&mut self) -> Result<(Op, Bytes), Stop> {
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

    fn amount(&mut self) -> Result<Amount<'t>, Stop> {
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

    /// What a limit is worth; `None` when it is wrong.
    fn limit(&mut self, amount: &Amount<'_>, unit: Unit, of: &str, bare: bool, op: Op) -> Option<f64> {
        match amount.in_unit(unit, of, bare) {
            Ok(limit) => {
                if let Some(foregone) = foregone(unit, op, limit) {
                    let written = &self.text[amount.at.clone()];
                    let message = format!("`{of} {op} {written}` {foregone}");
                    let help = "write a limit that can be both met and missed";
                    self.errors.push(RuleError::new(amount.at.clone(), message, help));
                }
                Some(limit)
            }
            Err(error) => {
                self.errors.push(error);
                None
            }
        }
    }

    /// `==` and `!=` are for what is counted, and for shares of nothing or everything.
    fn check_op(&mut self, of: &str, at: &Bytes, op: Op, continuous: bool, unit: Unit, amount: &Amount<'_>) {
        let of_all = unit == Unit::Ratio
            && (amount.number.bytes().all(|b| matches!(b, b'0' | b'.'))
                || (amount.number, amount.unit) == ("100", "%"));
        if op.is_equality() && continuous && !of_all {
            let message = format!("`{of}` is never exactly one number, so `{op}` says nothing about it");
            self.errors.push(RuleError::new(at.clone(), message, "write <, <=, > or >="));
        }
    }

    /// Only what counts requests can be narrowed to some of them.
    fn check_filter(&mut self, metric: &Metric, filter: &[Condition]) {
        if counts_requests(metric) {
            return;
        }
        for condition in filter.iter().filter(|condition| matches!(condition.on, On::Metric(..))) {
            self.errors.push(RuleError::new(
                condition.at.clone(),
                format!(
                    "`{}` is one number for the whole workload and can not be narrowed to some requests",
                    metric.name
                ),
                "leave the condition out",
            ));
        }
    }

    /// Nothing may follow.
    fn end(&mut self, part: Part) -> Result<(), Stop> {
        self.space();
        let rest = self.text[self.at..].trim_end();
        if rest.is_empty() {
            return Ok(());
        }
        let help = match (part, rest.as_bytes()[0]) {
            (_, b'+' | b'-') => LIMIT,
            (Part::Slo, _) => "one entry is one condition; write a further one as an entry of its own",
            (Part::Where, _) if rest.starts_with("and ") => "conditions stand behind `where`",
            _ => "a rule ends after its limit or its `where` conditions",
        };
        self.stop(self.at..self.at + rest.len(), format!("`{rest}` is left over"), help)
    }

    /// Notes an error of form.
    fn stop<T>(&mut self, at: Bytes, message: impl Into<String>, help: impl Into<String>) -> Result<T, Stop> {
        self.errors.push(RuleError::new(at, message, help));
        Err(Stop)
    }

    fn space(&mut self) {
        self.take(char::is_whitespace);
    }

    /// Takes characters for as long as they fit.
    fn take(&mut self, fits: impl Fn(char) -> bool) -> Bytes {
        let start = self.at;
        let rest = &self.text[start..];
        self.at += rest.find(|c| !fits(c)).unwrap_or(rest.len());
        start..self.at
    }

    /// The word that comes next.
    fn word(&mut self) -> Option<(&'t str, Bytes)> {
        self.space();
        if !self.text[self.at..].starts_with(|c: char| c.is_alphabetic() || c == '_') {
            return None;
        }
        let at = self.take(is_word);
        Some((&self.text[at.clone()], at))
    }

    /// Takes a text if it comes next.
    fn eat(&mut self, text: &str) -> bool {
        self.space();
        let found = self.text[self.at..].starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// Takes a whole word if it comes next.
    fn keyword(&mut self, keyword: &str) -> bool {
        let before = self.at;
        let found = self.word().is_some_and(|(word, _)| word == keyword);
        if !found {
            self.at = before;
        }
        found
    }

    /// The character that comes next, or the end.
    fn next_at(&mut self) -> Bytes {
        self.space();
        let width = self.text[self.at..].chars().next().map_or(0, char::len_utf8);
        self.at..self.at + width
    }
}

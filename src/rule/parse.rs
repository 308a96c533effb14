//! The recursive-descent parser.
//!
//! Errors of meaning (an unknown metric, a unit that does not fit) are noted and parsing goes on, so that one pass finds
//! them all; an error of form ends it, since what follows would be guesswork.

use super::amount::{Amount, foregone};
use super::error::RuleError;
use super::names::{flat, flat_names, is_per_request, unknown};
use super::tokens::{LIMIT, Parser, Stop};
use super::{Aggregate, Bytes, Change, Condition, Limit, On, Op, Reference, Rule, Subject, counts_requests};
use crate::metric::{Kind, Metric, TURN, Unit};
use crate::nearest::nearest;

/// Parses a rule.
///
/// # Errors
/// All that can be told about the text, in its order; at least one.
pub fn parse(text: &str) -> Result<Rule, Vec<RuleError>> {
    parse_with(text, &[])
}

/// [`parse`] where the scenario declares metrics of its own.
///
/// # Errors
/// As there.
pub fn parse_with(text: &str, declared: &[&'static Metric]) -> Result<Rule, Vec<RuleError>> {
    let mut parser = Parser::new(text, declared);
    match parser.rule() {
        Ok(Some(rule)) if parser.errors.is_empty() => Ok(rule),
        _ => {
            parser.errors.sort_by_key(|error| error.at.start);
            Err(parser.errors)
        }
    }
}

/// Parses one limit on a request, as in `slo`: `ttft <= 500ms`. `declared` are the metrics of the scenario.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn condition(text: &str, declared: &[&'static Metric]) -> Result<Condition, RuleError> {
    let mut parser = Parser::new(text, declared);
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

/// The subject that a flat name of the result files stands for, such as `p99_ttft_ms`.
pub fn subject(name: &str, declared: &[&'static Metric]) -> Option<Subject> {
    flat(name, declared).map(|(aggregate, metric)| match aggregate {
        Some(aggregate) => Subject::Aggregate(aggregate, metric),
        None => Subject::Plain(metric),
    })
}

/// The error for a metric that no single request has.
fn not_per_request(metric: &Metric, name: &str, at: Bytes, known: &[&str]) -> RuleError {
    if metric.name == "tbt" {
        let message = format!("`{name}` is one value for each token, so no single request has it");
        return RuleError::new(at, message, "write `tpot`, a request's own mean");
    }
    let message = format!("`{name}` is one number for the whole workload, not one for each request");
    RuleError::new(at, message, format!("a condition looks at {}", known.join(", ")))
}

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

impl Parser<'_> {
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
        let (limit, limit_at) = if self.is_at_name() {
            self.reference(written.as_ref(), &subject_at, op, &op_at)?
        } else {
            let amount = self.amount()?;
            let limit = written.as_ref().and_then(|written| {
                let of = &self.text[subject_at.clone()];
                let unit = written.subject.unit();
                self.check_op(of, &op_at, op, written.subject.continuous(), unit, &amount);
                self.limit(&amount, unit, of, written.has_unit, op)
            });
            (limit.map(Limit::Number), amount.at)
        };
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
            limit_at,
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
                self.space();
                if self.text[self.at..].starts_with(')') {
                    let at = self.next_at();
                    return self.stop(
                        at,
                        "expected the name of a check",
                        "a workload's checks stand in `expect`",
                    );
                }
                Some(Subject::Check(self.tag_word()?))
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
        let metric = match self.metric(inner) {
            Some(metric) if metric.kind == Kind::Samples => Ok(metric),
            Some(_) => Err(RuleError::new(
                inner_at,
                format!("`{inner}` is one number for the whole workload, not one for each request"),
                format!("write it bare: `{inner}`"),
            )),
            None => Err(unknown(inner, inner_at, &self.names(|metric| metric.kind == Kind::Samples))),
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
        if let Some(subject) = subject(name, self.declared) {
            return Some(Written { subject, has_unit: true });
        }
        match self.metric(name) {
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
                let flat_names = flat_names(self.declared);
                let mut candidates = self.names(|_| true);
                candidates.extend(flat_names.iter().map(String::as_str));
                let mut error = unknown(name, at.clone(), &candidates);
                let near = nearest(name, candidates.iter().copied());
                if let Some(near) =
                    near.filter(|near| self.metric(near).is_some_and(|m| m.kind == Kind::Samples))
                {
                    error.help = format!("did you mean `{near}`, as in `p99({near})`?");
                }
                // `p99_ttft` lacks its unit.
                let whole = candidates
                    .iter()
                    .find(|whole| whole.strip_prefix(name).is_some_and(|rest| rest.starts_with('_')));
                if let Some(whole) = whole.filter(|_| near.is_none()) {
                    error.help = format!("did you mean `{whole}`?");
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
        if self.eat("(") {
            let help = "leave the aggregation out, as in `ttft <= 500ms`";
            return self.stop(
                name_at,
                format!("a condition looks at one request, so `{name}(...)` has nothing to gather"),
                help,
            );
        }
        let (op, op_at) = self.op()?;
        let metric = if name == TURN.name { Some(&TURN) } else { self.metric(name) };
        if metric.is_none() && op.is_equality() {
            return self.tag(part, name, name_at, op);
        }
        let amount = self.amount()?;
        let at = name_at.start..amount.at.end;
        match metric {
            Some(metric) if is_per_request(metric) => {
                let continuous = !matches!(metric.unit, Unit::Tokens | Unit::Count);
                self.check_op(name, &op_at, op, continuous, metric.unit, &amount);
                let limit = self.limit(&amount, metric.unit, name, false, op);
                Ok(limit.map(|limit| Condition { on: On::Metric(metric, limit), op, at }))
            }
            Some(metric) => {
                self.errors.push(not_per_request(metric, name, name_at, &self.names(is_per_request)));
                Ok(None)
            }
            None => {
                let mut error = unknown(name, name_at, &self.names(is_per_request));
                if part == Part::Where {
                    error.help.push_str(" (a tag is compared with == or !=)");
                }
                self.errors.push(error);
                Ok(None)
            }
        }
    }

    /// The rest of a condition on a tag; `None` where tags have no place.
    fn tag(&mut self, part: Part, name: &str, name_at: Bytes, op: Op) -> Result<Option<Condition>, Stop> {
        let start = name_at.start;
        let word = self.tag_word()?;
        if part == Part::Where {
            return Ok(Some(Condition { on: On::Tag(name.to_owned(), word), op, at: start..self.at }));
        }
        let mut error = unknown(name, name_at, &self.names(is_per_request));
        error.help.push_str(" (a tag stands behind `where`)");
        self.errors.push(error);
        Ok(None)
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

    /// Whether a name comes next, so that the limit is a reference.
    fn is_at_name(&mut self) -> bool {
        self.space();
        self.text[self.at..].starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | '"'))
    }

    /// `main`, `main + 5%`, `chat_alone + 20ms`, `"chat@concurrency=4"`.
    fn reference(
        &mut self,
        written: Option<&Written>,
        subject_at: &Bytes,
        op: Op,
        op_at: &Bytes,
    ) -> Result<(Option<Limit>, Bytes), Stop> {
        let start = self.at;
        let name = self.tag_word()?;
        if self.text[self.at..].starts_with(['%', '+']) {
            let help = "write a space before `+` and `-`, as in `main + 5%`";
            return self.stop(start..self.at, format!("where does the name `{name}` end?"), help);
        }
        let end = self.at;
        let sign =
            [("+", 1.0), ("-", -1.0)].into_iter().find(|(sign, _)| self.eat(sign)).map(|(_, sign)| sign);
        let amount = sign.map(|_| self.amount()).transpose()?;
        let at = start..amount.as_ref().map_or(end, |amount| amount.at.end);
        let Some(written) = written else { return Ok((None, at)) };
        let of = &self.text[subject_at.clone()];
        let unit = written.subject.unit();
        if op.is_equality() && written.subject.continuous() {
            let message = format!("`{of}` is never exactly one number, so `{op}` says nothing about it");
            self.errors.push(RuleError::new(op_at.clone(), message, "write <, <=, > or >="));
        }
        let change = match amount.zip(sign) {
            None => Ok(Change::None),
            // The unit of a share is the percent, so what is added to one are points.
            Some((amount, sign)) if amount.unit == "%" && unit != Unit::Ratio => {
                amount.in_unit(Unit::Ratio, of, false).map(|share| Change::Share(sign * share))
            }
            Some((amount, sign)) => {
                amount.in_unit(unit, of, written.has_unit).map(|more| Change::By(sign * more))
            }
        };
        match change {
            Ok(change) => Ok((Some(Limit::Reference(Reference { name, change })), at)),
            Err(error) => {
                self.errors.push(error);
                Ok((None, at))
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
}

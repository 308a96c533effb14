//! What a scenario expects of responses: checks, compiled once, that look at each response when it is complete.
//!
//! A check that fails is a finding about the response; it changes neither the request's outcome nor its times. Only a hook
//! that can not be called fails the request.

pub mod config;
mod test;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use self::config::Check;
use self::test::Test;
use crate::hook::{Fault, HookError, Request, Script};
use crate::record::{Basis, CheckFailure, Checked, Record, Response};
use crate::units::ms;

/// How many checks a workload may have: one bit each.
pub const MOST: usize = 64;
/// Of how many failures of each check the response is kept, in one cell.
pub const KEPT: u8 = 3;
/// How many characters of a response are kept.
pub const EXCERPT: usize = 1000;
/// The name of the hooks' own check, where no check of the scenario names it.
pub const HOOK: &str = "hook";
const HOOK_FUNCTION: &str = "check";

/// The checks of one workload, in their order.
#[derive(Debug)]
pub struct Checks {
    tests: Vec<(String, &'static str, Test)>,
    script: Option<Arc<Script>>,
}

/// Why a check can not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Its position in `expect`.
    pub index: usize,
    /// The key that is wrong.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
    /// The place in the hooks' script, where it is there.
    pub fault: Option<Box<Fault>>,
}

impl Checks {
    /// Compiles the checks of a workload; `None` when there are none. Files are relative to `dir`.
    ///
    /// # Errors
    /// Every check that can not be used.
    pub fn compile(
        expect: &[Check],
        script: Option<&Arc<Script>>,
        dir: &Path,
    ) -> Result<Option<Self>, Vec<Flaw>> {
        let mut flaws = Vec::new();
        let mut tests = Vec::new();
        for (index, check) in expect.iter().enumerate() {
            match Test::compile(check, script.map(Arc::as_ref), dir) {
                Ok(test) => tests.push((check.name().to_owned(), check.kind(), test)),
                Err(flaw) => flaws.push(Flaw { index, ..flaw }),
            }
        }
        if !flaws.is_empty() {
            return Err(flaws);
        }
        let is_named = tests.iter().any(|(_, _, test)| test.function() == Some(HOOK_FUNCTION));
        if script.is_some_and(|script| script.has(HOOK_FUNCTION)) && !is_named {
            let clash = expect.iter().position(|check| check.name() == HOOK);
            if let Some(index) = clash {
                return Err(vec![Flaw {
                    index,
                    key: "name",
                    message: format!(
                        "the scenario's hooks have a `{HOOK_FUNCTION}`, which is named `{HOOK}` too"
                    ),
                    help: format!(
                        "give this check another name, or that one: `{{ kind: script, name: .., function: {HOOK_FUNCTION} }}`"
                    ),
                    fault: None,
                }]);
            }
            tests.push((HOOK.to_owned(), "script", Test::Script(HOOK_FUNCTION.to_owned())));
        }
        Ok((!tests.is_empty()).then(|| Self { tests, script: script.cloned() }))
    }

    /// The names, in order: a check's position is its bit in [`Checked::failed`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().map(|(name, _, _)| name.as_str())
    }

    /// Name and kind of each, in order.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.tests.iter().map(|(name, kind, _)| (name.as_str(), *kind))
    }

    /// Looks at the response of a success. `request` makes what hooks see of the request, where the workload has hooks;
    /// `kept` counts for each check how many failures were kept with their texts so far.
    ///
    /// # Errors
    /// When a hook can not be called.
    pub fn judge(
        &self,
        request: impl Fn() -> Option<Request>,
        response: &Response,
        record: &Record,
        basis: Basis,
        kept: &mut Vec<u8>,
    ) -> Result<Checked, HookError> {
        kept.resize(self.tests.len(), 0);
        let mut checked = Checked::default();
        let mut seen: Option<(Request, crate::hook::Response)> = None;
        for (at, (_, _, test)) in self.tests.iter().enumerate() {
            let fault = match (test, &self.script) {
                (Test::Script(function), Some(script)) => {
                    if seen.is_none() {
                        seen = request().map(|request| (request, seen_by_hooks(response, record, basis)));
                    }
                    let Some((request, response)) = &seen else { continue };
                    let finding = script.check(function, request, response)?;
                    for (metric, value) in finding.recorded {
                        match checked.recorded.iter_mut().find(|(known, _)| *known == metric) {
                            Some((_, sum)) => *sum += value,
                            None => checked.recorded.push((metric, value)),
                        }
                    }
                    finding.fault
                }
                (test, _) => test.fault(response, record),
            };
            let Some(reason) = fault else { continue };
            checked.failed |= 1 << at;
            if kept[at] < KEPT {
                kept[at] += 1;
                let (reason, text) = (cut(&reason), cut(&response.text));
                checked.failures.push(CheckFailure { check: at as u8, reason, text });
            }
        }
        Ok(checked)
    }
}

fn seen_by_hooks(response: &Response, record: &Record, basis: Basis) -> crate::hook::Response {
    crate::hook::Response {
        text: response.text.as_str().into(),
        finish_reason: response.finish_reason.as_deref().map(Into::into),
        prompt_tokens: record.prompt_tokens,
        output_tokens: record.output_tokens,
        ttft_ms: record.ttft(basis).map(ms),
        tpot_ms: record.tpot().map(|ns| ns / 1e6),
        e2e_ms: record.e2e(basis).map(ms),
    }
}

/// The start of a text, with a mark where something is left out.
fn cut(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.to_owned(),
    }
}

//! Looks at responses as they come, for both drivers.

use super::flight::unsent;
use super::load::Start;
use crate::plan::{Recipe, WorkloadPlan};
use crate::record::{Outcome, Record, Response};
use crate::units::Ns;

/// What is expected of the responses of one cell.
pub(super) struct Checker<'a> {
    plan: &'a WorkloadPlan,
    /// For each check, how many failures were kept with their texts.
    kept: Vec<u8>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(plan: &'a WorkloadPlan) -> Self {
        Self { plan, kept: Vec::new() }
    }

    /// Looks at the response of a success. A hook that can not be called fails the request.
    pub(super) fn check(&mut self, recipe: &Recipe, record: &mut Record, response: Option<Box<Response>>) {
        let (Some(checks), Outcome::Success) = (&self.plan.checks, record.outcome) else { return };
        let request = || self.plan.hooked.as_ref().map(|hooked| hooked.request(recipe));
        let response = response.unwrap_or_default();
        let basis = self.plan.load.basis();
        match checks.judge(request, &response, record, basis, &mut self.kept) {
            Ok(checked) => record.checked = Some(Box::new(checked)),
            Err(error) => {
                (record.outcome, record.message) = (Outcome::HookFailed, Some(error.to_string().into()));
            }
        }
    }
}

/// The record of a request that its hooks could not make, known at `at`.
pub(super) fn unmade(start: &Start, at: Ns) -> Option<Record> {
    let reason = start.recipe.failed.as_deref()?;
    let mut record = unsent(&start.recipe, start.due, at);
    record.cap_wait = start.cap_wait;
    (record.outcome, record.message) = (Outcome::HookFailed, Some(reason.into()));
    Some(record)
}

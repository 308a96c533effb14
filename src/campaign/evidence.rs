//! The gates' view of what was measured.

use serde_json::Value;

use crate::check::Checks;
use crate::gate::{self, Event, Evidence};
use crate::measure::{Metrics, Samples, meets, value_of};
use crate::metric::{Kind, Metric};
use crate::plan::config::Tags;
use crate::record::{Outcome, Record};
use crate::rule::{Condition, On, Op, counts_requests};
use crate::units::ms;

/// One workload on one backend, its repeats pooled.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Its measured requests.
    pub samples: &'a Samples,
    /// Its metrics.
    pub metrics: &'a Metrics,
    /// Its tags.
    pub tags: &'a Tags,
    /// Its SLO.
    pub slo: &'a [Condition],
    /// What is expected of its responses.
    pub checks: Option<&'a Checks>,
}

/// What a rule is judged against: one part, or several pooled.
#[derive(Debug, Clone)]
pub struct Measured<'a> {
    /// The parts, in the order of the plan.
    pub parts: Vec<Part<'a>>,
    /// Whether the same plan gives the same numbers again.
    pub deterministic: bool,
    /// Each repeat of the one part; empty where there is one repeat, or several parts.
    pub repeats: Vec<Part<'a>>,
}

impl Part<'_> {
    /// The counted requests that a filter leaves, by due time.
    fn counted(&self, filter: &[Condition]) -> impl Iterator<Item = &Record> {
        let records = self.samples.by_due().into_iter().filter(|record| record.outcome.is_counted());
        records.filter(move |record| {
            filter.iter().all(|condition| match &condition.on {
                On::Metric(metric, limit) => value_of(record, metric, self.samples.basis())
                    .is_some_and(|value| condition.op.holds(value, *limit)),
                // Tags have chosen the workloads before.
                On::Tag(..) => true,
            })
        })
    }

    /// The sum and the number of the gaps of each request, in milliseconds.
    fn clusters(&self) -> Vec<(f64, u64)> {
        let records = self.samples.by_due().into_iter();
        let cluster = |record: &Record| {
            let gaps = record.output_tokens.saturating_sub(record.first_event_tokens);
            Some((ms(record.end.saturating_sub(record.first?)), u64::from(gaps)))
        };
        records.filter_map(cluster).filter(|(_, gaps)| *gaps > 0).collect()
    }

    /// Whether an event happened to a request; `None` where there was nothing to look at.
    fn happened(&self, record: &Record, event: &Event<'_>) -> Option<bool> {
        let met = |limits: &[Condition]| {
            record.outcome == Outcome::Success && meets(record, self.samples.basis(), self.tags, limits)
        };
        Some(match event {
            Event::Failed => record.outcome.is_failure(),
            Event::MetSlo => met(self.slo),
            Event::Met(limits) => met(limits),
            Event::Passed(name) => {
                let at = self.checks?.names().position(|known| known == *name)?;
                record.checked.as_ref()?.passes(at)
            }
            Event::PassedAll => record.checked.as_ref()?.failed == 0,
        })
    }

    /// A metric of the flat file, or the reason why it has no value.
    fn flat(&self, metric: &Metric) -> Result<f64, String> {
        let name = metric.flat();
        self.metrics.values.get(&name).and_then(Value::as_f64).ok_or_else(|| {
            let reason = self.metrics.unavailable.get(&name);
            reason.cloned().unwrap_or_else(|| "nothing was measured".to_owned())
        })
    }
}

/// What `total_requests` and its like count.
fn is_counted_by(record: &Record, metric: &Metric) -> bool {
    match metric.name {
        "successful_requests" => record.outcome == Outcome::Success,
        "failed_requests" => record.outcome.is_failure(),
        "retried_requests" => record.outcome.is_counted() && record.attempts() > 1,
        _ => record.outcome.is_counted(),
    }
}

impl Evidence for Measured<'_> {
    fn deterministic(&self) -> bool {
        self.deterministic
    }

    fn samples(&self, metric: &'static Metric, filter: &[Condition]) -> Result<gate::Samples, String> {
        let narrowed = filter.iter().any(|condition| matches!(condition.on, On::Metric(..)));
        if metric.name == "tbt" {
            if narrowed {
                return Err(
                    "gaps between tokens are pooled over requests, which `where` can not take apart".into()
                );
            }
            let pools = self.parts.iter().flat_map(|part| part.samples.gaps().sorted());
            let clusters = self.parts.iter().flat_map(Part::clusters).collect();
            let runs = pools.map(|(gap, count)| (ms(gap), count)).collect();
            return Ok(gate::Samples::Unordered { runs, clusters });
        }
        let values = self.parts.iter().flat_map(|part| {
            part.counted(filter)
                .filter_map(|record| Some((value_of(record, metric, part.samples.basis())?, 1)))
                .collect::<Vec<_>>()
        });
        Ok(gate::Samples::InOrder(values.collect()))
    }

    fn events(&self, event: &Event<'_>, filter: &[Condition]) -> Result<Vec<bool>, String> {
        let happened = self.parts.iter().flat_map(|part| {
            part.counted(filter).filter_map(|record| part.happened(record, event)).collect::<Vec<_>>()
        });
        Ok(happened.collect())
    }

    fn number(&self, metric: &'static Metric, filter: &[Condition]) -> Result<f64, String> {
        if counts_requests(metric) && metric.kind == Kind::Count && metric.name != "cancelled_requests" {
            let counts = self.parts.iter().map(|part| {
                part.counted(filter).filter(|record| is_counted_by(record, metric)).count() as u64
            });
            return Ok(counts.sum::<u64>() as f64);
        }
        match self.parts.as_slice() {
            [part] => part.flat(metric),
            parts if metric.kind == Kind::Count => parts.iter().map(|part| part.flat(metric)).sum(),
            _ => Err(format!("`{}` is one number per workload; it has no pooled value", metric.name)),
        }
    }

    fn slo(&self) -> Vec<(&'static Metric, Op)> {
        self.parts.iter().flat_map(|part| gate::limited(part.slo)).collect()
    }

    fn repeats(&self) -> Vec<Box<dyn Evidence + '_>> {
        self.repeats
            .iter()
            .map(|part| {
                let alone =
                    Measured { parts: vec![*part], deterministic: self.deterministic, repeats: Vec::new() };
                Box::new(alone) as Box<dyn Evidence + '_>
            })
            .collect()
    }
}

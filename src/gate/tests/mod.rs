//! Judging, checking and what a run comes to, over evidence made for the purpose.

mod checking;
mod judging;
mod whole;

use super::config::{Confidence, NoData, Severity};
use super::{Case, Event, Evidence, Judgement, Samples, judge};
use crate::metric::Metric;
use crate::rule::{Condition, Rule, parse};
use crate::stats::Run;

/// The same answers whatever is asked.
#[derive(Default)]
struct Made {
    deterministic: bool,
    samples: Vec<Run>,
    unordered: bool,
    events: Vec<bool>,
    number: Option<f64>,
    /// A number in each repeat.
    repeats: Vec<f64>,
}

impl Evidence for Made {
    fn deterministic(&self) -> bool {
        self.deterministic
    }
    fn samples(&self, _: &'static Metric, _: &[Condition]) -> Result<Samples, String> {
        let samples = self.samples.clone();
        let clusters = samples.iter().map(|(value, count)| (value * *count as f64, *count)).collect();
        Ok(if self.unordered {
            Samples::Unordered { runs: samples, clusters }
        } else {
            Samples::InOrder(samples)
        })
    }
    fn events(&self, _: &Event<'_>, _: &[Condition]) -> Result<Vec<bool>, String> {
        Ok(self.events.clone())
    }
    fn number(&self, _: &'static Metric, _: &[Condition]) -> Result<f64, String> {
        self.number.ok_or_else(|| "the server does not export it".to_owned())
    }
    fn repeats(&self) -> Vec<Box<dyn Evidence + '_>> {
        let alone =
            |number: &f64| Box::new(Self { number: Some(*number), ..Self::default() }) as Box<dyn Evidence>;
        self.repeats.iter().map(alone).collect()
    }
}

impl Made {
    fn of_samples(values: impl IntoIterator<Item = f64>) -> Self {
        Self { samples: values.into_iter().map(|value| (value, 1)).collect(), ..Self::default() }
    }
    fn of_events(hits: usize, n: usize) -> Self {
        Self { events: (0..n).map(|at| at < hits).collect(), ..Self::default() }
    }
}

/// A rule at 95 %.
fn judged(text: &str, evidence: &Made) -> Judgement {
    judged_at(text, Confidence::Level(0.95), NoData::Fail, evidence)
}

fn judged_at(text: &str, confidence: Confidence, no_data: NoData, evidence: &Made) -> Judgement {
    let rule = parse(text).unwrap();
    judge(&Case { confidence, no_data, ..case(&rule, text) }, evidence, Err("nothing to compare with"))
}

/// A rule at 95 % for one workload.
fn case<'a>(rule: &'a Rule, text: &'a str) -> Case<'a> {
    Case {
        rule,
        text,
        workload: "chat",
        backend: "vllm",
        confidence: Confidence::Level(0.95),
        severity: Severity::Fail,
        no_data: NoData::Fail,
        implicit: false,
        allow_single_run: false,
    }
}

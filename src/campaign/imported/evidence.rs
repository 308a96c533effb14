//! The gates' view of what was imported.

use indexmap::IndexMap;

use super::cell::{Cell, unknown_in};
use crate::campaign::evidence::{Measured, Part};
use crate::gate::{Event, Evidence, Samples};
use crate::measure::Metrics;
use crate::metric::Metric;
use crate::rule::{Condition, Subject};

/// What a rule is judged against: one load, or several pooled.
#[derive(Clone)]
pub(super) struct Told<'a> {
    source: Source<'a>,
    /// Metrics that are not known of each request, and why.
    unknown: IndexMap<&'static str, String>,
    slo: &'a [Condition],
    repeats: Vec<Self>,
}

#[derive(Clone)]
enum Source<'a> {
    Requests(Measured<'a>),
    /// Of one load.
    Statistics(&'a Metrics),
    /// Several loads of which some have statistics only.
    Nothing,
}

const STATISTICS_ONLY: &str = "the file has statistics only; this needs its requests one by one";

impl<'a> Told<'a> {
    /// What is known of loads.
    pub(super) fn of(cells: &[&'a Cell<'a>]) -> Self {
        let unknown = cells.iter().flat_map(|cell| cell.unknown.clone()).collect();
        let slo = cells.first().map_or(&[][..], |cell| cell.slo);
        let parts: Option<Vec<Part<'a>>> =
            cells.iter().map(|cell| Some(cell.part(cell.samples.as_ref()?, &cell.metrics))).collect();
        let source = match (parts, cells) {
            (Some(parts), _) => {
                Source::Requests(Measured { parts, deterministic: false, repeats: Vec::new() })
            }
            (None, [cell]) => Source::Statistics(&cell.metrics),
            (None, _) => Source::Nothing,
        };
        let repeats = match cells {
            [cell] => cell.told_repeats(),
            _ => Vec::new(),
        };
        Self { source, unknown, slo, repeats }
    }
}

impl<'a> Cell<'a> {
    fn part(&'a self, samples: &'a crate::measure::Samples, metrics: &'a Metrics) -> Part<'a> {
        Part { samples, metrics, tags: &self.group.tags, slo: self.slo, checks: None }
    }

    /// Each repeat on its own, where there are several.
    fn told_repeats(&'a self) -> Vec<Told<'a>> {
        let told = |(at, metrics): (usize, &'a Metrics)| {
            let source = match self.each.get(at) {
                Some(samples) => Source::Requests(Measured {
                    parts: vec![self.part(samples, metrics)],
                    deterministic: false,
                    repeats: Vec::new(),
                }),
                None => Source::Statistics(metrics),
            };
            Told { source, unknown: self.unknown.clone(), slo: self.slo, repeats: Vec::new() }
        };
        self.repeats.iter().enumerate().map(told).collect()
    }
}

impl Told<'_> {
    /// Nothing, where each request tells all that these conditions ask; else why not.
    fn knows(&self, conditions: &[Condition]) -> Result<(), String> {
        unknown_in(&self.unknown, conditions).map_or(Ok(()), |why| Err(why.to_owned()))
    }

    fn requests(&self) -> Result<&Measured<'_>, String> {
        match &self.source {
            Source::Requests(measured) => Ok(measured),
            Source::Statistics(_) | Source::Nothing => Err(STATISTICS_ONLY.to_owned()),
        }
    }
}

impl Evidence for Told<'_> {
    fn deterministic(&self) -> bool {
        false
    }

    fn samples(&self, metric: &'static Metric, filter: &[Condition]) -> Result<Samples, String> {
        self.knows(filter)?;
        match self.unknown.get(metric.name) {
            Some(why) => Err(why.clone()),
            None => self.requests()?.samples(metric, filter),
        }
    }

    fn events(&self, event: &Event<'_>, filter: &[Condition]) -> Result<Vec<bool>, String> {
        self.knows(filter)?;
        match event {
            Event::MetSlo => self.knows(self.slo)?,
            Event::Met(conditions) => self.knows(conditions)?,
            Event::Failed | Event::Passed(_) | Event::PassedAll => {}
        }
        self.requests()?.events(event, filter)
    }

    fn number(&self, metric: &'static Metric, filter: &[Condition]) -> Result<f64, String> {
        self.knows(filter)?;
        self.requests()?.number(metric, filter)
    }

    fn statistic(&self, subject: &Subject, filter: &[Condition]) -> Option<Result<f64, String>> {
        let Source::Statistics(metrics) = &self.source else { return None };
        let lacks = || STATISTICS_ONLY.to_owned();
        let Some(name) = subject.flat().filter(|_| filter.is_empty()) else { return Some(Err(lacks())) };
        Some(metrics.get(&name).ok_or_else(|| metrics.unavailable.get(&name).cloned().unwrap_or_else(lacks)))
    }

    fn repeats(&self) -> Vec<Box<dyn Evidence + '_>> {
        self.repeats.iter().map(|repeat| Box::new(repeat.clone()) as Box<dyn Evidence + '_>).collect()
    }
}

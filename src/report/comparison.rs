//! Several runs beside a base.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::RunVerdict;
use super::templates::{RenderError, Template, render_value};
use crate::gate::Verdict;
use crate::metric::Better;
use crate::units::human;

/// What holding runs against a base came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The base, as it was named.
    pub base: String,
    /// The runs, as they were named.
    pub runs: Vec<String>,
    /// How much worse a run may be: 0.05 is 5 %.
    pub allow: f64,
    /// How sure each verdict is.
    pub confidence: f64,
    /// The workloads of the base on each backend.
    pub cells: Vec<ComparedCell>,
    /// What to know before trusting the comparison.
    pub warnings: Vec<String>,
    /// What it comes to.
    pub verdict: RunVerdict,
    /// The exit code.
    pub exit_code: u8,
}

/// One workload on one backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComparedCell {
    /// The workload's full name.
    pub workload: String,
    /// The backend's name in the base.
    pub backend: Option<String>,
    /// Why a run has nothing to compare here, in the order of the runs; `None` where it has.
    pub problems: Vec<Option<String>>,
    /// The metrics.
    pub rows: Vec<ComparedRow>,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComparedRow {
    /// Its flat name.
    pub metric: String,
    /// Its unit as printed.
    pub unit: String,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Its value in the base, the mean over repeats.
    pub base: Option<f64>,
    /// The runs, in order.
    pub sides: Vec<ComparedSide>,
    /// Which side is best: 0 is the base, 1 the first run. `None` where all are equal or none has a value.
    pub best: Option<usize>,
}

/// One metric of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComparedSide {
    /// Its value, the mean over repeats.
    pub value: Option<f64>,
    /// The value divided by the base's; `None` where that is 0.
    pub ratio: Option<f64>,
    /// Bounds on the ratio, each wrong with probability 1 − confidence.
    pub interval: Option<[f64; 2]>,
    /// PASS: not worse than allowed. FAIL: worse. INCONCLUSIVE: can not be told. `NO_DATA`: a side lacks it.
    pub verdict: Verdict,
    /// Whether a FAIL fails the comparison.
    pub decides: bool,
    /// How it was judged.
    pub method: String,
}

impl ComparedRow {
    /// Which side is best, of those that have a value.
    pub fn best_of(base: Option<f64>, sides: &[ComparedSide], better: Better) -> Option<usize> {
        let values = std::iter::once(base).chain(sides.iter().map(|side| side.value));
        let known: Vec<(usize, f64)> =
            values.enumerate().filter_map(|(at, value)| Some((at, value?))).collect();
        let ordered =
            |a: &f64, b: &f64| if better == Better::Higher { b.total_cmp(a) } else { a.total_cmp(b) };
        let best = known.iter().min_by(|a, b| ordered(&a.1, &b.1))?;
        let all_equal = known.iter().all(|(_, value)| value.total_cmp(&best.1).is_eq());
        (!all_equal).then_some(best.0)
    }
}

/// What a template sees: the comparison, and beside each number its words.
fn context(comparison: &Comparison) -> Value {
    let mut root = json!(comparison);
    root["allow_text"] = json!(human(comparison.allow, "%"));
    root["confidence_text"] = json!(human(comparison.confidence, "%"));
    root["verdict"] = json!(comparison.verdict.word());
    for (value, cell) in root["cells"].as_array_mut().into_iter().flatten().zip(&comparison.cells) {
        value["problems"] = comparison
            .runs
            .iter()
            .zip(&cell.problems)
            .filter_map(|(run, problem)| Some(json!(format!("{run}: {}", problem.as_ref()?))))
            .collect();
        for (value, row) in value["rows"].as_array_mut().into_iter().flatten().zip(&cell.rows) {
            let text = |number: Option<f64>, at: usize| {
                let mark = if row.best == Some(at) { " *" } else { "" };
                number
                    .map_or_else(|| "n/a".to_owned(), |number| format!("{}{mark}", human(number, &row.unit)))
            };
            value["base_text"] = json!(text(row.base, 0));
            for (at, (value, side)) in
                value["sides"].as_array_mut().into_iter().flatten().zip(&row.sides).enumerate()
            {
                value["shown"] = json!(text(side.value, at + 1));
                value["change"] = json!(change(side));
                let note = if side.verdict == Verdict::Fail && !side.decides { " (warning)" } else { "" };
                value["word"] = json!(format!("{}{note}", side.verdict));
            }
        }
    }
    root
}

/// `+7.4% (+4.9% to +9.4%)`.
fn change(side: &ComparedSide) -> String {
    let signed = |ratio: f64| format!("{}{}", if ratio < 1.0 { "" } else { "+" }, human(ratio - 1.0, "%"));
    match (side.ratio, side.interval) {
        (Some(ratio), Some([low, high])) => {
            format!("{} ({} to {})", signed(ratio), signed(low), signed(high))
        }
        (Some(ratio), None) => signed(ratio),
        (None, _) => String::new(),
    }
}

/// Renders a comparison with an embedded template.
pub fn render_comparison(comparison: &Comparison, template: &Template) -> Result<String, RenderError> {
    render_value(context(comparison), template)
}

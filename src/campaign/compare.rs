//! Holds runs against a base, metric by metric.

use crate::gate::{Contrast, Side, Verdict, contrast, exit};
use crate::metric::{Better, Metric, judged_names};
use crate::nearest::nearest;
use crate::report::{
    Baseline, BaselineCell, ComparedCell, ComparedRow, ComparedSide, Comparison, RunVerdict,
};
use crate::rule::{Change, Op};

/// What is compared unless metrics are named: the latency, the throughput and the failures that users feel.
const HEADLINE: [&str; 14] = [
    "avg_ttft_ms",
    "p50_ttft_ms",
    "p99_ttft_ms",
    "avg_tpot_ms",
    "p99_tpot_ms",
    "avg_tbt_ms",
    "p99_tbt_ms",
    "p50_e2e_ms",
    "p99_e2e_ms",
    "output_throughput_tps",
    "request_rate_rps",
    "goodput_rps",
    "slo_share",
    "error_rate",
];

/// How runs are compared.
#[derive(Debug, Clone)]
pub struct Comparing {
    /// How much worse a run may be: 0.05 is 5 %.
    pub allow: f64,
    /// How sure each verdict must be, between 0.5 and 1.
    pub confidence: f64,
    /// The flat names of the metrics that are compared; empty for the usual ones.
    pub metrics: Vec<String>,
    /// Whether one run against one other may decide.
    pub allow_single_run: bool,
    /// Whether other prompts, and metrics that can not be told, fail the comparison.
    pub strict: bool,
}

/// A run with the name it goes by.
#[derive(Debug, Clone)]
pub struct Named {
    /// What tables call it.
    pub name: String,
    /// The run.
    pub run: Baseline,
}

/// Compares runs with a base.
///
/// # Errors
/// A metric that does not exist.
pub fn compare(base: &Named, runs: &[Named], comparing: &Comparing) -> Result<Comparison, String> {
    let metrics = metrics(&comparing.metrics)?;
    let mut warnings = Vec::new();
    let mut incomparable = false;
    for run in runs {
        incomparable |= same_work(base, run, comparing.strict, &mut warnings);
    }
    let cells: Vec<ComparedCell> =
        base.run.cells.iter().map(|cell| compared(base, cell, runs, &metrics, comparing)).collect();
    if cells.is_empty() {
        warnings.push(format!("{} holds no workload", base.name));
    }
    let sides = || cells.iter().flat_map(|cell| &cell.rows).flat_map(|row| &row.sides);
    let violated =
        sides().any(|side| side.decides && matches!(side.verdict, Verdict::Fail | Verdict::NoData));
    let is_lacking = cells.iter().flat_map(|cell| &cell.problems).any(Option::is_some);
    let unsure = comparing.strict && sides().any(|side| side.verdict == Verdict::Inconclusive);
    let unfit = base.run.cells.iter().any(|cell| cell.unfit.is_some()) || base.run.cells.is_empty();
    let (verdict, exit_code) = if incomparable || unfit {
        (RunVerdict::Invalid, exit::INVALID)
    } else if violated || is_lacking {
        (RunVerdict::Fail, exit::FAILED)
    } else if unsure {
        (RunVerdict::Inconclusive, exit::INCONCLUSIVE)
    } else {
        (RunVerdict::Pass, exit::PASS)
    };
    Ok(Comparison {
        base: base.name.clone(),
        runs: runs.iter().map(|run| run.name.clone()).collect(),
        allow: comparing.allow,
        confidence: comparing.confidence,
        cells,
        warnings,
        verdict,
        exit_code,
    })
}

/// The metrics of these flat names.
fn metrics(names: &[String]) -> Result<Vec<(String, &'static Metric)>, String> {
    let known: Vec<(String, &'static Metric)> = judged_names().collect();
    let find = |name: &str| known.iter().find(|(known, _)| known == name).cloned();
    if names.is_empty() {
        return Ok(HEADLINE.into_iter().filter_map(find).collect());
    }
    names
        .iter()
        .map(|name| {
            find(name).ok_or_else(|| {
                let meant = nearest(name, known.iter().map(|(known, _)| known.as_str()));
                let help = meant.map_or_else(
                    || format!("write a name of the result files, such as {}", HEADLINE[0]),
                    |near| format!("did you mean `{near}`?"),
                );
                format!("`{name}` is no metric that has a better direction; {help}")
            })
        })
        .collect()
}

/// Whether a run is of other work than the base. Says so, and what else differs.
fn same_work(base: &Named, run: &Named, strict: bool, warnings: &mut Vec<String>) -> bool {
    let mut incomparable = false;
    for cell in &base.run.cells {
        let Some(other) = run.run.cell(&cell.workload, cell.backend.as_deref()) else { continue };
        match (&cell.schedule_digest, &other.schedule_digest) {
            (Some(a), Some(b)) if a != b => {
                incomparable = true;
                warnings.push(format!(
                    "not comparable: {} and {} played `{}` with other lengths, arrivals or load",
                    base.name, run.name, cell.workload
                ));
            }
            (Some(_), Some(_)) => {}
            _ => warnings.push(format!(
                "`{}`: {} or {} does not say which schedule it played, so whether they are comparable is not known",
                cell.workload, base.name, run.name
            )),
        }
    }
    if let (Some(a), Some(b)) = (&base.run.content_digest, &run.run.content_digest)
        && a != b
        && base.run.schedule_digest == run.run.schedule_digest
    {
        warnings.push(format!("{} and {} had other prompts of the same lengths", base.name, run.name));
        incomparable |= strict;
    }
    if let (Some(a), Some(b)) = (&base.run.host, &run.run.host)
        && a != b
    {
        warnings.push(format!("{} and {} were measured on other machines: {a} and {b}", base.name, run.name));
    }
    if base.run.clock != run.run.clock {
        warnings.push(format!("{} and {} were played on other clocks", base.name, run.name));
    }
    incomparable
}

fn compared(
    base: &Named,
    cell: &BaselineCell,
    runs: &[Named],
    metrics: &[(String, &'static Metric)],
    comparing: &Comparing,
) -> ComparedCell {
    let others: Vec<Option<&BaselineCell>> =
        runs.iter().map(|run| run.run.cell(&cell.workload, cell.backend.as_deref())).collect();
    let problem = |other: Option<&BaselineCell>| match (&cell.unfit, other) {
        (Some(why), _) => Some(format!("{} is no base: {why}", base.name)),
        (None, None) => Some("does not have this workload".to_owned()),
        (None, Some(other)) => other.unfit.as_ref().map(|why| format!("has nothing to compare: {why}")),
    };
    let problems: Vec<Option<String>> = others.iter().map(|other| problem(*other)).collect();
    let row = |(name, metric): &(String, &'static Metric)| {
        let ours = side(&base.run, Some(cell), name);
        let sides: Vec<ComparedSide> = runs
            .iter()
            .zip(&others)
            .map(|(run, other)| {
                judged(ours.as_ref(), side(&run.run, *other, name).as_ref(), metric.better, comparing)
            })
            .collect();
        let value = ours.as_ref().map(Side::value);
        let is_known = value.is_some() || sides.iter().any(|side| side.value.is_some());
        is_known.then(|| ComparedRow {
            metric: name.clone(),
            unit: metric.unit.symbol().to_owned(),
            higher_is_better: metric.better == Better::Higher,
            base: value,
            best: ComparedRow::best_of(value, &sides, metric.better),
            sides,
        })
    };
    ComparedCell {
        workload: cell.workload.clone(),
        backend: cell.backend.clone(),
        problems,
        rows: metrics.iter().filter_map(row).collect(),
    }
}

/// A statistic of a cell that is fit to be compared.
fn side(run: &Baseline, cell: Option<&BaselineCell>, name: &str) -> Option<Side> {
    let cell = cell.filter(|cell| cell.unfit.is_none())?;
    Some(Side {
        values: cell.values(name)?,
        interval: cell.intervals.get(name).copied(),
        exact: run.is_exact(),
    })
}

fn judged(base: Option<&Side>, run: Option<&Side>, better: Better, comparing: &Comparing) -> ComparedSide {
    let value = run.map(Side::value);
    let Some((base, run)) = base.zip(run) else {
        // What neither or only the run has is no loss; what only the base has is one.
        let decides = base.is_some();
        return ComparedSide {
            value,
            ratio: None,
            interval: None,
            verdict: Verdict::NoData,
            decides,
            method: "a side lacks it".to_owned(),
        };
    };
    let (op, change) = match better {
        Better::Higher => (Op::Ge, -comparing.allow),
        Better::Lower | Better::Neither => (Op::Le, comparing.allow),
    };
    let Contrast { verdict, ratio, interval, method, is_single } =
        contrast(run, base, Change::Share(change), op, 1.0 - comparing.confidence);
    ComparedSide {
        value,
        ratio,
        interval,
        verdict,
        decides: !is_single || comparing.allow_single_run,
        method,
    }
}

/// A run against itself: its repeats in two halves, every other one in each. What differs between them is noise.
///
/// # Errors
/// Fewer than four repeats.
pub fn halves(run: &Named) -> Result<[Named; 2], String> {
    let repeats =
        run.run.cells.iter().flat_map(|cell| cell.metrics.values()).map(Vec::len).min().unwrap_or(0);
    if repeats < 4 {
        return Err(format!(
            "{} has {repeats} repeat{}; noise is what differs between two halves of a run, so set `repeats` to 4 or more",
            run.name,
            if repeats == 1 { "" } else { "s" }
        ));
    }
    let half = |which: usize, name: &str| {
        let mut half = run.clone();
        half.name = format!("{} ({name} repeats)", run.name);
        for values in half.run.cells.iter_mut().flat_map(|cell| cell.metrics.values_mut()) {
            *values = values.iter().skip(which).step_by(2).copied().collect();
        }
        half
    };
    Ok([half(0, "odd"), half(1, "even")])
}

//! Writes the results of a run into its folder.

use std::path::{Path, PathBuf};

use super::assemble::CellRecords;
use super::conduct::CampaignError;
use super::folder::{Folder, RUN_FILE};
use super::prepare::{Content, Prepared, Reports};
use crate::gate::{Facts, Judgement, outcome};
use crate::record::Record;
use crate::report::config::{Export, Records};
use crate::report::{
    Interval, OutputFile, RequestLog, RunReport, TOKENS_FILE, benchmark_summary, hlog, metrics_files, render,
    requests_jsonl, run_json, slug, sweep_csv,
};

/// At most so many requests are written out one by one.
const REQUEST_ROWS: usize = 100_000;

/// Writes everything, `run.json` last: where it is there, so is the rest. One file that can not be written does not keep
/// the others from being tried; the first error is the one that is told.
pub fn write(
    prepared: &Prepared,
    folder: &Folder,
    cells: &[CellRecords],
    report: &RunReport,
    complete: bool,
) -> Result<(), CampaignError> {
    let logs = token_log(prepared, cells).into_iter().collect();
    let contract = contract_files(prepared, report);
    let first = write_run(folder, contract, &prepared.reports, logs, cells, report);
    if complete && first.is_none() {
        folder.drop_journal()?;
    }
    first.map_or(Ok(()), Err)
}

/// Writes the contract's files, the reports, the requests, further logs and `run.json`. Returns the first error.
pub(super) fn write_run(
    folder: &Folder,
    contract: Vec<(PathBuf, Vec<u8>)>,
    reports: &Reports,
    logs: Vec<OutputFile>,
    cells: &[CellRecords],
    report: &RunReport,
) -> Option<CampaignError> {
    let mut first = None;
    let mut written = Vec::new();
    let mut keep = |result: Result<(), CampaignError>| {
        if let Err(error) = result {
            first.get_or_insert(error);
        }
    };
    for (name, bytes) in contract {
        keep(folder.write(&name, &bytes).map_err(Into::into));
        written.push(name);
    }
    for (name, content) in reports {
        let bytes = match content {
            Content::Template(template) => {
                render(report, template).map(String::into_bytes).map_err(CampaignError::from)
            }
            Content::Export(Export::Hlog) => Ok(hlog(&intervals(cells))),
        };
        keep(bytes.and_then(|bytes| folder.write(name, &bytes).map_err(Into::into)));
        written.push(name.clone());
    }
    for file in sweep_csv(&report.sweeps).into_iter().chain([request_log(cells)]).chain(logs) {
        let name = PathBuf::from(&file.name);
        keep(folder.write(&name, &file.bytes).map_err(Into::into));
        written.push(name);
    }
    let mut report = report.clone();
    report.files = written;
    keep(folder.write(Path::new(RUN_FILE), &run_json(&report).bytes).map_err(Into::into));
    first
}

/// The contract's files of a report of one backend, in a folder.
pub(super) fn files(report: &RunReport, dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = metrics_files(report).into_iter().chain([benchmark_summary(report)]);
    files.map(|file| (dir.join(file.name), file.bytes)).collect()
}

/// The contract's files: in the folder itself, or with several backends in one folder each.
fn contract_files(prepared: &Prepared, report: &RunReport) -> Vec<(PathBuf, Vec<u8>)> {
    if let [_] = prepared.backends.as_slice() {
        return files(report, Path::new(""));
    }
    let mut all = Vec::new();
    for chosen in &prepared.backends {
        let own: Vec<Judgement> =
            report.judgements.iter().filter(|judgement| judgement.backend == chosen.name).cloned().collect();
        let gates = &prepared.scenario.gates;
        let of = outcome(&Facts { judgements: &own, inconclusive: gates.inconclusive, ..Facts::default() });
        let part = report.only(&chosen.name, super::assemble::verdict_of(of.code), of.code);
        all.extend(files(&part, Path::new(&slug(&chosen.name))));
    }
    all
}

fn intervals(cells: &[CellRecords]) -> Vec<Interval<'_>> {
    fn interval(cell: &CellRecords) -> Interval<'_> {
        let CellRecords { workload, backend, start_time, end_time, samples, .. } = cell;
        Interval { workload, backend, start_time: *start_time, end_time: *end_time, samples }
    }
    cells.iter().map(interval).collect()
}

/// The token times of all cells, where they were asked for.
fn token_log(prepared: &Prepared, cells: &[CellRecords]) -> Option<OutputFile> {
    let bytes = cells.iter().flat_map(|cell| cell.tokens.iter().copied()).collect();
    (prepared.scenario.records == Records::Tokens).then(|| OutputFile { name: TOKENS_FILE.into(), bytes })
}

fn request_log(cells: &[CellRecords]) -> OutputFile {
    let records: Vec<Vec<&Record>> = cells.iter().map(|cell| cell.samples.by_due()).collect();
    let logs = cells.iter().zip(&records).map(|(cell, records)| RequestLog {
        workload: &cell.workload,
        backend: &cell.backend,
        repeat: cell.repeat,
        basis: cell.samples.basis(),
        records,
    });
    requests_jsonl(&logs.collect::<Vec<_>>(), REQUEST_ROWS)
}

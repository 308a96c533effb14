//! The files that are not templates: the contract's JSON, run.json, sweep.csv, requests.jsonl.

use std::fmt::Write as _;

use indexmap::IndexMap;
use schemars::Schema;
use serde::Serialize;
use serde_json::{Value, json};

use super::{RunReport, Sweep};
use crate::measure::{Flat, rounded};
use crate::record::{Attempt, Basis, Record, TokenSource};
use crate::units::{Ns, ms};

/// A file to be written: its name inside the output folder, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// The name, without any folder.
    pub name: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// A workload's full name as a file name: `=` and `+` become `-`, whatever else is no letter, digit, `_`, `.` or `-`
/// becomes `_`, letters become small. Never empty, never starting with a dot.
pub fn slug(name: &str) -> String {
    let mut slug: String = name
        .chars()
        .map(|c| match c {
            '=' | '+' => '-',
            c if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') => c.to_ascii_lowercase(),
            _ => '_',
        })
        .collect();
    if slug.is_empty() || slug.starts_with('.') {
        slug.insert(0, '_');
    }
    slug
}

/// Pretty JSON with a newline at its end.
fn pretty<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes =
        serde_json::to_vec_pretty(value).expect("the report model has string keys and finite numbers only");
    bytes.push(b'\n');
    bytes
}

/// `<workload>_metrics.json` for every cell: the flat object. Meant for a report of one backend; names that become
/// equal as slugs are told apart by a number.
pub fn metrics_files(report: &RunReport) -> Vec<OutputFile> {
    let mut taken: Vec<String> = Vec::new();
    let files = report.cells.iter().map(|cell| {
        let slug = slug(&cell.workload);
        let mut name = format!("{slug}_metrics.json");
        let mut number = 2;
        while taken.contains(&name) {
            name = format!("{slug}-{number}_metrics.json");
            number += 1;
        }
        taken.push(name.clone());
        OutputFile { name, bytes: pretty(&cell.metrics) }
    });
    files.collect()
}

/// `benchmark_summary.json`: the flat object of every workload, totals, gates, and what run it was.
pub fn benchmark_summary(report: &RunReport) -> OutputFile {
    let workloads: IndexMap<&str, &Flat> =
        report.cells.iter().map(|cell| (cell.workload.as_str(), &cell.metrics)).collect();
    let summary = json!({
        "workloads": workloads,
        "overall": report.overall,
        "gates": report.judgements,
        "run": {
            "schema_version": report.schema_version,
            "generator": report.generator,
            "name": report.name,
            "clock": report.clock,
            "seed": report.seed,
            "schedule_digest": report.schedule_digest,
            "content_digest": report.content_digest,
            "complete": report.complete,
            "verdict": report.verdict,
            "exit_code": report.exit_code,
        },
    });
    OutputFile { name: "benchmark_summary.json".into(), bytes: pretty(&summary) }
}

/// The reports that every run has: the file, and its template. A template of that name beside the scenario (see [`find`](super::find))
/// replaces the one that ships; the `.hbs` keeps it apart from an earlier output.
pub const STANDARD: [(&str, &str); 3] =
    [("REPORT.md", "report.md.hbs"), ("report.html", "report.html.hbs"), ("junit.xml", "junit.xml.hbs")];

/// `run.json`: the report itself.
pub fn run_json(report: &RunReport) -> OutputFile {
    OutputFile { name: "run.json".into(), bytes: pretty(report) }
}

/// The JSON Schema of `run.json`.
pub fn run_schema() -> Schema {
    schemars::schema_for!(RunReport)
}

/// `sweep.csv`: one row for each matrix point, RFC 4180. `None` without a matrix.
pub fn sweep_csv(sweeps: &[Sweep]) -> Option<OutputFile> {
    if sweeps.is_empty() {
        return None;
    }
    let mut axes: Vec<&str> = Vec::new();
    for axis in sweeps.iter().flat_map(|sweep| &sweep.axes) {
        if !axes.contains(&axis.as_str()) {
            axes.push(axis);
        }
    }
    let fixed = [
        "request_rate_rps",
        "output_throughput_tps",
        "p50_ttft_ms",
        "p95_ttft_ms",
        "p99_ttft_ms",
        "p50_tpot_ms",
        "p99_tpot_ms",
        "goodput_rps",
        "slo_share",
    ];
    let mut text = String::new();
    let header = ["workload", "backend", "point"].into_iter().chain(axes.iter().copied()).chain(fixed);
    csv_row(&mut text, header.chain(["verdict", "best"]).map(str::to_owned));
    for sweep in sweeps {
        for row in &sweep.rows {
            let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
            let mut cells =
                vec![sweep.workload.clone(), sweep.backend.clone().unwrap_or_default(), row.workload.clone()];
            cells.extend(axes.iter().map(|axis| row.point.get(*axis).map(plain).unwrap_or_default()));
            cells.extend(
                [
                    row.request_rate_rps,
                    row.output_throughput_tps,
                    row.p50_ttft_ms,
                    row.p95_ttft_ms,
                    row.p99_ttft_ms,
                    row.p50_tpot_ms,
                    row.p99_tpot_ms,
                    row.goodput_rps,
                    row.slo_share,
                ]
                .map(number),
            );
            cells.push(row.verdict.map(|verdict| verdict.word().to_owned()).unwrap_or_default());
            cells.push((sweep.best.as_ref() == Some(&row.workload)).to_string());
            csv_row(&mut text, cells.into_iter());
        }
    }
    Some(OutputFile { name: "sweep.csv".into(), bytes: text.into_bytes() })
}

/// A scalar without quotes; anything else as JSON.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn csv_row(text: &mut String, cells: impl Iterator<Item = String>) {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            text.push(',');
        }
        if cell.contains([',', '"', '\n', '\r']) {
            text.push('"');
            text.push_str(&cell.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(&cell);
        }
    }
    text.push_str("\r\n");
}

/// The records of one repeat of one cell.
#[derive(Debug, Clone, Copy)]
pub struct RequestLog<'a> {
    /// The workload's full name.
    pub workload: &'a str,
    /// The backend's name.
    pub backend: &'a str,
    /// The repeat, from 0.
    pub repeat: u32,
    /// From which moment latency counts.
    pub basis: Basis,
    /// Its records, in the order they are to be written.
    pub records: &'a [&'a Record],
}

/// One row of `requests.jsonl`. Times are milliseconds since the cell's T0.
#[derive(Serialize)]
struct Row<'a> {
    workload: &'a str,
    backend: &'a str,
    repeat: u32,
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    turn: Option<u32>,
    outcome: String,
    due_ms: f64,
    sent_ms: Option<f64>,
    #[serde(skip_serializing_if = "is_zero")]
    connect_ms: f64,
    first_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_answer_ms: Option<f64>,
    end_ms: f64,
    ttft_ms: Option<f64>,
    tpot_ms: Option<f64>,
    e2e_ms: Option<f64>,
    queue_delay_ms: Option<f64>,
    cap_wait_ms: f64,
    queue_time_ms: Option<f64>,
    longest_gap_ms: f64,
    prompt_tokens: u32,
    asked_tokens: u32,
    forced: bool,
    output_tokens: u32,
    first_event_tokens: u32,
    events: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunks: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_chunk_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retried: Option<Vec<FailedAttempt>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_sent_ms: Option<f64>,
    preemptions: u32,
    token_source: TokenSource,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// An attempt at a request that failed and was followed by another one.
#[derive(Serialize)]
struct FailedAttempt {
    sent_ms: f64,
    end_ms: f64,
    outcome: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

/// `requests.jsonl`: one JSON object per measured request, at most `limit` of them.
///
/// # Panics
/// Never: a row is plain JSON.
pub fn requests_jsonl(logs: &[RequestLog<'_>], limit: usize) -> OutputFile {
    let mut text = String::new();
    let rows = logs.iter().flat_map(|log| log.records.iter().map(move |record| row(log, record)));
    for row in rows.take(limit) {
        let line = serde_json::to_string(&row).expect("a row has string keys and finite numbers only");
        let _ = writeln!(text, "{line}");
    }
    OutputFile { name: "requests.jsonl".into(), bytes: text.into_bytes() }
}

fn row<'a>(log: &RequestLog<'a>, record: &'a Record) -> Row<'a> {
    let at = |ns: Ns| rounded(ms(ns));
    Row {
        workload: log.workload,
        backend: log.backend,
        repeat: log.repeat,
        index: record.index,
        session: record.session.map(|session| session.session),
        turn: record.session.map(|session| session.turn),
        outcome: record.outcome.label(),
        due_ms: at(record.due),
        sent_ms: record.sent.map(at),
        connect_ms: at(record.connect),
        first_ms: record.first.map(at),
        first_answer_ms: record.first_answer.map(at),
        end_ms: at(record.end),
        ttft_ms: record.ttft(log.basis).map(at),
        tpot_ms: record.tpot().map(|ns| rounded(ns / 1e6)),
        e2e_ms: record.e2e(log.basis).filter(|_| record.sent.is_some()).map(at),
        queue_delay_ms: record.sent.map(|sent| at(sent.saturating_sub(record.due))),
        cap_wait_ms: at(record.cap_wait),
        queue_time_ms: record.queue_time().map(at),
        longest_gap_ms: at(record.longest_gap),
        prompt_tokens: record.prompt_tokens,
        asked_tokens: record.asked_tokens,
        forced: record.forced,
        output_tokens: record.output_tokens,
        first_event_tokens: record.first_event_tokens,
        events: record.events,
        chunks: record.stream.as_ref().map(|stream| stream.chunks),
        opened_ms: record.stream.as_ref().map(|stream| at(stream.opened)),
        last_chunk_ms: record.stream.as_ref().map(|stream| at(stream.last)),
        closed_ms: record.stream.as_ref().map(|stream| at(stream.closed)),
        retried: record.retried.as_ref().map(|retried| {
            let attempt = |attempt: &Attempt| FailedAttempt {
                sent_ms: at(attempt.sent),
                end_ms: at(attempt.end),
                outcome: attempt.outcome.label(),
            };
            retried.attempts.iter().map(attempt).collect()
        }),
        last_sent_ms: record.retried.as_ref().map(|retried| at(retried.sent)),
        preemptions: record.preemptions,
        token_source: record.token_source,
        message: record.message.as_deref(),
    }
}

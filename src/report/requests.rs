//! Reading `requests.jsonl` back, with the token times beside it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::TOKENS_FILE;
use crate::record::{Attempt, GapRun, Outcome, Phase, Record, Retried, Stream, TokenSource, Turn};
use crate::sample::{FileError, Lines, json_fault};
use crate::units::Ns;

/// The requests of one repeat of one workload on one backend.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedCell {
    /// The workload's full name.
    pub workload: String,
    /// The backend's name.
    pub backend: String,
    /// The repeat, from 0.
    pub repeat: u32,
    /// Its requests, in the order of the file.
    pub records: Vec<Record>,
    /// The gaps between the tokens of each request by its index, where the run kept them (`records: tokens`).
    pub gaps: Option<FxHashMap<u64, Vec<GapRun>>>,
}

/// What is read of a row. What was derived from these for the file is derived again.
#[derive(Deserialize)]
struct Row {
    workload: String,
    backend: String,
    repeat: u32,
    index: u64,
    session: Option<u64>,
    turn: Option<u32>,
    outcome: String,
    due_ms: f64,
    sent_ms: Option<f64>,
    #[serde(default)]
    connect_ms: f64,
    first_ms: Option<f64>,
    first_answer_ms: Option<f64>,
    end_ms: f64,
    cap_wait_ms: f64,
    queue_time_ms: Option<f64>,
    longest_gap_ms: f64,
    prompt_tokens: u32,
    asked_tokens: u32,
    forced: bool,
    output_tokens: u32,
    first_event_tokens: u32,
    events: u32,
    chunks: Option<u32>,
    opened_ms: Option<f64>,
    last_chunk_ms: Option<f64>,
    closed_ms: Option<f64>,
    #[serde(default)]
    retried: Vec<FailedAttempt>,
    last_sent_ms: Option<f64>,
    preemptions: u32,
    token_source: TokenSource,
    message: Option<Box<str>>,
}

/// An attempt that failed and was followed by another one.
#[derive(Deserialize)]
struct FailedAttempt {
    sent_ms: f64,
    end_ms: f64,
    outcome: String,
}

/// Reads the requests of a run folder, by cell in the order of the file.
///
/// What checks and hooks found in a response is not in the file, nor are the gaps between its tokens but for the longest.
pub fn read_requests(folder: &Path) -> Result<Vec<LoggedCell>, FileError> {
    let path = folder.join("requests.jsonl");
    let mut lines = Lines::open(Path::new(""), &path)?;
    let mut cells: Vec<LoggedCell> = Vec::new();
    loop {
        let row = match lines.read()? {
            None => break,
            Some((_, line)) => serde_json::from_str::<Row>(line).map_err(|error| json_fault(&error)),
        };
        let row =
            row.map_err(|fault| lines.error(format!("is no request as sagebench writes them: {fault}")))?;
        let outcome = Outcome::named(&row.outcome)
            .ok_or_else(|| lines.error(format!("`{}` is no outcome of a request", row.outcome)))?;
        let is_own = |cell: &LoggedCell| {
            (&cell.workload, &cell.backend, cell.repeat) == (&row.workload, &row.backend, row.repeat)
        };
        let at = cells.iter().rposition(is_own).unwrap_or(cells.len());
        if at == cells.len() {
            let (workload, backend) = (row.workload.clone(), row.backend.clone());
            cells.push(LoggedCell { workload, backend, repeat: row.repeat, records: Vec::new(), gaps: None });
        }
        cells[at].records.push(record(row, outcome));
    }
    read_gaps(folder, &mut cells)?;
    Ok(cells)
}

/// A row of the token times.
#[derive(Deserialize)]
struct Tokens {
    workload: String,
    backend: String,
    repeat: u32,
    index: u64,
    gaps_ns: Vec<(Ns, u32)>,
}

/// Reads the token times beside the requests, where there are any.
fn read_gaps(folder: &Path, cells: &mut [LoggedCell]) -> Result<(), FileError> {
    let path = folder.join(TOKENS_FILE);
    let Ok(file) = File::open(&path) else { return Ok(()) };
    let problem = |line, message| FileError { file: path.clone(), line: Some(line), message };
    for (number, line) in (1..).zip(BufReader::new(MultiGzDecoder::new(file)).lines()) {
        let line = line.map_err(|error| problem(number, format!("can not be read: {error}")))?;
        let row: Tokens = serde_json::from_str(&line)
            .map_err(|error| problem(number, format!("holds no token times: {}", json_fault(&error))))?;
        let is_own = |cell: &&mut LoggedCell| {
            (&cell.workload, &cell.backend, cell.repeat) == (&row.workload, &row.backend, row.repeat)
        };
        if let Some(cell) = cells.iter_mut().find(is_own) {
            let gaps = row.gaps_ns.into_iter().map(|(gap, count)| GapRun { gap, count }).collect();
            cell.gaps.get_or_insert_default().insert(row.index, gaps);
        }
    }
    Ok(())
}

/// Milliseconds with six decimals are whole nanoseconds.
fn ns(ms: f64) -> Ns {
    libm::round(ms * 1e6) as Ns
}

fn record(row: Row, outcome: Outcome) -> Record {
    let stream = row.chunks.zip(row.opened_ms).zip(row.last_chunk_ms).zip(row.closed_ms);
    let sent = row.sent_ms.map(ns);
    let attempt = |attempt: &FailedAttempt| {
        let outcome = Outcome::named(&attempt.outcome)?;
        Some(Attempt { sent: ns(attempt.sent_ms), end: ns(attempt.end_ms), outcome })
    };
    let attempts = row.retried.iter().filter_map(attempt).collect();
    let retried = row.last_sent_ms.map(|sent| Box::new(Retried { attempts, sent: ns(sent) }));
    let last_sent = retried.as_ref().map_or(sent, |retried| Some(retried.sent));
    Record {
        index: row.index,
        phase: Phase::Measured,
        // How many turns the session has is not in the row: at least this one.
        session: row.session.zip(row.turn).map(|(session, turn)| Turn { session, turn, turns: turn }),
        due: ns(row.due_ms),
        sent,
        connect: ns(row.connect_ms),
        scheduled: last_sent.zip(row.queue_time_ms).map(|(sent, queue)| sent + ns(queue)),
        first: row.first_ms.map(ns),
        first_answer: row.first_answer_ms.map(ns),
        end: ns(row.end_ms),
        cap_wait: ns(row.cap_wait_ms),
        longest_gap: ns(row.longest_gap_ms),
        prompt_tokens: row.prompt_tokens,
        asked_tokens: row.asked_tokens,
        forced: row.forced,
        output_tokens: row.output_tokens,
        first_event_tokens: row.first_event_tokens,
        events: row.events,
        stream: stream.map(|(((chunks, opened), last), closed)| {
            Box::new(Stream { chunks, opened: ns(opened), last: ns(last), closed: ns(closed) })
        }),
        preemptions: row.preemptions,
        token_source: row.token_source,
        outcome,
        message: row.message,
        checked: None,
        retried,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::{failed, request};
    use crate::record::Basis;
    use crate::report::{RequestLog, requests_jsonl};

    #[test]
    fn what_was_written_is_read() {
        let (mut streamed, _) = request(0, 1_234_567, 4, 7_000_001);
        streamed.sent = Some(2_000_003);
        streamed.scheduled = Some(2_000_010);
        let stream = Stream { chunks: 6, opened: 2_500_000, last: 60_000_000, closed: 60_000_007 };
        streamed.stream = Some(Box::new(stream));
        let refused = Attempt { sent: 2_000_003, end: 2_000_004, outcome: Outcome::HttpStatus(429) };
        streamed.retried = Some(Box::new(Retried { attempts: vec![refused], sent: 2_000_007 }));
        let records = vec![
            streamed,
            failed(1, 5, 9, Outcome::HttpStatus(503), Some("busy")),
            failed(2, 5, 9, Outcome::CancelledByServer, None),
        ];
        let all: Vec<&Record> = records.iter().collect();
        let log = |repeat| RequestLog {
            workload: "chat",
            backend: "mock",
            repeat,
            basis: Basis::Due,
            records: &all,
        };
        let dir = tempfile::tempdir().unwrap();
        let file = requests_jsonl(&[log(0), log(1)], 100);
        std::fs::write(dir.path().join(file.name), file.bytes).unwrap();
        let cells = read_requests(dir.path()).unwrap();
        assert_eq!(cells.len(), 2);
        assert_eq!((cells[1].repeat, &cells[1].records), (1, &records));
    }

    #[test]
    fn a_broken_row_is_told_at_its_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("requests.jsonl"), "\n{\"workload\": 3}\n").unwrap();
        let error = read_requests(dir.path()).unwrap_err().to_string();
        assert!(error.contains("requests.jsonl:2: is no request as sagebench writes them"), "{error}");
    }
}

//! `tokens.jsonl.gz`: when every token of every request came.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use crate::record::{GapRun, Phase, Record};
use crate::units::Ns;

/// The name of the file.
pub const TOKENS_FILE: &str = "tokens.jsonl.gz";

/// The token times of one cell's measured requests, compressed as they come: one JSON object per request that got a token,
/// in the order of ending.
///
/// `first_ns` is when the first event came, in nanoseconds since the cell's T0 as in `requests.jsonl`, with
/// `first_event_tokens` tokens; `gaps_ns` is a list of `[gap, count]`: the next `count` tokens came `gap` nanoseconds after one
/// another. What several cells leave, one behind the other, is one file of the gzip format.
#[derive(Debug)]
pub struct TokenLog {
    workload: String,
    backend: String,
    repeat: u32,
    gzip: GzEncoder<Vec<u8>>,
}

#[derive(Serialize)]
struct Row<'a> {
    workload: &'a str,
    backend: &'a str,
    repeat: u32,
    index: u64,
    first_ns: Ns,
    first_event_tokens: u32,
    gaps_ns: Pairs<'a>,
}

struct Pairs<'a>(&'a [GapRun]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for run in self.0 {
            list.serialize_element(&(run.gap, run.count))?;
        }
        list.end()
    }
}

impl TokenLog {
    /// An empty log of a cell.
    pub fn new(workload: &str, backend: &str, repeat: u32) -> Self {
        let gzip = GzEncoder::new(Vec::new(), Compression::default());
        Self { workload: workload.to_owned(), backend: backend.to_owned(), repeat, gzip }
    }

    /// Takes one record and its gaps.
    ///
    /// # Panics
    /// Never: it is written to memory.
    pub fn push(&mut self, record: &Record, gaps: &[GapRun]) {
        let Some(first_ns) = record.first.filter(|_| record.phase == Phase::Measured) else { return };
        let row = Row {
            workload: &self.workload,
            backend: &self.backend,
            repeat: self.repeat,
            index: record.index,
            first_ns,
            first_event_tokens: record.first_event_tokens,
            gaps_ns: Pairs(gaps),
        };
        serde_json::to_writer(&mut self.gzip, &row).expect("a row has string keys and goes to memory");
        self.gzip.write_all(b"\n").expect("it goes to memory");
    }

    /// The bytes.
    ///
    /// # Panics
    /// Never: they are in memory.
    pub fn finish(self) -> Vec<u8> {
        self.gzip.finish().expect("it is in memory")
    }
}

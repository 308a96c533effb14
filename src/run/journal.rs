//! The journal of a real-time run: an append-only file from which a run that was cut short goes on.
//!
//! A frame is the length of its payload (u32, little endian), the payload's CRC-32 and the payload, a postcard-encoded
//! [`Entry`]. The first entry is the header. Frames reach the operating system at least every [`FLUSH_EVERY`], and at
//! once where a cell or a segment starts or ends, so a killed process loses at most the records of that time, which a
//! resumed run plays again. Reading stops at the first frame that is torn.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Played;
use crate::record::{GapRun, Record};
use crate::units::Ns;

/// The longest that a record may wait in this process's memory.
pub const FLUSH_EVERY: Duration = Duration::from_millis(20);

/// Identifies the format; another one is refused.
const MAGIC: &[u8; 8] = b"sgbench3";

/// A payload larger than this is torn or foreign: the longest answers have a few million gaps of a few bytes.
const MAX_FRAME: u32 = 1 << 28;

/// The gaps of a request are kept as they are up to so many runs of equal ones.
const EXACT_RUNS: usize = 64;

/// Names a cell by its positions: workload in the plan, backend among the chosen ones, repeat from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CellKey {
    /// Position in the plan's workloads; behind them stand the groups.
    pub workload: u32,
    /// Position among the chosen backends.
    pub backend: u32,
    /// Which repeat.
    pub repeat: u32,
    /// Which probe of a search, from 1; 0 where there is no search.
    pub probe: u32,
}

/// Which plan a journal belongs to, and on which backends it is played.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The plan's schedule digest.
    pub schedule_digest: String,
    /// The plan's content digest.
    pub content_digest: String,
    /// The names of the backends, in order.
    pub backends: Vec<String>,
}

/// One frame after the header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// A process began to play.
    Segment {
        /// Unix seconds.
        start_time: f64,
    },
    /// A cell begins; the records that follow are its own.
    Cell {
        /// Which.
        key: CellKey,
        /// Unix seconds.
        start_time: f64,
    },
    /// A request ended.
    Record(Box<Record>, Vec<GapRun>),
    /// A cell is complete.
    CellEnd {
        /// Which.
        key: CellKey,
        /// How it went.
        played: Box<Played>,
    },
    /// The process stopped on a signal, having written everything.
    Stopped {
        /// The signal's number.
        signal: u8,
    },
    /// The records that follow are of this cell, which has begun before: cells of a group take turns.
    Turn {
        /// Which.
        key: CellKey,
    },
}

/// Why a journal can not be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file can not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is no journal.
    #[error("{} is no journal of this version of the program; --force starts afresh", .0.display())]
    Foreign(PathBuf),
    /// An entry can not be encoded.
    #[error("a record can not be encoded: {0}")]
    Encoding(#[from] postcard::Error),
}

/// A journal open for writing.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    flushed: Instant,
}

/// What a journal holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Contents {
    /// Which plan it belongs to.
    pub header: Header,
    /// What is known of each cell.
    pub cells: BTreeMap<CellKey, CellEntries>,
    /// The segments, oldest first.
    pub segments: Vec<Segment>,
    /// Bytes at the end that are no whole frame.
    pub torn_bytes: u64,
}

/// What a journal knows of a cell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CellEntries {
    /// When it first began, Unix seconds.
    pub start_time: Option<f64>,
    /// Its records, in order of ending.
    pub records: Vec<(Record, Vec<GapRun>)>,
    /// How it went, when it is complete.
    pub played: Option<Played>,
}

/// One stretch of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// When it began, Unix seconds; 0 on the virtual clock.
    pub start_time: f64,
    /// How many requests ended in it.
    pub requests: u64,
    /// Why it ended before everything was done.
    pub ended_by: Option<String>,
}

impl Journal {
    fn error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> JournalError {
        let path = path.to_owned();
        move |source| JournalError::Io { action, path, source }
    }

    /// Starts a journal; a file that is there is replaced. It has its name once its header is written.
    pub fn create(path: &Path, header: &Header) -> Result<Self, JournalError> {
        let begun = path.with_extension("new");
        let file = File::create(&begun).map_err(Self::error(path, "create"))?;
        let mut journal =
            Self { path: path.to_owned(), file, buffer: MAGIC.to_vec(), flushed: Instant::now() };
        journal.append(header)?;
        journal.flush()?;
        std::fs::rename(&begun, path).map_err(Self::error(path, "create"))?;
        Ok(journal)
    }

    /// Reads a journal, cuts off what is torn, and goes on after it.
    pub fn resume(path: &Path) -> Result<(Self, Contents), JournalError> {
        let mut bytes = Vec::new();
        let mut file =
            OpenOptions::new().read(true).append(true).open(path).map_err(Self::error(path, "open"))?;
        file.read_to_end(&mut bytes).map_err(Self::error(path, "read"))?;
        let contents = read(&bytes).ok_or_else(|| JournalError::Foreign(path.to_owned()))?;
        file.set_len(bytes.len() as u64 - contents.torn_bytes).map_err(Self::error(path, "shorten"))?;
        let journal = Self { path: path.to_owned(), file, buffer: Vec::new(), flushed: Instant::now() };
        Ok((journal, contents))
    }

    /// Adds an entry and hands everything to the operating system.
    pub fn write(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.append(entry)?;
        self.flush()
    }

    /// Adds a record; it reaches the operating system within [`FLUSH_EVERY`] as long as records keep coming. Its gaps are kept
    /// as they are where `exact`, else in a space that does not grow with its tokens.
    pub fn record(&mut self, record: &Record, gaps: &[GapRun], exact: bool) -> Result<(), JournalError> {
        // The same bytes as `Entry::Record`, without copying the gaps.
        #[derive(Serialize)]
        enum Borrowed<'a> {
            #[expect(dead_code, reason = "keeps the variant's number")]
            Segment,
            #[expect(dead_code, reason = "keeps the variant's number")]
            Cell,
            Record(&'a Record, &'a [GapRun]),
        }
        let gaps = if exact { Cow::Borrowed(gaps) } else { condensed(gaps) };
        self.append(&Borrowed::Record(record, &gaps))?;
        if self.flushed.elapsed() >= FLUSH_EVERY { self.flush() } else { Ok(()) }
    }

    /// The records that follow are of this cell. It reaches the operating system with them.
    pub fn turn(&mut self, key: CellKey) -> Result<(), JournalError> {
        self.append(&Entry::Turn { key })
    }

    fn append(&mut self, value: &impl Serialize) -> Result<(), JournalError> {
        let start = self.buffer.len();
        self.buffer.extend([0; 8]);
        self.buffer = postcard::to_extend(value, std::mem::take(&mut self.buffer))?;
        let payload = &self.buffer[start + 8..];
        let head = [(payload.len() as u32).to_le_bytes(), crc32fast::hash(payload).to_le_bytes()].concat();
        self.buffer[start..start + 8].copy_from_slice(&head);
        Ok(())
    }

    /// Hands everything to the operating system.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        self.file.write_all(&self.buffer).map_err(Self::error(&self.path, "write"))?;
        self.buffer.clear();
        self.flushed = Instant::now();
        Ok(())
    }
}

/// The gaps of a request in a space that does not grow with its tokens: as they are where there are few different ones,
/// else in ascending order to 11 bits, 0.05 % from the true ones at most. Their number is kept.
fn condensed(gaps: &[GapRun]) -> Cow<'_, [GapRun]> {
    if gaps.len() <= EXACT_RUNS {
        return Cow::Borrowed(gaps);
    }
    let mut coarse: Vec<GapRun> =
        gaps.iter().map(|run| GapRun { gap: middle(run.gap), count: run.count }).collect();
    coarse.sort_unstable_by_key(|run| run.gap);
    coarse.dedup_by(|next, run| {
        let sum = run.count.checked_add(next.count).filter(|_| run.gap == next.gap);
        run.count = sum.unwrap_or(run.count);
        sum.is_some()
    });
    Cow::Owned(coarse)
}

/// The middle of the values that share a value's 11 leading bits.
fn middle(gap: Ns) -> Ns {
    let cut = Ns::BITS.saturating_sub(gap.leading_zeros() + 11);
    (gap >> cut << cut) + (1 << cut >> 1)
}

/// The next frame's payload and what follows it; `None` at the end and where a frame is torn.
fn frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    let (payload, rest) = rest.split_at_checked(length as usize).filter(|_| length <= MAX_FRAME)?;
    (crc32fast::hash(payload) == u32::from_le_bytes(*checksum)).then_some((payload, rest))
}

/// Reads a journal's bytes; `None` when they do not begin as a journal does.
fn read(bytes: &[u8]) -> Option<Contents> {
    let (payload, mut rest) = frame(bytes.strip_prefix(MAGIC)?)?;
    let header = postcard::from_bytes(payload).ok()?;
    let mut contents = Contents { header, cells: BTreeMap::new(), segments: Vec::new(), torn_bytes: 0 };
    let mut current = None;
    while let Some((payload, after)) = frame(rest) {
        let Ok(entry) = postcard::from_bytes(payload) else { break };
        contents.take(entry, &mut current);
        rest = after;
    }
    contents.torn_bytes = rest.len() as u64;
    Some(contents)
}

impl Contents {
    fn take(&mut self, entry: Entry, current: &mut Option<CellKey>) {
        match entry {
            Entry::Segment { start_time } => {
                if let Some(last) = self.segments.last_mut() {
                    last.ended_by.get_or_insert_with(|| "the process was killed".into());
                }
                self.segments.push(Segment { start_time, requests: 0, ended_by: None });
                *current = None;
            }
            Entry::Cell { key, start_time } => {
                if key.probe > 0 {
                    // What was cut off is played again from its start: half a probe says nothing about its level.
                    self.cells.remove(&key);
                }
                self.cells.entry(key).or_default().start_time.get_or_insert(start_time);
                *current = Some(key);
            }
            Entry::Record(record, gaps) => {
                if let Some(key) = current {
                    self.cells.entry(*key).or_default().records.push((*record, gaps));
                }
                if let Some(last) = self.segments.last_mut() {
                    last.requests += 1;
                }
            }
            Entry::Turn { key } => *current = Some(key),
            Entry::CellEnd { key, played } => self.cells.entry(key).or_default().played = Some(*played),
            Entry::Stopped { signal } => {
                if let Some(last) = self.segments.last_mut() {
                    last.ended_by = Some(format!("signal {signal}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backend::EngineStats;
    use crate::record::{Outcome, Phase, TokenSource};
    use crate::run::Ending;

    const KEY: CellKey = CellKey { workload: 1, backend: 0, repeat: 2, probe: 0 };

    fn header() -> Header {
        Header { schedule_digest: "aa".into(), content_digest: "bb".into(), backends: vec!["mock".into()] }
    }

    fn record(index: u64) -> Record {
        Record {
            index,
            phase: Phase::Measured,
            session: None,
            due: index,
            sent: Some(index),
            connect: 0,
            scheduled: None,
            first: None,
            first_answer: None,
            end: index + 7,
            cap_wait: 0,
            longest_gap: 3,
            prompt_tokens: 4,
            asked_tokens: 5,
            forced: true,
            output_tokens: 5,
            first_event_tokens: 1,
            events: 1,
            stream: None,
            preemptions: 0,
            token_source: TokenSource::Engine,
            outcome: Outcome::HttpStatus(503),
            message: Some("busy".into()),
            checked: None,
            retried: None,
        }
    }

    fn written(dir: &Path) -> PathBuf {
        let path = dir.join("journal.bin");
        let mut journal = Journal::create(&path, &header()).unwrap();
        journal.write(&Entry::Segment { start_time: 10.0 }).unwrap();
        journal.write(&Entry::Cell { key: KEY, start_time: 11.0 }).unwrap();
        for index in 0..3 {
            journal.record(&record(index), &[GapRun { gap: 5, count: 2 }], false).unwrap();
        }
        let played = Played {
            measure_start: 0,
            measure_end: 9,
            max_in_flight: 1,
            stats: EngineStats {
                evict_ns: Some(1),
                unavailable: vec![("evict_ms".into(), "why".into())],
                ..EngineStats::default()
            },
            processor: None,
            ending: Ending::Complete,
        };
        journal.write(&Entry::CellEnd { key: KEY, played: Box::new(played) }).unwrap();
        path
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path());
        let (_, contents) = Journal::resume(&path).unwrap();
        assert_eq!((contents.header, contents.torn_bytes), (header(), 0));
        let cell = &contents.cells[&KEY];
        assert_eq!(cell.start_time, Some(11.0));
        let expected: Vec<_> = (0..3).map(|i| (record(i), vec![GapRun { gap: 5, count: 2 }])).collect();
        assert_eq!(cell.records, expected);
        assert_eq!(cell.played.as_ref().unwrap().stats.evict_ns, Some(1));
        assert_eq!(contents.segments, [Segment { start_time: 10.0, requests: 3, ended_by: None }]);
    }

    proptest! {
        #[test]
        fn condensed_gaps_are_as_many_and_close_to_the_true_ones(
            gaps in prop::collection::vec((0u64..u64::MAX, 1u32..3), 0..200),
            near in prop::collection::vec(8_000_000u64..12_000_000, 0..5000),
        ) {
            let runs = |pairs: &[(Ns, u32)]| -> Vec<GapRun> {
                pairs.iter().map(|(gap, count)| GapRun { gap: *gap, count: *count }).collect()
            };
            let near: Vec<(Ns, u32)> = near.into_iter().map(|gap| (gap, 1)).collect();
            for pairs in [gaps, near.clone()] {
                let runs = runs(&pairs);
                let kept = condensed(&runs);
                if runs.len() <= EXACT_RUNS {
                    prop_assert_eq!(kept.as_ref(), runs.as_slice());
                }
                let each = |runs: &[GapRun]| {
                    let mut each: Vec<Ns> =
                        runs.iter().flat_map(|run| std::iter::repeat_n(run.gap, run.count as usize)).collect();
                    each.sort_unstable();
                    each
                };
                let (before, after) = (each(&runs), each(&kept));
                prop_assert_eq!(before.len(), after.len());
                for (before, after) in before.iter().zip(&after) {
                    prop_assert!(before.abs_diff(*after) as f64 <= *before as f64 / 2048.0, "{before} {after}");
                }
            }
            // From 8 to 12 ms there are 95 steps of 4.1 µs and 442 of 8.2 µs, however many tokens there are.
            prop_assert!(condensed(&runs(&near)).len() <= 95 + 442);
        }
    }

    #[test]
    fn cut_at_any_byte_it_keeps_every_whole_frame_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let whole = std::fs::read(written(dir.path())).unwrap();
        let mut most = 0;
        for length in 0..whole.len() {
            let path = dir.path().join("cut.bin");
            std::fs::write(&path, &whole[..length]).unwrap();
            let Ok((mut journal, before)) = Journal::resume(&path) else {
                assert!(most == 0, "a journal with its header is readable ({length} bytes)");
                continue;
            };
            let count = before.cells.values().map(|cell| cell.records.len()).sum::<usize>();
            assert!(count >= most, "{length} bytes");
            most = count;
            journal.write(&Entry::Segment { start_time: 20.0 }).unwrap();
            drop(journal);
            let (_, after) = Journal::resume(&path).unwrap();
            assert_eq!(after.torn_bytes, 0);
            assert_eq!(after.segments.len(), before.segments.len() + 1);
            if let Some(first) = before.segments.first() {
                assert_eq!(after.segments[0].requests, first.requests);
                assert!(after.segments[0].ended_by.is_some());
            }
        }
        assert_eq!(most, 3);
    }

    #[test]
    fn a_flipped_byte_ends_it_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path());
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            std::fs::write(&path, &bytes).unwrap();
            if let Ok((_, contents)) = Journal::resume(&path) {
                assert!(contents.torn_bytes > 0, "byte {at}");
            }
        }
    }

    #[test]
    fn another_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "not a journal").unwrap();
        assert!(matches!(Journal::resume(&path), Err(JournalError::Foreign(_))));
        assert!(matches!(Journal::resume(&dir.path().join("y")), Err(JournalError::Io { .. })));
    }
}

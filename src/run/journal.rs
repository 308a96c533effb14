//! The journal of a real-clock run: an append-only file of what was measured, so that a killed run can be resumed.
//!
//! A file is a row of frames: the payload's length and CRC-32 (both u32, little-endian), then the payload in postcard. The
//! first payload is a [`Header`], all others are [`Entry`]s. Each frame is given to the operating system as soon as it is
//! written, so a killed process loses nothing; reading stops at the first frame that is not whole.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::record::{GapRun, Record};

/// The version of the format.
pub const VERSION: u32 = 1;
/// Length and checksum before each payload.
const PREFIX: usize = 8;
/// No frame is longer: a larger length is a torn one. A record with a gap for each of 16,777,216 tokens fits.
const LONGEST: u32 = 1 << 29;

/// What a journal belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub version: u32,
    /// The scenario's name.
    pub scenario: String,
    /// The plan's schedule digest.
    pub schedule_digest: String,
    /// The plan's content digest.
    pub content_digest: String,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// A cell begins, or goes on after a resume.
    Cell(CellStart),
    /// A request of a cell has ended.
    Record {
        /// The cell's number.
        cell: u32,
        /// Its record.
        record: Record,
        /// Its gaps between tokens.
        gaps: Vec<GapRun>,
    },
}

/// Which cell a number stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellStart {
    /// The number that its records carry.
    pub cell: u32,
    /// The workload's full name.
    pub workload: String,
    /// The backend's name.
    pub backend: String,
    /// The repeat, from 0.
    pub repeat: u32,
    /// Its T0, in nanoseconds since the Unix epoch.
    pub started_unix_ns: u64,
}

/// Why a journal can not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file can not be opened, read or written.
    #[error("the journal `{}` can not be {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Something else.
    #[error("`{}` is no journal of this program; remove it or run without resuming", .0.display())]
    Foreign(PathBuf),
    /// Written by another version.
    #[error("the journal `{}` has version {found}, this program reads version {VERSION}; run without resuming", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// More than a frame holds.
    #[error("a record for the journal `{}` can not be encoded: {reason}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    /// How long the file is up to its last whole frame.
    length: u64,
    /// One frame; kept for its memory.
    buffer: Vec<u8>,
}

impl Journal {
    /// Begins a journal, over any earlier one.
    ///
    /// # Errors
    /// When the file can not be created or written.
    pub fn create(path: &Path, header: &Header) -> Result<Self, JournalError> {
        let file = File::create(path).map_err(|source| io_error(path, "created", source))?;
        let mut journal = Self { file, path: path.to_owned(), length: 0, buffer: Vec::new() };
        journal.frame(header)?;
        Ok(journal)
    }

    /// Goes on with a journal that was read to its end: what is torn behind its last whole frame is cut off.
    ///
    /// # Errors
    /// When the file can not be opened or cut.
    pub fn resume(reader: &JournalReader) -> Result<Self, JournalError> {
        let path = reader.path.as_path();
        let error = |source| io_error(path, "opened for writing", source);
        let mut file = OpenOptions::new().write(true).open(path).map_err(error)?;
        file.set_len(reader.length).map_err(error)?;
        file.seek(SeekFrom::End(0)).map_err(error)?;
        Ok(Self { file, path: path.to_owned(), length: reader.length, buffer: Vec::new() })
    }

    /// Appends one entry and gives it to the operating system.
    ///
    /// # Errors
    /// When it can not be written, as on a full disk. What was written before stays whole, and a later entry may succeed.
    pub fn write(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.frame(entry)
    }

    /// Appends one record, without making an [`Entry`] of it.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_record(&mut self, cell: u32, record: &Record, gaps: &[GapRun]) -> Result<(), JournalError> {
        self.frame(&EntryRef::Record { cell, record, gaps })
    }

    fn frame<T: Serialize>(&mut self, payload: &T) -> Result<(), JournalError> {
        self.buffer.clear();
        self.buffer.resize(PREFIX, 0);
        let buffer = std::mem::take(&mut self.buffer);
        let encoded = postcard::to_extend(payload, buffer).map_err(|error| error.to_string());
        let encode = |reason| JournalError::Encode { path: self.path.clone(), reason };
        let mut buffer = encoded.map_err(encode)?;
        let payload = &buffer[PREFIX..];
        let length = u32::try_from(payload.len()).ok().filter(|length| *length <= LONGEST);
        let length = length.ok_or_else(|| encode(format!("{} bytes are too many", payload.len())))?;
        let checksum = crc32fast::hash(payload);
        buffer[..4].copy_from_slice(&length.to_le_bytes());
        buffer[4..PREFIX].copy_from_slice(&checksum.to_le_bytes());
        self.buffer = buffer;
        if let Err(source) = self.file.write_all(&self.buffer) {
            // Half a frame would hide everything behind it. When even this fails, reading stops there.
            let _ = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::End(0)));
            return Err(io_error(&self.path, "written", source));
        }
        self.length += self.buffer.len() as u64;
        Ok(())
    }
}

/// [`Entry`] by reference; encodes alike.
#[derive(Serialize)]
enum EntryRef<'a> {
    #[expect(dead_code, reason = "keeps the numbers of the variants equal to those of Entry")]
    Cell(&'a CellStart),
    Record {
        cell: u32,
        record: &'a Record,
        gaps: &'a [GapRun],
    },
}

/// Reads a journal, frame by frame.
#[derive(Debug)]
pub struct JournalReader {
    file: BufReader<File>,
    path: PathBuf,
    header: Header,
    size: u64,
    /// How long the file is up to the last whole frame that was read.
    length: u64,
    ended: bool,
}

impl JournalReader {
    /// Opens a journal and reads its header.
    ///
    /// # Errors
    /// When the file can not be read, is no journal, or is of another version.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let error = |source| io_error(path, "read", source);
        let file = File::open(path).map_err(error)?;
        let metadata = file.metadata().map_err(error)?;
        if !metadata.is_file() {
            return Err(JournalError::Foreign(path.to_owned()));
        }
        let header = Header {
            version: 0,
            scenario: String::new(),
            schedule_digest: String::new(),
            content_digest: String::new(),
        };
        let mut reader = Self {
            file: BufReader::new(file),
            path: path.to_owned(),
            header,
            size: metadata.len(),
            length: 0,
            ended: false,
        };
        let foreign = || JournalError::Foreign(path.to_owned());
        let payload = reader.frame()?.ok_or_else(foreign)?;
        let (version, _) = postcard::take_from_bytes::<u32>(&payload).map_err(|_| foreign())?;
        if version != VERSION {
            return Err(JournalError::Version { path: path.to_owned(), found: version });
        }
        reader.header = postcard::from_bytes(&payload).map_err(|_| foreign())?;
        Ok(reader)
    }

    /// What the journal belongs to.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next entry; `None` at the end, and from the first frame on that is torn.
    ///
    /// # Errors
    /// When the file can not be read.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, JournalError> {
        let before = self.length;
        let Some(payload) = self.frame()? else { return Ok(None) };
        let entry = postcard::from_bytes(&payload).ok();
        if entry.is_none() {
            (self.length, self.ended) = (before, true);
        }
        Ok(entry)
    }

    /// Bytes behind the last whole frame, once all entries are read. Above 0 the last write was cut short.
    pub fn dropped_bytes(&self) -> u64 {
        self.size.saturating_sub(self.length)
    }

    /// The next whole frame's payload.
    fn frame(&mut self) -> Result<Option<Vec<u8>>, JournalError> {
        let left = self.size.saturating_sub(self.length);
        if self.ended || left < PREFIX as u64 {
            self.ended = true;
            return Ok(None);
        }
        let mut prefix = [0; PREFIX];
        self.fill(&mut prefix)?;
        let [a, b, c, d, e, f, g, h] = prefix;
        let length = u32::from_le_bytes([a, b, c, d]);
        let checksum = u32::from_le_bytes([e, f, g, h]);
        if length > LONGEST || u64::from(length) > left - PREFIX as u64 {
            self.ended = true;
            return Ok(None);
        }
        let mut payload = vec![0; length as usize];
        self.fill(&mut payload)?;
        if crc32fast::hash(&payload) != checksum {
            self.ended = true;
            return Ok(None);
        }
        self.length += PREFIX as u64 + u64::from(length);
        Ok(Some(payload))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), JournalError> {
        self.file.read_exact(bytes).map_err(|source| io_error(&self.path, "read", source))
    }
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> JournalError {
    JournalError::Io { path: path.to_owned(), action, source }
}

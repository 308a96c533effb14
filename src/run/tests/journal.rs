//! Journals that are whole, torn, foreign, and gone on with.

use std::path::Path;

use super::*;
use crate::run::journal::{CellStart, Entry, Header, Journal, JournalReader, VERSION};

fn header() -> Header {
    let (schedule_digest, content_digest) = ("ab".into(), "cd".into());
    Header { version: VERSION, scenario: "year1".into(), schedule_digest, content_digest }
}

fn entries() -> Vec<Entry> {
    let start = CellStart {
        cell: 0,
        workload: "w".into(),
        backend: "mock".into(),
        repeat: 0,
        started_unix_ns: 1_705_430_400_000_000_000,
    };
    let (_, kept) = run(&plan(closed(1)), recipes(3, 16, 3));
    let records = kept.0.into_iter().map(|(record, gaps)| Entry::Record { cell: 0, record, gaps });
    std::iter::once(Entry::Cell(start)).chain(records).collect()
}

fn write(path: &Path, entries: &[Entry]) {
    let mut journal = Journal::create(path, &header()).unwrap();
    for entry in entries {
        journal.write(entry).unwrap();
    }
}

fn read(path: &Path) -> (Vec<Entry>, JournalReader) {
    let mut reader = JournalReader::open(path).unwrap();
    assert_eq!(reader.header(), &header());
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        entries.push(entry);
    }
    (entries, reader)
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    write(&path, &entries());
    let (found, reader) = read(&path);
    assert_eq!(found, entries());
    assert_eq!(reader.dropped_bytes(), 0);
}

#[test]
fn a_record_by_reference_is_written_alike() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    write(&whole, &entries());
    let mut journal = Journal::create(&parts, &header()).unwrap();
    for entry in entries() {
        match &entry {
            Entry::Record { cell, record, gaps } => journal.write_record(*cell, record, gaps).unwrap(),
            Entry::Cell(_) => journal.write(&entry).unwrap(),
        }
    }
    assert_eq!(std::fs::read(whole).unwrap(), std::fs::read(parts).unwrap());
}

#[test]
fn a_journal_torn_at_any_byte_keeps_its_whole_frames_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let all = entries();
    let mut ends = Vec::new();
    for count in 0..=all.len() {
        write(&path, &all[..count]);
        ends.push(std::fs::metadata(&path).unwrap().len() as usize);
    }
    let bytes = std::fs::read(&path).unwrap();
    for cut in 0..=bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        if cut < ends[0] {
            let error = JournalReader::open(&path).unwrap_err().to_string();
            assert!(error.contains("is no journal of this program"), "{error}");
            continue;
        }
        let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
        let (found, reader) = read(&path);
        assert_eq!(found, all[..whole], "cut at {cut}");
        assert_eq!(reader.dropped_bytes() as usize, cut - ends[whole], "cut at {cut}");
        let mut journal = Journal::resume(&reader).unwrap();
        for entry in &all[whole..] {
            journal.write(entry).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "cut at {cut}");
    }
}

#[test]
fn a_changed_byte_ends_the_journal_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    write(&path, &entries());
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (found, reader) = read(&path);
    assert_eq!(found, entries()[..3]);
    assert!(reader.dropped_bytes() > 0);
}

#[test]
fn what_is_no_journal_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let message = |path: &Path| {
        JournalReader::open(path).unwrap_err().to_string().replace(&*path.to_string_lossy(), "j")
    };
    assert!(message(&path).starts_with("the journal `j` can not be read: "), "{}", message(&path));
    for bytes in [&b""[..], b"{}", &[0; 8], &[255; 100]] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(message(&path), "`j` is no journal of this program; remove it or run without resuming");
    }
    assert!(message(dir.path()).contains("no journal"));
    Journal::create(&path, &Header { version: 9, ..header() }).unwrap();
    assert_eq!(
        message(&path),
        "the journal `j` has version 9, this program reads version 1; run without resuming"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let error = Journal::create(Path::new("/dev/full"), &header()).unwrap_err().to_string();
    assert!(error.starts_with("the journal `/dev/full` can not be written: "), "{error}");
}

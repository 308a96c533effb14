//! What one cell's requests came to: measured records and pooled gaps.

use super::Pool;
use crate::record::{Basis, Checked, GapRun, Phase, Record};
use crate::units::Ns;

/// The measured records of one cell (of one repeat, or of several merged) and their pooled gaps.
///
/// Warm-up requests are counted and otherwise left out. The pool holds the gaps of every measured request that
/// produced tokens, however it ended: those tokens reached the user.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    records: Vec<Record>,
    warmup: u64,
    gaps: Pool,
    basis: Basis,
    dues: Vec<DueSpan>,
}

/// Over which time the requests of one repeat were due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DueSpan {
    pub(super) first: Ns,
    pub(super) last: Ns,
    pub(super) requests: u64,
}

impl Samples {
    /// No samples yet, of a load whose latency counts from `basis`.
    pub fn new(basis: Basis) -> Self {
        Self { records: Vec::new(), warmup: 0, gaps: Pool::default(), basis, dues: Vec::new() }
    }

    /// Makes room for so many records at once, up to a million.
    #[must_use]
    pub fn expecting(mut self, records: u64) -> Self {
        self.records.reserve(records.min(1_000_000) as usize);
        self
    }

    /// Takes one record and its gaps.
    pub fn push(&mut self, record: Record, gaps: &[GapRun]) {
        if record.phase == Phase::Warmup {
            self.warmup += 1;
            return;
        }
        for run in gaps {
            self.gaps.record_n(run.gap, u64::from(run.count));
        }
        if let [span] = self.dues.as_mut_slice() {
            span.first = span.first.min(record.due);
            span.last = span.last.max(record.due);
            span.requests += 1;
        } else {
            self.dues.push(DueSpan { first: record.due, last: record.due, requests: 1 });
        }
        self.records.push(record);
    }

    /// Takes a gap that `count` measured requests had, which is not among those of their records.
    pub fn push_gaps(&mut self, gap: Ns, count: u64) {
        self.gaps.record_n(gap, count);
    }

    /// Pools the samples of a further repeat (or shard) of the same cell. Push no single records afterwards.
    pub fn merge(&mut self, other: &Self) {
        self.records.extend(other.records.iter().cloned());
        self.warmup += other.warmup;
        self.gaps.merge(&other.gaps);
        self.dues.extend(&other.dues);
    }

    /// The samples of workloads that were played at once, as if they were one. Latency counts from when requests were due where
    /// it does for one of them; that of the others, which counts from when they were sent, stays what it is. Checks are each
    /// workload's own.
    pub fn pooled(parts: &[&Self]) -> Self {
        let basis = if parts.iter().any(|part| part.basis == Basis::Due) { Basis::Due } else { Basis::Sent };
        let mut pooled = Self::new(basis);
        for part in parts {
            for record in &part.records {
                pooled.push(Self::as_pooled(record, part.basis, basis), &[]);
            }
            pooled.warmup += part.warmup;
            pooled.gaps.merge(&part.gaps);
        }
        pooled
    }

    /// A record of a workload with the basis `own` as it stands among those of a group with the basis `common`.
    pub fn as_pooled(record: &Record, own: Basis, common: Basis) -> Record {
        let mut record = record.clone();
        if own != common {
            record.due = record.sent.unwrap_or(record.due);
        }
        // What hooks recorded has the same place in all of them.
        let recorded = record.checked.take().map(|checked| checked.recorded).unwrap_or_default();
        if !recorded.is_empty() {
            record.checked = Some(Box::new(Checked { recorded, ..Checked::default() }));
        }
        record
    }

    /// The measured records in the order they were taken.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The measured records by due time, then by index.
    pub fn by_due(&self) -> Vec<&Record> {
        let mut records: Vec<_> = self.records.iter().collect();
        records.sort_by_key(|record| (record.due, record.index));
        records
    }

    /// The pooled gaps between tokens.
    pub fn gaps(&self) -> &Pool {
        &self.gaps
    }

    /// How many warm-up requests there were.
    pub fn warmup(&self) -> u64 {
        self.warmup
    }

    /// From which moment latency counts.
    pub fn basis(&self) -> Basis {
        self.basis
    }

    pub(super) fn dues(&self) -> &[DueSpan] {
        &self.dues
    }
}

//! Takes what is heard of a cell's requests.

use super::cell::{Progress, Taken, standing_records};
use super::prepare::Prepared;
use crate::gate::{Fired, Watch};
use crate::record::{GapRun, Record};
use crate::run::journal::{CellEntries, Journal, JournalError};
use crate::run::{CellKey, Flow, Observer, Played};
use crate::units::Ns;

/// What playing a cell left.
pub(super) struct Recorded {
    pub(super) played: Played,
    pub(super) taken: Taken,
    pub(super) failed: Option<JournalError>,
    pub(super) count: u64,
    pub(super) fired: Option<Fired>,
}

impl Recorded {
    /// What an earlier segment finished.
    pub(super) fn restored(prepared: &Prepared, key: CellKey, done: &CellEntries, played: Played) -> Self {
        let mut taken = Taken::new(prepared, key);
        for (record, gaps) in standing_records(&done.records) {
            taken.push(record, gaps);
        }
        Self { played, taken, failed: None, count: 0, fired: None }
    }
}

/// So many steps are counted at once: one after the other each would wait for its place in memory.
const STEPS: usize = 256;

/// Takes the records of a cell: into its samples, the journal and the progress.
pub(super) struct Recorder<'a> {
    taken: Taken,
    journal: &'a mut Option<Journal>,
    failed: Option<JournalError>,
    progress: &'a mut dyn Progress,
    count: u64,
    watch: Watch<'a>,
    /// Steps that are not counted yet: how long, and for how many requests.
    steps: Vec<(Ns, u32)>,
}

impl<'a> Recorder<'a> {
    /// `taken` is what was taken before.
    pub(super) fn new(
        taken: Taken,
        journal: &'a mut Option<Journal>,
        progress: &'a mut dyn Progress,
        watch: Watch<'a>,
    ) -> Self {
        Self { taken, journal, failed: None, progress, count: 0, watch, steps: Vec::with_capacity(STEPS) }
    }

    pub(super) fn done(mut self, played: Played) -> Recorded {
        self.count_steps();
        let Self { taken, failed, count, watch, .. } = self;
        Recorded { played, taken, failed, count, fired: watch.fired().cloned() }
    }

    fn count_steps(&mut self) {
        for (gap, requests) in self.steps.drain(..) {
            self.taken.samples.push_gaps(gap, u64::from(requests));
        }
    }
}

impl Observer for Recorder<'_> {
    fn on_record(&mut self, record: &Record, gaps: &[GapRun]) -> Flow {
        self.taken.push(record, gaps);
        self.progress.recorded();
        self.count += 1;
        let exact = self.taken.tokens.is_some();
        match self.journal.as_mut().map(|journal| journal.record(record, gaps, exact)) {
            Some(Err(error)) => {
                let reason = error.to_string();
                self.failed = Some(error);
                Flow::Abort(reason)
            }
            Some(Ok(())) | None => self.watch.on_record(record, gaps),
        }
    }

    fn pools_gaps(&self) -> bool {
        // The journal and the token log keep each request's own.
        self.journal.is_none() && self.taken.tokens.is_none()
    }

    fn on_step(&mut self, gap: Ns, requests: u32) {
        self.steps.push((gap, requests));
        if self.steps.len() == STEPS {
            self.count_steps();
        }
    }
}

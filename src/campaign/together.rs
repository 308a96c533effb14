//! Cells of a run on the virtual clock, which share nothing: several at once, with the results of one after another.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::cell::{Cell, CellStart, Progress};
use super::conduct::{Campaign, CampaignError, Settings, cell_start, play_mock_cell};
use super::group::{cells, play_mock_group};
use super::prepare::Prepared;
use super::recorder::Recorded;
use crate::backend::config::Clock;
use crate::run::{CellKey, Stop};
use crate::units::seconds;

/// How often progress is shown and a stop is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// The signal by which cells whose results nobody wants any more are stopped.
const UNWANTED: u8 = u8::MAX;

/// Whether the cells of a run can be played at once: nothing that one of them does, not even how long it takes, is seen
/// by another one.
pub fn can(prepared: &Prepared) -> bool {
    prepared.backends.iter().all(|chosen| chosen.config.kind() == "mock" && chosen.clock() == Clock::Virtual)
}

/// A cell, or the cells of a group, played: all but when it was.
type Outcome = Result<(Vec<Cell>, u64), CampaignError>;

/// Counts the requests of a cell, for whoever shows them.
struct Counted<'a>(&'a AtomicU64);

impl Progress for Counted<'_> {
    fn started(&mut self, _: &CellStart<'_>) {}
    fn recorded(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn finished(&mut self, _: &CellStart<'_>, _: f64) {}
}

/// What the threads share.
struct Shared<'a> {
    prepared: &'a Prepared,
    keys: &'a [CellKey],
    /// How many requests each cell has had.
    counts: Vec<AtomicU64>,
    /// The next cell that nobody plays.
    next: AtomicUsize,
    stop: Stop,
}

impl Shared<'_> {
    fn play(&self, key: CellKey, progress: &mut dyn Progress) -> Outcome {
        if self.prepared.plan.group(key.workload).is_some() {
            let recorded = play_mock_group(self.prepared, key, &self.stop, progress)?;
            let count = recorded.members.iter().map(|(_, member)| member.count).sum();
            return Ok((cells(key, recorded, 0.0, None), count));
        }
        let (recorded, searched) = play_mock_cell(self.prepared, key, &self.stop, progress)?;
        let Recorded { played, taken, count, fired, .. } = recorded;
        let end_time = seconds(played.measure_end.saturating_sub(played.measure_start));
        Ok((vec![Cell { key, taken, played, start_time: 0.0, end_time, fired, searched }], count))
    }

    /// Plays cells until none is left or a stop is asked for.
    fn work(&self, results: &Sender<(usize, Outcome)>) {
        while self.stop.requested().is_none() {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(key) = self.keys.get(at).copied() else { return };
            let mut progress = Counted(&self.counts[at]);
            let recorded = self.play(key, &mut progress);
            if results.send((at, recorded)).is_err() {
                return;
            }
        }
    }
}

/// Plays `keys` on `threads` threads. Cells are added in their order, whichever is ready first; progress shows the first
/// one that is not ready. A rule that fires and an error end the run at their cell, as if those behind it had not begun.
///
/// # Errors
/// The first error in the order of the cells.
pub fn play(
    campaign: &mut Campaign<'_>,
    keys: &[CellKey],
    threads: usize,
    settings: &Settings<'_>,
    progress: &mut dyn Progress,
) -> Result<(), CampaignError> {
    let shared = Shared {
        prepared: campaign.prepared,
        keys,
        counts: keys.iter().map(|_| AtomicU64::new(0)).collect(),
        next: AtomicUsize::new(0),
        stop: Stop::default(),
    };
    let mut order = InOrder { campaign, shared: &shared, progress, at: 0, shown: None, interrupted: false };
    let result = thread::scope(|scope| {
        let (sender, results) = channel();
        for _ in 0..threads.min(keys.len()) {
            let (sender, shared) = (sender.clone(), &shared);
            scope.spawn(move || shared.work(&sender));
        }
        drop(sender);
        let mut ready = BTreeMap::new();
        loop {
            if let Some(signal) = settings.stop.requested() {
                shared.stop.request(signal);
            }
            match results.recv_timeout(LOOK) {
                Ok((at, recorded)) => _ = ready.insert(at, recorded),
                Err(RecvTimeoutError::Timeout) => {}
                // All threads are done; of the cells before one that is ready, none is missing.
                Err(RecvTimeoutError::Disconnected) => break Ok(()),
            }
            order.show();
            while let Some(recorded) = ready.remove(&order.at) {
                match recorded.map(|(cells, count)| order.take(cells, count)) {
                    Ok(false) => {}
                    Ok(true) => {
                        shared.stop.request(UNWANTED);
                        return Ok(());
                    }
                    Err(error) => {
                        shared.stop.request(UNWANTED);
                        return Err(error);
                    }
                }
            }
        }
    });
    let InOrder { at, interrupted, .. } = order;
    let fired = campaign.fired().is_some();
    if let Some(signal) = settings.stop.requested().filter(|_| interrupted || (at < keys.len() && !fired)) {
        campaign.signal = Some(signal);
        if let Some(segment) = campaign.segments.last_mut() {
            segment.ended_by = Some(format!("signal {signal}"));
        }
    }
    result
}

/// Takes results in the order of the cells, and shows how it goes.
struct InOrder<'a, 'p> {
    campaign: &'a mut Campaign<'p>,
    shared: &'a Shared<'a>,
    progress: &'a mut dyn Progress,
    /// The first cell that is not ready.
    at: usize,
    /// How many requests of it were shown, once it is shown.
    shown: Option<u64>,
    /// Whether a stop cut a cell off.
    interrupted: bool,
}

impl InOrder<'_, '_> {
    fn show(&mut self) {
        let Some(key) = self.shared.keys.get(self.at) else { return };
        let count = self.shared.counts[self.at].load(Ordering::Relaxed);
        if self.shown.is_none() {
            self.progress.started(&cell_start(self.shared.prepared, *key));
        }
        for _ in self.shown.unwrap_or(0)..count {
            self.progress.recorded();
        }
        self.shown = Some(count);
    }

    /// Adds what comes next. Whether a rule of it ends the run.
    fn take(&mut self, mut taken: Vec<Cell>, count: u64) -> bool {
        self.show();
        let key = self.shared.keys[self.at];
        // What stands for a group is the last of its cells.
        let length = taken.last().map_or(0.0, |cell| cell.end_time);
        self.progress.finished(&cell_start(self.shared.prepared, key), length);
        let cells = &mut self.campaign.cells;
        let start_time = cells.iter().map(|cell| cell.end_time).fold(0.0, f64::max);
        for cell in &mut taken {
            (cell.start_time, cell.end_time) = (start_time, start_time + cell.end_time);
        }
        self.interrupted |= taken.iter().any(Cell::is_interrupted);
        let is_fired = taken.iter().any(|cell| cell.fired.is_some());
        cells.extend(taken);
        if let Some(segment) = self.campaign.segments.last_mut() {
            segment.requests += count;
        }
        self.at += 1;
        self.shown = None;
        is_fired
    }
}

//! The cells of a group: workloads that share one backend and one time, and what stands for all of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::SystemTime;

use super::cell::{
    Cell, Progress, Taken, earlier_time, engine_unavailable, final_records, joined, standing_records,
};
use super::conduct::{CampaignError, Player, cell_start, of, unix, watch};
use super::prepare::Prepared;
use super::recorder::Recorded;
use crate::backend::config::{Backend, Clock};
use crate::backend::{EngineStats, mock};
use crate::gate::Watch;
use crate::measure::Samples;
use crate::plan::{GroupPlan, RecipeStream, WorkloadPlan};
use crate::record::{Basis, GapRun, Record};
use crate::run::journal::{CellEntries, Entry, Journal, JournalError};
use crate::run::{
    CellKey, Ending, Flow, GroupPlayed, Observer, Part, Played, Resume, RunError, Stop, play_group,
    play_group_live,
};
use crate::units::{Ns, seconds};

/// A workload of a group about to be played.
struct Seat<'a> {
    key: CellKey,
    plan: &'a WorkloadPlan,
    taken: Taken,
    resume: Resume,
    start: Ns,
    until: Option<usize>,
}

/// What playing a group left: its workloads in order, and all of them together.
pub(super) struct GroupRecorded {
    pub(super) members: Vec<(CellKey, Recorded)>,
    pub(super) whole: Recorded,
}

/// The engine's counters of a workload that is not alone in it.
fn shared(group: &str, faults: EngineStats) -> EngineStats {
    let reason = format!("the workloads of `{group}` share the engine, and its counters stand there");
    EngineStats { unavailable: engine_unavailable(&reason), ..faults }
}

/// The keys of a group's workloads in the repeat and on the backend of its own key.
fn keys(group: &GroupPlan, key: CellKey) -> impl Iterator<Item = CellKey> {
    group.members.iter().map(move |member| CellKey { workload: member.workload as u32, ..key })
}

/// Seats for a group that nobody has played any of.
fn fresh<'a>(prepared: &'a Prepared, group: &GroupPlan, key: CellKey) -> Vec<Seat<'a>> {
    let seat = |(key, member): (CellKey, &crate::plan::MemberPlan)| {
        let plan = &prepared.plan.workloads[member.workload];
        let taken = Taken::new(prepared, key);
        Seat { key, plan, taken, resume: Resume::default(), start: member.start, until: member.until }
    };
    keys(group, key).zip(&group.members).map(seat).collect()
}

/// Plays a group on a mock on the virtual clock.
pub(super) fn play_mock_group(
    prepared: &Prepared,
    key: CellKey,
    stop: &Stop,
    progress: &mut dyn Progress,
) -> Result<GroupRecorded, CampaignError> {
    let group = prepared.plan.group(key.workload).expect("who calls this has looked");
    let (_, chosen) = of(prepared, key);
    let Backend::Mock(config) = &chosen.config else { unreachable!("who calls this has looked at the kind") };
    let seats = fresh(prepared, group, key);
    let mut engine = open_mock(prepared, config, &seats, &chosen.name)?;
    let mut journal = None;
    let desk = Desk::new(prepared, key, &mut journal, progress);
    let mut recorded = record(prepared, group, seats, key.repeat, desk, |parts| {
        Ok(play_group(parts, engine.as_mut(), chosen.pace(), stop)?)
    })?;
    recorded.finish(group, None);
    Ok(recorded)
}

fn open_mock(
    prepared: &Prepared,
    config: &crate::backend::config::MockBackend,
    seats: &[Seat<'_>],
    backend: &str,
) -> Result<Box<dyn crate::backend::Stepped>, CampaignError> {
    let families: Vec<&str> = seats.iter().map(|seat| seat.plan.family.as_str()).collect();
    mock::open_shared(config, &families, prepared.plan.seed, &prepared.dir())
        .map_err(|error| CampaignError::Backend { backend: backend.to_owned(), message: error.to_string() })
}

/// Where the records of all workloads go.
struct Desk<'a> {
    journal: &'a mut Option<Journal>,
    progress: &'a mut dyn Progress,
    /// Whose records the journal takes.
    current: Option<CellKey>,
    failed: Option<JournalError>,
    /// The rules about all of them that may stop the run, and the basis of their latency.
    watch: Watch<'a>,
    basis: Basis,
}

impl<'a> Desk<'a> {
    /// `key` is the group's own.
    fn new(
        prepared: &'a Prepared,
        key: CellKey,
        journal: &'a mut Option<Journal>,
        progress: &'a mut dyn Progress,
    ) -> Self {
        let (watch, basis) = (watch(prepared, key), of(prepared, key).0.load.basis());
        Self { journal, progress, current: None, failed: None, watch, basis }
    }

    fn take(
        &mut self,
        key: CellKey,
        record: &Record,
        gaps: &[GapRun],
        exact: bool,
    ) -> Result<(), JournalError> {
        self.progress.recorded();
        let Some(journal) = self.journal.as_mut() else { return Ok(()) };
        if self.current != Some(key) {
            journal.turn(key)?;
            self.current = Some(key);
        }
        journal.record(record, gaps, exact)
    }
}

/// Takes the records of one workload.
struct SeatRecorder<'a, 'd> {
    key: CellKey,
    taken: Taken,
    count: u64,
    watch: Watch<'a>,
    desk: &'d RefCell<Desk<'a>>,
    is_journaled: bool,
}

impl Observer for SeatRecorder<'_, '_> {
    fn on_record(&mut self, record: &Record, gaps: &[GapRun]) -> Flow {
        self.taken.push(record, gaps);
        self.count += 1;
        let mut desk = self.desk.borrow_mut();
        match desk.take(self.key, record, gaps, self.taken.tokens.is_some()) {
            Err(error) => {
                let reason = error.to_string();
                desk.failed = Some(error);
                Flow::Abort(reason)
            }
            Ok(()) => match self.watch.on_record(record, gaps) {
                Flow::Continue if desk.watch.is_idle() => Flow::Continue,
                Flow::Continue => {
                    let record = Samples::as_pooled(record, self.taken.samples.basis(), desk.basis);
                    desk.watch.on_record(&record, gaps)
                }
                abort @ Flow::Abort(_) => abort,
            },
        }
    }

    fn pools_gaps(&self) -> bool {
        // The journal and the token log keep each request's own.
        !self.is_journaled && self.taken.tokens.is_none()
    }

    fn on_step(&mut self, gap: Ns, requests: u32) {
        self.taken.samples.push_gaps(gap, u64::from(requests));
    }
}

/// Plays what is left of a group and takes its records.
fn record<'a>(
    prepared: &'a Prepared,
    group: &GroupPlan,
    mut seats: Vec<Seat<'_>>,
    repeat: u32,
    desk: Desk<'a>,
    play: impl FnOnce(Vec<Part<'_, RecipeStream>>) -> Result<GroupPlayed, CampaignError>,
) -> Result<GroupRecorded, CampaignError> {
    let is_journaled = desk.journal.is_some();
    let desk = RefCell::new(desk);
    let mut recorders: Vec<SeatRecorder<'_, '_>> = seats
        .iter_mut()
        .map(|seat| SeatRecorder {
            key: seat.key,
            taken: std::mem::replace(&mut seat.taken, Taken::new(prepared, seat.key)),
            count: 0,
            watch: watch(prepared, seat.key),
            desk: &desk,
            is_journaled,
        })
        .collect();
    let parts = seats.iter().zip(&mut recorders).map(|(seat, recorder)| Part {
        plan: seat.plan,
        recipes: seat.plan.stream(repeat),
        observer: recorder,
        resume: &seat.resume,
        start: seat.start,
        until: seat.until,
    });
    let GroupPlayed { parts: played, whole } = play(parts.collect())?;
    let members = recorders.into_iter().zip(played).map(|(recorder, played)| {
        let SeatRecorder { key, taken, count, watch, .. } = recorder;
        let fired = watch.fired().cloned();
        (key, Recorded { played, taken, failed: None, count, fired })
    });
    let members: Vec<_> = members.collect();
    let Desk { failed, watch, .. } = desk.into_inner();
    let fired = watch.fired().cloned();
    let taken = Taken { samples: Samples::new(group.pooled.load.basis()), tokens: None };
    Ok(GroupRecorded { members, whole: Recorded { played: whole, taken, failed, count: 0, fired } })
}

impl GroupRecorded {
    /// Says what is known of whom. `earlier` is how long an earlier segment measured.
    fn finish(&mut self, group: &GroupPlan, earlier: Option<&Earlier>) {
        for (at, (_, member)) in self.members.iter_mut().enumerate() {
            let faults = std::mem::take(&mut member.played.stats.faults);
            if let Some(earlier) = earlier {
                member.played = joined(earlier.members[at], member.played.clone());
            }
            let faults = EngineStats { faults, ..EngineStats::default() };
            member.played.stats = shared(&group.name, faults);
        }
        if let Some(earlier) = earlier {
            self.whole.played = joined(earlier.whole, self.whole.played.clone());
        }
        self.pool();
    }

    fn pool(&mut self) {
        let samples: Vec<&Samples> = self.members.iter().map(|(_, member)| &member.taken.samples).collect();
        self.whole.taken.samples = Samples::pooled(&samples);
    }
}

impl Player<'_, '_> {
    /// Plays what is left of a group: the cells of its workloads, and last the one that stands for all of them.
    pub(super) fn group(
        &mut self,
        group: &GroupPlan,
        known: &mut BTreeMap<CellKey, CellEntries>,
        virtual_start: f64,
    ) -> Result<Vec<Cell>, CampaignError> {
        let (prepared, key) = (self.campaign.prepared, self.key);
        let whole = known.remove(&key).unwrap_or_default();
        let done: Vec<CellEntries> =
            keys(group, key).map(|key| known.remove(&key).unwrap_or_default()).collect();
        if let (Some(played), Some(start)) = (&whole.played, whole.start_time) {
            return Ok(restored(prepared, group, key, played, start, &done));
        }
        let clock = self.chosen.clock();
        let t0 = if clock == Clock::Virtual { virtual_start } else { unix(SystemTime::now()) };
        let start = cell_start(prepared, key);
        self.progress.started(&start);
        if let Some(journal) = self.journal.as_mut() {
            for key in keys(group, key).chain([key]) {
                journal.write(&Entry::Cell { key, start_time: t0 })?;
            }
        }
        let mut seats = fresh(prepared, group, key);
        let earlier = take_seats(&mut seats, &done);
        let mut recorded = self.record_group(group, seats)?;
        recorded.finish(group, earlier.as_ref());
        let played = &recorded.whole.played;
        self.progress.finished(&start, seconds(played.measure_end.saturating_sub(played.measure_start)));
        if let Some(segment) = self.campaign.segments.last_mut() {
            segment.requests += recorded.members.iter().map(|(_, member)| member.count).sum::<u64>();
        }
        self.journal_ends(key, &recorded)?;
        let begun = whole.start_time.unwrap_or(t0);
        let failed = recorded.whole.failed.take();
        let now = (clock != Clock::Virtual).then(|| unix(SystemTime::now()));
        let cells = cells(key, recorded, begun, now);
        match failed {
            Some(error) => {
                self.campaign.cells.extend(cells);
                Err(error.into())
            }
            None => Ok(cells),
        }
    }

    fn journal_ends(&mut self, key: CellKey, recorded: &GroupRecorded) -> Result<(), CampaignError> {
        let Some(journal) = self.journal.as_mut() else { return Ok(()) };
        let ended = |played: &Played| matches!(played.ending, Ending::Complete | Ending::TimedOut);
        if !ended(&recorded.whole.played) {
            return Ok(());
        }
        let members = recorded.members.iter().map(|(key, member)| (*key, &member.played));
        for (key, played) in members.chain([(key, &recorded.whole.played)]) {
            journal.write(&Entry::CellEnd { key, played: Box::new(played.clone()) })?;
        }
        Ok(())
    }

    fn record_group(
        &mut self,
        group: &GroupPlan,
        seats: Vec<Seat<'_>>,
    ) -> Result<GroupRecorded, CampaignError> {
        let (prepared, settings, chosen) = (self.campaign.prepared, self.settings, self.chosen);
        let (stop, pace, key) = (settings.stop, chosen.pace(), self.key);
        let repeat = key.repeat;
        let broken = |message: String| CampaignError::Backend { backend: chosen.name.clone(), message };
        if let Backend::Mock(config) = &chosen.config {
            let mut engine = open_mock(prepared, config, &seats, &chosen.name)?;
            let desk = Desk::new(prepared, key, self.journal, self.progress);
            return record(prepared, group, seats, repeat, desk, |parts| {
                Ok(play_group(parts, engine.as_mut(), pace, stop)?)
            });
        }
        let backend = self.key.backend as usize;
        if let Some(model) = self.campaign.models.get(backend).and_then(Option::as_ref) {
            let sampling = seats.iter().map(|seat| seat.plan.sampling.clone()).collect();
            let mut engine = model.engine(sampling).map_err(|error| broken(error.to_string()))?;
            let desk = Desk::new(prepared, key, self.journal, self.progress);
            return record(prepared, group, seats, repeat, desk, |parts| {
                Ok(play_group(parts, &mut engine, pace, stop)?)
            });
        }
        let opened = self.servers.open(backend, prepared, settings, self.progress)?;
        let server = opened.expect("what is neither a mock nor a model is a server");
        let desk = Desk::new(prepared, key, self.journal, self.progress);
        record(prepared, group, seats, repeat, desk, |parts| {
            Ok::<_, RunError>(play_group_live(parts, server, stop)?).map_err(Into::into)
        })
    }
}

/// How long an earlier segment measured: each of the workloads, and all of them from the first request due to the last one ended.
struct Earlier {
    members: Vec<Ns>,
    whole: Ns,
}

/// Puts what an earlier segment did into the seats. `None` where there was none.
fn take_seats(seats: &mut [Seat<'_>], done: &[CellEntries]) -> Option<Earlier> {
    let mut last: Option<Ns> = None;
    for (seat, done) in seats.iter_mut().zip(done) {
        for (record, gaps) in final_records(&done.records) {
            seat.resume.finished.insert((record.phase, record.index));
            seat.taken.push(record, gaps);
            last = last.max(Some(record.end));
        }
        seat.resume.elapsed = earlier_time(&seat.taken.samples);
    }
    for seat in seats.iter_mut() {
        // Who had begun goes on at once, and the others wait for what is left.
        let waited = if seat.resume.finished.is_empty() { last.unwrap_or(0) } else { seat.start };
        seat.start = seat.start.saturating_sub(waited);
    }
    done.iter().any(|done| done.start_time.is_some()).then(|| {
        let samples: Vec<&Samples> = seats.iter().map(|seat| &seat.taken.samples).collect();
        let members = seats.iter().map(|seat| seat.resume.elapsed).collect();
        Earlier { members, whole: earlier_time(&Samples::pooled(&samples)) }
    })
}

/// A group's cells in order: its workloads, then what stands for them. They all begin when the group does.
pub(super) fn cells(key: CellKey, recorded: GroupRecorded, start_time: f64, now: Option<f64>) -> Vec<Cell> {
    let GroupRecorded { members, whole } = recorded;
    let cell = |(key, recorded): (CellKey, Recorded)| {
        let Recorded { played, taken, fired, .. } = recorded;
        let length = seconds(played.measure_end.saturating_sub(played.measure_start));
        let end_time = now.unwrap_or(start_time + length);
        Cell { key, taken, played, start_time, end_time, fired, searched: None }
    };
    members.into_iter().chain([(key, whole)]).map(cell).collect()
}

/// A group that an earlier segment finished.
fn restored(
    prepared: &Prepared,
    group: &GroupPlan,
    key: CellKey,
    whole: &Played,
    start_time: f64,
    done: &[CellEntries],
) -> Vec<Cell> {
    let member = |(key, done): (CellKey, &CellEntries)| {
        let mut taken = Taken::new(prepared, key);
        for (record, gaps) in standing_records(&done.records) {
            taken.push(record, gaps);
        }
        let played = done.played.clone().unwrap_or_else(|| whole.clone());
        (key, Recorded { played, taken, failed: None, count: 0, fired: None })
    };
    let members = keys(group, key).zip(done).map(member).collect();
    let taken = Taken { samples: Samples::new(group.pooled.load.basis()), tokens: None };
    let whole_recorded = Recorded { played: whole.clone(), taken, failed: None, count: 0, fired: None };
    let mut recorded = GroupRecorded { members, whole: whole_recorded };
    recorded.pool();
    let length = seconds(whole.measure_end.saturating_sub(whole.measure_start));
    cells(key, recorded, start_time, Some(start_time + length))
}

//! Plays every cell of a plan in order and hands over what was measured.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tracing::{debug, info};

use super::cell::{
    Cell, CellStart, Progress, Searched, Taken, earlier_time, final_records, joined, standing_records,
};
use super::folder::{Earlier, Folder, FolderError};
use super::prepare::{Chosen, Prepared};
use super::recorder::{Recorded, Recorder};
use super::search::{probe_name, search};
use super::servers::Servers;
use super::{assemble, output, together};
use crate::backend::Stepped;
use crate::backend::candle::Local;
use crate::backend::config::{Backend, Clock};
use crate::backend::mock;
use crate::backend::openai::Identity;
use crate::gate::{Fired, Watch, Watched, exit};
use crate::measure::Resources;
use crate::plan::WorkloadPlan;
use crate::report::RunReport;
use crate::run::journal::{self, Entry, Journal, JournalError};
use crate::run::{CellKey, Ending, Played, Resume, RunError, Stop, play, play_live};
use crate::units::seconds;

/// How a run is conducted.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
pub struct Settings<'a> {
    /// Where results go.
    pub folder: &'a Folder,
    /// Finish the incomplete run that is there.
    pub resume: bool,
    /// Move an incomplete earlier run away.
    pub force: bool,
    /// Inconclusive rules fail.
    pub strict: bool,
    /// The scenario may start servers.
    pub allow_exec: bool,
    /// Asks the run to stop.
    pub stop: &'a Stop,
    /// The command line, for the record.
    pub command: &'a str,
    /// How many threads cells on the virtual clock are played on; 0 is as many as there are cores.
    pub threads: usize,
}

/// Why a run could not be played or its results not be kept.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// The results folder failed.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The journal failed.
    #[error("the journal of the run failed: {0}")]
    Journal(#[from] JournalError),
    /// The journal belongs to another plan.
    #[error("{} belongs to another plan ({theirs}; this one is {ours}); resume it with the same scenario, seed and backends, or start afresh with --force", path.display())]
    OtherPlan {
        /// The journal.
        path: PathBuf,
        /// Its digests and backends.
        theirs: String,
        /// Those of the plan at hand.
        ours: String,
    },
    /// A backend could not be used.
    #[error("backend `{backend}`: {message}")]
    Backend {
        /// Its name.
        backend: String,
        /// Why.
        message: String,
    },
    /// The scenario wants to start a program, and nobody said that it may.
    #[error("backend `{0}` starts a server with `launch`; --allow-exec lets it")]
    ExecNotAllowed(String),
    /// Playing failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A report could not be rendered.
    #[error(transparent)]
    Report(#[from] crate::report::RenderError),
}

impl CampaignError {
    /// The exit code that it ends the process with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::OtherPlan { .. } => exit::INVALID,
            Self::Folder(FolderError::Incomplete(_) | FolderError::NothingToResume(_))
            | Self::ExecNotAllowed(_) => exit::USAGE,
            _ => exit::RUN,
        }
    }
}

/// What a run left.
#[derive(Debug)]
pub struct Conducted {
    /// The report.
    pub report: RunReport,
    /// What went wrong on the way, although there are results.
    pub problem: Option<CampaignError>,
}

/// Everything that was measured, before it is judged.
#[derive(Debug)]
pub struct Campaign<'a> {
    /// What was to be played.
    pub prepared: &'a Prepared,
    /// The models that are computed here, by backend.
    pub models: Vec<Option<Local>>,
    /// The cells in the order they were played.
    pub cells: Vec<Cell>,
    /// The stretches of the run, earlier ones first.
    pub segments: Vec<journal::Segment>,
    /// The signal that stopped it.
    pub signal: Option<u8>,
    /// When the command started.
    pub started: SystemTime,
    /// How long it has been running.
    pub begun: Instant,
    /// The process's own resources.
    pub resources: Option<Resources>,
    /// What the servers among the chosen backends are.
    pub identities: Vec<Option<Identity>>,
}

impl Campaign<'_> {
    /// The rule that stopped the run, if one did.
    pub fn fired(&self) -> Option<&Fired> {
        self.cells.iter().find_map(|cell| cell.fired.as_ref())
    }
}

/// Plays, judges and writes. Results are written even where playing was cut short.
pub fn conduct(
    prepared: &Prepared,
    settings: &Settings<'_>,
    progress: &mut dyn Progress,
) -> Result<Conducted, CampaignError> {
    let mut campaign = Campaign {
        prepared,
        models: open_models(prepared)?,
        cells: Vec::new(),
        segments: Vec::new(),
        signal: None,
        started: SystemTime::now(),
        begun: Instant::now(),
        resources: None,
        identities: Vec::new(),
    };
    // A server that is not there is told before anything is played, moved or written.
    let mut servers = Servers::default();
    for (at, chosen) in prepared.backends.iter().enumerate() {
        if !chosen.is_launched() {
            servers.open(at, prepared, settings, progress)?;
        } else if !settings.allow_exec {
            return Err(CampaignError::ExecNotAllowed(chosen.name.clone()));
        }
    }
    let mut earlier = open_journal(prepared, settings)?;
    if earlier.journal.is_some() {
        campaign.resources = Resources::start();
    }
    campaign.segments = std::mem::take(&mut earlier.segments);
    campaign.segments.push(journal::Segment {
        start_time: start_of_segment(prepared, &campaign),
        requests: 0,
        ended_by: None,
    });
    let mut problem = play_all(&mut campaign, &mut earlier, &mut servers, settings, progress).err();
    campaign.identities = servers.identities(prepared.backends.len());
    let stopped = campaign.fired().is_some();
    let complete = campaign.signal.is_none() && problem.is_none() && !stopped;
    let (records, report) = assemble::assemble(campaign, settings, complete);
    if let Err(error) = output::write(prepared, settings.folder, &records, &report, complete || stopped) {
        problem = problem.or(Some(error));
    }
    Ok(Conducted { report, problem })
}

/// Reads the weights of the models that are computed here, before anything else is touched.
fn open_models(prepared: &Prepared) -> Result<Vec<Option<Local>>, CampaignError> {
    let open = |chosen: &Chosen| {
        let (Backend::Candle(config), Some(source)) = (&chosen.config, &chosen.source) else {
            return Ok(None);
        };
        info!("opening the model of `{}`: {}", chosen.name, source.checkpoint.path.display());
        Local::open(config, source).map(Some).map_err(|error| CampaignError::Backend {
            backend: chosen.name.clone(),
            message: error.to_string(),
        })
    };
    prepared.backends.iter().map(open).collect()
}

fn start_of_segment(prepared: &Prepared, campaign: &Campaign<'_>) -> f64 {
    if prepared.is_virtual() { 0.0 } else { unix(campaign.started) }
}

pub(super) fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// What an earlier segment left behind, and the journal that goes on.
#[derive(Default)]
struct EarlierRun {
    journal: Option<Journal>,
    cells: BTreeMap<CellKey, journal::CellEntries>,
    segments: Vec<journal::Segment>,
}

/// Makes room in the folder, or picks up the run that is in it. A run on the virtual clock keeps no journal: it is as
/// quickly played again.
fn open_journal(prepared: &Prepared, settings: &Settings<'_>) -> Result<EarlierRun, CampaignError> {
    let folder = settings.folder;
    let path = folder.journal();
    if settings.resume && folder.earlier() != Earlier::Incomplete {
        return Err(FolderError::NothingToResume(folder.dir().to_owned()).into());
    }
    let header = journal::Header {
        schedule_digest: prepared.plan.schedule_digest.clone(),
        content_digest: prepared.plan.content_digest.clone(),
        backends: prepared.backends.iter().map(|chosen| chosen.name.clone()).collect(),
    };
    if settings.resume && path.exists() {
        let (journal, read) = Journal::resume(&path)?;
        if read.header != header {
            let words = |header: journal::Header| {
                format!(
                    "{} {} on {}",
                    header.schedule_digest,
                    header.content_digest,
                    header.backends.join(", ")
                )
            };
            return Err(CampaignError::OtherPlan { path, theirs: words(read.header), ours: words(header) });
        }
        info!(
            "resuming: {} cells in the journal, {} bytes of a torn record dropped",
            read.cells.len(),
            read.torn_bytes
        );
        return Ok(EarlierRun { journal: Some(journal), cells: read.cells, segments: read.segments });
    }
    folder.make_room(settings.force || settings.resume)?;
    let is_real = prepared.backends.iter().any(|chosen| chosen.clock() != Clock::Virtual);
    let journal = is_real.then(|| Journal::create(&path, &header)).transpose()?;
    Ok(EarlierRun { journal, ..EarlierRun::default() })
}

/// Plays the cells until they are done, a signal stops them, or something breaks.
fn play_all(
    campaign: &mut Campaign<'_>,
    earlier: &mut EarlierRun,
    servers: &mut Servers,
    settings: &Settings<'_>,
    progress: &mut dyn Progress,
) -> Result<(), CampaignError> {
    let prepared = campaign.prepared;
    let keys = order(prepared);
    if let Some(journal) = &mut earlier.journal {
        let start_time = campaign.segments.last().map_or(0.0, |segment| segment.start_time);
        journal.write(&Entry::Segment { start_time })?;
    }
    if earlier.journal.is_none() && together::can(prepared) {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if settings.threads == 0 { cores() } else { settings.threads };
        return together::play(campaign, &keys, threads, settings, progress);
    }
    for (at, key) in keys.iter().copied().enumerate() {
        let (plan, chosen) = of(prepared, key);
        let next = keys.get(at + 1);
        let virtual_start = campaign.cells.iter().map(|cell| cell.end_time).fold(0.0, f64::max);
        let (journal, known) = (&mut earlier.journal, &mut earlier.cells);
        let mut player = Player { campaign, key, plan, chosen, settings, journal, progress, servers };
        let cells = if let Some(group) = prepared.plan.group(key.workload) {
            player.group(group, known, virtual_start)?
        } else if plan.search.is_some() {
            vec![player.search(known, virtual_start)?]
        } else {
            let done = known.remove(&key).unwrap_or_default();
            if let (Some(played), Some(start_time)) = (&done.played, done.start_time) {
                let taken = Taken::new(prepared, key);
                campaign.cells.push(restored(key, taken, &done, played.clone(), start_time));
                continue;
            }
            vec![player.play(&done, virtual_start)?]
        };
        let interrupted = cells.iter().any(Cell::is_interrupted);
        let is_fired = cells.iter().any(|cell| cell.fired.is_some());
        campaign.cells.extend(cells);
        if is_fired {
            return Ok(());
        }
        if chosen.is_launched() && next.is_none_or(|next| next.backend != key.backend) {
            servers.leave(key.backend as usize);
        }
        if let Some(signal) = settings.stop.requested().filter(|_| interrupted || next.is_some()) {
            campaign.signal = Some(signal);
            if let Some(segment) = campaign.segments.last_mut() {
                segment.ended_by = Some(format!("signal {signal}"));
            }
            if let Some(journal) = &mut earlier.journal {
                journal.write(&Entry::Stopped { signal })?;
            }
            return Ok(());
        }
    }
    Ok(())
}

/// The cells in the order they are played: workload by workload (a group where its first one stands), in each repeat on
/// every backend, A B and then B A, so that a drift of the machine favours neither. Where servers are started for the run,
/// backend by backend, so that only one of them runs at a time.
fn order(prepared: &Prepared) -> Vec<CellKey> {
    let mut keys = Vec::new();
    let workloads = (0..).zip(&prepared.plan.workloads);
    let mut played: Vec<usize> = Vec::new();
    for (mut workload, plan) in workloads {
        if let Some(group) = prepared.plan.group_of(workload as usize) {
            if played.contains(&group) {
                continue;
            }
            played.push(group);
            workload = (prepared.plan.workloads.len() + group) as u32;
        }
        for repeat in 0..plan.repeats {
            let backends = prepared.backends.len() as u32;
            let turn = |at: u32| if repeat.is_multiple_of(2) { at } else { backends - 1 - at };
            keys.extend((0..backends).map(|at| CellKey { workload, backend: turn(at), repeat, probe: 0 }));
        }
    }
    if prepared.backends.iter().any(Chosen::is_launched) {
        keys.sort_by_key(|key| key.backend);
    }
    keys
}

/// A cell's workload and backend.
pub(super) fn of(prepared: &Prepared, key: CellKey) -> (&WorkloadPlan, &Chosen) {
    (prepared.plan.at(key.workload), &prepared.backends[key.backend as usize])
}

/// A cell that an earlier segment finished.
fn restored(
    key: CellKey,
    mut taken: Taken,
    done: &journal::CellEntries,
    played: Played,
    start_time: f64,
) -> Cell {
    for (record, gaps) in standing_records(&done.records) {
        taken.push(record, gaps);
    }
    let end_time = start_time + seconds(played.measure_end.saturating_sub(played.measure_start));
    Cell { key, taken, played, start_time, end_time, fired: None, searched: None }
}

/// One cell about to be played.
pub(super) struct Player<'a, 'p> {
    pub(super) campaign: &'a mut Campaign<'p>,
    pub(super) key: CellKey,
    plan: &'p WorkloadPlan,
    pub(super) chosen: &'p Chosen,
    pub(super) settings: &'a Settings<'a>,
    pub(super) journal: &'a mut Option<Journal>,
    pub(super) progress: &'a mut dyn Progress,
    pub(super) servers: &'a mut Servers,
}

/// What is played at a stretch: a cell, or one probe of its search.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch<'a> {
    pub(super) key: CellKey,
    pub(super) plan: &'a WorkloadPlan,
    /// Which run of the plan it is.
    pub(super) run: u32,
}

impl<'a> Stretch<'a> {
    /// A whole cell.
    fn cell(prepared: &'a Prepared, key: CellKey) -> Self {
        Self { key, plan: of(prepared, key).0, run: key.repeat }
    }
}

impl Player<'_, '_> {
    fn play(&mut self, done: &journal::CellEntries, virtual_start: f64) -> Result<Cell, CampaignError> {
        let clock = self.chosen.clock();
        let start = cell_start(self.campaign.prepared, self.key);
        self.progress.started(&start);
        debug!("cell {start}: {} requests already in the journal", done.records.len());
        let t0 = if clock == Clock::Virtual { virtual_start } else { unix(SystemTime::now()) };
        if let Some(journal) = self.journal.as_mut() {
            journal.write(&Entry::Cell { key: self.key, start_time: t0 })?;
        }
        let mut taken = Taken::new(self.campaign.prepared, self.key);
        let mut resume = Resume::default();
        for (record, gaps) in final_records(&done.records) {
            resume.finished.insert((record.phase, record.index));
            taken.push(record, gaps);
        }
        let earlier = done.start_time.map(|_| earlier_time(&taken.samples));
        resume.elapsed = earlier.unwrap_or(0);
        let Recorded { played, taken, failed, count, fired } =
            self.record(Stretch::cell(self.campaign.prepared, self.key), taken, &resume)?;
        let length = seconds(played.measure_end.saturating_sub(played.measure_start));
        self.progress.finished(&start, length);
        if let Some(segment) = self.campaign.segments.last_mut() {
            segment.requests += count;
        }
        let played = match earlier {
            Some(earlier) => joined(earlier, played),
            None => played,
        };
        if let (Some(journal), Ending::Complete | Ending::TimedOut) = (self.journal.as_mut(), &played.ending)
        {
            journal.write(&Entry::CellEnd { key: self.key, played: Box::new(played.clone()) })?;
        }
        let start_time = done.start_time.unwrap_or(t0);
        let end_time = if clock == Clock::Virtual { t0 + length } else { unix(SystemTime::now()) };
        let cell = Cell { key: self.key, taken, played, start_time, end_time, fired, searched: None };
        match failed {
            Some(error) => {
                self.campaign.cells.push(cell);
                Err(error.into())
            }
            None => Ok(cell),
        }
    }

    /// Searches for the capacity of the cell's workload. Probes that an earlier segment finished are not played again.
    fn search(
        &mut self,
        known: &mut BTreeMap<CellKey, journal::CellEntries>,
        virtual_start: f64,
    ) -> Result<Cell, CampaignError> {
        let (prepared, chosen, plan, key) = (self.campaign.prepared, self.chosen, self.plan, self.key);
        let is_virtual = chosen.clock() == Clock::Virtual;
        let mut start_time = if is_virtual { virtual_start } else { unix(SystemTime::now()) };
        let mut broken = None;
        let (recorded, searched) =
            search(prepared, chosen, plan, key.repeat, &mut |probe, number, run, level| {
                let key = CellKey { probe: number, ..key };
                let done = known.remove(&key).unwrap_or_default();
                start_time = done.start_time.map_or(start_time, |earlier| earlier.min(start_time));
                let stretch = Stretch { key, plan: probe, run };
                if let Some(played) = &done.played {
                    return Ok(Recorded::restored(prepared, stretch.key, &done, played.clone()));
                }
                let mut recorded = self.probe(stretch, level)?;
                broken = broken.take().or(recorded.failed.take());
                Ok(recorded)
            })?;
        let Recorded { played, taken, .. } = recorded;
        let length = seconds(played.measure_end.saturating_sub(played.measure_start));
        let end_time = if is_virtual { start_time + length } else { unix(SystemTime::now()) };
        let cell = Cell { key, taken, played, start_time, end_time, fired: None, searched: Some(searched) };
        match broken {
            Some(error) => {
                self.campaign.cells.push(cell);
                Err(error.into())
            }
            None => Ok(cell),
        }
    }

    /// Plays one probe from an empty backend.
    fn probe(&mut self, stretch: Stretch<'_>, level: &str) -> Result<Recorded, CampaignError> {
        let name = probe_name(level, stretch.plan);
        let start = CellStart { probe: Some(&name), ..cell_start(self.campaign.prepared, self.key) };
        self.progress.started(&start);
        if let Some(journal) = self.journal.as_mut() {
            journal.write(&Entry::Cell { key: stretch.key, start_time: unix(SystemTime::now()) })?;
        }
        let recorded =
            self.record(stretch, Taken::new(self.campaign.prepared, stretch.key), &Resume::default())?;
        let played = &recorded.played;
        self.progress.finished(&start, seconds(played.measure_end.saturating_sub(played.measure_start)));
        if let Some(segment) = self.campaign.segments.last_mut() {
            segment.requests += recorded.count;
        }
        if let (Some(journal), Ending::Complete | Ending::TimedOut) = (self.journal.as_mut(), &played.ending)
        {
            journal.write(&Entry::CellEnd { key: stretch.key, played: Box::new(played.clone()) })?;
        }
        Ok(recorded)
    }

    /// Plays what is left of a stretch and takes its records.
    fn record(
        &mut self,
        stretch: Stretch<'_>,
        taken: Taken,
        resume: &Resume,
    ) -> Result<Recorded, CampaignError> {
        let prepared = self.campaign.prepared;
        let (plan, stop) = (stretch.plan, self.settings.stop);
        let recipes = plan.stream(stretch.run);
        let backend = self.key.backend as usize;
        if matches!(self.chosen.config, Backend::Mock(_)) {
            let (journal, progress) = (&mut *self.journal, &mut *self.progress);
            return play_mock(prepared, stretch, stop, journal, progress, taken, resume);
        }
        if let Some(engine) = self.engine() {
            let mut engine = engine
                .map_err(|message| CampaignError::Backend { backend: self.chosen.name.clone(), message })?;
            let (journal, progress) = (&mut *self.journal, &mut *self.progress);
            let watch = watch(prepared, stretch.key);
            let mut recorder = Recorder::new(taken, journal, progress, watch);
            let played =
                play(plan, recipes, engine.as_mut(), self.chosen.pace(), stop, &mut recorder, resume)?;
            return Ok(recorder.done(played));
        }
        let opened = self.servers.open(backend, prepared, self.settings, self.progress)?;
        let server = opened.expect("what is neither a mock nor a model is a server");
        let (journal, progress) = (&mut *self.journal, &mut *self.progress);
        let watch = watch(prepared, stretch.key);
        let mut recorder = Recorder::new(taken, journal, progress, watch);
        let played = play_live(plan, recipes, server, stop, &mut recorder, resume)?;
        Ok(recorder.done(played))
    }
}

impl Player<'_, '_> {
    /// A fresh engine of a model in this process; `None` for a backend without one.
    fn engine(&self) -> Option<Result<Box<dyn Stepped>, String>> {
        let model = self.campaign.models.get(self.key.backend as usize)?.as_ref()?;
        let engine = model.engine(vec![self.plan.sampling.clone()]);
        Some(engine.map(|engine| Box::new(engine) as Box<dyn Stepped>).map_err(|error| error.to_string()))
    }
}

/// Plays a cell on a mock on the virtual clock, or searches for its capacity there.
pub(super) fn play_mock_cell(
    prepared: &Prepared,
    key: CellKey,
    stop: &Stop,
    progress: &mut dyn Progress,
) -> Result<(Recorded, Option<Searched>), CampaignError> {
    let (plan, chosen) = of(prepared, key);
    let mut play = |stretch: Stretch<'_>| {
        let taken = Taken::new(prepared, stretch.key);
        play_mock(prepared, stretch, stop, &mut None, progress, taken, &Resume::default())
    };
    if plan.search.is_none() {
        return Ok((play(Stretch::cell(prepared, key))?, None));
    }
    let (recorded, searched) = search(prepared, chosen, plan, key.repeat, &mut |plan, number, run, _| {
        play(Stretch { key: CellKey { probe: number, ..key }, plan, run })
    })?;
    Ok((recorded, Some(searched)))
}

/// Plays what is left of a stretch on its mock.
fn play_mock(
    prepared: &Prepared,
    stretch: Stretch<'_>,
    stop: &Stop,
    journal: &mut Option<Journal>,
    progress: &mut dyn Progress,
    taken: Taken,
    resume: &Resume,
) -> Result<Recorded, CampaignError> {
    let Stretch { key, plan, run } = stretch;
    let (_, chosen) = of(prepared, key);
    let Backend::Mock(config) = &chosen.config else {
        unreachable!("who calls this has looked at the kind");
    };
    let mut engine =
        mock::open(config, &plan.family, prepared.plan.seed, &prepared.dir()).map_err(|error| {
            CampaignError::Backend { backend: chosen.name.clone(), message: error.to_string() }
        })?;
    let watch = watch(prepared, key);
    let mut recorder = Recorder::new(taken, journal, progress, watch);
    let recipes = plan.stream(run);
    let played = play(plan, recipes, engine.as_mut(), chosen.pace(), stop, &mut recorder, resume)?;
    Ok(recorder.done(played))
}

/// The rules that may stop a cell.
pub(super) fn watch(prepared: &Prepared, key: CellKey) -> Watch<'_> {
    let (plan, chosen) = of(prepared, key);
    let gates = &prepared.gates;
    // A search goes beyond what rules allow on purpose.
    let rules = if key.probe == 0 { gates.rules.as_slice() } else { &[] };
    let measured = match prepared.plan.group(key.workload) {
        Some(group) => {
            let members = group.members.iter().map(|member| &prepared.plan.workloads[member.workload]);
            members.map(|plan| plan.expected().measured).sum()
        }
        None => plan.expected().measured,
    };
    let watched = Watched {
        tags: &plan.tags,
        checks: plan.checks.iter().flat_map(|checks| checks.names()).collect(),
        slo: gates.slos.get(&plan.name).map_or(&[], Vec::as_slice),
        basis: plan.load.basis(),
        requests: measured,
        deterministic: chosen.clock() == Clock::Virtual,
    };
    Watch::new(rules, &plan.name, &chosen.name, watched)
}

/// A cell as it is announced.
pub(super) fn cell_start(prepared: &Prepared, key: CellKey) -> CellStart<'_> {
    let (plan, chosen) = of(prepared, key);
    let expected = |plan: &WorkloadPlan| {
        let expected = plan.expected();
        Some(expected.warmup? + expected.measured?)
    };
    let requests = match prepared.plan.group(key.workload) {
        Some(group) => {
            group.members.iter().map(|member| expected(&prepared.plan.workloads[member.workload])).sum()
        }
        None => expected(plan),
    };
    CellStart {
        workload: &plan.name,
        backend: (prepared.backends.len() > 1).then_some(chosen.name.as_str()),
        repeat: (key.repeat + 1, plan.repeats),
        requests,
        probe: None,
        is_virtual: chosen.clock() == Clock::Virtual,
    }
}

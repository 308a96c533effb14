//! The thread that computes steps.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use super::Row;
use super::sampler::{Choice, Sampler};

/// What computes a step.
pub trait Forward: Send {
    /// Computes all rows: their keys and values go to the blocks of their tables, and each looks back at what stands there
    /// before it. `then` looks at the logits of the wanted rows, one after another, in the order in which they are wanted.
    fn step(
        &mut self,
        rows: &[Row],
        tables: &[&[u32]],
        wanted: &[u32],
        then: &mut dyn FnMut(&[f32]) -> Result<(), String>,
    ) -> Result<(), String>;
}

/// What is asked of the model for one sequence: tokens behind its last rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ask {
    /// Its first row among those that are wanted; the others follow.
    pub wanted: u32,
    /// Its drafts, from here on in [`Job::drafts`].
    pub drafts: (u32, u32),
    /// The output position of the first token.
    pub position: u32,
    /// Its last known token among [`Job::known`].
    pub known: u32,
    /// How tokens are chosen.
    pub choice: Choice,
}

/// A smaller model that proposes tokens.
pub struct Drafter {
    /// It. Its keys and values lie in blocks of the same numbers.
    pub forward: Box<dyn Forward>,
    /// It proposes tokens below this one only: those that both models know.
    pub proposes: u32,
    /// Tokens that it can read. Models of one family fill up their embeddings to different lengths; a token behind it is read as
    /// its last one.
    pub reads: u32,
}

/// A step to compute, and what came of it. Its memory goes back and forth.
#[derive(Debug, Default)]
pub struct Job {
    /// Every token.
    pub rows: Vec<Row>,
    /// The blocks of all sequences, one after another.
    pub blocks: Vec<u32>,
    /// Where each sequence's blocks end in them.
    pub ends: Vec<u32>,
    /// Rows whose logits are wanted.
    pub wanted: Vec<u32>,
    /// The drafts of all sequences; with a draft model, room for them.
    pub drafts: Vec<u32>,
    /// What a draft model computes first: every row that is no draft, and the one before those that drafts follow, which it
    /// has not seen when it was a draft that was accepted. Empty without one.
    pub known: Vec<Row>,
    /// One for each sequence that emits.
    pub asks: Vec<Ask>,
    /// The chosen tokens, ask by ask: the drafts that were accepted and the token behind them.
    pub chosen: Vec<u32>,
    /// How many of them each ask has.
    pub counts: Vec<u32>,
}

impl Job {
    /// Makes it ready for another step.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.blocks.clear();
        self.ends.clear();
        self.wanted.clear();
        self.drafts.clear();
        self.known.clear();
        self.asks.clear();
        self.chosen.clear();
        self.counts.clear();
    }

    fn compute(
        &mut self,
        forward: &mut dyn Forward,
        drafter: Option<&mut Drafter>,
        sampler: &mut Sampler,
    ) -> Result<(), String> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let tables: Vec<&[u32]> =
            starts.zip(&self.ends).map(|(start, end)| &self.blocks[start as usize..*end as usize]).collect();
        if let Some(drafter) = drafter {
            let (rows, drafts) = (&mut self.rows, &mut self.drafts);
            propose(drafter, sampler, &self.known, &tables, &self.asks, |ask, index, token| {
                drafts[(ask.drafts.0 + index) as usize] = token;
                rows[(self.wanted[ask.wanted as usize] + 1 + index) as usize].token = token;
            })?;
        }
        let (chosen, counts) = (&mut self.chosen, &mut self.counts);
        let (asks, drafts, wanted) = (&self.asks, &self.drafts, self.wanted.len());
        forward.step(&self.rows, &tables, &self.wanted, &mut |logits| {
            let width = logits.len().checked_div(wanted).unwrap_or(0);
            for ask in asks {
                let drafts = &drafts[ask.drafts.0 as usize..ask.drafts.1 as usize];
                let rows = logits[ask.wanted as usize * width..].chunks_exact(width).take(drafts.len() + 1);
                let before = chosen.len();
                for (row, position) in rows.zip(ask.position..) {
                    let draft = drafts.get(chosen.len() - before);
                    let token = sampler.choose(row, &ask.choice, position).map_err(|_| NO_NUMBERS)?;
                    chosen.push(token);
                    if draft != Some(&token) {
                        break;
                    }
                }
                counts.push((chosen.len() - before) as u32);
            }
            Ok(())
        })
    }
}

const NO_NUMBERS: &str = "the model computed logits that are no numbers";

/// Has the draft model compute what is known, and then go on alone, one token after another for all sequences at once.
/// `put` takes a draft and its place among those of its ask.
fn propose(
    drafter: &mut Drafter,
    sampler: &mut Sampler,
    known: &[Row],
    tables: &[&[u32]],
    asks: &[Ask],
    mut put: impl FnMut(&Ask, u32, u32),
) -> Result<(), String> {
    let count = |ask: &Ask| ask.drafts.1 - ask.drafts.0;
    let mut asks: Vec<&Ask> = asks.iter().filter(|ask| count(ask) > 0).collect();
    let read = |token: u32| token.min(drafter.reads - 1);
    let mut rows: Vec<Row> = known.iter().map(|row| Row { token: read(row.token), ..*row }).collect();
    let mut wanted: Vec<u32> = asks.iter().map(|ask| ask.known).collect();
    let mut index = 0;
    loop {
        let mut next = Vec::with_capacity(asks.len());
        let vocabulary = drafter.proposes as usize;
        drafter.forward.step(&rows, tables, &wanted, &mut |logits| {
            let width = logits.len().checked_div(wanted.len()).unwrap_or(0);
            for (at, ask) in asks.iter().enumerate() {
                let logits = &logits[at * width..][..width.min(vocabulary)];
                let token =
                    sampler.choose(logits, &ask.choice, ask.position + index).map_err(|_| NO_NUMBERS)?;
                put(ask, index, token);
                let before = rows[wanted[at] as usize];
                next.push(Row { token, position: before.position + 1, ..before });
            }
            Ok(())
        })?;
        index += 1;
        let mut goes_on = asks.iter().map(|ask| count(ask) > index);
        next.retain(|_| goes_on.next() == Some(true));
        asks.retain(|ask| count(ask) > index);
        if asks.is_empty() {
            return Ok(());
        }
        wanted = (0..asks.len() as u32).collect();
        rows = next;
    }
}

/// A step that is done, or why it is not.
pub type Done = Result<Box<Job>, String>;

/// A thread that computes one step after another. It ends with this.
#[derive(Debug)]
pub struct Worker {
    jobs: Option<Sender<(Box<Job>, Thread)>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread. The end tokens are those that end an answer by themselves.
    pub fn start(
        mut forward: Box<dyn Forward>,
        mut drafter: Option<Drafter>,
        end_tokens: Vec<u32>,
    ) -> std::io::Result<Self> {
        let (jobs, received) = channel::<(Box<Job>, Thread)>();
        let (sent, done) = channel();
        let thread = std::thread::Builder::new().name("forward".into()).spawn(move || {
            let mut sampler = Sampler::new(end_tokens);
            while let Ok((mut job, waits)) = received.recv() {
                let computed = job.compute(forward.as_mut(), drafter.as_mut(), &mut sampler);
                if sent.send(computed.map(|()| job)).is_err() {
                    return;
                }
                waits.unpark();
            }
        })?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread) })
    }

    /// Begins a step. One at a time, from the thread that waits for it.
    pub fn begin(&self, job: Box<Job>) {
        // A thread that is gone is told of by `wait`.
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send((job, std::thread::current()));
        }
    }

    /// Waits for the step, at most so long, or until the calling thread is unparked.
    pub fn wait(&self, most: Duration) -> Option<Done> {
        self.take().or_else(|| {
            std::thread::park_timeout(most);
            self.take()
        })
    }

    /// The step, if it is done.
    pub fn take(&self) -> Option<Done> {
        match self.done.try_recv() {
            Ok(done) => Some(done),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err("the thread that computes ended; this is a bug, and its message is above".into()))
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was printed where it happened.
            let _ = thread.join();
        }
    }
}

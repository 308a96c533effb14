//! The thread that computes steps.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
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
    /// How tokens are chosen.
    pub choice: Choice,
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
    /// The drafts of all sequences.
    pub drafts: Vec<u32>,
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
        self.asks.clear();
        self.chosen.clear();
        self.counts.clear();
    }

    fn compute(&mut self, forward: &mut dyn Forward, sampler: &mut Sampler) -> Result<(), String> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let tables: Vec<&[u32]> =
            starts.zip(&self.ends).map(|(start, end)| &self.blocks[start as usize..*end as usize]).collect();
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
                    let token = sampler
                        .choose(row, &ask.choice, position)
                        .map_err(|_| "the model computed logits that are no numbers".to_owned())?;
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

/// A step that is done, or why it is not.
pub type Done = Result<Box<Job>, String>;

/// A thread that computes one step after another. It ends with this.
#[derive(Debug)]
pub struct Worker {
    jobs: Option<Sender<Box<Job>>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread.
    pub fn start(mut forward: Box<dyn Forward>) -> std::io::Result<Self> {
        let (jobs, received) = channel::<Box<Job>>();
        let (sent, done) = channel();
        let thread = std::thread::Builder::new().name("forward".into()).spawn(move || {
            let mut sampler = Sampler::default();
            while let Ok(mut job) = received.recv() {
                let computed = job.compute(forward.as_mut(), &mut sampler);
                if sent.send(computed.map(|()| job)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread) })
    }

    /// Begins a step. One at a time.
    pub fn begin(&self, job: Box<Job>) {
        // A thread that is gone is told of by `wait`.
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }

    /// Waits for the step, at most so long.
    pub fn wait(&self, most: Duration) -> Option<Done> {
        match self.done.recv_timeout(most) {
            Ok(done) => Some(done),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
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

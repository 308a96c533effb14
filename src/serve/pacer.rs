//! The engine's thread: it plays the engine on the machine's clock and tells each thread of clients what happened.
//!
//! The thread sleeps until the engine's next event, an absolute deadline of the kernel's high-resolution timer, or until a
//! client wants something. An engine that computes, and so does not know ahead when something happens, is waited for. What
//! the engine says of time is never adjusted to when it was heard of, so delays do not add up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::clock::Clock;
use super::desk::{Command, Heard, Mailbox};
use super::metrics::Metrics;
use crate::backend::{Finish, RequestId, Sink, Stepped};
use crate::plan::Recipe;
use crate::record::Outcome;
use crate::units::Ns;

/// How often the engine may say that something is due, and then do nothing.
const IDLE_STEPS: u32 = 1000;

/// How long an engine that computes is waited for at once. Clients wake whoever waits.
const LOOK: Duration = Duration::from_secs(1);

/// What the engine's thread works with.
pub(super) struct Pacer {
    pub(super) engine: Box<dyn Stepped>,
    pub(super) clock: Clock,
    pub(super) commands: Arc<Mutex<Vec<Command>>>,
    pub(super) close: Arc<AtomicBool>,
    pub(super) hearing: Hearing,
    /// Why the engine is given up.
    pub(super) broken: Option<String>,
}

/// Where what happens goes.
pub(super) struct Hearing {
    pub(super) mailboxes: Vec<Arc<Mailbox>>,
    outboxes: Vec<Vec<(RequestId, Heard)>>,
    /// Which thread of clients wants to hear of a request.
    desks: FxHashMap<RequestId, usize>,
    metrics: Metrics,
    anything: bool,
}

impl Hearing {
    pub(super) fn new(mailboxes: Vec<Arc<Mailbox>>, metrics: Metrics) -> Self {
        let outboxes = mailboxes.iter().map(|_| Vec::new()).collect();
        Self { mailboxes, outboxes, desks: FxHashMap::default(), metrics, anything: false }
    }

    fn tell(&mut self, id: RequestId, heard: Heard) {
        self.anything = true;
        if let Some(desk) = self.desks.get(&id) {
            self.outboxes[*desk].push((id, heard));
        }
    }

    fn deliver(&mut self) {
        for (mailbox, outbox) in self.mailboxes.iter().zip(&mut self.outboxes) {
            if !outbox.is_empty() {
                mailbox.deliver(outbox);
            }
        }
    }
}

impl Sink for Hearing {
    fn tokens(&mut self, id: RequestId, at: Ns, gap: Ns, count: u32) {
        self.metrics.tokens(id, at, gap, count);
        self.tell(id, Heard::Tokens { at, gap, count });
    }

    fn ids(&mut self, id: RequestId, ids: &[u32]) {
        self.tell(id, Heard::Ids(ids.into()));
    }

    fn scheduled(&mut self, id: RequestId, at: Ns) {
        self.metrics.scheduled(id, at);
        self.tell(id, Heard::Scheduled(at));
    }

    fn usage(&mut self, id: RequestId, output_tokens: u32) {
        self.tell(id, Heard::Usage(output_tokens));
    }

    fn finished(&mut self, id: RequestId, at: Ns, end: Finish) {
        let reason = end.response.as_ref().and_then(|response| response.finish_reason.as_deref());
        self.metrics.finished(id, at, end.outcome, reason == Some("stop"));
        self.tell(id, Heard::Finished { at, end: Box::new(end) });
        self.desks.remove(&id);
    }
}

impl Pacer {
    /// Plays until `close` is set.
    pub(super) fn run(mut self) {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::thread::set_current_timer_slack(Some(std::num::NonZeroU64::MIN)) {
            tracing::debug!("the engine's timers may be up to 50 us late: {error}");
        }
        self.engine.start_measuring(self.clock.now());
        let mut commands = Vec::new();
        while !self.close.load(Ordering::Acquire) {
            std::mem::swap(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner), &mut commands);
            for command in commands.drain(..) {
                self.obey(command);
            }
            self.play(self.clock.now());
            self.hearing.deliver();
            if self.broken.is_none() && self.engine.wait(LOOK) {
                continue;
            }
            match self.engine.next_event().filter(|_| self.broken.is_none()) {
                None => thread::park(),
                Some(at) => {
                    let left = self.clock.until(at);
                    if !left.is_zero() {
                        thread::park_timeout(left);
                    }
                }
            }
        }
    }

    /// Plays everything up to `to`.
    fn play(&mut self, to: Ns) {
        let (mut idle, mut last) = (0, None);
        while let Some(at) = self.engine.next_event().filter(|at| *at <= to && self.broken.is_none()) {
            self.hearing.anything = false;
            self.engine.advance(at, &mut self.hearing);
            idle = if self.hearing.anything || last != Some(at) { 0 } else { idle + 1 };
            last = Some(at);
            if idle >= IDLE_STEPS {
                self.give_up();
            }
        }
    }

    /// The engine says that something is due and does nothing. Who waits is told.
    fn give_up(&mut self) {
        let message = "the engine stands still: it says that something is due and does nothing; this is a bug in the backend";
        tracing::error!("{message}");
        self.broken = Some(message.into());
        let ids: Vec<RequestId> = self.hearing.desks.keys().copied().collect();
        for id in ids {
            self.refuse(id, self.clock.now());
        }
    }

    /// Ends a request that a broken engine will never answer.
    fn refuse(&mut self, id: RequestId, at: Ns) {
        let end = Finish::new(0, 0, Outcome::CancelledByServer, self.broken.as_deref());
        self.hearing.finished(id, at, end);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit { id, desk, recipe, drawing, at, stops } => {
                if let Some(drawing) = drawing {
                    self.engine.draw(id, *drawing);
                }
                self.submit(id, desk, &recipe, at, stops);
            }
            Command::Cancel(id) => {
                let now = self.clock.now();
                self.play(now);
                if self.hearing.desks.remove(&id).is_some() {
                    self.engine.cancel(id, now);
                    self.hearing.metrics.finished(id, now, Outcome::Cancelled, false);
                }
            }
            // Whoever asked may have gone away meanwhile.
            Command::Page(answer) => {
                let now = self.clock.now();
                self.play(now);
                let page =
                    self.hearing.metrics.page(&self.engine.stats(now), self.engine.standing().as_ref());
                let _ = answer.send(page);
            }
            Command::Forget(answer) => {
                let _ = answer.send(self.engine.forget_prefixes());
            }
            Command::Health(answer) => {
                let _ = answer.send(self.broken.clone().map_or(Ok(()), Err));
            }
        }
    }

    /// Takes a request in at the moment at which it arrived, so that the way to this thread costs no modelled time; the
    /// engine's time does not go back, though.
    fn submit(&mut self, id: RequestId, desk: usize, recipe: &Recipe, arrived: Ns, stops: bool) {
        let at = arrived.max(self.hearing.metrics.last());
        self.hearing.desks.insert(id, desk);
        self.hearing.metrics.submitted(id, at, recipe, stops);
        if self.broken.is_some() {
            return self.refuse(id, at);
        }
        self.play(at);
        self.engine.submit(id, recipe, at);
        self.play(at);
        if self.hearing.desks.contains_key(&id) {
            // Behind what already happened to others, and before any token of its own but one of the same instant.
            self.hearing.tell(id, Heard::Accepted(at));
        }
    }
}

//! Between the engine's thread and the threads that talk to clients.
//!
//! The engine's thread hands over everything that happened up to one moment in one go, and rings once. The thread of the
//! clients sorts it into the inboxes of its requests.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::Thread;

use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot};

use crate::backend::{Drawing, Finish, RequestId};
use crate::plan::Recipe;
use crate::units::Ns;

/// What is heard of a request.
#[derive(Debug)]
pub(super) enum Heard {
    /// The engine has it, as of this moment of its time, and did not refuse it.
    Accepted(Ns),
    /// It left the queue.
    Scheduled(Ns),
    /// The ids of the tokens that come next, where answers are computed.
    Ids(Box<[u32]>),
    /// `count` tokens, the first at `at`, each further one `gap` later.
    Tokens { at: Ns, gap: Ns, count: u32 },
    /// Its usage says another number of output tokens than came.
    Usage(u32),
    /// It ended.
    Finished { at: Ns, end: Box<Finish> },
}

/// What the engine's thread is asked for.
#[derive(Debug)]
pub(super) enum Command {
    /// Take a request in.
    Submit {
        id: RequestId,
        /// Whose mailbox hears of it.
        desk: usize,
        recipe: Box<Recipe>,
        /// How its answer is chosen, where answers are computed.
        drawing: Option<Box<Drawing>>,
        /// When it arrived, in the engine's time.
        at: Ns,
        /// Whether the answer ends by itself, rather than by its length.
        stops: bool,
    },
    /// Give a request up.
    Cancel(RequestId),
    /// The metrics page.
    Page(oneshot::Sender<String>),
    /// Forget what the prefix cache holds. The answer says whether the engine can.
    Forget(oneshot::Sender<bool>),
    /// Whether the engine goes on; else what is wrong with it.
    Health(oneshot::Sender<Result<(), String>>),
}

/// The way to the engine's thread.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) commands: Arc<Mutex<Vec<Command>>>,
    pub(super) thread: Thread,
}

impl Line {
    pub(super) fn send(&self, command: Command) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        self.thread.unpark();
    }
}

/// What the engine's thread has told one thread of clients.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    heard: Mutex<Vec<(RequestId, Heard)>>,
    bell: Notify,
}

impl Mailbox {
    /// Hands over and empties `told`.
    pub(super) fn deliver(&self, told: &mut Vec<(RequestId, Heard)>) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).append(told);
        self.bell.notify_one();
    }
}

#[derive(Debug, Default)]
struct Inbox {
    heard: VecDeque<Heard>,
    waker: Option<Waker>,
}

/// One thread of clients: its requests, and its ways to and from the engine.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) number: usize,
    pub(super) line: Line,
    mailbox: Arc<Mailbox>,
    inboxes: RefCell<FxHashMap<RequestId, Rc<RefCell<Inbox>>>>,
}

impl Desk {
    pub(super) fn new(number: usize, line: Line, mailbox: Arc<Mailbox>) -> Rc<Self> {
        Rc::new(Self { number, line, mailbox, inboxes: RefCell::default() })
    }

    /// Sorts what comes, for as long as the thread lives.
    pub(super) async fn sort(self: Rc<Self>) {
        let mut heard = Vec::new();
        loop {
            self.mailbox.bell.notified().await;
            std::mem::swap(
                &mut *self.mailbox.heard.lock().unwrap_or_else(PoisonError::into_inner),
                &mut heard,
            );
            let inboxes = self.inboxes.borrow();
            for (id, event) in heard.drain(..) {
                let Some(inbox) = inboxes.get(&id) else { continue };
                let mut inbox = inbox.borrow_mut();
                inbox.heard.push_back(event);
                if let Some(waker) = inbox.waker.take() {
                    waker.wake();
                }
            }
        }
    }

    /// Hands a request to the engine.
    pub(super) fn submit(
        self: &Rc<Self>,
        id: RequestId,
        (recipe, drawing): (Recipe, Option<Box<Drawing>>),
        (at, stops): (Ns, bool),
        place: Place,
    ) -> Ticket {
        let inbox = Rc::new(RefCell::new(Inbox::default()));
        self.inboxes.borrow_mut().insert(id, Rc::clone(&inbox));
        let recipe = Box::new(recipe);
        self.line.send(Command::Submit { id, desk: self.number, recipe, drawing, at, stops });
        Ticket { id, desk: Rc::clone(self), inbox, ended: false, _place: place }
    }
}

/// One of the places for requests at the same time. Dropping it frees it.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes a place if fewer than `most` are taken.
    pub(super) fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        if taken.fetch_add(1, Ordering::Relaxed) < most {
            return Some(Self(Arc::clone(taken)));
        }
        taken.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that the engine has. Dropping it before its end, as happens when its client hangs up, gives it up.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) id: RequestId,
    desk: Rc<Desk>,
    inbox: Rc<RefCell<Inbox>>,
    ended: bool,
    _place: Place,
}

impl Ticket {
    /// The next thing that is heard of it.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Heard> {
        let mut inbox = self.inbox.borrow_mut();
        let Some(heard) = inbox.heard.pop_front() else {
            match &mut inbox.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            return Poll::Pending;
        };
        self.ended |= matches!(heard, Heard::Finished { .. });
        Poll::Ready(heard)
    }

    /// The same, to wait for.
    pub(super) async fn heard(&mut self) -> Heard {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// Takes the end, if that is what comes next.
    pub(super) fn take_end(&mut self) -> Option<(Ns, Box<Finish>)> {
        self.take_end_if(|_| true)
    }

    /// Takes the end, if that is what comes next and it is one of these.
    pub(super) fn take_end_if(&mut self, is_wanted: impl Fn(&Finish) -> bool) -> Option<(Ns, Box<Finish>)> {
        let is_one = |heard: &mut Heard| matches!(heard, Heard::Finished { end, .. } if is_wanted(end));
        let next = self.inbox.borrow_mut().heard.pop_front_if(is_one);
        let Some(Heard::Finished { at, end }) = next else { return None };
        self.ended = true;
        Some((at, end))
    }

    /// Takes what is said of the usage, if that is what comes next.
    pub(super) fn take_usage(&mut self) -> Option<Heard> {
        self.inbox.borrow_mut().heard.pop_front_if(|heard| matches!(heard, Heard::Usage(_)))
    }

    /// Waits until something was heard, and leaves it there.
    pub(super) async fn has_news(&self) {
        std::future::poll_fn(|context| {
            let mut inbox = self.inbox.borrow_mut();
            if inbox.heard.is_empty() {
                inbox.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Whether something was heard already.
    pub(super) fn has_more(&self) -> bool {
        !self.inbox.borrow().heard.is_empty()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.desk.inboxes.borrow_mut().remove(&self.id);
        if !self.ended {
            self.desk.line.send(Command::Cancel(self.id));
        }
    }
}

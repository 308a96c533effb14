//! The threads that talk to the server: each owns its connections and plays its requests to their end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future as _, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::task::{Context, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Uri};
use rustc_hash::FxHashMap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

use super::alarm::{Alarm, SPIN};
use super::body::Order;
use super::connect::{Dialer, why};
use super::pool::{Connection, Pool};
use super::reading::{End, Expected, Outcomes, Reading};
use crate::backend::config::Url;
use crate::backend::{Answer, RequestId, own_thread};
use crate::record::Outcome;
use crate::tokenizer::Tokenizer;
use crate::units::{Duration as Length, Ns, SECOND};

/// How much of an error's body is read.
const ERROR_BODY: usize = 64 << 10;
/// How much of it is shown.
const SHOWN: usize = 500;
/// How long a server may leave a response open after `[DONE]` before its connection is dropped.
const AFTER_DONE: Duration = Duration::from_secs(1);
/// How long a request waits that found no server, so that users who lost theirs do not spin.
const NO_SERVER: Duration = Duration::from_millis(100);

/// What all threads share.
pub(super) struct Shared {
    pub(super) urls: Vec<Url>,
    /// Where each URL's requests go.
    pub(super) targets: Vec<Uri>,
    /// The headers of every request to each URL.
    pub(super) headers: Vec<HeaderMap>,
    pub(super) dialer: Dialer,
    /// The server refuses `stream_options`.
    pub(super) no_usage: AtomicBool,
    /// Counts what the server does not.
    pub(super) tokenizer: Option<Arc<dyn Tokenizer>>,
}

/// A request to be sent.
pub(super) struct Job {
    pub(super) id: RequestId,
    pub(super) target: usize,
    pub(super) order: Arc<Order>,
    /// When it is to be sent.
    pub(super) at: Ns,
    pub(super) deadline: Ns,
    pub(super) timeout: Ns,
    pub(super) expected: Expected,
}

/// What a thread is told.
pub(super) enum Task {
    Start(Instant),
    Send(Job),
    Cancel(RequestId),
}

/// What a thread hands back: the answer, and the prompt tokens that the server had in its cache.
pub(super) type Done = (Answer, Option<u32>);

/// A thread that talks to the server. Dropping it ends it.
pub(super) struct Worker {
    tasks: Option<UnboundedSender<Task>>,
    thread: Option<JoinHandle<()>>,
    number: Option<u32>,
}

impl Worker {
    pub(super) fn start(shared: Arc<Shared>, answers: Sender<Done>, name: String) -> std::io::Result<Self> {
        let (tasks, received) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let alarm = {
            let _entered = runtime.enter();
            Alarm::new()?
        };
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            // Who starts the thread waits for this.
            let _ = tell.send(own_thread());
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, serve(shared, answers, received, alarm));
        })?;
        let number = told.recv().ok().flatten();
        Ok(Self { tasks: Some(tasks), thread: Some(thread), number })
    }

    /// The system's number of the thread, where it has one.
    pub(super) fn number(&self) -> Option<u32> {
        self.number
    }

    /// Whether the thread took it.
    pub(super) fn tell(&self, task: Task) -> bool {
        self.tasks.as_ref().is_some_and(|tasks| tasks.send(task).is_ok())
    }

    pub(super) fn is_dead(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was told where its answers were missed.
            let _ = thread.join();
        }
    }
}

/// One thread's state.
struct Desk {
    shared: Arc<Shared>,
    tasks: RefCell<UnboundedReceiver<Task>>,
    /// What is to be sent later, by its time.
    waiting: RefCell<BTreeMap<(Ns, RequestId), Job>>,
    /// Rings when one of them is due before all others.
    sooner: Notify,
    pool: Pool,
    t0: Cell<Instant>,
    answers: Sender<Done>,
    cancels: RefCell<FxHashMap<RequestId, oneshot::Sender<()>>>,
}

async fn serve(shared: Arc<Shared>, answers: Sender<Done>, tasks: UnboundedReceiver<Task>, alarm: Alarm) {
    let pool = Pool::new(shared.dialer.clone(), shared.urls.clone());
    let desk = Rc::new(Desk {
        shared,
        tasks: RefCell::new(tasks),
        waiting: RefCell::default(),
        sooner: Notify::new(),
        pool,
        t0: Cell::new(Instant::now()),
        answers,
        cancels: RefCell::default(),
    });
    tokio::task::spawn_local(Rc::clone(&desk).keep_time(alarm));
    while let Some(task) = poll_fn(|cx| desk.tasks.borrow_mut().poll_recv(cx)).await {
        desk.obey(task);
    }
}

/// What is noted of a request on its way.
#[derive(Clone, Copy, Default)]
struct Notes {
    sent: Option<Ns>,
    connect: Ns,
    /// How long the server asks to wait before another attempt.
    retry_after: Option<Ns>,
    /// To be said of a success as well.
    remark: Option<&'static str>,
}

/// How a request's exchange ended.
enum Exchanged {
    /// The response was read, or reading it broke off.
    Read(End),
    /// Without a response that is worth reading.
    Failed(Outcome, String),
}

impl Desk {
    /// Does what the thread is told, and sends what is due. Whoever has read some bytes looks, so that nothing that is due
    /// waits for all streams that have something to be read.
    fn look(self: &Rc<Self>) {
        loop {
            let Ok(task) = self.tasks.borrow_mut().try_recv() else { break };
            self.obey(task);
        }
        self.send_due();
    }

    fn obey(self: &Rc<Self>, task: Task) {
        match task {
            Task::Start(t0) => self.t0.set(t0),
            Task::Cancel(id) => self.cancel(id),
            Task::Send(job) if job.at <= self.now() => self.send(job),
            Task::Send(job) => {
                let key = (job.at, job.id);
                let mut waiting = self.waiting.borrow_mut();
                if waiting.first_key_value().is_none_or(|(first, _)| key < *first) {
                    self.sooner.notify_one();
                }
                waiting.insert(key, job);
            }
        }
    }

    fn cancel(&self, id: RequestId) {
        // One that has just ended has no entry any more.
        if let Some(cancel) = self.cancels.borrow_mut().remove(&id) {
            let _ = cancel.send(());
        }
        let unsent = self.waiting.borrow_mut().extract_if(.., |_, job| job.id == id).next();
        if let Some((_, job)) = unsent {
            let given_up = Exchanged::Read(End::GivenUp);
            let reading = Reading::new(job.expected);
            let _ = self.answers.send(self.answer(id, reading, Notes::default(), given_up, self.now()));
        }
    }

    fn send(self: &Rc<Self>, job: Job) {
        let (cancel, cancelled) = oneshot::channel();
        self.cancels.borrow_mut().insert(job.id, cancel);
        let mut attending = Box::pin(Rc::clone(self).attend(job, cancelled));
        // On an open connection this writes the request: now, and not behind all that is to be read.
        if attending.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::task::spawn_local(attending);
        }
    }

    /// When the next one of those that wait is to be sent.
    fn next_due(&self) -> Option<Ns> {
        self.waiting.borrow().first_key_value().map(|((at, _), _)| *at)
    }

    fn send_due(self: &Rc<Self>) {
        while self.next_due().is_some_and(|at| at <= self.now()) {
            let Some((_, job)) = self.waiting.borrow_mut().pop_first() else { return };
            self.send(job);
        }
    }

    /// Sends what waits when it is due, for as long as the thread lives.
    async fn keep_time(self: Rc<Self>, alarm: Alarm) {
        loop {
            self.send_due();
            let Some(at) = self.next_due() else {
                self.sooner.notified().await;
                continue;
            };
            let at = self.t0.get() + Duration::from_nanos(at);
            if Instant::now() + SPIN < at {
                tokio::select! {
                    biased;
                    () = self.sooner.notified() => {}
                    _ = alarm.wait(at) => {}
                }
            } else {
                // What there is to be read is read meanwhile.
                tokio::task::yield_now().await;
            }
        }
    }

    fn now(&self) -> Ns {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> Ns {
        instant.saturating_duration_since(self.t0.get()).as_nanos() as Ns
    }

    /// Plays a request to its end and hands in its answer.
    async fn attend(self: Rc<Self>, job: Job, cancelled: oneshot::Receiver<()>) {
        let mut reading = Reading::new(job.expected);
        let mut notes = Notes::default();
        let deadline = self.t0.get() + Duration::from_nanos(job.deadline);
        let exchanged = tokio::select! {
            biased;
            exchanged = self.exchange(&job, &mut reading, &mut notes) => exchanged,
            _ = cancelled => Exchanged::Read(End::GivenUp),
            () = tokio::time::sleep_until(deadline.into()) => {
                let message = format!("no complete answer within {}", Length(job.timeout));
                Exchanged::Read(End::TimedOut { message, at: self.now() })
            }
        };
        self.cancels.borrow_mut().remove(&job.id);
        let closed = self.now();
        let unreachable = matches!(exchanged, Exchanged::Failed(Outcome::Unreachable, _));
        let answer = self.answer(job.id, reading, notes, exchanged, closed);
        if unreachable {
            tokio::time::sleep(NO_SERVER).await;
        }
        // Nobody is there to hear it when the run was given up.
        let _ = self.answers.send(answer);
    }

    fn answer(
        &self,
        id: RequestId,
        reading: Reading,
        notes: Notes,
        exchanged: Exchanged,
        closed: Ns,
    ) -> Done {
        let (end, failed) = match exchanged {
            Exchanged::Read(end) => (end, None),
            Exchanged::Failed(outcome, message) => (End::Enough, Some((outcome, message))),
        };
        let outcomes: Outcomes = reading.end(end, closed, self.shared.tokenizer.as_deref());
        let (outcome, message) = match failed {
            Some((outcome, message)) => (outcome, Some(message)),
            None => (outcomes.outcome, outcomes.message.or_else(|| notes.remark.map(str::to_owned))),
        };
        let answer = Answer {
            id,
            sent: notes.sent.unwrap_or(closed),
            connect: notes.connect,
            times: outcomes.times,
            first_answer: outcomes.first_answer,
            closed,
            prompt_tokens: outcomes.prompt_tokens,
            token_source: outcomes.token_source,
            outcome,
            message: message.map(Into::into),
            retry_after: notes.retry_after,
            response: outcomes.response.filter(|_| outcome == Outcome::Success).map(Box::new),
        };
        (answer, outcomes.cached_tokens)
    }

    /// Sends a request and reads its response. It is sent a second time in two cases only: on a kept connection that the
    /// server had closed, before anything came back; and without `stream_options` when the server refuses that field.
    async fn exchange(self: &Rc<Self>, job: &Job, reading: &mut Reading, notes: &mut Notes) -> Exchanged {
        let bodies = job.order.bodies();
        let mut again = false;
        let mut refused_before = self.shared.no_usage.load(Ordering::Relaxed);
        loop {
            let (mut connection, connect) = match self.pool.take(job.target).await {
                Ok(taken) => taken,
                Err(why) => return Exchanged::Failed(Outcome::Unreachable, why),
            };
            let body = if refused_before { bodies.plain() } else { bodies.whole.clone() };
            let request = self.request(job.target, body);
            notes.connect += connect.as_nanos() as Ns;
            notes.sent = Some(self.now());
            let mut response = match connection.send(request).await {
                Ok(response) => response,
                Err(_) if connection.was_used() && !std::mem::replace(&mut again, true) => continue,
                Err(error) => {
                    let text = format!("the connection broke before the response: {}", why(&error));
                    return Exchanged::Failed(Outcome::Disconnected, text);
                }
            };
            if response.status().is_success() {
                return self.read(connection, response, reading).await;
            }
            let (status, text, retry_after) = refusal(&mut connection, &mut response).await;
            notes.retry_after = retry_after;
            let names_field = text.contains("stream_options") || text.contains("include_usage");
            let is_refusal = matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY);
            if is_refusal && names_field && !refused_before && bodies.plain().len() < bodies.whole.len() {
                refused_before = true;
                self.shared.no_usage.store(true, Ordering::Relaxed);
                notes.remark = Some("the server refuses `stream_options`; sent again without it");
                continue;
            }
            return Exchanged::Failed(Outcome::HttpStatus(status.as_u16()), text);
        }
    }

    fn request(&self, target: usize, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.shared.targets[target].clone();
        *request.headers_mut() = self.shared.headers[target].clone();
        request
    }

    /// Reads a response's body to its end.
    async fn read(
        self: &Rc<Self>,
        mut connection: Connection,
        response: Response<Incoming>,
        reading: &mut Reading,
    ) -> Exchanged {
        let encoding = response.headers().get(CONTENT_ENCODING).filter(|value| *value != "identity");
        if let Some(encoding) = encoding {
            let text = format!(
                "the response is compressed ({}), which was not asked for",
                encoding.to_str().unwrap_or("in an unknown way")
            );
            return Exchanged::Failed(Outcome::Malformed, text);
        }
        let mut body = response.into_body();
        loop {
            let bytes = if reading.is_done() {
                match tokio::time::timeout(AFTER_DONE, connection.bytes(&mut body)).await {
                    Ok(bytes) => bytes,
                    Err(_) => return Exchanged::Read(End::Enough),
                }
            } else {
                connection.bytes(&mut body).await
            };
            match bytes {
                Some(Ok(bytes)) => {
                    self.look();
                    if !reading.feed(&bytes, self.at(connection.last_read())) {
                        // Dropping the connection tells the server.
                        return Exchanged::Read(End::Enough);
                    }
                }
                Some(Err(error)) => return Exchanged::Read(End::Broken(why(&error))),
                None => {
                    self.pool.put(connection).await;
                    return Exchanged::Read(End::Clean);
                }
            }
        }
    }
}

/// The status of a refused request, what is said about it, and how long the server asks to wait.
async fn refusal(
    connection: &mut Connection,
    response: &mut Response<Incoming>,
) -> (StatusCode, String, Option<Ns>) {
    let status = response.status();
    let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = response.body_mut();
    // Whatever can not be read of an error's body is not worth another error.
    let (bytes, _) = connection.collect(body, ERROR_BODY).await.unwrap_or_default();
    let mut text = format!("HTTP {status}");
    let said = said(&bytes);
    if !said.is_empty() {
        text.push_str(": ");
        text.push_str(&said);
    }
    let retry_after = wait.as_deref().and_then(|wait| until(wait, jiff::Timestamp::now()));
    if let Some(wait) = wait {
        text = format!("{text} (retry after {wait})");
    }
    (status, text, retry_after)
}

/// How long a `Retry-After` header asks to wait: seconds, or a date (RFC 9110, 10.2.3). `None` for what is neither.
fn until(header: &str, now: jiff::Timestamp) -> Option<Ns> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u64>() {
        return Some(seconds.saturating_mul(SECOND));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(header).ok()?;
    Some(Ns::try_from(date.duration_since(now).as_nanos()).unwrap_or(0))
}

/// What the body of an error says.
pub(super) fn said(body: &[u8]) -> String {
    let chunk: Option<super::chunk::Chunk<'_>> = serde_json::from_slice(body).ok();
    let message = chunk.and_then(|chunk| chunk.error_message());
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// A header by its name and value.
pub(super) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name: HeaderName = name.parse().map_err(|_| format!("`{name}` is no name of a header"))?;
    let value = value.parse().map_err(|_| format!("the value of header `{name}` can not be sent"))?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(until(" 7 ", now), Some(7 * SECOND));
        assert_eq!(until("Thu, 01 Jan 2026 00:01:30 GMT", now), Some(90 * SECOND));
        assert_eq!(until("Wed, 31 Dec 2025 23:59:59 GMT", now), Some(0));
        assert_eq!(until("99999999999999999999", now), None);
        assert_eq!(until("soon", now), None);
    }
}

//! The connections of one thread: kept alive and used again.
//!
//! A connection of HTTP/1.1 is not a task of its own: whoever waits for something on it moves it on, so that bytes that
//! come in wake one task and not two.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::connect::{Dialer, LastRead, Stamped, why};
use crate::backend::config::{HttpVersion, Url};

type Body = Full<Bytes>;
type Driver = Pin<Box<http1::Connection<TokioIo<Stamped>, Body>>>;

/// Connections that can take a request.
pub(super) struct Pool {
    dialer: Dialer,
    urls: Vec<Url>,
    idle: RefCell<Vec<Vec<One>>>,
    shared: Vec<tokio::sync::Mutex<Option<Shared>>>,
}

/// A connection that a request may be sent on.
pub(super) enum Connection {
    /// HTTP/1.1: one request at a time.
    One(One),
    /// HTTP/2: many at once.
    Shared(Shared),
}

/// A connection of HTTP/1.1.
pub(super) struct One {
    sender: http1::SendRequest<Body>,
    /// `None` once the connection is over.
    driver: Option<Driver>,
    read: LastRead,
    /// The port of the pool that it belongs to.
    target: usize,
    used: bool,
}

/// A connection of HTTP/2; a task moves it on.
#[derive(Clone)]
pub(super) struct Shared {
    sender: http2::SendRequest<Body>,
    read: LastRead,
    used: bool,
}

#[derive(Clone, Copy)]
struct Here;

impl<F: Future + 'static> Executor<F> for Here
where
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

impl Pool {
    pub(super) fn new(dialer: Dialer, urls: Vec<Url>) -> Self {
        let idle = RefCell::new(urls.iter().map(|_| Vec::new()).collect());
        let shared = urls.iter().map(|_| tokio::sync::Mutex::new(None)).collect();
        Self { dialer, urls, idle, shared }
    }

    /// A connection to the server of this number, and how long opening it took: nothing for one that is open.
    ///
    /// # Errors
    /// Why none can be opened, with the place.
    pub(super) async fn take(&self, target: usize) -> Result<(Connection, Duration), String> {
        match self.dialer.http {
            HttpVersion::Http1 => self.take_one(target).await,
            HttpVersion::Http2 => self.take_shared(target).await,
        }
    }

    async fn take_one(&self, target: usize) -> Result<(Connection, Duration), String> {
        loop {
            let Some(mut one) = self.idle.borrow_mut()[target].pop() else { break };
            if one.is_alive().await {
                return Ok((Connection::One(one), Duration::ZERO));
            }
        }
        let begun = Instant::now();
        let (stream, read) = Stamped::new(self.dialer.connect(&self.urls[target]).await?);
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| why(&error))?;
        let one = One { sender, driver: Some(Box::pin(driver)), read, target, used: false };
        Ok((Connection::One(one), begun.elapsed()))
    }

    async fn take_shared(&self, target: usize) -> Result<(Connection, Duration), String> {
        let begun = Instant::now();
        let mut slot = self.shared[target].lock().await;
        if let Some(shared) = slot.as_mut().filter(|shared| !shared.sender.is_closed()) {
            shared.used = true;
            return Ok((Connection::Shared(shared.clone()), Duration::ZERO));
        }
        let (stream, read) = Stamped::new(self.dialer.connect(&self.urls[target]).await?);
        let (sender, driver) =
            http2::handshake(Here, TokioIo::new(stream)).await.map_err(|error| why(&error))?;
        tokio::task::spawn_local(async move {
            // How it ends is seen by each request on it.
            let _ = driver.await;
        });
        let shared = Shared { sender, read, used: false };
        *slot = Some(shared.clone());
        Ok((Connection::Shared(shared), begun.elapsed()))
    }

    /// Gives back a connection whose response was read to its end.
    pub(super) async fn put(&self, connection: Connection) {
        if let Connection::One(mut one) = connection
            && one.settle().await
        {
            one.used = true;
            self.idle.borrow_mut()[one.target].push(one);
        }
    }
}

impl Connection {
    /// Whether a request was answered on it before.
    pub(super) fn was_used(&self) -> bool {
        match self {
            Self::One(one) => one.used,
            Self::Shared(shared) => shared.used,
        }
    }

    /// When bytes last came in on it.
    pub(super) fn last_read(&self) -> Instant {
        match self {
            Self::One(one) => one.read.get(),
            Self::Shared(shared) => shared.read.get(),
        }
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::One(one) => {
                let sent = one.sender.send_request(request);
                moved(&mut one.driver, sent).await
            }
            Self::Shared(shared) => {
                shared.sender.ready().await?;
                shared.sender.send_request(request).await
            }
        }
    }

    /// The next bytes of a response's body; `None` at its end.
    pub(super) async fn bytes(&mut self, body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            let frame = match self {
                Self::One(one) => moved(&mut one.driver, body.frame()).await,
                Self::Shared(_) => body.frame().await,
            };
            match frame? {
                // Trailers are no bytes.
                Ok(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Some(Ok(bytes));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// At most `limit` bytes of a body, and whether that is all.
    pub(super) async fn collect(
        &mut self,
        body: &mut Incoming,
        limit: usize,
    ) -> Result<(Vec<u8>, bool), hyper::Error> {
        let mut all = Vec::new();
        while let Some(bytes) = self.bytes(body).await {
            let bytes = bytes?;
            let room = limit - all.len();
            all.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if bytes.len() > room {
                return Ok((all, false));
            }
        }
        Ok((all, true))
    }
}

impl One {
    /// Whether an idle connection is still open, as far as this side has heard.
    async fn is_alive(&mut self) -> bool {
        poll_fn(|cx| {
            if let Some(driver) = &mut self.driver
                && driver.as_mut().poll(cx).is_ready()
            {
                self.driver = None;
            }
            Poll::Ready(())
        })
        .await;
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Waits until the connection can take another request; false when it is over.
    async fn settle(&mut self) -> bool {
        let ready = moved(&mut self.driver, self.sender.ready()).await.is_ok();
        ready && self.driver.is_some()
    }
}

/// Waits for something on a connection, and moves the connection on meanwhile.
async fn moved<F: Future>(driver: &mut Option<Driver>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        if let Some(connection) = driver
            && connection.as_mut().poll(cx).is_ready()
        {
            *driver = None;
        }
        future.as_mut().poll(cx)
    })
    .await
}

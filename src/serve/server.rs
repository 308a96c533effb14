//! Starting and ending a server, and its threads.

use std::io;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use super::clock::Clock;
use super::desk::{Desk, Line, Mailbox};
use super::http::{Door, unix_time};
use super::metrics::Metrics;
use super::pacer::{Hearing, Pacer};
use super::vocabulary::Vocabulary;
use super::wire::{Accepted, Address, CutBy, Wire};
use super::{House, Limits, Mind, Offer};
use crate::backend::Stepped;

/// How long a client may take to send its headers, and how long a connection may be idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// How long accepting rests when it fails, for want of file descriptors say.
const REST: Duration = Duration::from_millis(20);

/// Why a server can not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can not be listened at.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// The address.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// A thread can not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A server that runs on threads of its own. Dropping it ends it at once.
#[derive(Debug)]
pub struct Server {
    address: Address,
    stop: watch::Sender<Phase>,
    close: Arc<AtomicBool>,
    line: Line,
    /// The threads that talk to clients, and the one that accepts connections.
    threads: Vec<JoinHandle<()>>,
    engine: Option<JoinHandle<()>>,
}

/// How far a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// It finishes what is being answered.
    Finishing,
    /// It drops everything.
    Over,
}

enum Listener {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

impl Server {
    /// Starts to serve an engine. Port 0 takes a free one.
    ///
    /// # Errors
    /// When the address can not be listened at, or the machine has no more threads.
    pub fn start(
        address: &Address,
        mut engine: Box<dyn Stepped>,
        offer: Offer,
        limits: Limits,
    ) -> Result<Self, ServeError> {
        let wrong = |source| ServeError::Listen { address: address.clone(), source };
        let (listener, bound) = listen(address).map_err(wrong)?;
        let clock = Clock::start(limits.speed);
        if matches!(offer.mind, Mind::Computed { .. }) {
            engine.keep_responses();
        }
        let vocabulary = match &offer.mind {
            Mind::Simulated { .. } => Vocabulary::Mock(Arc::default()),
            Mind::Computed { tokenizer, .. } => Vocabulary::Model(Arc::clone(tokenizer)),
        };
        let house = House {
            model: offer.model.into(),
            max_model_len: offer.max_model_len,
            mind: offer.mind,
            seed: offer.seed,
            limits,
            clock,
            vocabulary,
            next: 0.into(),
            taken: Arc::default(),
            boot: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |time| time.as_micros() as u64),
            created: unix_time(),
        };
        let house = Arc::new(house);
        let mailboxes: Vec<Arc<Mailbox>> = (0..limits.threads.max(1)).map(|_| Arc::default()).collect();
        let (commands, close) = (Arc::new(Mutex::default()), Arc::new(AtomicBool::new(false)));
        let pacer = Pacer {
            engine,
            clock,
            commands: Arc::clone(&commands),
            close: Arc::clone(&close),
            hearing: Hearing::new(mailboxes.clone(), Metrics::new(&house.model)),
            broken: None,
        };
        let named = |name: String| std::thread::Builder::new().name(name);
        let engine = named("engine".into()).spawn(move || pacer.run()).map_err(ServeError::Thread)?;
        let line = Line { commands, thread: engine.thread().clone() };
        let (stop, stopped) = watch::channel(Phase::Open);
        let mut server =
            Self { address: bound, stop, close, line, threads: Vec::new(), engine: Some(engine) };
        let mut doors = Vec::new();
        for (number, mailbox) in mailboxes.into_iter().enumerate() {
            let (send, connections) = mpsc::unbounded_channel();
            doors.push(send);
            let (house, line, stopped) = (Arc::clone(&house), server.line.clone(), stopped.clone());
            let serve = move || clients(&house, number, line, mailbox, connections, &stopped);
            server.threads.push(named(format!("clients-{number}")).spawn(serve).map_err(ServeError::Thread)?);
        }
        let accept = move || accept(&listener, &doors, stopped);
        server.threads.push(named("accept".into()).spawn(accept).map_err(ServeError::Thread)?);
        Ok(server)
    }

    /// Where it listens, with the port that it took.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Takes no more connections and no more requests, finishes those that are being answered, and ends.
    pub fn shut_down(mut self) {
        let _ = self.stop.send(Phase::Finishing);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.send(Phase::Over);
        self.close.store(true, Ordering::Release);
        self.line.thread.unpark();
        for thread in self.threads.drain(..).chain(self.engine.take()) {
            let _ = thread.join();
        }
        if let Address::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn listen(address: &Address) -> io::Result<(Listener, Address)> {
    match address {
        Address::Tcp(socket) => {
            let listener = std::net::TcpListener::bind(socket)?;
            let bound = Address::Tcp(listener.local_addr()?);
            listener.set_nonblocking(true)?;
            Ok((Listener::Tcp(listener), bound))
        }
        Address::Unix(path) => {
            // A socket that nobody listens at is left over from a server that was killed.
            let left_over = std::os::unix::net::UnixStream::connect(path)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if left_over {
                std::fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            Ok((Listener::Unix(listener), address.clone()))
        }
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Accepts connections and hands them to the threads of clients in turn.
fn accept(
    listener: &Listener,
    doors: &[mpsc::UnboundedSender<Accepted>],
    mut stopped: watch::Receiver<Phase>,
) {
    let Ok(runtime) = runtime() else { return tracing::error!("no runtime for connections") };
    runtime.block_on(async {
        let accepting = async {
            let mut turn = doors.iter().cycle();
            let mut accept = match Accepting::new(listener) {
                Ok(accept) => accept,
                Err(error) => return tracing::error!("connections can not be accepted: {error}"),
            };
            loop {
                match accept.next().await {
                    Ok(socket) => {
                        if let Some(door) = turn.next() {
                            let _ = door.send(socket);
                        }
                    }
                    Err(error) => {
                        tracing::warn!("a connection can not be accepted: {error}");
                        tokio::time::sleep(REST).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            _ = stopped.wait_for(|phase| *phase != Phase::Open) => {}
        }
    });
}

enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Accepting {
    fn new(listener: &Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => Self::Tcp(tokio::net::TcpListener::from_std(listener.try_clone()?)?),
            Listener::Unix(listener) => {
                Self::Unix(tokio::net::UnixListener::from_std(listener.try_clone()?)?)
            }
        })
    }

    async fn next(&mut self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener) => Accepted::Tcp(listener.accept().await?.0.into_std()?),
            Self::Unix(listener) => Accepted::Unix(listener.accept().await?.0.into_std()?),
        })
    }
}

/// Runs tasks on the thread that they come from.
#[derive(Debug, Clone, Copy)]
struct Here;

impl<F: Future<Output: 'static> + 'static> Executor<F> for Here {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// A thread of clients, until the server is stopped and every connection has ended.
fn clients(
    house: &Arc<House>,
    number: usize,
    line: Line,
    mailbox: Arc<Mailbox>,
    mut connections: mpsc::UnboundedReceiver<Accepted>,
    stopped: &watch::Receiver<Phase>,
) {
    let Ok(runtime) = runtime() else { return tracing::error!("no runtime for clients") };
    let desk = Desk::new(number, line, mailbox);
    LocalSet::new().block_on(&runtime, async {
        let sorting = tokio::task::spawn_local(Rc::clone(&desk).sort());
        let mut open = tokio::task::JoinSet::new();
        let mut stop = stopped.clone();
        loop {
            tokio::select! {
                accepted = connections.recv() => {
                    let Some(accepted) = accepted else { break };
                    let cut = CutBy::default();
                    let door = Door { house: Arc::clone(house), desk: Rc::clone(&desk), cut: Rc::clone(&cut) };
                    open.spawn_local(connection(accepted, cut, door, stopped.clone()));
                }
                Some(_) = open.join_next() => {}
                _ = stop.wait_for(|phase| *phase != Phase::Open) => break,
            }
        }
        tokio::select! {
            () = async { while open.join_next().await.is_some() {} } => {}
            _ = stop.wait_for(|phase| *phase == Phase::Over) => {}
        }
        sorting.abort();
    });
}

/// Serves one connection, until the client hangs up or the server is stopped; then what is being answered is finished.
async fn connection(accepted: Accepted, cut: CutBy, door: Door, mut stopped: watch::Receiver<Phase>) {
    let stop = async move {
        let _ = stopped.wait_for(|phase| *phase != Phase::Open).await;
    };
    tokio::pin!(stop);
    let mut wire = match Wire::new(accepted, cut) {
        Ok(wire) => wire,
        Err(error) => return tracing::debug!("a connection was lost: {error}"),
    };
    let is_http2 = tokio::select! {
        read = tokio::time::timeout(HEADER_TIMEOUT, wire.is_http2()) => read,
        () = &mut stop => return,
    };
    let Ok(Ok(is_http2)) = is_http2 else { return };
    let service = service_fn(move |request| door.clone().answer(request));
    let ended = if is_http2 {
        let serving = hyper::server::conn::http2::Builder::new(Here)
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(wire), service);
        tokio::pin!(serving);
        tokio::select! {
            ended = &mut serving => ended,
            () = &mut stop => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    } else {
        let serving = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(wire), service);
        tokio::pin!(serving);
        tokio::select! {
            ended = &mut serving => ended,
            () = &mut stop => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended early: {error}");
    }
}

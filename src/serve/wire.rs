//! Addresses, and connections that can be broken on purpose.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::str::FromStr;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::backend::config::CloseBy;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP socket.
    Tcp(SocketAddr),
    /// A Unix socket at this path.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("a Unix socket needs a path: `unix:/run/sagebench.sock`".into())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let named = text.replace("localhost:", "127.0.0.1:");
        let full = if let Some(port) = named.strip_prefix(':') { format!("127.0.0.1:{port}") } else { named };
        full.parse().map(Self::Tcp).map_err(|_| {
            format!(
                "`{text}` is no address; write `127.0.0.1:8000`, `[::1]:8000`, `0.0.0.0:8000` or `unix:/path`"
            )
        })
    }
}

impl fmt::Display for Address {
    /// As a URL where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// How a connection shall end when it is dropped, if it shall be cut.
pub(super) type CutBy = Rc<Cell<Option<CloseBy>>>;

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket that was accepted, on its way to the thread that serves it.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// A connection. What was read of it to find out its protocol is read again.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    ahead: BytesMut,
    cut: CutBy,
}

/// How a client of HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Wire {
    pub(super) fn new(accepted: Accepted, cut: CutBy) -> io::Result<Self> {
        let socket = match accepted {
            Accepted::Tcp(socket) => {
                let socket = TcpStream::from_std(socket)?;
                socket.set_nodelay(true)?;
                Socket::Tcp(socket)
            }
            Accepted::Unix(socket) => Socket::Unix(UnixStream::from_std(socket)?),
        };
        Ok(Self { socket, ahead: BytesMut::new(), cut })
    }

    /// Whether the client speaks HTTP/2: reads as far as that can be told.
    pub(super) async fn is_http2(&mut self) -> io::Result<bool> {
        let mut read = BytesMut::with_capacity(1024);
        loop {
            let known = read.len().min(PREFACE.len());
            if read[..known] != PREFACE[..known] || known == PREFACE.len() {
                let is_http2 = known == PREFACE.len() && read[..known] == *PREFACE;
                self.ahead = read;
                return Ok(is_http2);
            }
            if self.read_buf(&mut read).await? == 0 {
                self.ahead = read;
                return Ok(false);
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.cut.get() == Some(CloseBy::Rst)
            && let Socket::Tcp(socket) = &self.socket
            && let Err(error) = socket.set_zero_linger()
        {
            tracing::warn!("a connection that should have been reset is closed in order: {error}");
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..length]);
            self.ahead.advance(length);
            return Poll::Ready(Ok(()));
        }
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(context, buffer),
            Socket::Unix(socket) => Pin::new(socket).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = step(bytes);
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(context, bytes),
            Socket::Unix(socket) => Pin::new(socket).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_flush(context),
            Socket::Unix(socket) => Pin::new(socket).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(context),
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}

/// What goes out in one write: the first chunk that ends with an event, and what stands before it. So every step of the engine
/// is a write of its own, also when several are due at once.
fn step(bytes: &[u8]) -> &[u8] {
    const END: &[u8] = b"0\r\n\r\n";
    let is_end = |at: &usize| bytes[at + 1..].starts_with(b"\n\r\n");
    match memchr::memchr_iter(b'\n', bytes).find(is_end) {
        Some(at) if bytes[at + 4..] != *END => &bytes[..at + 4],
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_a_write_of_its_own() {
        let writes = |mut bytes: &'static str| {
            let mut all = Vec::new();
            while !bytes.is_empty() {
                let (one, rest) = bytes.split_at(step(bytes.as_bytes()).len());
                all.push(one);
                bytes = rest;
            }
            all
        };
        let (head, one, two) = ("HTTP/1.1 200 OK\r\n\r\n", "5\r\nd: 1\n\n\r\n", "5\r\nd: 2\n\n\r\n");
        let last = "c\r\nd: 3\n\nd: [D]\n\n\r\n";
        let text = format!("{head}{one}{two}{last}0\r\n\r\n");
        let expected = [format!("{head}{one}"), two.into(), format!("{last}0\r\n\r\n")];
        assert_eq!(writes(text.leak()), expected);
        assert_eq!(writes("HTTP/1.1 200 OK\r\n\r\n{}"), ["HTTP/1.1 200 OK\r\n\r\n{}"]);
        assert_eq!(writes("5\r\nd: 1\n\n"), ["5\r\nd: 1\n\n"]);
    }

    #[test]
    fn addresses_are_read_and_written() {
        let read = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(read("127.0.0.1:8000").as_deref(), Ok("http://127.0.0.1:8000"));
        assert_eq!(read("localhost:8000").as_deref(), Ok("http://127.0.0.1:8000"));
        assert_eq!(read(":8000").as_deref(), Ok("http://127.0.0.1:8000"));
        assert_eq!(read("[::1]:80").as_deref(), Ok("http://[::1]:80"));
        assert_eq!(read("unix:/tmp/s").as_deref(), Ok("unix:///tmp/s"));
        assert_eq!(read("unix:///tmp/s").as_deref(), Ok("unix:///tmp/s"));
        for wrong in ["8000", "host", "example.org:80", "unix:", "127.0.0.1:99999"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}

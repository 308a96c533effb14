//! Questions to a server outside of the load: what it is, what it serves, how it cuts texts, what it counts.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HeaderMap;
use hyper::{Method, Request, Uri};
use serde_json::Value;

use super::connect::{Dialer, why};
use super::pool::Pool;
use super::proxy::Proxy;
use crate::backend::config::{HttpVersion, Place, Url};

/// The longest that the answer to a question may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest answer that is read.
const LARGEST: usize = 32 << 20;

/// A server's answer to a question.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The JSON of a successful answer.
    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok().filter(|_| self.is_success())
    }
}

/// Asks one question after another, and waits for each answer.
pub(super) struct Asker {
    runtime: tokio::runtime::Runtime,
    pool: Pool,
    urls: Vec<Url>,
    dialer: Dialer,
    /// Those of every request, for each server.
    headers: Vec<HeaderMap>,
}

impl Asker {
    /// Asks the servers behind `urls`, the roots of their APIs.
    pub(super) fn new(dialer: &Dialer, urls: Vec<Url>, headers: &HeaderMap) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let headers = urls.iter().map(|url| dialer.headers(url, headers)).collect();
        let pool = Pool::new(dialer.clone(), urls.clone());
        Ok(Self { runtime, pool, urls, dialer: dialer.clone(), headers })
    }

    /// Where the servers are.
    pub(super) fn urls(&self) -> &[Url] {
        &self.urls
    }

    /// Where the proxy is that stands before the server of this number.
    pub(super) fn proxy(&self, server: usize) -> Option<String> {
        self.dialer.proxy(&self.urls[server]).map(Proxy::place)
    }

    /// What the server of this number answers at a path below its URL.
    ///
    /// # Errors
    /// Why there is no answer, with the place.
    pub(super) fn get(&self, server: usize, path: &str) -> Result<Reply, String> {
        self.ask(server, &Method::GET, path, &Bytes::new())
    }

    /// What it answers to a JSON body.
    pub(super) fn post(&self, server: usize, path: &str, body: &Value) -> Result<Reply, String> {
        self.ask(server, &Method::POST, path, &body.to_string().into())
    }

    fn ask(&self, server: usize, method: &Method, path: &str, body: &Bytes) -> Result<Reply, String> {
        let local = tokio::task::LocalSet::new();
        local.block_on(&self.runtime, async {
            let answer = tokio::time::timeout(PATIENCE, self.exchange(server, method, path, body)).await;
            answer.unwrap_or_else(|_| {
                Err(format!("{}{path} does not answer within {PATIENCE:?}", self.urls[server]))
            })
        })
    }

    async fn exchange(
        &self,
        server: usize,
        method: &Method,
        path: &str,
        body: &Bytes,
    ) -> Result<Reply, String> {
        let mut again = false;
        loop {
            let (mut connection, _) = self.pool.take(server).await?;
            let url = &self.urls[server];
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri(url, path, &self.dialer)?;
            *request.headers_mut() = self.headers[server].clone();
            let broken = |error: &hyper::Error| format!("{url}{path} does not answer: {}", why(error));
            let response = match connection.send(request).await {
                Ok(response) => response,
                Err(_) if connection.was_used() && !std::mem::replace(&mut again, true) => continue,
                Err(error) => return Err(broken(&error)),
            };
            let status = response.status().as_u16();
            let mut incoming = response.into_body();
            let (body, whole) =
                connection.collect(&mut incoming, LARGEST).await.map_err(|error| broken(&error))?;
            if !whole {
                return Err(format!("{url}{path} answers with more than {} MiB", LARGEST >> 20));
            }
            if self.dialer.http == HttpVersion::Http1 {
                self.pool.put(connection).await;
            }
            return Ok(Reply { status, body });
        }
    }
}

/// The target of a request: its path for HTTP/1.1, the whole URL for HTTP/2 and for a proxy that hands requests on.
pub(super) fn uri(url: &Url, path: &str, dialer: &Dialer) -> Result<Uri, String> {
    let own = format!("{}{path}", url.path);
    let text = match dialer.http {
        HttpVersion::Http1 if dialer.forwards(url).is_none() => own,
        HttpVersion::Http1 | HttpVersion::Http2 => {
            let tls = matches!(url.place, Place::Tcp { tls: true, .. });
            format!("http{}://{}{own}", if tls { "s" } else { "" }, url.authority())
        }
    };
    text.parse().map_err(|_| format!("`{url}{path}` is no URL that can be asked for"))
}

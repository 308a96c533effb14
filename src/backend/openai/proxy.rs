//! A proxy between this client and a server, as the environment names it.

use std::io;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backend::config::{Place, Url};

/// The longest head of a proxy's answer.
const LONGEST_HEAD: usize = 16 << 10;

/// The proxy of one server.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of `proxy-authorization`.
    pub(super) key: Option<HeaderValue>,
}

impl Proxy {
    /// The proxy that the environment names for a server: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, in
    /// capitals or not. `None` where it names none.
    ///
    /// # Errors
    /// When it names one that is not spoken to here.
    pub(super) fn of(url: &Url) -> Result<Option<Self>, String> {
        Self::found(&Matcher::from_env(), url)
    }

    fn found(matcher: &Matcher, url: &Url) -> Result<Option<Self>, String> {
        let Place::Tcp { tls, .. } = &url.place else { return Ok(None) };
        let target = format!("http{}://{}/", if *tls { "s" } else { "" }, url.authority());
        let target: Uri = target.parse().map_err(|_| format!("`{url}` can not be asked for by a proxy"))?;
        let Some(found) = matcher.intercept(&target) else { return Ok(None) };
        let (scheme, host) = (found.uri().scheme_str().unwrap_or("http"), found.uri().host());
        if scheme != "http" {
            return Err(format!(
                "the environment names a proxy that is reached by {scheme}://; only proxies at http:// are spoken to"
            ));
        }
        let host = host.unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let mut key = found.basic_auth().cloned();
        if let Some(key) = &mut key {
            key.set_sensitive(true);
        }
        Ok(Some(Self { host, port: found.uri().port_u16().unwrap_or(80), key }))
    }

    /// Its place, for messages.
    pub(super) fn place(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Asks the proxy at the other end of `stream` to hand everything on to `host:port`.
    pub(super) async fn tunnel(&self, stream: &mut TcpStream, host: &str, port: u16) -> io::Result<()> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let mut asked = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
        if let Some(key) = &self.key {
            asked.extend_from_slice(b"Proxy-Authorization: ");
            asked.extend_from_slice(key.as_bytes());
            asked.extend_from_slice(b"\r\n");
        }
        asked.extend_from_slice(b"\r\n");
        stream.write_all(&asked).await?;
        // Byte by byte: what follows the head is the server's.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() > LONGEST_HEAD {
                return Err(self.refused("its answer does not end"));
            }
            head.push(stream.read_u8().await.map_err(|_| self.refused("it closed the connection"))?);
        }
        let text = String::from_utf8_lossy(&head);
        let line = text.lines().next().unwrap_or_default();
        match line.split_once(' ').map(|(_, status)| status) {
            Some(status) if status.starts_with('2') => Ok(()),
            status => Err(self.refused(&format!("it answers {}", status.unwrap_or(line).trim()))),
        }
    }

    fn refused(&self, why: &str) -> io::Error {
        io::Error::other(format!("the proxy at {} opens no way to it: {why}", self.place()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_a_proxy_for_some_servers() {
        let matcher = Matcher::builder()
            .http("http://me:secret@proxy:3128")
            .https("socks5://other")
            .no("inside")
            .build();
        let found = |url: &str| Proxy::found(&matcher, &Url::parse(url).unwrap());
        let proxy = found("http://host:8000").unwrap().unwrap();
        assert_eq!(
            (proxy.place().as_str(), proxy.key.unwrap().as_bytes()),
            ("proxy:3128", &b"Basic bWU6c2VjcmV0"[..])
        );
        assert!(found("http://inside:8000").unwrap().is_none());
        assert!(found("unix:///run/s").unwrap().is_none());
        assert!(found("https://host").unwrap_err().contains("socks5"));
    }
}

//! Where a server is.

use std::fmt;
use std::path::PathBuf;

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// By name or address, and port.
    Tcp {
        /// The name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// Whether TLS is spoken.
        tls: bool,
    },
    /// By a socket in the file system.
    Unix(PathBuf),
}

/// A URL taken apart: where to connect, and the path that requests start with, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Where to connect.
    pub place: Place,
    /// The path, such as `/v1`; may be empty.
    pub path: String,
}

impl Url {
    /// Reads `http://host[:port][/path]`, `https://...` or `unix:///path/of/the.sock`.
    ///
    /// # Errors
    /// What is wrong and how such a URL looks, without the URL itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) =
            text.split_once("://").ok_or("it has no scheme; write http://, https:// or unix://")?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            "unix" => {
                let socket = rest.trim_end_matches('/');
                if !socket.starts_with('/') {
                    return Err("a socket has an absolute path, as in unix:///run/server.sock".into());
                }
                return Ok(Self { place: Place::Unix(socket.into()), path: String::new() });
            }
            other => {
                return Err(format!(
                    "`{other}` is no scheme of a server; write http://, https:// or unix://"
                ));
            }
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if path.contains(['?', '#', ' ']) || !path.is_ascii() {
            return Err("a base URL ends with its path, without `?`, `#` or spaces".into());
        }
        if authority.contains('@') {
            return Err("a URL carries no password here; name the key's variable in `api_key_env`".into());
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or("an address in brackets has no end")?;
                (host, after.strip_prefix(':'))
            }
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(legal) || host.contains(':') != authority.starts_with('[') {
            return Err("it names no host".into());
        }
        let port = match port {
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| format!("`{port}` is no port; a port is a number from 1 to 65535"))?,
            None if tls => 443,
            None => 80,
        };
        let path = path.trim_end_matches('/').to_owned();
        Ok(Self { place: Place::Tcp { host: host.to_owned(), port, tls }, path })
    }

    /// The base of the API: without a path, `/v1` is meant.
    ///
    /// # Errors
    /// As for [`Self::parse`].
    pub fn parse_base(text: &str) -> Result<Self, String> {
        let mut url = Self::parse(text)?;
        if url.path.is_empty() {
            url.path = "/v1".into();
        }
        Ok(url)
    }

    /// The same place with the path of the server itself, above its API: what stands before `/v1`.
    #[must_use]
    pub fn root(&self) -> Self {
        let path = self.path.strip_suffix("/v1").unwrap_or(&self.path).to_owned();
        Self { place: self.place.clone(), path }
    }

    /// What the `host` header says.
    pub fn authority(&self) -> String {
        match &self.place {
            Place::Unix(_) => "localhost".into(),
            Place::Tcp { host, port, tls } => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                if *port == if *tls { 443 } else { 80 } { host } else { format!("{host}:{port}") }
            }
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unix(path) => write!(f, "unix://{}", path.display()),
            Place::Tcp { tls, .. } => {
                write!(f, "http{}://{}{}", if *tls { "s" } else { "" }, self.authority(), self.path)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let shown = |text: &str| Url::parse_base(text).map(|url| format!("{url} root {}", url.root()));
        assert_eq!(
            shown("http://127.0.0.1:8000/v1/").unwrap(),
            "http://127.0.0.1:8000/v1 root http://127.0.0.1:8000"
        );
        assert_eq!(shown("https://a.example").unwrap(), "https://a.example/v1 root https://a.example");
        assert_eq!(shown("http://[::1]:80/x/v1").unwrap(), "http://[::1]/x/v1 root http://[::1]/x");
        assert_eq!(shown("unix:///run/s.sock").unwrap(), "unix:///run/s.sock root unix:///run/s.sock");
        assert_eq!(Url::parse_base("unix:///run/s.sock").unwrap().path, "/v1");
    }

    #[test]
    fn what_is_no_url_is_told() {
        for text in [
            "",
            "host:80",
            "ftp://x",
            "http://",
            "http://:80",
            "http://x:0",
            "http://x:99999",
            "http://x:y",
            "http://u:p@h",
            "http://x/?a",
            "http://[::1",
            "http://::1",
            "unix://relative",
            "http://a b",
        ] {
            assert!(Url::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            if let Ok(url) = Url::parse(&text) {
                prop_assert_eq!(Url::parse(&url.to_string()), Ok(url));
            }
        }
    }
}

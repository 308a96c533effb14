//! Connections of our own, so that every step of one can be stamped.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::header::{HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION};
use rustls_native_certs::load_native_certs;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use super::proxy::Proxy;
use crate::backend::config::{HttpVersion, OpenAiBackend, Place, ProxyFrom, Url};

/// What is needed to open connections.
#[derive(Clone)]
pub(super) struct Dialer {
    tls: Option<TlsConnector>,
    pub(super) http: HttpVersion,
    pub(super) timeout: Duration,
    /// The servers that are behind a proxy.
    proxies: Arc<[(Place, Proxy)]>,
}

/// Whom TLS believes.
pub(super) fn dialer<'a>(
    config: &OpenAiBackend,
    urls: impl Iterator<Item = &'a Url> + Clone,
    dir: &std::path::Path,
) -> Result<Dialer, String> {
    let secure = urls.clone().any(|url| matches!(url.place, Place::Tcp { tls: true, .. }));
    let tls = if secure { Some(connector(config, dir)?) } else { None };
    let mut proxies = Vec::new();
    for url in urls.filter(|_| config.proxy == ProxyFrom::Env) {
        proxies.extend(Proxy::of(url)?.map(|proxy| (url.place.clone(), proxy)));
    }
    let timeout = Duration::from_nanos(config.connect_timeout.0);
    Ok(Dialer { tls, http: config.http, timeout, proxies: proxies.into() })
}

fn connector(config: &OpenAiBackend, dir: &std::path::Path) -> Result<TlsConnector, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut client = if config.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth()
    } else {
        builder.with_root_certificates(roots(config, dir)?).with_no_client_auth()
    };
    client.alpn_protocols = match config.http {
        HttpVersion::Http1 => vec![b"http/1.1".to_vec()],
        HttpVersion::Http2 => vec![b"h2".to_vec()],
    };
    Ok(TlsConnector::from(Arc::new(client)))
}

fn roots(config: &OpenAiBackend, dir: &std::path::Path) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let native = load_native_certs();
    store.add_parsable_certificates(native.certs);
    if let Some(ca) = &config.ca {
        let path = dir.join(ca);
        let wrong = |error: &dyn std::fmt::Display| format!("`ca` {}: {error}", path.display());
        let mut count = 0;
        for certificate in CertificateDer::pem_file_iter(&path).map_err(|error| wrong(&error))? {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            store.add(certificate).map_err(|error| wrong(&error))?;
            count += 1;
        }
        if count == 0 {
            return Err(wrong(&"there is no certificate in it"));
        }
    }
    if store.is_empty() {
        return Err("this system has no certificates to trust; name a file of them in `ca`".into());
    }
    Ok(store)
}

/// Believes every certificate, as `insecure` asks; signatures are still checked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl Dialer {
    /// Opens a connection; the reason why it can not be opened names the place.
    pub(super) async fn connect(&self, url: &Url) -> Result<Stream, String> {
        let place = place(url);
        match tokio::time::timeout(self.timeout, self.open(url)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(format!("cannot connect to {place}: {}", why(&error))),
            Err(_) => Err(format!("cannot connect to {place}: no connection within {:?}", self.timeout)),
        }
    }

    /// The proxy of a server.
    pub(super) fn proxy(&self, url: &Url) -> Option<&Proxy> {
        self.proxies.iter().find(|(place, _)| *place == url.place).map(|(_, proxy)| proxy)
    }

    /// The proxy that is handed the requests to a server themselves, rather than a connection to hand on.
    pub(super) fn forwards(&self, url: &Url) -> Option<&Proxy> {
        let is_plain = matches!(url.place, Place::Tcp { tls: false, .. }) && self.http == HttpVersion::Http1;
        self.proxy(url).filter(|_| is_plain)
    }

    /// The headers of every request to a server: `common`, and what the way there needs.
    pub(super) fn headers(&self, url: &Url, common: &HeaderMap) -> HeaderMap {
        let mut headers = common.clone();
        // HTTP/2 says it in the request's target.
        if let (HttpVersion::Http1, Ok(host)) = (self.http, HeaderValue::from_str(&url.authority())) {
            headers.insert(HOST, host);
        }
        if let Some(key) = self.forwards(url).and_then(|proxy| proxy.key.clone()) {
            headers.insert(PROXY_AUTHORIZATION, key);
        }
        headers
    }

    /// A TCP connection to a server, or to its proxy.
    async fn tcp(&self, url: &Url, host: &str, port: u16) -> io::Result<TcpStream> {
        let proxy = self.proxy(url);
        let (to, at) = proxy.map_or((host, port), |proxy| (proxy.host.as_str(), proxy.port));
        let through = |error: io::Error| match proxy {
            Some(proxy) => io::Error::other(format!("the proxy at {}: {}", proxy.place(), why(&error))),
            None => error,
        };
        let mut tcp = TcpStream::connect((to, at)).await.map_err(through)?;
        tcp.set_nodelay(true)?;
        if let Some(proxy) = proxy.filter(|_| self.forwards(url).is_none()) {
            proxy.tunnel(&mut tcp, host, port).await?;
        }
        Ok(tcp)
    }

    async fn open(&self, url: &Url) -> io::Result<Stream> {
        match &url.place {
            Place::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
            Place::Tcp { host, port, tls } => {
                let tcp = self.tcp(url, host, *port).await?;
                let Some(connector) = self.tls.as_ref().filter(|_| *tls) else { return Ok(Stream::Tcp(tcp)) };
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                let stream = connector.connect(name, tcp).await.map_err(no_tls)?;
                let agreed = stream.get_ref().1.alpn_protocol();
                if self.http == HttpVersion::Http2 && agreed != Some(b"h2") {
                    return Err(io::Error::other("the server does not speak HTTP/2; use `http: http1`"));
                }
                Ok(Stream::Tls(Box::new(stream)))
            }
        }
    }
}

/// What a server that does not speak TLS answers is no message of it.
fn no_tls(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<TlsError>());
    if matches!(cause, Some(TlsError::InvalidMessage(_))) {
        return io::Error::other("what is there does not speak TLS; use `http://`");
    }
    error
}

/// What is connected to, for messages.
fn place(url: &Url) -> String {
    match &url.place {
        Place::Unix(path) => format!("unix://{}", path.display()),
        Place::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
        Place::Tcp { host, port, .. } => format!("{host}:{port}"),
    }
}

/// An error with its causes, each said once and without the numbers of the operating system.
pub(super) fn why(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let own = error.to_string();
        let own = own.split(" (os error").next().unwrap_or_default().to_owned();
        if !text.contains(&own) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&own);
        }
        next = error.source();
    }
    text
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// When bytes last came in on a connection.
#[derive(Debug, Clone)]
pub(super) struct LastRead(Rc<Cell<Instant>>);

impl LastRead {
    pub(super) fn get(&self) -> Instant {
        self.0.get()
    }
}

/// A connection that notes when bytes come in.
#[derive(Debug)]
pub(super) struct Stamped {
    stream: Stream,
    read: LastRead,
}

impl Stamped {
    pub(super) fn new(stream: Stream) -> (Self, LastRead) {
        let read = LastRead(Rc::new(Cell::new(Instant::now())));
        (Self { stream, read: read.clone() }, read)
    }
}

impl AsyncRead for Stamped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if buf.filled().len() > before {
            self.read.0.set(Instant::now());
        }
        polled
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

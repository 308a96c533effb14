//! TLS and HTTP/2, against a server made of the same library, on the loopback.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sagebench::record::Outcome;
use serde_json::json;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::play::{one, open, play, scenario};
use crate::server::{content, finish, usage};

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.uri().path() {
        "/v1/models" => r#"{"data":[{"id":"m"}]}"#.to_owned(),
        "/v1/chat/completions" => [content("a"), finish(), usage(16, 1), "[DONE]".into()]
            .map(|event| format!("data: {event}\n\n"))
            .concat(),
        _ => return Ok(Response::builder().status(404).body(Full::default()).unwrap()),
    };
    Ok(Response::new(Full::new(body.into())))
}

/// Serves until the process ends. `tls` brings a certificate for `localhost` and the protocols to agree on.
pub fn serve(tls: Option<(ServerConfig, bool)>, http2: bool) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let acceptor = tls.map(|(config, _)| TlsAcceptor::from(Arc::new(config)));
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(tcp).await {
                                connection(TokioIo::new(stream), http2).await;
                            }
                        }
                        None => connection(TokioIo::new(tcp), http2).await,
                    }
                });
            }
        });
    });
    told.recv().unwrap()
}

async fn connection<I>(io: I, http2: bool)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    // How a connection ends is the client's affair here.
    if http2 {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service_fn(answer))
            .await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service_fn(answer)).await;
    }
}

/// A certificate of its own for `localhost` and a name that no machine has: the settings of a server, and the PEM that makes a
/// client trust it.
pub fn certificate(protocol: &[u8]) -> (ServerConfig, String) {
    let names = ["localhost", "model.invalid"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.key_pair.serialize_der()));
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    (config, made.cert.pem())
}

#[test]
fn certificates_are_checked_unless_told_otherwise() {
    let (config, pem) = certificate(b"http/1.1");
    let address = serve(Some((config, false)), false);
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, pem).unwrap();
    let mut wanted = scenario(&format!("https://localhost:{}", address.port()), 2, 8);
    let refused = open(&wanted).err().unwrap();
    assert!(refused.contains("certificate"), "{refused}");
    wanted["backends"]["s"]["ca"] = json!(ca);
    let (_, kept) = play(&wanted);
    assert!(kept.0.iter().all(|(record, _)| record.outcome == Outcome::Success), "{:?}", kept.0);
    wanted["backends"]["s"]["base_url"] = json!(format!("https://127.0.0.1:{}", address.port()));
    let other = open(&wanted).err().unwrap();
    assert!(other.contains("certificate"), "a name that the certificate does not have: {other}");
    wanted["backends"]["s"].as_object_mut().unwrap().remove("ca");
    wanted["backends"]["s"]["insecure"] = json!(true);
    assert!(open(&wanted).unwrap().identity().notes[0].contains("insecure"));
    assert_eq!(
        one(&{
            let mut one = wanted.clone();
            one["workloads"]["w"]["load"]["requests"] = json!(1);
            one
        })
        .0
        .outcome,
        Outcome::Success
    );
    fs::write(&ca, "no certificate").unwrap();
    wanted["backends"]["s"]["insecure"] = json!(false);
    wanted["backends"]["s"]["ca"] = json!(ca);
    assert!(open(&wanted).err().unwrap().contains("no certificate in it"));
}

#[test]
fn a_server_without_tls_is_told() {
    let address = serve(None, false);
    let mut wanted = scenario(&format!("https://localhost:{}", address.port()), 1, 8);
    wanted["backends"]["s"]["insecure"] = json!(true);
    let why = open(&wanted).err().unwrap();
    assert!(why.contains("cannot connect to localhost") && why.contains("use `http://`"), "{why}");
}

#[test]
fn http2_shares_one_connection() {
    let (config, pem) = certificate(b"h2");
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, pem).unwrap();
    let plain = format!("http://{}", serve(None, true));
    let secure = format!("https://localhost:{}", serve(Some((config, true)), true).port());
    for url in [plain, secure] {
        let mut wanted = scenario(&url, 20, 8);
        wanted["backends"]["s"]["http"] = json!("http2");
        wanted["backends"]["s"]["ca"] = json!(ca);
        wanted["workloads"]["w"]["load"]["concurrency"] = json!(5);
        let (_, kept) = play(&wanted);
        assert!(kept.0.iter().all(|(record, _)| record.outcome == Outcome::Success), "{:?}", kept.0);
        assert!(kept.0.iter().filter(|(record, _)| record.connect > 0).count() <= 5);
    }
    let (config, pem) = certificate(b"http/1.1");
    fs::write(&ca, pem).unwrap();
    let only_old = serve(Some((config, false)), false);
    let mut wanted = scenario(&format!("https://localhost:{}", only_old.port()), 1, 8);
    wanted["backends"]["s"]["http"] = json!("http2");
    wanted["backends"]["s"]["ca"] = json!(ca);
    let why = open(&wanted).err().unwrap();
    assert!(why.contains("cannot connect"), "{why}");
}

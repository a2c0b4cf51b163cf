use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::export::http::Client;
use crate::export::http::tests::server::{Answer, Seen, accepted, answer, serve_on};
use crate::export::http::tests::{destination, send_to};
#[cfg(feature = "proxy")]
use crate::export::net::proxy::Proxy;
use crate::export::net::tests::Folder;
use crate::export::net::{Connector, Deadline};
use crate::export::{Destination, TlsFileProblem, TlsProblem};

/// Who signs certificates, and the folder that they are in.
struct Authority {
    folder: Folder,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Names of PEM files.
#[derive(Clone)]
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { folder: Folder::new(name), issuer };
        fs::write(authority.roots(), authority.issuer.pem()).unwrap();
        authority
    }

    fn roots(&self) -> PathBuf {
        self.folder.0.join("roots.pem")
    }

    /// A certificate for `name`, valid from one year to another.
    fn sign(&self, name: &str, from: i32, until: i32) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |what: &str| self.folder.0.join(format!("{name}-{from}-{until}-{what}.pem"));
        let pair = Pair { certificate: path("certificate"), key: path("key") };
        fs::write(&pair.certificate, certificate.pem()).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }

    fn server(&self) -> ServerConfig {
        server(&self.sign("localhost", 2000, 3000), None)
    }

    /// A destination that trusts this authority.
    fn destination(&self, url: &str) -> Destination {
        let mut destination = destination(url);
        destination.tls.roots = Some(self.roots());
        destination
    }
}

/// A server with a certificate, that asks clients for one of `clients`, if given.
fn server(pair: &Pair, clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let certificate = CertificateDer::from_pem_file(&pair.certificate).unwrap();
    builder.with_single_cert(vec![certificate], PrivateKeyDer::from_pem_file(&pair.key).unwrap()).unwrap()
}

/// What a server knows of a connection.
#[derive(Debug, PartialEq)]
struct Shaken {
    kind: HandshakeKind,
    alpn: Option<Vec<u8>>,
}

/// Serves HTTP over TLS at a port of `host`; tells of every handshake that succeeded.
fn serve(
    host: &str,
    config: ServerConfig,
    answers: Vec<Answer>,
) -> (String, Receiver<Seen>, Receiver<Shaken>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{host}:{}", listener.local_addr().unwrap().port());
    let config = Arc::new(config);
    let (sender, shaken) = mpsc::channel();
    let accept = move || {
        let (mut socket, _) = listener.accept().ok()?;
        let mut connection = ServerConnection::new(Arc::clone(&config)).ok()?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).ok()?;
        }
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        let _ = sender.send(Shaken { kind: connection.handshake_kind()?, alpn });
        Some(StreamOwned::new(connection, socket))
    };
    (url, serve_on(accept, answers), shaken)
}

/// The failure of sending once to a server with this configuration.
fn failure(destination: impl FnOnce(&str) -> Destination, config: ServerConfig) -> Failure {
    let (url, _requests, _) = serve("localhost", config, vec![accepted()]);
    let refusal = send_to(&mut Client::new(&destination(&url)).unwrap(), "request", 30_000).unwrap_err();
    assert!(!refusal.ambiguous && refusal.failure.is_retryable(), "{refusal:?}");
    *refusal.failure
}

fn problem(failure: Failure) -> TlsProblem {
    match failure {
        Failure::Tls(problem, _) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_go_over_one_session_to_names_and_addresses() {
    let authority = Authority::new("tls-names");
    for host in ["localhost", "127.0.0.1"] {
        let config = server(&authority.sign(host, 2000, 3000), None);
        let (url, requests, shaken) = serve(host, config, (0..3).map(|_| accepted()).collect());
        let mut client = Client::new(&authority.destination(&url)).unwrap();
        // A body larger than all buffers too.
        for size in [1, 8 << 20, 1] {
            send_to(&mut client, vec![7; size], 30_000).unwrap();
            let seen = requests.recv().unwrap();
            assert_eq!((seen.connection, seen.body.len()), (1, size));
            assert_eq!(seen.header("Host"), url.strip_prefix("https://"));
        }
        let first = Shaken { kind: HandshakeKind::Full, alpn: None };
        assert_eq!(shaken.try_iter().collect::<Vec<_>>(), [first]);
    }
}

#[test]
fn certificates_that_do_not_prove_the_name_are_refused() {
    let authority = Authority::new("tls-refused");
    let stranger = Authority::new("tls-stranger");
    let destination = |url: &str| authority.destination(url);
    for (pair, expected) in [
        (stranger.sign("localhost", 2000, 3000), TlsProblem::UnknownIssuer),
        (authority.sign("localhost", 2000, 2001), TlsProblem::Expired),
        (authority.sign("localhost", 2999, 3000), TlsProblem::NotYetValid),
        (authority.sign("other.example", 2000, 3000), TlsProblem::WrongName),
    ] {
        assert_eq!(problem(failure(destination, server(&pair, None))), expected);
    }
    // What `openssl req -x509` makes, trusted as it is.
    let own = Pair { certificate: authority.roots(), key: authority.folder.0.join("own.pem") };
    fs::write(&own.key, authority.issuer.key().serialize_pem()).unwrap();
    let told = problem(failure(destination, server(&own, None)));
    assert!(
        matches!(&told, TlsProblem::Certificate(reason) if reason.contains("CaUsedAsEndEntity")),
        "{told:?}"
    );
}

#[test]
fn clients_show_their_certificate_where_it_is_asked_for() {
    let authority = Authority::new("tls-client");
    let stranger = Authority::new("tls-client-stranger");
    let pair = authority.sign("localhost", 2000, 3000);
    let with = |client: Pair| {
        let mut destination = authority.destination("https://localhost");
        destination.tls.client_certificate = Some(client.certificate);
        destination.tls.client_key = Some(client.key);
        destination
    };
    let at = |url: &str, destination: &Destination| Destination {
        endpoint: Endpoint::parse(url).unwrap(),
        ..destination.clone()
    };
    let (url, requests, _) = serve("localhost", server(&pair, Some(&authority)), vec![accepted()]);
    let known = with(authority.sign("client", 2000, 3000));
    send_to(&mut Client::new(&at(&url, &known)).unwrap(), "request", 30_000).unwrap();
    assert_eq!(requests.recv().unwrap().body, b"request");

    let unknown = with(stranger.sign("client", 2000, 3000));
    for destination in [authority.destination("https://localhost"), unknown] {
        let told = problem(failure(|url| at(url, &destination), server(&pair, Some(&authority))));
        assert!(matches!(told, TlsProblem::ClientCertificate(_)), "{told:?}");
        // The same if the receiver is gone before all was sent.
        let (url, _requests, _) = serve("localhost", server(&pair, Some(&authority)), vec![accepted()]);
        let mut client = Client::new(&at(&url, &destination)).unwrap();
        let told = problem(*send_to(&mut client, vec![0; 32 << 20], 30_000).unwrap_err().failure);
        assert!(matches!(told, TlsProblem::ClientCertificate(_)), "{told:?}");
    }
}

#[test]
fn sessions_are_resumed() {
    let authority = Authority::new("tls-resumed");
    for versions in [rustls::ALL_VERSIONS, &[&rustls::version::TLS12]] {
        let provider = Arc::new(ring::default_provider());
        let pair = authority.sign("localhost", 2000, 3000);
        let chain = vec![CertificateDer::from_pem_file(&pair.certificate).unwrap()];
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&pair.key).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let closed = || Answer::Close(answer("200 OK", "Connection: close\r\n", b""));
        let (url, _requests, shaken) = serve("localhost", config, vec![closed(), closed()]);
        let mut client = Client::new(&authority.destination(&url)).unwrap();
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            send_to(&mut client, "request", 30_000).unwrap();
            assert_eq!(shaken.recv().unwrap(), Shaken { kind, alpn: Some(b"http/1.1".to_vec()) });
        }
    }
}

#[test]
fn one_protocol_is_offered() {
    let authority = Authority::new("tls-alpn");
    let mut config = authority.server();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (url, _requests, shaken) = serve("localhost", config, vec![accepted()]);
    let connector = Connector::new(&authority.destination(&url)).unwrap();
    connector.connect(Deadline::NEVER, Alpn::H2).unwrap();
    assert_eq!(shaken.recv().unwrap().alpn.as_deref(), Some(&b"h2"[..]));
    let told = problem(*connector.connect(Deadline::NEVER, Alpn::Http1).unwrap_err());
    assert!(matches!(&told, TlsProblem::Protocol(reason) if reason.contains("NoApplicationProtocol")));
    // A receiver that knows nothing of it speaks HTTP/1.1.
    let (url, _requests, _) = serve("localhost", authority.server(), vec![accepted()]);
    let connector = Connector::new(&authority.destination(&url)).unwrap();
    let told = problem(*connector.connect(Deadline::NEVER, Alpn::H2).unwrap_err());
    assert_eq!(told.to_string(), "TLS failed (the receiver does not offer HTTP/2)");
}

#[test]
fn what_does_not_finish_the_handshake_is_told_in_time() {
    let authority = Authority::new("tls-handshake");
    for (bytes, close, text) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], true, "the receiver does not answer in TLS"),
        (b"", true, "no connection (it ended within the TLS handshake)"),
        (b"", false, "no connection in time"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let peer = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            // The hello is read, so that closing resets nothing.
            let _ = socket.read(&mut [0; 4096]);
            socket.write_all(bytes).unwrap();
            if !close {
                let _ = socket.read_to_end(&mut Vec::new());
            }
        });
        let started = Instant::now();
        let timeout = if close { 30_000 } else { 200 };
        let mut client = Client::new(&authority.destination(&url)).unwrap();
        let refusal = send_to(&mut client, "request", timeout).unwrap_err();
        assert_eq!(refusal.failure.to_string(), text);
        assert!(!refusal.ambiguous && refusal.failure.is_retryable());
        assert!(started.elapsed() < Duration::from_secs(5));
        peer.join().unwrap();
    }
}

#[test]
fn answers_end_in_time_and_count_before_all_was_sent() {
    let authority = Authority::new("tls-answers");
    let early = Answer::Refuse(answer("413 Content Too Large", "", b""));
    let (url, _requests, _) = serve("localhost", authority.server(), vec![early, Answer::Stall(Vec::new())]);
    let mut client = Client::new(&authority.destination(&url)).unwrap();
    let refusal = send_to(&mut client, vec![0; 8 << 20], 30_000).unwrap_err();
    assert!(matches!(*refusal.failure, Failure::Status { code: 413, .. }), "{refusal:?}");
    let refusal = send_to(&mut client, "request", 200).unwrap_err();
    assert!(matches!(*refusal.failure, Failure::Timeout(_)) && refusal.ambiguous, "{refusal:?}");
}

#[test]
fn without_blocking_it_says_so() {
    let authority = Authority::new("tls-nonblocking");
    let reply = answer("200 OK", "", b"body");
    let (url, _requests, _) = serve("localhost", authority.server(), vec![Answer::Keep(reply.clone())]);
    let connector = Connector::new(&authority.destination(&url)).unwrap();
    let mut stream = connector.connect(Deadline::NEVER, Alpn::Http1).unwrap();
    stream.set_nonblocking(true);
    // Tickets of the session may come, which are no data.
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").unwrap();
    stream.flush().unwrap();
    let mut read = Vec::new();
    while read.len() < reply.len() {
        let mut buffer = [0; 3];
        match stream.read(&mut buffer) {
            Ok(count) => read.extend_from_slice(&buffer[..count]),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                use rustix::event::{PollFd, PollFlags, poll};
                poll(&mut [PollFd::new(&stream, PollFlags::IN)], None).unwrap();
            }
        }
    }
    assert_eq!(read, reply);
}

#[test]
#[cfg(feature = "proxy")]
fn proxies_connect_through() {
    let authority = Authority::new("tls-proxy");
    let (url, requests, _) = serve("localhost", authority.server(), vec![accepted()]);
    let target = url.strip_prefix("https://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut destination = authority.destination(&url);
    destination.proxy = Some(Proxy::parse(&listener.local_addr().unwrap().to_string()).unwrap());
    let proxy = std::thread::spawn(move || {
        let mut client = BufReader::new(listener.accept().unwrap().0);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && client.read_line(&mut head).unwrap() > 0 {}
        assert!(head.starts_with(&format!("CONNECT {target} HTTP/1.1\r\n")), "{head}");
        let mut receiver = TcpStream::connect(target.replace("localhost", "127.0.0.1")).unwrap();
        client.get_mut().write_all(b"HTTP/1.0 200 Connection established\r\n\r\n").unwrap();
        let (mut up, mut down) = (receiver.try_clone().unwrap(), client.get_ref().try_clone().unwrap());
        let back = std::thread::spawn(move || std::io::copy(&mut receiver, &mut down));
        let _ = std::io::copy(&mut client, &mut up);
        let _ = up.shutdown(std::net::Shutdown::Both);
        let _ = back.join();
    });
    let mut client = Client::new(&destination).unwrap();
    send_to(&mut client, "request", 30_000).unwrap();
    let seen = requests.recv().unwrap();
    // The receiver sees a request of its own, without the proxy's credentials.
    assert!(seen.head.starts_with("POST /v1development/profiles HTTP/1.1\r\n"), "{}", seen.head);
    drop(client);
    proxy.join().unwrap();
}

#[test]
fn changed_files_count_for_new_connections() {
    let authority = Authority::new("tls-rotated");
    let next = Authority::new("tls-next");
    let closed = || Answer::Close(answer("200 OK", "Connection: close\r\n", b""));
    let (url, _requests, _) = serve("localhost", next.server(), vec![closed(), closed()]);
    let mut client = Client::new(&authority.destination(&url)).unwrap();
    let told = problem(*send_to(&mut client, "request", 30_000).unwrap_err().failure);
    assert_eq!(told, TlsProblem::UnknownIssuer);
    fs::copy(next.roots(), authority.roots()).unwrap();
    send_to(&mut client, "request", 30_000).unwrap();
    // Half written.
    fs::write(authority.roots(), "-----BEGIN CERT").unwrap();
    send_to(&mut client, "request", 30_000).unwrap();
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new("tls-files");
    let pair = authority.sign("client", 2000, 3000);
    let other = authority.sign("other", 2000, 3000);
    let empty = authority.folder.0.join("empty.pem");
    fs::write(&empty, "nothing").unwrap();
    let broken = authority.folder.0.join("broken.pem");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let missing = authority.folder.0.join("missing.pem");
    let read = |roots: &PathBuf, client: Option<(&PathBuf, &PathBuf)>| {
        files::read(&TlsFiles {
            roots: Some(roots.clone()),
            client_certificate: client.map(|(certificate, _)| certificate.clone()),
            client_key: client.map(|(_, key)| key.clone()),
        })
    };
    let roots = authority.roots();
    let no_certificate = "it holds no usable certificate in PEM";
    for (result, path, text) in [
        (read(&missing, None), &missing, "No such file or directory (os error 2)"),
        (read(&empty, None), &empty, no_certificate),
        (read(&broken, None), &broken, no_certificate),
        (read(&pair.key, None), &pair.key, no_certificate),
        (read(&roots, Some((&empty, &pair.key))), &empty, no_certificate),
        (
            read(&roots, Some((&pair.certificate, &empty))),
            &empty,
            "it holds no private key in PEM that is not encrypted",
        ),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot use {} for TLS: {text}", path.display()));
    }
    let error = read(&roots, Some((&pair.certificate, &other.key))).unwrap_err();
    let problem = match *error {
        ExportError::TlsFile { path: Some(path), problem } if path == other.key => problem,
        error => panic!("{error}"),
    };
    assert!(matches!(problem, TlsFileProblem::Unusable(_)));

    // Both in one file, and the key as `openssl ecparam` writes it: the innermost of the usual one.
    let pkcs8 = KeyPair::from_pem(&fs::read_to_string(&pair.key).unwrap()).unwrap().serialize_der();
    let sec1 = pkcs8.windows(5).position(|bytes| bytes == [2, 1, 1, 4, 32]).unwrap() - 2;
    let sec1 = pem("EC PRIVATE KEY", &pkcs8[sec1..]);
    let both = authority.folder.0.join("both.pem");
    fs::write(&both, fs::read_to_string(&pair.certificate).unwrap() + &sec1).unwrap();
    let tls = TlsFiles { roots: Some(roots), client_certificate: Some(both), client_key: None };
    assert!(files::read(&tls).unwrap().client_auth_cert_resolver.has_certs());
}

fn pem(label: &str, bytes: &[u8]) -> String {
    let base64 = crate::export::net::proxy::base64(bytes);
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}

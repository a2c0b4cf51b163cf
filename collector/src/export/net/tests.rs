use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;
use crate::export::http::tests::destination;

/// A folder of a test, removed with what is in it.
pub(in crate::export) struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ebpf-otlp-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn soon() -> Deadline {
    Deadline::after(Some(Duration::from_millis(200)))
}

fn later() -> Deadline {
    Deadline::after(Some(Duration::from_secs(30)))
}

fn connector(url: &str, change: impl FnOnce(&mut Destination)) -> Connector {
    let mut destination = destination(url);
    change(&mut destination);
    Connector::new(&destination).unwrap()
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Connects, which must fail in time for want of an answer.
fn times_out(connector: &Connector) {
    let started = Instant::now();
    let failure = connector.connect(soon(), Alpn::Http1).unwrap_err();
    assert_eq!(failure.to_string(), "no connection in time");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn connecting_ends_in_time() {
    // A queue of connections that has no room left leaves more of them without an answer.
    let (listener, address) = listen();
    rustix::net::listen(&listener, 0).unwrap();
    let wait = Duration::from_millis(50);
    let parsed = address.parse().unwrap();
    let waiting: Vec<TcpStream> =
        std::iter::from_fn(|| TcpStream::connect_timeout(&parsed, wait).ok()).collect();
    times_out(&connector(&format!("http://{address}"), |_| {}));
    drop(waiting);

    let folder = Folder::new("net-backlog");
    let path = folder.0.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let waiting = UnixStream::connect(&path).unwrap();
    times_out(&connector(&format!("unix://{}", path.display()), |_| {}));
    drop(waiting);
}

#[test]
#[cfg(feature = "proxy")]
fn silent_proxies_end_in_time() {
    let (_listener, address) = listen();
    times_out(&connector("http://a.example", |destination| {
        destination.proxy = Some(Proxy::parse(&address).unwrap());
        destination.protocol = Protocol::Grpc;
    }));
}

#[test]
fn nobody_there_is_told() {
    let folder = Folder::new("net-nobody");
    let unix = format!("unix://{}/none", folder.0.display());
    let (listener, address) = listen();
    drop(listener);
    for (url, kind) in
        [(unix, ErrorKind::NotFound), (format!("http://{address}"), ErrorKind::ConnectionRefused)]
    {
        match *connector(&url, |_| {}).connect(later(), Alpn::Http1).unwrap_err() {
            Failure::Connect(error) => assert_eq!(error.kind(), kind),
            other => panic!("{other:?}"),
        }
    }
    let failure = connector("http://nobody.invalid", |_| {}).connect(later(), Alpn::Http1).unwrap_err();
    assert!(matches!(*failure, Failure::Resolve(_)), "{failure:?}");
}

#[test]
fn no_operation_outlasts_the_deadline() {
    let (listener, address) = listen();
    let mut stream = connector(&format!("http://{address}"), |_| {}).connect(later(), Alpn::Http1).unwrap();
    // Without a deadline, a receiver that is gone is found out about even so.
    assert!(rustix::net::sockopt::socket_keepalive(&stream).unwrap());
    let (mut peer, _) = listener.accept().unwrap();
    let started = Instant::now();
    stream.set_deadline(soon());
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    // What is there does not count any more.
    peer.write_all(b"late").unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    stream.set_deadline(soon());
    assert_eq!(stream.write_all(&vec![0; 64 << 20]).unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(10));
    stream.set_deadline(Deadline::NEVER);
    let mut buffer = [0; 4];
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"late");
}

#[test]
fn without_blocking_it_says_so() {
    let (listener, address) = listen();
    let mut stream = connector(&format!("http://{address}"), |_| {}).connect(later(), Alpn::Http1).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    stream.set_nonblocking(true);
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(stream.write_all(&vec![0; 64 << 20]).unwrap_err().kind(), ErrorKind::WouldBlock);
    peer.write_all(b"x").unwrap();
    stream.set_nonblocking(false);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
    drop(peer);
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
}

/// A proxy that answers `CONNECT` so, and tells what it was asked.
#[cfg(feature = "proxy")]
fn proxy(answer: &'static [u8]) -> (Proxy, std::thread::JoinHandle<String>) {
    use std::io::BufRead;

    let (listener, address) = listen();
    let asked = std::thread::spawn(move || {
        let mut stream = io::BufReader::new(listener.accept().unwrap().0);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap() > 0 {}
        stream.get_mut().write_all(answer).unwrap();
        head
    });
    (Proxy::parse(&format!("http://me:s3cret@{address}/")).unwrap(), asked)
}

#[test]
#[cfg(feature = "proxy")]
fn tunnels_are_asked_for_and_carry_what_the_receiver_says_first() {
    let (proxy, asked) = proxy(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nx: y\r\n\r\nfirst words");
    let connector = connector("http://[fd00::1]", |destination| {
        destination.proxy = Some(proxy);
        destination.protocol = Protocol::Grpc;
    });
    assert!(!format!("{connector:?}").contains("s3cret"));
    let mut said = String::new();
    connector.connect(later(), Alpn::H2).unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "first words");
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("CONNECT [fd00::1]:80 HTTP/1.1\r\nHost: [fd00::1]:80\r\n"), "{asked}");
    assert!(asked.contains("\r\nProxy-Authorization: Basic bWU6czNjcmV0\r\n"), "{asked}");
}

#[test]
#[cfg(feature = "proxy")]
fn proxies_that_refuse_are_told() {
    for (answer, text) in [
        (
            &b"HTTP/1.1 407 x\r\n\r\n"[..],
            "the proxy makes no connection to the receiver: it answered 407 Proxy Authentication Required",
        ),
        (b"\x05\x00", "no connection (the proxy does not answer in HTTP/1)"),
        (b"", "no connection (unexpected end of file)"),
    ] {
        let (proxy, asked) = proxy(answer);
        let connector = connector("http://a.example", |destination| {
            destination.proxy = Some(proxy);
            destination.protocol = Protocol::Grpc;
        });
        let failure = connector.connect(later(), Alpn::H2).unwrap_err();
        assert_eq!(failure.to_string(), text);
        assert!(failure.is_retryable());
        asked.join().unwrap();
    }
}

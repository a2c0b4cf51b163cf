use std::io::Read;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use bytes::Bytes;
use flate2::read::GzDecoder;

use super::*;
use crate::built_in::GzipBuiltIn;
use crate::export::destination::{Protocol, TlsFiles};
use crate::export::net::proxy::Proxy;
use crate::export::net::tests::Folder;
use crate::export::{Compression, Endpoint, MAX_REQUEST, Signal};

pub(in crate::export) mod server;

use server::{Answer, PROTOBUF, Seen, accepted, answer, serve, serve_on};

/// A destination at `url`.
pub(in crate::export) fn destination(url: &str) -> Destination {
    let endpoint = Endpoint::parse(url).unwrap();
    Destination {
        targets: Signal::ALL.map(|signal| (signal, endpoint.clone().join(signal.path()).target())).to_vec(),
        endpoint: endpoint.origin(),
        protocol: Protocol::HttpProtobuf,
        headers: Vec::new(),
        compression: Compression::None,
        timeout: None,
        tls: TlsFiles::default(),
        proxy: None,
    }
}

pub(in crate::export) fn request(signal: Signal, body: impl Into<Bytes>) -> Request {
    Request { signal, items: 1, body: body.into() }
}

pub(in crate::export) fn send_to(
    client: &mut Client,
    body: impl Into<Bytes>,
    timeout: u64,
) -> Result<Accepted, Refusal> {
    // Sun, 06 Nov 1994 08:49:37 GMT
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    client.attempt(&request(Signal::Profiles, body), Some(Duration::from_millis(timeout)), wall)
}

/// Sends "request" to a server that answers so.
fn send(answer: Answer) -> Result<Accepted, Refusal> {
    let (url, _requests) = serve(vec![answer]);
    send_to(&mut Client::new(&destination(&url)).unwrap(), "request", 30_000)
}

/// What the server saw of `requests` requests of `destination`'s.
#[cfg(feature = "proxy")]
fn seen(mut destination: Destination, requests: usize, change: impl FnOnce(&mut Destination)) -> Vec<Seen> {
    let (url, seen) = serve((0..requests).map(|_| accepted()).collect());
    destination.endpoint = Endpoint::parse(&url).unwrap();
    change(&mut destination);
    let mut client = Client::new(&destination).unwrap();
    for _ in 0..requests {
        send_to(&mut client, "request", 30_000).unwrap();
    }
    seen.iter().take(requests).collect()
}

fn unauthority(url: &str) -> &str {
    url.split_once("://").unwrap().1
}

#[test]
fn requests_are_what_otlp_asks_for() {
    let (url, requests) = serve(vec![accepted(), accepted()]);
    let mut destination = destination(&format!("{url}/base/?k=v"));
    destination.headers = vec![crate::export::config::Header::new("api-key", "s3cret").unwrap()];
    let mut client = Client::new(&destination).unwrap();
    send_to(&mut client, "request", 30_000).unwrap();
    client.attempt(&request(Signal::Logs, "logs"), None, SystemTime::now()).unwrap();
    let requests: Vec<Seen> = requests.iter().take(2).collect();
    let head = &requests[0].head;
    assert!(head.starts_with("POST /base/v1development/profiles?k=v HTTP/1.1\r\n"), "{head}");
    assert_eq!(requests[0].header("Host"), Some(unauthority(&url)));
    assert_eq!(requests[0].header("Content-Type"), Some("application/x-protobuf"));
    assert_eq!(requests[0].header("Content-Encoding"), None);
    let version = env!("CARGO_PKG_VERSION");
    let agent = format!("ebpf-otlp/{version} OTel-OTLP-Exporter-Rust/{version}");
    assert_eq!(requests[0].header("User-Agent"), Some(&*agent));
    assert_eq!(requests[0].header("api-key"), Some("s3cret"));
    assert_eq!(requests[0].body, b"request");
    // Another signal, the same connection.
    assert!(requests[1].head.starts_with("POST /base/v1/logs?k=v HTTP/1.1\r\n"));
    assert_eq!((requests[1].connection, &*requests[1].body), (1, &b"logs"[..]));
    assert!(!format!("{client:?} {destination:?}").contains("s3cret"));
}

#[test]
fn bodies_are_compressed_json_or_both() {
    let (url, requests) = serve((0..5).map(|_| accepted()).collect());
    let mut destination = destination(&url);
    let gzip = GzipBuiltIn::get().map(Compression::Gzip);
    let unzip = |body: &[u8]| {
        let mut decoded = Vec::new();
        GzDecoder::new(body).read_to_end(&mut decoded).unwrap();
        decoded
    };
    if let Some(gzip) = gzip {
        destination.compression = gzip;
        let mut client = Client::new(&destination).unwrap();
        let body: Vec<u8> = (0..100_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        // The second time, the buffer is used again.
        for _ in 0..2 {
            send_to(&mut client, body.clone(), 30_000).unwrap();
            let seen = requests.recv().unwrap();
            assert_eq!(seen.header("Content-Encoding"), Some("gzip"));
            assert!(seen.body.len() < body.len() / 2);
            assert!(unzip(&seen.body) == body);
        }
    }
    if cfg!(not(feature = "json")) {
        return;
    }
    destination.protocol = Protocol::HttpJson;
    // resource_profiles: [{schema_url: "x"}]
    let message: &[u8] = b"\x0a\x03\x1a\x01x";
    let json = br#"{"resourceProfiles":[{"schemaUrl":"x"}]}"#;
    for compression in gzip.into_iter().chain([Compression::None]) {
        destination.compression = compression;
        send_to(&mut Client::new(&destination).unwrap(), message, 30_000).unwrap();
        let seen = requests.recv().unwrap();
        assert_eq!(seen.header("Content-Type"), Some("application/json"));
        let body = if compression == Compression::None { seen.body } else { unzip(&seen.body) };
        assert_eq!(body, json);
    }
    let refusal = send_to(&mut Client::new(&destination).unwrap(), "no message", 30_000).unwrap_err();
    assert!(matches!(*refusal.failure, Failure::Json(_)) && !refusal.failure.is_retryable());
}

#[test]
fn what_otlp_forbids_is_not_sent() {
    let (url, requests) = serve(vec![accepted()]);
    let mut destination = destination(&url);
    destination.targets.retain(|(signal, _)| *signal != Signal::Profiles);
    let mut client = Client::new(&destination).unwrap();
    for (size, text) in [
        (1, "no target is known for this signal"),
        (MAX_REQUEST + 1, "a request of 67108865 bytes is larger than the 67108864 that OTLP allows"),
    ] {
        let refusal = send_to(&mut client, vec![0; size], 30_000).unwrap_err();
        assert_eq!(refusal.failure.to_string(), text);
        assert!(!refusal.failure.is_retryable() && !refusal.ambiguous);
    }
    assert!(requests.try_recv().is_err());
}

#[test]
fn connections_are_kept_until_the_receiver_closes_them() {
    let chunked =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: x\r\n\r\n";
    let (url, requests) = serve(vec![
        accepted(),
        Answer::Keep(chunked.to_vec()),
        Answer::Stall(answer("200 OK", "Connection: x, Close\r\n", b"")),
        accepted(),
    ]);
    let mut client = Client::new(&destination(&url)).unwrap();
    for _ in 0..4 {
        send_to(&mut client, "request", 30_000).unwrap();
    }
    let connections: Vec<usize> = requests.iter().take(4).map(|request| request.connection).collect();
    assert_eq!(connections, [1, 1, 1, 2]);
}

#[test]
fn a_connection_that_was_closed_while_idle_costs_no_attempt() {
    let late = answer("408 Request Timeout", "", b"");
    let twice = [answer("200 OK", "", b""), late].concat();
    // One closes, one says what nobody asked for and stays open.
    for first in [Answer::Close(answer("200 OK", PROTOBUF, b"")), Answer::Stall(twice)] {
        let (url, requests) = serve(vec![first, accepted()]);
        let mut client = Client::new(&destination(&url)).unwrap();
        send_to(&mut client, "request", 30_000).unwrap();
        wait_for_end(&mut client);
        send_to(&mut client, "request", 30_000).unwrap();
        assert_eq!(requests.iter().take(2).map(|request| request.connection).last(), Some(2));
    }
}

#[test]
fn a_time_out_of_the_idle_connection_costs_no_attempt() {
    let late = Answer::Keep(answer("408 Request Timeout", "", b""));
    let (url, requests) = serve(vec![accepted(), late, accepted()]);
    let mut client = Client::new(&destination(&url)).unwrap();
    for _ in 0..2 {
        send_to(&mut client, "request", 30_000).unwrap();
    }
    drop(client);
    assert_eq!(requests.iter().map(|request| request.connection).collect::<Vec<_>>(), [1, 1, 2]);
}

/// Waits until the kept connection, if any, has something to read.
fn wait_for_end(client: &mut Client) {
    use rustix::event::{PollFd, PollFlags, poll};
    if let Some(kept) = client.link.kept() {
        poll(&mut [PollFd::new(kept, PollFlags::IN)], None).unwrap();
    }
}

#[test]
fn a_kept_connection_that_ends_after_the_request_is_ambiguous() {
    let (url, requests) = serve(vec![accepted(), Answer::Close(Vec::new()), accepted()]);
    let mut client = Client::new(&destination(&url)).unwrap();
    send_to(&mut client, "request", 30_000).unwrap();
    let refusal = send_to(&mut client, "request", 30_000).unwrap_err();
    assert!(matches!(*refusal.failure, Failure::Disconnected(_)) && refusal.ambiguous);
    send_to(&mut client, "request", 30_000).unwrap();
    drop(client);
    // It was sent three times, not four.
    assert_eq!(requests.iter().map(|request| request.connection).collect::<Vec<_>>(), [1, 1, 2]);
}

#[test]
fn what_was_not_sent_to_its_end_is_not_ambiguous() {
    // The receiver reads nothing, and what fits into buffers is not all.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let mut client = Client::new(&destination(&silent)).unwrap();
    let refusal = send_to(&mut client, vec![0; 32 << 20], 200).unwrap_err();
    assert!(matches!(*refusal.failure, Failure::Timeout(_)) && !refusal.ambiguous, "{refusal:?}");
    assert!(refusal.failure.is_retryable());
}

#[test]
fn silence_ends_with_the_timeout_and_is_ambiguous() {
    for begun in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 100 Continue\r\n\r\n"] {
        let (url, _requests) = serve(vec![Answer::Stall(begun.to_vec())]);
        let started = Instant::now();
        let refusal = send_to(&mut Client::new(&destination(&url)).unwrap(), "request", 300).unwrap_err();
        assert_eq!(refusal.failure.to_string(), "no answer within 0.3 s");
        assert!(refusal.ambiguous && refusal.failure.is_retryable());
        assert!(started.elapsed() >= Duration::from_millis(300));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    // A body that drips cannot prolong it; the status counts.
    let dripping = answer("200 OK", "", b"x");
    let (url, _requests) = serve(vec![Answer::Stall(dripping[..dripping.len() - 1].to_vec())]);
    let started = Instant::now();
    send_to(&mut Client::new(&destination(&url)).unwrap(), "request", 300).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn partial_success_is_told_whatever_it_is_written_in() {
    let protobuf = Answer::Keep(answer("200 OK", PROTOBUF, b"\x0a\x0a\x08\x96\x01\x12\x05queue"));
    let json = br#"{"partialSuccess":{"rejectedProfiles":"150","errorMessage":"queue"}}"#;
    let json = Answer::Keep(answer("200 OK", "Content-Type: application/json; charset=utf-8\r\n", json));
    for answer in [protobuf, json] {
        assert_eq!(send(answer).unwrap(), Accepted { rejected: 150, message: Some("queue".into()) });
    }
}

#[test]
fn odd_bodies_of_a_success_are_a_success() {
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n\x0a".to_vec();
    let cut_chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc".to_vec();
    let interim = [b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), answer("200 OK", "", b"")].concat();
    let zipped = |coding: &str| format!("{PROTOBUF}Content-Encoding: {coding}\r\n");
    for answer in [
        answer("200 OK", "Content-Type: application/json\r\n", b"{\"partialSuccess\":{}}"),
        answer("200 OK", PROTOBUF, b"\xff\xff\xff"),
        answer("200 OK", PROTOBUF, b"<html>"),
        b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        b"HTTP/1.0 202 Accepted\r\n\r\n{}".to_vec(),
        cut,
        cut_chunk,
        interim,
        answer("200 OK", &zipped("gzip"), b"no gzip"),
        answer("200 OK", &zipped("br"), b"\x0a\x02\x08\x01"),
    ] {
        assert_eq!(send(Answer::Close(answer)).unwrap(), Accepted::default());
    }
}

#[cfg(feature = "gzip")]
#[test]
fn answers_that_were_compressed_on_the_way_are_read_up_to_the_limit() {
    let zipped = |body: &[u8], status: &str| {
        let mut zipped = Vec::new();
        crate::export::gzip::compress_into(body, &mut zipped, GzipBuiltIn::HERE);
        Answer::Keep(answer(status, &format!("{PROTOBUF}Content-Encoding: gzip\r\n"), &zipped))
    };
    assert_eq!(send(zipped(b"\x0a\x02\x08\x07", "200 OK")).unwrap().rejected, 7);
    let refusal = send(zipped(&vec![0; MAX_RESPONSE + 1], "200 OK")).unwrap_err();
    assert!(matches!(*refusal.failure, Failure::ResponseTooLarge) && !refusal.ambiguous);
    let refusal = send(zipped(b"\x12\x03bad", "400 Bad Request")).unwrap_err();
    assert_eq!(refusal.failure.to_string(), "the receiver answered 400 Bad Request: bad");
}

#[test]
fn answers_over_the_limit_are_refused() {
    let body = vec![b'x'; MAX_RESPONSE + 1];
    let begin = b"HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffff\r\n".to_vec();
    let chunked = [begin, body.clone()].concat();
    let unknown = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), body.clone()].concat();
    for bytes in [answer("200 OK", "", &body), chunked, unknown] {
        let refusal = send(Answer::Close(bytes)).unwrap_err();
        assert!(matches!(*refusal.failure, Failure::ResponseTooLarge) && !refusal.failure.is_retryable());
    }
    assert!(send(Answer::Close(answer("200 OK", PROTOBUF, &body[..MAX_RESPONSE]))).is_ok());
}

#[test]
fn statuses_decide_about_another_attempt() {
    for (status, retryable) in [
        ("400 Bad Request", false),
        ("401 x", false),
        ("404 x", false),
        ("407 x", false),
        ("408 x", false),
        ("413 x", false),
        ("429 x", true),
        ("500 x", false),
        ("501 x", false),
        ("502 x", true),
        ("503 x", true),
        ("504 x", true),
        ("599 x", false),
    ] {
        let refusal =
            send(Answer::Keep(answer(status, PROTOBUF, b"\x08\x03\x12\x0ano \x1b[2Jway"))).unwrap_err();
        let text = refusal.failure.to_string();
        assert!(text.contains(&status[..3]) && text.ends_with(": no ?[2Jway"), "{text}");
        assert_eq!((refusal.failure.is_retryable(), refusal.ambiguous), (retryable, false), "{status}");
    }
}

#[test]
fn redirects_are_not_followed() {
    let (url, requests) =
        serve(vec![Answer::Keep(answer("307 Temporary Redirect", "Location: /x\r\n", b""))]);
    let refusal = send_to(&mut Client::new(&destination(&url)).unwrap(), "request", 30_000).unwrap_err();
    assert_eq!(refusal.failure.to_string(), "the receiver answered 307 Redirect");
    assert!(!refusal.failure.is_retryable());
    assert_eq!(requests.iter().count(), 1);
}

#[test]
fn retry_after_is_told_in_both_forms() {
    for (value, seconds) in
        [("3", Some(3)), ("Sun, 06 Nov 1994 08:49:42 GMT", Some(5)), ("0", Some(0)), ("soon", None)]
    {
        let busy = answer("429 Too Many Requests", &format!("retry-after: {value}\r\n"), b"");
        let refusal = send(Answer::Keep(busy)).unwrap_err();
        assert_eq!(refusal.asked_to_wait, seconds.map(Duration::from_secs));
    }
}

#[test]
fn an_answer_before_the_request_was_read_counts() {
    let early = Answer::Refuse(answer("413 Content Too Large", "", b""));
    let (url, requests) = serve(vec![early, accepted()]);
    let mut client = Client::new(&destination(&url)).unwrap();
    let refusal = send_to(&mut client, vec![0; 8 << 20], 30_000).unwrap_err();
    assert!(matches!(*refusal.failure, Failure::Status { code: 413, .. }), "{refusal:?}");
    assert!(!refusal.ambiguous);
    drop(requests);
}

#[test]
fn an_answer_counts_even_if_the_request_is_never_read() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let open = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, &answer("413 Content Too Large", "", b"")).unwrap();
        stream
    });
    let mut client = Client::new(&destination(&url)).unwrap();
    let refusal = send_to(&mut client, vec![0; 32 << 20], 1000).unwrap_err();
    assert!(matches!(*refusal.failure, Failure::Status { code: 413, .. }), "{refusal:?}");
    assert!(client.link.kept().is_none());
    drop(open.join());
}

#[test]
fn what_is_not_http_is_told_at_once() {
    // The first frame of HTTP/2, as a gRPC server sends it.
    let settings = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00".to_vec();
    let endless_head = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".repeat(20_000)].concat();
    for bytes in [
        settings,
        b"HTTP/1.1 abc\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_vec(),
        endless_head,
    ] {
        let refusal = send(Answer::Stall(bytes)).unwrap_err();
        assert!(matches!(*refusal.failure, Failure::NotHttp), "{refusal:?}");
        assert!(!refusal.failure.is_retryable() && !refusal.ambiguous);
    }
}

#[test]
fn unix_sockets_carry_the_same() {
    let dir = Folder::new("http-unix");
    let path = dir.0.join("otlp socket");
    let listener = UnixListener::bind(&path).unwrap();
    let requests: Receiver<Seen> =
        serve_on(move || listener.accept().ok().map(|(stream, _)| stream), vec![accepted(), accepted()]);
    let url = format!("unix://{}", path.to_str().unwrap().replace(' ', "%20"));
    let mut destination = destination(&url);
    // No proxy can reach it.
    destination.proxy = Proxy::parse("http://127.0.0.1:1").ok();
    let mut client = Client::new(&destination).unwrap();
    for _ in 0..2 {
        send_to(&mut client, "request", 30_000).unwrap();
        let seen = requests.recv().unwrap();
        assert!(seen.head.starts_with("POST /v1development/profiles HTTP/1.1\r\nHost: localhost\r\n"));
        assert_eq!((seen.connection, &*seen.body), (1, &b"request"[..]));
    }
}

#[test]
#[cfg(feature = "proxy")]
fn a_proxy_is_told_where_requests_go_and_who_asks() {
    let proxied = |proxy: &str| {
        seen(destination("http://a.example:4318/base?k=v"), 2, |destination| {
            let address = unauthority(&destination.endpoint.to_string()).trim_end_matches('/').to_owned();
            destination.proxy = Some(Proxy::parse(&format!("http://{proxy}{address}")).unwrap());
            destination.endpoint = Endpoint::parse("http://a.example:4318").unwrap();
        })
    };
    for request in proxied("user:s3cret@") {
        assert_eq!(request.connection, 1);
        let line = "POST http://a.example:4318/base/v1development/profiles?k=v HTTP/1.1\r\n";
        assert!(request.head.starts_with(line), "{}", request.head);
        assert_eq!(request.header("Host"), Some("a.example:4318"));
        assert_eq!(request.header("Proxy-Authorization"), Some("Basic dXNlcjpzM2NyZXQ="));
    }
    assert_eq!(proxied("")[0].header("Proxy-Authorization"), None);
}

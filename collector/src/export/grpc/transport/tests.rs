//! A client and a server of gRPC over loopback. The server is `h2`'s other side, or bytes by hand.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use h2::Reason;

use super::*;
use crate::built_in::GzipBuiltIn;
use crate::export::config::Header;
use crate::export::destination::{Protocol, TlsFiles};
use crate::export::gzip::compress;
use crate::export::gzip::decompress;
use crate::export::http::MAX_RESPONSE;
use crate::export::{Endpoint, MAX_REQUEST, Signal};
use server::{Answer as Reply, Seen, Server};

mod server;

const PARTIAL: &[u8] = b"\x0a\x0a\x08\x96\x01\x12\x05queue";

fn destination(url: &str) -> Destination {
    Destination {
        endpoint: Endpoint::parse(url).unwrap(),
        protocol: Protocol::Grpc,
        headers: Vec::new(),
        compression: Compression::None,
        timeout: None,
        tls: TlsFiles::default(),
        proxy: None,
        targets: Signal::ALL.map(|signal| (signal, signal.grpc_path().to_owned())).to_vec(),
    }
}

fn transport(url: &str) -> GrpcTransport {
    GrpcTransport::new(&destination(url)).unwrap()
}

fn request(signal: Signal, body: impl Into<Bytes>) -> Request {
    Request { signal, items: 1, body: body.into() }
}

fn attempt(transport: &mut GrpcTransport) -> Result<Accepted, Refusal> {
    let wall = SystemTime::UNIX_EPOCH;
    transport.attempt(&request(Signal::Logs, "request"), Some(Duration::from_secs(20)), wall)
}

/// What becomes of one request to a server that answers so.
fn send(reply: Reply) -> Result<Accepted, Refusal> {
    attempt(&mut transport(&Server::new([reply]).url))
}

/// The failure of a request to a server that answers so, and how it looks.
fn refused(reply: Reply) -> (Refusal, String) {
    let refusal = send(reply).unwrap_err();
    let text = refusal.failure.to_string();
    (refusal, text)
}

fn code(failure: &Failure) -> Code {
    match failure {
        Failure::Grpc { code, .. } => *code,
        other => panic!("{other}"),
    }
}

/// A server that writes `bytes` on each connection once it has read `request`, reads on until the client goes, and
/// tells what it read.
fn raw(request: &[u8], bytes: &[u8]) -> (String, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = channel();
    let (request, bytes) = (request.to_vec(), bytes.to_vec());
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut read = Vec::new();
            let mut buffer = [0; 4096];
            while !request.is_empty() && !read.windows(request.len()).any(|window| window == request) {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => read.extend_from_slice(&buffer[..count]),
                }
            }
            let _ = stream.write_all(&bytes);
            let _ = stream.read_to_end(&mut read);
            if sender.send(read).is_err() {
                return;
            }
        }
    });
    (url, received)
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn settings() -> Vec<u8> {
    frame(4, 0, 0, b"")
}

fn go_away(last_stream: u32, reason: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last_stream.to_be_bytes(), reason.to_be_bytes()].concat())
}

#[test]
fn requests_are_what_grpc_asks_for() {
    let server = Server::new([Reply::accepted()]);
    let mut destination = destination(&server.url);
    destination.headers = vec![Header::new("Api-Key", "s3cret").unwrap()];
    let mut transport = GrpcTransport::new(&destination).unwrap();
    assert!(!format!("{transport:?}").contains("s3cret"));
    assert_eq!(attempt(&mut transport).unwrap(), Accepted::default());
    let Seen { head, body, .. } = server.seen();
    assert_eq!(head.method(), "POST");
    let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    assert_eq!(head.uri().to_string(), format!("{}{path}", server.url));
    let header = |name: &str| head.headers().get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("te"), Some("trailers"));
    assert_eq!(header("content-type"), Some("application/grpc"));
    assert_eq!(header("grpc-accept-encoding"), Some("identity,gzip"));
    assert_eq!(header("grpc-encoding"), None);
    assert_eq!(header("api-key"), Some("s3cret"));
    let timeout: u64 = header("grpc-timeout").unwrap().strip_suffix('m').unwrap().parse().unwrap();
    assert!((10_000..=20_000).contains(&timeout), "{timeout}");
    assert_eq!(body, b"\0\0\0\0\x07request");
}

#[test]
fn no_table_keeps_credentials() {
    let answer = [frame(1, 4, 1, ANSWER_HEAD), frame(1, 5, 1, ANSWER_END)].concat();
    let (url, received) = raw(b"request", &[settings(), answer].concat());
    let mut destination = destination(&url);
    destination.headers = vec![Header::new("Authorization", "s3cret").unwrap()];
    attempt(&mut GrpcTransport::new(&destination).unwrap()).unwrap();
    // A literal that is never indexed, whose name is entry 23 of HPACK's static table.
    assert!(received.recv().unwrap().windows(2).any(|bytes| bytes == [0x1f, 23 - 15]));
}

#[test]
fn gzip_decodes_to_the_same() {
    let compressed_answer = compress(PARTIAL);
    let server = Server::new([Reply::message(1, &compressed_answer).header("grpc-encoding", "gzip")]);
    let mut destination = destination(&server.url);
    destination.compression = Compression::Gzip(GzipBuiltIn::HERE);
    let mut transport = GrpcTransport::new(&destination).unwrap();
    let body = vec![7; 100_000];
    let accepted = transport.attempt(&request(Signal::Traces, body.clone()), None, SystemTime::UNIX_EPOCH);
    assert_eq!(accepted.unwrap().rejected, 150);
    let seen = server.seen();
    assert_eq!(seen.head.headers()["grpc-encoding"], "gzip");
    assert!(seen.head.headers().get("grpc-timeout").is_none());
    let (prefix, message) = seen.body.split_at(5);
    assert_eq!(prefix[0], 1);
    assert_eq!(u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize, message.len());
    assert_eq!(decompress(message, 1 << 20).unwrap().unwrap(), body);
}

#[test]
fn partial_success_is_told() {
    let accepted = Accepted { rejected: 150, message: Some("queue".into()) };
    assert_eq!(send(Reply::message(0, PARTIAL)).unwrap(), accepted);
}

#[test]
fn one_connection_serves_all_signals() {
    let server = Server::new((0..8).map(|_| Reply::accepted()));
    let mut transport = transport(&server.url);
    for signal in Signal::ALL.into_iter().chain(Signal::ALL) {
        transport.attempt(&request(signal, ""), None, SystemTime::UNIX_EPOCH).unwrap();
        let seen = server.seen();
        assert_eq!((seen.connection, seen.head.uri().path()), (1, signal.grpc_path()));
        assert_eq!(seen.body, [0; 5]);
    }
}

#[test]
fn large_bodies_go_through_small_windows() {
    let server = Server::with_window(4096, [Reply::accepted(), Reply::accepted()]);
    let mut transport = transport(&server.url);
    let body: Bytes = (0..2_u32 << 20).flat_map(u32::to_le_bytes).collect();
    attempt(&mut transport).unwrap();
    server.seen();
    transport.attempt(&request(Signal::Profiles, body.clone()), None, SystemTime::UNIX_EPOCH).unwrap();
    let seen = server.seen();
    assert_eq!(seen.connection, 1);
    assert!(seen.body[5..] == body);
}

#[test]
fn every_status_is_told_and_some_are_tried_again() {
    for (number, code) in Code::ALL.into_iter().enumerate().skip(1) {
        let reply = Reply::status(&number.to_string()).header("grpc-message", "caf%C3%A9%0Aclosed");
        let (refusal, text) = refused(reply);
        assert_eq!(text, format!("the call ended with {code}: café closed"));
        assert_eq!(refusal.failure.is_retryable(), code.is_retryable(false));
        assert!(!refusal.ambiguous && refusal.asked_to_wait.is_none());
    }
    let (refusal, _) = refused(Reply::status("99"));
    assert_eq!(code(&refusal.failure), Code::Unknown);
}

#[test]
fn what_is_too_large_is_not_tried_again() {
    let tonic = "Error, decoded message length too large: found 12800000 bytes, the limit is: 4194304 bytes";
    for (message, is_retryable) in [(tonic, false), ("offset 7 is past the end", true)] {
        let (refusal, _) = refused(Reply::status("11").header("grpc-message", message));
        assert_eq!(refusal.failure.is_retryable(), is_retryable, "{message}");
    }
}

#[test]
fn statuses_come_in_trailers_or_alone() {
    let empty = Reply { trailers: Vec::new(), ..Reply::message(0, b"") };
    let late = empty.trailer("grpc-status", "14").trailer("grpc-message", "later");
    assert_eq!(refused(late).1, "the call ended with UNAVAILABLE: later");
    assert_eq!(send(Reply::status("0")).unwrap(), Accepted::default());
}

#[test]
fn retry_info_says_when_and_whether() {
    // A Status of code 8 with a RetryInfo of 7 s; the type's name is 40 bytes long.
    let details = b"\x08\x08\x1a\x30\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12\x04\x0a\x02\x08\x07";
    let python = "CAgaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIIBw==";
    assert_eq!(details.len(), 52);
    for number in ["8", "14"] {
        let (refusal, _) = refused(Reply::status(number).header("grpc-status-details-bin", python));
        assert!(refusal.failure.is_retryable());
        assert_eq!(refusal.asked_to_wait, Some(Duration::from_secs(7)));
    }
    let (refusal, _) = refused(Reply::status("8"));
    assert!(!refusal.failure.is_retryable());
}

#[test]
fn what_is_not_grpc_is_told_by_its_http_status() {
    let html =
        |status| Reply { status, ..Reply::default() }.header("content-type", "text/html").body(b"<html>");
    for (status, expected) in [(404, Code::Unimplemented), (502, Code::Unavailable), (200, Code::Unknown)] {
        let (refusal, text) = refused(html(status));
        assert_eq!(code(&refusal.failure), expected);
        assert!(text.ends_with(&format!("HTTP status {status} with text/html, not gRPC")), "{text}");
    }
    let (refusal, _) = refused(html(503).header("retry-after", "9"));
    assert_eq!(refusal.asked_to_wait, Some(Duration::from_secs(9)));
}

#[test]
fn the_status_counts_whatever_is_in_the_message() {
    let twice = [Reply::message(0, b"a").body, Reply::message(0, b"b").body].concat();
    for reply in [
        Reply::accepted().body(&twice),
        Reply::accepted().body(b"\0\0\0\0\x05cut"),
        Reply::message(1, b""),
        Reply::message(9, b""),
    ] {
        assert_eq!(send(reply).unwrap(), Accepted::default());
    }
    let no_status = Reply { trailers: Vec::new(), ..Reply::message(0, b"") };
    let (refusal, text) = refused(no_status);
    assert_eq!(text, "the call ended with UNKNOWN: the answer has no status");
    assert!(refusal.ambiguous);
    // No message, and one that is no protobuf, say nothing beyond the status.
    assert_eq!(send(Reply::accepted().body(b"")).unwrap(), Accepted::default());
    assert_eq!(send(Reply::message(0, b"\xff\xff")).unwrap(), Accepted::default());
}

#[test]
fn requests_have_a_limit() {
    let too_large = request(Signal::Logs, vec![0; MAX_REQUEST + 1]);
    let mut transport = transport("http://127.0.0.1:1");
    let refusal = transport.attempt(&too_large, None, SystemTime::UNIX_EPOCH).unwrap_err();
    assert!(matches!(*refusal.failure, Failure::RequestTooLarge { .. }), "{}", refusal.failure);
    assert!(!refusal.failure.is_retryable() && !refusal.ambiguous);
}

#[test]
fn answers_have_a_limit() {
    let (refusal, _) = refused(Reply::accepted().body(&vec![0; MAX_RESPONSE + 6]));
    // It was an answer.
    assert!(matches!(*refusal.failure, Failure::ResponseTooLarge) && !refusal.ambiguous);
    let bomb = compress(&vec![0; MAX_RESPONSE + 1]);
    let (refusal, _) = refused(Reply::message(1, &bomb).header("grpc-encoding", "gzip"));
    assert!(matches!(*refusal.failure, Failure::ResponseTooLarge));
    let most = vec![0; MAX_RESPONSE];
    assert!(send(Reply::message(0, &most)).is_ok());
}

#[test]
fn resets_have_the_meaning_that_grpc_gives_them() {
    for (reason, expected, ambiguous) in [
        (Reason::NO_ERROR, Code::Internal, true),
        (Reason::PROTOCOL_ERROR, Code::Internal, true),
        (Reason::INTERNAL_ERROR, Code::Internal, true),
        (Reason::REFUSED_STREAM, Code::Unavailable, false),
        (Reason::CANCEL, Code::Cancelled, true),
        (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted, true),
        (Reason::INADEQUATE_SECURITY, Code::PermissionDenied, true),
    ] {
        let server = Server::new([Reply { reset: Some(reason), ..Reply::default() }, Reply::accepted()]);
        let mut transport = transport(&server.url);
        let refusal = attempt(&mut transport).unwrap_err();
        assert_eq!((code(&refusal.failure), refusal.ambiguous), (expected, ambiguous), "{reason:?}");
        // The connection is as good as before.
        server.seen();
        attempt(&mut transport).unwrap();
        assert_eq!(server.seen().connection, 1);
    }
}

#[test]
fn an_early_answer_ends_the_request() {
    let early = Reply { early: true, ..Reply::status("8") };
    let server = Server::with_window(4096, [early, Reply::accepted()]);
    let mut transport = transport(&server.url);
    let large = request(Signal::Logs, vec![0; 8 << 20]);
    let refusal = transport.attempt(&large, None, SystemTime::UNIX_EPOCH).unwrap_err();
    assert_eq!(code(&refusal.failure), Code::ResourceExhausted);
    attempt(&mut transport).unwrap();
    assert_eq!(server.seen().connection, 1);
}

#[test]
fn a_connection_that_closed_while_idle_costs_nothing() {
    for closing in [Reply { close: true, ..Reply::accepted() }, Reply { go_away: true, ..Reply::accepted() }]
    {
        let server = Server::new([closing, Reply::accepted(), Reply::accepted()]);
        let mut transport = transport(&server.url);
        attempt(&mut transport).unwrap();
        assert_eq!(server.seen().connection, 1);
        server.wait_for_end();
        for _ in 0..2 {
            attempt(&mut transport).unwrap();
            assert_eq!(server.seen().connection, 2);
        }
    }
}

#[test]
fn a_call_without_answer_is_ambiguous_once_sent() {
    let (refusal, _) = refused(Reply { vanish: true, ..Reply::default() });
    assert!(matches!(*refusal.failure, Failure::Disconnected(_)), "{:?}", refusal.failure);
    assert!(refusal.ambiguous && refusal.failure.is_retryable());
    // A window of 65535 bytes that is never opened: the rest stays here.
    let (url, _received) = raw(&[0; 5], &[settings(), frame(3, 0, 1, &2_u32.to_be_bytes())].concat());
    let large = request(Signal::Logs, vec![0; 1 << 20]);
    let refusal = transport(&url).attempt(&large, None, SystemTime::UNIX_EPOCH).unwrap_err();
    assert!(!refusal.ambiguous);
}

#[test]
fn go_away_tells_what_was_not_looked_at() {
    let (url, _received) = raw(b"", &[settings(), go_away(0, 0)].concat());
    let refusal = attempt(&mut transport(&url)).unwrap_err();
    assert_eq!(code(&refusal.failure), Code::Unavailable);
    assert!(!refusal.ambiguous && refusal.failure.is_retryable(), "{}", refusal.failure);
    // It may finish stream 1, and does.
    let answer = [frame(1, 4, 1, ANSWER_HEAD), frame(1, 5, 1, ANSWER_END)].concat();
    let (url, received) = raw(b"request", &[settings(), go_away(1, 0), answer].concat());
    let mut transport = transport(&url);
    for _ in 0..2 {
        attempt(&mut transport).unwrap();
    }
    for _ in 0..2 {
        assert!(received.recv().unwrap().starts_with(b"PRI * HTTP/2.0"));
    }
}

/// `:status: 200`, `content-type: application/grpc`, in HPACK.
const ANSWER_HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// `grpc-status: 0`, in HPACK.
const ANSWER_END: &[u8] = b"\0\x0bgrpc-status\x010";

#[test]
fn pings_are_answered_between_and_within_calls() {
    let ping = frame(6, 0, 0, b"8 bytes.");
    let answer = [frame(1, 4, 1, ANSWER_HEAD), frame(1, 5, 1, ANSWER_END)].concat();
    let (url, received) = raw(b"request", &[settings(), ping, answer].concat());
    let mut transport = transport(&url);
    attempt(&mut transport).unwrap();
    drop(transport);
    let pong = frame(6, 1, 0, b"8 bytes.");
    assert!(received.recv().unwrap().windows(pong.len()).any(|window| window == pong));
}

#[test]
fn silence_ends_at_the_deadline() {
    let timeout = Duration::from_millis(80);
    for bytes in [Vec::new(), settings(), [settings(), frame(1, 4, 1, ANSWER_HEAD)].concat(), vec![0; 4]] {
        let (url, _received) = raw(b"request", &bytes);
        let started = Instant::now();
        let mut transport = transport(&url);
        let small = request(Signal::Logs, "request");
        let refusal = transport.attempt(&small, Some(timeout), SystemTime::UNIX_EPOCH).unwrap_err();
        assert_eq!(refusal.failure.to_string(), "no answer within 0.1 s");
        assert!(refusal.ambiguous);
        assert!(started.elapsed() >= timeout && started.elapsed() < Duration::from_secs(10));
        assert!(transport.connection.is_none());
        // The window is never opened.
        let large = request(Signal::Logs, vec![0; 1 << 20]);
        let refusal = transport.attempt(&large, Some(timeout), SystemTime::UNIX_EPOCH).unwrap_err();
        assert!(matches!(*refusal.failure, Failure::Timeout(_)));
        assert!(!refusal.ambiguous);
    }
}

#[test]
fn a_receiver_that_never_stops_talking_ends_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let flood = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut reader = stream.try_clone().unwrap();
        let answers = thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        stream.write_all(&settings()).unwrap();
        let pongs = frame(6, 1, 0, b"8 bytes.").repeat(1000);
        while stream.write_all(&pongs).is_ok() {}
        let _ = stream.shutdown(Shutdown::Both);
        let _ = answers.join();
    });
    let small = request(Signal::Logs, "request");
    let refusal = transport(&url)
        .attempt(&small, Some(Duration::from_millis(200)), SystemTime::UNIX_EPOCH)
        .unwrap_err();
    assert!(matches!(*refusal.failure, Failure::Timeout(_)), "{}", refusal.failure);
    flood.join().unwrap();
}

#[test]
fn other_protocols_are_told() {
    let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let page = b"<!DOCTYPE HTML>";
    for (answer, length) in [(&answer[..], 10), (answer, 8 << 20), (page, 10)] {
        let (url, _received) = raw(b"", answer);
        let wanted = request(Signal::Logs, vec![0; length]);
        let refusal = transport(&url).attempt(&wanted, None, SystemTime::UNIX_EPOCH).unwrap_err();
        assert!(matches!(*refusal.failure, Failure::NotHttp2 { http1: true, .. }), "{}", refusal.failure);
        assert!(!refusal.failure.is_retryable() && !refusal.ambiguous);
    }
    for bytes in [b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".as_slice(), &[0xff; 100]] {
        let (url, _received) = raw(b"", bytes);
        let refusal = attempt(&mut transport(&url)).unwrap_err();
        assert!(matches!(*refusal.failure, Failure::NotHttp2 { http1: false, .. }), "{}", refusal.failure);
    }
}

#[test]
fn broken_frames_are_internal_and_end_the_connection() {
    // DATA before HEADERS; a window over 2^31 - 1; a header block that is no HPACK.
    for broken in
        [frame(0, 0, 1, b"x"), frame(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes()), frame(1, 5, 1, &[0xff; 20])]
    {
        let (url, _received) = raw(b"request", &[settings(), broken].concat());
        let mut transport = transport(&url);
        let refusal = attempt(&mut transport).unwrap_err();
        assert_eq!(code(&refusal.failure), Code::Internal, "{}", refusal.failure);
        assert!(transport.connection.is_none());
    }
}

#[test]
fn a_connection_that_ends_at_once_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        for bytes in [&b""[..], b"\0", b"\0\0\0\x04\0\0"] {
            let mut stream = listener.accept().unwrap().0;
            // What is read does not make closing a reset.
            stream.read_exact(&mut [0; 24]).unwrap();
            stream.write_all(bytes).unwrap();
        }
    });
    for _ in 0..3 {
        let refusal = attempt(&mut transport(&url)).unwrap_err();
        assert!(matches!(*refusal.failure, Failure::Disconnected(_)), "{}", refusal.failure);
        assert!(refusal.failure.is_retryable());
    }
    server.join().unwrap();
}

#[test]
fn likely_causes_are_told() {
    let described = |reply: Reply| send(reply).unwrap_err().failure.describe(Signal::Profiles);
    assert_eq!(
        described(Reply::status("12")),
        "the call ended with UNIMPLEMENTED; does this receiver take profiles over gRPC?"
    );
    assert!(described(Reply::status("16")).ends_with("credentials belong into OTEL_EXPORTER_OTLP_HEADERS"));
    // As grpcio, and tonic, say it.
    for (number, message) in
        [("8", "SERVER: Received message larger than max"), ("11", "Error, decoded message length too large")]
    {
        let text = described(Reply::status(number).header("grpc-message", message));
        assert!(text.contains("raise the receiver's limit"), "{text}");
    }
    let (url, _received) = raw(b"", b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let refusal = attempt(&mut transport(&url)).unwrap_err();
    assert!(
        refusal.failure.describe(Signal::Logs).contains("this looks like OTLP/HTTP, usually on port 4318")
    );
}

#[test]
fn nobody_listening_is_told() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refusal = attempt(&mut transport(&format!("http://{address}"))).unwrap_err();
    assert_eq!(refusal.failure.to_string(), "connection refused");
    assert!(!refusal.ambiguous && refusal.failure.is_retryable());
    let _ = TcpStream::connect(address);
}

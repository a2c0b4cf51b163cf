use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use bytes::Bytes;

use super::*;
use crate::export::http::MAX_RESPONSE;
use crate::export::{self, ExportConfig, Sink};

/// What the server does with one request.
enum Answer {
    /// Writes these bytes and keeps the connection.
    Keep(Vec<u8>),
    /// Writes these bytes and closes.
    Close(Vec<u8>),
    /// Writes these bytes and then nothing more until the client goes.
    Stall(Vec<u8>),
    /// Closes without having read the request.
    Refuse(Vec<u8>),
}

/// A request as the server saw it.
struct Request {
    connection: usize,
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Answers one request after the other, over as many connections as the client makes.
fn serve(answers: Vec<Answer>) -> (String, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        let mut answers = answers.into_iter();
        let mut connection = 0;
        while answers.len() > 0 {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            connection += 1;
            loop {
                if let Some(Answer::Refuse(_)) = answers.as_slice().first() {
                    let Some(Answer::Refuse(bytes)) = answers.next() else { return };
                    stream.get_mut().write_all(&bytes).unwrap();
                    // A close with unread bytes is a reset, which may overtake the answer: wait for the client.
                    let _ = std::io::copy(&mut stream, &mut std::io::sink());
                    break;
                }
                let Some((head, body)) = read_request(&mut stream) else { break };
                let _ = sender.send(Request { connection, head, body });
                match answers.next() {
                    Some(Answer::Keep(bytes)) => stream.get_mut().write_all(&bytes).unwrap(),
                    Some(Answer::Close(bytes)) => {
                        // The client may stop reading, and close, before the end of a large answer.
                        let _ = stream.get_mut().write_all(&bytes);
                        break;
                    }
                    Some(Answer::Stall(bytes)) => {
                        stream.get_mut().write_all(&bytes).unwrap();
                        let _ = stream.read(&mut [0]);
                        break;
                    }
                    Some(Answer::Refuse(_)) | None => break,
                }
            }
        }
    });
    (url, requests)
}

fn read_request(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn accepted() -> Answer {
    Answer::Keep(answer("200 OK", PROTOBUF, b""))
}

const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";

/// A transport to `url` with the variables `vars`.
fn transport(url: &str, vars: &[(&str, &str)]) -> HttpTransport {
    let config = ExportConfig::resolve(&[Signal::Profiles], &[url.to_owned()], &|name| {
        vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
    .unwrap();
    assert!(config.warnings.is_empty());
    let [Sink::Otlp(destination)] = &config.sinks[..] else { panic!("{config:?}") };
    HttpTransport::new(destination).unwrap()
}

/// Sends `body` once, for at most 300 ms.
fn attempt(transport: &mut HttpTransport, body: &[u8]) -> Result<Accepted, Refusal> {
    let request = export::Request { signal: Signal::Profiles, items: 1, body: Bytes::copy_from_slice(body) };
    // Sun, 06 Nov 1994 08:49:37 GMT
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    transport.attempt(&request, Some(Duration::from_millis(300)), wall)
}

/// Sends "request" once to a server with these answers.
fn send(answers: Vec<Answer>) -> Result<Accepted, Refusal> {
    let (url, _requests) = serve(answers);
    attempt(&mut transport(&url, &[]), b"request")
}

#[test]
fn request_is_what_otlp_asks_for() {
    let (url, requests) = serve(vec![accepted()]);
    let mut transport =
        transport(&format!("{url}/base/?k=v"), &[("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret")]);
    attempt(&mut transport, b"request").unwrap();
    let request = requests.recv().unwrap();
    assert!(
        request.head.starts_with("POST /base/v1development/profiles?k=v HTTP/1.1\r\n"),
        "{}",
        request.head
    );
    assert_eq!(request.header("Host"), url.strip_prefix("http://"));
    assert_eq!(request.header("Content-Type"), Some("application/x-protobuf"));
    assert_eq!(request.header("Content-Encoding"), None);
    let version = env!("CARGO_PKG_VERSION");
    let agent = format!("ebpf-otlp/{version} OTel-OTLP-Exporter-Rust/{version}");
    assert_eq!(request.header("User-Agent"), Some(&*agent));
    assert_eq!(request.header("api-key"), Some("s3cret"));
    assert_eq!(request.body, b"request");
}

#[test]
fn gzip_decodes_to_the_same() {
    let (url, requests) = serve(vec![accepted()]);
    let mut transport = transport(&url, &[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]);
    let body: Vec<u8> = (0..100_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
    attempt(&mut transport, &body).unwrap();
    let request = requests.recv().unwrap();
    assert_eq!(request.header("Content-Encoding"), Some("gzip"));
    assert!(request.body.len() < body.len() / 2);
    let mut decoded = Vec::new();
    flate2::read::GzDecoder::new(&*request.body).read_to_end(&mut decoded).unwrap();
    assert_eq!(decoded, body);
}

#[test]
fn connections_are_kept_and_replaced_when_the_receiver_closed_them() {
    let (url, requests) = serve(vec![
        accepted(),
        Answer::Close(answer("200 OK", PROTOBUF, b"")),
        Answer::Keep(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: x\r\n\r\n"
                .to_vec(),
        ),
        Answer::Keep(answer("200 OK", "Connection: close\r\n", b"")),
    ]);
    let mut transport = transport(&url, &[]);
    for _ in 0..4 {
        attempt(&mut transport, b"request").unwrap();
    }
    let connections: Vec<usize> = requests.iter().take(4).map(|request| request.connection).collect();
    assert_eq!(connections, [1, 1, 2, 2]);
}

#[test]
fn bytes_after_an_answer_are_not_the_next_answer() {
    let twice = [answer("200 OK", "", b""), answer("500 x", "", b"")].concat();
    let (url, _requests) = serve(vec![Answer::Close(twice), accepted()]);
    let mut transport = transport(&url, &[]);
    for _ in 0..2 {
        attempt(&mut transport, b"request").unwrap();
    }
}

#[test]
fn partial_success_is_told() {
    let partial = b"\x0a\x0a\x08\x96\x01\x12\x05queue";
    let result = send(vec![Answer::Keep(answer("200 OK", PROTOBUF, partial))]);
    assert_eq!(result.unwrap(), Accepted { rejected: 150, message: Some("queue".into()) });
}

#[test]
fn odd_bodies_of_a_success_are_a_success() {
    let unknown_length = b"HTTP/1.0 202 Accepted\r\n\r\n{}".to_vec();
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n\x0a".to_vec();
    let cut_chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc".to_vec();
    let interim = [b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), answer("200 OK", "", b"")].concat();
    for answer in [
        Answer::Close(answer("200 OK", "Content-Type: application/json\r\n", b"{\"partialSuccess\":{}}")),
        Answer::Close(answer("200 OK", PROTOBUF, b"\xff\xff\xff")),
        Answer::Close(answer("200 OK", PROTOBUF, b"<html>")),
        Answer::Keep(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        Answer::Close(unknown_length),
        Answer::Close(cut.clone()),
        Answer::Stall(cut),
        Answer::Close(cut_chunk),
        Answer::Close(interim),
    ] {
        assert_eq!(send(vec![answer]).unwrap(), Accepted::default());
    }
}

#[test]
fn retry_after_is_read_in_both_forms() {
    let asked = |after: &str| {
        let busy = answer("429 Too Many Requests", &format!("retry-after: {after}\r\n"), b"");
        send(vec![Answer::Keep(busy)]).unwrap_err().asked_to_wait
    };
    assert_eq!(asked("3"), Some(Duration::from_secs(3)));
    assert_eq!(asked("Sun, 06 Nov 1994 08:49:42 GMT"), Some(Duration::from_secs(5)));
    assert_eq!(asked("0"), Some(Duration::ZERO));
    assert_eq!(asked("soon"), None);
}

#[test]
fn what_may_pass_is_retryable() {
    for status in ["429 x", "502 x", "503 x", "504 x"] {
        let refusal = send(vec![Answer::Keep(answer(status, "", b""))]).unwrap_err();
        assert!(refusal.failure.is_retryable() && !refusal.ambiguous, "{refusal:?}");
    }
    let refusal = send(vec![Answer::Close(Vec::new())]).unwrap_err();
    assert!(matches!(refusal.failure, Failure::Disconnected(_)));
    assert!(refusal.failure.is_retryable() && refusal.ambiguous);
}

#[test]
fn refusals_are_final_and_in_the_receivers_words() {
    for status in ["400 Bad Request", "401 x", "404 x", "413 x", "500 x", "501 x", "307 x", "599 x"] {
        let body = b"\x08\x03\x12\x0ano \x1b[2Jway";
        let Refusal { failure, ambiguous, .. } =
            send(vec![Answer::Keep(answer(status, PROTOBUF, body))]).unwrap_err();
        assert!(failure.to_string().contains("no ?[2Jway"), "{failure}");
        assert!(matches!(failure, Failure::Status { code, .. } if status.starts_with(&code.to_string())));
        assert!(!failure.is_retryable() && !ambiguous);
    }
    let refusal = send(vec![Answer::Keep(answer("400 Bad Request", "", b"not\nhere"))]).unwrap_err();
    assert_eq!(refusal.failure.to_string(), "the receiver answered 400 Bad Request: not here");
}

#[test]
fn an_answer_before_the_request_was_read_counts() {
    let early = Answer::Refuse(answer("413 Content Too Large", "Connection: close\r\n", b""));
    let (url, _requests) = serve(vec![early]);
    let mut transport = transport(&url, &[]);
    let refusal = attempt(&mut transport, &vec![0; 8 << 20]).unwrap_err();
    assert!(matches!(refusal.failure, Failure::Status { code: 413, .. }));
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
        let refusal = send(vec![Answer::Stall(bytes)]).unwrap_err();
        assert!(matches!(refusal.failure, Failure::NotHttp));
    }
}

#[test]
fn answers_over_the_limit_are_refused() {
    let body = vec![b'x'; MAX_RESPONSE + 1];
    let chunked =
        [b"HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffff\r\n".to_vec(), body.clone()]
            .concat();
    let unknown = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), body.clone()].concat();
    for bytes in [answer("200 OK", "", &body), chunked, unknown] {
        let refusal = send(vec![Answer::Close(bytes)]).unwrap_err();
        assert!(matches!(refusal.failure, Failure::ResponseTooLarge));
    }
    let largest = answer("200 OK", PROTOBUF, &body[..MAX_RESPONSE]);
    assert!(send(vec![Answer::Close(largest)]).is_ok());
}

#[test]
fn silence_ends_with_the_timeout() {
    for begun in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-"] {
        let started = Instant::now();
        let refusal = send(vec![Answer::Stall(begun.to_vec())]).unwrap_err();
        assert!(matches!(refusal.failure, Failure::Timeout(_)));
        assert!(refusal.failure.is_retryable() && refusal.ambiguous);
        assert!(started.elapsed() >= Duration::from_millis(300));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn nobody_listening_is_told_without_secrets() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://localhost:{}", address.port());
    let mut transport = transport(&url, &[("OTEL_EXPORTER_OTLP_HEADERS", "a=s3cret")]);
    let refusal = attempt(&mut transport, b"request").unwrap_err();
    assert_eq!(
        refusal.failure.describe(Signal::Profiles),
        "connection refused; is an OTLP receiver with profiles enabled listening there?"
    );
    assert!(!refusal.ambiguous);
    assert!(!format!("{refusal:?} {transport:?}").contains("s3cret"));
}

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Instant, SystemTime};

use super::*;
use crate::export::http::MAX_RESPONSE;
use crate::export::{ExportConfig, Sink};

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

/// A clock that moves only by sleeping, and tells how long.
#[derive(Clone)]
struct FakeTiming {
    start: Instant,
    slept: Rc<RefCell<Vec<Duration>>>,
}

impl FakeTiming {
    fn new() -> Self {
        Self { start: Instant::now(), slept: Rc::default() }
    }

    fn millis(&self) -> Vec<u128> {
        self.slept.borrow().iter().map(Duration::as_millis).collect()
    }
}

impl Timing for FakeTiming {
    fn now(&self) -> Instant {
        self.start + self.slept.borrow().iter().sum()
    }

    fn wall(&self) -> SystemTime {
        // Sun, 06 Nov 1994 08:49:37 GMT
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn sleep(&mut self, duration: Duration) {
        self.slept.borrow_mut().push(duration);
    }

    fn jitter(&mut self) -> f64 {
        0.0
    }
}

/// Sends `body` to `url` with the variables `vars`.
fn exporter(url: &str, vars: &[(&str, &str)]) -> (Exporter<FakeTiming>, FakeTiming) {
    let config = ExportConfig::resolve(&[Signal::Profiles], &[url.to_owned()], &|name| {
        vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
    .unwrap();
    assert!(config.warnings.is_empty());
    let [Sink::Otlp(destination)] = &config.sinks[..] else { panic!("{config:?}") };
    let timing = FakeTiming::new();
    let exporter = Exporter::new(destination, Signal::Profiles, RetryPolicy::ONE_SHOT, timing.clone());
    (exporter.unwrap().unwrap(), timing)
}

/// Sends "request" to a server with these answers; the result and what was slept.
fn send(answers: Vec<Answer>) -> (Result<Delivery, ExportError>, Vec<u128>) {
    let (url, _requests) = serve(answers);
    let (mut exporter, timing) = exporter(&url, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "300")]);
    (exporter.send(b"request", |_, _| {}), timing.millis())
}

fn failure(error: ExportError) -> Failure {
    match error {
        ExportError::Delivery { failure, .. } => failure,
        other => panic!("{other}"),
    }
}

#[test]
fn request_is_what_otlp_asks_for() {
    let (url, requests) = serve(vec![accepted()]);
    let (mut exporter, _) =
        exporter(&format!("{url}/base/?k=v"), &[("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret")]);
    assert_eq!(exporter.send(b"request", |_, _| {}).unwrap().attempts, 1);
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
    let (mut exporter, _) = exporter(&url, &[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]);
    let body: Vec<u8> = (0..100_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
    exporter.send(&body, |_, _| {}).unwrap();
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
    let (mut exporter, timing) = exporter(&url, &[]);
    for _ in 0..4 {
        assert_eq!(exporter.send(b"request", |_, _| {}).unwrap().attempts, 1);
    }
    let connections: Vec<usize> = requests.iter().take(4).map(|request| request.connection).collect();
    assert_eq!(connections, [1, 1, 2, 2]);
    assert!(timing.millis().is_empty());
}

#[test]
fn bytes_after_an_answer_are_not_the_next_answer() {
    let twice = [answer("200 OK", "", b""), answer("500 x", "", b"")].concat();
    let (url, _requests) = serve(vec![Answer::Close(twice), accepted()]);
    let (mut exporter, _) = exporter(&url, &[]);
    for _ in 0..2 {
        exporter.send(b"request", |_, _| {}).unwrap();
    }
}

#[test]
fn partial_success_is_told_and_not_sent_again() {
    let partial = b"\x0a\x0a\x08\x96\x01\x12\x05queue";
    let (result, slept) = send(vec![Answer::Keep(answer("200 OK", PROTOBUF, partial)), accepted()]);
    let delivery = result.unwrap();
    assert_eq!(delivery.accepted, Accepted { rejected: 150, message: Some("queue".into()) });
    assert_eq!((delivery.attempts, slept.len()), (1, 0));
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
        let (result, slept) = send(vec![answer]);
        assert_eq!(result.unwrap(), Delivery { accepted: Accepted::default(), attempts: 1 });
        assert!(slept.is_empty());
    }
}

#[test]
fn retry_after_is_honoured_in_both_forms() {
    let busy = |after: &str| {
        Answer::Keep(answer("429 Too Many Requests", &format!("retry-after: {after}\r\n"), b""))
    };
    let (result, slept) = send(vec![busy("3"), busy("Sun, 06 Nov 1994 08:49:42 GMT"), busy("0"), accepted()]);
    assert_eq!(result.unwrap().attempts, 4);
    assert_eq!(slept, [3000, 5000, 0]);
    let (result, slept) = send(vec![busy("60"), accepted()]);
    let error = result.unwrap_err().to_string();
    assert!(
        error.ends_with(
            "the receiver answered 429 Too Many Requests; it asks to wait 60 s, longer than allowed"
        ),
        "{error}"
    );
    assert!(slept.is_empty());
}

#[test]
fn what_may_pass_is_tried_again_with_growing_delays() {
    // Closed, so that every attempt has a connection of its own.
    let status = |status: &str| Answer::Close(answer(status, "Connection: close\r\n", b""));
    let gone = || Answer::Close(Vec::new());
    let (result, slept) = send(vec![status("503 Service Unavailable"), status("502 x"), gone(), accepted()]);
    assert_eq!(result.unwrap().attempts, 4);
    assert_eq!(slept, [1000, 2000, 4000]);
    let (result, slept) = send((0..9).map(|_| status("504 Gateway Timeout")).collect());
    // 1 + 2 + 4 + 8 s is all of the 15 s.
    assert_eq!(slept, [1000, 2000, 4000, 8000]);
    let error = result.unwrap_err().to_string();
    assert!(error.ends_with("the receiver answered 504 Gateway Timeout (5 attempts)"), "{error}");
}

#[test]
fn failures_before_a_retry_are_told() {
    let (url, _requests) = serve(vec![Answer::Keep(answer("503 Service Unavailable", "", b"")), accepted()]);
    let mut told = Vec::new();
    exporter(&url, &[])
        .0
        .send(b"request", |failure, delay| told.push(format!("{failure}, {delay:?}")))
        .unwrap();
    assert_eq!(told, ["the receiver answered 503 Service Unavailable, 1s"]);
}

#[test]
fn refusals_are_final_and_in_the_receivers_words() {
    for status in ["400 Bad Request", "401 x", "404 x", "413 x", "500 x", "501 x", "307 x", "599 x"] {
        let body = b"\x08\x03\x12\x0ano \x1b[2Jway";
        let (result, slept) = send(vec![Answer::Keep(answer(status, PROTOBUF, body)), accepted()]);
        let error = result.unwrap_err();
        assert!(error.to_string().contains("no ?[2Jway"), "{error}");
        assert!(
            matches!(failure(error), Failure::Status { code, .. } if status.starts_with(&code.to_string()))
        );
        assert!(slept.is_empty());
    }
    let (result, _) = send(vec![Answer::Keep(answer("400 Bad Request", "", b"not\nhere"))]);
    assert!(result.unwrap_err().to_string().ends_with("the receiver answered 400 Bad Request: not here"));
    let (result, _) = send(vec![Answer::Keep(answer("404 Not Found", "", b""))]);
    assert!(result.unwrap_err().to_string().ends_with("404 Not Found; does this receiver take profiles?"));
}

#[test]
fn an_answer_before_the_request_was_read_counts() {
    let early = Answer::Refuse(answer("413 Content Too Large", "Connection: close\r\n", b""));
    let (url, _requests) = serve(vec![early]);
    let (mut exporter, _) = exporter(&url, &[]);
    let error = exporter.send(&vec![0; 8 << 20], |_, _| {}).unwrap_err();
    assert!(matches!(failure(error), Failure::Status { code: 413, .. }));
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
        let (result, slept) = send(vec![Answer::Stall(bytes), accepted()]);
        let error = result.unwrap_err();
        assert!(error.to_string().ends_with("4317 is OTLP/gRPC"), "{error}");
        assert!(matches!(failure(error), Failure::NotHttp));
        assert!(slept.is_empty());
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
        let (result, slept) = send(vec![Answer::Close(bytes), accepted()]);
        assert!(matches!(failure(result.unwrap_err()), Failure::ResponseTooLarge));
        assert!(slept.is_empty());
    }
    let largest = answer("200 OK", PROTOBUF, &body[..MAX_RESPONSE]);
    assert!(send(vec![Answer::Close(largest)]).0.is_ok());
}

#[test]
fn silence_ends_with_the_timeout_and_is_tried_again() {
    for begun in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-"] {
        let started = Instant::now();
        let (result, slept) = send(vec![Answer::Stall(begun.to_vec()), accepted()]);
        assert_eq!(result.unwrap().attempts, 2);
        assert_eq!(slept, [1000]);
        assert!(started.elapsed() >= Duration::from_millis(300));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn nobody_listening_is_one_clear_line() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (mut exporter, timing) = exporter(
        &format!("http://localhost:{}", address.port()),
        &[("OTEL_EXPORTER_OTLP_HEADERS", "a=s3cret")],
    );
    let error = exporter.send(b"request", |_, _| {}).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot send profiles to http://localhost:{}/v1development/profiles: connection refused (5 attempts); \
             is an OTLP receiver with profiles enabled listening there?",
            address.port()
        )
    );
    assert_eq!(timing.millis(), [1000, 2000, 4000, 8000]);
    assert!(!format!("{error:?} {:?}", exporter.client).contains("s3cret"));
    assert!(!format!("{:?}", exporter.client).contains("s3cret"));
}

#[test]
fn requests_over_the_limit_are_not_sent() {
    let (url, requests) = serve(vec![accepted()]);
    let (mut exporter, _) = exporter(&url, &[]);
    let error = exporter.send(&vec![0; MAX_REQUEST + 1], |_, _| {}).unwrap_err();
    assert!(matches!(error, ExportError::RequestTooLarge { .. }));
    assert!(requests.try_recv().is_err());
}

//! The faulty receiver itself, seen with a client that knows nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use collector::export::Signal;
use opentelemetry_proto::tonic::collector::{logs, metrics, profiles, trace};
use prost::Message;
use tests::faults::{Behaviour, Deaf, End, NUMBER, Server, answers, at_random, script};
use tests::generate::Generator;
use tests::profcheck;

/// The bytes that a server answers a request with, until it closes.
fn exchange(server: &Server, path: &str, extra: &str, body: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(server.address())?;
    let head = format!("POST {path} HTTP/1.1\r\nContent-Length: {}\r\n{extra}\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn items_of_all_signals_are_counted() {
    let server = Server::start(|_| Behaviour::default().then(End::Close));
    let mut generator = Generator::default();
    for signal in Signal::ALL {
        let request = generator.request(signal, 5..25);
        let plain = exchange(&server, signal.path(), "", &request.body).unwrap();
        assert!(plain.starts_with("HTTP/1.1 200 "), "{plain}");
        let gzipped = answers::gzip(&generator.request(signal, 15..40).body);
        exchange(&server, &format!("/base{}", signal.path()), "Content-Encoding: gzip\r\n", &gzipped)
            .unwrap();
        let taken = server.log().taken(signal);
        assert_eq!(taken.keys().copied().collect::<Vec<_>>(), (5..40).collect::<Vec<_>>());
        assert!(taken.iter().all(|(number, times)| *times == if (15..25).contains(number) { 2 } else { 1 }));
    }
    let invalid = exchange(&server, "/v1/logs", "", b"\x0a\xff").unwrap();
    assert!(invalid.starts_with("HTTP/1.1 400 "), "{invalid}");
    assert_eq!(server.log().len(), 9);
}

#[test]
fn generated_requests_are_what_prost_would_write() {
    let mut generator = Generator::default();
    let mut body = |signal| generator.request(signal, 0..100).body;
    let bytes = body(Signal::Metrics);
    assert_eq!(metrics::v1::ExportMetricsServiceRequest::decode(&*bytes).unwrap().encode_to_vec(), bytes);
    let bytes = body(Signal::Traces);
    assert_eq!(trace::v1::ExportTraceServiceRequest::decode(&*bytes).unwrap().encode_to_vec(), bytes);
    let bytes = body(Signal::Logs);
    assert_eq!(logs::v1::ExportLogsServiceRequest::decode(&*bytes).unwrap().encode_to_vec(), bytes);
    let bytes = body(Signal::Profiles);
    let request = profiles::v1development::ExportProfilesServiceRequest::decode(&*bytes).unwrap();
    assert_eq!(request.encode_to_vec(), bytes);
    assert!(profcheck::check(&request).is_empty());
    assert!(request.dictionary.unwrap().string_table.iter().any(|string| string == NUMBER));
}

#[test]
fn connections_end_as_told() {
    let accepted = Behaviour::default();
    let server = Server::start(script(vec![
        accepted.clone().cut(20),
        Behaviour::raw("").then(End::Reset),
        Behaviour::raw("").unread().then(End::Reset),
        accepted.clone().slowly(10, Duration::from_millis(2)).then(End::Close),
        Behaviour::answer(413, &[], b"").unread(),
    ]));
    let send = || exchange(&server, "/v1/logs", "", b"");
    assert_eq!(send().unwrap().len(), 20);
    for _ in 0..2 {
        assert_eq!(send().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
    let before = Instant::now();
    assert_eq!(send().unwrap().as_bytes(), accepted.answer);
    assert!(before.elapsed() > Duration::from_millis(10));
    assert!(send().unwrap().starts_with("HTTP/1.1 413 "));
    assert_eq!(server.log().requests().iter().filter(|request| request.taken).count(), 2);
}

#[test]
fn nobody_talks_to_the_deaf() {
    let deaf = Deaf::start();
    let error = TcpStream::connect_timeout(&deaf.address(), Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn chance_is_fair_and_repeats() {
    let faults = |seed| {
        let mut plan = at_random(seed, 0.1, vec![Behaviour::answer(503, &[], b""), Behaviour::raw("")]);
        (0..10_000).map(|_| plan(&()).answer.len()).collect::<Vec<_>>()
    };
    let first = faults(1);
    assert_eq!(first, faults(1));
    assert_ne!(first, faults(2));
    let lucky = first.iter().filter(|length| **length == Behaviour::default().answer.len()).count();
    assert!((8_800..9_200).contains(&lucky), "{lucky}");
    assert!(first.contains(&0));
}

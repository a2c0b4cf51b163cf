//! Everything that a receiver of OTLP/HTTP can do to one attempt, and what the exporter makes of it.

use std::time::{Duration, SystemTime};

use collector::export::reply::Accepted;
use collector::export::transport::Refusal;
use collector::export::{Failure, Signal};
use tests::client::{Client, SECRET, dropped, retryable};
use tests::faults::{Behaviour, Deaf, End, Server, answers, gone, script};
use tests::generate::Generator;

/// How an attempt ended.
type Outcome = Result<Accepted, Refusal>;

/// Sends three log records once, with this many milliseconds for it.
fn attempt(endpoint: &str, timeout: &str) -> Outcome {
    let mut client = Client::new(endpoint, &[("TIMEOUT", timeout)]);
    client.send(&Generator::default().request(Signal::Logs, 0..3))
}

/// What one attempt ends with at a receiver that does this; the next, over a new connection or the kept one, must work.
fn meet(name: &str, behaviour: &Behaviour) -> Outcome {
    let server = Server::start(script(vec![behaviour.clone()]));
    let mut client = Client::new(&server.url(), &[]);
    let mut generator = Generator::default();
    let outcome = client.send(&generator.request(Signal::Logs, 0..3));
    let next = client.send(&generator.request(Signal::Logs, 3..6));
    assert!(next.is_ok(), "after {name}: {next:?}");
    // A connection of which the end of an answer was not seen carries no other request.
    for request in server.log().requests() {
        assert_eq!(request.header("authorization"), Some(&*format!("Bearer {SECRET}")), "{name}");
    }
    outcome
}

#[test]
fn statuses_that_mean_later() {
    let seconds = Duration::from_secs;
    for status in [429, 502, 503, 504] {
        let asked = |headers: &[&str]| {
            retryable(&status.to_string(), meet("a status", &Behaviour::answer(status, headers, b"busy")))
        };
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&["Retry-After: 7"]), Some(seconds(7)));
        assert_eq!(asked(&["retry-after:0"]), Some(seconds(0)));
        let date = httpdate::fmt_http_date(SystemTime::now() + seconds(30));
        let delay = asked(&[&format!("Retry-After: {date}")]).unwrap();
        assert!(delay > seconds(20) && delay <= seconds(30), "{delay:?}");
        let past = httpdate::fmt_http_date(SystemTime::now() - seconds(30));
        assert_eq!(asked(&[&format!("Retry-After: {past}")]), Some(seconds(0)));
        assert_eq!(asked(&["Retry-After: soon"]), None);
    }
}

#[test]
fn statuses_that_mean_never() {
    let bad = answers::rpc_status(3, "field 7 is wrong", None);
    let bad = Behaviour::answer(400, &[answers::PROTOBUF], &bad);
    let failure = dropped("400", meet("400", &bad));
    assert!(failure.to_string().contains("400 Bad Request: field 7 is wrong"), "{failure}");
    for status in [401, 403, 404, 405, 408, 413, 415, 431, 500, 501, 505, 511, 599] {
        // Whoever answers so does not say when to come back.
        let behaviour = Behaviour::answer(status, &["Retry-After: 1"], b"<html>no</html>");
        let failure = dropped(&status.to_string(), meet("a status", &behaviour));
        assert!(matches!(failure, Failure::Status { code, .. } if code == status), "{failure}");
    }
}

#[test]
fn redirects_are_not_followed() {
    let other = Server::start(|_| Behaviour::default());
    let location = format!("Location: {}/v1/logs", other.url());
    for status in [300, 301, 302, 303, 304, 307, 308] {
        dropped("3xx", meet("a redirect", &Behaviour::answer(status, &[&location], b"")));
    }
    assert!(other.log().is_empty());
}

#[test]
fn acceptances_of_all_forms() {
    let ok = |headers: &[&str], body: &[u8]| Behaviour::answer(200, headers, body);
    let protobuf = answers::PROTOBUF;
    let chunked = |size| {
        let body = answers::partial_success(0, "");
        Behaviour::raw(
            [answers::chunked(200, &[protobuf], &body, size), answers::LAST_CHUNK.to_vec()].concat(),
        )
    };
    let late = Duration::from_millis(1);
    let continued =
        [b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), answers::http(200, &[protobuf], b"")].concat();
    let until_close = b"HTTP/1.0 200 OK\r\n\r\n".to_vec();
    let cases = [
        ("an empty body", ok(&[protobuf], b"")),
        ("no type", ok(&[], b"")),
        ("202", Behaviour::answer(202, &[], b"")),
        ("204", Behaviour::raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())),
        ("JSON", ok(&["Content-Type: application/json"], b"{\"partialSuccess\":{}}")),
        (
            "JSON that calls itself protobuf",
            ok(&[protobuf], b"{\"partialSuccess\":{\"rejectedLogRecords\":\"3\"}}"),
        ),
        ("a web page", ok(&["Content-Type: text/html"], b"<html>ok</html>")),
        ("bytes of no kind", ok(&[protobuf], &[0xff; 100])),
        ("closing", ok(&[protobuf, "Connection: close"], b"").then(End::Close)),
        ("one chunk", chunked(100)),
        ("many chunks", chunked(1)),
        ("slow", Behaviour::default().slowly(8, late)),
        ("an interim answer", Behaviour::raw(continued)),
        ("HTTP/1.0", Behaviour::raw(until_close).then(End::Close)),
        // A status counts, whatever becomes of the body.
        (
            "a body that is too short",
            Behaviour::raw(answers::with_length(200, &[], "Content-Length: 9", b"1")).then(End::Close),
        ),
        (
            "a body that is too long",
            Behaviour::raw(answers::with_length(200, &[], "Content-Length: 1", b"999")).then(End::Close),
        ),
        ("chunks without an end", Behaviour::raw(answers::chunked(200, &[], b"body", 2)).then(End::Close)),
        (
            "chunks of no size",
            Behaviour::raw(answers::with_length(200, &[], "Transfer-Encoding: chunked", b"zz\r\n"))
                .then(End::Close),
        ),
        (
            "a body that ends in a reset",
            Behaviour::raw(answers::with_length(200, &[], "Content-Length: 9", b"1"))
                .slowly(40, late)
                .then(End::Reset),
        ),
        ("exactly what is allowed", ok(&[], &vec![0; answers::LIMIT])),
    ];
    for (name, behaviour) in cases {
        let accepted = meet(name, &behaviour.taking());
        assert_eq!(accepted.expect(name), Accepted::default(), "{name}");
    }
}

#[test]
fn partial_successes_are_counted_and_not_repeated() {
    for (rejected, message) in [(2, "too old"), (0, "use another name"), (3, "")] {
        let body = answers::partial_success(rejected, message);
        let accepted = meet("partial success", &Behaviour::answer(200, &[answers::PROTOBUF], &body)).unwrap();
        assert_eq!(accepted.rejected, rejected as u64);
        assert_eq!(accepted.message.unwrap_or_default(), message);
    }
    let json = ["Content-Type: application/json; charset=utf-8"];
    let body = br#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}"#;
    let accepted = meet("JSON", &Behaviour::answer(200, &json, body)).unwrap();
    assert_eq!(accepted, Accepted { rejected: 2, message: Some("too old".to_owned()) });
    let gzipped = answers::gzip(&answers::partial_success(1, ""));
    let headers = [answers::PROTOBUF, "Content-Encoding: gzip"];
    assert_eq!(meet("gzip", &Behaviour::answer(200, &headers, &gzipped)).unwrap().rejected, 1);
    let body = answers::partial_success(-1, "");
    let accepted = meet("nonsense", &Behaviour::answer(200, &[answers::PROTOBUF], &body)).unwrap();
    assert_eq!(accepted.rejected, 0);
}

#[test]
fn connections_that_end_without_an_answer() {
    let ok = Behaviour::default();
    let cases = [
        ("closed", Behaviour::raw("").then(End::Close)),
        ("closed before the body", Behaviour::raw("").unread().then(End::Close)),
        ("reset", Behaviour::raw("").then(End::Reset)),
        ("reset before the body", Behaviour::raw("").unread().then(End::Reset)),
        ("one byte", ok.clone().cut(1)),
        ("half a line", ok.clone().cut(12)),
        ("half a head", ok.clone().cut(30)),
        ("all but the head's end", ok.clone().cut(ok.answer.len() - 1)),
        (
            "reset in the head",
            Behaviour::raw("HTTP/1.1 2").slowly(4, Duration::from_millis(1)).then(End::Reset),
        ),
    ];
    for (name, behaviour) in cases {
        let refusal = meet(name, &behaviour).expect_err(name);
        assert!(matches!(*refusal.failure, Failure::Disconnected(_)), "{name}: {refusal:?}");
        assert!(refusal.failure.is_retryable() && refusal.asked_to_wait.is_none(), "{name}");
    }
}

#[test]
fn answers_that_are_none() {
    let mut handshake = vec![0x16, 3, 1, 0, 200];
    handshake.extend([7; 200]);
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    let cases: [(&str, Vec<u8>); 8] = [
        ("garbage", vec![0xfe; 1000]),
        ("a greeting", b"220 mail.example ESMTP ready\r\n".to_vec()),
        ("TLS", handshake),
        ("HTTP/2", b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff\xff".to_vec()),
        ("a status that is no number", b"HTTP/1.1 OK\r\n\r\n".to_vec()),
        ("a length that is no number", answers::with_length(200, &[], "Content-Length: many", b"")),
        ("interim answers without end", interim),
        (
            "a head without end",
            [b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-Filler: aaaaaaaa\r\n".repeat(10_000)].concat(),
        ),
    ];
    for (name, bytes) in cases {
        let failure = dropped(name, meet(name, &Behaviour::raw(bytes).then(End::Close)));
        assert!(matches!(failure, Failure::NotHttp), "{name}: {failure}");
    }
}

#[test]
fn answers_that_are_too_large() {
    let body = vec![b'x'; answers::LIMIT + 1];
    let until_close = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), body.clone()].concat();
    let endless = answers::with_length(200, &[], "Content-Length: 99999999999", b"");
    let cases = [
        ("by length", answers::http(200, &[], &body)),
        ("by a length that does not come", endless),
        ("in chunks", answers::chunked(200, &[], &body, 10_000)),
        ("in one chunk", answers::chunked(200, &[], &body, body.len())),
        ("until the end", until_close),
        ("once decompressed", answers::bomb()),
    ];
    for (name, bytes) in cases {
        let failure = dropped(name, meet(name, &Behaviour::raw(bytes).taking().then(End::Close)));
        assert!(matches!(failure, Failure::ResponseTooLarge), "{name}: {failure}");
    }
}

#[test]
fn nothing_within_the_time() {
    let cases = [
        ("silence", Behaviour::raw("").then(End::Stall)),
        ("silence before the body", Behaviour::raw("").unread().then(End::Stall)),
        ("silence in the head", Behaviour::raw("HTTP/1.1 20").then(End::Stall)),
        ("a head in drops", Behaviour::default().slowly(1, Duration::from_millis(20))),
    ];
    for (name, behaviour) in cases {
        let server = Server::start(script(vec![behaviour]));
        let refusal = attempt(&server.url(), "200").expect_err(name);
        assert!(matches!(*refusal.failure, Failure::Timeout(_)), "{name}: {refusal:?}");
    }
}

#[test]
fn nobody_there() {
    let gone = format!("http://{}", gone());
    let deaf = Deaf::start();
    let deaf = format!("http://{}", deaf.address());
    let cases =
        [("refused", &*gone), ("a full backlog", &*deaf), ("no such name", "http://otlp.invalid:4318")];
    for (name, endpoint) in cases {
        let refusal = attempt(endpoint, "500").expect_err(name);
        let expected = matches!(*refusal.failure, Failure::Connect(_) | Failure::Resolve(_));
        assert!(expected && refusal.failure.is_retryable(), "{name}: {refusal:?}");
        assert!(!refusal.ambiguous, "{name}: nothing was sent");
    }
}

#[test]
fn a_refusal_before_the_end_of_a_large_request_is_seen() {
    let limit = answers::LIMIT;
    let server = Server::start(move |head| match head.length() > limit {
        true => Behaviour::answer(413, &[], b"4 MiB at most").unread(),
        false => Behaviour::default(),
    });
    let mut client = Client::new(&server.url(), &[]);
    let mut generator = Generator::default();
    let large = generator.request(Signal::Logs, 0..60_000);
    assert!(large.body.len() > limit);
    let failure = dropped("413", client.send(&large));
    assert!(failure.to_string().contains("413 Content Too Large: 4 MiB at most"), "{failure}");
    client.send(&generator.request(Signal::Logs, 0..10)).unwrap();
    assert_eq!(server.log().taken(Signal::Logs).len(), 10);
}

#[test]
fn a_kept_connection_that_is_gone_is_replaced() {
    let server = Server::start(script(vec![
        Behaviour::default(),
        Behaviour::default(),
        // As a receiver does that ends what is idle: the answer promises a connection, which is then gone.
        Behaviour::default().then(End::Close),
    ]));
    let mut client = Client::new(&server.url(), &[("COMPRESSION", "gzip")]);
    let mut generator = Generator::default();
    for number in 0..5 {
        client.send(&generator.request(Signal::Traces, number..number + 1)).unwrap();
        // A request that crosses the end on its way may have been taken, and would fail.
        while number == 2 && server.closed() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let connections: Vec<usize> = server.log().requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 1, 1, 2, 2]);
    assert!(server.log().taken(Signal::Traces).values().all(|times| *times == 1));
}

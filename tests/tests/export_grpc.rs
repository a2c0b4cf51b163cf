//! Everything that a receiver of OTLP/gRPC can do to one attempt, and what the exporter makes of it.

use std::time::Duration;

use collector::export::Signal;
use collector::export::destination::Protocol;
use collector::export::reply::Accepted;
use collector::export::transport::Refusal;
use h2::Reason;
use tests::client::{Client, SECRET, dropped, retryable};
use tests::faults::grpc::{GrpcServer, RpcBehaviour, RpcEnd};
use tests::faults::{Behaviour, Deaf, End, Server, answers, gone, script};
use tests::generate::Generator;

/// How an attempt ended.
type Outcome = Result<Accepted, Refusal>;

/// Whether gRPC is built in; says so if not.
fn built_in() -> bool {
    if !Protocol::Grpc.is_built_in() {
        println!("skipped: collector is built without its feature grpc");
    }
    Protocol::Grpc.is_built_in()
}

fn client(endpoint: &str, compression: &str) -> Client {
    Client::new(endpoint, &[("PROTOCOL", "grpc"), ("COMPRESSION", compression)])
}

/// Sends three data points once, with half a second for it.
fn attempt(endpoint: &str) -> Outcome {
    let mut client = Client::new(endpoint, &[("PROTOCOL", "grpc"), ("TIMEOUT", "500")]);
    client.send(&Generator::default().request(Signal::Metrics, 0..3))
}

/// What one attempt ends with at a receiver that does this; the next must work.
fn meet(name: &str, behaviour: &RpcBehaviour) -> Outcome {
    let server = GrpcServer::start(script(vec![behaviour.clone()]));
    let mut client = client(&server.url(), "none");
    let mut generator = Generator::default();
    let outcome = client.send(&generator.request(Signal::Logs, 0..3));
    let next = client.send(&generator.request(Signal::Logs, 3..6));
    assert!(next.is_ok(), "after {name}: {next:?}");
    for request in server.log().requests() {
        assert_eq!(request.header("authorization"), Some(&*format!("Bearer {SECRET}")), "{name}");
        assert_eq!(request.header("te"), Some("trailers"), "{name}");
    }
    outcome
}

/// The same refusal with headers and trailers in frames of their own.
fn in_two_frames(refusal: RpcBehaviour) -> RpcBehaviour {
    let (headers, trailers) = refusal.headers.into_iter().partition(|(name, _)| !name.starts_with("grpc-"));
    RpcBehaviour { headers, trailers, ..refusal }
}

#[test]
fn every_signal_arrives_gzipped_or_not_over_one_connection() {
    if !built_in() {
        return;
    }
    let server = GrpcServer::start(|_| RpcBehaviour::default());
    let mut generator = Generator::default();
    for compression in ["none", "gzip"] {
        let mut client = client(&server.url(), compression);
        for signal in Signal::ALL {
            // Several times the window that a receiver gives at first.
            assert_eq!(client.send(&generator.request(signal, 0..3000)).unwrap(), Accepted::default());
            assert_eq!(server.log().taken(signal).len(), 3000);
        }
    }
    let requests = server.log().requests();
    let connections: Vec<usize> = requests.iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 1, 1, 1, 2, 2, 2, 2]);
    let gzipped: Vec<bool> =
        requests.iter().map(|request| request.header("grpc-encoding").is_some()).collect();
    assert_eq!(gzipped, [false, false, false, false, true, true, true, true]);
}

#[test]
fn statuses_are_later_or_never() {
    if !built_in() {
        return;
    }
    let delay = Duration::from_millis(1500);
    for code in 1..=17 {
        let later = matches!(code, 1 | 4 | 10 | 11 | 14 | 15);
        let name = &format!("status {code}");
        for refusal in [RpcBehaviour::status(code, "no"), RpcBehaviour::detailed(code, "no", None)] {
            for refusal in [in_two_frames(refusal.clone()), refusal] {
                let outcome = meet(name, &refusal);
                if later {
                    assert_eq!(retryable(name, outcome), None);
                } else {
                    dropped(name, outcome);
                }
            }
        }
        let asks = RpcBehaviour::detailed(code, "no", Some(delay));
        for refusal in [in_two_frames(asks.clone()), asks] {
            let outcome = meet(name, &refusal);
            // RESOURCE_EXHAUSTED means later only with a delay.
            if later || code == 8 {
                assert_eq!(retryable(name, outcome), Some(delay));
            } else {
                dropped(name, outcome);
            }
        }
    }
}

#[test]
fn words_of_the_receiver_are_decoded_and_cut() {
    if !built_in() {
        return;
    }
    let failure = dropped("text", meet("text", &RpcBehaviour::status(3, "10%25 of %E2%9C%93 %1b[2J is bad")));
    let text = failure.to_string();
    assert!(text.contains("INVALID_ARGUMENT") && text.contains("10% of ✓"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    let long = dropped("long", meet("long", &RpcBehaviour::status(3, &"x".repeat(8000))));
    assert!(long.to_string().len() < 1000);
    let mut broken = RpcBehaviour::status(14, "busy");
    broken.headers.push(("grpc-status-details-bin", "!!!".to_owned()));
    assert_eq!(retryable("broken details", meet("broken details", &broken)), None);
}

#[test]
fn partial_successes_are_counted() {
    if !built_in() {
        return;
    }
    for (rejected, message) in [(2, "too old"), (0, "use another name")] {
        let body = answers::partial_success(rejected, message);
        let accepted = meet("partial success", &RpcBehaviour::message(&body)).unwrap();
        assert_eq!(accepted, Accepted { rejected: rejected as u64, message: Some(message.to_owned()) });
    }
    let mut gzipped = RpcBehaviour::message(&answers::gzip(&answers::partial_success(1, "")));
    gzipped.headers.push(("grpc-encoding", "gzip".to_owned()));
    gzipped.data[0] = 1;
    assert_eq!(meet("gzip", &gzipped).unwrap().rejected, 1);
}

#[test]
fn http_statuses_without_a_status_of_grpc() {
    if !built_in() {
        return;
    }
    for (status, later) in [(400, false), (401, false), (403, false), (404, false), (500, false)]
        .into_iter()
        .chain([429, 502, 503, 504].map(|status| (status, true)))
    {
        let mut page = RpcBehaviour { status, takes: false, ..RpcBehaviour::default() };
        page.headers = vec![("content-type", "text/html".to_owned())];
        (page.data, page.trailers) = (b"<html>sorry</html>".to_vec(), Vec::new());
        let name = &format!("HTTP {status}");
        let refusal = meet(name, &page).expect_err(name);
        assert_eq!(refusal.failure.is_retryable(), later, "{name}: {refusal:?}");
    }
    let mut silent = RpcBehaviour { takes: false, ..RpcBehaviour::default() };
    silent.trailers.clear();
    dropped("no status", meet("no status", &silent));
}

#[test]
fn calls_and_connections_that_end_early() {
    if !built_in() {
        return;
    }
    let cases = [
        (RpcEnd::Reset(Reason::REFUSED_STREAM), true),
        (RpcEnd::Reset(Reason::CANCEL), true),
        (RpcEnd::Reset(Reason::INTERNAL_ERROR), false),
        (RpcEnd::Reset(Reason::ENHANCE_YOUR_CALM), false),
        (RpcEnd::GoAway(Reason::NO_ERROR), true),
        (RpcEnd::Disconnect, true),
    ];
    for (end, later) in cases {
        let name = &format!("{end:?}");
        let refusal = meet(name, &RpcBehaviour::ending(end)).expect_err(name);
        assert_eq!(refusal.failure.is_retryable(), later, "{name}: {refusal:?}");
    }
    let server = GrpcServer::start(|_| RpcBehaviour::ending(RpcEnd::Stall));
    assert_eq!(retryable("silence", attempt(&server.url())), None);
    let graceful = RpcBehaviour { end: RpcEnd::Graceful, ..RpcBehaviour::default() };
    assert!(meet("a graceful end", &graceful).is_ok());
}

#[test]
fn messages_that_are_none_or_too_large() {
    if !built_in() {
        return;
    }
    let raw = |data: Vec<u8>| RpcBehaviour { data, ..RpcBehaviour::default() };
    let claim = |length: u32| raw([&[0], length.to_be_bytes().as_slice(), b"x"].concat());
    for (name, behaviour) in [
        ("too large", RpcBehaviour::message(&vec![0; answers::LIMIT + 1])),
        ("too large by its own words", claim(answers::LIMIT as u32 + 1)),
        ("4 GiB", claim(u32::MAX)),
    ] {
        dropped(name, meet(name, &behaviour));
    }
    // The status says OK: what follows from a broken message is left to the exporter, but not to send it again.
    for (name, behaviour) in [
        ("nothing", raw(Vec::new())),
        ("half a prefix", raw(vec![0, 0])),
        ("half a message", claim(100)),
        ("bytes of no kind", RpcBehaviour::message(&[0xff; 100])),
        ("two messages", raw([RpcBehaviour::message(b"").data, RpcBehaviour::message(b"").data].concat())),
        ("a compression that nobody named", raw(vec![1, 0, 0, 0, 1, 9])),
    ] {
        if let Err(refusal) = meet(name, &behaviour) {
            assert!(!refusal.failure.is_retryable(), "{name}: {refusal:?}");
        }
    }
    let mut bomb = RpcBehaviour::message(&answers::gzip(&vec![0; answers::LIMIT + 1]));
    bomb.headers.push(("grpc-encoding", "gzip".to_owned()));
    bomb.data[0] = 1;
    dropped("a bomb", meet("a bomb", &bomb));
}

#[test]
fn a_refusal_before_the_end_of_a_large_request_is_seen() {
    if !built_in() {
        return;
    }
    let full = RpcBehaviour { reads: false, ..RpcBehaviour::status(8, "larger than 4194304") };
    let server = GrpcServer::start(script(vec![full]));
    let mut client = client(&server.url(), "none");
    let large = Generator::default().request(Signal::Logs, 0..60_000);
    let failure = dropped("too large", client.send(&large));
    assert!(failure.to_string().contains("larger than 4194304"), "{failure}");
    client.send(&Generator::default().request(Signal::Logs, 0..3)).unwrap();
}

#[test]
fn receivers_of_something_else() {
    if !built_in() {
        return;
    }
    let deaf = Deaf::start();
    let name = "http://otlp.invalid:4317".to_owned();
    for endpoint in [format!("http://{}", gone()), format!("http://{}", deaf.address()), name] {
        let refusal = attempt(&endpoint).expect_err(&endpoint);
        assert!(refusal.failure.is_retryable() && !refusal.ambiguous, "{endpoint}: {refusal:?}");
    }
    // A receiver of HTTP/1.1 answers 400 to the preface, and anything else to who knows what.
    for bytes in [answers::http(400, &[], b"what?"), vec![0xfe; 100], b"220 mail.example ESMTP\r\n".to_vec()]
    {
        let server = Server::start(move |_| Behaviour::raw(bytes.clone()).then(End::Close));
        let outcome = attempt(&server.url());
        assert!(outcome.is_err(), "{outcome:?}");
    }
}

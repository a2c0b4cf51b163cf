use std::cell::RefCell;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use super::*;
use crate::export::http::tests::server::{Answer, accepted, answer, serve};
use crate::export::{ExportConfig, Sink};

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
        self.start + self.slept.borrow().iter().sum::<Duration>()
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

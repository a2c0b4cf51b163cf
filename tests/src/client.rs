//! The exporter, set up as a user would.

use std::time::{Duration, SystemTime};

use collector::export::config::Sink;
use collector::export::reply::Accepted;
use collector::export::transport::{self, Refusal, Transport};
use collector::export::{Destination, ExportConfig, Failure, Request, Signal};

/// A credential that every request of these tests carries, and no text of ours may show.
pub const SECRET: &str = "s3cret";
/// The variable's value that holds [`SECRET`].
pub const HEADERS: &str = "authorization=Bearer%20s3cret";

/// The destination `endpoint` with [`SECRET`] and the variables `OTEL_EXPORTER_OTLP_<name>`.
pub fn destination(endpoint: &str, variables: &[(&str, &str)]) -> Destination {
    let env = |name: &str| {
        let name = name.strip_prefix("OTEL_EXPORTER_OTLP_")?;
        let (_, value) =
            variables.iter().chain(&[("HEADERS", HEADERS)]).find(|(variable, _)| *variable == name)?;
        Some((*value).to_owned())
    };
    let config =
        ExportConfig::resolve(&Signal::ALL, &[endpoint.to_owned()], &env).expect("a usable endpoint");
    assert_eq!(config.warnings, [""; 0]);
    assert!(!format!("{config:?}").contains(SECRET));
    match config.sinks.into_iter().next() {
        Some(Sink::Otlp(destination)) => destination,
        other => panic!("{other:?}"),
    }
}

/// Sends requests, each once, to one endpoint.
pub struct Client {
    transport: Box<dyn Transport + Send>,
    timeout: Option<Duration>,
}

impl Client {
    /// A client of [`destination`].
    pub fn new(endpoint: &str, variables: &[(&str, &str)]) -> Self {
        let destination = destination(endpoint, variables);
        let transport = transport::new(&destination).expect("a usable destination");
        Self { transport, timeout: destination.timeout }
    }

    /// Sends a request once.
    ///
    /// # Errors
    ///
    /// It was not accepted.
    pub fn send(&mut self, request: &Request) -> Result<Accepted, Refusal> {
        let outcome = self.transport.attempt(request, self.timeout, SystemTime::now());
        if let Err(refusal) = &outcome {
            assert!(!format!("{} {refusal:?}", refusal.failure).contains(SECRET), "{refusal:?}");
        }
        outcome
    }
}

/// How long the receiver of a request that may be tried again asks to wait. `name` is the case's.
///
/// # Panics
///
/// It was accepted, or must not be tried again.
pub fn retryable(name: &str, outcome: Result<Accepted, Refusal>) -> Option<Duration> {
    let refusal = outcome.expect_err(name);
    assert!(refusal.failure.is_retryable(), "{name}: {refusal:?}");
    refusal.asked_to_wait
}

/// Why a request must not be sent again. `name` is the case's.
///
/// # Panics
///
/// It was accepted, or may be tried again.
pub fn dropped(name: &str, outcome: Result<Accepted, Refusal>) -> Failure {
    let refusal = outcome.expect_err(name);
    assert!(!refusal.failure.is_retryable(), "{name}: {refusal:?}");
    *refusal.failure
}

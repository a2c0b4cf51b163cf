//! The exporter, set up as a user would.

use std::time::Duration;

use collector::export::config::Sink;
use collector::export::reply::Accepted;
use collector::export::retry::{RetryPolicy, SystemTiming};
use collector::export::transport::Refusal;
use collector::export::{ExportConfig, ExportError, Exporter, Request, Signal};

/// A credential that every request of these tests carries, and no text of ours may show.
pub const SECRET: &str = "s3cret";
/// The variable's value that holds [`SECRET`].
pub const HEADERS: &str = "authorization=Bearer%20s3cret";

/// Sends requests, each once, to one endpoint.
pub struct Client {
    exporters: Vec<(Signal, Exporter)>,
}

impl Client {
    /// A client of `endpoint` with [`SECRET`] and the variables `OTEL_EXPORTER_OTLP_<name>`.
    pub fn new(endpoint: &str, variables: &[(&str, &str)]) -> Self {
        let env = |name: &str| {
            let name = name.strip_prefix("OTEL_EXPORTER_OTLP_")?;
            let (_, value) =
                variables.iter().chain(&[("HEADERS", HEADERS)]).find(|(variable, _)| *variable == name)?;
            Some((*value).to_owned())
        };
        let config =
            ExportConfig::resolve(&Signal::ALL, &[endpoint.to_owned()], &env).expect("a usable endpoint");
        assert_eq!(config.warnings, [""; 0]);
        let [Sink::Otlp(destination)] = config.sinks.as_slice() else { panic!("{:?}", config.sinks) };
        let once = RetryPolicy { first_delay: Duration::from_secs(60), total: Duration::ZERO };
        let exporter = |signal| {
            let exporter = Exporter::new(destination, signal, once, SystemTiming);
            (signal, exporter.expect("a usable destination").expect("a target"))
        };
        Self { exporters: Signal::ALL.into_iter().map(exporter).collect() }
    }

    /// Sends a request once.
    ///
    /// # Errors
    ///
    /// It was not accepted.
    pub fn send(&mut self, request: &Request) -> Result<Accepted, Refusal> {
        let (_, exporter) =
            self.exporters.iter_mut().find(|(signal, _)| *signal == request.signal).expect("all signals");
        let error = match exporter.send(&request.body, |_, _| {}) {
            Ok(delivery) => return Ok(delivery.accepted),
            Err(error) => error,
        };
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
        match error {
            ExportError::Delivery { failure, asked_to_wait, .. } => {
                Err(Refusal { failure, asked_to_wait, ambiguous: false })
            }
            other => panic!("{other}"),
        }
    }
}

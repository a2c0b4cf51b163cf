//! One attempt to deliver one request, whatever the protocol.

use std::time::{Duration, SystemTime};

use super::http::Client;
use super::redact::Redacted;
use super::reply::Accepted;
use super::{Destination, ExportError, Failure, Protocol, Request};

/// How an attempt ended without acceptance.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub failure: Box<Failure>,
    /// How long the receiver asks to wait before the next attempt, by `Retry-After` or `RetryInfo`.
    pub asked_to_wait: Option<Duration>,
    /// Whether the receiver may have taken the request even so: all of it was sent, and no answer came.
    pub ambiguous: bool,
}

/// A client of one destination, over a connection that is kept between requests.
pub trait Transport {
    /// Sends `request` once and waits for the answer, at most `timeout`. `wall` is what time it is, for dates in
    /// the answer.
    ///
    /// # Errors
    ///
    /// Everything but an acceptance, partial ones included. [`Failure::is_retryable`] says what may be tried again.
    fn attempt(
        &mut self,
        request: &Request,
        timeout: Option<Duration>,
        wall: SystemTime,
    ) -> Result<Accepted, Refusal>;
}

/// The client of a destination. Nothing is connected before the first request.
///
/// # Errors
///
/// The destination cannot be used: wrong usage.
pub fn new(destination: &Destination) -> Result<Box<dyn Transport + Send>, Box<ExportError>> {
    let transport: Box<dyn Transport + Send> = match destination.protocol {
        Protocol::HttpProtobuf => Box::new(Client::new(destination)?),
        #[cfg(feature = "json")]
        Protocol::HttpJson => Box::new(Client::new(destination)?),
        #[cfg(feature = "grpc")]
        Protocol::Grpc => Box::new(super::grpc::GrpcTransport::new(destination)?),
        #[cfg(not(all(feature = "json", feature = "grpc")))]
        protocol => {
            let variable = "OTEL_EXPORTER_OTLP_PROTOCOL".to_owned();
            return Err(Box::new(ExportError::Protocol { variable, protocol }));
        }
    };
    Ok(Box::new(Redacted::new(destination, transport)))
}

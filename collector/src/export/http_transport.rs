//! OTLP/HTTP with protobuf messages.

use std::time::{Duration, SystemTime};

use super::gzip::compress;
use super::http::{Client, Response};
use super::reply::{Accepted, parse_accepted, parse_error};
use super::retry::parse_retry_after;
use super::transport::{Refusal, Transport};
use super::{Compression, Destination, ExportError, Failure, Request, Signal};

/// A client of a destination.
#[derive(Debug)]
pub struct HttpTransport {
    client: Client,
    targets: Vec<(Signal, String)>,
    compression: Compression,
}

impl HttpTransport {
    /// Nothing is connected before the first request.
    ///
    /// # Errors
    ///
    /// As [`Client::new`].
    pub fn new(destination: &Destination) -> Result<Self, ExportError> {
        let client = Client::new(destination)?;
        Ok(Self { client, targets: destination.targets.clone(), compression: destination.compression })
    }
}

impl Transport for HttpTransport {
    fn attempt(
        &mut self,
        request: &Request,
        timeout: Option<Duration>,
        wall: SystemTime,
    ) -> Result<Accepted, Refusal> {
        let refusal = |failure, asked_to_wait, ambiguous| Refusal { failure, asked_to_wait, ambiguous };
        let target = self.targets.iter().find(|(signal, _)| *signal == request.signal);
        let Some((_, target)) = target else {
            return Err(refusal(Failure::Status { code: 404, message: None }, None, false));
        };
        let compressed = (self.compression == Compression::Gzip).then(|| compress(&request.body));
        match self.client.post(target, compressed.as_deref().unwrap_or(&request.body), timeout) {
            Ok(Response { status: 200..=299, body, is_protobuf, .. }) => {
                Ok(if is_protobuf { parse_accepted(&body) } else { Accepted::default() })
            }
            Ok(Response { status, retry_after, body, is_protobuf }) => {
                let asked = retry_after.and_then(|value| parse_retry_after(&value, wall));
                let message = parse_error(&body, is_protobuf);
                Err(refusal(Failure::Status { code: status, message }, asked, false))
            }
            Err(failure) => {
                let ambiguous = matches!(failure, Failure::Disconnected(_) | Failure::Timeout(_));
                Err(refusal(failure, None, ambiguous))
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! OTLP/HTTP: HTTP/1.1 over one connection that is kept.
//!
//! Written over a stream because OTLP needs so little of HTTP (`POST`, one body, one answer) and because the same
//! streams carry gRPC; `docs/export.md` has the comparison with libraries.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use super::destination::Destination;
use super::net::{Connector, Deadline};
use super::reply::{Accepted, parse_accepted, parse_accepted_json, parse_error};
use super::retry::parse_retry_after;
use super::transport::{Refusal, Transport};
use super::{ExportError, Failure, Request};

#[cfg(feature = "debuginfod")]
pub mod download;
mod exchange;
mod request;
mod response;

use exchange::{Broken, Link};
use request::{Bodies, Heads};

pub(super) use request::USER_AGENT;
#[cfg(feature = "grpc")]
pub(super) use request::check_size;
pub(super) use response::read_head;
pub use response::{MAX_RESPONSE, Media, Response, read_response};

/// A client of one destination.
pub struct Client {
    heads: Heads,
    bodies: Bodies,
    link: Link,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Heads hold what headers hide, bodies are large.
        f.debug_struct("Client").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Client {
    /// A client; nothing is connected yet.
    ///
    /// # Errors
    ///
    /// As [`Connector::new`].
    pub fn new(destination: &Destination) -> Result<Self, Box<ExportError>> {
        let connector = Connector::new(destination)?;
        Ok(Self {
            heads: Heads::new(destination, connector.forwarding_proxy()),
            bodies: Bodies::new(destination),
            link: Link::new(connector),
        })
    }

    fn post(&mut self, request: &Request, deadline: Deadline) -> Result<Response, Broken> {
        let body = self.bodies.encode(request)?;
        let head =
            self.heads.head(request.signal, body.len()).ok_or_else(|| Box::new(Failure::NotSentThere))?;
        self.link.exchange(&head, body, deadline)
    }
}

impl Transport for Client {
    fn attempt(
        &mut self,
        request: &Request,
        timeout: Option<Duration>,
        wall: SystemTime,
    ) -> Result<Accepted, Refusal> {
        let response = self.post(request, Deadline::after(timeout)).map_err(|broken| {
            let Broken { mut failure, ambiguous } = broken;
            let too_late =
                matches!(&*failure, Failure::Disconnected(e) if e.kind() == io::ErrorKind::TimedOut);
            if let Some(timeout) = timeout.filter(|_| too_late) {
                *failure = Failure::Timeout(timeout);
            }
            Refusal { failure, asked_to_wait: None, ambiguous }
        })?;
        let Response { status, retry_after, media, body } = response;
        match (status, media) {
            (200..=299, Media::Protobuf) => Ok(parse_accepted(&body)),
            (200..=299, Media::Json) => Ok(parse_accepted_json(&body)),
            (200..=299, Media::Other) => Ok(Accepted::default()),
            _ => Err(Refusal {
                failure: Box::new(Failure::Status {
                    code: status,
                    message: parse_error(&body, media == Media::Protobuf),
                }),
                asked_to_wait: retry_after.and_then(|value| parse_retry_after(&value, wall)),
                ambiguous: false,
            }),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;

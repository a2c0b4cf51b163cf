//! A destination that takes OTLP/gRPC.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AsHeaderName, CONTENT_TYPE, RETRY_AFTER};
use http::uri::Authority;
use http::{HeaderMap, StatusCode};

use super::call::{Answer, Broken, Connection, End, is_grpc};
use super::frame::{parse_body, prefix};
use super::head::Template;
use super::socket::{Heard, Socket};
use super::status::{Code, Status};
use crate::built_in::GrpcBuiltIn;
use crate::export::destination::Destination;
use crate::export::gzip::compress_into;
use crate::export::http::check_size;
use crate::export::net::{Alpn, Connector, Deadline, disconnected};
use crate::export::reply::{Accepted, message, parse_accepted};
use crate::export::retry::parse_retry_after;
use crate::export::transport::{Refusal, Transport};
use crate::export::{Compression, EndpointProblem, ExportError, Failure, Request, Scheme};

/// A client of one destination: one connection for all signals, made when it is needed.
pub struct GrpcTransport {
    connector: Connector,
    compression: Compression,
    template: Template,
    connection: Option<Connection>,
}

impl fmt::Debug for GrpcTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcTransport").field("connector", &self.connector).finish_non_exhaustive()
    }
}

impl GrpcTransport {
    /// A client of `destination`. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`ExportError::Metadata`] for headers that gRPC cannot send, [`ExportError::Endpoint`] for a host that HTTP/2
    /// cannot name, and what [`Connector::new`] says.
    pub fn new(destination: &Destination) -> Result<Self, Box<ExportError>> {
        let endpoint = &destination.endpoint;
        let authority = Authority::try_from(endpoint.authority()).map_err(|_| ExportError::Endpoint {
            source_name: endpoint.to_string(),
            problem: EndpointProblem::BadCharacter,
        })?;
        let is_tls = endpoint.scheme() == Scheme::Https;
        let compression = destination.compression;
        let template = Template::new(is_tls, authority, &destination.headers, compression)?;
        Ok(Self { connector: Connector::new(destination)?, compression, template, connection: None })
    }

    fn exchange(&mut self, call: &Call<'_>) -> Result<Answer, Refusal> {
        if let Some(mut kept) = self.connection.take() {
            // Receivers close what is idle; nobody looked at it since.
            if kept.is_usable(call.deadline) {
                match self.exchange_over(kept, call) {
                    // It went away just now, and did not take the request.
                    Err(broken)
                        if broken.is_lost() && !broken.is_ambiguous() && !call.is_over(&broken.end) => {}
                    result => return result.map_err(|broken| call.refusal(broken)),
                }
            }
        }
        let mut stream = self.connector.connect(call.deadline, Alpn::H2).map_err(refused)?;
        stream.set_nonblocking(true);
        let connection = Connection::open(Socket::new(stream), call.deadline);
        connection
            .and_then(|connection| self.exchange_over(connection, call))
            .map_err(|broken| call.refusal(broken))
    }

    fn exchange_over(&mut self, mut connection: Connection, call: &Call<'_>) -> Result<Answer, Broken> {
        // What has passed is found by the call.
        let left = call.deadline.remaining().unwrap_or(Some(Duration::ZERO));
        let head = self.template.request(call.request.signal, left);
        let result = connection.call(head, call.parts.clone(), call.deadline);
        // A receiver that was silent until the deadline may be gone without a word.
        let answered = !matches!(&result, Err(broken) if broken.is_lost() || call.is_over(&broken.end));
        if answered && connection.is_usable(call.deadline) {
            self.connection = Some(connection);
        }
        result
    }
}

impl Transport for GrpcTransport {
    fn attempt(
        &mut self,
        request: &Request,
        timeout: Option<Duration>,
        wall: SystemTime,
    ) -> Result<Accepted, Refusal> {
        let deadline = Deadline::after(timeout);
        check_size(request.body.len()).map_err(refused)?;
        let body = match self.compression {
            Compression::Gzip(built_in) => {
                let mut compressed = Vec::new();
                compress_into(&request.body, &mut compressed, built_in);
                compressed.into()
            }
            Compression::None => request.body.clone(),
        };
        let Some(prefix) = prefix(body.len(), self.compression != Compression::None) else {
            return Err(refused(Failure::RequestTooLarge { bytes: body.len() }));
        };
        let parts = [Bytes::copy_from_slice(&prefix), body];
        let answer = self.exchange(&Call { request, parts, timeout, deadline })?;
        read_answer(&answer, wall)
    }
}

/// What all tries of one attempt have in common.
struct Call<'a> {
    request: &'a Request,
    parts: [Bytes; 2],
    timeout: Option<Duration>,
    deadline: Deadline,
}

impl Call<'_> {
    /// Whether this end is the deadline's.
    fn is_over(&self, end: &End) -> bool {
        matches!(end, End::Io(error) if error.kind() == io::ErrorKind::TimedOut)
            && self.deadline.remaining().is_err()
    }

    fn refusal(&self, broken: Broken) -> Refusal {
        let ambiguous = broken.is_ambiguous();
        let failure = match broken.end {
            end if self.is_over(&end) => Box::new(Failure::Timeout(self.timeout.unwrap_or_default())),
            _ if broken.heard == Heard::Http1 => {
                return refused(Failure::NotHttp2 { http1: true, built_in: GrpcBuiltIn::HERE });
            }
            _ if broken.heard == Heard::Other => {
                return refused(Failure::NotHttp2 { http1: false, built_in: GrpcBuiltIn::HERE });
            }
            End::TooLarge => return refused(Failure::ResponseTooLarge),
            End::Io(error) => disconnected(error),
            End::Http2(error) => failure(error),
        };
        Refusal { failure, asked_to_wait: None, ambiguous }
    }
}

impl Broken {
    /// Whether the connection ended, not only this call.
    fn is_lost(&self) -> bool {
        match &self.end {
            End::Http2(error) => !error.is_reset(),
            End::Io(_) => true,
            End::TooLarge => false,
        }
    }

    /// Whether the receiver may have taken the request even so.
    fn is_ambiguous(&self) -> bool {
        // Both say that it was not looked at: the stream is later than the last that GOAWAY tells, or refused.
        let unprocessed = match &self.end {
            End::Http2(error) => {
                error.is_remote()
                    && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
            }
            End::Io(_) | End::TooLarge => false,
        };
        self.sent && !unprocessed
    }
}

/// What an error of HTTP/2 means to gRPC.
fn failure(error: h2::Error) -> Box<Failure> {
    let Some(reason) = error.reason() else {
        return Box::new(Failure::Disconnected(io::Error::other(error.to_string())));
    };
    let description = reason.description();
    if error.is_go_away() && error.is_remote() {
        grpc(Code::Unavailable, format!("the receiver closes the connection ({description})"))
    } else if error.is_remote() {
        grpc(Code::from_reset(reason.into()), format!("the receiver reset the stream ({description})"))
    } else {
        grpc(Code::Internal, format!("the answer breaks rules of HTTP/2 ({description})"))
    }
}

/// A failure that this side found.
fn grpc(code: Code, message: String) -> Box<Failure> {
    Box::new(Failure::Grpc { code, message: Some(message), retry_info: false, built_in: GrpcBuiltIn::HERE })
}

/// A refusal of what the receiver did not get or surely did not take.
fn refused(failure: impl Into<Box<Failure>>) -> Refusal {
    Refusal { failure: failure.into(), asked_to_wait: None, ambiguous: false }
}

fn value(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&[u8]> {
    headers.get(name).map(http::HeaderValue::as_bytes)
}

fn read_answer(answer: &Answer, wall: SystemTime) -> Result<Accepted, Refusal> {
    let Answer { head, body, trailers } = answer;
    // Without a body, the head is the trailers.
    let last = trailers.as_ref().unwrap_or(head.headers());
    let status = value(last, "grpc-status")
        .map(|code| Status::parse(code, value(last, "grpc-message"), value(last, "grpc-status-details-bin")));
    match status {
        Some(Status { code: Code::Ok, .. }) if head.status() == StatusCode::OK => {
            let is_gzip = value(head.headers(), "grpc-encoding") == Some(b"gzip");
            match parse_body(body, is_gzip) {
                Ok(message) => Ok(parse_accepted(&message)),
                Err(super::frame::FrameError::TooLarge) => Err(refused(Failure::ResponseTooLarge)),
                // The status counts: it was taken, whatever is in the message that nobody can read.
                Err(_) => Ok(Accepted::default()),
            }
        }
        Some(Status { code, message, retry_info }) if code != Code::Ok => Err(Refusal {
            failure: Box::new(Failure::Grpc {
                code,
                message,
                retry_info: retry_info.is_some(),
                built_in: GrpcBuiltIn::HERE,
            }),
            asked_to_wait: retry_info.filter(|delay| !delay.is_zero()),
            ambiguous: false,
        }),
        _ => Err(no_status(answer, wall)),
    }
}

/// An answer from something that does not speak gRPC, or stopped speaking.
fn no_status(answer: &Answer, wall: SystemTime) -> Refusal {
    let head = &answer.head;
    if is_grpc(head) {
        let failure = grpc(Code::Unknown, "the answer has no status".to_owned());
        return Refusal { failure, asked_to_wait: None, ambiguous: true };
    }
    let text = |bytes: Option<&[u8]>| std::str::from_utf8(bytes.unwrap_or_default()).ok().and_then(message);
    let text_of_type = text(value(head.headers(), CONTENT_TYPE)).unwrap_or_else(|| "nothing".to_owned());
    let asked_to_wait =
        text(value(head.headers(), RETRY_AFTER)).and_then(|value| parse_retry_after(&value, wall));
    let status = head.status().as_u16();
    let failure =
        grpc(Code::from_http(status), format!("HTTP status {status} with {text_of_type}, not gRPC"));
    Refusal { failure, asked_to_wait, ambiguous: false }
}

#[cfg(test)]
mod tests;

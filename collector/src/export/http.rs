//! One HTTP/1.1 request over a connection that is kept.
//!
//! Written over `std` because OTLP needs so little of HTTP (`POST`, one body, one answer) and because everything
//! that will carry it, TLS, proxies, unix sockets, is a stream; `docs/export.md` has the comparison.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

use super::destination::Destination;
use super::net::{Alpn, Connector, Deadline, Stream};
use super::{Compression, ExportError, Failure};

/// Largest answer that OTLP allows.
pub const MAX_RESPONSE: usize = 4 << 20;
/// Largest head of an answer.
const MAX_HEAD: u64 = 64 << 10;
/// Most headers of an answer.
const MAX_HEADERS: usize = 100;
/// Interim answers (1xx) before the final one.
const MAX_INTERIM: u32 = 10;

pub(super) const USER_AGENT: &str =
    concat!("ebpf-otlp/", env!("CARGO_PKG_VERSION"), " OTel-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"));

/// An answer; its body may be incomplete if the connection ended within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code, 200 or more.
    pub status: u16,
    /// Value of `Retry-After`.
    pub retry_after: Option<String>,
    /// Whether `Content-Type` says protobuf.
    pub is_protobuf: bool,
    /// The body.
    pub body: Vec<u8>,
}

/// A client of one endpoint.
pub struct Client {
    connector: Connector,
    /// The request's head between the first line and the length.
    head: String,
    connection: Option<BufReader<Stream>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The head holds what headers hide.
        f.debug_struct("Client").field("connector", &self.connector).finish_non_exhaustive()
    }
}

impl Client {
    /// A client that adds the destination's headers and says that bodies are compressed so. Nothing is connected
    /// yet.
    ///
    /// # Errors
    ///
    /// As [`Connector::new`].
    pub fn new(destination: &Destination) -> Result<Self, ExportError> {
        let mut head =
            format!("Host: {}\r\nContent-Type: application/x-protobuf\r\n", destination.endpoint.authority());
        if destination.compression == Compression::Gzip {
            head += "Content-Encoding: gzip\r\n";
        }
        let headers = &destination.headers;
        if !headers.iter().any(|header| header.name().eq_ignore_ascii_case("user-agent")) {
            head += &format!("User-Agent: {USER_AGENT}\r\n");
        }
        for header in headers {
            head += &format!("{}: {}\r\n", header.name(), header.value());
        }
        Ok(Self { connector: Connector::new(destination)?, head, connection: None })
    }

    /// Sends `body` to `target` and waits for the answer, at most `timeout`.
    ///
    /// # Errors
    ///
    /// Every [`Failure`] but `Status`: an answer with any status is a [`Response`].
    pub fn post(
        &mut self,
        target: &str,
        body: &[u8],
        timeout: Option<Duration>,
    ) -> Result<Response, Failure> {
        let head = format!("POST {target} HTTP/1.1\r\n{}Content-Length: {}\r\n\r\n", self.head, body.len());
        let result = self.post_until(&head, body, Deadline::after(timeout));
        result.map_err(|failure| match failure {
            Failure::Disconnected(error) if error.kind() == io::ErrorKind::TimedOut => {
                Failure::Timeout(timeout.unwrap_or_default())
            }
            other => other,
        })
    }

    fn post_until(&mut self, head: &str, body: &[u8], deadline: Deadline) -> Result<Response, Failure> {
        if let Some(kept) = self.connection.take() {
            match self.exchange(kept, head, body, deadline) {
                // Receivers close what is idle: a new connection shows whether this one is gone.
                Err(Failure::Disconnected(error)) if error.kind() != io::ErrorKind::TimedOut => {}
                result => return result,
            }
        }
        let stream = self.connector.connect(deadline, Alpn::Http1)?;
        self.exchange(BufReader::new(stream), head, body, deadline)
    }

    fn exchange(
        &mut self,
        mut connection: BufReader<Stream>,
        head: &str,
        body: &[u8],
        deadline: Deadline,
    ) -> Result<Response, Failure> {
        connection.get_mut().set_deadline(deadline);
        let sent = connection
            .get_mut()
            .write_all(head.as_bytes())
            .and_then(|()| connection.get_mut().write_all(body))
            .and_then(|()| connection.get_mut().flush());
        // A receiver may answer and close before it has read all: look for the answer even so.
        let (head, body) = match (read_head(&mut connection), sent) {
            (Err(_), Err(error)) => return Err(Failure::Disconnected(error)),
            (head, _) => {
                let head = head?;
                let body = read_body(&mut connection, &head)?;
                (head, body)
            }
        };
        // What comes unasked would be taken for the next answer.
        if body.complete && !head.close && connection.buffer().is_empty() {
            self.connection = Some(connection);
        }
        Ok(head.into_response(body))
    }
}

/// Reads an answer, interim ones passed over: what a client does after it has sent a request.
///
/// # Errors
///
/// [`Failure::NotHttp`], [`Failure::ResponseTooLarge`], [`Failure::Disconnected`] before the end of the head.
pub fn read_response(connection: &mut impl BufRead) -> Result<Response, Failure> {
    let head = read_head(connection)?;
    let body = read_body(connection, &head)?;
    Ok(head.into_response(body))
}

struct Head {
    status: u16,
    length: Length,
    close: bool,
    retry_after: Option<String>,
    is_protobuf: bool,
}

impl Head {
    fn into_response(self, body: Body) -> Response {
        let Self { status, retry_after, is_protobuf, .. } = self;
        Response { status, retry_after, is_protobuf, body: body.bytes }
    }
}

enum Length {
    Known(u64),
    Chunked,
    UntilClose,
}

fn read_head(connection: &mut impl BufRead) -> Result<Head, Failure> {
    for _ in 0..MAX_INTERIM {
        let head = parse_head(&read_head_bytes(connection)?).ok_or(Failure::NotHttp)?;
        if head.status >= 200 {
            return Ok(head);
        }
    }
    Err(Failure::NotHttp)
}

fn read_head_bytes(connection: &mut impl BufRead) -> Result<Vec<u8>, Failure> {
    const START: &[u8] = b"HTTP/1.";
    let mut head = Vec::new();
    let mut limited = connection.take(MAX_HEAD);
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        // Something else than HTTP may never send a line's end: do not wait for one.
        let known = head.len().min(START.len());
        let line_start = limited.fill_buf().map_err(Failure::Disconnected)?;
        if !line_start
            .iter()
            .zip(START.get(known..).unwrap_or_default())
            .all(|(byte, expected)| byte == expected)
        {
            return Err(Failure::NotHttp);
        }
        match limited.read_until(b'\n', &mut head).map_err(Failure::Disconnected)? {
            0 if limited.limit() == 0 => return Err(Failure::NotHttp),
            0 => return Err(Failure::Disconnected(io::ErrorKind::UnexpectedEof.into())),
            _ => {}
        }
    }
    Ok(head)
}

fn parse_head(bytes: &[u8]) -> Option<Head> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    if !response.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let status = response.code?;
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok().map(str::trim)
    };
    let length = match (value("transfer-encoding"), value("content-length")) {
        _ if matches!(status, 100..=199 | 204 | 304) => Length::Known(0),
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Length::Chunked,
        (Some(_), _) | (None, None) => Length::UntilClose,
        (None, Some(length)) => Length::Known(length.parse().ok()?),
    };
    let says_close = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let says_keep = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive"));
    let media_type =
        value("content-type").and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    Some(Head {
        status,
        length,
        close: says_close || (response.version == Some(0) && !says_keep),
        retry_after: value("retry-after").map(str::to_owned),
        is_protobuf: ["application/x-protobuf", "application/protobuf"]
            .iter()
            .any(|protobuf| media_type.eq_ignore_ascii_case(protobuf)),
    })
}

#[derive(Default)]
struct Body {
    bytes: Vec<u8>,
    /// Whether it ended where it said it would, so that the connection can carry another.
    complete: bool,
}

/// Reads a body. The status is known by now and counts, whatever happens to the body.
fn read_body(connection: &mut impl BufRead, head: &Head) -> Result<Body, Failure> {
    let mut body = Body::default();
    match head.length {
        Length::Known(length) => {
            if length > MAX_RESPONSE as u64 {
                return Err(Failure::ResponseTooLarge);
            }
            body.complete = read_part(connection, length, &mut body.bytes);
        }
        Length::UntilClose => {
            read_part(connection, MAX_RESPONSE as u64 + 1, &mut body.bytes);
        }
        Length::Chunked => {
            while body.bytes.len() <= MAX_RESPONSE {
                let Some(size) = read_chunk_size(connection) else { break };
                if size == 0 {
                    body.complete = skip_trailers(connection);
                    break;
                }
                let room = (MAX_RESPONSE + 1 - body.bytes.len()) as u64;
                if !read_part(connection, size.min(room), &mut body.bytes) || read_line(connection).is_none()
                {
                    break;
                }
            }
        }
    }
    if body.bytes.len() > MAX_RESPONSE { Err(Failure::ResponseTooLarge) } else { Ok(body) }
}

/// Appends `length` bytes, or as many as come; whether it was all.
fn read_part(connection: &mut impl BufRead, length: u64, bytes: &mut Vec<u8>) -> bool {
    let before = bytes.len() as u64;
    let read = connection.take(length).read_to_end(bytes);
    read.is_ok() && bytes.len() as u64 - before == length
}

fn read_chunk_size(connection: &mut impl BufRead) -> Option<u64> {
    let line = read_line(connection)?;
    match httparse::parse_chunk_size(&line) {
        Ok(httparse::Status::Complete((_, size))) => Some(size),
        _ => None,
    }
}

fn skip_trailers(connection: &mut impl BufRead) -> bool {
    (0..MAX_HEADERS).map_while(|_| read_line(connection)).any(|line| line == b"\r\n" || line == b"\n")
}

/// A line with its end, if it comes and is of a reasonable length.
fn read_line(connection: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    connection.take(MAX_HEAD).read_until(b'\n', &mut line).ok()?;
    line.ends_with(b"\n").then_some(line)
}

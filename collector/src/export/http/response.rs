//! Answers of HTTP/1.1, read with no more trust than they deserve.

use std::io::{self, BufRead, Read};

use super::Failure;
use crate::export::net::disconnected;

/// Largest answer that OTLP allows, after decompression.
pub const MAX_RESPONSE: usize = 4 << 20;
/// Largest head of an answer.
const MAX_HEAD: u64 = 64 << 10;
/// Most headers of an answer.
const MAX_HEADERS: usize = 100;
/// Interim answers (1xx) before the final one.
const MAX_INTERIM: u32 = 10;

/// An answer; its body may be incomplete if the connection ended within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code, 200 or more.
    pub status: u16,
    /// Value of `Retry-After`.
    pub retry_after: Option<String>,
    /// What the body is.
    pub media: Media,
    /// The body, decompressed.
    pub body: Vec<u8>,
}

/// What `Content-Type` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// `application/x-protobuf`
    Protobuf,
    /// `application/json`
    Json,
    /// Something else, or nothing.
    Other,
}

impl Media {
    fn parse(content_type: &str) -> Self {
        let name = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match name.as_str() {
            "application/x-protobuf" | "application/protobuf" => Self::Protobuf,
            "application/json" => Self::Json,
            _ => Self::Other,
        }
    }
}

/// Reads an answer, interim ones passed over: what a client does after it has sent a request.
///
/// # Errors
///
/// [`Failure::NotHttp`], [`Failure::ResponseTooLarge`], [`Failure::Disconnected`] before the end of the head.
pub fn read_response(connection: &mut impl BufRead) -> Result<Response, Box<Failure>> {
    Ok(read_kept(connection)?.0)
}

/// Reads an answer, and tells whether the connection can carry another.
pub(super) fn read_kept(connection: &mut impl BufRead) -> Result<(Response, bool), Box<Failure>> {
    let head = read_head(connection)?;
    let body = read_body(connection, &head)?;
    let kept = body.complete && !head.close;
    Ok((head.into_response(body.bytes)?, kept))
}

/// What comes before a body.
pub(in crate::export) struct Head {
    /// Status code, 200 or more.
    pub status: u16,
    pub(super) length: Length,
    close: bool,
    retry_after: Option<String>,
    media: Media,
    pub(super) coding: Coding,
    /// Value of `Location`.
    #[cfg(feature = "debuginfod")]
    pub location: Option<String>,
    /// How large the file is, as debuginfod servers say it also of what is sent in chunks.
    #[cfg(feature = "debuginfod")]
    pub file_size: Option<u64>,
}

impl Head {
    fn into_response(self, body: Vec<u8>) -> Result<Response, Box<Failure>> {
        let body = match self.coding {
            Coding::None => body,
            // What was not asked for, and cannot be read, says nothing.
            Coding::Unknown => Vec::new(),
            #[cfg(feature = "gzip")]
            Coding::Gzip => match crate::export::gzip::decompress(&body, MAX_RESPONSE) {
                Ok(decoded) => decoded.ok_or(Failure::ResponseTooLarge)?,
                Err(_) => Vec::new(),
            },
        };
        Ok(Response { status: self.status, retry_after: self.retry_after, media: self.media, body })
    }
}

/// What `Content-Encoding` says. None is asked for, but proxies compress by themselves.
pub(super) enum Coding {
    None,
    #[cfg(feature = "gzip")]
    Gzip,
    Unknown,
}

/// Where a body ends.
pub(super) enum Length {
    Known(u64),
    Chunked,
    UntilClose,
}

/// Reads the head of the final answer.
pub(in crate::export) fn read_head(connection: &mut impl BufRead) -> Result<Head, Box<Failure>> {
    for _ in 0..MAX_INTERIM {
        let head = parse_head(&read_head_bytes(connection)?).ok_or(Failure::NotHttp)?;
        if head.status >= 200 {
            return Ok(head);
        }
    }
    Err(Box::new(Failure::NotHttp))
}

fn read_head_bytes(connection: &mut impl BufRead) -> Result<Vec<u8>, Box<Failure>> {
    const START: &[u8] = b"HTTP/1.";
    let mut head = Vec::new();
    let mut limited = connection.take(MAX_HEAD);
    while !head.ends_with(b"\n\r\n") && !head.ends_with(b"\n\n") {
        // Something else than HTTP may never send a line's end: do not wait for one.
        let known = head.len().min(START.len());
        let line_start = limited.fill_buf().map_err(disconnected)?;
        if !line_start
            .iter()
            .zip(START.get(known..).unwrap_or_default())
            .all(|(byte, expected)| byte == expected)
        {
            return Err(Box::new(Failure::NotHttp));
        }
        match limited.read_until(b'\n', &mut head).map_err(disconnected)? {
            0 if limited.limit() == 0 => return Err(Box::new(Failure::NotHttp)),
            0 => return Err(Box::new(Failure::Disconnected(io::ErrorKind::UnexpectedEof.into()))),
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
    let connection = value("connection").unwrap_or_default();
    let says = |option: &str| connection.split(',').any(|said| said.trim().eq_ignore_ascii_case(option));
    Some(Head {
        status,
        length,
        close: says("close") || (response.version == Some(0) && !says("keep-alive")),
        retry_after: value("retry-after").map(str::to_owned),
        media: Media::parse(value("content-type").unwrap_or_default()),
        coding: match value("content-encoding").unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "identity" => Coding::None,
            #[cfg(feature = "gzip")]
            "gzip" | "x-gzip" => Coding::Gzip,
            _ => Coding::Unknown,
        },
        #[cfg(feature = "debuginfod")]
        location: value("location").map(str::to_owned),
        #[cfg(feature = "debuginfod")]
        file_size: value("x-debuginfod-size").and_then(|size| size.parse().ok()),
    })
}

#[derive(Default)]
struct Body {
    bytes: Vec<u8>,
    /// Whether it ended where it said it would, so that the connection can carry another.
    complete: bool,
}

/// Reads a body. The status is known by now and counts, whatever happens to the body.
fn read_body(connection: &mut impl BufRead, head: &Head) -> Result<Body, Box<Failure>> {
    let mut body = Body::default();
    match head.length {
        Length::Known(length) => {
            if length > MAX_RESPONSE as u64 {
                return Err(Box::new(Failure::ResponseTooLarge));
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
    if body.bytes.len() > MAX_RESPONSE { Err(Box::new(Failure::ResponseTooLarge)) } else { Ok(body) }
}

/// Appends `length` bytes, or as many as come; whether it was all.
fn read_part(connection: &mut impl BufRead, length: u64, bytes: &mut Vec<u8>) -> bool {
    let before = bytes.len() as u64;
    let read = connection.take(length).read_to_end(bytes);
    read.is_ok() && bytes.len() as u64 - before == length
}

pub(super) fn read_chunk_size(connection: &mut impl BufRead) -> Option<u64> {
    let line = read_line(connection)?;
    match httparse::parse_chunk_size(&line) {
        Ok(httparse::Status::Complete((_, size))) => Some(size),
        _ => None,
    }
}

pub(super) fn skip_trailers(connection: &mut impl BufRead) -> bool {
    (0..MAX_HEADERS).map_while(|_| read_line(connection)).any(|line| line == b"\r\n" || line == b"\n")
}

/// A line with its end, if it comes and is of a reasonable length.
pub(super) fn read_line(connection: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    connection.take(MAX_HEAD).read_until(b'\n', &mut line).ok()?;
    line.ends_with(b"\n").then_some(line)
}

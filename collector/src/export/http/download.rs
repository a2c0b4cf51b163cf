//! Files from servers: one `GET`, whose body may be large and is handed on as it comes.
//!
//! The server is trusted no further than a receiver is: it can cost the time and the bytes of [`Limits`], and no more.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use super::read_head;
use super::response::{Coding, Head, Length, read_chunk_size, read_line, skip_trailers};
use crate::export::destination::{Protocol, TlsFiles};
use crate::export::net::{Alpn, Connector, Deadline, Stream, proxy};
use crate::export::{Compression, Destination, Endpoint, ExportError, Failure, Scheme};

const USER_AGENT: &str = concat!("ebpf-otlp/", env!("CARGO_PKG_VERSION"));
/// Servers that send to one another.
const MAX_REDIRECTS: u32 = 5;
/// Bytes that must come within the time that a server has to begin, and again each time that they have come: debuginfod's
/// clients count so.
const LEAST: u64 = 100_000;
/// Bytes that are handed on at a time.
const PIECE: usize = 64 << 10;

/// What a download may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long the server may take to begin, and for each 100,000 bytes.
    pub timeout: Duration,
    /// When all of it must be over.
    pub end: Instant,
    /// Bytes of the file, after decompression.
    pub bytes: u64,
}

/// Why there is no file.
#[derive(Debug)]
#[non_exhaustive]
pub enum DownloadError {
    /// The proxy that the environment names, or the files for TLS.
    Settings(Box<ExportError>),
    /// No answer.
    Failure(Box<Failure>),
    /// An answer that is no file.
    Status(u16),
    /// The server sends to where it cannot be followed.
    Redirect(&'static str),
    /// The file is larger than is taken.
    TooLarge {
        /// Bytes that are taken.
        limit: u64,
    },
    /// It did not come in time.
    TooSlow,
    /// It ended too early, or is not as HTTP has it.
    Broken(io::Error),
    /// It is encoded in a way that nobody asked for.
    Encoding,
    /// What came could not be kept.
    Keep(io::Error),
}

impl DownloadError {
    /// Whether the server is not to be reached, hangs, or has trouble or too much to do: other files are not to be had there either for now.
    pub fn is_of_server(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Failure(_) | Self::TooSlow | Self::Status(429 | 500..=599))
    }
}

impl fmt::Display for DownloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(error) => error.fmt(f),
            Self::Failure(failure) => failure.fmt(f),
            Self::Status(code) => write!(f, "the server answered {code}"),
            Self::Redirect(why) => write!(f, "the server sends elsewhere: {why}"),
            Self::TooLarge { limit } => write!(f, "the file has more than {limit} bytes"),
            Self::TooSlow => f.write_str("the file does not come in time"),
            Self::Broken(error) => write!(f, "the answer is broken ({error})"),
            Self::Encoding => f.write_str("the answer is encoded in a way that was not asked for"),
            Self::Keep(error) => write!(f, "the file cannot be kept ({error})"),
        }
    }
}

impl std::error::Error for DownloadError {}

type Result<T> = std::result::Result<T, Box<DownloadError>>;

/// Gets a file, and hands its bytes to `keep` as they come: how many. `env` looks up a variable that may name a proxy.
///
/// # Errors
///
/// Why there is no file; `keep` may have been given a part of it.
pub fn download(
    url: &Endpoint,
    env: &dyn Fn(&str) -> Option<String>,
    limits: Limits,
    keep: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<u64> {
    let mut url = url.clone();
    for _ in 0..=MAX_REDIRECTS {
        let (head, connection) = ask(&url, env, limits)?;
        match head.status {
            200 => return receive(&head, connection, limits.bytes, keep),
            301 | 302 | 303 | 307 | 308 => {
                let location = head.location.as_deref().unwrap_or_default();
                url = redirected(&url, location).map_err(DownloadError::Redirect)?;
            }
            code => return Err(Box::new(DownloadError::Status(code))),
        }
    }
    Err(Box::new(DownloadError::Redirect("too often")))
}

/// Reads an answer whose body is a file, as [`download`] does: how many bytes of it were handed to `keep`. Other answers are no
/// files.
///
/// # Errors
///
/// As of [`download`].
pub fn read_file(
    mut connection: impl BufRead,
    limit: u64,
    keep: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<u64> {
    let head = read_head(&mut connection).map_err(DownloadError::Failure)?;
    match head.status {
        200 => receive(&head, connection, limit, keep),
        code => Err(Box::new(DownloadError::Status(code))),
    }
}

/// Where a server sends to.
fn redirected(from: &Endpoint, location: &str) -> std::result::Result<Endpoint, &'static str> {
    const NOWHERE: &str = "to no URL that could be used";
    // Anything else could end the request line or a header early.
    if location.is_empty() || location.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(NOWHERE);
    }
    let to = if location.starts_with("//") {
        Endpoint::parse(&format!("{}:{location}", from.scheme().name())).map_err(|_| NOWHERE)?
    } else if location.starts_with('/') {
        from.clone().with_target(location.split('#').next().unwrap_or_default())
    } else {
        Endpoint::parse(location).map_err(|_| NOWHERE)?
    };
    match (from.scheme(), to.scheme()) {
        (_, Scheme::Unix) => Err("to a socket of this host"),
        (Scheme::Https, Scheme::Http) => Err("from https:// to http://"),
        _ => Ok(to),
    }
}

/// Sends the request and reads the head of the answer.
fn ask(
    url: &Endpoint,
    env: &dyn Fn(&str) -> Option<String>,
    limits: Limits,
) -> Result<(Head, BufReader<Paced>)> {
    let destination = Destination {
        endpoint: url.clone(),
        protocol: Protocol::HttpProtobuf,
        headers: Vec::new(),
        compression: Compression::None,
        timeout: None,
        tls: TlsFiles::default(),
        proxy: proxy::from_env(url, env).map_err(DownloadError::Settings)?,
        targets: Vec::new(),
    };
    let connector = Connector::new(&destination).map_err(DownloadError::Settings)?;
    let failed = |failure: Box<Failure>| match *failure {
        Failure::Disconnected(error) | Failure::Connect(error) if error.kind() == ErrorKind::TimedOut => {
            DownloadError::TooSlow
        }
        _ => DownloadError::Failure(failure),
    };
    let stream = connector.connect(limits.deadline(), Alpn::Http1).map_err(failed)?;
    let mut connection = BufReader::with_capacity(PIECE, Paced::new(stream, limits));
    let authority = url.authority();
    let forwarding = connector.forwarding_proxy();
    let origin = forwarding.map_or(String::new(), |_| format!("http://{authority}"));
    let mut head = format!(
        "GET {origin}{} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {USER_AGENT}\r\nAccept-Encoding: gzip\r\n\
         Connection: close\r\n",
        url.target()
    );
    if let Some(authorization) = forwarding.and_then(proxy::Proxy::authorization) {
        head += &format!("Proxy-Authorization: {authorization}\r\n");
    }
    head += "\r\n";
    let stream = &mut connection.get_mut().stream;
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.flush())
        .map_err(|error| failed(Box::new(Failure::Disconnected(error))))?;
    let head = read_head(&mut connection).map_err(failed)?;
    Ok((head, connection))
}

fn receive(
    head: &Head,
    connection: impl BufRead,
    limit: u64,
    keep: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<u64> {
    let too_large = || Box::new(DownloadError::TooLarge { limit });
    let known = match (&head.length, &head.coding) {
        (Length::Known(length), Coding::None) => Some(*length),
        _ => head.file_size,
    };
    if known.is_some_and(|size| size > limit) {
        return Err(too_large());
    }
    let body = Body::new(head, connection);
    let mut body: Box<dyn Read + '_> = match head.coding {
        Coding::None => Box::new(body),
        Coding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(body)),
        Coding::Unknown => return Err(Box::new(DownloadError::Encoding)),
    };
    let mut piece = vec![0; PIECE];
    let mut received = 0;
    loop {
        let count = match body.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                return Err(Box::new(DownloadError::TooSlow));
            }
            Err(error) if error.kind() == ErrorKind::FileTooLarge => return Err(too_large()),
            Err(error) => return Err(Box::new(DownloadError::Broken(error))),
        };
        received += count as u64;
        if received > limit {
            return Err(too_large());
        }
        keep(piece.get(..count).unwrap_or_default()).map_err(DownloadError::Keep)?;
    }
    match known {
        Some(size) if size != received => {
            Err(Box::new(DownloadError::Broken(ErrorKind::UnexpectedEof.into())))
        }
        _ => Ok(received),
    }
}

impl Limits {
    /// Until when the next bytes must be there.
    fn deadline(&self) -> Deadline {
        let left = self.end.saturating_duration_since(Instant::now());
        Deadline::after(Some(self.timeout.min(left)))
    }
}

/// A connection on which bytes keep coming, and not too many of them.
struct Paced {
    stream: Stream,
    limits: Limits,
    /// Bytes since the deadline was set, and bytes that may still come.
    since: u64,
    left: u64,
}

impl Paced {
    fn new(stream: Stream, limits: Limits) -> Self {
        // What frames the file takes less than the file, or is there to waste time.
        let left = limits.bytes.saturating_mul(2).saturating_add(1 << 20);
        Self { stream, limits, since: 0, left }
    }
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or(ErrorKind::FileTooLarge)?;
        self.since += count as u64;
        if self.since >= LEAST {
            self.since = 0;
            self.stream.set_deadline(self.limits.deadline());
        }
        Ok(count)
    }
}

/// A body as it comes, out of its frame.
struct Body<R> {
    connection: R,
    left: Left,
}

/// What is still to come.
enum Left {
    /// So many bytes.
    Bytes(u64),
    /// So many bytes of a chunk, and more chunks.
    Chunk(u64),
    /// Chunks, of which no byte came yet.
    Chunks,
    UntilClose,
    Nothing,
}

impl<R: BufRead> Body<R> {
    fn new(head: &Head, connection: R) -> Self {
        let left = match head.length {
            Length::Known(length) => Left::Bytes(length),
            Length::Chunked => Left::Chunks,
            Length::UntilClose => Left::UntilClose,
        };
        Self { connection, left }
    }

    /// The next chunk.
    fn next_chunk(&mut self) -> io::Result<()> {
        let size = read_chunk_size(&mut self.connection);
        self.left = match size.ok_or(ErrorKind::InvalidData)? {
            0 if skip_trailers(&mut self.connection) => Left::Nothing,
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            size => Left::Chunk(size),
        };
        Ok(())
    }

    /// Some of `left` bytes.
    fn read_some(&mut self, left: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&mut self.connection).take(left).read(buffer)?;
        if count == 0 && !buffer.is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
    }
}

impl<R: BufRead> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Left::Chunks = self.left {
            self.next_chunk()?;
        }
        match self.left {
            Left::Nothing | Left::Bytes(0) => Ok(0),
            Left::UntilClose => self.connection.read(buffer),
            Left::Bytes(left) => {
                let count = self.read_some(left, buffer)?;
                self.left = Left::Bytes(left.saturating_sub(count as u64));
                Ok(count)
            }
            Left::Chunk(left) => {
                let count = self.read_some(left, buffer)?;
                self.left = match left.saturating_sub(count as u64) {
                    0 => {
                        // The end of the line behind it.
                        read_line(&mut self.connection).ok_or(ErrorKind::UnexpectedEof)?;
                        Left::Chunks
                    }
                    left => Left::Chunk(left),
                };
                Ok(count)
            }
            // The next chunk is one of the above.
            Left::Chunks => Err(ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;

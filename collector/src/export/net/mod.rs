//! Connections to receivers: TCP or a unix socket.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::destination::Destination;
use super::{Endpoint, ExportError, Failure};

mod deadline;
mod dial;
mod socket;

pub use deadline::Deadline;
use socket::Socket;

/// The application protocol that TLS negotiates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// `http/1.1`
    Http1,
    /// `h2`
    H2,
}

/// Connects to one destination.
pub struct Connector {
    endpoint: Endpoint,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Connector {
    /// A connector; nothing is connected yet.
    ///
    /// # Errors
    ///
    /// Certificate files that cannot be used.
    pub fn new(destination: &Destination) -> Result<Self, ExportError> {
        Ok(Self { endpoint: destination.endpoint.clone() })
    }

    /// Makes a new connection, on which `deadline` is set. Over TLS, its handshake is done, and has offered
    /// `alpn` alone.
    ///
    /// # Errors
    ///
    /// [`Failure::Resolve`] and [`Failure::Connect`]; a deadline that passed is one of them, of kind `TimedOut`.
    pub fn connect(&self, deadline: Deadline, _alpn: Alpn) -> Result<Stream, Failure> {
        let fd = match self.endpoint.socket_path() {
            Some(path) => dial::unix(&path, deadline)?,
            None => dial::tcp(self.endpoint.host(), self.endpoint.port(), deadline)?,
        };
        let socket = Socket::new(fd, deadline).map_err(Failure::Connect)?;
        Ok(Stream { socket })
    }
}

/// A connection. Reading and writing wait at most until the deadline (an error of kind `TimedOut`), or not at
/// all (`WouldBlock`).
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
}

impl Stream {
    /// Sets until when an operation may wait.
    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.socket.set_deadline(deadline);
    }

    /// Whether operations return `WouldBlock` where they would have to wait; the deadline does not count then.
    /// Who drives a stream so polls [`Stream::as_fd`] for reading, and for writing as long as `flush` says
    /// `WouldBlock`.
    pub fn set_nonblocking(&mut self, nonblocking: bool) {
        self.socket.set_nonblocking(nonblocking);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    /// Sends what is buffered (TLS): to be called after the last `write` before waiting for an answer.
    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

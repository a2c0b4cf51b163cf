//! Connections to receivers: TCP or a unix socket, through a proxy or not, with TLS or not.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::destination::{Destination, Protocol};
use super::{Endpoint, ExportError, Failure, Scheme, TlsProblem};
use crate::built_in::TlsBuiltIn;

mod deadline;
mod dial;
pub mod proxy;
mod socket;
#[cfg(feature = "tls")]
mod tls;

pub use deadline::Deadline;
use proxy::Proxy;
use socket::Socket;

/// The application protocol that TLS negotiates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// `http/1.1`
    Http1,
    /// `h2`
    H2,
}

impl Alpn {
    #[cfg(feature = "tls")]
    fn name(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::H2 => b"h2",
        }
    }
}

/// Connects to one destination.
pub struct Connector {
    endpoint: Endpoint,
    proxy: Option<Proxy>,
    /// Whether the proxy connects through to the receiver; else it reads requests and passes them on.
    tunnels: bool,
    #[cfg(feature = "tls")]
    tls: Option<tls::Tls>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("endpoint", &self.endpoint)
            .field("proxy", &self.proxy)
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// A connector; nothing is connected yet, but certificates are read.
    ///
    /// # Errors
    ///
    /// [`ExportError::TlsFile`] for certificates and keys that cannot be used.
    pub fn new(destination: &Destination) -> Result<Self, Box<ExportError>> {
        let endpoint = destination.endpoint.clone();
        let scheme = endpoint.scheme();
        Ok(Self {
            proxy: destination.proxy.clone().filter(|_| scheme != Scheme::Unix),
            tunnels: scheme == Scheme::Https || destination.protocol == Protocol::Grpc,
            #[cfg(feature = "tls")]
            tls: match scheme {
                Scheme::Https => Some(tls::Tls::new(&endpoint, &destination.tls)?),
                Scheme::Http | Scheme::Unix => None,
            },
            endpoint,
        })
    }

    /// The proxy that must be told where each request goes, and who asks.
    pub(super) fn forwarding_proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| !self.tunnels)
    }

    /// Makes a new connection, on which `deadline` is set. Over TLS, its handshake is done, and has offered
    /// `alpn` alone.
    ///
    /// # Errors
    ///
    /// [`Failure::Resolve`], [`Failure::Connect`], [`Failure::Proxy`] and [`Failure::Tls`]; a deadline that passed is
    /// one of the first two, of kind `TimedOut`.
    pub fn connect(&self, deadline: Deadline, alpn: Alpn) -> Result<Stream, Box<Failure>> {
        let next = self.proxy.as_ref().map_or(&self.endpoint, Proxy::endpoint);
        let fd = match next.socket_path() {
            Some(path) => dial::unix(&path, deadline)?,
            None => dial::tcp(next.host(), next.port(), deadline)?,
        };
        let mut socket = Socket::new(fd, deadline).map_err(Failure::Connect)?;
        if let Some(proxy) = self.proxy.as_ref().filter(|_| self.tunnels) {
            proxy::tunnel(&mut socket, proxy, &self.endpoint)?;
        }
        self.secure(socket, alpn)
    }

    #[cfg(feature = "tls")]
    fn secure(&self, socket: Socket, alpn: Alpn) -> Result<Stream, Box<Failure>> {
        Ok(Stream(match &self.tls {
            Some(tls) => Layer::Tls(Box::new(tls.connect(socket, alpn)?)),
            None => Layer::Plain(socket),
        }))
    }

    #[cfg(not(feature = "tls"))]
    fn secure(&self, socket: Socket, _alpn: Alpn) -> Result<Stream, Box<Failure>> {
        Ok(Stream(Layer::Plain(socket)))
    }
}

/// The failure that an error of a [`Stream`] is: [`Failure::Tls`] where TLS failed, else [`Failure::Disconnected`].
pub(super) fn disconnected(error: io::Error) -> Box<Failure> {
    let problem = |built_in| Some((error.get_ref()?.downcast_ref::<TlsProblem>()?.clone(), built_in));
    Box::new(match TlsBuiltIn::get().and_then(problem) {
        Some((problem, built_in)) => Failure::Tls(problem, built_in),
        None => Failure::Disconnected(error),
    })
}

/// A connection. Reading and writing wait at most until the deadline (an error of kind `TimedOut`), or not at
/// all (`WouldBlock`).
pub struct Stream(Layer);

enum Layer {
    Plain(Socket),
    #[cfg(feature = "tls")]
    Tls(Box<tls::Session>),
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(self.socket()).finish()
    }
}

impl Stream {
    /// Sets until when an operation may wait.
    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.socket_mut().set_deadline(deadline);
    }

    /// Whether operations return `WouldBlock` where they would have to wait; the deadline does not count then. Who
    /// drives a stream so reads until `WouldBlock` before each wait, and polls [`Stream::as_fd`] for reading, and
    /// for writing as long as `flush` says `WouldBlock`.
    pub fn set_nonblocking(&mut self, nonblocking: bool) {
        self.socket_mut().set_nonblocking(nonblocking);
    }

    fn socket(&self) -> &Socket {
        match &self.0 {
            Layer::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Layer::Tls(session) => session.socket(),
        }
    }

    fn socket_mut(&mut self) -> &mut Socket {
        match &mut self.0 {
            Layer::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Layer::Tls(session) => session.socket_mut(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Layer::Plain(socket) => socket.read(buffer),
            #[cfg(feature = "tls")]
            Layer::Tls(session) => session.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Layer::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "tls")]
            Layer::Tls(session) => session.write(bytes),
        }
    }

    /// Sends what is buffered (TLS): to be called after the last `write` before waiting for an answer.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Layer::Plain(socket) => socket.flush(),
            #[cfg(feature = "tls")]
            Layer::Tls(session) => session.flush(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;

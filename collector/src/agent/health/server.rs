//! Sockets for [`Connection`]s.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use super::{Connection, Next, Pages};
use crate::built_in::ListenBuiltIn;

/// Most connections at a time.
const CONNECTIONS: usize = 16;
/// How long a client has for everything.
const PATIENCE: Duration = Duration::from_secs(5);
/// Tokens: the listener's, and those of connections after it.
const LISTENER: usize = 500;

/// A listening socket and its connections. Tokens 500 to 516 are its own.
#[derive(Debug)]
pub struct Server {
    _built_in: ListenBuiltIn,
    listener: TcpListener,
    clients: [Option<Client>; CONNECTIONS],
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    connection: Connection,
    deadline: Instant,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    ///
    /// The address is taken, or not this machine's; the feature `listen` is not built in.
    pub fn bind(address: SocketAddr, registry: &Registry) -> io::Result<Self> {
        let _built_in = ListenBuiltIn::get().ok_or(io::ErrorKind::Unsupported)?;
        let mut listener = TcpListener::bind(address)?;
        registry.register(&mut listener, Token(LISTENER), Interest::READABLE)?;
        Ok(Self { _built_in, listener, clients: std::array::from_fn(|_| None) })
    }

    /// The address, with the port that the system chose.
    ///
    /// # Errors
    ///
    /// The socket is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// When the next client has had its time.
    pub fn deadline(&self) -> Option<Instant> {
        self.clients.iter().flatten().map(|client| client.deadline).min()
    }

    /// Does what is to be done for the tokens that are ready, and drops clients that take too long.
    pub fn handle(&mut self, registry: &Registry, ready: &[Token], now: Instant, pages: &Pages<'_>) {
        if ready.contains(&Token(LISTENER)) {
            self.accept(registry, now, pages);
        }
        for (at, place) in self.clients.iter_mut().enumerate() {
            let Some(client) = place else { continue };
            let is_ready = ready.contains(&Token(LISTENER + 1 + at));
            if (is_ready && client.go_on(pages) == Next::Close) || now >= client.deadline {
                *place = None;
            }
        }
    }

    fn accept(&mut self, registry: &Registry, now: Instant, pages: &Pages<'_>) {
        // An error is over with the connection that it is about, or ends with the next one.
        while let Ok((mut stream, _)) = self.listener.accept() {
            // Without room, dropping it tells the client.
            let Some((at, place)) = self.clients.iter_mut().enumerate().find(|(_, place)| place.is_none())
            else {
                continue;
            };
            let token = Token(LISTENER + 1 + at);
            if registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).is_err() {
                continue;
            }
            let mut client = Client { stream, connection: Connection::default(), deadline: now + PATIENCE };
            if client.go_on(pages) != Next::Close {
                *place = Some(client);
            }
        }
    }
}

impl Client {
    /// Reads and writes as far as that goes without waiting.
    fn go_on(&mut self, pages: &Pages<'_>) -> Next {
        let mut buffer = [0; 1024];
        let mut next = Next::Read;
        while self.connection.output().is_empty() {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Next::Close,
                Ok(read) => next = self.connection.receive(buffer.get(..read).unwrap_or_default(), pages),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return next,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Next::Close,
            }
        }
        loop {
            match self.stream.write(self.connection.output()) {
                Ok(0) => return Next::Close,
                Ok(written) if self.connection.sent(written) == Next::Close => {
                    let _ = self.stream.shutdown(Shutdown::Write);
                    // Closing with something unread would reset the connection, and the answer with it.
                    let _ = self.stream.read(&mut buffer);
                    return Next::Close;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Write,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Next::Close,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::EventLoop;
    use std::net::TcpStream as Blocking;

    fn pages(path: &str) -> Option<(bool, bytes::Bytes)> {
        (path == "/metrics").then(|| (true, "x 1\n".repeat(300_000).into()))
    }

    /// Runs the server for a while beside `client`.
    fn serve<T: Send>(client: impl FnOnce(SocketAddr) -> T + Send) -> (T, Server) {
        let mut events = EventLoop::new().unwrap();
        let mut server = Server::bind("127.0.0.1:0".parse().unwrap(), events.registry()).unwrap();
        let address = server.address().unwrap();
        std::thread::scope(|scope| {
            let client = scope.spawn(move || client(address));
            let mut ready = Vec::new();
            while !client.is_finished() {
                events.wait(Some(Instant::now() + Duration::from_millis(20)), &mut ready).unwrap();
                server.handle(events.registry(), &ready, Instant::now(), &pages);
            }
            (client.join().unwrap(), server)
        })
    }

    #[test]
    #[cfg_attr(not(feature = "listen"), ignore = "without the feature `listen`")]
    fn a_large_page_goes_to_a_client_that_reads() {
        let (answer, server) = serve(|address| {
            let mut stream = Blocking::connect(address).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.len() > 1_200_000);
        assert_eq!(server.deadline(), None, "it is gone");
    }

    #[test]
    #[cfg_attr(not(feature = "listen"), ignore = "without the feature `listen`")]
    fn silent_clients_do_not_keep_others_out_for_long() {
        let (silent, mut server) = serve(|address| {
            let silent: Vec<Blocking> =
                (0..2 * CONNECTIONS).map(|_| Blocking::connect(address).unwrap()).collect();
            std::thread::sleep(Duration::from_millis(200));
            silent
        });
        assert_eq!(server.clients.iter().flatten().count(), CONNECTIONS);
        let deadline = server.deadline().unwrap();
        let events = EventLoop::new().unwrap();
        server.handle(events.registry(), &[], deadline + PATIENCE, &pages);
        assert_eq!(server.deadline(), None);
        drop(silent);
    }
}

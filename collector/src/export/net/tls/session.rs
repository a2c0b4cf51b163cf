//! A TLS session over a socket.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::problem::tls_problem;
use crate::built_in::TlsBuiltIn;
use crate::export::Failure;
use crate::export::net::{Socket, disconnected};

/// A session whose handshake is done.
pub(in crate::export::net) struct Session {
    connection: ClientConnection,
    socket: Socket,
}

impl Session {
    pub(super) fn connect(
        config: ClientConfig,
        name: ServerName<'static>,
        socket: Socket,
    ) -> Result<Self, Box<Failure>> {
        let connection = ClientConnection::new(Arc::new(config), name)
            .map_err(|error| Failure::Tls(tls_problem(&error), TlsBuiltIn::HERE))?;
        let mut session = Self { connection, socket };
        match session.handshake() {
            Ok(()) => Ok(session),
            Err(error) => Err(Box::new(match *disconnected(error) {
                Failure::Disconnected(error) => Failure::Connect(error),
                other => other,
            })),
        }
    }

    /// The protocol that both sides agreed upon.
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    fn handshake(&mut self) -> io::Result<()> {
        while self.connection.is_handshaking() {
            self.send()?;
            if self.connection.is_handshaking() && !self.receive()? {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "it ended within the TLS handshake"));
            }
        }
        self.send()
    }

    pub(in crate::export::net) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(in crate::export::net) fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Sends what is encrypted.
    fn send(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut self.socket)? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Waits for bytes and decrypts them; whether there were any.
    fn receive(&mut self) -> io::Result<bool> {
        let count = self.connection.read_tls(&mut self.socket)?;
        if let Err(error) = self.connection.process_new_packets() {
            // The alert that tells the other side why; the reason stays the same if it cannot be sent.
            let _ = self.connection.write_tls(&mut self.socket);
            return Err(io::Error::new(ErrorKind::InvalidData, tls_problem(&error)));
        }
        Ok(count > 0)
    }
}

impl Read for Session {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            // Answers to key updates. A receiver that does not read any more may still have answered.
            let _ = self.send();
            self.receive()?;
        }
    }
}

impl Write for Session {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send()?;
        let taken = self.connection.writer().write(bytes)?;
        // They are taken: an error now is told by the next call.
        let _ = self.send();
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

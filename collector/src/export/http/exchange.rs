//! A request and its answer, over a connection that is kept for the next.
//!
//! A receiver that closes an idle connection must cost no request, and a request that the receiver may have taken must
//! not be sent again unseen. So a kept connection is looked at before it is used, and one that ends before all of a
//! request was written is replaced at once. After that the request may have been taken: the attempt ends as ambiguous,
//! and who counts deliveries decides.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::time::Duration;

use super::response::{Response, read_kept};
use crate::export::net::{Alpn, Connector, Deadline, Stream, disconnected};
use crate::export::{Failure, TlsProblem};

/// Bytes of a body that are sent together with the head.
const FIRST_WRITE: usize = 16 << 10;

/// How long to look, after the deadline, for an answer to a request that could not be sent to its end.
const LAST_LOOK: Duration = Duration::from_millis(10);

/// How an exchange ended without an answer.
#[derive(Debug)]
pub(super) struct Broken {
    pub failure: Box<Failure>,
    /// Whether all of the request was sent and no head of an answer came.
    pub ambiguous: bool,
}

impl From<Box<Failure>> for Broken {
    /// What fails before anything is sent.
    fn from(failure: Box<Failure>) -> Self {
        Self { failure, ambiguous: false }
    }
}

/// The way to a receiver.
#[derive(Debug)]
pub(super) struct Link {
    connector: Connector,
    /// Its buffer is empty.
    kept: Option<BufReader<Stream>>,
}

impl Link {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, kept: None }
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> Option<&Stream> {
        self.kept.as_ref().map(BufReader::get_ref)
    }

    /// Sends a request and reads the answer.
    pub(super) fn exchange(
        &mut self,
        head: &str,
        body: &[u8],
        deadline: Deadline,
    ) -> Result<Response, Broken> {
        if let Some(kept) = self.kept.take().and_then(alive) {
            match self.exchange_over(kept, head, body, deadline) {
                Err(Broken { failure, ambiguous: false }) if was_closed(&failure) => {}
                // Said of the time that the connection was idle, it crossed the request, which was not taken.
                Ok(Response { status: 408, .. }) => self.kept = None,
                result => return result,
            }
        }
        let stream = self.connector.connect(deadline, Alpn::Http1)?;
        self.exchange_over(BufReader::new(stream), head, body, deadline)
    }

    fn exchange_over(
        &mut self,
        mut connection: BufReader<Stream>,
        head: &str,
        body: &[u8],
        deadline: Deadline,
    ) -> Result<Response, Broken> {
        connection.get_mut().set_deadline(deadline);
        let sent = send(connection.get_mut(), head, body);
        if matches!(&sent, Err(error) if error.kind() == ErrorKind::TimedOut) {
            // The time is over, but an answer may lie there.
            connection.get_mut().set_deadline(Deadline::after(Some(LAST_LOOK)));
        }
        // A receiver may answer, and close, before it has read all: look for the answer even so.
        match (read_kept(&mut connection), sent) {
            (Ok((response, reusable)), sent) => {
                // What comes unasked would be taken for the next answer.
                if reusable && sent.is_ok() && connection.buffer().is_empty() {
                    self.kept = Some(connection);
                }
                Ok(response)
            }
            // The alert says why nothing more could be sent.
            (Err(failure), Err(_)) if matches!(*failure, Failure::Tls(..)) => Err(failure.into()),
            (Err(_), Err(error)) => Err(disconnected(error).into()),
            (Err(failure), Ok(())) => Err(Broken { ambiguous: is_ambiguous(&failure), failure }),
        }
    }
}

/// The connection, unless the receiver has closed it meanwhile, or said something that nobody asked.
fn alive(mut connection: BufReader<Stream>) -> Option<BufReader<Stream>> {
    let stream = connection.get_mut();
    stream.set_nonblocking(true);
    let silent = matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false);
    silent.then_some(connection)
}

fn send(stream: &mut Stream, head: &str, body: &[u8]) -> std::io::Result<()> {
    let (first, rest) = body.split_at(body.len().min(FIRST_WRITE));
    stream.write_all(&[head.as_bytes(), first].concat())?;
    stream.write_all(rest)?;
    stream.flush()
}

/// Whether the connection ended before the time was over.
fn was_closed(failure: &Failure) -> bool {
    matches!(failure, Failure::Disconnected(error) if error.kind() != ErrorKind::TimedOut)
}

/// Whether a receiver that got all of a request may have taken it.
fn is_ambiguous(failure: &Failure) -> bool {
    match failure {
        Failure::Disconnected(_) => true,
        // Over TLS 1.3, the client is refused after it has begun to send.
        Failure::Tls(problem, _) => !matches!(problem, TlsProblem::ClientCertificate(_)),
        _ => false,
    }
}

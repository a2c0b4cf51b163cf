//! What the receiver does with one request.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use super::answers;

/// How the connection goes on after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It carries the next request.
    Keep,
    /// The receiver closes it, and reads what still comes, so that no reset overtakes the answer.
    Close,
    /// The receiver resets it.
    Reset,
    /// Nothing comes any more, and it stays open until the client goes.
    Stall,
}

/// What the receiver does with one request whose head it has read.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Whether it reads the body before it answers.
    pub reads: bool,
    /// Whether it takes what is in the request, which needs `reads`.
    pub takes: bool,
    /// How long it thinks.
    pub delay: Duration,
    /// What it writes.
    pub answer: Vec<u8>,
    /// How many bytes it writes at once, and how long it waits after them.
    pub pace: Option<(usize, Duration)>,
    /// What comes then.
    pub end: End,
}

impl Default for Behaviour {
    /// Takes it, and says so as OTLP has it.
    fn default() -> Self {
        Self::answer(200, &[answers::PROTOBUF], b"")
    }
}

impl Behaviour {
    /// Answers with `status`, header lines and a body, and keeps the connection. A 2xx takes the request.
    pub fn answer(status: u16, headers: &[&str], body: &[u8]) -> Self {
        Self { takes: (200..300).contains(&status), ..Self::raw(answers::http(status, headers, body)) }
    }

    /// Writes `bytes` in place of an answer, and takes nothing.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        let answer = bytes.into();
        Self { reads: true, takes: false, delay: Duration::ZERO, answer, pace: None, end: End::Keep }
    }

    /// Answers, if at all, without having read the body.
    pub fn unread(self) -> Self {
        Self { reads: false, takes: false, ..self }
    }

    /// Takes the request, whatever it answers.
    pub fn taking(self) -> Self {
        Self { takes: true, ..self }
    }

    /// Thinks for a while first.
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Writes `bytes` at once, and waits for `pause` after them.
    pub fn slowly(self, bytes: usize, pause: Duration) -> Self {
        Self { pace: Some((bytes, pause)), ..self }
    }

    /// Closes after the first `length` bytes of the answer.
    pub fn cut(mut self, length: usize) -> Self {
        self.answer.truncate(length);
        self.then(End::Close)
    }

    /// Ends so.
    pub fn then(self, end: End) -> Self {
        Self { end, ..self }
    }

    /// Writes the answer. Clients may go before its end.
    pub(super) fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        std::thread::sleep(self.delay);
        let (size, pause) = self.pace.unwrap_or((usize::MAX, Duration::ZERO));
        for part in self.answer.chunks(size.max(1)) {
            stream.write_all(part)?;
            stream.flush()?;
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// Waits until the client has gone, or its connection is ended by somebody else.
    pub(super) fn drain(stream: &mut impl BufRead) {
        let _ = io::copy(stream, &mut io::sink());
    }
}

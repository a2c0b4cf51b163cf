//! One unary call over a connection of HTTP/2.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response, StatusCode};

use super::frame::PREFIX;
use super::socket::{Heard, Socket};
use crate::export::http::MAX_RESPONSE;
use crate::export::net::{Deadline, Stream};

/// Largest header list of an answer: a status with long details.
const MAX_HEADERS: u32 = 64 << 10;

/// A connection that carries one call after the other.
pub(super) struct Connection {
    socket: Socket<Stream>,
    send: SendRequest<Bytes>,
    connection: client::Connection<Socket<Stream>, Bytes>,
}

/// An answer, as far as gRPC looks at it.
pub(super) struct Answer {
    /// Status and headers; all there is where it has no body.
    pub(super) head: Response<()>,
    /// What should hold one message.
    pub(super) body: Vec<u8>,
    /// Headers after the body.
    pub(super) trailers: Option<HeaderMap>,
}

/// How a call ended without an answer.
#[derive(Debug)]
pub(super) enum End {
    /// HTTP/2 says so.
    Http2(h2::Error),
    /// The stream under it ended; `TimedOut` at the deadline.
    Io(io::Error),
    /// The answer is larger than OTLP allows.
    TooLarge,
}

impl From<h2::Error> for End {
    fn from(error: h2::Error) -> Self {
        Self::Http2(error)
    }
}

/// A call without an answer.
pub(super) struct Broken {
    /// How it ended.
    pub(super) end: End,
    /// Whether all of the request may have reached the receiver.
    pub(super) sent: bool,
    /// What the receiver said first on this connection.
    pub(super) heard: Heard,
}

impl Broken {
    fn new(end: End, sent: bool, socket: &Socket<Stream>) -> Self {
        let end = match end {
            End::Http2(error) if error.is_io() => End::Io(socket.take_error()),
            end => end,
        };
        Self { end, sent, heard: socket.heard() }
    }
}

impl Connection {
    /// Begins HTTP/2 over a stream.
    pub(super) fn open(socket: Socket<Stream>, deadline: Deadline) -> Result<Self, Broken> {
        let mut builder = client::Builder::new();
        builder.enable_push(false).max_header_list_size(MAX_HEADERS);
        let mut handshake = pin!(builder.handshake(socket.clone()));
        let handshake = socket.block_on(deadline, |context| handshake.as_mut().poll(context));
        let end = match handshake {
            Ok(Ok((send, connection))) => return Ok(Self { socket, send, connection }),
            Ok(Err(error)) => End::Http2(error),
            Err(error) => End::Io(error),
        };
        Err(Broken::new(end, false, &socket))
    }

    /// Takes in what came meanwhile and sends what is due. Whether another call can be made; it cannot when the
    /// receiver is going away or gone.
    pub(super) fn is_usable(&mut self, deadline: Deadline) -> bool {
        let Self { socket, send, connection } = self;
        let usable = socket.block_on(deadline, |context| {
            let open = Pin::new(&mut *connection).poll(context).is_pending();
            Poll::Ready(open && !matches!(send.poll_ready(context), Poll::Ready(Err(_))))
        });
        usable.unwrap_or(false)
    }

    /// Sends a request with the body `parts` and waits for the whole answer.
    pub(super) fn call(
        &mut self,
        request: Request<()>,
        parts: [Bytes; 2],
        deadline: Deadline,
    ) -> Result<Answer, Broken> {
        let Self { socket, send, connection } = self;
        let least = socket.written() + parts.iter().map(|part| part.len() as u64).sum::<u64>();
        let queued = Cell::new(false);
        let mut exchange = pin!(exchange(send, request, parts, &queued));
        let mut open = true;
        let result = socket.block_on(deadline, |context| {
            open = open && Pin::new(&mut *connection).poll(context).is_pending();
            match exchange.as_mut().poll(context) {
                Poll::Pending if !open => Poll::Ready(Err(End::Io(socket.take_error()))),
                result => result,
            }
        });
        let sent = queued.get() && socket.written() >= least;
        result.unwrap_or_else(|error| Err(End::Io(error))).map_err(|end| Broken::new(end, sent, socket))
    }
}

/// Sends and receives at the same time: a receiver may answer before it has read all, and then need not read it.
async fn exchange(
    send: &mut SendRequest<Bytes>,
    request: Request<()>,
    parts: [Bytes; 2],
    queued: &Cell<bool>,
) -> Result<Answer, End> {
    poll_fn(|context| send.poll_ready(context)).await?;
    let (response, mut stream) = send.send_request(request, false)?;
    let mut sending = pin!(send_body(&mut stream, parts, queued));
    let mut receiving = pin!(receive(response));
    let mut is_sending = true;
    poll_fn(|context| {
        // What goes wrong with it ends the stream, and so shows in the answer.
        is_sending = is_sending && sending.as_mut().poll(context).is_pending();
        receiving.as_mut().poll(context)
    })
    .await
}

async fn send_body(
    stream: &mut SendStream<Bytes>,
    parts: [Bytes; 2],
    queued: &Cell<bool>,
) -> Result<(), h2::Error> {
    let last = parts.len() - 1;
    for (index, mut part) in parts.into_iter().enumerate() {
        loop {
            let room = if part.is_empty() { 0 } else { window(stream, part.len()).await? };
            let chunk = part.split_to(room);
            let is_end = index == last && part.is_empty();
            stream.send_data(chunk, is_end)?;
            if part.is_empty() {
                break;
            }
        }
    }
    queued.set(true);
    Ok(())
}

/// Waits until the receiver takes some of `wanted` bytes; how many.
async fn window(stream: &mut SendStream<Bytes>, wanted: usize) -> Result<usize, h2::Error> {
    stream.reserve_capacity(wanted);
    let poll = |context: &mut Context<'_>| loop {
        match stream.capacity() {
            0 => match ready!(stream.poll_capacity(context)) {
                Some(capacity) => capacity?,
                None => return Poll::Ready(Err(Reason::CANCEL.into())),
            },
            capacity => return Poll::Ready(Ok(capacity.min(wanted))),
        };
    };
    poll_fn(poll).await
}

async fn receive(response: ResponseFuture) -> Result<Answer, End> {
    let (head, mut stream) = response.await?.into_parts();
    let head = Response::from_parts(head, ());
    let mut body = Vec::new();
    // What is not gRPC has no message and no trailers that matter.
    if !is_grpc(&head) {
        return Ok(Answer { head, body, trailers: None });
    }
    while let Some(chunk) = poll_fn(|context| stream.poll_data(context)).await {
        let chunk = chunk?;
        body.extend_from_slice(&chunk);
        if body.len() > PREFIX + MAX_RESPONSE {
            return Err(End::TooLarge);
        }
        stream.flow_control().release_capacity(chunk.len())?;
    }
    let trailers = poll_fn(|context| stream.poll_trailers(context)).await?;
    Ok(Answer { head, body, trailers })
}

/// Whether an answer is one of gRPC.
pub(super) fn is_grpc(head: &Response<()>) -> bool {
    let media_type = head.headers().get(CONTENT_TYPE);
    head.status() == StatusCode::OK
        && media_type.is_some_and(|media_type| media_type.as_bytes().starts_with(b"application/grpc"))
}

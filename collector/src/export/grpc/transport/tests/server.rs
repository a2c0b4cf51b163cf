//! A gRPC server of one thread, over the same loop as the client.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::{TcpListener, TcpStream};
use std::pin::{Pin, pin};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;
use std::thread;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};

use crate::export::grpc::frame::prefix;
use crate::export::grpc::socket::Socket;
use crate::export::net::Deadline;

/// What the server does with one request.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// None of them: the head ends the stream if there is no body either.
    pub(super) trailers: Vec<(&'static str, String)>,
    /// Answers before it reads the request, and never reads it.
    pub(super) early: bool,
    /// Resets the stream instead of an answer.
    pub(super) reset: Option<Reason>,
    /// Closes the connection instead of an answer.
    pub(super) vanish: bool,
    /// Closes the connection after the answer without a word.
    pub(super) close: bool,
    /// Closes the connection after the answer with GOAWAY.
    pub(super) go_away: bool,
}

impl Answer {
    /// Accepts all.
    pub(super) fn accepted() -> Self {
        Self::message(0, b"")
    }

    /// Accepts, with a message.
    pub(super) fn message(flags: u8, message: &[u8]) -> Self {
        let mut body = prefix(message.len(), false).unwrap().to_vec();
        body[0] = flags;
        body.extend_from_slice(message);
        let answer = Self { status: 200, body, ..Self::default() };
        answer.header("content-type", "application/grpc+proto").trailer("grpc-status", "0")
    }

    /// A status without message or trailers.
    pub(super) fn status(code: &str) -> Self {
        let answer = Self { status: 200, ..Self::default() };
        answer.header("content-type", "application/grpc").header("grpc-status", code)
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn trailer(mut self, name: &'static str, value: &str) -> Self {
        self.trailers.push((name, value.to_owned()));
        self
    }

    pub(super) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }
}

/// A request as the server saw it.
pub(super) struct Seen {
    pub(super) connection: usize,
    pub(super) head: Request<()>,
    pub(super) body: Vec<u8>,
}

/// A server that gives one answer after the other, over as many connections as the client makes.
pub(super) struct Server {
    pub(super) url: String,
    seen: Receiver<Seen>,
    ended: Receiver<()>,
}

impl Server {
    pub(super) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::with_window(65_535, answers)
    }

    /// `window` is how many bytes of a request the client may send before they are read.
    pub(super) fn with_window(window: u32, answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, seen) = channel();
        let (end_sender, ended) = channel();
        let mut answers: VecDeque<Answer> = answers.into_iter().collect();
        thread::spawn(move || {
            let mut connection = 0;
            while !answers.is_empty() {
                let stream = listener.accept().unwrap().0;
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
                connection += 1;
                {
                    let socket = Socket::new(stream);
                    let served = serve(socket.clone(), window, connection, &mut answers, &sender);
                    let mut served = pin!(served);
                    socket.block_on(Deadline::NEVER, |context| served.as_mut().poll(context)).unwrap();
                }
                // Now it is closed.
                let _ = end_sender.send(());
            }
        });
        Self { url, seen, ended }
    }

    /// The next request that was read.
    pub(super) fn seen(&self) -> Seen {
        self.seen.recv().unwrap()
    }

    /// Waits until the server closed a connection.
    pub(super) fn wait_for_end(&self) {
        self.ended.recv().unwrap();
    }
}

/// Serves one connection until it ends.
async fn serve(
    socket: Socket<TcpStream>,
    window: u32,
    number: usize,
    answers: &mut VecDeque<Answer>,
    sender: &Sender<Seen>,
) {
    let mut builder = h2::server::Builder::new();
    let handshake = builder.initial_window_size(window).handshake::<_, Bytes>(socket);
    let Ok(mut connection) = handshake.await else { return };
    let (vanish, close, go_away) = (Cell::new(false), Cell::new(false), Cell::new(false));
    let mut calls: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    poll_fn(|context| {
        loop {
            match connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let Some(answer) = answers.pop_front() else { return Poll::Ready(()) };
                    let sender = sender.clone();
                    let (vanish, close, go_away) = (&vanish, &close, &go_away);
                    calls.push(Box::pin(async move {
                        vanish.set(answer.vanish);
                        let (closes, goes_away) = (answer.close, answer.go_away);
                        // The client may give up.
                        let _ = call(request, respond, answer, number, &sender).await;
                        close.set(closes);
                        go_away.set(goes_away);
                    }));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        let before = calls.len();
        calls.retain_mut(|call| call.as_mut().poll(context).is_pending());
        if calls.len() < before {
            if vanish.get() {
                return Poll::Ready(());
            }
            if go_away.take() {
                connection.graceful_shutdown();
            }
            // What the call queued goes out with the next poll.
            context.waker().wake_by_ref();
        } else if close.get() && calls.is_empty() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

async fn call(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    answer: Answer,
    connection: usize,
    sender: &Sender<Seen>,
) -> Result<(), h2::Error> {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    if !answer.early {
        while let Some(chunk) = poll_fn(|context| stream.poll_data(context)).await {
            let chunk = chunk?;
            body.extend_from_slice(&chunk);
            stream.flow_control().release_capacity(chunk.len())?;
        }
        let _ = sender.send(Seen { connection, head: Request::from_parts(head, ()), body });
    }
    if answer.vanish {
        return Ok(());
    }
    if let Some(reason) = answer.reset {
        respond.send_reset(reason);
        return Ok(());
    }
    let mut response = Response::builder().status(answer.status).body(()).unwrap();
    *response.headers_mut() = header_map(&answer.headers);
    let is_alone = answer.body.is_empty() && answer.trailers.is_empty();
    let mut out = respond.send_response(response, is_alone)?;
    if is_alone {
        return Ok(());
    }
    out.send_data(answer.body.into(), answer.trailers.is_empty())?;
    if !answer.trailers.is_empty() {
        out.send_trailers(header_map(&answer.trailers))?;
    }
    Ok(())
}

fn header_map(headers: &[(&'static str, String)]) -> HeaderMap {
    headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}

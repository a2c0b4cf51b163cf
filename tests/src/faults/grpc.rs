//! OTLP/gRPC, over the crate `h2`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{Reason, RecvStream, server};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::received::{items, signal_of};
use super::{Head, Log, Received, Security, answers};

/// How a call ends after what was sent of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RpcEnd {
    /// As it should.
    Complete,
    /// The call is reset.
    Reset(Reason),
    /// The connection is given up, and calls above the last one that was begun are refused.
    GoAway(Reason),
    /// The connection takes no new calls, and ends when those that were begun have.
    Graceful,
    /// The connection ends with no word.
    Disconnect,
    /// Nothing comes.
    Stall,
}

/// What the receiver does with one call.
#[derive(Debug, Clone)]
pub struct RpcBehaviour {
    /// Whether it reads the request; if not, no more room is given for what comes.
    pub reads: bool,
    /// Whether it takes what is in the request.
    pub takes: bool,
    /// How long it thinks.
    pub delay: Duration,
    /// Status of HTTP.
    pub status: u16,
    /// Headers of the answer; where `data` and `trailers` are empty, its trailers too.
    pub headers: Vec<(&'static str, String)>,
    /// The answer's message with its prefix, or anything else.
    pub data: Vec<u8>,
    /// Trailers after the message.
    pub trailers: Vec<(&'static str, String)>,
    /// What comes then. Nothing is sent of an answer unless it is `Complete` or `Graceful`.
    pub end: RpcEnd,
}

impl Default for RpcBehaviour {
    /// Takes it, and says so.
    fn default() -> Self {
        Self::message(b"")
    }
}

impl RpcBehaviour {
    /// Takes the request and answers with this message.
    pub fn message(message: &[u8]) -> Self {
        let length = u32::try_from(message.len()).expect("a short message");
        let data = [&[0], length.to_be_bytes().as_slice(), message].concat();
        Self {
            reads: true,
            takes: true,
            delay: Duration::ZERO,
            status: 200,
            headers: vec![("content-type", "application/grpc".to_owned())],
            data,
            trailers: vec![("grpc-status", "0".to_owned())],
            end: RpcEnd::Complete,
        }
    }

    /// Refuses the request with this status, in one frame. `message` is percent-encoded already.
    pub fn status(code: u8, message: &str) -> Self {
        let mut refusal = Self { takes: false, data: Vec::new(), trailers: Vec::new(), ..Self::default() };
        refusal.headers.push(("grpc-status", code.to_string()));
        refusal.headers.push(("grpc-message", message.to_owned()));
        refusal
    }

    /// Refuses the request with this status, and details of which `RetryInfo` may be one.
    pub fn detailed(code: u8, message: &str, delay: Option<Duration>) -> Self {
        let mut refusal = Self::status(code, message);
        let details = answers::rpc_status(code.into(), message, delay);
        refusal.headers.push(("grpc-status-details-bin", base64(&details)));
        refusal
    }

    /// Ends so, in place of an answer; nothing is taken.
    pub fn ending(end: RpcEnd) -> Self {
        Self { takes: false, end, ..Self::default() }
    }
}

/// Base64 without padding, as gRPC writes binary metadata.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |group: &[u8]| {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        (0..=group.len())
            .map(|n| char::from(DIGITS[(bits >> (18 - 6 * n)) as usize & 63]))
            .collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

type Plan = dyn FnMut(&Head) -> RpcBehaviour + Send;

struct Shared {
    log: Log,
    plan: Mutex<Box<Plan>>,
    requests: AtomicUsize,
}

/// A receiver of gRPC on loopback; ends, with all of its connections, when it is dropped.
pub struct GrpcServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    is_tls: bool,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl GrpcServer {
    /// Listens on a free port. `plan` says what happens to each call.
    pub fn start(plan: impl FnMut(&Head) -> RpcBehaviour + Send + 'static) -> Self {
        Self::with(([127, 0, 0, 1], 0).into(), Security::None, plan).expect("a free port")
    }

    /// Listens at an address.
    ///
    /// # Errors
    ///
    /// The address cannot be had.
    pub fn with(
        address: SocketAddr,
        security: Security,
        plan: impl FnMut(&Head) -> RpcBehaviour + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared =
            Shared { log: Log::default(), plan: Mutex::new(Box::new(plan)), requests: AtomicUsize::new(0) };
        let shared = Arc::new(shared);
        let (stop, stopped) = oneshot::channel();
        let is_tls = !matches!(security, Security::None);
        let of_thread = Arc::clone(&shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || {
            // All tasks end with the runtime.
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, of_thread, security) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, shared, is_tls, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        if self.is_tls {
            format!("https://localhost:{}", self.address.port())
        } else {
            format!("http://{}", self.address)
        }
    }

    /// What arrived.
    pub fn log(&self) -> &Log {
        &self.shared.log
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>, security: Security) {
    for connection in 1.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        let security = security.clone();
        tokio::spawn(async move {
            match security {
                Security::None => serve(stream, connection, shared).await,
                Security::HangUp => drop(stream.readable().await),
                Security::Tls(config) => {
                    if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                        serve(stream, connection, shared).await;
                    }
                }
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, connection: usize, shared: Arc<Shared>) {
    let Ok(mut calls) = server::handshake(stream).await else { return };
    let (end, mut ends) = unbounded_channel();
    loop {
        tokio::select! {
            call = calls.accept() => {
                let Some(Ok((request, respond))) = call else { return };
                tokio::spawn(answer(request, respond, connection, Arc::clone(&shared), end.clone()));
            }
            Some(end) = ends.recv() => match end {
                RpcEnd::GoAway(reason) => calls.abrupt_shutdown(reason),
                RpcEnd::Graceful => calls.graceful_shutdown(),
                _ => return,
            },
        }
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    connection: usize,
    shared: Arc<Shared>,
    end: UnboundedSender<RpcEnd>,
) {
    let (parts, body) = request.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let head = Head {
        number: shared.requests.fetch_add(1, Ordering::SeqCst),
        connection,
        path: parts.uri.path().to_owned(),
        headers: parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
    };
    let behaviour = (shared.plan.lock().expect("not poisoned"))(&head);
    // Held, so that the stream is not reset for want of a reader.
    let mut body = Some(body);
    let received = if behaviour.reads { read(body.take()).await } else { Vec::new() };
    let items = items_of(&head, &received).filter(|_| behaviour.reads);
    let valid = items.is_some();
    shared.log.push(Received {
        connection,
        path: head.path,
        headers: head.headers,
        bytes: received.len(),
        items: items.unwrap_or_default(),
        taken: behaviour.takes && valid,
        at: Instant::now(),
    });
    let behaviour = if behaviour.takes && !valid { RpcBehaviour::status(3, "no request") } else { behaviour };
    tokio::time::sleep(behaviour.delay).await;
    match behaviour.end {
        RpcEnd::Complete => drop(send(&mut respond, behaviour)),
        RpcEnd::Graceful => {
            let _ = end.send(RpcEnd::Graceful);
            drop(send(&mut respond, behaviour));
        }
        RpcEnd::Reset(reason) => respond.send_reset(reason),
        RpcEnd::Stall => std::future::pending().await,
        other => {
            let _ = end.send(other);
            // Until the connection has ended, lest a reset comes first.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn read(body: Option<RecvStream>) -> Vec<u8> {
    let mut received = Vec::new();
    let Some(mut body) = body else { return received };
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        received.extend_from_slice(&data);
    }
    received
}

/// The items in one message with its prefix.
fn items_of(head: &Head, received: &[u8]) -> Option<Vec<u64>> {
    let (prefix, message) = received.split_at_checked(5)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if usize::try_from(length) != Ok(message.len())
        || (prefix[0] == 1) != (head.header("grpc-encoding") == Some("gzip"))
    {
        return None;
    }
    items(signal_of(&head.path)?, prefix[0] == 1, message).ok()
}

fn send(respond: &mut server::SendResponse<Bytes>, behaviour: RpcBehaviour) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(behaviour.status).expect("a status");
    *response.headers_mut() = map(behaviour.headers);
    let only_trailers = behaviour.data.is_empty() && behaviour.trailers.is_empty();
    let mut stream = respond.send_response(response, only_trailers)?;
    if only_trailers {
        return Ok(());
    }
    let no_trailers = behaviour.trailers.is_empty();
    stream.send_data(behaviour.data.into(), no_trailers)?;
    if no_trailers { Ok(()) } else { stream.send_trailers(map(behaviour.trailers)) }
}

fn map(headers: Vec<(&'static str, String)>) -> HeaderMap {
    let value = |text: String| HeaderValue::from_maybe_shared(Bytes::from(text)).expect("a value");
    headers.into_iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
}

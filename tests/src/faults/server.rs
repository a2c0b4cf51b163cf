//! OTLP/HTTP, one thread a connection.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::received::{items, signal_of};
use super::{Behaviour, End, Log, Received};

/// What comes first on a connection.
#[derive(Debug, Clone, Default)]
pub enum Security {
    /// HTTP.
    #[default]
    None,
    /// A handshake of TLS.
    Tls(Arc<ServerConfig>),
    /// The receiver closes once the client has sent something.
    HangUp,
}

/// How to listen.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where; port 0 for a free one.
    pub address: SocketAddr,
    /// What comes first.
    pub security: Security,
    /// Whether bodies whose items have no numbers are good: any agent's.
    pub unnumbered: bool,
}

impl Default for Options {
    /// HTTP on a free port.
    fn default() -> Self {
        Self { address: ([127, 0, 0, 1], 0).into(), security: Security::None, unnumbered: false }
    }
}

/// The head of a request.
#[derive(Debug, Clone)]
pub struct Head {
    /// How many heads came before, over all connections.
    pub number: usize,
    /// Which connection it came over, from 1.
    pub connection: usize,
    /// The request's path.
    pub path: String,
    /// The names and values of its headers.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// The size of the body.
    pub fn length(&self) -> usize {
        self.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}

type Plan = dyn FnMut(&Head) -> Behaviour + Send;

struct Shared {
    log: Arc<Log>,
    plan: Mutex<Box<Plan>>,
    requests: AtomicUsize,
    closed: AtomicUsize,
    stop: AtomicBool,
    unnumbered: bool,
    /// What ends the threads of connections.
    open: Mutex<BTreeMap<usize, TcpStream>>,
}

/// A receiver on loopback; ends, with all of its connections, when it is dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    security: Security,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port. `plan` says what happens to each request.
    pub fn start(plan: impl FnMut(&Head) -> Behaviour + Send + 'static) -> Self {
        Self::with(Options::default(), plan).expect("a free port")
    }

    /// Listens as `options` say.
    ///
    /// # Errors
    ///
    /// The address cannot be had.
    pub fn with(options: Options, plan: impl FnMut(&Head) -> Behaviour + Send + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind(options.address)?;
        let shared = Arc::new(Shared {
            log: Arc::default(),
            plan: Mutex::new(Box::new(plan)),
            requests: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            unnumbered: options.unnumbered,
            open: Mutex::default(),
        });
        let address = listener.local_addr()?;
        let (security, of_thread) = (options.security, Arc::clone(&shared));
        let first = security.clone();
        let thread = std::thread::spawn(move || accept(&listener, &of_thread, &first));
        Ok(Self { address, shared, security, thread: Some(thread) })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL. The name of a host with TLS is `localhost`.
    pub fn url(&self) -> String {
        match self.security {
            Security::None => format!("http://{}", self.address),
            Security::Tls(_) | Security::HangUp => format!("https://localhost:{}", self.address.port()),
        }
    }

    /// What arrived.
    pub fn log(&self) -> &Log {
        &self.shared.log
    }

    /// How many connections it has closed its side of after an answer.
    pub fn closed(&self) -> usize {
        self.shared.closed.load(Ordering::SeqCst)
    }

    /// What arrived, for after the receiver's end.
    pub fn keep_log(&self) -> Arc<Log> {
        Arc::clone(&self.shared.log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, security: &Security) {
    let mut threads = Vec::new();
    for (stream, connection) in listener.incoming().zip(1..) {
        let Ok(stream) = stream else { break };
        if shared.stop.load(Ordering::SeqCst) {
            break;
        }
        let handle = stream.try_clone().expect("a descriptor");
        shared.open.lock().expect("not poisoned").insert(connection, handle);
        let (shared, security) = (Arc::clone(shared), security.clone());
        threads.retain(|thread: &JoinHandle<()>| !thread.is_finished());
        threads.push(std::thread::spawn(move || {
            let end = serve(&stream, connection, &shared, &security).unwrap_or(End::Close);
            // A reset needs that this is the last descriptor.
            shared.open.lock().expect("not poisoned").remove(&connection);
            if end == End::Reset {
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("an option");
            }
        }));
    }
    for stream in shared.open.lock().expect("not poisoned").values() {
        let _ = stream.shutdown(Shutdown::Both);
    }
    threads.into_iter().for_each(|thread| drop(thread.join()));
}

/// Serves a connection until its end.
fn serve(stream: &TcpStream, connection: usize, shared: &Shared, security: &Security) -> io::Result<End> {
    stream.set_nodelay(true)?;
    match security {
        Security::None => requests(BufReader::new(Socket(stream)), connection, shared),
        Security::HangUp => stream.peek(&mut [0]).map(|_| End::Close),
        Security::Tls(config) => {
            let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            requests(BufReader::new(StreamOwned::new(session, Socket(stream))), connection, shared)
        }
    }
}

/// `&TcpStream` reads and writes, but rustls asks for `&mut`.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A stream whose writing side can end alone.
trait Channel: Read + Write {
    fn end_writing(&mut self);
}

impl Channel for Socket<'_> {
    fn end_writing(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

impl Channel for StreamOwned<ServerConnection, Socket<'_>> {
    fn end_writing(&mut self) {
        self.conn.send_close_notify();
        let _ = self.flush();
        self.sock.end_writing();
    }
}

fn requests(mut stream: BufReader<impl Channel>, connection: usize, shared: &Shared) -> io::Result<End> {
    loop {
        let Some(mut head) = read_head(&mut stream)? else { return Ok(End::Close) };
        head.number = shared.requests.fetch_add(1, Ordering::SeqCst);
        head.connection = connection;
        let behaviour = (shared.plan.lock().expect("not poisoned"))(&head);
        let mut body = vec![0; if behaviour.reads { head.length() } else { 0 }];
        let read = stream.read_exact(&mut body);
        let gzipped = head.header("content-encoding") == Some("gzip");
        let signal = signal_of(&head.path);
        let items = match signal {
            Some(signal) if behaviour.reads && read.is_ok() && !shared.unnumbered => {
                items(signal, gzipped, &body)
            }
            _ => Ok(Vec::new()),
        };
        let valid = signal.is_some() && items.is_ok();
        let invalid = items.as_ref().map_or_else(ToString::to_string, |_| head.path.clone());
        shared.log.push(Received {
            connection,
            path: head.path,
            headers: head.headers,
            bytes: body.len(),
            items: items.unwrap_or_default(),
            taken: behaviour.takes && behaviour.reads && valid && read.is_ok(),
            at: Instant::now(),
        });
        read?;
        let behaviour = if behaviour.takes && !valid {
            Behaviour::answer(400, &["Content-Type: text/plain"], invalid.as_bytes()).then(behaviour.end)
        } else {
            behaviour
        };
        behaviour.write(stream.get_mut())?;
        match behaviour.end {
            End::Keep if behaviour.reads => continue,
            // The rest of the request would be taken for the next one.
            End::Keep | End::Close => {
                stream.get_mut().end_writing();
                shared.closed.fetch_add(1, Ordering::SeqCst);
                Behaviour::drain(&mut stream);
            }
            End::Stall => Behaviour::drain(&mut stream),
            End::Reset => {}
        }
        return Ok(behaviour.end);
    }
}

/// The head of the next request; `None` at the end of the connection.
fn read_head(stream: &mut BufReader<impl Channel>) -> io::Result<Option<Head>> {
    // What begins otherwise, such as a handshake of TLS, may have no lines.
    let is_text = stream.fill_buf()?.first().is_none_or(u8::is_ascii_alphabetic);
    let Some(lines) = (if is_text { read_lines(stream)? } else { Some(Vec::new()) }) else { return Ok(None) };
    let start: Vec<&str> = lines.first().map(|line| line.split(' ').collect()).unwrap_or_default();
    let ["POST", path, "HTTP/1.1"] = start[..] else {
        stream.get_mut().write_all(&super::answers::http(400, &[], b"not a POST of HTTP/1.1"))?;
        stream.get_mut().end_writing();
        Behaviour::drain(stream);
        return Ok(None);
    };
    let headers = lines.iter().skip(1).filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(Some(Head { number: 0, connection: 0, path: path.to_owned(), headers }))
}

/// Lines up to an empty one; `None` where the connection ends before.
fn read_lines(stream: &mut BufReader<impl Channel>) -> io::Result<Option<Vec<String>>> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if stream.take(64 << 10).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        match String::from_utf8_lossy(&line).trim_end() {
            "" => return Ok(Some(lines)),
            line => lines.push(line.to_owned()),
        }
    }
}

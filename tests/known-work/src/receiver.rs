//! An OTLP/HTTP receiver on loopback that takes everything.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use flate2::read::GzDecoder;
use prost::Message;

use crate::received::Received;

const METRICS: &str = "/v1/metrics";

/// A request's path and body as they came, mostly compressed: a board has no room for all of it decoded while it works.
type Request = (String, Body);

enum Body {
    Plain(Vec<u8>),
    Gzip(Vec<u8>),
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Request>>,
    grown: Condvar,
}

/// It listens until the process ends.
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Receiver {
    /// Listens on a free port.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared: Arc<Shared> = Arc::default();
        let for_connections = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&for_connections);
                std::thread::spawn(move || {
                    if let Err(error) = take(&stream, &shared) {
                        eprintln!("receiver: {error}");
                    }
                });
            }
        });
        Ok(Self { address, shared })
    }

    /// What to give as `--endpoint`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until metrics have arrived; whether they have.
    pub fn wait_for_metrics(&self, limit: Duration) -> bool {
        let requests = self.shared.requests.lock().expect("not poisoned");
        let none = |requests: &mut Vec<Request>| requests.iter().all(|(path, _)| path != METRICS);
        !self.shared.grown.wait_timeout_while(requests, limit, none).expect("not poisoned").1.timed_out()
    }

    /// Everything until now, of which nothing is kept.
    ///
    /// # Errors
    ///
    /// It is not OTLP.
    pub fn take(&self) -> io::Result<Received> {
        let mut received = Received::default();
        for (path, body) in std::mem::take(&mut *self.shared.requests.lock().expect("not poisoned")) {
            let body = body.unpack()?;
            match path.as_str() {
                METRICS => received.metrics.push(Message::decode(body.as_slice())?),
                "/v1/traces" => received.traces.push(Message::decode(body.as_slice())?),
                "/v1/logs" => received.logs.push(Message::decode(body.as_slice())?),
                "/v1development/profiles" => received.profiles.push(Message::decode(body.as_slice())?),
                other => return Err(io::Error::other(format!("no signal has the path {other}"))),
            }
        }
        Ok(received)
    }
}

impl Body {
    fn unpack(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(body) => Ok(body),
            Self::Gzip(packed) => {
                let mut body = Vec::new();
                GzDecoder::new(packed.as_slice()).read_to_end(&mut body)?;
                Ok(body)
            }
        }
    }
}

/// Takes requests until the connection ends.
fn take(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = request(&mut reader)? {
        shared.requests.lock().expect("not poisoned").push(request);
        shared.grown.notify_all();
        let mut writer = stream;
        writer.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n",
        )?;
    }
    Ok(())
}

/// The next request; `None` at the end of the connection.
fn request(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Request>> {
    let (mut path, mut length, mut is_gzip) = (None, 0, false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("post ") {
            path = rest.split(' ').next().map(str::to_owned);
        } else if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().map_err(io::Error::other)?;
        } else if let Some(value) = line.strip_prefix("content-encoding: ") {
            is_gzip = value == "gzip";
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = Vec::new();
    if reader.take(length).read_to_end(&mut body)? as u64 != length {
        // The agent gives up what takes too long, and sends it again.
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let body = if is_gzip { Body::Gzip(body) } else { Body::Plain(body) };
    Ok(Some((path.ok_or_else(|| io::Error::other("no POST"))?, body)))
}

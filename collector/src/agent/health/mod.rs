//! An optional local port: `/healthz`, `/readyz` and `/metrics`.
//!
//! [`Connection`] takes bytes and gives bytes, and knows no socket; [`Server`] carries them, in the agent's own event loop. A
//! client gets one answer and is gone. It can send [`MAX_REQUEST`] bytes and has a few seconds; there are few connections at a
//! time, and one more than that is refused.

mod server;

use bytes::Bytes;

use crate::convert::prometheus::CONTENT_TYPE;

pub use server::Server;

/// Most bytes of a request.
pub const MAX_REQUEST: usize = 4096;
/// Most header lines.
const MAX_HEADERS: usize = 64;
/// Longest path: none of ours is near.
const MAX_PATH: usize = 256;

/// Finds a page: whether all is well, and its text, of which there is one however many read it.
pub type Pages<'p> = dyn Fn(&str) -> Option<(bool, Bytes)> + 'p;

/// What to do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait for more of the request.
    Read,
    /// Send what is in [`Connection::output`].
    Write,
    /// It is over.
    Close,
}

/// One request and its answer.
#[derive(Debug, Default)]
pub struct Connection {
    input: Vec<u8>,
    head: Vec<u8>,
    body: Bytes,
    /// Of both.
    written: usize,
}

impl Connection {
    /// Takes bytes of the request. Once it is whole, or will never be right, there is an answer.
    pub fn receive(&mut self, bytes: &[u8], pages: &Pages<'_>) -> Next {
        if !self.head.is_empty() {
            // Whatever comes after the request is none of ours.
            return Next::Write;
        }
        let room = MAX_REQUEST.saturating_sub(self.input.len());
        self.input.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        (self.head, self.body) = match parse(&self.input) {
            Parsed::Incomplete if bytes.len() > room || self.input.len() >= MAX_REQUEST => {
                plain(431, "Request Header Fields Too Large", "", false)
            }
            Parsed::Incomplete => return Next::Read,
            Parsed::Bad => plain(400, "Bad Request", "", false),
            Parsed::Request { method: Method::Other, .. } => {
                plain(405, "Method Not Allowed", "Allow: GET, HEAD\r\n", false)
            }
            Parsed::Request { method, path } => {
                let head_only = method == Method::Head;
                match pages(&path) {
                    None => plain(404, "Not Found", "", head_only),
                    Some((well, body)) => {
                        let (code, reason) = if well { (200, "OK") } else { (503, "Service Unavailable") };
                        answer(code, reason, "", body, head_only)
                    }
                }
            }
        };
        self.input = Vec::new();
        Next::Write
    }

    /// What is to be sent next; nothing once all was.
    pub fn output(&self) -> &[u8] {
        match self.head.get(self.written..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => self.body.get(self.written.saturating_sub(self.head.len())..).unwrap_or_default(),
        }
    }

    /// So many bytes of it were sent.
    pub fn sent(&mut self, bytes: usize) -> Next {
        self.written = self.written.saturating_add(bytes).min(self.head.len() + self.body.len());
        if self.output().is_empty() { Next::Close } else { Next::Write }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Head,
    Other,
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Incomplete,
    Bad,
    Request { method: Method, path: String },
}

/// The request line; headers say nothing that matters here. The query is no part of the path.
fn parse(input: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(input) {
        Err(_) => Parsed::Bad,
        Ok(httparse::Status::Partial) => Parsed::Incomplete,
        Ok(httparse::Status::Complete(_)) => {
            let method = match request.method {
                Some("GET") => Method::Get,
                Some("HEAD") => Method::Head,
                _ => Method::Other,
            };
            let path = request.path.unwrap_or_default();
            let path = path.split('?').next().unwrap_or_default();
            if path.len() > MAX_PATH {
                Parsed::Bad
            } else {
                Parsed::Request { method, path: path.to_owned() }
            }
        }
    }
}

fn plain(code: u16, reason: &str, headers: &str, head_only: bool) -> (Vec<u8>, Bytes) {
    answer(code, reason, headers, format!("{}\n", reason.to_ascii_lowercase()).into(), head_only)
}

fn answer(code: u16, reason: &str, headers: &str, body: Bytes, head_only: bool) -> (Vec<u8>, Bytes) {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {code} {reason}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\n{headers}\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    );
    (head.into_bytes(), if head_only { Bytes::new() } else { body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(path: &str) -> Option<(bool, Bytes)> {
        match path {
            "/healthz" => Some((true, "ok\n".into())),
            "/readyz" => Some((false, "tcp: no\n".into())),
            _ => None,
        }
    }

    fn ask(request: &[u8]) -> String {
        let mut connection = Connection::default();
        assert_eq!(connection.receive(request, &pages), Next::Write, "{request:?}");
        let mut all = Vec::new();
        loop {
            all.extend_from_slice(connection.output());
            if connection.sent(connection.output().len()) == Next::Close {
                return String::from_utf8(all).unwrap();
            }
        }
    }

    #[test]
    fn pages_are_answered() {
        let all = ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(all.starts_with("HTTP/1.1 200 OK\r\n") && all.ends_with("\r\n\r\nok\n"), "{all}");
        assert!(all.contains("Content-Length: 3\r\n"));
        assert!(ask(b"GET /readyz?verbose HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 503 "));
        let head = ask(b"HEAD /healthz HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 3\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn what_is_wrong_has_its_code() {
        for (request, code) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
            (b"POST /healthz HTTP/1.1\r\n\r\n", "405"),
            (b"\x16\x03\x01\x02\x00\x01\x00", "400"),
            (b"GET /healthz HTTP/3.7\r\n\r\n", "400"),
            (b"GET  /healthz\r\n\r\n", "400"),
        ] {
            assert!(ask(request).starts_with(&format!("HTTP/1.1 {code} ")), "{request:?}");
        }
        let long = [b"GET /".as_slice(), &vec![b'a'; 9000]].concat();
        assert!(ask(&long).starts_with("HTTP/1.1 431 "));
        let path = [b"GET /".as_slice(), &vec![b'a'; 1000], b" HTTP/1.1\r\n\r\n"].concat();
        assert!(ask(&path).starts_with("HTTP/1.1 400 "));
        let headers =
            [b"GET / HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(MAX_HEADERS + 1), b"\r\n"].concat();
        assert!(ask(&headers).starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn a_request_may_come_byte_by_byte_and_an_answer_go_so() {
        let mut connection = Connection::default();
        let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        let (last, first) = request.split_last().unwrap();
        for byte in first {
            assert_eq!(connection.receive(&[*byte], &pages), Next::Read);
        }
        assert_eq!(connection.receive(&[*last], &pages), Next::Write);
        assert_eq!(connection.receive(b"GET / HTTP/1.1\r\n\r\n", &pages), Next::Write, "one answer");
        let length = connection.head.len() + connection.body.len();
        assert_eq!(connection.body, "ok\n");
        for _ in 1..length {
            assert_eq!(connection.sent(1), Next::Write);
        }
        assert_eq!(connection.sent(usize::MAX), Next::Close);
    }

    #[test]
    fn a_request_without_an_end_is_bounded() {
        let mut connection = Connection::default();
        assert_eq!(connection.receive(b"GET /healthz HTTP/1.1\r\n", &pages), Next::Read);
        let mut next = Next::Read;
        for _ in 0..MAX_REQUEST {
            next = connection.receive(b"a: b\r\n", &pages);
            assert!(connection.input.len() <= MAX_REQUEST);
        }
        assert_eq!(next, Next::Write);
        assert!(connection.output().starts_with(b"HTTP/1.1 4"));
    }
}

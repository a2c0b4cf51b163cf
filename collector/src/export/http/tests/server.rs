//! A server that answers as told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver, Sender};

/// What the server does with one request.
pub enum Answer {
    /// Writes these bytes and keeps the connection.
    Keep(Vec<u8>),
    /// Writes these bytes and closes.
    Close(Vec<u8>),
    /// Writes these bytes and then nothing more until the client goes.
    Stall(Vec<u8>),
    /// Closes without having read the request.
    Refuse(Vec<u8>),
}

/// A request as the server saw it.
pub struct Seen {
    pub connection: usize,
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Answers one request after the other, over as many connections as the client makes.
pub fn serve(answers: Vec<Answer>) -> (String, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (url, serve_on(move || listener.accept().ok().map(|(stream, _)| stream), answers))
}

/// The same over connections that `accept` makes; none is one that failed.
pub fn serve_on<S: Read + Write>(
    mut accept: impl FnMut() -> Option<S> + Send + 'static,
    answers: Vec<Answer>,
) -> Receiver<Seen> {
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        let mut answers = answers.into_iter();
        let mut connection = 0;
        while answers.len() > 0 {
            connection += 1;
            let Some(stream) = accept() else { continue };
            let mut stream = BufReader::new(stream);
            while serve_one(&mut stream, &mut answers, connection, &sender) {}
        }
    });
    requests
}

/// Serves one request; whether there may be another on this connection.
fn serve_one<S: Read + Write>(
    stream: &mut BufReader<S>,
    answers: &mut std::vec::IntoIter<Answer>,
    connection: usize,
    sender: &Sender<Seen>,
) -> bool {
    if let Some(Answer::Refuse(_)) = answers.as_slice().first() {
        let Some(Answer::Refuse(bytes)) = answers.next() else { return false };
        stream.get_mut().write_all(&bytes).unwrap();
        stream.get_mut().flush().unwrap();
        // A close with unread bytes is a reset, which may overtake the answer: wait for the client.
        let _ = std::io::copy(stream, &mut std::io::sink());
        return false;
    }
    let Some((head, body)) = read_request(stream) else { return false };
    let _ = sender.send(Seen { connection, head, body });
    // The client may stop reading, and close, before the end of a large answer.
    let mut write = |bytes: &[u8]| {
        let stream = stream.get_mut();
        stream.write_all(bytes).and_then(|()| stream.flush()).is_ok()
    };
    match answers.next() {
        Some(Answer::Keep(bytes)) => write(&bytes),
        Some(Answer::Close(bytes)) => {
            write(&bytes);
            false
        }
        Some(Answer::Stall(bytes)) => {
            write(&bytes);
            let _ = stream.read(&mut [0]);
            false
        }
        Some(Answer::Refuse(_)) | None => false,
    }
}

fn read_request(stream: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

pub fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub fn accepted() -> Answer {
    Answer::Keep(answer("200 OK", PROTOBUF, b""))
}

pub const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";

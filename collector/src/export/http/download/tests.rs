use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::*;

/// A server of files: what it says to whoever asks for a path. It ends with the test.
pub(crate) struct Server {
    pub url: String,
    address: SocketAddr,
    /// Heads of requests.
    pub seen: Arc<Mutex<Vec<String>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A connection, of which what is written after the client or the test has gone fails.
pub(crate) struct Client {
    stream: TcpStream,
    stopped: Arc<AtomicBool>,
}

impl Client {
    /// Writes; false once there is nobody to write to.
    pub fn say(&mut self, bytes: &[u8]) -> bool {
        !self.stopped.load(Ordering::SeqCst) && self.stream.write_all(bytes).is_ok()
    }
}

impl Server {
    pub fn new(answer: impl Fn(&str, &mut Client) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, stopped) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (heads, stop, answer) = (Arc::clone(&seen), Arc::clone(&stopped), Arc::new(answer));
        let thread = std::thread::spawn(move || {
            let mut clients = Vec::new();
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (heads, answer) = (Arc::clone(&heads), Arc::clone(&answer));
                let mut client = Client { stream: stream.unwrap(), stopped: Arc::clone(&stop) };
                clients.push(std::thread::spawn(move || {
                    let mut head = String::new();
                    let mut reader = BufReader::new(&client.stream);
                    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
                    drop(reader);
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    heads.lock().unwrap().push(head);
                    answer(&path, &mut client);
                }));
            }
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        Self { url: format!("http://{address}"), address, seen, stopped, thread: Some(thread) }
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// An answer that says how long it is.
pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn limits() -> Limits {
    let end = Instant::now() + Duration::from_secs(30);
    Limits { timeout: Duration::from_secs(20), end, bytes: 1 << 20 }
}

fn no_proxy(_: &str) -> Option<String> {
    None
}

fn get(url: &str, limits: Limits) -> Result<Vec<u8>> {
    let mut came = Vec::new();
    let mut keep = |bytes: &[u8]| {
        came.extend_from_slice(bytes);
        Ok(())
    };
    let count = download(&Endpoint::parse(url).unwrap(), &no_proxy, limits, &mut keep)?;
    assert_eq!(count, came.len() as u64);
    Ok(came)
}

/// Of a server that says this to everybody.
fn get_of(answer: &'static [u8], limits: Limits) -> Result<Vec<u8>> {
    let server = Server::new(move |_, client| {
        client.say(answer);
    });
    get(&format!("{}/base/x?k=v", server.url), limits)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn files_come_in_every_frame() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: v\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-DEBUGINFOD-SIZE: 5\r\n\r\nhello",
    ] {
        assert_eq!(get_of(answer, limits()).unwrap(), b"hello");
    }
    let body = vec![7; 300_000];
    let packed = gzip(&body);
    let server = Server::new(move |_, client| {
        let head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nX-DEBUGINFOD-SIZE: 300000\r\n\r\n";
        client.say(&[head.as_bytes(), &packed].concat());
    });
    assert_eq!(get(&server.url, limits()).unwrap(), body);
    let seen = server.seen.lock().unwrap();
    assert!(seen[0].starts_with("GET / HTTP/1.1\r\nHost: 127.0.0.1:"), "{}", seen[0]);
    assert!(seen[0].contains("\r\nConnection: close\r\n"), "{}", seen[0]);
}

#[test]
fn what_is_cut_or_broken_is_no_file() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX-DEBUGINFOD-SIZE: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nhello",
    ] {
        let error = get_of(answer, limits()).unwrap_err();
        assert!(matches!(*error, DownloadError::Broken(_)), "{error}");
    }
    let error = get_of(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\nx", limits()).unwrap_err();
    assert!(matches!(*error, DownloadError::Encoding), "{error}");
    let error = get_of(b"SSH-2.0-x\r\n", limits()).unwrap_err();
    assert!(matches!(*error, DownloadError::Failure(_)) && error.is_of_server(), "{error}");
    let error = get_of(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", limits()).unwrap_err();
    assert!(matches!(*error, DownloadError::Status(404)) && !error.is_of_server(), "{error}");
}

#[test]
fn files_end_at_the_limit() {
    let told: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n";
    let told_so: &[u8] =
        b"HTTP/1.1 200 OK\r\nX-DEBUGINFOD-SIZE: 1048577\r\nTransfer-Encoding: chunked\r\n\r\n";
    for answer in [told, told_so] {
        let error = get_of(answer, limits()).unwrap_err();
        assert!(matches!(*error, DownloadError::TooLarge { limit: 1_048_576 }), "{error}");
    }
    // Without an end, and as a bomb.
    let bomb = gzip(&vec![0; 64 << 20]);
    let packed = [&b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"[..], &bomb].concat();
    let server = Server::new(move |path, client| match path {
        "/endless" => {
            client.say(b"HTTP/1.1 200 OK\r\n\r\n");
            while client.say(&[1; 4096]) {}
        }
        "/chunks" => {
            client.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while client.say(&[&b"1000\r\n"[..], &[1; 4096], b"\r\n"].concat()) {}
        }
        // Chunks of a byte, of which the rest of the line is the most.
        "/framing" => {
            client.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let line = format!("1;{}\r\nx\r\n", "y".repeat(4000));
            while client.say(line.as_bytes()) {}
        }
        _ => {
            client.say(&packed);
        }
    });
    for path in ["endless", "chunks", "framing", "bomb"] {
        let error = get(&format!("{}/{path}", server.url), limits()).unwrap_err();
        let is_cut = matches!(*error, DownloadError::TooLarge { .. } | DownloadError::Broken(_));
        assert!(is_cut, "{path}: {error}");
    }
}

#[test]
fn slow_servers_end_in_time() {
    let server = Server::new(|path, client| {
        if path == "/silent" {
            while client.say(b"") {
                std::thread::sleep(Duration::from_millis(10));
            }
            return;
        }
        client.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        // As slow as is allowed, or a bit faster.
        let piece = vec![1; if path == "/drip" { 1 } else { 60_000 }];
        while client.say(&piece) {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let started = Instant::now();
    for path in ["silent", "drip"] {
        let limits = Limits { timeout: Duration::from_millis(300), ..limits() };
        let error = get(&format!("{}/{path}", server.url), limits).unwrap_err();
        assert!(matches!(*error, DownloadError::TooSlow) && error.is_of_server(), "{path}: {error}");
    }
    let end = Instant::now() + Duration::from_millis(100);
    let error = get(&format!("{}/steady", server.url), Limits { end, ..limits() }).unwrap_err();
    assert!(matches!(*error, DownloadError::TooSlow), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    let limits = Limits { timeout: Duration::from_secs(1), ..limits() };
    let length = get(&format!("{}/steady", server.url), limits).unwrap().len();
    assert_eq!(length, 1_000_000);
}

#[test]
fn servers_send_elsewhere_a_few_times() {
    let server = Server::new(|path, client| {
        let to = match path {
            "/loop" => "/loop",
            "/there" => "http://127.0.0.1:1/",
            "/socket" => "unix:///run/x.sock",
            "/file" => "file:///etc/passwd",
            "/header" => "/x\u{e9}",
            "/nowhere" => "",
            "/relative" => "x",
            "/a" => "/b?c=d#e",
            _ => {
                client.say(&ok(path.as_bytes()));
                return;
            }
        };
        client.say(format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").as_bytes());
    });
    let get = |path: &str| get(&format!("{}{path}", server.url), limits());
    assert_eq!(get("/a").unwrap(), b"/b?c=d");
    let before = server.requests();
    assert!(matches!(*get("/loop").unwrap_err(), DownloadError::Redirect("too often")));
    assert_eq!(server.requests() - before, 1 + MAX_REDIRECTS as usize);
    assert!(matches!(*get("/there").unwrap_err(), DownloadError::Failure(_)));
    for path in ["/socket", "/file", "/header", "/nowhere", "/relative"] {
        assert!(matches!(*get(path).unwrap_err(), DownloadError::Redirect(_)), "{path}");
    }
    let from = |url: &str, to: &str| redirected(&Endpoint::parse(url).unwrap(), to).map(|to| to.to_string());
    assert_eq!(from("http://a/x", "//b/y"), Ok("http://b/y".to_owned()));
    if cfg!(feature = "tls") {
        assert_eq!(from("http://a/x", "https://a/y"), Ok("https://a/y".to_owned()));
        assert_eq!(from("https://a/x", "http://a/y"), Err("from https:// to http://"));
    }
}

#[test]
fn what_is_not_kept_ends_it() {
    let server = Server::new(|_, client| {
        client.say(b"HTTP/1.1 200 OK\r\n\r\n");
        while client.say(&[1; 4096]) {}
    });
    let mut keep = |_: &[u8]| Err(ErrorKind::StorageFull.into());
    let url = Endpoint::parse(&server.url).unwrap();
    let error = download(&url, &no_proxy, limits(), &mut keep).unwrap_err();
    assert!(matches!(*error, DownloadError::Keep(_)) && !error.is_of_server(), "{error}");
}

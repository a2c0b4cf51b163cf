//! A process that does with TCP what it is told, and a network namespace to do it in.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

const IS_NODE: &str = "EBPF_OTLP_TEST_TCP_NODE";
const IS_WORKER: &str = "EBPF_OTLP_TEST_TCP_WORKER";

/// Runs `body` in a thread with a network namespace of its own, in which there is a loopback device.
pub fn in_namespace(body: impl FnOnce() + Send) {
    let done = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            #[expect(deprecated, reason = "the thread shares nothing that this takes from it")]
            let unshared = rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET);
            if let Err(error) = unshared {
                crate::skip::<()>(&format!("needs root: {error}"));
                return;
            }
            let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
            assert!(up.success());
            body();
        });
        thread.join()
    });
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

/// A process that waits for commands.
pub struct Node {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Node {
    /// In the network namespace of the calling thread.
    pub fn new() -> Self {
        let mut child =
            this_test().env(IS_NODE, "yes").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { input: child.stdin.take(), output, child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it answers.
    pub fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    /// Does not wait for the answer.
    pub fn tell(&mut self, command: &str) {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
    }

    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            // Between what the test harness says.
            if let Some((_, answer)) = line.split_once('@') {
                return answer.trim_end().to_owned();
            }
            line.clear();
        }
        panic!("the node is gone");
    }

    /// That all is well.
    pub fn does(&mut self, command: &str) {
        assert_eq!(self.ask(command), "0", "{command}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

fn this_test() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tcp::node::node", "--ignored", "--nocapture", "--quiet"]);
    command
}

fn errno(result: std::io::Result<()>) -> i32 {
    result.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}

/// What a node has.
#[derive(Default)]
struct State {
    listener: Option<TcpListener>,
    streams: Vec<TcpStream>,
    workers: Vec<Child>,
}

impl State {
    fn obey(&mut self, line: &str) -> i64 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<usize>().unwrap();
        let address = |at: usize| words[at].parse::<SocketAddr>().unwrap();
        match words[0] {
            // listen ADDRESS BACKLOG: the port
            "listen" => {
                let family = if address(1).is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let socket = rustix::net::socket(family, SocketType::STREAM, None).unwrap();
                rustix::net::bind(&socket, &address(1)).unwrap();
                rustix::net::listen(&socket, number(2) as i32).unwrap();
                let listener = TcpListener::from(socket);
                let port = listener.local_addr().unwrap().port();
                self.listener = Some(listener);
                return port.into();
            }
            "accept" => self.streams.push(self.listener.as_ref().unwrap().accept().unwrap().0),
            "connect" => match TcpStream::connect(address(1)) {
                Ok(stream) => self.streams.push(stream),
                Err(error) => return errno(Err(error)).into(),
            },
            // connect-start ADDRESS: EINPROGRESS, and the rest later
            "connect-start" => {
                let family = if address(1).is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let socket =
                    rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK, None)
                        .unwrap();
                let started = rustix::net::connect(&socket, &address(1));
                self.streams.push(TcpStream::from(socket));
                return started.err().map_or(0, rustix::io::Errno::raw_os_error).into();
            }
            // connect-end: what SO_ERROR says
            "connect-end" => {
                let stream = self.streams.last().unwrap();
                let mut fds = [rustix::event::PollFd::new(stream, rustix::event::PollFlags::OUT)];
                rustix::event::poll(&mut fds, None).unwrap();
                return errno(stream.take_error().unwrap().map_or(Ok(()), Err)).into();
            }
            "send" => {
                let sent = self.streams.last_mut().unwrap().write_all(&vec![7; number(1)]);
                return errno(sent).into();
            }
            "receive" => {
                let received = self.streams.last_mut().unwrap().read_exact(&mut vec![0; number(1)]);
                return errno(received).into();
            }
            "close" => drop(self.streams.pop().unwrap()),
            // idle NUMBER: sockets that do nothing
            "idle" => {
                let new = || rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
                self.streams.extend((0..number(1)).map(|_| TcpStream::from(new())));
            }
            "reset" => {
                let stream = self.streams.pop().unwrap();
                sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            }
            // storm NUMBER ADDRESS: connections, one after the other
            "storm" => {
                for _ in 0..number(1) {
                    let mut stream = TcpStream::connect(address(2)).unwrap();
                    stream.write_all(b"x").unwrap();
                    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
                }
            }
            // serve NUMBER
            "serve" => {
                for _ in 0..number(1) {
                    let (mut stream, _) = self.listener.as_ref().unwrap().accept().unwrap();
                    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
                    stream.write_all(b"y").unwrap();
                    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
                }
            }
            // worker RECEIVE SEND: a process that accepts one connection
            "worker" => {
                let listener = self.listener.as_ref().unwrap().as_fd().try_clone_to_owned().unwrap();
                let what = format!("{} {}", words[1], words[2]);
                let mut worker = this_test();
                worker.env_remove(IS_NODE).env(IS_WORKER, what).stdin(listener).stdout(Stdio::null());
                self.workers.push(worker.spawn().unwrap());
                return self.workers.last().unwrap().id().into();
            }
            other => panic!("{other}?"),
        }
        0
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

/// No test, but the process that tests start.
#[test]
#[ignore = "started by tests"]
fn node() {
    if let Ok(what) = std::env::var(IS_WORKER) {
        let (receive, send) = what.split_once(' ').unwrap();
        let listener: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
        let (mut stream, _) = TcpListener::from(listener).accept().unwrap();
        stream.read_exact(&mut vec![0; receive.parse().unwrap()]).unwrap();
        stream.write_all(&vec![7; send.parse().unwrap()]).unwrap();
        return;
    }
    if std::env::var_os(IS_NODE).is_none() {
        return;
    }
    let mut state = State::default();
    for line in std::io::stdin().lines() {
        println!("@{}", state.obey(&line.unwrap()));
    }
}

//! Receivers that others wrote, or whose decoding others wrote, as processes on loopback.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The Python that has what `conformance/requirements.txt` lists.
pub fn python() -> OsString {
    std::env::var_os("CONFORMANCE_PYTHON").unwrap_or_else(|| "python3".into())
}

/// A fresh folder that goes with what is in it.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// A folder of this process with this name.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ebpf-otlp-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).expect("a fresh folder");
        Self(path)
    }

    /// The path of `name` in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `conformance/receiver.py`, waiting for a number of requests.
#[derive(Debug)]
pub struct Bindings {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Where it takes OTLP/HTTP.
    pub http_port: u16,
    /// Where it takes OTLP/gRPC.
    pub grpc_port: u16,
}

impl Bindings {
    /// `None`, with the reason printed, where its Python modules are missing. `options` say what to write. Of 0 requests, it
    /// takes whatever comes until [`finish`](Self::finish).
    pub fn start(requests: usize, options: &[(&str, &Path)]) -> Option<Self> {
        let python = python();
        let imports =
            "import grpc, opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2";
        let installed = Command::new(&python).args(["-c", imports]).stderr(Stdio::null()).status();
        if !installed.is_ok_and(|status| status.success()) {
            println!("skipped: {python:?} has not what conformance/requirements.txt lists");
            return None;
        }
        let mut command = Command::new(python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/receiver.py"));
        command.args(["--requests", &requests.to_string(), "--timeout", "60"]);
        for (option, path) in options {
            command.arg(option).arg(path);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut port = |protocol: &str| {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line");
            line.trim().strip_prefix(protocol).and_then(|port| port.parse().ok()).expect("a port")
        };
        let (http_port, grpc_port) = (port("http "), port("grpc "));
        Some(Self { child, stdout, http_port, grpc_port })
    }

    /// Waits for its end: the summary, and whether it was content.
    pub fn finish(mut self) -> (String, bool) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("text");
        (rest.lines().last().unwrap_or_default().to_owned(), self.child.wait().expect("its end").success())
    }
}

/// rotel, an agent in Rust, printing all that it takes.
#[derive(Debug)]
pub struct Rotel {
    child: Child,
    directory: TempDir,
    /// Where it takes OTLP/HTTP.
    pub http_port: u16,
    /// Where it takes OTLP/gRPC.
    pub grpc_port: u16,
}

impl Rotel {
    /// `None`, with the reason printed, where it is not installed.
    pub fn start(name: &str) -> Option<Self> {
        let find = "import os, rotel; print(os.path.join(os.path.dirname(rotel.__file__), 'rotel-agent'))";
        let found = Command::new(python()).args(["-c", find]).output();
        let found = found.ok().filter(|output| output.status.success());
        let Some(agent) = found.and_then(|output| String::from_utf8(output.stdout).ok()) else {
            println!(
                "skipped: {:?} has no rotel (conformance/requirements.txt; Python 3.11 alone)",
                python()
            );
            return None;
        };
        let agent = agent.trim();
        // It needs a shared library of Python's.
        if !Command::new(agent).arg("--version").output().is_ok_and(|output| output.status.success()) {
            println!("skipped: {agent} does not run (Debian: libpython3.11)");
            return None;
        }
        let directory = TempDir::new(name);
        let (http_port, grpc_port) = (free_port(), free_port());
        let output = File::create(directory.join("output")).expect("a file");
        let mut command = Command::new(agent);
        command.arg("start");
        for (option, port) in [("--otlp-http-endpoint", http_port), ("--otlp-grpc-endpoint", grpc_port)] {
            command.arg(option).arg(format!("127.0.0.1:{port}"));
        }
        for signal in ["metrics", "traces", "logs"] {
            command.args(["--debug-log", signal]);
        }
        command.args(["--debug-log-verbosity", "detailed", "--exporter", "blackhole", "--pid-file"]);
        command.arg(directory.join("pid")).env("NO_COLOR", "1");
        command.stderr(output.try_clone().expect("a descriptor")).stdout(output);
        let child = command.spawn().expect("it runs");
        let rotel = Self { child, directory, http_port, grpc_port };
        for port in [http_port, grpc_port] {
            let limit = Instant::now() + Duration::from_secs(30);
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                assert!(Instant::now() < limit, "rotel does not listen: {}", rotel.output());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Some(rotel)
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory.join("output")).expect("a file")).into_owned()
    }

    /// What it printed, once that is `enough`, or 10 s have passed.
    pub fn output_until(&self, enough: impl Fn(&str) -> bool) -> String {
        let limit = Instant::now() + Duration::from_secs(10);
        loop {
            let output = self.output();
            if enough(&output) || Instant::now() > limit {
                return output;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

//! soak AGENT SECONDS: a day of a busy machine in a short time. Runs `AGENT run` with every tracer that starts by itself beside
//! churn of all sorts (processes, connections, page faults, failing calls), and exits with 1 if the agent's memory or descriptors
//! grow after the first minute, if it sends nothing, or if it leaves anything behind.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What the first minute may still grow by is no leak: caches fill, and the allocator finds its size.
const WARM_UP: Duration = Duration::from_secs(60);
/// Growth after that which is the allocator's noise.
const NOISE_KIB: u64 = 768;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, agent, seconds] = arguments.as_slice() else {
        eprintln!("usage: soak AGENT SECONDS");
        return ExitCode::from(2);
    };
    let Ok(seconds) = seconds.parse::<u64>() else {
        eprintln!("soak: {seconds:?} is no number of seconds");
        return ExitCode::from(2);
    };
    match soak(Path::new(agent), Duration::from_secs(seconds)) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems.iter().for_each(|problem| println!("WRONG: {problem}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Programs and links in the kernel, by id: what an agent that is gone must not leave.
fn in_kernel() -> (BTreeSet<u32>, BTreeSet<u32>) {
    let ids = |ids: bpf_sys::Ids| ids.filter_map(Result::ok).collect();
    (ids(bpf_sys::prog::ids()), ids(bpf_sys::link::ids()))
}

fn soak(agent: &Path, length: Duration) -> std::io::Result<Vec<String>> {
    let before = in_kernel();
    let receiver = Receiver::start()?;
    let mut agent = Agent(
        Command::new(agent)
            .args(["run", "--interval", "2s", "--endpoint", &receiver.url()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?,
    );
    let pid = agent.0.id();
    let churn = Churn::start();
    let start = Instant::now();
    let mut samples: Vec<(Duration, Sample)> = Vec::new();
    let mut problems = Vec::new();
    while start.elapsed() < length {
        thread::sleep(Duration::from_secs(1));
        if let Some(status) = agent.0.try_wait()? {
            problems.push(format!("the agent ended after {:?} with {status}", start.elapsed()));
            return Ok(problems);
        }
        samples.push((start.elapsed(), Sample::read(pid)?));
    }
    let done = churn.stop();
    let stopping = Instant::now();
    Command::new("kill").args(["-TERM", &pid.to_string()]).status()?;
    let status = agent.0.wait()?;
    let took = stopping.elapsed();
    if !status.success() {
        problems.push(format!("the agent ended with {status}"));
    }
    if took > Duration::from_secs(5) {
        problems.push(format!("the agent took {took:?} to end"));
    }
    // The kernel frees programs a moment after their last descriptor is closed.
    let freed = Instant::now() + Duration::from_secs(5);
    let mut after = in_kernel();
    while (after.0.difference(&before.0).next().is_some() || after.1.difference(&before.1).next().is_some())
        && Instant::now() < freed
    {
        thread::sleep(Duration::from_millis(100));
        after = in_kernel();
    }
    let left = |kind: &str, before: &BTreeSet<u32>, after: &BTreeSet<u32>| {
        let new: Vec<_> = after.difference(before).collect();
        (!new.is_empty()).then(|| format!("{kind} that are still in the kernel: {new:?}"))
    };
    problems.extend(left("programs", &before.0, &after.0));
    problems.extend(left("links", &before.1, &after.1));
    problems.extend(growth(&samples, length));
    let (requests, bytes) = receiver.taken();
    if requests < length.as_secs() / 10 {
        problems.push(format!("only {requests} requests arrived"));
    }
    let last = samples.last().map(|(_, sample)| *sample).unwrap_or_default();
    println!(
        "soak: {} s; {done}; {requests} requests of {bytes} bytes; resident {} KiB, {} descriptors, CPU {:.2} % of one core; \
         ended in {} ms",
        length.as_secs(),
        last.resident_kib,
        last.descriptors,
        last.cpu_ticks as f64 / length.as_secs_f64().max(1.0),
        took.as_millis(),
    );
    Ok(problems)
}

/// What grew from the first quarter after the warm-up to the last.
fn growth(samples: &[(Duration, Sample)], length: Duration) -> Vec<String> {
    let warm: Vec<Sample> =
        samples.iter().filter(|(at, _)| *at >= WARM_UP).map(|(_, sample)| *sample).collect();
    let quarter = warm.len() / 4;
    if quarter < 5 {
        return vec![format!("{} s are too short to see growth: 90 at least", length.as_secs())];
    }
    let median = |part: &[Sample], of: fn(&Sample) -> u64| {
        let mut values: Vec<u64> = part.iter().map(of).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    let (first, last) = (&warm[..quarter], &warm[warm.len() - quarter..]);
    let mut problems = Vec::new();
    let (a, b) = (median(first, |s| s.resident_kib), median(last, |s| s.resident_kib));
    println!("soak: resident {a} KiB after the first minute, {b} KiB at the end");
    if b > a + NOISE_KIB {
        problems.push(format!("resident memory grew from {a} to {b} KiB"));
    }
    // Tracers that are detached for part of the time have fewer meanwhile.
    let a = first.iter().map(|sample| sample.descriptors).max().unwrap_or(0);
    let b = last.iter().map(|sample| sample.descriptors).min().unwrap_or(0);
    if b > a {
        problems.push(format!("descriptors grew from {a} at most to {b} at least"));
    }
    problems
}

/// The agent's process; it does not outlive this one.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Sample {
    resident_kib: u64,
    descriptors: u64,
    /// Hundredths of a second.
    cpu_ticks: u64,
}

impl Sample {
    fn read(pid: u32) -> std::io::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let times = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        Ok(Self {
            resident_kib: rss.and_then(|kib| kib.parse().ok()).unwrap_or(0),
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
            cpu_ticks: times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum(),
        })
    }
}

/// Takes every request, and counts.
struct Receiver {
    port: u16,
    requests: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Receiver {
    fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let receiver =
            Self { port: listener.local_addr()?.port(), requests: Arc::default(), bytes: Arc::default() };
        let (requests, bytes) = (Arc::clone(&receiver.requests), Arc::clone(&receiver.bytes));
        // The thread ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let (requests, bytes) = (Arc::clone(&requests), Arc::clone(&bytes));
                thread::spawn(move || serve(&stream, &requests, &bytes));
            }
        });
        Ok(receiver)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn taken(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

fn serve(mut stream: &TcpStream, requests: &AtomicU64, bytes: &AtomicU64) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(n) if n > 2 => {}
                Ok(2) => break,
                _ => return,
            }
            if let Some((name, value)) = line.split_once(':') {
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().unwrap_or(0);
                }
            }
        }
        let Ok(read) = std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink()) else { return };
        requests.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(read, Ordering::Relaxed);
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

/// A name, what is done again and again, and the pause between in milliseconds.
type Kind = (&'static str, fn() -> bool, u64);

/// Threads that keep the machine busy in ways that tracers see.
struct Churn {
    stop: Arc<AtomicBool>,
    threads: Vec<(&'static str, JoinHandle<u64>)>,
}

impl Churn {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        // Each with a pause, so that they are many things in a second and not one thing only.
        let kinds: [Kind; 4] = [
            ("processes", process, 5),
            ("connections", connection, 2),
            ("mappings", mapping, 2),
            ("datagrams", datagram, 1),
        ];
        let threads = kinds.map(|(name, once, pause)| {
            let stop = Arc::clone(&stop);
            let thread = thread::spawn(move || {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    done += u64::from(once());
                    thread::sleep(Duration::from_millis(pause));
                }
                done
            });
            (name, thread)
        });
        Self { stop, threads: threads.into() }
    }

    /// How many of each there were, in words.
    fn stop(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        let count =
            |(name, thread): (&str, JoinHandle<u64>)| format!("{} {name}", thread.join().unwrap_or(0));
        self.threads.into_iter().map(count).collect::<Vec<_>>().join(", ")
    }
}

fn process() -> bool {
    Command::new("/bin/true").status().is_ok()
}

fn connection() -> bool {
    let exchange = || -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let (mut server, _) = listener.accept()?;
        client.write_all(&[1; 1000])?;
        drop(client);
        server.read_to_end(&mut Vec::new())?;
        // And one that is refused.
        let address = listener.local_addr()?;
        drop(listener);
        let _ = TcpStream::connect(address);
        Ok(())
    };
    exchange().is_ok()
}

fn mapping() -> bool {
    // Large enough that the allocator maps and unmaps it.
    let memory = vec![1u8; 1 << 20];
    let _ = std::fs::metadata("/no/such/file");
    memory.iter().step_by(4096).all(|byte| *byte == 1)
}

fn datagram() -> bool {
    let exchange = || -> std::io::Result<usize> {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        a.send_to(&[1; 100], b.local_addr()?)?;
        b.recv(&mut [0; 200])
    };
    exchange().is_ok()
}

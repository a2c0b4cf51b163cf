//! The workload as a process, and what an agent has to say of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::loop_device::LoopDevice;
use crate::received::{Attributes, Received, map};
use crate::{round, work};

/// How often the workload does everything in [`Workload::work`], and in how many rounds at most it keeps memory.
pub const ROUNDS: u64 = 2;

/// What the kernel says of a process: minor and major faults, and switches to other tasks.
#[derive(Debug, Clone, Copy)]
struct Counters {
    minor: u64,
    major: u64,
    switches: u64,
}

impl Counters {
    fn read(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let switches = status.lines().filter(|line| line.contains("ctxt_switches:"));
        let switches = switches.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap());
        Self {
            minor: fields[7].parse().unwrap(),
            major: fields[9].parse().unwrap(),
            switches: switches.sum(),
        }
    }
}

/// The workload, waiting for its next round. It ends when this is dropped.
pub struct Workload {
    process: Child,
    answers: BufReader<ChildStdout>,
    has_names: bool,
    disk: Option<LoopDevice>,
    before: Counters,
    rounds: u64,
}

impl Workload {
    /// Starts `program`, this crate's, with whatever devices and ports there are for it.
    pub fn start(program: &Path) -> Self {
        let names = work::serve_names();
        let dns = names.map_or("0.0.0.0:0".to_owned(), |address| address.to_string());
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = format!("ebpf-otlp-known-work-{}-{number}", std::process::id());
        let disk = LoopDevice::new(std::env::temp_dir().join(file), 1 << 20);
        if disk.is_none() {
            let devices = fs::read_to_string("/proc/devices").unwrap();
            assert!(!devices.contains(" loop\n"), "there are loop devices");
            eprintln!("SKIP disk: there are no loop devices");
        }
        let path = disk.as_ref().map_or(String::new(), |disk| disk.path().display().to_string());
        let mut command = Command::new(program);
        command
            .args(["work".to_owned(), work::serve().to_string(), dns, path])
            .env("OTEL_SERVICE_NAME", "known");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let before = Counters { minor: 0, major: 0, switches: 0 };
        let mut workload =
            Self { process: child, answers, has_names: names.is_some(), disk, before, rounds: 0 };
        workload.wait("ready");
        workload.before = Counters::read(workload.pid());
        workload
    }

    /// Whether it looks names up.
    pub fn has_names(&self) -> bool {
        self.has_names
    }

    /// Whether it uses a disk.
    pub fn has_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for an answer, and until the workload waits for the next line.
    fn wait(&mut self, wanted: &str) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), wanted);
        let limit = Instant::now() + Duration::from_secs(10);
        while !self.waits() && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn waits(&self) -> bool {
        let asleep = fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        asleep.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')))
    }

    fn round(&mut self) {
        // What each of many rounds kept would be too much.
        let line = if self.rounds < ROUNDS { round::KEEP } else { round::KEEP_NOTHING };
        writeln!(self.process.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.wait("done");
        self.rounds += 1;
    }

    /// Everything, in at least two windows of a second.
    pub fn work(&mut self) {
        self.work_for(Duration::ZERO);
    }

    /// The same, and again until that time has passed, at the pace of a board.
    pub fn work_for(&mut self, time: Duration) {
        let start = Instant::now();
        let pause = if time.is_zero() { Duration::from_millis(1200) } else { Duration::from_secs(10) };
        while self.rounds < ROUNDS || start.elapsed() < time {
            self.round();
            std::thread::sleep(pause);
        }
    }

    /// What does not say what happened, of the tracers named.
    pub fn differences(&self, received: &Received, tracers: &[&str]) -> Vec<String> {
        let after = Counters::read(self.pid());
        let pid = self.pid().to_string();
        let mut differences = Vec::new();
        for (tracer, metric, attributes, wanted, slack) in self.wanted(after) {
            if !tracers.contains(&tracer) {
                continue;
            }
            let total = received.total(metric, &[("process.pid", &pid)], attributes);
            if (total - wanted as f64).abs() > slack as f64 {
                differences.push(format!("{metric} {attributes:?}: {total}, not {wanted}"));
            }
        }
        differences.extend(self.of_disk(received, tracers));
        differences.extend(self.events(received, tracers));
        if !differences.is_empty() {
            let drops = received.points_of(|metric| metric.name == "ebpf.agent.drops");
            // Cumulative, so that the last is all.
            let last: BTreeMap<_, _> =
                drops.iter().map(|point| (map(point.attributes), point.value.amount())).collect();
            let is_of = |attributes: &Attributes| {
                attributes.get("ebpf.tracer").is_some_and(|tracer| tracers.contains(&tracer.as_str()))
            };
            let dropped = last.iter().filter(|(attributes, count)| **count > 0.0 && is_of(attributes));
            differences.extend(dropped.map(|(attributes, count)| format!("{count} dropped: {attributes:?}")));
        }
        differences
    }

    /// Metrics of the workload's own process by tracer: name, attributes, total, and by how much that may be wrong.
    #[allow(clippy::type_complexity)]
    fn wanted(
        &self,
        after: Counters,
    ) -> Vec<(&'static str, &'static str, &'static [(&'static str, &'static str)], u64, u64)> {
        let (sent, received) = (work::SENT as u64, work::ANSWERED as u64);
        let datagrams = work::DATAGRAMS + if self.has_names { work::LOOKUPS } else { 0 };
        let query = work::dns_query(0).len() as u64;
        let udp = |others: u64| others + if self.has_names { work::LOOKUPS * query } else { 0 };
        let mut wanted: Vec<(_, _, &[(_, _)], _, _)> = vec![
            ("syscalls", "ebpf.syscall.calls", &[("ebpf.syscall.name", "getppid")], work::GETPPID, 0),
            (
                "syscalls",
                "ebpf.syscall.calls",
                &[("ebpf.syscall.name", work::RMDIR)],
                work::RMDIR_ENOENT + work::RMDIR_ENOTDIR,
                0,
            ),
            (
                "syscalls",
                "ebpf.syscall.errors",
                &[("ebpf.syscall.name", work::RMDIR), ("error.type", "ENOENT")],
                work::RMDIR_ENOENT,
                0,
            ),
            (
                "syscalls",
                "ebpf.syscall.errors",
                &[("ebpf.syscall.name", work::RMDIR), ("error.type", "ENOTDIR")],
                work::RMDIR_ENOTDIR,
                0,
            ),
            ("syscalls", "ebpf.syscall.errors", &[("ebpf.syscall.name", "getppid")], 0, 0),
            (
                "syscalls",
                "ebpf.syscall.duration",
                &[("ebpf.syscall.name", work::RMDIR)],
                work::RMDIR_ENOENT + work::RMDIR_ENOTDIR,
                0,
            ),
            (
                "tcp",
                "ebpf.tcp.connections",
                &[("ebpf.tcp.role", "client")],
                work::CONNECTIONS + work::REFUSED,
                0,
            ),
            ("tcp", "ebpf.tcp.connections", &[("error.type", "ECONNREFUSED")], work::REFUSED, 0),
            ("tcp", "ebpf.tcp.connect.duration", &[("ebpf.tcp.role", "client")], work::CONNECTIONS, 0),
            ("tcp", "ebpf.tcp.connection.duration", &[("ebpf.tcp.role", "client")], work::CONNECTIONS, 0),
            (
                "tcp",
                "process.network.io",
                &[("network.transport", "tcp"), ("network.io.direction", "transmit")],
                work::CONNECTIONS * sent,
                0,
            ),
            (
                "tcp",
                "process.network.io",
                &[("network.transport", "tcp"), ("network.io.direction", "receive")],
                work::CONNECTIONS * received,
                0,
            ),
            ("udp", "ebpf.udp.datagrams", &[("network.io.direction", "transmit")], datagrams, 0),
            (
                "udp",
                "process.network.io",
                &[("network.transport", "udp"), ("network.io.direction", "transmit")],
                udp(work::DATAGRAMS * work::DATAGRAM as u64),
                0,
            ),
            (
                "udp",
                "process.network.io",
                &[("network.transport", "udp"), ("network.io.direction", "receive")],
                udp(0),
                0,
            ),
            // Beside what it keeps on purpose there are buffers.
            ("heap", "ebpf.heap.outstanding", &[], work::HELD * work::HELD_BYTES as u64, 1 << 16),
        ];
        if self.has_names {
            let lookup: &[_] = &[("dns.question.name", work::NAME), ("error.type", "NXDOMAIN")];
            wanted.push(("dns", "dns.lookup.duration", lookup, work::LOOKUPS, 0));
        }
        for row in &mut wanted {
            row.3 *= if row.0 == "heap" { ROUNDS } else { self.rounds };
        }
        const MINOR: [(&str, &str); 1] = [("system.paging.fault.type", "minor")];
        const MAJOR: [(&str, &str); 1] = [("system.paging.fault.type", "major")];
        wanted.push(("memory", "process.paging.faults", &MINOR, after.minor - self.before.minor, 0));
        wanted.push(("memory", "process.paging.faults", &MAJOR, after.major - self.before.major, 0));
        // Waits that were under way when the tracer came and when it went are not in it, and on a busy machine a few more are
        // missing.
        let switches = after.switches - self.before.switches;
        wanted.push(("sched", "process.context_switches", &[], switches, 2 + switches / 50));
        wanted
    }

    /// The same for its block device, whose numbers are the machine's.
    fn of_disk(&self, received: &Received, tracers: &[&str]) -> Vec<String> {
        let Some(disk) = self.disk.as_ref().filter(|_| tracers.contains(&"disk")) else { return Vec::new() };
        let device = disk.name();
        let mut differences = Vec::new();
        for (direction, blocks) in [("write", work::BLOCKS_WRITTEN), ("read", work::BLOCKS_READ)] {
            let attributes = [("system.device", device.as_str()), ("disk.io.direction", direction)];
            let requests = self.rounds * blocks;
            for (metric, wanted) in [
                ("system.disk.operations", requests),
                ("system.disk.io", requests * work::BLOCK as u64),
                ("ebpf.disk.request.duration", requests),
            ] {
                let total = received.total(metric, &[], &attributes);
                if total != wanted as f64 {
                    differences.push(format!("{metric} {attributes:?}: {total}, not {wanted}"));
                }
            }
        }
        differences
    }

    /// The same for spans, log records and profiles.
    fn events(&self, received: &Received, tracers: &[&str]) -> Vec<String> {
        let mut differences = Vec::new();
        let mut check = |tracer: &str, what: &str, found: u64, wanted: u64| {
            if tracers.contains(&tracer) && found != wanted {
                differences.push(format!("{what}: {found}, not {wanted}"));
            }
        };
        let spans = received.traces.iter().flat_map(|request| &request.resource_spans);
        let spans: Vec<_> =
            spans.flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans).collect();
        let of = |name: &str| spans.iter().filter(|span| span.name == name).count() as u64;
        let failed = |name: &str| {
            let has_failed = |status: &opentelemetry_proto::tonic::trace::v1::Status| status.code == 2;
            let spans = spans.iter().filter(|span| span.name == name);
            spans.filter(|span| span.status.as_ref().is_some_and(has_failed)).count() as u64
        };
        let connections = "ebpf.tcp.connection";
        check("tcp", connections, of(connections), self.rounds * (work::CONNECTIONS + work::REFUSED));
        check("tcp", "failed connections", failed(connections), self.rounds * work::REFUSED);
        if self.has_names {
            check("dns", "dns.lookup", of("dns.lookup"), self.rounds * work::LOOKUPS);
        }
        let logs = received.logs.iter().flat_map(|request| &request.resource_logs);
        let logs = logs.flat_map(|resource| &resource.scope_logs).flat_map(|scope| &scope.log_records);
        let mut execs = 0;
        let mut exits = 0;
        for record in logs {
            let attributes = map(&record.attributes);
            let is_seven = attributes.get("process.exit.code").is_some_and(|code| code == "7");
            execs += u64::from(record.event_name == "ebpf.process.exec");
            exits += u64::from(record.event_name == "ebpf.process.exit" && is_seven);
        }
        check("process", "ebpf.process.exec", execs, self.rounds * work::CHILDREN);
        check("process", "ebpf.process.exit", exits, self.rounds * work::CHILDREN);
        let profiles = received.profiles.iter().flat_map(|request| &request.resource_profiles);
        let profiles = profiles.flat_map(|resource| &resource.scope_profiles);
        let samples = profiles.flat_map(|scope| &scope.profiles).flat_map(|profile| &profile.samples);
        check("profile", "whether it was sampled", u64::from(samples.count() > 0), 1);
        differences
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

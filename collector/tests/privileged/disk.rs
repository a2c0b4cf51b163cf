//! Requests to a loop device of the test's own, against what the kernel has counted: `/proc/diskstats`.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::Command;

use bpf_loader::kernel::RunningKernel;
use bpf_loader::load::Object;
use bpf_loader::map::{Hash, PerCpuArray};
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use bpf_loader::test_run::TestRun;
use bpf_programs::events::disk::{Counts, RequestNote};
use collector::config::Filter;
use collector::telemetry::Recorder;
use collector::tracer::disk::{self, DISK_IO, DISK_OPERATIONS, QUEUE_DURATION, REQUEST_DURATION};
use collector::tracer::ladder::Forced;
use collector::tracer::{Settings, Start, Tracer};

use crate::{is_root, kernel_has, skip};

const SIZE: u64 = 16 << 20;

/// A loop device over a file. Both go when it is dropped.
struct Loop {
    file: PathBuf,
    device: PathBuf,
}

impl Loop {
    /// `None` where the kernel has no loop devices.
    fn new(name: &str) -> Option<Self> {
        let file = std::env::temp_dir().join(format!("ebpf-otlp-{}-{name}", std::process::id()));
        File::create(&file).unwrap().set_len(SIZE).unwrap();
        // Of two tests that look for a free one at once, one may have to look again.
        for _ in 0..10 {
            let free = Command::new("losetup").arg("-f").output().ok();
            let device = free.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
            let Some(device) = device.filter(|device| device.starts_with("/dev/loop")) else { break };
            let made = Command::new("losetup").arg(&device).arg(&file).output();
            if made.is_ok_and(|out| out.status.success()) {
                return Some(Self { file, device: device.into() });
            }
        }
        let _ = fs::remove_file(&file);
        assert!(!fs::read_to_string("/proc/devices").unwrap().contains(" loop\n"), "there are loop devices");
        skip("disk: the kernel has no loop devices")
    }

    fn name(&self) -> &str {
        self.device.file_name().unwrap().to_str().unwrap()
    }

    /// Gives it an I/O scheduler; whether the kernel has it.
    fn schedule(&self, scheduler: &str) -> bool {
        fs::write(format!("/sys/block/{}/queue/scheduler", self.name()), scheduler).is_ok()
    }

    /// Past the page cache: what is read or written is a request at once.
    fn open(&self) -> File {
        let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
        OpenOptions::new().read(true).write(true).custom_flags(direct).open(&self.device).unwrap()
    }

    /// What the kernel has counted: by direction, requests and bytes.
    fn counted(&self) -> [(&'static str, u64, u64); 4] {
        let stats = fs::read_to_string("/proc/diskstats").unwrap();
        let of_device = |line: &&str| line.split_whitespace().nth(2) == Some(self.name());
        let line = stats.lines().find(of_device).unwrap();
        let fields: Vec<u64> = line.split_whitespace().skip(3).map(|n| n.parse().unwrap()).collect();
        [
            ("read", fields[0], fields[2] * 512),
            ("write", fields[4], fields[6] * 512),
            ("discard", fields[11], fields[13] * 512),
            ("flush", fields[15], 0),
        ]
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
        let _ = fs::remove_file(&self.file);
    }
}

/// Memory as direct input and output wants it.
fn aligned(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    buffer.resize(len + 4096, 7);
    let start = buffer.as_ptr().align_offset(4096);
    &mut buffer[start..start + len]
}

fn start(filter: Filter, rung: &str, memory: usize) -> Box<dyn Tracer> {
    let started = (disk::INFO.start)(&Start {
        filter: &filter,
        settings: &Settings::default(),
        memory,
        forced: &Forced(
            [&disk::REQUESTS, &disk::MERGES].map(|ladder| (ladder.what.to_owned(), rung.to_owned())).into(),
        ),
        target: &RunningTarget::new(),
    });
    // Every kernel from 5.8 on has all rungs.
    started.unwrap_or_else(|error| panic!("{rung}: {error}"))
}

fn each_rung(test: impl Fn(&str)) {
    if is_root() {
        disk::REQUESTS.rungs.iter().for_each(|rung| test(rung.name));
    } else {
        skip::<()>("disk: needs root");
    }
}

/// The sum over a metric's series of a device and a direction; of histograms, how many.
fn sum(recorder: &Recorder, metric: &str, device: &str, direction: &str) -> u64 {
    let wanted = [("system.device", device.to_owned()), ("disk.io.direction", direction.to_owned())];
    let is = |series: &collector::telemetry::Series| series.metric == metric && series.attributes == wanted;
    let numbers = recorder.numbers.iter().filter(|(series, _)| is(series)).map(|(_, n)| *n as u64);
    let histograms = recorder.histograms.iter().filter(|(series, _)| is(series)).map(|(_, h)| h.count());
    numbers.chain(histograms).sum()
}

#[test]
fn requests_and_bytes_are_the_kernels_own() {
    each_rung(|rung| {
        let Some(device) = Loop::new("exact") else { return };
        let file = device.open();
        let mut tracer = start(Filter::default(), rung, 1 << 20);
        let mut recorder = Recorder::default();
        let before = device.counted();
        let mut buffer = Vec::new();
        let small = aligned(&mut buffer, 4096);
        (0..100).for_each(|i| file.write_all_at(small, i * 8192).unwrap());
        (0..50).for_each(|i| file.read_exact_at(small, i * 4096).unwrap());
        // Windows may end at any time.
        tracer.collect(&mut recorder).unwrap();
        // More than a request may hold.
        let mut buffer = Vec::new();
        let large = aligned(&mut buffer, 6 << 20);
        file.read_exact_at(large, 0).unwrap();
        file.write_all_at(large, 4096).unwrap();
        (0..20).for_each(|_| file.sync_data().unwrap());
        let mut discard = Command::new("blkdiscard");
        discard.args(["-o", "1048576", "-l", "2097152"]).arg(&device.device);
        let discarded = discard.output().is_ok_and(|out| out.status.success());
        let after = device.counted();
        tracer.collect(&mut recorder).unwrap();
        let name = device.name();
        for ((direction, requests, bytes), (_, requests_before, bytes_before)) in after.iter().zip(before) {
            let (requests, bytes) = (requests - requests_before, bytes - bytes_before);
            eprintln!("{rung} {direction}: {requests} requests, {bytes} bytes");
            let told = sum(&recorder, REQUEST_DURATION.name, name, direction);
            // The kernel counts who asked for a flush as a write without data too, though the device sees the flush alone.
            let flushes = if *direction == "write" { after[3].1 - before[3].1 } else { 0 };
            assert!(told == requests || told + flushes == requests, "{rung} {direction}: {told}");
            if matches!(*direction, "read" | "write") {
                assert_eq!(sum(&recorder, DISK_OPERATIONS.name, name, direction), told, "{rung} {direction}");
                assert_eq!(sum(&recorder, DISK_IO.name, name, direction), bytes, "{rung} {direction}");
                // The kernel looks for partitions now and then.
                let own = (6 << 20) + if *direction == "read" { 50 } else { 100 } * 4096;
                assert!(bytes >= own, "{rung} {direction}: {bytes}");
            }
            if *direction == "discard" && discarded {
                assert!(requests > 0, "{rung}");
            }
        }
        let stats = tracer.stats().unwrap();
        assert_eq!(stats.total_dropped(), 0, "{rung}: {stats:?}");
        let took: Vec<f64> = recorder.histograms.values().map(|h| h.sum_seconds()).collect();
        assert!(took.iter().all(|seconds| *seconds > 0.0 && *seconds < 100.0), "{rung}: {took:?}");
    });
}

#[test]
fn a_filter_chooses_requests_by_who_issues_them() {
    each_rung(|rung| {
        let Some(device) = Loop::new("filter") else { return };
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let mut tracer = start(Filter { pids: vec![child.id()], ..Filter::default() }, rung, 1 << 20);
        let file = device.open();
        let mut buffer = Vec::new();
        let small = aligned(&mut buffer, 4096);
        let mut recorder = Recorder::default();
        (0..10).for_each(|i| file.write_all_at(small, i * 4096).unwrap());
        tracer.collect(&mut recorder).unwrap();
        assert!(recorder.numbers.is_empty(), "{rung}: another's requests were counted");
        tracer.set_filter(&Filter { pids: vec![std::process::id()], ..Filter::default() }).unwrap();
        (0..10).for_each(|i| file.write_all_at(small, i * 4096).unwrap());
        crate::pause(&mut *tracer);
        (0..10).for_each(|i| file.write_all_at(small, i * 4096).unwrap());
        tracer.resume().unwrap();
        (0..10).for_each(|i| file.read_exact_at(small, i * 4096).unwrap());
        tracer.collect(&mut recorder).unwrap();
        let name = device.name();
        assert_eq!(sum(&recorder, DISK_OPERATIONS.name, name, "write"), 10, "{rung}");
        assert_eq!(sum(&recorder, DISK_OPERATIONS.name, name, "read"), 10, "{rung}");
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn what_a_scheduler_queues_has_waited_and_nothing_else() {
    each_rung(|rung| {
        let Some(device) = Loop::new("queue") else { return };
        let file = device.open();
        let mut buffer = Vec::new();
        let small = aligned(&mut buffer, 4096);
        for (scheduler, queued) in [("none", 0), ("mq-deadline", 50)] {
            if !device.schedule(scheduler) {
                skip::<()>(&format!("disk: the kernel has no scheduler {scheduler}"));
                continue;
            }
            // Only what this process asks for: the kernel looks for partitions now and then.
            let filter = Filter { pids: vec![std::process::id()], ..Filter::default() };
            let mut tracer = start(filter, rung, 1 << 20);
            let mut recorder = Recorder::default();
            let began = std::time::Instant::now();
            (0..50).for_each(|i| file.write_all_at(small, i * 8192).unwrap());
            (0..50).for_each(|i| file.read_exact_at(small, i * 8192).unwrap());
            let took = began.elapsed().as_secs_f64();
            tracer.collect(&mut recorder).unwrap();
            for direction in ["read", "write"] {
                let of = |metric: &str| sum(&recorder, metric, device.name(), direction);
                assert_eq!(of(REQUEST_DURATION.name), 50, "{rung} {scheduler} {direction}");
                let waited = of(QUEUE_DURATION.name);
                // Older kernels put them in a queue of the CPU's first where there is no scheduler, or pass by it.
                let otherwise = !kernel_has((6, 12)) && waited == 50 - queued;
                assert!(waited == queued || otherwise, "{rung} {scheduler} {direction}: {waited}");
            }
            // One request after the other: all their times together are no longer than it took.
            let all: f64 = recorder.histograms.values().map(|h| h.sum_seconds()).sum();
            assert!(all > 0.0 && all < took, "{rung} {scheduler}: {all} of {took}");
            assert_eq!(tracer.stats().unwrap().total_dropped(), 0, "{rung}");
        }
    });
}

/// Programs that are attached nowhere, and run by request on this thread. Of a request that cannot be read, all is 0.
struct ByRequest(Object);

impl ByRequest {
    fn load(requests: u32) -> Option<Self> {
        if !is_root() {
            return skip("disk: needs root");
        }
        if !kernel_has((5, 11)) {
            return skip(
                "disk: test runs of raw tracepoints need Linux 5.10, and requests come first from 5.11 on",
            );
        }
        let mut spec = ObjectSpec::parse(bpf_programs::DISK).unwrap();
        spec.map_mut("requests").unwrap().max_entries = requests;
        let plan = spec.plan_programs(&RunningTarget::new(), |p| p.name.ends_with("_raw")).unwrap();
        Some(Self(plan.load(&RunningKernel::default()).unwrap().into_object().unwrap()))
    }

    fn run(&self, program: &str, request: u64) {
        let context: Vec<u8> = [request, 0, 4096].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let program = self.0.program(program).unwrap();
        program.test_run(&TestRun { context: &context, ..TestRun::default() }).unwrap();
    }

    /// When it was put into the queue, and whether it was issued.
    fn note(&self, request: u64) -> Option<(u64, bool)> {
        let notes: Hash<[u64; 2], [u8; RequestNote::SIZE]> =
            Hash::new(self.0.map("requests").unwrap()).unwrap();
        let note = RequestNote::decode(&notes.get(&[request, 0], 0).unwrap()?).unwrap();
        Some((note.inserted, note.issued > 0))
    }

    fn requests_full(&self) -> u64 {
        let counts: PerCpuArray<[u8; Counts::SIZE]> =
            PerCpuArray::new(self.0.map("counts").unwrap()).unwrap();
        let of_cpus = counts.get(0).unwrap().unwrap();
        of_cpus.iter().map(|counts| Counts::decode(&counts).unwrap().requests_full).sum()
    }
}

#[test]
fn what_is_merged_or_never_issued_leaves_no_wait() {
    let Some(programs) = ByRequest::load(4) else { return };
    for end in ["merge_raw", "complete_raw"] {
        programs.run("insert_raw", 1);
        assert!(matches!(programs.note(1), Some((1.., false))));
        programs.run(end, 1);
        assert_eq!(programs.note(1), None, "{end}");
        // The next request at that address is issued at once.
        programs.run("issue_raw", 1);
        assert_eq!(programs.note(1), Some((0, true)), "{end}");
        // What the device has is in no queue.
        programs.run("merge_raw", 1);
        assert_eq!(programs.note(1), Some((0, true)), "{end}");
        programs.run("complete_raw", 1);
        assert_eq!(programs.note(1), None, "{end}");
    }
}

#[test]
fn a_request_that_finds_no_room_is_counted_once() {
    let Some(programs) = ByRequest::load(1) else { return };
    programs.run("insert_raw", 1);
    for request in 2..5 {
        programs.run("insert_raw", request);
        programs.run("issue_raw", request);
        programs.run("complete_raw", request);
    }
    assert_eq!(programs.requests_full(), 3);
}

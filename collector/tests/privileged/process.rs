//! Processes whose ends are known: by code, by signal, with many threads, and more than a small ring holds.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use bpf_programs::events::process::Lifecycle;
use collector::config::Filter;
use collector::telemetry::{Item, Recorder};
use collector::tracer::ladder::Forced;
use collector::tracer::process::{self, ProcessTracer};
use collector::tracer::{Settings, Start, Tracer, cause};

use crate::helper::{self, Helper};
use crate::{fewer_if_emulated, is_root, kernel_has, skip};

/// A shell that waits for a line before it begins, and prints one when it is done.
pub(crate) struct Script(Child);

impl Script {
    pub(crate) fn start(commands: &str) -> Self {
        let script = format!("read line; {commands}\necho done; read line");
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(shell.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Runs the commands; the shell is still there afterwards.
    pub(crate) fn run(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut done = [0; 5];
        self.0.stdout.as_mut().unwrap().read_exact(&mut done).unwrap();
        assert_eq!(&done, b"done\n");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(pid: u32, rung: &str, memory: usize) -> Option<ProcessTracer> {
    if !is_root() {
        return skip("process: needs root");
    }
    let started = ProcessTracer::start(&Start {
        filter: &Filter { pids: vec![pid], children: true, ..Filter::default() },
        settings: &Settings::default(),
        memory,
        forced: &Forced([(process::LIFE.what.to_owned(), rung.to_owned())].into()),
        target: &RunningTarget::new(),
    });
    // Every kernel from 5.8 on has both rungs.
    Some(started.unwrap_or_else(|error| panic!("{rung}: {error}")))
}

fn each_rung(test: impl Fn(&str)) {
    process::LIFE.rungs.iter().for_each(|rung| test(rung.name));
}

/// Reads until there are so many ends: the last of a process' ends may come after its parent knows of it.
fn drain_until(tracer: &mut ProcessTracer, recorder: &mut Recorder, exits: usize) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        tracer.collect(recorder).unwrap();
        if ended(recorder).count() >= exits || Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ended(recorder: &Recorder) -> impl Iterator<Item = &Item> {
    recorder.logs.iter().filter(|log| log.name == process::EXIT.name)
}

fn with(recorder: &Recorder, name: &str, key: &str, value: &str) -> usize {
    let of = recorder.logs.iter().filter(|log| log.name == name);
    of.filter(|log| log.attribute(key) == Some(value)).count()
}

#[test]
fn every_fork_exec_and_end_is_told_with_its_code_or_signal() {
    each_rung(|rung| {
        let mut script = Script::start(
            "i=0; while [ $i -lt 400 ]; do (exit $((i % 4))); i=$((i + 1)); done
             i=0; while [ $i -lt 60 ]; do /bin/true; i=$((i + 1)); done
             i=0; while [ $i -lt 40 ]; do sh -c 'kill -KILL $$'; i=$((i + 1)); done
             sh -c 'ulimit -c 0; kill -SEGV $$'; :",
        );
        let Some(mut tracer) = start(script.pid(), rung, 1 << 20) else { return };
        let mut recorder = Recorder::default();
        script.run();
        drain_until(&mut tracer, &mut recorder, 501);
        let execs = recorder.logs.iter().filter(|log| log.name == process::EXEC.name);
        let execs: Vec<&Item> = execs.collect();
        assert_eq!((execs.len(), ended(&recorder).count()), (101, 501), "{rung}");
        let forks: f64 = recorder.numbers.values().sum();
        assert_eq!(forks, 501.0, "{rung}");
        for (code, count) in [("0", 160), ("1", 100), ("2", 100), ("3", 100)] {
            assert_eq!(
                with(&recorder, process::EXIT.name, "process.exit.code", code),
                count,
                "{rung} {code}"
            );
        }
        assert_eq!(with(&recorder, process::EXIT.name, "ebpf.process.exit.signal", "SIGKILL"), 40, "{rung}");
        assert_eq!(with(&recorder, process::EXIT.name, "ebpf.process.exit.signal", "SIGSEGV"), 1, "{rung}");
        assert_eq!(with(&recorder, process::EXEC.name, "process.executable.path", "/bin/true"), 60, "{rung}");
        let shell = script.pid().to_string();
        assert_eq!(with(&recorder, process::EXIT.name, "process.parent_pid", &shell), 501, "{rung}");
        assert_eq!(with(&recorder, process::EXIT.name, "process.real_user.id", "0"), 501, "{rung}");
        let stats = tracer.stats().unwrap();
        assert_eq!((stats.hits, stats.produced, stats.received), (1103, 1103, 1103), "{rung}");
        assert_eq!(stats.total_dropped(), 0, "{rung}");
    });
}

#[test]
fn what_identifies_a_process_is_what_proc_says() {
    each_rung(|rung| {
        // The child reports on itself while it lives, and then becomes something else and ends.
        let script = "sh -c 'cat /proc/$$/stat; grep -h . /proc/$$/cgroup; exec /bin/true'; :";
        let mut script = Script::start(&format!("out=$({script}); echo \"$out\" >&2"));
        let Some(mut tracer) = start(script.pid(), rung, 1 << 20) else { return };
        let mut recorder = Recorder::default();
        script.run();
        drain_until(&mut tracer, &mut recorder, 2);
        let events = &recorder.lifecycle;
        let of_true =
            |event: &&Lifecycle| matches!(event, Lifecycle::Exit(p, _) if p.comm.starts_with(b"true\0"));
        let end = events.iter().find(of_true).unwrap_or_else(|| panic!("{rung}: {events:?}"));
        let pid = end.process().tgid;
        let of_pid: Vec<&Lifecycle> = events.iter().filter(|event| event.process().tgid == pid).collect();
        let [Lifecycle::Fork(fork), .., Lifecycle::Exec(exec, path), Lifecycle::Exit(exit, status)] =
            of_pid[..]
        else {
            panic!("{rung}: {of_pid:?}")
        };
        assert_eq!((path.bytes(), path.is_cut(), status.code()), (&b"/bin/true"[..], false, Some(0)));
        assert_eq!(exec.start_boot_ns, exit.start_boot_ns);
        // The classic tracepoint does not know the child's start.
        assert!(fork.start_boot_ns == exit.start_boot_ns || rung == "tracepoint" && fork.start_boot_ns == 0);
        assert!(exit.start_boot_ns > 0 && exit.start_boot_ns <= exec.boot_ns && exec.boot_ns <= exit.boot_ns);
        // Start and cgroup of this process, as the file systems show them, and as its shell's events do.
        let own = own_cgroup_id();
        assert!(own.is_none_or(|id| id == exit.cgroup_id), "{rung}: {own:?} {}", exit.cgroup_id);
    });
}

/// Inode number of this process' cgroup v2, whose children inherit it; `None` where none is mounted at the usual place.
fn own_cgroup_id() -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned();
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let root = roots.iter().find(|root| std::path::Path::new(root).join("cgroup.procs").exists())?;
    Some(std::fs::metadata(format!("{root}{path}")).ok()?.ino())
}

/// Not a test of its own: the many-threaded process of the next one.
#[test]
#[ignore = "run by another test"]
fn helper_with_many_threads() {
    let Some(what) = helper::task() else { return };
    for _ in 0..12 {
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60)));
    }
    // Threads that end long before their process.
    (0..3).for_each(|_| std::thread::spawn(|| ()).join().unwrap());
    if what == "exit" {
        std::thread::spawn(|| std::process::exit(7)).join().unwrap();
    }
    if what == "exec" {
        // The first thread ends by it, and this one goes on under its number.
        let exec =
            || std::os::unix::process::CommandExt::exec(Command::new("/bin/sh").args(["-c", "exit 9"]));
        panic!("{:?}", std::thread::spawn(exec).join());
    }
    println!("READY");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_thread_that_executes_is_its_process() {
    each_rung(|rung| {
        for _ in 0..fewer_if_emulated(10) {
            let mut helper = Helper::start("process::helper_with_many_threads", "exec");
            let tracer = start(helper.pid(), rung, 1 << 20);
            helper.go();
            assert_eq!(helper.0.wait().unwrap().code(), Some(9));
            let Some(mut tracer) = tracer else { return };
            let mut recorder = Recorder::default();
            drain_until(&mut tracer, &mut recorder, 1);
            std::thread::sleep(Duration::from_millis(20));
            tracer.collect(&mut recorder).unwrap();
            let told: Vec<(&str, Option<u32>)> =
                recorder.logs.iter().map(|log| (log.name, log.pid)).collect();
            let pid = Some(helper.pid());
            assert_eq!(told, [(process::EXEC.name, pid), (process::EXIT.name, pid)], "{rung}");
            assert_eq!(recorder.logs[0].attribute("process.executable.path"), Some("/bin/sh"), "{rung}");
            assert_eq!(recorder.logs[1].attribute("process.exit.code"), Some("9"), "{rung}");
        }
    });
}

#[test]
fn a_process_ends_once_however_many_threads_it_has() {
    each_rung(|rung| {
        for (what, times) in [("exit", 20), ("wait", 5)] {
            for _ in 0..fewer_if_emulated(times) {
                let mut helper = Helper::start("process::helper_with_many_threads", what);
                let tracer = start(helper.pid(), rung, 1 << 20);
                helper.go();
                if what == "wait" {
                    helper.wait_ready();
                    helper.0.kill().unwrap();
                }
                let status = helper.0.wait().unwrap();
                let Some(mut tracer) = tracer else { return };
                let mut recorder = Recorder::default();
                drain_until(&mut tracer, &mut recorder, 1);
                // Time for a second one, if there should be any.
                std::thread::sleep(Duration::from_millis(20));
                tracer.collect(&mut recorder).unwrap();
                let ends: Vec<&Item> = ended(&recorder).collect();
                // There the kernel may preempt a program, and leaves out its runs for other threads on that CPU, counted.
                if ends.is_empty() && kernel_has((7, 2)) {
                    let stats = tracer.stats().unwrap();
                    assert!(
                        stats.dropped.iter().any(|(c, n)| *c == cause::SKIPPED && *n > 0),
                        "{rung}: {stats:?}"
                    );
                    eprintln!("{rung}: the kernel left out the end of a process, and counted it");
                    continue;
                }
                assert_eq!(ends.len(), 1, "{rung} {what}: {:?}", recorder.logs);
                assert_eq!(ends[0].pid, Some(helper.pid()));
                let expected = if what == "exit" {
                    assert_eq!(status.code(), Some(7));
                    ("process.exit.code", "7")
                } else {
                    ("ebpf.process.exit.signal", "SIGKILL")
                };
                assert_eq!(ends[0].attribute(expected.0), Some(expected.1), "{rung}");
            }
        }
    });
}

#[test]
fn what_overflows_a_ring_is_counted() {
    each_rung(|rung| {
        let storm = "i=0; while [ $i -lt 400 ]; do (exit 1); i=$((i + 1)); done";
        let mut script = Script::start(storm);
        let Some(mut tracer) = start(script.pid(), rung, 1) else { return };
        let mut recorder = Recorder::default();
        script.run();
        std::thread::sleep(Duration::from_millis(100));
        tracer.collect(&mut recorder).unwrap();
        let stats = tracer.stats().unwrap();
        assert_eq!((stats.hits, stats.produced), (800, 800), "{rung}");
        assert_eq!(stats.received + stats.total_dropped(), 800, "{rung}: {stats:?}");
        assert!(stats.total_dropped() > 600, "{rung}: a page holds few: {stats:?}");
        assert_eq!(
            recorder.numbers.values().sum::<f64>(),
            400.0,
            "{rung}: forks are counted whatever the ring"
        );
    });
}

#[test]
fn a_pause_ends_and_children_are_still_followed() {
    each_rung(|rung| {
        let mut script =
            Script::start("(exit 1); (exit 1); echo half; read line; (exit 2); (exit 2); (exit 2)");
        let Some(mut tracer) = start(script.pid(), rung, 1 << 20) else { return };
        let mut recorder = Recorder::default();
        crate::pause(&mut tracer);
        assert!(!tracer.is_running());
        script.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut half = [0; 5];
        script.0.stdout.as_mut().unwrap().read_exact(&mut half).unwrap();
        tracer.resume().unwrap();
        script.run();
        drain_until(&mut tracer, &mut recorder, 3);
        assert_eq!(with(&recorder, process::EXIT.name, "process.exit.code", "1"), 0, "{rung}");
        assert_eq!(with(&recorder, process::EXIT.name, "process.exit.code", "2"), 3, "{rung}");
    });
}

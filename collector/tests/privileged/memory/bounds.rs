//! What finds no room is counted, and what cannot be attached leaves nothing behind.

use collector::tracer::memory::{FAULT_COUNTS, OOM, STALLS};

use super::*;
use crate::helper::{self, Helper};

#[test]
fn kills_that_find_no_room_in_the_ring_are_counted() {
    // A ring of a page holds 51 records of 72 bytes, each behind a head of 8.
    const KILLS: u64 = 60;
    for rung in OOM.rungs {
        let Some(group) = Cgroup::create("storm", 4 << 20) else { return };
        let filter = Filter { cgroup: Some(group.directory.clone()), ..Filter::default() };
        let mut tracer = match start_filtered(filter, 0, &[(OOM.what, rung.name)]) {
            Ok(tracer) => tracer,
            Err(error) => {
                assert!(may_lack(rung.name), "{error}");
                skip::<()>(&error.to_string());
                continue;
            }
        };
        let mut workload = Workload::start();
        group.set("cgroup.procs", u64::from(workload.pid()));
        assert_eq!(workload.ask(&format!("hogs {KILLS}")), KILLS.to_string());
        let before = tracer.stats().unwrap();
        let mut recorder = Recorder::default();
        tracer.drain(&mut recorder).unwrap();
        let stats = tracer.stats().unwrap();
        assert_eq!((before.produced, before.received), (KILLS, 0), "{}", rung.name);
        assert_eq!(stats.received, (bpf_sys::page_size() / 80) as u64, "{}", rung.name);
        assert_eq!(stats.received + dropped(&mut *tracer, "ring full"), KILLS, "{}", rung.name);
        // By number alone, nobody knows by now whether they were the filter's.
        let gone = dropped(&mut *tracer, "victims gone");
        assert!(gone == 0 || rung.name == "raw_tp" && !kernel_has((6, 8)), "{}: {gone}", rung.name);
        assert_eq!(recorder.logs.len() as u64 + gone, stats.received, "{}", rung.name);
        let told: f64 = recorder
            .numbers
            .iter()
            .filter(|(series, _)| series.metric == "ebpf.oom.kills")
            .map(|(_, n)| n)
            .sum();
        assert_eq!(told as usize, recorder.logs.len(), "{}", rung.name);
    }
}

/// Children of a workload of which a tracer tells, and their page faults.
fn children(recorder: &Recorder, parent: u32) -> (usize, u64) {
    let of_children =
        recorder.numbers.iter().filter(|(s, _)| s.metric == "process.paging.faults" && s.pid != Some(parent));
    let mut pids: Vec<_> = of_children.clone().map(|(series, _)| series.pid).collect();
    pids.dedup();
    (pids.len(), of_children.map(|(_, n)| *n as u64).sum())
}

#[test]
fn threads_that_find_no_room_are_counted() {
    const CHILDREN: u64 = 1300;
    let mut workload = Workload::start();
    let pid = workload.pid();
    let filter = Filter { pids: vec![pid], children: true, ..Filter::default() };
    let mut tracer = start_filtered(filter, 0, &[(FAULT_COUNTS.what, "accounting")]).unwrap();
    collect(&mut *tracer);
    workload.ask(&format!("forks {CHILDREN} 1"));
    let (told, _) = children(&collect(&mut *tracer), pid);
    let lost = dropped(&mut *tracer, "table of ended threads full");
    assert_eq!(told as u64 + lost, CHILDREN);
    assert!(lost > 0 && told >= 1024, "{told} told, {lost} lost");
    // What was taken out makes room again.
    workload.ask("forks 1000 1");
    assert_eq!(children(&collect(&mut *tracer), pid).0, 1000);
    assert_eq!(dropped(&mut *tracer, "table of ended threads full"), lost);
}

#[test]
fn sums_that_find_no_room_are_counted() {
    let mut workload = Workload::start();
    let pid = workload.pid();
    let filter = Filter { pids: vec![pid], children: true, ..Filter::default() };
    let mut tracer = start_filtered(filter, 0, &[(FAULT_COUNTS.what, "perf")]).unwrap();
    collect(&mut *tracer);
    let (minor, major) = two_numbers(&workload.ask("forks 700 3"));
    let (told, counted) = children(&collect(&mut *tracer), pid);
    let stats = tracer.stats().unwrap();
    let of = |why| stats.dropped.iter().find(|(cause, _)| *cause == why).unwrap().1;
    // What the kernel skipped may have been others'.
    let all = counted + of("table full");
    assert!(all <= minor + major && all + of("skipped by the kernel") >= minor + major, "{stats:?}");
    // The parent has a place too.
    assert!(of("table full") > 0 && (510..512).contains(&told), "{told} processes, {stats:?}");
    let (_, used, entries) = stats.map_fill[0];
    assert!(used == entries && entries == 512, "{stats:?}");
}

#[test]
#[ignore = "for another test"]
fn helper_that_runs_out_of_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Some(program) = helper::task() else { return };
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let mut workload = Workload::start_program(Path::new(&program));
    let filter = Filter { pids: vec![workload.pid()], ..Filter::default() };
    let rungs = [(FAULT_COUNTS.what, "accounting"), (STALLS.what, "raw_tp")];
    let mut tracer = start_filtered(filter, 8 << 20, &rungs).unwrap();
    collect(&mut *tracer);
    let all = getrlimit(Resource::Nofile);
    tracer.pause().unwrap();
    let paused = descriptors();
    // Room for some of the programs, but not for all five.
    setrlimit(Resource::Nofile, Rlimit { current: Some(paused as u64 + 2), maximum: all.maximum }).unwrap();
    let refused = tracer.resume().unwrap_err().to_string();
    setrlimit(Resource::Nofile, all).unwrap();
    assert!(!tracer.is_running(), "{refused}");
    assert_eq!(descriptors(), paused, "{refused}");
    workload.ask("threads 3 100");
    tracer.resume().unwrap();
    let before = workload.stat();
    workload.ask("touch 10");
    assert_eq!(faults(&collect(&mut *tracer), workload.pid()), since(workload.stat(), before));
    println!("READY");
}

#[test]
fn what_refuses_to_be_resumed_leaves_nothing_attached() {
    let program = binary();
    let test = "memory::bounds::helper_that_runs_out_of_descriptors";
    let mut helper = Helper::start(test, program.to_str().unwrap());
    helper.go();
    helper.wait_ready();
}

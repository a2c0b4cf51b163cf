//! Kills for want of memory, and stalls before them.

use std::os::unix::process::ExitStatusExt;

use collector::tracer::memory::{OOM, STALLS};

use super::*;

/// Lets a workload run into its cgroup's limit.
fn starve(workload: &mut Workload, group: &Cgroup, tracer: &mut dyn Tracer, recorder: &mut Recorder) {
    group.set("cgroup.procs", u64::from(workload.pid()));
    fs::write(format!("/proc/{}/oom_score_adj", workload.pid()), "77").unwrap();
    workload.tell("hog");
    // Until it has ended, and is still there to be looked at.
    let until = Instant::now() + Duration::from_secs(60);
    let has_ended = || fs::read_to_string(format!("/proc/{}/stat", workload.pid())).unwrap().contains(") Z ");
    while !has_ended() && Instant::now() < until {
        sleep(Duration::from_millis(1));
    }
    tracer.drain(recorder).unwrap();
    let status = workload.child.wait().unwrap();
    assert_eq!(status.signal(), Some(9));
    tracer.collect(recorder).unwrap();
}

#[test]
fn a_kill_for_want_of_memory_names_the_victim() {
    for rung in OOM.rungs {
        let limit = 16 << 20;
        let Some(group) = Cgroup::create("oom", limit) else { return };
        let mut workload = Workload::start();
        let pid = workload.pid();
        let Some(mut tracer) = start_rung(pid, OOM.what, rung.name) else { continue };
        let mut recorder = Recorder::default();
        starve(&mut workload, &group, &mut *tracer, &mut recorder);
        assert_eq!(group.kills(), 1);
        assert_eq!(recorder.number("ebpf.oom.kills", pid, &[]), 1.0, "{}", rung.name);
        assert_eq!(recorder.logs.len(), 1, "{}", rung.name);
        let kill = &recorder.logs[0];
        assert_eq!((kill.name, kill.pid), ("ebpf.oom.kill", Some(pid)));
        assert_eq!(kill.attribute("process.pid"), Some(pid.to_string().as_str()));
        let stats = tracer.stats().unwrap();
        assert_eq!((stats.produced, stats.received), (1, 1), "{}", rung.name);
        if rung.name == "raw_tp" && kill.attribute("ebpf.oom.score_adj").is_none() {
            assert!(!kernel_has((6, 8)), "the kernel gives the task to the tracepoint");
            skip::<()>("details of the victim by raw_tp: the kernel gives its number alone");
            continue;
        }
        let name = binary().file_name().unwrap().to_string_lossy()[..].chars().take(15).collect::<String>();
        assert_eq!(kill.attribute("process.executable.name"), Some(name.as_str()));
        assert_eq!(kill.attribute("ebpf.oom.score_adj"), Some("77"));
        let bytes = |key| kill.attribute(key).unwrap().parse::<u64>().unwrap();
        let anonymous = bytes("ebpf.oom.anon_rss");
        assert!((limit / 2..=limit).contains(&anonymous), "{}: {anonymous}", rung.name);
        assert!(bytes("ebpf.oom.total_vm") > limit, "{}", rung.name);
    }
}

#[test]
fn stalls_at_a_cgroups_limit_are_timed() {
    for rung in STALLS.rungs {
        let Some(group) = Cgroup::create("reclaim", 16 << 20) else { return };
        let mut workload = Workload::start();
        let pid = workload.pid();
        let Some(mut tracer) = start_rung(pid, STALLS.what, rung.name) else { continue };
        let mut recorder = Recorder::default();
        let began = Instant::now();
        starve(&mut workload, &group, &mut *tracer, &mut recorder);
        let stalls = recorder.histogram(
            "ebpf.memory.reclaim.duration",
            pid,
            &[("ebpf.memory.reclaim.scope", "cgroup")],
        );
        assert!(stalls.count() > 0, "{}", rung.name);
        if group.v2 {
            // The kernel counts each time that it reclaims because of the limit.
            assert_eq!(stalls.count(), group.count("memory.events", "max "), "{}", rung.name);
        }
        assert!(stalls.sum_nanos > 0 && u128::from(stalls.sum_nanos) < began.elapsed().as_nanos());
        nothing_lost(&mut *tracer);
    }
}

#[test]
fn kills_are_filtered_by_cgroup_and_name() {
    let name = binary().file_name().unwrap().to_string_lossy().chars().take(15).collect::<String>();
    let killed = |filter: &Filter, group: &Cgroup, rung: &'static str| -> Option<usize> {
        let mut tracer = match start_filtered(filter.clone(), 8 << 20, &[(OOM.what, rung)]) {
            Ok(tracer) => tracer,
            Err(error) => {
                assert!(may_lack(rung), "{error}");
                return skip(&error.to_string());
            }
        };
        let (mut workload, mut recorder) = (Workload::start(), Recorder::default());
        starve(&mut workload, group, &mut *tracer, &mut recorder);
        // Other tests' victims have the same name.
        let kills = recorder.logs.iter().filter(|kill| kill.pid == Some(workload.pid())).count();
        assert_eq!(kills as f64, recorder.number("ebpf.oom.kills", workload.pid(), &[]));
        assert_eq!(dropped(&mut *tracer, "victims gone"), 0, "{rung}");
        Some(kills)
    };
    for rung in OOM.rungs {
        let Some(group) = Cgroup::create("kills", 16 << 20) else { return };
        let Some(other) = Cgroup::create("others", 16 << 20) else { return };
        let in_group = Filter { cgroup: Some(group.directory.clone()), ..Filter::default() };
        let by_name = Filter { comm: Some(name.clone()), ..Filter::default() };
        let by_other_name = Filter { comm: Some("no such name".into()), ..Filter::default() };
        for (filter, group, expected) in [
            (&in_group, &group, 1),
            (&in_group, &other, 0),
            (&by_name, &other, 1),
            (&by_other_name, &other, 0),
        ] {
            let Some(seen) = killed(filter, group, rung.name) else { break };
            assert_eq!(seen, expected, "{} {filter:?}", rung.name);
        }
    }
}

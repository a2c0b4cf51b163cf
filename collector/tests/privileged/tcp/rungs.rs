//! Every rung of every ladder.

use bpf_loader::machine::Machine;
use collector::config::Filter;
use collector::telemetry::Recorder;
use collector::tracer::Tracer;
use collector::tracer::ladder::Ladder;
use collector::tracer::tcp::{self, ACCEPTING, LIVING, OLDER, STATES};

use super::node::{Node, in_namespace};
use super::{bytes, collect_ends, trace};
use crate::kernel_has;

/// Whether the kernel took the rung that was forced. Fails where it should have.
fn has(tracer: &dyn Tracer, ladder: &Ladder, rung: &str) -> bool {
    let chosen = tracer.rungs().iter().find(|chosen| chosen.what == ladder.what).unwrap();
    if chosen.rung == Some(rung) {
        return true;
    }
    let reason = &chosen.refused.first().unwrap().reason;
    crate::skip::<()>(&format!("{}: {rung}: {reason}", ladder.what));
    let since = ladder.rungs.iter().find(|r| r.name == rung).unwrap().since;
    let version = since.split(',').next().unwrap();
    let (major, minor) = version.split_once('.').unwrap();
    let expected = kernel_has((major.parse().unwrap(), minor.parse().unwrap()));
    let missing = match rung {
        // Kernels without trampolines or kprobes.
        "fexit" => reason.contains("EPERM") || !cfg!(target_arch = "x86_64"),
        "kprobe" | "kretprobe" => !std::path::Path::new("/sys/bus/event_source/devices/kprobe").exists(),
        "tracepoint" | "receive tracepoint" | "accept exit" => !has_tracefs(),
        _ => false,
    };
    assert!(!expected || missing, "the kernel has {rung}, and did not take it: {reason}");
    false
}

fn has_tracefs() -> bool {
    ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"]
        .iter()
        .any(|p| std::path::Path::new(p).exists())
}

fn settings() -> tcp::Settings {
    tcp::Settings { spans_per_second: u32::MAX, ..tcp::Settings::default() }
}

#[test]
fn every_rung_of_states_sees_a_connection() {
    for rung in STATES.rungs {
        if rung.name == "tracepoint" && !has_tracefs() {
            crate::skip::<()>("TCP states: tracepoint: no tracefs");
            continue;
        }
        in_namespace(|| {
            let (mut server, mut client) = (Node::new(), Node::new());
            let port = server.ask("listen 127.0.0.1:0 16");
            let pids = [server.pid(), client.pid()];
            let mut tracer = trace(&pids, settings(), 8 << 20, &[(STATES.what, rung.name)]);
            assert!(has(&*tracer, &STATES, rung.name));
            client.does(&format!("connect 127.0.0.1:{port}"));
            server.does("accept");
            client.does("send 1234");
            server.does("receive 1234");
            client.does("close");
            server.does("close");
            assert_eq!(client.ask("connect 127.0.0.1:9"), "111");
            let mut recorder = Recorder::default();
            collect_ends(&mut *tracer, &mut recorder, &[(server.pid(), 1), (client.pid(), 2)]);
            assert_eq!(bytes(&recorder, client.pid()), (1234, 0));
            assert_eq!(bytes(&recorder, server.pid()), (0, 1234));
            assert_eq!(recorder.histogram("ebpf.tcp.connect.duration", client.pid(), &[]).count(), 1);
            let refused = [("error.type", "ECONNREFUSED")];
            assert_eq!(recorder.number("ebpf.tcp.connections", client.pid(), &refused), 1.0);
        });
    }
}

#[test]
fn every_rung_finds_the_process_that_accepts() {
    // With none at all, whose it is shows when it is closed.
    for rung in ACCEPTING.rungs.iter().map(|rung| rung.name).chain([""]) {
        if rung == "accept exit" && Machine::own() != Machine::running() {
            crate::skip::<()>("the kernel's tracepoints of accept do not see 32-bit processes");
            continue;
        }
        in_namespace(|| {
            let (mut server, mut client) = (Node::new(), Node::new());
            let port = server.ask("listen 127.0.0.1:0 16");
            let mut pids = vec![server.pid(), client.pid()];
            let mut tracer = trace(&pids, settings(), 8 << 20, &[(ACCEPTING.what, rung)]);
            if !rung.is_empty() && !has(&*tracer, &ACCEPTING, rung) {
                return;
            }
            // Only now, for a hook of accept does not see calls that had begun before it.
            let workers: Vec<u32> = (0..2).map(|_| server.ask("worker 100 50").parse().unwrap()).collect();
            pids.extend(&workers);
            tracer.set_filter(&Filter { pids, ..Filter::default() }).unwrap();
            let mut recorder = Recorder::default();
            client.does(&format!("connect 127.0.0.1:{port}"));
            client.does("send 60");
            // One of them has accepted it, and waits for more.
            let both = |recorder: &Recorder| {
                let of = workers.iter().map(|pid| bytes(recorder, *pid));
                of.fold((0, 0), |sum, (sent, received)| (sum.0 + sent, sum.1 + received))
            };
            // An emulated machine takes seconds to start them. What must not come is not waited for as long.
            for _ in 0..if rung.is_empty() { 50 } else { 1000 } {
                std::thread::sleep(std::time::Duration::from_millis(20));
                tracer.collect(&mut recorder).unwrap();
                if both(&recorder) == (0, 60) {
                    break;
                }
            }
            // Without a rung, nobody is known to use it yet.
            assert_eq!(both(&recorder), if rung.is_empty() { (0, 0) } else { (0, 60) }, "{rung}");
            client.does("send 40");
            client.does("receive 50");
            client.does("close");
            client.does(&format!("connect 127.0.0.1:{port}"));
            client.does("send 100");
            client.does("receive 50");
            client.does("close");
            let ends = [(workers[0], 1), (workers[1], 1), (client.pid(), 2)];
            collect_ends(&mut *tracer, &mut recorder, &ends);
            for worker in &workers {
                assert_eq!(bytes(&recorder, *worker), (50, 100), "{rung}");
            }
            assert_eq!(recorder.number("ebpf.tcp.connections", server.pid(), &[]), 0.0);
        });
    }
}

#[test]
fn without_iterators_bytes_show_at_the_end() {
    in_namespace(|| {
        let (mut server, mut client) = (Node::new(), Node::new());
        let port = server.ask("listen 127.0.0.1:0 16");
        let pids = [server.pid(), client.pid()];
        let mut tracer = trace(&pids, settings(), 8 << 20, &[(LIVING.what, ""), (OLDER.what, "")]);
        client.does(&format!("connect 127.0.0.1:{port}"));
        server.does("accept");
        client.does("send 10");
        server.does("receive 10");
        let mut recorder = Recorder::default();
        tracer.collect(&mut recorder).unwrap();
        assert_eq!(bytes(&recorder, client.pid()), (0, 0));
        client.does("close");
        server.does("close");
        collect_ends(&mut *tracer, &mut recorder, &[(server.pid(), 1), (client.pid(), 1)]);
        assert_eq!(bytes(&recorder, client.pid()), (10, 0));
    });
}

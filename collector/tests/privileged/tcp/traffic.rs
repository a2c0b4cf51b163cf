//! Bytes, durations, round-trip times.

use collector::telemetry::Recorder;
use collector::tracer::Tracer;
use collector::tracer::tcp::{self, LIVING, OLDER};

use super::node::{Node, in_namespace};
use super::{bytes, collect_ends, counter, dropped, skipped, spans, trace, trace_all};

#[test]
fn known_bytes_flow_both_ways() {
    // What the server listens on, what the client connects to, and the peer that both see.
    for (listen, connect, kind, address) in [
        ("127.0.0.1", "127.0.0.1", "ipv4", "127.0.0.1"),
        ("[::1]", "[::1]", "ipv6", "::1"),
        // IPv4 in IPv6: at the server, and at both.
        ("[::]", "127.0.0.1", "ipv4", "127.0.0.1"),
        ("[::]", "[::ffff:127.0.0.1]", "ipv4", "127.0.0.1"),
    ] {
        in_namespace(|| {
            let (mut server, mut client) = (Node::new(), Node::new());
            let port = server.ask(&format!("listen {listen}:0 16"));
            let mut tracer = trace_all(&[server.pid(), client.pid()]);
            client.does(&format!("connect {connect}:{port}"));
            server.does("accept");
            client.tell("send 300000");
            server.does("receive 300000");
            assert_eq!(client.answer(), "0");
            server.does("send 70001");
            client.does("receive 70001");
            client.does("close");
            server.does("close");
            let mut recorder = Recorder::default();
            collect_ends(&mut *tracer, &mut recorder, &[(server.pid(), 1), (client.pid(), 1)]);

            assert_eq!(bytes(&recorder, client.pid()), (300_000, 70_001), "{kind}");
            assert_eq!(bytes(&recorder, server.pid()), (70_001, 300_000), "{kind}");
            // On a busy machine, even loopback's answers come late.
            let retransmits =
                |pid: u32, role| recorder.number("ebpf.tcp.retransmits", pid, &[("ebpf.tcp.role", role)]);
            let both = retransmits(client.pid(), "client") + retransmits(server.pid(), "server");
            assert_eq!(both, counter("snmp", "Tcp:", "RetransSegs") as f64);
            for (pid, role, connects) in [(client.pid(), "client", 1), (server.pid(), "server", 0)] {
                let role = [("ebpf.tcp.role", role)];
                assert_eq!(recorder.number("ebpf.tcp.connections", pid, &role), 1.0);
                assert_eq!(recorder.histogram("ebpf.tcp.connect.duration", pid, &role).count(), connects);
                assert_eq!(recorder.histogram("ebpf.tcp.connection.duration", pid, &role).count(), 1);
                assert!(recorder.histogram("ebpf.tcp.rtt", pid, &role).count() >= 1);
                let spans = spans(&recorder, pid);
                assert_eq!(spans.len(), 1);
                assert_eq!(spans[0].attribute("network.type"), Some(kind));
                assert_eq!(spans[0].attribute("network.peer.address"), Some(address));
                assert_eq!(spans[0].attribute("network.local.address"), Some(address));
                assert_eq!(spans[0].text, None);
                assert!(spans[0].boot_nanos.0 < spans[0].boot_nanos.1);
            }
            assert_eq!(spans(&recorder, client.pid())[0].attribute("network.peer.port"), Some(&*port));
            assert_eq!(spans(&recorder, server.pid())[0].attribute("network.local.port"), Some(&*port));
            assert_eq!(spans(&recorder, client.pid())[0].attribute("ebpf.tcp.bytes.sent"), Some("300000"));
            assert_eq!(tracer.stats().unwrap().total_dropped(), 0);
        });
    }
}

/// Whether the kernel has the rung; `sock_diag` may be a module that is not there, and a kernel that is locked down may refuse `iterator`.
fn has_living(tracer: &dyn Tracer, rung: &str) -> bool {
    let chosen = tracer.rungs().iter().find(|chosen| chosen.what == LIVING.what).unwrap();
    let no_module = chosen.refused.iter().any(|refused| refused.reason.contains("ENOENT"));
    if rung == "sock_diag" && no_module {
        crate::skip::<()>("no module tcp_diag");
        return false;
    }
    let forbidden = chosen.refused.iter().any(|refused| refused.reason.contains("EPERM"));
    if rung == "iterator" && forbidden && crate::is_locked_down() {
        crate::skip::<()>("this kernel, locked down, refuses iterators over maps");
        return false;
    }
    assert_eq!(chosen.rung, Some(rung), "{chosen:?}");
    true
}

#[test]
fn a_living_connection_is_seen_before_it_ends() {
    for (rung, address) in [("iterator", "127.0.0.1"), ("sock_diag", "127.0.0.1"), ("sock_diag", "[::1]")] {
        see_a_living_connection(rung, address);
    }
}

fn see_a_living_connection(rung: &str, address: &str) {
    in_namespace(|| {
        let (mut server, mut client) = (Node::new(), Node::new());
        let port = server.ask(&format!("listen {address}:0 16"));
        let settings = tcp::Settings { spans_per_second: u32::MAX, ..tcp::Settings::default() };
        let pids = [server.pid(), client.pid()];
        let mut tracer = trace(&pids, settings, 8 << 20, &[(LIVING.what, rung)]);
        if !has_living(&*tracer, rung) {
            return;
        }
        let mut recorder = Recorder::default();
        client.does(&format!("connect {address}:{port}"));
        server.does("accept");
        let (mut sent, mut answered) = (0, 0);
        for (request, answer) in [(1000, 2000), (5, 0), (0, 77), (100_000, 1)] {
            client.tell(&format!("send {request}"));
            server.does(&format!("receive {request}"));
            assert_eq!(client.answer(), "0");
            server.does(&format!("send {answer}"));
            client.does(&format!("receive {answer}"));
            (sent, answered) = (sent + request, answered + answer);
            // The last acknowledgement may be delayed.
            std::thread::sleep(std::time::Duration::from_millis(300));
            tracer.collect(&mut recorder).unwrap();
            assert_eq!(bytes(&recorder, client.pid()), (sent, answered), "{rung}");
            assert_eq!(bytes(&recorder, server.pid()), (answered, sent), "{rung}");
            assert_eq!(recorder.number("ebpf.tcp.connections", client.pid(), &[]), 0.0);
            assert!(recorder.histogram("ebpf.tcp.rtt", client.pid(), &[]).count() >= 1);
        }
        let segments = |direction| {
            let attributes = [("network.io.direction", direction), ("ebpf.tcp.role", "client")];
            recorder.number("ebpf.tcp.segments", client.pid(), &attributes) as u64
        };
        compare_with_ss(&port, sent, answered, (segments("transmit"), segments("receive")));
        // Pausing loses what comes meanwhile, and counts nothing twice.
        crate::pause(&mut *tracer);
        assert!(!tracer.is_running());
        client.does("send 500");
        server.does("receive 500");
        // Until it is acknowledged, which may be delayed.
        std::thread::sleep(std::time::Duration::from_millis(300));
        tracer.resume().unwrap();
        client.does("send 30");
        server.does("receive 30");
        server.does("close");
        client.does("close");
        std::thread::sleep(std::time::Duration::from_millis(300));
        collect_ends(&mut *tracer, &mut recorder, &[(server.pid(), 1), (client.pid(), 1)]);
        assert_eq!(bytes(&recorder, client.pid()), (sent + 30, answered));
        assert_eq!(bytes(&recorder, server.pid()), (answered, sent + 30));
        assert_eq!(
            recorder.number("ebpf.tcp.connections", server.pid(), &[("ebpf.tcp.role", "server")]),
            1.0
        );
        assert_eq!(
            recorder.number("ebpf.tcp.connections", client.pid(), &[("ebpf.tcp.role", "client")]),
            1.0
        );
    });
}

/// The client's socket as iproute2 shows it. To TCP, its SYN is a byte.
fn compare_with_ss(port: &str, sent: u64, received: u64, segments: (u64, u64)) {
    let Ok(ss) = std::process::Command::new("ss").args(["-tinH", "dport", "=", port]).output() else {
        crate::skip::<()>("no ss to compare with");
        return;
    };
    let text = String::from_utf8(ss.stdout).unwrap();
    let value =
        |key: &str| text.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
    assert_eq!(value("bytes_acked:"), Some(sent + 1), "{text}");
    assert_eq!(value("bytes_received:"), Some(received), "{text}");
    assert_eq!((value("segs_out:"), value("segs_in:")), (Some(segments.0), Some(segments.1)), "{text}");
}

#[test]
fn connections_from_before_are_counted_from_then_on() {
    in_namespace(|| {
        let (mut server, mut client) = (Node::new(), Node::new());
        let port = server.ask("listen 127.0.0.1:0 16");
        client.does(&format!("connect 127.0.0.1:{port}"));
        server.does("accept");
        client.does("send 1000");
        server.does("receive 1000");
        let mut tracer = trace_all(&[server.pid(), client.pid()]);
        let mut recorder = Recorder::default();
        client.does("send 10");
        server.does("receive 10");
        server.does("send 20");
        client.does("receive 20");
        client.does("close");
        server.does("close");
        collect_ends(&mut *tracer, &mut recorder, &[(server.pid(), 1), (client.pid(), 1)]);
        assert_eq!(bytes(&recorder, client.pid()), (10, 20));
        assert_eq!(bytes(&recorder, server.pid()), (20, 10));
        assert_eq!(
            recorder.number("ebpf.tcp.connections", server.pid(), &[("ebpf.tcp.role", "server")]),
            1.0
        );
        assert_eq!(
            recorder.number("ebpf.tcp.connections", client.pid(), &[("ebpf.tcp.role", "client")]),
            1.0
        );
    });
}

#[test]
fn a_storm_loses_spans_alone_and_counts_them() {
    const CONNECTIONS: u64 = 1000;
    // Spans in a second; the rest is to find no room in the ring, or be beyond the rate.
    for (spans_per_second, beyond) in [(u32::MAX, "ring full"), (10, "span rate")] {
        in_namespace(|| {
            let (mut server, mut client) = (Node::new(), Node::new());
            let port = server.ask("listen 127.0.0.1:0 16");
            let settings = tcp::Settings { spans_per_second, ..tcp::Settings::default() };
            let mut tracer = trace(&[server.pid(), client.pid()], settings, 64 << 10, &[]);
            server.tell(&format!("serve {CONNECTIONS}"));
            client.does(&format!("storm {CONNECTIONS} 127.0.0.1:{port}"));
            assert_eq!(server.answer(), "0");
            let mut recorder = Recorder::default();
            let expected = [(server.pid(), CONNECTIONS), (client.pid(), CONNECTIONS)];
            collect_ends(&mut *tracer, &mut recorder, &expected);
            let skipped = skipped(&mut *tracer);
            let all = |total: u64, seen: u64| {
                assert!((total - skipped..=total).contains(&seen), "{seen} of {total}")
            };
            for (sent, received) in [&client, &server].map(|node| bytes(&recorder, node.pid())) {
                all(CONNECTIONS, sent);
                all(CONNECTIONS, received);
            }
            let stats = tracer.stats().unwrap();
            let dropped =
                |cause| stats.dropped.iter().find(|(name, _)| *name == cause).map(|(_, n)| *n).unwrap();
            assert_eq!(stats.produced, stats.received + dropped("ring full"));
            all(2 * CONNECTIONS, stats.produced + dropped("span rate"));
            assert_eq!(stats.received, recorder.spans.len() as u64);
            assert!(dropped(beyond) > CONNECTIONS, "{stats:?}");
            assert!(stats.received >= 10, "{stats:?}");
            let told = dropped("ring full") + dropped("span rate") + dropped("skipped by the kernel");
            assert_eq!(stats.total_dropped(), told, "{stats:?}");
        });
    }
}

#[test]
fn peers_have_series_of_their_own_up_to_a_bound() {
    for rung in ["iterator", "sock_diag"] {
        tell_peers_apart(rung);
    }
}

fn tell_peers_apart(rung: &str) {
    in_namespace(|| {
        let mut client = Node::new();
        let mut servers: Vec<(Node, String)> = Vec::new();
        for _ in 0..3 {
            let mut server = Node::new();
            let port = server.ask("listen 127.0.0.1:0 16");
            servers.push((server, port));
        }
        let settings = tcp::Settings { peers: 2, ..tcp::Settings::default() };
        let mut tracer = trace(&[client.pid()], settings, 8 << 20, &[(LIVING.what, rung)]);
        if !has_living(&*tracer, rung) {
            return;
        }
        let mut recorder = Recorder::default();
        for (at, (server, port)) in servers.iter_mut().enumerate() {
            client.does(&format!("connect 127.0.0.1:{port}"));
            server.does("accept");
            client.does(&format!("send {}", 100 + at));
            server.does(&format!("receive {}", 100 + at));
        }
        // Part of it while they live, the rest when they end.
        tracer.collect(&mut recorder).unwrap();
        let sent = [("network.io.direction", "transmit"), ("network.peer.port", &*servers[1].1)];
        assert_eq!(recorder.number("process.network.io", client.pid(), &sent), 101.0, "{rung}");
        for (at, (server, _)) in servers.iter_mut().enumerate().rev() {
            server.does(&format!("send {}", 10 + at));
            client.does(&format!("receive {}", 10 + at));
            client.does("close");
            server.does("close");
        }
        collect_ends(&mut *tracer, &mut recorder, &[(client.pid(), 3)]);
        let of = |metric: &str, port: &str, direction: Option<&str>| {
            let mut attributes = vec![("network.peer.port", port), ("network.peer.address", "127.0.0.1")];
            attributes.extend(direction.map(|direction| ("network.io.direction", direction)));
            recorder.number(metric, client.pid(), &attributes)
        };
        let ports = |metric: &str, direction| -> Vec<f64> {
            servers.iter().map(|(_, port)| of(metric, port, direction)).collect()
        };
        assert_eq!(ports("ebpf.tcp.connections", None), [1.0, 1.0, 0.0]);
        assert_eq!(ports("process.network.io", Some("transmit")), [100.0, 101.0, 0.0]);
        assert_eq!(ports("process.network.io", Some("receive")), [10.0, 11.0, 0.0]);
        assert_eq!(bytes(&recorder, client.pid()), (100 + 101 + 102, 10 + 11 + 12));
        assert!(
            ports("ebpf.tcp.segments", Some("transmit"))
                .iter()
                .zip([true, true, false])
                .all(|(n, own)| (*n >= 4.0) == own)
        );
        assert_eq!(dropped(&mut *tracer, "peers full"), 1);
        // Nobody talks to the first two any more, so there is room for the third.
        let (server, port) = &mut servers[2];
        client.does(&format!("connect 127.0.0.1:{port}"));
        server.does("accept");
        client.does("close");
        server.does("close");
        let mut recorder = Recorder::default();
        collect_ends(&mut *tracer, &mut recorder, &[(client.pid(), 1)]);
        let attributes = [("network.peer.port", port.as_str())];
        assert_eq!(recorder.number("ebpf.tcp.connections", client.pid(), &attributes), 1.0);
        assert_eq!(dropped(&mut *tracer, "peers full"), 1);
    });
}

#[test]
fn peers_of_servers_have_a_bound_and_their_bytes_count_once() {
    for rung in ["iterator", "sock_diag"] {
        tell_servers_peers_apart(rung);
    }
}

fn tell_servers_peers_apart(rung: &str) {
    in_namespace(|| {
        let (mut server, mut client) = (Node::new(), Node::new());
        let port = server.ask("listen [::]:0 16");
        let settings = tcp::Settings { peers: 1, ..tcp::Settings::default() };
        let mut tracer = trace(&[server.pid()], settings, 8 << 20, &[(LIVING.what, rung)]);
        if !has_living(&*tracer, rung) {
            return;
        }
        let mut recorder = Recorder::default();
        let addresses = [("127.0.0.1", 100), ("[::1]", 101)];
        for (address, bytes) in addresses {
            client.does(&format!("connect {address}:{port}"));
            server.does("accept");
            client.does(&format!("send {bytes}"));
            server.does(&format!("receive {bytes}"));
            // The iterator decides whose peer has room, and goes through connections in any order.
            tracer.collect(&mut recorder).unwrap();
        }
        assert_eq!(bytes(&recorder, server.pid()), (0, 201), "{rung}");
        for _ in addresses {
            client.does("close");
            server.does("close");
        }
        collect_ends(&mut *tracer, &mut recorder, &[(server.pid(), 2)]);
        assert_eq!(bytes(&recorder, server.pid()), (0, 201), "{rung}");
        let received = |address: &str| {
            let attributes = [("network.io.direction", "receive"), ("network.peer.address", address)];
            recorder.number("process.network.io", server.pid(), &attributes)
        };
        assert_eq!((received("127.0.0.1"), received("::1")), (100.0, 0.0), "{rung}");
        assert_eq!(dropped(&mut *tracer, "peers full"), 1);
    });
}

/// Ends that are noted of connections that found no room would take it from later ones for ever.
#[test]
fn connections_without_room_leave_nothing_behind() {
    // The least that the table of connections has; both ends of each are in it.
    const ROOM: u64 = 1024;
    const PENDING: u64 = 400;
    in_namespace(|| {
        let (mut server, mut client) = (Node::new(), Node::new());
        let (mut full, mut pending) = (Node::new(), Node::new());
        let port = server.ask("listen 127.0.0.1:0 16");
        let full_port = full.ask("listen 127.0.0.1:0 0");
        let mut tracer =
            trace(&[], tcp::Settings::default(), 0, &[(LIVING.what, "sock_diag"), (OLDER.what, "")]);
        if !has_living(&*tracer, "sock_diag") {
            return;
        }
        let mut recorder = Recorder::default();
        // Connections that are not established have a place among connections, but no ends yet.
        for _ in 0..PENDING {
            pending.ask(&format!("connect-start 127.0.0.1:{full_port}"));
        }
        let open = |n: u64, server: &mut Node, client: &mut Node| {
            for _ in 0..n {
                client.does(&format!("connect 127.0.0.1:{port}"));
                server.does("accept");
            }
        };
        open(ROOM / 2, &mut server, &mut client);
        let not_followed = dropped(&mut *tracer, "too many at once");
        assert!((PENDING - 2..PENDING + 100).contains(&not_followed), "{not_followed}");
        for _ in 0..PENDING {
            pending.does("close");
        }
        for _ in 0..ROOM / 2 {
            client.does("close");
            server.does("close");
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
        // So that later ones are not at the same addresses.
        pending.does(&format!("idle {}", 4 * ROOM));
        tracer.collect(&mut recorder).unwrap();
        // All but those of others on this machine.
        open(ROOM / 2 - 50, &mut server, &mut client);
        client.does("send 7");
        server.does("receive 7");
        std::thread::sleep(std::time::Duration::from_millis(100));
        let mut recorder = Recorder::default();
        tracer.collect(&mut recorder).unwrap();
        assert_eq!(bytes(&recorder, client.pid()), (7, 0));
        assert_eq!(dropped(&mut *tracer, "too many at once"), not_followed);
    });
}

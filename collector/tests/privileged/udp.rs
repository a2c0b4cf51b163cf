//! UDP's bytes, datagrams and drops, against a process that knows what it sends and receives.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use collector::telemetry::Recorder;
use collector::tracer::udp::{self, DATAGRAMS, DROPS, FULL_SOCKETS, NETWORK_IO, TRAFFIC};
use collector::tracer::{Settings, Tracer};

use crate::helper::{self, Helper};
use crate::{kernel_has, skip};

/// Sizes of the datagrams that each socket sends, one of them empty.
const SIZES: [usize; 6] = [0, 1, 100, 1472, 9000, 60000];

/// Not a test of its own: what the others look at.
#[test]
#[ignore = "run by other tests"]
fn helper_that_sends() {
    let Some(what) = helper::task() else { return };
    match what.as_str() {
        "drops" => return drop_some(),
        "again" => return use_addresses_again(),
        _ => {}
    }
    let mut buffer = vec![0; 65536];
    let pairs = [
        // Unconnected and connected, of both families, and IPv4 through an IPv6 socket.
        (
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
        ),
        (
            UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap(),
            UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap(),
        ),
        (
            UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap(),
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
        ),
    ];
    for (i, (from, to)) in pairs.iter().enumerate() {
        let mut address = to.local_addr().unwrap();
        if i == 2 {
            address = (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), address.port()).into();
        }
        for size in SIZES {
            assert_eq!(from.send_to(&buffer[..size], address).unwrap(), size);
            // Looking at a datagram is not receiving it.
            assert_eq!(to.peek(&mut buffer).unwrap(), size);
            assert_eq!(to.recv(&mut buffer).unwrap(), size);
        }
        from.connect(address).unwrap();
        for size in SIZES {
            assert_eq!(from.send(&buffer[..size]).unwrap(), size);
            assert_eq!(to.recv(&mut buffer).unwrap(), size);
        }
        // What fails is not sent.
        assert!(from.send(&vec![0; 70000]).is_err());
    }
    println!("READY");
    sleep(Duration::from_secs(600));
}

/// More than a receive buffer holds; what was lost is what did not arrive.
fn drop_some() {
    let to = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let from = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let sent = 2000;
    for _ in 0..sent {
        from.send_to(&[7; 1000], to.local_addr().unwrap()).unwrap();
    }
    to.set_nonblocking(true).unwrap();
    let mut received = 0;
    while to.recv(&mut [0; 2000]).is_ok() {
        received += 1;
    }
    assert!(received < sent);
    println!("{} dropped\nREADY", sent - received);
    sleep(Duration::from_secs(600));
}

/// Sockets that dropped datagrams and are gone, and others after them that did not.
fn use_addresses_again() {
    let from = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let sockets = || -> Vec<UdpSocket> {
        (0..100).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect()
    };
    let full = sockets();
    for to in &full {
        rustix::net::sockopt::set_socket_recv_buffer_size(to, 1).unwrap();
        for _ in 0..10 {
            from.send_to(&[7; 1000], to.local_addr().unwrap()).unwrap();
        }
    }
    drop(full);
    // The kernel lets go of their memory a moment later.
    sleep(Duration::from_millis(300));
    let others = sockets();
    for to in &others {
        from.send_to(&[7], to.local_addr().unwrap()).unwrap();
        to.recv(&mut [0]).unwrap();
    }
    println!("READY");
    sleep(Duration::from_secs(600));
}

fn start(pid: u32, rungs: &[(&str, &str)]) -> Option<Box<dyn Tracer>> {
    let rung = rungs[0].1;
    let started = crate::start(&udp::INFO, pid, &Settings::default(), rungs)?;
    match started {
        Ok(tracer) => Some(tracer),
        Err(error) if rung == "fexit" && !kernel_has((5, 13)) => skip(&format!("udp by fexit: {error}")),
        // Trampolines and kprobes can be missing from any kernel; tracepoints not.
        Err(error)
            if matches!(rung, "fexit" | "kprobe" | "kretprobe") && !crate::has_trampolines_and_kprobes() =>
        {
            skip(&format!("udp by {rung}: {error}"))
        }
        Err(error) if matches!(rung, "tp_btf" | "raw_tp") && !kernel_has((6, 3)) => {
            skip(&format!("udp by {rung}: {error}"))
        }
        Err(error) => panic!("{rung}: {error}"),
    }
}

#[test]
fn payload_is_counted_once_whatever_the_socket() {
    for rung in TRAFFIC.rungs {
        let mut helper = Helper::start("udp::helper_that_sends", "traffic");
        let Some(mut tracer) = start(helper.pid(), &[(TRAFFIC.what, rung.name)]) else { continue };
        helper.go();
        helper.wait_ready();
        let mut recorder = Recorder::default();
        tracer.collect(&mut recorder).unwrap();
        let bytes = 3 * 2 * SIZES.iter().sum::<usize>() as u64;
        let calls = 3 * 2 * SIZES.len() as u64;
        for direction in ["transmit", "receive"] {
            let attributes = [("network.io.direction", direction)];
            let number =
                |metric: &str, attributes: &[_]| recorder.number(metric, helper.pid(), attributes) as u64;
            let of_udp = [attributes[0], ("network.transport", "udp")];
            assert_eq!(number(NETWORK_IO.name, &of_udp), bytes, "{} {direction}", rung.name);
            assert_eq!(number(DATAGRAMS.name, &attributes), calls, "{} {direction}", rung.name);
        }
        assert!(recorder.numbers.keys().all(|series| series.pid == Some(helper.pid())));
        // The window is empty now, and while it is detached nothing is counted.
        let mut again = Recorder::default();
        crate::pause(&mut *tracer);
        tracer.collect(&mut again).unwrap();
        assert!(again.numbers.is_empty() && !tracer.is_running(), "{}", rung.name);
        tracer.resume().unwrap();
        let stats = tracer.stats().unwrap();
        assert_eq!(stats.total_dropped(), 0);
        assert!(stats.hits >= 2 * calls);
        eprintln!("udp by {}: {bytes} bytes and {calls} datagrams each way", rung.name);
    }
}

#[test]
fn datagrams_that_find_no_room_are_the_receivers() {
    for rung in FULL_SOCKETS.rungs {
        let mut helper = Helper::start("udp::helper_that_sends", "drops");
        let started =
            crate::start(&udp::INFO, helper.pid(), &Settings::default(), &[(FULL_SOCKETS.what, rung.name)]);
        let Some(started) = started else { continue };
        let mut tracer = started.unwrap_or_else(|error| panic!("{}: {error}", rung.name));
        helper.go();
        let said = helper.wait_ready();
        let dropped = said.lines().find_map(|line| line.strip_suffix(" dropped")).unwrap();
        let mut recorder = Recorder::default();
        tracer.collect(&mut recorder).unwrap();
        let counted = recorder.number(DROPS.name, helper.pid(), &[]);
        assert_eq!(counted.to_string(), dropped.rsplit(' ').next().unwrap(), "{}", rung.name);
        assert_eq!(
            recorder.number(DATAGRAMS.name, helper.pid(), &[("network.io.direction", "transmit")]),
            2000.0
        );
        eprintln!("udp drops by {}: {counted}", rung.name);
    }
}

#[test]
fn what_a_socket_dropped_is_not_told_of_the_next_at_its_address() {
    for rung in FULL_SOCKETS.rungs {
        let mut helper = Helper::start("udp::helper_that_sends", "again");
        let started =
            crate::start(&udp::INFO, helper.pid(), &Settings::default(), &[(FULL_SOCKETS.what, rung.name)]);
        let Some(started) = started else { continue };
        let mut tracer = started.unwrap_or_else(|error| panic!("{}: {error}", rung.name));
        helper.go();
        helper.wait_ready();
        let mut recorder = Recorder::default();
        tracer.collect(&mut recorder).unwrap();
        let received = [("network.io.direction", "receive")];
        assert_eq!(recorder.number(DATAGRAMS.name, helper.pid(), &received), 100.0, "{}", rung.name);
        assert_eq!(recorder.number(DROPS.name, helper.pid(), &[]), 0.0, "{}", rung.name);
    }
}

//! DNS lookups, against a server whose answers and delays are known.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf_loader::target::RunningTarget;
use collector::config::Filter;
use collector::telemetry::Recorder;
use collector::tracer::dns::{self, LOOKUP, LOOKUP_DURATION, MESSAGES};
use collector::tracer::ladder::Forced;
use collector::tracer::{Settings, Start, Tracer, cause};

use crate::helper::{self, Helper};

/// Where the server is: the only port that is looked at, of an address that nobody else uses.
const V4: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 53);
/// How long the server takes.
const DELAY: Duration = Duration::from_millis(30);
/// Queries that are more than a small ring holds.
const STORM: u16 = 3000;
/// Queries to a silent server, more than may wait in little memory.
const OUTAGE: u16 = 600;
/// How many may.
const MAY_WAIT: u16 = 512;
/// When they are given up, and how many are asked then.
const OUTAGE_SECONDS: u64 = 8;
const AFTER_OUTAGE: u16 = 100;
/// When an answer is too late.
const LATE: Duration = Duration::from_millis(5500);

/// A query for an address.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = [id, 0x0100, 1, 0, 0, 0].iter().flat_map(|n: &u16| n.to_be_bytes()).collect();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// The answer to a query, and after how long; `None`: there is none.
fn answer(query: &[u8]) -> Option<(Vec<u8>, Duration)> {
    let label = query[13..13 + usize::from(query[12])].to_ascii_lowercase();
    let (code, delay) = match label.as_slice() {
        b"missing" => (3, DELAY),
        b"broken" => (2, DELAY),
        b"silent" => return None,
        b"late" => (0, LATE),
        _ => (0, DELAY),
    };
    let mut answer = query.to_vec();
    (answer[2], answer[3]) = (0x81, 0x80 | code);
    Some((answer, delay))
}

fn serve(socket: UdpSocket) {
    let mut buffer = [0; 600];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
        if length < 12 {
            return;
        }
        let Some((answer, delay)) = answer(&buffer[..length]) else { continue };
        let socket = socket.try_clone().unwrap();
        std::thread::spawn(move || {
            sleep(delay);
            let _ = socket.send_to(&answer, from);
        });
    }
}

fn serve_tcp(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut length = [0; 2];
    if stream.read_exact(&mut length).is_err() {
        return;
    }
    let mut query = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut query).unwrap();
    let (answer, delay) = answer(&query).unwrap();
    sleep(delay);
    stream.write_all(&[&length[..], &answer].concat()).unwrap();
}

fn ask(socket: &UdpSocket, to: Option<SocketAddr>, id: u16, name: &str) {
    let query = query(id, name);
    let sent = to.map_or_else(|| socket.send(&query), |to| socket.send_to(&query, to));
    assert_eq!(sent.unwrap(), query.len());
}

/// Not a test of its own: what the others look at.
#[test]
#[ignore = "run by other tests"]
fn helper_that_asks() {
    let Some(what) = helper::task() else { return };
    let v4 = SocketAddr::from((V4, 53));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut took = Duration::ZERO;
    let mut buffer = [0; 600];
    let mut wait = |socket: &UdpSocket, start: Instant| {
        socket.recv(&mut buffer).unwrap();
        took += start.elapsed();
    };
    if what == "storm" {
        for id in 0..STORM {
            ask(&socket, Some(v4), id, "silent.test");
        }
        println!("READY");
        return sleep(Duration::from_secs(600));
    }
    if what == "outage" {
        for (queries, then) in [(OUTAGE, OUTAGE_SECONDS), (AFTER_OUTAGE, 0)] {
            for id in 0..queries {
                ask(&socket, Some(v4), id, "silent.test");
                // The ring is small.
                sleep(Duration::from_millis(1));
            }
            sleep(Duration::from_secs(then));
        }
        println!("READY");
        return sleep(Duration::from_secs(600));
    }
    if what == "once" {
        ask(&socket, Some(v4), 1, "once.test");
        wait(&socket, Instant::now());
        println!("READY");
        return sleep(Duration::from_secs(600));
    }
    // These two are waited for by nobody.
    ask(&socket, Some(v4), 1, "silent.test");
    let late = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    ask(&late, Some(v4), 2, "late.test");
    // Not connected, and asked twice, which is one lookup.
    let start = Instant::now();
    ask(&socket, Some(v4), 3, "works.test");
    ask(&socket, Some(v4), 3, "works.test");
    wait(&socket, start);
    // Connected, and of letters of any case.
    let connected = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    connected.connect(v4).unwrap();
    let start = Instant::now();
    ask(&connected, None, 4, "WORKS.test");
    wait(&connected, start);
    let v6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let start = Instant::now();
    ask(&v6, Some((Ipv6Addr::LOCALHOST, 53).into()), 5, "works.test");
    wait(&v6, start);
    // Two at once on one socket.
    for (id, name) in [(6, "missing.test"), (7, "missing.test"), (8, "broken.test")] {
        ask(&connected, None, id, name);
    }
    for _ in 0..3 {
        wait(&connected, Instant::now());
    }
    let mut tcp = TcpStream::connect(v4).unwrap();
    let query = query(9, "stream.test");
    tcp.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat()).unwrap();
    tcp.read_exact(&mut vec![0; query.len() + 2]).unwrap();
    // Until the late answer is there too.
    late.recv(&mut [0; 600]).unwrap();
    println!("{} us\nREADY", took.as_micros());
    sleep(Duration::from_secs(600));
}

/// The server's sockets; asking them something of no sense ends it.
fn bind() -> (UdpSocket, UdpSocket, TcpListener) {
    let v4 = UdpSocket::bind((V4, 53)).unwrap();
    (v4, UdpSocket::bind((Ipv6Addr::LOCALHOST, 53)).unwrap(), TcpListener::bind((V4, 53)).unwrap())
}

#[test]
fn lookups_are_told_by_name_outcome_and_process() {
    let mut helper = Helper::start("dns::helper_that_asks", "much");
    let mut other = Helper::start("dns::helper_that_asks", "once");
    let rungs = [(MESSAGES.what, "cgroup_skb")];
    let Some(started) = crate::start(&dns::INFO, helper.pid(), &Settings::default(), &rungs) else { return };
    let mut tracer: Box<dyn Tracer> = started.unwrap();
    let (v4, v6, tcp) = bind();
    let (v4_end, v6_end) = (v4.local_addr().unwrap(), v6.local_addr().unwrap());
    let mut recorder = Recorder::default();
    let said = std::thread::scope(|scope| {
        scope.spawn(move || serve(v4));
        scope.spawn(move || serve(v6));
        scope.spawn(|| serve_tcp(&tcp));
        helper.go();
        other.go();
        let said = helper.wait_ready();
        other.wait_ready();
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().send_to(&[0], v4_end).unwrap();
        UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap().send_to(&[0], v6_end).unwrap();
        said
    });
    tracer.collect(&mut recorder).unwrap();

    let name = |name| ("dns.question.name", name);
    let count = |attributes: &[_]| recorder.histogram(LOOKUP_DURATION.name, helper.pid(), attributes).count();
    let expected = [
        ("works.test", None, 3),
        ("missing.test", Some("NXDOMAIN"), 2),
        ("broken.test", Some("SERVFAIL"), 1),
        ("silent.test", Some("timeout"), 1),
        ("late.test", Some("timeout"), 1),
        ("stream.test", None, 1),
    ];
    for (asked, error, lookups) in expected {
        let error: Vec<_> = error.map(|error| ("error.type", error)).into_iter().collect();
        assert_eq!(count(&[&[name(asked)], &error[..]].concat()), lookups, "{asked}");
        assert_eq!(count(&[name(asked)]), lookups, "{asked}, however it ended");
    }
    assert_eq!(count(&[]), 9);
    assert!(recorder.histograms.keys().all(|series| series.pid == Some(helper.pid())));
    // As long as the client and the server say: the client looks at its clock before and after.
    let took: u64 = said
        .lines()
        .find_map(|line| line.strip_suffix(" us"))
        .unwrap()
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let works = recorder.histogram(LOOKUP_DURATION.name, helper.pid(), &[name("works.test")]);
    assert!(works.sum_nanos >= 3 * DELAY.as_nanos() as u64, "{works:?}");
    assert!(works.sum_nanos < took * 1000, "{works:?}, {took} us");

    let spans: Vec<_> = recorder.spans.iter().filter(|span| span.name == LOOKUP.name).collect();
    assert_eq!(spans.len(), 9);
    let stream =
        spans.iter().find(|span| span.attribute("dns.question.name") == Some("stream.test")).unwrap();
    assert_eq!(stream.attribute("network.transport"), Some("tcp"));
    assert_eq!(stream.attribute("network.peer.address"), Some("127.77.0.53"));
    assert_eq!(stream.attribute("ebpf.dns.question.type"), Some("A"));
    assert!(spans.iter().any(|span| span.attribute("network.peer.address") == Some("::1")));

    let stats = tracer.stats().unwrap();
    // Queries, one of them asked twice, and the first answer to each but the silent one. Nothing of the other process.
    assert_eq!((stats.produced, stats.received), (10 + 8, 18));
    assert_eq!(stats.total_dropped(), 0, "{:?}", stats.dropped);
    crate::pause(&mut *tracer);
    assert!(!tracer.is_running());
    let hits = tracer.stats().unwrap().hits;
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().send_to(&query(1, "a.test"), v4_end).unwrap();
    assert_eq!(tracer.stats().unwrap().hits, hits);
    tracer.resume().unwrap();
    eprintln!("dns: {} lookups, {} packets looked at", count(&[]), stats.hits);
}

#[test]
fn what_overflows_a_ring_is_counted() {
    if !crate::is_root() {
        crate::skip::<()>("dns: needs root");
        return;
    }
    let server = UdpSocket::bind((Ipv4Addr::new(127, 77, 0, 54), 53)).unwrap();
    let mut helper = Helper::start("dns::helper_that_asks", "storm");
    let started = (dns::INFO.start)(&Start {
        filter: &Filter { pids: vec![helper.pid()], ..Filter::default() },
        settings: &Settings::default(),
        memory: 1,
        forced: &Forced::default(),
        target: &RunningTarget::new(),
    });
    let mut tracer = started.unwrap();
    helper.go();
    helper.wait_ready();
    let mut recorder = Recorder::default();
    tracer.collect(&mut recorder).unwrap();
    let stats = tracer.stats().unwrap();
    let ring_full = stats.dropped.iter().find(|(name, _)| *name == cause::RING_FULL).unwrap().1;
    assert_eq!((stats.produced, stats.received + ring_full), (STORM.into(), STORM.into()), "{stats:?}");
    assert_eq!(stats.total_dropped(), ring_full, "{stats:?}");
    assert!(ring_full > 2900, "a page holds few: {stats:?}");
    drop(server);
}

#[test]
fn a_silent_server_takes_no_room_until_the_window_ends() {
    if !crate::is_root() {
        crate::skip::<()>("dns: needs root");
        return;
    }
    let mut helper = Helper::start("dns::helper_that_asks", "outage");
    let started = (dns::INFO.start)(&Start {
        filter: &Filter { pids: vec![helper.pid()], ..Filter::default() },
        settings: &Settings::default(),
        memory: 128 << 10,
        forced: &Forced::default(),
        target: &RunningTarget::new(),
    });
    let mut tracer = started.unwrap();
    helper.go();
    let mut recorder = Recorder::default();
    std::thread::scope(|scope| {
        let ready = scope.spawn(|| helper.wait_ready());
        while !ready.is_finished() {
            tracer.drain(&mut recorder).unwrap();
            sleep(Duration::from_millis(10));
        }
    });
    // What came after the last look.
    tracer.drain(&mut recorder).unwrap();
    let stats = tracer.stats().unwrap();
    let full = stats.dropped.iter().find(|(name, _)| *name == cause::TOO_MANY_AT_ONCE).unwrap().1;
    assert_eq!(full, u64::from(OUTAGE - MAY_WAIT), "{stats:?}");
    assert_eq!(stats.produced, u64::from(MAY_WAIT + AFTER_OUTAGE), "{stats:?}");
    assert_eq!(stats.received, stats.produced, "{stats:?}");
}

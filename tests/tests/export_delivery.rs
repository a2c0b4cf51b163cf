//! What arrives, how often, when receivers fail: counted at the receiver.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use collector::export::Signal;
use collector::export::delivery::Limits;
use collector::export::pipeline::{Exporter, Outlet};
use collector::export::retry::RetryPolicy;
use collector::export::stats::{Amount, DropReason, Stats};
use tests::client::{SECRET, destination};
use tests::faults::{Behaviour, Deaf, End, Options, Server, answers, at_random, gone, script};
use tests::generate::Generator;

/// Bounds under which failures cost milliseconds.
fn quick() -> Limits {
    let retry = RetryPolicy { first_delay: Duration::from_millis(2), max_delay: Duration::from_millis(20) };
    Limits { retry, ..Limits::default() }
}

/// An exporter to these endpoints.
fn exporter(endpoints: &[String], limits: Limits) -> Exporter {
    let outlet = |endpoint: &String| Outlet::to(&destination(endpoint, &[]), limits).unwrap();
    Exporter::start(endpoints.iter().map(outlet).collect()).unwrap()
}

/// A receiver at an address that is known before.
fn server_at(address: SocketAddr) -> Server {
    let options = Options { address, ..Options::default() };
    Server::with(options, |_| Behaviour::default()).unwrap()
}

/// Sends `count` requests of ten items of each signal.
fn push(exporter: &Exporter, signals: &[Signal], count: u64) {
    let mut generator = Generator::default();
    for number in 0..count {
        for signal in signals {
            exporter.push(&generator.request(*signal, number * 10..(number + 1) * 10));
        }
    }
}

/// Nothing is lost without being counted, and no text shows a secret.
fn check(stats: &Stats) {
    for (signal, stats) in stats.signals.iter() {
        let ends = [stats.delivered, stats.rejected, stats.dropped.total(), stats.in_memory, stats.in_spool];
        let begins = stats.accepted.items + stats.recovered.items;
        assert_eq!(begins, ends.iter().map(|amount| amount.items).sum::<u64>(), "{signal:?}: {stats:?}");
    }
    assert_eq!(stats.panics, 0);
    assert!(!format!("{stats:?}").contains(SECRET), "{stats:?}");
}

/// All of the first `count` items, each as often as `times` says.
fn assert_taken(server: &Server, signal: Signal, count: u64, times: std::ops::RangeInclusive<u32>) {
    let taken = server.log().taken(signal);
    assert!(taken.keys().copied().eq(0..count), "{signal:?}: {} of {count}", taken.len());
    assert!(taken.values().all(|own| times.contains(own)), "{signal:?}: {taken:?}");
}

#[test]
fn a_receiver_that_is_late_gets_everything_once() {
    let address = gone();
    let exporter = exporter(&[format!("http://{address}")], quick());
    push(&exporter, &Signal::ALL, 20);
    let failed = |exporter: &Exporter| {
        exporter.stats().iter().any(|stats| stats.signals.iter().any(|(_, stats)| stats.retries > 2))
    };
    while !failed(&exporter) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let server = server_at(address);
    let stats = exporter.shut_down(Duration::from_secs(20));
    check(&stats[0]);
    assert_eq!(stats[0].total(|stats| stats.delivered).items, 800);
    assert_eq!(stats[0].total(|stats| stats.ambiguous), Amount::default());
    Signal::ALL.into_iter().for_each(|signal| assert_taken(&server, signal, 200, 1..=1));
}

#[test]
fn one_in_ten_requests_fails_and_nothing_is_lost() {
    const REQUESTS: u64 = 1500;
    let refusal = |status, headers: &[&str]| Behaviour::answer(status, headers, b"not now");
    let silent = || Behaviour::raw("");
    let faults = vec![
        refusal(429, &[]),
        refusal(502, &[]),
        refusal(503, &["Retry-After: 0"]),
        refusal(504, &["Connection: close"]).then(End::Close),
        silent().then(End::Close),
        silent().unread().then(End::Reset),
        // Taken, and nobody hears of it.
        silent().taking().then(End::Reset),
        Behaviour::default().cut(20),
    ];
    let server = Server::start(at_random(7, 0.1, faults));
    let exporter = exporter(&[server.url()], quick());
    push(&exporter, &[Signal::Metrics, Signal::Logs], REQUESTS);
    let stats = exporter.shut_down(Duration::from_secs(60)).remove(0);
    check(&stats);
    let mut twice = 0;
    for signal in [Signal::Metrics, Signal::Logs] {
        assert_taken(&server, signal, REQUESTS * 10, 1..=9);
        twice += server.log().taken(signal).values().map(|times| u64::from(times - 1)).sum::<u64>();
    }
    assert_eq!(stats.total(|stats| stats.delivered).items, 2 * 10 * REQUESTS);
    let retries: u64 = stats.signals.iter().map(|(_, stats)| stats.retries).sum();
    assert!(retries > REQUESTS / 10, "{retries} retries");
    // More than once only after an end that nobody knows.
    assert!(twice > 0 && twice <= stats.total(|stats| stats.ambiguous).items, "{twice} twice: {stats:?}");
}

#[test]
fn what_is_refused_for_good_is_counted_and_holds_nothing_up() {
    let body = answers::partial_success(4, "too old");
    let server = Server::start(script(vec![
        Behaviour::default(),
        Behaviour::answer(400, &[], b"no"),
        Behaviour::answer(200, &[answers::PROTOBUF], &body),
        Behaviour::raw(answers::with_length(200, &[], "Content-Length: 4194305", b"")),
        Behaviour::raw("what?").then(End::Close),
    ]));
    let exporter = exporter(&[server.url()], quick());
    push(&exporter, &[Signal::Traces], 10);
    let stats = exporter.shut_down(Duration::from_secs(20)).remove(0);
    check(&stats);
    let traces = stats.signals.get(Signal::Traces);
    assert_eq!(traces.delivered.items, 70 - 4);
    assert_eq!(traces.rejected.items, 4);
    assert_eq!(traces.dropped.get(DropReason::NotRetryable).requests, 3);
    assert_eq!((traces.retries, server.log().len()), (0, 10));
    assert_eq!(stats.last_message.as_deref(), Some("too old"));
}

#[test]
fn the_delay_that_a_receiver_asks_for_is_kept() {
    let busy = Behaviour::answer(503, &["Retry-After: 1"], b"");
    let server = Server::start(script(vec![busy]));
    let exporter = exporter(&[server.url()], quick());
    push(&exporter, &[Signal::Logs], 3);
    assert!(server.log().wait(Duration::from_secs(20), |requests| requests.len() == 4));
    let times: Vec<Instant> = server.log().requests().iter().map(|request| request.at).collect();
    let pause = times[1] - times[0];
    assert!(pause >= Duration::from_secs(1), "{pause:?}");
    check(&exporter.shut_down(Duration::from_secs(5))[0]);
    assert_taken(&server, Signal::Logs, 30, 1..=1);
}

#[test]
fn a_dead_destination_delays_no_other() {
    let deaf = Deaf::start();
    let silent = Server::start(|_| Behaviour::raw("").then(End::Stall));
    let good = Server::start(|_| Behaviour::default());
    let endpoints = [format!("http://{}", deaf.address()), silent.url(), good.url()];
    let exporter = exporter(&endpoints, quick());
    let start = Instant::now();
    push(&exporter, &Signal::ALL, 50);
    assert!(start.elapsed() < Duration::from_secs(5), "push waits for nobody");
    assert!(good.log().wait(Duration::from_secs(20), |requests| requests.len() == 200));
    Signal::ALL.into_iter().for_each(|signal| assert_taken(&good, signal, 500, 1..=1));
    // The answer to the last one is on its way.
    while exporter.stats()[2].total(|stats| stats.in_memory).requests > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let stats = exporter.shut_down(Duration::ZERO);
    stats.iter().for_each(check);
    let delivered: Vec<u64> = stats.iter().map(|stats| stats.total(|stats| stats.delivered).items).collect();
    assert_eq!(delivered, [0, 0, 2000]);
    // Without a spool, what the others did not get is lost, and counted.
    let lost = |stats: &Stats| stats.total(|stats| stats.dropped.total()).items;
    assert_eq!(lost(&stats[0]), 2000);
    assert_eq!(lost(&stats[1]), 2000);
}

#[test]
fn a_full_queue_gives_up_the_oldest() {
    let address = gone();
    let mut limits = quick();
    limits.queue_bytes = 64 << 10;
    let exporter = exporter(&[format!("http://{address}")], limits);
    push(&exporter, &[Signal::Logs], 500);
    let memory = exporter.stats()[0].total(|stats| stats.in_memory);
    assert!(memory.bytes <= 64 << 10, "{memory:?}");
    let server = server_at(address);
    let stats = exporter.shut_down(Duration::from_secs(20)).remove(0);
    check(&stats);
    let taken = server.log().taken(Signal::Logs);
    let dropped = stats.total(|stats| stats.dropped.get(DropReason::QueueFull)).items;
    assert_eq!(taken.len() as u64 + dropped, 5000);
    assert!(dropped > 2500, "{dropped}");
    // The newest are there, but for the one in flight all together.
    let newest = taken.keys().rev().zip((0..5000).rev()).take_while(|(own, next)| *own == next).count();
    assert!(newest >= taken.len() - 10, "{newest} of {}", taken.len());
}

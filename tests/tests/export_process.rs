//! The exporter in a process that is killed, starved of disk, or left without a receiver.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use collector::export::Signal;
use tests::faults::{Behaviour, End, Options, Server, answers, at_random, gone};
use tests::generate::{Running, items};
use tests::receivers::TempDir;

fn start(arguments: &[&str]) -> Running {
    Running::start(Command::new(""), Path::new(env!("CARGO_BIN_EXE_otlp-generate")), arguments)
}

/// A receiver that fails one request in ten, some of them after it has taken what was in them.
fn flaky(address: SocketAddr, seed: u64) -> Server {
    let faults = vec![
        Behaviour::answer(503, &[], b""),
        Behaviour::raw("").unread().then(End::Reset),
        Behaviour::raw("").taking().then(End::Reset),
        Behaviour::raw(answers::http(200, &[], b"")).taking().cut(10),
    ];
    Server::with(Options { address, ..Options::default() }, at_random(seed, 0.1, faults)).unwrap()
}

/// Every item that was kept arrived; the counts of the last run add up.
fn assert_kept_arrived(server: &Server, kept: &[(Signal, u64)], last: &serde_json::Value) {
    for (signal, kept) in kept {
        let taken = server.log().taken(*signal);
        let missing: Vec<u64> = (0..*kept).filter(|number| !taken.contains_key(number)).collect();
        assert!(missing.is_empty(), "{signal:?}: {missing:?} of {kept}; {last}");
    }
    assert_balance(last);
}

fn assert_balance(destination: &serde_json::Value) {
    assert_eq!(
        items(destination, &["accepted", "recovered"]),
        items(destination, &["delivered", "rejected", "dropped", "in_memory", "in_spool"]),
        "{destination}"
    );
    assert_eq!(destination["panics"], 0);
}

#[test]
fn what_was_kept_survives_kill_9_in_an_outage() {
    let directory = TempDir::new("kill-outage");
    let (address, spool) = (gone(), directory.join("spool"));
    let endpoint = format!("http://{address}");
    let common = ["--endpoint", &endpoint, "--spool", spool.to_str().unwrap(), "--retry", "5", "--kept"];
    let mut kept = Vec::new();
    // Three runs, each killed in the middle, of which each numbers on where the one before was.
    let mut first = 0;
    for _ in 0..3 {
        let number = first.to_string();
        let mut run = start(
            &[&common[..], &["--count", "100000", "--items", "10", "--rate", "500", "--first", &number]]
                .concat(),
        );
        run.wait_kept(&Signal::ALL, 200);
        run.kill();
        kept.push((first, Signal::ALL.map(|signal| (signal, run.kept(signal)))));
        first += 1_000_000;
    }
    let server = flaky(address, 3);
    let last = start(&[&common[..], &["--count", "0", "--flush", "60"]].concat()).finish();
    assert_balance(&last[0]);
    assert_eq!(items(&last[0], &["in_spool", "dropped"]), 0, "{last}");
    for (first, of_signals) in kept {
        for (signal, kept) in of_signals {
            let taken = server.log().taken(signal);
            assert!((first..first + kept).all(|number| taken.contains_key(&number)), "{signal:?}: {last}");
        }
    }
}

#[test]
fn what_was_kept_survives_kill_9_while_it_is_delivered() {
    let directory = TempDir::new("kill-flaky");
    let (address, spool) = (gone(), directory.join("spool"));
    let server = flaky(address, 4);
    let endpoint = format!("http://{address}");
    let common = ["--endpoint", &endpoint, "--spool", spool.to_str().unwrap(), "--retry", "5", "--kept"];
    let mut run = start(&[&common[..], &["--count", "100000", "--items", "10", "--rate", "300"]].concat());
    run.wait_kept(&Signal::ALL, 1000);
    run.kill();
    let kept = Signal::ALL.map(|signal| (signal, run.kept(signal)));
    let last = start(&[&common[..], &["--count", "0", "--flush", "60"]].concat()).finish();
    assert_kept_arrived(&server, &kept, &last[0]);
    assert_eq!(items(&last[0], &["in_spool", "dropped"]), 0, "{last}");
}

#[test]
fn a_full_disk_costs_what_does_not_fit_in_memory_and_is_counted() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: mounting a small disk needs root");
        return;
    }
    let directory = TempDir::new("full-disk");
    let address = gone();
    let endpoint = format!("http://{address}");
    let disk = directory.join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mut command = Command::new("unshare");
    let mount = r#"mount -t tmpfs -o size=1m none "$1" && shift && exec "$@""#;
    command.args(["--mount", "sh", "-c", mount, "sh"]).arg(&disk);
    let spool = disk.to_str().unwrap();
    let arguments: Vec<&str> =
        ["--endpoint", &endpoint, "--spool", spool, "--retry", "20", "--queue", "1000000"]
            .into_iter()
            .chain([
                "--signal", "logs", "--count", "500", "--items", "100", "--rate", "1000", "--flush", "30",
                "--kept",
            ])
            .collect();
    let mut run = Running::start(command, Path::new(env!("CARGO_BIN_EXE_otlp-generate")), &arguments);
    run.wait_kept(&[Signal::Logs], 20_000);
    let server = Server::with(Options { address, ..Options::default() }, |_| Behaviour::default()).unwrap();
    let stats = run.finish();
    assert_balance(&stats[0]);
    let taken = server.log().taken(Signal::Logs);
    assert_eq!(taken.len() as u64, items(&stats[0], &["delivered"]), "{stats}");
    assert_eq!(taken.len() as u64 + items(&stats[0], &["dropped"]), 50_000, "{stats}");
    assert!(stats[0]["spool_error"].as_str().is_some_and(|error| error.contains("No space left")), "{stats}");
}

#[test]
fn a_full_spool_gives_up_the_oldest_and_counts_them() {
    let directory = TempDir::new("full-spool");
    let (address, spool) = (gone(), directory.join("spool"));
    let endpoint = format!("http://{address}");
    let common = ["--endpoint", &endpoint, "--spool", spool.to_str().unwrap(), "--spool-bytes", "400000"];
    let common = [&common[..], &["--signal", "logs", "--retry", "5"]].concat();
    let rate = ["--count", "200", "--items", "100", "--rate", "400", "--flush", "0"];
    let first = start(&[&common[..], &rate].concat()).finish();
    assert_balance(&first[0]);
    let used: u64 =
        std::fs::read_dir(spool.join("0")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(used <= 400_000, "{used}");
    let waiting = items(&first[0], &["in_spool"]);
    assert_eq!(waiting + items(&first[0], &["dropped"]), 20_000, "{first}");

    let server = Server::with(Options { address, ..Options::default() }, |_| Behaviour::default()).unwrap();
    let second = start(&[&common[..], &["--count", "0", "--flush", "60"]].concat()).finish();
    assert_eq!(items(&second[0], &["recovered", "delivered"]), 2 * waiting, "{second}");
    // In the order in which they were made, up to the newest. Within a request the encoder turns it around.
    let requests = server.log().requests();
    let order: Vec<u64> = requests.iter().flat_map(|request| request.items.iter().rev().copied()).collect();
    assert!(waiting > 1000 && order.into_iter().eq(20_000 - waiting..20_000), "{second}");
}

/// The most memory that a process ever had, in bytes.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

#[test]
fn memory_stays_in_its_bound_without_spool_and_receiver() {
    let endpoint = format!("http://{}", gone());
    let run = |queue: &str, count: &str| {
        let arguments = ["--endpoint", &endpoint, "--queue", queue, "--count", count, "--items", "1000"];
        let mut run = start(&[&arguments[..], &["--flush", "3", "--kept", "--signal", "logs"]].concat());
        // All is generated, and waits.
        let generated = count.parse::<u64>().unwrap() * 1000;
        run.wait_kept(&[Signal::Logs], generated - generated / 10);
        let limit = Instant::now() + Duration::from_secs(10);
        let peak = loop {
            if let Some(peak) = peak_memory(run.pid()) {
                break peak;
            }
            assert!(Instant::now() < limit, "it has no memory");
        };
        let stats = run.finish();
        assert_balance(&stats[0]);
        assert_eq!(items(&stats[0], &["dropped"]), generated, "{stats}");
        peak
    };
    // Some 40 MB of requests, at 2 MB in memory.
    let (small, large) = (run("1000", "10"), run("2000000", "400"));
    assert!(large < small + (8 << 20), "{large} after {small}");
}

/// For `tests/run receivers`: a receiver fails at random, is gone for five minutes, in the middle of which the exporter
/// is killed, and is back, where the exporter is killed while it catches up.
#[test]
#[ignore = "takes six minutes"]
fn five_minutes_without_a_receiver_lose_nothing() {
    // 500 items of each signal a second.
    const SECOND: u64 = 500;
    let directory = TempDir::new("outage");
    let (address, spool) = (gone(), directory.join("spool"));
    let endpoint = format!("http://{address}");
    let common = ["--endpoint", &endpoint, "--spool", spool.to_str().unwrap(), "--retry", "100", "--kept"];
    let rate = ["--count", "1000000", "--items", "100", "--rate", "5", "--at-risk", "1000", "--first"];
    let start_at = |first| start(&[&common[..], &rate, &[first]].concat());

    let before = flaky(address, 5);
    let mut run = start_at("0");
    run.wait_kept(&Signal::ALL, 10 * SECOND);
    let log_before = before.keep_log();
    drop(before);
    let outage = Instant::now();
    run.wait_kept(&Signal::ALL, 160 * SECOND);
    run.kill();
    let first = Signal::ALL.map(|signal| run.kept(signal));
    let mut run = start_at("1000000");
    run.wait_kept(&Signal::ALL, 150 * SECOND);
    println!("without a receiver for {} s", outage.elapsed().as_secs());
    let after = flaky(address, 6);
    run.wait_kept(&Signal::ALL, 153 * SECOND);
    run.kill();
    let second = Signal::ALL.map(|signal| run.kept(signal));
    let last = start(&[&common[..], &["--count", "0", "--flush", "300"]].concat()).finish();
    assert_balance(&last[0]);
    assert_eq!(items(&last[0], &["in_spool", "dropped"]), 0, "{last}");

    for ((signal, first), second) in Signal::ALL.into_iter().zip(first).zip(second) {
        let mut taken = log_before.taken(signal);
        for (number, times) in after.log().taken(signal) {
            *taken.entry(number).or_default() += times;
        }
        let kept = (0..first).chain(1_000_000..1_000_000 + second);
        assert!(kept.clone().all(|number| taken.contains_key(&number)), "{signal:?}: {last}");
        let twice = taken.values().filter(|times| **times > 1).count();
        println!("{} {}: all taken, {twice} of them more than once", kept.count(), signal.item_noun());
    }
}

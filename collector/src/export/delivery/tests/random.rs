//! Random schedules: whatever happens and when, nothing is lost without being counted.

use std::collections::HashMap;

use super::simulation::Random;
use super::*;

/// How often each request came and was taken.
type Received = HashMap<u32, u64>;

/// A receiver of which about 1 in 10 requests fails, in all ways.
fn unreliable<'a>(random: &'a RefCell<Random>, received: &'a RefCell<Received>) -> Receiver<'a> {
    Box::new(move |_, request| {
        let mut random = random.borrow_mut();
        let latency = random.up_to(SECOND / 5);
        let take = || *received.borrow_mut().entry(number(request)).or_default() += 1;
        let outcome = match random.below(60) {
            0 => unreachable(),
            1 => refused(503, None),
            2 => refused(429, Some(random.up_to(5 * SECOND))),
            3 => refused(400, None),
            4 => {
                take();
                return (10 * SECOND, no_answer());
            }
            5 => {
                take();
                Ok(Accepted { rejected: random.below(3), message: Some("some".to_owned()) })
            }
            _ => {
                take();
                accepted()
            }
        };
        (latency, outcome)
    })
}

/// Runs a schedule with crashes, then lets everything settle, and compares both ends.
fn run(seed: u64, with_disk: bool) {
    let random = RefCell::new(Random::new(seed));
    let received = RefCell::new(Received::default());
    let disk = RefCell::new(Disk::new(if seed % 3 == 0 { 8_000 } else { usize::MAX }));
    let disk = with_disk.then_some(&disk);
    let below = |end| random.borrow_mut().below(end);
    let bound = Limits {
        queue_bytes: 4_000 + below(16_000) as usize,
        max_time_at_risk: Duration::from_millis(below(3) * 500),
        ..Limits::default()
    };
    let (mut pushed, mut delivered, mut in_memory, mut dropped, mut may_repeat) = (0, 0, 0, 0, 0);
    for crash in (0..below(4)).rev() {
        let mut machine = Machine::new(bound, disk, unreliable(&random, &received));
        for _ in 0..below(200) {
            match below(40) {
                0 => disk.iter().for_each(|disk| disk.borrow_mut().full ^= true),
                1 => disk.iter().for_each(|disk| disk.borrow_mut().broken ^= true),
                2 => {
                    disk.iter().for_each(|disk| disk.borrow_mut().latency = SECOND / 100 * below(200) as u32)
                }
                3 => machine.run_for(20 * SECOND),
                _ => (0..below(6)).for_each(|_| {
                    // Some are larger than the smaller disk.
                    let size = if below(40) == 0 { 9000 } else { below(1500) };
                    machine.push(request(pushed, 1 + below(5), size as usize));
                    pushed += 1;
                }),
            }
            machine.run_for(SECOND / 1000 * below(1500) as u32);
            assert!(machine.fits(bound));
        }
        if let Some(disk) = disk {
            (disk.borrow_mut().full, disk.borrow_mut().broken) = (false, false);
        }
        if crash == 0 {
            let end = if below(2) == 0 { HOUR } else { SECOND };
            machine.delivery.shut_down(machine.now, end);
            machine.run_for(2 * HOUR);
            assert!(machine.delivery.is_closed());
        }
        let stats = machine.stats();
        delivered += stats.total(|stats| stats.delivered).requests;
        dropped += stats.total(|stats| stats.dropped.total()).requests;
        in_memory += stats.total(|stats| stats.in_memory).requests;
        // What is done and not acknowledged at a crash comes again, and maybe what is in flight.
        let in_spool = stats.total(|stats| stats.in_spool).requests;
        may_repeat += disk.map_or(0, |disk| disk.borrow().numbers().len() as u64).abs_diff(in_spool) + 1;
        may_repeat += stats.total(|stats| stats.ambiguous).requests;
    }
    let left = disk.map(|disk| disk.borrow().numbers()).unwrap_or_default();
    let received = received.borrow();
    let arrived: BTreeSet<u32> = received.keys().copied().collect();
    let kept = left.iter().filter(|number| !arrived.contains(number)).count() as u64;
    // Whatever did not arrive is counted, or was in memory alone in a crash.
    let missing = u64::from(pushed) - arrived.len() as u64 - kept;
    assert!(
        missing <= dropped + in_memory,
        "seed {seed}: {missing} missing, {dropped} dropped, {in_memory} in memory"
    );
    // Whatever arrived twice had an end that is not known, or was not acknowledged before a crash.
    let copies = received.values().map(|times| times - 1).sum::<u64>();
    assert!(copies <= may_repeat, "seed {seed}: {copies} copies, at most {may_repeat}");
    assert!(delivered <= received.values().sum(), "seed {seed}");
}

#[test]
fn nothing_is_lost_uncounted_in_memory() {
    (0..50).for_each(|seed| run(seed, false));
}

#[test]
fn nothing_is_lost_uncounted_with_a_spool() {
    (0..120).for_each(|seed| run(seed, true));
}

#[test]
fn one_in_ten_fails_and_all_arrive_once() {
    let random = RefCell::new(Random::new(7));
    let received = RefCell::new(Vec::new());
    let receiver: Receiver<'_> = Box::new(|_, request| {
        if random.borrow_mut().chance(10) {
            return (Duration::from_millis(5), refused(503, None));
        }
        received.borrow_mut().push(number(request));
        (Duration::from_millis(5), accepted())
    });
    let mut machine = Machine::new(Limits::default(), None, receiver);
    for n in 0..2000 {
        machine.push(request(n, 1, 100));
        machine.run_for(SECOND / 4);
    }
    machine.run_for(60 * SECOND);
    assert_eq!(*received.borrow(), (0..2000).collect::<Vec<_>>());
    let retries: u64 = machine.stats().signals.iter().map(|(_, stats)| stats.retries).sum();
    assert_eq!(retries, machine.attempts.len() as u64 - 2000);
    assert!((150..300).contains(&retries), "{retries}");
}

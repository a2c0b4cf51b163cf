use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use super::*;
use crate::export::Signal;
use crate::export::stats::SignalStats;
use crate::export::store::Appended;
use simulation::{
    Disk, Machine, Outcome, Receiver, accepted, no_answer, number, refused, request, unreachable,
};

mod random;
mod simulation;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn dropped(reason: DropReason) -> impl Fn(&SignalStats) -> Amount {
    move |stats| stats.dropped.get(reason)
}

/// A receiver that answers at once, each request with the next of `outcomes`, and takes what comes then.
fn answers<'a>(outcomes: Vec<Outcome>) -> Receiver<'a> {
    let mut outcomes = outcomes.into_iter();
    Box::new(move |_, _| (Duration::ZERO, outcomes.next().unwrap_or_else(accepted)))
}

fn limits(queue_bytes: usize) -> Limits {
    Limits { queue_bytes, ..Limits::default() }
}

#[test]
fn requests_go_out_in_order_and_one_at_a_time() {
    let mut machine = Machine::new(Limits::default(), None, Box::new(|_, _| (SECOND, accepted())));
    (0..4).for_each(|n| machine.push(request(n, 3, 10)));
    machine.run_for(10 * SECOND);
    let at = |n: u32| (n * SECOND, n);
    assert_eq!(machine.attempts, [at(0), at(1), at(2), at(3)]);
    let delivered = machine.stats().total(|stats| stats.delivered);
    assert_eq!(delivered, Amount { requests: 4, items: 12, bytes: 40 });
}

#[test]
fn delays_grow_and_end_with_an_answer() {
    let mut outcomes: Vec<Outcome> = (0..7).map(|_| unreachable()).collect();
    outcomes.extend([accepted(), refused(503, None), accepted()]);
    let mut machine = Machine::new(Limits::default(), None, answers(outcomes));
    (0..3).for_each(|n| machine.push(request(n, 1, 10)));
    machine.run_for(HOUR);
    let seconds: Vec<(u64, u32)> = machine.attempts.iter().map(|(at, n)| (at.as_secs(), *n)).collect();
    assert_eq!(
        seconds,
        [(0, 0), (1, 0), (3, 0), (7, 0), (15, 0), (31, 0), (61, 0), (91, 0), (91, 1), (92, 1), (92, 2)]
    );
    assert_eq!(machine.requests(|stats| stats.delivered), 3);
    assert_eq!(machine.stats().signals.iter().map(|(_, stats)| stats.retries).sum::<u64>(), 8);
}

#[test]
fn retry_after_is_honoured_and_cut_where_it_is_absurd() {
    let asks = |seconds| refused(429, Some(Duration::from_secs(seconds)));
    let outcomes = vec![asks(42), asks(0), asks(1_000_000)];
    let mut machine = Machine::new(Limits::default(), None, answers(outcomes));
    (0..2).for_each(|n| machine.push(request(n, 1, 10)));
    machine.run_for(44 * SECOND);
    assert_eq!(
        machine.stats().last_error.unwrap(),
        "the receiver answered 429 Too Many Requests; it asks to wait 1000000 s, which is cut to 3600 s"
    );
    machine.run_for(2 * HOUR);
    let seconds: Vec<(u64, u32)> = machine.attempts.iter().map(|(at, n)| (at.as_secs(), *n)).collect();
    assert_eq!(seconds, [(0, 0), (42, 0), (44, 0), (3644, 0), (3644, 1)]);
}

#[test]
fn what_is_refused_for_good_is_dropped_and_counted() {
    let outcomes = vec![refused(400, None), accepted(), refused(500, Some(SECOND)), accepted()];
    let mut machine = Machine::new(Limits::default(), None, answers(outcomes));
    (0..4).for_each(|n| machine.push(request(n, 2, 10)));
    machine.run_for(SECOND);
    assert_eq!(machine.attempts.len(), 4);
    assert!(machine.attempts.iter().all(|(at, _)| at.is_zero()));
    let lost = machine.stats().total(dropped(DropReason::NotRetryable));
    assert_eq!(lost, Amount { requests: 2, items: 4, bytes: 20 });
}

#[test]
fn partial_success_is_counted_and_never_sent_again() {
    let partial = |rejected, message: &str| Ok(Accepted { rejected, message: Some(message.to_owned()) });
    let outcomes = vec![partial(3, "three bad"), partial(999, "too many"), partial(0, "deprecated")];
    let mut machine = Machine::new(Limits::default(), None, answers(outcomes));
    (0..3).for_each(|n| machine.push(request(n, 10, 10)));
    machine.run_for(SECOND);
    assert_eq!(machine.attempts.len(), 3);
    let stats = machine.stats();
    let rejected: Vec<u64> = [0, 1, 2]
        .map(|n| stats.signals.get(Signal::ALL[n]).rejected)
        .iter()
        .map(|amount| amount.items)
        .collect();
    assert_eq!(rejected, [3, 10, 0]);
    assert_eq!(stats.total(|stats| stats.delivered).items, 17);
    assert_eq!(stats.total(|stats| stats.rejected).requests, 2);
    assert_eq!(stats.last_message.unwrap(), "deprecated");
}

#[test]
fn an_hour_down_keeps_what_fits_and_counts_the_rest() {
    let down = Cell::new(true);
    let receiver: Receiver<'_> =
        Box::new(|_, _| (Duration::ZERO, if down.get() { unreachable() } else { accepted() }));
    let bound = limits(100 * 1128);
    let mut machine = Machine::new(bound, None, receiver);
    for n in 0..3600 {
        machine.push(request(n, 1, 1000));
        machine.run_for(SECOND);
        assert!(machine.fits(bound));
    }
    let waiting = machine.requests(|stats| stats.in_memory);
    assert_eq!(waiting, 100);
    assert_eq!(machine.requests(dropped(DropReason::QueueFull)), 3500);
    assert_eq!(machine.stats().oldest_in_memory, Some(100 * SECOND));
    // 1, 2, 4, 8 and 16 s, then every 30 s.
    assert_eq!(machine.attempts.len(), 6 + (3600 - 31) / 30);
    down.set(false);
    machine.run_for(30 * SECOND);
    assert_eq!(machine.requests(|stats| stats.delivered), 100);
    // The youngest were kept.
    let last: Vec<u32> = machine.attempts.iter().rev().take(100).map(|(_, n)| *n).collect();
    assert_eq!(last, (3500..3600).rev().collect::<Vec<_>>());
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn an_hour_down_with_a_spool_loses_nothing() {
    let down = Cell::new(true);
    let received = RefCell::new(Vec::new());
    let receiver: Receiver<'_> = Box::new(|_, request| {
        if down.get() {
            return (Duration::ZERO, unreachable());
        }
        received.borrow_mut().push(number(request));
        (Duration::from_millis(1), accepted())
    });
    let disk = RefCell::new(Disk::new(usize::MAX));
    disk.borrow_mut().latency = Duration::from_millis(30);
    let bound = limits(20 * 1128);
    let mut machine = Machine::new(bound, Some(&disk), receiver);
    for n in 0..36_000 {
        machine.push(request(n, 1, 1000));
        machine.run_for(SECOND / 10);
        assert!(machine.fits(bound));
        assert!(machine.stats().oldest_in_memory.is_none_or(|age| age <= SECOND + SECOND / 10));
    }
    // Groups, not requests.
    assert!(disk.borrow().appends <= 3600, "{}", disk.borrow().appends);
    down.set(false);
    machine.run_for(HOUR);
    assert_eq!(machine.requests(|stats| stats.delivered), 36_000);
    assert_eq!(*received.borrow(), (0..36_000).collect::<Vec<_>>());
    assert!(disk.borrow().numbers().is_empty());
}

#[test]
fn a_healthy_receiver_costs_no_write() {
    let disk = RefCell::new(Disk::new(usize::MAX));
    let receiver: Receiver<'_> = Box::new(|_, _| (SECOND / 2, accepted()));
    let mut machine = Machine::new(Limits::default(), Some(&disk), receiver);
    for n in 0..100 {
        machine.push(request(n, 1, 1000));
        machine.run_for(SECOND);
    }
    assert_eq!(machine.requests(|stats| stats.delivered), 100);
    assert_eq!(disk.borrow().appends, 0);
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn with_no_time_at_risk_everything_is_spooled_at_once() {
    let disk = RefCell::new(Disk::new(usize::MAX));
    let at_once = Limits { max_time_at_risk: Duration::ZERO, ..Limits::default() };
    let receiver: Receiver<'_> = Box::new(|_, _| (SECOND, accepted()));
    let mut machine = Machine::new(at_once, Some(&disk), receiver);
    for n in 0..4 {
        machine.push(request(n, 1, 1000));
        machine.run_for(SECOND / 10);
    }
    assert_eq!(disk.borrow().numbers(), [0, 1, 2, 3]);
    assert_eq!(machine.requests(|stats| stats.in_memory), 0);
    machine.run_for(10 * SECOND);
    assert_eq!(machine.attempts.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(disk.borrow().numbers().is_empty());
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn what_is_delivered_while_it_is_saved_is_acknowledged() {
    let disk = RefCell::new(Disk::new(usize::MAX));
    disk.borrow_mut().latency = 5 * SECOND;
    let receiver: Receiver<'_> = Box::new(|_, _| (2 * SECOND, accepted()));
    let mut machine = Machine::new(Limits::default(), Some(&disk), receiver);
    (0..6).for_each(|n| machine.push(request(n, 1, 1000)));
    machine.run_for(60 * SECOND);
    assert_eq!(disk.borrow().appends, 1);
    assert_eq!(machine.attempts.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert!(disk.borrow().numbers().is_empty());
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn a_full_disk_leaves_the_bounded_memory() {
    let down = Cell::new(true);
    let receiver: Receiver<'_> =
        Box::new(|_, _| (Duration::ZERO, if down.get() { unreachable() } else { accepted() }));
    let disk = RefCell::new(Disk::new(usize::MAX));
    disk.borrow_mut().full = true;
    let bound = limits(10 * 1128);
    let mut machine = Machine::new(bound, Some(&disk), receiver);
    for n in 0..600 {
        machine.push(request(n, 1, 1000));
        machine.run_for(SECOND);
        assert!(machine.fits(bound));
    }
    assert_eq!(machine.stats().spool_error.unwrap(), "cannot write the spool: no space left on device");
    assert_eq!(machine.requests(dropped(DropReason::QueueFull)), 590);
    // Every 30 s, not every time.
    assert!(disk.borrow().appends < 40, "{}", disk.borrow().appends);
    disk.borrow_mut().full = false;
    machine.run_for(31 * SECOND);
    assert_eq!(machine.requests(|stats| stats.in_spool), 10);
    down.set(false);
    machine.run_for(31 * SECOND);
    assert_eq!(machine.requests(|stats| stats.delivered), 10);
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn a_full_spool_drops_its_oldest() {
    let down = Cell::new(true);
    let receiver: Receiver<'_> =
        Box::new(|_, _| (Duration::ZERO, if down.get() { unreachable() } else { accepted() }));
    let disk = RefCell::new(Disk::new(50_000));
    let mut machine = Machine::new(Limits::default(), Some(&disk), receiver);
    for n in 0..600 {
        machine.push(request(n, 1, 1000));
        machine.run_for(SECOND);
    }
    machine.run_for(2 * SECOND);
    assert_eq!(disk.borrow().numbers(), (550..600).collect::<Vec<_>>());
    assert_eq!(machine.requests(dropped(DropReason::SpoolFull)), 550);
    down.set(false);
    machine.run_for(31 * SECOND);
    assert_eq!(machine.requests(|stats| stats.delivered), 50);
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn a_spool_that_is_smaller_than_a_request_is_no_loop() {
    let disk = RefCell::new(Disk::new(500));
    for flush in [false, true] {
        let receiver: Receiver<'_> = Box::new(|_, _| (20 * SECOND, unreachable()));
        let mut machine = Machine::new(Limits::default(), Some(&disk), receiver);
        (0..3).for_each(|n| machine.push(request(n, 1, 1000)));
        if flush {
            machine.delivery.shut_down(machine.now, 5 * SECOND);
        }
        machine.run_for(60 * SECOND);
        assert_eq!(machine.requests(dropped(DropReason::SpoolFull)), 3);
        assert_eq!(machine.delivery.is_closed(), flush);
    }
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn an_unreadable_spool_does_not_hold_up_memory() {
    let disk = RefCell::new(Disk::new(usize::MAX));
    let down = Cell::new(true);
    let receiver: Receiver<'_> =
        Box::new(|_, _| (Duration::ZERO, if down.get() { unreachable() } else { accepted() }));
    let mut machine = Machine::new(Limits::default(), Some(&disk), receiver);
    (0..10).for_each(|n| machine.push(request(n, 1, 1000)));
    machine.run_for(60 * SECOND);
    assert_eq!(machine.requests(|stats| stats.in_spool), 10);
    down.set(false);
    disk.borrow_mut().broken = true;
    (10..20).for_each(|n| machine.push(request(n, 1, 1000)));
    machine.run_for(60 * SECOND);
    assert_eq!(machine.requests(|stats| stats.delivered), 10);
    assert_eq!(machine.stats().spool_error.unwrap(), "cannot read the spool: I/O error");
    disk.borrow_mut().broken = false;
    machine.run_for(31 * SECOND);
    assert_eq!(machine.requests(|stats| stats.delivered), 20);
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn records_that_are_gone_are_counted() {
    let disk = RefCell::new(Disk::new(usize::MAX));
    let mut machine = Machine::new(Limits::default(), Some(&disk), answers(vec![]));
    let mut held = Held::default();
    *held.waiting.get_mut(Signal::Logs) = Amount { requests: 1, items: 7, bytes: 70 };
    *held.unreadable.get_mut(Signal::Traces) = Amount { requests: 2, items: 2, bytes: 20 };
    machine.delivery = Delivery::new("there".to_owned(), Limits::default(), Some(&held));
    machine.run_for(SECOND);
    let stats = machine.stats();
    assert_eq!(stats.total(|stats| stats.recovered).items, 9);
    assert_eq!(stats.total(dropped(DropReason::UnreadableSpool)).items, 9);
    assert!(machine.attempts.is_empty());
}

#[test]
fn what_is_too_large_is_never_sent() {
    let mut machine = Machine::new(limits(1 << 30), None, answers(vec![]));
    machine.push(request(0, 5, MAX_REQUEST + 1));
    machine.push(request(1, 5, MAX_REQUEST));
    machine.run_for(SECOND);
    assert_eq!(machine.requests(dropped(DropReason::TooLarge)), 1);
    assert_eq!(machine.requests(|stats| stats.delivered), 1);
    // What is larger than the whole queue pushes nothing else out.
    let mut machine = Machine::new(limits(5000), None, answers(vec![]));
    machine.push(request(0, 5, 1000));
    machine.push(request(1, 5, 5000));
    machine.run_for(SECOND);
    assert_eq!(machine.requests(dropped(DropReason::TooLarge)), 1);
    assert_eq!(machine.requests(|stats| stats.delivered), 1);
}

#[test]
fn the_request_in_flight_is_not_dropped_for_room() {
    let receiver: Receiver<'_> = Box::new(|_, _| (10 * SECOND, accepted()));
    let bound = limits(2 * 1128);
    let mut machine = Machine::new(bound, None, receiver);
    machine.push(request(0, 1, 1000));
    machine.run_for(SECOND);
    (1..10).for_each(|n| machine.push(request(n, 1, 1000)));
    assert!(machine.fits(bound));
    machine.run_for(60 * SECOND);
    assert_eq!(machine.attempts.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [0, 9]);
    // One that needs all of it finds no room while another is in flight, and is lost itself.
    machine.push(request(10, 1, 1000));
    machine.run_for(SECOND);
    machine.push(request(11, 1, 2000));
    machine.run_for(60 * SECOND);
    assert_eq!(machine.requests(|stats| stats.delivered), 3);
    assert_eq!(machine.requests(dropped(DropReason::QueueFull)), 9);
}

#[test]
fn ends_that_are_not_known_are_counted_apart() {
    let mut machine = Machine::new(Limits::default(), None, answers(vec![no_answer(), no_answer()]));
    machine.push(request(0, 6, 10));
    machine.run_for(60 * SECOND);
    assert_eq!(machine.attempts.len(), 3);
    let stats = machine.stats();
    assert_eq!(stats.total(|stats| stats.ambiguous), Amount { requests: 2, items: 12, bytes: 20 });
    assert_eq!(stats.total(|stats| stats.delivered).items, 6);
}

#[test]
fn a_panic_gives_up_its_request_alone() {
    let mut delivery = Delivery::new("there".to_owned(), Limits::default(), None);
    (0..2).for_each(|n| delivery.push(request(n, 1, 10), Duration::ZERO));
    assert!(matches!(delivery.step(Duration::ZERO), Step::Send(first, None) if number(&first) == 0));
    delivery.panicked();
    assert!(matches!(delivery.step(Duration::ZERO), Step::Send(second, None) if number(&second) == 1));
    let stats = delivery.stats(Duration::ZERO);
    simulation::check(&stats);
    assert_eq!((stats.panics, stats.total(dropped(DropReason::NotRetryable)).requests), (1, 1));
    assert_eq!(stats.last_error.unwrap(), "the exporter panicked");
}

#[test]
fn a_flush_sends_what_it_can_and_takes_nothing_more() {
    let receiver: Receiver<'_> = Box::new(|_, _| (SECOND, accepted()));
    let mut machine = Machine::new(Limits::default(), None, receiver);
    (0..3).for_each(|n| machine.push(request(n, 1, 10)));
    machine.delivery.shut_down(machine.now, 5 * SECOND);
    machine.push(request(3, 1, 10));
    machine.run_for(3 * SECOND);
    assert!(machine.delivery.is_closed());
    assert_eq!(machine.requests(|stats| stats.delivered), 3);
    assert_eq!(machine.requests(dropped(DropReason::ShutDown)), 1);
}

#[test]
fn a_flush_ends_in_time_and_counts_what_is_left() {
    let slow: fn() -> Receiver<'static> = || Box::new(|_, _| (4 * SECOND, accepted()));
    let mut machine = Machine::new(Limits::default(), None, slow());
    (0..3).for_each(|n| machine.push(request(n, 1, 10)));
    machine.run_for(SECOND);
    machine.delivery.shut_down(machine.now, 5 * SECOND);
    machine.run_for(5 * SECOND);
    assert!(machine.delivery.is_closed());
    assert_eq!(machine.requests(|stats| stats.delivered), 1);
    assert_eq!(machine.requests(dropped(DropReason::ShutDown)), 2);
    // The second was sent, and nobody knows what came of it.
    assert_eq!(machine.requests(|stats| stats.ambiguous), 1);
    // Without a flush it is over at once.
    let mut machine = Machine::new(Limits::default(), None, slow());
    (0..3).for_each(|n| machine.push(request(n, 1, 10)));
    machine.delivery.shut_down(machine.now, Duration::ZERO);
    assert!(machine.delivery.is_closed());
    assert_eq!(machine.requests(dropped(DropReason::ShutDown)), 3);
}

#[test]
fn a_flush_does_not_wait_for_an_attempt_after_its_end() {
    let mut machine = Machine::new(Limits::default(), None, answers(vec![refused(429, Some(60 * SECOND))]));
    machine.push(request(0, 1, 10));
    machine.delivery.shut_down(machine.now, 5 * SECOND);
    machine.run_for(SECOND / 10);
    assert!(machine.delivery.is_closed());
    assert_eq!(machine.requests(dropped(DropReason::ShutDown)), 1);
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn what_a_flush_leaves_is_spooled_and_comes_first_in_the_next_run() {
    let disk = RefCell::new(Disk::new(usize::MAX));
    disk.borrow_mut().latency = 2 * SECOND;
    let receiver: Receiver<'_> = Box::new(|_, _| (HOUR, accepted()));
    let mut machine = Machine::new(Limits::default(), Some(&disk), receiver);
    (0..5).for_each(|n| machine.push(request(n, 1, 10)));
    machine.run_for(SECOND / 2);
    machine.delivery.shut_down(machine.now, SECOND / 4);
    machine.run_for(SECOND);
    assert!(!machine.delivery.is_closed());
    machine.run_for(2 * SECOND);
    assert!(machine.delivery.is_closed());
    assert_eq!(machine.requests(|stats| stats.in_spool), 5);
    let mut machine = Machine::new(Limits::default(), Some(&disk), answers(vec![]));
    machine.push(request(5, 1, 10));
    machine.run_for(60 * SECOND);
    assert_eq!(machine.attempts.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(machine.requests(|stats| stats.recovered), 5);
    assert_eq!(machine.requests(|stats| stats.delivered), 6);
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn a_flush_that_takes_long_is_no_risk() {
    for (latency, appends) in [(HOUR, 1), (SECOND / 20, 0)] {
        let disk = RefCell::new(Disk::new(usize::MAX));
        let receiver: Receiver<'_> = Box::new(move |_, _| (latency, accepted()));
        let mut machine = Machine::new(Limits::default(), Some(&disk), receiver);
        machine.push(request(0, 1, 10));
        machine.delivery.shut_down(machine.now, 5 * SECOND);
        machine.run_for(SECOND / 5);
        assert_eq!(disk.borrow().appends, appends);
        assert_eq!(machine.requests(|stats| stats.in_memory), 0);
    }
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn what_can_not_be_spooled_at_the_end_is_dropped_and_counted() {
    let disk = RefCell::new(Disk::new(usize::MAX));
    disk.borrow_mut().full = true;
    let mut machine = Machine::new(Limits::default(), Some(&disk), answers(vec![unreachable()]));
    (0..5).for_each(|n| machine.push(request(n, 1, 10)));
    machine.delivery.shut_down(machine.now, SECOND / 2);
    machine.run_for(SECOND);
    assert!(machine.delivery.is_closed());
    assert_eq!(machine.requests(dropped(DropReason::ShutDown)), 5);
    assert!(machine.stats().spool_error.is_some());
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn a_disk_that_hangs_at_the_end_can_be_given_up() {
    let disk = RefCell::new(Disk::new(usize::MAX));
    disk.borrow_mut().latency = HOUR;
    let mut machine = Machine::new(Limits::default(), Some(&disk), answers(vec![unreachable()]));
    (0..5).for_each(|n| machine.push(request(n, 1, 10)));
    machine.delivery.shut_down(machine.now, SECOND / 2);
    machine.run_for(60 * SECOND);
    assert!(!machine.delivery.is_closed());
    machine.delivery.abandon();
    machine.run_for(2 * HOUR);
    assert_eq!(machine.requests(dropped(DropReason::ShutDown)), 5);
}

#[test]
fn a_receiver_that_hangs_to_the_end_is_told() {
    let mut delivery = Delivery::new("there".to_owned(), Limits::default(), None);
    delivery.push(request(0, 1, 10), Duration::ZERO);
    assert!(matches!(delivery.step(Duration::ZERO), Step::Send(..)));
    delivery.shut_down(SECOND, SECOND);
    assert_eq!(delivery.step(3 * SECOND), Step::Done);
    let stats = delivery.stats(3 * SECOND);
    assert_eq!(stats.last_error.as_deref(), Some("no answer came before the end"));
    assert_eq!(stats.total(|signal| signal.ambiguous).requests, 1);
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn what_was_read_before_a_group_was_saved_says_nothing_about_it() {
    let mut held = Held::default();
    *held.waiting.get_mut(Signal::Metrics) = Amount { requests: 1, items: 1, bytes: 10 };
    let group = |records: &[u64]| Appended {
        records: records.iter().map(|record| RecordId(*record)).collect(),
        ..Appended::default()
    };
    for loaded_first in [true, false] {
        let mut delivery = Delivery::new("there".to_owned(), Limits::default(), Some(&held));
        assert_eq!(delivery.step(Duration::ZERO), Step::Load);
        delivery.push(request(0, 1, 10), Duration::ZERO);
        assert!(matches!(delivery.save_step(SECOND), SaveStep::Save(_)));
        // The old record cannot be read; the new one is not there yet.
        if loaded_first {
            delivery.loaded(SECOND, Ok(None));
            delivery.saved(SECOND, Ok(group(&[7])));
        } else {
            delivery.saved(SECOND, Ok(group(&[7])));
            delivery.loaded(SECOND, Ok(None));
        }
        let stats = delivery.stats(SECOND);
        simulation::check(&stats);
        assert_eq!(stats.total(dropped(DropReason::UnreadableSpool)).requests, 0);
        // Read again a little later, it is there; after it, what the old one was is known.
        assert!(matches!(delivery.step(SECOND), Step::Wait(Some(_))));
        let now = 2 * SECOND;
        assert_eq!(delivery.step(now), Step::Load);
        delivery.loaded(now, Ok(Some((RecordId(7), request(0, 1, 10)))));
        assert!(matches!(delivery.step(now), Step::Send(..)));
        delivery.sent(now, accepted(), 0.0);
        assert_eq!(delivery.step(now), Step::Acknowledge(vec![RecordId(7)]));
        delivery.acknowledged(now, Ok(()));
        assert_eq!(delivery.step(now), Step::Load);
        delivery.loaded(now, Ok(None));
        let stats = delivery.stats(now);
        simulation::check(&stats);
        assert_eq!(stats.total(dropped(DropReason::UnreadableSpool)).requests, 1);
        assert_eq!(stats.total(|stats| stats.delivered).requests, 1);
    }
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn a_burst_is_spooled_before_it_is_dropped() {
    let disk = RefCell::new(Disk::new(usize::MAX));
    let receiver: Receiver<'_> = Box::new(|_, _| (HOUR, accepted()));
    let mut machine = Machine::new(limits(20 * 1128), Some(&disk), receiver);
    for n in 0..100 {
        machine.push(request(n, 1, 1000));
        machine.run_for(Duration::from_millis(1));
    }
    assert_eq!(machine.requests(|stats| stats.dropped.total()), 0);
    assert!(disk.borrow().numbers().len() > 80);
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn what_is_read_back_takes_no_room_from_what_waits() {
    let mut held = Held::default();
    *held.waiting.get_mut(Signal::Metrics) = Amount { requests: 1, items: 1, bytes: 5000 };
    let now = Duration::ZERO;
    let mut delivery = Delivery::new("there".to_owned(), limits(2 * 1128), Some(&held));
    assert_eq!(delivery.step(now), Step::Load);
    delivery.loaded(now, Ok(Some((RecordId(1), request(0, 1, 5000)))));
    assert!(matches!(delivery.step(now), Step::Send(..)));
    (1..4).for_each(|n| delivery.push(request(n, 1, 1000), now));
    let stats = delivery.stats(now);
    assert_eq!(stats.total(|stats| stats.in_memory).requests, 2);
    assert_eq!(stats.total(dropped(DropReason::QueueFull)).requests, 1);
}

#[test]
#[cfg_attr(not(feature = "spool"), ignore = "without the feature `spool`")]
fn what_is_delivered_takes_room_until_the_disk_has_answered() {
    let mut delivery = Delivery::new("there".to_owned(), limits(3 * 1128), Some(&Held::default()));
    (0..3).for_each(|n| delivery.push(request(n, 1, 1000), Duration::ZERO));
    assert!(matches!(delivery.save_step(SECOND), SaveStep::Save(group) if group.len() == 1));
    assert!(matches!(delivery.step(SECOND), Step::Send(first, None) if number(&first) == 0));
    delivery.sent(SECOND, accepted(), 0.0);
    let lost = |delivery: &Delivery| delivery.stats(SECOND).total(dropped(DropReason::QueueFull)).requests;
    delivery.push(request(3, 1, 1000), SECOND);
    assert_eq!(lost(&delivery), 1);
    delivery.saved(SECOND, Ok(Appended { records: vec![RecordId(1)], ..Appended::default() }));
    delivery.push(request(4, 1, 1000), SECOND);
    assert_eq!(lost(&delivery), 1);
}

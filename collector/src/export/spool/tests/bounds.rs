//! Order, room and files, without crashes.

use super::disk::Disk;
use super::{drain, id_of, request};
use crate::export::spool::format::{RECORD_HEADER, SEGMENT_HEADER};
use crate::export::spool::{MAX_IDLE, MAX_UNSYNCED, Spool, SpoolError};
use crate::export::stats::Amount;
use crate::export::store::RecordId;

fn open(disk: &Disk, max_bytes: u64) -> Spool {
    Spool::open_on(disk.volume(), max_bytes, 1 << 20).unwrap().0
}

#[test]
fn requests_come_back_in_order_until_they_are_acknowledged() {
    let disk = Disk::new(1);
    let spool = open(&disk, 1 << 20);
    assert_eq!(spool.oldest().unwrap(), None);
    let appended = spool.append(&[request(1, 10), request(2, 0), request(3, 500)]).unwrap();
    assert_eq!(appended.records, [RecordId(1), RecordId(2), RecordId(3)]);
    assert_eq!(spool.append(&[request(4, 1)]).unwrap().records, [RecordId(4)]);
    for _ in 0..2 {
        assert_eq!(spool.oldest().unwrap(), Some((RecordId(1), request(1, 10))));
    }
    for wrong in [2, 3, 5] {
        let error = spool.acknowledge(RecordId(wrong)).unwrap_err();
        assert!(matches!(*error, SpoolError::OutOfOrder { .. }), "{error}");
    }
    spool.acknowledge(RecordId(1)).unwrap();
    spool.acknowledge(RecordId(1)).unwrap();
    assert_eq!(spool.stats().waiting, 3);
    assert_eq!(drain(&spool), [2, 3, 4]);
    assert_eq!(spool.append(&[]).unwrap().records, []);
}

#[test]
fn one_sync_is_enough_for_a_group() {
    let spool = open(&Disk::new(1), 1 << 20);
    for group in 1..=5 {
        spool.append(&(0..50).map(|id| request(id, 100)).collect::<Vec<_>>()).unwrap();
        assert_eq!(spool.stats().syncs, group);
    }
    // Acknowledgements share it, and are synced alone only when they are many.
    for n in 1..MAX_UNSYNCED {
        let (record, _) = spool.oldest().unwrap().unwrap();
        spool.acknowledge(record).unwrap();
        assert_eq!((spool.stats().unsynced_acknowledgements, spool.stats().syncs), (n, 5));
    }
    let (record, _) = spool.oldest().unwrap().unwrap();
    spool.acknowledge(record).unwrap();
    assert_eq!((spool.stats().unsynced_acknowledgements, spool.stats().syncs), (0, 6));
    spool.sync().unwrap();
    assert_eq!(spool.stats().syncs, 6);
}

#[test]
fn the_oldest_make_room_and_are_counted() {
    let disk = Disk::new(1);
    let max_bytes = 8_000;
    let spool = open(&disk, max_bytes);
    let (mut dropped, mut kept) = (Vec::new(), Vec::new());
    for id in 1..=200 {
        let appended = spool.append(&[request(id, 100)]).unwrap();
        kept.extend(appended.records);
        for drop in appended.dropped {
            assert_eq!(drop.record, kept.remove(0));
            let lost = request(drop.record.0, 100);
            assert_eq!((drop.signal, drop.amount), (lost.signal, Amount::of(&lost)));
            dropped.push(drop.record.0);
        }
        assert!(disk.used() <= max_bytes);
    }
    assert!(dropped.len() > 100 && kept.len() > 30, "{} dropped, {} kept", dropped.len(), kept.len());
    assert_eq!(spool.stats().waiting, kept.len() as u64);
    // Every acknowledgement has its room, too.
    assert_eq!(drain(&spool), kept.iter().map(|record| record.0).collect::<Vec<_>>());
    assert!(disk.used() <= max_bytes);
}

#[test]
fn what_no_spool_can_hold_is_dropped_at_once() {
    let disk = Disk::new(1);
    let spool = open(&disk, 2_000);
    spool.append(&[request(1, 10)]).unwrap();
    let appended = spool.append(&[request(2, 10), request(3, 5_000), request(4, 10)]).unwrap();
    assert_eq!(appended.records, [RecordId(2), RecordId(3), RecordId(4)]);
    assert_eq!(appended.dropped.len(), 1);
    assert_eq!((appended.dropped[0].record, appended.dropped[0].amount.items), (RecordId(3), 9));
    assert_eq!(drain(&spool), [1, 2, 4]);
    // A group that is larger than the spool keeps its newest.
    let group: Vec<_> = (10..40).map(|id| request(id, 200)).collect();
    let appended = spool.append(&group).unwrap();
    assert_eq!(appended.records.len(), 30);
    let kept = drain(&spool);
    assert_eq!(kept.len() + appended.dropped.len(), 30);
    assert_eq!(kept.last(), Some(&39));
    // So does none, in one that is too small for anything.
    let tiny = open(&Disk::new(1), 100);
    assert_eq!(tiny.append(&[request(1, 0)]).unwrap().dropped.len(), 1);
    assert_eq!(tiny.oldest().unwrap(), None);
}

#[test]
fn a_lower_bound_drops_the_oldest_at_the_start() {
    let disk = Disk::new(1);
    let spool = open(&disk, 20_000);
    for id in 1..=100 {
        spool.append(&[request(id, 100)]).unwrap();
    }
    drop(spool);
    let (spool, recovered) = Spool::open_on(disk.volume(), 9_000, 1 << 20).unwrap();
    assert!(disk.used() <= 9_000);
    let waiting: u64 = recovered.held.waiting.iter().map(|(_, amount)| amount.requests).sum();
    let dropped: u64 = recovered.held.dropped.iter().map(|(_, amount)| amount.requests).sum();
    assert!(dropped > 40 && waiting > 20, "{recovered:?}");
    assert_eq!(waiting + dropped, 100);
    assert_eq!(drain(&spool), (dropped + 1..=100).collect::<Vec<_>>());
}

#[test]
fn an_empty_spool_stays_small_whatever_went_through_it() {
    let disk = Disk::new(1);
    let spool = open(&disk, 10 << 20);
    for id in 0..3_000 {
        spool.append(&[request(id, 40)]).unwrap();
        assert_eq!(drain(&spool), [id]);
        let largest = MAX_IDLE + (2 * RECORD_HEADER + 100) as u64;
        assert!(disk.names().len() <= 1 && disk.used() <= largest);
    }
    spool.append(&(0..3_000).map(|id| request(id, 40)).collect::<Vec<_>>()).unwrap();
    assert_eq!(drain(&spool).len(), 3_000);
    assert_eq!(disk.used(), 0);
    spool.append(&[request(1, 1)]).unwrap();
    drain(&spool);
    drop(spool);
    assert_eq!(disk.names(), Vec::<String>::new());
}

#[test]
fn restarts_leave_no_files_behind() {
    let disk = Disk::new(1);
    open(&disk, 1 << 20).append(&[request(1, 100)]).unwrap();
    let mut sizes = Vec::new();
    for _ in 0..50 {
        drop(open(&disk, 1 << 20));
        assert!(disk.names().len() <= 2, "{:?}", disk.names());
        sizes.push(disk.used());
    }
    assert_eq!(sizes.first(), sizes.last());
    assert_eq!(drain(&open(&disk, 1 << 20)), [1]);
}

#[test]
fn a_full_disk_costs_the_oldest_if_that_helps() {
    let disk = Disk::new(1);
    let spool = open(&disk, 80_000);
    for id in 1..=30 {
        spool.append(&[request(id, 2_000)]).unwrap();
    }
    let used = disk.used();
    disk.leave_free(Some(100));
    let appended = spool.append(&[request(31, 2_000)]).unwrap();
    assert_eq!(appended.dropped.first().map(|dropped| dropped.record), Some(RecordId(1)));
    let lost = appended.dropped.len() as u64;
    assert!(disk.used() <= used + 100);
    // Delivering needs no room at all.
    disk.leave_free(Some(0));
    assert_eq!(drain(&spool), (lost + 1..=31).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_is_an_error_if_nothing_can_go() {
    let disk = Disk::new(1);
    let spool = open(&disk, 1 << 20);
    spool.append(&[request(1, 100)]).unwrap();
    let used = disk.used();
    for free in [0, 1, RECORD_HEADER as u64, 200] {
        disk.leave_free(Some(free));
        let error = spool.append(&[request(2, 50), request(3, 500)]).unwrap_err();
        let expected = "cannot append to the spool file /disk/0000000000000001.spool: ";
        assert!(error.is_no_space() && error.to_string().starts_with(expected), "{error}");
        assert_eq!(disk.used(), used, "what was written of the group is cut off");
    }
    disk.leave_free(None);
    assert_eq!(spool.append(&[request(4, 500)]).unwrap().records, [RecordId(2)]);
    assert_eq!(drain(&spool), [1, 4]);
    // The same without a file to begin with.
    let disk = Disk::new(1);
    let spool = open(&disk, 1 << 20);
    disk.leave_free(Some(SEGMENT_HEADER as u64 - 1));
    assert!(spool.append(&[request(1, 1)]).unwrap_err().is_no_space());
    assert_eq!(disk.names(), Vec::<String>::new());
}

#[test]
fn after_a_failed_sync_a_new_segment_goes_on() {
    let disk = Disk::new(1);
    let spool = open(&disk, 1 << 20);
    spool.append(&[request(1, 100)]).unwrap();
    let used = disk.used();
    disk.fail_syncs(1);
    let error = spool.append(&[request(2, 100), request(3, 100)]).unwrap_err();
    assert!(error.to_string().starts_with("cannot sync the spool file /disk/0000000000000001.spool: "));
    assert_eq!(disk.used(), used);
    assert_eq!(id_of(&spool.oldest().unwrap().unwrap().1), 1);
    let records = spool.append(&[request(2, 100), request(3, 100)]).unwrap().records;
    assert_eq!(disk.names().len(), 2);
    assert!(records[0] > RecordId(3), "numbers that may be on disk are not used again");
    assert_eq!(drain(&spool), [1, 2, 3]);
}

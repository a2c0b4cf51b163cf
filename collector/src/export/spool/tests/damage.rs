//! Files that are not what was written.

use super::disk::{Crash, Disk};
use super::{drain, request};
use crate::crc32::crc32;
use crate::export::Signal;
use crate::export::spool::format::{
    BadHeader, Kind, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader, file_name, number_of,
};
use crate::export::spool::{Recovered, Spool};

const BODY: usize = 108;
const RECORD: usize = RECORD_HEADER + BODY;

/// Three segments of four requests each, after a kill.
fn filled() -> Disk {
    let disk = Disk::new(1);
    let spool = Spool::open_on(disk.volume(), 100_000, (SEGMENT_HEADER + 4 * RECORD) as u64).unwrap().0;
    for group in 0..3 {
        let ids = 4 * group + 1..=4 * group + 4;
        spool.append(&ids.map(|id| request(id, 100)).collect::<Vec<_>>()).unwrap();
    }
    assert_eq!(disk.names().len(), 3);
    disk.crash_after(0);
    drop(spool);
    disk.restart(Crash::Kill);
    disk
}

fn open(disk: &Disk) -> (Spool, Recovered) {
    Spool::open_on(disk.volume(), 100_000, 100_000).unwrap()
}

fn requests(recovered: &Recovered) -> u64 {
    recovered.held.waiting.iter().map(|(_, amount)| amount.requests).sum()
}

#[test]
fn files_are_as_documented() {
    let disk = Disk::new(1);
    let spool = Spool::open_on(disk.volume(), 100_000, 100_000).unwrap().0;
    spool.append(&[request(5, 2)]).unwrap();
    drop(spool);
    disk.edit("0000000000000001.spool", |bytes| {
        let crc = |from: &[u8]| crc32(from).to_le_bytes();
        let seeded = |record: &[u8]| {
            let mut hasher = crate::crc32::digest();
            hasher.update(&1u64.to_le_bytes());
            hasher.update(record);
            hasher.finalize().to_le_bytes()
        };
        let mut expected = b"otspool\x01".to_vec();
        for number in [1u64, 1, 0] {
            expected.extend(number.to_le_bytes());
        }
        expected.extend(crc(&expected.clone()));
        let body = request(5, 2).body;
        let mut record = 10u32.to_le_bytes().to_vec();
        record.extend(crc(&body));
        record.extend([1, 2, 0, 0]);
        record.extend(1u64.to_le_bytes());
        record.extend(15u64.to_le_bytes());
        record.extend(seeded(&record));
        expected.extend(&record);
        expected.extend(&body);
        let mut mark = vec![0; 8];
        mark.extend([3, 0, 0, 0]);
        mark.extend([0; 16]);
        mark.extend(seeded(&mark));
        expected.extend(&mark);
        assert_eq!(*bytes, expected);
    });
}

#[test]
fn headers_read_back_and_every_bit_of_them_counts() {
    let segment = SegmentHeader { number: 7, first: 40, acknowledged: 39 };
    let bytes = segment.encode();
    assert_eq!(SegmentHeader::decode(&bytes, 7), Ok(segment));
    assert_eq!(SegmentHeader::decode(&bytes, 8), Err(BadHeader::Damaged));
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes;
        bytes[bit / 8] ^= 1 << (bit % 8);
        let expected = if bit / 8 == 7 { BadHeader::Version(bytes[7]) } else { BadHeader::Damaged };
        assert_eq!(SegmentHeader::decode(&bytes, 7), Err(expected), "bit {bit}");
    }
    let data = |signal| RecordHeader::data(signal, 12, b"body", 41).unwrap();
    let records = Signal::ALL.map(data).into_iter();
    for record in records.chain([RecordHeader::acknowledge(3), RecordHeader::clean(4)]) {
        let bytes = record.encode(7);
        assert_eq!(RecordHeader::decode(&bytes, 7), Some(record));
        assert_eq!(RecordHeader::decode(&bytes, 6), None);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&bytes, 7), None, "bit {bit} of {record:?}");
        }
    }
    assert!(matches!(data(Signal::Logs).kind, Kind::Data { items: 12, .. }));
}

#[test]
fn names_are_read_as_they_are_written() {
    assert_eq!(file_name(0x1f), "000000000000001f.spool");
    assert_eq!(number_of("000000000000001f.spool"), Some(0x1f));
    let others = ["1f.spool", "000000000000001F.spool", "000000000000001f", "+00000000000001f.spool", "x"];
    assert!(others.iter().all(|name| number_of(name).is_none()));
    assert_eq!(number_of("ffffffffffffffff.spool"), None, "no number comes after it");
}

#[test]
fn undamaged_files_are_recovered_whole() {
    let disk = filled();
    let (spool, recovered) = open(&disk);
    assert_eq!(requests(&recovered), 12);
    assert_eq!(recovered.held.waiting.get(Signal::Traces).items, 3 * (1 + 5 + 9));
    assert_eq!((recovered.torn_bytes, recovered.held.damaged_bytes), (0, 0));
    assert_eq!((recovered.is_clean, recovered.held.possible_duplicates), (false, 12));
    drain(&spool);
    drop(spool);
    let (_, recovered) = open(&disk);
    assert_eq!((requests(&recovered), recovered.is_clean, recovered.held.possible_duplicates), (0, true, 0));
}

#[test]
fn a_clean_end_is_one_of_which_nothing_is_in_doubt() {
    let disk = filled();
    let (spool, _) = open(&disk);
    let (record, _) = spool.oldest().unwrap().unwrap();
    spool.acknowledge(record).unwrap();
    drop(spool);
    disk.restart(Crash::PowerCut);
    let (spool, recovered) = open(&disk);
    assert_eq!((requests(&recovered), recovered.is_clean, recovered.held.possible_duplicates), (11, true, 0));
    // Not any more when the next process has begun, even if it did nothing.
    disk.crash_after(0);
    drop(spool);
    disk.restart(Crash::PowerCut);
    let (_, recovered) = open(&disk);
    assert_eq!(
        (requests(&recovered), recovered.is_clean, recovered.held.possible_duplicates),
        (11, false, 11)
    );
}

#[test]
fn damage_in_a_body_costs_one_request() {
    let disk = filled();
    let middle_of_second = SEGMENT_HEADER + RECORD + RECORD_HEADER + 50;
    disk.edit("0000000000000002.spool", |bytes| bytes[middle_of_second] ^= 4);
    let (spool, _) = open(&disk);
    assert_eq!(drain(&spool), [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]);
    assert_eq!((spool.stats().unreadable, spool.stats().waiting), (1, 0));
}

#[test]
fn damage_in_a_records_header_costs_the_rest_of_its_segment() {
    let disk = filled();
    disk.edit("0000000000000002.spool", |bytes| bytes[SEGMENT_HEADER + RECORD + 9] ^= 8);
    let (spool, recovered) = open(&disk);
    assert_eq!((requests(&recovered), recovered.held.damaged_bytes), (9, 3 * RECORD as u64));
    assert_eq!(drain(&spool), [1, 2, 3, 4, 5, 9, 10, 11, 12]);
    // The same while the spool is in use.
    let disk = filled();
    let (spool, _) = open(&disk);
    disk.edit("0000000000000002.spool", |bytes| bytes[SEGMENT_HEADER + RECORD + 9] ^= 8);
    assert_eq!(drain(&spool), [1, 2, 3, 4, 5, 9, 10, 11, 12]);
    assert_eq!(spool.stats().unreadable, 3);
}

#[test]
fn damage_in_a_segments_header_costs_the_segment() {
    let disk = filled();
    disk.edit("0000000000000001.spool", |bytes| bytes[20] ^= 1);
    let (spool, recovered) = open(&disk);
    assert_eq!(recovered.held.damaged_bytes, (SEGMENT_HEADER + 4 * RECORD) as u64);
    assert_eq!(drain(&spool), [5, 6, 7, 8, 9, 10, 11, 12]);
    // So it does in the last one, in which requests are only once the header is on disk.
    let disk = filled();
    disk.edit("0000000000000003.spool", |bytes| bytes[20] ^= 1);
    let (spool, recovered) = open(&disk);
    assert_eq!(recovered.held.damaged_bytes, (SEGMENT_HEADER + 4 * RECORD) as u64);
    assert_eq!((recovered.torn_bytes, recovered.is_clean), (0, false));
    assert_eq!(drain(&spool), (1..=8).collect::<Vec<_>>());
    // Without any, it was being made.
    let disk = filled();
    disk.edit("0000000000000003.spool", |bytes| {
        bytes.truncate(SEGMENT_HEADER);
        bytes.fill(0);
    });
    let (_, recovered) = open(&disk);
    assert_eq!((recovered.torn_bytes, recovered.held.damaged_bytes), (SEGMENT_HEADER as u64, 0));
}

#[test]
fn a_torn_end_is_cut_and_everything_before_it_kept() {
    let whole = SEGMENT_HEADER + 3 * RECORD;
    for torn in [1, RECORD_HEADER - 1, RECORD_HEADER, RECORD - 1] {
        let disk = filled();
        disk.edit("0000000000000003.spool", |bytes| bytes.truncate(whole + torn));
        let (spool, recovered) = open(&disk);
        assert_eq!((recovered.torn_bytes, recovered.held.damaged_bytes), (torn as u64, 0));
        assert_eq!(drain(&spool), (1..=11).collect::<Vec<_>>());
    }
    // A body that was not written, though the file is long enough.
    let disk = filled();
    disk.edit("0000000000000003.spool", |bytes| bytes[whole + RECORD_HEADER..].fill(0));
    let (spool, recovered) = open(&disk);
    assert_eq!((requests(&recovered), recovered.torn_bytes), (11, RECORD as u64));
    // The new records are not appended to what was torn.
    spool.append(&[request(13, 1)]).unwrap();
    assert_eq!(drain(&spool), (1..=11).chain([13]).collect::<Vec<_>>());
}

#[test]
fn other_versions_and_other_files_are_left_alone() {
    let disk = filled();
    let names = disk.names();
    disk.edit("0000000000000002.spool", |bytes| bytes[7] = 9);
    let error = Spool::open_on(disk.volume(), 100_000, 1_000).err().unwrap().to_string();
    assert!(error.contains("/disk/0000000000000002.spool") && error.contains("version 9"), "{error}");
    assert_eq!(disk.names(), names);
    let disk = filled();
    disk.volume().create("notes.txt").unwrap();
    let (spool, _) = open(&disk);
    drain(&spool);
    drop(spool);
    assert_eq!(disk.names(), ["notes.txt"]);
}

#[test]
fn a_place_that_cannot_be_read_is_passed_over_in_the_end() {
    let disk = filled();
    let (spool, _) = open(&disk);
    disk.fail_reads(2);
    for _ in 0..2 {
        let error = spool.oldest().unwrap_err().to_string();
        assert!(error.starts_with("cannot read the spool file /disk/0000000000000001.spool: "), "{error}");
    }
    assert_eq!(spool.oldest().unwrap().unwrap().0.0, 1);
    disk.fail_reads(3);
    let failures = (0..5).filter(|_| spool.oldest().is_err()).count();
    assert_eq!(failures, 2);
    assert_eq!(spool.stats().unreadable, 4, "the way to the records could not be read");
    assert_eq!(drain(&spool), (5..=12).collect::<Vec<_>>());
}

#[test]
fn a_file_that_vanishes_is_counted() {
    let disk = filled();
    let (spool, _) = open(&disk);
    disk.volume().remove("0000000000000002.spool").unwrap();
    assert_eq!(drain(&spool), [1, 2, 3, 4, 9, 10, 11, 12]);
    assert_eq!(spool.stats().unreadable, 4);
}

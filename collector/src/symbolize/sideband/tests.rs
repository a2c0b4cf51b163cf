use super::*;

/// `sample_type` of the tests: TID, TIME, CPU, IDENTIFIER.
const SAMPLE_TYPE: u64 = SAMPLE_TID | SAMPLE_TIME | SAMPLE_CPU | SAMPLE_IDENTIFIER;

fn record(kind: u32, misc: u16, body: &[&[u8]]) -> Vec<u8> {
    let mut body = body.concat();
    body.resize(body.len().next_multiple_of(8), 0);
    for field in [7_u64 << 32 | 6, 1000, 3, 99] {
        body.extend_from_slice(&field.to_ne_bytes());
    }
    let mut bytes = kind.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&misc.to_ne_bytes());
    bytes.extend_from_slice(&((body.len() + HEADER) as u16).to_ne_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

fn parsed(bytes: &[u8]) -> (Record<'_>, SampleId) {
    parse_record(bytes, Trailer::new(SAMPLE_TYPE)).unwrap()
}

#[test]
fn mmap2_by_inode() {
    let bytes = record(
        MMAP2,
        2,
        &[
            &words(&[10, 11]),
            &longs(&[0x1000, 0x2000, 0x3000]),
            &words(&[8, 1]),
            &longs(&[42, 5]),
            &words(&[5, 2]),
            b"/bin/x\0",
        ],
    );
    let (record, id) = parsed(&bytes);
    assert_eq!(
        record,
        Record::Mmap {
            pid: 10,
            start: 0x1000,
            length: 0x2000,
            offset: 0x3000,
            file: FileId::Inode { device: (8, 1), inode: 42, generation: 5 },
            path: b"/bin/x",
        }
    );
    assert_eq!(id, SampleId { pid: Some(6), tid: Some(7), time: Some(1000) });
}

#[test]
fn mmap2_by_build_id() {
    for (size, length) in [(20_u8, 20), (16, 16), (255, 20), (0, 0)] {
        let mut file = [9; 24];
        file[0] = size;
        let bytes = record(
            MMAP2,
            2 | MISC_MMAP_BUILD_ID,
            &[&words(&[10, 11]), &longs(&[0x1000, 0x2000, 0]), &file, &words(&[5, 2]), b"/bin/x\0"],
        );
        let expected = vec![9; length];
        assert!(
            matches!(parsed(&bytes).0, Record::Mmap { file: FileId::BuildId(id), .. } if id == expected),
            "{size}"
        );
    }
}

#[test]
fn data_and_kernel_mappings_are_left_out() {
    for (misc, protection) in [(2, 3), (1, 5)] {
        let bytes = record(
            MMAP2,
            misc,
            &[&words(&[10, 11]), &longs(&[1, 1, 1]), &[0; 24], &words(&[protection, 2]), b"x\0"],
        );
        assert_eq!(parsed(&bytes).0, Record::Other);
    }
}

#[test]
fn comm_fork_exit_lost_and_ksymbol() {
    let comm = record(COMM, MISC_COMM_EXEC, &[&words(&[10, 11]), b"name\0\0"]);
    assert_eq!(parsed(&comm).0, Record::Comm { pid: 10, tid: 11, exec: true, comm: b"name" });
    let fork = record(FORK, 0, &[&words(&[10, 1, 11, 1]), &longs(&[77])]);
    assert_eq!(parsed(&fork).0, Record::Fork { pid: 10, parent_pid: 1, tid: 11, time: 77 });
    let exit = record(EXIT, 0, &[&words(&[10, 1, 11, 1]), &longs(&[78])]);
    assert_eq!(parsed(&exit).0, Record::Exit { pid: 10, tid: 11, time: 78 });
    assert_eq!(parsed(&record(LOST, 0, &[&longs(&[1, 5])])).0, Record::Lost { count: 5 });
    assert_eq!(parsed(&record(LOST_SAMPLES, 0, &[&longs(&[6])])).0, Record::Lost { count: 6 });
    let symbol = record(KSYMBOL, 0, &[&longs(&[0xffff_0000]), &words(&[64, 1 << 16 | 1]), b"bpf_prog\0"]);
    assert!(matches!(parsed(&symbol).0, Record::KernelSymbol { address: 0xffff_0000, length: 64, .. }));
    assert_eq!(parsed(&record(9999, 0, &[])).0, Record::Other);
}

#[test]
fn every_cut_is_an_error_or_a_record() {
    let whole = record(
        MMAP2,
        2,
        &[&words(&[10, 11]), &longs(&[1, 2, 3]), &[0; 24], &words(&[5, 2]), b"/a/path/of/some/length\0"],
    );
    for cut in 0..whole.len() {
        let error = parse_record(&whole[..cut], Trailer::new(SAMPLE_TYPE)).unwrap_err();
        assert!(matches!(error, RecordError::Truncated { .. }), "{cut}");
        // A header that tells the truth about a record that is too short.
        let mut short = whole[..cut].to_vec();
        if let Some(size) = short.get_mut(6..8) {
            size.copy_from_slice(&(cut as u16).to_ne_bytes());
            let result = parse_record(&short, Trailer::new(SAMPLE_TYPE));
            assert_eq!(result.is_ok(), cut >= 8 + 64 + 32, "{cut}");
        }
    }
}

#[test]
fn trailers_follow_the_sample_type() {
    assert_eq!(Trailer::new(0).size, 0);
    let only_time = Trailer::new(SAMPLE_TIME | SAMPLE_STREAM_ID);
    assert_eq!((only_time.size, only_time.tid, only_time.time), (16, None, Some(0)));
}

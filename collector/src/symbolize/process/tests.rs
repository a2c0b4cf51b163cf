use super::*;

fn at(time: u64) -> SampleId {
    SampleId { time: Some(time), ..SampleId::default() }
}

fn mmap(pid: u32, start: u64, length: u64, offset: u64, path: &'static [u8]) -> Record<'static> {
    let file = FileId::Inode { device: (8, 1), inode: path.len() as u64, generation: 0 };
    Record::Mmap { pid, start, length, offset, file, path }
}

fn exec(pid: u32, comm: &'static [u8]) -> Record<'static> {
    Record::Comm { pid, tid: pid, exec: true, comm }
}

fn path(table: &ProcessTable, pid: u32, time: u64, address: u64) -> Option<&str> {
    table.find(pid, time, address).map(|(_, mapping)| &*mapping.file.path)
}

#[test]
fn exec_begins_a_generation() {
    let mut table = ProcessTable::default();
    table.observe(&exec(1, b"a"), &at(10));
    table.observe(&mmap(1, 0x1000, 0x1000, 0, b"/bin/a"), &at(11));
    table.observe(&exec(1, b"bb"), &at(20));
    table.observe(&mmap(1, 0x1000, 0x1000, 0, b"/bin/bb"), &at(21));
    table.observe(&mmap(1, 0x9000, 0x1000, 0, b"/lib/c"), &at(22));
    assert_eq!(path(&table, 1, 15, 0x1800), Some("/bin/a"));
    assert_eq!(path(&table, 1, 25, 0x1800), Some("/bin/bb"));
    assert_eq!(path(&table, 1, u64::MAX, 0x1800), Some("/bin/bb"));
    // Only the other generation has it.
    assert_eq!(path(&table, 1, 15, 0x9000), Some("/lib/c"));
    assert_eq!(table.generation(1, 25).unwrap().executable.as_deref(), Some("/bin/bb"));
    assert_eq!(table.generation(1, 15).unwrap().comm.as_deref(), Some("a"));
    assert_eq!(table.generation(1, 5).unwrap().started, 10, "the first is the best that is known");
    // The nearest program before is asked before later ones.
    table.observe(&mmap(1, 0x9000, 0x1000, 0, b"/bin/bb"), &at(23));
    table.observe(&exec(1, b"ccc"), &at(30));
    table.observe(&mmap(1, 0x7000, 0x1000, 0, b"/bin/ccc"), &at(31));
    table.observe(&exec(1, b"d"), &at(40));
    table.observe(&mmap(1, 0x1000, 0x1000, 0, b"/bin/dddd"), &at(41));
    assert_eq!(path(&table, 1, 35, 0x1800), Some("/bin/bb"));
    assert_eq!(path(&table, 1, 29, 0x7000), Some("/bin/ccc"));
    assert_eq!(path(&table, 1, 35, 0xf000), None);
    assert!(!table.wants_maps(1));
    table.end_window(20, |_| true);
    assert_eq!(table.len(), 4);
    table.end_window(21, |_| true);
    assert_eq!(table.len(), 3);
    assert_eq!(path(&table, 1, 15, 0x1800), Some("/bin/bb"));
}

#[test]
fn pids_are_reused() {
    let mut table = ProcessTable::default();
    table.observe(&exec(1, b"a"), &at(10));
    table.observe(&mmap(1, 0x1000, 0x1000, 0, b"/bin/a"), &at(11));
    table.observe(&Record::Exit { pid: 1, tid: 1, time: 12 }, &at(12));
    assert!(!table.may_live(1));
    table.observe(&Record::Fork { pid: 1, parent_pid: 7, tid: 1, time: 20 }, &at(20));
    assert!(table.may_live(1));
    assert!(table.wants_maps(1), "its parent is not known");
    table.observe(&mmap(1, 0x1000, 0x1000, 0, b"/bin/bb"), &at(21));
    assert_eq!(path(&table, 1, 11, 0x1000), Some("/bin/a"));
    assert_eq!(path(&table, 1, 22, 0x1000), Some("/bin/bb"));
}

#[test]
fn forks_share_until_one_changes() {
    let mut table = ProcessTable::default();
    table.observe(&exec(1, b"a"), &at(10));
    table.observe(&mmap(1, 0x1000, 0x1000, 0, b"/bin/a"), &at(11));
    table.observe(&Record::Fork { pid: 2, parent_pid: 1, tid: 2, time: 12 }, &at(12));
    // A thread is no process.
    table.observe(&Record::Fork { pid: 2, parent_pid: 2, tid: 3, time: 13 }, &at(13));
    assert_eq!(table.len(), 2);
    let mappings = |table: &ProcessTable, pid| Arc::clone(&table.latest(pid).unwrap().mappings);
    assert!(Arc::ptr_eq(&mappings(&table, 1), &mappings(&table, 2)));
    table.observe(&mmap(2, 0x5000, 0x1000, 0, b"/lib/b"), &at(14));
    assert_eq!(path(&table, 2, 15, 0x1000), Some("/bin/a"));
    assert_eq!(path(&table, 2, 15, 0x5000), Some("/lib/b"));
    assert_eq!(path(&table, 1, 15, 0x5000), None);
    assert!(!table.wants_maps(2));
    assert_eq!(table.generation(2, 15).unwrap().parent, 1);
}

#[test]
fn overlaps_are_cut() {
    let mut generation = Generation::new(0);
    let file =
        |name: &str| Arc::new(MappedFile { path: name.into(), device: (0, 0), inode: 0, build_id: None });
    let mapping = |start, end, offset, name: &str| VmMapping { start, end, offset, file: file(name) };
    assert!(generation.map(mapping(100, 200, 1000, "a")));
    assert!(generation.map(mapping(300, 400, 0, "b")));
    assert!(generation.map(mapping(120, 140, 0, "c")));
    let shape = |generation: &Generation| -> Vec<(u64, u64, u64, String)> {
        let shape = |m: &VmMapping| (m.start, m.end, m.offset, m.file.path.to_string());
        generation.mappings().iter().map(shape).collect()
    };
    assert_eq!(
        shape(&generation),
        [
            (100, 120, 1000, "a".to_owned()),
            (120, 140, 0, "c".to_owned()),
            (140, 200, 1040, "a".to_owned()),
            (300, 400, 0, "b".to_owned())
        ]
    );
    assert!(generation.map(mapping(110, 350, 5, "d")));
    assert_eq!(
        shape(&generation),
        [(100, 110, 1000, "a".to_owned()), (110, 350, 5, "d".to_owned()), (350, 400, 50, "b".to_owned())]
    );
    assert!(generation.map(mapping(0, u64::MAX, 0, "e")));
    assert!(generation.map(mapping(9, 9, 0, "empty")));
    assert_eq!(generation.mappings().len(), 1);
}

#[test]
fn maps_fill_what_records_missed() {
    let mut table = ProcessTable::default();
    assert!(table.wants_maps(5));
    table.observe(&mmap(5, 0x7000, 0x1000, 0, b"/lib/x"), &at(3));
    assert!(table.wants_maps(5));
    table.observe_maps(
        5,
        b"1000-2000 r-xp 00001000 08:01 99 /bin/main (deleted)\n2000-3000 rw-p 00000000 08:01 99 /bin/main\n\
          7000-8000 r-xp 00000000 08:01 6 /chroot/lib/x\n",
    );
    assert_eq!(path(&table, 5, 0, 0x1fff), Some("/bin/main"));
    assert_eq!(path(&table, 5, 0, 0x2000), None);
    assert_eq!(path(&table, 5, 0, 0x7000), Some("/lib/x"));
    assert!(!table.wants_maps(5));
    table.observe(&Record::Lost { count: 1 }, &at(9));
    assert!(table.wants_maps(5));
    table.end_window(0, |pid| pid != 5);
    assert!(table.is_empty());
}

#[test]
fn room_is_bounded_and_losses_are_counted() {
    let mut table = ProcessTable::default();
    for index in 0..5000_u64 {
        table.observe(&mmap(1, index * 0x2000, 0x1000, 0, b"/lib/x"), &at(index));
    }
    assert_eq!(table.generation(1, 0).unwrap().mappings().len(), MAX_MAPPINGS);
    assert_eq!(table.losses().mappings, 5000 - MAX_MAPPINGS as u64);
    for time in 0..40_000 {
        table.observe(&exec(9, b"x"), &at(time));
    }
    assert!(table.len() <= MAX_GENERATIONS);
    assert!(table.losses().generations > 0);
    assert_eq!(table.generation(9, u64::MAX).unwrap().started, 39_999);
}

/// All mappings, counted anew.
fn count(table: &ProcessTable) -> usize {
    let all = table.processes.values().flatten();
    let distinct: SortedMap<_, _> = all.map(|one| (Arc::as_ptr(&one.mappings), one.mappings.len())).collect();
    distinct.values().sum()
}

#[test]
fn copies_of_a_large_process_share_one_budget() {
    let mut table = ProcessTable::default();
    table.observe(&exec(1, b"a"), &at(1));
    for index in 0..4000 {
        table.observe(&mmap(1, index * 0x2000, 0x1000, 0, b"/lib/x"), &at(2));
    }
    // Copies that end make room for the next.
    for pid in 2..3000 {
        let time = u64::from(pid) * 10;
        table.observe(&Record::Fork { pid, parent_pid: 1, tid: pid, time }, &at(time));
        table.observe(&mmap(pid, 0x1000, 0x1000, 0, b"/lib/y"), &at(time));
        table.observe(&Record::Exit { pid, tid: pid, time: time + 5 }, &at(time));
        assert_eq!(path(&table, pid, time, 0x1000), Some("/lib/y"));
        assert!(table.mappings <= MAX_ALL_MAPPINGS);
    }
    assert_eq!(table.mappings, count(&table));
    assert_eq!(table.losses(), ProcessLosses { generations: 2999 - table.len() as u64, mappings: 0 });
    assert!(table.generation(2998, 0).is_some() && table.generation(3, 0).is_none());
    // Copies that live do not.
    for pid in 10_000..10_100 {
        table.observe(&Record::Fork { pid, parent_pid: 1, tid: pid, time: 40_000 }, &at(40_000));
        table.observe(&mmap(pid, 0x1000, 0x1000, 0, b"/lib/y"), &at(40_000));
    }
    assert_eq!(table.mappings, count(&table));
    assert!(table.mappings <= MAX_ALL_MAPPINGS && table.losses().mappings > 0);
    assert_eq!(path(&table, 10_099, 40_000, 0), Some("/lib/x"), "what it shares is known");
    // Another program has none of them.
    for pid in 10_000..10_100 {
        table.observe(&exec(pid, b"b"), &at(50_000));
    }
    table.end_window(60_000, |_| true);
    assert_eq!((table.mappings, table.len()), (4000, 101));
}

/// What is counted record by record is what a count of everything tells.
#[test]
fn counts_stay_true_whatever_happens() {
    let mut table = ProcessTable::default();
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for time in 0..200_000_u64 {
        let (pid, other) = (random(50) as u32, random(50) as u32);
        match random(8) {
            0 => table.observe(&Record::Fork { pid, parent_pid: other, tid: pid, time }, &at(time)),
            1 => table.observe(&exec(pid, b"x"), &at(time)),
            2 => table.observe(&Record::Exit { pid, tid: pid, time }, &at(time)),
            _ => table.observe(&mmap(pid, random(5000) << 12, random(4) << 12, 0, b"/lib/x"), &at(time)),
        }
        if random(1000) == 0 {
            _ = table.forget_oldest();
        }
        if random(5000) == 0 {
            table.end_window(time.saturating_sub(2000), |_| true);
        }
        if random(200) == 0 {
            let ended = table.processes.values().flatten().filter(|one| one.ended.is_some()).count();
            assert_eq!((table.mappings, table.ended.len()), (count(&table), ended));
            assert_eq!(table.generations, table.processes.values().map(VecDeque::len).sum::<usize>());
        }
    }
    assert!(table.mappings > 0 && table.generations > 50);
}

#[test]
fn paths_share_one_budget() {
    let mut table = ProcessTable::default();
    let directory = "d".repeat(4000);
    let mut map = |pid: u32, index: u64| {
        let path = format!("/{directory}/{index}");
        let record = Record::Mmap {
            pid,
            start: index * 0x1000,
            length: 0x1000,
            offset: 0,
            file: FileId::Unknown,
            path: path.as_bytes(),
        };
        table.observe(&record, &at(index));
        assert!(table.paths <= MAX_PATHS);
        table.losses()
    };
    let room = (MAX_PATHS / 4020) as u64;
    assert_eq!((0..room).map(|index| map(index as u32 / 100, index)).last(), Some(ProcessLosses::default()));
    assert!((room..2 * room).map(|index| map(index as u32 / 100, index)).all(|lost| lost.generations == 0));
    assert!(table.losses().mappings > room / 2);
    for pid in 0..20 {
        table.observe(&Record::Exit { pid, tid: pid, time: 9 }, &at(9));
    }
    let lost = table.losses().mappings;
    table.observe(&mmap(77, 0, 0x1000, 0, b"/lib/short"), &at(10));
    let long = format!("/{}", "e".repeat(4000));
    let file = FileId::Unknown;
    let record = Record::Mmap { pid: 77, start: 0x9000, length: 1, offset: 0, file, path: long.as_bytes() };
    table.observe(&record, &at(11));
    assert_eq!(path(&table, 77, 11, 0x9000), Some(&*long));
    assert_eq!(table.losses(), ProcessLosses { generations: 10, mappings: lost });
}

#[test]
fn memory_is_no_file() {
    for (path, is_file) in
        [("/memfd:x", false), ("/bin/sh", true), ("", false), ("[vdso]", false), ("//anon", false)]
    {
        let file = MappedFile { path: path.into(), device: (0, 0), inode: 1, build_id: None };
        assert_eq!(file.is_file(), is_file, "{path}");
    }
}

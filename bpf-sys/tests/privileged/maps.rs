//! Maps and pins.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use bpf_sys::map::{self, BatchCursor, MapCreate};
use bpf_sys::shared::{RingMapping, SharedMapping};
use bpf_sys::uapi::flags::{BPF_ANY, BPF_F_MMAPABLE, BPF_NOEXIST};
use bpf_sys::{Errno, Error, MapFd, MapType, PerfFd, ProgFd, pin};

use crate::{create, hash_map};

#[test]
fn hash_map_elements() {
    let Some(map) = hash_map(MapType::HASH, 8, 4) else { return };
    let key = 7u32.to_ne_bytes();
    let mut value = [0; 8];
    assert_eq!(map::lookup(&map, &key, &mut value, 0), Ok(false));
    map::update(&map, &key, &[1, 2, 3, 4, 5, 6, 7, 8], BPF_NOEXIST).unwrap();
    assert_eq!(
        map::update(&map, &key, &[0; 8], BPF_NOEXIST),
        Err(Error::Call { call: "bpf(BPF_MAP_UPDATE_ELEM)", errno: Errno::EEXIST })
    );
    assert_eq!(map::lookup(&map, &key, &mut value, 0), Ok(true));
    assert_eq!(value, [1, 2, 3, 4, 5, 6, 7, 8]);
    let mut next = [0; 4];
    assert_eq!(map::next_key(&map, None, &mut next), Ok(true));
    assert_eq!(next, key);
    assert_eq!(map::next_key(&map, Some(&key), &mut next), Ok(false));
    match map::lookup_and_delete(&map, &key, &mut value, 0) {
        Ok(found) => assert!(found),
        // Before Linux 5.14.
        Err(e) => {
            assert_eq!(e.errno(), Some(Errno::ENOTSUPP), "{e}");
            map::delete(&map, &key).unwrap();
        }
    }
    assert_eq!(map::delete(&map, &key), Ok(false));
}

#[test]
fn wrong_lengths_do_not_reach_the_kernel() {
    let Some(map) = hash_map(MapType::HASH, 8, 4) else { return };
    let length = |what, actual, expected| {
        move |e: Error| match e {
            Error::Length { what: w, actual: a, expected: x, .. } => (w, a, x) == (what, actual, expected),
            _ => false,
        }
    };
    assert!(map::lookup(&map, &[0; 3], &mut [0; 8], 0).is_err_and(length("key", 3, 4)));
    assert!(map::lookup(&map, &[0; 4], &mut [0; 7], 0).is_err_and(length("value", 7, 8)));
    assert!(map::update(&map, &[0; 4], &[0; 9], 0).is_err_and(length("value", 9, 8)));
    assert!(map::delete(&map, &[]).is_err_and(length("key", 0, 4)));
    assert!(map::next_key(&map, None, &mut [0; 5]).is_err_and(length("next key", 5, 4)));
    assert!(map::update_batch(&map, &[0; 8], &[0; 8], 0).is_err_and(length("values", 8, 16)));
    assert!(map::update_batch(&map, &[0; 7], &[0; 8], 0).is_err_and(length("keys", 7, 4)));
    let Some(wide) = create(&MapCreate {
        map_type: MapType::HASH,
        key_size: 64,
        value_size: 8,
        max_entries: 1,
        ..Default::default()
    }) else {
        return;
    };
    let mut cursor = BatchCursor::new(&map);
    let other = map::lookup_batch(&wide, &mut cursor, &mut [0; 64], &mut [0; 8], 0);
    assert!(other.is_err_and(length("cursor", 4, 64)));
}

#[test]
fn per_cpu_values_have_a_slot_for_each_possible_cpu() {
    let Some(map) = hash_map(MapType::PERCPU_HASH, 12, 4) else { return };
    let cpus = bpf_sys::possible_cpus().unwrap();
    let len = map.value_len().unwrap();
    assert_eq!(len, 16 * cpus);
    let value: Vec<u8> = (0..len).map(|i| if i % 16 < 12 { i as u8 } else { 0 }).collect();
    map::update(&map, &[0; 4], &value, BPF_ANY).unwrap();
    // What lies past the end must stay.
    let mut read = vec![0xaa; len + 64];
    assert_eq!(map::lookup(&map, &[0; 4], &mut read[..len], 0), Ok(true));
    assert_eq!(read[..len], value);
    assert!(read[len..].iter().all(|b| *b == 0xaa));
}

#[test]
fn batches_walk_a_whole_hash_map() {
    const N: u32 = 1000;
    for map_type in [MapType::HASH, MapType::LRU_HASH, MapType::PERCPU_HASH] {
        let Some(map) = hash_map(map_type, 8, 2 * N) else { return };
        let len = map.value_len().unwrap();
        let keys: Vec<u8> = (0..N).flat_map(u32::to_ne_bytes).collect();
        let values: Vec<u8> = (0..N).flat_map(|k| u64::from(k * 3).to_ne_bytes().repeat(len / 8)).collect();
        map::update_batch(&map, &keys, &values, BPF_ANY).unwrap();

        for delete in [false, true] {
            let (mut keys, mut values) = (vec![0; 4 * 128], vec![0; len * 128]);
            let mut cursor = BatchCursor::new(&map);
            let mut seen = BTreeMap::new();
            loop {
                let read = if delete { map::lookup_and_delete_batch } else { map::lookup_batch };
                let batch = read(&map, &mut cursor, &mut keys, &mut values, 0).unwrap();
                for i in 0..batch.count as usize {
                    let key = u32::from_ne_bytes(keys[4 * i..4 * i + 4].try_into().unwrap());
                    let value = u64::from_ne_bytes(values[len * i..len * i + 8].try_into().unwrap());
                    assert_eq!(seen.insert(key, value), None, "key {key} twice");
                }
                if batch.end {
                    break;
                }
            }
            assert_eq!(seen.len(), N as usize);
            assert!(seen.iter().all(|(k, v)| u64::from(k * 3) == *v));
            // At the end it stays there.
            let again = map::lookup_batch(&map, &mut cursor, &mut keys, &mut values, 0).unwrap();
            assert_eq!((again.count, again.end), (0, true));
        }
        let mut next = [0; 4];
        assert_eq!(map::next_key(&map, None, &mut next), Ok(false), "all were deleted");
    }
}

#[test]
fn a_buffer_smaller_than_a_bucket_is_enospc_and_does_not_move_the_cursor() {
    const N: u32 = 4096;
    let Some(map) = hash_map(MapType::HASH, 8, N) else { return };
    let keys: Vec<u8> = (0..N).flat_map(u32::to_ne_bytes).collect();
    map::update_batch(&map, &keys, &vec![0; 8 * N as usize], BPF_ANY).unwrap();
    let mut cursor = BatchCursor::new(&map);
    let (mut total, mut refused) = (0, 0);
    let mut capacity = 1;
    loop {
        let (mut keys, mut values) = (vec![0; 4 * capacity], vec![0; 8 * capacity]);
        match map::lookup_batch(&map, &mut cursor, &mut keys, &mut values, 0) {
            Ok(batch) => {
                total += batch.count;
                if batch.end {
                    break;
                }
                capacity = 1;
            }
            Err(e) => {
                assert_eq!(e.errno(), Some(Errno::ENOSPC), "{e}");
                refused += 1;
                capacity *= 2;
            }
        }
    }
    assert_eq!(total, N);
    assert!(refused > 0, "no bucket of {N} random keys held two");
}

#[test]
fn array_batch_and_failing_batch_tell_how_far_they_came() {
    let Some(array) = hash_map(MapType::ARRAY, 8, 10) else { return };
    let keys: Vec<u8> = (0..12u32).flat_map(u32::to_ne_bytes).collect();
    let e = map::update_batch(&array, &keys, &[1; 12 * 8], BPF_ANY).unwrap_err();
    assert_eq!(
        e,
        Error::Batch { call: "bpf(BPF_MAP_UPDATE_BATCH)", errno: Errno::E2BIG, done: 10 },
        "two of twelve are outside"
    );
    let (mut keys, mut values) = (vec![0; 4 * 4], vec![0; 8 * 4]);
    let mut cursor = BatchCursor::new(&array);
    let mut counts = Vec::new();
    loop {
        let batch = map::lookup_batch(&array, &mut cursor, &mut keys, &mut values, 0).unwrap();
        assert!(values[..8 * batch.count as usize].iter().all(|b| *b == 1));
        counts.push(batch.count);
        if batch.end {
            break;
        }
    }
    assert_eq!(counts.iter().sum::<u32>(), 10, "{counts:?}");

    let Some(hash) = hash_map(MapType::HASH, 8, 10) else { return };
    map::update(&hash, &1u32.to_ne_bytes(), &[0; 8], BPF_ANY).unwrap();
    let keys: Vec<u8> = [1u32, 2].into_iter().flat_map(u32::to_ne_bytes).collect();
    let e = map::delete_batch(&hash, &keys, 0).unwrap_err();
    assert_eq!(e, Error::Batch { call: "bpf(BPF_MAP_DELETE_BATCH)", errno: Errno::ENOENT, done: 1 });
}

#[test]
fn queues_have_no_keys() {
    let Some(queue) =
        create(&MapCreate { map_type: MapType::QUEUE, value_size: 4, max_entries: 2, ..Default::default() })
    else {
        return;
    };
    map::update(&queue, &[], &[1; 4], BPF_ANY).unwrap();
    map::update(&queue, &[], &[2; 4], BPF_ANY).unwrap();
    let mut value = [0; 4];
    assert_eq!(map::lookup(&queue, &[], &mut value, 0), Ok(true));
    assert_eq!(value, [1; 4]);
    assert_eq!(map::lookup_and_delete(&queue, &[], &mut value, 0), Ok(true));
    assert_eq!(map::lookup_and_delete(&queue, &[], &mut value, 0), Ok(true));
    assert_eq!(value, [2; 4]);
    assert_eq!(map::lookup_and_delete(&queue, &[], &mut value, 0), Ok(false));
}

#[test]
fn a_map_in_a_map_is_set_by_descriptor_and_read_as_id() {
    let Some(inner) = hash_map(MapType::ARRAY, 4, 1) else { return };
    let outer = create(&MapCreate {
        map_type: MapType::HASH_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        inner_map: Some(inner.as_fd()),
        ..Default::default()
    })
    .unwrap();
    map::update(&outer, &[0; 4], &inner.as_raw_fd().to_ne_bytes(), BPF_ANY).unwrap();
    let mut id = [0; 4];
    assert_eq!(map::lookup(&outer, &[0; 4], &mut id, 0), Ok(true));
    assert_eq!(u32::from_ne_bytes(id), map::info(&inner).unwrap().id);
}

#[test]
fn a_frozen_map_takes_no_update() {
    let Some(map) = hash_map(MapType::ARRAY, 4, 1) else { return };
    map::update(&map, &[0; 4], &[1; 4], BPF_ANY).unwrap();
    map::freeze(&map).unwrap();
    let refused = map::update(&map, &[0; 4], &[2; 4], BPF_ANY).unwrap_err();
    assert_eq!(refused.errno(), Some(Errno::EPERM));
    assert!(map::freeze(&map).is_err(), "twice");
}

#[test]
fn info_ids_and_other_descriptors_know_the_same_map() {
    let Some(map) = hash_map(MapType::PERCPU_ARRAY, 5, 3) else { return };
    let info = map::info(&map).unwrap();
    assert_eq!(
        (info.map_type, info.key_size, info.value_size, info.max_entries),
        (MapType::PERCPU_ARRAY, 4, 5, 3)
    );
    assert_eq!(info.name.as_bytes(), b"test_map");
    assert!(map::ids().any(|id| id == Ok(info.id)));
    for other in [
        map::open_by_id(info.id, 0, None).unwrap(),
        map.try_clone().unwrap(),
        MapFd::try_from(OwnedFd::from(map.try_clone().unwrap())).unwrap(),
    ] {
        assert_eq!(map::info(&other).unwrap().id, info.id);
        assert_eq!(other.value_len(), map.value_len());
    }
}

#[test]
fn a_descriptor_of_another_kind_is_refused() {
    let Some(map) = hash_map(MapType::ARRAY, 4, 1) else { return };
    let fd = || OwnedFd::from(map.try_clone().unwrap());
    assert_eq!(ProgFd::try_from(fd()).unwrap_err(), Error::WrongKind { expected: "bpf-prog" });
    assert_eq!(PerfFd::try_from(fd()).unwrap_err(), Error::WrongKind { expected: "[perf_event]" });
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(MapFd::try_from(OwnedFd::from(file)).unwrap_err(), Error::WrongKind { expected: "bpf-map" });
}

#[test]
fn an_array_map_is_mapped() {
    let mut map = MapCreate {
        map_type: MapType::ARRAY,
        key_size: 4,
        value_size: 12,
        max_entries: 3,
        flags: BPF_F_MMAPABLE,
        ..Default::default()
    };
    let Some(array) = create(&map) else { return };
    let memory = SharedMapping::array(&array, true).unwrap();
    map::update(&array, &2u32.to_ne_bytes(), &[7; 12], BPF_ANY).unwrap();
    let mut value = [0; 12];
    memory.copy_out(32, &mut value).unwrap();
    assert_eq!(value, [7; 12]);
    memory.store_release_u32(16, 0x0102_0304).unwrap();
    assert_eq!(map::lookup(&array, &1u32.to_ne_bytes(), &mut value, 0), Ok(true));
    assert_eq!(value[..4], 0x0102_0304u32.to_ne_bytes());
    map.flags = 0;
    let plain = create(&map).unwrap();
    assert!(matches!(SharedMapping::array(&plain, false), Err(Error::Argument { .. })));
}

#[test]
fn a_ring_is_mapped_once() {
    let Some(ring) =
        create(&MapCreate { map_type: MapType::RINGBUF, max_entries: 4096, ..Default::default() })
    else {
        return;
    };
    let first = RingMapping::new(&ring).unwrap();
    assert_eq!(RingMapping::new(&ring).unwrap_err(), Error::AlreadyMapped);
    drop(first);
    RingMapping::new(&ring).unwrap();
    let array = hash_map(MapType::ARRAY, 4, 1).unwrap();
    assert!(matches!(RingMapping::new(&array), Err(Error::Argument { .. })));
}

#[test]
fn pins_keep_objects_by_name() {
    let Some(map) = hash_map(MapType::ARRAY, 4, 1) else { return };
    let dir = std::path::Path::new("/sys/fs/bpf");
    let path = dir.join(format!("bpf-sys-test-{}", std::process::id()));
    match pin::pin(map.as_fd(), &path, None) {
        Ok(()) => {}
        Err(e) if matches!(e.errno(), Some(Errno::ENOENT | Errno::EPERM | Errno::EINVAL)) => {
            eprintln!("skip: no BPF file system at /sys/fs/bpf ({e})");
            return;
        }
        Err(e) => panic!("{e}"),
    }
    let taken = pin::pin(map.as_fd(), &path, None).unwrap_err();
    let got = pin::get_map(&path, 0, None);
    let wrong = pin::get_prog(&path, None).map(drop);
    let handle = std::fs::File::open(dir).unwrap();
    let relative = pin::get_map(path.file_name().unwrap().as_ref(), 0, Some(handle.as_fd()));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(taken.errno(), Some(Errno::EEXIST));
    assert_eq!(map::info(&got.unwrap()).unwrap().id, map::info(&map).unwrap().id);
    assert_eq!(wrong, Err(Error::WrongKind { expected: "bpf-prog" }));
    match relative {
        Ok(got) => assert_eq!(map::info(&got).unwrap().id, map::info(&map).unwrap().id),
        // Before Linux 6.5.
        Err(e) => assert_eq!(e.errno(), Some(Errno::EINVAL)),
    }
}

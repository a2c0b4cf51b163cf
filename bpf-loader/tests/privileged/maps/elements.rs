//! What system calls put in and find.

use std::collections::BTreeMap;

use bpf_loader::Error;
use bpf_loader::map::{
    Arena, Array, BloomFilter, Hash, LpmTrie, MappedArray, PerCpuArray, PerCpuHash, PerCpuValues, Queue,
};
use bpf_sys::uapi::flags::{BPF_ANY, BPF_EXIST, BPF_NOEXIST};
use bpf_sys::{Errno, MapType, possible_cpus};

use super::{map, map_of};
use crate::kernel_has;

#[test]
fn hash_tables() {
    for map_type in [MapType::HASH, MapType::LRU_HASH, MapType::RHASH] {
        let Some(map) = map_of(map_type) else { continue };
        let hash = Hash::<u32, u64>::new(&map).unwrap();
        assert_eq!(hash.get(&7, 0), Ok(None));
        hash.set(&7, &70, BPF_NOEXIST).unwrap();
        hash.set(&7, &71, BPF_EXIST).unwrap();
        hash.set(&8, &80, BPF_ANY).unwrap();
        assert_eq!(hash.set(&7, &0, BPF_NOEXIST).unwrap_err().errno(), Some(Errno::EEXIST));
        assert_eq!(hash.set(&9, &0, BPF_EXIST).unwrap_err().errno(), Some(Errno::ENOENT));
        let entries: Result<BTreeMap<_, _>, _> = hash.entries().collect();
        assert_eq!(entries, Ok(BTreeMap::from([(7, 71), (8, 80)])), "{map_type}");
        match hash.take(&8, 0) {
            Ok(taken) => assert_eq!(taken, Some(80)),
            Err(error) => assert!(!kernel_has((5, 14)), "{map_type}: {error}"),
        }
        assert_eq!(hash.delete(&7), Ok(true));
        assert_eq!(hash.delete(&7), Ok(false));
    }
}

#[test]
fn a_walk_that_deletes_sees_each_key_once() {
    let Some(map) = map("thousand") else { return };
    let hash = Hash::<u32, u64>::new(&map).unwrap();
    for key in 0..1000 {
        hash.set(&key, &0, BPF_ANY).unwrap();
    }
    let mut seen: Vec<u32> = Vec::new();
    for key in hash.keys() {
        let key = key.unwrap();
        assert_eq!(hash.delete(&key), Ok(true));
        seen.push(key);
    }
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..1000));
}

#[test]
fn a_walk_under_which_all_keys_go_ends() {
    let Some(map) = map_of(MapType::HASH) else { return };
    let hash = Hash::<u32, u64>::new(&map).unwrap();
    let mut last = 8;
    (0..8).for_each(|key| hash.set(&key, &0, BPF_ANY).unwrap());
    let mut steps = 0;
    let error = hash.keys().find_map(|key| {
        // The key that the walk stands at is always gone.
        (last - 8..last).for_each(|key| assert_eq!(hash.delete(&key), Ok(true)));
        (last..last + 8).for_each(|key| hash.set(&key, &0, BPF_ANY).unwrap());
        last += 8;
        steps += 1;
        key.err()
    });
    match error {
        // One more call tells the error.
        Some(error) => assert_eq!(*error, Error::MapWalk { steps: steps - 1 }),
        None => panic!("it ended after {steps} steps"),
    }
}

#[test]
fn batches() {
    let Some(map) = map("thousand") else { return };
    let hash = Hash::<u32, u64>::new(&map).unwrap();
    let keys: Vec<u32> = (0..1000).collect();
    let values: Vec<u64> = keys.iter().map(|key| u64::from(*key) * 3).collect();
    hash.set_batch(&keys, &values, BPF_ANY).unwrap();
    // A bucket may have more than one element, so the buffers have to grow.
    for size in [1, 64, 5000] {
        let mut seen = BTreeMap::new();
        let mut batches = hash.batches(size);
        while let Some((keys, values)) = batches.next().unwrap() {
            assert_eq!(keys.len(), values.len());
            keys.iter().zip(values).for_each(|(k, v)| assert_eq!(seen.insert(*k, *v), None));
        }
        assert!(seen.into_iter().eq(keys.iter().copied().zip(values.iter().copied())), "{size} at a time");
    }
    hash.delete_batch(&keys[..10]).unwrap();
    let error = hash.delete_batch(&[10, 3, 11]).unwrap_err();
    assert!(
        matches!(*error, Error::Kernel(bpf_sys::Error::Batch { errno: Errno::ENOENT, done: 1, .. })),
        "{error}"
    );
    let mut count = 0;
    let mut taken = hash.take_batches(100);
    while let Some((keys, _)) = taken.next().unwrap() {
        count += keys.len();
    }
    assert_eq!((count, hash.keys().count()), (989, 0));
    let lengths = hash.set_batch(&[1, 2], &[1], BPF_ANY);
    assert!(matches!(
        lengths.as_ref().map_err(Box::as_ref),
        Err(Error::Kernel(bpf_sys::Error::Length { .. }))
    ));
}

#[test]
fn arrays() {
    let Some(map) = map_of(MapType::ARRAY) else { return };
    let array = Array::<u64>::new(&map).unwrap();
    array.set(3, &33).unwrap();
    array.set_batch(&[1, 7], &[11, 77]).unwrap();
    assert_eq!((array.len(), array.get(3), array.get(8)), (8, Ok(Some(33)), Ok(None)));
    let all: Result<Vec<_>, _> = array.values().collect();
    assert_eq!(all, Ok(vec![0, 11, 0, 33, 0, 0, 0, 77]));
    let mut batches = array.batches(5);
    let mut all = Vec::new();
    while let Some((indices, values)) = batches.next().unwrap() {
        all.extend(indices.iter().copied().zip(values.iter().copied()));
    }
    assert_eq!(all, [(0, 0), (1, 11), (2, 0), (3, 33), (4, 0), (5, 0), (6, 0), (7, 77)]);
    assert_eq!(array.set(8, &0).unwrap_err().errno(), Some(Errno::E2BIG));
    map.freeze().unwrap();
    assert_eq!(array.set(0, &0).unwrap_err().errno(), Some(Errno::EPERM));
}

#[test]
fn mapped_arrays_are_the_same_memory() {
    let Some(map) = map("mapped") else { return };
    let (called, memory) = (Array::<u32>::new(&map).unwrap(), MappedArray::<u32>::new(&map, true).unwrap());
    for index in 0..memory.len() {
        called.set(index, &(index + 10)).unwrap();
        assert_eq!(memory.get(index), Some(index + 10));
        assert_eq!(memory.set(index, &(index + 20)), Some(()));
        assert_eq!(called.get(index), Ok(Some(index + 20)));
    }
    assert_eq!((memory.get(5), memory.set(5, &0)), (None, None), "past the end, though on the page");
    let reader = MappedArray::<u32>::new(&map, false).unwrap();
    assert_eq!((reader.get(4), reader.set(4, &0)), (Some(24), None));
    let Some(other) = map_of(MapType::ARRAY) else { return };
    assert!(matches!(
        MappedArray::<u64>::new(&other, true).map_err(|e| *e),
        Err(Error::Kernel(bpf_sys::Error::Argument { .. }))
    ));
}

#[test]
fn per_cpu_values() {
    let Some(map) = map_of(MapType::PERCPU_ARRAY) else { return };
    let array = PerCpuArray::<u64>::new(&map).unwrap();
    let mut values = PerCpuValues::new().unwrap();
    let cpus = possible_cpus().unwrap();
    (0..cpus).for_each(|cpu| values.set(cpu, cpu as u64 + 5).unwrap());
    assert_eq!(values.set(cpus, 0), None);
    array.set(2, &values).unwrap();
    let mut read = PerCpuValues::new().unwrap();
    assert_eq!(array.get_into(2, &mut read), Ok(true));
    assert!(read.iter().eq((0..cpus).map(|cpu| cpu as u64 + 5)));
    assert_eq!((read.get(cpus - 1), read.get(cpus)), (Some(cpus as u64 + 4), None));
    assert_eq!(array.get(0).unwrap().unwrap().iter().max(), Some(0));
    let mut batches = array.batches(3).unwrap();
    let mut all: Vec<(u32, u64)> = Vec::new();
    while let Some(batch) = batches.next().unwrap() {
        all.extend(batch.map(|(index, values)| (index, values.sum())));
    }
    let sum = values.iter().sum();
    assert_eq!(all, [(0, 0), (1, 0), (2, sum), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0)]);
    for map_type in [MapType::PERCPU_HASH, MapType::LRU_PERCPU_HASH] {
        let Some(map) = map_of(map_type) else { return };
        let hash = PerCpuHash::<u32, u64>::new(&map).unwrap();
        assert_eq!(hash.get_into(&1, &mut read), Ok(false));
        hash.set(&1, &values, BPF_NOEXIST).unwrap();
        assert!(hash.get(&1).unwrap().unwrap().iter().eq(values.iter()), "{map_type}");
        assert_eq!(hash.keys().collect::<Result<Vec<_>, _>>(), Ok(vec![1]));
        let mut taken = hash.take_batches(8).unwrap();
        let batch: Vec<(u32, u64)> =
            taken.next().unwrap().unwrap().map(|(key, values)| (key, values.sum())).collect();
        assert_eq!(batch, [(1, sum)], "{map_type}");
        assert!(taken.next().unwrap().is_none());
        assert_eq!(hash.delete(&1), Ok(false));
    }
}

#[test]
fn queues_and_stacks() {
    for (map_type, order) in [(MapType::QUEUE, [1, 2, 3]), (MapType::STACK, [3, 2, 1])] {
        let Some(map) = map_of(map_type) else { return };
        let queue = Queue::<u64>::new(&map).unwrap();
        assert_eq!((queue.peek(), queue.pop()), (Ok(None), Ok(None)));
        (1..=3).for_each(|value| queue.push(&value).unwrap());
        for value in order {
            assert_eq!((queue.peek(), queue.pop()), (Ok(Some(value)), Ok(Some(value))), "{map_type}");
        }
        (0..8).for_each(|value| queue.push(&value).unwrap());
        assert_eq!(queue.push(&8).unwrap_err().errno(), Some(Errno::E2BIG));
        queue.push_over(&9).unwrap();
    }
}

#[test]
fn longest_prefixes() {
    let Some(map) = map_of(MapType::LPM_TRIE) else { return };
    let trie = LpmTrie::<[u8; 4], u64>::new(&map).unwrap();
    trie.set(&[10, 0, 0, 0], 8, &1, BPF_ANY).unwrap();
    trie.set(&[10, 1, 0, 0], 16, &2, BPF_ANY).unwrap();
    assert_eq!(trie.get(&[10, 1, 2, 3]), Ok(Some(2)));
    assert_eq!(trie.get(&[10, 2, 2, 3]), Ok(Some(1)));
    assert_eq!(trie.get(&[11, 1, 2, 3]), Ok(None));
    assert_eq!(trie.get_prefix(&[10, 1, 0, 0], 12), Ok(Some(1)));
    assert_eq!(trie.set(&[0; 4], 33, &0, BPF_ANY).unwrap_err().errno(), Some(Errno::EINVAL));
    let all: Result<Vec<_>, _> = trie.prefixes().collect();
    assert_eq!(all, Ok(vec![([10, 1, 0, 0], 16), ([10, 0, 0, 0], 8)]));
    assert_eq!((trie.delete(&[10, 1, 0, 0], 16), trie.delete(&[10, 1, 0, 0], 16)), (Ok(true), Ok(false)));
    assert_eq!(trie.get(&[10, 1, 2, 3]), Ok(Some(1)));
    assert!(matches!(
        LpmTrie::<[u8; 16], u64>::new(&map).map_err(|e| *e),
        Err(Error::MapSize { what: "key", .. })
    ));
}

#[test]
fn bloom_filters() {
    let Some(map) = map_of(MapType::BLOOM_FILTER) else { return };
    assert_eq!(map.info().unwrap().map_extra, 3, "hash functions");
    let filter = BloomFilter::<u64>::new(&map).unwrap();
    assert_eq!(filter.check(&77), Ok(false));
    filter.add(&77).unwrap();
    assert_eq!(filter.check(&77), Ok(true));
}

#[test]
fn arena_memory() {
    let Some(map) = map_of(MapType::ARENA) else { return };
    let arena = Arena::new(&map).unwrap();
    assert_eq!(arena.len(), 4 * bpf_sys::page_size());
    assert_eq!(arena.get::<u64>(8), Some(0));
    assert_eq!(arena.set(arena.len() - 8, &9u64), Some(()));
    assert_eq!(arena.get::<u64>(arena.len() - 8), Some(9));
    assert_eq!((arena.get::<u64>(arena.len() - 7), arena.set(usize::MAX, &0u8)), (None, None));
    let mut bytes = [0; 3];
    assert_eq!(arena.write(4095, b"abc").and(arena.read(4095, &mut bytes)), Some(()));
    assert_eq!(&bytes, b"abc");
}

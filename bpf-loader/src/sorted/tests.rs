use std::collections::BTreeMap;

use super::*;

/// Numbers that look random, and are the same each time.
fn numbers(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

fn check(map: &SortedMap<u64, u64>, expected: &BTreeMap<u64, u64>) {
    assert_eq!(map.len(), expected.len());
    assert!(map.iter().eq(expected.iter()));
    assert!(map.order.runs.iter().all(|run| !run.is_empty() && run.len() <= LONGEST));
}

/// The standard library's map is the second opinion.
#[test]
fn it_does_what_a_btree_does() {
    for (seed, keys) in [(1, 10), (2, 300), (3, 5000)] {
        let mut number = numbers(seed);
        let (mut map, mut expected) = (SortedMap::new(), BTreeMap::new());
        for step in 0..20_000 {
            let (key, value) = (number() % keys, number());
            match number() % 8 {
                0..=2 => assert_eq!(map.insert(key, value), expected.insert(key, value)),
                3 | 4 => assert_eq!(map.remove(&key), expected.remove(&key)),
                5 => {
                    *map.entry(key).or_default() += value;
                    *expected.entry(key).or_default() += value;
                }
                6 => {
                    assert_eq!(map.get(&key), expected.get(&key));
                    assert_eq!(map.get_mut(&key), expected.get_mut(&key));
                    assert_eq!(map.contains_key(&key), expected.contains_key(&key));
                }
                _ => assert_eq!(map.last_up_to(&key), expected.range(..=key).next_back()),
            }
            if step % 1000 == 0 {
                check(&map, &expected);
            }
        }
        check(&map, &expected);
        assert!(map.iter().rev().eq(expected.iter().rev()));
        assert!(map.keys().eq(expected.keys()) && map.values().eq(expected.values()));
        map.values_mut().for_each(|value| *value /= 2);
        expected.values_mut().for_each(|value| *value /= 2);
        map.retain(|key, value| (*key + *value) % 3 != 0);
        expected.retain(|key, value| (*key + *value) % 3 != 0);
        check(&map, &expected);
        assert_eq!(map.clone().into_iter().collect::<BTreeMap<_, _>>(), expected);
        assert_eq!(format!("{map:?}"), format!("{expected:?}"));
        map.clear();
        check(&map, &BTreeMap::new());
    }
}

#[test]
fn no_order_makes_runs_of_single_entries() {
    let below_a_full_run = |keys: u64| (0..64).chain((64..keys).rev());
    let both_ends = |keys: u64| (0..keys / 2).flat_map(move |key| [key, keys - 1 - key]);
    for keys in [below_a_full_run(10_000).collect::<Vec<u64>>(), both_ends(10_000).collect()] {
        let map: SortedMap<_, _> = keys.iter().map(|key| (*key, *key)).collect();
        check(&map, &keys.iter().map(|key| (*key, *key)).collect());
        assert!(map.order.runs.len() <= 10_000 / (LONGEST / 2) + 1, "{}", map.order.runs.len());
    }
}

#[test]
fn what_comes_in_order_fills_runs() {
    for keys in [(0..1000).collect::<Vec<u64>>(), (0..1000).rev().collect()] {
        let map: SortedMap<_, _> = keys.iter().map(|key| (*key, *key)).collect();
        check(&map, &keys.iter().map(|key| (*key, *key)).collect());
        assert!(map.order.runs.len() <= 1000 / (LONGEST / 2));
    }
}

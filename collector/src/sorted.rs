//! A map in the order of its keys, in little code.
//!
//! The standard library's is compiled anew for each pair of types, in 5 to 10 KB of code, and this crate has thirty of them. This one
//! takes a tenth, and about as long: entries are in sorted runs, which are short enough to be moved about.

use std::borrow::Borrow;
use std::fmt;
use std::iter::Flatten;
use std::{slice, vec};

/// Entries of a run at most; it is split in two then.
const LONGEST: usize = 64;

/// A map from `K` to `V`, sorted by `K`.
#[derive(Clone)]
pub struct SortedMap<K, V> {
    /// None is empty.
    runs: Vec<Vec<(K, V)>>,
    len: usize,
}

/// A run, and a place in it.
type Place = (usize, usize);

impl<K: Ord, V> SortedMap<K, V> {
    /// Where a key is, or where it belongs.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<Place, Place>
    where
        K: Borrow<Q>,
    {
        let begins_before = |run: &Vec<(K, V)>| run.first().is_some_and(|(first, _)| first.borrow() <= key);
        let run = self.runs.partition_point(begins_before).saturating_sub(1);
        let entries = self.runs.get(run).map(Vec::as_slice).unwrap_or_default();
        let at = entries.binary_search_by(|(known, _)| known.borrow().cmp(key));
        at.map(|at| (run, at)).map_err(|at| (run, at))
    }

    fn at(&self, (run, at): Place) -> Option<&(K, V)> {
        self.runs.get(run)?.get(at)
    }

    fn at_mut(&mut self, (run, at): Place) -> Option<&mut (K, V)> {
        self.runs.get_mut(run)?.get_mut(at)
    }

    /// Puts an entry where [`find`](Self::find) said, and returns where that is now.
    fn insert_at(&mut self, (mut run, mut at): Place, entry: (K, V)) -> Place {
        self.len += 1;
        match self.runs.get_mut(run) {
            Some(entries) => entries.insert(at.min(entries.len()), entry),
            None => self.runs.push(vec![entry]),
        }
        let half = LONGEST / 2;
        if let Some(entries) = self.runs.get_mut(run).filter(|entries| entries.len() > LONGEST) {
            // Whoever adds in order leaves full runs behind.
            let keep = if at == LONGEST { LONGEST } else { half };
            let rest = entries.split_off(keep);
            self.runs.insert(run + 1, rest);
            if at >= keep {
                (run, at) = (run + 1, at - keep);
            }
        }
        (run, at)
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.at(self.find(key).ok()?).map(|(_, value)| value)
    }

    /// The value of a key, to change.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let place = self.find(key).ok()?;
        self.at_mut(place).map(|(_, value)| value)
    }

    /// Whether the key has a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// Gives a key a value; the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(place) => self.at_mut(place).map(|(_, old)| std::mem::replace(old, value)),
            Err(place) => {
                self.insert_at(place, (key, value));
                None
            }
        }
    }

    /// Takes a key out; the value that it had.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (run, at) = self.find(key).ok()?;
        let entries = self.runs.get_mut(run)?;
        let (_, value) = entries.remove(at);
        self.len -= 1;
        if entries.is_empty() {
            self.runs.remove(run);
        }
        Some(value)
    }

    /// The place of a key, to look at and fill in one go.
    pub fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        Entry { place: self.find(&key), map: self, key }
    }

    /// The last entry whose key is not above this one.
    pub fn last_up_to(&self, key: &K) -> Option<(&K, &V)> {
        let place = self.find(key).or_else(|(run, at)| at.checked_sub(1).map(|at| (run, at)).ok_or(()));
        self.at(place.ok()?).map(pair)
    }
}

impl<K, V> SortedMap<K, V> {
    /// An empty map.
    pub const fn new() -> Self {
        Self { runs: Vec::new(), len: 0 }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.len = 0;
    }

    /// Keys and values in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.runs.iter().flatten().map(pair)
    }

    /// Keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.runs.iter().flatten().map(|(key, _)| key)
    }

    /// Values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.runs.iter().flatten().map(|(_, value)| value)
    }

    /// Keys, and values to change, in order.
    pub fn iter_mut(&mut self) -> IterMut<'_, K, V> {
        self.runs.iter_mut().flatten().map(pair_mut)
    }

    /// Values to change, in the order of their keys.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.runs.iter_mut().flatten().map(|(_, value)| value)
    }

    /// Takes out all entries but those that `keep` says yes to.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.runs.retain_mut(|run| {
            run.retain_mut(|(key, value)| keep(key, value));
            !run.is_empty()
        });
        self.len = self.runs.iter().map(Vec::len).sum();
    }
}

fn pair<K, V>((key, value): &(K, V)) -> (&K, &V) {
    (key, value)
}

fn pair_mut<K, V>((key, value): &mut (K, V)) -> (&K, &mut V) {
    (key, value)
}

/// The place of a key.
pub struct Entry<'m, K, V> {
    map: &'m mut SortedMap<K, V>,
    key: K,
    place: Result<Place, Place>,
}

impl<'m, K: Ord, V> Entry<'m, K, V> {
    /// The value, which is made first if there is none.
    pub fn or_insert_with(self, make: impl FnOnce() -> V) -> &'m mut V {
        let (run, at) = match self.place {
            Ok(place) => place,
            Err(place) => self.map.insert_at(place, (self.key, make())),
        };
        // It was found, or put, there.
        &mut self.map.runs[run][at].1
    }

    /// The value; this one if there is none.
    pub fn or_insert(self, value: V) -> &'m mut V {
        self.or_insert_with(|| value)
    }

    /// The value; the default one if there is none.
    pub fn or_default(self) -> &'m mut V
    where
        V: Default,
    {
        self.or_insert_with(V::default)
    }
}

/// What [`SortedMap::iter`] returns.
pub type Iter<'m, K, V> =
    std::iter::Map<Flatten<slice::Iter<'m, Vec<(K, V)>>>, fn(&'m (K, V)) -> (&'m K, &'m V)>;
/// What [`SortedMap::iter_mut`] returns.
pub type IterMut<'m, K, V> =
    std::iter::Map<Flatten<slice::IterMut<'m, Vec<(K, V)>>>, fn(&'m mut (K, V)) -> (&'m K, &'m mut V)>;

impl<'m, K, V> IntoIterator for &'m SortedMap<K, V> {
    type Item = (&'m K, &'m V);
    type IntoIter = Iter<'m, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'m, K, V> IntoIterator for &'m mut SortedMap<K, V> {
    type Item = (&'m K, &'m mut V);
    type IntoIter = IterMut<'m, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<K, V> IntoIterator for SortedMap<K, V> {
    type Item = (K, V);
    type IntoIter = Flatten<vec::IntoIter<Vec<(K, V)>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.runs.into_iter().flatten()
    }
}

impl<K: Ord, V> Extend<(K, V)> for SortedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SortedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for SortedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for SortedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other)
    }
}

impl<K: Eq, V: Eq> Eq for SortedMap<K, V> {}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SortedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
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
        assert!(map.runs.iter().all(|run| !run.is_empty() && run.len() <= LONGEST));
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
    fn what_comes_in_order_fills_runs() {
        for keys in [(0..1000).collect::<Vec<u64>>(), (0..1000).rev().collect()] {
            let map: SortedMap<_, _> = keys.iter().map(|key| (*key, *key)).collect();
            check(&map, &keys.iter().map(|key| (*key, *key)).collect());
            assert!(map.runs.len() <= 1000 / (LONGEST / 2));
        }
    }
}

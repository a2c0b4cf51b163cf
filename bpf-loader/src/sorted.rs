//! A map and a set in the order of their keys, in little code.
//!
//! The standard library's are compiled anew for each pair of types, a tree in 5 to 10 KB of code and a hash table in 1 KB, and the agent
//! has a hundred of them. Here all that knows no types is compiled once: `Order`, numbers of entries in sorted runs, which are short
//! enough to be moved about. What is left for each pair of types is 200 bytes. To look something up takes about as long.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::iter::{Flatten, Map};
use std::{fmt, slice, vec};

/// Entries of a run at most; it is split in two then.
const LONGEST: usize = 64;

/// A run, and a place in it.
type Place = (usize, usize);
/// Where an entry's number is, and that number.
type Found = (Place, usize);

/// Numbers of entries, in the order of the entries' keys.
#[derive(Clone, Default)]
struct Order {
    /// None is empty.
    runs: Vec<Vec<u32>>,
    /// Of all numbers below it, each is in one run.
    len: usize,
}

impl Order {
    const fn new() -> Self {
        Self { runs: Vec::new(), len: 0 }
    }

    /// Where the entry is that is equal to what is looked for, or where it belongs. `compare` says how an entry is to it.
    fn find(&self, compare: &mut dyn FnMut(usize) -> Ordering) -> Result<Found, Place> {
        let mut compare = |entry: &u32| compare(*entry as usize);
        let begins_before =
            |run: &Vec<u32>| run.first().is_some_and(|entry| compare(entry) != Ordering::Greater);
        let run = self.runs.partition_point(begins_before).saturating_sub(1);
        let entries = self.runs.get(run).map(Vec::as_slice).unwrap_or_default();
        match entries.binary_search_by(compare) {
            Ok(at) => Ok(((run, at), self.entry((run, at)))),
            Err(at) => Err((run, at)),
        }
    }

    /// The number at a place; where there is none, one that is no entry's.
    fn entry(&self, (run, at): Place) -> usize {
        self.runs.get(run).and_then(|run| run.get(at)).map_or(usize::MAX, |entry| *entry as usize)
    }

    /// Puts the number of a new entry, which is `len`, where [`find`](Self::find) said.
    fn insert(&mut self, (run, at): Place) {
        let entry = self.len as u32;
        self.len += 1;
        let is_last = run + 1 == self.runs.len();
        let Some(entries) = self.runs.get_mut(run) else {
            self.runs.push(vec![entry]);
            return;
        };
        entries.insert(at.min(entries.len()), entry);
        if entries.len() > LONGEST {
            // Whoever adds in order leaves full runs behind. Between others, runs of one entry would become as many as entries.
            let rest = entries.split_off(if is_last && at == LONGEST { LONGEST } else { LONGEST / 2 });
            self.runs.insert(run + 1, rest);
        }
    }

    /// Takes the number at a place out, and gives it to the last entry, which is at another place.
    fn remove(&mut self, (run, at): Place, (last_run, last_at): Place) {
        let entry = self.entry((run, at)) as u32;
        if let Some(last) = self.runs.get_mut(last_run).and_then(|run| run.get_mut(last_at)) {
            *last = entry;
        }
        let Some(entries) = self.runs.get_mut(run).filter(|entries| at < entries.len()) else { return };
        entries.remove(at);
        if entries.is_empty() {
            self.runs.remove(run);
        }
        self.len -= 1;
    }

    /// Takes out all numbers but those that `keep` says yes to, and says which stay; these are counted anew, as if the others had
    /// never been.
    fn retain(&mut self, keep: &mut dyn FnMut(usize) -> bool) -> Vec<bool> {
        let mut kept = vec![false; self.len];
        for entry in self.runs.iter().flatten() {
            if let Some(kept) = kept.get_mut(*entry as usize) {
                *kept = keep(*entry as usize);
            }
        }
        let mut next = 0;
        let new: Vec<u32> = kept
            .iter()
            .map(|kept| {
                next += u32::from(*kept);
                next.wrapping_sub(1)
            })
            .collect();
        self.runs.retain_mut(|run| {
            run.retain(|entry| kept.get(*entry as usize) == Some(&true));
            run.iter_mut().for_each(|entry| *entry = new.get(*entry as usize).copied().unwrap_or_default());
            !run.is_empty()
        });
        self.len = next as usize;
        kept
    }
}

/// A map from `K` to `V`, sorted by `K`.
#[derive(Clone)]
pub struct SortedMap<K, V> {
    order: Order,
    /// As they came.
    entries: Vec<(K, V)>,
}

impl<K: Ord, V> SortedMap<K, V> {
    /// Where a key is, or where it belongs.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<Found, Place>
    where
        K: Borrow<Q>,
    {
        self.order.find(&mut |entry| match self.entries.get(entry) {
            Some((known, _)) => known.borrow().cmp(key),
            None => Ordering::Less,
        })
    }

    /// Puts an entry where [`find`](Self::find) said.
    fn insert_at(&mut self, place: Place, entry: (K, V)) {
        self.order.insert(place);
        self.entries.push(entry);
    }

    fn remove_at(&mut self, (place, entry): Found) -> Option<(K, V)> {
        let (last, _) = self.find(&self.entries.last()?.0).ok()?;
        if entry >= self.entries.len() {
            return None;
        }
        self.order.remove(place, last);
        Some(self.entries.swap_remove(entry))
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (_, entry) = self.find(key).ok()?;
        self.entries.get(entry).map(|(_, value)| value)
    }

    /// The value of a key, to change.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (_, entry) = self.find(key).ok()?;
        self.entries.get_mut(entry).map(|(_, value)| value)
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
            Ok((_, entry)) => self.entries.get_mut(entry).map(|(_, old)| std::mem::replace(old, value)),
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
        let found = self.find(key).ok()?;
        self.remove_at(found).map(|(_, value)| value)
    }

    /// Takes out the first entry.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        self.remove_at(((0, 0), self.order.entry((0, 0))))
    }

    /// The place of a key, to look at and fill in one go.
    pub fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        Entry { place: self.find(&key), map: self, key }
    }

    /// The last entry whose key is not above this one.
    pub fn last_up_to(&self, key: &K) -> Option<(&K, &V)> {
        let entry = match self.find(key) {
            Ok((_, entry)) => entry,
            Err((run, at)) => self.order.entry((run, at.checked_sub(1)?)),
        };
        self.entries.get(entry).map(pair)
    }
}

impl<K, V> SortedMap<K, V> {
    /// An empty map.
    pub const fn new() -> Self {
        Self { order: Order::new(), entries: Vec::new() }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.order.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.order.len == 0
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.order = Order::new();
        self.entries.clear();
    }

    /// Keys and values in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { order: self.order.runs.iter().flatten(), entries: &self.entries }
    }

    /// Keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Keys, and values to change, in no particular order.
    pub fn iter_mut(&mut self) -> IterMut<'_, K, V> {
        self.entries.iter_mut().map(pair_mut)
    }

    /// Values to change, in no particular order.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    /// Takes out all entries but those that `keep` says yes to. It is asked in the order of the keys.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let entries = &mut self.entries;
        let kept = self.order.retain(&mut |entry| match entries.get_mut(entry) {
            Some((key, value)) => keep(key, value),
            None => false,
        });
        let mut stay = 0;
        for (at, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
            entries.swap(stay, at);
            stay += 1;
        }
        entries.truncate(stay);
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
    place: Result<Found, Place>,
}

impl<'m, K: Ord, V> Entry<'m, K, V> {
    /// The value, which is made first if there is none.
    pub fn or_insert_with(self, make: impl FnOnce() -> V) -> &'m mut V {
        let entry = match self.place {
            Ok((_, entry)) => entry,
            Err(place) => {
                self.map.insert_at(place, (self.key, make()));
                self.map.entries.len() - 1
            }
        };
        // It was found, or put, there.
        &mut self.map.entries[entry].1
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
pub struct Iter<'m, K, V> {
    order: Flatten<slice::Iter<'m, Vec<u32>>>,
    entries: &'m [(K, V)],
}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self { order: self.order.clone(), entries: self.entries }
    }
}

impl<'m, K, V> Iterator for Iter<'m, K, V> {
    type Item = (&'m K, &'m V);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = *self.order.next()?;
        self.entries.get(entry as usize).map(pair)
    }
}

impl<K, V> DoubleEndedIterator for Iter<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = *self.order.next_back()?;
        self.entries.get(entry as usize).map(pair)
    }
}

/// What [`SortedMap::iter_mut`] returns.
pub type IterMut<'m, K, V> = Map<slice::IterMut<'m, (K, V)>, fn(&'m mut (K, V)) -> (&'m K, &'m mut V)>;

/// What [`SortedMap::into_iter`] returns.
pub struct IntoIter<K, V> {
    order: Flatten<vec::IntoIter<Vec<u32>>>,
    entries: Vec<Option<(K, V)>>,
}

impl<K, V> Iterator for IntoIter<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.order.next()?;
        self.entries.get_mut(entry as usize)?.take()
    }
}

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
    type IntoIter = IntoIter<K, V>;

    fn into_iter(self) -> Self::IntoIter {
        let entries = self.entries.into_iter().map(Some).collect();
        IntoIter { order: self.order.runs.into_iter().flatten(), entries }
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
        self.len() == other.len() && self.iter().eq(other)
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

/// A set of `K`, sorted.
#[derive(Clone, PartialEq, Eq)]
pub struct SortedSet<K>(SortedMap<K, ()>);

impl<K: Ord> SortedSet<K> {
    /// Adds a key; whether it is new.
    pub fn insert(&mut self, key: K) -> bool {
        self.0.insert(key, ()).is_none()
    }

    /// Takes a key out; whether it was there.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.remove(key).is_some()
    }

    /// The key of the set that is equal to this one.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&K>
    where
        K: Borrow<Q>,
    {
        let (_, entry) = self.0.find(key).ok()?;
        self.0.entries.get(entry).map(|(key, ())| key)
    }

    /// Takes out the first key.
    pub fn pop_first(&mut self) -> Option<K> {
        self.0.pop_first().map(|(key, ())| key)
    }

    /// Whether the key is there.
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }
}

impl<K> SortedSet<K> {
    /// An empty set.
    pub const fn new() -> Self {
        Self(SortedMap::new())
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all keys out.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Keys in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.0.keys()
    }

    /// Takes out all keys but those that `keep` says yes to.
    pub fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        self.0.retain(|key, ()| keep(key));
    }
}

impl<K> IntoIterator for SortedSet<K> {
    type Item = K;
    type IntoIter = Map<IntoIter<K, ()>, fn((K, ())) -> K>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().map(|(key, ())| key)
    }
}

impl<K: Ord> Extend<K> for SortedSet<K> {
    fn extend<I: IntoIterator<Item = K>>(&mut self, keys: I) {
        for key in keys {
            self.insert(key);
        }
    }
}

impl<K: Ord> FromIterator<K> for SortedSet<K> {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Self {
        let mut set = Self::new();
        set.extend(keys);
        set
    }
}

impl<K: Ord, const N: usize> From<[K; N]> for SortedSet<K> {
    fn from(keys: [K; N]) -> Self {
        keys.into_iter().collect()
    }
}

impl<K> Default for SortedSet<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug> fmt::Debug for SortedSet<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;

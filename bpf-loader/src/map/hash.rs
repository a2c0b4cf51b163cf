//! Hash tables.

use bpf_sys::MapType;

use super::batch::{self, Batches};
use super::typed::Table;
use super::{Keys, Map, Pod};
use crate::error::Result;

const TYPES: &[MapType] = &[MapType::HASH, MapType::LRU_HASH, MapType::CGROUP_STORAGE, MapType::RHASH];

/// A hash table: `HASH`, `LRU_HASH`, `RHASH` (Linux 7.2), or `CGROUP_STORAGE`, whose elements only programs make.
///
/// `flags` of updates are `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`, and `BPF_F_LOCK` as for lookups.
#[derive(Debug)]
pub struct Hash<K, V>(Table<K, V>);

impl<K: Pod, V: Pod> Hash<K, V> {
    /// A handle of `map`.
    ///
    /// # Errors
    ///
    /// [`Error::MapType`](crate::Error::MapType), [`Error::MapSize`](crate::Error::MapSize); `EMFILE`.
    pub fn new(map: &Map) -> Result<Self> {
        Table::new(map, TYPES).map(Self)
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not read.
    pub fn get(&self, key: &K, flags: u64) -> Result<Option<V>> {
        self.0.get(key, flags)
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    ///
    /// `E2BIG`: the map is full. `EEXIST`, `ENOENT`: against `flags`. `EPERM`: the map is frozen, or the descriptor may
    /// not write.
    pub fn set(&self, key: &K, value: &V, flags: u64) -> Result<()> {
        self.0.set(key, value, flags)
    }

    /// Removes a key; `false` if it is not there.
    ///
    /// # Errors
    ///
    /// `EPERM`: the map is frozen, or the descriptor may not write.
    pub fn delete(&self, key: &K) -> Result<bool> {
        self.0.delete(key)
    }

    /// Removes a key, and says what its value was.
    ///
    /// # Errors
    ///
    /// As [`delete`](Self::delete). `ENOTSUPP`: before Linux 5.14.
    pub fn take(&self, key: &K, flags: u64) -> Result<Option<V>> {
        self.0.take(key, flags)
    }

    /// The keys.
    pub fn keys(&self) -> Keys<'_, K> {
        self.0.keys()
    }

    /// The keys with their values; errors as of [`Keys`] and [`get`](Self::get).
    pub fn entries(&self) -> impl Iterator<Item = Result<(K, V)>> + '_ {
        self.0.entries()
    }

    /// The elements, many at a time; where the kernel has no batches for the map, one by one.
    pub fn batches(&self, size: usize) -> Batches<'_, K, V> {
        Batches::new(&self.0.fd, 1, size, false)
    }

    /// As [`batches`](Self::batches), and removes the elements.
    pub fn take_batches(&self, size: usize) -> Batches<'_, K, V> {
        Batches::new(&self.0.fd, 1, size, true)
    }

    /// Sets the values of many keys.
    ///
    /// # Errors
    ///
    /// [`bpf_sys::Error::Batch`] with how many were set before, and an errno of [`set`](Self::set).
    /// [`bpf_sys::Error::Length`]: not as many values as keys.
    pub fn set_batch(&self, keys: &[K], values: &[V], flags: u64) -> Result<()> {
        batch::update(&self.0, keys, values, flags)
    }

    /// Removes many keys.
    ///
    /// # Errors
    ///
    /// [`bpf_sys::Error::Batch`] with how many were removed before, `ENOENT` at the first that is not there.
    pub fn delete_batch(&self, keys: &[K]) -> Result<()> {
        batch::delete(&self.0, keys)
    }
}

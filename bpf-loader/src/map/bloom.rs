//! Bloom filters.

use bpf_sys::{MapFd, MapType, map};
use std::marker::PhantomData;

use super::typed::{check_size, check_type};
use super::{Map, Pod};
use crate::error::Result;

/// A bloom filter (Linux 5.16): values that were added are always found, others seldom.
#[derive(Debug)]
pub struct BloomFilter<V> {
    fd: MapFd,
    types: PhantomData<fn() -> V>,
}

impl<V: Pod> BloomFilter<V> {
    /// A handle of `map`.
    ///
    /// # Errors
    ///
    /// [`Error::MapType`](crate::Error::MapType), [`Error::MapSize`](crate::Error::MapSize); `EMFILE`.
    pub fn new(map: &Map) -> Result<Self> {
        check_type(map, &[MapType::BLOOM_FILTER])?;
        check_size(map, "value", size_of::<V>(), map.value_size())?;
        Ok(Self { fd: map.try_clone_fd()?, types: PhantomData })
    }

    /// Adds a value, which cannot be removed.
    ///
    /// # Errors
    ///
    /// `EPERM`: the map is frozen, or the descriptor may not write.
    pub fn add(&self, value: &V) -> Result<()> {
        Ok(map::update(&self.fd, &[], value.as_bytes(), 0)?)
    }

    /// May the value have been added?
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not read.
    pub fn check(&self, value: &V) -> Result<bool> {
        let mut value = *value;
        Ok(map::lookup(&self.fd, &[], value.as_mut_bytes(), 0)?)
    }
}

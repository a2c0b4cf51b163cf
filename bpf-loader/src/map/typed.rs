//! What the handles share: keys and values as Rust types, checked once against the map's sizes.

use std::marker::PhantomData;

use bpf_sys::{MapFd, MapType, map};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Map;
use super::keys::Keys;
use crate::error::{Error, Result};

/// Plain old data: any bytes are a value, no byte is padding, and nothing in it is a pointer. Integers and arrays of
/// them are; structures are by `#[derive(FromBytes, IntoBytes, Immutable)]` of the crate `zerocopy`, with `#[repr(C)]`.
pub trait Pod: FromBytes + IntoBytes + Immutable + Copy {}

impl<T: FromBytes + IntoBytes + Immutable + Copy> Pod for T {}

/// Fails unless the map is of one of these types.
pub(super) fn check_type(map: &Map, types: &'static [MapType]) -> Result<()> {
    if types.contains(&map.map_type()) {
        Ok(())
    } else {
        Err(Box::new(Error::MapType { map: map.name.clone(), found: map.map_type(), expected: types }))
    }
}

/// Fails unless a part of the map (`key`, `value`) has this size.
pub(super) fn check_size(map: &Map, what: &'static str, expected: usize, found: usize) -> Result<()> {
    if found == expected {
        Ok(())
    } else {
        Err(Box::new(Error::MapSize { map: map.name.clone(), what, expected, found }))
    }
}

/// The descriptor of a map of one of these types, whose keys and values, where it says so, have these sizes.
pub(super) fn checked(
    map: &Map,
    types: &'static [MapType],
    key_size: usize,
    value_size: Option<usize>,
) -> Result<MapFd> {
    check_type(map, types)?;
    check_size(map, "key", key_size, map.key_size())?;
    if let Some(value_size) = value_size {
        check_size(map, "value", value_size, map.value_size())?;
    }
    map.try_clone_fd()
}

/// Elements of a map with one value for each key.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    pub(super) fd: MapFd,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// For a map of one of these types, whose keys are as long as `K` and values as `V`.
    pub(super) fn new(map: &Map, types: &'static [MapType]) -> Result<Self> {
        Ok(Self { fd: checked(map, types, size_of::<K>(), Some(size_of::<V>()))?, types: PhantomData })
    }

    /// For a map whose values are `V` on the way in or out, whatever its declaration says.
    pub(super) fn with_unchecked_values(map: &Map, types: &'static [MapType]) -> Result<Self> {
        Ok(Self { fd: checked(map, types, size_of::<K>(), None)?, types: PhantomData })
    }

    pub(super) fn get(&self, key: &K, flags: u64) -> Result<Option<V>> {
        let mut value = V::new_zeroed();
        let found = map::lookup(&self.fd, key.as_bytes(), value.as_mut_bytes(), flags)?;
        Ok(found.then_some(value))
    }

    pub(super) fn take(&self, key: &K, flags: u64) -> Result<Option<V>> {
        let mut value = V::new_zeroed();
        let found = map::lookup_and_delete(&self.fd, key.as_bytes(), value.as_mut_bytes(), flags)?;
        Ok(found.then_some(value))
    }

    pub(super) fn set(&self, key: &K, value: &V, flags: u64) -> Result<()> {
        Ok(map::update(&self.fd, key.as_bytes(), value.as_bytes(), flags)?)
    }

    pub(super) fn delete(&self, key: &K) -> Result<bool> {
        Ok(map::delete(&self.fd, key.as_bytes())?)
    }

    pub(super) fn keys(&self) -> Keys<'_, K> {
        Keys::new(&self.fd)
    }

    /// Each key with its value, without those that go meanwhile.
    pub(super) fn entries(&self) -> impl Iterator<Item = Result<(K, V)>> + '_ {
        self.keys().filter_map(|key| {
            let entry = key.and_then(|key| Ok(self.get(&key, 0)?.map(|value| (key, value))));
            entry.transpose()
        })
    }
}

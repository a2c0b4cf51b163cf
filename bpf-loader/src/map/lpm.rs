//! Longest prefix match.

use std::marker::PhantomData;

use bpf_sys::{MapFd, MapType, map};
use zerocopy::FromBytes;

use super::keys::KeyBytes;
use super::typed::{check_size, check_type};
use super::{Map, Pod};
use crate::error::{Error, Result};

/// A trie of prefixes of `A`, which has its most significant byte first: `[u8; 4]` for IPv4 addresses, say. What is
/// looked up finds the longest prefix that it begins with.
#[derive(Debug)]
pub struct LpmTrie<A, V> {
    fd: MapFd,
    types: PhantomData<fn() -> (A, V)>,
}

/// The length of a prefix in bits.
const LENGTH: usize = size_of::<u32>();
/// The kernel takes at most 256 bytes of data (kernel/bpf/lpm_trie.c).
const MAX_DATA: usize = 256;

/// A key as the kernel has it: the length of the prefix in host order, then the data.
struct Key {
    bytes: [u8; LENGTH + MAX_DATA],
    len: usize,
}

impl Key {
    fn new<A: Pod>(address: &A, prefix: u32) -> Self {
        let mut key = Self { bytes: [0; LENGTH + MAX_DATA], len: LENGTH + size_of::<A>() };
        let (length, data) = key.bytes.split_at_mut(LENGTH);
        length.copy_from_slice(&prefix.to_ne_bytes());
        data.iter_mut().zip(address.as_bytes()).for_each(|(to, from)| *to = *from);
        key
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl<A: Pod, V: Pod> LpmTrie<A, V> {
    /// A handle of `map`.
    ///
    /// # Errors
    ///
    /// [`Error::MapType`], [`Error::MapSize`]; `EMFILE`.
    pub fn new(map: &Map) -> Result<Self> {
        check_type(map, &[MapType::LPM_TRIE])?;
        check_size(map, "key", LENGTH + size_of::<A>(), map.key_size())?;
        check_size(map, "value", size_of::<V>(), map.value_size())?;
        Ok(Self { fd: map.try_clone_fd()?, types: PhantomData })
    }

    /// The value of the longest prefix of `address`.
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not read.
    pub fn get(&self, address: &A) -> Result<Option<V>> {
        self.get_prefix(address, (size_of::<A>() * 8) as u32)
    }

    /// The value of the longest prefix of the first `prefix` bits of `address`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). `EINVAL`: more bits than there are (before Linux 6.11, not found).
    pub fn get_prefix(&self, address: &A, prefix: u32) -> Result<Option<V>> {
        let mut value = V::new_zeroed();
        let found = map::lookup(&self.fd, Key::new(address, prefix).as_bytes(), value.as_mut_bytes(), 0)?;
        Ok(found.then_some(value))
    }

    /// Sets the value of the first `prefix` bits of `address`; `flags` are `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`.
    ///
    /// # Errors
    ///
    /// `ENOSPC`: the map is full. `EINVAL`: more bits than there are. `EEXIST`, `ENOENT`: against `flags`. `EPERM`: the
    /// map is frozen, or the descriptor may not write.
    pub fn set(&self, address: &A, prefix: u32, value: &V, flags: u64) -> Result<()> {
        Ok(map::update(&self.fd, Key::new(address, prefix).as_bytes(), value.as_bytes(), flags)?)
    }

    /// Removes exactly this prefix; `false` if it is not there.
    ///
    /// # Errors
    ///
    /// `EINVAL`: more bits than there are. `EPERM`: the map is frozen, or the descriptor may not write.
    pub fn delete(&self, address: &A, prefix: u32) -> Result<bool> {
        Ok(map::delete(&self.fd, Key::new(address, prefix).as_bytes())?)
    }

    /// The prefixes, longer ones before those that they begin with.
    pub fn prefixes(&self) -> Prefixes<'_, A> {
        Prefixes { keys: KeyBytes::new(&self.fd), types: PhantomData }
    }
}

/// The prefixes of a trie: address and number of bits. As [`Keys`](super::Keys).
#[derive(Debug)]
pub struct Prefixes<'m, A> {
    keys: KeyBytes<'m>,
    types: PhantomData<fn() -> A>,
}

impl<A: Pod> Iterator for Prefixes<'_, A> {
    type Item = Result<(A, u32)>;

    fn next(&mut self) -> Option<Result<(A, u32)>> {
        let key = self.keys.next()?;
        Some(key.and_then(|bytes| {
            let parts = u32::read_from_prefix(bytes).ok();
            let parts = parts.and_then(|(prefix, data)| Some((A::read_from_bytes(data).ok()?, prefix)));
            parts.ok_or_else(|| Box::new(Error::Internal("a key of another size than its map's")))
        }))
    }
}

//! Arrays.

use std::marker::PhantomData;

use bpf_sys::MapType;
use bpf_sys::shared::SharedMapping;

use super::batch::{self, Batches};
use super::typed::{Table, check_size, check_type};
use super::{Map, Pod};
use crate::error::Result;

/// An array: all elements exist from the beginning, zero, and cannot be removed.
#[derive(Debug)]
pub struct Array<V>(Table<u32, V>);

impl<V: Pod> Array<V> {
    /// A handle of `map`.
    ///
    /// # Errors
    ///
    /// [`Error::MapType`](crate::Error::MapType), [`Error::MapSize`](crate::Error::MapSize); `EMFILE`.
    pub fn new(map: &Map) -> Result<Self> {
        Table::new(map, &[MapType::ARRAY]).map(Self)
    }

    /// How many elements there are.
    #[expect(clippy::len_without_is_empty, reason = "an array is never empty")]
    pub fn len(&self) -> u32 {
        self.0.fd.max_entries()
    }

    /// An element; `None` past the end.
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not read.
    pub fn get(&self, index: u32) -> Result<Option<V>> {
        self.0.get(&index, 0)
    }

    /// Sets an element.
    ///
    /// # Errors
    ///
    /// `E2BIG`: past the end. `EPERM`: the map is frozen, or the descriptor may not write.
    pub fn set(&self, index: u32, value: &V) -> Result<()> {
        self.0.set(&index, value, 0)
    }

    /// The elements in order; errors as of [`get`](Self::get).
    pub fn values(&self) -> impl Iterator<Item = Result<V>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index).transpose())
    }

    /// The elements in order with their indices, many at a time; where the kernel has no batches for the map, one by one.
    pub fn batches(&self, size: usize) -> Batches<'_, u32, V> {
        Batches::new(&self.0.fd, 1, size, false)
    }

    /// Sets many elements.
    ///
    /// # Errors
    ///
    /// [`bpf_sys::Error::Batch`] with how many were set before, and an errno of [`set`](Self::set).
    pub fn set_batch(&self, indices: &[u32], values: &[V]) -> Result<()> {
        batch::update(&self.0, indices, values, 0)
    }
}

/// An array in mapped memory, for maps with `BPF_F_MMAPABLE`: no call for an access.
///
/// An aligned value no wider than a pointer is read and written whole; of a wider one, a program's or another thread's
/// write may be seen in part.
#[derive(Debug)]
pub struct MappedArray<V> {
    memory: SharedMapping,
    len: u32,
    types: PhantomData<fn() -> V>,
}

impl<V: Pod> MappedArray<V> {
    /// Maps `map`, which must not be frozen if it shall be `writable`.
    ///
    /// # Errors
    ///
    /// [`Error::MapType`](crate::Error::MapType), [`Error::MapSize`](crate::Error::MapSize). [`bpf_sys::Error::Argument`]: without `BPF_F_MMAPABLE`. `EPERM`: frozen, or the
    /// descriptor may not write.
    pub fn new(map: &Map, writable: bool) -> Result<Self> {
        check_type(map, &[MapType::ARRAY])?;
        check_size(map, "value", size_of::<V>(), map.value_size())?;
        let memory = SharedMapping::array(&map.fd, writable)?;
        Ok(Self { memory, len: map.max_entries(), types: PhantomData })
    }

    /// How many elements there are.
    #[expect(clippy::len_without_is_empty, reason = "an array is never empty")]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// An element; `None` past the end.
    pub fn get(&self, index: u32) -> Option<V> {
        let mut value = V::new_zeroed();
        self.memory.copy_out(self.offset(index)?, value.as_mut_bytes())?;
        Some(value)
    }

    /// Sets an element; `None` past the end, or if the memory is not writable.
    pub fn set(&self, index: u32, value: &V) -> Option<()> {
        self.memory.copy_in(self.offset(index)?, value.as_bytes())
    }

    /// Elements are a multiple of 8 bytes apart.
    fn offset(&self, index: u32) -> Option<usize> {
        (index as usize).checked_mul(size_of::<V>().next_multiple_of(8)).filter(|_| index < self.len)
    }
}

//! Maps with a value for each possible CPU.

use std::marker::PhantomData;

use bpf_sys::{MapFd, MapType, map};
use zerocopy::IntoBytes;

use super::batch::Batches;
use super::typed::checked;
use super::{Keys, Map, Pod};
use crate::error::Result;

/// The values of one key, one for each possible CPU; reads of many keys may share it.
#[derive(Debug, Clone)]
pub struct PerCpuValues<V> {
    /// A value takes a whole number of these.
    words: Vec<u64>,
    types: PhantomData<fn() -> V>,
}

impl<V: Pod> PerCpuValues<V> {
    const WORDS: usize = size_of::<V>().div_ceil(size_of::<u64>());

    /// Zeros, for as many CPUs as the machine can ever have.
    ///
    /// # Errors
    ///
    /// [`bpf_sys::Error::PossibleCpus`].
    pub fn new() -> Result<Self> {
        let words = vec![0; Self::WORDS * bpf_sys::possible_cpus()?];
        Ok(Self { words, types: PhantomData })
    }

    /// The value of a CPU; `None` if there can be no such CPU.
    pub fn get(&self, cpu: usize) -> Option<V> {
        let start = cpu.checked_mul(Self::WORDS)?;
        let slot = self.words.get(start..start.checked_add(Self::WORDS)?)?;
        V::read_from_prefix(slot.as_bytes()).ok().map(|(value, _)| value)
    }

    /// Sets the value of a CPU; `None` if there can be no such CPU.
    pub fn set(&mut self, cpu: usize, value: V) -> Option<()> {
        let start = cpu.checked_mul(Self::WORDS)?;
        let slot = self.words.get_mut(start..start.checked_add(Self::WORDS)?)?;
        value.write_to_prefix(slot.as_mut_bytes()).ok()
    }

    /// The values in the order of the CPUs.
    pub fn iter(&self) -> impl Iterator<Item = V> + '_ {
        values_of(&self.words)
    }
}

/// The values of the CPUs, from the words of one key.
fn values_of<V: Pod>(words: &[u64]) -> impl Iterator<Item = V> + '_ {
    words
        .chunks_exact(PerCpuValues::<V>::WORDS.max(1))
        .filter_map(|slot| V::read_from_prefix(slot.as_bytes()).ok().map(|(value, _)| value))
}

/// A walk over the elements of a map with values for each CPU, many at a time. As [`Batches`].
#[derive(Debug)]
pub struct PerCpuBatches<'m, K, V> {
    batches: Batches<'m, K, u64>,
    stride: usize,
    types: PhantomData<fn() -> V>,
}

impl<'m, K: Pod, V: Pod> PerCpuBatches<'m, K, V> {
    fn new(map: &'m PerCpu<K, V>, size: usize, delete: bool) -> Result<Self> {
        let stride = map.fd.value_len()? / size_of::<u64>();
        Ok(Self { batches: Batches::new(&map.fd, stride, size, delete), stride, types: PhantomData })
    }

    /// The next keys, each with its values in the order of the CPUs; `None` at the end.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    #[expect(clippy::should_implement_trait, reason = "lends from the walk, which an Iterator cannot")]
    pub fn next(&mut self) -> Result<Option<impl Iterator<Item = (K, impl Iterator<Item = V> + '_)> + '_>> {
        let stride = self.stride.max(1);
        Ok(self.batches.next()?.map(|(keys, words)| {
            keys.iter().zip(words.chunks_exact(stride)).map(|(key, words)| (*key, values_of(words)))
        }))
    }
}

/// What both kinds share.
#[derive(Debug)]
struct PerCpu<K, V> {
    fd: MapFd,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Pod, V: Pod> PerCpu<K, V> {
    fn new(map: &Map, types: &'static [MapType]) -> Result<Self> {
        Ok(Self { fd: checked(map, types, size_of::<K>(), Some(size_of::<V>()))?, types: PhantomData })
    }

    fn get_into(&self, key: &K, values: &mut PerCpuValues<V>) -> Result<bool> {
        Ok(map::lookup(&self.fd, key.as_bytes(), values.words.as_mut_bytes(), 0)?)
    }

    fn get(&self, key: &K) -> Result<Option<PerCpuValues<V>>> {
        let mut values = PerCpuValues::new()?;
        Ok(self.get_into(key, &mut values)?.then_some(values))
    }

    fn set(&self, key: &K, values: &PerCpuValues<V>, flags: u64) -> Result<()> {
        Ok(map::update(&self.fd, key.as_bytes(), values.words.as_bytes(), flags)?)
    }
}

const HASHES: &[MapType] = &[MapType::PERCPU_HASH, MapType::LRU_PERCPU_HASH, MapType::PERCPU_CGROUP_STORAGE];

/// A hash table with a value for each CPU: `PERCPU_HASH`, `LRU_PERCPU_HASH`, or `PERCPU_CGROUP_STORAGE`, whose elements
/// only programs make.
#[derive(Debug)]
pub struct PerCpuHash<K, V>(PerCpu<K, V>);

impl<K: Pod, V: Pod> PerCpuHash<K, V> {
    /// A handle of `map`.
    ///
    /// # Errors
    ///
    /// [`Error::MapType`](crate::Error::MapType), [`Error::MapSize`](crate::Error::MapSize); `EMFILE`.
    pub fn new(map: &Map) -> Result<Self> {
        PerCpu::new(map, HASHES).map(Self)
    }

    /// The values of a key.
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not read.
    pub fn get(&self, key: &K) -> Result<Option<PerCpuValues<V>>> {
        self.0.get(key)
    }

    /// Copies the values of a key, without an allocation; `false` if it is not there.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn get_into(&self, key: &K, values: &mut PerCpuValues<V>) -> Result<bool> {
        self.0.get_into(key, values)
    }

    /// Sets the values of a key; `flags` are `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`.
    ///
    /// # Errors
    ///
    /// `E2BIG`: the map is full. `EEXIST`, `ENOENT`: against `flags`. `EPERM`: the map is frozen, or the descriptor may
    /// not write.
    pub fn set(&self, key: &K, values: &PerCpuValues<V>, flags: u64) -> Result<()> {
        self.0.set(key, values, flags)
    }

    /// Removes a key; `false` if it is not there.
    ///
    /// # Errors
    ///
    /// `EPERM`: the map is frozen, or the descriptor may not write.
    pub fn delete(&self, key: &K) -> Result<bool> {
        Ok(map::delete(&self.0.fd, key.as_bytes())?)
    }

    /// The elements, many at a time; where the kernel has no batches for the map, one by one.
    ///
    /// # Errors
    ///
    /// [`bpf_sys::Error::PossibleCpus`].
    pub fn batches(&self, size: usize) -> Result<PerCpuBatches<'_, K, V>> {
        PerCpuBatches::new(&self.0, size, false)
    }

    /// As [`batches`](Self::batches), and removes the elements.
    ///
    /// # Errors
    ///
    /// [`bpf_sys::Error::PossibleCpus`].
    pub fn take_batches(&self, size: usize) -> Result<PerCpuBatches<'_, K, V>> {
        PerCpuBatches::new(&self.0, size, true)
    }

    /// The keys.
    pub fn keys(&self) -> Keys<'_, K> {
        Keys::new(&self.0.fd)
    }
}

/// An array with a value for each CPU.
#[derive(Debug)]
pub struct PerCpuArray<V>(PerCpu<u32, V>);

impl<V: Pod> PerCpuArray<V> {
    /// A handle of `map`.
    ///
    /// # Errors
    ///
    /// [`Error::MapType`](crate::Error::MapType), [`Error::MapSize`](crate::Error::MapSize); `EMFILE`.
    pub fn new(map: &Map) -> Result<Self> {
        PerCpu::new(map, &[MapType::PERCPU_ARRAY]).map(Self)
    }

    /// The values of an element; `None` past the end.
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not read.
    pub fn get(&self, index: u32) -> Result<Option<PerCpuValues<V>>> {
        self.0.get(&index)
    }

    /// Copies the values of an element, without an allocation; `false` past the end.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn get_into(&self, index: u32, values: &mut PerCpuValues<V>) -> Result<bool> {
        self.0.get_into(&index, values)
    }

    /// The elements with their indices, many at a time (Linux 5.13); before, one by one.
    ///
    /// # Errors
    ///
    /// [`bpf_sys::Error::PossibleCpus`].
    pub fn batches(&self, size: usize) -> Result<PerCpuBatches<'_, u32, V>> {
        PerCpuBatches::new(&self.0, size, false)
    }

    /// Sets the values of an element.
    ///
    /// # Errors
    ///
    /// `E2BIG`: past the end. `EPERM`: the map is frozen, or the descriptor may not write.
    pub fn set(&self, index: u32, values: &PerCpuValues<V>) -> Result<()> {
        self.0.set(&index, values, 0)
    }
}

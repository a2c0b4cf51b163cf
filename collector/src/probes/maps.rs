//! Maps by name, as bytes. [`bpf_loader::map`] has typed handles.

use bpf_loader::map::Map;
use bpf_sys::{MapType, map};

use super::{ProbeError, Result};

/// What a map is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapSummary {
    /// Its name in the object.
    pub name: String,
    /// Its type.
    pub map_type: MapType,
    /// Bytes of a key; 0 where a map has none.
    pub key_size: usize,
    /// Bytes of a value; of one CPU, in per-CPU maps.
    pub value_size: usize,
    /// Capacity in elements; of a ring buffer, in bytes.
    pub max_entries: u32,
}

/// A key and its value, in host byte order; of per-CPU maps, the values of all CPUs, each padded to 8 bytes.
pub type MapEntry = (Vec<u8>, Vec<u8>);

/// Reads and writes a map.
#[derive(Debug)]
pub struct MapAccess<'m> {
    map: &'m Map,
}

impl<'m> MapAccess<'m> {
    /// Of any map.
    pub fn new(map: &'m Map) -> Self {
        Self { map }
    }

    /// What it is.
    pub fn info(&self) -> MapSummary {
        MapSummary {
            name: self.map.name.clone(),
            map_type: self.map.map_type(),
            key_size: self.map.key_size(),
            value_size: self.map.value_size(),
            max_entries: self.map.max_entries(),
        }
    }

    /// The value of a key; `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`ProbeError::Size`]; the map's type has no lookups.
    pub fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.check("key", self.map.key_size(), key)?;
        let mut value = vec![0; self.value_bytes()?];
        Ok(map::lookup(&self.map.fd, key, &mut value, 0)?.then_some(value))
    }

    /// Sets the value of a key, whether it has one or not.
    ///
    /// # Errors
    ///
    /// [`ProbeError::Size`]; the map is full, frozen, or its type has no updates.
    pub fn write(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.check("key", self.map.key_size(), key)?;
        self.check("value", self.value_bytes()?, value)?;
        Ok(map::update(&self.map.fd, key, value, 0)?)
    }

    /// Removes a key; whether it was there.
    ///
    /// # Errors
    ///
    /// [`ProbeError::Size`]; the map's type has no deletions, as arrays.
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        self.check("key", self.map.key_size(), key)?;
        Ok(map::delete(&self.map.fd, key)?)
    }

    /// All entries, one after the other: while others write, some may be missing or come twice.
    ///
    /// # Errors
    ///
    /// The map's type has no keys.
    pub fn entries(&self) -> Result<Vec<MapEntry>> {
        let mut entries = Vec::new();
        let mut key = vec![0; self.map.key_size()];
        let mut after: Option<Vec<u8>> = None;
        // A map that others fill meanwhile could keep this busy for ever.
        while entries.len() < self.map.max_entries() as usize
            && map::next_key(&self.map.fd, after.as_deref(), &mut key)?
        {
            if let Some(value) = self.read(&key)? {
                entries.push((key.clone(), value));
            }
            after = Some(key.clone());
        }
        Ok(entries)
    }

    fn value_bytes(&self) -> Result<usize> {
        let per_cpu = [
            MapType::PERCPU_ARRAY,
            MapType::PERCPU_HASH,
            MapType::LRU_PERCPU_HASH,
            MapType::PERCPU_CGROUP_STORAGE,
        ];
        let size = self.map.value_size();
        if !per_cpu.contains(&self.map.map_type()) {
            return Ok(size);
        }
        let cpus = bpf_sys::possible_cpus()?;
        Ok(size.next_multiple_of(8) * cpus)
    }

    fn check(&self, what: &'static str, expected: usize, given: &[u8]) -> Result<()> {
        if given.len() == expected {
            return Ok(());
        }
        Err(ProbeError::Size { map: self.map.name.clone(), what, expected, given: given.len() })
    }
}

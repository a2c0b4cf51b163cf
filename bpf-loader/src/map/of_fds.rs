//! Maps whose entries are set by descriptor: programs, maps, control groups, sockets.

use std::os::fd::{AsFd, AsRawFd};

use bpf_sys::{Errno, MapType};

use super::typed::{Table, check_size};
use super::{Keys, Map, Pod};
use crate::error::{Error, Result};
use crate::program::Program;

/// Programs for `bpf_tail_call`.
#[derive(Debug)]
pub struct ProgramArray(Table<u32, u32>);

impl ProgramArray {
    /// A handle of `map`.
    ///
    /// # Errors
    ///
    /// [`Error::MapType`], [`Error::MapSize`]; `EMFILE`.
    pub fn new(map: &Map) -> Result<Self> {
        Table::new(map, &[MapType::PROG_ARRAY]).map(Self)
    }

    /// Sets a slot.
    ///
    /// # Errors
    ///
    /// `E2BIG`: past the end. `EINVAL`: the program is of another type than those that use the map.
    pub fn set(&self, index: u32, program: &Program) -> Result<()> {
        self.0.set(&index, &(program.fd.as_raw_fd() as u32), 0)
    }

    /// The id of the program in a slot; `None` if it is empty or past the end.
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not read.
    pub fn id(&self, index: u32) -> Result<Option<u32>> {
        self.0.get(&index, 0)
    }

    /// Empties a slot; `false` if it is empty.
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not write.
    pub fn clear(&self, index: u32) -> Result<bool> {
        self.0.delete(&index)
    }
}

/// Control groups for `bpf_current_task_under_cgroup` and `bpf_skb_under_cgroup`.
#[derive(Debug)]
pub struct CgroupArray(Table<u32, u32>);

impl CgroupArray {
    /// A handle of `map`.
    ///
    /// # Errors
    ///
    /// [`Error::MapType`], [`Error::MapSize`]; `EMFILE`.
    pub fn new(map: &Map) -> Result<Self> {
        Table::new(map, &[MapType::CGROUP_ARRAY]).map(Self)
    }

    /// Sets a slot to the control group (version 2) whose directory this is.
    ///
    /// # Errors
    ///
    /// `E2BIG`: past the end. `EBADF`: not a control group.
    pub fn set(&self, index: u32, cgroup: impl AsFd) -> Result<()> {
        self.0.set(&index, &(cgroup.as_fd().as_raw_fd() as u32), 0)
    }

    /// Empties a slot; `false` if it is empty.
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not write.
    pub fn clear(&self, index: u32) -> Result<bool> {
        self.0.delete(&index)
    }
}

/// An array or hash table of maps that are all alike.
#[derive(Debug)]
pub struct MapOfMaps<K> {
    table: Table<K, u32>,
    name: String,
}

impl<K: Pod> MapOfMaps<K> {
    /// A handle of `map`. The keys of arrays are `u32`.
    ///
    /// # Errors
    ///
    /// [`Error::MapType`], [`Error::MapSize`]; `EMFILE`.
    pub fn new(map: &Map) -> Result<Self> {
        let table = Table::new(map, &[MapType::ARRAY_OF_MAPS, MapType::HASH_OF_MAPS])?;
        Ok(Self { table, name: map.name.clone() })
    }

    /// Sets the map of a key; `flags` are `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`.
    ///
    /// # Errors
    ///
    /// [`Error::InnerMap`]: the map is not like the one that this was created with: another type, other sizes or flags, or
    /// an array of another length (unless it was created with `BPF_F_INNER_MAP`, Linux 5.10). `E2BIG`: full, or past the
    /// end. `EEXIST`, `ENOENT`: against `flags`.
    pub fn set(&self, key: &K, inner: &Map, flags: u64) -> Result<()> {
        self.table.set(key, &(inner.fd.as_raw_fd() as u32), flags).map_err(|error| match *error {
            Error::Kernel(error) if error.errno() == Some(Errno::EINVAL) => {
                Box::new(Error::InnerMap { map: self.name.clone(), inner_type: inner.map_type(), error })
            }
            _ => error,
        })
    }

    /// The id of the map of a key.
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not read.
    pub fn id(&self, key: &K) -> Result<Option<u32>> {
        self.table.get(key, 0)
    }

    /// The map of a key.
    ///
    /// # Errors
    ///
    /// As [`id`](Self::id) and [`Map::from_id`].
    pub fn get(&self, key: &K) -> Result<Option<Map>> {
        self.id(key)?.map(Map::from_id).transpose()
    }

    /// Removes the map of a key; `false` if there is none.
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not write.
    pub fn delete(&self, key: &K) -> Result<bool> {
        self.table.delete(key)
    }

    /// The keys; of an array, all indices.
    pub fn keys(&self) -> Keys<'_, K> {
        self.table.keys()
    }
}

const SOCKET_MAPS: &[MapType] =
    &[MapType::SOCKMAP, MapType::SOCKHASH, MapType::REUSEPORT_SOCKARRAY, MapType::XSKMAP];

/// Sockets that programs send to: `SOCKMAP`, `SOCKHASH`, `REUSEPORT_SOCKARRAY`, `XSKMAP`. The keys of all but `SOCKHASH`
/// are `u32`.
#[derive(Debug)]
pub struct SocketMap<K> {
    narrow: Table<K, u32>,
    /// Values of 8 bytes can be looked up.
    wide: Option<Table<K, u64>>,
}

impl<K: Pod> SocketMap<K> {
    /// A handle of `map`, whose values have 4 or 8 bytes.
    ///
    /// # Errors
    ///
    /// [`Error::MapType`], [`Error::MapSize`]; `EMFILE`.
    pub fn new(map: &Map) -> Result<Self> {
        let narrow = Table::with_unchecked_values(map, SOCKET_MAPS)?;
        let wide = match map.value_size() {
            8 => Some(Table::new(map, SOCKET_MAPS)?),
            other => check_size(map, "value", size_of::<u32>(), other).map(|()| None)?,
        };
        Ok(Self { narrow, wide })
    }

    /// Sets the socket of a key; `flags` are `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP`, `EINVAL`: a kind or state of socket that the map does not take (a `SOCKMAP` takes TCP sockets that are
    /// connected or listen, for example). `ENOBUFS`: an XDP socket without a receive ring (on Linux 7.2). `E2BIG`: full, or past the end. `EEXIST`, `ENOENT`: against `flags`.
    pub fn set(&self, key: &K, socket: impl AsFd, flags: u64) -> Result<()> {
        let fd = socket.as_fd().as_raw_fd() as u32;
        match &self.wide {
            Some(wide) => wide.set(key, &fd.into(), flags),
            None => self.narrow.set(key, &fd, flags),
        }
    }

    /// The cookie of the socket of a key, where values have 8 bytes; `None` for an empty place.
    ///
    /// # Errors
    ///
    /// `ENOSPC`: values have 4 bytes. `EOPNOTSUPP`: the type has no lookup.
    pub fn cookie(&self, key: &K) -> Result<Option<u64>> {
        match &self.wide {
            Some(wide) => wide.get(key, 0),
            None => Ok(self.narrow.get(key, 0)?.map(u64::from)),
        }
    }

    /// Removes the socket of a key; `false` if there is none.
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not write.
    pub fn delete(&self, key: &K) -> Result<bool> {
        match self.narrow.delete(key) {
            // What an array of sockets says of an empty place.
            Err(error) if error.errno() == Some(Errno::EINVAL) => Ok(false),
            other => other,
        }
    }

    /// The keys; of an array, all indices.
    pub fn keys(&self) -> Keys<'_, K> {
        self.narrow.keys()
    }
}

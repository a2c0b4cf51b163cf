//! Maps in the kernel.
//!
//! [`Map`] is any map, by descriptor. What is in it is reached through a handle for its type, which knows the types of keys
//! and values, and whose creation fails if they do not fit the map:
//!
//! | handle | maps |
//! |---|---|
//! | [`Hash`](struct@Hash), [`PerCpuHash`] | hash tables, LRU too; control group storage of before Linux 6.2 |
//! | [`Array`], [`PerCpuArray`], [`MappedArray`] | arrays, by call or in mapped memory |
//! | [`Global`] | variables of data sections |
//! | [`LpmTrie`] | longest prefix match |
//! | [`Queue`] | queues and stacks |
//! | [`BloomFilter`] | bloom filters |
//! | [`StackTraces`] | stack traces |
//! | [`Storage`] | values that belong to sockets, inodes, tasks, control groups |
//! | [`MapOfMaps`] | arrays and hash tables of maps |
//! | [`ProgramArray`], [`CgroupArray`], [`SocketMap`] | programs to tail call, control groups, sockets |
//! | [`DevMap`], [`CpuMap`] | where XDP redirects to |
//! | [`Arena`] | memory that programs and processes share |
//! | [`RingReader`](crate::ring::RingReader), [`UserRing`](crate::ring::UserRing), [`PerfReader`](crate::ring::PerfReader) | buffers of records |
//!
//! A handle has a descriptor of its own, so it outlives the [`Map`].

mod arena;
mod array;
mod batch;
mod bloom;
mod global;
mod hash;
mod keys;
mod lpm;
mod of_fds;
mod per_cpu;
mod queue;
mod redirect;
mod stack;
mod storage;
mod typed;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bpf_sys::shared::SharedMapping;
use bpf_sys::{Info, MapFd, MapInfo, MapType, pin};

use crate::error::{Error, Result};

pub use arena::Arena;
pub use array::{Array, MappedArray};
pub use batch::Batches;
pub use bloom::BloomFilter;
pub use global::Global;
pub use hash::Hash;
pub use keys::Keys;
pub use lpm::{LpmTrie, Prefixes};
pub use of_fds::{CgroupArray, MapOfMaps, ProgramArray, SocketMap};
pub use per_cpu::{PerCpuArray, PerCpuBatches, PerCpuHash, PerCpuValues};
pub use queue::Queue;
pub use redirect::{CpuMap, DevMap};
pub use stack::{BuildIdFrame, StackTraces};
pub use storage::Storage;
pub use typed::Pod;

pub(crate) use global::Variable;

/// A map in the kernel. It goes when this, its pins and every program that uses it are gone.
#[derive(Debug)]
pub struct Map {
    /// Its name: in the object, or as the kernel knows it.
    pub name: String,
    /// The map.
    pub fd: MapFd,
    /// For the map of a data section: its variables.
    pub(crate) variables: Vec<Variable>,
    /// For an arena: its memory. The kernel loads no program that uses it before it knows the address.
    pub(crate) arena: Option<Arc<SharedMapping>>,
    /// Where it was pinned when it was created.
    pub(crate) new_pin: Option<PathBuf>,
}

impl Map {
    /// A map under a name.
    pub fn new(name: String, fd: MapFd) -> Self {
        Self { name, fd, variables: Vec::new(), arena: None, new_pin: None }
    }

    /// Where loading has pinned it, if it is declared as pinned and was not there yet: who gives up what was loaded may want to
    /// unpin it again.
    pub fn new_pin(&self) -> Option<&Path> {
        self.new_pin.as_deref()
    }

    /// The map behind a descriptor from elsewhere, under the name that the kernel knows.
    ///
    /// # Errors
    ///
    /// [`bpf_sys::Error::WrongKind`]: it is no map.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        Self::named_by_kernel(fd.try_into()?)
    }

    /// Opens a pinned map.
    ///
    /// # Errors
    ///
    /// `ENOENT`: no such pin. `EACCES`: the file's mode. [`bpf_sys::Error::WrongKind`]: not a map.
    pub fn from_pin(path: &Path) -> Result<Self> {
        Self::named_by_kernel(pin::get_map(path, 0, None)?)
    }

    /// Opens a map by its id, which [`walk::maps`](crate::walk::maps) lists.
    ///
    /// # Errors
    ///
    /// `ENOENT`: it is gone. `EPERM`: needs CAP_SYS_ADMIN.
    pub fn from_id(id: u32) -> Result<Self> {
        Self::named_by_kernel(bpf_sys::map::open_by_id(id, 0, None)?)
    }

    fn named_by_kernel(fd: MapFd) -> Result<Self> {
        let name = bpf_sys::map::info(&fd)?.name.to_string();
        Ok(Self::new(name, fd))
    }

    /// Another descriptor of the same map.
    ///
    /// # Errors
    ///
    /// `EMFILE`: too many open descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            name: self.name.clone(),
            fd: self.try_clone_fd()?,
            variables: self.variables.clone(),
            arena: self.arena.clone(),
            new_pin: None,
        })
    }

    pub(crate) fn try_clone_fd(&self) -> Result<MapFd> {
        Ok(self.fd.try_clone()?)
    }

    /// Type.
    pub const fn map_type(&self) -> MapType {
        self.fd.map_type()
    }

    /// Bytes of a key; 0 where a map has none.
    pub const fn key_size(&self) -> usize {
        self.fd.key_size()
    }

    /// Bytes of a value; of one CPU, in per-CPU maps.
    pub const fn value_size(&self) -> usize {
        self.fd.value_size()
    }

    /// Capacity in elements; of a ring buffer, in bytes; of an arena, in pages.
    pub const fn max_entries(&self) -> u32 {
        self.fd.max_entries()
    }

    /// The flags at creation, `BPF_F_*`.
    pub const fn flags(&self) -> u32 {
        self.fd.flags()
    }

    /// What the kernel says of it: id, BTF, what it was created with.
    ///
    /// # Errors
    ///
    /// None that the caller can cause.
    pub fn info(&self) -> Result<Info<MapInfo>> {
        Ok(bpf_sys::map::info(&self.fd)?)
    }

    /// No system call may write the map any more; programs still may.
    ///
    /// # Errors
    ///
    /// `EBUSY`: already frozen, or mapped writable.
    pub fn freeze(&self) -> Result<()> {
        Ok(bpf_sys::map::freeze(&self.fd)?)
    }

    /// Gives the map a name in a BPF file system, which keeps it alive.
    ///
    /// # Errors
    ///
    /// `EEXIST`: the name is taken. `EPERM`: not in a BPF file system. `ENOENT`: no such directory.
    pub fn pin(&self, path: &Path) -> Result<()> {
        Ok(pin::pin(self.fd.as_fd(), path, None)?)
    }

    /// Removes a pin of this map.
    ///
    /// # Errors
    ///
    /// `ENOENT`: no such pin. [`Error::OtherMapPinned`]: another map is there. [`Error::File`]: it cannot be removed.
    pub fn unpin(&self, path: &Path) -> Result<()> {
        let found = bpf_sys::map::info(&pin::get_map(path, 0, None)?)?.id;
        let id = self.info()?.id;
        if found != id {
            return Err(Box::new(Error::OtherMapPinned { map: self.name.clone(), path: path.into(), found }));
        }
        std::fs::remove_file(path)
            .map_err(|e| Box::new(Error::File { path: path.into(), reason: e.to_string() }))
    }
}

//! Values that belong to something else in the kernel, and go with it.

use std::os::fd::{AsFd, AsRawFd};

use bpf_sys::MapType;

use super::typed::Table;
use super::{Map, Pod};
use crate::error::Result;

const TYPES: &[MapType] =
    &[MapType::SK_STORAGE, MapType::INODE_STORAGE, MapType::TASK_STORAGE, MapType::CGRP_STORAGE];

/// A value for each socket (Linux 5.2), inode (5.10), task (5.11) or control group (6.2). The owner is named by a
/// descriptor: of the socket, of the file, of the process (`pidfd_open`), of the control group's directory.
#[derive(Debug)]
pub struct Storage<V>(Table<i32, V>);

impl<V: Pod> Storage<V> {
    /// A handle of `map`.
    ///
    /// # Errors
    ///
    /// [`Error::MapType`](crate::Error::MapType), [`Error::MapSize`](crate::Error::MapSize); `EMFILE`.
    pub fn new(map: &Map) -> Result<Self> {
        Table::new(map, TYPES).map(Self)
    }

    /// The value of an owner.
    ///
    /// # Errors
    ///
    /// `EBADF`, `ENOTSOCK`, `EINVAL`: the descriptor is of something else.
    pub fn get(&self, owner: impl AsFd) -> Result<Option<V>> {
        self.0.get(&owner.as_fd().as_raw_fd(), 0)
    }

    /// Sets the value of an owner; `flags` are `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). `EEXIST`, `ENOENT`: against `flags`. `ENOMEM`: a socket's memory is used up.
    pub fn set(&self, owner: impl AsFd, value: &V, flags: u64) -> Result<()> {
        self.0.set(&owner.as_fd().as_raw_fd(), value, flags)
    }

    /// Removes the value of an owner; `false` if it has none.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn delete(&self, owner: impl AsFd) -> Result<bool> {
        self.0.delete(&owner.as_fd().as_raw_fd())
    }
}

//! Queues and stacks.

use bpf_sys::MapType;
use bpf_sys::uapi::flags::{BPF_ANY, BPF_EXIST};

use super::typed::Table;
use super::{Map, Pod};
use crate::error::Result;

/// A queue (first in, first out) or a stack (last in, first out).
#[derive(Debug)]
pub struct Queue<V>(Table<(), V>);

impl<V: Pod> Queue<V> {
    /// A handle of `map`.
    ///
    /// # Errors
    ///
    /// [`Error::MapType`](crate::Error::MapType), [`Error::MapSize`](crate::Error::MapSize); `EMFILE`.
    pub fn new(map: &Map) -> Result<Self> {
        Table::new(map, &[MapType::QUEUE, MapType::STACK]).map(Self)
    }

    /// Puts a value in.
    ///
    /// # Errors
    ///
    /// `E2BIG`: it is full. `EPERM`: the map is frozen, or the descriptor may not write.
    pub fn push(&self, value: &V) -> Result<()> {
        self.0.set(&(), value, BPF_ANY)
    }

    /// Puts a value in; if it is full, the oldest goes.
    ///
    /// # Errors
    ///
    /// `EPERM`: the map is frozen, or the descriptor may not write.
    pub fn push_over(&self, value: &V) -> Result<()> {
        self.0.set(&(), value, BPF_EXIST)
    }

    /// The value that [`pop`](Self::pop) would take.
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not read.
    pub fn peek(&self) -> Result<Option<V>> {
        self.0.get(&(), 0)
    }

    /// Takes a value out.
    ///
    /// # Errors
    ///
    /// `EPERM`: the map is frozen, or the descriptor may not read and write.
    pub fn pop(&self) -> Result<Option<V>> {
        self.0.take(&(), 0)
    }
}

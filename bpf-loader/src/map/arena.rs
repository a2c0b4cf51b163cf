//! Arenas.

use std::sync::Arc;

use bpf_sys::shared::SharedMapping;
use bpf_sys::uapi::flags::BPF_F_SEGV_ON_FAULT;

use super::{Map, Pod};
use crate::error::{Error, Result};

/// An arena (Linux 6.9): memory that programs and processes share, up to 4 GiB. Pages come as they are touched, by either
/// side.
///
/// It is read and written by copying. An aligned value no wider than a pointer is read and written whole; of a wider one, a
/// program's or another thread's write may be seen in part.
#[derive(Debug)]
pub struct Arena {
    memory: Arc<SharedMapping>,
}

impl Arena {
    /// Maps an arena, at the address in its `map_extra`, if any.
    ///
    /// # Errors
    ///
    /// [`bpf_sys::Error::Argument`]: not an arena. [`Error::ArenaFaults`]: one with `BPF_F_SEGV_ON_FAULT`, where touching a
    /// page that no program has allocated would end the process. `EEXIST`: something else is mapped at the address. `EBUSY`: it is mapped at
    /// another address already.
    pub fn new(map: &Map) -> Result<Self> {
        if map.flags() & BPF_F_SEGV_ON_FAULT != 0 {
            return Err(Box::new(Error::ArenaFaults { map: map.name.clone() }));
        }
        let memory = match &map.arena {
            Some(memory) => Arc::clone(memory),
            None => Arc::new(SharedMapping::arena(&map.fd)?),
        };
        Ok(Self { memory })
    }

    /// Bytes.
    #[expect(clippy::len_without_is_empty, reason = "an arena is never empty")]
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Where it begins in this process. Pointers that programs leave in an arena are such addresses.
    pub fn address(&self) -> usize {
        self.memory.address()
    }

    /// The value at an offset in bytes; `None` if it is not inside.
    pub fn get<V: Pod>(&self, offset: usize) -> Option<V> {
        let mut value = V::new_zeroed();
        self.memory.copy_out(offset, value.as_mut_bytes())?;
        Some(value)
    }

    /// Sets the value at an offset in bytes; `None` if it is not inside.
    pub fn set<V: Pod>(&self, offset: usize, value: &V) -> Option<()> {
        self.memory.copy_in(offset, value.as_bytes())
    }

    /// Copies bytes out from an offset; `None` if they are not all inside.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Option<()> {
        self.memory.copy_out(offset, to)
    }

    /// Copies bytes in at an offset; `None` if they are not all inside.
    pub fn write(&self, offset: usize, from: &[u8]) -> Option<()> {
        self.memory.copy_in(offset, from)
    }
}

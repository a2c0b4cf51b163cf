//! Stack traces.

use bpf_sys::uapi::flags::BPF_F_STACK_BUILD_ID;
use bpf_sys::{MapFd, MapType, map};
use zerocopy::{FromBytes, IntoBytes};

use super::Map;
use super::typed::{check_size, check_type};
use crate::error::Result;

/// Stack traces by the ids that `bpf_get_stackid` gives.
#[derive(Debug)]
pub struct StackTraces {
    fd: MapFd,
}

/// A frame of a map with `BPF_F_STACK_BUILD_ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildIdFrame {
    /// A place in a file.
    Offset {
        /// The file's build id; shorter ones end with zeros.
        build_id: [u8; 20],
        /// Offset in the file in bytes.
        offset: u64,
    },
    /// An address, where the kernel could not read the build id.
    Address(u64),
}

/// `struct bpf_stack_build_id`: status, build id, offset or address.
const BUILD_ID_SIZE: usize = 32;
/// `BPF_STACK_BUILD_ID_VALID`.
const VALID: u32 = 1;
/// `BPF_STACK_BUILD_ID_IP`.
const ADDRESS: u32 = 2;

impl StackTraces {
    /// A handle of `map`.
    ///
    /// # Errors
    ///
    /// [`Error::MapType`](crate::Error::MapType), [`Error::MapSize`](crate::Error::MapSize); `EMFILE`.
    pub fn new(map: &Map) -> Result<Self> {
        check_type(map, &[MapType::STACK_TRACE])?;
        check_size(map, "key", size_of::<u32>(), map.key_size())?;
        let frame = if map.flags() & BPF_F_STACK_BUILD_ID == 0 { size_of::<u64>() } else { BUILD_ID_SIZE };
        check_size(map, "value", map.value_size().next_multiple_of(frame), map.value_size())?;
        Ok(Self { fd: map.try_clone_fd()? })
    }

    /// How many frames a trace has at most.
    pub fn depth(&self) -> usize {
        self.fd.value_size() / if self.has_build_ids() { BUILD_ID_SIZE } else { size_of::<u64>() }
    }

    fn has_build_ids(&self) -> bool {
        self.fd.flags() & BPF_F_STACK_BUILD_ID != 0
    }

    /// The return addresses of a trace, innermost first, in `frames` of [`depth`](Self::depth) elements; how many there
    /// are, or `None` if there is no such trace. Not of maps with build ids.
    ///
    /// # Errors
    ///
    /// [`bpf_sys::Error::Length`]: another number of elements. `EPERM`: the descriptor may not read.
    pub fn get_into(&self, id: u32, frames: &mut [u64]) -> Result<Option<usize>> {
        let found = map::lookup(&self.fd, id.as_bytes(), frames.as_mut_bytes(), 0)?;
        // The kernel fills up with zeros.
        Ok(found.then(|| frames.iter().position(|&frame| frame == 0).unwrap_or(frames.len())))
    }

    /// The return addresses of a trace, innermost first. Not of maps with build ids.
    ///
    /// # Errors
    ///
    /// As [`get_into`](Self::get_into).
    pub fn get(&self, id: u32) -> Result<Option<Vec<u64>>> {
        let mut frames = vec![0; self.depth()];
        let len = self.get_into(id, &mut frames)?;
        Ok(len.map(|len| {
            frames.truncate(len);
            frames
        }))
    }

    /// The frames of a trace, innermost first, of a map with `BPF_F_STACK_BUILD_ID`; of others they are all addresses.
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not read.
    pub fn get_build_ids(&self, id: u32) -> Result<Option<Vec<BuildIdFrame>>> {
        if !self.has_build_ids() {
            return Ok(self.get(id)?.map(|frames| frames.into_iter().map(BuildIdFrame::Address).collect()));
        }
        let mut bytes = vec![0; self.fd.value_size()];
        let found = map::lookup(&self.fd, id.as_bytes(), &mut bytes, 0)?;
        Ok(found.then(|| bytes.chunks_exact(BUILD_ID_SIZE).map_while(parse_frame).collect()))
    }

    /// Forgets a trace; `false` if there is none.
    ///
    /// # Errors
    ///
    /// `EPERM`: the descriptor may not write.
    pub fn delete(&self, id: u32) -> Result<bool> {
        Ok(map::delete(&self.fd, id.as_bytes())?)
    }

    /// The ids of all traces.
    pub fn ids(&self) -> super::Keys<'_, u32> {
        super::Keys::new(&self.fd)
    }
}

/// `None` behind the last frame.
fn parse_frame(bytes: &[u8]) -> Option<BuildIdFrame> {
    let (status, rest) = u32::read_from_prefix(bytes).ok()?;
    let (build_id, rest) = <[u8; 20]>::read_from_prefix(rest).ok()?;
    let (offset, _) = u64::read_from_prefix(rest).ok()?;
    match status {
        VALID => Some(BuildIdFrame::Offset { build_id, offset }),
        ADDRESS => Some(BuildIdFrame::Address(offset)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_with_build_ids() {
        let frame =
            |status: u32, offset: u64| [&status.to_ne_bytes()[..], &[7; 20], &offset.to_ne_bytes()].concat();
        assert_eq!(parse_frame(&frame(0, 9)), None);
        assert_eq!(parse_frame(&frame(1, 9)), Some(BuildIdFrame::Offset { build_id: [7; 20], offset: 9 }));
        assert_eq!(parse_frame(&frame(2, 9)), Some(BuildIdFrame::Address(9)));
        assert_eq!(parse_frame(&frame(2, 9)[..31]), None);
    }
}

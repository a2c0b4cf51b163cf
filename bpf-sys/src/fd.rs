//! File descriptors of BPF objects and perf events, each kind a type of its own.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use crate::errno::{Errno, Error, Result};
use crate::uapi::info::{Info, MapInfo};
use crate::uapi::kinds::MapType;

macro_rules! fd_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $name(OwnedFd);

        impl $name {
            /// For a descriptor that a command for this kind of object has just returned.
            pub(crate) fn created(fd: OwnedFd) -> Self {
                Self(fd)
            }
        }

        impl From<$name> for OwnedFd {
            fn from(fd: $name) -> Self {
                fd.0
            }
        }

        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                self.0.as_raw_fd()
            }
        }

        impl $name {
            /// Another descriptor of the same object, close-on-exec.
            ///
            /// # Errors
            ///
            /// `EMFILE`: too many open descriptors.
            pub fn try_clone(&self) -> Result<Self> {
                clone_fd(&self.0).map(Self)
            }
        }
    };
}

fd_type! {
    /// A loaded program.
    ProgFd
}
fd_type! {
    /// A link: an attachment that lasts as long as it is open or pinned.
    LinkFd
}
fd_type! {
    /// A BTF object.
    BtfFd
}
fd_type! {
    /// A BPF token: the right to use some commands inside a user namespace (Linux 6.9).
    TokenFd
}
fd_type! {
    /// A perf event.
    PerfFd
}

macro_rules! from_elsewhere {
    ($($name:ident: $($kind:literal),+;)*) => {
        $(
            /// Checks the kind of object.
            impl TryFrom<OwnedFd> for $name {
                type Error = Error;
                fn try_from(fd: OwnedFd) -> Result<Self> {
                    expect_kind(&fd, &[$($kind),+])?;
                    Ok(Self(fd))
                }
            }
        )*
    };
}

from_elsewhere! {
    ProgFd: "bpf-prog";
    // Of a new link, and of one opened by its pin or id.
    LinkFd: "bpf_link", "bpf-link";
    BtfFd: "btf";
    PerfFd: "[perf_event]";
}

/// The kernel checks the kind at each use: calls on tokens pass it no address that depends on the kind.
impl From<OwnedFd> for TokenFd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

/// Checks what kind of object a descriptor from elsewhere is.
///
/// The kernel finds the addresses of buffers at other offsets for other kinds (`bpf_*_info`, `ioctl`), so a descriptor's
/// type is part of what keeps its calls sound. It is shown by `/proc/self/fd` (fs/anon_inodes.c).
fn expect_kind(fd: &OwnedFd, kinds: &[&'static str]) -> Result<()> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(|e| Error::Call {
        call: "readlink(/proc/self/fd)",
        errno: Errno::from_raw(e.raw_os_error().unwrap_or(0)),
    })?;
    let name = link.to_string_lossy();
    if kinds.contains(&name.strip_prefix("anon_inode:").unwrap_or(&name)) {
        Ok(())
    } else {
        Err(Error::WrongKind { expected: kinds.first().unwrap_or(&"") })
    }
}

fn clone_fd(fd: &OwnedFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, FIRST_FD)
        .map_err(|e| Error::Call { call: "fcntl(F_DUPFD_CLOEXEC)", errno: e.into() })
}

/// Descriptors of this crate are at least this. Many attributes read 0 as "none", and a program that runs with standard
/// streams closed must not have its objects taken for them.
pub(crate) const FIRST_FD: RawFd = 3;

/// Moves a fresh descriptor out of the range of the standard streams.
pub(crate) fn above_standard_streams(fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() >= FIRST_FD { Ok(fd) } else { clone_fd(&fd) }
}

/// A map, with the sizes of its keys and values.
///
/// The kernel copies as many bytes as the map's sizes say, whatever the caller's buffer; so the sizes travel with the
/// descriptor, and every call checks its slices against them.
#[derive(Debug)]
pub struct MapFd {
    fd: OwnedFd,
    layout: MapLayout,
}

/// The sizes of a map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MapLayout {
    pub(crate) map_type: MapType,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
    /// Bytes that the kernel copies for one value.
    value_len: Result<usize>,
}

impl MapLayout {
    pub(crate) fn new(
        map_type: MapType,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
    ) -> Self {
        let value_len = value_len(map_type, value_size);
        Self { map_type, key_size, value_size, max_entries, flags, value_len }
    }
}

/// kernel/bpf/syscall.c, `bpf_map_value_size`.
fn value_len(map_type: MapType, value_size: u32) -> Result<usize> {
    match map_type {
        MapType::PERCPU_HASH
        | MapType::PERCPU_ARRAY
        | MapType::LRU_PERCPU_HASH
        | MapType::PERCPU_CGROUP_STORAGE => Ok((value_size as usize).next_multiple_of(8) * possible_cpus()?),
        // Entries are set by fd and read as ids.
        MapType::PERF_EVENT_ARRAY
        | MapType::PROG_ARRAY
        | MapType::CGROUP_ARRAY
        | MapType::ARRAY_OF_MAPS
        | MapType::HASH_OF_MAPS => Ok(4),
        known if known.name().is_some() => Ok(value_size as usize),
        unknown => Err(Error::UnknownMapType(unknown)),
    }
}

impl MapFd {
    /// For a map that was just created with these sizes.
    pub(crate) fn created(fd: OwnedFd, layout: MapLayout) -> Self {
        Self { fd, layout }
    }

    /// Type.
    pub const fn map_type(&self) -> MapType {
        self.layout.map_type
    }

    /// Bytes of a key; 0 where a map has none.
    pub const fn key_size(&self) -> usize {
        self.layout.key_size as usize
    }

    /// Bytes of a value as the map was declared: of one CPU, in per-CPU maps.
    pub const fn value_size(&self) -> usize {
        self.layout.value_size as usize
    }

    /// Bytes that a lookup fills and an update takes: in per-CPU maps
    /// `value_size` rounded up to 8, times the possible CPUs.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownMapType`], [`Error::PossibleCpus`].
    pub const fn value_len(&self) -> Result<usize> {
        self.layout.value_len
    }

    /// Capacity in elements; of a ring buffer, in bytes.
    pub const fn max_entries(&self) -> u32 {
        self.layout.max_entries
    }

    /// The flags at creation, `BPF_F_*`.
    pub const fn flags(&self) -> u32 {
        self.layout.flags
    }

    /// Another descriptor of the same map, close-on-exec.
    ///
    /// # Errors
    ///
    /// `EMFILE`: too many open descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { fd: clone_fd(&self.fd)?, layout: self.layout })
    }
}

/// Checks the kind of object and asks the kernel for the map's sizes.
impl TryFrom<OwnedFd> for MapFd {
    type Error = Error;
    fn try_from(fd: OwnedFd) -> Result<Self> {
        expect_kind(&fd, &["bpf-map"])?;
        Self::known_map(fd)
    }
}

impl MapFd {
    /// For a descriptor of a map whose sizes are not known: one `BPF_OBJ_GET_INFO_BY_FD`.
    pub(crate) fn known_map(fd: OwnedFd) -> Result<Self> {
        let info: Info<MapInfo> = crate::raw::info::get(fd.as_fd())?;
        let layout =
            MapLayout::new(info.map_type, info.key_size, info.value_size, info.max_entries, info.flags);
        Ok(Self { fd, layout })
    }
}

impl From<MapFd> for OwnedFd {
    fn from(map: MapFd) -> Self {
        map.fd
    }
}

impl AsFd for MapFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for MapFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// How many CPUs the machine can ever have: a per-CPU value has a slot for each.
///
/// # Errors
///
/// [`Error::PossibleCpus`].
pub fn possible_cpus() -> Result<usize> {
    static COUNT: OnceLock<Option<usize>> = OnceLock::new();
    COUNT
        .get_or_init(|| count_cpus(&std::fs::read_to_string("/sys/devices/system/cpu/possible").ok()?))
        .ok_or(Error::PossibleCpus)
}

/// Counts the CPUs of a list such as `0-3,8`.
fn count_cpus(list: &str) -> Option<usize> {
    let mut total = 0usize;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        total += usize::from(last.checked_sub(first)?) + 1;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(count_cpus("0\n"), Some(1));
        assert_eq!(count_cpus("0-3,8,10-11\n"), Some(7));
        for bad in ["", "3-1", "0-", "x", "0-70000", ",", "0--1"] {
            assert_eq!(count_cpus(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_value_is_as_long_as_the_kernel_copies() {
        let cpus = possible_cpus().unwrap();
        assert_eq!(value_len(MapType::HASH, 12), Ok(12));
        assert_eq!(value_len(MapType::PERCPU_ARRAY, 12), Ok(16 * cpus));
        assert_eq!(value_len(MapType::HASH_OF_MAPS, 4), Ok(4));
        assert_eq!(value_len(MapType(999), 4), Err(Error::UnknownMapType(MapType(999))));
    }
}

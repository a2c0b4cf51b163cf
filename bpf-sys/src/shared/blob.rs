//! The kernel's BTF as a slice.

use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

/// Bytes that never change: mapped from the kernel, or read.
#[derive(Debug)]
pub struct Blob(Bytes);

#[derive(Debug)]
enum Bytes {
    Mapped { base: NonNull<u8>, len: usize },
    Read(Vec<u8>),
}

// SAFETY: the bytes are never written and belong to no thread.
unsafe impl Send for Blob {}
// SAFETY: as above.
unsafe impl Sync for Blob {}

/// The only file that is mapped.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
const SYSFS_MAGIC: u64 = 0x6265_6572;

/// Reads a file; the BTF of the running kernel (`/sys/kernel/btf/vmlinux`) is mapped instead where the kernel can
/// (Linux 6.16), which costs no memory.
///
/// # Errors
///
/// Those of opening and reading.
pub fn read_or_map(path: &Path) -> std::io::Result<Blob> {
    let mut file = File::open(path)?;
    if path == Path::new(KERNEL_BTF) {
        if let Some(blob) = map_kernel_btf(&file) {
            return Ok(blob);
        }
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Blob(Bytes::Read(bytes)))
}

fn map_kernel_btf(file: &File) -> Option<Blob> {
    // Whatever else may be mounted or put there would be a file that can change.
    if rustix::fs::fstatfs(file).ok()?.f_type as u64 & 0xffff_ffff != SYSFS_MAGIC {
        return None;
    }
    let len = usize::try_from(file.metadata().ok()?.len()).ok().filter(|len| *len > 0)?;
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let base = unsafe {
        // Private, since the kernel refuses a mapping that could become writable.
        rustix::mm::mmap(core::ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, file.as_fd(), 0)
    };
    Some(Blob(Bytes::Mapped { base: NonNull::new(base.ok()?.cast())?, len }))
}

impl Blob {
    /// Is it the kernel's own memory, and not a copy?
    pub const fn is_mapped(&self) -> bool {
        matches!(self.0, Bytes::Mapped { .. })
    }
}

impl Deref for Blob {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            // SAFETY: `len` bytes are mapped until drop. They are the `.BTF` section of the kernel's image
            // (kernel/bpf/sysfs_btf.c), which is read-only data that the kernel makes no change to after boot; the file
            // is the one in sysfs, as checked, so it cannot be truncated or replaced under the mapping.
            Bytes::Mapped { base, len } => unsafe { core::slice::from_raw_parts(base.as_ptr(), *len) },
            Bytes::Read(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if let Bytes::Mapped { base, len } = self.0 {
            // SAFETY: the mapping was made by `map_kernel_btf`, is unmapped only here, and no slice outlives `self`.
            let unmapped = unsafe { rustix::mm::munmap(base.as_ptr().cast(), len) };
            debug_assert!(unmapped.is_ok(), "munmap of an own mapping failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_file_is_read() {
        let blob = read_or_map(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))).unwrap();
        assert!(!blob.is_mapped());
        assert!(blob.starts_with(b"[package]"));
        assert!(read_or_map(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn the_kernels_btf_is_the_same_mapped_and_read() {
        let Ok(blob) = read_or_map(Path::new(KERNEL_BTF)) else {
            eprintln!("skip: this kernel has no BTF");
            return;
        };
        assert_eq!(*blob, std::fs::read(KERNEL_BTF).unwrap());
        assert!(matches!(blob[..2], [0x9f, 0xeb] | [0xeb, 0x9f]));
    }
}

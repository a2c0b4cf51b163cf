//! Mirrors of the kernel ABI: constants, and structures in the kernel's layout.
#![allow(unsafe_code)]
pub(crate) mod attr;
pub mod flags;
pub mod info;
pub mod insn;
pub mod kinds;
#[cfg(test)]
mod layout_tests;
pub mod perf;

/// Data without padding, pointers or invalid bit patterns, which the kernel may write and anyone may copy.
///
/// # Safety
///
/// Implementors are `repr(C)` or primitive, have no padding byte, and every bit pattern is a value.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: integers have no padding and no invalid bit pattern.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: `repr(C)`, 1 + 1 + 2 + 4 bytes of integers make its size of 8.
unsafe impl Plain for insn::Insn {}
// SAFETY: an array of plain elements is plain.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// The address of a slice that the kernel reads; 0 for an empty one, which is how the ABI says "none".
pub(crate) fn addr<T: Plain>(slice: &[T]) -> u64 {
    if slice.is_empty() { 0 } else { slice.as_ptr() as usize as u64 }
}

/// The address of a slice that the kernel writes; 0 for an empty one, since some commands take a length of 0 beside an
/// address as "no limit".
pub(crate) fn addr_mut<T: Plain>(slice: &mut [T]) -> u64 {
    if slice.is_empty() { 0 } else { slice.as_mut_ptr() as usize as u64 }
}

/// The address of a C string that the kernel reads.
pub(crate) fn addr_str(string: &core::ffi::CStr) -> u64 {
    string.as_ptr() as usize as u64
}

/// Name of a map or program in the kernel: at most 15 bytes of `[A-Za-z0-9_.]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct ObjName([u8; 16]);

impl ObjName {
    /// Cuts to 15 bytes; what the kernel does not take becomes `_`.
    pub fn new(name: &str) -> Self {
        let mut out = [0; 16];
        for (to, from) in out.iter_mut().take(15).zip(name.bytes().take_while(|b| *b != 0)) {
            *to = if from.is_ascii_alphanumeric() || from == b'.' { from } else { b'_' };
        }
        Self(out)
    }

    /// The bytes before the terminating zero. Names come from any process, so need not be UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|b| *b == 0).next().unwrap_or_default()
    }

    /// No name?
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }
}

impl core::fmt::Display for ObjName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl core::fmt::Debug for ObjName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

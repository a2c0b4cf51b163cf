//! The endian cursor: every offset that comes out of a file is added and compared here, and nowhere else.

/// Bytes of the longest string that is read. Names may overlap in a file, so that many of them, each nearly as long as
/// the file, would take time that grows with its square. The longest that compilers write are lines of source code.
pub const MAX_STRING: usize = 16 << 10;

/// Byte order of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endian {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl Endian {
    /// The byte order of this machine.
    pub const HOST: Self = if cfg!(target_endian = "little") { Self::Little } else { Self::Big };

    /// `value` as two bytes.
    pub const fn put_u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    /// `value` as four bytes.
    pub const fn put_u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }
}

/// Bytes of a known order, read at checked offsets. Every accessor answers `None` when the range does not lie inside.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a> {
    /// The bytes themselves.
    pub data: &'a [u8],
    /// Their order.
    pub endian: Endian,
}

impl<'a> Bytes<'a> {
    /// `data`, to be read in the order `endian`.
    pub const fn new(data: &'a [u8], endian: Endian) -> Self {
        Self { data, endian }
    }

    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.data.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    /// The byte at `at`.
    pub fn u8(self, at: usize) -> Option<u8> {
        self.data.get(at).copied()
    }

    /// The 16-bit number at `at`.
    pub fn u16(self, at: usize) -> Option<u16> {
        let bytes = self.array(at)?;
        Some(match self.endian {
            Endian::Little => u16::from_le_bytes(bytes),
            Endian::Big => u16::from_be_bytes(bytes),
        })
    }

    /// The 32-bit number at `at`.
    pub fn u32(self, at: usize) -> Option<u32> {
        let bytes = self.array(at)?;
        Some(match self.endian {
            Endian::Little => u32::from_le_bytes(bytes),
            Endian::Big => u32::from_be_bytes(bytes),
        })
    }

    /// The two 32-bit numbers from `at` on.
    #[inline]
    pub fn u32_pair(self, at: usize) -> Option<(u32, u32)> {
        /// A call where there is one to make: a swap that is computed in any case makes a walk from number to number longer.
        #[cold]
        fn swapped(first: u32, second: u32) -> (u32, u32) {
            (first.swap_bytes(), second.swap_bytes())
        }
        let bytes: [u8; 8] = self.array(at)?;
        let [a, b, c, d, e, f, g, h] = bytes;
        let (first, second) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        Some(if self.endian == Endian::HOST { (first, second) } else { swapped(first, second) })
    }

    /// The 64-bit number at `at`.
    pub fn u64(self, at: usize) -> Option<u64> {
        let bytes = self.array(at)?;
        Some(match self.endian {
            Endian::Little => u64::from_le_bytes(bytes),
            Endian::Big => u64::from_be_bytes(bytes),
        })
    }

    /// `len` bytes from `at`.
    pub fn slice(self, at: usize, len: usize) -> Option<Self> {
        let data = self.data.get(at..at.checked_add(len)?)?;
        Some(Self { data, ..self })
    }

    /// Everything from `at`.
    pub fn tail(self, at: usize) -> Option<Self> {
        Some(Self { data: self.data.get(at..)?, ..self })
    }

    /// The bytes of the string at `at`, without the NUL that must end it; `None` if it has more than [`MAX_STRING`].
    pub fn cstr(self, at: usize) -> Option<&'a [u8]> {
        let tail = self.data.get(at..)?;
        let text = core::ffi::CStr::from_bytes_until_nul(tail.get(..=MAX_STRING).unwrap_or(tail)).ok()?;
        Some(text.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: [u8; 9] = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99];

    #[test]
    fn reads_either_order() {
        let (le, be) = (Bytes::new(&DATA, Endian::Little), Bytes::new(&DATA, Endian::Big));
        assert_eq!((le.u8(8), le.u16(1), be.u16(1)), (Some(0x99), Some(0x3322), Some(0x2233)));
        assert_eq!((le.u32(1), be.u32(1)), (Some(0x5544_3322), Some(0x2233_4455)));
        assert_eq!(le.u32_pair(0), Some((0x4433_2211, 0x8877_6655)));
        assert_eq!(be.u32_pair(1), Some((0x2233_4455, 0x6677_8899)));
        assert_eq!((le.u64(1), be.u64(0)), (Some(0x9988_7766_5544_3322), Some(0x1122_3344_5566_7788)));
    }

    #[test]
    fn refuses_every_range_that_leaves_the_bytes() {
        let b = Bytes::new(&DATA, Endian::Little);
        for at in [8, 9, usize::MAX - 1, usize::MAX] {
            assert_eq!((b.u16(at), b.u32(at), b.u64(at), b.u32_pair(at)), (None, None, None, None), "{at}");
            assert!(b.slice(at, 2).is_none() && b.slice(2, at).is_none(), "{at}");
        }
        assert!(b.slice(9, 0).is_some() && b.slice(10, 0).is_none());
        assert!(b.tail(9).is_some() && b.tail(10).is_none());
    }

    #[test]
    fn strings_end_at_their_nul() {
        let b = Bytes::new(b"ab\0c", Endian::Big);
        assert_eq!(
            (b.cstr(0), b.cstr(2), b.cstr(3), b.cstr(9)),
            (Some(&b"ab"[..]), Some(&b""[..]), None, None)
        );
    }
}

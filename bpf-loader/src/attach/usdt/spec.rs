//! `struct __bpf_usdt_spec` of libbpf's usdt.bpf.h: how the BPF side learns where arguments are.

use super::args::{Arg, MAX_ARGS, Place};
use crate::error::{Error, Result};

/// The header exists in two forms, which the size of its map's values tells apart: an argument has 16 bytes up to libbpf
/// 1.6, and 24 since 1.7, which added indexed places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Short,
    Long,
}

impl Layout {
    pub(super) fn of_value_size(size: usize) -> Option<Self> {
        [Self::Short, Self::Long].into_iter().find(|layout| layout.value_size() == size)
    }

    fn arg_size(self) -> usize {
        match self {
            Self::Short => 16,
            Self::Long => 24,
        }
    }

    /// The arguments, the cookie, and a count of 2 bytes, aligned to 8.
    fn value_size(self) -> usize {
        MAX_ARGS * self.arg_size() + 16
    }

    /// A value of the map.
    pub(super) fn encode(self, args: &[Arg], cookie: u64) -> Result<Vec<u8>> {
        let mut value = Vec::with_capacity(self.value_size());
        for arg in args {
            value.extend(self.encode_arg(arg)?);
        }
        value.resize(MAX_ARGS * self.arg_size(), 0);
        value.extend(cookie.to_ne_bytes());
        value.extend((args.len() as u16).to_ne_bytes());
        value.resize(self.value_size(), 0);
        Ok(value)
    }

    fn encode_arg(self, arg: &Arg) -> Result<Vec<u8>> {
        let (kind, value, reg, index, shift) = match arg.place {
            Place::Const(value) => (0u8, value, 0, 0, 0),
            Place::Reg(reg) => (1, 0, reg, 0, 0),
            Place::Deref { reg, offset } => (2, offset, reg, 0, 0),
            Place::Indexed { reg, index, shift, offset } => (3, offset, reg, index, u16::from(shift)),
            // No kind of place: the program gets EINVAL.
            Place::Unreadable => (255, 0, 0, 0, 0),
        };
        let mut bytes = value.to_ne_bytes().to_vec();
        match self {
            Self::Short if kind == 3 => {
                return Err(Box::new(Error::AttachTarget {
                    target: "USDT argument".into(),
                    reason: "the program was built with a usdt.bpf.h before libbpf 1.7, which has no indexed places",
                }));
            }
            Self::Short => bytes.extend(u32::from(kind).to_ne_bytes()),
            // Bit-fields, from the least significant bit on little-endian machines, from the most on others.
            Self::Long if cfg!(target_endian = "little") => {
                bytes.extend([kind, 0]);
                bytes.extend((index | shift << 12).to_ne_bytes());
                bytes.extend([0, 0]);
            }
            Self::Long => {
                bytes.extend([0, 0]);
                bytes.extend((index << 4 | shift).to_ne_bytes());
                bytes.extend([kind, 0]);
            }
        }
        bytes.extend(reg.to_ne_bytes());
        bytes.extend([u8::from(arg.signed), 64 - arg.size * 8]);
        bytes.resize(self.arg_size(), 0);
        Ok(bytes)
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_the_compiler_makes_of_the_header() {
        let indexed = Arg {
            place: Place::Indexed { reg: 0x122, index: 0x345, shift: 3, offset: -2 },
            size: 4,
            signed: true,
        };
        let value = Layout::Long.encode(&[indexed], 7).unwrap();
        assert_eq!(value.len(), 304);
        #[rustfmt::skip]
        assert_eq!(
            value[..24],
            [0xfe, 255, 255, 255, 255, 255, 255, 255, 3, 0, 0x45, 0x33, 0, 0, 0x22, 1, 1, 32, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(value[288..], [7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert!(Layout::Short.encode(&[indexed], 7).is_err());

        let deref = Arg { place: Place::Deref { reg: 152, offset: 8 }, size: 8, signed: false };
        let value = Layout::Short.encode(&[deref, deref], 0).unwrap();
        assert_eq!(value.len(), 208);
        assert_eq!(value[16..32], [8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 152, 0, 0, 0]);
        assert_eq!(value[200], 2);
    }

    #[test]
    fn the_size_of_a_value_tells_the_header() {
        assert_eq!(Layout::of_value_size(208), Some(Layout::Short));
        assert_eq!(Layout::of_value_size(304), Some(Layout::Long));
        assert_eq!(Layout::of_value_size(300), None);
    }
}

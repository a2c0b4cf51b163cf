//! Record bytes to records. One file a BPF program.

pub mod disk;
pub mod dns;
pub mod filter;
pub mod heap;
pub mod memory;
pub mod offcpu;
pub mod process;
pub mod profile;
pub mod python;
pub mod ring;
pub mod sched;
pub mod spans;
pub mod syscalls;
pub mod tcp;
pub mod udp;
pub mod unwind;

/// Where a field of a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name in C.
    pub name: &'static str,
    /// Bytes from the record's start.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// How a record is laid out; a test compares it with the BTF of the object that writes the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The struct's name in C.
    pub name: &'static str,
    /// Bytes, padding included.
    pub size: usize,
    /// The fields that the decoder reads.
    pub fields: &'static [Field],
}

/// A type that a field can have.
trait FieldType: Sized {
    const SIZE: usize;
    /// Decodes exactly `SIZE` bytes.
    fn read(bytes: &[u8]) -> Option<Self>;
}

macro_rules! integer_field {
    ($($t:ty),*) => {$(
        impl FieldType for $t {
            const SIZE: usize = size_of::<$t>();
            fn read(bytes: &[u8]) -> Option<Self> {
                Some(<$t>::from_ne_bytes(bytes.try_into().ok()?))
            }
        }
    )*};
}
integer_field!(u8, u16, u32, u64, i16, i32, i64);

impl<const N: usize> FieldType for [u8; N] {
    const SIZE: usize = N;
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

/// Defines a record, its decoder and its [`Layout`] from one list of fields, in host byte order.
macro_rules! record {
    (
        $(#[$meta:meta])*
        pub struct $name:ident = $c_name:literal, $size:literal {
            $($(#[$field_meta:meta])* $field:ident: $type:ty = $offset:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $name {
            /// Where the fields lie.
            pub const LAYOUT: $crate::events::Layout = $crate::events::Layout {
                name: $c_name,
                size: $size,
                fields: &[$($crate::events::Field {
                    name: stringify!($field),
                    offset: $offset,
                    size: <$type as $crate::events::FieldType>::SIZE,
                },)*],
            };

            /// Size of the record in bytes.
            pub const SIZE: usize = $size;

            /// Decodes a record; `None` if there are fewer bytes than [`SIZE`](Self::SIZE).
            pub fn decode(bytes: &[u8]) -> Option<Self> {
                let bytes = bytes.get(..$size)?;
                Some(Self {
                    $($field: <$type as $crate::events::FieldType>::read(
                        bytes.get($offset..$offset + <$type as $crate::events::FieldType>::SIZE)?,
                    )?,)*
                })
            }
        }
    };
}
use record;

//! The BPF programs as the binary carries them: compressed by `build.rs`. Each is unpacked when its tracer starts, and its memory
//! given back once it is in the kernel.

use crate::crc32::crc32;
use crate::differences::{Change, change};
use crate::error::{Error, Result};
use crate::lzma::decompress;

/// One object of [`bpf_programs`], compressed.
#[derive(Debug, Clone, Copy)]
pub struct Packed {
    /// Its name: `tcp`.
    pub name: &'static str,
    /// Its length and its CRC-32, 4 bytes each, little-endian; then LZMA that goes on after [`START`].
    packed: &'static [u8],
}

impl Packed {
    /// The object, for `bpf-loader`.
    ///
    /// # Errors
    ///
    /// This program's file is damaged.
    pub fn unpack(self) -> Result<Vec<u8>> {
        self.unpack_after(BASE).ok_or_else(|| Box::new(Error::Damaged { object: self.name }))
    }

    fn unpack_after(self, base: Self) -> Option<Vec<u8>> {
        let (crc, packed) = self.packed.get(4..)?.split_first_chunk()?;
        let base_len = if self.name == base.name { 0 } else { base.len()? };
        let mut object = decompress(&[START, packed].concat(), base_len + self.len()?)?;
        object.drain(..base_len);
        change(&mut object, Change::ToOffsets)?;
        (crc32(&object) == u32::from_le_bytes(*crc)).then_some(object)
    }

    fn len(self) -> Option<usize> {
        Some(u32::from_le_bytes(*self.packed.first_chunk()?) as usize)
    }
}

/// All objects are alike, and this is short: each of the others is packed behind it, and unpacked with it.
const BASE: Packed = PROFILE;
/// What all of them are packed as at first.
const START: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/start.lzma"));

macro_rules! packed {
    ($($(#[$condition:meta])* $constant:ident $name:literal $about:literal)*) => {
        $(
            $(#[$condition])*
            #[doc = $about]
            pub const $constant: Packed =
                Packed { name: $name, packed: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".lzma")) };
        )*
        /// All of them.
        pub const ALL: &[Packed] = &[$($(#[$condition])* $constant),*];

        #[cfg(test)]
        const ORIGINALS: &[&[u8]] = &[$($(#[$condition])* bpf_programs::$constant),*];
    };
}

packed! {
    DISK "disk" "Requests to block devices."
    DNS "dns" "DNS lookups."
    HEAP "heap" "The heap tracer."
    #[cfg(feature = "unwind")]
    HEAP_UNWIND "heap_unwind" "The heap tracer with tables for stacks without frame pointers."
    MEMORY "memory" "Page faults, mappings, reclaim and OOM kills."
    PROCESS "process" "Starts, execs and ends of processes."
    PROFILE "profile" "The CPU profiler."
    #[cfg(feature = "unwind")]
    OFFCPU "offcpu" "The off-CPU profiler."
    #[cfg(feature = "unwind")]
    PROFILE_UNWIND "profile_unwind" "The CPU profiler with tables for stacks without frame pointers."
    SCHED "sched" "Waiting for CPUs."
    SYSCALLS "syscalls" "System calls."
    TCP "tcp" "The TCP tracer."
    UDP "udp" "UDP's bytes by process."
}

#[cfg(test)]
mod tests {
    use bpf_loader::btf::Type;
    use bpf_loader::object::ObjectSpec;

    use super::*;

    fn names(ty: Type<'_>) -> Vec<&str> {
        let members = ty.members().map(|member| member.name().unwrap());
        let enumerators = ty.enumerators().map(|enumerator| enumerator.name().unwrap());
        let params = ty.params().map(|param| param.name().unwrap());
        [ty.name().unwrap()].into_iter().chain(members).chain(enumerators).chain(params).collect()
    }

    /// What the loader and the verifier see of an object, without its source lines.
    fn describe(object: &[u8]) -> String {
        let spec = ObjectSpec::parse(object).unwrap();
        let (btf, ext) = (spec.btf.as_ref().unwrap(), spec.ext.as_ref().unwrap());
        let types: Vec<_> = btf.types().map(|ty| (ty.kind(), ty.size(), ty.type_id(), names(ty))).collect();
        let mut tables = Vec::new();
        for section in ext.core_relos() {
            for relocation in section.records {
                tables.push(format!(
                    "{} {relocation:?} {:?}",
                    btf.string(section.name).unwrap(),
                    btf.string(relocation.access)
                ));
            }
        }
        for section in ext.func_info() {
            for function in section.records {
                tables.push(format!("{} {function:?}", btf.string(section.name).unwrap()));
            }
        }
        format!("{:?} {:?} {types:?} {tables:?}", spec.maps, spec.programs)
    }

    #[test]
    fn unpacked_they_are_what_was_compiled() {
        for (packed, original) in ALL.iter().zip(ORIGINALS) {
            let object = packed.unpack().unwrap();
            assert_eq!(describe(&object), describe(original), "{}", packed.name);
            let spec = ObjectSpec::parse(&object).unwrap();
            let has_lines = spec.ext.is_some_and(|ext| ext.line_info().next().is_some());
            assert_eq!(has_lines, cfg!(feature = "source-lines"), "{}", packed.name);
            assert_eq!(object == *original, has_lines, "{}", packed.name);
        }
    }

    #[test]
    fn a_damaged_one_says_so() {
        let whole = ALL[0].packed;
        let damaged = Packed { name: "disk", packed: &whole[..whole.len() / 2] };
        assert!(damaged.unpack().unwrap_err().to_string().contains("disk"));
        for at in (0..whole.len()).step_by(101) {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 0x10;
            // Not the length, which is trusted.
            bytes[..4].copy_from_slice(&whole[..4]);
            let damaged = Packed { name: "disk", packed: bytes.leak() };
            assert_eq!(damaged.unpack().is_err(), at >= 4, "{at}");
        }
    }
}

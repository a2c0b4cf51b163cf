//! Where XDP programs redirect to: devices and CPUs.

use std::os::fd::AsRawFd;

use bpf_sys::MapType;

use super::typed::{Table, check_size};
use super::{Keys, Map};
use crate::error::Result;
use crate::program::Program;

/// A value: a number, and behind it in maps with values of 8 bytes a program, by descriptor or id.
#[derive(Debug)]
enum Redirect {
    Number(Table<u32, u32>),
    NumberAndProgram(Table<u32, [u32; 2]>),
}

/// "No program" in place of a descriptor.
const NO_PROGRAM: u32 = u32::MAX;

impl Redirect {
    fn new(map: &Map, types: &'static [MapType]) -> Result<Self> {
        match map.value_size() {
            4 => Table::new(map, types).map(Self::Number),
            _ => Table::new(map, types).map(Self::NumberAndProgram),
        }
    }

    fn set(&self, map: &str, key: u32, number: u32, program: Option<&Program>, flags: u64) -> Result<()> {
        match (self, program) {
            (Self::Number(table), None) => table.set(&key, &number, flags),
            (Self::Number(_), Some(_)) => {
                Err(Box::new(crate::Error::MapSize { map: map.into(), what: "value", expected: 8, found: 4 }))
            }
            (Self::NumberAndProgram(table), program) => {
                let program = program.map_or(NO_PROGRAM, |p| p.fd.as_raw_fd() as u32);
                table.set(&key, &[number, program], flags)
            }
        }
    }

    fn get(&self, key: u32) -> Result<Option<(u32, Option<u32>)>> {
        Ok(match self {
            Self::Number(table) => table.get(&key, 0)?.map(|number| (number, None)),
            Self::NumberAndProgram(table) => table
                .get(&key, 0)?
                .map(|[number, program]| (number, Some(program).filter(|&id| id != 0 && id != NO_PROGRAM))),
        })
    }

    fn delete(&self, key: u32) -> Result<bool> {
        match self {
            Self::Number(table) => table.delete(&key),
            Self::NumberAndProgram(table) => table.delete(&key),
        }
    }

    fn keys(&self) -> Keys<'_, u32> {
        match self {
            Self::Number(table) => table.keys(),
            Self::NumberAndProgram(table) => table.keys(),
        }
    }
}

macro_rules! redirect_map {
    ($(#[$meta:meta])* $name:ident, $types:expr, $number:ident, $of_number:literal, $set_errors:literal) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $name {
            values: Redirect,
            name: String,
        }

        impl $name {
            /// A handle of `map`, whose values have 4 bytes, or 8 if they have programs.
            ///
            /// # Errors
            ///
            /// [`Error::MapType`](crate::Error::MapType), [`Error::MapSize`](crate::Error::MapSize); `EMFILE`.
            pub fn new(map: &Map) -> Result<Self> {
                check_size(map, "key", size_of::<u32>(), map.key_size())?;
                Ok(Self { values: Redirect::new(map, $types)?, name: map.name.clone() })
            }

            #[doc = concat!("Sets ", $of_number, " of a key, and the program that runs there.")]
            ///
            /// # Errors
            ///
            /// [`Error::MapSize`](crate::Error::MapSize): a program, where values have 4 bytes.
            #[doc = $set_errors]
            pub fn set(&self, key: u32, $number: u32, program: Option<&Program>) -> Result<()> {
                self.values.set(&self.name, key, $number, program, 0)
            }

            #[doc = concat!($of_number, " of a key, and the id of the program there.")]
            ///
            /// # Errors
            ///
            /// `EPERM`: the descriptor may not read.
            pub fn get(&self, key: u32) -> Result<Option<(u32, Option<u32>)>> {
                self.values.get(key)
            }

            /// Removes a key; `false` if it is not there.
            ///
            /// # Errors
            ///
            /// `EPERM`: the descriptor may not write.
            pub fn delete(&self, key: u32) -> Result<bool> {
                self.values.delete(key)
            }

            /// The keys; of an array, all indices.
            pub fn keys(&self) -> Keys<'_, u32> {
                self.values.keys()
            }
        }
    };
}

redirect_map! {
    /// Network devices by index: `DEVMAP`, `DEVMAP_HASH`.
    DevMap, &[MapType::DEVMAP, MapType::DEVMAP_HASH], ifindex, "the device",
    "`EINVAL`: no such device, or a program of another kind than `xdp/devmap`. `E2BIG`: full, or past the end."
}

redirect_map! {
    /// CPUs, the key being the CPU, and how many packets may wait there.
    CpuMap, &[MapType::CPUMAP], queue, "the length of the queue",
    "`E2BIG`: past the end. `ENODEV`: no such CPU. `EINVAL`: a program of another kind than `xdp/cpumap`. `EOVERFLOW`: a queue of more than 16384 packets."
}

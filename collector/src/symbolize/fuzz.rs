//! What a fuzzer calls: any bytes are fine for these, in bounded time and memory, without a panic.

use super::demangle;
use super::elf::{self, Elf, symbols::SymbolTable};
use super::kernel::KernelSymbols;
use super::perf_map::PerfMap;
use super::process::ProcessTable;
use super::sideband::{Trailer, parse_record};

/// Addresses that are looked up in whatever was read.
const ADDRESSES: [u64; 6] = [0, 0x1000, 0x40_1000, 0x40_2010, 0xffff_ffff_8100_0000, u64::MAX];

/// An ELF file: headers, build id, address translation, symbols, PLT, `.gnu_debugdata`, names;
/// files and lines from DWARF and Go's table.
pub fn elf_symbols(file: &[u8]) {
    let Ok(elf) = Elf::read(&file) else { return };
    let addresses = elf.address_map();
    elf.build_id(&file);
    #[cfg(feature = "unwind")]
    if let Ok(Some(frames)) = crate::unwind::frames::Frames::read(&file, &elf) {
        for address in ADDRESSES {
            let _ = frames.rows(&file, &elf, address & !0xfff);
        }
    }
    #[cfg(feature = "dwarf")]
    super::details::try_all(file, &elf, ADDRESSES);
    let Ok(table) = SymbolTable::read(&elf, &file) else { return };
    let translated = ADDRESSES.into_iter().filter_map(|offset| addresses.address_of(offset));
    for address in ADDRESSES.into_iter().chain(translated) {
        if let Some(Ok(name)) = table.find(address).map(|function| table.name(&file, function)) {
            demangle(&name);
        }
    }
}

/// The content of `.gnu_debugdata`.
pub fn gnu_debugdata(content: &[u8]) {
    if let Ok(file) = elf::decompress(content) {
        elf_symbols(&file);
    }
}

/// Perf sideband records in a row, the first byte choosing their trailer.
pub fn sideband(records: &[u8]) {
    let Some((&choice, mut rest)) = records.split_first() else { return };
    let trailer = Trailer::new(u64::from(choice) << 1 | u64::from(choice & 1) << 16);
    let mut table = ProcessTable::default();
    while let Ok((record, id)) = parse_record(rest, trailer) {
        table.observe(&record, &id);
        let size = rest.get(6..8).and_then(|size| size.try_into().ok()).map_or(0, u16::from_ne_bytes);
        rest = rest.get(usize::from(size).max(1)..).unwrap_or_default();
    }
    for pid in [0, 1, u32::MAX] {
        for address in ADDRESSES {
            table.find(pid, address, address);
        }
    }
    table.end_window(1, |_| true);
}

/// The text of `/proc/PID/maps`.
pub fn proc_maps(text: &[u8]) {
    let mut table = ProcessTable::default();
    table.observe_maps(1, text);
    for address in ADDRESSES {
        table.find(1, 0, address);
    }
}

/// A perf map, in two pieces.
pub fn perf_map(text: &[u8]) {
    let mut map = PerfMap::default();
    let parsed = map.append(text.get(..text.len() / 2).unwrap_or_default());
    map.append(text.get(parsed..).unwrap_or_default());
    for address in ADDRESSES {
        map.find(address);
    }
}

/// A dump of a just-in-time compiler, in two pieces.
#[cfg(feature = "dwarf")]
pub fn jit_dump(dump: &[u8]) {
    let mut functions = super::jit_dump::JitDump::default();
    for part in [dump.get(..dump.len() / 2).unwrap_or_default(), dump] {
        // What bytes in memory say is no error.
        let _ = functions.read_more(&part);
    }
    for address in ADDRESSES {
        functions.find(address);
    }
}

/// The text of `/proc/kallsyms`.
pub fn kallsyms(text: &[u8]) {
    let mut wanted = ADDRESSES.to_vec();
    wanted.sort_unstable();
    let Ok(mut symbols) = KernelSymbols::parse(text, &wanted) else { return };
    for address in ADDRESSES {
        if let Some(found) = symbols.find(address) {
            assert!(found.start <= address);
        }
    }
    if let Ok(again) = KernelSymbols::parse(text, &wanted) {
        let before = symbols.len();
        symbols.absorb(again);
        assert_eq!(symbols.len(), before, "the same reading changes nothing");
    }
}

/// A mangled name.
pub fn mangled_name(name: &[u8]) {
    demangle(&String::from_utf8_lossy(name));
}

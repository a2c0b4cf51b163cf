//! Source lines out of a BPF object. They are half of it once it is compressed, and only the verifier's log shows them.
//!
//! Nothing moves: what is taken out is zeros, which compress to nothing.

use std::ops::Range;

/// Clears the line information of `.BTF.ext`, and the strings of `.BTF` that nothing else names.
///
/// # Panics
///
/// The object is none that clang made.
pub fn clear(object: &mut [u8]) {
    let btf = section(object, b".BTF").start;
    let ext = section(object, b".BTF.ext").start;
    // Which symbols' addresses matter: only a linker asks.
    let symbols = section(object, b".llvm_addrsig");
    object[symbols].fill(0);
    let header = u32_at(object, ext + 4);
    let table =
        |object: &[u8], at: usize| (ext + header + u32_at(object, ext + at), u32_at(object, ext + at + 4));
    let (lines, length) = table(object, 16);
    object[lines..lines + length].fill(0);
    object[ext + 20..ext + 24].fill(0);

    let header = u32_at(object, btf + 4);
    let (types, types_length) = (btf + header + u32_at(object, btf + 8), u32_at(object, btf + 12));
    let (strings, strings_length) = (btf + header + u32_at(object, btf + 16), u32_at(object, btf + 20));
    let mut named = names_of_types(&object[types..types + types_length]);
    // Records of functions are (offset, type), those of CO-RE (offset, type, name, kind).
    for (at, size, name) in [(8, 8, None), (24, 16, Some(8))] {
        let (start, length) = table(object, at);
        names_of_records(&object[start..start + length], size, name, &mut named);
    }
    let strings = &mut object[strings..strings + strings_length];
    let mut keep = vec![false; strings.len()];
    for name in named {
        let length = strings[name..].iter().position(|&byte| byte == 0).expect("strings end");
        keep[name..name + length].fill(true);
    }
    for (byte, keep) in strings.iter_mut().zip(keep) {
        if !keep {
            *byte = 0;
        }
    }
}

/// Offsets of the names of all types, members, enumerators and parameters.
fn names_of_types(mut types: &[u8]) -> Vec<usize> {
    let mut names = Vec::new();
    while !types.is_empty() {
        let info = u32_at(types, 4);
        let (kind, count) = (info >> 24 & 0x1f, info & 0xffff);
        names.push(u32_at(types, 0));
        // Bytes after the type; for each of its parts, and whether that begins with a name.
        let (fixed, each, named) = match kind {
            1 | 14 | 17 => (4, 0, false),          // int, variable, declaration tag
            2 | 7..=12 | 16 | 18 => (0, 0, false), // pointer, forward, typedef, ..., function, float, tag
            3 => (12, 0, false),                   // array
            4 | 5 => (0, 12, true),                // struct, union
            6 | 13 => (0, 8, true),                // enum, prototype
            15 => (0, 12, false),                  // data section
            19 => (0, 12, true),                   // enum of 64 bits
            kind => panic!("BTF type of kind {kind}"),
        };
        types = &types[12 + fixed..];
        let (parts, rest) = types.split_at(count * each);
        if named {
            names.extend(parts.chunks(each).map(|part| u32_at(part, 0)));
        }
        types = rest;
    }
    names
}

/// Offsets of the names in one table of `.BTF.ext`: of its sections and, where its records have them, of those.
fn names_of_records(mut table: &[u8], least: usize, name: Option<usize>, names: &mut Vec<usize>) {
    if table.is_empty() {
        return;
    }
    let size = u32_at(table, 0);
    assert!(size >= least, "records of {size} bytes");
    table = &table[4..];
    while !table.is_empty() {
        names.push(u32_at(table, 0));
        let (records, rest) = table[8..].split_at(u32_at(table, 4) * size);
        names.extend(records.chunks(size).filter_map(|record| name.map(|at| u32_at(record, at))));
        table = rest;
    }
}

/// Where a section of a little-endian ELF64 file is.
fn section(object: &[u8], name: &[u8]) -> Range<usize> {
    let u64_at = |at: usize| u64::from_le_bytes(object[at..at + 8].try_into().expect("eight bytes")) as usize;
    let u16_at = |at: usize| usize::from(object[at]) | usize::from(object[at + 1]) << 8;
    assert!(object.starts_with(b"\x7fELF\x02\x01"), "not a little-endian ELF64 file");
    let (headers, size, count, names) = (u64_at(40), u16_at(58), u16_at(60), u16_at(62));
    let header = |index: usize| headers + index * size;
    let names = u64_at(header(names) + 24);
    let found = (0..count).map(header).find(|&header| {
        let given = &object[names + u32_at(object, header)..];
        given.strip_prefix(name).is_some_and(|rest| rest[0] == 0)
    });
    let header = found.expect("no such section");
    let start = u64_at(header + 24);
    start..start + u64_at(header + 32)
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

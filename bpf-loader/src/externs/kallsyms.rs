//! Addresses of kernel symbols, from `/proc/kallsyms`.

use std::collections::HashMap;
use std::io::{self, BufRead};

/// Names of symbols are shorter (`KSYM_NAME_LEN` is 512 since Linux 6.1); with address, kind and module, so are lines.
const MAX_LINE: usize = 1024;

/// Finds the addresses of symbols in a list like `/proc/kallsyms`: lines of address, kind, name and perhaps a module. Reads
/// until all are found; of several of one name, the first counts. Lines that make no sense are passed over.
///
/// # Errors
///
/// What reading meets.
pub fn find<'n>(
    mut list: impl BufRead,
    names: impl IntoIterator<Item = &'n str>,
) -> io::Result<HashMap<&'n str, u64>> {
    let mut wanted: HashMap<&[u8], &'n str> = names.into_iter().map(|name| (name.as_bytes(), name)).collect();
    let mut found = HashMap::new();
    // The beginning of a line that goes on in the next buffer; what is longer than any real line is cut.
    let mut begun: Vec<u8> = Vec::new();
    while !wanted.is_empty() {
        let buffer = list.fill_buf()?;
        if buffer.is_empty() {
            take(&begun, &mut wanted, &mut found);
            break;
        }
        let len = buffer.len();
        let mut lines = buffer.split_inclusive(|&b| b == b'\n');
        for line in lines.by_ref() {
            let Some(whole) = line.strip_suffix(b"\n") else {
                extend(&mut begun, line);
                break;
            };
            if begun.is_empty() {
                take(whole, &mut wanted, &mut found);
            } else {
                extend(&mut begun, whole);
                take(&begun, &mut wanted, &mut found);
                begun.clear();
            }
        }
        list.consume(len);
    }
    Ok(found)
}

fn extend(begun: &mut Vec<u8>, more: &[u8]) {
    let room = MAX_LINE.saturating_sub(begun.len());
    begun.extend_from_slice(more.get(..room.min(more.len())).unwrap_or_default());
}

fn take<'n>(line: &[u8], wanted: &mut HashMap<&[u8], &'n str>, found: &mut HashMap<&'n str, u64>) {
    let mut words = line.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else { return };
    // Link-time optimisation gives static variables a suffix.
    let suffix = if kind == b"d" { name.windows(6).position(|w| w == b".llvm.") } else { None };
    let name = suffix.and_then(|at| name.get(..at)).unwrap_or(name);
    if !wanted.contains_key(name) {
        return;
    }
    let address = core::str::from_utf8(address).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    if let (Some(address), Some(name)) = (address, address.and_then(|_| wanted.remove(name))) {
        found.insert(name, address);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read as _};

    use super::*;

    const LIST: &[u8] = b"ffffffff81000000 T _text\n\
        ffffffff81000100 t twice\nffffffff81000200 t twice\n\
        nonsense\n\nzz T bad_address\n\
        ffffffff82000000 d cut.llvm.123\nffffffff82000001 t kept.llvm.123\n\
        ffffffffc0000000 t in_module\t[a_module]\n\
        0 A last";

    #[test]
    fn finds_what_is_asked_however_the_list_is_buffered() {
        let names = ["_text", "twice", "bad_address", "cut", "kept", "in_module", "last", "none"];
        for capacity in [1, 7, 64, 4096] {
            let found = find(BufReader::with_capacity(capacity, LIST), names).unwrap();
            let expected = HashMap::from([
                ("_text", 0xffff_ffff_8100_0000),
                ("twice", 0xffff_ffff_8100_0100),
                ("cut", 0xffff_ffff_8200_0000),
                ("in_module", 0xffff_ffff_c000_0000),
                ("last", 0),
            ]);
            assert_eq!(found, expected, "buffers of {capacity} bytes");
        }
    }

    #[test]
    fn stops_when_all_are_found() {
        let mut list = BufReader::with_capacity(32, LIST);
        find(&mut list, ["_text"]).unwrap();
        assert!(list.fill_buf().unwrap().starts_with(&LIST[32..40]));
    }

    #[test]
    fn a_line_without_end_takes_little_memory() {
        let endless = io::repeat(b'x').take(10 << 20);
        assert!(find(BufReader::new(endless), ["x"]).unwrap().is_empty());
        let mut begun = Vec::new();
        (0..100).for_each(|_| extend(&mut begun, &[b'x'; 100]));
        assert_eq!(begun.len(), MAX_LINE);
    }
}

//! The symbols of a kernel, from `/proc/kallsyms`.

use crate::sorted::SortedMap;
use std::io::{self, BufRead};

/// Names of symbols are shorter (`KSYM_NAME_LEN` is 512 since Linux 6.1); with address, kind and module, so are lines.
const MAX_LINE: usize = 1024;

/// A line of `/proc/kallsyms`. The module that may follow is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Symbol<'l> {
    /// 0 for those who may not see addresses.
    pub address: u64,
    /// As `nm` has it: `T` and `t` are functions, `d` a variable.
    pub kind: u8,
    pub name: &'l [u8],
}

impl<'l> Symbol<'l> {
    pub fn parse(line: &'l [u8]) -> Option<Self> {
        let mut words = words(line);
        let address = core::str::from_utf8(words.next()?).ok()?;
        let kind = *words.next()?.first()?;
        Some(Self { address: u64::from_str_radix(address, 16).ok()?, kind, name: words.next()? })
    }

    pub fn is_function(&self) -> bool {
        matches!(self.kind, b't' | b'T' | b'w' | b'W')
    }

    /// The name without the suffix that link-time optimisation gives to what is static.
    pub fn short_name(&self) -> &'l [u8] {
        let suffix = self.name.windows(6).position(|w| w == b".llvm.");
        suffix.and_then(|at| self.name.get(..at)).unwrap_or(self.name)
    }
}

/// The words of a line.
pub(crate) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty())
}

/// Runs `each` on the lines of a list, without their ends, until it says `false`. What is longer than any real line is cut.
pub(crate) fn for_each_line(mut list: impl BufRead, mut each: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    // The beginning of a line that goes on in the next buffer.
    let mut begun: Vec<u8> = Vec::new();
    loop {
        let buffer = list.fill_buf()?;
        if buffer.is_empty() {
            if !begun.is_empty() {
                each(&begun);
            }
            return Ok(());
        }
        let mut used = 0;
        let mut more = true;
        for line in buffer.split_inclusive(|&b| b == b'\n') {
            used += line.len();
            let Some(whole) = line.strip_suffix(b"\n") else {
                extend(&mut begun, line);
                break;
            };
            if begun.is_empty() {
                more = each(whole);
            } else {
                extend(&mut begun, whole);
                more = each(&begun);
                begun.clear();
            }
            if !more {
                break;
            }
        }
        list.consume(used);
        if !more {
            return Ok(());
        }
    }
}

fn extend(begun: &mut Vec<u8>, more: &[u8]) {
    let room = MAX_LINE.saturating_sub(begun.len());
    begun.extend_from_slice(more.get(..room.min(more.len())).unwrap_or_default());
}

/// Finds the addresses of symbols in a list like `/proc/kallsyms`: lines of address, kind, name and perhaps a module. Reads
/// until all are found; of several of one name, the first counts. Lines that make no sense are passed over.
///
/// # Errors
///
/// What reading meets.
pub fn find<'n>(
    list: impl BufRead,
    names: impl IntoIterator<Item = &'n str>,
) -> io::Result<SortedMap<&'n str, u64>> {
    let mut wanted: SortedMap<&[u8], &'n str> =
        names.into_iter().map(|name| (name.as_bytes(), name)).collect();
    let mut found = SortedMap::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    for_each_line(list, |line| {
        if let Some(symbol) = Symbol::parse(line) {
            let name = if symbol.kind == b'd' { symbol.short_name() } else { symbol.name };
            if let Some(name) = wanted.remove(name) {
                found.insert(name, symbol.address);
            }
        }
        !wanted.is_empty()
    })?;
    Ok(found)
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
            let expected = SortedMap::from([
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
        let mut list = BufReader::with_capacity(64, LIST);
        find(&mut list, ["_text"]).unwrap();
        assert!(list.fill_buf().unwrap().starts_with(b"ffffffff81000100 t"), "the next line is still there");
    }

    #[test]
    fn a_line_without_end_takes_little_memory() {
        let endless = io::repeat(b'x').take(10 << 20);
        assert!(find(BufReader::new(endless), ["x"]).unwrap().is_empty());
        let mut begun = Vec::new();
        (0..100).for_each(|_| extend(&mut begun, &[b'x'; 100]));
        assert_eq!(begun.len(), MAX_LINE);
    }

    #[test]
    fn symbols_have_an_address_a_kind_and_a_name() {
        let symbol = Symbol::parse(b"ffffffff81000000 T do_exit.llvm.1\t[module]").unwrap();
        assert_eq!(
            (symbol.address, symbol.kind, symbol.name),
            (0xffff_ffff_8100_0000, b'T', &b"do_exit.llvm.1"[..])
        );
        assert_eq!((symbol.is_function(), symbol.short_name()), (true, &b"do_exit"[..]));
        for bad in [&b""[..], b"\n", b"ffff", b"xyz T a", b"1 T", b"11112222333344445 T a", b"\xff T a"] {
            assert_eq!(Symbol::parse(bad), None, "{bad:?}");
        }
    }
}

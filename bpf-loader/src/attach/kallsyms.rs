//! Functions of the running kernel: `/proc/kallsyms`, and which of them can be traced.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::{glob, tracefs};
use crate::error::{Error, Result};

/// One line of `/proc/kallsyms`: address, type letter, name; the module is left out.
fn parse_symbol(line: &[u8]) -> Option<(u64, u8, &[u8])> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let address = core::str::from_utf8(words.next()?).ok()?;
    let kind = *words.next()?.first()?;
    Some((u64::from_str_radix(address, 16).ok()?, kind, words.next()?))
}

/// One line of `available_filter_functions`: the name, without the module.
fn parse_traceable(line: &[u8]) -> Option<&[u8]> {
    line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())
}

/// Runs `each` on the lines of a file, without reading it whole, until it says `false`.
fn lines(path: &Path, mut each: impl FnMut(&[u8]) -> bool) -> Result<()> {
    let error = |e: std::io::Error| tracefs::file_error(path, &e);
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(error)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(error)? == 0 || !each(&line) {
            return Ok(());
        }
    }
}

const KALLSYMS: &str = "/proc/kallsyms";

/// Has the kernel a symbol of that name? `None` if that cannot be read.
pub(super) fn contains(name: &str) -> Option<bool> {
    let mut found = false;
    let mut any = false;
    lines(Path::new(KALLSYMS), |line| {
        any = true;
        found = parse_symbol(line).is_some_and(|(_, _, symbol)| symbol == name.as_bytes());
        !found
    })
    .ok()?;
    any.then_some(found)
}

/// Addresses of the functions whose names match a pattern and that can be traced.
pub(super) fn traceable(pattern: &str) -> Result<Vec<u64>> {
    let mut addresses = Vec::new();
    // With addresses from Linux 6.5; then names that several functions have are no problem.
    let with_addresses = tracefs::directory().join("available_filter_functions_addrs");
    if File::open(&with_addresses).is_ok() {
        lines(&with_addresses, |line| {
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let address = words.next().and_then(|word| core::str::from_utf8(word).ok());
            let address =
                address.and_then(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
            let name = words.next();
            if name.is_some_and(|name| glob::matches(pattern.as_bytes(), name)) {
                addresses.extend(address);
            }
            true
        })?;
    } else {
        let mut names = HashSet::new();
        lines(&tracefs::directory().join("available_filter_functions"), |line| {
            if let Some(name) = parse_traceable(line) {
                if glob::matches(pattern.as_bytes(), name) {
                    names.insert(name.to_vec());
                }
            }
            true
        })?;
        lines(Path::new(KALLSYMS), |line| {
            if let Some((address, kind, name)) = parse_symbol(line) {
                // Some kernels leave the compiler's suffix out of one of the lists.
                let short = name.windows(6).position(|w| w == b".llvm.").and_then(|at| name.get(..at));
                let listed = names.contains(name) || short.is_some_and(|short| names.contains(short));
                if address != 0 && matches!(kind, b't' | b'T' | b'w' | b'W') && listed {
                    addresses.push(address);
                }
            }
            true
        })?;
    }
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(Error::NoSuchTarget {
            name: format!("function that matches {pattern} and can be traced"),
        });
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_have_an_address_a_type_and_a_name() {
        let symbol = parse_symbol(b"ffffffff81000000 T do_exit\t[module]\n");
        assert_eq!(symbol, Some((0xffff_ffff_8100_0000, b'T', &b"do_exit"[..])));
        for bad in [&b""[..], b"\n", b"ffff", b"xyz T a", b"1 T", b"11112222333344445 T a", b"\xff T a"] {
            assert_eq!(parse_symbol(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn traceable_functions_may_have_a_module() {
        assert_eq!(parse_traceable(b"do_exit\n"), Some(&b"do_exit"[..]));
        assert_eq!(parse_traceable(b"nft_do_chain [nf_tables]\n"), Some(&b"nft_do_chain"[..]));
        assert_eq!(parse_traceable(b"\n"), None);
    }
}

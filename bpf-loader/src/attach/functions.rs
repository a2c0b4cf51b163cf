//! Functions of the running kernel: which there are, and which can be traced.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::{glob, tracefs};
use crate::error::{Error, Result};
use crate::kallsyms::{Symbol, for_each_line, words};
use crate::sorted::SortedSet;

/// Runs `each` on the lines of a file, without reading it whole, until it says `false`.
fn lines(path: &Path, each: impl FnMut(&[u8]) -> bool) -> Result<()> {
    let error = |e: std::io::Error| tracefs::file_error(path, &e);
    for_each_line(BufReader::with_capacity(1 << 16, File::open(path).map_err(error)?), each).map_err(error)
}

const KALLSYMS: &str = "/proc/kallsyms";

/// Has the kernel a symbol of that name? `None` if that cannot be read.
pub(super) fn contains(name: &str) -> Option<bool> {
    let mut found = false;
    let mut any = false;
    lines(Path::new(KALLSYMS), |line| {
        any = true;
        found = Symbol::parse(line).is_some_and(|symbol| symbol.name == name.as_bytes());
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
            let mut words = words(line);
            let address = words.next().and_then(|word| core::str::from_utf8(word).ok());
            let address = address
                .and_then(|word| u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok());
            let name = words.next();
            if name.is_some_and(|name| glob::matches(pattern.as_bytes(), name)) {
                addresses.extend(address);
            }
            true
        })?;
    } else {
        let mut names = SortedSet::new();
        lines(&tracefs::directory().join("available_filter_functions"), |line| {
            // A module's name may follow.
            if let Some(name) = words(line).next() {
                if glob::matches(pattern.as_bytes(), name) {
                    names.insert(name.to_vec());
                }
            }
            true
        })?;
        lines(Path::new(KALLSYMS), |line| {
            if let Some(symbol) =
                Symbol::parse(line).filter(|symbol| symbol.address != 0 && symbol.is_function())
            {
                // Some kernels leave the compiler's suffix out of one of the lists.
                if names.contains(symbol.name) || names.contains(symbol.short_name()) {
                    addresses.push(symbol.address);
                }
            }
            true
        })?;
    }
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(Box::new(Error::NoSuchTarget {
            name: format!("function that matches {pattern} and can be traced"),
        }));
    }
    Ok(addresses)
}

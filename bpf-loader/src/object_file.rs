//! Object files, read without what loading does not need.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::bytes::{Bytes, Endian};

/// Files up to this many bytes are not worth more than one read.
const SMALL: u64 = 32 << 10;
/// Files from this many bytes on are no objects that anybody compiled.
const LARGE: u64 = 256 << 20;
/// Bytes of an ELF64 header, and of a section's.
const HEADER: usize = 64;
/// Bytes between two sections that are read with them rather than left out.
const GAP: usize = 4096;

/// Reads an object file for [`ObjectSpec::parse`](crate::object::ObjectSpec::parse). DWARF, which is most of an object that was
/// compiled with `-g`, is left out: its sections read as zeros, and take no memory.
///
/// # Errors
///
/// Those of opening and reading.
pub fn read_object(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    if !(SMALL..LARGE).contains(&len) {
        return std::fs::read(path);
    }
    // Zeroed memory is not there until it is written to.
    let mut bytes = vec![0; len as usize];
    match read_sections(&file, &mut bytes) {
        Ok(true) => Ok(bytes),
        // What is wrong with the file is the parser's to say.
        Ok(false) => std::fs::read(path),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => std::fs::read(path),
        Err(e) => Err(e),
    }
}

/// Reads headers and all sections but those of DWARF to where they are in the file; `false` if it is none.
fn read_sections(file: &File, bytes: &mut [u8]) -> io::Result<bool> {
    let mut read = |at: usize, len: usize| -> io::Result<bool> {
        let Some(part) = at.checked_add(len).and_then(|end| bytes.get_mut(at..end)) else { return Ok(false) };
        file.read_exact_at(part, at as u64).map(|()| true)
    };
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    let endian = if header.get(5) == Some(&2) { Endian::Big } else { Endian::Little };
    let elf = Bytes::new(&header, endian);
    let number = |at| elf.u16(at).map_or(0, usize::from);
    let (entry, count, names) = (number(58), number(60), number(62));
    let table = elf.u64(40).and_then(|at| usize::try_from(at).ok()).unwrap_or(usize::MAX);
    let is_elf64 = header.starts_with(b"\x7fELF\x02");
    if !is_elf64 || entry != HEADER || count == 0 || !read(0, HEADER)? || !read(table, count * HEADER)? {
        return Ok(false);
    }
    let mut headers = vec![0; count * HEADER];
    file.read_exact_at(&mut headers, table as u64)?;
    let headers = Bytes::new(&headers, endian);
    let place = |section: usize| {
        let (at, len) = (headers.u64(section * HEADER + 24)?, headers.u64(section * HEADER + 32)?);
        Some((usize::try_from(at).ok()?, usize::try_from(len).ok()?))
    };
    let Some((names_at, names_len)) = place(names) else { return Ok(false) };
    if !read(names_at, names_len)? {
        return Ok(false);
    }
    let mut text = vec![0; names_len];
    file.read_exact_at(&mut text, names_at as u64)?;
    let text = Bytes::new(&text, endian);
    let mut wanted: Vec<(usize, usize)> = (0..count)
        .filter(|section| {
            let at = section * HEADER;
            let name = headers.u32(at).and_then(|name| text.cstr(name as usize)).unwrap_or_default();
            let name = name.strip_prefix(b".rel").unwrap_or(name);
            // No bits of such sections are in the file.
            let absent = matches!(headers.u32(at + 4), Some(0 | 8));
            !absent && !name.starts_with(b".debug_")
        })
        .filter_map(place)
        .collect();
    wanted.sort_unstable();
    let mut parts = wanted.into_iter();
    let Some((mut start, len)) = parts.next() else { return Ok(true) };
    let mut end = start.saturating_add(len);
    for (at, len) in parts {
        if at > end.saturating_add(GAP) {
            if !read(start, end - start)? {
                return Ok(false);
            }
            start = at;
        }
        end = end.max(at.saturating_add(len));
    }
    read(start, end - start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ObjectSpec;

    fn file(name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("{name}.{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn put(bytes: &mut [u8], at: usize, value: u64) {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// An ELF file of three sections: `.debug_x` at 64 of 40 KiB, `maps` behind it of 16 bytes, and the names.
    fn sample() -> Vec<u8> {
        let names = b"\0.debug_x\0maps\0.shstrtab\0";
        let (debug_at, debug_len) = (64usize, 40 << 10);
        let maps_at = debug_at + debug_len;
        let names_at = maps_at + 16;
        let table = names_at + names.len();
        let mut bytes = vec![0xaa; table + 4 * 64];
        bytes[..64].fill(0);
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        put(&mut bytes, 40, table as u64);
        bytes[58..64].copy_from_slice(&[64, 0, 4, 0, 3, 0]);
        bytes[names_at..table].copy_from_slice(names);
        bytes[table..].fill(0);
        let sections = [(1, debug_at, debug_len), (10, maps_at, 16), (15, names_at, names.len())];
        for (section, (name, at, len)) in (1..).zip(sections) {
            let header = table + section * 64;
            put(&mut bytes, header, name | 1 << 32);
            put(&mut bytes, header + 24, at as u64);
            put(&mut bytes, header + 32, len as u64);
        }
        bytes
    }

    #[test]
    fn dwarf_reads_as_zeros_and_all_else_as_it_is() {
        let bytes = sample();
        let path = file("object-with-dwarf", &bytes);
        let read = read_object(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.len(), bytes.len());
        let maps = 64 + (40 << 10);
        assert_eq!((&read[..64], &read[maps..]), (&bytes[..64], &bytes[maps..]));
        assert!(read[64..maps].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn what_is_no_such_file_is_read_whole() {
        let mut broken = sample();
        put(&mut broken, 40, u64::MAX - 64);
        for bytes in [vec![7; 100], vec![7; 100 << 10], broken] {
            let path = file("no-object", &bytes);
            let read = read_object(&path);
            std::fs::remove_file(&path).unwrap();
            assert!(read.unwrap() == bytes);
        }
        assert!(read_object(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn an_object_is_the_same_object() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bpf/prebuilt/tracepoint.bpf.o");
        let (whole, read) = (std::fs::read(&path).unwrap(), read_object(&path).unwrap());
        let names = |bytes: &[u8]| {
            let spec = ObjectSpec::parse(bytes).unwrap();
            spec.programs.iter().map(|p| p.name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&whole), names(&read));
    }
}

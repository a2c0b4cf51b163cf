//! Object files, read without what loading does not need.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::btf::Btf;
use crate::btf::relocate::relocate;
use crate::bytes::{Bytes, Endian};
use crate::error::{Error, Result};
use crate::fuel::Fuel;

/// Files up to this many bytes are not worth more than one read.
const SMALL: u64 = 32 << 10;
/// Files from this many bytes on are no objects that anybody compiled.
const LARGE: u64 = 256 << 20;
/// Files with debug information from this many bytes on are no kernels that anybody built.
#[cfg(feature = "dwarf")]
const LARGE_WITH_DWARF: u64 = 8 << 30;
/// Bytes of an ELF64 header; one of 32 bits is shorter.
const HEADER: usize = 64;
/// Bytes between two sections that are read with them rather than left out.
const GAP: usize = 4096;

/// Reads an object file for [`ObjectSpec::parse`](crate::object::ObjectSpec::parse). DWARF, which is most of an object that was
/// compiled with `-g`, is left out: its sections read as zeros, and take no memory.
///
/// # Errors
///
/// Those of opening and reading; `FileTooLarge` for more than 256 MiB.
pub fn read_object(path: &Path) -> io::Result<Vec<u8>> {
    let is_dwarf = |name: &[u8]| name.strip_prefix(b".rel").unwrap_or(name).starts_with(b".debug_");
    read_with_sections(path, LARGE, |name| !is_dwarf(name))
}

/// Reads a file for [`dwarf_to_btf`](crate::dwarf::dwarf_to_btf): of a kernel's gigabyte, what describes types. All else
/// reads as zeros, and takes no memory.
///
/// # Errors
///
/// Those of opening and reading; `FileTooLarge` for more than 8 GiB.
#[cfg(feature = "dwarf")]
pub fn read_debug_object(path: &Path) -> io::Result<Vec<u8>> {
    use crate::dwarf::SECTIONS;
    read_with_sections(path, LARGE_WITH_DWARF, |name| {
        // Relocations of sections, and what they refer to, are there in small files that are not linked.
        let name = name.strip_prefix(b".rela").or(name.strip_prefix(b".rel")).unwrap_or(name);
        // `.zdebug_info` is how a compressed `.debug_info` was once called.
        let old = name.strip_prefix(b".z").unwrap_or_default();
        let symbols = [".symtab", ".symtab_shndx", ".strtab", ".shstrtab"];
        symbols.iter().chain(&SECTIONS).any(|wanted| {
            wanted.as_bytes() == name
                || wanted.as_bytes().strip_prefix(b".").is_some_and(|wanted| wanted == old)
        })
    })
}

/// Reads a file of at most `limit` bytes, of its sections those that are `wanted`.
fn read_with_sections(path: &Path, limit: u64, wanted: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    // A pipe or a device says nothing of its length.
    if len < SMALL {
        return read_all(&file, limit);
    }
    let (false, Ok(size)) = (len > limit, usize::try_from(len)) else { return Err(too_large(limit)) };
    let mut bytes = zeroed(size)?;
    match read_sections(&file, &mut bytes, wanted) {
        Ok(true) => Ok(bytes),
        // What is wrong with the file is the parser's to say.
        Ok(false) => read_all(&file, limit),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => read_all(&file, limit),
        Err(e) => Err(e),
    }
}

/// So many zeros, which take no memory until they are written to.
///
/// # Errors
///
/// `OutOfMemory`: of 32-bit machines, for what has half a gigabyte and more.
fn zeroed(len: usize) -> io::Result<Vec<u8>> {
    // Only an allocation that writes the zeros can fail without a panic. So ask for the room first, and give it back.
    let mut room = Vec::<u8>::new();
    room.try_reserve_exact(len).map_err(|e| io::Error::new(io::ErrorKind::OutOfMemory, e))?;
    // Not to be optimized away.
    drop(std::hint::black_box(room));
    Ok(vec![0; len])
}

/// All bytes of a file that is not larger than `limit`; nothing of it has been read before.
fn read_all(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_large(limit)) } else { Ok(bytes) }
}

fn too_large(limit: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("no object: it has more than {} MiB", limit >> 20))
}

/// A section of a file: its name, its place, and whether its bytes are in the file.
struct Section {
    name: Vec<u8>,
    at: usize,
    len: usize,
    present: bool,
}

/// Where numbers are in the headers of a file and its sections, and of how many bytes (elf(5)).
struct Layout {
    wide: bool,
    /// Of a section's header.
    entry: usize,
    table: usize,
    /// Three of two bytes: bytes of a section's header, their number, and the section with their names.
    numbers: usize,
    at: usize,
    len: usize,
}

const ELF32: Layout = Layout { wide: false, entry: 40, table: 32, numbers: 46, at: 16, len: 20 };
const ELF64: Layout = Layout { wide: true, entry: 64, table: 40, numbers: 58, at: 24, len: 32 };

impl Layout {
    fn word(&self, bytes: Bytes<'_>, at: usize) -> Option<usize> {
        let word = if self.wide { bytes.u64(at)? } else { bytes.u32(at)?.into() };
        usize::try_from(word).ok()
    }
}

/// Where an ELF file of any machine has its section table, and what that says; `None` if it is no such file.
fn read_section_table(file: &File) -> io::Result<Option<(Range<usize>, Vec<Section>)>> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    let endian = if header.get(5) == Some(&2) { Endian::Big } else { Endian::Little };
    let elf = Bytes::new(&header, endian);
    let layout = match header {
        [0x7f, b'E', b'L', b'F', 1, ..] => ELF32,
        [0x7f, b'E', b'L', b'F', 2, ..] => ELF64,
        _ => return Ok(None),
    };
    let number = |place: usize| elf.u16(layout.numbers + 2 * place).map_or(0, usize::from);
    let (entry, count, names) = (number(0), number(1), number(2));
    let table = layout.word(elf, layout.table).unwrap_or(usize::MAX);
    let end = table.checked_add(count * entry);
    let (true, Some(end)) = (entry == layout.entry && count > 0, end) else {
        return Ok(None);
    };
    let mut headers = vec![0; count * entry];
    file.read_exact_at(&mut headers, table as u64)?;
    let headers = Bytes::new(&headers, endian);
    let place = |section: usize| {
        let header = section * entry;
        Some((layout.word(headers, header + layout.at)?, layout.word(headers, header + layout.len)?))
    };
    let Some((names_at, names_len)) = place(names).filter(|(_, len)| *len <= LARGE as usize) else {
        return Ok(None);
    };
    let mut text = zeroed(names_len)?;
    file.read_exact_at(&mut text, names_at as u64)?;
    let text = Bytes::new(&text, endian);
    let sections = (0..count).filter_map(|section| {
        let header = section * entry;
        let name = headers.u32(header).and_then(|name| text.cstr(name as usize)).unwrap_or_default();
        let (at, len) = place(section)?;
        // Of no type, or without bits in the file.
        let present = !matches!(headers.u32(header + 4), Some(0 | 8));
        // A table of millions of sections that share one long name is nobody's.
        Some(Section { name: name.get(..32).unwrap_or(name).to_vec(), at, len, present })
    });
    Ok(Some((table..end, sections.collect())))
}

/// Reads headers and the sections that are `wanted` to where they are in the file; `false` if it is none.
fn read_sections(file: &File, bytes: &mut [u8], wanted: impl Fn(&[u8]) -> bool) -> io::Result<bool> {
    let Some((table, sections)) = read_section_table(file)? else { return Ok(false) };
    let mut wanted: Vec<(usize, usize)> = sections
        .iter()
        .filter(|section| section.present && wanted(&section.name))
        .map(|section| (section.at, section.at.saturating_add(section.len)))
        .chain([(0, HEADER), (table.start, table.end)])
        .collect();
    wanted.sort_unstable();
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for (start, end) in wanted {
        match parts.last_mut() {
            Some(last) if start <= last.1.saturating_add(GAP) => last.1 = last.1.max(end),
            _ => parts.push((start, end)),
        }
    }
    for (start, end) in parts {
        let Some(part) = bytes.get_mut(start..end) else { return Ok(false) };
        file.read_exact_at(part, start as u64)?;
    }
    Ok(true)
}

/// Reads the types of a kernel that a user has in a file, for [`RunningTarget::with_btf`](crate::target::RunningTarget::with_btf):
/// BTF alone, as BTFHub has it and `/sys/kernel/btf/vmlinux` is, or an ELF file with a section `.BTF`, as `vmlinux` is.
///
/// # Errors
///
/// `ReadBtf` if it cannot be read or has no BTF; those of [`Btf::parse`].
pub fn read_btf(path: &Path) -> Result<Btf<'static>> {
    let [btf] = read_btf_sections(path, [".BTF"])?;
    Btf::parse(btf.ok_or_else(|| unreadable(path, "it has no section .BTF"))?)
}

/// Reads a kernel module's types, from BTF alone or from the module's own file, for a kernel with the types `base`. A module that
/// was built apart from the kernel (`.BTF.base`) is put onto it: see [`relocate`].
///
/// # Errors
///
/// As [`read_btf`]; those of [`Btf::parse_split`] and [`relocate`].
pub fn read_module_btf(path: &Path, base: Arc<Btf<'static>>) -> Result<Btf<'static>> {
    let [btf, distilled] = read_btf_sections(path, [".BTF", ".BTF.base"])?;
    let mut btf = btf.ok_or_else(|| unreadable(path, "it has no section .BTF"))?;
    if let Some(distilled) = distilled {
        btf = relocate(btf, distilled, &base, &mut Fuel::OBJECT.clone())?;
    }
    Btf::parse_split(btf, base)
}

fn unreadable(path: &Path, reason: impl Display) -> Box<Error> {
    Box::new(Error::ReadBtf { reason: format!("{}: {reason}", path.display()) })
}

/// Sections of an ELF file by name; of any other file, all of it for the first.
fn read_btf_sections<const N: usize>(path: &Path, names: [&str; N]) -> Result<[Option<Vec<u8>>; N]> {
    let read = || -> io::Result<[Option<Vec<u8>>; N]> {
        let mut found = [const { None }; N];
        let file = File::open(path)?;
        let mut magic = [0; 4];
        if file.read_at(&mut magic, 0)? < magic.len() || magic != *b"\x7fELF" {
            if let Some(first) = found.first_mut() {
                *first = Some(std::fs::read(path)?);
            }
            return Ok(found);
        }
        let sections = read_section_table(&file)?.map(|(_, sections)| sections).unwrap_or_default();
        for (name, found) in names.iter().zip(&mut found) {
            let section = sections.iter().find(|section| section.present && section.name == name.as_bytes());
            if let Some(section) = section.filter(|section| section.len <= LARGE as usize) {
                let mut bytes = zeroed(section.len)?;
                file.read_exact_at(&mut bytes, section.at as u64)?;
                *found = Some(bytes);
            }
        }
        Ok(found)
    };
    read().map_err(|e| unreadable(path, e))
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

    /// An ELF file of 32 bits with one section, and the names.
    fn sample32(name: &[u8], content: &[u8]) -> Vec<u8> {
        let names = [b"\0", name, b"\0"].concat();
        let (at, names_at) = (64, 64 + content.len());
        let table = names_at + names.len();
        let mut bytes = vec![0; table];
        bytes[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
        bytes[32..36].copy_from_slice(&(table as u32).to_le_bytes());
        bytes[46..52].copy_from_slice(&[40, 0, 3, 0, 2, 0]);
        bytes[at..names_at].copy_from_slice(content);
        bytes[names_at..].copy_from_slice(&names);
        for [name, kind, at, len] in [[0; 4], [1, 1, at, content.len()], [0, 3, names_at, names.len()]] {
            let header = [name, kind, 0, 0, at, len, 0, 0, 0, 0];
            bytes.extend(header.iter().flat_map(|word| (*word as u32).to_le_bytes()));
        }
        bytes
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
    fn types_come_alone_or_in_an_elf_file() {
        let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bpf/prebuilt/tracepoint.bpf.o");
        let btf = read_btf(&object).unwrap();
        assert!(btf.count() > 1);
        let path = file("btf-alone", btf.as_bytes());
        let alone = read_btf(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(alone.as_bytes(), btf.as_bytes());
        let path = file("btf-of-32-bits", &sample32(b".BTF", btf.as_bytes()));
        let narrow = read_btf(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(narrow.unwrap().as_bytes(), btf.as_bytes());
        for (bytes, error) in
            [(sample(), "it has no section .BTF"), (b"\x7fELF\x02".to_vec(), "failed to fill whole buffer")]
        {
            let path = file("no-btf", &bytes);
            let read = read_btf(&path);
            std::fs::remove_file(&path).unwrap();
            assert!(read.is_err_and(|e| e.to_string().contains(error)));
        }
        assert!(matches!(read_btf(Path::new("/nonexistent")).map_err(|e| *e), Err(Error::ReadBtf { .. })));
    }

    #[test]
    fn no_room_is_an_error() {
        for len in [isize::MAX as usize, isize::MAX as usize + 1, usize::MAX] {
            assert_eq!(zeroed(len).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        }
        assert_eq!(zeroed(3).unwrap(), [0; 3]);
    }

    #[cfg(feature = "dwarf")]
    #[test]
    fn all_that_unpacking_needs_is_read() {
        let content = vec![0xaa; 40 << 10];
        for (name, kept) in [
            (&b".zdebug_info"[..], true),
            (b".symtab_shndx", true),
            (b".rela.debug_info", true),
            (b".text", false),
        ] {
            let path = file("debug-object", &sample32(name, &content));
            let read = read_debug_object(&path);
            std::fs::remove_file(&path).unwrap();
            assert_eq!(read.unwrap()[64..][..content.len()] == content, kept, "{}", name.escape_ascii());
        }
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

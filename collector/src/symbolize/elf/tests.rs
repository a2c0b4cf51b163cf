use super::symbols::SymbolTable;
use super::*;
use crate::symbolize::fuzz;

/// A symbol of a hand-made file: name, `st_info`, section (1 is `.text`, 2 is `.data`), value, size.
pub type Symbol = (&'static str, u8, u16, u64, u64);

/// A section: name, type, flags, address, link, bytes.
pub type Content = (&'static str, u32, u64, u64, u32, Vec<u8>);

pub const GLOBAL_FUNCTION: u8 = 0x12;
const WEAK_FUNCTION: u8 = 0x22;
const LOCAL_FUNCTION: u8 = 0x02;
const GLOBAL_LABEL: u8 = 0x10;
const LOCAL_LABEL: u8 = 0x00;
const GLOBAL_OBJECT: u8 = 0x11;

/// Where the text of hand-made files lies in memory, and in the file.
pub const TEXT_ADDRESS: u64 = 0x40_1000;
pub const TEXT_OFFSET: u64 = 0x1000;
const TEXT_SIZE: u64 = 0x1000;

/// Writes ELF files of either class and byte order.
#[derive(Clone, Copy)]
pub struct Maker {
    pub is_64: bool,
    pub big: bool,
    pub machine: u16,
}

pub const X86_64: Maker = Maker { is_64: true, big: false, machine: 62 };

impl Maker {
    fn number(self, bytes: &mut Vec<u8>, value: u64, size: usize) {
        let all = value.to_be_bytes();
        let mut part = all[8 - size..].to_vec();
        if !self.big {
            part.reverse();
        }
        bytes.extend_from_slice(&part);
    }

    /// Fields of 2, 4, or 8 bytes; 0 is the size of an address.
    fn fields(self, fields: &[(u64, usize)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(value, size) in fields {
            let size = if size == 0 { if self.is_64 { 8 } else { 4 } } else { size };
            self.number(&mut bytes, value, size);
        }
        bytes
    }

    fn symbol(self, name: u64, info: u8, section: u16, value: u64, size: u64) -> Vec<u8> {
        let (info, section) = ((u64::from(info), 1), (u64::from(section), 2));
        if self.is_64 {
            self.fields(&[(name, 4), info, (0, 1), section, (value, 8), (size, 8)])
        } else {
            self.fields(&[(name, 4), (value, 4), (size, 4), info, (0, 1), section])
        }
    }

    /// Symbol table and string table.
    pub fn symbols(self, symbols: &[Symbol]) -> (Vec<u8>, Vec<u8>) {
        let mut table = self.symbol(0, 0, 0, 0, 0);
        let mut names = vec![0];
        for &(name, info, section, value, size) in symbols {
            table.extend(self.symbol(names.len() as u64, info, section, value, size));
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        (table, names)
    }

    pub fn note(self, id: &[u8]) -> Vec<u8> {
        let mut note = self.fields(&[(4, 4), (id.len() as u64, 4), (3, 4)]);
        note.extend_from_slice(b"GNU\0");
        note.extend_from_slice(id);
        note.resize(note.len().next_multiple_of(4), 0);
        note
    }

    /// A file with `.text` (section 1), `.data` (2), and the sections given.
    pub fn file(self, sections: &[Content], note: &[u8]) -> Vec<u8> {
        let mut names = vec![0];
        let mut headers = vec![[0; 7], [1, 1, 6, TEXT_ADDRESS, TEXT_OFFSET, TEXT_SIZE, 0], [0; 7]];
        names.extend_from_slice(b".text\0");
        headers[2] = [names.len() as u64, 1, 3, 0x60_0000, TEXT_OFFSET, 0x100, 0];
        names.extend_from_slice(b".data\0");
        let mut bytes = vec![0; (TEXT_OFFSET + TEXT_SIZE) as usize];
        let note_offset = bytes.len() as u64;
        bytes.extend_from_slice(note);
        for (name, kind, flags, address, link, content) in sections {
            let offset = bytes.len() as u64;
            let size = content.len() as u64;
            headers.push([
                names.len() as u64,
                u64::from(*kind),
                *flags,
                *address,
                offset,
                size,
                u64::from(*link),
            ]);
            names.extend_from_slice(name.as_bytes());
            names.push(0);
            bytes.extend_from_slice(content);
        }
        headers.push([names.len() as u64, 3, 0, 0, bytes.len() as u64, names.len() as u64 + 11, 0]);
        names.extend_from_slice(b".shstrtab\0\0");
        bytes.extend_from_slice(&names);
        let section_offset = bytes.len() as u64;
        for [name, kind, flags, address, offset, size, link] in &headers {
            bytes.extend(self.fields(&[
                (*name, 4),
                (*kind, 4),
                (*flags, 0),
                (*address, 0),
                (*offset, 0),
                (*size, 0),
                (*link, 4),
                (0, 4),
                (1, 0),
                (0, 0),
            ]));
        }
        let (header_size, segment_size, section_size) = if self.is_64 { (64, 56, 64) } else { (52, 32, 40) };
        let mut header = b"\x7fELF".to_vec();
        header.extend_from_slice(&[
            1 + u8::from(self.is_64),
            1 + u8::from(self.big),
            1,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ]);
        header.extend(self.fields(&[
            (3, 2),
            (u64::from(self.machine), 2),
            (1, 4),
            (0, 0),
            (header_size, 0),
            (section_offset, 0),
            (0, 4),
            (header_size, 2),
            (segment_size, 2),
            (2, 2),
            (section_size, 2),
            (headers.len() as u64, 2),
            (headers.len() as u64 - 1, 2),
        ]));
        header.extend(self.segment(1, 5, TEXT_OFFSET, TEXT_ADDRESS, TEXT_SIZE));
        header.extend(self.segment(4, 4, note_offset, 0, note.len() as u64));
        bytes[..header.len()].copy_from_slice(&header);
        bytes
    }

    fn segment(self, kind: u64, flags: u64, offset: u64, address: u64, size: u64) -> Vec<u8> {
        if self.is_64 {
            self.fields(&[
                (kind, 4),
                (flags, 4),
                (offset, 8),
                (address, 8),
                (0, 8),
                (size, 8),
                (size, 8),
                (1, 8),
            ])
        } else {
            self.fields(&[
                (kind, 4),
                (offset, 4),
                (address, 4),
                (0, 4),
                (size, 4),
                (size, 4),
                (flags, 4),
                (1, 4),
            ])
        }
    }

    /// A file with a `.symtab`.
    pub fn with_symtab(self, symbols: &[Symbol], note: &[u8]) -> Vec<u8> {
        let (table, names) = self.symbols(symbols);
        self.file(&[(".symtab", 2, 0, 0, 4, table), (".strtab", 3, 0, 0, 0, names)], note)
    }
}

fn name_at(file: &[u8], address: u64) -> Option<String> {
    let table = SymbolTable::read(&Elf::read(&file).unwrap(), &file).unwrap();
    table.find(address).map(|function| table.name(&file, function).unwrap())
}

#[test]
fn both_classes_and_byte_orders() {
    for (is_64, big, machine) in [(true, false, 62), (true, true, 22), (false, false, 3), (false, true, 8)] {
        let maker = Maker { is_64, big, machine };
        let symbols =
            [("f", GLOBAL_FUNCTION, 1, TEXT_ADDRESS + 0x10, 0x20), ("d", GLOBAL_OBJECT, 2, 0x60_0000, 8)];
        let file = maker.with_symtab(&symbols, &maker.note(&[7; 20]));
        let elf = Elf::read(&file).unwrap();
        assert_eq!(elf.build_id(&file).as_deref(), Some(&[7; 20][..]));
        let addresses = elf.address_map();
        assert_eq!(addresses.address_of(TEXT_OFFSET + 5), Some(TEXT_ADDRESS + 5));
        assert_eq!(addresses.address_of(TEXT_OFFSET - 1), None);
        assert_eq!(addresses.address_of(TEXT_OFFSET + TEXT_SIZE), None);
        assert_eq!(name_at(&file, TEXT_ADDRESS + 0x10).as_deref(), Some("f"));
        assert_eq!(name_at(&file, TEXT_ADDRESS + 0x2f).as_deref(), Some("f"));
        assert_eq!(name_at(&file, TEXT_ADDRESS + 0x30), None);
        assert_eq!(name_at(&file, TEXT_ADDRESS + 0xf), None);
        assert_eq!(name_at(&file, 0x60_0000), None);
    }
}

/// A segment whose end wraps around holds none of the offsets before it.
#[test]
fn segments_do_not_wrap() {
    let mut file = X86_64.with_symtab(&[], &[]);
    file[64 + 32..64 + 40].copy_from_slice(&u64::MAX.to_le_bytes());
    let addresses = Elf::read(&file).unwrap().address_map();
    assert_eq!(addresses.address_of(0), None);
    assert_eq!(addresses.address_of(u64::MAX), None);
    assert_eq!(addresses.address_of(TEXT_OFFSET), Some(TEXT_ADDRESS));
}

#[test]
fn which_name_an_address_gets() {
    let at = |offset| TEXT_ADDRESS + offset;
    let file = X86_64.with_symtab(
        &[
            ("__impl", LOCAL_FUNCTION, 1, at(0), 16),
            ("__libc_thing", GLOBAL_FUNCTION, 1, at(0), 16),
            ("thing_long", GLOBAL_FUNCTION, 1, at(0), 16),
            ("thing", GLOBAL_FUNCTION, 1, at(0), 16),
            ("weak", WEAK_FUNCTION, 1, at(0), 16),
            ("label", GLOBAL_LABEL, 1, at(0), 16),
            ("versioned@@V_2", GLOBAL_FUNCTION, 1, at(32), 16),
            // Without a size: to the next symbol, and dropped inside of another.
            ("asm_a", GLOBAL_LABEL, 1, at(64), 0),
            ("asm_b", LOCAL_LABEL, 1, at(80), 0),
            ("outer", GLOBAL_FUNCTION, 1, at(96), 64),
            ("inner_label", GLOBAL_LABEL, 1, at(112), 0),
            ("nested", LOCAL_FUNCTION, 1, at(128), 8),
            ("last", GLOBAL_FUNCTION, 1, at(0xf00), 0),
            ("undefined", GLOBAL_FUNCTION, 0, at(300), 16),
            ("absolute", GLOBAL_FUNCTION, 0xfff1, at(300), 16),
            ("", GLOBAL_FUNCTION, 1, at(400), 16),
        ],
        &[],
    );
    let expected = [
        (0, Some("thing")),
        (15, Some("thing")),
        (16, None),
        (32, Some("versioned")),
        (64, Some("asm_a")),
        (79, Some("asm_a")),
        (95, Some("asm_b")),
        (96, Some("outer")),
        (120, Some("outer")),
        (130, Some("nested")),
        (140, Some("outer")),
        (160, None),
        (300, None),
        (0xfff, Some("last")),
        (0x1000, None),
    ];
    for (offset, name) in expected {
        assert_eq!(name_at(&file, at(offset)).as_deref(), name, "{offset}");
    }
}

#[test]
fn thumb_bits_and_mapping_symbols_of_arm() {
    let arm = Maker { is_64: false, big: false, machine: 40 };
    let file = arm.with_symtab(
        &[("$t", LOCAL_LABEL, 1, TEXT_ADDRESS, 0), ("f", GLOBAL_FUNCTION, 1, TEXT_ADDRESS + 1, 8)],
        &[],
    );
    assert_eq!(name_at(&file, TEXT_ADDRESS).as_deref(), Some("f"));
    assert_eq!(name_at(&file, TEXT_ADDRESS + 8), None);
}

#[test]
fn stripped_files_have_dynamic_symbols_and_plt() {
    let (table, names) = X86_64.symbols(&[
        ("exported", GLOBAL_FUNCTION, 1, TEXT_ADDRESS, 16),
        ("puts", GLOBAL_FUNCTION, 0, 0, 0),
        ("exit", GLOBAL_FUNCTION, 0, 0, 0),
    ]);
    let relocation = |symbol: u64| X86_64.fields(&[(0x60_0000, 8), (symbol << 32 | 7, 8), (0, 8)]);
    let sections = |plt: Vec<(&'static str, u64, usize)>| {
        let mut sections: Vec<Content> = vec![
            (".dynsym", 11, 2, 0, 4, table.clone()),
            (".dynstr", 3, 2, 0, 0, names.clone()),
            (".rela.plt", 4, 2, 0, 3, [relocation(2), relocation(3)].concat()),
        ];
        sections
            .extend(plt.into_iter().map(|(name, address, size)| (name, 1, 6, address, 0, vec![0x90; size])));
        X86_64.file(&sections, &[])
    };
    let plain = sections(vec![(".plt", 0x40_2000, 48)]);
    assert_eq!(name_at(&plain, TEXT_ADDRESS + 3).as_deref(), Some("exported"));
    assert_eq!(name_at(&plain, 0x40_2000), None);
    assert_eq!(name_at(&plain, 0x40_2010).as_deref(), Some("puts@plt"));
    assert_eq!(name_at(&plain, 0x40_202f).as_deref(), Some("exit@plt"));
    let tracked = sections(vec![(".plt", 0x40_2000, 48), (".plt.sec", 0x40_3000, 32)]);
    assert_eq!(name_at(&tracked, 0x40_3000).as_deref(), Some("puts@plt"));
    assert_eq!(name_at(&tracked, 0x40_2010), None);
    // Too small for its relocations.
    assert_eq!(name_at(&sections(vec![(".plt", 0x40_2000, 32)]), 0x40_2010), None);
}

#[cfg(feature = "symbols")]
#[test]
fn mini_debug_info() {
    let inner = X86_64.with_symtab(&[("static_one", LOCAL_FUNCTION, 1, TEXT_ADDRESS + 32, 16)], &[]);
    let compressed = xz(&inner);
    let (table, names) = X86_64.symbols(&[("exported", GLOBAL_FUNCTION, 1, TEXT_ADDRESS, 16)]);
    let make = |compressed: Vec<u8>| {
        let sections = [
            (".dynsym", 11, 2, 0, 4, table.clone()),
            (".dynstr", 3, 2, 0, 0, names.clone()),
            (".gnu_debugdata", 1, 0, 0, 0, compressed),
        ];
        X86_64.file(&sections, &[])
    };
    let file = make(compressed.clone());
    assert_eq!(name_at(&file, TEXT_ADDRESS).as_deref(), Some("exported"));
    assert_eq!(name_at(&file, TEXT_ADDRESS + 40).as_deref(), Some("static_one"));
    for cut in 0..compressed.len() {
        let file = make(compressed[..cut].to_vec());
        assert_eq!(name_at(&file, TEXT_ADDRESS).as_deref(), Some("exported"), "{cut}");
    }
}

#[cfg(feature = "symbols")]
#[test]
fn compression_bombs_are_refused() {
    let bomb = xz(&vec![0; 40 << 20]);
    assert!(bomb.len() < 16 * 1024);
    assert!(matches!(mini::decompress(&bomb).map_err(|e| *e), Err(SymbolizeError::TooLarge { .. })));
}

/// Compresses as the packagers do.
fn xz(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new("xz")
        .args(["--stdout", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("xz is installed");
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn damaged_files_are_survived() {
    let inner = X86_64.with_symtab(&[("static_one", LOCAL_FUNCTION, 1, TEXT_ADDRESS + 32, 16)], &[]);
    let (table, names) = X86_64.symbols(&[("exported", GLOBAL_FUNCTION, 1, TEXT_ADDRESS, 0); 5]);
    let relocation = X86_64.fields(&[(0x60_0000, 8), (1 << 32 | 7, 8), (0, 8)]);
    let sections = [
        (".dynsym", 11, 2, 0, 4, table),
        (".dynstr", 3, 2, 0, 0, names),
        (".rela.plt", 4, 2, 0, 3, relocation),
        (".plt", 1, 6, 0x40_2000, 0, vec![0; 32]),
        (".gnu_debugdata", 1, 0, 0, 0, xz(&inner)),
    ];
    let file = X86_64.file(&sections, &X86_64.note(&[1; 20]));
    fuzz::elf_symbols(&file);
    let interesting: Vec<usize> = (0..180).chain((TEXT_OFFSET + TEXT_SIZE) as usize..file.len()).collect();
    for &at in &interesting {
        for value in [0, 0x7f, 0xff] {
            let mut damaged = file.clone();
            damaged[at] = value;
            fuzz::elf_symbols(&damaged);
        }
    }
    for cut in (0..file.len()).step_by(37) {
        fuzz::elf_symbols(&file[..cut]);
    }
}

#[test]
fn notes() {
    let endian = Endianness::default();
    let other = [&[4, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0][..], b"GNU\0", &[1, 2, 3, 4]].concat();
    let id = Maker { big: cfg!(target_endian = "big"), ..X86_64 }.note(&[9; 16]);
    assert_eq!(
        build_id_in_notes(&[other.clone(), id.clone()].concat(), endian).as_deref(),
        Some(&[9; 16][..])
    );
    assert_eq!(build_id_in_notes(&other, endian), None);
    for cut in 0..id.len() {
        assert_eq!(build_id_in_notes(&id[..cut], endian), None);
    }
    assert_eq!(build_id_in_notes(&[0xff; 64], endian), None);
}

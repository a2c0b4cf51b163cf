use super::*;

/// A little-endian ELF file of 64 bits with a symbol table, made by hand: sections are null, code, symbols, names, versions'
/// numbers, definitions, section names.
fn elf(table: u32, symbols: &[(&str, u8, u64)]) -> Vec<u8> {
    let mut names = vec![0];
    let mut entries = vec![0u8; 24];
    for (name, info, value) in symbols {
        entries.extend((names.len() as u32).to_le_bytes());
        entries.extend([*info, 0, 1, 0]);
        entries.extend(value.to_le_bytes());
        entries.extend(8u64.to_le_bytes());
        names.extend(name.as_bytes());
        names.push(0);
    }
    let version_names = names.len() as u32;
    names.extend(b"V_1\0V_2\0");
    // One number a symbol, counted from 2 as the first is the file's own.
    let mut numbers = vec![0, 0];
    (0..symbols.len() as u16).for_each(|n| numbers.extend((0x8000 | (n + 2)).to_le_bytes()));
    let mut definitions = Vec::new();
    for (number, name) in [(2u16, version_names), (3, version_names + 4)] {
        for half in [1, 0, number, 1] {
            definitions.extend(u16::to_le_bytes(half));
        }
        let next = if number == 2 { 28u32 } else { 0 };
        for word in [0, 20, next, name, 0] {
            definitions.extend(u32::to_le_bytes(word));
        }
    }
    let section_names = b"\0.text\0.note.stapsdt\0".to_vec();
    let contents = [
        (1u32, 1u32, 0x1000u64, vec![0x90; 64], 0u32),
        (0, table, 0, entries, 3),
        (0, 3, 0, names, 0),
        (0, GNU_VERSYM, 0, numbers, 2),
        (0, GNU_VERDEF, 0, definitions, 3),
        (0, 3, 0, section_names, 0),
    ];
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    file.resize(64, 0);
    file[16..20].copy_from_slice(&[3, 0, 62, 0]);
    let mut headers = vec![0u8; 64];
    for (name, kind, address, content, link) in contents {
        let mut header = vec![0u8; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[16..24].copy_from_slice(&address.to_le_bytes());
        header[24..32].copy_from_slice(&(file.len() as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
        header[40..44].copy_from_slice(&link.to_le_bytes());
        headers.extend(header);
        file.extend(content);
    }
    let at = file.len() as u64;
    file[40..48].copy_from_slice(&at.to_le_bytes());
    for (field, value) in [(54, 56u16), (58, 64), (60, 7), (62, 6)] {
        file[field..field + 2].copy_from_slice(&value.to_le_bytes());
    }
    file.extend(headers);
    file
}

const GLOBAL: u8 = 0x12;
const WEAK: u8 = 0x22;
const OBJECT: u8 = 0x11;

fn find_in(table: u32, symbols: &[(&str, u8, u64)], name: &str) -> Found {
    let file = elf(table, symbols);
    find(&Elf::parse(file.as_slice()).unwrap(), table, name).unwrap()
}

#[test]
fn a_function_is_at_its_sections_place_in_the_file() {
    let symbols = [("start", GLOBAL, 0x1000), ("finish", GLOBAL, 0x1010), ("data", OBJECT, 0x1020)];
    assert_eq!(find_in(SYMTAB, &symbols, "start"), Found::One(64));
    assert_eq!(find_in(SYMTAB, &symbols, "finish"), Found::One(80));
    for none in ["data", "star", "starts", ""] {
        assert_eq!(find_in(SYMTAB, &symbols, none), Found::None, "{none}");
    }
}

#[test]
fn strong_symbols_come_before_weak_ones() {
    let (weak, strong) = (("f", WEAK, 0x1000), ("f", GLOBAL, 0x1010));
    assert_eq!(find_in(SYMTAB, &[weak, strong], "f"), Found::One(80));
    assert_eq!(find_in(SYMTAB, &[strong, weak], "f"), Found::One(80));
    assert_eq!(find_in(SYMTAB, &[strong, ("f", GLOBAL, 0x1010)], "f"), Found::One(80));
    assert_eq!(find_in(SYMTAB, &[strong, ("f", GLOBAL, 0x1020)], "f"), Found::Ambiguous);
}

#[test]
fn versions_tell_functions_of_one_name_apart() {
    let named = [("f@V_1", GLOBAL, 0x1000), ("f@@V_2", GLOBAL, 0x1010)];
    let numbered = [("f", GLOBAL, 0x1000), ("f", GLOBAL, 0x1010)];
    for (table, symbols) in [(SYMTAB, &named), (DYNSYM, &numbered)] {
        assert_eq!(find_in(table, symbols, "f@V_1"), Found::One(64));
        assert_eq!(find_in(table, symbols, "f@@V_2"), Found::One(80));
        assert_eq!(find_in(table, symbols, "f@V_3"), Found::None);
        assert_eq!(find_in(table, symbols, "f"), Found::Ambiguous);
    }
}

#[test]
fn patterns_find_each_place_once() {
    let file = elf(
        SYMTAB,
        &[
            ("get_b", GLOBAL, 0x1010),
            ("get_a", GLOBAL, 0x1000),
            ("alias_get", WEAK, 0x1000),
            ("set", GLOBAL, 0x1020),
        ],
    );
    let elf = Elf::parse(file.as_slice()).unwrap();
    assert_eq!(matching(&elf, SYMTAB, "*get*").unwrap(), [64, 80]);
    assert_eq!(matching(&elf, SYMTAB, "x*").unwrap(), []);
    assert_eq!(matching(&elf, DYNSYM, "*").unwrap(), [], "there is no such table");
    assert_eq!(elf.section_named(".text").unwrap().address, 0x1000);
    assert!(elf.section_named(".note.stapsdt").is_none());
}

#[test]
fn broken_files_are_errors_or_find_nothing() {
    let whole = elf(DYNSYM, &[("f", GLOBAL, 0x1000), ("f", GLOBAL, 0x1010)]);
    for len in 0..whole.len() {
        assert!(Elf::parse(&whole[..len]).is_err(), "cut at {len}");
    }
    // Each byte turned around: whatever comes, nothing breaks.
    for at in 0..whole.len() {
        let mut file = whole.clone();
        file[at] = !file[at];
        if let Ok(elf) = Elf::parse(file.as_slice()) {
            let _ = find(&elf, DYNSYM, "f@V_2");
            let _ = matching(&elf, DYNSYM, "*");
        }
    }
}

#[test]
fn an_executable_of_this_machine_has_its_functions() {
    let path = std::env::current_exe().unwrap();
    let binary = Binary::open(&path).unwrap();
    assert!(!binary.elf.segments.is_empty());
    assert!(matches!(
        binary.function_offset("no_such_function").map_err(|e| *e),
        Err(Error::NoSuchSymbol { .. })
    ));
    assert!(matches!(Binary::open(Path::new("/proc/self/maps")).map_err(|e| *e), Err(Error::File { .. })));
}

#[test]
fn files_are_searched_for_by_name_only() {
    assert_eq!(resolve(Path::new("./x")).unwrap(), Path::new("./x"));
    assert_eq!(resolve(Path::new("/no/such")).unwrap(), Path::new("/no/such"));
    let directory = std::env::temp_dir().join(format!("bpf-loader-search-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("tool"), "").unwrap();
    let search_in = |library| search([PathBuf::new(), directory.clone()].into_iter(), "tool", library);
    assert_eq!(search_in(true), Some(directory.join("tool")));
    assert_eq!(search_in(false), None, "it is not executable");
    assert!(matches!(resolve(Path::new("no-such-program")).map_err(|e| *e), Err(Error::File { .. })));
    std::fs::remove_dir_all(&directory).unwrap();
}

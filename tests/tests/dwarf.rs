//! BTF from debug information: what compilers of many machines write, and what `fuzz/seeds` begins with.

use std::fs;
use std::path::{Path, PathBuf};

use bpf_loader::btf::{Btf, Kind};
use bpf_loader::bytes::Endian;
use bpf_loader::dwarf::dwarf_to_btf;
use bpf_loader::object_file::{read_btf, read_debug_object};
use tests::shapes::{Shapes, shapes};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dwarf/prebuilt")
}

fn converted(name: &str) -> Btf<'static> {
    let elf = read_debug_object(&folder().join(name)).unwrap();
    let converted = dwarf_to_btf(&elf).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(converted.left_out, 0, "{name}");
    let btf = Btf::parse(converted.btf).unwrap();
    btf.validate().unwrap();
    btf
}

/// What clang itself says in BTF of the types in `types.c`.
fn clangs(name: &str) -> Shapes {
    shapes(&read_btf(&folder().join(name)).unwrap())
}

/// Without what DWARF names and BTF does not: the type of indices of arrays.
fn ours(btf: &Btf<'_>) -> Shapes {
    let mut shapes = shapes(btf);
    shapes.remove(&("int".to_owned(), "__ARRAY_SIZE_TYPE__".to_owned()));
    shapes
}

#[test]
fn types_are_what_the_compiler_says_in_btf() {
    for (name, endian) in [("bpfel-5.o", Endian::Little), ("bpfeb-4.o", Endian::Big)] {
        let btf = converted(name);
        assert_eq!(btf.endian(), endian);
        let mut expected = clangs(name);
        expected.remove(&("int".to_owned(), "__ARRAY_SIZE_TYPE__".to_owned()));
        assert_eq!(ours(&btf), expected, "{name}");
        assert!(expected.len() > 20);
        // Two units of clang's would be the same types again.
        let count = btf.count();
        assert!((40..80).contains(&count), "{count} types");
        assert!(btf.find_by_name("nowhere", Kind::Fwd).is_some());
    }
}

/// Older and newer DWARF, of 32 and 64 bits, compressed or not, from machines of every kind.
#[test]
fn types_of_other_machines_are_the_same() {
    let machines = [
        "x86_64-2.o",
        "x86_64-2-zlib-gnu.o",
        "aarch64-5-zlib.o",
        "i386-5-zstd.o",
        "ppc64-64.o",
        "mips-3.o",
        "bpfel-5.o",
        "bpfeb-4.o",
    ];
    let mut found: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort_unstable();
    let mut tested = machines.map(str::to_owned);
    tested.sort_unstable();
    assert_eq!(found, tested, "every object is tested");
    for name in machines {
        let btf = converted(name);
        let expected = clangs(if btf.endian() == Endian::Little { "bpfel-5.o" } else { "bpfeb-4.o" });
        let mut compared = 0;
        for (key, shape) in expected.iter().filter(|((_, name), _)| name.starts_with("plain")) {
            assert_eq!(ours(&btf).get(key), Some(shape), "{name}: {key:?}");
            compared += 1;
        }
        assert_eq!(compared, 8, "{name}");
        assert_eq!(
            btf.pointer_size(),
            if matches!(name, "i386-5-zstd.o" | "mips-3.o") { 4 } else { 8 },
            "{name}"
        );
    }
}

/// Ends of a file and wrong bytes in it are errors at worst.
#[test]
fn broken_files_are_errors() {
    for name in ["bpfel-5.o", "x86_64-2.o", "aarch64-5-zlib.o", "i386-5-zstd.o"] {
        let elf = fs::read(folder().join(name)).unwrap();
        for len in (0..elf.len()).step_by(211) {
            tests::targets::loader_dwarf(&elf[..len]);
        }
        for at in (0..elf.len()).step_by(17) {
            let mut broken = elf.clone();
            broken[at] = if at % 2 == 0 { 0xff } else { elf[at] ^ 1 };
            tests::targets::loader_dwarf(&broken);
        }
    }
}

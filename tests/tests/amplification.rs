//! Objects of which one thing is many: memory and work grow with the file, and no faster.

use bpf_loader::Error;
use bpf_loader::btf::encode::{Builder, Field};
use bpf_loader::bytes::Endian;
use bpf_loader::object::ObjectSpec;
use bpf_sys::uapi::insn::{self, Insn};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tests::elf::{self, Object};
use tests::targets::loader_object;

const EXIT: Insn = Insn::new(insn::EXIT, 0, 0, 0, 0);

fn bytes(insn: Insn) -> Vec<u8> {
    let regs = match Endian::HOST {
        Endian::Little => insn.dst() | insn.src() << 4,
        Endian::Big => insn.src() | insn.dst() << 4,
    };
    [&[insn.code, regs][..], &insn.off.to_ne_bytes(), &insn.imm.to_ne_bytes()].concat()
}

fn code(insns: impl IntoIterator<Item = Insn>) -> Vec<u8> {
    insns.into_iter().flat_map(bytes).collect()
}

/// An object with a program, as a start.
fn object() -> Object {
    let mut object = Object::default();
    let program = object.section("socket", elf::CODE, code([EXIT]));
    let name = object.string("program");
    object.symbol(name, elf::FUNCTION, program, 0, 8);
    object
}

/// The heap is measured of the whole process, so that one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of an object that keeps to its bounds of memory.
fn check(what: &str, file: &[u8]) -> Result<(), Box<Error>> {
    let start = Instant::now();
    loader_object(file);
    let took = start.elapsed();
    println!("{what}: {} KiB in {took:.2?}", file.len() >> 10);
    ObjectSpec::parse(file).map(drop)
}

fn too_many(what: &'static str, limit: u64) -> Result<(), Box<Error>> {
    Err(Box::new(Error::TooComplex { what, limit }))
}

const MANY: usize = 20_000;

#[test]
fn many_names_of_one_function() {
    let _alone = alone();
    let mut object = object();
    let name = object.string("f");
    for _ in 0..MANY {
        object.symbol(name, elf::FUNCTION, 1, 0, 8);
    }
    assert_eq!(check("aliases", &object.build()), Ok(()));
}

#[test]
fn many_broken_functions() {
    let _alone = alone();
    let mut object = object();
    let name = object.string(&"f".repeat(300));
    for n in 0..MANY {
        object.symbol(name, elf::FUNCTION, 1, n as u64, 3);
    }
    assert_eq!(check("broken functions", &object.build()), too_many("broken functions", 1000));
}

#[test]
fn many_overlapping_functions() {
    let _alone = alone();
    let mut object = Object::default();
    object.section(&"s".repeat(300), elf::CODE, code([EXIT; MANY]));
    let name = object.string(&"f".repeat(300));
    for n in 0..MANY {
        object.symbol(name, elf::FUNCTION, 1, 8 * n as u64, (8 * (MANY - n)) as u64);
    }
    assert_eq!(check("overlapping functions", &object.build()), too_many("broken functions", 1000));
}

#[test]
fn many_sections_of_code() {
    let _alone = alone();
    let mut object = Object::default();
    for n in 0..MANY as u16 {
        let section = object.section("socket", elf::CODE, code([EXIT]));
        let name = object.string(&format!("f{n}"));
        let symbol = object.symbol(name, elf::FUNCTION, section, 0, 8);
        object.relocations(section, [(0, symbol, 10)]);
    }
    assert_eq!(check("sections", &object.build()), Ok(()));
}

#[test]
fn long_names() {
    let _alone = alone();
    let mut object = object();
    let long = object.string(&"n".repeat(24 * MANY));
    for n in 0..MANY {
        object.symbol(long + n as u32, elf::OBJECT, 1, 0, 8);
    }
    assert_eq!(check("long names", &object.build()), Ok(()));
}

/// A map's declaration as BTF, in variables of these names.
fn declared(names: &[String]) -> Vec<u8> {
    let mut btf = Builder::new(Endian::HOST);
    let int = btf.int("int", 4, 0);
    let array = btf.array(int, int, 2);
    let number = btf.ptr(array);
    let inner = btf.structure("", 8, &[Field::at("type", number, 0), Field::at("max_entries", number, 64)]);
    let inner = btf.ptr(inner);
    let values = btf.array(inner, int, 0);
    let fields = [
        Field::at("type", number, 0),
        Field::at("max_entries", number, 64),
        Field::at("values", values, 128),
    ];
    let map = btf.structure("", 16, &fields);
    let variables: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(n, name)| (btf.variable(name, map, bpf_loader::btf::Linkage::Global), 16 * n as u32, 16))
        .collect();
    btf.datasec(".maps", (16 * names.len()) as u32, &variables);
    btf.build()
}

#[test]
fn many_maps() {
    let _alone = alone();
    let mut object = object();
    let names: Vec<_> = (0..MANY).map(|n| format!("{n:x}")).collect();
    let maps = object.section(".maps", elf::DATA, vec![0; 16 * MANY]);
    object.section(".BTF", 0, declared(&names));
    for (n, name) in names.iter().enumerate() {
        let name = object.string(name);
        object.symbol(name, elf::OBJECT, maps, 16 * n as u64, 16);
    }
    assert_eq!(check("maps", &object.build()), too_many("maps", 1024));
}

#[test]
fn many_names_of_one_map() {
    let _alone = alone();
    let mut object = object();
    let maps = object.section(".maps", elf::DATA, vec![0; 16]);
    object.section(".BTF", 0, declared(&["m".into()]));
    let name = object.string("m");
    for _ in 0..MANY {
        object.symbol(name, elf::OBJECT, maps, 0, 16);
    }
    assert_eq!(check("names of a map", &object.build()), too_many("maps", 1024));
}

#[test]
fn many_maps_without_types() {
    let _alone = alone();
    let mut object = object();
    let maps = object.section(".maps", elf::DATA, vec![0; 16]);
    object.section(".BTF", 0, declared(&[]));
    let name = object.string(&"m".repeat(300));
    for _ in 0..MANY {
        object.symbol(name, elf::OBJECT, maps, 0, 16);
    }
    assert_eq!(check("maps without types", &object.build()), too_many("maps", 1024));
}

#[test]
fn many_initial_entries_of_maps() {
    let _alone = alone();
    let mut object = object();
    let maps = object.section(".maps", elf::DATA, vec![0; 16 + 8 * MANY]);
    object.section(".BTF", 0, declared(&["m".into()]));
    let name = object.string("m");
    let symbol = object.symbol(name, elf::OBJECT, maps, 0, 16);
    object.relocations(maps, (0..MANY).map(|n| (16 + 8 * n as u64, symbol, 2)));
    assert_eq!(check("initial entries", &object.build()), Ok(()));
}

#[test]
fn many_references_to_many_maps() {
    let _alone = alone();
    let mut object = Object::default();
    let load = [Insn::new(insn::LD_IMM64, 1, 0, 0, 0), Insn::default()];
    let program = object.section("socket", elf::CODE, code((0..MANY).flat_map(|_| load).chain([EXIT])));
    let names: Vec<_> = (0..1000).map(|n| format!("{n:x}")).collect();
    let maps = object.section(".maps", elf::DATA, vec![0; 16 * MANY]);
    object.section(".BTF", 0, declared(&names));
    let name = object.string("program");
    object.symbol(name, elf::FUNCTION, program, 0, (16 * MANY + 8) as u64);
    let mut symbols = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let name = object.string(name);
        symbols.push(object.symbol(name, elf::OBJECT, maps, 16 * n as u64, 16));
    }
    object.relocations(program, (0..MANY).map(|n| (16 * n as u64, symbols[n % symbols.len()], 1)));
    assert_eq!(check("references to maps", &object.build()), Ok(()));
}

#[test]
fn many_data_sections() {
    let _alone = alone();
    let mut object = object();
    for _ in 0..MANY {
        object.section(".data.x", elf::DATA, vec![0; 1]);
    }
    assert_eq!(check("data sections", &object.build()), too_many("maps", 1024));
}

#[test]
fn many_externs() {
    let _alone = alone();
    let mut object = object();
    let mut btf = Builder::new(Endian::HOST);
    let int = btf.int("int", 4, 0);
    let variables: Vec<_> = (0..MANY)
        .map(|n| (btf.variable(&format!("{n:x}"), int, bpf_loader::btf::Linkage::Extern), 0, 4))
        .collect();
    btf.datasec(".ksyms", 0, &variables);
    object.section(".BTF", 0, btf.build());
    for n in 0..MANY {
        let name = object.string(&format!("{n:x}"));
        object.symbol(name, 0, 0, 0, 0);
    }
    assert_eq!(check("externs", &object.build()), Ok(()));
}

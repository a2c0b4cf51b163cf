//! Damaged input: the fuzz targets on thousands of mutations of good files, the same ones in every run.

#[path = "support/targets.rs"]
mod targets;

use bpf_loader::btf::encode::{BOOL, Builder, Field, SIGNED};
use bpf_loader::btf::{Btf, Kind, Linkage};
use bpf_loader::bytes::Endian;

/// Types of all kinds, with names that relocations look for.
fn types(endian: Endian) -> Builder {
    let mut b = Builder::new(endian);
    let int = b.int("int", 4, SIGNED);
    let long = b.int("unsigned long", 8, 0);
    let flag = b.int("_Bool", 1, BOOL);
    let pointer = b.ptr(int);
    let array = b.array(int, int, 3);
    let matrix = b.array(array, int, 2);
    let inner = b.composite(Kind::Union, "", 8, &[Field::at("x", int, 0), Field::at("y", long, 0)]);
    let constant = b.refer(Kind::Const, "", pointer);
    let tagged = b.refer(Kind::TypeTag, "user", constant);
    let fields = [
        Field::at("a", int, 0),
        Field::bits("flag", int, 33, 3),
        Field::at("", inner, 8),
        Field::at("matrix", matrix, 16),
        Field::at("p", tagged, 40),
    ];
    let s = b.structure("s", 48, &fields);
    b.typedef("s_t", s);
    b.enumeration("e", true, &[("A", -1), ("B", 2)]);
    b.enumeration64("w", false, &[("C", 1 << 40)]);
    b.forward("later", true);
    b.float("double", 8);
    let proto = b.prototype(int, &[("x", long), ("", flag)]);
    let function = b.function("f", proto, Linkage::Extern);
    let var = b.variable("v", s, Linkage::Global);
    let out = b.variable("out", int, Linkage::Extern);
    b.datasec("?.data", 0, &[(var, 0, 48)]);
    b.datasec(".ksyms", 0, &[(function, 0, 0), (out, 0, 4)]);
    b.datasec(".kconfig", 0, &[(out, 0, 4)]);
    b.decl_tag("tag", function, 0);
    b
}

/// `.BTF.ext` with a function, a line and relocations of every kind against the structure and the enumeration.
fn ext(b: &mut Builder, btf: &Btf<'_>) -> Vec<u8> {
    let section = b.string("socket");
    let id = |name, kind| btf.find_by_name(name, kind).unwrap().0;
    let (s, e) = (id("s", Kind::Struct), id("e", Kind::Enum));
    let mut relos = vec![16, section];
    let accesses = [(s, "0:0"), (s, "0:1"), (s, "0:3:1:2"), (s, "0:2:1"), (s, "1"), (s, "0"), (e, "1")];
    relos.push(13 * accesses.len() as u32);
    for (at, (type_id, access)) in accesses.into_iter().enumerate() {
        for kind in 0..13 {
            relos.extend([8 * at as u32, type_id, b.string(access), kind]);
        }
    }
    let functions = [8, section, 1, 0, id("f", Kind::Func)];
    let lines = [16, section, 1, 0, section, section, 7 << 10];
    let (functions_len, lines_len) = (4 * functions.len() as u32, 4 * lines.len() as u32);
    let header =
        [32, 0, functions_len, functions_len, lines_len, functions_len + lines_len, 4 * relos.len() as u32];
    let endian = btf.endian();
    let mut out = endian.put_u16(0xeb9f).to_vec();
    out.extend([1, 0]);
    let words = header.iter().chain(&functions).chain(&lines).chain(&relos);
    out.extend(words.flat_map(|&word| endian.put_u32(word)));
    out
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

/// Damages `data` in one to eight places.
fn mutate(data: &mut Vec<u8>, random: &mut Random) {
    const WORDS: [u32; 9] =
        [0, 1, 0xff, 0xffff, 0x00ff_ffff, 0x7fff_ffff, 0xffff_fff0, 0xffff_ffff, 0x8000_0000];
    for _ in 0..=random.next(8) {
        let at = random.next(data.len());
        match random.next(8) {
            0 => data.truncate(at),
            1 => {
                let to = random.next(data.len());
                let chunk: Vec<_> = data.iter().skip(at).take(12).copied().collect();
                data.splice(to..to, chunk);
            }
            2 | 3 => {
                let word = WORDS[random.next(WORDS.len())];
                let bytes = if random.next(2) == 0 { word.to_le_bytes() } else { word.to_be_bytes() };
                let at = at & !3;
                data.iter_mut().skip(at).zip(bytes).for_each(|(byte, new)| *byte = new);
            }
            4 => {
                // Ids and offsets that exist are the ones that lead somewhere.
                let at = at & !3;
                let small = (random.next(64) as u32).to_le_bytes();
                data.iter_mut().skip(at).zip(small).for_each(|(byte, new)| *byte = new);
            }
            _ => {
                let bit = 1 << random.next(8);
                data.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bit);
            }
        }
    }
}

fn run(target: fn(&[u8]), seeds: &[Vec<u8>], rounds: usize) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for seed in seeds {
        target(seed);
        for len in 0..seed.len().min(600) {
            target(&seed[..len]);
        }
        for _ in 0..rounds {
            let mut data = seed.clone();
            mutate(&mut data, &mut random);
            target(&data);
        }
    }
}

const ORDERS: [Endian; 2] = [Endian::Little, Endian::Big];

#[test]
fn damaged_btf_does_no_harm() {
    run(targets::btf, &ORDERS.map(|endian| types(endian).build()), 8_000);
}

#[test]
fn damaged_module_btf_does_no_harm() {
    let base = Btf::parse(types(Endian::Little).build()).unwrap();
    let mut b = Builder::split(&base);
    let pointer = b.ptr(bpf_loader::btf::BtfId(1));
    b.structure("mine", 16, &[Field::at("p", pointer, 0), Field::at("q", pointer, 8)]);
    run(targets::btf_split, &[b.build()], 8_000);
}

#[test]
fn damaged_btf_ext_does_no_harm() {
    let seeds = ORDERS.map(|endian| {
        let mut b = types(endian);
        let btf = Btf::parse(b.build()).unwrap();
        ext(&mut b, &btf)
    });
    run(targets::btf_ext, &seeds, 8_000);
}

#[test]
fn damaged_relocations_do_no_harm() {
    let seeds = ORDERS.map(|endian| {
        let mut local = types(endian);
        let btf = Btf::parse(local.build()).unwrap();
        let ext = ext(&mut local, &btf);
        let local = local.build();
        let mut data = Vec::new();
        data.extend((local.len() as u16).to_le_bytes());
        data.extend((ext.len() as u16).to_le_bytes());
        data.extend([local, ext, types(endian).build()].concat());
        data
    });
    run(targets::core_relo, &seeds, 4_000);
}

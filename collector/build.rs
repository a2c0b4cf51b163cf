//! Compresses the BPF objects that the binary carries: a tenth of their size.

use std::io::Write;
use std::path::Path;

use lzma_rust2::{LzmaOptions, LzmaWriter};

use differences::{Change, change};

mod packing {
    pub mod lines;
}
#[path = "src/differences.rs"]
mod differences;

const OBJECTS: [(&str, &[u8]); 10] = [
    ("disk", bpf_programs::DISK),
    ("dns", bpf_programs::DNS),
    ("heap", bpf_programs::HEAP),
    ("memory", bpf_programs::MEMORY),
    ("process", bpf_programs::PROCESS),
    ("profile", bpf_programs::PROFILE),
    ("sched", bpf_programs::SCHED),
    ("syscalls", bpf_programs::SYSCALLS),
    ("tcp", bpf_programs::TCP),
    ("udp", bpf_programs::UDP),
];
/// What the feature `unwind` adds.
const UNWINDING: [(&str, &[u8]); 3] = [
    ("heap_unwind", bpf_programs::HEAP_UNWIND),
    ("offcpu", bpf_programs::OFFCPU),
    ("profile_unwind", bpf_programs::PROFILE_UNWIND),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=packing");
    println!("cargo::rerun-if-changed=src/differences.rs");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let write = |name: &str, bytes: &[u8]| {
        let path = Path::new(&out).join(name).with_extension("lzma");
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    };
    let base = prepared(bpf_programs::PROFILE);
    let unwinding = std::env::var_os("CARGO_FEATURE_UNWIND").map(|_| UNWINDING);
    let packed: Vec<_> = OBJECTS
        .into_iter()
        .chain(unwinding.into_iter().flatten())
        .map(|(name, object)| (name, pack(if name == "profile" { &[] } else { &base }, object)))
        .collect();
    // What begins with the same bytes is packed as the same bytes, but for what is looked for across its end.
    let (_, (_, first)) = &packed[0];
    let common = |other: &[u8]| first.iter().zip(other).take_while(|(a, b)| a == b).count();
    let start = packed[1..].iter().map(|(_, (_, other))| common(other)).min().expect("there are others");
    write("start", &first[..start]);
    for (name, (header, packed)) in &packed {
        write(name, &[header, &packed[start..]].concat());
    }
}

/// An object as it is carried.
fn prepared(object: &[u8]) -> Vec<u8> {
    let mut object = object.to_vec();
    if std::env::var_os("CARGO_FEATURE_SOURCE_LINES").is_none() {
        packing::lines::clear(&mut object);
    }
    object
}

/// As `src/objects.rs` unpacks it: length and CRC-32 of the object; LZMA without a header, its parameters being those of
/// `src/lzma.rs`, of the base and the object with differences.
fn pack(base: &[u8], object: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let object = prepared(object);
    let header = [(object.len() as u32).to_le_bytes(), crc32fast::hash(&object).to_le_bytes()].concat();
    let mut options = LzmaOptions::with_preset(9);
    (options.lc, options.lp, options.pb) = (0, 2, 2);
    options.dict_size = 1 << 20;
    options.nice_len = 273;
    options.depth_limit = 512;
    let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false).expect("writing to memory");
    for part in [base, &object] {
        let mut part = part.to_vec();
        if !part.is_empty() {
            change(&mut part, Change::ToDifferences).expect("an object of clang's");
        }
        writer.write_all(&part).expect("writing to memory");
    }
    (header, writer.finish().expect("writing to memory"))
}

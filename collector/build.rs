//! Compresses the BPF objects that the binary carries: a tenth of their size.

use std::io::Write;
use std::path::Path;

use lzma_rust2::{LzmaOptions, LzmaWriter};

mod packing {
    pub mod lines;
}

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

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=packing");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let base = prepared(bpf_programs::PROFILE);
    // Whatever is coded by a position's lowest bits begins anew there.
    assert!(base.len() % 4 == 0, "an ELF file for 64-bit machines ends with its table of sections");
    for (name, object) in OBJECTS {
        let path = Path::new(&out).join(name).with_extension("bpf.o.lzma");
        let packed = pack(&prepared(object), if name == "profile" { &[] } else { &base });
        std::fs::write(&path, packed).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
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

/// As `src/objects.rs` unpacks it: length, CRC-32, LZMA without a header, its parameters being those of `src/lzma.rs`.
fn pack(bytes: &[u8], base: &[u8]) -> Vec<u8> {
    let mut options = LzmaOptions::with_preset(9);
    (options.lc, options.lp, options.pb) = (0, 2, 2);
    options.dict_size = (base.len() + bytes.len()).next_power_of_two().max(4096) as u32;
    options.nice_len = 273;
    options.depth_limit = 512;
    options.preset_dict = (!base.is_empty()).then(|| base.to_vec());
    let mut packed = (bytes.len() as u32).to_le_bytes().to_vec();
    packed.extend(crc32fast::hash(bytes).to_le_bytes());
    let mut writer = LzmaWriter::new_no_header(packed, &options, false).expect("writing to memory");
    writer.write_all(bytes).expect("writing to memory");
    writer.finish().expect("writing to memory")
}

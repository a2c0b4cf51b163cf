//! Compresses the BPF objects that the binary carries: a tenth of their size.

use std::io::Write;
use std::path::Path;

use lzma_rust2::{Lzma2Options, Lzma2Writer};

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
    for (name, object) in OBJECTS {
        let mut object = object.to_vec();
        if std::env::var_os("CARGO_FEATURE_SOURCE_LINES").is_none() {
            packing::lines::clear(&mut object);
        }
        let path = Path::new(&out).join(name).with_extension("bpf.o.xz");
        std::fs::write(&path, xz(&object)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// An xz file of one block with a CRC-32, as <https://tukaani.org/xz/xz-file-format.txt> describes it.
fn xz(bytes: &[u8]) -> Vec<u8> {
    const FLAGS: [u8; 2] = [0, 1];
    const BLOCK_HEADER: usize = 12;
    let crc = |bytes: &[u8]| crc32fast::hash(bytes).to_le_bytes();

    // The decoder's memory is as large as the dictionary.
    let mut options = Lzma2Options::with_preset(9);
    let dictionary = bytes.len().next_power_of_two().max(4096);
    options.lzma_options.dict_size = dictionary as u32;
    options.lzma_options.nice_len = 273;
    options.lzma_options.depth_limit = 512;
    let mut writer = Lzma2Writer::new(Vec::new(), options);
    writer.write_all(bytes).expect("writing to memory");
    let compressed = writer.finish().expect("writing to memory");

    let mut file = vec![0xfd, b'7', b'z', b'X', b'Z', 0];
    file.extend(FLAGS);
    file.extend(crc(&FLAGS));
    // One filter, LZMA2, with one byte of properties: the dictionary's size, 2^(n / 2 + 12) for an even n.
    let dictionary = 2 * (dictionary.ilog2() as u8 - 12);
    let header = [(BLOCK_HEADER / 4 - 1) as u8, 0, 0x21, 1, dictionary, 0, 0, 0];
    file.extend(header);
    file.extend(crc(&header));
    file.extend(&compressed);
    pad(&mut file);
    file.extend(crc(bytes));

    let mut index = vec![0, 1];
    number(&mut index, BLOCK_HEADER + compressed.len() + 4);
    number(&mut index, bytes.len());
    pad(&mut index);
    file.extend(&index);
    file.extend(crc(&index));

    // The index with its check, in words, less one.
    let mut footer = (index.len() as u32 / 4).to_le_bytes().to_vec();
    footer.extend(FLAGS);
    file.extend(crc(&footer));
    file.extend(footer);
    file.extend(b"YZ");
    file
}

/// Sections of an xz file begin at multiples of four bytes.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Seven bits a byte, low ones first; the highest bit says that more follow.
fn number(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

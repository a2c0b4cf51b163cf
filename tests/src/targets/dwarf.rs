//! Debug information.

use bpf_loader::btf::Btf;
use bpf_loader::dwarf::dwarf_to_btf;

/// An ELF file with debug information: what becomes BTF at all is whole.
pub fn loader_dwarf(data: &[u8]) {
    let Ok(converted) = dwarf_to_btf(data) else { return };
    let btf = Btf::parse(converted.btf).expect("BTF that was made parses");
    btf.validate().expect("it refers to nothing but itself");
}

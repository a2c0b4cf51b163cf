//! What several integration tests need: objects compiled by clang, and a machine that runs them.
#![allow(dead_code, reason = "each test uses a part")]

pub mod machine;

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use bpf_loader::Error;
use bpf_loader::btf::Btf;
use bpf_loader::btf::encode::Builder;
use bpf_loader::btf::ext::{BtfExt, CoreRelo};
use bpf_loader::bytes::Endian;
use bpf_loader::core_relo::{Patched, patch, resolve};
use bpf_loader::features::Features;
use bpf_loader::insn::InsnIdx;
use bpf_loader::target::{ModuleBtf, TargetBtf};
use bpf_sys::uapi::insn::Insn;
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget};

/// A kernel made up of one BTF.
pub struct Target(pub Btf<'static>);

impl TargetBtf for Target {
    fn vmlinux(&self) -> Result<Option<&Btf<'_>>, Box<Error>> {
        Ok(Some(&self.0))
    }

    fn modules(&self) -> Result<&[ModuleBtf<'_>], Box<Error>> {
        Ok(&[])
    }
}

/// A kernel without types of note, which takes everything.
pub struct MadeUp(Target);

impl MadeUp {
    pub fn new() -> Self {
        Self(Target(Btf::parse(Builder::new(Endian::Little).build()).unwrap()))
    }
}

impl bpf_loader::target::Target for MadeUp {
    fn types(&self) -> &dyn TargetBtf {
        &self.0
    }

    fn features(&self) -> &Features {
        &Features::ALL
    }

    fn page_size(&self) -> u32 {
        4096
    }

    fn possible_cpus(&self) -> u32 {
        1
    }
}

/// Is clang 19 here? Prints why not.
pub fn has_clang() -> bool {
    let found = Command::new("clang-19").arg("--version").stdout(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("skipped: no clang-19");
    }
    found
}

/// Runs clang in `dir` on C text given to it on standard input.
pub fn clang(dir: &Path, args: &[&str], text: &str) -> Vec<u8> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let out = std::env::temp_dir().join(format!("core-relo-{}-{number}.o", std::process::id()));
    let source = out.with_extension("c");
    std::fs::write(&source, text).unwrap();
    let mut command = Command::new("clang-19");
    let status = command.current_dir(dir).args(args).arg("-o").arg(&out).arg(&source).status();
    assert!(status.unwrap().success(), "clang-19 {args:?} failed on {}", source.display());
    let object = std::fs::read(&out).unwrap();
    std::fs::remove_file(&out).unwrap();
    std::fs::remove_file(&source).unwrap();
    object
}

/// Compiles C text for BPF of a byte order.
pub fn clang_bpf(dir: &Path, endian: Endian, include: &[&str], text: &str) -> Vec<u8> {
    let target = if endian == Endian::Little { "bpfel" } else { "bpfeb" };
    let mut args =
        vec!["-target", target, "-mcpu=v3", "-g", "-O2", "-c", "-ffreestanding", "-Wno-everything"];
    args.extend(include);
    clang(dir, &args, text)
}

/// An object file, taken apart.
pub struct BpfObject {
    pub btf: Btf<'static>,
    ext: Vec<u8>,
    code: HashMap<String, Vec<Insn>>,
    data: Vec<(u64, Vec<u8>)>,
    symbols: HashMap<String, u64>,
}

/// Where the section numbered `index` lies in the machine's memory.
fn address(index: usize) -> u64 {
    (index as u64 + 1) << 32
}

impl BpfObject {
    pub fn parse(elf: &[u8]) -> Self {
        let file = ElfFile64::<Endianness>::parse(elf).unwrap();
        let section =
            |name| file.section_by_name(name).map(|s| s.data().unwrap().to_vec()).unwrap_or_default();
        let btf = Btf::parse(section(".BTF")).unwrap().with_pointer_size(8);
        let big_endian = btf.endian() == Endian::Big;
        let (mut code, mut data) = (HashMap::new(), Vec::new());
        for section in file.sections() {
            let name = section.name().unwrap().to_owned();
            let bytes = section.data().unwrap();
            match section.kind() {
                object::SectionKind::Text => {
                    let words =
                        bytes.chunks_exact(8).map(|b| Insn::from_bytes(b.try_into().unwrap(), big_endian));
                    let mut insns: Vec<_> = words.collect();
                    for (at, relocation) in section.relocations() {
                        let RelocationTarget::Symbol(index) = relocation.target() else { continue };
                        let symbol = file.symbol_by_index(index).unwrap();
                        let Some(of) = symbol.section_index() else { continue };
                        let (low, high) = insns.split_at_mut(at as usize / 8 + 1);
                        let first = low.last_mut().unwrap();
                        let value = address(of.0) + symbol.address() + first.imm as u64;
                        first.imm = value as i32;
                        high[0].imm = (value >> 32) as i32;
                    }
                    code.insert(name, insns);
                }
                object::SectionKind::UninitializedData => {
                    data.push((address(section.index().0), vec![0; section.size() as usize]));
                }
                object::SectionKind::Data | object::SectionKind::ReadOnlyData => {
                    data.push((address(section.index().0), bytes.to_vec()));
                }
                _ => {}
            }
        }
        let symbols = file.symbols().filter_map(|symbol| {
            let section = symbol.section_index()?;
            Some((symbol.name().ok()?.to_owned(), address(section.0) + symbol.address()))
        });
        Self { btf, ext: section(".BTF.ext"), code, data, symbols: symbols.collect() }
    }

    /// Address of a symbol in the machine's memory.
    pub fn symbol(&self, name: &str) -> u64 {
        self.symbols[name]
    }

    /// Data sections, with their addresses.
    pub fn data(&self) -> &[(u64, Vec<u8>)] {
        &self.data
    }

    /// Relocations with the names of their sections.
    pub fn relos(&self) -> Vec<(String, CoreRelo)> {
        let mut all = Vec::new();
        if !self.ext.is_empty() {
            for section in BtfExt::parse(&self.ext).unwrap().core_relos() {
                let name = section.name(&self.btf).unwrap().to_owned();
                all.extend(section.records.map(|relo| (name.clone(), relo)));
            }
        }
        all
    }

    /// The code of all sections, relocated for `target`, and what was poisoned.
    pub fn relocate(&self, target: &dyn TargetBtf) -> Result<Relocated, Box<Error>> {
        let (mut code, mut poisoned) = (self.code.clone(), Vec::new());
        let relos = self.relos();
        let resolutions = resolve(&self.btf, relos.iter().map(|(_, relo)| *relo), target)?;
        for ((section, relo), resolution) in relos.into_iter().zip(resolutions) {
            let insns = code.get_mut(&section).unwrap();
            if let Patched::Poisoned(_) = patch(insns, relo.insn().unwrap(), &resolution?)? {
                poisoned.push((section, relo.insn().unwrap(), relo));
            }
        }
        Ok(Relocated { code, poisoned })
    }
}

pub struct Relocated {
    pub code: HashMap<String, Vec<Insn>>,
    pub poisoned: Vec<(String, InsnIdx, CoreRelo)>,
}

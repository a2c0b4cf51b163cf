//! `relocate`: the instructions that libbpf and bpf-loader make of the same program for the same kernel types.
//!
//! Both take externs from the running kernel, and only CO-RE uses the given types. Neither loads a program: libbpf is stopped after its preparation, bpf-loader only plans.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use bpf_loader::btf::Btf;
use bpf_loader::insn::{InsnIdx, Operand};
use bpf_loader::kind::SectionName;
use bpf_loader::object::ObjectSpec;
use bpf_loader::plan::ProgramCode;
use bpf_loader::target::RunningTarget;
use bpf_sys::uapi::insn;

use crate::functions::{Function, split, to_bytes};
use crate::libbpf::{self, Object};

/// Where the running kernel has its types.
const RUNNING: &str = "/sys/kernel/btf/vmlinux";

#[derive(Default)]
struct Counts {
    objects: usize,
    programs: usize,
    instructions: usize,
    /// CO-RE relocations of the compared functions, each once, and of all.
    relocations: usize,
    all_relocations: usize,
    differ: usize,
    /// Programs that only one side relocates, by its reason.
    only_libbpf: BTreeMap<String, usize>,
    only_ours: BTreeMap<String, usize>,
    neither: usize,
}

/// Compares all programs of all objects; true if no instruction differs. Prints what does, and at last how many were
/// compared and how many were not, by cause.
pub fn run(btf: &Path, objects: &[&Path]) -> bool {
    let target = match std::fs::read(btf).map_err(|e| e.to_string()) {
        Err(e) => return fail(&format!("{}: {e}", btf.display())),
        Ok(_) if btf == Path::new(RUNNING) => RunningTarget::new(),
        Ok(bytes) => match Btf::parse(bytes) {
            Ok(btf) => RunningTarget::new().with_btf(btf),
            Err(e) => return fail(&format!("{}: {e}", btf.display())),
        },
    };
    let mut counts = Counts::default();
    for path in objects {
        if let Err(e) = compare_object(path, btf, &target, &mut counts) {
            println!("{}: {e}", path.display());
            counts.differ += 1;
        }
    }
    println!(
        "{} objects, {} programs, {} instructions, {} of {} CO-RE relocations compared: {} programs differ",
        counts.objects,
        counts.programs,
        counts.instructions,
        counts.relocations,
        counts.all_relocations,
        counts.differ
    );
    println!("not compared: {} programs that neither relocates", counts.neither);
    for (who, causes) in [("libbpf", &counts.only_libbpf), ("ebpf-otlp", &counts.only_ours)] {
        for (cause, count) in causes {
            println!("not compared: {count} programs that only {who} relocates: {cause}");
        }
    }
    counts.differ == 0
}

fn fail(message: &str) -> bool {
    eprintln!("conformance-libbpf: {message}");
    false
}

fn compare_object(
    path: &Path,
    btf: &Path,
    target: &RunningTarget,
    counts: &mut Counts,
) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let object = Object::open(path, Some(btf)).map_err(|_| libbpf::messages());
    let Ok(object) = object else { return Ok(()) };
    counts.objects += 1;
    let mut spec = ObjectSpec::parse(&bytes).map_err(|e| e.to_string())?;
    // What a program is attached to is no part of relocation, and need not be in these types.
    spec.programs.iter_mut().for_each(|p| p.kind = SectionName::parse("socket"));
    let plan = spec.plan_programs(target, |_| true).map_err(|e| e.to_string())?;
    let whole = relocated(&object, |object| object.programs().for_each(|p| p.set_autoload(true)));
    let mut compared = HashSet::new();
    for program in object.programs() {
        let name = program.name();
        let theirs = if whole.is_ok() {
            Ok(program.instructions())
        } else {
            // One that cannot be relocated must not take the others with it.
            let alone = Object::open(path, Some(btf)).map_err(|errno| format!("errno {errno}"))?;
            relocated(&alone, |object| object.choose(&name)).map(|()| {
                alone.programs().find(|p| p.name() == name).map_or(Vec::new(), |p| p.instructions())
            })
        };
        let ours = plan.programs.iter().find(|p| p.name == name).ok_or(format!("{name}: not a program"))?;
        match (&ours.code, theirs) {
            (Ok(code), Ok(theirs)) => {
                counts.programs += 1;
                counts.instructions += theirs.len();
                compared.extend(
                    code.func_info.chunks_exact(8).map(|record| [record[4], record[5], record[6], record[7]]),
                );
                if let Some(difference) = difference(&split(&bound(code)), &split(&theirs)) {
                    counts.differ += 1;
                    println!("{}: {name}: {difference}", path.display());
                }
            }
            (Ok(_), Err(reason)) => *counts.only_ours.entry(cause(&reason)).or_default() += 1,
            (Err(e), Ok(_)) => *counts.only_libbpf.entry(cause(&e.to_string())).or_default() += 1,
            (Err(_), Err(_)) => counts.neither += 1,
        }
    }
    count_relocations(&spec, &compared, counts);
    Ok(())
}

/// Counts the relocations in functions of these types, and all.
fn count_relocations(spec: &ObjectSpec<'_>, compared: &HashSet<[u8; 4]>, counts: &mut Counts) {
    let (Some(btf), Some(ext)) = (&spec.btf, &spec.ext) else { return };
    let mut functions = BTreeMap::new();
    for section in ext.func_info() {
        let Ok(name) = section.name(btf) else { continue };
        functions.extend(section.records.map(|f| ((name, f.insn_offset), f.type_id.0.to_ne_bytes())));
    }
    for section in ext.core_relos() {
        let Ok(name) = section.name(btf) else { continue };
        for relocation in section.records {
            counts.all_relocations += 1;
            let function = functions.range((name, 0)..=(name, relocation.insn_offset)).next_back();
            counts.relocations += usize::from(function.is_some_and(|(_, id)| compared.contains(id)));
        }
    }
}

/// Has libbpf relocate; whether it came so far, though what it does next may fail.
fn relocated(object: &Object, choose: impl Fn(&Object)) -> Result<(), String> {
    choose(object);
    libbpf::messages();
    let errno = object.prepare();
    let said = libbpf::messages();
    // Maps are created after relocation.
    if errno == 0 || said.contains("failed to create") {
        return Ok(());
    }
    Err(said.lines().next().unwrap_or("no reason").trim_start_matches("libbpf: ").to_owned())
}

/// The planned instructions as libbpf writes them, but for the numbers of descriptors.
fn bound(code: &ProgramCode) -> Vec<[u8; 8]> {
    let mut insns = code.insns.clone();
    for (InsnIdx(at), operand) in &code.operands {
        let at = *at as usize;
        match operand {
            Operand::Map(_) => insns[at] = insns[at].with_src(insn::PSEUDO_MAP_FD),
            Operand::MapValue { offset, .. } => {
                insns[at] = insns[at].with_src(insn::PSEUDO_MAP_VALUE);
                insns[at + 1].imm = *offset as i32;
            }
            Operand::ModuleBtf(_) | Operand::Extern { .. } => {}
        }
    }
    insns.into_iter().map(to_bytes).collect()
}

/// An error without the name that it begins with or has in quotes, so that like ones count together.
fn cause(error: &str) -> String {
    let quoted = error.find('\'').zip(error.rfind('\'')).filter(|(from, to)| from < to);
    match (quoted, error.split_once(": ")) {
        (Some((from, to)), _) => format!("{}...{}", &error[..from], &error[to + 1..]),
        (None, Some((_, rest))) => rest.to_owned(),
        (None, None) => error.to_owned(),
    }
}

fn difference(ours: &[Function], theirs: &[Function]) -> Option<String> {
    if ours.len() != theirs.len() {
        return Some(format!("{} functions, libbpf has {}", ours.len(), theirs.len()));
    }
    for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let count = ours.len().max(theirs.len());
        let differs = (0..count).find(|&i| ours.get(i) != theirs.get(i));
        if let Some(at) = differs {
            let (ours, theirs) = (ours.get(at), theirs.get(at));
            return Some(format!("function {number}, instruction {at}: {ours:02x?}, libbpf {theirs:02x?}"));
        }
    }
    None
}

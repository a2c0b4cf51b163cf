//! Programs as machines check them that cannot load across words, riscv64 among them.

use std::collections::BTreeMap;

use bpf_loader::kernel::RunningKernel;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use bpf_sys::uapi::flags::BPF_F_STRICT_ALIGNMENT;
use collector::objects::{self, Packed};

/// Loads all programs with these flags; how many were asked for, and why the kernel refused which.
fn refused(packed: Packed, flags: u32) -> (usize, BTreeMap<String, String>) {
    let bytes = packed.unpack().unwrap();
    let mut spec = ObjectSpec::parse(&bytes).unwrap();
    for program in &mut spec.programs {
        // The host's kernel checks the others, in a hundredth of the time.
        let kinds = ["?kprobe", "?kretprobe", "?fentry", "?fexit"];
        program.autoload =
            !crate::is_emulated() || kinds.iter().any(|kind| program.section.starts_with(kind));
    }
    let mut plan = spec.plan(&RunningTarget::new()).unwrap();
    let codes = plan.programs.iter_mut().filter_map(|program| program.code.as_mut().ok());
    codes.for_each(|code| code.flags |= flags);
    let programs = plan.load(&RunningKernel::default()).unwrap().programs;
    let asked_for = programs.len();
    let refused = programs.into_iter().filter_map(|(name, result)| Some((name, result.err()?.to_string())));
    (asked_for, refused.collect())
}

#[test]
fn no_program_loads_across_words() {
    let mut taken = 0;
    for packed in objects::ALL {
        let (programs, strict) = refused(*packed, BPF_F_STRICT_ALIGNMENT);
        taken += programs - strict.len();
        // What this kernel does not take anyway. All are loaded again, since some exclude each other.
        let plain = if strict.is_empty() { BTreeMap::new() } else { refused(*packed, 0).1 };
        for (name, why) in &strict {
            assert!(plain.contains_key(name), "{}: {name}: {why}", packed.name);
        }
    }
    assert!(taken > 20 || !crate::is_root(), "only {taken} were taken");
}

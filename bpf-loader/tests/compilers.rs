//! Objects of many compilers, parsed and planned for a kernel that is made up.

#[path = "support/compilers.rs"]
mod compilers;

use bpf_loader::Error;
use bpf_loader::btf::Btf;
use bpf_loader::btf::encode::{Builder, Field};
use bpf_loader::bytes::Endian;
use bpf_loader::features::Features;
use bpf_loader::insn::Operand;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::{ModuleBtf, Target, TargetBtf};

/// A kernel whose tasks have their `tgid` at byte 12.
struct MadeUp(Btf<'static>);

impl MadeUp {
    fn new() -> Self {
        let mut types = Builder::new(Endian::Little);
        let int = types.int("int", 4, 1);
        types.structure("task_struct", 16, &[Field::at("pid", int, 8), Field::at("tgid", int, 12)]);
        Self(Btf::parse(types.build()).unwrap())
    }
}

impl TargetBtf for MadeUp {
    fn vmlinux(&self) -> Result<Option<&Btf<'_>>, Box<Error>> {
        Ok(Some(&self.0))
    }

    fn modules(&self) -> Result<&[ModuleBtf<'_>], Box<Error>> {
        Ok(&[])
    }
}

impl Target for MadeUp {
    fn types(&self) -> &dyn TargetBtf {
        self
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

#[test]
fn all_of_clang_are_planned_alike() {
    let samples = [(compilers::LITTLE, Endian::Little), (compilers::BIG, Endian::Big)];
    for ((name, bytes), endian) in
        samples.iter().flat_map(|(all, endian)| all.iter().map(move |s| (s, endian)))
    {
        if name.starts_with("rustc") {
            continue;
        }
        let spec = ObjectSpec::parse(bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((spec.endian(), spec.license), (*endian, "GPL"), "{name}");
        assert!(spec.broken_maps.is_empty() && spec.broken_functions.is_empty(), "{name}");
        let programs: Vec<_> = spec.programs.iter().map(|p| (p.name, p.autoload)).collect();
        let expected = [("count", true), ("look", true), ("nothing", false)];
        assert!(expected.iter().all(|program| programs.contains(program)), "{name}: {programs:?}");
        let sizes = |map: &str| spec.map(map).map(|m| (m.key_size, m.value_size, m.max_entries));
        assert_eq!(sizes("counts"), Some((4, 16, 64)), "{name}");
        assert_eq!(sizes("plain"), Some((4, 8, 4)), "{name}");

        let plan = spec.plan_programs(&MadeUp::new(), |_| true).unwrap_or_else(|e| panic!("{name}: {e}"));
        for program in &plan.programs {
            let code = program.code.as_ref().unwrap_or_else(|e| panic!("{name}: {}: {e}", program.name));
            if program.name != "count" {
                continue;
            }
            // The offsets of the made-up kernel's `tgid` and `pid`; its flavourless `nowhere` is missing, so 0.
            let immediates: Vec<i32> = code.insns.iter().map(|insn| insn.imm).collect();
            assert!(immediates.contains(&12) && immediates.contains(&8), "{name}: {immediates:?}");
            let maps: Vec<&Operand> = code.operands.iter().map(|(_, operand)| operand).collect();
            assert!(maps.iter().any(|operand| matches!(operand, Operand::Map(_))), "{name}: {maps:?}");
            assert!(maps.iter().any(|operand| matches!(operand, Operand::MapValue { .. })), "{name}");
            // Its own, and the two that it calls.
            assert_eq!(code.func_info.len(), 3 * 8, "{name}");
        }
    }
}

#[test]
fn those_of_rustc_too() {
    for (name, bytes) in compilers::LITTLE.iter().chain(compilers::BIG) {
        if !name.starts_with("rustc") {
            continue;
        }
        let spec = ObjectSpec::parse(bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let map = spec.map("COUNTS").unwrap_or_else(|| panic!("{name}: {:?}", spec.broken_maps));
        assert_eq!((map.map_type.0, map.key_size, map.value_size, map.max_entries), (1, 4, 8, 64), "{name}");
        let plan = spec.plan(&MadeUp::new()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let code = plan.programs[0].code.as_ref().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((plan.programs[0].name, code.operands.len()), ("count", 1), "{name}");
    }
}

//! Programs as machines check them that cannot load across words, riscv64 among them.

use bpf_loader::kernel::RunningKernel;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::RunningTarget;
use collector::objects::{self, Packed};

/// What became of each program, asked for with these flags.
fn load(packed: Packed, flags: u32) -> Vec<(String, Result<(), String>)> {
    let bytes = packed.unpack().unwrap();
    let mut spec = ObjectSpec::parse(&bytes).unwrap();
    spec.programs.iter_mut().for_each(|program| program.autoload = true);
    let mut plan = spec.plan(&RunningTarget::new()).unwrap();
    for program in &mut plan.programs {
        if let Ok(code) = &mut program.code {
            code.flags |= flags;
        }
    }
    let loaded = plan.load(&RunningKernel::default()).unwrap();
    let programs = loaded.programs.into_iter();
    programs.map(|(name, result)| (name, result.map(drop).map_err(|error| error.to_string()))).collect()
}

#[test]
fn no_program_loads_across_words() {
    let mut checked = 0;
    for packed in objects::ALL {
        let strict = load(*packed, bpf_sys::uapi::flags::BPF_F_STRICT_ALIGNMENT);
        for ((name, plain), (_, strict)) in load(*packed, 0).into_iter().zip(strict) {
            if plain.is_ok() {
                assert_eq!(strict, Ok(()), "{}: {name}", packed.name);
                checked += 1;
            }
        }
    }
    assert!(checked > 30 || !crate::is_root(), "only {checked} were taken at all");
}

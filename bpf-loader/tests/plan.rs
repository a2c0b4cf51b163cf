//! Plans of objects that clang makes, for a kernel that is made up.

#[path = "support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::path::Path;

use bpf_loader::Error;
use bpf_loader::btf::Btf;
use bpf_loader::btf::encode::Builder;
use bpf_loader::bytes::Endian;
use bpf_loader::features::Features;
use bpf_loader::object::ObjectSpec;
use bpf_loader::target::{Target, TargetBtf};

/// A kernel without types of note, which takes everything.
struct MadeUp(support::Target);

impl MadeUp {
    fn new() -> Self {
        Self(support::Target(Btf::parse(Builder::new(Endian::Little).build()).unwrap()))
    }
}

impl Target for MadeUp {
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

/// Assembles a function of `callee` instructions and `programs` programs that call it.
fn shared_callee(callee: usize, programs: usize) -> Vec<u8> {
    let mut text = format!(
        ".text\n.globl big\n.type big,@function\nbig:\n.rept {}\nr0 = 0\n.endr\nexit\n.size big, .-big\n\
         .section socket,\"ax\",@progbits\n",
        callee - 1
    );
    for i in 0..programs {
        write!(text, ".globl p{i}\n.type p{i},@function\np{i}:\ncall big\nexit\n.size p{i}, .-p{i}\n")
            .unwrap();
    }
    support::clang(Path::new("."), &["-target", "bpfel", "-x", "assembler", "-c"], &text)
}

#[test]
fn the_programs_of_a_plan_have_a_limit_together() {
    if !support::has_clang() {
        return;
    }
    let object = shared_callee(499_998, 10);
    let spec = ObjectSpec::parse(&object).unwrap();
    let plan = spec.plan(&MadeUp::new()).unwrap();
    let sizes: Vec<_> = plan.programs.iter().map(|p| p.code.as_ref().map(|code| code.insns.len())).collect();
    let (within, past) = sizes.split_at(8);
    assert!(within.iter().all(|size| *size == Ok(500_000)), "{within:?}");
    assert!(past.iter().all(|size| *size == Err(&Error::PlanTooLarge { limit: 4_000_000 })), "{past:?}");
}

//! Programs that name a function of a module.

use std::path::Path;

use bpf_loader::Error;
use bpf_loader::kernel::RunningKernel;
use bpf_loader::target::RunningTarget;

use crate::{kernel_has, parse, permitted, skip};

const OBJECT: &[u8] = include_bytes!("../bpf/prebuilt/module_functions.bpf.o");

#[test]
fn tracing_programs_load_for_functions_of_modules() {
    if !kernel_has((5, 11)) || !Path::new("/sys/kernel/btf/nf_conntrack").exists() {
        return skip("needs the module nf_conntrack and Linux 5.11").unwrap_or_default();
    }
    let loaded = parse(OBJECT).plan(&RunningTarget::new()).unwrap().load(&RunningKernel::default()).unwrap();
    for (name, program) in loaded.programs {
        if name == "in_no_module" {
            let Err(Error::InProgram { error, .. }) = program.as_ref().map_err(Box::as_ref) else {
                panic!("{program:?}")
            };
            assert_eq!(**error, Error::NoSuchTarget { name: "no_such_module:nf_conntrack_in".into() });
        } else if permitted(program).is_none() {
            return;
        }
    }
}

//! Objects of many compilers, loaded.

#[path = "../support/compilers.rs"]
mod samples;

use bpf_loader::Error;
use bpf_loader::kernel::RunningKernel;
use bpf_loader::target::RunningTarget;

use crate::{load_possible, parse};

#[test]
fn all_load() {
    // The order of bytes is the host's.
    let native = if cfg!(target_endian = "little") { samples::LITTLE } else { samples::BIG };
    for (name, bytes) in native {
        let Some(object) = load_possible(bytes) else { return };
        let expected = if name.starts_with("rustc") { 1 } else { 2 };
        assert_eq!(object.programs.len(), expected, "{name}");
    }
}

#[test]
fn those_for_other_machines_do_not() {
    let foreign = if cfg!(target_endian = "little") { samples::BIG } else { samples::LITTLE };
    for (name, bytes) in foreign {
        let loaded = parse(bytes).plan(&RunningTarget::new()).unwrap().load(&RunningKernel::default());
        assert!(matches!(loaded.as_ref().map_err(Box::as_ref), Err(Error::ForeignEndian)), "{name}");
    }
}

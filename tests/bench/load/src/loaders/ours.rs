//! This project's loader.

use std::path::Path;

use bpf_loader::kernel::RunningKernel;
use bpf_loader::object::ObjectSpec;
use bpf_loader::object_file::read_object;
use bpf_loader::target::RunningTarget;

use crate::meter::Result;

pub fn load(object: &Path, target: &RunningTarget) -> Result<()> {
    let bytes = read_object(object)?;
    let plan = ObjectSpec::parse(&bytes)?.plan(target)?;
    let loaded = plan.load(&RunningKernel::default())?.into_object()?;
    std::mem::forget(loaded);
    Ok(())
}

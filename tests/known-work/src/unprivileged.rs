//! A program as a user other than root that has just the capabilities that BPF needs.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

const USER: u32 = 1000;

/// Becomes `command`, as a user with `CAP_BPF` and `CAP_PERFMON`, which its programs inherit.
///
/// # Errors
///
/// This process may not, or there is no such program.
pub fn exec(command: &[String]) -> io::Result<()> {
    let (gid, uid) = (Gid::from_raw(USER), Uid::from_raw(USER));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_keep_capabilities(true)?;
    set_thread_res_uid(uid, uid, uid)?;
    let kept = CapabilitySet::BPF | CapabilitySet::PERFMON;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: kept })?;
    for capability in [CapabilitySet::BPF, CapabilitySet::PERFMON] {
        configure_capability_in_ambient_set(capability, true)?;
    }
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    Err(Command::new(program).args(arguments).exec())
}

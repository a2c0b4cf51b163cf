//! What is attached where.

use bpf_sys::AttachType;
use bpf_sys::link::Target;
use bpf_sys::prog::{self, QueryArrays};
use bpf_sys::uapi::flags::BPF_F_QUERY_EFFECTIVE;

use crate::error::Result;

/// The programs at an attach point, in the order in which they run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttachedPrograms {
    /// Ids of the programs.
    pub program_ids: Vec<u32>,
    /// `BPF_F_ALLOW_OVERRIDE`, `BPF_F_ALLOW_MULTI`, of a control group.
    pub flags: u32,
    /// Changes with each change of the list (tcx: Linux 6.6, netkit: 6.7, control groups: 6.17); 0 before.
    pub revision: u64,
}

/// Which programs are attached to a control group, network device (tcx, netkit), network namespace, socket map or LIRC
/// device; with `effective`, those of a control group's ancestors too that run for it.
///
/// # Errors
///
/// The kernel cannot tell: of socket maps before Linux 5.18, of others that it does not know.
pub fn attached_programs(
    target: Target<'_>,
    attach_type: AttachType,
    effective: bool,
) -> Result<AttachedPrograms> {
    let flags = if effective { BPF_F_QUERY_EFFECTIVE } else { 0 };
    let mut program_ids = vec![0; 64];
    loop {
        let mut arrays = QueryArrays { prog_ids: &mut program_ids, ..QueryArrays::default() };
        let query = prog::query(target, attach_type, flags, &mut arrays)?;
        let count = query.count as usize;
        if count <= program_ids.len() {
            program_ids.truncate(count);
            return Ok(AttachedPrograms { program_ids, flags: query.attach_flags, revision: query.revision });
        }
        // Others may attach more in between.
        program_ids.resize(count.saturating_mul(2), 0);
    }
}

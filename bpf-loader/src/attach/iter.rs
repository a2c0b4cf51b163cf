//! Iterators: programs that walk over the kernel's objects when somebody reads.

use bpf_sys::link::{self, IterTarget, LinkOptions, Target};
use bpf_sys::{AttachType, Errno, LinkDetail, LinkFd};

use super::create;
use crate::error::{Error, Result};
use crate::link::Link;
use crate::program::Program;

impl Program {
    /// Attaches an iterator (Linux 5.8), over one target if it is given, else over all objects of its kind. What the
    /// program writes is read through [`Link::iter`], or from the file that [`Link::pin`] makes.
    ///
    /// # Errors
    ///
    /// The iterator needs a target and has none, or the other way round; `EBADF`, `EINVAL`: the target is of the wrong
    /// kind. [`Error::Unsupported`]: control groups and tasks as targets.
    pub fn attach_iter(&self, target: Option<IterTarget<'_>>) -> Result<Link> {
        let options = target.map_or(LinkOptions::None, LinkOptions::Iter);
        let unsupported = |error| {
            let (feature, min_kernel) = match target {
                Some(IterTarget::Map(_)) | None => ("iterators over the elements of a map", (5, 9)),
                Some(_) => ("iterators over one task or control group", (6, 1)),
            };
            Box::new(Error::Unsupported { feature, min_kernel, error })
        };
        match create(self, Target::None, AttachType::TRACE_ITER, options) {
            Ok(link) if target.is_none_or(|target| heeds(&link, target)) => Ok(Link::from_fd(link)),
            Ok(_) => {
                Err(unsupported(bpf_sys::Error::Call { call: "bpf(BPF_LINK_CREATE)", errno: Errno::EINVAL }))
            }
            // A kernel that does not know the target's fields finds bytes there that should be zero.
            Err(e) if e.errno() == Some(Errno::E2BIG) && target.is_some() => Err(unsupported(e)),
            Err(e) if target.is_none() && matches!(e.errno(), Some(Errno::EBADF | Errno::EINVAL)) => {
                let reason =
                    "the iterator goes over one map, control group or other target, which it is to be given";
                Err(Box::new(Error::AttachTarget { target: self.section.clone(), reason }))
            }
            Err(e) => Err(e.into()),
        }
    }
}

/// Has the kernel taken the target to heart? Before Linux 6.1, the first field of any target was a map's descriptor to it,
/// which iterators over anything else ignore.
fn heeds(link: &LinkFd, target: IterTarget<'_>) -> bool {
    let Ok(info) = link::info(link) else { return false };
    let LinkDetail::Iter(iter) = info.detail() else { return false };
    match target {
        IterTarget::Task { tid, pid } => iter.id == u64::from(tid) | u64::from(pid) << 32,
        IterTarget::TaskPidFd(_) => iter.id != 0,
        IterTarget::Cgroup { order, .. } | IterTarget::CgroupId { order, .. } => iter.order == order,
        _ => true,
    }
}

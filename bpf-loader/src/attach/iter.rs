//! Iterators: programs that walk over the kernel's objects when somebody reads.

use bpf_sys::link::{IterTarget, LinkOptions, Target};
use bpf_sys::{AttachType, Errno};

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
        create(self, Target::None, AttachType::TRACE_ITER, options).map(Link::from_fd).map_err(|error| {
            let (feature, min_kernel) = match target {
                Some(IterTarget::Map(_)) => ("iterators over the elements of a map", (5, 9)),
                Some(_) => ("iterators over one task or control group", (6, 1)),
                None => ("iterators", (5, 8)),
            };
            // A kernel that does not know the target's fields finds bytes there that should be zero.
            match error.errno() {
                Some(Errno::E2BIG) => Error::Unsupported { feature, min_kernel, error },
                Some(Errno::EINVAL) if !self.has_links_over(target) => {
                    Error::Unsupported { feature, min_kernel, error }
                }
                _ => error.into(),
            }
        })
    }

    /// Before Linux 6.1, `union bpf_iter_link_info` had only a map in it, and `iter_info_len` could not say more.
    fn has_links_over(&self, target: Option<IterTarget<'_>>) -> bool {
        match target {
            None | Some(IterTarget::Map(_)) => true,
            Some(_) => super::linux_at_least((6, 1)),
        }
    }
}

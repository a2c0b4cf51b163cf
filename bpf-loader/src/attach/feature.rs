//! What to say when a kernel refuses to attach.

use bpf_sys::Errno;

use crate::error::Error;

/// A way to attach.
#[derive(Debug, Clone, Copy)]
pub(super) struct Feature {
    /// What errors call it.
    pub(super) name: &'static str,
    /// First Linux version that has it.
    pub(super) since: (u8, u8),
}

impl Feature {
    pub(super) const fn new(name: &'static str, since: (u8, u8)) -> Self {
        Self { name, since }
    }

    /// Whether the kernel refuses for want of the feature: it does not know the attach type, the flag or the field
    /// (which `E2BIG` is about). The same errno means many things, so the version decides, and a kernel that a
    /// distribution gave the feature in advance has no cause to refuse.
    pub(super) fn is_missing(self, error: &bpf_sys::Error) -> bool {
        let unknown = [Errno::EINVAL, Errno::E2BIG, Errno::EOPNOTSUPP, Errno::ENOTSUPP];
        error.errno().is_some_and(|errno| unknown.contains(&errno)) && bpf_sys::kernel_version() < self.since
    }

    /// The error to return for the kernel's.
    pub(super) fn refused(self, error: bpf_sys::Error) -> Box<Error> {
        if self.is_missing(&error) {
            Box::new(Error::Unsupported { feature: self.name, min_kernel: self.since, error })
        } else {
            error.into()
        }
    }
}

//! Attachments.

use bpf_sys::LinkFd;

/// An attachment; dropping it detaches.
#[derive(Debug)]
#[non_exhaustive]
pub enum Link {
    /// A BPF link.
    Bpf(LinkFd),
    /// By ioctl, before Linux 5.15: goes with the perf event, whose descriptor the caller keeps.
    PerfEvent,
}

//! Programs to many functions of a file at once.

use std::path::Path;

use bpf_sys::link::{LinkOptions, Target};
use bpf_sys::uapi::flags::BPF_F_UPROBE_MULTI_RETURN;
use bpf_sys::{AttachType, Errno, LinkFd};

use super::binary::{self, Binary};
use super::{create, uprobe};
use crate::error::{Error, Result};
use crate::link::Link;
use crate::program::Program;

/// Which functions of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryFunctions<'a> {
    /// All whose names match: `*` stands for any text, `?` for one character.
    Pattern(&'a str),
    /// By name, as in [`BinaryPlace::Function`](super::BinaryPlace::Function).
    Names(&'a [&'a str]),
    /// Bytes of the file, not addresses.
    Offsets(&'a [u64]),
}

/// How a program is attached to many functions of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UprobeMultiOptions<'a> {
    /// When the functions return, not when they are called. Programs of kind `uprobe.session` run at both.
    pub ret: bool,
    /// Only in this process; in all, if none. Linux 6.6 to 6.9 take it for a thread.
    pub pid: Option<u32>,
    /// What `bpf_get_attach_cookie` gives the program, for each function; or nothing. Not with a pattern.
    pub cookies: &'a [u64],
    /// Offset in the file of each function's counter (0 where it has none), or nothing. Not with a pattern.
    pub ref_ctr_offsets: &'a [u64],
}

impl Program {
    /// Attaches a program of kind `uprobe.multi` (Linux 6.6) or `uprobe.session` (6.13) to functions of a file, which is
    /// found as [`attach_uprobe`](Self::attach_uprobe) finds it.
    ///
    /// # Errors
    ///
    /// As there. [`Error::Unsupported`]: the kernel has no such links.
    pub fn attach_uprobe_multi(
        &self,
        path: &Path,
        functions: BinaryFunctions<'_>,
        options: &UprobeMultiOptions<'_>,
    ) -> Result<Link> {
        if !matches!(self.kind.attach_type, AttachType::TRACE_UPROBE_MULTI | AttachType::TRACE_UPROBE_SESSION)
        {
            return Err(Box::new(Error::AttachTarget {
                target: self.name.clone(),
                reason: "only programs of kind uprobe.multi or uprobe.session go to many functions",
            }));
        }
        let path = binary::resolve(path)?;
        let offsets = match functions {
            BinaryFunctions::Offsets(offsets) => offsets.to_vec(),
            BinaryFunctions::Names(names) => {
                let binary = Binary::open(&path)?;
                names.iter().map(|name| binary.function_offset(name)).collect::<Result<_>>()?
            }
            BinaryFunctions::Pattern(pattern) => {
                if !options.cookies.is_empty() || !options.ref_ctr_offsets.is_empty() {
                    let reason = "a pattern says nothing of the order of cookies and counters";
                    return Err(Box::new(Error::AttachTarget { target: pattern.into(), reason }));
                }
                Binary::open(&path)?.matching_offsets(pattern)?
            }
        };
        self.create_uprobe_multi(&path, &offsets, options).map(Link::from_fd).map_err(|error| {
            if error.errno() == Some(Errno::EINVAL) && !self.has_uprobe_multi() {
                let feature = if self.kind.attach_type == AttachType::TRACE_UPROBE_SESSION {
                    "sessions of uprobes"
                } else {
                    "links of many uprobes"
                };
                return Box::new(Error::Unsupported { feature, min_kernel: self.kind.min_kernel, error });
            }
            error.into()
        })
    }

    pub(super) fn create_uprobe_multi(
        &self,
        path: &Path,
        offsets: &[u64],
        options: &UprobeMultiOptions<'_>,
    ) -> bpf_sys::Result<LinkFd> {
        let path = uprobe::c_path(path).map_err(|_| bpf_sys::Error::Argument {
            call: "bpf(BPF_LINK_CREATE)",
            what: "the path has a zero byte",
        })?;
        let options = LinkOptions::UprobeMulti {
            path: &path,
            offsets,
            ref_ctr_offsets: options.ref_ctr_offsets,
            cookies: options.cookies,
            flags: if options.ret { BPF_F_UPROBE_MULTI_RETURN } else { 0 },
            pid: options.pid.unwrap_or(0),
        };
        let attach_type = match self.kind.attach_type {
            AttachType::TRACE_UPROBE_SESSION => AttachType::TRACE_UPROBE_SESSION,
            _ => AttachType::TRACE_UPROBE_MULTI,
        };
        create(self, Target::None, attach_type, options)
    }

    /// Is the program loaded for such links, by a kernel that has them? That finds that a directory is no file to probe.
    pub(super) fn has_uprobe_multi(&self) -> bool {
        let made = self.create_uprobe_multi(Path::new("/"), &[0], &UprobeMultiOptions::default());
        made.is_err_and(|e| e.errno() == Some(Errno::EBADF))
    }
}

//! Programs to control groups (version 2).

use std::os::fd::{AsFd, OwnedFd};

use bpf_sys::link::{self, LinkCreate, LinkOptions, Target};
use bpf_sys::prog::{self, Attach};
use bpf_sys::uapi::flags::{BPF_F_ALLOW_MULTI, BPF_F_ALLOW_OVERRIDE, BPF_F_PREORDER};
use bpf_sys::{AttachType, Errno, ProgFd};

use super::feature::Feature;
use super::place::Place;
use super::trampoline::Caller;
use crate::error::{Error, Result};
use crate::link::{Link, OlderAttachment};
use crate::program::Program;

/// How a program is attached to a control group by a link.
#[derive(Debug, Clone, Copy, Default)]
pub struct CgroupOptions<'a> {
    /// Where, for sections that do not tell (`cgroup/skb`).
    pub attach_type: Option<AttachType>,
    /// Its place among the group's own programs (Linux 6.17).
    pub place: Place<'a>,
    /// Run it before the programs of the group's ancestors (Linux 6.15; the default is after those of its
    /// descendants).
    pub preorder: bool,
}

/// Who else may have programs where one is attached without a link. All programs of one group agree in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody below the group.
    Exclusive,
    /// A descendant's program runs in its place.
    Override,
    /// All run: others of the group, and descendants'. What links use.
    Multi,
}

impl Sharing {
    const fn flags(self) -> u32 {
        match self {
            Self::Exclusive => 0,
            Self::Override => BPF_F_ALLOW_OVERRIDE,
            Self::Multi => BPF_F_ALLOW_MULTI,
        }
    }
}

impl Program {
    /// Attaches a program of a `cgroup`, `sockops` or `lsm_cgroup` section to a control group, of which `cgroup` is the
    /// open directory, for its processes and those of its descendants.
    ///
    /// # Errors
    ///
    /// The program is of another type; there is a program that allows no others ([`Sharing`]); the directory is no
    /// version 2 group's. [`Error::Unsupported`]: a place before Linux 6.17, `preorder` before 6.15,
    /// security hooks where the machine's kernels cannot call programs from functions yet (arm64: 6.4, riscv64: 6.8).
    pub fn attach_cgroup(&self, cgroup: impl AsFd, options: &CgroupOptions<'_>) -> Result<Link> {
        let (flags, link_options) = match options.place.is_default() {
            true => (0, LinkOptions::None),
            false => options.place.link()?,
        };
        let feature = match (options.place.is_default(), options.preorder) {
            (false, _) => Feature::new("places among a control group's programs", (6, 17)),
            (true, true) => Feature::new("pre-order programs of control groups", (6, 15)),
            (true, false) => Feature::new("links to control groups", (5, 7)),
        };
        let create = LinkCreate {
            object: self.fd.as_fd(),
            target: Target::Fd(cgroup.as_fd()),
            attach_type: options.attach_type.unwrap_or(self.kind.attach_type),
            flags: flags | if options.preorder { BPF_F_PREORDER } else { 0 },
            options: link_options,
        };
        link::create(&create).map(Link::from_fd).map_err(|e| match (self.kind.attach_type, e.errno()) {
            (AttachType::LSM_CGROUP, Some(Errno::ENOTSUPP)) => Caller::Function.refused(e),
            _ => feature.refused(e),
        })
    }

    /// As [`attach_cgroup`](Self::attach_cgroup), without a BPF link (`BPF_PROG_ATTACH`), which is how to forbid others or
    /// to take the place of a program, `replaced`, that another process attached so. Dropping the link detaches.
    ///
    /// # Errors
    ///
    /// As there; and `replaced` is not attached, or the sharing is not [`Sharing::Multi`], which needs none.
    pub fn attach_cgroup_without_link(
        &self,
        cgroup: impl AsFd,
        attach_type: Option<AttachType>,
        sharing: Sharing,
        replaced: Option<&Program>,
    ) -> Result<Link> {
        let attachment = CgroupAttachment {
            program: self.fd.try_clone()?,
            cgroup: cgroup.as_fd().try_clone_to_owned().map_err(Error::descriptor)?,
            attach_type: attach_type.unwrap_or(self.kind.attach_type),
            flags: sharing.flags(),
        };
        let replace = replaced.map(|program| program.fd.as_fd());
        prog::attach(&self.fd, &Attach { replace, ..attachment.attach() })?;
        Ok(Link::from_older(attachment))
    }
}

/// A program in a control group's list.
#[derive(Debug)]
struct CgroupAttachment {
    program: ProgFd,
    cgroup: OwnedFd,
    attach_type: AttachType,
    flags: u32,
}

impl CgroupAttachment {
    fn attach(&self) -> Attach<'_> {
        let target = Target::Fd(self.cgroup.as_fd());
        Attach { target, attach_type: self.attach_type, flags: self.flags, ..Attach::default() }
    }
}

impl OlderAttachment for CgroupAttachment {
    fn detach(&mut self) -> Result<()> {
        Ok(prog::detach(Some(&self.program), &Attach { flags: 0, ..self.attach() })?)
    }

    fn update(&mut self, program: &Program) -> Result<()> {
        let new = program.fd.try_clone()?;
        // Where there is only one, the new takes its place anyway.
        let replace = (self.flags == BPF_F_ALLOW_MULTI).then(|| self.program.as_fd());
        prog::attach(&new, &Attach { replace, ..self.attach() })?;
        self.program = new;
        Ok(())
    }
}

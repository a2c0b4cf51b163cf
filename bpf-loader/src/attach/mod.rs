//! Programs to hooks. An attachment lasts as long as its [`Link`].

mod binary;
mod cgroup;
mod feature;
mod freplace;
mod functions;
mod glob;
mod iter;
mod kprobe;
mod kprobe_multi;
mod netns;
mod perf_event;
mod place;
mod pmu;
mod query;
mod route;
mod section;
mod socket;
mod struct_ops;
mod syscall;
mod tc;
mod tracefs;
mod tracepoint;
mod tracing;
mod trampoline;
mod uprobe;
mod uprobe_multi;
pub mod usdt;
mod xdp;

use std::os::fd::AsFd;
use std::path::Path;

use bpf_sys::link::{self, LinkCreate, LinkOptions, Target};
use bpf_sys::{AttachType, Errno, LinkFd};

pub use self::cgroup::{CgroupOptions, Sharing};
pub use self::kprobe::{AttachMode, KernelPlace, KprobeOptions};
pub use self::kprobe_multi::{KernelFunctions, KprobeMultiOptions};
pub use self::netns::NetfilterHook;
pub use self::perf_event::PerfEventOptions;
pub use self::place::{Neighbour, Place, Position};
pub use self::query::{AttachedPrograms, attached_programs};
pub use self::syscall::{compat_syscall_function, syscall_function};
pub use self::tc::NetkitEnd;
pub use self::uprobe::{BinaryPlace, UprobeOptions};
pub use self::uprobe_multi::{BinaryFunctions, UprobeMultiOptions};
use crate::ALL_OBJECTS;
use crate::error::{Error, Result};
use crate::kernel::ACCOUNTED_ELSEWHERE;
use crate::link::Link;
use crate::program::Program;
pub use bpf_sys::netlink::{
    route::Route,
    tc::{Direction, FilterId},
    xdp::{Expected as ExpectedXdp, Mode as XdpMode},
};

impl Program {
    /// Attaches the program to what its section's name says, where that is all there is to say: `kprobe/FUNCTION+OFFSET`,
    /// `ksyscall/NAME`, `kprobe.multi/PATTERN`, `uprobe/PATH:FUNCTION+OFFSET`, `tracepoint/CATEGORY/NAME`,
    /// `raw_tracepoint/NAME`, `fentry/FUNCTION`, `lsm/HOOK`, `iter/KIND` and their relatives; `freplace`, to what it was
    /// loaded for. Programs of kind `usdt` are
    /// attached by [`Usdt::attach_by_section`](usdt::Usdt::attach_by_section), as they share maps.
    ///
    /// # Errors
    ///
    /// [`Error::NoAutoAttach`]: the name does not say it. [`Error::AttachTarget`]: it says it wrongly.
    /// [`Error::AttachKind`]: `fentry.multi` and its relatives. Whatever attaching meets.
    pub fn attach(&self) -> Result<Link> {
        let target = || section::target(self);
        let ret = self.kind.section.starts_with("kret") || self.kind.section.starts_with("uret");
        let probe = KprobeOptions { ret, ..KprobeOptions::default() };
        match self.kind.section {
            "kprobe" | "kretprobe" => {
                let (name, offset) = section::kprobe(target()?)?;
                self.attach_kprobe(KernelPlace::Function { name, offset }, &probe)
            }
            "ksyscall" | "kretsyscall" => self.attach_ksyscall(target()?, &probe),
            "kprobe.multi" | "kretprobe.multi" | "kprobe.session" if ALL_OBJECTS => {
                let functions = KernelFunctions::Pattern(section::pattern(target()?)?);
                self.attach_kprobe_multi(functions, &KprobeMultiOptions { ret, cookies: &[] })
            }
            "uprobe" | "uprobe.s" | "uretprobe" | "uretprobe.s" if ALL_OBJECTS => {
                let (path, name, offset) = section::uprobe(target()?)?;
                let options = UprobeOptions { ret, ..UprobeOptions::default() };
                self.attach_uprobe(Path::new(path), BinaryPlace::Function { name, offset }, &options)
            }
            "uprobe.multi" | "uprobe.multi.s" | "uretprobe.multi" | "uretprobe.multi.s"
            | "uprobe.session" | "uprobe.session.s"
                if ALL_OBJECTS =>
            {
                let (path, pattern) = section::path(target()?)?;
                let options = UprobeMultiOptions { ret, ..UprobeMultiOptions::default() };
                self.attach_uprobe_multi(Path::new(path), BinaryFunctions::Pattern(pattern), &options)
            }
            "tracepoint" | "tp" | "tracepoint.s" | "tp.s" => {
                let (category, name) = section::tracepoint(target()?)?;
                self.attach_tracepoint(category, name, 0)
            }
            "raw_tracepoint" | "raw_tp" | "raw_tracepoint.s" | "raw_tp.s" | "raw_tracepoint.w"
            | "raw_tp.w" => self.attach_raw_tracepoint(target()?),
            "tp_btf" | "tp_btf.s" | "fentry" | "fentry.s" | "fexit" | "fexit.s" | "fmod_ret"
            | "fmod_ret.s" | "fsession" | "fsession.s" | "lsm" | "lsm.s" => self.attach_tracing(),
            "iter" | "iter.s" => self.attach_iter(None),
            "freplace" if ALL_OBJECTS => self.attach_freplace(),
            "kprobe.multi" | "kretprobe.multi" | "kprobe.session" | "uprobe" | "uprobe.s" | "uretprobe"
            | "uretprobe.s" | "uprobe.multi" | "uprobe.multi.s" | "uretprobe.multi" | "uretprobe.multi.s"
            | "uprobe.session" | "uprobe.session.s" | "freplace" => {
                Err(Box::new(Error::NotBuiltIn { what: "attaching by such a section" }))
            }
            "usdt" | "usdt.s" if target().is_ok() => {
                let reason = "programs for USDT share maps: they are attached through attach::usdt::Usdt";
                Err(Box::new(Error::AttachTarget { target: self.section.clone(), reason }))
            }
            kind if self.kind.is_tracing_multi() => Err(Box::new(Error::AttachKind { kind })),
            _ => Err(Box::new(Error::NoAutoAttach { section: self.section.clone() })),
        }
    }
}

/// `BPF_LINK_CREATE`, again with more locked memory if that is what it lacks.
pub(crate) fn create(
    program: &Program,
    target: Target<'_>,
    attach_type: AttachType,
    options: LinkOptions<'_>,
) -> bpf_sys::Result<LinkFd> {
    let link = LinkCreate { object: program.fd.as_fd(), target, attach_type, flags: 0, options };
    with_memlock(|| link::create(&link))
}

/// Before Linux 5.11, attaching can meet the limit of locked memory. Where it can be raised, it was not infinite.
pub(crate) fn with_memlock<T>(mut call: impl FnMut() -> bpf_sys::Result<T>) -> bpf_sys::Result<T> {
    match call() {
        Err(e)
            if matches!(e.errno(), Some(Errno::ENOMEM | Errno::EPERM))
                && bpf_sys::kernel_version() < ACCOUNTED_ELSEWHERE
                && bpf_sys::memlock::raise() =>
        {
            call()
        }
        other => other,
    }
}

/// The first CPU that is online, for perf events that must be on one.
fn first_cpu() -> u32 {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    online.split(|c: char| !c.is_ascii_digit()).next().and_then(|cpu| cpu.parse().ok()).unwrap_or(0)
}

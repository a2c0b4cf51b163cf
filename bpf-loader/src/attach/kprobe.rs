//! Programs to single kernel functions.

use std::ffi::CString;

use bpf_sys::perf;
use bpf_sys::{Errno, PerfEventAttr, PerfFd, PerfType};

use super::pmu::Pmu;
use super::tracefs::{ProbeEvent, ProbeFile};
use super::{PerfEventOptions, syscall};
use crate::error::{Error, Result};
use crate::link::{Link, OlderAttachment};
use crate::program::Program;

/// Where in the kernel a probe goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelPlace<'a> {
    /// So many bytes into a function, at the start of an instruction.
    Function {
        /// Its name.
        name: &'a str,
        /// Bytes.
        offset: u64,
    },
    /// An address.
    Address(u64),
}

impl<'a> From<&'a str> for KernelPlace<'a> {
    fn from(name: &'a str) -> Self {
        Self::Function { name, offset: 0 }
    }
}

/// By which of the kernel's interfaces a probe is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttachMode {
    /// The newest that the kernel has.
    #[default]
    Newest,
    /// A definition in the tracing file system, and the program set by ioctl.
    TraceFs,
    /// A perf event of the probe's own PMU (Linux 4.17), and the program set by ioctl.
    PerfEvent,
    /// Such a perf event, and a BPF link (Linux 5.15).
    Link,
}

/// How a kprobe is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KprobeOptions {
    /// When the function returns, not when it is called.
    pub ret: bool,
    /// What `bpf_get_attach_cookie` gives the program (Linux 5.15).
    pub cookie: u64,
    /// By which interface.
    pub mode: AttachMode,
}

impl Program {
    /// Runs the program at a place in the kernel (Linux 4.1).
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchTarget`]: there is no such function. [`Error::AttachTarget`]: the kernel lets nobody probe it, or not
    /// there. [`Error::Unsupported`]: a cookie or a mode that the kernel does not have. [`Error::NotConfigured`]: no probes. Other refusals of the kernel's, as for want of rights or in lockdown.
    pub fn attach_kprobe<'a>(&self, at: impl Into<KernelPlace<'a>>, options: &KprobeOptions) -> Result<Link> {
        let at = at.into();
        let pmu = Pmu::find("kprobe").filter(|_| options.mode != AttachMode::TraceFs);
        let made = match pmu {
            Some(pmu) => open(pmu, options.ret, at),
            None => return self.attach_probe_event(ProbeFile::Kprobe, options, &kprobe_event(at)?, None),
        };
        let event = made.map_err(|e| match e.errno() {
            Some(Errno::ENOENT | Errno::EADDRNOTAVAIL) => {
                Box::new(Error::NoSuchTarget { name: describe(at) })
            }
            Some(Errno::EINVAL) => Box::new(Error::AttachTarget {
                target: describe(at),
                reason: "the kernel lets nobody probe it (returns only from a function's start)",
            }),
            _ => e,
        })?;
        self.attach_probe(event, options)
    }

    /// Sets the program on a probe's perf event.
    pub(super) fn attach_probe(&self, event: PerfFd, options: &KprobeOptions) -> Result<Link> {
        let force_ioctl = options.mode == AttachMode::PerfEvent;
        if options.mode == AttachMode::Link && !self.has_perf_links() {
            return Err(unsupported("links of perf events", (5, 15), Errno::EINVAL));
        }
        let perf_options = PerfEventOptions { cookie: options.cookie, force_ioctl };
        let link = self.attach_perf_event_with(&event, &perf_options)?;
        event.enable(false)?;
        Ok(link)
    }

    /// Defines a probe in the tracing file system and sets the program on it.
    pub(super) fn attach_probe_event(
        &self,
        file: ProbeFile,
        options: &KprobeOptions,
        place: &str,
        pid: Option<u32>,
    ) -> Result<Link> {
        if matches!(options.mode, AttachMode::PerfEvent | AttachMode::Link) {
            return Err(unsupported("perf events of probes", (4, 17), Errno::ENODEV));
        }
        let definition = ProbeEvent::define(file, options.ret, place)?;
        let attr = PerfEventAttr {
            kind: PerfType::TRACEPOINT,
            config: definition.id()?,
            ..PerfEventAttr::default()
        };
        let (scope, cpu) = super::pmu::scope_of(pid);
        let event = perf::open(&attr, scope, cpu, None)?;
        let force_ioctl = options.mode == AttachMode::TraceFs;
        let perf_options = PerfEventOptions { cookie: options.cookie, force_ioctl };
        let link = self.attach_perf_event_with(&event, &perf_options)?;
        event.enable(false)?;
        Ok(Link::from_older(DefinedProbe { link: Some(link), _definition: Some(definition) }))
    }

    /// Runs the program at a system call, by its name without prefix (`openat`), whatever the kernel calls the function.
    ///
    /// # Errors
    ///
    /// As [`attach_kprobe`](Self::attach_kprobe).
    pub fn attach_ksyscall(&self, name: &str, options: &KprobeOptions) -> Result<Link> {
        self.attach_kprobe(syscall::syscall_function(name).as_str(), options)
    }
}

/// A link on a probe that is defined in the tracing file system; the definition can only go after the link.
#[derive(Debug)]
struct DefinedProbe {
    link: Option<Link>,
    _definition: Option<ProbeEvent>,
}

impl OlderAttachment for DefinedProbe {
    fn detach(&mut self) -> Result<()> {
        self.link = None;
        self._definition = None;
        Ok(())
    }
}

fn open(pmu: Pmu, ret: bool, at: KernelPlace<'_>) -> Result<PerfFd> {
    match at {
        KernelPlace::Function { name, offset } => {
            let function = CString::new(name).map_err(|_| Error::NoSuchTarget { name: describe(at) })?;
            pmu.kprobe(ret, Some(&function), offset)
        }
        KernelPlace::Address(address) => pmu.kprobe(ret, None, address),
    }
}

/// A place as `kprobe_events` takes it. Names with other characters would be read as something else.
fn kprobe_event(at: KernelPlace<'_>) -> Result<String> {
    match at {
        KernelPlace::Function { name, offset } => {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$' | ':');
            if name.is_empty() || !name.chars().all(plain) {
                return Err(Box::new(Error::NoSuchTarget { name: describe(at) }));
            }
            Ok(format!("{name}+{offset:#x}"))
        }
        KernelPlace::Address(address) => Ok(format!("{address:#x}")),
    }
}

fn describe(at: KernelPlace<'_>) -> String {
    match at {
        KernelPlace::Function { name, offset: 0 } => format!("function {name} that can be probed"),
        KernelPlace::Function { name, offset } => {
            format!("instruction that can be probed {offset} bytes into function {name}")
        }
        KernelPlace::Address(address) => format!("instruction that can be probed at address {address:#x}"),
    }
}

fn unsupported(feature: &'static str, min_kernel: (u8, u8), errno: Errno) -> Box<Error> {
    Box::new(Error::Unsupported {
        feature,
        min_kernel,
        error: bpf_sys::Error::Call { call: "bpf(BPF_LINK_CREATE)", errno },
    })
}

/// Can a kprobe be put on the function? Opens an event and closes it again.
pub(super) fn can_probe(function: &str) -> bool {
    match Pmu::find("kprobe") {
        Some(pmu) => open(pmu, false, function.into()).is_ok(),
        None => kprobe_event(function.into())
            .and_then(|place| ProbeEvent::define(ProbeFile::Kprobe, false, &place))
            .is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_words_of_kprobe_events() {
        assert_eq!(kprobe_event("do_exit".into()).unwrap(), "do_exit+0x0");
        assert_eq!(kprobe_event(KernelPlace::Address(0xffff)).unwrap(), "0xffff");
        let inside = KernelPlace::Function { name: "nf_conntrack:f.isra.0", offset: 16 };
        assert_eq!(kprobe_event(inside).unwrap(), "nf_conntrack:f.isra.0+0x10");
        for bad in ["", "a b", "a\nr:x y", "a+1"] {
            assert!(kprobe_event(bad.into()).is_err(), "{bad:?}");
        }
    }
}

//! Programs to many kernel functions at once.

use std::ffi::{CStr, CString};

use bpf_sys::link::{LinkOptions, Probes, Target};
use bpf_sys::uapi::flags::BPF_F_KPROBE_MULTI_RETURN;
use bpf_sys::{AttachType, Errno};

use super::{create, functions, glob};
use crate::error::{Error, Result, excerpt};
use crate::link::Link;
use crate::program::Program;

/// Which functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelFunctions<'a> {
    /// All that can be traced and whose names match: `*` stands for any text, `?` for one character.
    Pattern(&'a str),
    /// By name.
    Names(&'a [&'a str]),
    /// By address.
    Addresses(&'a [u64]),
}

/// How a program is attached to many kernel functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KprobeMultiOptions<'a> {
    /// When the functions return, not when they are called. Programs of kind `kprobe.session` run at both.
    pub ret: bool,
    /// What `bpf_get_attach_cookie` gives the program, for each function; or nothing. Not with a pattern.
    pub cookies: &'a [u64],
}

impl Program {
    /// Attaches a program of kind `kprobe.multi` (Linux 5.18) or `kprobe.session` (6.10) to kernel functions.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchTarget`]: no such function, or it cannot be traced. [`Error::Unsupported`]. [`Error::File`]: the list of
    /// functions that can be traced, which patterns need, cannot be read.
    pub fn attach_kprobe_multi(
        &self,
        functions: KernelFunctions<'_>,
        options: &KprobeMultiOptions<'_>,
    ) -> Result<Link> {
        let attach_type = self.kind.attach_type;
        if !matches!(attach_type, AttachType::TRACE_KPROBE_MULTI | AttachType::TRACE_KPROBE_SESSION) {
            return Err(Box::new(Error::AttachTarget {
                target: self.name.clone(),
                reason: "only programs of kind kprobe.multi or kprobe.session go to many kernel functions",
            }));
        }
        let flags = if options.ret { BPF_F_KPROBE_MULTI_RETURN } else { 0 };
        let create = |probes: Probes<'_>, cookies: &[u64]| {
            create(self, Target::None, attach_type, LinkOptions::KprobeMulti { probes, cookies, flags })
        };
        let made = match functions {
            KernelFunctions::Pattern(name) if !glob::is_pattern(name) => {
                let name = c_name(name)?;
                create(Probes::Symbols(&[&name]), options.cookies)
            }
            KernelFunctions::Pattern(pattern) => {
                if !options.cookies.is_empty() {
                    let reason = "a pattern says nothing of the order of cookies";
                    return Err(Box::new(Error::AttachTarget { target: pattern.into(), reason }));
                }
                let found = functions::traceable(pattern);
                // A kernel without such links may well be without the list.
                match found {
                    Ok(addresses) => create(Probes::Addresses(&addresses), &[]),
                    Err(e) => return Err(self.unsupported_multi(create).unwrap_or(e)),
                }
            }
            KernelFunctions::Names(names) => {
                let names = names.iter().map(|name| c_name(name)).collect::<Result<Vec<CString>>>()?;
                let names: Vec<&CStr> = names.iter().map(CString::as_c_str).collect();
                no_name_twice(&names)?;
                create(Probes::Symbols(&names), options.cookies)
            }
            KernelFunctions::Addresses(addresses) => create(Probes::Addresses(addresses), options.cookies),
        };
        made.map(Link::from_fd).map_err(|error| match error.errno() {
            Some(Errno::ESRCH | Errno::ENOENT) => Box::new(Error::NoSuchTarget {
                name: format!("function that can be traced {}", describe(&functions)),
            }),
            Some(Errno::EINVAL | Errno::EOPNOTSUPP) => {
                self.unsupported_multi(create).unwrap_or_else(|| error.into())
            }
            _ => error.into(),
        })
    }

    /// A kernel that has such links finds that there is no function of this name; one that has not, that there is no such
    /// attach type.
    fn unsupported_multi<L>(
        &self,
        create: impl Fn(Probes<'_>, &[u64]) -> bpf_sys::Result<L>,
    ) -> Option<Box<Error>> {
        let error = create(Probes::Symbols(&[c"no function has this name"]), &[]).err()?;
        if !matches!(error.errno(), Some(Errno::EINVAL | Errno::EOPNOTSUPP)) {
            return None;
        }
        if error.errno() == Some(Errno::EOPNOTSUPP) {
            return Some(Box::new(Error::NotConfigured {
                feature: "links of many kprobes",
                option: "CONFIG_FPROBE",
            }));
        }
        let feature = if self.kind.attach_type == AttachType::TRACE_KPROBE_SESSION {
            "sessions of kprobes"
        } else {
            "links of many kprobes"
        };
        Some(Box::new(Error::Unsupported { feature, min_kernel: self.kind.min_kernel, error }))
    }
}

/// What was asked for, for errors.
fn describe(functions: &KernelFunctions<'_>) -> String {
    match functions {
        KernelFunctions::Pattern(pattern) => format!("and matches {pattern}"),
        KernelFunctions::Names(names) => format!("of the names {}", excerpt(&names.join(", "))),
        KernelFunctions::Addresses(addresses) => {
            let all: Vec<String> = addresses.iter().take(16).map(|address| format!("{address:#x}")).collect();
            format!("at the addresses {}", all.join(", "))
        }
    }
}

/// The kernel takes a name that is there twice for one that is not there.
fn no_name_twice(names: &[&CStr]) -> Result<()> {
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first()) {
        None => Ok(()),
        Some(name) => Err(Box::new(Error::AttachTarget {
            target: name.to_string_lossy().into_owned(),
            reason: "a function can be named only once",
        })),
    }
}

fn c_name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Box::new(Error::NoSuchTarget { name: format!("function {name}") }))
}

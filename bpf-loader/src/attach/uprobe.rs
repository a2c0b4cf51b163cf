//! Programs to single functions of executables and libraries.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::binary::{self, Binary};
use super::pmu::Pmu;
use super::tracefs::ProbeFile;
use super::{AttachMode, KprobeOptions};
use crate::error::{Error, Result};
use crate::link::Link;
use crate::program::Program;

/// Where in a file a probe goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryPlace<'a> {
    /// So many bytes into a function, at the start of an instruction.
    Function {
        /// Its name in the file's symbol tables; of a library, perhaps with a version: `memcpy@GLIBC_2.14`.
        name: &'a str,
        /// Bytes.
        offset: u64,
    },
    /// Byte of the file, not an address.
    Offset(u64),
}

impl<'a> From<&'a str> for BinaryPlace<'a> {
    fn from(name: &'a str) -> Self {
        Self::Function { name, offset: 0 }
    }
}

/// How a uprobe is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UprobeOptions {
    /// When the function returns, not when it is called.
    pub ret: bool,
    /// Only in this process; in all, if none.
    pub pid: Option<u32>,
    /// Offset in the file of a 16-bit counter that the kernel increments while the probe is there (Linux 4.20), or 0.
    pub ref_ctr_offset: u64,
    /// What `bpf_get_attach_cookie` gives the program (Linux 5.15).
    pub cookie: u64,
    /// By which interface.
    pub mode: AttachMode,
}

impl Program {
    /// Runs the program at a place in an executable or library (Linux 4.3). A path without a slash is looked for where the
    /// system would: libraries (`.so`) in `LD_LIBRARY_PATH` and the usual directories, programs in `PATH`.
    ///
    /// # Errors
    ///
    /// [`Error::File`]: no such file, or it is no ELF file. [`Error::NoSuchSymbol`]. [`Error::Unsupported`]: a cookie or mode
    /// that the kernel does not have. The kernel refuses, as where no instruction begins.
    pub fn attach_uprobe<'a>(
        &self,
        path: &Path,
        at: impl Into<BinaryPlace<'a>>,
        options: &UprobeOptions,
    ) -> Result<Link> {
        let path = binary::resolve(path)?;
        let offset = match at.into() {
            BinaryPlace::Offset(offset) => offset,
            BinaryPlace::Function { name, offset } => {
                let function = Binary::open(&path)?.function_offset(name)?;
                function.checked_add(offset).ok_or_else(|| bad(&path, "the offset overflows"))?
            }
        };
        self.attach_uprobe_at(&path, offset, options)
    }

    /// Runs the program at a byte of a file that is there.
    pub(super) fn attach_uprobe_at(&self, path: &Path, offset: u64, options: &UprobeOptions) -> Result<Link> {
        let probe = KprobeOptions { ret: options.ret, cookie: options.cookie, mode: options.mode };
        let pmu = Pmu::find("uprobe").filter(|_| options.mode != AttachMode::TraceFs);
        let Some(pmu) = pmu else {
            if options.ref_ctr_offset != 0 {
                return Err(bad(path, "probes in the tracing file system are made without counters"));
            }
            let place = uprobe_event(path, offset)?;
            return self.attach_probe_event(ProbeFile::Uprobe, &probe, &place, options.pid);
        };
        let c_path = c_path(path)?;
        let ref_ctr_offset = u32::try_from(options.ref_ctr_offset)
            .map_err(|_| bad(path, "the counter is not in the first 4 GiB of the file"))?;
        let event = pmu.uprobe(options.ret, &c_path, offset, ref_ctr_offset, options.pid)?;
        self.attach_probe(event, &probe)
    }
}

pub(super) fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| bad(path, "the path has a zero byte"))
}

fn bad(path: &Path, reason: &'static str) -> Box<Error> {
    Box::new(Error::AttachTarget { target: path.display().to_string(), reason })
}

/// A place as `uprobe_events` takes it.
fn uprobe_event(path: &Path, offset: u64) -> Result<String> {
    match path.to_str() {
        Some(text) if !text.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            Ok(format!("{text}:{offset:#x}"))
        }
        _ => Err(bad(path, "the tracing file system takes no such path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_words_of_uprobe_events() {
        assert_eq!(uprobe_event(Path::new("/bin/a:b"), 16).unwrap(), "/bin/a:b:0x10");
        for bad in ["/bin/a b", "/bin/a\n-:x"] {
            assert!(uprobe_event(Path::new(bad), 0).is_err(), "{bad:?}");
        }
    }
}

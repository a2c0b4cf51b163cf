//! What relocation may ask about a kernel.

mod files;

use std::cell::OnceCell;
use std::fs;
use std::io::{BufRead, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bpf_sys::shared::Blob;

use crate::ALL_OBJECTS;
use crate::btf::index::Root;
use crate::btf::{Btf, BtfBytes};
use crate::error::{Error, Result};
use crate::features::{self, Features};
use crate::fuel::Fuel;
use crate::object_file::read_btf;

/// A module's types, split on the kernel's.
#[derive(Debug)]
pub struct ModuleBtf<'a> {
    /// Name of the module.
    pub name: String,
    /// Its BTF.
    pub btf: Btf<'a>,
}

/// Types of the kernel that an object is relocated for: the running one's, another's, or made up.
pub trait TargetBtf {
    /// The kernel's own types, `None` if it comes without.
    ///
    /// # Errors
    ///
    /// Whatever reading or parsing them meets.
    fn vmlinux(&self) -> Result<Option<&Btf<'_>>>;

    /// Types of loaded modules, asked for only if the kernel's own BTF lacks a type. A module whose BTF cannot be read or
    /// parsed is left out: a program that doesn't need it must not fail for it. Where the kernel's BTF was replaced by
    /// a file of the user's, there are none.
    ///
    /// # Errors
    ///
    /// Whatever listing them meets.
    fn modules(&self) -> Result<&[ModuleBtf<'_>]>;

    /// Says what will be looked for in [`vmlinux`](Self::vmlinux), so that one pass over its types can find all of it. Who
    /// is not told, or does not listen, takes longer.
    fn expect(&self, roots: &[Root<'_>]) {
        let _ = roots;
    }
}

/// A kernel to plan for: the running one, or any other by its data.
pub trait Target {
    /// Its types.
    fn types(&self) -> &dyn TargetBtf;

    /// Types of the kernel from elsewhere, which CO-RE relocations are resolved against instead of [`types`](Self::types).
    /// All that is named in the kernel's own BTF by number (what programs attach to, kernel functions and variables) still
    /// needs that.
    fn external_types(&self) -> Option<&dyn TargetBtf> {
        None
    }

    /// What the kernel takes.
    fn features(&self) -> &Features;

    /// Bytes of a page.
    fn page_size(&self) -> u32;

    /// CPUs that there can ever be.
    fn possible_cpus(&self) -> u32;

    /// A list like `/proc/kallsyms`: lines of address, kind, name and perhaps a module. `None` if the target has none, as
    /// a kernel that is made up unless it says so.
    ///
    /// # Errors
    ///
    /// It is there and cannot be opened.
    fn kallsyms(&self) -> Result<Option<Box<dyn BufRead + '_>>> {
        Ok(None)
    }

    /// The kernel's configuration as text, lines of `CONFIG_X=y`. `None` if the target has none.
    ///
    /// # Errors
    ///
    /// It is there and cannot be read.
    fn kconfig(&self) -> Result<Option<&[u8]>> {
        Ok(None)
    }

    /// The version as `LINUX_VERSION_CODE` has it: major << 16, minor << 8, patch level of at most 255. `None` if it is
    /// not known.
    fn kernel_version(&self) -> Option<u32> {
        None
    }

    /// Whether programs of perf links have cookies (`bpf_get_attach_cookie`, Linux 5.15).
    fn has_bpf_cookie(&self) -> bool {
        false
    }

    /// Whether programs go to many functions of a file at once, and to one process's alone if asked (Linux 6.6, but 6.10
    /// for the latter). USDT programs are then loaded for it.
    fn has_uprobe_multi(&self) -> bool {
        false
    }

    /// Whether the verifier knows the tag `arg:ctx` of functions' parameters (Linux 6.8). If not, functions with such
    /// parameters are given the types that older ones know contexts by. Only asked if there are any.
    fn knows_context_tag(&self) -> bool {
        false
    }

    /// Whether programs may refer to places in a map's value beyond 512 MiB. Variables of an arena are then at its end, as
    /// libbpf has them, so that what programs allocate begins at its start. Only asked if there are any.
    fn takes_far_places(&self) -> bool {
        false
    }
}

/// Where the running kernel has its BTF (Linux 5.4) and its modules' (5.11).
const BTF_DIRECTORY: &str = "/sys/kernel/btf";

/// The running kernel. Everything is read when first asked for, once: share it between objects, and what one has looked for
/// in the kernel's types costs the next nothing.
#[derive(Debug, Default)]
pub struct RunningTarget {
    vmlinux: OnceCell<Option<Arc<Btf<'static>>>>,
    modules: OnceCell<Vec<ModuleBtf<'static>>>,
    features: OnceCell<Features>,
    kconfig: OnceCell<Option<Vec<u8>>>,
    bpf_cookie: OnceCell<bool>,
    uprobe_multi: OnceCell<bool>,
    context_tag: OnceCell<bool>,
    far_places: OnceCell<bool>,
    external: Option<ExternalBtf>,
}

/// Types of a kernel, without modules.
#[derive(Debug)]
struct ExternalBtf {
    btf: OnceCell<Arc<Btf<'static>>>,
    /// Read when the types are first asked for.
    path: Option<PathBuf>,
}

impl TargetBtf for ExternalBtf {
    fn vmlinux(&self) -> Result<Option<&Btf<'_>>> {
        if let (None, Some(path)) = (self.btf.get(), &self.path) {
            // Nobody else can have set it: the cell is not shared between threads.
            let _ = self.btf.set(Arc::new(read_btf(path)?));
        }
        Ok(self.btf.get().map(|btf| &**btf))
    }

    fn modules(&self) -> Result<&[ModuleBtf<'_>]> {
        Ok(&[])
    }
}

impl RunningTarget {
    /// The kernel that this runs on.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with this kernel's types from elsewhere, for CO-RE on kernels that carry none: see
    /// [`read_btf`].
    #[must_use]
    pub fn with_btf(self, btf: Btf<'static>) -> Self {
        let btf = OnceCell::from(Arc::new(btf));
        Self { external: Some(ExternalBtf { btf, path: None }), ..self }
    }

    /// [`with_btf`](Self::with_btf), with a file that is read when its types are first asked for. What is wrong with it is an
    /// error of whatever asks.
    #[must_use]
    pub fn with_btf_file(self, path: &Path) -> Self {
        let external = ExternalBtf { btf: OnceCell::new(), path: Some(path.to_owned()) };
        Self { external: Some(external), ..self }
    }

    /// The same kernel, of which nothing has been read yet: to keep for later, without the memory that its types take.
    #[must_use]
    pub fn unread(&self) -> Self {
        let external = self.external.as_ref().map(|external| ExternalBtf {
            btf: if external.path.is_some() { OnceCell::new() } else { external.btf.clone() },
            path: external.path.clone(),
        });
        Self { external, ..Self::default() }
    }

    /// The same with features that are known, or were found by [`Features::probe_through`] another kernel's calls.
    #[must_use]
    pub fn with_features(self, features: Features) -> Self {
        Self { features: OnceCell::from(features), ..self }
    }

    fn shared_vmlinux(&self, roots: &[Root<'_>]) -> Result<Option<&Arc<Btf<'static>>>> {
        if self.vmlinux.get().is_none() {
            // Mapped where the kernel allows (6.16 or so), else read: the 5 MB are there once in either case.
            let blob = read_if_there(&Path::new(BTF_DIRECTORY).join("vmlinux"))?;
            let parse = |blob| Btf::parse_finding(BtfBytes::Shared(Arc::new(blob)), roots);
            let btf = blob.map(parse).transpose()?.map(Arc::new);
            // Nobody else can have set it: the cell is not shared between threads.
            let _ = self.vmlinux.set(btf);
        }
        Ok(self.vmlinux.get().and_then(Option::as_ref))
    }
}

/// Only a file that does not exist is absent; one that cannot be read now may well be needed.
fn read_if_there(path: &Path) -> Result<Option<Blob>> {
    match bpf_sys::shared::read_or_map(path) {
        Ok(blob) => Ok(Some(blob)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Box::new(Error::ReadBtf { reason: e.to_string() })),
    }
}

impl TargetBtf for RunningTarget {
    fn vmlinux(&self) -> Result<Option<&Btf<'_>>> {
        Ok(self.shared_vmlinux(&[])?.map(|btf| &**btf))
    }

    fn expect(&self, roots: &[Root<'_>]) {
        // What goes wrong here goes wrong again, and is said, when the types are asked for.
        if let Ok(Some(btf)) = self.shared_vmlinux(roots) {
            let _ = btf.find_roots(roots, &mut Fuel::OBJECT.clone());
        }
    }

    fn modules(&self) -> Result<&[ModuleBtf<'_>]> {
        let Some(base) = self.shared_vmlinux(&[])? else { return Ok(&[]) };
        if self.modules.get().is_none() {
            let listed = fs::read_dir(BTF_DIRECTORY).map_err(|e| Error::ReadBtf { reason: e.to_string() })?;
            let mut modules = Vec::new();
            for entry in listed.filter_map(|e| e.ok()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name == "vmlinux" {
                    continue;
                }
                let Ok(blob) = bpf_sys::shared::read_or_map(&entry.path()) else { continue };
                let Ok(btf) = Btf::parse_split(BtfBytes::Shared(Arc::new(blob)), Arc::clone(base)) else {
                    continue;
                };
                modules.push(ModuleBtf { name, btf });
            }
            let _ = self.modules.set(modules);
        }
        Ok(self.modules.get().map(Vec::as_slice).unwrap_or_default())
    }
}

impl Target for RunningTarget {
    fn types(&self) -> &dyn TargetBtf {
        self
    }

    fn external_types(&self) -> Option<&dyn TargetBtf> {
        self.external.as_ref().map(|external| external as &dyn TargetBtf)
    }

    fn features(&self) -> &Features {
        self.features.get_or_init(Features::probe)
    }

    fn page_size(&self) -> u32 {
        bpf_sys::page_size() as u32
    }

    fn possible_cpus(&self) -> u32 {
        bpf_sys::possible_cpus().map_or(1, |n| n as u32)
    }

    fn kallsyms(&self) -> Result<Option<Box<dyn BufRead + '_>>> {
        Ok(files::kallsyms()?.map(|list| list as Box<dyn BufRead>))
    }

    fn kconfig(&self) -> Result<Option<&[u8]>> {
        if !ALL_OBJECTS {
            return Ok(None);
        }
        if self.kconfig.get().is_none() {
            let _ = self.kconfig.set(files::config()?);
        }
        Ok(self.kconfig.get().and_then(Option::as_deref))
    }

    fn kernel_version(&self) -> Option<u32> {
        files::kernel_version()
    }

    fn has_bpf_cookie(&self) -> bool {
        *self.bpf_cookie.get_or_init(features::bpf_cookie)
    }

    fn has_uprobe_multi(&self) -> bool {
        *self.uprobe_multi.get_or_init(features::uprobe_multi)
    }

    fn knows_context_tag(&self) -> bool {
        *self.context_tag.get_or_init(features::context_tag)
    }

    fn takes_far_places(&self) -> bool {
        *self.far_places.get_or_init(features::far_places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::encode::Builder;
    use crate::bytes::Endian;

    #[test]
    fn types_of_a_file_are_read_when_they_are_asked_for() {
        let path = std::env::temp_dir().join(format!("types-of-a-file-{}", std::process::id()));
        let target = RunningTarget::new().with_btf_file(&path);
        let types = |target: &RunningTarget| {
            target.external_types().unwrap().vmlinux().map(|btf| btf.map(|btf| btf.as_bytes().len()))
        };
        assert!(matches!(types(&target).map_err(|e| *e), Err(Error::ReadBtf { .. })));
        let bytes = Builder::new(Endian::HOST).build();
        fs::write(&path, &bytes).unwrap();
        assert_eq!(types(&target), Ok(Some(bytes.len())));
        fs::remove_file(&path).unwrap();
        assert_eq!(types(&target), Ok(Some(bytes.len())), "read once");
        assert!(types(&target.unread()).is_err(), "read again");
        let given = RunningTarget::new().with_btf(Btf::parse(bytes.clone()).unwrap());
        assert_eq!(types(&given.unread()), Ok(Some(bytes.len())));
        assert!(RunningTarget::new().unread().external_types().is_none());
    }

    #[test]
    fn only_a_missing_file_is_absent() {
        let directory = std::env::temp_dir();
        assert!(matches!(read_if_there(&directory.join("no-such-directory/vmlinux")), Ok(None)));
        // Can be opened, not read.
        assert!(matches!(read_if_there(&directory).map_err(|e| *e), Err(Error::ReadBtf { .. })));
        let this = std::env::current_exe().unwrap();
        assert!(read_if_there(&this).unwrap().is_some());
    }
}

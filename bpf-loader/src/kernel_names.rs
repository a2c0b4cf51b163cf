//! What a plan names in the kernel's BTF besides CO-RE: functions, variables and tracepoints, all looked up in one pass.

use crate::btf::{Btf, BtfId, Kind, index};
use crate::error::{Error, Result};
use crate::sorted::SortedMap;
use crate::target::TargetBtf;

/// A type of the kernel or of a module.
#[derive(Clone, Copy)]
pub(crate) struct Found<'t> {
    pub btf: &'t Btf<'t>,
    /// The module, `None` for the kernel itself.
    pub module: Option<&'t str>,
    pub id: BtfId,
}

/// A name being looked for.
pub(crate) struct Request<'n> {
    pub name: &'n str,
    pub kind: Kind,
    pub scope: Scope,
}

/// Where to look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// In the kernel, and in the modules if it is not there.
    Anywhere,
    /// In the kernel only.
    Kernel,
    /// In the modules whether or not the kernel has it.
    Modules,
}

/// The answers, and what stood in the way of more.
#[derive(Default)]
pub(crate) struct KernelNames<'n, 't> {
    /// By what was looked for: the kernel's own first, then the modules'.
    found: SortedMap<(&'n str, Kind), Vec<Found<'t>>>,
    failed: Option<Box<Error>>,
    no_btf: bool,
}

impl<'n, 't> KernelNames<'n, 't> {
    /// Looks for all names in the kernel's types, then in each module's for those that it lacks. A module with BTF that
    /// cannot be searched is passed over.
    pub fn find(requests: &[Request<'n>], target: &'t dyn TargetBtf) -> Self {
        let mut all = Self::default();
        for request in requests {
            all.found.insert((request.name, request.kind), Vec::new());
        }
        if !all.found.is_empty() {
            all.failed = all.fill(requests, target).err();
        }
        all
    }

    fn fill(&mut self, requests: &[Request<'n>], target: &'t dyn TargetBtf) -> Result<()> {
        let Some(vmlinux) = target.vmlinux()? else {
            self.no_btf = true;
            return Ok(());
        };
        let all: Vec<_> = self.found.keys().copied().collect();
        self.search(&all, vmlinux, None)?;
        let missing = |r: &&Request<'n>| match r.scope {
            Scope::Anywhere => self.get(r.name, r.kind).is_none(),
            Scope::Kernel => false,
            Scope::Modules => true,
        };
        let missing: Vec<_> = requests.iter().filter(missing).map(|r| (r.name, r.kind)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        for module in target.modules()? {
            let name = Some(module.name.as_str());
            let _ = self.search(&missing, &module.btf, name);
        }
        Ok(())
    }

    /// Adds the first type of each name and kind in `btf` itself, not in its base.
    fn search(
        &mut self,
        wanted: &[(&'n str, Kind)],
        btf: &'t Btf<'t>,
        module: Option<&'t str>,
    ) -> Result<()> {
        for (key, id) in wanted.iter().zip(index::find_all(btf, wanted)?) {
            if let (Some(found), Some(id)) = (self.found.get_mut(key), id) {
                found.push(Found { btf, module, id });
            }
        }
        Ok(())
    }

    /// The kernel's type of that name, or else the first module's.
    pub fn get(&self, name: &str, kind: Kind) -> Option<Found<'t>> {
        self.found.get(&(name, kind))?.first().copied()
    }

    /// The type of that name in one module.
    pub fn get_in(&self, module: &str, name: &str, kind: Kind) -> Option<Found<'t>> {
        let found = self.found.get(&(name, kind))?;
        found.iter().find(|f| f.module == Some(module)).copied()
    }

    /// Why a name may not have been found although it is there.
    pub fn failure(&self) -> Option<Box<Error>> {
        self.failed.clone()
    }

    /// The kernel has no BTF to look in.
    pub fn no_btf(&self) -> bool {
        self.no_btf
    }
}

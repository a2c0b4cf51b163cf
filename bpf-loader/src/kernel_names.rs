//! What a plan names in the kernel's BTF besides CO-RE: functions, variables and tracepoints, all looked up in one pass.

use std::collections::HashMap;

use crate::btf::index::Wanted;
use crate::btf::{Btf, BtfId, Kind};
use crate::error::{Error, Result};
use crate::fuel::Fuel;
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
    found: HashMap<(&'n [u8], Kind), Vec<Found<'t>>>,
    failed: Option<Error>,
    no_btf: bool,
}

impl<'n, 't> KernelNames<'n, 't> {
    /// Looks for all names in the kernel's types, then in each module's for those that it lacks. A module with BTF that
    /// cannot be searched is passed over.
    pub fn find(requests: &[Request<'n>], target: &'t dyn TargetBtf) -> Self {
        let mut all = Self::default();
        for request in requests {
            all.found.insert((request.name.as_bytes(), request.kind), Vec::new());
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
        let mut fuel = Fuel::OBJECT.clone();
        self.search(self.found.keys().copied().collect(), vmlinux, None, &mut fuel)?;
        let missing = |r: &&Request<'n>| match r.scope {
            Scope::Anywhere => self.get(r.name, r.kind).is_none(),
            Scope::Kernel => false,
            Scope::Modules => true,
        };
        let missing: Vec<_> = requests.iter().filter(missing).map(|r| (r.name.as_bytes(), r.kind)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        for module in target.modules()? {
            let name = Some(module.name.as_str());
            let _ = self.search(missing.clone(), &module.btf, name, &mut Fuel::OBJECT.clone());
        }
        Ok(())
    }

    /// Adds the first type of each name and kind in `btf` itself, not in its base.
    fn search(
        &mut self,
        wanted: Vec<(&'n [u8], Kind)>,
        btf: &'t Btf<'t>,
        module: Option<&'t str>,
        fuel: &mut Fuel,
    ) -> Result<()> {
        let set = Wanted::new(wanted.iter().map(|&(name, _)| name), wanted.iter().map(|&(_, kind)| kind));
        set.scan(
            btf,
            fuel,
            |name| name,
            |number, ty| {
                let name = set.names().get(number).copied().unwrap_or_default();
                let Some(found) = self.found.get_mut(&(name, ty.kind())) else { return };
                if found.last().is_none_or(|last| last.module != module) {
                    found.push(Found { btf, module, id: ty.id() });
                }
            },
        )
    }

    /// The kernel's type of that name, or else the first module's.
    pub fn get(&self, name: &str, kind: Kind) -> Option<Found<'t>> {
        self.found.get(&(name.as_bytes(), kind))?.first().copied()
    }

    /// The type of that name in one module.
    pub fn get_in(&self, module: &str, name: &str, kind: Kind) -> Option<Found<'t>> {
        let found = self.found.get(&(name.as_bytes(), kind))?;
        found.iter().find(|f| f.module == Some(module)).copied()
    }

    /// Why a name may not have been found although it is there.
    pub fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// The kernel has no BTF to look in.
    pub fn no_btf(&self) -> bool {
        self.no_btf
    }
}

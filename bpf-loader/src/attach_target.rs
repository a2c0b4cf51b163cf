//! What a program names in the kernel's BTF when it is loaded: the function, hook or tracepoint that it will be attached to.

use crate::attach_to::AttachTo;
use crate::btf::{BtfId, Kind};
use crate::error::{Error, Result};
use crate::kernel_names::{KernelNames, Request, Scope};
use crate::kind::{BtfTarget, SectionName};

/// What a section name asks for in BTF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hook<'a> {
    /// The module that must have it, of `fentry/module:function`; `vmlinux` is the kernel itself.
    module: Option<&'a str>,
    /// Name in BTF.
    name: String,
    kind: Kind,
}

const VMLINUX: &str = "vmlinux";

impl<'a> Hook<'a> {
    /// `None` if the kind of program names nothing in the kernel's BTF.
    pub fn of(name: &SectionName<'a>, section: &str) -> Result<Option<Self>> {
        let (prefix, kind) = match name.kind.map_or(BtfTarget::None, |kind| kind.btf_target) {
            // Of another program's function, which program is said when it is loaded.
            BtfTarget::None | BtfTarget::Program => return Ok(None),
            BtfTarget::Function(prefix) => (prefix, Kind::Func),
            BtfTarget::Typedef(prefix) => (prefix, Kind::Typedef),
        };
        let target = name.target.filter(|t| !t.is_empty());
        let target = target.ok_or_else(|| Error::MissingTarget { section: section.into() })?;
        let (module, hook) = match target.split_once(':') {
            Some((module, hook)) => (Some(module), hook),
            None => (None, target),
        };
        Ok(Some(Self { module, name: format!("{prefix}{hook}"), kind }))
    }

    /// What to look for.
    pub fn request(&self) -> Request<'_> {
        let scope = match self.module {
            None => Scope::Anywhere,
            Some(VMLINUX) => Scope::Kernel,
            Some(_) => Scope::Modules,
        };
        Request { name: &self.name, kind: self.kind, scope }
    }

    /// Takes the answer: the id, and whose BTF it is in.
    pub fn resolve(&self, names: &KernelNames<'_, '_>, section: &str) -> Result<(BtfId, AttachTo)> {
        let found = match self.module {
            None => names.get(&self.name, self.kind),
            Some(VMLINUX) => names.get(&self.name, self.kind).filter(|found| found.module.is_none()),
            Some(module) => names.get_in(module, &self.name, self.kind),
        };
        if let Some(found) = found {
            let module = found.module.map(str::to_owned);
            return Ok((found.id, module.map_or(AttachTo::Kernel, AttachTo::Module)));
        }
        Err(match names.failure() {
            Some(error) => error.clone(),
            None if names.no_btf() => Error::NoKernelBtf { needed_by: format!("section {section}") },
            None => Error::NoSuchTarget {
                name: self.module.map_or(self.name.clone(), |module| format!("{}:{}", module, self.name)),
            },
        })
    }
}

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
            Some(error) => error,
            None if names.no_btf() => {
                Box::new(Error::NoKernelBtf { needed_by: format!("section {section}") })
            }
            None => Box::new(Error::NoSuchTarget {
                name: self.module.map_or(self.name.clone(), |module| format!("{}:{}", module, self.name)),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::btf::encode::Builder;
    use crate::btf::{Btf, Linkage};
    use crate::bytes::Endian;
    use crate::target::{ModuleBtf, TargetBtf};

    struct Kernel {
        vmlinux: Option<Arc<Btf<'static>>>,
        modules: Vec<ModuleBtf<'static>>,
    }

    impl TargetBtf for Kernel {
        fn vmlinux(&self) -> Result<Option<&Btf<'_>>> {
            Ok(self.vmlinux.as_deref())
        }

        fn modules(&self) -> Result<&[ModuleBtf<'_>]> {
            Ok(&self.modules)
        }
    }

    /// Function `f` is in the kernel and in modules a and b, `g` in b only; hook `lsm` and tracepoint `tp` in the kernel.
    fn kernel() -> Kernel {
        let mut b = Builder::new(Endian::Little);
        let int = b.int("int", 4, 1);
        let proto = b.prototype(int, &[]);
        b.function("f", proto, Linkage::Static);
        b.function("bpf_lsm_lsm", proto, Linkage::Static);
        b.typedef("btf_trace_tp", int);
        b.structure("g", 4, &[]);
        let vmlinux = Arc::new(Btf::parse(b.build()).unwrap());
        let module = |name: &str, functions: &[&str]| {
            let mut b = Builder::split(&vmlinux);
            for function in functions {
                b.function(function, proto, Linkage::Static);
            }
            ModuleBtf { name: name.into(), btf: Btf::parse_split(b.build(), Arc::clone(&vmlinux)).unwrap() }
        };
        let modules = vec![module("a", &["f"]), module("b", &["f", "g"])];
        Kernel { vmlinux: Some(vmlinux), modules }
    }

    fn resolve(section: &str, kernel: &Kernel) -> Result<Option<(String, Option<String>)>> {
        let Some(hook) = Hook::of(&SectionName::parse(section), section)? else { return Ok(None) };
        let names = KernelNames::find(&[hook.request()], kernel);
        let (id, to) = hook.resolve(&names, section)?;
        let module = to.module().map(str::to_owned);
        let found = kernel.modules.iter().find(|m| Some(&m.name) == module.as_ref());
        let btf = found.map_or(kernel.vmlinux.as_deref().unwrap(), |m| &m.btf);
        Ok(Some((btf.type_by_id(id).unwrap().name().unwrap().to_owned(), module)))
    }

    #[test]
    fn the_kernel_comes_before_its_modules_unless_one_is_named() {
        let kernel = kernel();
        for (section, name, module) in [
            ("fentry/f", "f", None),
            ("fexit/g", "g", Some("b")),
            ("fentry/a:f", "f", Some("a")),
            ("fmod_ret/b:f", "f", Some("b")),
            ("fentry/vmlinux:f", "f", None),
            ("lsm/lsm", "bpf_lsm_lsm", None),
            ("tp_btf/tp", "btf_trace_tp", None),
        ] {
            let found = resolve(section, &kernel).unwrap().unwrap();
            assert_eq!(found, (name.to_owned(), module.map(str::to_owned)), "{section}");
        }
        assert_eq!(resolve("xdp", &kernel), Ok(None));
    }

    #[test]
    fn what_is_missing_is_named() {
        let kernel = kernel();
        let missing = |name: &str| Err(Box::new(Error::NoSuchTarget { name: name.into() }));
        assert_eq!(resolve("fentry/none", &kernel), missing("none"));
        assert_eq!(resolve("fentry/a:g", &kernel), missing("a:g"));
        assert_eq!(resolve("fentry/vmlinux:g", &kernel), missing("vmlinux:g"));
        assert_eq!(resolve("tp_btf/f", &kernel), missing("btf_trace_f"));
        assert_eq!(
            resolve("fentry", &kernel),
            Err(Box::new(Error::MissingTarget { section: "fentry".into() }))
        );
        let kernel = Kernel { vmlinux: None, modules: Vec::new() };
        assert!(matches!(resolve("fentry/f", &kernel).map_err(|e| *e), Err(Error::NoKernelBtf { .. })));
    }
}

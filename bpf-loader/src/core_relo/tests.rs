//! Each rule of resolution, on types made for it.

mod fields;
mod minimize;
mod patching;
mod types;

use super::*;
use crate::btf::encode::{Builder, Field, SIGNED};
use crate::btf::ext::CoreRelo;
use crate::btf::{Btf, BtfId, Kind, Linkage};
use crate::bytes::Endian;
use crate::error::{Error, Result};
use crate::target::{ModuleBtf, TargetBtf};

/// A kernel of these types.
struct Kernel {
    vmlinux: Option<Btf<'static>>,
    modules: Vec<ModuleBtf<'static>>,
}

impl TargetBtf for Kernel {
    fn vmlinux(&self) -> Result<Option<&Btf<'_>>> {
        Ok(self.vmlinux.as_ref())
    }

    fn modules(&self) -> Result<&[ModuleBtf<'_>]> {
        Ok(&self.modules)
    }
}

fn kernel(types: &Builder) -> Kernel {
    Kernel { vmlinux: Some(Btf::parse(types.build()).unwrap()), modules: Vec::new() }
}

/// An object's types and relocations.
struct Local {
    types: Builder,
    relos: Vec<CoreRelo>,
}

impl Local {
    fn new() -> Self {
        Self { types: Builder::new(Endian::Little), relos: Vec::new() }
    }

    fn relo(&mut self, kind: RelocKind, type_id: BtfId, access: &str) {
        let access = self.types.string(access);
        let kind = RelocKind::ALL.iter().position(|&k| k == kind).unwrap() as u32;
        self.relos.push(CoreRelo { insn_offset: 8, type_id, access, kind });
    }

    fn resolve(&self, target: &Kernel) -> Vec<Result<Resolution>> {
        let btf = Btf::parse(self.types.build()).unwrap().with_pointer_size(8);
        resolve(&btf, self.relos.iter().copied(), target).unwrap()
    }

    /// Values alone; `None` for poison.
    fn values(&self, target: &Kernel) -> Vec<Result<Option<u64>, Error>> {
        let value = |result: Result<Resolution>| result.map(|r| r.value).map_err(|e| *e);
        self.resolve(target).into_iter().map(value).collect()
    }
}

/// Integers of all sizes, by the names of C.
struct Ints {
    char: BtfId,
    int: BtfId,
    uint: BtfId,
    long: BtfId,
}

fn ints(b: &mut Builder) -> Ints {
    Ints {
        char: b.int("char", 1, SIGNED),
        int: b.int("int", 4, SIGNED),
        uint: b.int("unsigned int", 4, 0),
        long: b.int("long", 8, SIGNED),
    }
}

#[test]
fn kinds_are_numbered_as_in_the_kernel() {
    assert_eq!(RelocKind::from_number(0), Some(RelocKind::FieldByteOffset));
    assert_eq!(RelocKind::from_number(6), Some(RelocKind::TypeIdLocal));
    assert_eq!(RelocKind::from_number(12), Some(RelocKind::TypeMatches));
    assert_eq!(RelocKind::from_number(13), None);
}

#[test]
fn a_kernel_without_btf_is_asked_only_if_need_be() {
    let none = Kernel { vmlinux: None, modules: Vec::new() };
    let mut local = Local::new();
    let int = local.types.int("int", 4, SIGNED);
    local.relo(RelocKind::TypeIdLocal, int, "0");
    assert_eq!(local.values(&none), [Ok(Some(1))]);
    local.relo(RelocKind::TypeExists, int, "0");
    let btf = Btf::parse(local.types.build()).unwrap();
    assert_eq!(resolve(&btf, local.relos, &none), Err(Box::new(Error::CoreNoTarget)));
}

#[test]
fn an_error_is_one_relocation_s_alone() {
    let mut local = Local::new();
    let int = local.types.int("int", 4, SIGNED);
    let nameless = local.types.structure("", 4, &[Field::at("a", int, 0)]);
    local.relo(RelocKind::TypeSize, int, "0");
    local.relo(RelocKind::FieldByteOffset, nameless, "0:0");
    local.relo(RelocKind::TypeSize, BtfId(99), "0");
    local.relos.push(CoreRelo { kind: 13, ..local.relos[0] });
    local.relos.push(CoreRelo { access: 9999, ..local.relos[0] });
    local.relo(RelocKind::TypeExists, int, "0");
    let mut types = Builder::new(Endian::Little);
    types.int("int", 8, SIGNED);
    assert_eq!(
        local.values(&kernel(&types)),
        [
            Ok(Some(8)),
            Err(Error::CoreAnonymous { type_id: nameless }),
            Err(Error::BtfTypeId { type_id: BtfId(99), count: 3 }),
            Err(Error::CoreKind { kind: 13 }),
            Err(Error::BtfString { offset: 9999 }),
            Ok(Some(1)),
        ]
    );
}

#[test]
fn modules_are_asked_for_what_the_kernel_lacks() {
    let mut types = Builder::new(Endian::Little);
    let int = types.int("int", 4, SIGNED);
    types.structure("both", 4, &[Field::at("a", int, 0)]);
    let vmlinux = std::sync::Arc::new(Btf::parse(types.build()).unwrap());
    let mut own = Builder::split(&vmlinux);
    let fields = [Field::at("a", int, 4)];
    own.structure("both", 8, &fields);
    let module = own.structure("module_only", 12, &fields);
    let btf = Btf::parse_split(own.build(), vmlinux).unwrap();
    let mut target = kernel(&types);
    target.modules.push(ModuleBtf { name: "m".to_owned(), btf });

    let mut local = Local::new();
    let int = local.types.int("int", 4, SIGNED);
    let fields = [Field::at("a", int, 0)];
    let both = local.types.structure("both", 4, &fields);
    let only = local.types.structure("module_only", 4, &fields);
    let nowhere = local.types.structure("nowhere", 4, &fields);
    for id in [both, only, nowhere] {
        local.relo(RelocKind::FieldByteOffset, id, "0:0");
        local.relo(RelocKind::TypeIdTarget, id, "0");
    }
    let values: Vec<_> = local.values(&target).into_iter().map(Result::unwrap).collect();
    assert_eq!(values, [Some(0), Some(2), Some(4), Some(module.0.into()), None, Some(0)]);
}

#[test]
fn work_that_grows_too_fast_is_cut_short() {
    // Every structure has two anonymous members of the next: the field could be in any of 2^40 places.
    let mut types = Builder::new(Endian::Little);
    let int = types.int("int", 4, SIGNED);
    for depth in 0..40 {
        let next = BtfId(types.next_id().0 + 1);
        let name = if depth == 0 { "bomb" } else { "" };
        types.structure(name, 8, &[Field::at("", next, 0), Field::at("", next, 0)]);
    }
    types.structure("", 4, &[Field::at("other", int, 0)]);
    let mut local = Local::new();
    let int = local.types.int("int", 4, SIGNED);
    let s = local.types.structure("bomb", 4, &[Field::at("a", int, 0)]);
    local.relo(RelocKind::FieldExists, s, "0:0");
    let btf = Btf::parse(local.types.build()).unwrap();
    let mut fuel = crate::fuel::Fuel::new(100_000);
    let mut results = resolve_within(&btf, local.relos, &kernel(&types), &mut fuel).unwrap();
    assert_eq!(results.len(), 1);
    let result = results.remove(0).map_err(|e| *e);
    assert!(matches!(result, Err(Error::TooComplex { limit: 100_000, .. })), "{result:?}");
}

//! What a kernel takes, found by trying.

pub mod probes;

pub(crate) use probes::{bpf_cookie, context_tag, far_places, uprobe_multi};

use crate::btf::encode::Builder;
use crate::btf::sanitize::BtfFeatures;
use crate::btf::{BtfId, Kind, Linkage, tail_len};
use crate::bytes::Endian;
use crate::kernel::{Kernel, RunningKernel};

/// Features that planning depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// What may be in an object's BTF.
    pub btf: BtfFeatures,
}

impl Features {
    /// A kernel that takes everything.
    pub const ALL: Self = Self { btf: BtfFeatures::ALL };

    /// What the running kernel takes: [`probe_through`](Self::probe_through) its calls.
    pub fn probe() -> Self {
        Self::probe_through(&RunningKernel::default())
    }

    /// What a kernel takes, by loading BTF of a few dozen bytes: once on a kernel that takes everything but the newest, else
    /// once for each kind. A user who may load no BTF is told so when the object's own is loaded.
    pub fn probe_through(kernel: &dyn Kernel) -> Self {
        let accepts = |write: &[fn(&mut Builder)]| {
            let mut builder = Builder::new(Endian::HOST);
            builder.int("int", 4, 1);
            write.iter().for_each(|w| w(&mut builder));
            kernel.load_btf(&builder.build(), None).is_ok()
        };
        let common = [func, func_global, datasec, float, decl_tag, type_tag, enum64];
        let newest = BtfFeatures {
            question_mark_datasec: accepts(&[question_mark_datasec]),
            layout: accepts(&[layout]),
            ..BtfFeatures::ALL
        };
        if accepts(&common) {
            return Self { btf: newest };
        }
        Self {
            btf: BtfFeatures {
                func: accepts(&[func]),
                func_global: accepts(&[func_global]),
                datasec: accepts(&[datasec]),
                float: accepts(&[float]),
                decl_tag: accepts(&[decl_tag]),
                type_tag: accepts(&[type_tag]),
                enum64: accepts(&[enum64]),
                ..newest
            },
        }
    }
}

/// The `int` that each probe begins with.
const INT: BtfId = BtfId(1);

fn func(b: &mut Builder) {
    let prototype = b.prototype(INT, &[("a", INT)]);
    b.function("f", prototype, Linkage::Static);
}

fn func_global(b: &mut Builder) {
    let prototype = b.prototype(INT, &[("a", INT)]);
    b.function("g", prototype, Linkage::Global);
}

fn datasec(b: &mut Builder) {
    let variable = b.variable("v", INT, Linkage::Static);
    b.datasec(".data", 4, &[(variable, 0, 4)]);
}

fn question_mark_datasec(b: &mut Builder) {
    let variable = b.variable("w", INT, Linkage::Static);
    b.datasec("?.data", 4, &[(variable, 0, 4)]);
}

fn float(b: &mut Builder) {
    b.float("float", 4);
}

fn decl_tag(b: &mut Builder) {
    let typedef = b.typedef("t", INT);
    b.decl_tag("tag", typedef, -1);
}

fn type_tag(b: &mut Builder) {
    let tag = b.refer(Kind::TypeTag, "tag", INT);
    b.ptr(tag);
}

fn enum64(b: &mut Builder) {
    b.enumeration64("e", true, &[("A", u64::MAX)]);
}

fn layout(b: &mut Builder) {
    // One entry for each kind that this crate knows, as the kernel's own BTF has it.
    for number in 0..=Kind::Enum64.number() {
        let (fixed, element) = tail_len(number).unwrap_or((0, 0));
        b.layout(fixed, element);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_well_formed() {
        let mut b = Builder::new(Endian::HOST);
        b.int("int", 4, 1);
        for write in
            [func, func_global, datasec, question_mark_datasec, float, decl_tag, type_tag, enum64, layout]
        {
            write(&mut b);
        }
        let bytes = b.build();
        let btf = crate::btf::Btf::parse(bytes.as_slice()).unwrap();
        btf.validate().unwrap();
        assert_eq!(btf.types().filter(|t| t.kind() == Kind::Datasec).count(), 2);
    }
}

//! What a kernel takes, found by trying.

use std::os::fd::AsFd;

use bpf_sys::link::{self, LinkCreate, LinkOptions};
use bpf_sys::prog::ProgLoad;
use bpf_sys::uapi::insn;
use bpf_sys::{AttachType, Errno, Insn, ProgType};

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

/// Whether the running kernel has `bpf_get_attach_cookie` for probes (Linux 5.15), by loading two instructions.
pub(crate) fn bpf_cookie() -> bool {
    /// `BPF_FUNC_get_attach_cookie`.
    const GET_ATTACH_COOKIE: i32 = 174;
    let insns = [Insn::new(insn::CALL, 0, 0, 0, GET_ATTACH_COOKIE), Insn::new(insn::EXIT, 0, 0, 0, 0)];
    let program =
        ProgLoad { prog_type: ProgType::KPROBE, insns: &insns, license: c"GPL", ..ProgLoad::default() };
    bpf_sys::prog::load(&program, None).is_ok()
}

/// Whether the running kernel has links of many uprobes, and takes the process that they are told for one. Kernels before
/// 6.10 took it for a thread; they also let an impossible one pass, until they found that `/` is no file to probe.
pub(crate) fn uprobe_multi() -> bool {
    let insns = [Insn::new(insn::MOV64_IMM, 0, 0, 0, 0), Insn::new(insn::EXIT, 0, 0, 0, 0)];
    let program = ProgLoad {
        prog_type: ProgType::KPROBE,
        expected_attach_type: AttachType::TRACE_UPROBE_MULTI,
        insns: &insns,
        license: c"GPL",
        ..ProgLoad::default()
    };
    let Ok(program) = bpf_sys::prog::load(&program, None) else { return false };
    let errno = |pid| {
        let options = LinkOptions::UprobeMulti {
            path: c"/",
            offsets: &[0],
            ref_ctr_offsets: &[],
            cookies: &[],
            flags: 0,
            pid,
        };
        let create = LinkCreate {
            object: program.as_fd(),
            target: link::Target::None,
            attach_type: AttachType::TRACE_UPROBE_MULTI,
            flags: 0,
            options,
        };
        link::create(&create).err().and_then(|e| e.errno())
    };
    errno(0) == Some(Errno::EBADF) && errno(u32::MAX) == Some(Errno::EINVAL)
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

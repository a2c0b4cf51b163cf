//! Single features of a kernel, asked for one by one: each costs a call or two of bpf(2) the first time, and nothing later.

use crate::text;
use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd};

use bpf_sys::link::{self, LinkCreate, LinkOptions};
use bpf_sys::map::MapCreate;
use bpf_sys::prog::{ExtRecords, ProgLoad};
use bpf_sys::uapi::flags::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_F_SLEEPABLE};
use bpf_sys::uapi::insn;
use bpf_sys::{AttachType, BtfFd, Errno, Insn, Log, MapType, ProgType, Result};

use crate::btf::encode::{Builder, Field, SIGNED};
use crate::btf::{BtfId, Linkage};
use crate::bytes::Endian;
use crate::kernel::{Kernel, RunningKernel};
use crate::sorted::SortedMap;

/// Something that a kernel may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Programs of a type.
    ProgType(ProgType),
    /// Maps of a type.
    MapType(MapType),
    /// Programs of a type that say at load where they will be attached. Types that don't have it checked at load take
    /// anything.
    AttachType(ProgType, AttachType),
    /// A helper, by its number (`BPF_FUNC_*`), in programs of a type.
    Helper(ProgType, u32),
}

/// The features of a kernel, found out as they are asked for, and remembered.
///
/// How each is tried is what libbpf's `libbpf_probes.c` does.
pub struct Probes<'k> {
    kernel: &'k dyn Kernel,
    known: RefCell<SortedMap<Feature, bool>>,
}

impl<'k> Probes<'k> {
    /// Those of a kernel, of which nothing is known yet.
    pub fn new(kernel: &'k dyn Kernel) -> Self {
        Self { kernel, known: RefCell::default() }
    }

    /// The same, with an answer that is known.
    #[must_use]
    pub fn with(self, feature: Feature, supported: bool) -> Self {
        self.known.borrow_mut().insert(feature, supported);
        self
    }

    /// Whether the kernel has it.
    ///
    /// # Errors
    ///
    /// It cannot be told: the caller may not try (`EPERM`, of lockdown too), there is no memory, or (`EOPNOTSUPP`) it is of a
    /// kind that no small program can try: helpers of programs that need something of the kernel to attach to, and types that
    /// this library does not know.
    pub fn has(&self, feature: Feature) -> Result<bool> {
        if let Some(&known) = self.known.borrow().get(&feature) {
            return Ok(known);
        }
        let supported = match feature {
            Feature::ProgType(prog_type) => self.program(prog_type, usual_attach_type(prog_type)),
            Feature::AttachType(prog_type, attach_type) => self.program(prog_type, attach_type),
            Feature::MapType(map_type) => self.map(map_type),
            Feature::Helper(prog_type, number) => self.helper(prog_type, number),
        }?;
        self.known.borrow_mut().insert(feature, supported);
        Ok(supported)
    }

    fn program(&self, prog_type: ProgType, attach_type: AttachType) -> Result<bool> {
        if prog_type.name().is_none() || prog_type == ProgType::default() {
            return Err(untried());
        }
        let insns = [Insn::new(insn::MOV64_IMM, 0, 0, 0, 0), Insn::new(insn::EXIT, 0, 0, 0, 0)];
        let (result, log) = self.load(prog_type, attach_type, &insns);
        // What names something in the kernel's BTF is refused for the type numbered 1, an integer, in these words.
        let refused_as = |words: &str| text::contains(&log, words);
        match (result, prog_type) {
            (Ok(()), _) => Ok(true),
            (Err(Errno::EINVAL), ProgType::TRACING | ProgType::LSM) => {
                Ok(refused_as("is not a function") || refused_as("is not a typedef"))
            }
            (Err(Errno::EINVAL), ProgType::EXT) => Ok(refused_as("Cannot replace kernel functions")),
            (Err(Errno::ENOTSUPP), ProgType::STRUCT_OPS) => Ok(true),
            (Err(errno), _) => refusal(errno),
        }
    }

    fn helper(&self, prog_type: ProgType, number: u32) -> Result<bool> {
        if names_kernel_type(prog_type) {
            return Err(untried());
        }
        let call = Insn::new(insn::CALL, 0, 0, 0, number as i32);
        let (result, log) =
            self.load(prog_type, usual_attach_type(prog_type), &[call, Insn::new(insn::EXIT, 0, 0, 0, 0)]);
        match result {
            Ok(()) => Ok(true),
            Err(errno @ (Errno::EINVAL | Errno::EACCES)) => {
                // Whatever else is wrong, with arguments above all, is said of helpers that are there.
                const MISSING: [&str; 3] =
                    ["invalid func ", "unknown func ", "program of this type cannot use helper "];
                let spoken = log.lines().any(|line| !line.starts_with("processed "));
                if spoken {
                    Ok(!MISSING.iter().any(|words| text::contains(&log, words)))
                } else {
                    refusal(errno)
                }
            }
            Err(errno) => refusal(errno),
        }
    }

    /// Loads a program of a few instructions; why it was refused, and what the verifier says.
    fn load(
        &self,
        prog_type: ProgType,
        attach_type: AttachType,
        insns: &[Insn],
    ) -> (std::result::Result<(), Errno>, String) {
        let mut buffer = vec![0; 4096];
        let mut log = Log::new(1, &mut buffer);
        let program = ProgLoad {
            prog_type,
            insns,
            license: c"GPL",
            expected_attach_type: attach_type,
            flags: if prog_type == ProgType::SYSCALL { BPF_F_SLEEPABLE } else { 0 },
            attach_btf_id: u32::from(names_kernel_type(prog_type) && prog_type != ProgType::STRUCT_OPS),
            ..ProgLoad::default()
        };
        let result = self.kernel.load_program(&program, Some(&mut log));
        let result = result.map(drop).map_err(|e| e.errno().unwrap_or(Errno::EINVAL));
        let text = String::from_utf8_lossy(log.text()).into_owned();
        (result, text)
    }

    fn map(&self, map_type: MapType) -> Result<bool> {
        let plain =
            MapCreate { map_type, key_size: 4, value_size: 4, max_entries: 1, ..MapCreate::default() };
        let (inner, btf): (_, BtfFd);
        let map = match map_type {
            MapType::STACK_TRACE => MapCreate { value_size: 8, ..plain },
            MapType::LPM_TRIE => MapCreate { key_size: 8, value_size: 8, flags: BPF_F_NO_PREALLOC, ..plain },
            MapType::CGROUP_STORAGE | MapType::PERCPU_CGROUP_STORAGE => {
                MapCreate { key_size: 16, value_size: 8, max_entries: 0, ..plain }
            }
            MapType::QUEUE | MapType::STACK | MapType::BLOOM_FILTER => MapCreate { key_size: 0, ..plain },
            MapType::RINGBUF | MapType::USER_RINGBUF => {
                let max_entries = bpf_sys::page_size() as u32;
                MapCreate { key_size: 0, value_size: 0, max_entries, ..plain }
            }
            MapType::ARENA => MapCreate { key_size: 0, value_size: 0, flags: BPF_F_MMAPABLE, ..plain },
            MapType::INSN_ARRAY => MapCreate { value_size: 16, ..plain },
            MapType::RHASH => MapCreate { flags: BPF_F_NO_PREALLOC, ..plain },
            MapType::ARRAY_OF_MAPS | MapType::HASH_OF_MAPS => {
                inner = self.kernel.create_map(&MapCreate { map_type: MapType::HASH, ..plain.clone() })?;
                MapCreate { inner_map: Some(inner.as_fd()), ..plain }
            }
            MapType::SK_STORAGE | MapType::INODE_STORAGE | MapType::TASK_STORAGE | MapType::CGRP_STORAGE => {
                btf = self.kernel.load_btf(&storage_btf(), None)?;
                MapCreate {
                    value_size: 8,
                    max_entries: 0,
                    flags: BPF_F_NO_PREALLOC,
                    btf: Some(btf.as_fd()),
                    btf_key_type_id: 1,
                    btf_value_type_id: 2,
                    ..plain
                }
            }
            MapType::STRUCT_OPS => {
                // There is no structure of operations that is an integer.
                let map = MapCreate { btf_vmlinux_value_type_id: 1, ..plain };
                return match self.kernel.create_map(&map) {
                    Ok(_) => Ok(true),
                    Err(e) if e.errno() == Some(Errno::ENOTSUPP) => Ok(true),
                    Err(e) => refusal(e.errno().unwrap_or(Errno::EINVAL)),
                };
            }
            known if known.name().is_some() => plain,
            _ => return Err(untried()),
        };
        match self.kernel.create_map(&map) {
            Ok(_) => Ok(true),
            Err(e) => refusal(e.errno().unwrap_or(Errno::EINVAL)),
        }
    }
}

/// What a refusal says: the kernel lacks it, or it cannot be told.
fn refusal(errno: Errno) -> Result<bool> {
    match errno {
        Errno::EPERM | Errno::ENOMEM | Errno::EAGAIN | Errno::EMFILE | Errno::ENFILE => {
            Err(bpf_sys::Error::Call { call: "bpf(2), to try a feature", errno })
        }
        _ => Ok(false),
    }
}

fn untried() -> bpf_sys::Error {
    bpf_sys::Error::Call { call: "bpf(2), to try a feature", errno: Errno::EOPNOTSUPP }
}

/// Types whose programs name a function or operation of the kernel's BTF.
fn names_kernel_type(prog_type: ProgType) -> bool {
    matches!(prog_type, ProgType::TRACING | ProgType::LSM | ProgType::EXT | ProgType::STRUCT_OPS)
}

/// An attach type that programs of a type, if there are such, can be loaded with.
fn usual_attach_type(prog_type: ProgType) -> AttachType {
    match prog_type {
        ProgType::CGROUP_SOCK_ADDR => AttachType::CGROUP_INET4_CONNECT,
        ProgType::CGROUP_SOCKOPT => AttachType::CGROUP_GETSOCKOPT,
        ProgType::SK_LOOKUP => AttachType::SK_LOOKUP,
        ProgType::LIRC_MODE2 => AttachType::LIRC_MODE2,
        ProgType::NETFILTER => AttachType::NETFILTER,
        ProgType::TRACING => AttachType::TRACE_FENTRY,
        ProgType::LSM => AttachType::LSM_MAC,
        _ => AttachType(0),
    }
}

/// Local storages must have types: an integer, and a structure of two.
fn storage_btf() -> Vec<u8> {
    let mut b = Builder::new(Endian::HOST);
    let int = b.int("int", 4, SIGNED);
    b.structure("value", 8, &[Field::at("a", int, 0), Field::at("b", int, 4)]);
    b.build()
}

/// Whether the running kernel has `bpf_get_attach_cookie` for probes (Linux 5.15).
pub(crate) fn bpf_cookie() -> bool {
    /// `BPF_FUNC_get_attach_cookie`.
    const GET_ATTACH_COOKIE: u32 = 174;
    let kernel = RunningKernel::default();
    Probes::new(&kernel).has(Feature::Helper(ProgType::KPROBE, GET_ATTACH_COOKIE)).unwrap_or(false)
}

/// Whether the running kernel's verifier knows a parameter for the context by the tag `arg:ctx` (Linux 6.8).
pub(crate) fn context_tag() -> bool {
    takes_tagged_context(&RunningKernel::default())
}

/// Loads a program whose function passes a tagged `void *` to a helper that takes the context alone.
fn takes_tagged_context(kernel: &dyn Kernel) -> bool {
    /// `BPF_FUNC_get_func_ip`.
    const GET_FUNC_IP: i32 = 173;
    let mut b = Builder::new(Endian::HOST);
    let int = b.int("int", 4, SIGNED);
    let pointer = b.ptr(BtfId::VOID);
    let prototype = b.prototype(int, &[("context", pointer)]);
    let main = b.function("main", prototype, Linkage::Global);
    let function = b.function("function", prototype, Linkage::Global);
    b.decl_tag("arg:ctx", function, 0);
    let Ok(btf) = kernel.load_btf(&b.build(), None) else { return false };
    let exit = Insn::new(insn::EXIT, 0, 0, 0, 0);
    let call = |imm| Insn::new(insn::CALL, 0, 0, 0, imm);
    let insns = [call(1).with_src(insn::PSEUDO_CALL), exit, call(GET_FUNC_IP), exit];
    let func_info: Vec<u8> = [0, main.0, 2, function.0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let program = ProgLoad {
        prog_type: ProgType::KPROBE,
        insns: &insns,
        license: c"GPL",
        btf: Some(btf.as_fd()),
        func_info: ExtRecords { bytes: &func_info, record_size: 8 },
        ..ProgLoad::default()
    };
    kernel.load_program(&program, None).is_ok()
}

/// Whether the running kernel takes places in a map's value beyond 512 MiB.
pub(crate) fn far_places() -> bool {
    takes_far_places(&RunningKernel::default())
}

/// Loads a program with a place far outside a small map: what the kernel says tells which of the two it minds.
fn takes_far_places(kernel: &dyn Kernel) -> bool {
    let map = MapCreate {
        map_type: MapType::ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        ..MapCreate::default()
    };
    let Ok(map) = kernel.create_map(&map) else { return false };
    let low = Insn::new(insn::LD_IMM64, 1, insn::PSEUDO_MAP_VALUE, 0, map.as_fd().as_raw_fd());
    let insns = [low, Insn::new(0, 0, 0, 0, 1 << 30), Insn::new(insn::EXIT, 0, 0, 0, 0)];
    let program = ProgLoad {
        prog_type: ProgType::SOCKET_FILTER,
        insns: &insns,
        license: c"GPL",
        ..ProgLoad::default()
    };
    let mut buffer = vec![0; 4096];
    let mut log = Log::new(1, &mut buffer);
    let refused = kernel.load_program(&program, Some(&mut log)).is_err();
    refused && text::contains(&String::from_utf8_lossy(log.text()), "invalid access to map value pointer")
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bpf_sys::{MapFd, ProgFd};

    use super::*;

    /// A kernel that refuses each program with a number and a text, and counts.
    struct Refusing(Errno, &'static str, Cell<u32>);

    impl Kernel for Refusing {
        fn create_map(&self, _: &MapCreate<'_>) -> Result<MapFd> {
            self.2.set(self.2.get() + 1);
            Err(bpf_sys::Error::Call { call: "bpf", errno: self.0 })
        }
        fn update_map(&self, _: &MapFd, _: &[u8], _: &[u8]) -> Result<()> {
            Err(untried())
        }
        fn freeze_map(&self, _: &MapFd) -> Result<()> {
            Err(untried())
        }
        fn load_btf(&self, data: &[u8], _: Option<&mut Log<'_>>) -> Result<BtfFd> {
            crate::btf::Btf::parse(data).unwrap().validate().unwrap();
            Err(bpf_sys::Error::Call { call: "bpf", errno: self.0 })
        }
        fn load_program(&self, program: &ProgLoad<'_>, log: Option<&mut Log<'_>>) -> Result<ProgFd> {
            self.2.set(self.2.get() + 1);
            assert!(program.insns.len() == 2);
            let log = log.unwrap();
            log.buf[..self.1.len()].copy_from_slice(self.1.as_bytes());
            Err(bpf_sys::Error::Call { call: "bpf", errno: self.0 })
        }
    }

    fn refusing(errno: Errno, text: &'static str) -> Refusing {
        Refusing(errno, text, Cell::new(0))
    }

    #[test]
    fn what_the_verifier_says_tells_what_is_missing() {
        let helper = Feature::Helper(ProgType::KPROBE, 174);
        let (program, map) = (Feature::ProgType(ProgType::XDP), Feature::MapType(MapType::HASH));
        let tracing = Feature::AttachType(ProgType::TRACING, AttachType::TRACE_FENTRY);
        let operations = Feature::ProgType(ProgType::STRUCT_OPS);
        for (errno, text, feature, expected) in [
            (Errno::EINVAL, "0: (85) call bpf_x#174\ninvalid func unknown#174\n", helper, Some(false)),
            (Errno::EINVAL, "program of this type cannot use helper bpf_x#1\n", helper, Some(false)),
            (Errno::EACCES, "R1 type=ctx expected=fp\n", helper, Some(true)),
            // The type of program is not there, and the verifier is never asked.
            (Errno::EINVAL, "processed 0 insns\n", helper, Some(false)),
            (Errno::EPERM, "", helper, None),
            (Errno::EINVAL, "", program, Some(false)),
            (Errno::EINVAL, "attach_btf_id 1 is not a function\n", tracing, Some(true)),
            (Errno::EINVAL, "", tracing, Some(false)),
            (Errno::EPERM, "", tracing, None),
            (Errno::ENOTSUPP, "", operations, Some(true)),
            (Errno::EINVAL, "", operations, Some(false)),
            (Errno::EINVAL, "", map, Some(false)),
            (Errno::EPERM, "", map, None),
            (Errno::EINVAL, "", Feature::MapType(MapType(9999)), None),
            (Errno::EINVAL, "", Feature::ProgType(ProgType(9999)), None),
            (Errno::EINVAL, "", Feature::Helper(ProgType::LSM, 1), None),
        ] {
            let kernel = refusing(errno, text);
            assert_eq!(Probes::new(&kernel).has(feature).ok(), expected, "{feature:?} {errno:?} {text}");
        }
    }

    #[test]
    fn an_answer_is_asked_for_once_and_may_be_given() {
        let kernel = refusing(Errno::EINVAL, "");
        let (hash, array) = (Feature::MapType(MapType::HASH), Feature::MapType(MapType::ARRAY));
        let probes = Probes::new(&kernel).with(array, true);
        assert_eq!((probes.has(hash).ok(), probes.has(hash).ok()), (Some(false), Some(false)));
        assert_eq!(probes.has(array).ok(), Some(true));
        assert_eq!(kernel.2.get(), 1);
        // What could not be told is asked again.
        let kernel = refusing(Errno::EPERM, "");
        let probes = Probes::new(&kernel);
        assert!(probes.has(hash).is_err() && probes.has(hash).is_err());
        assert_eq!(kernel.2.get(), 2);
    }
}

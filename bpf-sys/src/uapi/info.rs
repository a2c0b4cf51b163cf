//! What `BPF_OBJ_GET_INFO_BY_FD` tells: the `bpf_*_info` structures, with their pointers kept private.

use super::kinds::{AttachType, LinkType, MapType, PerfLinkType, ProgType};
use super::{ObjName, Plain};

/// Declares a structure that the kernel fills; the sizes of its fields add up to its own, so it has no padding.
macro_rules! info {
    ($(#[$meta:meta])* $name:ident ($size:literal) { $($(#[$fmeta:meta])* $vis:vis $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* $vis $field: $ty,)* }
        const _: () = assert!(size_of::<$name>() == $size && 0 $(+ size_of::<$ty>())* == $size);
        // SAFETY: `repr(C)`, no padding by the assertion above, and all fields are integers, arrays or newtypes of them.
        unsafe impl Plain for $name {}
    };
}

/// A structure as far as the running kernel knows it; the fields past `known` bytes are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info<T> {
    pub(crate) value: T,
    pub(crate) known: usize,
}

impl<T> Info<T> {
    /// How many bytes of the structure the kernel filled.
    pub const fn known_bytes(&self) -> usize {
        self.known
    }
}

impl<T> core::ops::Deref for Info<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl Info<ProgInfo> {
    /// Runs that were skipped because the program was already running on the CPU; `None` before Linux 5.12.
    pub fn recursion_misses(&self) -> Option<u64> {
        (self.known >= core::mem::offset_of!(ProgInfo, recursion_misses) + 8)
            .then_some(self.value.recursion_misses)
    }
}

info! {
    /// `struct bpf_prog_info`. Counts are what the program has, whatever the buffers held.
    ProgInfo (232) {
        /// Type.
        pub prog_type: ProgType,
        /// Id, unique while the program lives.
        pub id: u32,
        /// SHA digest of the instructions.
        pub tag: [u8; 8],
        /// Bytes of machine code.
        pub jited_len: u32,
        /// Bytes of instructions after the verifier's rewriting.
        pub xlated_len: u32,
        pub(crate) jited: u64,
        pub(crate) xlated: u64,
        /// Nanoseconds since boot.
        pub load_time: u64,
        /// Who loaded it.
        pub created_by_uid: u32,
        /// Maps that it uses.
        pub nr_map_ids: u32,
        pub(crate) map_ids: u64,
        /// Name.
        pub name: ObjName,
        /// Device that it is bound to, or 0.
        pub ifindex: u32,
        /// Bit 0: the licence is compatible with the GPL.
        pub flags: u32,
        /// Device of the network namespace of `ifindex`.
        pub netns_dev: u64,
        /// Inode of the network namespace of `ifindex`.
        pub netns_ino: u64,
        /// Addresses of the functions.
        pub nr_jited_ksyms: u32,
        /// Lengths of the functions.
        pub nr_jited_func_lens: u32,
        pub(crate) jited_ksyms: u64,
        pub(crate) jited_func_lens: u64,
        /// BTF that it was loaded with, or 0.
        pub btf_id: u32,
        pub(crate) func_info_rec_size: u32,
        pub(crate) func_info: u64,
        /// Function records.
        pub nr_func_info: u32,
        /// Line records.
        pub nr_line_info: u32,
        pub(crate) line_info: u64,
        pub(crate) jited_line_info: u64,
        /// Line records of the machine code.
        pub nr_jited_line_info: u32,
        pub(crate) line_info_rec_size: u32,
        pub(crate) jited_line_info_rec_size: u32,
        /// Tags of the functions.
        pub nr_prog_tags: u32,
        pub(crate) prog_tags: u64,
        /// Time in the program, while statistics are on.
        pub run_time_ns: u64,
        /// Runs, while statistics are on.
        pub run_cnt: u64,
        pub(crate) recursion_misses: u64,
        /// Instructions that the verifier visited (Linux 5.16).
        pub verified_insns: u32,
        /// BTF object of the function that it is attached to (Linux 5.18).
        pub attach_btf_obj_id: u32,
        /// Type in that BTF.
        pub attach_btf_id: u32,
        pub(crate) pad: u32,
    }
}

info! {
    /// `struct bpf_func_info`: a function's first instruction and its type in the program's BTF.
    FuncInfo (8) {
        /// Index of the instruction.
        pub insn_off: u32,
        /// BTF id.
        pub type_id: u32,
    }
}

info! {
    /// `struct bpf_line_info`: the source of an instruction; offsets are into the strings of the program's BTF.
    LineInfo (16) {
        /// Index of the instruction.
        pub insn_off: u32,
        /// Name of the file.
        pub file_name_off: u32,
        /// Text of the line.
        pub line_off: u32,
        /// Line number in the upper 22 bits, column in the lower 10.
        pub line_col: u32,
    }
}

info! {
    /// `struct bpf_map_info`.
    MapInfo (104) {
        /// Type.
        pub map_type: MapType,
        /// Id, unique while the map lives.
        pub id: u32,
        /// Bytes of a key.
        pub key_size: u32,
        /// Bytes of a value, of one CPU.
        pub value_size: u32,
        /// Capacity; of a ring buffer, its bytes.
        pub max_entries: u32,
        /// Flags at creation.
        pub flags: u32,
        /// Name.
        pub name: ObjName,
        /// Device that it is bound to, or 0.
        pub ifindex: u32,
        /// struct_ops: type of the value in the kernel's BTF.
        pub btf_vmlinux_value_type_id: u32,
        /// Device of the network namespace of `ifindex`.
        pub netns_dev: u64,
        /// Inode of the network namespace of `ifindex`.
        pub netns_ino: u64,
        /// BTF that it was created with, or 0.
        pub btf_id: u32,
        /// Type of the key.
        pub btf_key_type_id: u32,
        /// Type of the value.
        pub btf_value_type_id: u32,
        /// struct_ops: BTF object of the value's type (Linux 6.9).
        pub btf_vmlinux_id: u32,
        /// What `map_extra` was (Linux 5.16).
        pub map_extra: u64,
        pub(crate) hash: u64,
        pub(crate) hash_size: u32,
        pub(crate) pad: u32,
    }
}

info! {
    /// `struct bpf_btf_info`.
    BtfInfo (32) {
        pub(crate) btf: u64,
        /// Bytes of the data.
        pub size: u32,
        /// Id, unique while the object lives.
        pub id: u32,
        pub(crate) name: u64,
        /// Length of the name, "vmlinux" or a module's (Linux 5.11).
        pub name_len: u32,
        /// 1 for the kernel's and its modules' BTF (Linux 5.11).
        pub kernel_btf: u32,
    }
}

info! {
    /// `struct bpf_token_info` (Linux 6.17): bit masks by number of command, map type, program type and attach type.
    TokenInfo (32) {
        /// Commands.
        pub allowed_cmds: u64,
        /// Map types.
        pub allowed_maps: u64,
        /// Program types.
        pub allowed_progs: u64,
        /// Attach types.
        pub allowed_attachs: u64,
    }
}

info! {
    /// `struct bpf_link_info`; what depends on the type is in `data`.
    RawLinkInfo (64) {
        /// Type.
        pub link_type: LinkType,
        /// Id, unique while the link lives.
        pub id: u32,
        /// Program, or 0.
        pub prog_id: u32,
        pub(crate) pad: u32,
        pub(crate) data: [u64; 6],
    }
}

impl RawLinkInfo {
    fn data_as<T: Plain>(&self) -> T {
        const { assert!(size_of::<T>() <= size_of::<[u64; 6]>() && align_of::<T>() <= align_of::<u64>()) };
        // SAFETY: `data` is initialised, large and aligned enough for `T` by the assertion, and any bytes are a `T`.
        unsafe { self.data.as_ptr().cast::<T>().read() }
    }

    /// What depends on the type.
    pub fn detail(&self) -> LinkDetail {
        match self.link_type {
            LinkType::RAW_TRACEPOINT => LinkDetail::RawTracepoint(self.data_as()),
            LinkType::TRACING => LinkDetail::Tracing(self.data_as()),
            LinkType::CGROUP => LinkDetail::Cgroup(self.data_as()),
            LinkType::ITER => LinkDetail::Iter(self.data_as()),
            LinkType::NETNS => LinkDetail::Netns(self.data_as()),
            LinkType::XDP => LinkDetail::Xdp { ifindex: self.data_as() },
            LinkType::STRUCT_OPS => LinkDetail::StructOps { map_id: self.data_as() },
            LinkType::NETFILTER => LinkDetail::Netfilter(self.data_as()),
            LinkType::KPROBE_MULTI => LinkDetail::KprobeMulti(self.data_as()),
            LinkType::UPROBE_MULTI => LinkDetail::UprobeMulti(self.data_as()),
            LinkType::PERF_EVENT => LinkDetail::PerfEvent(self.data_as()),
            LinkType::TCX => LinkDetail::Tcx(self.data_as()),
            LinkType::NETKIT => LinkDetail::Netkit(self.data_as()),
            LinkType::SOCKMAP => LinkDetail::Sockmap(self.data_as()),
            _ => LinkDetail::Other,
        }
    }
}

/// The part of a link's info that depends on its type. Fields that the kernel does not know are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkDetail {
    /// Raw tracepoint.
    RawTracepoint(RawTracepointLink),
    /// fentry, fexit, LSM, tp_btf, freplace.
    Tracing(TracingLink),
    /// Control group.
    Cgroup(CgroupLink),
    /// Iterator.
    Iter(IterLink),
    /// Network namespace.
    Netns(NetnsLink),
    /// XDP.
    Xdp {
        /// Device.
        ifindex: u32,
    },
    /// struct_ops.
    StructOps {
        /// Map.
        map_id: u32,
    },
    /// Netfilter hook.
    Netfilter(NetfilterLink),
    /// Many kprobes.
    KprobeMulti(KprobeMultiLink),
    /// Many uprobes.
    UprobeMulti(UprobeMultiLink),
    /// A perf event.
    PerfEvent(PerfEventLink),
    /// tcx.
    Tcx(DeviceLink),
    /// netkit.
    Netkit(DeviceLink),
    /// Socket map.
    Sockmap(SockmapLink),
    /// A type that this crate does not know, or that tells nothing more.
    Other,
}

info! {
    /// `bpf_link_info.raw_tracepoint`.
    RawTracepointLink (24) {
        pub(crate) tp_name: u64,
        /// Length of the name with its terminating zero.
        pub tp_name_len: u32,
        pub(crate) pad: u32,
        /// Cookie (Linux 6.17).
        pub cookie: u64,
    }
}

info! {
    /// `bpf_link_info.tracing`.
    TracingLink (24) {
        /// Attach type.
        pub attach_type: AttachType,
        /// Program of an freplace, else BTF object.
        pub target_obj_id: u32,
        /// Type of the function.
        pub target_btf_id: u32,
        pub(crate) pad: u32,
        /// Cookie (Linux 6.17).
        pub cookie: u64,
    }
}

info! {
    /// `bpf_link_info.cgroup`.
    CgroupLink (16) {
        /// Inode of the group; 0 when it is gone.
        pub cgroup_id: u64,
        /// Attach type.
        pub attach_type: AttachType,
        pub(crate) pad: u32,
    }
}

info! {
    /// `bpf_link_info.iter`.
    IterLink (32) {
        pub(crate) target_name: u64,
        /// Length of the name with its terminating zero.
        pub target_name_len: u32,
        /// Map iterators: the map.
        pub map_id: u32,
        /// Cgroup iterators: the group's id; task iterators: thread in the lower half, process in the upper.
        pub id: u64,
        /// Cgroup iterators: order of the walk.
        pub order: u32,
        pub(crate) pad: u32,
    }
}

info! {
    /// `bpf_link_info.netns`.
    NetnsLink (8) {
        /// Inode of the namespace; 0 when it is gone.
        pub netns_ino: u32,
        /// Attach type.
        pub attach_type: AttachType,
    }
}

info! {
    /// `bpf_link_info.netfilter`.
    NetfilterLink (16) {
        /// Protocol family.
        pub pf: u32,
        /// Hook.
        pub hooknum: u32,
        /// Priority.
        pub priority: i32,
        /// Flags.
        pub flags: u32,
    }
}

info! {
    /// `bpf_link_info.kprobe_multi`.
    KprobeMultiLink (32) {
        pub(crate) addrs: u64,
        /// How many functions.
        pub count: u32,
        /// Flags.
        pub flags: u32,
        /// Runs that were skipped.
        pub missed: u64,
        pub(crate) cookies: u64,
    }
}

info! {
    /// `bpf_link_info.uprobe_multi`.
    UprobeMultiLink (48) {
        pub(crate) path: u64,
        pub(crate) offsets: u64,
        pub(crate) ref_ctr_offsets: u64,
        pub(crate) cookies: u64,
        /// Length of the path with its terminating zero.
        pub path_size: u32,
        /// How many offsets.
        pub count: u32,
        /// Flags.
        pub flags: u32,
        /// Process, or 0.
        pub pid: u32,
    }
}

info! {
    /// `bpf_link_info.perf_event`, whose last part depends on `kind`.
    PerfEventLink (48) {
        /// What the event is.
        pub kind: PerfLinkType,
        pub(crate) pad: u32,
        pub(crate) name: u64,
        /// Probes and tracepoints: length of the name. Other events: `perf_event_attr.type`.
        pub name_len: u32,
        /// Probes: offset in bytes from the name.
        pub offset: u32,
        pub(crate) tail: [u64; 3],
    }
}

impl PerfEventLink {
    /// Address of a kprobe.
    pub fn addr(&self) -> Option<u64> {
        matches!(self.kind, PerfLinkType::KPROBE | PerfLinkType::KRETPROBE).then_some(self.tail[0])
    }

    /// Skipped runs of a kprobe.
    pub fn missed(&self) -> Option<u64> {
        matches!(self.kind, PerfLinkType::KPROBE | PerfLinkType::KRETPROBE).then_some(self.tail[1])
    }

    /// Cookie.
    pub fn cookie(&self) -> Option<u64> {
        match self.kind {
            PerfLinkType::KPROBE | PerfLinkType::KRETPROBE => Some(self.tail[2]),
            PerfLinkType::UPROBE
            | PerfLinkType::URETPROBE
            | PerfLinkType::TRACEPOINT
            | PerfLinkType::EVENT => Some(self.tail[0]),
            _ => None,
        }
    }

    /// `perf_event_attr.type` and `config` of an event that is no probe.
    pub fn event(&self) -> Option<(u32, u64)> {
        (self.kind == PerfLinkType::EVENT).then_some((self.name_len, self.name))
    }
}

info! {
    /// `bpf_link_info.{tcx,netkit}`.
    DeviceLink (8) {
        /// Device.
        pub ifindex: u32,
        /// Attach type.
        pub attach_type: AttachType,
    }
}

info! {
    /// `bpf_link_info.sockmap`.
    SockmapLink (8) {
        /// Map.
        pub map_id: u32,
        /// Attach type.
        pub attach_type: AttachType,
    }
}

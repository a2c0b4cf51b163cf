//! The enumerations of the ABI (include/uapi/linux/bpf.h). They are open: a number from a newer kernel is a value
//! without a name, never an error.

/// Declares a newtype over `u32` with the kernel's constants, each documented by its C name.
macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident { $($konst:ident = $value:literal, $c:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u32);

        impl $name {
            $(#[doc = concat!("`", $c, "`.")] pub const $konst: Self = Self($value);)*

            /// Every named value.
            pub const ALL: &'static [Self] = &[$(Self::$konst),*];

            /// The constant's name in the kernel's headers.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($c),)*
                    _ => None,
                }
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($name), "({})"), self.0),
                }
            }
        }
    };
}
pub(crate) use open_enum;

open_enum! {
    /// A command of `bpf(2)` (`enum bpf_cmd`), up to Linux 6.18.
    Cmd {
        MAP_CREATE = 0, "BPF_MAP_CREATE";
        MAP_LOOKUP_ELEM = 1, "BPF_MAP_LOOKUP_ELEM";
        MAP_UPDATE_ELEM = 2, "BPF_MAP_UPDATE_ELEM";
        MAP_DELETE_ELEM = 3, "BPF_MAP_DELETE_ELEM";
        MAP_GET_NEXT_KEY = 4, "BPF_MAP_GET_NEXT_KEY";
        PROG_LOAD = 5, "BPF_PROG_LOAD";
        OBJ_PIN = 6, "BPF_OBJ_PIN";
        OBJ_GET = 7, "BPF_OBJ_GET";
        PROG_ATTACH = 8, "BPF_PROG_ATTACH";
        PROG_DETACH = 9, "BPF_PROG_DETACH";
        PROG_TEST_RUN = 10, "BPF_PROG_TEST_RUN";
        PROG_GET_NEXT_ID = 11, "BPF_PROG_GET_NEXT_ID";
        MAP_GET_NEXT_ID = 12, "BPF_MAP_GET_NEXT_ID";
        PROG_GET_FD_BY_ID = 13, "BPF_PROG_GET_FD_BY_ID";
        MAP_GET_FD_BY_ID = 14, "BPF_MAP_GET_FD_BY_ID";
        OBJ_GET_INFO_BY_FD = 15, "BPF_OBJ_GET_INFO_BY_FD";
        PROG_QUERY = 16, "BPF_PROG_QUERY";
        RAW_TRACEPOINT_OPEN = 17, "BPF_RAW_TRACEPOINT_OPEN";
        BTF_LOAD = 18, "BPF_BTF_LOAD";
        BTF_GET_FD_BY_ID = 19, "BPF_BTF_GET_FD_BY_ID";
        TASK_FD_QUERY = 20, "BPF_TASK_FD_QUERY";
        MAP_LOOKUP_AND_DELETE_ELEM = 21, "BPF_MAP_LOOKUP_AND_DELETE_ELEM";
        MAP_FREEZE = 22, "BPF_MAP_FREEZE";
        BTF_GET_NEXT_ID = 23, "BPF_BTF_GET_NEXT_ID";
        MAP_LOOKUP_BATCH = 24, "BPF_MAP_LOOKUP_BATCH";
        MAP_LOOKUP_AND_DELETE_BATCH = 25, "BPF_MAP_LOOKUP_AND_DELETE_BATCH";
        MAP_UPDATE_BATCH = 26, "BPF_MAP_UPDATE_BATCH";
        MAP_DELETE_BATCH = 27, "BPF_MAP_DELETE_BATCH";
        LINK_CREATE = 28, "BPF_LINK_CREATE";
        LINK_UPDATE = 29, "BPF_LINK_UPDATE";
        LINK_GET_FD_BY_ID = 30, "BPF_LINK_GET_FD_BY_ID";
        LINK_GET_NEXT_ID = 31, "BPF_LINK_GET_NEXT_ID";
        ENABLE_STATS = 32, "BPF_ENABLE_STATS";
        ITER_CREATE = 33, "BPF_ITER_CREATE";
        LINK_DETACH = 34, "BPF_LINK_DETACH";
        PROG_BIND_MAP = 35, "BPF_PROG_BIND_MAP";
        TOKEN_CREATE = 36, "BPF_TOKEN_CREATE";
        PROG_STREAM_READ_BY_FD = 37, "BPF_PROG_STREAM_READ_BY_FD";
    }
}

open_enum! {
    /// What a map is (`enum bpf_map_type`), up to Linux 7.2.
    MapType {
        UNSPEC = 0, "BPF_MAP_TYPE_UNSPEC";
        HASH = 1, "BPF_MAP_TYPE_HASH";
        ARRAY = 2, "BPF_MAP_TYPE_ARRAY";
        PROG_ARRAY = 3, "BPF_MAP_TYPE_PROG_ARRAY";
        PERF_EVENT_ARRAY = 4, "BPF_MAP_TYPE_PERF_EVENT_ARRAY";
        PERCPU_HASH = 5, "BPF_MAP_TYPE_PERCPU_HASH";
        PERCPU_ARRAY = 6, "BPF_MAP_TYPE_PERCPU_ARRAY";
        STACK_TRACE = 7, "BPF_MAP_TYPE_STACK_TRACE";
        CGROUP_ARRAY = 8, "BPF_MAP_TYPE_CGROUP_ARRAY";
        LRU_HASH = 9, "BPF_MAP_TYPE_LRU_HASH";
        LRU_PERCPU_HASH = 10, "BPF_MAP_TYPE_LRU_PERCPU_HASH";
        LPM_TRIE = 11, "BPF_MAP_TYPE_LPM_TRIE";
        ARRAY_OF_MAPS = 12, "BPF_MAP_TYPE_ARRAY_OF_MAPS";
        HASH_OF_MAPS = 13, "BPF_MAP_TYPE_HASH_OF_MAPS";
        DEVMAP = 14, "BPF_MAP_TYPE_DEVMAP";
        SOCKMAP = 15, "BPF_MAP_TYPE_SOCKMAP";
        CPUMAP = 16, "BPF_MAP_TYPE_CPUMAP";
        XSKMAP = 17, "BPF_MAP_TYPE_XSKMAP";
        SOCKHASH = 18, "BPF_MAP_TYPE_SOCKHASH";
        CGROUP_STORAGE = 19, "BPF_MAP_TYPE_CGROUP_STORAGE";
        REUSEPORT_SOCKARRAY = 20, "BPF_MAP_TYPE_REUSEPORT_SOCKARRAY";
        PERCPU_CGROUP_STORAGE = 21, "BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE";
        QUEUE = 22, "BPF_MAP_TYPE_QUEUE";
        STACK = 23, "BPF_MAP_TYPE_STACK";
        SK_STORAGE = 24, "BPF_MAP_TYPE_SK_STORAGE";
        DEVMAP_HASH = 25, "BPF_MAP_TYPE_DEVMAP_HASH";
        STRUCT_OPS = 26, "BPF_MAP_TYPE_STRUCT_OPS";
        RINGBUF = 27, "BPF_MAP_TYPE_RINGBUF";
        INODE_STORAGE = 28, "BPF_MAP_TYPE_INODE_STORAGE";
        TASK_STORAGE = 29, "BPF_MAP_TYPE_TASK_STORAGE";
        BLOOM_FILTER = 30, "BPF_MAP_TYPE_BLOOM_FILTER";
        USER_RINGBUF = 31, "BPF_MAP_TYPE_USER_RINGBUF";
        CGRP_STORAGE = 32, "BPF_MAP_TYPE_CGRP_STORAGE";
        ARENA = 33, "BPF_MAP_TYPE_ARENA";
        INSN_ARRAY = 34, "BPF_MAP_TYPE_INSN_ARRAY";
        RHASH = 35, "BPF_MAP_TYPE_RHASH";
    }
}

impl MapType {
    /// First Linux version that has maps of this type; `None` for numbers without a name.
    pub const fn min_kernel(self) -> Option<(u8, u8)> {
        Some(match self {
            Self::HASH | Self::ARRAY => (3, 19),
            Self::PROG_ARRAY => (4, 2),
            Self::PERF_EVENT_ARRAY => (4, 3),
            Self::PERCPU_HASH | Self::PERCPU_ARRAY | Self::STACK_TRACE => (4, 6),
            Self::CGROUP_ARRAY => (4, 8),
            Self::LRU_HASH | Self::LRU_PERCPU_HASH => (4, 10),
            Self::LPM_TRIE => (4, 11),
            Self::ARRAY_OF_MAPS | Self::HASH_OF_MAPS => (4, 12),
            Self::DEVMAP | Self::SOCKMAP => (4, 14),
            Self::CPUMAP => (4, 15),
            Self::XSKMAP | Self::SOCKHASH => (4, 18),
            Self::CGROUP_STORAGE | Self::REUSEPORT_SOCKARRAY => (4, 19),
            Self::PERCPU_CGROUP_STORAGE | Self::QUEUE | Self::STACK => (4, 20),
            Self::SK_STORAGE => (5, 2),
            Self::DEVMAP_HASH => (5, 4),
            Self::STRUCT_OPS => (5, 6),
            Self::RINGBUF => (5, 8),
            Self::INODE_STORAGE => (5, 10),
            Self::TASK_STORAGE => (5, 11),
            Self::BLOOM_FILTER => (5, 16),
            Self::USER_RINGBUF => (6, 1),
            Self::CGRP_STORAGE => (6, 2),
            Self::ARENA => (6, 9),
            Self::INSN_ARRAY => (6, 19),
            Self::RHASH => (7, 2),
            _ => return None,
        })
    }
}

open_enum! {
    /// What a program is (`enum bpf_prog_type`), up to Linux 6.18.
    ProgType {
        UNSPEC = 0, "BPF_PROG_TYPE_UNSPEC";
        SOCKET_FILTER = 1, "BPF_PROG_TYPE_SOCKET_FILTER";
        KPROBE = 2, "BPF_PROG_TYPE_KPROBE";
        SCHED_CLS = 3, "BPF_PROG_TYPE_SCHED_CLS";
        SCHED_ACT = 4, "BPF_PROG_TYPE_SCHED_ACT";
        TRACEPOINT = 5, "BPF_PROG_TYPE_TRACEPOINT";
        XDP = 6, "BPF_PROG_TYPE_XDP";
        PERF_EVENT = 7, "BPF_PROG_TYPE_PERF_EVENT";
        CGROUP_SKB = 8, "BPF_PROG_TYPE_CGROUP_SKB";
        CGROUP_SOCK = 9, "BPF_PROG_TYPE_CGROUP_SOCK";
        LWT_IN = 10, "BPF_PROG_TYPE_LWT_IN";
        LWT_OUT = 11, "BPF_PROG_TYPE_LWT_OUT";
        LWT_XMIT = 12, "BPF_PROG_TYPE_LWT_XMIT";
        SOCK_OPS = 13, "BPF_PROG_TYPE_SOCK_OPS";
        SK_SKB = 14, "BPF_PROG_TYPE_SK_SKB";
        CGROUP_DEVICE = 15, "BPF_PROG_TYPE_CGROUP_DEVICE";
        SK_MSG = 16, "BPF_PROG_TYPE_SK_MSG";
        RAW_TRACEPOINT = 17, "BPF_PROG_TYPE_RAW_TRACEPOINT";
        CGROUP_SOCK_ADDR = 18, "BPF_PROG_TYPE_CGROUP_SOCK_ADDR";
        LWT_SEG6LOCAL = 19, "BPF_PROG_TYPE_LWT_SEG6LOCAL";
        LIRC_MODE2 = 20, "BPF_PROG_TYPE_LIRC_MODE2";
        SK_REUSEPORT = 21, "BPF_PROG_TYPE_SK_REUSEPORT";
        FLOW_DISSECTOR = 22, "BPF_PROG_TYPE_FLOW_DISSECTOR";
        CGROUP_SYSCTL = 23, "BPF_PROG_TYPE_CGROUP_SYSCTL";
        RAW_TRACEPOINT_WRITABLE = 24, "BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE";
        CGROUP_SOCKOPT = 25, "BPF_PROG_TYPE_CGROUP_SOCKOPT";
        TRACING = 26, "BPF_PROG_TYPE_TRACING";
        STRUCT_OPS = 27, "BPF_PROG_TYPE_STRUCT_OPS";
        EXT = 28, "BPF_PROG_TYPE_EXT";
        LSM = 29, "BPF_PROG_TYPE_LSM";
        SK_LOOKUP = 30, "BPF_PROG_TYPE_SK_LOOKUP";
        SYSCALL = 31, "BPF_PROG_TYPE_SYSCALL";
        NETFILTER = 32, "BPF_PROG_TYPE_NETFILTER";
    }
}

open_enum! {
    /// Where a program goes (`enum bpf_attach_type`), up to Linux 7.2.
    AttachType {
        CGROUP_INET_INGRESS = 0, "BPF_CGROUP_INET_INGRESS";
        CGROUP_INET_EGRESS = 1, "BPF_CGROUP_INET_EGRESS";
        CGROUP_INET_SOCK_CREATE = 2, "BPF_CGROUP_INET_SOCK_CREATE";
        CGROUP_SOCK_OPS = 3, "BPF_CGROUP_SOCK_OPS";
        SK_SKB_STREAM_PARSER = 4, "BPF_SK_SKB_STREAM_PARSER";
        SK_SKB_STREAM_VERDICT = 5, "BPF_SK_SKB_STREAM_VERDICT";
        CGROUP_DEVICE = 6, "BPF_CGROUP_DEVICE";
        SK_MSG_VERDICT = 7, "BPF_SK_MSG_VERDICT";
        CGROUP_INET4_BIND = 8, "BPF_CGROUP_INET4_BIND";
        CGROUP_INET6_BIND = 9, "BPF_CGROUP_INET6_BIND";
        CGROUP_INET4_CONNECT = 10, "BPF_CGROUP_INET4_CONNECT";
        CGROUP_INET6_CONNECT = 11, "BPF_CGROUP_INET6_CONNECT";
        CGROUP_INET4_POST_BIND = 12, "BPF_CGROUP_INET4_POST_BIND";
        CGROUP_INET6_POST_BIND = 13, "BPF_CGROUP_INET6_POST_BIND";
        CGROUP_UDP4_SENDMSG = 14, "BPF_CGROUP_UDP4_SENDMSG";
        CGROUP_UDP6_SENDMSG = 15, "BPF_CGROUP_UDP6_SENDMSG";
        LIRC_MODE2 = 16, "BPF_LIRC_MODE2";
        FLOW_DISSECTOR = 17, "BPF_FLOW_DISSECTOR";
        CGROUP_SYSCTL = 18, "BPF_CGROUP_SYSCTL";
        CGROUP_UDP4_RECVMSG = 19, "BPF_CGROUP_UDP4_RECVMSG";
        CGROUP_UDP6_RECVMSG = 20, "BPF_CGROUP_UDP6_RECVMSG";
        CGROUP_GETSOCKOPT = 21, "BPF_CGROUP_GETSOCKOPT";
        CGROUP_SETSOCKOPT = 22, "BPF_CGROUP_SETSOCKOPT";
        TRACE_RAW_TP = 23, "BPF_TRACE_RAW_TP";
        TRACE_FENTRY = 24, "BPF_TRACE_FENTRY";
        TRACE_FEXIT = 25, "BPF_TRACE_FEXIT";
        MODIFY_RETURN = 26, "BPF_MODIFY_RETURN";
        LSM_MAC = 27, "BPF_LSM_MAC";
        TRACE_ITER = 28, "BPF_TRACE_ITER";
        CGROUP_INET4_GETPEERNAME = 29, "BPF_CGROUP_INET4_GETPEERNAME";
        CGROUP_INET6_GETPEERNAME = 30, "BPF_CGROUP_INET6_GETPEERNAME";
        CGROUP_INET4_GETSOCKNAME = 31, "BPF_CGROUP_INET4_GETSOCKNAME";
        CGROUP_INET6_GETSOCKNAME = 32, "BPF_CGROUP_INET6_GETSOCKNAME";
        XDP_DEVMAP = 33, "BPF_XDP_DEVMAP";
        CGROUP_INET_SOCK_RELEASE = 34, "BPF_CGROUP_INET_SOCK_RELEASE";
        XDP_CPUMAP = 35, "BPF_XDP_CPUMAP";
        SK_LOOKUP = 36, "BPF_SK_LOOKUP";
        XDP = 37, "BPF_XDP";
        SK_SKB_VERDICT = 38, "BPF_SK_SKB_VERDICT";
        SK_REUSEPORT_SELECT = 39, "BPF_SK_REUSEPORT_SELECT";
        SK_REUSEPORT_SELECT_OR_MIGRATE = 40, "BPF_SK_REUSEPORT_SELECT_OR_MIGRATE";
        PERF_EVENT = 41, "BPF_PERF_EVENT";
        TRACE_KPROBE_MULTI = 42, "BPF_TRACE_KPROBE_MULTI";
        LSM_CGROUP = 43, "BPF_LSM_CGROUP";
        STRUCT_OPS = 44, "BPF_STRUCT_OPS";
        NETFILTER = 45, "BPF_NETFILTER";
        TCX_INGRESS = 46, "BPF_TCX_INGRESS";
        TCX_EGRESS = 47, "BPF_TCX_EGRESS";
        TRACE_UPROBE_MULTI = 48, "BPF_TRACE_UPROBE_MULTI";
        CGROUP_UNIX_CONNECT = 49, "BPF_CGROUP_UNIX_CONNECT";
        CGROUP_UNIX_SENDMSG = 50, "BPF_CGROUP_UNIX_SENDMSG";
        CGROUP_UNIX_RECVMSG = 51, "BPF_CGROUP_UNIX_RECVMSG";
        CGROUP_UNIX_GETPEERNAME = 52, "BPF_CGROUP_UNIX_GETPEERNAME";
        CGROUP_UNIX_GETSOCKNAME = 53, "BPF_CGROUP_UNIX_GETSOCKNAME";
        NETKIT_PRIMARY = 54, "BPF_NETKIT_PRIMARY";
        NETKIT_PEER = 55, "BPF_NETKIT_PEER";
        TRACE_KPROBE_SESSION = 56, "BPF_TRACE_KPROBE_SESSION";
        TRACE_UPROBE_SESSION = 57, "BPF_TRACE_UPROBE_SESSION";
        TRACE_FSESSION = 58, "BPF_TRACE_FSESSION";
        TRACE_FENTRY_MULTI = 59, "BPF_TRACE_FENTRY_MULTI";
        TRACE_FEXIT_MULTI = 60, "BPF_TRACE_FEXIT_MULTI";
        TRACE_FSESSION_MULTI = 61, "BPF_TRACE_FSESSION_MULTI";
    }
}

open_enum! {
    /// What a link holds (`enum bpf_link_type`), up to Linux 7.2.
    LinkType {
        UNSPEC = 0, "BPF_LINK_TYPE_UNSPEC";
        RAW_TRACEPOINT = 1, "BPF_LINK_TYPE_RAW_TRACEPOINT";
        TRACING = 2, "BPF_LINK_TYPE_TRACING";
        CGROUP = 3, "BPF_LINK_TYPE_CGROUP";
        ITER = 4, "BPF_LINK_TYPE_ITER";
        NETNS = 5, "BPF_LINK_TYPE_NETNS";
        XDP = 6, "BPF_LINK_TYPE_XDP";
        PERF_EVENT = 7, "BPF_LINK_TYPE_PERF_EVENT";
        KPROBE_MULTI = 8, "BPF_LINK_TYPE_KPROBE_MULTI";
        STRUCT_OPS = 9, "BPF_LINK_TYPE_STRUCT_OPS";
        NETFILTER = 10, "BPF_LINK_TYPE_NETFILTER";
        TCX = 11, "BPF_LINK_TYPE_TCX";
        UPROBE_MULTI = 12, "BPF_LINK_TYPE_UPROBE_MULTI";
        NETKIT = 13, "BPF_LINK_TYPE_NETKIT";
        SOCKMAP = 14, "BPF_LINK_TYPE_SOCKMAP";
        TRACING_MULTI = 15, "BPF_LINK_TYPE_TRACING_MULTI";
    }
}

open_enum! {
    /// What the perf event of a link is (`enum bpf_perf_event_type`, Linux 6.6).
    PerfLinkType {
        UNSPEC = 0, "BPF_PERF_EVENT_UNSPEC";
        UPROBE = 1, "BPF_PERF_EVENT_UPROBE";
        URETPROBE = 2, "BPF_PERF_EVENT_URETPROBE";
        KPROBE = 3, "BPF_PERF_EVENT_KPROBE";
        KRETPROBE = 4, "BPF_PERF_EVENT_KRETPROBE";
        TRACEPOINT = 5, "BPF_PERF_EVENT_TRACEPOINT";
        EVENT = 6, "BPF_PERF_EVENT_EVENT";
    }
}

open_enum! {
    /// What the fd of another task traces (`enum bpf_task_fd_type`).
    TaskFdType {
        RAW_TRACEPOINT = 0, "BPF_FD_TYPE_RAW_TRACEPOINT";
        TRACEPOINT = 1, "BPF_FD_TYPE_TRACEPOINT";
        KPROBE = 2, "BPF_FD_TYPE_KPROBE";
        KRETPROBE = 3, "BPF_FD_TYPE_KRETPROBE";
        UPROBE = 4, "BPF_FD_TYPE_UPROBE";
        URETPROBE = 5, "BPF_FD_TYPE_URETPROBE";
    }
}

open_enum! {
    /// Statistics that can be switched on (`enum bpf_stats_type`).
    StatsType {
        RUN_TIME = 0, "BPF_STATS_RUN_TIME";
    }
}

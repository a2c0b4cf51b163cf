//! Flags of the commands, under their names in include/uapi/linux/bpf.h.

macro_rules! flags {
    ($($(#[$meta:meta])* $name:ident: $ty:ty = $value:expr;)*) => {
        $($(#[$meta])* pub const $name: $ty = $value;)*
        /// Each constant by name, for the comparison with the kernel's headers.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, u64)] = &[$((stringify!($name), $name as u64)),*];
    };
}

flags! {
    /// Element update: create or replace.
    BPF_ANY: u64 = 0;
    /// Element update: create only.
    BPF_NOEXIST: u64 = 1;
    /// Element update: replace only.
    BPF_EXIST: u64 = 2;
    /// Take the value's spin lock (Linux 5.1).
    BPF_F_LOCK: u64 = 4;

    /// Map creation: allocate elements when they are made (hash maps).
    BPF_F_NO_PREALLOC: u32 = 1 << 0;
    /// Map creation: one LRU list a CPU.
    BPF_F_NO_COMMON_LRU: u32 = 1 << 1;
    /// Map creation: allocate on a given NUMA node.
    BPF_F_NUMA_NODE: u32 = 1 << 2;
    /// The fd may only read.
    BPF_F_RDONLY: u32 = 1 << 3;
    /// The fd may only write.
    BPF_F_WRONLY: u32 = 1 << 4;
    /// Stack maps: store build id and offset.
    BPF_F_STACK_BUILD_ID: u32 = 1 << 5;
    /// Hash maps: seed 0, for tests.
    BPF_F_ZERO_SEED: u32 = 1 << 6;
    /// Programs may only read (Linux 5.2).
    BPF_F_RDONLY_PROG: u32 = 1 << 7;
    /// Programs may only write (Linux 5.2).
    BPF_F_WRONLY_PROG: u32 = 1 << 8;
    /// Socket storage: clone for accepted sockets (Linux 5.4).
    BPF_F_CLONE: u32 = 1 << 9;
    /// Array maps can be mapped into memory (Linux 5.5).
    BPF_F_MMAPABLE: u32 = 1 << 10;
    /// Perf event arrays keep events when the fd that set them closes (Linux 5.10).
    BPF_F_PRESERVE_ELEMS: u32 = 1 << 11;
    /// Inner map of any number of entries (Linux 5.10).
    BPF_F_INNER_MAP: u32 = 1 << 12;
    /// struct_ops map that a link registers (Linux 6.4).
    BPF_F_LINK: u32 = 1 << 13;
    /// A path is relative to an fd (Linux 6.5).
    BPF_F_PATH_FD: u32 = 1 << 14;
    /// The value's BTF is a module's (Linux 6.9).
    BPF_F_VTYPE_BTF_OBJ_FD: u32 = 1 << 15;
    /// A token is passed (Linux 6.9); set by this crate where a token is given.
    BPF_F_TOKEN_FD: u32 = 1 << 16;
    /// Arena: SIGSEGV on access to a page that was not allocated (Linux 6.9).
    BPF_F_SEGV_ON_FAULT: u32 = 1 << 17;
    /// Arena: leave pointers untranslated (Linux 6.9).
    BPF_F_NO_USER_CONV: u32 = 1 << 18;
    /// BPF ring buffer: new records overwrite old ones (Linux 6.19).
    BPF_F_RB_OVERWRITE: u32 = 1 << 19;

    /// Program load: check alignment strictly.
    BPF_F_STRICT_ALIGNMENT: u32 = 1 << 0;
    /// Program load: allow unaligned access.
    BPF_F_ANY_ALIGNMENT: u32 = 1 << 1;
    /// Program load: randomise upper halves, for tests of the verifier.
    BPF_F_TEST_RND_HI32: u32 = 1 << 2;
    /// Program load: checkpoint often, for tests of the verifier.
    BPF_F_TEST_STATE_FREQ: u32 = 1 << 3;
    /// Program load: may sleep (Linux 5.10).
    BPF_F_SLEEPABLE: u32 = 1 << 4;
    /// Program load: XDP with several buffers (Linux 5.18).
    BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
    /// Program load: bound to a device without offload (Linux 6.3).
    BPF_F_XDP_DEV_BOUND_ONLY: u32 = 1 << 6;
    /// Program load: check register bounds, for tests of the verifier (Linux 6.8).
    BPF_F_TEST_REG_INVARIANTS: u32 = 1 << 7;

    /// Attach to a cgroup: descendants may replace it.
    BPF_F_ALLOW_OVERRIDE: u32 = 1 << 0;
    /// Attach to a cgroup: descendants' programs run too.
    BPF_F_ALLOW_MULTI: u32 = 1 << 1;
    /// Replace the given program.
    BPF_F_REPLACE: u32 = 1 << 2;
    /// Attach before the given program (Linux 6.6).
    BPF_F_BEFORE: u32 = 1 << 3;
    /// Attach after the given program (Linux 6.6).
    BPF_F_AFTER: u32 = 1 << 4;
    /// The given program is named by its id (Linux 6.6).
    BPF_F_ID: u32 = 1 << 5;
    /// Run before the parent's programs (Linux 6.15).
    BPF_F_PREORDER: u32 = 1 << 6;

    /// kprobe_multi: probe returns (Linux 5.18).
    BPF_F_KPROBE_MULTI_RETURN: u32 = 1 << 0;
    /// uprobe_multi: probe returns (Linux 6.6).
    BPF_F_UPROBE_MULTI_RETURN: u32 = 1 << 0;
    /// Netfilter: reassemble fragments first (Linux 6.6).
    BPF_F_NETFILTER_IP_DEFRAG: u32 = 1 << 0;

    /// Query: programs in effect, inherited ones too.
    BPF_F_QUERY_EFFECTIVE: u32 = 1 << 0;
    /// Test run: on the CPU given (Linux 5.10).
    BPF_F_TEST_RUN_ON_CPU: u32 = 1 << 0;
    /// Test run: transmit the frames (Linux 5.18).
    BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

    /// Ring buffer header: not committed yet.
    BPF_RINGBUF_BUSY_BIT: u32 = 1 << 31;
    /// Ring buffer header: discarded.
    BPF_RINGBUF_DISCARD_BIT: u32 = 1 << 30;
    /// Ring buffer header: its size in bytes.
    BPF_RINGBUF_HDR_SZ: u32 = 8;

    /// Ring buffer commit: no wake-up of the reader.
    BPF_RB_NO_WAKEUP: u64 = 1 << 0;
    /// Ring buffer commit: wake-up of the reader in any case.
    BPF_RB_FORCE_WAKEUP: u64 = 1 << 1;

    /// Standard output of a program's stream (Linux 6.17).
    BPF_STREAM_STDOUT: u32 = 1;
    /// Standard error of a program's stream (Linux 6.17).
    BPF_STREAM_STDERR: u32 = 2;
}
